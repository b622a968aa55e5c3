//! Heads, good and bad, and the bytes of our answers.

use proptest::prelude::*;

use super::*;

const HEAD_BYTES_MAX: usize = 8 * 1024;

fn parse(input: &[u8]) -> Result<Parsed<'_>, BadRequest> {
    parse_head(input, HEAD_BYTES_MAX)
}

/// The head of `text`, which must hold nothing else.
#[track_caller]
fn head(text: &str) -> RequestHead<'_> {
    match parse(text.as_bytes()) {
        Ok(Parsed::Complete { head, consumed }) => {
            assert_eq!(consumed, text.len());
            head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

/// A GET with these field lines, which must be good.
fn with_fields(fields: &str) -> String {
    format!("GET /events/a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

/// Whether another request may follow one with these field lines.
#[track_caller]
fn keeps_alive(fields: &str) -> bool {
    head(&with_fields(fields)).keep_alive
}

#[track_caller]
fn refused(text: &[u8]) -> BadRequest {
    let bad = parse(text).expect_err(&format!("{:?}", String::from_utf8_lossy(text)));
    let line = bad.to_string();
    assert!(!line.is_empty() && !line.chars().any(char::is_control), "{line:?}");
    bad
}

/// The answer, and the number of bytes after which it stood, when the input comes byte by byte.
fn parse_bytewise(input: &[u8], head_bytes_max: usize) -> (Result<Parsed<'_>, BadRequest>, usize) {
    let partial = |end: &usize| {
        parse_head(&input[..*end], head_bytes_max) == Ok(Parsed::Partial) && *end < input.len()
    };
    let end = (0..=input.len()).find(|end| !partial(end)).unwrap_or(input.len());
    (parse_head(&input[..end], head_bytes_max), end)
}

const BROWSER_HEAD: &str = "GET /events/course-state/12?lastEventId=4 HTTP/1.1\r\n\
    Host: sse.example.org:8080\r\n\
    Connection: keep-alive\r\n\
    Accept: text/event-stream\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Cache-Control: no-cache\r\n\
    Origin: https://www.example.org\r\n\
    Cookie: session=\u{e9}\r\n\
    Last-Event-ID:  1700000000000-3\t\r\n\
    \r\n";

#[test]
fn head_of_a_browser_is_reduced_to_what_matters() {
    assert_eq!(
        head(BROWSER_HEAD),
        RequestHead {
            method: Method::Get,
            target: b"/events/course-state/12?lastEventId=4",
            host: Some(b"sse.example.org:8080"),
            keep_alive: true,
            body_bytes: 0,
            chunked: false,
            origin: Some(b"https://www.example.org"),
            authorization: None,
            last_event_id: Some(b"1700000000000-3"),
        }
    );
}

#[test]
fn head_split_at_any_byte_is_partial_before_its_end_and_complete_behind_it() {
    let whole = parse(BROWSER_HEAD.as_bytes());
    for end in 0..BROWSER_HEAD.len() {
        assert_eq!(parse(&BROWSER_HEAD.as_bytes()[..end]), Ok(Parsed::Partial), "at {end}");
    }
    let followed = [BROWSER_HEAD.as_bytes(), b"GET / HTTP/1.1\r\n\0"].concat();
    for end in BROWSER_HEAD.len()..followed.len() {
        assert_eq!(parse(&followed[..end]), whole, "at {end}");
    }
}

#[test]
fn methods_are_told_apart_and_case_matters() {
    for (text, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("OPTIONS", Method::Options),
        ("POST", Method::Post),
        ("PUT", Method::Other),
        ("get", Method::Other),
        ("M-SEARCH", Method::Other),
    ] {
        assert_eq!(head(&format!("{text} / HTTP/1.1\r\nHost: a\r\n\r\n")).method, method);
    }
}

#[test]
fn targets_are_reduced_to_path_and_query() {
    for (method, target, reduced, host) in [
        ("GET", "/", "/", "h"),
        ("GET", "/a?b=c&d", "/a?b=c&d", "h"),
        ("GET", "//a", "//a", "h"),
        ("GET", "/a|{b}\"<>", "/a|{b}\"<>", "h"),
        ("GET", "http://o.example/a?b", "/a?b", "o.example"),
        ("GET", "HTTP://o.example:81/a", "/a", "o.example:81"),
        ("GET", "https://[::1]:81", "/", "[::1]:81"),
        ("GET", "http://o.example?a=/b", "?a=/b", "o.example"),
        ("OPTIONS", "*", "*", "h"),
        ("OPTIONS", "/a", "/a", "h"),
    ] {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = head(&text);
        assert_eq!(head.target, reduced.as_bytes(), "{target}");
        assert_eq!(head.host, Some(host.as_bytes()), "{target}");
    }
}

#[test]
fn bad_targets_are_refused() {
    for (line, bad) in [
        ("GET a HTTP/1.1", BadRequest::TargetForm),
        ("GET * HTTP/1.1", BadRequest::TargetForm),
        ("OPTIONS ** HTTP/1.1", BadRequest::TargetForm),
        ("CONNECT a.example:80 HTTP/1.1", BadRequest::TargetForm),
        ("GET ftp://a/b HTTP/1.1", BadRequest::TargetForm),
        ("GET http:/a HTTP/1.1", BadRequest::TargetForm),
        ("GET http:///a HTTP/1.1", BadRequest::HostInvalid),
        ("GET http://u@a/b HTTP/1.1", BadRequest::HostInvalid),
        ("GET /a#b HTTP/1.1", BadRequest::TargetFragment),
        ("GET /é HTTP/1.1", BadRequest::TargetBytes),
        ("GET  / HTTP/1.1", BadRequest::RequestLine),
        ("GET /  HTTP/1.1", BadRequest::RequestLine),
        ("GET /a b HTTP/1.1", BadRequest::RequestLine),
        ("GET /\x7f HTTP/1.1", BadRequest::RequestLine),
    ] {
        assert_eq!(refused(format!("{line}\r\nHost: h\r\n\r\n").as_bytes()), bad, "{line}");
    }
    assert_eq!(refused(b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n"), BadRequest::RequestLine);
}

#[test]
fn bad_request_lines_are_refused_and_other_versions_named() {
    for (line, status) in [
        ("GET /", "400 Bad Request"),
        ("GET", "400 Bad Request"),
        (" GET / HTTP/1.1", "400 Bad Request"),
        ("GET\t/ HTTP/1.1", "400 Bad Request"),
        ("G(T / HTTP/1.1", "400 Bad Request"),
        ("\x16\x03\x01\x02", "400 Bad Request"),
        ("GET / HTTP/1.1 ", "400 Bad Request"),
        ("GET / HTTP/1.10", "400 Bad Request"),
        ("GET / HTTP/1x1", "400 Bad Request"),
        ("GET / http/1.1", "400 Bad Request"),
        ("GET / HTTPS/1.1", "400 Bad Request"),
        ("GET / HTTP/1.2", "505 HTTP Version Not Supported"),
        ("GET / HTTP/0.9", "505 HTTP Version Not Supported"),
        ("PRI * HTTP/2.0", "505 HTTP Version Not Supported"),
        ("\r\n\r\nGET / HTTP/3", "505 HTTP Version Not Supported"),
    ] {
        let bad = refused(format!("{line}\r\nHost: h\r\n\r\n").as_bytes());
        assert_eq!(bad.status().line(), status, "{line}: {bad}");
    }
}

#[test]
fn host_is_required_once_and_well_formed() {
    for host in
        ["a", "a.example:8080", "a.example:", "127.0.0.1:80", "[::1]", "[::ffff:1.2.3.4]:80", "x_y"]
    {
        head(&format!("GET / HTTP/1.1\r\nhOsT: {host}\r\n\r\n"));
    }
    for host in ["", "a b", "a/b", "u@a", "a:b", "a:1:2", "[::1", "[]", "[::1]x", "é", "[g]", ":80"]
    {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(refused(text.as_bytes()), BadRequest::HostInvalid, "{host}");
        let text = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
        assert_eq!(refused(text.as_bytes()), BadRequest::HostInvalid, "{host}");
    }
    assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), BadRequest::HostMissing);
    assert_eq!(refused(b"GET http://a/ HTTP/1.1\r\n\r\n"), BadRequest::HostMissing);
    for version in ["1.0", "1.1"] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\nhost: a\r\n\r\n");
        assert_eq!(refused(text.as_bytes()), BadRequest::HostRepeated);
    }
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").host, None);
}

#[test]
fn malformed_field_lines_are_refused() {
    for (lines, bad) in [
        (" X: y\r\n", BadRequest::FieldName),
        ("X: y\r\n folded\r\n", BadRequest::FieldName),
        ("X: y\r\n\tfolded\r\n", BadRequest::FieldName),
        ("X : y\r\n", BadRequest::FieldName),
        ("X\r\n", BadRequest::FieldName),
        (": y\r\n", BadRequest::FieldName),
        ("X(: y\r\n", BadRequest::FieldName),
        ("X\0: y\r\n", BadRequest::FieldName),
        ("Transfer-Encoding : chunked\r\n", BadRequest::FieldName),
        ("X: a\0b\r\n", BadRequest::FieldValue),
        ("X: a\x01b\r\n", BadRequest::FieldValue),
        ("X: a\x7fb\r\n", BadRequest::FieldValue),
        ("X: a\rb\r\n", BadRequest::FieldValue),
        ("Transfer-Encoding: \x0bchunked\r\n", BadRequest::FieldValue),
        ("\rX: y\r\n", BadRequest::LineEnd),
    ] {
        assert_eq!(refused(with_fields(lines).as_bytes()), bad, "{lines:?}");
        assert_eq!(bad.status(), Status::BadRequest400);
    }
}

#[test]
fn body_that_cannot_be_framed_is_refused() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (lines, bad) in [
        ("Content-Length: \r\n", BadRequest::ContentLength),
        ("Content-Length: -1\r\n", BadRequest::ContentLength),
        ("Content-Length: +1\r\n", BadRequest::ContentLength),
        ("Content-Length: 1, 1\r\n", BadRequest::ContentLength),
        ("Content-Length: 0x10\r\n", BadRequest::ContentLength),
        ("Content-Length: 1 1\r\n", BadRequest::ContentLength),
        ("Content-Length: 18446744073709551616\r\n", BadRequest::ContentLength),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", BadRequest::ContentLengthRepeated),
        ("Content-Length: 1\r\nCONTENT-LENGTH: 1\r\n", BadRequest::ContentLengthRepeated),
        ("Transfer-Encoding: \r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: gzip\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: chunked, gzip\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", BadRequest::TransferEncoding),
        (&format!("{chunked}{chunked}"), BadRequest::TransferEncoding),
        (&format!("{chunked}Content-Length: 5\r\n"), BadRequest::TwoFramings),
        (&format!("Content-Length: 0\r\n{chunked}"), BadRequest::TwoFramings),
    ] {
        assert_eq!(refused(with_fields(lines).as_bytes()), bad, "{lines:?}");
        assert_eq!(bad.status(), Status::BadRequest400);
    }
    let text = format!("POST / HTTP/1.0\r\n{chunked}\r\n");
    assert_eq!(refused(text.as_bytes()), BadRequest::TransferEncoding);
}

#[test]
fn body_length_is_told() {
    assert_eq!(head(&with_fields("Content-Length: 0\r\n")).body_bytes, 0);
    assert_eq!(head(&with_fields("content-length: 0012\r\n")).body_bytes, 12);
    let longest = head(&with_fields("Content-Length: 18446744073709551615\r\n")).body_bytes;
    assert_eq!(longest, u64::MAX);
    let text = with_fields("Transfer-Encoding: CHUNKED\r\n");
    assert!(head(&text).chunked);
}

#[test]
fn connection_is_kept_only_if_the_next_request_can_be_found() {
    assert!(keeps_alive(""));
    assert!(keeps_alive("Connection: keep-alive, Upgrade\r\n"));
    assert!(keeps_alive("Connection: closed\r\n"));
    assert!(keeps_alive("Content-Length: 65536\r\n"));
    assert!(keeps_alive("Expect: 100-continue\r\n"));

    assert!(!keeps_alive("Connection: close\r\n"));
    assert!(!keeps_alive("Connection: Upgrade ,\tClose\r\n"));
    assert!(!keeps_alive("Connection: close\r\nConnection: keep-alive\r\n"));
    assert!(!keeps_alive("Content-Length: 65537\r\n"));
    assert!(!keeps_alive("Transfer-Encoding: chunked\r\n"));
    assert!(!keeps_alive("Content-Length: 5\r\nExpect: 100-continue\r\n"));
    assert!(!head("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n").keep_alive);
}

#[test]
fn lines_that_end_in_a_bare_line_feed_are_read_and_the_connection_is_not_kept() {
    let strict = "GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
    assert!(head(strict).keep_alive);
    let line_ends: Vec<usize> = strict.match_indices("\r\n").map(|(at, _)| at).collect();
    for at in line_ends {
        let mut lenient = strict.to_owned();
        lenient.remove(at);
        let lenient = head(&lenient);
        assert!(!lenient.keep_alive, "line end at {at}");
        assert_eq!(lenient.target, b"/a");
    }
}

#[test]
fn empty_lines_before_the_request_line_are_skipped_and_bounded() {
    assert_eq!(head("\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n").target, b"/a");
    let empty_lines = b"\r\n".repeat(HEAD_BYTES_MAX / 2);
    assert_eq!(parse(&empty_lines[..HEAD_BYTES_MAX - 1]), Ok(Parsed::Partial));
    assert_eq!(refused(&empty_lines).status(), Status::HeaderFieldsTooLarge431);
}

#[test]
fn last_event_id_is_that_of_the_last_line() {
    let id = |lines: &str| -> Option<Vec<u8>> {
        head(&with_fields(lines)).last_event_id.map(<[u8]>::to_vec)
    };
    assert_eq!(id(""), None);
    assert_eq!(id("Last-Event-ID:\r\n"), None);
    assert_eq!(id("Last-Event-ID:  \t \r\n"), None);
    assert_eq!(id("last-event-id:a b\r\n"), Some(b"a b".to_vec()));
    assert_eq!(id("Last-Event-ID: 1\r\nLast-Event-ID: \u{20ac}\r\n"), Some("€".into()));
    assert_eq!(id("Last-Event-ID: 1\r\nLast-Event-ID:\r\n"), None);
}

#[test]
fn head_may_be_as_large_as_allowed_and_no_larger() {
    let text = with_fields(&format!("X: {}\r\n", "y".repeat(100)));
    let input = text.as_bytes();
    let too_large = Err(BadRequest::HeadTooLarge { head_bytes_max: input.len() - 1 });
    assert!(matches!(parse_head(input, input.len()), Ok(Parsed::Complete { .. })));
    assert_eq!(parse_head(input, input.len() - 1), too_large);
    assert_eq!(parse_head(&input[..input.len() - 1], input.len() - 1), too_large);
    assert_eq!(parse_head(&input[..input.len() - 2], input.len() - 1), Ok(Parsed::Partial));
    assert_eq!(
        BadRequest::HeadTooLarge { head_bytes_max: 8192 }.to_string(),
        "request head too large: at most 8192 bytes are allowed"
    );
}

#[test]
fn head_may_have_as_many_field_lines_as_allowed_and_no_more() {
    assert!(keeps_alive(&"X:y\r\n".repeat(HEAD_FIELDS_MAX - 1)));
    let bad = refused(with_fields(&"X:y\r\n".repeat(HEAD_FIELDS_MAX)).as_bytes());
    assert_eq!(bad, BadRequest::TooManyFields);
    assert_eq!(bad.status(), Status::HeaderFieldsTooLarge431);
}

/// Pieces of heads, good and bad, that meet each other in every order.
const PIECES: [&str; 30] = [
    "GET ",
    "OPTIONS ",
    "/",
    "/a?b",
    "*",
    "http://h/x",
    "\u{e9}",
    "#",
    " ",
    " HTTP/1.1",
    " HTTP/1.0",
    " HTTP/2",
    "GET / HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\nHost: h\r\n",
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "Host: h\r\n",
    "Host:",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Last-Event-ID: 7\r\n",
    "X",
    ":",
    "\t",
    "\0",
    "y",
    "[::1]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_answered_and_no_otherwise_when_they_come_one_by_one(
        input in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..12)
                .prop_map(|pieces| pieces.concat().into_bytes()),
        ],
        head_bytes_max in prop_oneof![1..100usize, Just(HEAD_BYTES_MAX)],
    ) {
        let (bytewise, end) = parse_bytewise(&input, head_bytes_max);
        prop_assert_eq!(parse_head(&input, head_bytes_max), bytewise);
        if let Ok(Parsed::Complete { consumed, .. }) = bytewise {
            prop_assert_eq!(consumed, end);
            prop_assert!(consumed <= head_bytes_max);
        }
    }
}

#[track_caller]
fn check_answer(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut out = b"before|".to_vec();
    write(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), format!("before|{expected}"));
}

const ORIGIN: Cors<'_> = Cors { allow_origin: Some(b"https://a.example"), vary: true };

#[test]
fn stream_head_is_close_delimited_and_passes_proxies_unbuffered() {
    check_answer(
        |out| stream_head(Cors::default(), out),
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
         Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\
         Connection: close\r\n\r\n",
    );
    check_answer(
        |out| stream_head(ORIGIN, out),
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
         Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\
         Connection: close\r\nAccess-Control-Allow-Origin: https://a.example\r\n\
        Access-Control-Allow-Credentials: true\r\n\
         Vary: Origin\r\n\r\n",
    );
}

#[test]
fn short_answer_is_one_line_of_text_that_a_page_may_read() {
    let answer = ShortAnswer {
        status: Status::NotFound404,
        body: &"no such path: \r\n\u{7f}\u{85}é",
        keep_alive: true,
        head_only: false,
        cors: ORIGIN,
    };
    let head = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 21\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
        Connection: keep-alive\r\nAccess-Control-Allow-Origin: https://a.example\r\n\
        Access-Control-Allow-Credentials: true\r\n\
        Vary: Origin\r\n\r\n";
    check_answer(|out| short_answer(&answer, out), &format!("{head}no such path: ????é\n"));
    let answer = ShortAnswer { head_only: true, ..answer };
    check_answer(|out| short_answer(&answer, out), head);
}

#[test]
fn method_not_allowed_names_those_that_are() {
    let answer = ShortAnswer {
        status: Status::MethodNotAllowed405,
        body: &"no",
        keep_alive: false,
        head_only: false,
        cors: Cors { allow_origin: None, vary: true },
    };
    check_answer(
        |out| short_answer(&answer, out),
        "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 3\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: close\r\nAllow: GET, HEAD, OPTIONS\r\nVary: Origin\r\n\r\nno\n",
    );
}

#[test]
fn answers_to_what_cannot_be_trusted_close_whatever_the_caller_says() {
    for (status, connection) in [
        (Status::NotFound404, "keep-alive"),
        (Status::MethodNotAllowed405, "keep-alive"),
        (Status::BadRequest400, "close"),
        (Status::RequestTimeout408, "close"),
        (Status::HeaderFieldsTooLarge431, "close"),
        (Status::VersionNotSupported505, "close"),
    ] {
        let mut out = Vec::new();
        let cors = Cors::default();
        let answer = ShortAnswer { status, body: &"", keep_alive: true, head_only: false, cors };
        short_answer(&answer, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("\r\nConnection: {connection}\r\n")), "{text}");
    }
}

#[test]
fn preflight_allows_what_event_sources_send() {
    check_answer(
        |out| preflight(ORIGIN, true, out),
        "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n\
         Access-Control-Allow-Methods: GET, HEAD\r\n\
         Access-Control-Allow-Headers: Last-Event-ID, Cache-Control, X-Requested-With\r\n\
         Access-Control-Max-Age: 86400\r\n\
         Access-Control-Allow-Origin: https://a.example\r\n\
         Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n\
         Connection: keep-alive\r\n\r\n",
    );
    check_answer(
        |out| preflight(Cors::default(), false, out),
        "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\nConnection: close\r\n\r\n",
    );
}

#[test]
fn only_exact_origins_are_allowed() {
    let allowed = ["https://a.example".to_owned(), "http://b.example:8080".to_owned()];
    let origin = |origin: &'static str| Cors::new(&allowed, Some(origin.as_bytes())).allow_origin;
    assert_eq!(origin("https://a.example"), Some(b"https://a.example".as_slice()));
    assert_eq!(origin("http://b.example:8080"), Some(b"http://b.example:8080".as_slice()));
    for foreign in
        ["http://a.example", "https://a.example:443", "https://a.example.org", "null", ""]
    {
        assert_eq!(origin(foreign), None, "{foreign}");
    }
    assert_eq!(Cors::new(&allowed, None), Cors { allow_origin: None, vary: true });
    assert_eq!(Cors::new(&[], Some(b"https://a.example")), Cors::default());
}
