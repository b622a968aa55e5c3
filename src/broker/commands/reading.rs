//! The functions that read histories, as `bytes::history` has them for Redis, and the notes of
//! channels that have events beside those that are kept.

use std::borrow::Cow;

use super::super::client::Client;
use super::super::history::Entry;
use super::super::hub::{Hub, now_ms};
use super::{history, integer, keys_and_values, syntax_error};
use crate::bytes::history::{
    EventId, FUNCTION, NEWEST_FUNCTION, PAGE_FUNCTION, PLAIN_KEY, channel_of_key,
};

/// What an entry of a page takes beside its texts, as the function counts it.
const ENTRY_BYTES: usize = 32;

/// FCALL name numkeys [key …] [argument …].
pub(super) fn fcall(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    call(hub, client, arguments, true);
}

/// FCALL_RO, which calls what does not write.
pub(super) fn fcall_ro(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    call(hub, client, arguments, false);
}

fn call(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>], may_write: bool) {
    let [_, name, keys, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    let is = |function: &str| **name == *function.as_bytes();
    if !is(FUNCTION) && !is(PAGE_FUNCTION) && !is(NEWEST_FUNCTION) {
        return client.reply().error("ERR Function not found");
    }
    let (keys, values) = match keys_and_values(keys, rest, "ERR Bad number of keys provided") {
        Ok(parts) => parts,
        Err(error) => return client.reply().error(error),
    };
    if is(PAGE_FUNCTION) {
        page(keys, values, hub, client);
    } else if is(NEWEST_FUNCTION) {
        newest(keys, values, hub, client);
    } else if may_write {
        history::publish(keys, values, hub, client);
    } else {
        client.reply().error("ERR Can not execute a script with write flag using *_ro command.");
    }
}

/// A page of a channel's history.
fn page(keys: &[Cow<'_, [u8]>], values: &[Cow<'_, [u8]>], hub: &mut Hub, client: &mut Client) {
    let usage = "ERR corecast_page: expected a key, then FROM TO MAX_BYTES MAX_ENTRIES \
                 MAX_EVENT_BYTES";
    let ([key], [from, to, bounds @ ..]) = (keys, values) else {
        return client.reply().error(usage);
    };
    let ids = (EventId::parse(from), EventId::parse(to));
    let bounds: Vec<usize> = bounds.iter().filter_map(|bound| number(bound)).collect();
    let ((Some(from), Some(to)), [bytes_max, entries_max, event_bytes_max]) =
        (ids, bounds.as_slice())
    else {
        return client.reply().error(usage);
    };
    let channel = channel_of_key(key).unwrap_or_default();
    let first = from.next().unwrap_or(from);
    let entries = hub.history.range(channel, first..=to, now_ms());
    let (mut bytes, mut count) = (0, 0);
    for entry in entries.clone() {
        let size = size(entry, *event_bytes_max);
        if bytes + size > *bytes_max || count == *entries_max {
            let mut reply = client.reply();
            reply.array(3);
            if count == 0 && bytes + size > *bytes_max {
                reply.bulk("big");
                reply.array(1);
                reply.bulk(size.to_string());
                reply.array(0);
                return;
            }
            reply.bulk("more");
            reply.array(0);
            reply.array(count);
            entries.take(count).for_each(|entry| tell(&mut reply, entry, *event_bytes_max));
            return;
        }
        bytes += size;
        count += 1;
    }
    let mut reply = client.reply();
    reply.array(3);
    reply.bulk("end");
    if count > 0 {
        reply.array(0);
        reply.array(count);
        entries.for_each(|entry| tell(&mut reply, entry, *event_bytes_max));
        return;
    }
    let all = EventId::ZERO..=EventId { ms: u64::MAX, seq: u64::MAX };
    match hub.history.range(channel, all, now_ms()).next() {
        Some(oldest) => {
            reply.array(2);
            reply.bulk(oldest.id.to_string());
            reply.bulk(oldest.previous().to_string());
        }
        None => reply.array(0),
    }
    reply.array(0);
}

/// Bytes of an entry, as the function counts them.
fn size(entry: &Entry, event_bytes_max: usize) -> usize {
    let (event, data) = entry.event_and_data();
    let data = if data.len() > event_bytes_max { 0 } else { data.len() };
    let ids = entry.id.to_string().len() + entry.previous().to_string().len();
    ids + event.len() + data + ENTRY_BYTES
}

fn tell(reply: &mut super::super::reply::Reply<'_>, entry: &Entry, event_bytes_max: usize) {
    let (event, data) = entry.event_and_data();
    reply.array(4);
    reply.bulk(entry.id.to_string());
    reply.bulk(entry.previous().to_string());
    reply.bulk(event);
    if data.len() > event_bytes_max {
        reply.count(data.len());
    } else {
        reply.bulk(data);
    }
}

/// The ids of the newest events of each channel.
fn newest(keys: &[Cow<'_, [u8]>], values: &[Cow<'_, [u8]>], hub: &mut Hub, client: &mut Client) {
    let usage = "ERR corecast_newest: expected keys, then [COUNT]";
    let count = match values.first().map(|count| number(count)) {
        None => 1,
        Some(Some(count)) => count,
        Some(None) => return client.reply().error(usage),
    };
    let all = EventId::ZERO..=EventId { ms: u64::MAX, seq: u64::MAX };
    client.reply().array(keys.len());
    for key in keys {
        let channel = channel_of_key(key).unwrap_or_default();
        let newest = hub.history.range(channel, all.clone(), now_ms()).rev().take(count);
        let mut reply = client.reply();
        let Some(oldest) = newest.clone().next_back() else {
            reply.array(0);
            continue;
        };
        reply.array(newest.len() + 1);
        reply.bulk(oldest.previous().to_string());
        newest.for_each(|entry| reply.bulk(entry.id.to_string()));
    }
}

/// XADD of a note that a channel has events beside those that are kept:
/// `XADD corecast:plain MAXLEN ~ N * c CHANNEL`.
pub(super) fn xadd(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, key, maxlen, about, most, id, field, name] = arguments else {
        return client.reply().error(XADD_USAGE);
    };
    let is_note = **key == *PLAIN_KEY
        && maxlen.eq_ignore_ascii_case(b"maxlen")
        && **about == *b"~"
        && **id == *b"*"
        && **field == *b"c";
    let Some(most) = number(most).filter(|_| is_note) else {
        return client.reply().error(XADD_USAGE);
    };
    let id = hub.history.note_plain(name, most, now_ms());
    client.reply().bulk(id.to_string());
}

const XADD_USAGE: &str =
    "ERR only XADD corecast:plain MAXLEN ~ N * c CHANNEL is known here; events are kept by PUBLISH";

fn number(text: &[u8]) -> Option<usize> {
    integer(text).and_then(|number| usize::try_from(number).ok())
}
