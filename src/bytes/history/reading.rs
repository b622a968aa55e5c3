//! How Redis is asked for history, and what it answers.
//!
//! A library of functions reads it in pages that are bounded in bytes where they are made, and
//! tells the newest ids of hundreds of channels at a time. It is a library of its own, so that
//! loading the one that publishes, of whatever version, leaves it in place. Whoever may not load
//! functions runs the same code as scripts; whoever may not do that either reads with plain
//! commands.

use super::{Envelope, EventId, find, id_and_fields, stream_key};
use crate::bytes::resp::{Value, encode_command};

/// The name of the library that reads.
pub const READ_LIBRARY: &str = "corecast_read";

/// Its function that reads a page.
pub const PAGE_FUNCTION: &str = "corecast_page";

/// Its function that tells the newest ids.
pub const NEWEST_FUNCTION: &str = "corecast_newest";

/// The library as FUNCTION LOAD takes it, Redis 7 and later.
pub const READ_LIBRARY_CODE: &str = concat!(
    "#!lua name=corecast_read\n",
    include_str!("read.lua"),
    "\nredis.register_function{function_name='corecast_page', callback=page, ",
    "flags={'no-writes'}}\n",
    "redis.register_function{function_name='corecast_newest', callback=newest, ",
    "flags={'no-writes'}}\n"
);

/// The same functions as scripts.
pub const PAGE_SCRIPT: &str = concat!(include_str!("read.lua"), "\nreturn page(KEYS, ARGV)\n");
pub const NEWEST_SCRIPT: &str = concat!(include_str!("read.lua"), "\nreturn newest(KEYS, ARGV)\n");

/// The key of the channels that have events beside those that are kept: a stream with an entry for
/// each time that somebody saw one, whose only field, `c`, is the channel's name in Redis.
pub const PLAIN_KEY: &[u8] = b"corecast:plain";

/// Entries of it, at least; what is older is forgotten.
pub const PLAIN_MARKS_MAX: usize = 16_384;

/// How Redis is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadCall {
    /// By the functions of the library, which must be loaded.
    Function,
    /// By EVAL_RO, Redis 7 and later.
    ReadOnlyScript,
    /// By EVAL.
    Script,
    /// By XRANGE and XREVRANGE.
    Plain,
}

/// Which events of a channel are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuestion {
    /// Those behind this id …
    pub from: EventId,
    /// … up to this one.
    pub to: EventId,
    /// Bytes of all of them. Does not bind [`ReadCall::Plain`].
    pub bytes_max: usize,
    pub entries_max: usize,
    /// Longer ones are told by their length.
    pub event_bytes_max: usize,
}

/// Why a page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// There are no others.
    End,
    More,
    /// Its first event takes so many bytes, and was not read.
    Big {
        bytes: usize,
    },
}

/// An entry of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEntry<'a> {
    Event(Envelope<'a>),
    /// An event whose payload is longer than was asked for.
    Overlong {
        id: EventId,
        previous: EventId,
    },
    /// No event of ours.
    Foreign {
        id: EventId,
    },
}

/// Events of a channel, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    pub end: PageEnd,
    /// Where there is none up to the end: the oldest event that is kept of the channel and the one
    /// before it. Plain commands do not tell it.
    pub oldest: Option<(EventId, EventId)>,
    pub entries: Vec<PageEntry<'a>>,
}

/// The ids of a channel's newest events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The predecessor of the last of them.
    pub previous: EventId,
    /// Newest first. Invariant: not empty.
    pub ids: Vec<EventId>,
}

/// Appends the command that loads the library, over one of an earlier version.
pub fn encode_read_load(out: &mut Vec<u8>) {
    encode_command(&[b"FUNCTION", b"LOAD", b"REPLACE", READ_LIBRARY_CODE.as_bytes()], out);
}

/// Appends the question for a page of a channel's history.
pub fn encode_page(call: ReadCall, channel: &[u8], question: &PageQuestion, out: &mut Vec<u8>) {
    let key = stream_key(channel);
    let (from, to) = (question.from.to_string(), question.to.to_string());
    let entries = question.entries_max.to_string();
    let Some((command, name)) = call.command(PAGE_FUNCTION, PAGE_SCRIPT) else {
        let from = format!("({from}");
        let range: [&[u8]; 6] =
            [b"XRANGE", &key, from.as_bytes(), to.as_bytes(), b"COUNT", entries.as_bytes()];
        return encode_command(&range, out);
    };
    let (bytes, event) = (question.bytes_max.to_string(), question.event_bytes_max.to_string());
    let arguments: [&[u8]; 9] = [
        command,
        name,
        b"1",
        &key,
        from.as_bytes(),
        to.as_bytes(),
        bytes.as_bytes(),
        entries.as_bytes(),
        event.as_bytes(),
    ];
    encode_command(&arguments, out);
}

/// Appends the question for the ids of the `count` newest events of each channel. Plain commands
/// tell of one channel at a time.
pub fn encode_newest(call: ReadCall, channels: &[&[u8]], count: usize, out: &mut Vec<u8>) {
    let Some((command, name)) = call.command(NEWEST_FUNCTION, NEWEST_SCRIPT) else {
        debug_assert_eq!(channels.len(), 1);
        let channel = channels.first().copied().unwrap_or_default();
        return encode_newest_before(channel, None, count, out);
    };
    let keys: Vec<Vec<u8>> = channels.iter().map(|channel| stream_key(channel)).collect();
    let (number, count) = (keys.len().to_string(), count.to_string());
    let mut arguments: Vec<&[u8]> = vec![command, name, number.as_bytes()];
    arguments.extend(keys.iter().map(Vec::as_slice));
    arguments.push(count.as_bytes());
    encode_command(&arguments, out);
}

/// Appends the same question in plain commands, for the newest events of those before `before`.
pub fn encode_newest_before(
    channel: &[u8],
    before: Option<EventId>,
    count: usize,
    out: &mut Vec<u8>,
) {
    let end = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
    let count = count.to_string();
    let key = stream_key(channel);
    let range: [&[u8]; 6] = [b"XREVRANGE", &key, end.as_bytes(), b"-", b"COUNT", count.as_bytes()];
    encode_command(&range, out);
}

/// Appends the question for the oldest event of a channel that is kept.
pub fn encode_oldest(channel: &[u8], out: &mut Vec<u8>) {
    encode_command(&[b"XRANGE", &stream_key(channel), b"-", b"+", b"COUNT", b"1"], out);
}

/// Reads the answer to [`encode_oldest`]: the oldest event and the one before it, if any is kept.
/// `None`: it is no such answer.
#[must_use]
pub fn oldest_from_answer(answer: &Value<'_>) -> Option<Option<(EventId, EventId)>> {
    let Value::Array(entries) = answer else { return None };
    let Some(entry) = entries.first() else { return Some(None) };
    let (id, fields) = id_and_fields(entry)?;
    Some(Some((id, find(fields, b"p").and_then(EventId::parse).unwrap_or(id))))
}

/// Appends the command that notes an event which is not kept, on a channel whose events are.
pub fn encode_mark(channel: &[u8], out: &mut Vec<u8>) {
    let most = PLAIN_MARKS_MAX.to_string();
    encode_command(
        &[b"XADD", PLAIN_KEY, b"MAXLEN", b"~", most.as_bytes(), b"*", b"c", channel],
        out,
    );
}

/// The arguments of the question for what was noted after an id.
#[must_use]
pub fn marks_question(after: EventId) -> [Vec<u8>; 4] {
    let after = format!("({after}").into_bytes();
    [b"XRANGE".to_vec(), PLAIN_KEY.to_vec(), after, b"+".to_vec()]
}

/// Reads the answer to [`marks_question`]: when each was noted, and the channel's name. `None`: it
/// is no such answer.
#[must_use]
pub fn marks_from_answer<'a>(answer: &Value<'a>) -> Option<Vec<(EventId, &'a [u8])>> {
    let Value::Array(entries) = answer else { return None };
    let marks = entries.iter().filter_map(|entry| {
        let (id, fields) = id_and_fields(entry)?;
        Some((id, find(fields, b"c")?))
    });
    Some(marks.collect())
}

/// Reads the answer to [`encode_newest`], one for each channel. `None`: it is no such answer.
#[must_use]
pub fn newest_from_answer(call: ReadCall, answer: &Value<'_>) -> Option<Vec<NewestOf>> {
    let Value::Array(parts) = answer else { return None };
    if call == ReadCall::Plain {
        let entries = parts.iter().map(|entry| {
            let (id, fields) = id_and_fields(entry)?;
            Some((id, find(fields, b"p").and_then(EventId::parse).unwrap_or(id)))
        });
        let entries: Vec<(EventId, EventId)> = entries.collect::<Option<_>>()?;
        let previous = entries.last().map(|(_, previous)| *previous);
        let ids = entries.into_iter().map(|(id, _)| id).collect();
        return Some(vec![previous.map(|previous| Newest { previous, ids }).ok_or(Nothing::Kept)]);
    }
    Some(parts.iter().map(told_newest).collect())
}

/// The newest ids of a channel as the function tells them.
fn told_newest(part: &Value<'_>) -> NewestOf {
    let Value::Array(parts) = part else { return Err(Nothing::Readable) };
    let [Value::String(previous), ids @ ..] = parts.as_slice() else { return Err(Nothing::Kept) };
    let ids = ids.iter().map(|id| match id {
        Value::String(id) => EventId::parse(id),
        _ => None,
    });
    let ids: Vec<EventId> = ids.collect::<Option<_>>().ok_or(Nothing::Readable)?;
    let last = *ids.last().ok_or(Nothing::Readable)?;
    // Whoever may write the stream may write anything: then nothing is known of what was before.
    let previous = EventId::parse(previous).filter(|previous| *previous < last).unwrap_or(last);
    Ok(Newest { previous, ids })
}

/// The newest ids of a channel, if there are any.
pub type NewestOf = Result<Newest, Nothing>;

/// Why there are no ids of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// It keeps no events.
    Kept,
    /// Its key holds something else.
    Readable,
}

impl ReadCall {
    /// What to try where Redis does not let us ask so.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Function => Some(Self::ReadOnlyScript),
            Self::ReadOnlyScript => Some(Self::Script),
            Self::Script => Some(Self::Plain),
            Self::Plain => None,
        }
    }

    fn command(
        self,
        function: &'static str,
        script: &'static str,
    ) -> Option<(&'static [u8], &'static [u8])> {
        match self {
            Self::Function => Some((b"FCALL_RO", function.as_bytes())),
            Self::ReadOnlyScript => Some((b"EVAL_RO", script.as_bytes())),
            Self::Script => Some((b"EVAL", script.as_bytes())),
            Self::Plain => None,
        }
    }
}

impl<'a> Page<'a> {
    /// Reads the answer to [`encode_page`]. `None`: it is no such answer.
    #[must_use]
    pub fn from_answer(
        call: ReadCall,
        question: &PageQuestion,
        answer: &Value<'a>,
    ) -> Option<Self> {
        let Value::Array(parts) = answer else { return None };
        if call == ReadCall::Plain {
            let read = |entry: &Value<'a>| plain_entry(entry, question.event_bytes_max);
            let entries: Vec<PageEntry<'a>> = parts.iter().map(read).collect::<Option<_>>()?;
            let is_cut = entries.len() >= question.entries_max;
            let end = if is_cut { PageEnd::More } else { PageEnd::End };
            return Some(Self { end, oldest: None, entries });
        }
        let [Value::String(end), Value::Array(more), Value::Array(entries)] = parts.as_slice()
        else {
            return None;
        };
        let text = |number: usize| match more.get(number) {
            Some(Value::String(text)) => Some(*text),
            _ => None,
        };
        let end = match *end {
            b"end" => PageEnd::End,
            b"more" => PageEnd::More,
            b"big" => PageEnd::Big { bytes: std::str::from_utf8(text(0)?).ok()?.parse().ok()? },
            _ => return None,
        };
        let oldest = match end {
            PageEnd::End => text(0).and_then(EventId::parse),
            PageEnd::More | PageEnd::Big { .. } => None,
        };
        let oldest = oldest.map(|id| (id, text(1).and_then(EventId::parse).unwrap_or(id)));
        let entries = entries.iter().map(told_entry).collect::<Option<_>>()?;
        Some(Self { end, oldest, entries })
    }
}

impl PageEntry<'_> {
    #[must_use]
    pub fn id(&self) -> EventId {
        match self {
            Self::Event(Envelope { id, .. }) | Self::Overlong { id, .. } | Self::Foreign { id } => {
                *id
            }
        }
    }
}

/// An entry as the function tells it.
fn told_entry<'a>(entry: &Value<'a>) -> Option<PageEntry<'a>> {
    let Value::Array(parts) = entry else { return None };
    let (id, parts) = match parts.as_slice() {
        [Value::String(id), parts @ ..] => (EventId::parse(id)?, parts),
        _ => return None,
    };
    let [Value::String(previous), Value::String(event), payload] = parts else {
        return Some(PageEntry::Foreign { id });
    };
    let Some(previous) = EventId::parse(previous).filter(|previous| *previous < id) else {
        return Some(PageEntry::Foreign { id });
    };
    Some(match payload {
        Value::String(payload) => {
            let event = Some(*event).filter(|event| !event.is_empty());
            PageEntry::Event(Envelope { id, previous, is_chained: false, event, payload })
        }
        _ => PageEntry::Overlong { id, previous },
    })
}

/// An entry as XRANGE tells it. What was too long for the link stands there as nothing.
fn plain_entry<'a>(entry: &Value<'a>, event_bytes_max: usize) -> Option<PageEntry<'a>> {
    let (id, fields) = id_and_fields(entry)?;
    Some(match Envelope::from_entry(entry) {
        Some(envelope) if envelope.payload.len() <= event_bytes_max => PageEntry::Event(envelope),
        Some(Envelope { previous, .. }) => PageEntry::Overlong { id, previous },
        None => {
            let previous = find(fields, b"p").and_then(EventId::parse).filter(|p| *p < id);
            let has_null = fields.contains(&Value::Null);
            match previous {
                Some(previous) if has_null => PageEntry::Overlong { id, previous },
                _ => PageEntry::Foreign { id },
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn text(text: &str) -> Value<'_> {
        Value::String(text.as_bytes())
    }

    const QUESTION: PageQuestion = PageQuestion {
        from: EventId { ms: 1, seq: 0 },
        to: EventId { ms: 9, seq: 0 },
        bytes_max: 100,
        entries_max: 2,
        event_bytes_max: 4,
    };

    #[test]
    fn pages_are_asked_for_in_each_way() {
        let expected = [
            (ReadCall::Function, vec!["FCALL_RO", PAGE_FUNCTION]),
            (ReadCall::ReadOnlyScript, vec!["EVAL_RO", PAGE_SCRIPT]),
            (ReadCall::Script, vec!["EVAL", PAGE_SCRIPT]),
        ];
        for (call, begin) in expected {
            let mut out = Vec::new();
            encode_page(call, b"news", &QUESTION, &mut out);
            let rest = ["1", "corecast:{news}", "1-0", "9-0", "100", "2", "4"];
            let arguments: Vec<&[u8]> =
                begin.iter().chain(&rest).map(|argument| argument.as_bytes()).collect();
            let mut command = Vec::new();
            encode_command(&arguments, &mut command);
            assert!(out == command, "{call:?}");
        }
        let mut out = Vec::new();
        encode_page(ReadCall::Plain, b"news", &QUESTION, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("XRANGE") && text.contains("(1-0") && text.contains("COUNT"));
    }

    #[test]
    fn answers_of_the_function_are_read() {
        let entries = Value::Array(vec![
            Value::Array(vec![text("2-0"), text("1-0"), text(""), text("data")]),
            Value::Array(vec![text("3-0"), text("2-0"), text("type"), Value::Integer(9)]),
            Value::Array(vec![text("4-0")]),
        ]);
        let answer = Value::Array(vec![text("more"), Value::Array(vec![]), entries]);
        let page = Page::from_answer(ReadCall::Function, &QUESTION, &answer).unwrap();
        let (id, previous) = (id(2), id(1));
        let event =
            Envelope { id, previous, is_chained: false, event: None, payload: b"data".as_slice() };
        let expected = [
            PageEntry::Event(event),
            PageEntry::Overlong { id: self::id(3), previous: self::id(2) },
            PageEntry::Foreign { id: self::id(4) },
        ];
        assert_eq!((page.end, page.oldest, page.entries), (PageEnd::More, None, expected.into()));
        let ended = |more: Vec<Value<'static>>, end| {
            let answer = Value::Array(vec![text(end), Value::Array(more), Value::Array(vec![])]);
            let page = Page::from_answer(ReadCall::Function, &QUESTION, &answer).unwrap();
            (page.end, page.oldest)
        };
        assert_eq!(ended(vec![], "end"), (PageEnd::End, None));
        let oldest = Some((self::id(7), self::id(5)));
        assert_eq!(ended(vec![text("7-0"), text("5-0")], "end"), (PageEnd::End, oldest));
        assert_eq!(ended(vec![text("123")], "big"), (PageEnd::Big { bytes: 123 }, None));
        assert_eq!(Page::from_answer(ReadCall::Function, &QUESTION, &Value::Null), None);
    }

    #[test]
    fn plain_answers_are_read() {
        let entry = |id, data| {
            let fields = vec![text("p"), text("1-0"), text("d"), data];
            Value::Array(vec![text(id), Value::Array(fields)])
        };
        let entries = vec![entry("2-0", text("data")), entry("3-0", text("longer"))];
        let page = Page::from_answer(ReadCall::Plain, &QUESTION, &Value::Array(entries)).unwrap();
        assert_eq!(page.end, PageEnd::More);
        assert!(matches!(page.entries[0], PageEntry::Event(_)));
        assert_eq!(page.entries[1], PageEntry::Overlong { id: id(3), previous: id(1) });
        let skipped = Value::Array(vec![entry("2-0", Value::Null)]);
        let page = Page::from_answer(ReadCall::Plain, &QUESTION, &skipped).unwrap();
        let overlong = PageEntry::Overlong { id: id(2), previous: id(1) };
        assert_eq!((page.end, page.entries), (PageEnd::End, vec![overlong]));
        let foreign = Value::Array(vec![text("2-0"), Value::Array(vec![text("x"), text("y")])]);
        let page =
            Page::from_answer(ReadCall::Plain, &QUESTION, &Value::Array(vec![foreign])).unwrap();
        assert_eq!(page.entries, [PageEntry::Foreign { id: id(2) }]);
    }

    #[test]
    fn newest_ids_are_read() {
        let answer = Value::Array(vec![
            Value::Array(vec![text("1-0"), text("3-0"), text("2-0")]),
            Value::Array(vec![]),
        ]);
        let newest = Newest { previous: id(1), ids: vec![id(3), id(2)] };
        let read = newest_from_answer(ReadCall::Function, &answer);
        assert_eq!(read, Some(vec![Ok(newest), Err(Nothing::Kept)]));
        let read = newest_from_answer(ReadCall::Plain, &Value::Array(vec![]));
        assert_eq!(read, Some(vec![Err(Nothing::Kept)]));
        // Others may have written it: that costs nobody else the answer.
        let odd = ["x", "9-0"].map(|previous| Value::Array(vec![text(previous), text("3-0")]));
        let odd = odd.into_iter().chain([Value::Array(vec![text("1-0")]), text("WRONGTYPE")]);
        let newest = Newest { previous: id(3), ids: vec![id(3)] };
        let (ok, unreadable) = (Ok(newest), Err(Nothing::Readable));
        let expected = vec![ok.clone(), ok, unreadable.clone(), unreadable];
        let read = newest_from_answer(ReadCall::Function, &Value::Array(odd.collect()));
        assert_eq!(read, Some(expected));
    }

    #[test]
    fn marks_and_oldest_events_are_read() {
        let entry = |id, name, value| {
            Value::Array(vec![text(id), Value::Array(vec![text(name), text(value)])])
        };
        let answer = Value::Array(vec![entry("5-0", "c", "news"), entry("6-0", "x", "news")]);
        assert_eq!(marks_from_answer(&answer), Some(vec![(id(5), b"news".as_slice())]));
        let answer = Value::Array(vec![entry("5-0", "p", "4-0")]);
        assert_eq!(oldest_from_answer(&answer), Some(Some((id(5), id(4)))));
        assert_eq!(oldest_from_answer(&Value::Array(vec![])), Some(None));
        assert_eq!(oldest_from_answer(&Value::Null), None);
    }
}
