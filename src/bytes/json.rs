//! JSON texts taken apart into the raw bytes of their members, without recursion (RFC 8259).
//!
//! What is passed over is checked too: a raw value is well-formed and may be handed on as it is.
//! Beyond the standard, `NaN`, `Infinity` and `-Infinity` are numbers, as Python writes them, and
//! bytes that are not UTF-8 may stand in strings.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};

use super::utf8;

/// Arrays and objects within one another, the outermost included.
pub const NESTING_MAX: usize = 1000;

/// A well-formed value, as the bytes its publisher wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The value without the whitespace around it; never empty.
    pub raw: &'a [u8],
    /// Where it begins in the text.
    pub offset: usize,
}

impl<'a> Value<'a> {
    /// What a string says, as valid UTF-8: escapes resolved, lone surrogates and invalid bytes
    /// replaced by U+FFFD. `None` if the value is no string.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, [u8]>> {
        let content = self.raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(match memchr(b'\\', content) {
            None => utf8::replaced(content),
            Some(_) => Cow::Owned(unescaped(content)),
        })
    }
}

/// Where a text stops being JSON, and what could stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub offset: usize,
    pub expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.offset)
    }
}

impl std::error::Error for Malformed {}

/// Visits the members of the object that `text` is, in their order, repeated names included.
/// O(n).
///
/// # Errors
/// Where `text` is not one object, possibly after some visits.
pub fn members<'a>(
    text: &'a [u8],
    mut visit: impl FnMut(Cow<'a, [u8]>, Value<'a>),
) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(text);
    scanner.expect(b'{', "`{`")?;
    if !scanner.take(b'}') {
        loop {
            let name = scanner.name()?;
            let value = scanner.value(1)?;
            visit(name.text().unwrap_or_default(), value);
            if !scanner.take(b',') {
                break;
            }
        }
        scanner.expect(b'}', "`,` or `}`")?;
    }
    scanner.end()
}

/// Visits the elements of the array that `text` is, in their order. O(n).
///
/// # Errors
/// Where `text` is not one array, possibly after some visits.
pub fn elements<'a>(text: &'a [u8], mut visit: impl FnMut(Value<'a>)) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(text);
    scanner.expect(b'[', "`[`")?;
    if !scanner.take(b']') {
        loop {
            visit(scanner.value(1)?);
            if !scanner.take(b',') {
                break;
            }
        }
        scanner.expect(b']', "`,` or `]`")?;
    }
    scanner.end()
}

/// Appends `text` as a string in quotes. Invalid UTF-8 becomes U+FFFD.
pub fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in &*utf8::replaced(text) {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A text and what of it is still to be read. Whitespace is skipped before what is read next, so
/// that a value ends where its own bytes end.
struct Scanner<'a> {
    /// Invariant: a suffix of the text.
    rest: &'a [u8],
    length: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text, length: text.len() }
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.skip_whitespace();
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("nothing more")) }
    }

    /// A member's name and the colon after it.
    fn name(&mut self) -> Result<Value<'a>, Malformed> {
        let name = self.measured(Self::string)?;
        self.expect(b':', "`:`")?;
        Ok(name)
    }

    /// A value inside `depth` arrays and objects.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        self.measured(|scanner| scanner.nested(depth))
    }

    /// What `read` reads, as a value.
    fn measured(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<Value<'a>, Malformed> {
        self.skip_whitespace();
        let (from, offset) = (self.rest, self.offset());
        read(self)?;
        let raw = from.get(..self.offset() - offset).unwrap_or_default();
        Ok(Value { raw, offset })
    }

    /// A value and all that is in it. O(n); the stack is one byte per open array or object, and
    /// takes no memory for a value that is neither.
    fn nested(&mut self, depth: usize) -> Result<(), Malformed> {
        let mut closing = Vec::new();
        loop {
            self.skip_whitespace();
            if let Some(b'[' | b'{') = self.rest.first()
                && depth + closing.len() >= NESTING_MAX
            {
                return Err(self.malformed("at most 1,000 arrays and objects within one another"));
            }
            if self.take(b'[') {
                if !self.take(b']') {
                    closing.push(b']');
                    continue;
                }
            } else if self.take(b'{') {
                if !self.take(b'}') {
                    closing.push(b'}');
                    self.name()?;
                    continue;
                }
            } else {
                self.scalar()?;
            }
            // A value has ended, and with it perhaps the arrays and objects around it.
            loop {
                let Some(&close) = closing.last() else {
                    return Ok(());
                };
                if self.take(b',') {
                    if close == b'}' {
                        self.name()?;
                    }
                    break;
                }
                self.expect(close, if close == b'}' { "`,` or `}`" } else { "`,` or `]`" })?;
                closing.pop();
            }
        }
    }

    fn scalar(&mut self) -> Result<(), Malformed> {
        match self.rest.first() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let literals: [&[u8]; 5] = [b"null", b"true", b"false", b"NaN", b"Infinity"];
                if literals.iter().any(|literal| self.take_bytes(literal)) {
                    Ok(())
                } else {
                    Err(self.malformed("a value"))
                }
            }
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.take_bytes(b"-Infinity") {
            return Ok(());
        }
        self.take_bytes(b"-");
        if !self.take_bytes(b"0") {
            self.digits()?;
        }
        if self.take_bytes(b".") {
            self.digits()?;
        }
        if self.take_bytes(b"e") || self.take_bytes(b"E") {
            let _ = self.take_bytes(b"+") || self.take_bytes(b"-");
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.malformed("a digit"));
        }
        self.skip(count);
        Ok(())
    }

    fn string(&mut self) -> Result<(), Malformed> {
        if !self.take_bytes(b"\"") {
            return Err(self.malformed("a string"));
        }
        loop {
            let plain = memchr2(b'"', b'\\', self.rest).unwrap_or(self.rest.len());
            self.plain_text(plain)?;
            let length = match self.rest {
                [b'"', ..] => {
                    self.skip(1);
                    return Ok(());
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                [b'\\', b'u', digits @ ..] if hexadecimal(digits).is_some() => 6,
                [] => return Err(self.malformed("`\"`")),
                _ => return Err(self.malformed("an escape sequence")),
            };
            self.skip(length);
        }
    }

    /// `length` bytes of a string between its escapes and quotes.
    fn plain_text(&mut self, length: usize) -> Result<(), Malformed> {
        let plain = self.rest.get(..length).unwrap_or_default();
        // `any` looks at many bytes at once, `position` at one.
        if plain.iter().any(|&byte| byte < 0x20) {
            self.skip(plain.iter().position(|&byte| byte < 0x20).unwrap_or_default());
            return Err(self.malformed("an escape sequence in place of a control character"));
        }
        self.skip(length);
        Ok(())
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(self.malformed(expected)) }
    }

    /// Whether `byte` comes next, perhaps behind whitespace; then it is read.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        self.take_bytes(&[byte])
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        let after = self.rest.strip_prefix(bytes);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn skip_whitespace(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', after @ ..] = self.rest {
            self.rest = after;
        }
    }

    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn offset(&self) -> usize {
        self.length - self.rest.len()
    }

    fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { offset: self.offset(), expected }
    }
}

/// The content of a well-formed string with its escapes resolved.
fn unescaped(content: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some((plain, escape)) = memchr(b'\\', rest).and_then(|at| rest.split_at_checked(at)) {
        text.extend_from_slice(&utf8::replaced(plain));
        rest = match escape {
            [_, b'u', digits @ ..] => {
                let (character, after) = unicode_escape(digits);
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                after
            }
            [_, byte, after @ ..] => {
                text.push(match byte {
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => *byte,
                });
                after
            }
            _ => &[],
        };
    }
    text.extend_from_slice(&utf8::replaced(rest));
    text
}

/// The character that `\u` and `digits` stand for, together with a second escape if the two are a
/// surrogate pair, and what follows.
fn unicode_escape(digits: &[u8]) -> (char, &[u8]) {
    let Some((unit, after)) = hexadecimal(digits) else {
        return (char::REPLACEMENT_CHARACTER, &[]);
    };
    let second = after.strip_prefix(b"\\u").and_then(hexadecimal);
    if let Some((low, after_low)) = second
        && let Some(Ok(character)) = char::decode_utf16([unit, low]).next()
        && character.len_utf16() == 2
    {
        return (character, after_low);
    }
    (char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), after)
}

/// Four hexadecimal digits as a number, and what follows.
fn hexadecimal(digits: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, after) = digits.split_first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })?;
    Some((unit, after))
}

#[cfg(test)]
mod tests;
