//! Commands about the events that are kept: the function that publishes them, and as much of the
//! commands on streams and keys as is needed to read them.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::super::client::Client;
use super::super::glob;
use super::super::history::Entry;
use super::super::hub::{Hub, now_ms};
use super::super::reply::Reply;
use super::pubsub::unpublishable;
use super::{integer, shown, syntax_error};
use crate::bytes::history::{
    CLOCK_KEY, EVENT_BYTES_MAX, EventId, FUNCTION, KEPT_BYTES_MAX, LIBRARY, LIBRARY_CODE,
    NEWEST_FUNCTION, PAGE_FUNCTION, PLAIN_KEY, Publication, READ_LIBRARY, READ_LIBRARY_CODE,
    channel_of_key, clean_event, stream_key,
};

/// What the script does.
pub(super) fn publish(
    keys: &[Cow<'_, [u8]>],
    values: &[Cow<'_, [u8]>],
    hub: &mut Hub,
    client: &mut Client,
) {
    let refuse = |client: &mut Client, problem: &str| {
        client.reply().error(format!("ERR {FUNCTION}: {problem}"));
    };
    let ([stream, clock], [channel, kept, ttl_ms, payload, event @ ..]) = (keys, values) else {
        return refuse(client, USAGE);
    };
    let (event, bytes_max) = match event {
        [] => (Vec::new(), None),
        [event] => (clean_event(event), None),
        [event, bytes_max] => (clean_event(event), Some(whole(bytes_max))),
        _ => return refuse(client, USAGE),
    };
    if **stream != *stream_key(channel) || **clock != *CLOCK_KEY {
        return refuse(client, "the keys must be corecast:{CHANNEL} and corecast:clock");
    }
    let Some(kept) = whole(kept).and_then(|kept| usize::try_from(kept).ok()) else {
        return refuse(client, "MAXLEN must be a whole number above 0");
    };
    let Some(ttl_ms) = whole(ttl_ms) else {
        return refuse(client, "TTL_MS must be a whole number above 0");
    };
    let Some(bytes_max) = bytes_max.unwrap_or(Some(KEPT_BYTES_MAX as u64)) else {
        return refuse(client, "MAX_BYTES must be a whole number above 0");
    };
    if payload.len() as u64 > bytes_max {
        let length = payload.len();
        let problem = format!("DATA has {length} bytes, and no more than {bytes_max} are kept");
        return refuse(client, &problem);
    }
    if event.len() > EVENT_BYTES_MAX {
        let problem = format!("EVENT must not be longer than {EVENT_BYTES_MAX} bytes");
        return refuse(client, &problem);
    }
    if let Some(error) = unpublishable(hub, channel, payload) {
        return client.reply().error(error);
    }
    let publication =
        Publication { channel, kept, ttl_ms, payload, event: &event, bytes_max: None };
    let (id, _) = hub.publish_to_history(client, &publication);
    client.reply().bulk(id.to_string());
}

/// FUNCTION LOAD [REPLACE] code. The library is always there; another can't be loaded.
pub(super) fn function_load(_: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, _, options @ .., code] = arguments else {
        return client.reply().error("ERR Function code is missing");
    };
    let is_replace = |option: &&Cow<'_, [u8]>| option.eq_ignore_ascii_case(b"replace");
    if let Some(unknown) = options.iter().find(|option| !is_replace(option)) {
        let parts = [b"ERR Unknown option given: ", shown(unknown)];
        return client.reply().error(parts.concat());
    }
    let Some(library) = LIBRARIES.iter().find(|library| **code == *library.code.as_bytes()) else {
        let names = LIBRARIES.map(|library| library.name).join(" and ");
        let text = format!("ERR only the libraries {names} of this version of corecast are known");
        return client.reply().error(text);
    };
    if options.is_empty() {
        client.reply().error(format!("ERR Library '{}' already exists", library.name));
    } else {
        client.reply().bulk(library.name);
    }
}

/// A library of functions that is always there.
struct Library {
    name: &'static str,
    functions: &'static [&'static str],
    /// They do not write.
    is_read_only: bool,
    code: &'static str,
}

const LIBRARIES: [Library; 2] = [
    Library { name: LIBRARY, functions: &[FUNCTION], is_read_only: false, code: LIBRARY_CODE },
    Library {
        name: READ_LIBRARY,
        functions: &[PAGE_FUNCTION, NEWEST_FUNCTION],
        is_read_only: true,
        code: READ_LIBRARY_CODE,
    },
];

/// FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE].
pub(super) fn function_list(_: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let (mut pattern, mut with_code) = (None, false);
    let mut rest = arguments.get(2..).unwrap_or_default();
    while let [option, after @ ..] = rest {
        rest = after;
        if !with_code && option.eq_ignore_ascii_case(b"withcode") {
            with_code = true;
        } else if pattern.is_none() && option.eq_ignore_ascii_case(b"libraryname") {
            let [given, after @ ..] = rest else {
                return client.reply().error("ERR library name argument was not given");
            };
            (pattern, rest) = (Some(given), after);
        } else {
            return client.reply().error([b"ERR Unknown argument ", shown(option)].concat());
        }
    }
    let is_asked = |library: &&Library| {
        pattern.is_none_or(|pattern| glob::matches(pattern, library.name.as_bytes()))
    };
    let asked: Vec<&Library> = LIBRARIES.iter().filter(is_asked).collect();
    let mut reply = client.reply();
    reply.array(asked.len());
    asked.into_iter().for_each(|library| describe_library(library, &mut reply, with_code));
}

fn describe_library(library: &Library, reply: &mut Reply<'_>, with_code: bool) {
    reply.map(if with_code { 4 } else { 3 });
    reply.bulk("library_name");
    reply.bulk(library.name);
    reply.bulk("engine");
    reply.bulk("LUA");
    reply.bulk("functions");
    reply.array(library.functions.len());
    for function in library.functions {
        reply.map(3);
        reply.bulk("name");
        reply.bulk(function);
        reply.bulk("description");
        reply.null();
        reply.bulk("flags");
        reply.set(library.is_read_only.into());
        if library.is_read_only {
            reply.bulk("no-writes");
        }
    }
    if with_code {
        reply.bulk("library_code");
        reply.bulk(library.code);
    }
}

/// XRANGE key start end [COUNT count].
pub(super) fn xrange(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, key, start, end, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    match interval(start, end).and_then(|ids| Ok((ids, count(rest)?))) {
        Ok((ids, count)) => range(key, ids, count, Order::Oldest, hub, client),
        Err(error) => client.reply().error(error),
    }
}

/// XREVRANGE key end start [COUNT count].
pub(super) fn xrevrange(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, key, end, start, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    match interval(start, end).and_then(|ids| Ok((ids, count(rest)?))) {
        Ok((ids, count)) => range(key, ids, count, Order::Newest, hub, client),
        Err(error) => client.reply().error(error),
    }
}

pub(super) fn xlen(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, key] = arguments else { return syntax_error(hub, client, arguments) };
    let length = length(hub, key);
    client.reply().count(length);
}

/// EXISTS key …; a key that is named twice counts twice.
pub(super) fn exists(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let keys = arguments.iter().skip(1);
    let found = keys.filter(|key| length(hub, key) > 0).count();
    client.reply().count(found);
}

/// DEL key …. Without the clock, nothing is known of what was published: a new one begins.
pub(super) fn del(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let deleted = arguments.iter().skip(1).filter(|key| {
        if ***key == *CLOCK_KEY {
            hub.history.forget_clock();
            return true;
        }
        if ***key == *PLAIN_KEY {
            return hub.history.forget_plain();
        }
        channel_of_key(key).is_some_and(|channel| hub.history.delete(channel, now_ms()))
    });
    let deleted = deleted.count();
    client.reply().count(deleted);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Oldest,
    Newest,
}

/// Replies with the entries of a stream, at most `count` and the first in `order`; a count of 0 has
/// an answer of its own.
fn range(
    key: &[u8],
    ids: RangeInclusive<EventId>,
    count: Option<usize>,
    order: Order,
    hub: &mut Hub,
    client: &mut Client,
) {
    if count == Some(0) && length(hub, key) > 0 {
        return client.reply().null_array();
    }
    let mut reply = client.reply();
    if key == CLOCK_KEY {
        let clock = hub.history.clock();
        let is_asked = ids.contains(&clock.newest);
        reply.array(is_asked.into());
        if is_asked {
            let ttl_ms = clock.ttl_ms.to_string().into_bytes();
            let since = clock.since.to_string().into_bytes();
            let fields: [(_, &[u8]); 3] = [("since", &since), ("ttl", &ttl_ms), ("evicted", b"0")];
            entry(&mut reply, clock.newest, &fields);
        }
        return;
    }
    if key == PLAIN_KEY {
        let notes: Vec<_> = hub.history.plain(ids).collect();
        let count = count.unwrap_or(usize::MAX).min(notes.len());
        reply.array(count);
        let mut write = |(id, name): (EventId, &[u8])| entry(&mut reply, id, &[("c", name)]);
        match order {
            Order::Oldest => notes.into_iter().take(count).for_each(&mut write),
            Order::Newest => notes.into_iter().rev().take(count).for_each(&mut write),
        }
        return;
    }
    let channel = channel_of_key(key).unwrap_or_default();
    let entries = hub.history.range(channel, ids, now_ms());
    let count = count.unwrap_or(usize::MAX).min(entries.len());
    reply.array(count);
    let mut write = |kept: &Entry| {
        entry(&mut reply, kept.id, &kept.fields());
    };
    match order {
        Order::Oldest => entries.take(count).for_each(&mut write),
        Order::Newest => entries.rev().take(count).for_each(&mut write),
    }
}

fn entry(reply: &mut Reply<'_>, id: EventId, fields: &[(&str, impl AsRef<[u8]>)]) {
    reply.array(2);
    reply.bulk(id.to_string());
    reply.array(fields.len() * 2);
    for (field, value) in fields {
        reply.bulk(field);
        reply.bulk(value);
    }
}

/// How many entries a stream has.
fn length(hub: &mut Hub, key: &[u8]) -> usize {
    match channel_of_key(key) {
        Some(channel) => hub.history.len(channel, now_ms()),
        None if key == PLAIN_KEY => hub.history.plain_len(),
        None => (key == CLOCK_KEY).into(),
    }
}

/// The ids from `start` to `end`, each of which may exclude itself with `(`.
fn interval(start: &[u8], end: &[u8]) -> Result<RangeInclusive<EventId>, &'static str> {
    let start = match start.strip_prefix(b"(") {
        Some(start) => {
            bound(start, 0, false)?.next().ok_or("ERR invalid start ID for the interval")?
        }
        None => bound(start, 0, true)?,
    };
    let end = match end.strip_prefix(b"(") {
        Some(end) => {
            bound(end, u64::MAX, false)?.before().ok_or("ERR invalid end ID for the interval")?
        }
        None => bound(end, u64::MAX, true)?,
    };
    Ok(start..=end)
}

/// An id as commands take it: `-`, `+`, or milliseconds and perhaps a number, `seq` without.
fn bound(text: &[u8], seq: u64, open: bool) -> Result<EventId, &'static str> {
    let invalid = "ERR Invalid stream ID specified as stream command argument";
    match text {
        b"-" if open => return Ok(EventId::ZERO),
        b"+" if open => return Ok(EventId { ms: u64::MAX, seq: u64::MAX }),
        _ => {}
    }
    let digits = |text: &[u8]| {
        let all_digits = text.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(text).ok()?.parse().ok().filter(|_| all_digits)
    };
    let mut parts = text.splitn(2, |&byte| byte == b'-');
    let ms = parts.next().and_then(digits);
    let seq = parts.next().map_or(Some(seq), digits);
    match (ms, seq) {
        (Some(ms), Some(seq)) => Ok(EventId { ms, seq }),
        _ => Err(invalid),
    }
}

/// The options of a range: COUNT, of which the last counts. A negative one is 0.
fn count(options: &[Cow<'_, [u8]>]) -> Result<Option<usize>, &'static str> {
    let mut count = None;
    for option in options.chunks(2) {
        match option {
            [name, value] if name.eq_ignore_ascii_case(b"count") => {
                let value = integer(value).ok_or("ERR value is not an integer or out of range")?;
                count = Some(usize::try_from(value).unwrap_or(0));
            }
            _ => return Err("ERR syntax error"),
        }
    }
    Ok(count)
}

/// A number as the script takes it: above 0, of at most 15 digits.
fn whole(text: &[u8]) -> Option<u64> {
    let is_whole = matches!(text, [b'1'..=b'9', ..]) && text.len() <= 15;
    integer(text).and_then(|number| u64::try_from(number).ok()).filter(|_| is_whole)
}

const USAGE: &str = "expected 2 keys, then CHANNEL MAXLEN TTL_MS DATA [EVENT [MAX_BYTES]]";
