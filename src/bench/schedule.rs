//! When messages are due.

use std::time::Duration;

/// An open-loop schedule: it does not wait for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Average time between messages; `None` sends as fast as they are taken.
    pub interval: Option<Duration>,
    /// Messages that are due at once.
    ///
    /// Invariant: at least 1.
    pub burst: u32,
}

impl Schedule {
    /// When a message is due, in nanoseconds after the start; `None` means whenever there is room.
    #[must_use]
    pub fn due_ns(&self, message: u32) -> Option<u64> {
        let interval = u64::try_from(self.interval?.as_nanos()).unwrap_or(u64::MAX);
        let first_of_burst = message - message % self.burst.max(1);
        Some(u64::from(first_of_burst).saturating_mul(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(interval_ms: u64, burst: u32) -> Vec<u64> {
        let schedule = Schedule { interval: Some(Duration::from_millis(interval_ms)), burst };
        (0..6).map(|message| schedule.due_ns(message).unwrap() / 1_000_000).collect()
    }

    #[test]
    fn messages_are_due_one_by_one_or_in_bursts_at_the_same_average_rate() {
        assert_eq!(due(10, 1), [0, 10, 20, 30, 40, 50]);
        assert_eq!(due(10, 2), [0, 0, 20, 20, 40, 40]);
        assert_eq!(due(10, 4), [0, 0, 0, 0, 40, 40]);
    }

    #[test]
    fn without_an_interval_messages_are_due_whenever_there_is_room() {
        assert_eq!(Schedule { interval: None, burst: 3 }.due_ns(5), None);
    }

    #[test]
    fn far_messages_do_not_overflow() {
        let schedule = Schedule { interval: Some(Duration::MAX), burst: 1 };
        assert_eq!(schedule.due_ns(u32::MAX), Some(u64::MAX));
    }
}
