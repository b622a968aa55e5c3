//! The last resort of a worker that can't even take in what its link brings.
//!
//! Redis ends a link that is 32 MB behind, and then every stream has to be told. So while the
//! intake is nearly full and the link has more than a turn can take in, events are thrown away
//! unseen, at a fraction of what decoding and queueing them costs; streams of their channels are
//! told once what waits has shrunk. Until then nothing newer is taken in for anybody, so that the
//! reset comes where the hole is.

use hashbrown::HashTable;

use super::Streams;
use crate::bytes::event_stream::ResetReason;

/// Channels that lost events since shedding began, as hashes of their names. A name that has the
/// hash of another is told in vain, which does no harm. Here, and not in the channels, because
/// a hundred thousand of those do not fit the processor's caches.
#[derive(Debug, Default)]
pub(super) struct Shedding(HashTable<u64>);

impl Streams {
    /// Whether events are to be shed. It begins when the link brings more than a turn can take in
    /// (`is_behind`) and the intake has no room for it.
    pub fn sheds(&mut self, is_behind: bool) -> bool {
        if is_behind && self.intake_bytes > self.limits.max_intake_bytes / 4 * 3 {
            self.shedding.get_or_insert_default();
        }
        self.shedding.is_some()
    }

    /// Throws an event away, by its channel's name in Redis. False if that can't be done: events
    /// that are kept have to be complete.
    pub fn shed(&mut self, name: &[u8]) -> bool {
        let Some(Shedding(losers)) = self.shedding.as_deref_mut() else { return false };
        let hash = self.channels.hash(name);
        if losers.find(hash, |loser| *loser == hash).is_none() {
            if self.channels.find(name).is_some_and(|id| self.is_kept(id)) {
                return false;
            }
            if let Some(Shedding(losers)) = self.shedding.as_deref_mut() {
                losers.insert_unique(hash, hash, |loser| *loser);
            }
        }
        self.counters.overload.add(1);
        true
    }

    /// Ends shedding once half of the intake is free, and tells whose channels lost something.
    /// O(n) in channels.
    pub(super) fn end_shedding(&mut self) {
        if self.intake_bytes > self.limits.max_intake_bytes / 2 {
            return;
        }
        let Some(Shedding(losers)) = self.shedding.take().map(|shedding| *shedding) else { return };
        for id in self.channels.ids() {
            let Some(channel) = self.channels.get(id).filter(|c| c.has_streams()) else { continue };
            let hash = self.channels.hash(channel.name());
            if losers.find(hash, |loser| *loser == hash).is_some() {
                self.reset(id, ResetReason::Overload);
            }
        }
        self.bound_intake();
    }
}
