//! What comes in, in pieces of any size.

use super::*;

const PAYLOAD_BYTES_MAX: usize = 8;
const BULK_BYTES_MAX: usize = 13;

/// What an input hands over when it gets these pieces, one after the other.
fn handed_over<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut input, mut items) = (Input::default(), Vec::new());
    for piece in pieces {
        input.bytes.extend_from_slice(piece);
        let take = |item: Item<'_>| {
            items.push(format!("{item:?}"));
            Ok(())
        };
        input.take_in(PAYLOAD_BYTES_MAX, BULK_BYTES_MAX, take).unwrap();
    }
    input.give_memory_back();
    assert_eq!((input.bytes.capacity(), input.skip), (0, 0), "{items:?}");
    items
}

fn bulk(length: usize) -> String {
    format!("${length}\r\n{}\r\n", "x".repeat(length))
}

fn message(length: usize) -> String {
    format!(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n{}", bulk(length))
}

/// Replies with overlong strings in all places, between messages; and how they are to be read.
fn stream() -> (String, String) {
    // Of each reply: the length of an overlong string, 0 for none, and what follows.
    let replies: [&[(usize, &str)]; 5] = [
        &[(0, "*1\r\n"), (14, "")],
        &[(0, "*3\r\n"), (14, "$13\r\nno longer one\r\n"), (20, "")],
        &[(0, "*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n+d\r\n"), (40, "*2\r\n+x\r\n"), (15, "")],
        &[(0, "*4\r\n"), (14, ""), (15, ""), (16, ""), (17, "")],
        &[(0, "%1\r\n+key\r\n*2\r\n:1\r\n"), (123, "")],
    ];
    let (mut stream, mut expected) = (message(3), message(3));
    for reply in replies {
        for (length, text) in reply {
            if *length > 0 {
                stream.push_str(&bulk(*length));
                expected.push_str("_\r\n");
            }
            stream.push_str(text);
            expected.push_str(text);
        }
        for text in [message(8), message(30), bulk(14)] {
            stream.push_str(&text);
            expected.push_str(&text);
        }
    }
    (stream, expected)
}

#[test]
fn overlong_strings_in_replies_are_null_wherever_the_stream_is_cut() {
    let (stream, expected) = stream();
    let expected = handed_over([expected.as_bytes()]);
    assert_eq!(expected.len(), 1 + 5 * 4);
    let stream = stream.as_bytes();
    for size in 1..=stream.len() {
        assert_eq!(handed_over(stream.chunks(size)), expected, "pieces of {size} bytes");
    }
    for cut in 0..=stream.len() {
        let (first, second) = stream.split_at(cut);
        assert_eq!(handed_over([first, second]), expected, "cut at byte {cut}");
    }
}

#[test]
fn a_page_with_an_entry_of_no_end_costs_no_memory_and_goes_on_behind_it() {
    let string = 3 * crate::ground::limits::RESP_REPLY_BYTES_MAX;
    let (mut input, mut items) = (Input::default(), Vec::new());
    let mut push = |bytes: &[u8]| {
        input.bytes.reserve(bytes.len());
        input.bytes.extend_from_slice(bytes);
        let take = |item: Item<'_>| {
            items.push(format!("{item:?}"));
            Ok(())
        };
        input.take_in(PAYLOAD_BYTES_MAX, BULK_BYTES_MAX, take).unwrap();
        assert!(input.bytes.len() < 100, "{}", input.bytes.len());
        assert!(input.bytes.capacity() <= 4 * READ_BYTES, "{}", input.bytes.capacity());
    };
    push(b"*5\r\n$1\r\na\r\n");
    for _ in 0..3 {
        push(format!("${string}\r\n").as_bytes());
        let mut left = string;
        while left > 0 {
            let count = left.min(READ_BYTES);
            push(&vec![b'\r'; count]);
            left -= count;
        }
        push(b"\r\n");
    }
    push(b"$1\r\nb\r\n");
    push(message(1).as_bytes());
    let expected = format!("*5\r\n$1\r\na\r\n_\r\n_\r\n_\r\n$1\r\nb\r\n{}", message(1));
    assert_eq!(items, handed_over([expected.as_bytes()]));
}

#[test]
fn what_is_long_without_overlong_strings_still_ends_the_link() {
    let max = crate::ground::limits::RESP_REPLY_BYTES_MAX;
    for bytes in [format!("${}\r\n", max + 1), format!("*2\r\n{}*{max}\r\n", bulk(14))] {
        let mut input = Input { bytes: bytes.into_bytes(), ..Input::default() };
        let result = input.take_in(PAYLOAD_BYTES_MAX, BULK_BYTES_MAX, |_| Ok(()));
        let too_large = resp::ProtocolError::ReplyTooLarge;
        assert!(matches!(result, Err(LinkError::Protocol(error)) if error == too_large));
    }
}
