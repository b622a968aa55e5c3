//! The reading of history from Redis, forwards and in pages, and who may hold them.
//!
//! A stream that needs pages is admitted first, if there is room for them; the others wait in line
//! and hold nothing. Who is admitted holds a page for each of its channels until it has the
//! present, or waits for its socket. So all that is held is bounded, and somebody always goes on.

use std::rc::Rc;

use super::Streams;
use super::clock::ClockWish;
use crate::bytes::history::EventId;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::{
    HISTORY_PAGE_BYTES_MIN, HISTORY_PAGES_BYTES_MAX, HISTORY_PAGES_IDLE_BYTES_MAX,
    HISTORY_READING_BYTES_MAX,
};
use crate::state::catch_up::{CatchUp, Place};
use crate::state::history_page::{Account, HistoryPage, PageDraft};
use crate::state::recent::{HistoryRead, Index, Need, Question, Reading, Recent, Waiter};

/// Bytes of pages that have to come before those that nobody holds are looked for again …
const BYTES_PER_WALK: usize = 512 * 1024;

/// … and the more, the more channels have pages.
const BYTES_PER_WALKED_CHANNEL: usize = 64;

/// A page may take this part of the room that is left: many can begin while few are served fast.
const ROOM_SHARES: usize = 8;

/// How far a page goes that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// All that Redis keeps is there. Where that is nothing: the oldest event of the channel and
    /// the one before it, if any is kept at all.
    End { oldest: Option<(EventId, EventId)> },
    /// There is more behind its last event.
    More,
    /// Its first event takes so many bytes, and was not read.
    Big { bytes: usize },
}

impl Streams {
    /// Puts a channel into the list of those to be read.
    pub(super) fn list_reading(&mut self, id: ChannelId) {
        let Some(recent) = self.recent(id) else { return };
        if recent.reading != Reading::Idle {
            return;
        }
        let bytes = match recent.repair {
            Some(_) => self.repair_bytes(recent.event_bytes()),
            None => recent.next_bytes(self.room_left() / ROOM_SHARES),
        };
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.reading = Reading::Listed(bytes);
            self.history.listed_bytes += bytes;
            self.history.reads.push_back(id);
        }
    }

    /// What Redis is to be asked next.
    pub fn next_read(&mut self) -> Option<HistoryRead> {
        self.serve_line();
        loop {
            let id = *self.history.reads.front()?;
            let asked_bytes = self.history.asked_bytes;
            let now = self.now;
            let listed = self.channels.recent_mut(id).and_then(|recent| match recent.reading {
                Reading::Listed(bytes) => Some((recent, bytes)),
                _ => None,
            });
            let Some((recent, listed)) = listed else {
                self.history.reads.pop_front();
                continue;
            };
            // Somebody may have come since who counts ids.
            let bytes = listed.max(recent.ids_bytes());
            if asked_bytes > 0 && asked_bytes + bytes > HISTORY_READING_BYTES_MAX {
                return None;
            }
            self.history.reads.pop_front();
            self.history.listed_bytes -= listed;
            recent.reading = Reading::Idle;
            match recent.next_question(listed, now) {
                None => {}
                Some(Ok(question)) => {
                    let from = match question {
                        Question::Page { from, .. } => from,
                        Question::Newest { .. } => EventId::ZERO,
                    };
                    recent.reading = Reading::Asked(bytes, from);
                    self.history.asked_bytes += bytes;
                    self.counters.history_reads.add(1);
                    return Some(HistoryRead { channel: id, question });
                }
                Some(Err(question)) => self.answer_with_nothing(id, question),
            }
        }
    }

    /// A page that was asked for.
    pub fn take_page(&mut self, read: HistoryRead, end: ReadEnd, draft: PageDraft) {
        let id = read.channel;
        let Question::Page { from, to, bytes_max, .. } = read.question else { return };
        if !self.end_reading(id) {
            return;
        }
        let sum = &self.history.page_bytes;
        let Some(recent) = self.channels.recent_mut(id) else { return };
        let last = draft.last();
        let page = match (end, last) {
            (ReadEnd::Big { bytes }, _) if bytes > bytes_max => {
                recent.set_event_bytes(bytes);
                return self.list_reading(id);
            }
            (ReadEnd::More, Some(last)) => {
                recent.grow_pages();
                HistoryPage::new(from, last.min(to), draft, sum)
            }
            (ReadEnd::End { .. }, Some(_)) => {
                recent.shrink_pages();
                HistoryPage::new(from, to, draft, sum)
            }
            (ReadEnd::End { oldest: Some((oldest, previous)) }, None) => {
                // Nothing between two events that are there was forgotten.
                let lost_until = if oldest <= from { from } else { previous.max(from) };
                HistoryPage::empty(from, to, lost_until, sum).before_others()
            }
            (ReadEnd::End { oldest: None }, None) => {
                recent.reading = Reading::Asked(0, from);
                self.history.vanished.push((id, from, to));
                return self.history.wish_clock(ClockWish::WithEvictions);
            }
            // No progress can be made there.
            (ReadEnd::More | ReadEnd::Big { .. }, _) => HistoryPage::empty(from, to, to, sum),
        };
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.set_event_bytes(0);
        }
        self.add_page(id, from, page);
    }

    /// The ids of the newest events, newest first, and the one before the last; `None`: there are
    /// none.
    pub fn take_index(&mut self, read: HistoryRead, newest: Option<(EventId, Vec<EventId>)>) {
        let id = read.channel;
        let Question::Newest { count } = read.question else { return };
        if self.end_reading(id) {
            self.add_index(id, count, newest);
        }
    }

    fn add_index(&mut self, id: ChannelId, count: usize, newest: Option<(EventId, Vec<EventId>)>) {
        let (previous, ids) = newest.unwrap_or_default();
        let is_whole = ids.len() < count;
        let index = Index::new(ids, previous, is_whole, &self.history.page_bytes);
        self.hand_index(id, index);
    }

    fn hand_index(&mut self, id: ChannelId, index: Index) {
        // Those of other channels stay while there is room.
        if self.history.page_bytes.get() > HISTORY_PAGES_IDLE_BYTES_MAX {
            self.drop_idle_ids();
        }
        let Some(recent) = self.channels.recent_mut(id) else { return };
        let index = Rc::new(index);
        if recent.set_index(Rc::clone(&index)) {
            self.history.indexed.push(id);
        }
        let met = recent.take_counting(&index);
        self.wake_met(id, met, |place| place.index = Some(Rc::clone(&index)));
    }

    /// What was asked can't be had: for the moment, or at all.
    pub fn fail_read(&mut self, read: HistoryRead, for_good: bool) {
        let id = read.channel;
        if !self.end_reading(id) {
            return;
        }
        match read.question {
            _ if !for_good => {
                if let Some(recent) = self.channels.recent_mut(id) {
                    recent.reading = Reading::Delayed;
                }
                self.history.delayed.push(self.now, id);
            }
            question => self.answer_with_nothing(id, question),
        }
    }

    /// What can't be had counts as lost.
    fn answer_with_nothing(&mut self, id: ChannelId, question: Question) {
        match question {
            Question::Page { from, to, .. } => {
                let page = HistoryPage::empty(from, to, to, &self.history.page_bytes);
                self.add_page(id, from, page);
            }
            Question::Newest { .. } => {
                let index = Index::lost(&self.history.page_bytes);
                self.hand_index(id, index);
            }
        }
    }

    /// An answer has come. False if it is none to what is asked.
    fn end_reading(&mut self, id: ChannelId) -> bool {
        let Some(recent) = self.channels.recent_mut(id) else { return false };
        let Reading::Asked(bytes, _) = recent.reading else { return false };
        recent.reading = Reading::Idle;
        self.history.asked_bytes -= bytes;
        true
    }

    /// The clock told up to where what is missing may have expired, or been evicted.
    pub(super) fn settle_vanished(&mut self, expired: EventId) {
        self.settle_counting(expired);
        for (id, from, to) in std::mem::take(&mut self.history.vanished) {
            if self.end_reading(id) {
                let lost_until = expired.max(from);
                let page = HistoryPage::empty(from, to, lost_until, &self.history.page_bytes);
                self.add_page(id, from, page);
            }
        }
    }

    fn add_page(&mut self, id: ChannelId, from: EventId, page: HistoryPage) {
        let page = Rc::new(page);
        let Some(recent) = self.channels.recent_mut(id) else { return };
        if recent.floor().is_some_and(|floor| floor < page.to()) {
            // It was asked for in a time that Redis has lost since.
            return self.wake_met(id, Vec::new(), |_| {});
        }
        recent.add_page(Rc::clone(&page));
        if !std::mem::replace(&mut recent.is_paged, true) {
            self.history.paged.push_back(id);
        }
        let repaired = recent.repair.filter(|(missed, _)| *missed == from);
        let met = recent.take_continued(&page);
        if let Some(repaired) = repaired {
            self.take_repair_page(id, Rc::clone(&page), repaired);
        }
        self.wake_met(id, met, |place| place.page = Some(Rc::clone(&page)));
        // A walk over all of them is paid for by what has come.
        self.history.bytes_added += page.cost();
        let channels = self.history.paged.len();
        if self.history.bytes_added > BYTES_PER_WALK + channels * BYTES_PER_WALKED_CHANNEL {
            self.drop_idle_pages(HISTORY_PAGES_IDLE_BYTES_MAX);
        }
    }

    /// Lets streams go on whose need of a channel is met; `hand` gives them what they hold from now
    /// on. The others need more.
    pub(super) fn wake_met(&mut self, id: ChannelId, met: Vec<Waiter>, hand: impl Fn(&mut Place)) {
        for Waiter { stream, ticket } in met {
            let Some(catch_up) = self.connections.catch_up_mut(stream) else { continue };
            if !catch_up.is_awaited(ticket) {
                continue;
            }
            if let Some(place) = catch_up.places.iter_mut().find(|place| place.channel == id) {
                hand(place);
            }
            if catch_up.arrived(ticket) {
                self.wake(stream);
            }
        }
        if self.recent(id).is_some_and(Recent::has_waiters) {
            self.list_reading(id);
        }
    }

    /// Lets ids and pages go that nobody holds, the oldest first, until the rest is no more than
    /// `max`.
    pub(super) fn drop_idle_pages(&mut self, max: usize) {
        if self.history.page_bytes.get() > max {
            self.drop_idle_ids();
        }
        for _ in 0..self.history.paged.len() {
            if self.history.page_bytes.get() <= max {
                break;
            }
            let Some(id) = self.history.paged.pop_front() else { break };
            let Some(recent) = self.channels.recent_mut(id) else { continue };
            recent.drop_pages();
            recent.is_paged = recent.has_pages();
            if recent.is_paged {
                self.history.paged.push_back(id);
            }
        }
        self.history.bytes_added = 0;
        self.history.has_let_go = false;
    }

    fn drop_idle_ids(&mut self) {
        for id in std::mem::take(&mut self.history.indexed) {
            self.channels.recent_mut(id).into_iter().for_each(Recent::drop_index);
        }
    }

    /// Lets the stream wait for what it needs of its channels, once it may hold it.
    pub(super) fn await_history(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        needs: Vec<(ChannelId, Need)>,
    ) {
        if !catch_up.is_admitted {
            let bytes = needs.iter().map(|(_, need)| need.bytes()).sum();
            if !self.history.line.is_empty() || !self.has_room(bytes) {
                catch_up.drop_pages();
                catch_up.wait(0);
                catch_up.wanted = bytes;
                return self.history.line.push_back(id);
            }
            catch_up.is_admitted = true;
            self.history.admitted += 1;
        }
        catch_up.has_read = true;
        let ticket = catch_up.wait(needs.len());
        for (channel, need) in needs {
            if let Some(recent) = self.channels.recent_mut(channel) {
                let connections = &self.connections;
                let waits = |waiter: &Waiter| connections.get(waiter.stream).is_some();
                let waiter = Waiter { stream: id, ticket };
                recent.wait(waiter, need, &self.history.set_aside, waits);
            }
            self.list_reading(channel);
        }
        catch_up.set_aside = None;
    }

    /// The stream holds nothing any more.
    pub(super) fn release_pages(&mut self, catch_up: &mut CatchUp) {
        catch_up.set_aside = None;
        self.history.has_let_go |= catch_up.drop_pages();
        if std::mem::take(&mut catch_up.is_admitted) {
            self.history.admitted -= 1;
        }
    }

    /// Bytes of pages that may still be read.
    fn room_left(&self) -> usize {
        HISTORY_PAGES_BYTES_MAX.saturating_sub(self.history.room_taken())
    }

    /// Whether another stream may hold so many bytes of pages more. One always may.
    fn has_room(&self, bytes: usize) -> bool {
        self.history.admitted == 0 || bytes <= self.room_left()
    }

    /// Admits those who wait in line, as far as there is room.
    pub(super) fn serve_line(&mut self) {
        if self.history.line.is_empty() {
            return;
        }
        if self.history.has_let_go {
            self.drop_idle_pages(HISTORY_PAGES_IDLE_BYTES_MAX);
        }
        while let Some(id) = self.history.line.front().copied() {
            let wanted = self.connections.catch_up_mut(id).map_or(0, |catch_up| catch_up.wanted);
            if !self.has_room(wanted) {
                break;
            }
            self.history.line.pop_front();
            let Some(catch_up) = self.connections.catch_up_mut(id) else { continue };
            let bytes = wanted.max(catch_up.places.len() * HISTORY_PAGE_BYTES_MIN);
            catch_up.set_aside = Some(Account::new(bytes, &self.history.set_aside));
            if !std::mem::replace(&mut catch_up.is_admitted, true) {
                self.history.admitted += 1;
            }
            self.wake(id);
        }
    }
}
