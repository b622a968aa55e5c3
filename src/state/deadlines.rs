//! Deadlines that all lie equally far ahead when they are set, so a queue keeps them sorted.

use std::collections::VecDeque;

/// A worker's clock, in steps of [`crate::ground::limits::TICK`] since its start. It wraps after 13
/// years; comparisons allow for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tick(pub u32);

impl Tick {
    #[must_use]
    pub fn after(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Ticks from `earlier` to `self`.
    #[must_use]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    #[must_use]
    pub fn has_reached(self, deadline: Self) -> bool {
        self.since(deadline) < u32::MAX / 2
    }
}

/// A FIFO of deadlines. Entries are not removed when they lose their meaning: whoever pops one asks
/// whether it still stands.
#[derive(Debug)]
pub struct Deadlines<T> {
    ticks_ahead: u32,
    queue: VecDeque<(Tick, T)>,
}

impl<T> Deadlines<T> {
    #[must_use]
    pub fn new(ticks_ahead: u32) -> Self {
        Self { ticks_ahead, queue: VecDeque::new() }
    }

    /// Sets a deadline and returns it.
    pub fn push(&mut self, now: Tick, entry: T) -> Tick {
        let deadline = now.after(self.ticks_ahead);
        self.queue.push_back((deadline, entry));
        deadline
    }

    /// The next entry whose deadline has come.
    pub fn pop_due(&mut self, now: Tick) -> Option<(Tick, T)> {
        let (deadline, _) = self.queue.front()?;
        if !now.has_reached(*deadline) {
            return None;
        }
        let due = self.queue.pop_front();
        // Gives memory back once three quarters of it lie idle: amortised O(1).
        if self.queue.len() * 4 <= self.queue.capacity() {
            self.queue.shrink_to(self.queue.len() * 2);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_order_and_not_before() {
        let mut deadlines = Deadlines::new(10);
        deadlines.push(Tick(0), 'a');
        deadlines.push(Tick(1), 'b');
        assert_eq!(deadlines.pop_due(Tick(9)), None);
        assert_eq!(deadlines.pop_due(Tick(10)), Some((Tick(10), 'a')));
        assert_eq!(deadlines.pop_due(Tick(10)), None);
        assert_eq!(deadlines.pop_due(Tick(50)), Some((Tick(11), 'b')));
    }

    #[test]
    fn the_room_of_a_burst_is_given_back_while_a_few_go_on_coming() {
        let mut deadlines = Deadlines::new(10);
        for n in 0..100_000 {
            deadlines.push(Tick(0), n);
        }
        for tick in 1..50 {
            deadlines.push(Tick(tick), 0);
            while deadlines.pop_due(Tick(tick)).is_some() {}
        }
        assert!(deadlines.queue.capacity() < 100, "{}", deadlines.queue.capacity());
    }

    #[test]
    fn the_clock_may_wrap() {
        let mut deadlines = Deadlines::new(10);
        deadlines.push(Tick(u32::MAX - 2), ());
        assert_eq!(deadlines.pop_due(Tick(u32::MAX)), None);
        assert!(deadlines.pop_due(Tick(7)).is_some());
    }
}
