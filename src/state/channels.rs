//! Channels by name: who listens, what is still to be sent to them, and whether Redis sends to us.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use hashbrown::HashTable;

use crate::bytes::event_stream::ResetReason;
use crate::ground::ids::{ChannelId, MultiId};
use crate::state::deadlines::Tick;
use crate::state::pages::Pages;
use crate::state::recent::Recent;
use crate::state::sockets::Subscriber;

/// One channel. About 100 bytes, its name, and 8 bytes for each stream.
#[derive(Debug, Default)]
pub struct Channel {
    name: Box<[u8]>,
    /// Streams of this channel alone. Positions are stable while there is traffic: newcomers are
    /// appended, and who leaves leaves a gap.
    pub subscribers: Vec<Subscriber>,
    /// Streams of several channels, this one among them.
    pub members: Vec<MultiId>,
    /// Only while events are on their way out.
    pub traffic: Option<Box<Traffic>>,
    /// Only where events are kept (`--history`).
    pub recent: Option<Box<Recent>>,
    /// Streams and openings that need the subscription.
    pub users: u32,
    /// When the last event left for the streams of this channel alone.
    pub sent_at: Tick,
    /// When the subscription ends unless somebody comes; meaningful while `users` is 0.
    pub linger_until: Tick,
    pub subscription: Subscription,
}

/// Whether Redis sends us the channel's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// Not asked for: the link is down.
    #[default]
    Idle,
    /// Asked for, or about to be, and not acknowledged.
    Asked,
    /// Refused by Redis; it is asked again after a while.
    Refused,
    Standing,
}

/// Events of a channel on their way to the streams of this channel alone.
#[derive(Debug, Default)]
pub struct Traffic {
    pub pending: VecDeque<Pending>,
    /// Invariant: the [`waiting_bytes`] of all that is pending.
    pub pending_bytes: usize,
    pub pass: Option<Pass>,
    /// Gaps among the subscribers.
    pub gaps: usize,
}

/// An encoded event that waits for its turn.
#[derive(Debug)]
pub struct Pending {
    pub bytes: Rc<[u8]>,
    /// Subscribers before this position were there when the event arrived.
    /// Invariant: never falls from one pending event to the next.
    pub reach: usize,
    pub kind: Kind,
}

/// What an event that waits takes beside its bytes, about: its place in a queue and the queue's
/// spare room, its reference count, and what its channel holds only while events wait. Without it
/// a flood of short events would take many times the memory that it may.
pub const WAITING_EVENT_BYTES: usize = 128;

/// Memory that `events` encoded events of `bytes` together take while they wait, about.
#[must_use]
pub fn waiting_bytes(events: usize, bytes: usize) -> usize {
    bytes + events * WAITING_EVENT_BYTES
}

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Publisher,
    /// The server's own `stream-reset` for the channel.
    Reset(ResetReason),
}

/// One run over a channel's subscribers: each gets one write with all events of the pass that
/// arrived after it did.
#[derive(Debug)]
pub struct Pass {
    pub bytes: Rc<[u8]>,
    /// Where the write begins, and how many events it holds, by position.
    /// Invariant: `end` and `from` rise.
    pub segments: Vec<Segment>,
    /// Position of the next subscriber.
    pub next: usize,
}

/// Subscribers before `end` (and not before the previous segment's) get the bytes from `from` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub end: usize,
    pub from: usize,
    pub events: usize,
}

/// All channels of a worker. A name is stored once, in its channel.
#[derive(Debug, Default)]
pub struct Channels {
    entries: Pages<Channel>,
    by_name: HashTable<u32>,
    /// Keyed: clients choose names.
    hasher: RandomState,
}

impl Channels {
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<ChannelId> {
        let hash = self.hasher.hash_one(name);
        let same = |slot: &u32| self.entries.get(*slot).is_some_and(|c| *c.name == *name);
        self.by_name.find(hash, same).map(|slot| ChannelId(*slot))
    }

    /// The channel of that name, made if need be.
    pub fn find_or_insert(&mut self, name: &[u8], now: Tick) -> ChannelId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let slot =
            self.entries.insert(Channel { name: name.into(), sent_at: now, ..Channel::default() });
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash = |slot: &u32| hasher.hash_one(entries.get(*slot).map_or(&[][..], |c| &c.name));
        self.by_name.insert_unique(hasher.hash_one(name), slot, rehash);
        ChannelId(slot)
    }

    /// Forgets a channel that nobody uses.
    pub fn remove(&mut self, id: ChannelId) {
        let Some(channel) = self.entries.get_mut(id.0) else { return };
        debug_assert!(channel.users == 0 && channel.traffic.is_none());
        let name = std::mem::take(channel).name;
        let found = self.by_name.find_entry(self.hasher.hash_one(&*name), |slot| *slot == id.0);
        if let Ok(entry) = found {
            entry.remove();
            self.entries.release(id.0);
        }
        if self.by_name.len() * 4 < self.by_name.capacity() {
            let (entries, hasher) = (&self.entries, &self.hasher);
            let rehash =
                |slot: &u32| hasher.hash_one(entries.get(*slot).map_or(&[][..], |c| &c.name));
            self.by_name.shrink_to(self.by_name.len() * 2, rehash);
        }
    }

    #[must_use]
    pub fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.entries.get(id.0)
    }

    pub fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.entries.get_mut(id.0)
    }

    /// What is known of a channel's history, where its events are kept.
    pub fn recent_mut(&mut self, id: ChannelId) -> Option<&mut Recent> {
        self.get_mut(id)?.recent.as_deref_mut()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All channels. O(n).
    #[must_use]
    pub fn ids(&self) -> Vec<ChannelId> {
        self.by_name.iter().map(|slot| ChannelId(*slot)).collect()
    }
}

impl Channel {
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    #[must_use]
    pub fn has_streams(&self) -> bool {
        !self.subscribers.is_empty() || !self.members.is_empty()
    }

    /// The same, and places of streams that have gone do not count. O(n).
    #[must_use]
    pub fn has_streams_left(&self) -> bool {
        self.subscribers.iter().any(|subscriber| !subscriber.is_gap())
            || self.members.iter().any(|member| *member != MultiId::GAP)
    }

    /// How many events without history have come, where they do come.
    #[must_use]
    pub fn plain(&self) -> Option<u32> {
        let recent = self.recent.as_ref().filter(|_| self.subscription == Subscription::Standing);
        recent.map(|recent| recent.plain)
    }

    /// Adds a stream of this channel alone and returns its position.
    pub fn subscribe(&mut self, subscriber: Subscriber) -> usize {
        if self.subscribers.is_empty() {
            // Most channels of a large site have one stream: no room for three more.
            self.subscribers.reserve_exact(1);
        }
        self.subscribers.push(subscriber);
        self.subscribers.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_until_their_channel_is_removed() {
        let mut channels = Channels::default();
        let name = |n: usize| format!("c{n}");
        let ids: Vec<_> =
            (0..5_000).map(|n| channels.find_or_insert(name(n).as_bytes(), Tick(0))).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(channels.find(name(n).as_bytes()), Some(*id));
            assert_eq!(channels.find_or_insert(name(n).as_bytes(), Tick(0)), *id);
        }
        for id in ids.iter().skip(1) {
            channels.remove(*id);
        }
        assert_eq!(channels.len(), 1);
        assert!(channels.by_name.capacity() < 100, "the room of a burst is given back");
        assert_eq!(channels.find(b"c0"), ids.first().copied());
        assert_eq!(channels.find(b"c4999"), None);
        assert_eq!(channels.find(b""), None);
    }

    #[test]
    fn an_idle_channel_stays_small() {
        assert!(size_of::<Channel>() <= 112, "{}", size_of::<Channel>());
    }
}
