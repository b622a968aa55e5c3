//! All that was published in the soak test, kept or not, and what was done to it: what the judge
//! goes by.

use corecast::bytes::history::EventId;

use super::channels::{self, Channels};

/// Real ids never come as far as this, in the year 2096; those that are forged all do.
pub(crate) const FORGED_MS: u64 = 4_000_000_000_000;

/// How long a forged event may be the reason for what streams of its channel are told: it may be
/// on its way for as long as a link is held, and the channel is distrusted for ten seconds then.
const FORGERY_COUNTS_MS: u64 = 40_000;

/// An event that was published to be kept: `number` counts all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) id: EventId,
    pub(crate) channel: usize,
    pub(crate) number: u32,
    /// It is longer than streams may have it.
    pub(crate) is_oversize: bool,
}

/// A message that is not kept, or looks as if it were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) channel: usize,
    /// Counts these messages.
    pub(crate) number: u32,
    pub(crate) kind: MessageKind,
    pub(crate) is_oversize: bool,
    /// Before it was published.
    pub(crate) sent_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Plain,
    Forged,
}

/// What the publishers, and those who disturb them, tell the judge, each in the order of doing.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// These were published, and before this time no others that are missing.
    Published(Vec<Published>, u64),
    /// This is about to be published …
    Message(Message),
    /// … and was by then.
    Sent { number: u32, at_ms: u64 },
    /// Events of the channel up to this time may be gone.
    Trimmed { channel: usize, until_ms: u64 },
}

/// All that is known of what was published.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// In the order of their ids.
    events: Vec<Published>,
    /// The ids of each channel's.
    ids: Vec<Vec<EventId>>,
    /// Everything that was published before this time is known.
    pub(crate) known_ms: u64,
    /// In the order of their numbers, which begin with 0, each with the time at which it had been
    /// published.
    messages: Vec<(Message, u64)>,
    trimmed_ms: Vec<u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            ids: vec![Vec::new(); channels::ALL],
            known_ms: 0,
            messages: Vec::new(),
            trimmed_ms: vec![0; channels::ALL],
        }
    }
}

impl Ledger {
    pub(crate) fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Published(mut events, known_ms) => {
                events.sort_unstable_by_key(|event| event.id);
                for event in events {
                    assert!(event.id > self.newest(), "{event:?} is not later than all before");
                    self.ids[event.channel].push(event.id);
                    self.events.push(event);
                }
                self.known_ms = known_ms;
            }
            Notice::Message(message) => {
                assert_eq!(message.number as usize, self.messages.len());
                self.messages.push((message, u64::MAX));
            }
            Notice::Sent { number, at_ms } => self.messages[number as usize].1 = at_ms,
            Notice::Trimmed { channel, until_ms } => self.trimmed_ms[channel] = until_ms,
        }
    }

    pub(crate) fn newest(&self) -> EventId {
        self.events.last().map_or(EventId::ZERO, |event| event.id)
    }

    /// The newest event of any of these channels.
    pub(crate) fn newest_of(&self, channels: Channels) -> EventId {
        let newest = channels.iter().filter_map(|channel| self.ids[channel].last());
        newest.max().copied().unwrap_or_default()
    }

    pub(crate) fn oldest(&self) -> Option<EventId> {
        self.events.first().map(|event| event.id)
    }

    /// What was published to be kept after `id`.
    pub(crate) fn after(&self, id: EventId) -> &[Published] {
        &self.events[self.events.partition_point(|event| event.id <= id)..]
    }

    pub(crate) fn get(&self, id: EventId) -> Option<&Published> {
        let place = self.events.binary_search_by_key(&id, |event| event.id).ok()?;
        self.events.get(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Events of a channel.
    pub(crate) fn len_of(&self, channel: usize) -> usize {
        self.ids[channel].len()
    }

    /// How many events of these channels come after `id`, up to a time.
    pub(crate) fn count(&self, channels: Channels, id: EventId, until_ms: u64) -> usize {
        let count = |channel: usize| count(&self.ids[channel], id, until_ms);
        channels.iter().map(count).sum()
    }

    /// The same, of those that were surely there then.
    pub(crate) fn count_certain(&self, channels: Channels, id: EventId, until_ms: u64) -> usize {
        let count = |channel: usize| {
            let trimmed = EventId { ms: self.trimmed_ms[channel], seq: u64::MAX };
            count(&self.ids[channel], id.max(trimmed), until_ms)
        };
        channels.iter().map(count).sum()
    }

    /// Whether events of the channel up to this time may have been trimmed.
    pub(crate) fn may_be_trimmed(&self, channel: usize, ms: u64) -> bool {
        ms <= self.trimmed_ms[channel]
    }

    pub(crate) fn trimmed_ms(&self, channel: usize) -> u64 {
        self.trimmed_ms[channel]
    }

    pub(crate) fn message(&self, number: u32) -> Option<&Message> {
        self.messages.get(number as usize).map(|(message, _)| message)
    }

    /// The messages from a number on, each with when it had been published.
    pub(crate) fn messages_from(&self, number: usize) -> &[(Message, u64)] {
        self.messages.get(number..).unwrap_or_default()
    }

    /// Forged events of these channels that may have to do with what was read at this time.
    pub(crate) fn forgeries(&self, channels: Channels, read_ms: u64) -> usize {
        let since_ms = read_ms.saturating_sub(FORGERY_COUNTS_MS);
        let recent = self.messages.partition_point(|(message, _)| message.sent_ms < since_ms);
        let counts = |(message, _): &&(Message, u64)| {
            message.kind == MessageKind::Forged
                && message.sent_ms <= read_ms
                && channels.contains(message.channel)
        };
        self.messages[recent..].iter().filter(counts).count()
    }

    /// Whether something too long that was not kept was published on the channel by this time.
    pub(crate) fn had_oversize(&self, channel: usize, read_ms: u64) -> bool {
        let is_it = |(message, _): &(Message, u64)| {
            message.channel == channel && message.is_oversize && message.sent_ms <= read_ms
        };
        self.messages.iter().rev().any(is_it)
    }

    /// Forged events, plain messages, and how many of both are too long.
    pub(crate) fn messages_by_kind(&self) -> [usize; 3] {
        let count = |is_it: &dyn Fn(&Message) -> bool| {
            self.messages.iter().filter(|(message, _)| is_it(message)).count()
        };
        [
            count(&|message| message.kind == MessageKind::Forged),
            count(&|message| message.kind == MessageKind::Plain),
            count(&|message| message.is_oversize),
        ]
    }

    /// Events that were kept and are too long.
    pub(crate) fn oversize_events(&self) -> usize {
        self.events.iter().filter(|event| event.is_oversize).count()
    }
}

fn count(ids: &[EventId], after: EventId, until_ms: u64) -> usize {
    let begin = ids.partition_point(|id| *id <= after);
    ids[begin..].partition_point(|id| id.ms <= until_ms)
}

pub(crate) fn is_forged(id: EventId) -> bool {
    id.ms >= FORGED_MS
}
