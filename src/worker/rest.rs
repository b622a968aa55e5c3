//! When a worker gives memory back to the kernel: the allocator does so by itself only while it is
//! being asked for more, so what a burst took would stay taken for as long as nothing happens.

use crate::state::counters::Counters;
use crate::state::deadlines::Tick;

/// Watches for a worker's rest after it was busy.
#[derive(Debug, Default)]
pub(super) struct Rest {
    seen: Activity,
    changed_at: Tick,
    released_at: Tick,
    /// Something happened since memory was given back.
    is_owed: bool,
}

/// What changes whenever much memory can have been taken or freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    accepted: u64,
    connections: u64,
    received: u64,
    subscriptions: u64,
}

/// Ticks without activity that are a rest.
const QUIET_TICKS: u32 = 10;

/// Ticks after which memory is given back although there is no rest. It costs milliseconds where
/// there is much.
const BUSY_TICKS: u32 = 300;

impl Activity {
    pub(super) fn of(counters: &Counters) -> Self {
        Self {
            accepted: counters.accepted.get(),
            connections: counters.connections.get(),
            received: counters.received.get(),
            subscriptions: counters.subscriptions.get(),
        }
    }
}

impl Rest {
    /// Whether to give memory back now; to be asked once a tick.
    pub(super) fn is_due(&mut self, now: Tick, activity: Activity) -> bool {
        if activity != self.seen {
            self.seen = activity;
            self.changed_at = now;
            self.is_owed = true;
        }
        let rests = now.since(self.changed_at) >= QUIET_TICKS;
        let is_due = self.is_owed && (rests || now.since(self.released_at) >= BUSY_TICKS);
        if is_due {
            self.released_at = now;
            self.is_owed = false;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks of `0..until` at which memory is given back, with activity at the ticks of `active`.
    fn due(until: u32, active: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut rest = Rest::default();
        let mut activity = Activity::default();
        let is_due = |tick: &u32| {
            activity.received += u64::from(active(*tick));
            rest.is_due(Tick(*tick), activity)
        };
        (0..until).filter(is_due).collect()
    }

    #[test]
    fn memory_is_given_back_once_after_each_time_of_activity() {
        assert_eq!(due(1000, |_| false), Vec::<u32>::new());
        assert_eq!(due(1000, |tick| (100..120).contains(&tick)), [129]);
        assert_eq!(due(250, |tick| tick == 100 || tick == 200), [110, 210]);
    }

    #[test]
    fn a_worker_that_never_rests_gives_memory_back_now_and_then() {
        assert_eq!(due(1000, |_| true), [300, 600, 900]);
    }
}
