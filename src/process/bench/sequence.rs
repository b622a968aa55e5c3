//! What each stream has received of the messages of its channel: every one, once, in order?

use std::collections::HashMap;
use std::ops::Range;

/// The sequences of all streams of a thread: 4 bytes each, more only for streams with gaps.
#[derive(Debug)]
pub(super) struct Sequences {
    /// Per stream, the number that continues it.
    next: Vec<u32>,
    /// Per stream, numbers below `next` that have not arrived.
    gaps: HashMap<u32, Vec<Range<u32>>>,
    /// Whether the first number that arrives is the first of the stream.
    begins_anywhere: bool,
}

/// What a number that arrives means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    InOrder,
    /// Later ones should have come first.
    Ahead,
    /// A later one has come first.
    Late,
    /// It has come before.
    Again,
}

impl Sequences {
    /// Streams that begin with number 0 or, if `begins_anywhere`, with whatever comes first.
    pub(super) fn new(streams: usize, begins_anywhere: bool) -> Self {
        let first = if begins_anywhere { UNKNOWN } else { 0 };
        Self { next: vec![first; streams], gaps: HashMap::new(), begins_anywhere }
    }

    pub(super) fn arrive(&mut self, stream: u32, number: u32) -> Arrival {
        let Some(next) = usize::try_from(stream).ok().and_then(|place| self.next.get_mut(place))
        else {
            return Arrival::Again;
        };
        if *next == number || (self.begins_anywhere && *next == UNKNOWN) {
            *next = number.saturating_add(1);
            return Arrival::InOrder;
        }
        if number > *next {
            self.gaps.entry(stream).or_default().push(*next..number);
            *next = number.saturating_add(1);
            return Arrival::Ahead;
        }
        match self.gaps.get_mut(&stream).is_some_and(|gaps| fill(gaps, number)) {
            true => Arrival::Late,
            false => Arrival::Again,
        }
    }

    /// Numbers below `expected` that a stream has not received; without an `expected`, those that
    /// later ones have overtaken. O(gaps of the stream).
    pub(super) fn missing(&self, stream: u32, expected: Option<u32>) -> u64 {
        let next = usize::try_from(stream).ok().and_then(|place| self.next.get(place));
        let next = next.copied().unwrap_or(0);
        let rest = expected.map_or(0, |expected| expected.saturating_sub(next));
        let gaps = self.gaps.get(&stream).into_iter().flatten();
        u64::from(rest) + gaps.map(|gap| u64::from(gap.end - gap.start)).sum::<u64>()
    }

    /// The first of the numbers that [`Self::missing`] counts.
    pub(super) fn first_missing(&self, stream: u32, expected: Option<u32>) -> Option<u32> {
        let next = usize::try_from(stream).ok().and_then(|place| self.next.get(place)).copied();
        let rest = next.filter(|next| expected.is_some_and(|expected| *next < expected));
        let gaps = self.gaps.get(&stream).into_iter().flatten();
        gaps.map(|gap| gap.start).chain(rest).min()
    }
}

/// Takes a number out of the gaps; whether it was in one.
fn fill(gaps: &mut Vec<Range<u32>>, number: u32) -> bool {
    let Some(place) = gaps.iter().position(|gap| gap.contains(&number)) else { return false };
    let gap = gaps.swap_remove(place);
    let halves = [gap.start..number, number + 1..gap.end];
    gaps.extend(halves.into_iter().filter(|half| !half.is_empty()));
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
        assert_eq!(sequences.missing(0, Some(5)), 5, "the other stream has received nothing");
        (arrivals, sequences.missing(1, Some(5)))
    }

    #[test]
    fn every_kind_of_fault_is_told_apart() {
        use Arrival::{Again, Ahead, InOrder, Late};
        assert_eq!(arrivals(&[0, 1, 2, 3, 4]), (vec![InOrder; 5], 0));
        assert_eq!(arrivals(&[0, 1, 1, 2]), (vec![InOrder, InOrder, Again, InOrder], 2));
        assert_eq!(arrivals(&[0, 2, 1, 3]), (vec![InOrder, Ahead, Late, InOrder], 1));
        assert_eq!(arrivals(&[4, 2, 2, 0]), (vec![Ahead, Late, Again, Late], 2));
        assert_eq!(arrivals(&[]), (vec![], 5));
    }

    #[test]
    fn a_listener_begins_with_what_comes_first() {
        let mut sequences = Sequences::new(1, true);
        assert_eq!(sequences.missing(0, None), 0);
        assert_eq!(sequences.arrive(0, 7), Arrival::InOrder);
        assert_eq!(sequences.arrive(0, 9), Arrival::Ahead);
        assert_eq!(sequences.missing(0, None), 1);
        assert_eq!(sequences.arrive(0, 6), Arrival::Again);
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
                    () => Arrival::Ahead,
                };
                prop_assert_eq!(sequences.arrive(0, number), expected);
                if expected != Arrival::Again {
                    seen.push(number);
                }
                prop_assert_eq!(sequences.missing(0, Some(12)), 12 - seen.len() as u64);
                let first = (0..12).find(|number| !seen.contains(number));
                prop_assert_eq!(sequences.first_missing(0, Some(12)), first);
            }
        }
    }
}
