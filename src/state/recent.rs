//! The recent events of one channel: what arrived last, and what was read of its history before
//! that, so that streams that come back together share one reading.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::bytes::history::EventId;
use crate::ground::ids::ConnectionId;
use crate::ground::limits::{
    HISTORY_PAGE_EVENTS_MAX, HISTORY_PAGE_EVENTS_MIN, HISTORY_PAGE_GROWTH,
};
use crate::state::deadlines::Tick;

/// What a worker knows of the history of a channel.
#[derive(Debug, Default)]
pub struct Recent {
    /// Everything after this id that was published is in `events`, up to now; `None`: nothing is
    /// known, since the subscription does not stand yet. Redis may know what was before it.
    floor: Option<EventId>,
    /// Invariant: ids rise, and all are above the floor.
    events: VecDeque<Kept>,
    /// Invariant: the sum of what all events cost.
    bytes: usize,
    /// Redis keeps nothing at or below the floor.
    exhausted: bool,
    /// The position of the worker when somebody last published here without history, or when the
    /// subscription came to stand after streams had gone on without it.
    pub last_plain: Option<EventId>,
    /// Streams get events of their other channels while the subscription does not stand. Who comes
    /// back with the id of one may have missed something here that was published before it.
    pub has_gone_on_without: bool,
    pub reading: Reading,
    /// Streams that wait for more to be read.
    pub waiters: Vec<ConnectionId>,
    /// The worker waits for it before it goes on after a lost link.
    pub is_repaired: bool,
    /// Entries of the next page.
    page_events: usize,
    losses: Losses,
}

/// Links that were lost while a page was read.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    count: u8,
    /// When the last one was.
    at: Tick,
    /// Where its page began. Once more was read than up to there, that page was not the reason.
    newest: EventId,
}

/// An event that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub id: EventId,
    /// No event of the channel is between this and `id`.
    pub previous: EventId,
    /// Whether it is known to be an event.
    pub is_chained: bool,
    /// Empty for an event that can't be shown: its format can't read it.
    pub bytes: Rc<[u8]>,
}

impl Kept {
    /// Bytes of memory, those beside the event's own included.
    fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>() + 2 * size_of::<usize>()
    }
}

/// Whether a page of history is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    #[default]
    Idle,
    /// In the worker's list of what to ask.
    Listed,
    Asked,
    /// Redis answered with an error; asked again after a while.
    Delayed,
}

/// How much of a channel's history stands in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All that was asked for.
    Covered,
    /// Redis may have the rest.
    Readable,
    /// What is missing is gone.
    Hole,
    /// The subscription does not stand.
    Unknown,
}

/// Ticks after which a link that was lost during a reading is no longer held against the channel.
const LOSS_TICKS: u32 = 300;

/// Links lost while reading after which a channel's history is taken for unreadable: enough that
/// links which are lost for other reasons, one after the other, are not held against it.
const LOSSES_MAX: u8 = 8;

/// Up to eight minutes.
const LOSS_DOUBLINGS_MAX: u32 = 4;

impl Recent {
    /// The subscription stands: whatever is published after `position` arrives.
    pub fn align(&mut self, position: EventId) {
        let floor = self.events.front().map_or(position, |oldest| oldest.previous);
        self.floor = Some(floor);
        self.exhausted = false;
    }

    /// The subscription begins. Returns the bytes that are not kept any more.
    pub fn begin(&mut self) -> usize {
        self.floor = None;
        self.events = VecDeque::new();
        std::mem::take(&mut self.bytes)
    }

    /// The subscription is gone, and with it what followed what is kept. Returns the bytes that
    /// are not kept any more.
    pub fn lose(&mut self, now: Tick) -> usize {
        if self.reading == Reading::Asked {
            let newest = self.floor.unwrap_or_default();
            let count = match self.losses.count {
                unreadable @ LOSSES_MAX.. => unreadable,
                _ => self.losses(now),
            };
            self.losses = Losses { count: count.saturating_add(1), at: now, newest };
        }
        let (last_plain, has_gone_on_without) = (self.last_plain, self.has_gone_on_without);
        let waiters = std::mem::take(&mut self.waiters);
        let lost = std::mem::replace(
            self,
            Self {
                last_plain,
                has_gone_on_without,
                waiters,
                losses: self.losses,
                ..Self::default()
            },
        );
        lost.bytes
    }

    /// An event arrived. False: one before it did not.
    #[must_use]
    pub fn push(&mut self, event: Kept) -> bool {
        if self.floor == Some(SKIPPED) {
            self.floor = Some(event.previous);
        }
        let newest = self.newest();
        let is_next = !event.is_chained || newest.is_none_or(|newest| event.previous <= newest);
        if newest.is_some_and(|newest| event.id <= newest) {
            return true;
        }
        if !is_next {
            // What is kept does not lead up to this event.
            self.forget_all(event.previous);
        } else if self.events.is_empty()
            && let Some(floor) = &mut self.floor
            && event.previous < *floor
        {
            *floor = event.previous;
            self.exhausted = false;
        }
        self.bytes += event.cost();
        self.events.push_back(event);
        is_next
    }

    /// Something arrived and can't be kept: what comes next counts from its own predecessor.
    pub fn skip(&mut self) {
        self.forget_all(SKIPPED);
    }

    /// Puts a page of history, newest first and read from the floor down, before what is kept.
    /// `asked`: the most that the page could hold. `expired`: should Redis keep nothing of this
    /// channel, whatever it forgot was not above this id. Returns the bytes that were added.
    pub fn extend(&mut self, page: Vec<Kept>, asked: usize, expired: EventId) -> usize {
        let (before, count) = (self.bytes, page.len());
        self.exhausted = count < asked;
        for event in page {
            let Some(floor) = self.floor else { return 0 };
            if event.id > floor && !self.events.is_empty() {
                // It arrived while the page was read.
                continue;
            }
            // Between a floor that is no event's id and the next event below it, there is none.
            let is_next =
                if self.events.is_empty() { event.id <= floor } else { event.id == floor };
            if !is_next {
                self.exhausted = true;
                break;
            }
            self.floor = Some(event.previous);
            self.bytes += event.cost();
            self.events.push_front(event);
        }
        if self.events.is_empty() {
            // What was published before the page was read would have arrived: there is nothing.
            self.floor = self.floor.map(|floor| floor.min(expired));
        }
        let bytes = self.bytes - before;
        if self.exhausted || self.floor < Some(self.losses.newest) {
            self.losses.count = 0;
        }
        let room = HISTORY_PAGE_BYTES / (bytes / count.max(1)).max(1);
        self.page_events =
            (asked * HISTORY_PAGE_GROWTH).min(room).clamp(1, HISTORY_PAGE_EVENTS_MAX);
        bytes
    }

    /// What Redis keeps can't be read.
    pub fn give_up(&mut self) {
        self.exhausted = true;
    }

    /// Entries to ask for in the next page; 0 if reading this channel ends links.
    pub fn next_page(&self, event_bytes_max: usize, now: Tick) -> usize {
        let cautious =
            (HISTORY_PAGE_BYTES / event_bytes_max.max(1)).clamp(1, HISTORY_PAGE_EVENTS_MIN);
        match self.losses(now) {
            0 => self.page_events.max(cautious),
            losses if losses < LOSSES_MAX => self.page_events.max(1),
            _ => 0,
        }
    }

    /// Drops the oldest event. Returns its bytes.
    pub fn forget_oldest(&mut self) -> usize {
        let Some(oldest) = self.events.pop_front() else { return 0 };
        self.floor = Some(oldest.id);
        self.exhausted = false;
        self.bytes -= oldest.cost();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        oldest.cost()
    }

    /// Whether everything after `id` is here, or can be had.
    #[must_use]
    pub fn reach(&self, id: EventId) -> Reach {
        match self.floor {
            None => Reach::Unknown,
            Some(floor) if floor <= id => Reach::Covered,
            Some(_) if self.exhausted => Reach::Hole,
            Some(_) => Reach::Readable,
        }
    }

    /// Whether the newest `count` events are here, or can be had.
    #[must_use]
    pub fn reach_of_newest(&self, count: usize) -> Reach {
        match self.floor {
            None => Reach::Unknown,
            Some(_) if self.events.len() >= count || self.exhausted => Reach::Covered,
            Some(_) => Reach::Readable,
        }
    }

    #[must_use]
    pub fn floor(&self) -> Option<EventId> {
        self.floor
    }

    /// Events after `id`, oldest first. O(log n) to find the first.
    pub fn after(&self, id: EventId) -> impl Iterator<Item = &Kept> {
        self.events.range(self.events.partition_point(|event| event.id <= id)..)
    }

    /// Events from the newest to the oldest.
    pub fn newest_first(&self) -> impl Iterator<Item = &Kept> {
        self.events.iter().rev()
    }

    /// Events in memory.
    #[must_use]
    pub fn count(&self) -> usize {
        self.events.len()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether Redis is asked, or the worker waits, for more of it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_repaired || self.reading != Reading::Idle
    }

    /// Whether somebody needs what is kept.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.is_repaired || !self.waiters.is_empty()
    }

    /// The newest id that is accounted for.
    fn newest(&self) -> Option<EventId> {
        self.events.back().map(|event| event.id).max(self.floor)
    }

    fn forget_all(&mut self, floor: EventId) {
        self.events = VecDeque::new();
        self.bytes = 0;
        self.exhausted = false;
        if self.floor.is_some() {
            self.floor = Some(floor);
        }
    }

    /// The losses that are held against the channel now. What was taken for unreadable is tried
    /// once more after a while, and after twice as long each time that this has cost a link again.
    fn losses(&self, now: Tick) -> u8 {
        let Losses { count, at, .. } = self.losses;
        let doublings = u32::from(count.saturating_sub(LOSSES_MAX)).min(LOSS_DOUBLINGS_MAX);
        if now.since(at) < LOSS_TICKS << doublings {
            return count;
        }
        if count < LOSSES_MAX { 0 } else { LOSSES_MAX - 1 }
    }
}

/// The floor after something was skipped: nothing is known until the next event.
const SKIPPED: EventId = EventId { ms: u64::MAX, seq: u64::MAX };

/// What a page should not exceed: Redis ends a link that has 8 MB of output for long.
const HISTORY_PAGE_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream comes back every second for as many ticks, and each reading ends the link. Returns
    /// how many do.
    fn links_ended(recent: &mut Recent, ticks: std::ops::Range<u32>) -> usize {
        let mut ended = 0;
        for now in ticks.step_by(10).map(Tick) {
            recent.align(EventId { ms: 7, seq: 0 });
            if recent.next_page(1024, now) > 0 {
                recent.reading = Reading::Asked;
                recent.lose(now);
                ended += 1;
            }
        }
        ended
    }

    #[test]
    fn what_ends_every_link_is_tried_again_ever_more_rarely() {
        let mut recent = Recent::default();
        assert_eq!(links_ended(&mut recent, 0..300), 8);
        // After 30 s, 60 s and so on up to eight minutes. Eight in each half minute would be 960.
        assert_eq!(links_ended(&mut recent, 300..36_000), 10);
        assert_eq!(links_ended(&mut recent, 36_000..72_000), 8);
    }

    #[test]
    fn what_can_be_read_after_all_is_held_against_nobody() {
        let mut recent = Recent::default();
        assert_eq!(links_ended(&mut recent, 0..900), 9);
        let (id, previous) = (EventId { ms: 7, seq: 0 }, EventId { ms: 6, seq: 0 });
        let kept = Kept { id, previous, is_chained: true, bytes: Vec::new().into() };
        recent.align(id);
        recent.extend(vec![kept], 1, EventId::ZERO);
        assert_eq!(links_ended(&mut recent, 900..980), 8);
    }
}
