//! Envelopes and entries, as the script writes them and as nobody should.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn id(ms: u64, seq: u64) -> EventId {
    EventId { ms, seq }
}

#[test]
fn ids_are_read_as_redis_writes_them() {
    for (text, expected) in [
        ("0-0", id(0, 0)),
        ("1700000000000-0", id(1_700_000_000_000, 0)),
        ("7-18446744073709551615", id(7, u64::MAX)),
        ("18446744073709551615-18446744073709551615", id(u64::MAX, u64::MAX)),
    ] {
        assert_eq!(EventId::parse(text.as_bytes()), Some(expected), "{text}");
        assert_eq!(expected.to_string(), text);
    }
    for text in [
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "01-1",
        "1-01",
        "+1-1",
        "1-+1",
        "1 -1",
        "1-1\n",
        "a-1",
        "18446744073709551616-0",
        "0-18446744073709551616",
    ] {
        assert_eq!(EventId::parse(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn ids_are_in_order_and_follow_each_other() {
    let ids = [id(0, 0), id(0, 1), id(0, u64::MAX), id(1, 0), id(9, 5), id(10, 0)];
    assert!(ids.is_sorted());
    assert_eq!(EventId::ZERO, ids[0]);
    assert_eq!(id(0, 0).next(), Some(id(0, 1)));
    assert_eq!(id(0, u64::MAX).next(), Some(id(1, 0)));
    assert_eq!(id(u64::MAX, u64::MAX).next(), None);
    assert_eq!(EventId::ZERO.before(), None);
    for id in [id(0, 0), id(0, u64::MAX), id(7, 5)] {
        assert_eq!(id.next().and_then(EventId::before), Some(id));
    }
}

#[test]
fn envelopes_are_read_and_all_else_is_a_payload() {
    let envelope = Envelope::parse(b"\x005-1 5-0\nhello").unwrap();
    let expected = Envelope {
        id: id(5, 1),
        previous: id(5, 0),
        is_chained: true,
        event: None,
        payload: b"hello",
    };
    assert_eq!(envelope, expected);
    let envelope = Envelope::parse(b"\x005-1 <5-0\nhello").unwrap();
    assert_eq!(envelope, Envelope { is_chained: false, ..expected });
    let envelope = Envelope::parse(b"\x005-1 5-0 two words\n\na\n\0").unwrap();
    assert_eq!(envelope.event, Some(b"two words".as_slice()));
    assert_eq!(envelope.payload, b"\na\n\0");
    assert_eq!(Envelope::parse(b"\x001-0 0-0\n").unwrap().payload, b"");
    for plain in [
        "",
        "hello",
        "5-1 5-0\nhello",
        "\0",
        "\0{\"data\": 1}",
        "\0{5-1 5-0\nx",
        "\x005-1 5-0",
        "\x005-1\nhello",
        "\x005-1 \nhello",
        "\x005-1  5-0\nhello",
        "\x005-1 5-0 \nhello",
        "\x005-0 5-0\nhello",
        "\x005-0 5-1\nhello",
        "\x0005-1 5-0\nhello",
        "\x005-1 x\nhello",
        "\x005-1 <<5-0\nhello",
        "\x00<5-1 5-0\nhello",
        "\x005-1 5-0 a\rb\nhello",
        "\x005-1 5-0 a\0b\nhello",
        "\0\x005-1 5-0\nhello",
    ] {
        assert_eq!(Envelope::parse(plain.as_bytes()), None, "{plain:?}");
    }
    let event = |length| format!("\x005-1 5-0 {}\nx", "e".repeat(length)).into_bytes();
    assert!(Envelope::parse(&event(EVENT_BYTES_MAX)).is_some());
    assert_eq!(Envelope::parse(&event(EVENT_BYTES_MAX + 1)), None);
}

#[test]
fn the_longest_envelope_is_within_its_bound() {
    let last = id(u64::MAX, u64::MAX);
    let event = [b'e'; EVENT_BYTES_MAX];
    let envelope = Envelope {
        id: last,
        previous: id(u64::MAX, u64::MAX - 1),
        is_chained: false,
        event: Some(&event),
        payload: b"",
    };
    let mut message = Vec::new();
    envelope.encode(&mut message);
    assert_eq!(message.len(), ENVELOPE_BYTES_MAX);
    assert_eq!(Envelope::parse(&message), Some(envelope));
}

#[test]
fn keys_name_their_channel() {
    for channel in ["news", "", "a/b", "{x}", "}", "with space\n"] {
        let key = stream_key(channel.as_bytes());
        assert_eq!(key, format!("corecast:{{{channel}}}").into_bytes());
        assert_eq!(channel_of_key(&key), Some(channel.as_bytes()));
    }
    assert_eq!(channel_of_key(CLOCK_KEY), None);
    assert_eq!(channel_of_key(b"news"), None);
}

fn entry<'a>(id: &'a str, fields: &[&'a str]) -> Value<'a> {
    let string = |text: &'a str| Value::String(text.as_bytes());
    Value::Array(vec![string(id), Value::Array(fields.iter().map(|text| string(text)).collect())])
}

#[test]
fn entries_are_read_whatever_else_they_have() {
    let read = |id, fields: &[&'static str]| Envelope::from_entry(&entry(id, fields));
    let (previous, payload) = (id(4, 0), b"x".as_slice());
    let expected = Envelope { id: id(5, 1), previous, is_chained: false, event: None, payload };
    assert_eq!(read("5-1", &["p", "4-0", "d", "x"]), Some(expected));
    assert_eq!(read("5-1", &["z", "", "d", "x", "p", "4-0", "odd"]), Some(expected));
    let with_event = Envelope { event: Some(b"state"), ..expected };
    assert_eq!(read("5-1", &["p", "4-0", "e", "state", "d", "x"]), Some(with_event));
    assert_eq!(read("5-1", &["d", "x"]), None);
    assert_eq!(read("5-1", &["p", "4-0"]), None);
    assert_eq!(read("5-1", &["p", "5-1", "d", "x"]), None);
    assert_eq!(read("5", &["p", "4-0", "d", "x"]), None);
    assert_eq!(Envelope::from_entry(&Value::Null), None);
    assert_eq!(Envelope::from_entry(&Value::Array(Vec::new())), None);
}

#[test]
fn the_clock_tells_how_far_back_history_reaches() {
    let fields = ["since", "1000-0", "ttl", "600", "evicted", "4"];
    let clock = Clock::from_entry(&entry("5000-2", &fields)).unwrap();
    assert_eq!(
        clock,
        Clock { newest: id(5000, 2), since: id(1000, 0), ttl_ms: 600, evicted: Some(4) }
    );
    assert_eq!(clock.expired(5000), id(4461, 0));
    assert_eq!(clock.expired(5100), id(4561, 0));
    assert_eq!(clock.expired(9000), id(5000, 2), "nothing is later than the newest");
    assert_eq!(clock.expired(1200), id(4461, 0), "the time of day was set back");
    let young = Clock { since: id(4900, 7), ..clock };
    assert_eq!(young.expired(5000), id(4900, 7), "nothing is known of what was before");
    let patient = Clock { ttl_ms: 9000, ..clock };
    assert_eq!(patient.expired(5000), id(1000, 0));
    assert_eq!(clock.after_evictions(4), clock);
    assert_eq!(clock.after_evictions(5).expired(5000), id(5000, 2), "nothing is known of any");
    assert_eq!(clock.after_evictions(0).expired(5000), id(5000, 2), "it was started anew since");
    let without = Clock { evicted: None, ..clock };
    assert_eq!(without.after_evictions(5).expired(5000), id(5000, 2));
    assert_eq!(Clock::from_entry(&entry("5-0", &["x", ""])), None);
    assert_eq!(Clock::from_entry(&entry("5-0", &["since", "6-0", "ttl", "1"])), None);
}

#[test]
fn publications_are_calls_of_the_function_or_the_script() {
    let mut publication = Publication {
        channel: b"a",
        kept: 7,
        ttl_ms: 600,
        payload: b"x",
        event: b"",
        bytes_max: None,
    };
    let shown = |call, publication: &Publication<'_>| {
        let mut out = Vec::new();
        encode_publication(call, publication, &mut out);
        String::from_utf8(out).unwrap()
    };
    let rest = "$1\r\n2\r\n$12\r\ncorecast:{a}\r\n$14\r\ncorecast:clock\r\n$1\r\na\r\n$1\r\n7\r\n\
                $3\r\n600\r\n$1\r\nx\r\n";
    let function = "$5\r\nFCALL\r\n$16\r\ncorecast_publish\r\n";
    assert_eq!(shown(Call::Function, &publication), format!("*9\r\n{function}{rest}"));
    publication.event = b"e";
    assert_eq!(
        shown(Call::Script { sha1: b"abc" }, &publication),
        format!("*10\r\n$7\r\nEVALSHA\r\n$3\r\nabc\r\n{rest}$1\r\ne\r\n")
    );
}

#[test]
fn the_library_is_what_its_names_say() {
    assert!(LIBRARY_CODE.starts_with(&format!("#!lua name={LIBRARY}\n")));
    assert!(LIBRARY_CODE.contains(&format!("register_function('{FUNCTION}', publish)")));
    assert!(SCRIPT.contains(&format!("#event > {EVENT_BYTES_MAX} then")));
}

fn any_event() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20).prop_map(|event| clean_event(&event))
}

proptest! {
    #[test]
    fn every_envelope_is_read_as_it_was_written(
        one: (u64, u64), other: (u64, u64), is_chained: bool,
        event in any_event(), payload in vec(any::<u8>(), 0..50),
    ) {
        let (one, other) = (id(one.0, one.1), id(other.0, other.1));
        prop_assume!(one != other);
        let event = Some(&*event).filter(|event| !event.is_empty());
        let (previous, id) = (one.min(other), one.max(other));
        let envelope = Envelope { id, previous, is_chained, event, payload: &payload };
        let mut message = Vec::new();
        envelope.encode(&mut message);
        prop_assert_eq!(Envelope::parse(&message), Some(envelope));
    }

    #[test]
    fn whatever_is_read_as_an_envelope_is_written_the_same(
        message in r"\x00[0-9]{1,3}-[0-9]{1,2} <?[0-9]{1,3}-[0-9]{1,2}( [a-z\r]{0,3})?\n?.{0,5}"
    ) {
        if let Some(envelope) = Envelope::parse(message.as_bytes()) {
            let mut again = Vec::new();
            envelope.encode(&mut again);
            prop_assert_eq!(again, message.as_bytes());
        }
    }
}
