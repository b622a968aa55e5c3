//! What a channel's history holds of an earlier test, and where each stream comes back to it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use socket2::Socket;

use super::message::Stamp;
use super::redis_link;
use super::target::Template;
use crate::bytes::history::{self, Envelope, EventId};
use crate::bytes::resp::{self, Incoming, Parsed, Reply, Value};
use crate::ground::config::RedisAddress;
use crate::ground::limits::{LINK_DEADLINE, RESP_REPLY_BYTES_MAX};

/// The histories of all channels, which hold messages of one test.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// That test's.
    pub(super) token: u32,
    /// Invariant: one for each channel.
    channels: Vec<ChannelPast>,
    /// By the first channel of a stream, where it may come back: at one of the last events of all
    /// its channels, as many as the first of all keeps.
    places: Vec<Vec<EventId>>,
}

/// The messages of one channel that are kept: consecutive ones.
#[derive(Debug, PartialEq, Eq)]
struct ChannelPast {
    /// The sequence number of the first.
    first: u32,
    /// Invariant: not empty.
    ids: Vec<EventId>,
}

impl Past {
    /// Reads the histories of `channels` channels, of which each stream has `width`.
    ///
    /// # Errors
    /// What keeps them from being read, or that a channel keeps no messages of one test.
    pub(super) fn read(
        server: &RedisAddress,
        channel: &Template,
        channels: u32,
        width: u32,
    ) -> io::Result<Self> {
        let mut session = Session::open(server)?;
        let mut past = Self::default();
        for number in 0..channels {
            let name = channel.text(number);
            let key = history::stream_key(name.as_bytes());
            let entries = |value: &Value<'_>| entries(value);
            let entries = session.ask(&[b"XRANGE", &key, b"-", b"+"], entries)?;
            past.add(entries)
                .map_err(|what| io::Error::other(format!("history of {name}: {what}")))?;
        }
        past.find_places(usize::try_from(width).unwrap_or(usize::MAX));
        Ok(past)
    }

    /// Adds the next channel, whose entries these are.
    fn add(&mut self, entries: Option<Vec<(EventId, Stamp)>>) -> Result<(), &'static str> {
        let entries = entries.ok_or("not what corecast bench publishes")?;
        let (_, first) = *entries
            .first()
            .ok_or("nothing is kept there: publish first, by bench --streams 0 --history N")?;
        if self.channels.is_empty() {
            self.token = first.token;
        }
        let is_next = |(sequence, (_, stamp)): (u32, &(EventId, Stamp))| {
            stamp.sequence == sequence && stamp.token == self.token
        };
        if !(first.sequence..).zip(&entries).all(is_next) {
            return Err("messages of several tests: use channels that had none before");
        }
        let ids = entries.into_iter().map(|(id, _)| id).collect();
        self.channels.push(ChannelPast { first: first.sequence, ids });
        Ok(())
    }

    /// O(channels × width × events).
    fn find_places(&mut self, width: usize) {
        let count = self.channels.first().map_or(0, |channel| channel.ids.len());
        let window = |first| {
            let channels = self.channels.iter().cycle().skip(first).take(width);
            let mut ids: Vec<EventId> =
                channels.flat_map(|channel| &channel.ids).copied().collect();
            ids.sort_unstable();
            ids.split_off(ids.len().saturating_sub(count))
        };
        self.places = (0..self.channels.len()).map(window).collect();
    }

    /// Per channel, the number of the message that will be the next.
    pub(super) fn counts(&self) -> Vec<u32> {
        let count = |channel: &ChannelPast| {
            channel.first + u32::try_from(channel.ids.len()).unwrap_or(u32::MAX)
        };
        self.channels.iter().map(count).collect()
    }

    /// The last event that a stream had whose first channel is this: at random, the same in every
    /// run.
    pub(super) fn position(&self, stream: u32, channel: u32) -> Option<EventId> {
        let places = self.places.get(usize::try_from(channel).ok()?)?;
        let mut random = fastrand::Rng::with_seed(u64::from(self.token) << 32 | u64::from(stream));
        places.get(random.usize(..places.len().max(1))).copied()
    }

    /// The number of a channel's first message behind this one.
    pub(super) fn next(&self, channel: u32, id: EventId) -> u32 {
        let place = usize::try_from(channel).ok();
        let Some(channel) = place.and_then(|place| self.channels.get(place)) else { return 0 };
        let before = channel.ids.partition_point(|other| *other <= id);
        channel.first.saturating_add(u32::try_from(before).unwrap_or(u32::MAX))
    }
}

/// The messages in an answer to XRANGE; `None` if there is something else in it.
fn entries(value: &Value<'_>) -> Option<Vec<(EventId, Stamp)>> {
    let Value::Array(entries) = value else { return None };
    let read = |entry: &Value<'_>| {
        let envelope = Envelope::from_entry(entry)?;
        Some((envelope.id, Stamp::parse(envelope.payload)?))
    };
    entries.iter().map(read).collect()
}

/// How often Redis has executed each command; empty where that is not told.
///
/// # Errors
/// What keeps it from being asked.
pub(super) fn calls(server: &RedisAddress) -> io::Result<BTreeMap<String, u64>> {
    let mut session = Session::open(server)?;
    session.ask(&[b"INFO", b"commandstats"], |value| match value {
        Value::String(text) => calls_in(&String::from_utf8_lossy(text)),
        _ => BTreeMap::new(),
    })
}

fn calls_in(info: &str) -> BTreeMap<String, u64> {
    let read = |line: &str| {
        let (name, statistics) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), statistics.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(read).collect()
}

/// Loads the function that publishes to history.
///
/// # Errors
/// What keeps it from being loaded.
pub(super) fn load_function(server: &RedisAddress) -> io::Result<()> {
    let mut command = Vec::new();
    history::encode_load(&mut command);
    Session::open(server)?.send(&command, |_| ())
}

/// A connection for one command after the other.
struct Session {
    socket: Socket,
    input: Vec<u8>,
}

impl Session {
    fn open(server: &RedisAddress) -> io::Result<Self> {
        let socket = redis_link::connect(server)?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(LINK_DEADLINE))?;
        Ok(Self { socket, input: Vec::new() })
    }

    fn ask<T>(&mut self, command: &[&[u8]], read: impl Fn(&Value<'_>) -> T) -> io::Result<T> {
        let mut bytes = Vec::new();
        resp::encode_command(command, &mut bytes);
        self.send(&bytes, read)
    }

    fn send<T>(&mut self, command: &[u8], read: impl Fn(&Value<'_>) -> T) -> io::Result<T> {
        self.socket.write_all(command)?;
        self.input.clear();
        let mut buffer = [0; 64 * 1024];
        let mut needed = 1;
        loop {
            while self.input.len() < needed {
                match self.socket.read(&mut buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => {
                        self.input.extend_from_slice(buffer.get(..length).unwrap_or_default())
                    }
                }
            }
            let parsed = resp::parse(&self.input, RESP_REPLY_BYTES_MAX);
            match parsed.map_err(|_| io::Error::other("the answer is none of Redis"))? {
                Parsed::Partial { needed: more } => needed = more,
                Parsed::Complete { incoming: Incoming::Reply(Reply::Other(value)), .. } => {
                    return Ok(read(&value));
                }
                Parsed::Complete { incoming: Incoming::Reply(Reply::Error(text)), .. } => {
                    return Err(io::Error::other(String::from_utf8_lossy(text).into_owned()));
                }
                _ => return Err(io::Error::other("an answer to something else")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of some channels; the first of each has the id 1-0, the next 2-0, and so on.
    fn past(channels: &[&[(u32, u32)]], width: usize) -> Result<Past, &'static str> {
        let mut past = Past::default();
        for messages in channels {
            let entry = |(ms, &(token, sequence)): (u64, &(u32, u32))| {
                (EventId { ms, seq: 0 }, Stamp { token, channel: 0, sequence, due_ns: 0 })
            };
            past.add(Some((1..).zip(*messages).map(entry).collect()))?;
        }
        past.find_places(width);
        Ok(past)
    }

    #[test]
    fn streams_come_back_behind_a_message_that_is_kept() {
        let past = past(&[&[(7, 3), (7, 4), (7, 5)], &[(7, 0)]], 1).unwrap();
        assert_eq!((past.token, past.counts()), (7, vec![6, 1]));
        let mut seen = [0; 3];
        for stream in 0..300 {
            let id = past.position(stream, 0).unwrap();
            assert_eq!(u64::from(past.next(0, id)), id.ms + 3, "message 3 has the id 1-0");
            seen[usize::try_from(id.ms - 1).unwrap()] += 1;
            let id = past.position(stream, 1).unwrap();
            assert_eq!(past.next(1, id), 1);
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
        assert_eq!(past.position(0, 2), None);
    }

    #[test]
    fn streams_of_several_channels_come_back_to_the_last_events_of_all() {
        let past = past(&[&[(7, 0), (7, 1)], &[(7, 0)], &[(7, 0), (7, 1), (7, 2)]], 2).unwrap();
        let ids = |list: &[u64]| -> Vec<EventId> {
            list.iter().map(|&ms| EventId { ms, seq: 0 }).collect()
        };
        assert_eq!(past.places, [ids(&[1, 2]), ids(&[2, 3]), ids(&[2, 3])]);
        let two = EventId { ms: 2, seq: 0 };
        assert_eq!([0, 1, 2].map(|channel| past.next(channel, two)), [2, 1, 2]);
    }

    #[test]
    fn histories_of_something_else_are_refused() {
        assert!(past(&[&[(7, 0)], &[]], 1).unwrap_err().contains("nothing is kept"));
        for channels in
            [&[&[(7, 0), (7, 2)][..]][..], &[&[(7, 0), (8, 1)]], &[&[(7, 0)], &[(8, 0)]]]
        {
            assert!(past(channels, 1).unwrap_err().contains("several tests"), "{channels:?}");
        }
        let mut past = past(&[], 1).unwrap();
        assert!(past.add(entries(&Value::Null)).is_err());
        assert!(past.add(entries(&Value::Array(vec![Value::Integer(1)]))).is_err());
    }

    #[test]
    fn calls_are_counted_by_command() {
        let info = "# Commandstats\r\ncmdstat_xrange:calls=12,usec=1,usec_per_call=1\r\n\
                    cmdstat_config|get:calls=3,usec=1\r\nother:calls=1\r\n";
        let expected = [("config|get".to_owned(), 3), ("xrange".to_owned(), 12)];
        assert_eq!(calls_in(info), BTreeMap::from(expected));
    }
}
