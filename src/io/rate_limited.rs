//! Keeps a peer from filling the log: one line a second of a kind, and a count of the others.

use std::time::{Duration, Instant};

/// When a kind of line may be written next.
#[derive(Debug, Default)]
pub struct RateLimited {
    next: Option<Instant>,
    suppressed: u64,
}

impl RateLimited {
    /// Whether the line may be written: if so, how many like it were not since the last one.
    pub fn permit(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.suppressed += 1;
            return None;
        }
        self.next = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.suppressed))
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn one_line_a_second_counts_those_that_were_suppressed() {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut limited = RateLimited::default();
        let permits: Vec<_> = [0, 1, 999, 1000, 1001, 5000].map(|ms| limited.permit(at(ms))).into();
        assert_eq!(permits, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
