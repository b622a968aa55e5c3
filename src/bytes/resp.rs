//! The Redis protocol as a subscriber sees it: messages parsed by hand, other replies decoded by
//! `redis-protocol`, commands encoded.
//!
//! Messages are what a link is made of, and the crate takes ten times as long for them. It also
//! recurses into nested replies until the stack is gone, starts again at the first byte with every
//! call, and waits without end for whatever length it was promised. So [`scan`] walks an item
//! first, without recursion and within bounds, and the crate only sees items that are complete.

use std::fmt;
use std::ops::Range;

use crate::ground::limits;

mod value;

pub use value::Value;

/// What the first item of the input is.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed<'a> {
    /// A whole item, which takes `consumed` bytes.
    Complete { incoming: Incoming<'a>, consumed: usize },
    /// A message whose payload is longer than the caller allows. `consumed` bytes lead up to the
    /// payload and through its `start`; the `skip` bytes after them (the rest and the line end) are
    /// to be thrown away unseen.
    Oversize { channel: &'a [u8], start: &'a [u8], consumed: usize, skip: u64 },
    /// Nothing is consumed. A bulk string inside a reply is longer than the caller allows: once
    /// [`NULL`] stands in place of its `header`, and the `skip` bytes behind that (the string and
    /// its line end) are thrown away unseen, the reply can be parsed without it.
    Overlong { header: Range<usize>, skip: u64 },
    /// Nothing is consumed. The item takes at least `needed` bytes, more than there are: calling
    /// again before they have arrived finds out nothing new.
    Partial { needed: usize },
}

/// One item from Redis.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming<'a> {
    /// A published message (`message`, `smessage`, or `pmessage` without its pattern), as a RESP3
    /// push or a RESP2 array.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// Acknowledges one channel or pattern of a SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE.
    Subscribed { channel: &'a [u8] },
    /// Acknowledges one channel or pattern of an UNSUBSCRIBE, PUNSUBSCRIBE or SUNSUBSCRIBE.
    Unsubscribed { channel: &'a [u8] },
    /// The answer to a command.
    Reply(Reply<'a>),
    /// A push of another kind, an acknowledgement that names no channel, or an attribute.
    Ignored,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// The text after the `+`.
    Simple(&'a [u8]),
    /// The text of an error, without the `-`: a code in capitals, then words.
    Error(&'a [u8]),
    /// The answer to PING: `+PONG`, or the array that RESP2 sends once the link is subscribed.
    Pong,
    /// Any other value.
    Other(Value<'a>),
}

/// The peer does not speak the protocol, or speaks it without bounds. The link is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// No type begins with this byte here.
    UnknownType,
    /// A length is no decimal number, or does not fit.
    InvalidLength,
    /// Something does not end with CR LF where it has to.
    MissingLineEnd,
    LineTooLong,
    ReplyTooLarge,
    NestedTooDeep,
    /// A value contradicts its type.
    InvalidValue,
}

/// The null of RESP3, no longer than the header of any bulk string.
pub const NULL: &[u8] = b"_\r\n";

/// Parses the item at the start of `input`: a message of at most `payload_bytes_max` bytes, or
/// anything else of at most [`limits::RESP_REPLY_BYTES_MAX`] bytes.
///
/// # Errors
/// That it is no such item, or one with a longer bulk string in it.
pub fn parse(input: &[u8], payload_bytes_max: usize) -> Result<Parsed<'_>, ProtocolError> {
    match parse_but_overlong(input, payload_bytes_max, limits::RESP_REPLY_BYTES_MAX)? {
        Parsed::Overlong { .. } => Err(ProtocolError::ReplyTooLarge),
        parsed => Ok(parsed),
    }
}

/// Parses as [`parse`] does, and finds the bulk strings inside arrays, sets, maps and pushes that
/// are longer than `bulk_bytes_max` (12 at least), one at a time. Those do not count as parts of
/// their reply. A reply with a null in their place is one of RESP3.
///
/// An array whose first element is the string `message` counts as a message (that is how RESP2
/// delivers one), so a link must not send commands that could be answered by such an array.
///
/// # Errors
/// That it is no such item.
pub fn parse_but_overlong(
    input: &[u8],
    payload_bytes_max: usize,
    bulk_bytes_max: usize,
) -> Result<Parsed<'_>, ProtocolError> {
    if let Some((b'>' | b'*', rest)) = input.split_first() {
        for (head, pattern) in MESSAGE_HEADS {
            if rest.starts_with(head) {
                return message(input, 1 + head.len(), pattern, payload_bytes_max);
            }
        }
    }
    match scan(input, bulk_bytes_max)? {
        Scan::Complete(item) => {
            Ok(Parsed::Complete { incoming: classify(item)?, consumed: item.bytes.len() })
        }
        Scan::Stopped(Stop::Overlong { header, skip }) => Ok(Parsed::Overlong { header, skip }),
        Scan::Stopped(Stop::Partial { needed }) => Ok(Parsed::Partial { needed }),
    }
}

/// Appends a command: an array of bulk strings.
pub fn encode_command(arguments: &[&[u8]], out: &mut Vec<u8>) {
    encode_length(b'*', arguments.len(), out);
    for argument in arguments {
        encode_bulk(argument, out);
    }
}

/// Appends a bulk string.
pub fn encode_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    encode_length(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a type byte, a number of bytes or elements, and CR LF.
pub fn encode_length(kind: u8, length: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut rest = length;
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        first = place;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// The decimal number and CR LF after a type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The number, and how many bytes it and its line end take.
    Complete {
        length: u64,
        consumed: usize,
    },
    Partial,
    /// Not a number as Redis writes it: sign, leading zero, another byte, more than 18 digits.
    Invalid,
}

/// Reads the number at the start of `input`.
#[must_use]
pub fn parse_length(input: &[u8]) -> Length {
    let mut length = 0;
    for (place, &byte) in input.iter().enumerate() {
        match byte {
            b'0'..=b'9' if place < LENGTH_DIGITS_MAX && (place == 0 || length > 0) => {
                length = length * 10 + u64::from(byte - b'0');
            }
            b'\r' if place > 0 => {
                return match input.get(place + 1) {
                    Some(b'\n') => Length::Complete { length, consumed: place + 2 },
                    Some(_) => Length::Invalid,
                    None => Length::Partial,
                };
            }
            _ => return Length::Invalid,
        }
    }
    Length::Partial
}

impl fmt::Display for ProtocolError {
    /// Never shows what the peer sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownType => "unknown type byte",
            Self::InvalidLength => "invalid length",
            Self::MissingLineEnd => "line end missing",
            Self::LineTooLong => "line too long",
            Self::ReplyTooLarge => "reply too large",
            Self::NestedTooDeep => "reply nested too deep",
            Self::InvalidValue => "invalid value",
        })
    }
}

impl std::error::Error for ProtocolError {}

/// What follows the type byte of a message, and whether a pattern comes before the channel.
const MESSAGE_HEADS: [(&[u8], bool); 3] = [
    (b"3\r\n$7\r\nmessage\r\n", false),
    (b"3\r\n$8\r\nsmessage\r\n", false),
    (b"4\r\n$8\r\npmessage\r\n", true),
];

/// What is told besides replies begins with its kind; `punsubscribe` is the longest. A string that
/// is no longer is none to be left out: it may be a kind of which not all is there yet.
const KIND_BYTES_MAX: usize = 12;

/// A string that is no longer fits into a reply, together with the other parts of its entry.
const BULK_BYTES_MAX: usize = limits::RESP_REPLY_BYTES_MAX - limits::RESP_BULK_BYTES_SPARE;

/// Any number of so many digits fits an `i64`.
const LENGTH_DIGITS_MAX: usize = 18;

/// The shortest item: a type byte and CR LF.
const ITEM_BYTES_MIN: u64 = 3;

/// A message whose kind takes the first `position` bytes.
fn message(
    input: &[u8],
    position: usize,
    pattern: bool,
    payload_bytes_max: usize,
) -> Result<Parsed<'_>, ProtocolError> {
    let mut position = position;
    if pattern {
        match name(input, position)? {
            Part::Complete((_, end)) => position = end,
            Part::Partial { needed } => return Ok(Parsed::Partial { needed }),
        }
    }
    let (channel, position) = match name(input, position)? {
        Part::Complete(channel) => channel,
        Part::Partial { needed } => return Ok(Parsed::Partial { needed }),
    };
    let (length, start) = match bulk_length(input, position)? {
        Part::Complete(header) => header,
        Part::Partial { needed } => return Ok(Parsed::Partial { needed }),
    };
    match usize::try_from(length) {
        Ok(length) if length <= payload_bytes_max => match bulk(input, start, length)? {
            Part::Complete((payload, consumed)) => {
                Ok(Parsed::Complete { incoming: Incoming::Message { channel, payload }, consumed })
            }
            Part::Partial { needed } => Ok(Parsed::Partial { needed }),
        },
        _ => Ok(oversize(input, channel, start, length)),
    }
}

/// A message whose payload begins at `position` and is too long.
fn oversize<'a>(input: &'a [u8], channel: &'a [u8], position: usize, length: u64) -> Parsed<'a> {
    let shown = limits::OVERSIZE_START_BYTES.min(usize::try_from(length).unwrap_or(usize::MAX));
    let consumed = position + shown;
    match input.get(position..consumed) {
        Some(start) => {
            Parsed::Oversize { channel, start, consumed, skip: length - shown as u64 + 2 }
        }
        None => Parsed::Partial { needed: consumed },
    }
}

enum Part<T> {
    Complete(T),
    Partial { needed: usize },
}

/// The bulk string at `position`, if it is no longer than a line, and where it ends.
fn name(input: &[u8], position: usize) -> Result<Part<(&[u8], usize)>, ProtocolError> {
    let (length, start) = match bulk_length(input, position)? {
        Part::Complete(header) => header,
        Part::Partial { needed } => return Ok(Part::Partial { needed }),
    };
    match usize::try_from(length) {
        Ok(length) if length <= limits::RESP_LINE_BYTES_MAX => bulk(input, start, length),
        _ => Err(ProtocolError::LineTooLong),
    }
}

/// The length of the bulk string at `position`, and where its bytes begin.
fn bulk_length(input: &[u8], position: usize) -> Result<Part<(u64, usize)>, ProtocolError> {
    match input.get(position..).and_then(<[u8]>::split_first) {
        Some((b'$', digits)) => match parse_length(digits) {
            Length::Complete { length, consumed } => {
                Ok(Part::Complete((length, position + 1 + consumed)))
            }
            Length::Partial => Ok(Part::Partial { needed: input.len() + 1 }),
            Length::Invalid => Err(ProtocolError::InvalidLength),
        },
        Some(_) => Err(ProtocolError::UnknownType),
        None => Ok(Part::Partial { needed: input.len() + 1 }),
    }
}

/// The `length` bytes from `start`, and where the line end after them ends.
fn bulk(input: &[u8], start: usize, length: usize) -> Result<Part<(&[u8], usize)>, ProtocolError> {
    let Some((bytes, rest)) = input.get(start..).and_then(|rest| rest.split_at_checked(length))
    else {
        return Ok(Part::Partial { needed: start + length + 2 });
    };
    match rest {
        [b'\r', b'\n', ..] => Ok(Part::Complete((bytes, start + length + 2))),
        [] | [b'\r'] => Ok(Part::Partial { needed: start + length + 2 }),
        _ => Err(ProtocolError::MissingLineEnd),
    }
}

enum Scan<'a> {
    Complete(Item<'a>),
    Stopped(Stop),
}

/// Why a walk goes no further.
enum Stop {
    Partial { needed: usize },
    Overlong { header: Range<usize>, skip: u64 },
}

/// A complete item that is within all bounds.
#[derive(Clone, Copy)]
struct Item<'a> {
    bytes: &'a [u8],
    /// Holds `$-1` or `*-1`, which the crate's RESP3 decoder refuses.
    resp2_null: bool,
}

/// Walks over the item at the start of `input`. O(n) in its bytes up to the first that is missing.
fn scan(input: &[u8], bulk_bytes_max: usize) -> Result<Scan<'_>, ProtocolError> {
    let open = Vec::new();
    let mut walk = Walk { position: 0, missing: 1, open, bulk_bytes_max, resp2_null: false };
    while walk.missing > 0 {
        let Some(stop) = walk.step(input)? else { continue };
        return Ok(Scan::Stopped(stop));
    }
    let bytes = input.get(..walk.position).unwrap_or_default();
    Ok(Scan::Complete(Item { bytes, resp2_null: walk.resp2_null }))
}

struct Walk {
    /// Where the next element begins.
    position: usize,
    /// Elements of which not a byte was seen yet, of all aggregates together.
    missing: u64,
    /// Elements not yet complete of each open aggregate. Invariant: none is 0, and there are at
    /// most [`limits::RESP_DEPTH_MAX`].
    open: Vec<u64>,
    /// Longest bulk string inside of aggregates.
    bulk_bytes_max: usize,
    resp2_null: bool,
}

impl Walk {
    /// Walks over one element, or only its header if it is an aggregate. Answers what is in the way
    /// of that.
    fn step(&mut self, input: &[u8]) -> Result<Option<Stop>, ProtocolError> {
        let Some((&kind, rest)) = input.get(self.position..).and_then(<[u8]>::split_first) else {
            return self.partial(self.position, 0);
        };
        let start = self.position + 1;
        match kind {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => match line(rest)? {
                Some(line) => self.element(start + line.len() + 2),
                None => self.partial(input.len() + 1, 1),
            },
            b'$' | b'*' if rest.starts_with(b"-1\r\n") => {
                self.resp2_null = true;
                self.element(start + 4)
            }
            b'$' | b'*' if !rest.is_empty() && b"-1\r\n".starts_with(rest) => {
                self.partial(start + 4, 1)
            }
            b'>' | b'|' if self.position > 0 => Err(ProtocolError::UnknownType),
            b'$' | b'!' | b'=' | b'*' | b'~' | b'%' | b'>' | b'|' => match parse_length(rest) {
                Length::Complete { length, consumed } => match kind {
                    b'$' if self.is_overlong(length) => Ok(Some(Stop::Overlong {
                        header: self.position..start + consumed,
                        skip: length + 2,
                    })),
                    b'$' | b'!' | b'=' => self.bulk(input, start + consumed, length),
                    b'%' | b'|' => self.aggregate(start + consumed, length.saturating_mul(2)),
                    _ => self.aggregate(start + consumed, length),
                },
                Length::Partial => self.partial(input.len() + 1, 1),
                Length::Invalid => Err(ProtocolError::InvalidLength),
            },
            _ => Err(ProtocolError::UnknownType),
        }
    }

    /// Whether a bulk string of this length, the next element, is to be left out.
    fn is_overlong(&self, length: u64) -> bool {
        let max = self.bulk_bytes_max.clamp(KIND_BYTES_MAX, BULK_BYTES_MAX);
        !self.open.is_empty() && length > max as u64
    }

    fn bulk(
        &mut self,
        input: &[u8],
        start: usize,
        length: u64,
    ) -> Result<Option<Stop>, ProtocolError> {
        let length = usize::try_from(length).map_err(|_| ProtocolError::ReplyTooLarge)?;
        if length > limits::RESP_REPLY_BYTES_MAX {
            return Err(ProtocolError::ReplyTooLarge);
        }
        match bulk(input, start, length)? {
            Part::Complete((_, end)) => self.element(end),
            Part::Partial { needed } => self.partial(needed, 1),
        }
    }

    /// An element ends at `end`, and with it perhaps the aggregates around it.
    fn element(&mut self, end: usize) -> Result<Option<Stop>, ProtocolError> {
        self.position = end;
        self.missing -= 1;
        while let Some(open) = self.open.last_mut() {
            *open -= 1;
            if *open > 0 {
                break;
            }
            self.open.pop();
        }
        needed(end, self.missing).map(|_| None)
    }

    /// An aggregate begins, the first of whose `elements` is at `start`.
    fn aggregate(&mut self, start: usize, elements: u64) -> Result<Option<Stop>, ProtocolError> {
        if elements == 0 {
            return self.element(start);
        }
        if self.open.len() == limits::RESP_DEPTH_MAX {
            return Err(ProtocolError::NestedTooDeep);
        }
        self.open.push(elements);
        self.position = start;
        self.missing = (self.missing - 1).saturating_add(elements);
        needed(start, self.missing).map(|_| None)
    }

    /// The item goes on at least to `end`, and then has all but `begun` of the missing elements.
    fn partial(&self, end: usize, begun: u64) -> Result<Option<Stop>, ProtocolError> {
        needed(end, self.missing - begun).map(|needed| Some(Stop::Partial { needed }))
    }
}

/// The least end of an item that has `missing` more elements from `position` on.
fn needed(position: usize, missing: u64) -> Result<usize, ProtocolError> {
    usize::try_from(missing.saturating_mul(ITEM_BYTES_MIN))
        .ok()
        .and_then(|missing| missing.checked_add(position))
        .filter(|&needed| needed <= limits::RESP_REPLY_BYTES_MAX)
        .ok_or(ProtocolError::ReplyTooLarge)
}

/// The line at the start of `input` without its end, if it is there. One that holds an LF is two,
/// and the first has lost its end: whoever read on would take every answer for that to the question
/// before.
fn line(input: &[u8]) -> Result<Option<&[u8]>, ProtocolError> {
    let window = input.get(..limits::RESP_LINE_BYTES_MAX).unwrap_or(input);
    let Some(end) = memchr::memchr2(b'\r', b'\n', window) else {
        return if window.len() == limits::RESP_LINE_BYTES_MAX {
            Err(ProtocolError::LineTooLong)
        } else {
            Ok(None)
        };
    };
    match input.get(end..) {
        Some([b'\r', b'\n', ..]) => Ok(input.get(..end)),
        Some([b'\r']) => Ok(None),
        _ => Err(ProtocolError::MissingLineEnd),
    }
}

/// What a complete item that is no message means.
fn classify(item: Item<'_>) -> Result<Incoming<'_>, ProtocolError> {
    let text = item.bytes.get(1..item.bytes.len().saturating_sub(2)).unwrap_or_default();
    let reply = match item.bytes.first() {
        Some(b'|') => return Ok(Incoming::Ignored),
        Some(b'>') => return Ok(notice(item.bytes).unwrap_or(Incoming::Ignored)),
        Some(b'*') => match notice(item.bytes) {
            Some(notice) => return Ok(notice),
            None => Reply::Other(decode(item)?),
        },
        Some(b'+') if text == b"PONG" => Reply::Pong,
        Some(b'+') => Reply::Simple(text),
        Some(b'-') => Reply::Error(text),
        _ => match decode(item)? {
            Value::Error(text) => Reply::Error(text),
            value => Reply::Other(value),
        },
    };
    Ok(Incoming::Reply(reply))
}

/// Recognises what a subscribed link is told besides messages, in an array or push.
fn notice(item: &[u8]) -> Option<Incoming<'_>> {
    let Length::Complete { length: elements, consumed } = parse_length(item.get(1..)?) else {
        return None;
    };
    let (kind, position) = string(item, 1 + consumed)?;
    match (elements, kind) {
        (3, b"subscribe" | b"psubscribe" | b"ssubscribe") => {
            let (channel, _) = string(item, position)?;
            Some(Incoming::Subscribed { channel })
        }
        // Without a channel, it answers a command that named none on a link that has none.
        (3, b"unsubscribe" | b"punsubscribe" | b"sunsubscribe") => {
            Some(match string(item, position) {
                Some((channel, _)) => Incoming::Unsubscribed { channel },
                None => Incoming::Ignored,
            })
        }
        (2, b"pong") => Some(Incoming::Reply(Reply::Pong)),
        _ => None,
    }
}

/// The bulk string at `position` of a complete item, and where it ends.
fn string(item: &[u8], position: usize) -> Option<(&[u8], usize)> {
    match name(item, position) {
        Ok(Part::Complete(string)) => Some(string),
        Ok(Part::Partial { .. }) | Err(_) => None,
    }
}

fn decode(item: Item<'_>) -> Result<Value<'_>, ProtocolError> {
    let value = if item.resp2_null { Value::resp2(item.bytes) } else { Value::resp3(item.bytes) };
    value.ok_or(ProtocolError::InvalidValue)
}

#[cfg(test)]
mod tests;
