//! Events that are kept in Redis: their ids, the envelope that brings them to subscribers, the
//! entries of history, and the script that publishes them.
//!
//! The script says what its keys and fields mean. How a stream comes back with the id of its last
//! event: whoever has everything of a channel up to an id of at least `previous` has missed nothing
//! before the event that says so.

use std::fmt;
use std::str::FromStr;

use super::resp::{Value, encode_command};

mod reading;

pub use reading::{
    NEWEST_FUNCTION, NEWEST_SCRIPT, Newest, NewestOf, Nothing, PAGE_FUNCTION, PAGE_SCRIPT,
    PLAIN_KEY, PLAIN_MARKS_MAX, Page, PageEnd, PageEntry, PageQuestion, READ_LIBRARY,
    READ_LIBRARY_CODE, ReadCall, encode_mark, encode_newest, encode_newest_before, encode_oldest,
    encode_page, encode_read_load, marks_from_answer, marks_question, newest_from_answer,
    oldest_from_answer,
};

/// The id of an entry of a Redis stream, here of an event: `ms-seq`. Ids grow over all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Milliseconds since 1970, or more where the time of day was set back.
    pub ms: u64,
    pub seq: u64,
}

/// An event that is kept, as its subscribers get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Invariant: later than `previous`.
    pub id: EventId,
    /// No event of the channel has, or ever had, an id between this and `id`.
    pub previous: EventId,
    /// Whether `previous` is known to be an event, which subscribers have got before this one.
    /// Entries of history do not tell.
    pub is_chained: bool,
    /// Not empty, and without CR, LF and NUL.
    pub event: Option<&'a [u8]>,
    pub payload: &'a [u8],
}

/// What the clock says of all that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The id of the newest event of all channels.
    pub newest: EventId,
    /// Of events up to this id nothing is known.
    pub since: EventId,
    /// The shortest time to live since then: no later event was lost while it was younger, but for
    /// the bound on a channel's events, which the next event's `previous` shows.
    pub ttl_ms: u64,
    /// Keys that its Redis had evicted by then. `None`: it tells of none.
    pub evicted: Option<u64>,
}

/// What to publish to history.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// A channel's name in Redis.
    pub channel: &'a [u8],
    /// Events of the channel that are kept. Not 0.
    pub kept: usize,
    /// Time that they are kept after the last. Not 0.
    pub ttl_ms: u64,
    pub payload: &'a [u8],
    /// Empty for none.
    pub event: &'a [u8],
    /// Longest payload that is kept; [`KEPT_BYTES_MAX`] if it is not given.
    pub bytes_max: Option<usize>,
}

/// How much is kept of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Events. Not 0.
    pub kept: usize,
    /// Time after the last event, in milliseconds. Not 0.
    pub ttl_ms: u64,
}

/// How to call the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// As a function of the library, which must be loaded.
    Function,
    /// By the SHA-1 with which SCRIPT LOAD answered.
    Script { sha1: &'a [u8] },
}

/// The key of the clock.
pub const CLOCK_KEY: &[u8] = b"corecast:clock";

/// The name of the library of functions.
pub const LIBRARY: &str = "corecast";

/// The name of its function.
pub const FUNCTION: &str = "corecast_publish";

/// The library as FUNCTION LOAD takes it, Redis 7 and later.
pub const LIBRARY_CODE: &str = concat!(
    "#!lua name=corecast\n",
    include_str!("history/publish.lua"),
    "\nredis.register_function('corecast_publish', publish)\n"
);

/// The same function as a script, which EVAL and SCRIPT LOAD take.
pub const SCRIPT: &str =
    concat!(include_str!("history/publish.lua"), "\nreturn publish(KEYS, ARGV)\n");

/// Longest payload that the script takes by default: that of `--max-event-bytes`.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Longest type of an event that the script takes.
pub const EVENT_BYTES_MAX: usize = 1024;

/// What an envelope takes beside its payload, at most: NUL, two ids, two spaces, `<`, a type, LF.
pub const ENVELOPE_BYTES_MAX: usize = 5 + 2 * ID_BYTES_MAX + EVENT_BYTES_MAX;

const _: () = assert!(ENVELOPE_BYTES_MAX <= crate::ground::limits::OVERSIZE_START_BYTES);

/// Two numbers of 20 digits and a hyphen.
const ID_BYTES_MAX: usize = 41;

/// The key of a channel's history.
#[must_use]
pub fn stream_key(channel: &[u8]) -> Vec<u8> {
    [b"corecast:{", channel, b"}"].concat()
}

/// The channel whose history has this key.
#[must_use]
pub fn channel_of_key(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"corecast:{")?.strip_suffix(b"}")
}

/// Appends the command that loads the library, over one of an earlier version.
pub fn encode_load(out: &mut Vec<u8>) {
    encode_command(&[b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY_CODE.as_bytes()], out);
}

/// Appends the command that publishes an event to history.
pub fn encode_publication(call: Call<'_>, publication: &Publication<'_>, out: &mut Vec<u8>) {
    let (command, name): (&[u8], _) = match call {
        Call::Function => (b"FCALL", FUNCTION.as_bytes()),
        Call::Script { sha1 } => (b"EVALSHA", sha1),
    };
    let Publication { channel, kept, ttl_ms, payload, event, bytes_max } = *publication;
    let (key, kept, ttl_ms) = (stream_key(channel), kept.to_string(), ttl_ms.to_string());
    let bytes_max = bytes_max.map(|bytes_max| bytes_max.to_string());
    let arguments: [&[u8]; 11] = [
        command,
        name,
        b"2",
        &key,
        CLOCK_KEY,
        channel,
        kept.as_bytes(),
        ttl_ms.as_bytes(),
        payload,
        event,
        bytes_max.as_deref().unwrap_or_default().as_bytes(),
    ];
    let given = match (&bytes_max, event.is_empty()) {
        (Some(_), _) => 11,
        (None, false) => 10,
        (None, true) => 9,
    };
    encode_command(arguments.get(..given).unwrap_or_default(), out);
}

/// An event's type as the script writes it: one line.
#[must_use]
pub fn clean_event(event: &[u8]) -> Vec<u8> {
    event.iter().copied().filter(|byte| !matches!(byte, b'\0' | b'\r' | b'\n')).collect()
}

impl EventId {
    /// Before all events.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// Reads `ms-seq` as Redis writes it: no sign, no leading zeros.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let hyphen = memchr::memchr(b'-', text)?;
        let (ms, seq) = text.split_at_checked(hyphen)?;
        Some(Self { ms: number(ms)?, seq: number(seq.get(1..)?)? })
    }

    /// The id that follows immediately; the last one has none.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id that this one follows immediately; the first one has none.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl<'a> Envelope<'a> {
    /// Reads what the script publishes. `None`: it is a payload without an envelope. A publisher
    /// that wants to can make its own, and deceives its own streams about its own events.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let rest = message.strip_prefix(b"\0").filter(|rest| rest.first() != Some(&b'{'))?;
        // A payload that begins with NUL and is none of ours may be long.
        let window = rest.get(..ENVELOPE_BYTES_MAX).unwrap_or(rest);
        let (head, _) = window.split_at_checked(memchr::memchr(b'\n', window)?)?;
        let payload = rest.get(head.len() + 1..)?;
        let mut parts = head.splitn(3, |&byte| byte == b' ');
        let id = EventId::parse(parts.next()?)?;
        let previous = parts.next()?;
        let bound = previous.strip_prefix(b"<");
        let (is_chained, previous) = (bound.is_none(), EventId::parse(bound.unwrap_or(previous))?);
        let event = parts.next();
        let is_clean = |event: &[u8]| {
            (1..=EVENT_BYTES_MAX).contains(&event.len())
                && !event.iter().any(|byte| matches!(byte, b'\0' | b'\r'))
        };
        let is_good = previous < id && event.is_none_or(is_clean);
        is_good.then_some(Self { id, previous, is_chained, event, payload })
    }

    /// Reads the same of a message of which only the start is there, at least
    /// [`ENVELOPE_BYTES_MAX`] bytes.
    #[must_use]
    pub fn parse_start(start: &'a [u8]) -> Option<Self> {
        Self::parse(start)
    }

    /// Reads an entry of a channel's stream: `[id, [p, …, e, …, d, …]]`.
    #[must_use]
    pub fn from_entry(entry: &Value<'a>) -> Option<Self> {
        let (id, fields) = id_and_fields(entry)?;
        let field = |name: &[u8]| find(fields, name);
        let previous = EventId::parse(field(b"p")?)?;
        let event = field(b"e").filter(|event| !event.is_empty());
        let payload = field(b"d")?;
        (previous < id).then_some(Self { id, previous, is_chained: false, event, payload })
    }

    /// Appends the message that subscribers get.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'\0');
        out.extend_from_slice(self.id.to_string().as_bytes());
        out.extend_from_slice(if self.is_chained { b" " } else { b" <" });
        out.extend_from_slice(self.previous.to_string().as_bytes());
        if let Some(event) = self.event {
            out.push(b' ');
            out.extend_from_slice(event);
        }
        out.push(b'\n');
        out.extend_from_slice(self.payload);
    }
}

impl Clock {
    /// Reads the clock's only entry: `[id, [since, …, ttl, …, evicted, …]]`.
    #[must_use]
    pub fn from_entry(entry: &Value<'_>) -> Option<Self> {
        let (newest, fields) = id_and_fields(entry)?;
        let since = EventId::parse(find(fields, b"since")?)?;
        let ttl_ms = number(find(fields, b"ttl")?)?;
        let evicted = find(fields, b"evicted").and_then(number);
        (since <= newest).then_some(Self { newest, since, ttl_ms, evicted })
    }

    /// What the clock says where its Redis has evicted `evicted` keys by now: if those are others
    /// than it knows of, events may be among them, and nothing is known of any.
    #[must_use]
    pub fn after_evictions(self, evicted: u64) -> Self {
        let is_noted = self.evicted == Some(evicted);
        let since = if is_noted { self.since } else { self.newest };
        Self { since, evicted: Some(evicted), ..self }
    }

    /// The latest id that an event can have had which has expired at the time `now_ms` of the
    /// clock's Redis, asked after what is missing was found missing. A stream that has everything
    /// up to it misses nothing of a channel of which nothing is left. A tenth of the time to live
    /// is spared for a time of day that was set back.
    #[must_use]
    pub fn expired(&self, now_ms: u64) -> EventId {
        let age_ms = self.ttl_ms - self.ttl_ms / 10;
        let ms = now_ms.max(self.newest.ms).saturating_sub(age_ms).saturating_add(1);
        EventId { ms, seq: 0 }.min(self.newest).max(self.since)
    }
}

/// A number as Redis writes one.
fn number(text: &[u8]) -> Option<u64> {
    let is_canonical = matches!(text, [b'0'] | [b'1'..=b'9', ..]);
    u64::from_str(std::str::from_utf8(text).ok()?).ok().filter(|_| is_canonical)
}

fn id_and_fields<'a, 'b>(entry: &'b Value<'a>) -> Option<(EventId, &'b [Value<'a>])> {
    let Value::Array(parts) = entry else { return None };
    let [Value::String(id), Value::Array(fields)] = &**parts else { return None };
    Some((EventId::parse(id)?, fields))
}

fn find<'a>(fields: &[Value<'a>], name: &[u8]) -> Option<&'a [u8]> {
    fields.chunks_exact(2).find_map(|pair| match pair {
        [Value::String(field), Value::String(value)] if *field == name => Some(*value),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
