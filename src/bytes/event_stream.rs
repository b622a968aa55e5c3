//! The event stream: events, comments and single fields as the bytes that a browser reads
//! (WHATWG HTML 9.2).

use std::borrow::Cow;

use memchr::memchr2;

use super::{json, utf8};

/// The last event ID that a stream begins with where events are not kept: it proves nothing but
/// that the client was here before.
pub const FIRST_EVENT_ID: &[u8] = b"live";

/// The types of the server's own events: the first of a stream, a sign of life where events are
/// kept, a hole.
pub const STREAM_OPEN: &[u8] = b"stream-open";
pub const KEEP_ALIVE: &[u8] = b"keep-alive";
pub const STREAM_RESET: &[u8] = b"stream-reset";

/// A comment and an empty line: keeps a silent stream alive, dispatches nothing.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// What one message tells its subscribers. All bytes are allowed in all fields; [`encode`] makes
/// them fit the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event's type; empty stands for `message`.
    pub event: Cow<'a, [u8]>,
    pub data: Cow<'a, [u8]>,
    /// The stream's new last event ID. An empty one resets it; `None` leaves it as it is.
    pub id: Option<Cow<'a, [u8]>>,
    /// The stream's new reconnection time, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// Why a hole in a stream can't be excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    NoHistory,
    UnknownId,
    HistoryTrimmed,
    LinkLost,
    Overload,
    Oversize,
    SlowConsumer,
}

impl ResetReason {
    /// The word that the page reads.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoHistory => "no-history",
            Self::UnknownId => "unknown-id",
            Self::HistoryTrimmed => "history-trimmed",
            Self::LinkLost => "link-lost",
            Self::Overload => "overload",
            Self::Oversize => "oversize",
            Self::SlowConsumer => "slow-consumer",
        }
    }
}

/// Appends one complete event, its empty line included.
///
/// Invalid UTF-8 becomes U+FFFD in every field. CR, LF and CRLF end a line of the data, which the
/// browser puts together again with LF. CR, LF and NUL are taken out of event and id: they would
/// end the field, and an id with NUL is ignored by browsers. Empty data is a `data` field of its
/// own, because an event without one is not dispatched.
///
/// O(n); each line of the data costs 7 bytes more than it has.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    // Enough for data of one line and short labels.
    out.reserve(event.data.len() + event.event.len() + 64);
    if !event.event.is_empty() {
        encode_label(b"event: ", &event.event, out);
    }
    if let Some(retry_ms) = event.retry_ms {
        encode_retry(retry_ms, out);
    }
    encode_lines(b"data: ", &event.data, out);
    // The last line: some clients take an id over before the event is whole.
    if let Some(id) = &event.id {
        encode_id(id, out);
    }
    out.push(b'\n');
}

/// One event without the id that [`encode`] gave it.
#[must_use]
pub fn without_id(event: &[u8]) -> Vec<u8> {
    let line = event.strip_suffix(b"\n\n").and_then(|lines| {
        let begin = memchr::memrchr(b'\n', lines)? + 1;
        lines.get(begin..)?.starts_with(b"id: ").then_some(begin)
    });
    match line.and_then(|begin| event.get(..begin)) {
        Some(rest) => [rest, b"\n"].concat(),
        None => event.to_vec(),
    }
}

/// Appends the first block of a stream: when to come back, and the id that the client then has.
pub fn encode_open(retry_ms: u64, id: Option<&[u8]>, out: &mut Vec<u8>) {
    encode_retry(retry_ms, out);
    encode_own(STREAM_OPEN, b"", id, out);
}

/// Appends a sign of life with the id that a client has which has everything.
pub fn encode_keep_alive(id: &[u8], out: &mut Vec<u8>) {
    encode_own(KEEP_ALIVE, b"", Some(id), out);
}

/// Appends an event of the server's own. Most clients take an id over only from a block with data.
fn encode_own(event: &[u8], data: &[u8], id: Option<&[u8]>, out: &mut Vec<u8>) {
    encode_label(b"event: ", event, out);
    if data.is_empty() {
        out.extend_from_slice(b"data:\n");
    } else {
        encode_lines(b"data: ", data, out);
    }
    if let Some(id) = id {
        encode_id(id, out);
    }
    out.push(b'\n');
}

/// Appends a `retry` field, in milliseconds. It takes effect as a line, without an empty line.
pub fn encode_retry(retry_ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(retry_ms.to_string().as_bytes());
    out.push(b'\n');
}

/// Appends an `id` field without CR, LF and NUL. It takes effect at the next empty line.
pub fn encode_id(id: &[u8], out: &mut Vec<u8>) {
    encode_label(b"id: ", id, out);
}

/// Appends a comment; one per line if the text has several.
pub fn encode_comment(text: &[u8], out: &mut Vec<u8>) {
    encode_lines(b": ", text, out);
}

/// Appends the event that tells a page of a possible hole in what it saw of `channels`; having been
/// told, it has everything up to `id`.
pub fn encode_reset(reason: ResetReason, channels: &[&[u8]], id: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    data.extend_from_slice(b"{\"reason\": ");
    json::encode_text(reason.as_str().as_bytes(), &mut data);
    data.extend_from_slice(b", \"channels\": [");
    for (index, channel) in channels.iter().enumerate() {
        if index > 0 {
            data.extend_from_slice(b", ");
        }
        json::encode_text(channel, &mut data);
    }
    data.extend_from_slice(b"]}");
    encode_own(STREAM_RESET, &data, id, out);
}

fn encode_label(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    for part in utf8::replaced(value).split(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// Every line of `text` behind `prefix`. An end of line begins a new one also where nothing
/// follows it: the browser takes the last end of line away.
fn encode_lines(prefix: &[u8], text: &[u8], out: &mut Vec<u8>) {
    let text = utf8::replaced(text);
    let mut rest = &*text;
    while let Some((line, after)) =
        memchr2(b'\r', b'\n', rest).and_then(|end| rest.split_at_checked(end))
    {
        encode_line(prefix, line, out);
        rest = after.strip_prefix(b"\r\n").or_else(|| after.get(1..)).unwrap_or_default();
    }
    encode_line(prefix, rest, out);
}

fn encode_line(prefix: &[u8], line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(prefix);
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
