//! Events as bytes, and what a browser reads out of them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::bytes::event_source::{EventSource, Message};
use crate::bytes::strings::every_string;

/// A letter, what has a meaning in a line, all ends of lines, NUL, and UTF-8 whole and in parts.
const SYMBOLS: [&[u8]; 9] = [b"a", b" ", b":", b"\r", b"\n", b"\0", b"\xff", b"\xc3", b"\xa9"];

fn encoded(event: &Event<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, &mut out);
    out
}

#[track_caller]
fn check(event: &Event<'_>, expected: &str) {
    assert_eq!(String::from_utf8(encoded(event)).unwrap(), expected);
}

fn data(data: &[u8]) -> Event<'_> {
    Event { data: data.into(), ..Event::default() }
}

fn received(stream: &[u8]) -> EventSource {
    let mut source = EventSource::default();
    source.push(stream);
    source
}

/// What a page should read for these bytes as data.
fn data_text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).replace("\r\n", "\n").replace('\r', "\n")
}

/// What a page should read for these bytes as type or id.
fn label_text(label: &[u8]) -> String {
    String::from_utf8_lossy(label).replace(['\r', '\n', '\0'], "")
}

/// What a page should get for `event` after an event with the id `last_event_id`.
fn message(event: &Event<'_>, last_event_id: &str) -> Message {
    let name = label_text(&event.event);
    Message {
        event: if name.is_empty() { "message".to_owned() } else { name },
        data: data_text(&event.data),
        last_event_id: event
            .id
            .as_ref()
            .map_or_else(|| last_event_id.to_owned(), |id| label_text(id)),
    }
}

#[test]
fn one_line_of_data_is_one_field() {
    check(&data(b"hello"), "data: hello\n\n");
}

#[test]
fn all_fields_are_written() {
    let event = Event {
        event: b"state".as_slice().into(),
        data: b"started".as_slice().into(),
        id: Some(b"7".as_slice().into()),
        retry_ms: Some(2000),
    };
    check(&event, "event: state\nretry: 2000\ndata: started\nid: 7\n\n");
}

#[test]
fn every_kind_of_line_end_begins_a_new_data_line() {
    let lines = "data: a\ndata: b\ndata: c\ndata: d\n\n";
    check(&data(b"a\nb\r\nc\rd"), lines);
    check(&data(b"\n\r"), "data: \ndata: \ndata: \n\n");
    check(&data(b"a\n"), "data: a\ndata: \n\n");
}

#[test]
fn empty_data_is_dispatched() {
    check(&data(b""), "data: \n\n");
    assert_eq!(received(b"data: \n\n").messages.len(), 1);
}

#[test]
fn an_empty_id_resets_the_last_event_id() {
    let event = Event { id: Some(Cow::default()), ..data(b"x") };
    check(&event, "data: x\nid: \n\n");
    let mut source = received(b"id: 1\ndata: x\n\n");
    source.push(&encoded(&event));
    assert_eq!(source.last_event_id, "");
}

#[test]
fn a_type_cannot_smuggle_in_fields() {
    let event = Event { event: b"a\ndata: b\r\n\nid: c\0".as_slice().into(), ..data(b"x") };
    check(&event, "event: adata: bid: c\ndata: x\n\n");
}

#[test]
fn a_byte_order_mark_in_data_survives() {
    let stream = encoded(&data("\u{feff}x".as_bytes()));
    assert_eq!(received(&stream).messages[0].data, "\u{feff}x");
}

#[test]
fn all_short_data_comes_out_as_it_went_in() {
    every_string(&SYMBOLS, 6, |bytes| {
        let event = data(bytes);
        assert_eq!(received(&encoded(&event)).messages, [message(&event, "")], "{bytes:?}");
    });
}

#[test]
fn all_short_types_and_ids_come_out_without_line_ends_and_nul() {
    every_string(&SYMBOLS, 5, |bytes| {
        let event = Event { event: bytes.into(), id: Some(bytes.into()), ..data(b"x") };
        let source = received(&encoded(&event));
        assert_eq!(source.messages, [message(&event, "")], "{bytes:?}");
        assert_eq!(source.last_event_id, label_text(bytes), "{bytes:?}");
    });
}

#[test]
fn all_short_comments_stay_comments() {
    every_string(&SYMBOLS, 5, |bytes| {
        let mut stream = Vec::new();
        encode_comment(bytes, &mut stream);
        stream.extend_from_slice(b"data: x\n\n");
        let source = received(&stream);
        let lines: Vec<String> =
            data_text(bytes).split('\n').map(|line| format!(" {line}")).collect();
        assert_eq!(source.comments, lines, "{bytes:?}");
        assert_eq!(source.messages, [message(&data(b"x"), "")], "{bytes:?}");
    });
}

#[test]
fn a_heartbeat_dispatches_nothing() {
    let source = received(HEARTBEAT);
    assert_eq!((source.messages.len(), source.comments.len()), (0, 1));
}

#[test]
fn a_stream_begins_with_its_retry_and_its_id() {
    let mut stream = Vec::new();
    encode_retry(u64::MAX, &mut stream);
    encode_id(b"r1-\n7", &mut stream);
    assert_eq!(stream, format!("retry: {}\nid: r1-7\n", u64::MAX).as_bytes());
    stream.push(b'\n');
    let source = received(&stream);
    assert_eq!(source.reconnection_time, Some(u64::MAX));
    assert_eq!((source.last_event_id.as_str(), source.messages.len()), ("r1-7", 0));
}

#[test]
fn a_reset_names_its_reason_and_its_channels() {
    let reasons = [
        (ResetReason::NoHistory, "no-history"),
        (ResetReason::UnknownId, "unknown-id"),
        (ResetReason::HistoryTrimmed, "history-trimmed"),
        (ResetReason::LinkLost, "link-lost"),
        (ResetReason::Overload, "overload"),
        (ResetReason::Oversize, "oversize"),
        (ResetReason::SlowConsumer, "slow-consumer"),
    ];
    for (reason, word) in reasons {
        let mut stream = Vec::new();
        encode_reset(reason, &[b"course-state/12", b"b"], Some(b"7-0"), &mut stream);
        let expected = format!(
            "event: stream-reset\n\
             data: {{\"reason\": \"{word}\", \"channels\": [\"course-state/12\", \"b\"]}}\n\
             id: 7-0\n\n"
        );
        assert_eq!(String::from_utf8(stream).unwrap(), expected);
    }
}

#[test]
fn the_blocks_of_the_server_have_data_and_then_the_id() {
    let mut stream = Vec::new();
    encode_open(7, Some(b"live"), &mut stream);
    encode_open(8, None, &mut stream);
    encode_keep_alive(b"5-0", &mut stream);
    let expected = "retry: 7\nevent: stream-open\ndata:\nid: live\n\n\
                    retry: 8\nevent: stream-open\ndata:\n\n\
                    event: keep-alive\ndata:\nid: 5-0\n\n";
    assert_eq!(String::from_utf8(stream).unwrap(), expected);
}

#[test]
fn an_event_without_its_id_is_as_if_it_had_none() {
    every_string(&SYMBOLS.map(|symbol| symbol), 3, |data| {
        let event = Event { data: data.into(), ..Event::default() };
        let (mut plain, mut with_id) = (Vec::new(), Vec::new());
        encode(&event, &mut plain);
        encode(&Event { id: Some(data.into()), ..event }, &mut with_id);
        assert_eq!(without_id(&with_id), plain);
        if !data.is_empty() {
            assert_eq!(without_id(&plain), plain);
        }
    });
}

#[test]
fn a_reset_is_json_whatever_the_channels_are_called() {
    let symbols: [&[u8]; 9] =
        [b"a", b"\"", b"\\", b"\r", b"\n", b"\0", b"\x1f", b"\xff", "\u{1f600}".as_bytes()];
    every_string(&symbols, 4, |channel| {
        let mut stream = Vec::new();
        encode_reset(ResetReason::LinkLost, &[b"x", channel], None, &mut stream);
        let messages = received(&stream).messages;
        let json: serde_json::Value = serde_json::from_str(&messages[0].data).unwrap();
        let channel = String::from_utf8_lossy(channel);
        let expected = serde_json::json!({ "reason": "link-lost", "channels": ["x", channel] });
        assert_eq!((messages.len(), json), (1, expected));
    });
    let mut stream = Vec::new();
    encode_reset(ResetReason::Overload, &[], None, &mut stream);
    assert!(received(&stream).messages[0].data.ends_with("\"channels\": []}"));
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let line_ends = vec(prop::sample::select(SYMBOLS.to_vec()), 0..40);
    prop_oneof![
        line_ends.prop_map(|symbols| symbols.concat()),
        vec(any::<u8>(), 0..300),
        any::<String>().prop_map(String::into_bytes),
    ]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    (text(), text(), option::of(text()), option::of(any::<u64>())).prop_map(
        |(event, data, id, retry_ms)| Event {
            event: event.into(),
            data: data.into(),
            id: id.map(Into::into),
            retry_ms,
        },
    )
}

proptest! {
    #[test]
    fn events_in_a_stream_do_not_touch_one_another(
        events in vec(event(), 1..6),
        piece in 1..40_usize,
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        let mut last_event_id = String::new();
        for event in &events {
            encode(event, &mut stream);
            stream.extend_from_slice(HEARTBEAT);
            expected.push(message(event, &last_event_id));
            last_event_id.clone_from(&expected[expected.len() - 1].last_event_id);
        }
        let mut source = EventSource::default();
        for piece in stream.chunks(piece) {
            source.push(piece);
        }
        prop_assert_eq!(source.messages, expected);
        prop_assert_eq!(source.last_event_id, last_event_id);
        let retry = events.iter().rev().find_map(|event| event.retry_ms);
        prop_assert_eq!(source.reconnection_time, retry);
        prop_assert!(std::str::from_utf8(&stream).is_ok());
    }
}
