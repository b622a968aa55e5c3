//! Redis' glob-style patterns: `?`, `*`, `[a-z]`, `[^a]` and `\` before a byte that means itself.

/// Whether the whole of `text` matches.
///
/// As in Redis an empty text matches nothing but an empty pattern, and a class that is not closed
/// ends with the pattern. O(n·m), without recursion: only the last `*` is ever taken back.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let mut pattern = pattern;
    let mut text = text;
    // What follows the last `*`, and the text that it may have to leave a byte of to the `*`.
    let mut retry: Option<(&[u8], &[u8])> = None;
    while let Some((&byte, rest)) = text.split_first() {
        if let [b'*', after @ ..] = pattern {
            retry = Some((after, text));
            pattern = after;
        } else if let Some(after) = take(pattern, byte) {
            pattern = after;
            text = rest;
        } else {
            let Some((after, [_, shorter @ ..])) = retry else { return false };
            retry = Some((after, shorter));
            pattern = after;
            text = shorter;
        }
    }
    pattern.iter().all(|&byte| byte == b'*')
}

/// The pattern after its first element, if that takes `byte`.
fn take(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (taken, after) = match pattern {
        [] => return None,
        [b'?', after @ ..] => (true, after),
        [b'[', b'^', class @ ..] => {
            let (found, after) = find(class, byte);
            (!found, after)
        }
        [b'[', class @ ..] => find(class, byte),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (*literal == byte, after),
    };
    taken.then_some(after)
}

/// Whether `byte` is in the class, and the pattern after it.
fn find(mut class: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut found = false;
    loop {
        class = match class {
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [b']', after @ ..] => return (found, after),
            [] => return (found, class),
            [first, b'-', last, after @ ..] => {
                found |= (*first.min(last)..=*first.max(last)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", false),
            ("*", "a", true),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("*a*b*c", "xxaxxbxbxxc", true),
            ("*a*b*c", "xxaxxcxbxxd", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[a-]", "]", true),
            ("[a-]", "-", false),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("news.*", "news.art", true),
            ("news.*", "new.art", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "a*".repeat(400) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(50_000).as_bytes()));
    }
}
