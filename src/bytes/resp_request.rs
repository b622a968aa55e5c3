//! The Redis protocol as a server sees it: commands as arrays of bulk strings, or as typed lines.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, and what Redis 7.2 does
//! where that is silent. Stricter than Redis in one point: a bulk string must end with CR LF.

use std::borrow::Cow;
use std::fmt;

use super::resp::{Length, parse_length};
use crate::ground::limits;

/// What a client may ask for.
#[derive(Clone, Copy, Debug)]
pub struct RequestBounds {
    /// Before this, commands have few and short arguments.
    pub authenticated: bool,
    /// Longest argument.
    pub bulk_bytes_max: usize,
}

/// What the input begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A whole command, which takes `consumed` bytes. It may have no arguments at all: an empty
    /// line or array, which asks for nothing and is not answered.
    Complete { consumed: usize },
    /// Nothing is consumed. The command takes at least `needed` bytes, more than there are.
    Partial { needed: usize },
}

/// The client has lost its way in the protocol; no later byte of it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    InvalidArgumentCount,
    UnauthenticatedArgumentCount,
    /// No bulk string where one has to be, but something that begins with this byte.
    ExpectedBulk(u8),
    InvalidBulkLength,
    UnauthenticatedBulkLength,
    MissingLineEnd,
    LineTooLong,
    UnbalancedQuotes,
}

/// Parses the command at the start of `input`. Only [`Request::Complete`] leaves its arguments in
/// `arguments`; they borrow from `input` unless quotes had to be undone.
///
/// O(n) in arguments, not in bytes, so a command that trickles in costs O(n²) in its arguments,
/// which are at most [`limits::BROKER_ARGUMENTS_MAX`].
pub fn parse<'a>(
    input: &'a [u8],
    bounds: RequestBounds,
    arguments: &mut Vec<Cow<'a, [u8]>>,
) -> Result<Request, RequestError> {
    arguments.clear();
    match input.split_first() {
        Some((b'*', rest)) => array(input, rest, bounds, arguments),
        Some(_) => inline(input, arguments),
        None => Ok(Request::Partial { needed: 1 }),
    }
}

impl fmt::Display for RequestError {
    /// As Redis words it, to follow `-ERR `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        f.write_str(match self {
            Self::InvalidArgumentCount => "invalid multibulk length",
            Self::UnauthenticatedArgumentCount => "unauthenticated multibulk length",
            Self::ExpectedBulk(byte) => {
                let is_shown = byte.is_ascii() && !matches!(byte, b'\r' | b'\n');
                let got = if is_shown { char::from(*byte) } else { ' ' };
                return write!(f, "expected '$', got '{got}'");
            }
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::MissingLineEnd => "bulk string without CRLF",
            Self::LineTooLong => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
        })
    }
}

impl std::error::Error for RequestError {}

/// Arguments of a command before AUTH: HELLO with all its options has 7.
const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;

const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// The shortest argument, `$0` and two line ends.
const ARGUMENT_BYTES_MIN: usize = 6;

fn array<'a>(
    input: &'a [u8],
    rest: &'a [u8],
    bounds: RequestBounds,
    arguments: &mut Vec<Cow<'a, [u8]>>,
) -> Result<Request, RequestError> {
    let (count, mut position) = match parse_length(rest) {
        Length::Complete { length, consumed } => (length, 1 + consumed),
        Length::Partial => return Ok(Request::Partial { needed: input.len() + 1 }),
        Length::Invalid => return negative_array(input, rest),
    };
    let count = usize::try_from(count)
        .ok()
        .filter(|&count| count <= limits::BROKER_ARGUMENTS_MAX)
        .ok_or(RequestError::InvalidArgumentCount)?;
    if !bounds.authenticated && count > UNAUTHENTICATED_ARGUMENTS_MAX {
        return Err(RequestError::UnauthenticatedArgumentCount);
    }
    for missing in (0..count).rev() {
        let needed = match argument(input, position, bounds)? {
            Argument::Complete { bytes, end } => {
                arguments.push(Cow::Borrowed(bytes));
                position = end;
                continue;
            }
            Argument::Partial { needed } => needed,
        };
        arguments.clear();
        return Ok(Request::Partial { needed: needed + missing * ARGUMENT_BYTES_MIN });
    }
    Ok(Request::Complete { consumed: position })
}

/// Redis takes an array of less than no arguments for one of none.
fn negative_array(input: &[u8], rest: &[u8]) -> Result<Request, RequestError> {
    let Some((b'-', digits)) = rest.split_first() else {
        return Err(RequestError::InvalidArgumentCount);
    };
    match parse_length(digits) {
        Length::Complete { length: 1.., consumed } => {
            Ok(Request::Complete { consumed: 2 + consumed })
        }
        Length::Partial => Ok(Request::Partial { needed: input.len() + 1 }),
        Length::Complete { .. } | Length::Invalid => Err(RequestError::InvalidArgumentCount),
    }
}

enum Argument<'a> {
    Complete { bytes: &'a [u8], end: usize },
    Partial { needed: usize },
}

fn argument(
    input: &[u8],
    position: usize,
    bounds: RequestBounds,
) -> Result<Argument<'_>, RequestError> {
    let Some((&kind, digits)) = input.get(position..).and_then(<[u8]>::split_first) else {
        return Ok(Argument::Partial { needed: position + ARGUMENT_BYTES_MIN });
    };
    if kind != b'$' {
        return Err(RequestError::ExpectedBulk(kind));
    }
    let (length, start) = match parse_length(digits) {
        Length::Complete { length, consumed } => (length, position + 1 + consumed),
        Length::Partial => return Ok(Argument::Partial { needed: input.len() + 1 }),
        Length::Invalid => return Err(RequestError::InvalidBulkLength),
    };
    let length = bulk_length(length, start, bounds)?;
    let Some((bytes, rest)) = input.get(start..).and_then(|rest| rest.split_at_checked(length))
    else {
        return Ok(Argument::Partial { needed: start + length + 2 });
    };
    match rest {
        [b'\r', b'\n', ..] => Ok(Argument::Complete { bytes, end: start + length + 2 }),
        [] | [b'\r'] => Ok(Argument::Partial { needed: start + length + 2 }),
        _ => Err(RequestError::MissingLineEnd),
    }
}

/// Checks the length of the argument whose bytes begin at `start`, by itself and with what came
/// before it.
fn bulk_length(length: u64, start: usize, bounds: RequestBounds) -> Result<usize, RequestError> {
    let length = usize::try_from(length).map_err(|_| RequestError::InvalidBulkLength)?;
    if length > bounds.bulk_bytes_max {
        return Err(RequestError::InvalidBulkLength);
    }
    let end = start + length;
    if !bounds.authenticated
        && (length > UNAUTHENTICATED_BULK_BYTES_MAX
            || end > limits::BROKER_UNAUTHENTICATED_BYTES_MAX)
    {
        return Err(RequestError::UnauthenticatedBulkLength);
    }
    if end > bounds.bulk_bytes_max.saturating_add(limits::BROKER_COMMAND_BYTES_SPARE) {
        return Err(RequestError::InvalidBulkLength);
    }
    Ok(length)
}

/// A command as a person types it: words, with quotes around those that hold spaces.
fn inline<'a>(
    input: &'a [u8],
    arguments: &mut Vec<Cow<'a, [u8]>>,
) -> Result<Request, RequestError> {
    let window = input.get(..=limits::RESP_LINE_BYTES_MAX).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if input.len() > limits::RESP_LINE_BYTES_MAX {
            Err(RequestError::LineTooLong)
        } else {
            Ok(Request::Partial { needed: input.len() + 1 })
        };
    };
    let line = window.get(..end).unwrap_or_default();
    let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(Request::Complete { consumed: end + 1 });
        }
        if arguments.len() == limits::BROKER_ARGUMENTS_MAX {
            return Err(RequestError::LineTooLong);
        }
        let (word, after) = word(rest)?;
        arguments.push(word);
        rest = after;
    }
}

/// The word at the start of `line`, and what follows it.
fn word(line: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), RequestError> {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
    let (plain, rest) = line.split_at(line.iter().position(ends).unwrap_or(line.len()));
    let Some((quote, quoted)) = rest.split_first().filter(|(byte, _)| b"\"'".contains(byte)) else {
        return Ok((Cow::Borrowed(plain), rest));
    };
    let mut word = plain.to_vec();
    let after = match quote {
        b'"' => double_quoted(quoted, &mut word)?,
        _ => single_quoted(quoted, &mut word)?,
    };
    match after.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(RequestError::UnbalancedQuotes),
        _ => Ok((Cow::Owned(word), after)),
    }
}

/// Undoes double quotes, which know the escapes `\n \r \t \b \a \xHH`. Answers what follows them.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescaped(*escaped), after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(RequestError::UnbalancedQuotes),
        };
        word.push(byte);
        rest = after;
    }
}

/// Undoes single quotes, inside which only `\'` is special. Answers what follows them.
fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(RequestError::UnbalancedQuotes),
        };
        word.push(byte);
        rest = after;
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests;
