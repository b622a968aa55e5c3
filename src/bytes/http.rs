//! Request heads (RFC 9112), checked strictly and read without allocation; `answer` has ours.

use std::fmt;
use std::mem::MaybeUninit;

use crate::ground::limits::{HEAD_FIELDS_MAX, SKIPPED_BODY_BYTES_MAX};

mod answer;
#[cfg(test)]
mod tests;

pub use answer::{Cors, ShortAnswer, Status, preflight, short_answer, stream_head};

/// What [`parse_head`] makes of the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole head, which ends after `consumed` bytes; the body, or the next head, follows.
    Complete { head: RequestHead<'a>, consumed: usize },
    /// The head goes on: ask again with more bytes.
    Partial,
}

/// A request head, reduced to what this server acts on. Borrows from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    pub method: Method,
    /// Path and query in visible ASCII, as sent: an absolute-form is reduced to them (`/`, or the
    /// query alone, where it has no path). `*` for `OPTIONS *`.
    pub target: &'a [u8],
    /// The authority asked for: of an absolute-form, else of `Host`. `None` on HTTP/1.0 only.
    pub host: Option<&'a [u8]>,
    /// Whether another request may follow a short answer on this connection: HTTP/1.1 without
    /// `Connection: close`, and a body that is short, of known length, and sure to come.
    pub keep_alive: bool,
    /// Length of the body by `Content-Length`; 0 without one.
    pub body_bytes: u64,
    /// The body comes in chunks; its length is not known. Implies `!keep_alive`.
    pub chunked: bool,
    pub origin: Option<&'a [u8]>,
    pub authorization: Option<&'a [u8]>,
    /// Trimmed, of the last such line; an empty one is `None`.
    pub last_event_id: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Options,
    Post,
    Other,
}

/// Why a head is refused. `Display` is the line that the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    RequestLine,
    Version,
    LineEnd,
    FieldName,
    FieldValue,
    TooManyFields,
    HeadTooLarge { head_bytes_max: usize },
    HostMissing,
    HostRepeated,
    HostInvalid,
    TargetForm,
    TargetBytes,
    TargetFragment,
    ContentLength,
    ContentLengthRepeated,
    TransferEncoding,
    TwoFramings,
}

/// Parses the head at the start of `input`, which may be more than the head, or less.
///
/// The answer does not depend on how the bytes arrive: as long as a longer input could still be a
/// good head, it is [`Parsed::Partial`], and once it is anything else, more bytes do not change it.
/// Costs a pass over `input`, so bytes that come one by one cost at most `head_bytes_max`² / 2.
///
/// Empty lines before the request-line are skipped and count as the head's (RFC 9112 2.2). A line
/// may end in LF alone (same section), but then the connection is not kept: a proxy that reads such
/// a head otherwise than we do must find nothing behind it.
///
/// # Errors
/// [`BadRequest`]: answer with [`BadRequest::status`] and close.
pub fn parse_head(input: &[u8], head_bytes_max: usize) -> Result<Parsed<'_>, BadRequest> {
    let bounded = input.get(..head_bytes_max).unwrap_or(input);
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bounded, &mut fields) {
        Ok(httparse::Status::Complete(consumed)) => {
            let bytes = bounded.get(..consumed).unwrap_or(bounded);
            let head = check_head(&request, bytes)?;
            Ok(Parsed::Complete { head, consumed })
        }
        Ok(httparse::Status::Partial) if input.len() < head_bytes_max => Ok(Parsed::Partial),
        Ok(httparse::Status::Partial) => Err(BadRequest::HeadTooLarge { head_bytes_max }),
        Err(error) => Err(syntax_error(error, bounded)),
    }
}

impl BadRequest {
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::TooManyFields | Self::HeadTooLarge { .. } => Status::HeaderFieldsTooLarge431,
            Self::Version => Status::VersionNotSupported505,
            _ => Status::BadRequest400,
        }
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => {
                "bad request line: expected a method, a target in visible ASCII and HTTP/1.1, \
                 one space between them"
            }
            Self::Version => "this server speaks HTTP/1.1 and HTTP/1.0 only",
            Self::LineEnd => "bad line end: expected CR LF",
            Self::FieldName => {
                "bad field line: expected a name, a colon right behind it, and a value on the \
                 same line"
            }
            Self::FieldValue => "bad field value: control bytes are not allowed",
            Self::TooManyFields => {
                return write!(f, "too many field lines: at most {HEAD_FIELDS_MAX} are allowed");
            }
            Self::HeadTooLarge { head_bytes_max } => {
                return write!(
                    f,
                    "request head too large: at most {head_bytes_max} bytes are allowed"
                );
            }
            Self::HostMissing => "no Host field: HTTP/1.1 requires one",
            Self::HostRepeated => "more than one Host field: exactly one is allowed",
            Self::HostInvalid => "bad host: expected a name or an address, and perhaps a port",
            Self::TargetForm => {
                "bad request target: expected a path, or an http URL (RFC 9112 3.2)"
            }
            Self::TargetBytes => "bad request target: bytes beyond ASCII must be percent-encoded",
            Self::TargetFragment => "bad request target: a fragment (#) is not sent to servers",
            Self::ContentLength => "bad Content-Length: expected one decimal number",
            Self::ContentLengthRepeated => "more than one Content-Length: only one is allowed",
            Self::TransferEncoding => {
                "bad Transfer-Encoding: only chunked is allowed, once, on HTTP/1.1"
            }
            Self::TwoFramings => "both Content-Length and Transfer-Encoding: only one is allowed",
        })
    }
}

impl std::error::Error for BadRequest {}

/// The field lines that matter, checked one by one.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    expect: bool,
    origin: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    last_event_id: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), BadRequest> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("host") {
            if self.host.replace(value).is_some() {
                return Err(BadRequest::HostRepeated);
            }
            if !is_host(value) {
                return Err(BadRequest::HostInvalid);
            }
        } else if is("content-length") {
            let length = decimal(value).ok_or(BadRequest::ContentLength)?;
            if self.content_length.replace(length).is_some() {
                return Err(BadRequest::ContentLengthRepeated);
            }
        } else if is("transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(BadRequest::TransferEncoding);
            }
            self.chunked = true;
        } else if is("connection") {
            let mut options = value.split(|&byte| byte == b',');
            self.close |= options.any(|o| o.trim_ascii().eq_ignore_ascii_case(b"close"));
        } else if is("expect") {
            self.expect = true;
        } else if is("origin") {
            self.origin = Some(value);
        } else if is("authorization") {
            self.authorization = Some(value);
        } else if is("last-event-id") {
            self.last_event_id = Some(value.trim_ascii()).filter(|id| !id.is_empty());
        }
        Ok(())
    }
}

fn check_head<'a>(
    request: &httparse::Request<'_, 'a>,
    bytes: &[u8],
) -> Result<RequestHead<'a>, BadRequest> {
    let mut fields = Fields::default();
    for line in request.headers.iter() {
        fields.add(line.name, line.value)?;
    }
    let http_11 = request.version == Some(1);
    if http_11 && fields.host.is_none() {
        return Err(BadRequest::HostMissing);
    }
    if fields.chunked && fields.content_length.is_some() {
        return Err(BadRequest::TwoFramings);
    }
    if fields.chunked && !http_11 {
        // RFC 9112 6.1: such a message must be treated as faulty.
        return Err(BadRequest::TransferEncoding);
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("OPTIONS") => Method::Options,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    let (authority, target) = check_target(request.path.unwrap_or_default(), method)?;
    let body_bytes = fields.content_length.unwrap_or(0);
    // After a final status, a client that sent `Expect: 100-continue` may or may not send its body
    // (RFC 9110 10.1.1): where the next request starts cannot be known.
    let body_is_sure = !fields.expect || body_bytes == 0;
    Ok(RequestHead {
        method,
        target,
        host: authority.or(fields.host),
        keep_alive: http_11
            && !fields.close
            && !fields.chunked
            && body_is_sure
            && body_bytes <= SKIPPED_BODY_BYTES_MAX
            && !has_bare_line_feed(bytes),
        body_bytes,
        chunked: fields.chunked,
        origin: fields.origin,
        authorization: fields.authorization,
        last_event_id: fields.last_event_id,
    })
}

/// Takes a request target apart: authority (of an absolute-form), path and query (RFC 9112 3.2).
fn check_target(target: &str, method: Method) -> Result<(Option<&[u8]>, &[u8]), BadRequest> {
    if !target.is_ascii() {
        return Err(BadRequest::TargetBytes);
    }
    let target = target.as_bytes();
    if target.contains(&b'#') {
        return Err(BadRequest::TargetFragment);
    }
    if target.starts_with(b"/") || (target == b"*" && method == Method::Options) {
        return Ok((None, target));
    }
    let after_scheme = strip_prefix_ignoring_case(target, b"http://")
        .or_else(|| strip_prefix_ignoring_case(target, b"https://"))
        .ok_or(BadRequest::TargetForm)?;
    let authority_end = after_scheme.iter().position(|&byte| matches!(byte, b'/' | b'?'));
    let (authority, rest) = after_scheme
        .split_at_checked(authority_end.unwrap_or(after_scheme.len()))
        .ok_or(BadRequest::TargetForm)?;
    if !is_host(authority) {
        return Err(BadRequest::HostInvalid);
    }
    Ok((Some(authority), if rest.is_empty() { b"/" } else { rest }))
}

/// `uri-host [ ":" port ]` (RFC 9110 7.2), where the host must not be empty (4.2.1).
fn is_host(value: &[u8]) -> bool {
    let (host_is_good, port) = if let Some(literal) = value.strip_prefix(b"[") {
        let mut parts = literal.splitn(2, |&byte| byte == b']');
        let (Some(address), Some(port)) = (parts.next(), parts.next()) else { return false };
        let is_address_byte = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
        (!address.is_empty() && address.iter().all(is_address_byte), port)
    } else {
        let name_bytes = value.iter().position(|&byte| byte == b':').unwrap_or(value.len());
        let (name, port) = value.split_at_checked(name_bytes).unwrap_or((value, b""));
        let is_name_byte = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(b);
        (!name.is_empty() && name.iter().all(is_name_byte), port)
    };
    let port_is_good = match port.split_first() {
        None => true,
        Some((colon, digits)) => *colon == b':' && digits.iter().all(u8::is_ascii_digit),
    };
    host_is_good && port_is_good
}

/// What httparse found wrong, as ours. Looks at no byte behind the one that was wrong, so that the
/// answer is the same however the bytes arrive.
fn syntax_error(error: httparse::Error, input: &[u8]) -> BadRequest {
    match error {
        httparse::Error::Version if names_other_version(input) => BadRequest::Version,
        httparse::Error::HeaderName => BadRequest::FieldName,
        httparse::Error::HeaderValue => BadRequest::FieldValue,
        httparse::Error::NewLine => BadRequest::LineEnd,
        httparse::Error::TooManyHeaders => BadRequest::TooManyFields,
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => {
            BadRequest::RequestLine
        }
    }
}

/// Whether the third word of the request-line, which is not HTTP/1.0 or 1.1, is another version.
fn names_other_version(input: &[u8]) -> bool {
    let version = input.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some([b'1', b'.', minor, ..]) => minor.is_ascii_digit(),
        Some([b'1', ..]) => false,
        Some([major, ..]) => major.is_ascii_digit(),
        _ => false,
    }
}

fn strip_prefix_ignoring_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `1*DIGIT` (RFC 9110 8.6): no sign, no list, no overflow.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut previous = 0;
    head.iter().any(|&byte| {
        let bare = byte == b'\n' && previous != b'\r';
        previous = byte;
        bare
    })
}
