//! Payloads as publishers send them, whole and broken.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::bytes::event_source::{EventSource, Message};
use crate::bytes::event_stream;
use crate::bytes::strings::every_string;

/// What a page reads of a payload.
fn received(format: Format, payload: &[u8]) -> EventSource {
    let mut stream = Vec::new();
    event_stream::encode(&decode(format, payload).unwrap().event, &mut stream);
    let mut source = EventSource::default();
    source.push(&stream);
    assert_eq!(source.messages.len(), 1, "{}", payload.escape_ascii());
    source
}

/// The payload becomes one event of this type and data, for the channel it was published on.
#[track_caller]
fn check(format: Format, payload: &str, event: &str, data: &str) {
    assert_eq!(decode(format, payload.as_bytes()).unwrap().channel, None);
    let Message { event: actual_event, data: actual_data, .. } =
        received(format, payload.as_bytes()).messages.remove(0);
    assert_eq!((actual_event.as_str(), actual_data.as_str()), (event, data), "{payload}");
}

/// As [`check`], for the channel that the payload names.
#[track_caller]
fn check_routed(format: Format, payload: &str, channel: &str, event: &str, data: &str) {
    let routed = decode(format, payload.as_bytes()).unwrap().channel;
    assert_eq!(routed.as_deref(), Some(channel.as_bytes()), "{payload}");
    let Message { event: actual_event, data: actual_data, .. } =
        received(format, payload.as_bytes()).messages.remove(0);
    assert_eq!((actual_event.as_str(), actual_data.as_str()), (event, data), "{payload}");
}

#[track_caller]
fn check_id_and_retry(format: Format, payload: &str, id: Option<&str>, retry_ms: Option<u64>) {
    let event = decode(format, payload.as_bytes()).unwrap().event;
    assert_eq!(event.id.as_deref(), id.map(str::as_bytes), "{payload}");
    assert_eq!(event.retry_ms, retry_ms, "{payload}");
}

#[track_caller]
fn check_refused(format: Format, payload: &str, expected: &str) {
    let error = decode(format, payload.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{payload}: {error}");
    assert!(error.ends_with(shape(format)), "{payload}: {error}");
}

#[test]
fn raw_payloads_are_data_as_they_are() {
    for payload in ["", "hello", "a\nb", r#"["state", "started"]"#, r#"{"data": "x"}"#] {
        check(Format::Raw, payload, "message", payload);
    }
    let source = received(Format::Raw, b"a\xffb");
    assert_eq!(source.messages[0].data, "a\u{fffd}b");
}

#[test]
fn json_fills_all_four_fields() {
    let payload = r#"{"data": "x", "event": "state", "id": "7", "retry": 3000}"#;
    check(Format::Json, payload, "state", "x");
    check_id_and_retry(Format::Json, payload, Some("7"), Some(3000));
    let source = received(Format::Json, payload.as_bytes());
    assert_eq!((source.last_event_id.as_str(), source.reconnection_time), ("7", Some(3000)));
}

#[test]
fn json_needs_data_alone() {
    check(Format::Json, r#"{"data":""}"#, "message", "");
    check_id_and_retry(Format::Json, r#"{"data":""}"#, None, None);
    check_refused(Format::Json, "{}", "json payload: expected a member `data`; the format is {");
    check_refused(Format::Json, r#"{"type": "x"}"#, "json payload: expected a member `data`");
}

#[test]
fn json_data_that_is_no_string_is_the_publishers_own_bytes() {
    for data in ["null", "true", "-1.50e+3", r#"{"b":1,  "a":"\u00e9"}"#, "[ 1,2 ]", "NaN"] {
        check(Format::Json, &format!(r#"{{"data": {data} }}"#), "message", data);
    }
    check(Format::Json, "{\"data\": {\n  \"a\": 1\r\n}}", "message", "{\n  \"a\": 1\n}");
}

#[test]
fn json_labels_may_be_numbers_or_null() {
    check(Format::Json, r#"{"data": "x", "event": null}"#, "message", "x");
    check(Format::Json, r#"{"data": "x", "event": ""}"#, "message", "x");
    check(Format::Json, r#"{"data": "x", "event": 5}"#, "5", "x");
    check_id_and_retry(Format::Json, r#"{"data": "x", "id": 12}"#, Some("12"), None);
    check_id_and_retry(Format::Json, r#"{"data": "x", "id": null}"#, None, None);
    check_id_and_retry(Format::Json, r#"{"data": "x", "id": ""}"#, Some(""), None);
    check_refused(
        Format::Json,
        r#"{"data": "x", "event": ["a"]}"#,
        "json payload: expected a string, a number or null at byte 23",
    );
    check_refused(
        Format::Json,
        r#"{"data": "x", "id": {}}"#,
        "json payload: expected a string, a number or null at byte 20",
    );
}

#[test]
fn a_retry_that_is_no_time_does_not_cost_the_event() {
    for (retry, expected) in [
        ("2000", Some(2000)),
        (r#""2000""#, Some(2000)),
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("null", None),
        (r#""""#, None),
        (r#""2s""#, None),
        (r#""+5""#, None),
        ("-1", None),
        ("1.5", None),
        ("[1]", None),
    ] {
        let payload = format!(r#"{{"data": "x", "retry": {retry}}}"#);
        check_id_and_retry(Format::Json, &payload, None, expected);
    }
}

#[test]
fn json_has_no_aliases_and_ignores_unknown_members() {
    check(Format::Json, r#"{"type": "a", "data": "x", "extra": {"data": 1}}"#, "message", "x");
}

#[test]
fn the_last_of_repeated_members_counts() {
    check(Format::Json, r#"{"data": "a", "event": [], "d\u0061ta": "b", "event": "e"}"#, "e", "b");
}

#[test]
fn json_is_read_whole_or_not_at_all() {
    check_refused(
        Format::Json,
        r#"{"data": "x"} x"#,
        "json payload: expected nothing more at byte 14",
    );
    check_refused(
        Format::Json,
        r#"{"data": "x", "y": [1,}"#,
        "json payload: expected a value at byte 22",
    );
    check_refused(Format::Json, "", "json payload: expected `{` at byte 0");
    check(Format::Json, "\t{\"data\": \"x\"}\r\n", "message", "x");
}

#[test]
fn bytes_in_strings_that_are_not_utf8_are_replaced() {
    let source = received(Format::Json, b"{\"data\": \"a\xff\\n\xe2\x82\", \"event\": \"\xff\"}");
    assert_eq!(source.messages[0].data, "a\u{fffd}\n\u{fffd}");
    assert_eq!(source.messages[0].event, "\u{fffd}");
}

#[test]
fn django_sse_text_is_data() {
    check(Format::DjangoSse, r#"["state", "started"]"#, "state", "started");
    let mut stream = Vec::new();
    let event = decode(Format::DjangoSse, br#"["state", "started"]"#).unwrap().event;
    event_stream::encode(&event, &mut stream);
    assert_eq!(stream, b"event: state\ndata: started\n\n");
}

#[test]
fn django_sse_text_keeps_its_lines() {
    check(Format::DjangoSse, r#"["state", "a\nb\r\nc\rd"]"#, "state", "a\nb\nc\nd");
    check(Format::DjangoSse, r#"["state", "trail\n"]"#, "state", "trail\n");
    check(Format::DjangoSse, r#"["state", "\u2028x\u000b"]"#, "state", "\u{2028}x\u{b}");
}

#[test]
fn django_sse_empty_data_is_delivered() {
    check(Format::DjangoSse, r#"["state", ""]"#, "state", "");
}

#[test]
fn django_sse_list_of_strings_is_lines() {
    check(Format::DjangoSse, r#"["state", ["x", "y\nz"]]"#, "state", "x\ny\nz");
    check(Format::DjangoSse, r#"["state", ["x\n", "", "y\r\n", "z\r"]]"#, "state", "x\n\ny\nz");
    check(Format::DjangoSse, r#"["state", [""]]"#, "state", "");
    check(Format::DjangoSse, r#"["state", []]"#, "state", "");
}

#[test]
fn django_sse_other_json_is_the_publishers_own_bytes() {
    for data in [
        r#"{"text": "hi", "n": [1, 2.0]}"#,
        "5",
        "true",
        "null",
        "[1, 2]",
        r#"["a", 1]"#,
        r#"[["a"]]"#,
        "NaN",
        r#"{"a": [Infinity, -Infinity, NaN]}"#,
        r#"{"a": "\ud83d"}"#,
    ] {
        check(Format::DjangoSse, &format!(r#"["state", {data}]"#), "state", data);
    }
}

#[test]
fn django_sse_reads_what_python_escapes() {
    check(Format::DjangoSse, r#"["gr\u00f6\u00dfe", "\ud83d\ude00"]"#, "größe", "\u{1f600}");
    check(Format::DjangoSse, r#"["state", "a\ud83db"]"#, "state", "a\u{fffd}b");
    check(Format::DjangoSse, r#"["\udc80", "x"]"#, "\u{fffd}", "x");
}

#[test]
fn django_sse_event_names_stay_on_their_line() {
    check(Format::DjangoSse, r#"["a\ndata: b", "x"]"#, "adata: b", "x");
    check(Format::DjangoSse, r#"[null, "x"]"#, "message", "x");
    check(Format::DjangoSse, r#"["", "x"]"#, "message", "x");
    check(Format::DjangoSse, r#"[7, "x"]"#, "7", "x");
}

#[test]
fn django_sse_wants_a_pair() {
    for payload in ["[]", r#"["a"]"#, r#"["a", "b", "c"]"#, r#"["a", "b", "c", "d"]"#] {
        check_refused(Format::DjangoSse, payload, "django-sse payload: expected two elements");
    }
    for payload in [r#"{"a": 1, "b": 2}"#, r#""ab""#, "started"] {
        check_refused(Format::DjangoSse, payload, "django-sse payload: expected `[` at byte 0");
    }
    check_refused(
        Format::DjangoSse,
        r#"[{}, "x"]"#,
        "django-sse payload: expected a string, a number or null at byte 1",
    );
}

#[test]
fn flask_sse_type_is_the_event() {
    check(Format::FlaskSse, r#"{"data": "hi"}"#, "message", "hi");
    check(
        Format::FlaskSse,
        r#"{"data": {"message": "Hello!"}, "type": "greeting"}"#,
        "greeting",
        r#"{"message": "Hello!"}"#,
    );
    check(Format::FlaskSse, r#"{"data": "hi", "event": "x"}"#, "message", "hi");
}

#[test]
fn flask_sse_id_and_retry_are_numbers_or_strings() {
    let payload = r#"{"data": "a\nb", "type": "t", "id": "5", "retry": 1500}"#;
    check(Format::FlaskSse, payload, "t", "a\nb");
    check_id_and_retry(Format::FlaskSse, payload, Some("5"), Some(1500));
    let payload = r#"{"data": "x", "id": 5, "retry": "1500"}"#;
    check_id_and_retry(Format::FlaskSse, payload, Some("5"), Some(1500));
}

#[test]
fn django_eventstream_is_routed_by_the_inner_channel() {
    let payload = concat!(
        r#"{"channel": "test", "event_type": "message", "#,
        r#""data": "{\"text\": \"hi\"}", "pub_id": null}"#
    );
    check_routed(Format::DjangoEventstream, payload, "test", "message", r#"{"text": "hi"}"#);
    check_id_and_retry(Format::DjangoEventstream, payload, None, None);
    let decoded = decode(Format::DjangoEventstream, payload.as_bytes()).unwrap();
    assert!(decoded.event.event.is_empty());
}

#[test]
fn django_eventstream_passes_type_and_id() {
    for id in [r#""12""#, "12"] {
        let payload = format!(
            r#"{{"channel": "room-\u00e9", "event_type": "new", "data": "x", "pub_id": {id}}}"#
        );
        check_routed(Format::DjangoEventstream, &payload, "room-é", "new", "x");
        check_id_and_retry(Format::DjangoEventstream, &payload, Some("12"), None);
    }
    check_routed(Format::DjangoEventstream, r#"{"channel":"a","data":""}"#, "a", "message", "");
}

#[test]
fn django_eventstream_without_a_channel_reaches_nobody() {
    for payload in [r#"{"data": "x"}"#, r#"{"channel": 5, "data": "x"}"#] {
        check_refused(
            Format::DjangoEventstream,
            payload,
            "django-eventstream payload: expected a string that names the channel",
        );
    }
}

#[test]
fn laravel_events_keep_their_class_and_their_json() {
    check(
        Format::Laravel,
        r#"{"event":"App\\Events\\X","data":{"foo":"bar","socket":null},"socket":null}"#,
        r"App\Events\X",
        r#"{"foo":"bar","socket":null}"#,
    );
    check(
        Format::Laravel,
        r#"{"event":"a\/b","data":{"url":"https:\/\/x","n":"\u00e9"},"socket":"123.456"}"#,
        "a/b",
        r#"{"url":"https:\/\/x","n":"\u00e9"}"#,
    );
    check(Format::Laravel, r#"{"event":"e","data":[],"socket":null}"#, "e", "[]");
    check(Format::Laravel, r#"{"event":"e","data":"text","socket":null}"#, "e", "text");
}

#[test]
fn anycable_is_routed_by_the_inner_stream() {
    check_routed(
        Format::Anycable,
        r#"{"stream":"chat/1","data":"{\"text\":\"hi\"}"}"#,
        "chat/1",
        "message",
        r#"{"text":"hi"}"#,
    );
    check_routed(
        Format::Anycable,
        r#"{"stream":"s","data":"x","meta":{"exclude_socket":"1"}}"#,
        "s",
        "message",
        "x",
    );
    check_refused(
        Format::Anycable,
        r#"{"command":"disconnect","payload":{}}"#,
        "anycable payload: expected a member `data`",
    );
}

#[test]
fn an_envelope_is_read_in_every_format() {
    for format in Format::ALL {
        let payload = "\0{\"data\": \"x\\ny\", \"event\": \"e\", \"id\": 7, \"retry\": 100}";
        check(format, payload, "e", "x\ny");
        check_id_and_retry(format, payload, Some("7"), Some(100));
    }
}

#[test]
fn what_only_begins_like_an_envelope_is_an_ordinary_payload() {
    for payload in ["\0", "\0{", "\0{}", "\0[]", "\0 {\"data\": 1}", "\0{\"data\": 1} x", "\0x"] {
        check(Format::Raw, payload, "message", payload);
        for format in &Format::ALL[1..] {
            assert_eq!(decode(*format, payload.as_bytes()).unwrap_err().offset, Some(0));
        }
    }
}

#[test]
fn without_rules_every_channel_is_raw() {
    assert_eq!(Formats::default().of(b"a"), Format::Raw);
    assert_eq!(Formats::new(&[], b"").of(b""), Format::Raw);
}

#[test]
fn the_longest_prefix_wins_and_the_later_of_two_equal_ones() {
    let prefixes: [&[u8]; 4] = [b"", b"a", b"ab", b"b"];
    let choices: Vec<FormatRule> = prefixes
        .iter()
        .flat_map(|prefix| {
            [Format::Json, Format::Laravel]
                .map(|format| FormatRule { prefix: prefix.to_vec(), format })
        })
        .collect();
    let numbers: Vec<[u8; 1]> = (0..8).map(|number| [number]).collect();
    let symbols: Vec<&[u8]> = numbers.iter().map(|number| number.as_slice()).collect();
    every_string(&symbols, 4, |picked| {
        let rules: Vec<FormatRule> =
            picked.iter().map(|&number| choices[usize::from(number)].clone()).collect();
        let formats = Formats::new(&rules, b"");
        for channel in [&b""[..], b"a", b"ab", b"abc", b"ba", b"c"] {
            let expected = rules
                .iter()
                .filter(|rule| channel.starts_with(&rule.prefix))
                .max_by_key(|rule| rule.prefix.len())
                .map_or(Format::Raw, |rule| rule.format);
            assert_eq!(formats.of(channel), expected, "{rules:?} {channel:?}");
        }
    });
}

#[test]
fn a_payload_that_was_cut_off_is_refused() {
    for (format, payload) in [
        (Format::Json, r#"{"data": {"a": [1, "x"]}, "event": "state", "id": "7"}"#),
        (Format::DjangoSse, r#"["state", ["x", "\ud83d\ude00"]]"#),
        (Format::FlaskSse, r#"{"data": {"message": "Hello!"}, "type": "greeting"}"#),
        (Format::DjangoEventstream, r#"{"channel": "a", "data": "{\"a\": 1}", "pub_id": null}"#),
        (Format::Laravel, r#"{"event":"App\\Events\\X","data":{"foo":"bar"},"socket":null}"#),
        (Format::Anycable, r#"{"stream":"s","data":"{\"text\":\"hi\"}"}"#),
    ] {
        assert!(decode(format, payload.as_bytes()).is_ok());
        for end in 0..payload.len() {
            assert!(decode(format, &payload.as_bytes()[..end]).is_err(), "{}", &payload[..end]);
        }
    }
}

#[test]
fn all_short_payloads_are_one_event_or_none() {
    let symbols: [&[u8]; 11] = [
        b"\0",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"data\"",
        b"\"stream\"",
        b"\"\xff\n\"",
        b"1",
    ];
    every_string(&symbols, 5, |payload| {
        for format in Format::ALL {
            match decode(format, payload) {
                Ok(_) => drop(received(format, payload)),
                Err(error) => assert!(error.offset.is_none_or(|offset| offset <= payload.len())),
            }
        }
    });
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![any::<String>().prop_map(String::into_bytes), vec(any::<u8>(), 0..40)]
}

proptest! {
    #[test]
    fn an_envelope_carries_any_event(
        name in text(),
        data in text(),
        id in option::of(text()),
        retry_ms in option::of(any::<u64>()),
    ) {
        let event = Event {
            event: Cow::Owned(name),
            data: Cow::Owned(data),
            id: id.map(Cow::Owned),
            retry_ms,
        };
        let mut payload = Vec::new();
        encode_envelope(&event, &mut payload);
        let (mut sent, mut direct) = (Vec::new(), Vec::new());
        event_stream::encode(&decode(Format::DjangoSse, &payload).unwrap().event, &mut sent);
        event_stream::encode(&event, &mut direct);
        prop_assert_eq!(sent, direct);
    }

    #[test]
    fn any_data_comes_through_every_object(value in any::<String>()) {
        let data = serde_json::Value::from(value.as_str()).to_string();
        let expected = value.replace("\r\n", "\n").replace('\r', "\n");
        for (format, name) in [
            (Format::Json, "event"),
            (Format::FlaskSse, "type"),
            (Format::DjangoEventstream, "channel"),
            (Format::Laravel, "event"),
            (Format::Anycable, "stream"),
        ] {
            let payload = format!("{{\"{name}\": \"n\", \"data\": {data}}}");
            let source = received(format, payload.as_bytes());
            prop_assert_eq!(&source.messages[0].data, &expected);
        }
        let source = received(Format::DjangoSse, format!("[\"n\", {data}]").as_bytes());
        prop_assert_eq!(&source.messages[0].data, &expected);
    }

    #[test]
    fn any_bytes_are_one_event_or_none(payload in vec(any::<u8>(), 0..200)) {
        for format in Format::ALL {
            if decode(format, &payload).is_ok() {
                received(format, &payload);
            }
        }
    }
}

#[test]
fn a_rule_may_name_channels_with_or_without_the_stripped_prefix() {
    for prefix in ["app-orders", "orders", "app-"] {
        let rules = [FormatRule { prefix: prefix.into(), format: Format::Laravel }];
        let formats = Formats::new(&rules, b"app-");
        assert_eq!(formats.of(b"app-orders/1"), Format::Laravel, "{prefix}");
        assert_eq!(formats.of(b"app2-orders"), Format::Raw, "{prefix}");
    }
}
