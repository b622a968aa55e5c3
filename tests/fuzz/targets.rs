//! What must hold for any bytes whatever: the bodies of the fuzz targets, which `tests/fuzz.rs`
//! runs on seeded inputs and `tests/fuzz/run` on those that libFuzzer finds.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::OnceLock;

use corecast::bytes::event_stream::{Event, encode, encode_comment, encode_id, encode_retry};
use corecast::bytes::format::{self, Format};
use corecast::bytes::history::{Envelope, EventId};
use corecast::bytes::target::{Begin, Reserved, Resolved, Routes, Since};
use corecast::bytes::{http, resp, resp_request};
use corecast::ground::config::{RequestLimits, RouteTemplate};
use redis_protocol::resp2::decode::decode as decode_resp2;
use redis_protocol::resp2::types::OwnedFrame as Resp2Frame;
use redis_protocol::resp3::decode::complete::decode as decode_resp3;
use redis_protocol::resp3::types::OwnedFrame as Resp3Frame;

#[path = "../support/event_source.rs"]
mod event_source;

use event_source::{EventSource, Message};

/// A property of any bytes; it panics where it does not hold.
pub(crate) type Target = fn(&[u8]);

pub(crate) const TARGETS: [(&str, Target, &[&[u8]]); 7] = [
    ("http_head", http_head, HEADS),
    ("target", target, REQUEST_TARGETS),
    ("resp_request", resp_request, COMMANDS),
    ("resp_link", resp_link, ITEMS),
    ("formats", formats, PAYLOADS),
    ("encoder", encoder, EVENTS),
    ("history", history, ENVELOPES),
];

/// Longest input that is fed in every possible piece, at a cost of its square.
const FED_BYTES_MAX: usize = 600;

/// Small, so that inputs reach beyond it.
const HEAD_BYTES_MAX: usize = 400;
const PAYLOAD_BYTES_MAX: usize = 100;
const BULK_BYTES_MAX: usize = 20;

/// What a parser answers to the beginning of an input.
enum Answer<T> {
    /// A good input takes at least so many bytes.
    Partial {
        needed: usize,
    },
    Good(T),
    Bad(T),
}

/// Feeds ever longer beginnings of `input`: an answer once given stays the same, and no good one
/// comes before as many bytes are there as were said to be needed.
fn feed<'a, T: Debug + PartialEq>(input: &'a [u8], parse: impl Fn(&'a [u8]) -> Answer<T>) {
    let (mut needed_so_far, mut settled) = (0, None);
    for length in 0..=input.len() {
        let answer = match parse(&input[..length]) {
            Answer::Partial { needed } => {
                assert!(needed > length, "needs {needed} bytes, and has {length}");
                assert!(settled.is_none(), "partial again after {settled:?}");
                needed_so_far = needed_so_far.max(needed);
                continue;
            }
            Answer::Good(answer) => {
                assert!(needed_so_far <= length, "{answer:?} before {needed_so_far} bytes");
                answer
            }
            Answer::Bad(answer) => answer,
        };
        if let Some(before) = &settled {
            assert_eq!(&answer, before);
        }
        settled = Some(answer);
    }
}

fn fed(input: &[u8]) -> &[u8] {
    input.get(..FED_BYTES_MAX).unwrap_or(input)
}

/// A request head is the same head however its bytes arrive, and is never longer than allowed.
fn http_head(input: &[u8]) {
    let input = fed(input);
    feed(input, |input| match http::parse_head(input, HEAD_BYTES_MAX) {
        Ok(http::Parsed::Partial) => Answer::Partial { needed: input.len() + 1 },
        Ok(http::Parsed::Complete { head, consumed }) => {
            assert!(consumed <= input.len().min(HEAD_BYTES_MAX));
            assert!(head.target.iter().all(u8::is_ascii_graphic), "{head:?}");
            assert!(!head.keep_alive || !head.chunked, "{head:?}");
            Answer::Good(Ok((head, consumed)))
        }
        Err(error) => Answer::Bad(Err((error, error.to_string(), error.status()))),
    });
}

const LIMITS: RequestLimits = RequestLimits { head_bytes: 8192, channels: 4, channel_bytes: 64 };

/// Channels are within bounds, and asked for by name they are found again.
fn target(input: &[u8]) {
    static ROUTES: OnceLock<[Routes; 2]> = OnceLock::new();
    let [default, custom] = ROUTES.get_or_init(|| {
        let templates = [
            ("/course-state-stream/{ext}/", "course-state/{ext}"),
            ("/stream", "{?channel=sse}"),
            ("/rooms/{room}/{*rest}", "{room}:{rest}"),
            ("/users/{id}", "user-{id}/{?topic}"),
        ]
        .map(|(path, channel)| RouteTemplate { path: path.into(), channel: channel.into() });
        let reserved = Reserved::new(&[b"events_channel".to_vec()], b"");
        [&[][..], &templates]
            .map(|templates| Routes::new(templates, LIMITS, reserved.clone()).unwrap())
    });
    for routes in [default, custom] {
        let request = match routes.resolve(input) {
            Resolved::Stream(request) => request,
            Resolved::NotFound => continue,
            Resolved::Bad(bad) => {
                assert!(!bad.to_string().contains('\n'), "{bad:?}");
                continue;
            }
        };
        assert!((1..=LIMITS.channels).contains(&request.channels.len()), "{request:?}");
        let mut again = b"/events?".to_vec();
        for channel in &request.channels {
            assert!((1..=LIMITS.channel_bytes).contains(&channel.len()), "{request:?}");
            again.extend_from_slice(b"channel=");
            escape(channel, &mut again);
            again.push(b'&');
        }
        if let Some(id) = &request.last_event_id {
            again.extend_from_slice(b"lastEventId=");
            escape(id, &mut again);
            again.push(b'&');
        }
        match request.begin {
            Begin::Present => {}
            Begin::Last(last) => again.extend_from_slice(format!("last={last}").as_bytes()),
            Begin::Since(Since::All) => again.extend_from_slice(b"since=0"),
            Begin::Since(Since::Id(id)) => {
                again.extend_from_slice(format!("since={id}").as_bytes());
            }
            Begin::Since(Since::Ago(ago)) => {
                again.extend_from_slice(format!("since=-{}ms", ago.as_millis()).as_bytes());
            }
            // Times of day are told in several ways, some finer than others.
            Begin::Since(Since::At { .. }) => return,
            Begin::Unreadable => again.extend_from_slice(b"since=x"),
        }
        assert_eq!(default.resolve(&again), Resolved::Stream(request));
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(format!("%{byte:02x}").as_bytes());
    }
}

/// A command is the same however its bytes arrive, and written anew it is the same command.
fn resp_request(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else { return };
    let authenticated = first % 2 == 0;
    let bounds = resp_request::RequestBounds { authenticated, bulk_bytes_max: PAYLOAD_BYTES_MAX };
    feed(fed(input), |input| {
        let mut arguments = Vec::new();
        match resp_request::parse(input, bounds, &mut arguments) {
            Ok(resp_request::Request::Partial { needed }) => Answer::Partial { needed },
            Ok(resp_request::Request::Complete { consumed }) => {
                assert!(consumed <= input.len());
                Answer::Good(Ok((consumed, arguments)))
            }
            Err(error) => Answer::Bad(Err((error, error.to_string()))),
        }
    });

    let mut arguments = Vec::new();
    let parsed = resp_request::parse(input, bounds, &mut arguments);
    if matches!(parsed, Ok(resp_request::Request::Complete { .. })) && input[0] == b'*' {
        let slices: Vec<&[u8]> = arguments.iter().map(AsRef::as_ref).collect();
        let mut written = Vec::new();
        resp::encode_command(&slices, &mut written);
        let mut again = Vec::new();
        let parsed = resp_request::parse(&written, bounds, &mut again);
        assert_eq!(parsed, Ok(resp_request::Request::Complete { consumed: written.len() }));
        assert_eq!(again, arguments);
    }
}

/// An item of a link is the same however its bytes arrive, and `redis-protocol` agrees on where it
/// ends and on what a message says.
fn resp_link(input: &[u8]) {
    let input = fed(input);
    feed(input, link_item);
    let without = without_overlong(input);
    feed(&without, link_item);
    let parsed = resp::parse_but_overlong(&without, PAYLOAD_BYTES_MAX, BULK_BYTES_MAX);
    let is_overlong = matches!(parsed, Ok(resp::Parsed::Overlong { .. }));
    assert!(!is_overlong, "still overlong: {without:?}");
    agree_with_crate(input);
    agree_with_crate(&without);
}

/// What a link makes of the beginning of an item.
fn link_item(input: &[u8]) -> Answer<String> {
    match resp::parse_but_overlong(input, PAYLOAD_BYTES_MAX, BULK_BYTES_MAX) {
        Ok(resp::Parsed::Partial { needed }) => Answer::Partial { needed },
        Ok(resp::Parsed::Complete { incoming, consumed }) => {
            assert!(consumed <= input.len());
            let meaning = match &incoming {
                resp::Incoming::Reply(resp::Reply::Other(value)) => canonical(value),
                other => format!("{other:?}"),
            };
            Answer::Good(format!("{meaning} {consumed}"))
        }
        Ok(resp::Parsed::Oversize { channel, start, consumed, skip }) => {
            assert!(consumed <= input.len() && input[..consumed].ends_with(start));
            Answer::Good(format!("{channel:?} {start:?} {consumed} {skip}"))
        }
        Ok(resp::Parsed::Overlong { header, skip }) => {
            assert!(header.end <= input.len() && header.len() > resp::NULL.len());
            assert_eq!(input[header.start], b'$');
            // No good item, as far as it goes: it may become shorter than it said.
            Answer::Bad(format!("{header:?} {skip}"))
        }
        Err(error) => Answer::Bad(error.to_string()),
    }
}

/// The input as if the overlong strings of its first item had been null from the start.
fn without_overlong(input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    while let Ok(resp::Parsed::Overlong { header, skip }) =
        resp::parse_but_overlong(&input, PAYLOAD_BYTES_MAX, BULK_BYTES_MAX)
    {
        let there = input.len() - header.end;
        let end = header.end + usize::try_from(skip).unwrap_or(there).min(there);
        input.splice(header.start..end, resp::NULL.iter().copied());
    }
    input
}

fn agree_with_crate(input: &[u8]) {
    let Ok(resp::Parsed::Complete { incoming, consumed }) = resp::parse(input, PAYLOAD_BYTES_MAX)
    else {
        return;
    };
    // Complete items are not nested deep, so that the crate's recursion ends.
    let strings = match (decode_resp3(&input[..consumed]), decode_resp2(&input[..consumed])) {
        (Ok(Some((frame, length))), _) => {
            assert_eq!(length, consumed);
            resp3_strings(&frame)
        }
        (_, Ok(Some((frame, length)))) => {
            assert_eq!(length, consumed);
            resp2_strings(&frame)
        }
        _ => {
            // What is only acknowledged is not read to its end.
            let is_read = matches!(incoming, resp::Incoming::Message { .. });
            assert!(!is_read, "the crate does not read this: {incoming:?}");
            return;
        }
    };
    match incoming {
        resp::Incoming::Message { channel, payload } => {
            let [kind, middle @ .., said_channel, said_payload] = &strings[..] else {
                panic!("no message: {strings:?}");
            };
            assert_eq!(middle.len(), usize::from(kind.as_slice() == b"pmessage"));
            assert_eq!((said_channel.as_slice(), said_payload.as_slice()), (channel, payload));
        }
        resp::Incoming::Subscribed { channel } | resp::Incoming::Unsubscribed { channel } => {
            assert_eq!(strings.get(1).map(Vec::as_slice), Some(channel));
        }
        resp::Incoming::Reply(_) | resp::Incoming::Ignored => {}
    }
}

/// A value as text, whose order is the same for every reading: sets and maps have none.
fn canonical(value: &resp::Value<'_>) -> String {
    let mut parts: Vec<String> = match value {
        resp::Value::Array(elements) => elements.iter().map(canonical).collect(),
        resp::Value::Map(pairs) => pairs
            .iter()
            .map(|(key, value)| format!("{}: {}", canonical(key), canonical(value)))
            .collect(),
        other => return format!("{other:?}"),
    };
    parts.sort_unstable();
    format!("{parts:?}")
}

fn resp3_strings(frame: &Resp3Frame) -> Vec<Vec<u8>> {
    match frame {
        Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. } => {
            data.iter().flat_map(resp3_strings).collect()
        }
        Resp3Frame::BlobString { data, .. } => vec![data.clone()],
        _ => Vec::new(),
    }
}

fn resp2_strings(frame: &Resp2Frame) -> Vec<Vec<u8>> {
    match frame {
        Resp2Frame::Array(elements) => elements.iter().flat_map(resp2_strings).collect(),
        Resp2Frame::BulkString(data) => vec![data.clone()],
        _ => Vec::new(),
    }
}

/// No payload makes a decoder panic, and what is read out of one is what a browser gets.
fn formats(input: &[u8]) {
    for format in Format::ALL {
        let decoded = match format::decode(format, input) {
            Ok(decoded) => decoded,
            Err(undecodable) => {
                assert_ne!(format, Format::Raw, "{undecodable}");
                assert!(undecodable.offset.is_none_or(|offset| offset <= input.len()));
                assert!(!undecodable.to_string().contains('\n'));
                continue;
            }
        };
        let mut bytes = Vec::new();
        encode(&decoded.event, &mut bytes);
        let mut parser = EventSource::default();
        parser.push(&bytes);
        assert_eq!(parser.messages, [message(&decoded.event, "")]);
        assert_eq!(parser.reconnection_time, decoded.event.retry_ms);

        let mut envelope = Vec::new();
        format::encode_envelope(&decoded.event, &mut envelope);
        let mut again = Vec::new();
        encode(&format::decode(format, &envelope).unwrap().event, &mut again);
        assert_eq!(again, bytes, "{:?}", decoded.event);
    }
    // Where serde_json reads the data as a string, so do we.
    if let Ok(serde_json::Value::Object(members)) = serde_json::from_slice(input)
        && let Some(serde_json::Value::String(data)) = members.get("data")
        && let Ok(decoded) = format::decode(Format::Json, input)
    {
        assert_eq!(decoded.event.data, data.as_bytes());
    }
}

/// Any event, encoded, is read by a browser as that event, whatever comes before and after it.
fn encoder(input: &[u8]) {
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    let mut last_event_id = String::new();
    for text in input.split(|&byte| byte == 0xfe) {
        let mut fields = text.splitn(4, |&byte| byte == 0xff);
        let mut field = || fields.next().map(Cow::Borrowed);
        let (data, event) = (field().unwrap_or_default(), field().unwrap_or_default());
        let (id, retry_ms) = (field(), field().map(|digits| digits.len() as u64));
        let event = Event { event, data, id, retry_ms };
        encode(&event, &mut stream);
        let message = message(&event, &last_event_id);
        last_event_id.clone_from(&message.last_event_id);
        expected.push(message);
        encode_comment(text, &mut stream);
        stream.push(b'\n');
    }
    encode_retry(7, &mut stream);
    encode_id(b"end", &mut stream);
    stream.push(b'\n');

    let mut parser = EventSource::default();
    for byte in &stream {
        parser.push(&[*byte]);
    }
    assert_eq!(parser.messages, expected);
    assert_eq!((parser.reconnection_time, parser.last_event_id.as_str()), (Some(7), "end"));
}

/// What a browser must make of `event`, from the rules of WHATWG HTML 9.2 and CONTRACT's.
fn message(event: &Event<'_>, last_event_id: &str) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let label = |bytes: &[u8]| text(bytes).replace(['\r', '\n', '\0'], "");
    let event_type = label(&event.event);
    Message {
        event: if event_type.is_empty() { "message".to_owned() } else { event_type },
        data: text(&event.data).replace("\r\n", "\n").replace('\r', "\n"),
        last_event_id: event.id.as_deref().map_or_else(|| last_event_id.to_owned(), label),
    }
}

/// A message is read as an envelope or not at all; what is read can be written in one way only, is
/// no envelope of `format`, and keeps its promises.
fn history(input: &[u8]) {
    let Some(envelope) = Envelope::parse(input) else { return };
    assert!(envelope.previous < envelope.id);
    assert_eq!(EventId::parse(envelope.id.to_string().as_bytes()), Some(envelope.id));
    if let Some(event) = envelope.event {
        let is_line_end = |byte: &u8| matches!(byte, b'\0' | b'\r' | b'\n');
        assert!(!event.is_empty() && !event.iter().any(is_line_end));
    }
    assert!(input.ends_with(envelope.payload));
    let mut written = Vec::new();
    envelope.encode(&mut written);
    assert_eq!(written, input);
    assert_eq!(format::decode(Format::Raw, input).unwrap().event.data, input);
}

const HEADS: &[&[u8]] = &[
    b"GET /events/a HTTP/1.1\r\nHost: h\r\nLast-Event-ID: 7\r\nOrigin: https://a.b\r\n\r\n",
    b"GET http://h/events/a?x=%20 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /",
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    b"PUT /x HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\r\nHEAD / HTTP/1.0\nConnection: keep-alive, close\n\n",
    b"OPTIONS * HTTP/1.1\r\nHost:\r\nAccess-Control-Request-Headers: x\r\n\r\n",
];

const REQUEST_TARGETS: &[&[u8]] = &[
    b"/events/course-state/42?lastEventId=7",
    b"/events?channel=a%2Fb&channel=c+d&channel=a%2fb&last_event_id=%00",
    b"/course-state-stream/4%202/",
    b"/stream?channel=&channel=x",
    b"/rooms/1/a/b%2Fc?last-event-id=x",
    b"/users/7?topic=__a&topic=corecast:b&topic=events_channel",
];

const COMMANDS: &[&[u8]] = &[
    b"0*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$5\r\nhello\r\n*1\r\n$4\r\nPING\r\n",
    b"1*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$0\r\n\r\n",
    b"0PUBLISH a \"two \\x41\\n words\" 'it''s'\r\n",
    b"1\r\n",
    b"0*-1\r\n*0\r\n",
];

const ITEMS: &[&[u8]] = &[
    b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n+OK\r\n",
    b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$200\r\n",
    b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$0\r\n\r\n",
    b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n",
    b"*2\r\n*2\r\n$3\r\n1-0\r\n$21\r\n012345678901234567890\r\n$22\r\n0123456789012345678901\r\n",
    b"%2\r\n+server\r\n$5\r\nredis\r\n+proto\r\n:3\r\n",
    b"*2\r\n$4\r\npong\r\n$0\r\n\r\n-ERR unknown\r\n:-9223372036854775808\r\n,1.5e3\r\n#t\r\n",
    b"~2\r\n$-1\r\n*-1\r\n(12345678901234567\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n|1\r\n+a\r\n+b\r\n",
];

const PAYLOADS: &[&[u8]] = &[
    br#"["state", "started"]"#,
    br#"["state", ["a\nb", "c"]]"#,
    br#"["e", {"a": [NaN, Infinity, -0.5e+7, null]}]"#,
    br#"{"data": "a\r\nb\ud83d\ude00\udfff", "event": "x", "id": 7, "retry": "5"}"#,
    br#"{"type": "t", "data": {"a": [1]}, "id": null, "retry": 1500}"#,
    br#"{"channel": "a", "event_type": "message", "data": "{\"x\": 1}", "pub_id": null}"#,
    br#"{"event":"App\\Events\\X","data":{"url":"a\/b"},"socket":null}"#,
    br#"{"stream": "s", "data": "<b>"}"#,
    b"\0{\"data\": \"x\", \"event\": \"y\"}",
    b"plain \xff\r\n text\r",
];

const EVENTS: &[&[u8]] = &[
    b"data",
    b"line\r\nline\rline\nline\n",
    b"data\xffevent\xffid\xff1234",
    b"a\xffb\0c\r\xff\0\xfe\xff\xff\xff\xfe\xef\xbb\xbf: x",
    b"\xe2\x80\xa8 data: x\n\nevent: y\xffmessage",
];

const ENVELOPES: &[&[u8]] = &[
    b"\x001700000000000-1 1700000000000-0\nhello",
    b"\x0018446744073709551615-18446744073709551615 0-0 state\n{\"data\": 1}",
    b"\x005-1 5-0 two words\n\0{\"data\": 1}",
    b"\0{\"data\": \"x\"}",
];
