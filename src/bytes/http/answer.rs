//! The heads of our answers: a stream, a short answer, a preflight.

use std::fmt::{self, Write as _};

/// The methods of the public listener.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// What a browser may read of an answer (Fetch standard, "CORS protocol").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cors<'a> {
    /// The request's origin, if it is allowed.
    pub allow_origin: Option<&'a [u8]>,
    /// CORS is on: every answer depends on the origin, and caches must know.
    pub vary: bool,
}

/// An answer that is no stream.
#[derive(Clone, Copy)]
pub struct ShortAnswer<'a> {
    pub status: Status,
    /// One line of text; control characters are shown as `?`.
    pub body: &'a dyn fmt::Display,
    /// Whether the request allows another one to follow; [`Status::closes`] overrules it.
    pub keep_alive: bool,
    /// An answer to HEAD: no body, but the fields it would have.
    pub head_only: bool,
    pub cors: Cors<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok200,
    BadRequest400,
    Unauthorized401,
    Forbidden403,
    NotFound404,
    MethodNotAllowed405,
    RequestTimeout408,
    LengthRequired411,
    ContentTooLarge413,
    HeaderFieldsTooLarge431,
    ServiceUnavailable503,
    VersionNotSupported505,
}

impl Status {
    /// Status code and reason phrase (RFC 9110 15).
    #[must_use]
    pub fn line(self) -> &'static str {
        match self {
            Self::Ok200 => "200 OK",
            Self::BadRequest400 => "400 Bad Request",
            Self::Unauthorized401 => "401 Unauthorized",
            Self::Forbidden403 => "403 Forbidden",
            Self::NotFound404 => "404 Not Found",
            Self::MethodNotAllowed405 => "405 Method Not Allowed",
            Self::RequestTimeout408 => "408 Request Timeout",
            Self::LengthRequired411 => "411 Length Required",
            Self::ContentTooLarge413 => "413 Content Too Large",
            Self::HeaderFieldsTooLarge431 => "431 Request Header Fields Too Large",
            Self::ServiceUnavailable503 => "503 Service Unavailable",
            Self::VersionNotSupported505 => "505 HTTP Version Not Supported",
        }
    }

    /// Whether the connection ends after it: what follows such a request is not to be trusted.
    #[must_use]
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest400
                | Self::RequestTimeout408
                | Self::LengthRequired411
                | Self::ContentTooLarge413
                | Self::HeaderFieldsTooLarge431
                | Self::VersionNotSupported505
        )
    }
}

impl<'a> Cors<'a> {
    /// Compares a request's `Origin` with the exact origins that are allowed; none of those: CORS
    /// is off.
    #[must_use]
    pub fn new(allowed: &[String], origin: Option<&'a [u8]>) -> Self {
        let is_allowed = |origin: &&[u8]| allowed.iter().any(|a| a.as_bytes() == *origin);
        Self { allow_origin: origin.filter(is_allowed), vary: !allowed.is_empty() }
    }

    fn write(self, out: &mut Vec<u8>) {
        if let Some(origin) = self.allow_origin {
            out.extend_from_slice(b"Access-Control-Allow-Origin: ");
            out.extend_from_slice(origin);
            // Origins are named one by one, so a page may ask `withCredentials`.
            out.extend_from_slice(b"\r\nAccess-Control-Allow-Credentials: true\r\n");
        }
        if self.vary {
            out.extend_from_slice(b"Vary: Origin\r\n");
        }
    }
}

/// Appends the head of a stream, which the end of the connection delimits (RFC 9112 6.3).
pub fn stream_head(cors: Cors<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\n\
          Content-Type: text/event-stream\r\n\
          Cache-Control: no-cache, no-transform\r\n\
          X-Accel-Buffering: no\r\n\
          Connection: close\r\n",
    );
    cors.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole answer with a body of one line of text.
pub fn short_answer(answer: &ShortAnswer<'_>, out: &mut Vec<u8>) {
    let mut body = String::new();
    // Writing to a string fails only where a `Display` says so; what it has written then stands.
    let _ = write!(body, "{}", answer.body);
    let mut body: String = body.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    body.push('\n');

    let keep_alive = answer.keep_alive && !answer.status.closes();
    let head = format!(
        "HTTP/1.1 {}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Connection: {}\r\n",
        answer.status.line(),
        body.len(),
        connection(keep_alive),
    );
    out.extend_from_slice(head.as_bytes());
    match answer.status {
        Status::MethodNotAllowed405 => write_allow(out),
        Status::Unauthorized401 => out.extend_from_slice(b"WWW-Authenticate: Bearer\r\n"),
        _ => {}
    }
    answer.cors.write(out);
    out.extend_from_slice(b"\r\n");
    if !answer.head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Appends the answer to `OPTIONS`. The request fields allowed are those that pages and
/// EventSource polyfills send; a day is the longest that browsers remember.
pub fn preflight(cors: Cors<'_>, keep_alive: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 204 No Content\r\n");
    write_allow(out);
    if cors.allow_origin.is_some() {
        out.extend_from_slice(
            b"Access-Control-Allow-Methods: GET, HEAD\r\n\
              Access-Control-Allow-Headers: Last-Event-ID, Cache-Control, X-Requested-With\r\n\
              Access-Control-Max-Age: 86400\r\n",
        );
    }
    cors.write(out);
    out.extend_from_slice(b"Connection: ");
    out.extend_from_slice(connection(keep_alive).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

fn write_allow(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Allow: ");
    out.extend_from_slice(ALLOW.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "keep-alive" } else { "close" }
}
