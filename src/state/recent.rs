//! What a worker knows of the history of one channel: what arrived last, what was read of what was
//! before that, and who waits for more to be read.
//!
//! Events that arrive are kept here for a while, from a floor up to the present. What is below the
//! floor is read from Redis, in pages, forwards, each from the id that somebody needs to go on
//! from. Streams that need the same stretch share its page.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::bytes::history::EventId;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::{HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_BYTES_MIN, HISTORY_PAGE_GROWTH};
use crate::state::deadlines::Tick;
use crate::state::history_page::HistoryPage;

/// A channel's history, as far as it is known.
#[derive(Debug, Default)]
pub struct Recent {
    /// Everything after this id that was published is in `events`, up to now; `None`: nothing is
    /// known until Redis tells its newest id.
    floor: Option<EventId>,
    /// Invariant: ids rise, and all are above the floor.
    events: VecDeque<Kept>,
    /// Invariant: the sum of what all events cost.
    bytes: usize,
    /// While the link is lost or repaired: what was published up to here was passed on.
    pub passed: EventId,
    /// Its newest event was passed on, and Redis has not told such an id yet.
    pub is_ahead: bool,
    /// Streams get events of their other channels while the subscription does not stand …
    pub has_gone_on_without: bool,
    /// … which they did until here. Who comes back with such an id may have missed something.
    pub lapsed: Option<EventId>,
    /// Somebody has forged an event: until then a break in the chain proves nothing.
    pub distrusted_until: Option<Tick>,
    /// What was read. Invariant: few, since unneeded ones are dropped.
    pages: Vec<Rc<HistoryPage>>,
    index: Option<Index>,
    pub reading: Reading,
    waiters: Vec<Waiter>,
    /// What the making up for a lost link needs to be read: behind the first id, up to the second.
    pub repair: Option<(EventId, EventId)>,
    /// Counts pages: now and then one is that of who has waited longest, not of who needs the
    /// oldest.
    turn: u8,
    /// Bytes of the next page.
    page_bytes: usize,
    losses: Losses,
}

/// The ids of the newest events below the floor.
#[derive(Debug)]
pub struct Index {
    /// Newest first.
    pub ids: Vec<EventId>,
    /// The oldest one's predecessor; the floor if there is none.
    pub previous: EventId,
    /// Redis keeps no others.
    pub is_whole: bool,
}

/// Links that were lost while a page was read.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    count: u8,
    /// When the last one was.
    at: Tick,
    /// Where its page began. Once that one was read, it was not the reason.
    from: EventId,
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

/// Whether something of the history is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    #[default]
    Idle,
    /// In the worker's list of what to ask, with the bytes that are set aside for it.
    Listed(usize),
    /// The same, and where its page begins.
    Asked(usize, EventId),
    /// Redis answered with an error; asked again after a while.
    Delayed,
}

/// A stream that waits for the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub stream: ConnectionId,
    /// Of the stream's waits, so that one which is over is not taken for another.
    pub ticket: u32,
    pub need: Need,
}

/// What of a channel's history is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// What comes after this id.
    After(EventId),
    /// The ids of so many of the newest events.
    Newest(usize),
}

/// Something that Redis is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRead {
    pub channel: ChannelId,
    pub question: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Events behind `from`, up to `to`, of so many bytes at the most. `caution`: how many links
    /// were lost over it.
    Page { from: EventId, to: EventId, bytes_max: usize, caution: u8 },
    /// The ids of so many of the newest events, up to `to`.
    Newest { count: usize, to: EventId },
}

/// How an event that arrives follows those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It is the next one, for all that is known.
    Next,
    /// Nothing is known of the channel now.
    Unaligned,
    /// It names an event before it that has not arrived.
    Gap,
    /// Its id is not above those that have arrived: it, or one of those, is none that Redis gave.
    Backwards,
}

/// Pages for who needs the oldest, after which there is one for who has waited longest.
const FIRST_COMES_AFTER: u8 = 3;

/// Ticks after which a link that was lost during a reading is no longer held against the channel.
const LOSS_TICKS: u32 = 300;

/// Links lost while reading after which a channel's history is taken for unreadable: enough that
/// links which are lost for other reasons, one after the other, are not held against it.
const LOSSES_MAX: u8 = 8;

/// Up to eight minutes.
const LOSS_DOUBLINGS_MAX: u32 = 4;

impl Recent {
    /// Whatever is published after `position` arrives, and what was published before is history.
    /// Returns the bytes that are not kept any more.
    pub fn align(&mut self, position: EventId) -> usize {
        let lost = self.unalign();
        self.floor = Some(position);
        lost
    }

    /// Nothing is known of the channel until it is aligned. Returns the bytes that are not kept
    /// any more.
    pub fn unalign(&mut self) -> usize {
        self.floor = None;
        self.index = None;
        self.events = VecDeque::new();
        std::mem::take(&mut self.bytes)
    }

    /// The link is lost, and with it what followed what is kept, and what was to be read. Returns
    /// the bytes that are not kept any more.
    pub fn lose(&mut self, now: Tick) -> usize {
        if let Reading::Asked(_, from) = self.reading {
            let count = match self.losses.count {
                unreadable @ LOSSES_MAX.. => unreadable,
                _ => self.losses(now),
            };
            self.losses = Losses { count: count.saturating_add(1), at: now, from };
        }
        self.reading = Reading::Idle;
        self.repair = None;
        self.waiters = Vec::new();
        self.pages = Vec::new();
        self.unalign()
    }

    /// How an event follows what is known.
    #[must_use]
    pub fn follows(&self, event: &Kept) -> Follows {
        match self.newest() {
            None => Follows::Unaligned,
            Some(newest) if event.id <= newest => Follows::Backwards,
            Some(newest) if event.is_chained && event.previous > newest => Follows::Gap,
            Some(_) => Follows::Next,
        }
    }

    /// Takes in an event that arrived; one that does not follow is left out.
    pub fn push(&mut self, event: Kept) {
        if self.newest().is_some_and(|newest| newest < event.id) {
            self.bytes += event.cost();
            self.events.push_back(event);
        }
    }

    /// Drops the oldest event. Returns its bytes.
    pub fn forget_oldest(&mut self) -> usize {
        let Some(oldest) = self.events.pop_front() else { return 0 };
        self.floor = Some(oldest.id);
        self.index = None;
        self.bytes -= oldest.cost();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        oldest.cost()
    }

    /// Drops the events after `id`, which Redis never gave. Returns their bytes.
    pub fn forget_after(&mut self, id: EventId) -> usize {
        let before = self.bytes;
        while self.events.back().is_some_and(|event| event.id > id)
            && let Some(forged) = self.events.pop_back()
        {
            self.bytes -= forged.cost();
        }
        self.floor = self.floor.map(|floor| floor.min(id));
        before - self.bytes
    }

    #[must_use]
    pub fn floor(&self) -> Option<EventId> {
        self.floor
    }

    /// The newest id that is accounted for.
    #[must_use]
    pub fn newest(&self) -> Option<EventId> {
        self.events.back().map(|event| event.id).max(self.floor)
    }

    /// The number of the first event that arrived after `id`. O(log n).
    #[must_use]
    pub fn position(&self, id: EventId) -> usize {
        self.events.partition_point(|event| event.id <= id)
    }

    #[must_use]
    pub fn event(&self, number: usize) -> Option<&Kept> {
        self.events.get(number)
    }

    /// Events in memory that have arrived.
    #[must_use]
    pub fn count(&self) -> usize {
        self.events.len()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything after `id` has arrived.
    #[must_use]
    pub fn has_arrived(&self, id: EventId) -> bool {
        self.floor.is_some_and(|floor| floor <= id)
    }

    /// The page that goes on after `id`. O(pages).
    #[must_use]
    pub fn page(&self, id: EventId) -> Option<&Rc<HistoryPage>> {
        self.pages.iter().find(|page| page.continues(id))
    }

    /// Whether a need is met by what is in memory.
    #[must_use]
    pub fn meets(&self, need: Need) -> bool {
        match need {
            Need::After(id) => self.has_arrived(id) || self.page(id).is_some(),
            Need::Newest(count) => {
                self.events.len() >= count
                    || self.index.as_ref().is_some_and(|index| {
                        index.is_whole || self.events.len() + index.ids.len() >= count
                    })
            }
        }
    }

    /// The ids of events from the newest to the oldest, as far as they are known.
    pub fn newest_first(&self) -> impl Iterator<Item = EventId> {
        let below = self.index.iter().flat_map(|index| index.ids.iter().copied());
        self.events.iter().rev().map(|event| event.id).chain(below)
    }

    /// Where all ids are known that Redis keeps: the last that it may have kept before.
    #[must_use]
    pub fn previous_of_all(&self) -> Option<EventId> {
        self.index.as_ref().filter(|index| index.is_whole).map(|index| index.previous)
    }

    pub fn wait(&mut self, waiter: Waiter) {
        self.waiters.push(waiter);
    }

    #[must_use]
    pub fn has_waiters(&self) -> bool {
        !self.waiters.is_empty() || self.repair.is_some()
    }

    /// Takes out those whose need is met now, or who do not wait any more.
    pub fn take_met(&mut self, waits: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let mut waiters = std::mem::take(&mut self.waiters);
        let met = waiters.extract_if(.., |waiter| self.meets(waiter.need) || !waits(waiter));
        let met = met.collect();
        self.waiters = waiters;
        met
    }

    /// Bytes to be set aside for what is to be read next.
    #[must_use]
    pub fn next_bytes(&self) -> usize {
        self.page_bytes.max(HISTORY_PAGE_BYTES_MIN)
    }

    /// What Redis is to be asked next, for a page of at most `bytes_max`; `Err` where reading
    /// this channel ends links: what can't be had, from where to where. O(n) in who waits.
    pub fn next_question(
        &mut self,
        bytes_max: usize,
        now: Tick,
    ) -> Option<Result<Question, (EventId, EventId)>> {
        let floor = self.floor?;
        let needs_of = |waiter: &Waiter| match waiter.need {
            Need::After(id) => (Some(id), None),
            Need::Newest(count) => (None, Some(count)),
        };
        if let Some(count) = self.waiters.iter().filter_map(|w| needs_of(w).1).max() {
            return Some(Ok(Question::Newest { count, to: floor }));
        }
        let mut cursors = self.waiters.iter().filter_map(|waiter| needs_of(waiter).0);
        let (from, to) = match self.repair {
            Some(need) => need,
            None if self.turn == FIRST_COMES_AFTER => (cursors.next()?, floor),
            None => (cursors.min()?, floor),
        };
        self.turn = if self.turn == FIRST_COMES_AFTER { 0 } else { self.turn + 1 };
        match self.losses(now) {
            LOSSES_MAX.. => Some(Err((from, to))),
            caution => Some(Ok(Question::Page { from, to, bytes_max, caution })),
        }
    }

    /// Takes in a page. Those that nobody holds are dropped by [`Self::drop_pages`].
    pub fn add_page(&mut self, page: Rc<HistoryPage>) {
        if page.continues(self.losses.from) {
            self.losses.count = 0;
        }
        // What the new one holds as well is not needed twice.
        self.pages.retain(|known| !page.contains(known));
        self.pages.push(page);
    }

    /// The next pages are larger, after one that was full; `at_least`: one event takes so much.
    pub fn grow_pages(&mut self, at_least: usize) {
        let grown = self.next_bytes() * HISTORY_PAGE_GROWTH;
        self.page_bytes = grown.min(HISTORY_PAGE_BYTES_MAX).max(at_least);
    }

    /// The next pages are small again: there was less than a page.
    pub fn shrink_pages(&mut self) {
        self.page_bytes = 0;
    }

    #[must_use]
    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    pub fn set_index(&mut self, index: Index) {
        self.index = Some(index);
    }

    /// Drops the pages that nobody holds.
    pub fn drop_pages(&mut self) {
        self.pages.retain(|page| Rc::strong_count(page) > 1);
        if self.pages.is_empty() {
            self.pages = Vec::new();
        }
    }

    /// Drops the ids of the newest events, unless somebody is about to look at them.
    pub fn drop_index(&mut self) {
        self.index = None;
    }

    /// Whether Redis is asked, or the worker waits, for more of it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.repair.is_some() || self.reading != Reading::Idle
    }

    /// Whether events that arrive say what came before them.
    #[must_use]
    pub fn is_trusted(&self, now: Tick) -> bool {
        self.distrusted_until.is_none_or(|until| now.has_reached(until))
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
