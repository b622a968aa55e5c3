//! What a worker knows of the history of one channel: what arrived last, what was read of what was
//! before that, and who waits for more to be read.
//!
//! Events that arrive are kept here for a while, from a floor up to the present. What is below the
//! floor is read from Redis, in pages, forwards, each from the id that somebody needs to go on
//! from. Streams that need the same stretch share its page.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::bytes::history::EventId;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::{HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_BYTES_MIN, HISTORY_PAGE_GROWTH};
use crate::state::deadlines::Tick;
use crate::state::history_page::{Account, HistoryPage, PageBytes};

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
    /// Counts events that were published without history, and lost links, on which some may not
    /// have come.
    pub plain: u32,
    /// Somebody has forged an event: until then a break in the chain proves nothing.
    pub distrusted_until: Option<Tick>,
    /// What was read, by where it begins.
    pages: Vec<Rc<HistoryPage>>,
    /// It stands in the worker's list of channels that have pages.
    pub is_paged: bool,
    index: Option<Rc<Index>>,
    pub reading: Reading,
    /// Streams that wait for what comes after an id …
    after: BTreeMap<EventId, Group>,
    /// … or for the ids of so many of the newest events.
    counting: Vec<(usize, Waiter)>,
    /// How many groups have come.
    groups: u64,
    /// Streams that wait, those that have gone included, and at how many these are looked for.
    waiting: usize,
    waiting_max: usize,
    /// What the making up for a lost link needs to be read: behind the first id, up to the second.
    pub repair: Option<(EventId, EventId)>,
    /// Counts pages: now and then one is that of who has waited longest, not of who needs the
    /// oldest.
    turn: u8,
    /// Bytes of the next page, after one that was full; 0 after one that was not.
    page_bytes: usize,
    /// Bytes that the next event takes, where it did not fit.
    event_bytes: usize,
    losses: Losses,
}

/// The ids of the newest events, as Redis told them: all that had been published by then had also
/// arrived.
#[derive(Debug)]
pub struct Index {
    /// Newest first.
    pub ids: Vec<EventId>,
    /// The oldest one's predecessor; zero if there is none.
    pub previous: EventId,
    /// Redis keeps no others.
    pub is_whole: bool,
    /// They can't be had: this stands for none that are known.
    pub is_lost: bool,
    _account: Account,
}

/// Streams that wait for the same.
#[derive(Debug)]
struct Group {
    /// Groups that came later have higher ones.
    number: u64,
    waiters: Vec<Waiter>,
    /// The room that is set aside for their page.
    _account: Account,
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

impl Need {
    /// What is read for it, about.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::After(_) => HISTORY_PAGE_BYTES_MIN,
            Self::Newest(count) => ID_BYTES * count,
        }
    }
}

impl Index {
    #[must_use]
    pub fn new(ids: Vec<EventId>, previous: EventId, is_whole: bool, sum: &PageBytes) -> Self {
        let _account = Account::new(size_of_val(ids.as_slice()), sum);
        Self { ids, previous, is_whole, is_lost: false, _account }
    }

    /// Whether so many are here, or all that there are.
    fn has(&self, count: usize) -> bool {
        self.is_whole || self.ids.len() >= count
    }

    /// There may be any, and nobody knows.
    #[must_use]
    pub fn lost(sum: &PageBytes) -> Self {
        Self { is_lost: true, ..Self::new(Vec::new(), EventId::ZERO, true, sum) }
    }
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
    /// The ids of so many of the newest events.
    Newest { count: usize },
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

/// Bytes of the answer for each id of the newest events.
const ID_BYTES: usize = 24;

/// Pages looked at for one that goes on after an id: they may overlap.
const PAGES_LOOKED_AT: usize = 4;

/// Streams that wait for a channel at which those that have gone are looked for.
const WAITING_MIN: usize = 64;

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
        _ = self.take_all_waiters();
        self.pages = Vec::new();
        self.index = None;
        self.plain = self.plain.wrapping_add(1);
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

    /// Drops what was read of a time that Redis has lost. Returns those who wait for more of it.
    pub fn forget_history(&mut self) -> Vec<Waiter> {
        self.pages = Vec::new();
        self.index = None;
        self.take_all_waiters()
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

    /// A page that goes on after `id`. O(log n).
    #[must_use]
    pub fn page(&self, id: EventId) -> Option<&Rc<HistoryPage>> {
        let end = self.pages.partition_point(|page| page.from() <= id);
        let begin = end.saturating_sub(PAGES_LOOKED_AT);
        self.pages.get(begin..end)?.iter().rev().find(|page| page.continues(id))
    }

    /// The ids of at least `count` of the newest events, or of all, if they are known up to now.
    #[must_use]
    pub fn index(&self, count: usize) -> Option<&Rc<Index>> {
        let index = self.index.as_ref()?;
        let newest = index.ids.first().copied().unwrap_or(index.previous);
        (index.has(count) && self.has_arrived(newest)).then_some(index)
    }

    /// Ids of events in memory that came after `id`, newest first.
    pub fn newest_first(&self, id: EventId) -> impl Iterator<Item = EventId> {
        self.events.iter().rev().map(|event| event.id).take_while(move |event| *event > id)
    }

    /// Lets a stream wait. Those that `waits` no longer are taken out now and then.
    pub fn wait(
        &mut self,
        waiter: Waiter,
        need: Need,
        set_aside: &PageBytes,
        waits: impl Fn(&Waiter) -> bool,
    ) {
        if self.waiting >= self.waiting_max.max(WAITING_MIN) {
            self.after.values_mut().for_each(|group| group.waiters.retain(&waits));
            self.after.retain(|_, group| !group.waiters.is_empty());
            self.counting.retain(|(_, waiter)| waits(waiter));
            let groups = self.after.values();
            self.waiting = self.counting.len() + groups.map(|g| g.waiters.len()).sum::<usize>();
            self.waiting_max = 2 * self.waiting;
        }
        self.waiting += 1;
        match need {
            Need::Newest(count) => self.counting.push((count, waiter)),
            Need::After(id) => {
                let groups = &mut self.groups;
                let group = self.after.entry(id).or_insert_with(|| {
                    *groups += 1;
                    let _account = Account::new(HISTORY_PAGE_BYTES_MIN, set_aside);
                    Group { number: *groups, waiters: Vec::new(), _account }
                });
                group.waiters.push(waiter);
            }
        }
    }

    #[must_use]
    pub fn has_waiters(&self) -> bool {
        !self.after.is_empty() || !self.counting.is_empty() || self.repair.is_some()
    }

    /// Takes out those who need nothing that is history now.
    pub fn take_arrived(&mut self) -> Vec<Waiter> {
        let Some(floor) = self.floor else { return Vec::new() };
        let groups = self.after.split_off(&floor);
        let met = groups.into_values().flat_map(|group| group.waiters).collect();
        self.count_taken(met)
    }

    /// Takes out those who need this page.
    pub fn take_continued(&mut self, page: &HistoryPage) -> Vec<Waiter> {
        let mut groups = self.after.split_off(&page.from());
        self.after.append(&mut groups.split_off(&page.to()));
        let met = groups.into_values().flat_map(|group| group.waiters).collect();
        self.count_taken(met)
    }

    /// Takes out those who need these ids.
    pub fn take_counting(&mut self, index: &Index) -> Vec<Waiter> {
        let met = self.counting.extract_if(.., |(count, _)| index.has(*count));
        let met = met.map(|(_, waiter)| waiter).collect();
        self.count_taken(met)
    }

    pub fn take_all_waiters(&mut self) -> Vec<Waiter> {
        let groups = std::mem::take(&mut self.after).into_values();
        let counting = std::mem::take(&mut self.counting).into_iter().map(|(_, waiter)| waiter);
        let met = groups.flat_map(|group| group.waiters).chain(counting).collect();
        self.count_taken(met)
    }

    fn count_taken(&mut self, met: Vec<Waiter>) -> Vec<Waiter> {
        self.waiting -= met.len();
        met
    }

    /// Bytes to be set aside for what is to be read next, of which a page should have no more than
    /// `room`.
    #[must_use]
    pub fn next_bytes(&self, room: usize) -> usize {
        let least = HISTORY_PAGE_BYTES_MIN.max(self.event_bytes).max(self.ids_bytes());
        self.page_bytes.min(room).max(least)
    }

    /// Bytes of the ids that somebody counts.
    #[must_use]
    pub fn ids_bytes(&self) -> usize {
        let needs = self.counting.iter().map(|(count, _)| Need::Newest(*count).bytes());
        needs.max().unwrap_or(0)
    }

    /// Bytes that the next event takes, where it is known not to fit otherwise.
    #[must_use]
    pub fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    /// What Redis is to be asked next, for a page of at most `bytes_max`; `Err` where reading this
    /// channel ends links: what can't be had. O(groups) for who has waited longest, else O(log n).
    pub fn next_question(
        &mut self,
        bytes_max: usize,
        now: Tick,
    ) -> Option<Result<Question, Question>> {
        let floor = self.floor?;
        let losses = self.losses(now);
        let question = match self.counting.iter().map(|(count, _)| *count).max() {
            Some(count) => Question::Newest { count },
            None => {
                let (from, to) = match self.repair {
                    Some(need) => need,
                    None => (self.reach_back(self.next_need()?, floor), floor),
                };
                self.turn = if self.turn == FIRST_COMES_AFTER { 0 } else { self.turn + 1 };
                Question::Page { from, to, bytes_max, caution: losses }
            }
        };
        Some(if losses < LOSSES_MAX { Ok(question) } else { Err(question) })
    }

    /// The id that the next page is for.
    fn next_need(&self) -> Option<EventId> {
        let (id, _) = match self.turn {
            FIRST_COMES_AFTER => self.after.iter().min_by_key(|(_, group)| group.number)?,
            _ => self.after.first_key_value()?,
        };
        Some(*id)
    }

    /// Where the page begins for who needs what comes after `id`. Where another page is there
    /// already, and there was room for more, a crowd comes back: whoever is next may need a little
    /// more. The page then begins twice as long ago.
    fn reach_back(&self, id: EventId, floor: EventId) -> EventId {
        if self.pages.is_empty() || self.page_bytes > 0 || self.event_bytes > 0 {
            return id;
        }
        let since = floor.ms.saturating_sub(id.ms);
        EventId { ms: id.ms.saturating_sub(since), seq: 0 }.min(id)
    }

    /// Takes in a page. Those that nobody holds are dropped by [`Self::drop_pages`].
    pub fn add_page(&mut self, page: Rc<HistoryPage>) {
        if page.continues(self.losses.from) {
            self.losses.count = 0;
        }
        // What the new one holds as well is not needed twice.
        let begin = self.pages.partition_point(|known| known.from() < page.from());
        let overlapping = self.pages.iter().skip(begin);
        let count = overlapping.take_while(|known| page.contains(known)).count();
        self.pages.splice(begin..begin + count, [page]);
    }

    /// A page was full: the next ones are larger.
    pub fn grow_pages(&mut self) {
        let grown = self.page_bytes.max(HISTORY_PAGE_BYTES_MIN) * HISTORY_PAGE_GROWTH;
        self.page_bytes = grown.min(HISTORY_PAGE_BYTES_MAX);
    }

    /// The next event takes so many bytes, more than a page had; 0: it is not known.
    pub fn set_event_bytes(&mut self, bytes: usize) {
        self.event_bytes = bytes;
    }

    /// The next pages are small again: there was less than a page.
    pub fn shrink_pages(&mut self) {
        self.page_bytes = 0;
    }

    #[must_use]
    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// True if there were no ids before.
    pub fn set_index(&mut self, index: Rc<Index>) -> bool {
        self.index.replace(index).is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn kept(ms: u64) -> Kept {
        Kept { id: id(ms), previous: id(ms - 1), is_chained: true, bytes: Vec::new().into() }
    }

    /// A stream comes back every second for as many ticks, and each reading ends the link. Returns
    /// how many do.
    fn links_ended(recent: &mut Recent, ticks: std::ops::Range<u32>) -> usize {
        let waiter = Waiter { stream: ConnectionId { slot: 0, generation: 0 }, ticket: 0 };
        let mut ended = 0;
        for now in ticks.step_by(10).map(Tick) {
            recent.align(id(7));
            recent.wait(waiter, Need::After(id(5)), &PageBytes::default(), |_| true);
            if let Some(Ok(Question::Page { from, .. })) = recent.next_question(1024, now) {
                recent.reading = Reading::Asked(1024, from);
                ended += 1;
            }
            recent.lose(now);
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
        let page = |from, to| HistoryPage::new(from, to, Default::default(), &PageBytes::default());
        recent.add_page(Rc::new(page(id(2), id(3))));
        assert_eq!(links_ended(&mut recent, 900..960), 0, "another page says nothing of this one");
        recent.add_page(Rc::new(page(id(5), id(7))));
        assert_eq!(links_ended(&mut recent, 960..1040), 8);
    }

    #[test]
    fn events_count_as_what_they_take_while_they_are_kept() {
        let mut recent = Recent::default();
        recent.align(id(1));
        recent.push(kept(1));
        assert_eq!(recent.bytes(), 0, "it is not above what is known");
        (2..=3).for_each(|ms| recent.push(kept(ms)));
        recent.push(kept(3));
        assert_eq!(recent.count(), 2);
        // Beside an event's bytes, of which it has none, stand two counts of references.
        let least = 2 * (size_of::<Kept>() + 2 * size_of::<usize>());
        assert!((least..2 * least).contains(&recent.bytes()), "{}", recent.bytes());
        let bytes = recent.bytes();
        assert_eq!(recent.forget_oldest() + recent.forget_after(id(2)), bytes);
        assert_eq!((recent.bytes(), recent.count(), recent.floor()), (0, 0, Some(id(2))));
    }

    #[test]
    fn a_page_that_holds_others_takes_their_place() {
        let mut recent = Recent::default();
        for (from, to) in [(2, 4), (4, 6), (7, 9), (2, 6)] {
            let page = HistoryPage::new(id(from), id(to), Default::default(), &Default::default());
            recent.add_page(Rc::new(page));
        }
        let pages: Vec<_> =
            recent.pages.iter().map(|page| (page.from().ms, page.to().ms)).collect();
        assert_eq!(pages, [(2, 6), (7, 9)]);
    }

    #[test]
    fn who_needs_the_oldest_is_served_first_and_who_has_waited_longest_now_and_then() {
        let mut recent = Recent::default();
        recent.align(id(100));
        for ms in [9, 5, 7] {
            let stream = ConnectionId { slot: 0, generation: 0 };
            let waiter = Waiter { stream, ticket: 0 };
            recent.wait(waiter, Need::After(id(ms)), &PageBytes::default(), |_| true);
        }
        let mut next = || match recent.next_question(1024, Tick(0)) {
            Some(Ok(Question::Page { from, to, .. })) => (from.ms, to.ms),
            other => panic!("{other:?}"),
        };
        let asked: Vec<_> = (0..8).map(|_| next()).collect();
        assert_eq!(asked, [5, 5, 5, 9, 5, 5, 5, 9].map(|from| (from, 100)));
    }
}
