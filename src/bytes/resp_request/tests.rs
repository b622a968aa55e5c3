//! What clients send, whole, in pieces, wrong and at random.

use proptest::prelude::*;

use super::super::resp::encode_command;
use super::*;

const BOUNDS: RequestBounds = RequestBounds { authenticated: true, bulk_bytes_max: 100 };
const UNAUTHENTICATED: RequestBounds =
    RequestBounds { authenticated: false, bulk_bytes_max: 1024 * 1024 };

/// The arguments of a whole command, and how many bytes it took.
fn command(input: &[u8], bounds: RequestBounds) -> Result<(Vec<Vec<u8>>, usize), RequestError> {
    let mut arguments = vec![Cow::Borrowed(&b"left over"[..])];
    match parse(input, bounds, &mut arguments)? {
        Request::Complete { consumed } => {
            Ok((arguments.into_iter().map(Cow::into_owned).collect(), consumed))
        }
        Request::Partial { needed } => panic!("{input:?}: partial, {needed} needed"),
    }
}

fn error(input: &[u8], bounds: RequestBounds) -> String {
    parse(input, bounds, &mut Vec::new()).unwrap_err().to_string()
}

fn partial(input: &[u8]) -> Option<usize> {
    let mut arguments = Vec::new();
    match parse(input, BOUNDS, &mut arguments) {
        Ok(Request::Partial { needed }) if arguments.is_empty() => Some(needed),
        _ => None,
    }
}

/// Commands as they arrive, and their arguments.
fn commands() -> Vec<(&'static [u8], Vec<&'static [u8]>)> {
    vec![
        (b"*1\r\n$4\r\nPING\r\n", vec![b"PING"]),
        (
            b"*3\r\n$7\r\nPUBLISH\r\n$2\r\nch\r\n$4\r\na\r\nb\r\n",
            vec![b"PUBLISH", b"ch", b"a\r\nb"],
        ),
        (b"*2\r\n$0\r\n\r\n$0\r\n\r\n", vec![b"", b""]),
        (b"*0\r\n", vec![]),
        (b"*-1\r\n", vec![]),
        (b"\r\n", vec![]),
        (b"\n", vec![]),
        (b" \t \r\n", vec![]),
        (b"PING\r\n", vec![b"PING"]),
        (b"PING\n", vec![b"PING"]),
        (b"  publish\tch   hello \r\n", vec![b"publish", b"ch", b"hello"]),
        (b"publish ch \"hello world\"\r\n", vec![b"publish", b"ch", b"hello world"]),
        (
            b"p \"\\x41\\xfF\\n\\r\\t\\b\\a\\\"\\\\\\q\\xg1\"\r\n",
            vec![b"p", b"A\xff\n\r\t\x08\x07\"\\qxg1"],
        ),
        (b"p 'it\\'s \\n' ''\n", vec![b"p", b"it's \\n", b""]),
        (b"p pre\"fix\" \"\"\n", vec![b"p", b"prefix", b""]),
        (b"$4\r\n", vec![b"$4"]),
    ]
}

#[test]
fn commands_are_read_whole_whatever_follows() {
    for (bytes, expected) in commands() {
        for rest in ["", "PING\r\n", "*1\r\n", "\"", "*1\r\n+"] {
            let input = [bytes, rest.as_bytes()].concat();
            let (arguments, consumed) = command(&input, BOUNDS).unwrap();
            assert_eq!(
                (arguments, consumed),
                (expected.iter().map(|a| a.to_vec()).collect(), bytes.len())
            );
        }
    }
}

#[test]
fn every_beginning_of_a_command_is_partial_and_never_asks_for_too_much() {
    for (bytes, _) in commands() {
        for end in 0..bytes.len() {
            let needed = partial(&bytes[..end]).unwrap();
            assert!(end < needed && needed <= bytes.len(), "{bytes:?} {end} {needed}");
        }
    }
}

#[test]
fn broken_arrays_are_refused_in_the_words_of_redis() {
    for (input, expected) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*-0\r\n", "invalid multibulk length"),
        ("*--1\r\n", "invalid multibulk length"),
        ("*4097\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*1\r\n*1\r\n*1\r\n", "expected '$', got '*'"),
        ("*1\r\n:1\r\n", "expected '$', got ':'"),
        ("*1\r\n\r\n", "expected '$', got ' '"),
        ("*2\r\n$4\r\nPING\r\nPING\r\n", "expected '$', got 'P'"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$007\r\n", "invalid bulk length"),
        ("*1\r\n$101\r\n", "invalid bulk length"),
        ("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$10737418240\r\n", "invalid bulk length"),
        ("*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        ("*1\r\n$4\r\nPINGPING\r\n", "bulk string without CRLF"),
        ("*1\r\n$4\r\nPING\rX", "bulk string without CRLF"),
    ] {
        assert_eq!(
            error(input.as_bytes(), BOUNDS),
            format!("Protocol error: {expected}"),
            "{input:?}"
        );
    }
}

#[test]
fn broken_lines_are_refused_in_the_words_of_redis() {
    for input in ["p \"a\r\n", "p 'a\r\n", "p \"a\"b\r\n", "p 'a'b\r\n", "p \"\\\r\n", "\"\n"] {
        let expected = "Protocol error: unbalanced quotes in request";
        assert_eq!(error(input.as_bytes(), BOUNDS), expected, "{input:?}");
    }
    let longest = "x".repeat(limits::RESP_LINE_BYTES_MAX);
    assert_eq!(partial(longest.as_bytes()), Some(longest.len() + 1));
    assert_eq!(command(format!("{longest}\n").as_bytes(), BOUNDS).unwrap().1, longest.len() + 1);
    for longer in [format!("{longest}x"), format!("{longest}x\n")] {
        let expected = "Protocol error: too big inline request";
        assert_eq!(error(longer.as_bytes(), BOUNDS), expected);
    }
    let words = "x ".repeat(limits::BROKER_ARGUMENTS_MAX);
    assert_eq!(command(format!("{words}\n").as_bytes(), BOUNDS).unwrap().0.len(), 4096);
    assert_eq!(
        parse(format!("{words}x\n").as_bytes(), BOUNDS, &mut Vec::new()),
        Err(RequestError::LineTooLong)
    );
}

#[test]
fn before_authentication_commands_are_small() {
    assert_eq!(
        error(b"*11\r\n", UNAUTHENTICATED),
        "Protocol error: unauthenticated multibulk length"
    );
    assert_eq!(
        error(b"*1\r\n$16385\r\n", UNAUTHENTICATED),
        "Protocol error: unauthenticated bulk length"
    );
    let mut input = Vec::new();
    encode_command(&[&[b'x'; 16_384][..]; 4], &mut input);
    assert_eq!(error(&input, UNAUTHENTICATED), "Protocol error: unauthenticated bulk length");
    let mut input = Vec::new();
    encode_command(&[&[b'x'; 16_000][..]; 4], &mut input);
    assert_eq!(command(&input, UNAUTHENTICATED).unwrap().0.len(), 4);
}

#[test]
fn a_command_is_bounded_as_a_whole() {
    let bounds = RequestBounds { authenticated: true, bulk_bytes_max: 1024 * 1024 };
    let mut input = Vec::new();
    encode_command(&[b"PUBLISH", &vec![b'c'; 1_000_000], &vec![b'p'; 1024 * 1024]], &mut input);
    assert_eq!(command(&input, bounds).unwrap().1, input.len());
    let head = input.len() - 1024 * 1024 - 2;
    input.truncate(head);
    let wrong = String::from_utf8(input).unwrap().replace("$1000000", "$1048576");
    let padded =
        wrong.replacen("\r\n$1048576\r\n", &format!("\r\n$1048576\r\n{}", "c".repeat(48_576)), 1);
    assert_eq!(error(padded.as_bytes(), bounds), "Protocol error: invalid bulk length");
}

#[test]
fn a_large_argument_is_waited_for_in_one_step() {
    let head = b"*3\r\n$7\r\nPUBLISH\r\n$2\r\nch\r\n$100\r\n";
    assert_eq!(partial(head), Some(head.len() + 102));
    assert_eq!(partial(b"*3\r\n$7\r\nPUBLISH\r\n$50\r\n"), Some(22 + 52 + 6));
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed(
        arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..6),
        rest in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let slices: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let mut input = Vec::new();
        encode_command(&slices, &mut input);
        let length = input.len();
        for end in 0..length {
            let needed = partial(&input[..end]).unwrap();
            prop_assert!(end < needed && needed <= length);
        }
        input.extend_from_slice(&rest);
        prop_assert_eq!(command(&input, BOUNDS), Ok((arguments, length)));
    }

    #[test]
    fn quoted_words_are_read_back(words in prop::collection::vec("[ -~\n\r\t]{0,12}", 1..5)) {
        let quote = |word: &String| {
            let escape = |c| match c {
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '"' | '\\' => format!("\\{c}"),
                c => c.to_string(),
            };
            format!("\"{}\"", word.chars().map(escape).collect::<String>())
        };
        let line = words.iter().map(quote).collect::<Vec<_>>().join(" ") + "\r\n";
        let (arguments, consumed) = command(line.as_bytes(), BOUNDS).unwrap();
        prop_assert_eq!(consumed, line.len());
        prop_assert_eq!(arguments, words.into_iter().map(String::into_bytes).collect::<Vec<_>>());
    }

    #[test]
    fn no_input_is_taken_for_more_than_it_is(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "*", "$", "-", "0", "1", "2", "3", "\r\n", "\r\n", "\r\n", "\r", "\n", " ", "\"", "'",
            "\\", "x", "a", "*1\r\n", "*2\r\n", "$1\r\na\r\n", "$0\r\n\r\n",
        ]), 0..12),
    ) {
        let input = tokens.concat().into_bytes();
        match parse(&input, BOUNDS, &mut Vec::new()) {
            Ok(Request::Complete { consumed }) => {
                prop_assert!(0 < consumed && consumed <= input.len());
            }
            Ok(Request::Partial { needed }) => prop_assert!(needed > input.len()),
            Err(_) => {}
        }
    }
}
