//! How fast a thread opens its streams.

/// Streams to open, one after another, with a bound on those that are under way.
#[derive(Debug)]
pub(super) struct Pace {
    /// The next stream to open.
    next: u32,
    streams: u32,
    start_ns: u64,
    /// Time between two streams; `None`: as fast as the bound allows.
    interval_ns: Option<u64>,
    under_way_max: u32,
}

impl Pace {
    pub(super) fn new(
        streams: u32,
        start_ns: u64,
        interval_ns: Option<u64>,
        under_way_max: u32,
    ) -> Self {
        Self { next: 0, streams, start_ns, interval_ns, under_way_max }
    }

    /// The next stream, if it is to be opened now.
    pub(super) fn take(&mut self, now_ns: u64, under_way: usize) -> Option<u32> {
        let has_room = under_way < usize::try_from(self.under_way_max).unwrap_or(usize::MAX);
        if !has_room || now_ns < self.due_ns()? {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// When the next stream is to be opened, if there is one.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let wait = self.interval_ns.unwrap_or(0).saturating_mul(u64::from(self.next));
        (self.next < self.streams).then(|| self.start_ns.saturating_add(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_open_at_their_rate() {
        let mut pace = Pace::new(3, 1000, Some(10), 99);
        let opened: Vec<u64> =
            (990..1100).filter(|now_ns| pace.take(*now_ns, 0).is_some()).collect();
        assert_eq!(opened, [1000, 1010, 1020]);
        assert_eq!(pace.due_ns(), None);
    }

    #[test]
    fn no_more_than_the_bound_are_under_way() {
        let mut pace = Pace::new(10, 0, None, 2);
        assert_eq!((pace.take(0, 0), pace.take(0, 1), pace.take(0, 2)), (Some(0), Some(1), None));
        assert_eq!(pace.take(0, 1), Some(2));
    }

    #[test]
    fn what_was_missed_is_made_up_for() {
        let mut pace = Pace::new(5, 0, Some(10), 99);
        assert_eq!((0..9).filter_map(|_| pace.take(25, 0)).count(), 3);
    }
}
