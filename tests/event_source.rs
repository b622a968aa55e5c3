//! The parser that other tests trust, against the examples and the rules of WHATWG HTML 9.2.6.

#[path = "support/event_source.rs"]
mod event_source;

use event_source::{EventSource, Message};

/// Reads `stream` whole and, for every place it can be cut in two, in two pieces.
#[track_caller]
fn read(stream: &[u8]) -> EventSource {
    let mut whole = EventSource::default();
    whole.push(stream);
    for cut in 0..=stream.len() {
        let (first, second) = stream.split_at(cut);
        let mut cut_in_two = EventSource::default();
        cut_in_two.push(first);
        cut_in_two.push(second);
        assert_eq!(cut_in_two, whole, "cut at byte {cut}");
    }
    whole
}

/// What the stream dispatches: type, data and last event ID of each event.
#[track_caller]
fn check(stream: &[u8], expected: &[(&str, &str, &str)]) {
    let message = |&(event, data, last_event_id): &(&str, &str, &str)| Message {
        event: event.to_owned(),
        data: data.to_owned(),
        last_event_id: last_event_id.to_owned(),
    };
    assert_eq!(read(stream).messages, expected.iter().map(message).collect::<Vec<_>>());
}

#[test]
fn lines_of_data_are_joined() {
    check(b"data: YHOO\ndata: +2\ndata: 10\n\n", &[("message", "YHOO\n+2\n10", "")]);
}

#[test]
fn an_id_lasts_until_it_is_reset_and_an_unfinished_event_is_discarded() {
    check(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n\
          data:  third event\n",
        &[("message", "first event", "1"), ("message", "second event", "")],
    );
    check(b"id: 7\ndata: a\n\ndata: b\n\n", &[("message", "a", "7"), ("message", "b", "7")]);
}

#[test]
fn empty_data_is_dispatched_and_no_data_is_not() {
    check(b"data\n\ndata\ndata\n\ndata:\n", &[("message", "", ""), ("message", "\n", "")]);
    check(b"event: only\n\nevent:\ndata: x\n\n", &[("message", "x", "")]);
}

#[test]
fn one_space_after_the_colon_is_no_part_of_the_value() {
    check(
        b"data:test\n\ndata: test\n\ndata:  test\n\n",
        &[("message", "test", ""), ("message", "test", ""), ("message", " test", "")],
    );
}

#[test]
fn every_kind_of_line_end_ends_a_line() {
    check(
        b"data:1\rdata:2\ndata:3\r\n\r\ndata:4\n\r\rdata:5\r\r",
        &[("message", "1\n2\n3", ""), ("message", "4", ""), ("message", "5", "")],
    );
}

#[test]
fn the_type_holds_for_one_event_and_the_last_one_counts() {
    check(b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\n", &[("b", "1", ""), ("message", "2", "")]);
}

#[test]
fn one_byte_order_mark_is_dropped_at_the_start_alone() {
    check(b"\xef\xbb\xbfdata: 1\n\n", &[("message", "1", "")]);
    check(b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n", &[("message", "2", "")]);
    check(b"data: 1\n\xef\xbb\xbfdata: 2\n\n", &[("message", "1", "")]);
    check(b"data: \xef\xbb\xbf1\n\n", &[("message", "\u{feff}1", "")]);
}

#[test]
fn invalid_utf8_is_replaced() {
    check(b"data: a\xffb\xe2\x82\n\n", &[("message", "a\u{fffd}b\u{fffd}", "")]);
    check("data: \u{20ac}\n\n".as_bytes(), &[("message", "\u{20ac}", "")]);
}

#[test]
fn an_id_with_nul_is_ignored_and_an_id_alone_takes_effect() {
    check(b"id: 1\nid: 2\0\ndata: x\n\n", &[("message", "x", "1")]);
    let source = read(b"id: 5\n\nid: 6\n");
    assert_eq!((source.last_event_id.as_str(), source.messages.len()), ("5", 0));
}

#[test]
fn a_reconnection_time_is_all_digits_and_needs_no_empty_line() {
    assert_eq!(read(b"retry: 2000\n").reconnection_time, Some(2000));
    assert_eq!(read(b"retry: 010\n").reconnection_time, Some(10));
    for ignored in ["retry: 1s\n", "retry: -1\n", "retry: 1.5\n", "retry:  1\n", "retry\n"] {
        assert_eq!(read(ignored.as_bytes()).reconnection_time, None, "{ignored:?}");
    }
    assert_eq!(read(b"retry: 3\nretry: x\n").reconnection_time, Some(3));
}

#[test]
fn comments_and_unknown_fields_dispatch_nothing() {
    let source = read(b": hello\n:\n\n:\n\nunknown: x\nData: x\n data: x\n\n");
    assert_eq!(source.comments, [" hello", "", ""]);
    assert_eq!(source.messages, []);
}
