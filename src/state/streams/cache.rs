//! The events that have arrived and are kept in memory, up to a bound, and what is left of a
//! channel that is forgotten.

use std::collections::{HashMap, VecDeque};

use super::Streams;
use super::history::CACHED_MIN;
use crate::ground::ids::ChannelId;
use crate::ground::limits::HISTORY_CACHE_BYTES;

/// Events that are forgotten for each that comes, at most.
const FORGOTTEN_AT_ONCE_MAX: usize = 64;

/// Channels that are remembered though they were forgotten.
const GONE_ON_WITHOUT_MAX: usize = 1024;

impl Streams {
    /// Forgets the oldest events while more are kept in memory than should be, some at a time.
    pub(super) fn bound_cache(&mut self) {
        if self.history.cached.len() > self.history.cached_max {
            self.tidy_cached();
        }
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            if self.history.cached_bytes <= HISTORY_CACHE_BYTES {
                return;
            }
            let Some(id) = self.history.cached.pop_front() else { return };
            if let Some(recent) = self.channels.recent_mut(id) {
                self.history.cached_bytes -= recent.forget_oldest();
            }
        }
    }

    /// Takes out what was cached and is gone by now. O(n), paid for by as many as have come.
    fn tidy_cached(&mut self) {
        let mut counted: HashMap<ChannelId, usize> = Default::default();
        let mut kept = VecDeque::new();
        for id in std::mem::take(&mut self.history.cached).into_iter().rev() {
            let count = counted.entry(id).or_default();
            if self.channels.recent_mut(id).is_some_and(|recent| *count < recent.count()) {
                *count += 1;
                kept.push_front(id);
            }
        }
        self.history.cached_max = 2 * kept.len() + CACHED_MIN;
        self.history.cached = kept;
    }

    /// A channel is forgotten, and what is kept of it. True if something was.
    pub(super) fn forget_recent(&mut self, id: ChannelId) -> bool {
        let recent = self.channels.get_mut(id).and_then(|channel| channel.recent.take());
        if let Some(recent) = &recent {
            if recent.has_gone_on_without || recent.lapsed.is_some() {
                let name = Box::from(self.name(id));
                let until = recent.lapsed.filter(|_| !recent.has_gone_on_without);
                let channels = &mut self.history.gone_on_without;
                channels.truncate(GONE_ON_WITHOUT_MAX - 1);
                channels.push_front((name, until));
            }
            self.history.cached_bytes -= recent.bytes();
            self.history.channels -= 1;
        }
        recent.is_some()
    }
}
