//! The events that have arrived and are kept in memory, up to a bound.

use std::collections::{HashMap, VecDeque};

use super::Streams;
use super::history::CACHED_MIN;
use crate::ground::ids::ChannelId;
use crate::ground::limits::HISTORY_CACHE_BYTES;

/// Events that are forgotten for each that comes, at most.
const FORGOTTEN_AT_ONCE_MAX: usize = 64;

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
}
