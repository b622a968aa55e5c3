//! JSON as Python and PHP write it, and as nobody should.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::bytes::strings::every_string;

/// A text that is one value of any kind.
fn document(text: &[u8]) -> Result<Value<'_>, Malformed> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value(0)?;
    scanner.end()?;
    Ok(value)
}

/// The value as another library would build it, from what the scanner says of it.
fn rebuilt(value: Value<'_>) -> serde_json::Value {
    let rebuild = |inner: Value<'_>| {
        assert_eq!(value.raw.get(inner.offset..inner.offset + inner.raw.len()), Some(inner.raw));
        rebuilt(inner)
    };
    match value.raw {
        [b'"', ..] => String::from_utf8(value.text().unwrap().into_owned()).unwrap().into(),
        [b'[', ..] => {
            let mut array = Vec::new();
            elements(value.raw, |element| array.push(rebuild(element))).unwrap();
            array.into()
        }
        [b'{', ..] => {
            let mut object = serde_json::Map::new();
            members(value.raw, |name, member| {
                object.insert(String::from_utf8(name.into_owned()).unwrap(), rebuild(member));
            })
            .unwrap();
            object.into()
        }
        scalar => serde_json::from_slice(scalar).unwrap(),
    }
}

/// What serde_json refuses although it is JSON: numbers that its types can't hold.
fn out_of_range(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

/// Scanner and serde_json agree on what is JSON, and on what it says. For texts without NaN,
/// Infinity and lone surrogates.
fn compare(text: &[u8]) {
    let ours = document(text);
    match serde_json::from_str::<serde_json::Value>(&String::from_utf8_lossy(text)) {
        Ok(theirs) => assert_eq!(ours.map(rebuilt), Ok(theirs), "{:?}", text.escape_ascii()),
        Err(error) => assert_eq!(
            ours.is_ok(),
            out_of_range(&error),
            "{:?}: {error}, but {ours:?}",
            text.escape_ascii()
        ),
    }
}

#[test]
fn structure_of_all_short_texts_is_as_serde_json_sees_it() {
    let symbols: [&[u8]; 9] = [b"{", b"}", b"[", b"]", b",", b":", b"\"a\"", b"1", b" "];
    every_string(&symbols, 6, compare);
    every_string(&symbols, 5, |inner| compare(&[b"{\"a\":", inner, b"}"].concat()));
    every_string(&symbols, 5, |inner| compare(&[b"[[", inner, b"]]"].concat()));
}

#[test]
fn numbers_of_all_short_texts_are_as_serde_json_sees_them() {
    let symbols: [&[u8]; 7] = [b"0", b"1", b"-", b"+", b".", b"e", b"E"];
    every_string(&symbols, 6, compare);
}

#[test]
fn strings_of_all_short_texts_are_as_serde_json_sees_them() {
    let symbols: [&[u8]; 10] =
        [b"\"", b"\\", b"u", b"0", b"n", b"\n", b"\x1f", b"\x7f", b"\xc3", b"\xa9"];
    every_string(&symbols, 5, |inner| compare(&[b"\"", inner, b"\""].concat()));
    let escapes: [&[u8]; 9] =
        [b"\\u", b"0", b"a", b"F", b"g", b"\\n", b"\"", b"\\ud83d\\ude00", b"\\/"];
    every_string(&escapes, 6, |inner| compare(&[b"\"", inner, b"\""].concat()));
}

#[test]
fn every_byte_behind_a_backslash_is_as_serde_json_sees_it() {
    for byte in 0..=u8::MAX {
        compare(&[b'"', b'\\', byte, b'"']);
    }
}

#[test]
fn literals_are_spelled_out() {
    for literal in ["null", "true", "false"] {
        for end in 0..=literal.len() {
            compare(&literal.as_bytes()[..end]);
        }
        compare(format!("{literal}x").as_bytes());
        compare(format!("[{literal},{literal}]").as_bytes());
        compare(literal.to_uppercase().as_bytes());
    }
}

#[test]
fn python_numbers_are_values() {
    for text in ["NaN", "Infinity", "-Infinity", "[NaN, {\"a\":-Infinity}]", " Infinity "] {
        let raw = document(text.as_bytes()).map(|value| value.raw);
        assert_eq!(raw, Ok(text.trim().as_bytes()));
    }
    for text in ["nan", "-NaN", "+Infinity", "Infinit", "-Inf", "NaNN", "Infinity1", "- Infinity"] {
        assert!(document(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn surrogates_become_characters_in_pairs_and_are_replaced_alone() {
    let units = [0x41, 0xd83d, 0xde00, 0xdbff, 0xdfff, 0x20ac, 0xffff, 0xd7ff, 0xe000];
    let escapes: Vec<String> = units.iter().map(|unit| format!("\\u{unit:04X}")).collect();
    let symbols: Vec<&[u8]> = escapes.iter().map(String::as_bytes).collect();
    every_string(&symbols, 5, |escapes| {
        let units: Vec<u16> = escapes
            .chunks(6)
            .map(|escape| {
                u16::from_str_radix(std::str::from_utf8(&escape[2..]).unwrap(), 16).unwrap()
            })
            .collect();
        let string = [b"\"", escapes, b"\""].concat();
        let text = document(&string).unwrap().text().unwrap().into_owned();
        assert_eq!(String::from_utf8(text).unwrap(), String::from_utf16_lossy(&units));
    });
}

#[test]
fn a_lone_surrogate_spares_what_surrounds_it() {
    for (string, expected) in [
        (r#""a\ud83db""#, "a\u{fffd}b"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83dude00""#, "\u{fffd}ude00"),
    ] {
        let text = document(string.as_bytes()).unwrap().text();
        assert_eq!(text.as_deref(), Some(expected.as_bytes()));
    }
}

#[test]
fn text_is_borrowed_where_it_stands_as_it_is() {
    let borrowed = |string: &str| {
        matches!(document(string.as_bytes()).unwrap().text(), Some(Cow::Borrowed(_)))
    };
    assert!(borrowed("\"caf\u{e9} / \u{1f600}\""));
    assert!(!borrowed(r#""caf\u00e9""#));
}

#[test]
fn values_that_are_no_strings_have_no_text() {
    for value in ["null", "1", "[\"a\"]", "{\"a\":\"b\"}"] {
        assert_eq!(document(value.as_bytes()).unwrap().text(), None);
    }
}

#[test]
fn members_are_visited_in_order_with_their_raw_values() {
    let text = b" { \"a\" : [1, {\"b\":2}] ,\"\\u0061\":\"x\\n\"\n, \"c\":-1.5e3 } ";
    let mut seen = Vec::new();
    members(text, |name, value| {
        assert_eq!(&text[value.offset..value.offset + value.raw.len()], value.raw);
        seen.push((name.into_owned(), value.raw));
    })
    .unwrap();
    let expected: [(Vec<u8>, &[u8]); 3] = [
        (b"a".to_vec(), b"[1, {\"b\":2}]"),
        (b"a".to_vec(), b"\"x\\n\""),
        (b"c".to_vec(), b"-1.5e3"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn only_the_wanted_container_is_taken_apart() {
    assert!(members(b"[]", |_, _| {}).is_err());
    assert!(elements(b"{}", |_| {}).is_err());
    assert!(members(b"{} x", |_, _| {}).is_err());
    assert!(elements(b"[],", |_| {}).is_err());
}

#[test]
fn errors_say_where_and_what() {
    for (text, expected) in [
        ("", "expected a value at byte 0"),
        ("[1 2]", "expected `,` or `]` at byte 3"),
        ("{\"a\" 1}", "expected `:` at byte 5"),
        ("{1:1}", "expected a string at byte 1"),
        ("{\"a\":1", "expected `,` or `}` at byte 6"),
        ("[1,]", "expected a value at byte 3"),
        ("1 1", "expected nothing more at byte 2"),
        ("01", "expected nothing more at byte 1"),
        ("1.x", "expected a digit at byte 2"),
        ("\"ab", "expected `\"` at byte 3"),
        ("\"a\\x\"", "expected an escape sequence at byte 2"),
        ("\"a\n\"", "expected an escape sequence in place of a control character at byte 2"),
    ] {
        assert_eq!(document(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn nesting_is_bounded_and_needs_no_stack() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        assert!(document(&nested(open, close, NESTING_MAX)).is_ok());
        assert_eq!(
            document(&nested(open, close, NESTING_MAX + 1)).unwrap_err().offset,
            open.len() * NESTING_MAX
        );
        assert!(document(&nested(open, close, 1_000_000)).is_err());
    }
    assert!(elements(&nested("[", "]", NESTING_MAX), |_| {}).is_ok());
    assert!(elements(&nested("[", "]", NESTING_MAX + 1), |_| {}).is_err());
    assert!(members(&nested("{\"a\":", "}", NESTING_MAX), |_, _| {}).is_ok());
    assert!(members(&nested("{\"a\":", "}", NESTING_MAX + 1), |_, _| {}).is_err());
    // What is side by side is not within one another.
    assert!(document(format!("[{}1]", "[],{},".repeat(NESTING_MAX)).as_bytes()).is_ok());
}

fn tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Into::into),
            btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_and_its_parts_are_refused(tree in tree()) {
        for text in [tree.to_string(), format!("{tree:#}\n")] {
            prop_assert_eq!(document(text.as_bytes()).map(rebuilt), Ok(tree.clone()));
            if tree.is_array() || tree.is_object() || tree.is_string() {
                for end in 0..text.trim_end().len() {
                    prop_assert!(document(&text.as_bytes()[..end]).is_err());
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(text in vec(any::<u8>(), 0..100)) {
        compare(&text);
    }

    #[test]
    fn any_text_comes_out_as_it_was_encoded(text in vec(any::<u8>(), 0..100)) {
        let mut string = Vec::new();
        encode_text(&text, &mut string);
        let expected = String::from_utf8_lossy(&text);
        let read = document(&string).unwrap().text();
        prop_assert_eq!(read.as_deref(), Some(expected.as_bytes()));
        prop_assert_eq!(serde_json::from_slice::<String>(&string).unwrap(), expected);
    }
}
