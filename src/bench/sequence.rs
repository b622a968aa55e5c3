//! What each stream has received of the messages of its channel: every one, once, in order?

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// The sequences of all streams of a thread: 4 bytes each, more only for streams with gaps.
#[derive(Debug)]
pub(super) struct Sequences {
    /// Per stream, the number that continues it.
    next: Vec<u32>,
    /// Per stream, numbers below `next` that have not arrived.
    gaps: HashMap<u32, Vec<Gap>>,
    /// Streams that were told, after the last number that has arrived, that they may have missed
    /// some.
    told: HashSet<u32>,
    /// Whether the first number that arrives is the first of the stream.
    begins_anywhere: bool,
}

/// Numbers that have not arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gap {
    numbers: Range<u32>,
    is_told: bool,
}

impl Gap {
    fn count(&self) -> u64 {
        u64::from(self.numbers.end - self.numbers.start)
    }
}

/// Numbers that have not arrived, by whether the stream was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) silent: u64,
    pub(super) told: u64,
    /// The first of those that are missing in silence.
    pub(super) first_silent: Option<u32>,
}

impl Missing {
    /// Together with those of another channel.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            silent: self.silent + other.silent,
            told: self.told + other.told,
            first_silent: self.first_silent.or(other.first_silent),
        }
    }
}

/// What a number that arrives means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    InOrder,
    /// Others should have come first, of which the stream was told that so many may be missing.
    Ahead {
        told: u64,
    },
    /// A later one has come first.
    Late,
    /// It has come before.
    Again,
}

impl Sequences {
    /// Streams that begin with number 0 or, if `begins_anywhere`, with whatever comes first.
    pub(super) fn new(streams: usize, begins_anywhere: bool) -> Self {
        let first = if begins_anywhere { UNKNOWN } else { 0 };
        Self { begins_anywhere, ..Self::starting_at(vec![first; streams]) }
    }

    /// Streams that begin with these numbers.
    pub(super) fn starting_at(next: Vec<u32>) -> Self {
        Self { next, gaps: HashMap::new(), told: HashSet::new(), begins_anywhere: false }
    }

    pub(super) fn arrive(&mut self, stream: u32, number: u32) -> Arrival {
        let Some(next) = usize::try_from(stream).ok().and_then(|place| self.next.get_mut(place))
        else {
            return Arrival::Again;
        };
        if *next == number || (self.begins_anywhere && *next == UNKNOWN) {
            *next = number.saturating_add(1);
            self.forget(stream);
            return Arrival::InOrder;
        }
        if number > *next {
            let numbers = *next..number;
            *next = number.saturating_add(1);
            let gap = Gap { numbers, is_told: self.forget(stream) };
            let told = if gap.is_told { gap.count() } else { 0 };
            self.gaps.entry(stream).or_default().push(gap);
            return Arrival::Ahead { told };
        }
        match self.gaps.get_mut(&stream).is_some_and(|gaps| fill(gaps, number)) {
            true => Arrival::Late,
            false => Arrival::Again,
        }
    }

    /// A stream was told that it may have missed some: those that are missing so far, and those
    /// that the next number to arrive leaves out. Returns how many of the former were missing in
    /// silence. O(gaps of the stream).
    pub(super) fn tell(&mut self, stream: u32) -> u64 {
        self.told.insert(stream);
        let mut told = 0;
        for gap in self.gaps.get_mut(&stream).into_iter().flatten().filter(|gap| !gap.is_told) {
            gap.is_told = true;
            told += gap.count();
        }
        told
    }

    /// Whether a stream was told since its last number; it counts for the next one only. Hashes
    /// nothing as long as no stream was told: this is every message's way.
    fn forget(&mut self, stream: u32) -> bool {
        !self.told.is_empty() && self.told.remove(&stream)
    }

    /// Numbers below `expected` that a stream has not received; without an `expected`, those that
    /// later ones have overtaken. O(gaps of the stream).
    pub(super) fn missing(&self, stream: u32, expected: Option<u32>) -> Missing {
        let next = usize::try_from(stream).ok().and_then(|place| self.next.get(place));
        let next = next.copied().unwrap_or(0);
        let rest = expected
            .filter(|expected| *expected > next)
            .map(|expected| Gap { numbers: next..expected, is_told: self.told.contains(&stream) });
        let mut missing = Missing::default();
        for gap in self.gaps.get(&stream).into_iter().flatten().chain(&rest) {
            let count = gap.count();
            if gap.is_told {
                missing.told += count;
            } else {
                missing.silent += count;
                let first = missing.first_silent.unwrap_or(gap.numbers.start);
                missing.first_silent = Some(first.min(gap.numbers.start));
            }
        }
        missing
    }
}

/// Takes a number out of the gaps; whether it was in one.
fn fill(gaps: &mut Vec<Gap>, number: u32) -> bool {
    let Some(place) = gaps.iter().position(|gap| gap.numbers.contains(&number)) else {
        return false;
    };
    let Gap { numbers, is_told } = gaps.swap_remove(place);
    let halves = [numbers.start..number, number + 1..numbers.end];
    let halves = halves.into_iter().filter(|half| !half.is_empty());
    gaps.extend(halves.map(|numbers| Gap { numbers, is_told }));
    true
}

/// No sequence number: tests have fewer messages.
const UNKNOWN: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrivals(numbers: &[u32]) -> (Vec<Arrival>, u64) {
        let mut sequences = Sequences::new(2, false);
        let arrivals = numbers.iter().map(|number| sequences.arrive(1, *number)).collect();
        let other = sequences.missing(0, Some(5)).silent;
        assert_eq!(other, 5, "the other stream has received nothing");
        (arrivals, sequences.missing(1, Some(5)).silent)
    }

    #[test]
    fn every_kind_of_fault_is_told_apart() {
        use Arrival::{Again, InOrder, Late};
        const AHEAD: Arrival = Arrival::Ahead { told: 0 };
        assert_eq!(arrivals(&[0, 1, 2, 3, 4]), (vec![InOrder; 5], 0));
        assert_eq!(arrivals(&[0, 1, 1, 2]), (vec![InOrder, InOrder, Again, InOrder], 2));
        assert_eq!(arrivals(&[0, 2, 1, 3]), (vec![InOrder, AHEAD, Late, InOrder], 1));
        assert_eq!(arrivals(&[4, 2, 2, 0]), (vec![AHEAD, Late, Again, Late], 2));
        assert_eq!(arrivals(&[]), (vec![], 5));
    }

    #[test]
    fn a_listener_begins_with_what_comes_first() {
        let mut sequences = Sequences::new(1, true);
        assert_eq!(sequences.missing(0, None), Missing::default());
        assert_eq!(sequences.arrive(0, 7), Arrival::InOrder);
        assert_eq!(sequences.arrive(0, 9), Arrival::Ahead { told: 0 });
        assert_eq!(sequences.missing(0, None).silent, 1);
        assert_eq!(sequences.arrive(0, 6), Arrival::Again);
    }

    /// What is missing of 10 numbers after some have arrived; `None` is a word that says so.
    #[track_caller]
    fn check_told(events: &[Option<u32>], told: u64, silent: u64, first_silent: Option<u32>) {
        let mut sequences = Sequences::new(1, false);
        for event in events {
            match event {
                Some(number) => assert_ne!(sequences.arrive(0, *number), Arrival::Again),
                None => {
                    sequences.tell(0);
                }
            }
        }
        let expected = Missing { silent, told, first_silent };
        assert_eq!(sequences.missing(0, Some(10)), expected, "{events:?}");
    }

    #[test]
    fn a_loss_is_told_by_a_word_after_the_last_message_before_it() {
        check_told(&[Some(0), None, Some(5), Some(6)], 4, 3, Some(7));
        check_told(&[Some(0), Some(5), None, Some(6)], 4, 3, Some(7));
        check_told(&[Some(0), Some(5), Some(9), None], 7, 0, None);
        check_told(&[Some(0), None], 9, 0, None);
        check_told(&[None, Some(0), Some(2)], 0, 8, Some(1));
        check_told(&[None, Some(2), Some(1)], 1, 7, Some(3));
        check_told(&[None], 10, 0, None);
    }

    #[test]
    fn a_stream_that_is_not_there_gets_nothing() {
        assert_eq!(Sequences::new(1, false).arrive(1, 0), Arrival::Again);
    }

    proptest! {
        /// The judge is a list of what has come.
        #[test]
        fn any_order_is_judged_right(numbers in prop::collection::vec(0_u32..12, 0..40)) {
            let mut sequences = Sequences::new(1, false);
            let mut seen: Vec<u32> = Vec::new();
            for number in numbers {
                let after = seen.iter().max().map_or(0, |last| last + 1);
                let expected = match () {
                    () if seen.contains(&number) => Arrival::Again,
                    () if number < after => Arrival::Late,
                    () if number == after => Arrival::InOrder,
                    () => Arrival::Ahead { told: 0 },
                };
                prop_assert_eq!(sequences.arrive(0, number), expected);
                if expected != Arrival::Again {
                    seen.push(number);
                }
                let missing = Missing {
                    silent: 12 - seen.len() as u64,
                    told: 0,
                    first_silent: (0..12).find(|number| !seen.contains(number)),
                };
                prop_assert_eq!(sequences.missing(0, Some(12)), missing);
            }
        }
    }
}
