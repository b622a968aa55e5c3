//! A stream's response as it comes in: head, framing, events. Pure functions over bytes.

use memchr::memchr;
use memchr::memmem;

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Head,
    /// A body that ends with the connection.
    Plain,
    Chunked(Chunk),
}

/// The place in a chunked body (RFC 9112 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the size, so far this much.
    Size(u32),
    /// Behind the size.
    Extension(u32),
    /// In the data, of which this much is left.
    Data(u32),
    /// Behind the data.
    LineEnd,
}

/// Why a response is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unusable {
    Status(u16),
    /// 200, but no event stream.
    ContentType,
    /// Not what HTTP allows, or an event without end.
    Malformed,
    /// The body has ended.
    Ended,
}

/// A line of an event's data: servers that join messages send several in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data<'a> {
    /// The event's name, empty for a plain message.
    pub(super) name: &'a [u8],
    pub(super) line: &'a [u8],
}

impl Phase {
    /// Reads what has arrived and shows the data of each event that is whole. `tail` keeps what is
    /// not, and is empty between events, as most streams are most of the time.
    pub(super) fn read(
        &mut self,
        tail: &mut Vec<u8>,
        mut input: &[u8],
        show: &mut impl FnMut(Data<'_>),
    ) -> Result<(), Unusable> {
        if *self == Self::Head {
            // Where the head ends in `input`: its end may have begun in the tail.
            let before = tail.len();
            tail.extend_from_slice(input);
            let Some(end) = memmem::find(tail, b"\r\n\r\n").map(|at| at + 4) else {
                return if tail.len() > HEAD_BYTES_MAX { Err(Unusable::Malformed) } else { Ok(()) };
            };
            *self = body(tail.get(..end).unwrap_or_default())?;
            tail.clear();
            input = input.get(end - before..).unwrap_or_default();
        }
        match self {
            Self::Chunked(chunk) => {
                while let Some(piece) = chunk.piece(&mut input)? {
                    read_body(tail, piece, show)?;
                }
                Ok(())
            }
            Self::Head | Self::Plain => read_body(tail, input, show),
        }
    }
}

impl Chunk {
    /// The next bytes of the body; `None` once the input is used up.
    fn piece<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Unusable> {
        while let Some((&byte, rest)) = input.split_first() {
            match *self {
                Self::Data(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (piece, rest) = input.split_at(length);
                    *input = rest;
                    let left = left - u32::try_from(length).unwrap_or(left);
                    *self = if left == 0 { Self::LineEnd } else { Self::Data(left) };
                    return Ok(Some(piece));
                }
                Self::Size(size) => *self = Self::after_size(size, byte)?,
                Self::Extension(size) if byte == b'\n' => *self = Self::data(size)?,
                Self::LineEnd if byte == b'\n' => *self = Self::Size(0),
                Self::LineEnd if byte != b'\r' => return Err(Unusable::Malformed),
                Self::Extension(_) | Self::LineEnd => {}
            }
            *input = rest;
        }
        Ok(None)
    }

    fn after_size(size: u32, byte: u8) -> Result<Self, Unusable> {
        match (char::from(byte).to_digit(16), byte) {
            (Some(digit), _) if size < 1 << 27 => Ok(Self::Size(size << 4 | digit)),
            (None, b'\n') => Self::data(size),
            (None, b'\r' | b';' | b' ') => Ok(Self::Extension(size)),
            _ => Err(Unusable::Malformed),
        }
    }

    fn data(size: u32) -> Result<Self, Unusable> {
        if size == 0 { Err(Unusable::Ended) } else { Ok(Self::Data(size)) }
    }
}

/// The body that a head announces.
fn body(head: &[u8]) -> Result<Phase, Unusable> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    if !words.next().is_some_and(|version| version.starts_with("http/1.")) {
        return Err(Unusable::Malformed);
    }
    match words.next().and_then(|status| status.parse().ok()) {
        Some(200) => {}
        Some(status) => return Err(Unusable::Status(status)),
        None => return Err(Unusable::Malformed),
    }
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let has = |name, value| {
        fields.iter().any(|field| field.0 == name && field.1.trim_start().starts_with(value))
    };
    match has("content-type", "text/event-stream") {
        false => Err(Unusable::ContentType),
        true if has("transfer-encoding", "chunked") => Ok(Phase::Chunked(Chunk::Size(0))),
        true => Ok(Phase::Plain),
    }
}

fn read_body(
    tail: &mut Vec<u8>,
    piece: &[u8],
    show: &mut impl FnMut(Data<'_>),
) -> Result<(), Unusable> {
    if tail.is_empty() {
        let rest = piece.get(read_events(piece, show)..).unwrap_or_default();
        tail.extend_from_slice(rest);
    } else {
        tail.extend_from_slice(piece);
        let read = read_events(tail, show);
        tail.drain(..read);
    }
    if tail.len() > EVENT_BYTES_MAX { Err(Unusable::Malformed) } else { Ok(()) }
}

/// Shows the data of the events that are whole, and returns how many bytes they take (WHATWG HTML
/// 9.2.6). A line ends with LF or CR LF; no server is known to end one with CR alone.
fn read_events(bytes: &[u8], show: &mut impl FnMut(Data<'_>)) -> usize {
    let (mut start, mut read) = (0, 0);
    let (mut name, mut first): (&[u8], Option<&[u8]>) = (b"", None);
    let mut has_more = false;
    while let Some(rest) = bytes.get(start..)
        && let Some(length) = memchr(b'\n', rest)
    {
        let line = rest.get(..length).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        start += length + 1;
        if line.is_empty() {
            if has_more {
                let event = bytes.get(read..start).unwrap_or_default();
                let lines = event.split(|byte| *byte == b'\n').filter_map(data);
                lines.for_each(|line| show(Data { name, line }));
            } else if let Some(line) = first {
                show(Data { name, line });
            }
            (name, first, has_more) = (b"", None, false);
            read = start;
        } else if let Some(value) = data(line) {
            has_more = first.is_some();
            first = first.or(Some(value));
        } else if let Some(value) = line.strip_prefix(b"event:") {
            name = value.strip_prefix(b" ").unwrap_or(value);
        }
    }
    read
}

/// What a line says, if it is one of data.
fn data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data:")?;
    let value = value.strip_prefix(b" ").unwrap_or(value);
    Some(value.strip_suffix(b"\r").unwrap_or(value))
}

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// More than any event of a test.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                           Transfer-Encoding: chunked\r\n\r\n";

    /// What a response shows, whole and cut in two at every byte.
    #[track_caller]
    fn check(response: &str, expected: &[(&str, &str)], end: Result<(), Unusable>) {
        let bytes = response.as_bytes();
        for cut in 0..=bytes.len() {
            let (mut phase, mut tail, mut events) = (Phase::Head, Vec::new(), Vec::new());
            let (first, second) = bytes.split_at(cut);
            let mut show = |data: Data<'_>| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                events.push((text(data.name), text(data.line)));
            };
            let result = phase
                .read(&mut tail, first, &mut show)
                .and_then(|()| phase.read(&mut tail, second, &mut show));
            assert_eq!(result, end, "cut at {cut}");
            let events: Vec<_> =
                events.iter().map(|event| (event.0.as_str(), event.1.as_str())).collect();
            assert_eq!(events, expected, "cut at {cut}");
        }
    }

    #[test]
    fn events_are_shown_once_they_are_whole() {
        let body = "retry: 2000\nid: 1\n\n:\n\ndata: a\n\nevent: b\r\ndata:c\r\ndata: d\r\n\r\n\
                    event: e\n\ndata: unfinished\n";
        check(&(PLAIN.to_owned() + body), &[("", "a"), ("b", "c"), ("b", "d")], Ok(()));
    }

    #[test]
    fn every_line_of_data_is_shown() {
        let body = "data: a\ndata:b\nevent: c\ndata:\n\ndata: d\n\n";
        let expected = [("c", "a"), ("c", "b"), ("c", ""), ("", "d")];
        check(&(PLAIN.to_owned() + body), &expected, Ok(()));
    }

    #[test]
    fn chunks_may_end_anywhere() {
        let body = "9\r\ndata: a\n\n\r\n3\r\ndat\r\n0C;x=y\r\na: b\n\nevent:\r\n\
                    9\r\nc\ndata:d\n\r\n1\r\n\n\r\n";
        check(&(CHUNKED.to_owned() + body), &[("", "a"), ("", "b"), ("c", "d")], Ok(()));
    }

    #[test]
    fn a_chunked_body_ends() {
        let response = CHUNKED.to_owned() + "9\r\ndata: a\n\n\r\n0\r\n\r\n";
        let (mut phase, mut tail, mut events) = (Phase::Head, Vec::new(), 0);
        let end = phase.read(&mut tail, response.as_bytes(), &mut |_| events += 1);
        assert_eq!((end, events), (Err(Unusable::Ended), 1));
    }

    #[test]
    fn other_responses_are_of_no_use() {
        let refused = |response: &str| {
            Phase::Head.read(&mut Vec::new(), response.as_bytes(), &mut |_| {}).unwrap_err()
        };
        assert_eq!(refused("HTTP/1.1 503 No\r\n\r\n"), Unusable::Status(503));
        assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"), {
            Unusable::ContentType
        });
        assert_eq!(refused("SSH-2.0\r\n\r\n"), Unusable::Malformed);
        assert_eq!(refused(&"x".repeat(HEAD_BYTES_MAX + 1)), Unusable::Malformed);
        for size in ["g\r\n", "ffffffff1\r\n", "1\r\nab"] {
            assert_eq!(refused(&(CHUNKED.to_owned() + size)), Unusable::Malformed, "{size}");
        }
    }

    #[test]
    fn nothing_is_kept_between_events() {
        let (mut phase, mut tail) = (Phase::Head, Vec::new());
        let response = PLAIN.to_owned() + "data: a\n\ndata: b\n\n";
        phase.read(&mut tail, response.as_bytes(), &mut |_| {}).unwrap();
        assert!(tail.is_empty());
        assert!(size_of::<Phase>() <= 8);
    }
}
