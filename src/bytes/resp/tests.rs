//! What Redis sends, whole, in pieces, wrong and at random.

use super::*;
use proptest::prelude::*;

const PAYLOAD_BYTES_MAX: usize = 64;

fn message<'a>(channel: &'a str, payload: &'a str) -> Incoming<'a> {
    Incoming::Message { channel: channel.as_bytes(), payload: payload.as_bytes() }
}

fn subscribed(channel: &str) -> Incoming<'_> {
    Incoming::Subscribed { channel: channel.as_bytes() }
}

fn unsubscribed(channel: &str) -> Incoming<'_> {
    Incoming::Unsubscribed { channel: channel.as_bytes() }
}

fn simple(text: &str) -> Incoming<'_> {
    Incoming::Reply(Reply::Simple(text.as_bytes()))
}

fn error(text: &str) -> Incoming<'_> {
    Incoming::Reply(Reply::Error(text.as_bytes()))
}

fn string(text: &str) -> Value<'_> {
    Value::String(text.as_bytes())
}

fn other(value: Value<'_>) -> Incoming<'_> {
    Incoming::Reply(Reply::Other(value))
}

/// Items as Redis sends them, and what they mean.
fn items() -> Vec<(&'static str, Incoming<'static>)> {
    let entry =
        |id, data| Value::Array(vec![string(id), Value::Array(vec![string("d"), string(data)])]);
    vec![
        (">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\nhello\r\n", message("ch", "hello")),
        ("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\nhello\r\n", message("ch", "hello")),
        (">3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$0\r\n\r\n", message("ch", "")),
        ("*3\r\n$8\r\nsmessage\r\n$0\r\n\r\n$2\r\n\r\n\r\n", message("", "\r\n")),
        (">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$2\r\nch\r\n$2\r\nhi\r\n", message("ch", "hi")),
        ("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$2\r\nch\r\n$2\r\nhi\r\n", message("ch", "hi")),
        (">3\r\n$9\r\nsubscribe\r\n$12\r\nchannel of 1\r\n:1\r\n", subscribed("channel of 1")),
        ("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:100000\r\n", subscribed("a")),
        (">3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:2\r\n", subscribed("a*")),
        (">3\r\n$10\r\nssubscribe\r\n$0\r\n\r\n:2\r\n", subscribed("")),
        (">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n", unsubscribed("a")),
        ("*3\r\n$12\r\npunsubscribe\r\n$1\r\na\r\n:0\r\n", unsubscribed("a")),
        ("*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n", unsubscribed("a")),
        (">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n", Incoming::Ignored),
        ("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", Incoming::Ignored),
        (">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", Incoming::Ignored),
        ("|1\r\n+ttl\r\n:360\r\n", Incoming::Ignored),
        ("+PONG\r\n", Incoming::Reply(Reply::Pong)),
        ("*2\r\n$4\r\npong\r\n$0\r\n\r\n", Incoming::Reply(Reply::Pong)),
        ("+OK\r\n", simple("OK")),
        ("+\r\n", simple("")),
        ("-ERR unknown command\r\n", error("ERR unknown command")),
        ("!10\r\nERR a\r\nbad\r\n", error("ERR a\r\nbad")),
        ("$-1\r\n", other(Value::Null)),
        ("*-1\r\n", other(Value::Null)),
        ("_\r\n", other(Value::Null)),
        (":-42\r\n", other(Value::Integer(-42))),
        (":999999999999999\r\n", other(Value::Integer(999_999_999_999_999))),
        ("#t\r\n", other(Value::Boolean(true))),
        (",-inf\r\n", other(Value::Double(f64::NEG_INFINITY))),
        ("(123456789012345678901234567890\r\n", other(string("123456789012345678901234567890"))),
        ("=7\r\ntxt:a\r\n\r\n", other(string("a\r\n"))),
        ("$6\r\nfoobar\r\n", other(string("foobar"))),
        ("*0\r\n", other(Value::Array(vec![]))),
        ("~2\r\n+a\r\n+a\r\n", other(Value::Array(vec![string("a"), string("a")]))),
        ("%0\r\n", other(Value::Map(vec![]))),
        (
            "%1\r\n$5\r\nproto\r\n:3\r\n",
            other(Value::Map(vec![(string("proto"), Value::Integer(3))])),
        ),
        ("*2\r\n$1\r\na\r\n$-1\r\n", other(Value::Array(vec![string("a"), Value::Null]))),
        ("*2\r\n-ERR no\r\n_\r\n", other(Value::Array(vec![Value::Error(b"ERR no"), Value::Null]))),
        (
            "*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n$1\r\nx\r\n\
             *2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nd\r\n$1\r\ny\r\n",
            other(Value::Array(vec![entry("1-0", "x"), entry("2-0", "y")])),
        ),
    ]
}

#[test]
fn every_item_is_read_whole_whatever_follows() {
    for (bytes, expected) in items() {
        for rest in ["", "+OK\r\n", "\r\n", "*", "garbage"] {
            let input = format!("{bytes}{rest}");
            let parsed = parse(input.as_bytes(), PAYLOAD_BYTES_MAX);
            let complete = Parsed::Complete { incoming: expected.clone(), consumed: bytes.len() };
            assert_eq!(parsed, Ok(complete), "{input:?}");
        }
    }
}

#[test]
fn every_beginning_of_an_item_is_partial_and_never_asks_for_too_much() {
    for (bytes, _) in items() {
        for end in 0..bytes.len() {
            match parse(&bytes.as_bytes()[..end], PAYLOAD_BYTES_MAX) {
                Ok(Parsed::Partial { needed }) => {
                    assert!(end < needed && needed <= bytes.len(), "{bytes:?} {end} {needed}");
                }
                parsed => panic!("{bytes:?} up to {end}: {parsed:?}"),
            }
        }
    }
}

#[test]
fn waiting_for_what_is_needed_takes_few_calls() {
    let entry = "*2\r\n$15\r\n1700000000000-0\r\n*2\r\n$1\r\nd\r\n$5\r\nhello\r\n";
    let reply = format!("*500\r\n{}", entry.repeat(500));
    let mut end = 0;
    let mut calls = 0;
    while let Ok(Parsed::Partial { needed }) = parse(&reply.as_bytes()[..end], PAYLOAD_BYTES_MAX) {
        end = needed.max((end + 1024).min(reply.len()));
        calls += 1;
    }
    assert_eq!(end, reply.len());
    assert!(calls < 30, "{calls}");
}

#[test]
fn a_large_payload_is_waited_for_in_one_step() {
    let head = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1000000\r\n";
    let needed = head.len() + 1_000_002;
    assert_eq!(parse(head, 1_000_000), Ok(Parsed::Partial { needed }));
    let mut input = head.to_vec();
    input.resize(needed - 2, b'x');
    assert_eq!(parse(&input, 1_000_000), Ok(Parsed::Partial { needed }));
}

#[test]
fn an_oversize_payload_is_told_as_soon_as_its_start_is_there() {
    for kind in ["3\r\n$7\r\nmessage\r\n", "4\r\n$8\r\npmessage\r\n$1\r\n*\r\n"] {
        for marker in [">", "*"] {
            let head = format!("{marker}{kind}$2\r\nch\r\n$65\r\n");
            let whole = format!("{head}{}\r\n", "x".repeat(65));
            for end in 0..=whole.len() {
                let parsed = parse(&whole.as_bytes()[..end], 64);
                if end < head.len() + 65 {
                    assert!(
                        matches!(parsed, Ok(Parsed::Partial { needed })
                            if end < needed && needed <= whole.len()),
                        "{end}: {parsed:?}"
                    );
                } else {
                    let (start, consumed) = (&[b'x'; 65], head.len() + 65);
                    let oversize = Parsed::Oversize { channel: b"ch", start, consumed, skip: 2 };
                    assert_eq!(parsed, Ok(oversize), "{end}");
                }
            }
            assert!(matches!(parse(whole.as_bytes(), 65), Ok(Parsed::Complete { .. })));
        }
    }
    let mut huge = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$999999999999999999\r\n".to_vec();
    let needed = huge.len() + limits::OVERSIZE_START_BYTES;
    assert_eq!(parse(&huge, 64), Ok(Parsed::Partial { needed }));
    huge.resize(needed, b'x');
    let left = 1_000_000_000_000_000_001 - limits::OVERSIZE_START_BYTES as u64;
    assert!(matches!(parse(&huge, 64), Ok(Parsed::Oversize { skip, .. }) if skip == left));
}

#[test]
fn overlong_strings_are_found_inside_replies_one_after_the_other() {
    let (prefix, tail) = ("*3\r\n$13\r\n1234567890123\r\n~1\r\n", "+end\r\n");
    let (header, body) = ("$14\r\n", "12345678901234\r\n");
    let whole = format!("{prefix}{header}{body}{tail}");
    let found = Parsed::Overlong { header: prefix.len()..prefix.len() + header.len(), skip: 16 };
    for end in 0..=whole.len() {
        let parsed = parse_but_overlong(&whole.as_bytes()[..end], 0, 13);
        if end < prefix.len() + header.len() {
            let Ok(Parsed::Partial { needed }) = parsed else { panic!("{end}: {parsed:?}") };
            assert!(end < needed && needed <= whole.len(), "{end}: {needed}");
        } else {
            assert_eq!(parsed, Ok(found.clone()), "{end}");
        }
    }
    let parsed = parse_but_overlong(whole.as_bytes(), 0, 14);
    assert!(matches!(parsed, Ok(Parsed::Complete { .. })), "{parsed:?}");
    let without = format!("{prefix}_\r\n{tail}");
    let set = Value::Array(vec![Value::Null]);
    let incoming = other(Value::Array(vec![string("1234567890123"), set, string("end")]));
    let complete = Parsed::Complete { incoming, consumed: without.len() };
    assert_eq!(parse_but_overlong(without.as_bytes(), 0, 13), Ok(complete));
    let longest = limits::RESP_REPLY_BYTES_MAX - limits::RESP_BULK_BYTES_SPARE;
    for (length, is_overlong) in [(longest, false), (longest + 1, true)] {
        let entry = format!("*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n${length}\r\n");
        let parsed = parse_but_overlong(entry.as_bytes(), 0, usize::MAX).unwrap();
        assert_eq!(matches!(parsed, Parsed::Overlong { .. }), is_overlong, "{length}");
    }
    let two = "*2\r\n_\r\n$999999999999999999\r\n";
    let found = Parsed::Overlong { header: 7..28, skip: 1_000_000_000_000_000_001 };
    assert_eq!(parse_but_overlong(two.as_bytes(), 0, usize::MAX), Ok(found));
    assert_eq!(parse(two.as_bytes(), 0), Err(ProtocolError::ReplyTooLarge));
}

#[test]
fn strings_that_are_replies_themselves_errors_and_messages_are_never_overlong() {
    let long = "txt:x".repeat(4);
    for kind in ["$", "*1\r\n!", "*1\r\n="] {
        let input = format!("{kind}20\r\n{long}\r\n");
        let parsed = parse_but_overlong(input.as_bytes(), 0, 0);
        assert!(matches!(parsed, Ok(Parsed::Complete { .. })), "{input:?}: {parsed:?}");
    }
    let message = format!(">3\r\n$7\r\nmessage\r\n$20\r\n{long}\r\n$20\r\n{long}\r\n");
    for end in 0..=message.len() {
        let message = &message.as_bytes()[..end];
        assert_eq!(parse_but_overlong(message, 20, 0), parse(message, 20));
    }
    let parsed = parse_but_overlong(message.as_bytes(), 19, 0);
    assert!(matches!(parsed, Ok(Parsed::Oversize { .. })), "{parsed:?}");
    let told = ">3\r\n$12\r\npunsubscribe\r\n$1\r\na\r\n:0\r\n";
    let complete = Parsed::Complete { incoming: unsubscribed("a"), consumed: told.len() };
    assert_eq!(parse_but_overlong(told.as_bytes(), 0, 0), Ok(complete));
}

#[test]
fn wrong_lengths_are_refused() {
    let wrong = ["-2", "-", "+1", "01", "00", "1x", "", " 1", "1 ", "0x1", "1234567890123456789"];
    for length in wrong {
        for kind in ["$", "*", "%", "~", "!", "=", ">", "|"] {
            let input = format!("{kind}{length}\r\n");
            assert_eq!(parse(input.as_bytes(), 64), Err(ProtocolError::InvalidLength), "{input:?}");
        }
        for head in [">3\r\n$7\r\nmessage\r\n", ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n"] {
            let input = format!("{head}${length}\r\n");
            assert_eq!(parse(input.as_bytes(), 64), Err(ProtocolError::InvalidLength), "{input:?}");
        }
    }
    for input in
        ["%-1\r\n", ">-1\r\n", "!-1\r\n", "*1\r\n%-1\r\n", ">3\r\n$7\r\nmessage\r\n$-1\r\n"]
    {
        assert_eq!(parse(input.as_bytes(), 64), Err(ProtocolError::InvalidLength), "{input:?}");
    }
    assert_eq!(parse(b"$1\rX", 64), Err(ProtocolError::InvalidLength));
}

#[test]
fn lengths_beyond_all_bounds_are_refused_before_anything_arrives() {
    for input in [
        "$16777217\r\n",
        "$10737418240\r\n",
        "*10000000\r\n",
        "*999999999999999999\r\n",
        "%999999999999999999\r\n",
        "*2\r\n*4000000\r\n*4000000\r\n",
        "*1\r\n$16777210\r\n",
        "*2\r\n$16777200\r\n",
    ] {
        assert_eq!(parse(input.as_bytes(), 64), Err(ProtocolError::ReplyTooLarge), "{input:?}");
    }
    let long = format!("+{}", "x".repeat(limits::RESP_LINE_BYTES_MAX));
    assert_eq!(parse(long.as_bytes(), 64), Err(ProtocolError::LineTooLong));
    let name = b">3\r\n$7\r\nmessage\r\n$65537\r\n";
    assert_eq!(parse(name, 64), Err(ProtocolError::LineTooLong));
}

#[test]
fn nesting_is_bounded() {
    for aggregate in ["*1\r\n", "%1\r\n", "~1\r\n", "*2\r\n:1\r\n"] {
        let bomb = aggregate.repeat(100_000);
        assert_eq!(parse(bomb.as_bytes(), 64), Err(ProtocolError::NestedTooDeep));
    }
    let deepest = format!("{}:1\r\n", "*1\r\n".repeat(limits::RESP_DEPTH_MAX));
    assert!(matches!(parse(deepest.as_bytes(), 64), Ok(Parsed::Complete { .. })));
    let deeper = format!("*1\r\n{deepest}");
    assert_eq!(parse(deeper.as_bytes(), 64), Err(ProtocolError::NestedTooDeep));
}

#[test]
fn bytes_that_mean_nothing_are_refused() {
    use ProtocolError::{InvalidValue, MissingLineEnd, UnknownType};
    for (input, expected) in [
        ("GET / HTTP/1.1\r\n", UnknownType),
        ("HELLO 3\r\n", UnknownType),
        ("\r\n", UnknownType),
        ("*1\r\n>1\r\n+a\r\n", UnknownType),
        ("*1\r\n|1\r\n+a\r\n+b\r\n+c\r\n", UnknownType),
        (">3\r\n$7\r\nmessage\r\n+ch\r\n", UnknownType),
        ("$3\r\nfooXX", MissingLineEnd),
        ("$3\r\nfoo\rX", MissingLineEnd),
        ("$3\r\nfoo\n", MissingLineEnd),
        ("+a\rb\r\n", MissingLineEnd),
        ("+QUEUEDX\n+QUEUED\r\n", MissingLineEnd),
        ("-ERR\n", MissingLineEnd),
        (">3\r\n$7\r\nmessage\r\n$1\r\nabc", MissingLineEnd),
        (">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nbXX", MissingLineEnd),
        (":x\r\n", InvalidValue),
        ("#x\r\n", InvalidValue),
        (",x\r\n", InvalidValue),
        (":9223372036854775808\r\n", InvalidValue),
        ("=2\r\nab\r\n", InvalidValue),
        ("%1\r\n*0\r\n+a\r\n", InvalidValue),
        ("*2\r\n$-1\r\n_\r\n", InvalidValue),
    ] {
        assert_eq!(parse(input.as_bytes(), 64), Err(expected), "{input:?}");
    }
}

#[test]
fn errors_never_show_the_input() {
    let shown = parse(b"secret", 64).unwrap_err().to_string();
    assert_eq!(shown, "unknown type byte");
}

#[test]
fn commands_are_arrays_of_bulk_strings() {
    let mut out = b"x".to_vec();
    encode_command(&[b"PUBLISH", b"a\r\nb", b""], &mut out);
    assert_eq!(out, b"x*3\r\n$7\r\nPUBLISH\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    for length in [0, 1, 9, 10, 99, 100, 999_999_999_999_999, usize::MAX] {
        let mut out = Vec::new();
        encode_length(b':', length, &mut out);
        assert_eq!(out, format!(":{length}\r\n").into_bytes());
    }
}

/// A value as either version of the protocol writes it.
#[derive(Clone, Debug)]
enum Written {
    Null,
    Integer(i64),
    Bulk(Vec<u8>),
    Simple(String),
    Error(String),
    Array(Vec<Self>),
    Map(Vec<Self>),
}

impl Written {
    fn write(&self, resp3: bool, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
            Self::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Self::Bulk(bytes) => encode_bulk(bytes, out),
            Self::Simple(text) => out.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Self::Error(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Self::Array(elements) => {
                encode_length(b'*', elements.len(), out);
                elements.iter().for_each(|element| element.write(resp3, out));
            }
            Self::Map(values) => {
                let keys = (0..).map(Self::Integer);
                if resp3 {
                    encode_length(b'%', values.len(), out);
                } else {
                    encode_length(b'*', values.len() * 2, out);
                }
                for (key, value) in keys.zip(values) {
                    key.write(resp3, out);
                    value.write(resp3, out);
                }
            }
        }
    }
}

fn written() -> impl Strategy<Value = Written> {
    let leaf = prop_oneof![
        Just(Written::Null),
        any::<i64>().prop_map(Written::Integer),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Written::Bulk),
        "[ -~]{0,10}".prop_map(Written::Simple),
        "[A-Z]{1,5} [ -~]{0,10}".prop_map(Written::Error),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Written::Array),
            prop::collection::vec(inner, 0..5).prop_map(Written::Map),
        ]
    })
}

/// What the crate makes of the item at the start of the input, without bounds.
fn crate_value(input: &[u8]) -> Option<(Value<'_>, usize)> {
    let end = match redis_protocol::resp3::decode::complete::decode_range(input) {
        Ok(Some((_, end))) => end,
        _ => redis_protocol::resp2::decode::decode_range(input).ok()??.1,
    };
    let item = &input[..end];
    Some((Value::resp3(item).or_else(|| Value::resp2(item))?, end))
}

/// A map's pairs have no order, and nan is not equal to itself.
fn comparable(value: &Value<'_>) -> String {
    match value {
        Value::Array(elements) => elements.iter().map(comparable).collect::<Vec<_>>().join(","),
        Value::Map(pairs) => {
            let pair = |(key, value)| comparable(key) + ":" + &comparable(value);
            let mut pairs: Vec<_> = pairs.iter().map(|(key, value)| pair((key, value))).collect();
            pairs.sort();
            format!("{pairs:?}")
        }
        value => format!("{value:?}"),
    }
}

fn value_of(incoming: Incoming<'_>) -> Option<Value<'_>> {
    match incoming {
        Incoming::Reply(Reply::Other(value)) => Some(value),
        Incoming::Reply(Reply::Simple(text)) => Some(Value::String(text)),
        Incoming::Reply(Reply::Error(text)) => Some(Value::Error(text)),
        _ => None,
    }
}

proptest! {
    #[test]
    fn replies_mean_what_the_crate_says(reply in written(), resp3: bool, rest in "[ -~\r\n]{0,9}") {
        let mut input = Vec::new();
        reply.write(resp3, &mut input);
        let length = input.len();
        input.extend_from_slice(rest.as_bytes());
        let (expected, end) = crate_value(&input).unwrap();
        prop_assert_eq!(end, length);
        match parse(&input, 64) {
            Ok(Parsed::Complete { incoming, consumed }) => {
                prop_assert_eq!(consumed, length);
                let value = value_of(incoming).unwrap();
                prop_assert_eq!(comparable(&value), comparable(&expected));
            }
            parsed => prop_assert!(false, "{:?}", parsed),
        }
        for end in 0..length {
            let parsed = parse(&input[..end], 64);
            prop_assert!(
                matches!(parsed, Ok(Parsed::Partial { needed })
                    if end < needed && needed <= length),
                "{} of {}: {:?}", end, length, parsed
            );
        }
    }

    #[test]
    fn messages_mean_what_the_crate_says(
        channel in prop::collection::vec(any::<u8>(), 0..40),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        resp3: bool,
    ) {
        let mut input = Vec::new();
        encode_command(&[b"message", &channel, &payload], &mut input);
        let expected = crate_value(&input).unwrap().0;
        let mut input = input.clone();
        if resp3 {
            input[0] = b'>';
        }
        let Ok(Parsed::Complete { incoming: Incoming::Message { channel, payload }, consumed }) =
            parse(&input, 64) else { panic!() };
        prop_assert_eq!(consumed, input.len());
        let strings = [b"message", channel, payload].map(Value::String).to_vec();
        prop_assert_eq!(Value::Array(strings), expected);
    }

    #[test]
    fn no_input_is_taken_for_more_than_it_is(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "*", "$", ">", "%", "~", "+", "-", ":", "_", "#", ",", "(", "=", "!", "|", "0", "1",
            "2", "3", "-1", "\r", "\n", "\r\n", "\r\n", "\r\n", "a", "txt:", "$1\r\na\r\n",
            ":1\r\n", "*1\r\n", "*2\r\n", ">3\r\n", "$7\r\nmessage\r\n", "$9\r\nsubscribe\r\n",
            "$-1\r\n",
        ]), 0..12),
    ) {
        let input = tokens.concat().into_bytes();
        match parse(&input, 2) {
            Ok(Parsed::Complete { incoming, consumed }) => {
                prop_assert!(0 < consumed && consumed <= input.len());
                if let Some(value) = value_of(incoming) {
                    let (expected, end) = crate_value(&input).unwrap();
                    prop_assert_eq!(end, consumed);
                    prop_assert_eq!(comparable(&value), comparable(&expected));
                }
            }
            Ok(Parsed::Oversize { consumed, skip, .. }) => {
                prop_assert!(consumed <= input.len() && skip > 4);
            }
            Ok(Parsed::Partial { needed }) => prop_assert!(needed > input.len()),
            Ok(Parsed::Overlong { .. }) => prop_assert!(false, "nothing was to be left out"),
            Err(_) => {}
        }
    }
}
