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
    HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_BYTES_MIN, HISTORY_PAGES_BYTES_MAX,
    HISTORY_PAGES_IDLE_BYTES_MAX, HISTORY_READING_BYTES_MAX,
};
use crate::state::catch_up::CatchUp;
use crate::state::history_page::{HistoryPage, PageDraft};
use crate::state::recent::{HistoryRead, Index, Need, Question, Reading, Waiter};

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
        let mut bytes = recent.next_bytes();
        if recent.repair.is_some() {
            bytes = self.repair_bytes(if bytes > HISTORY_PAGE_BYTES_MAX { bytes } else { 0 });
        }
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
            let Some((recent, bytes)) = listed else {
                self.history.reads.pop_front();
                continue;
            };
            if asked_bytes > 0 && asked_bytes + bytes > HISTORY_READING_BYTES_MAX {
                return None;
            }
            self.history.reads.pop_front();
            self.history.listed_bytes -= bytes;
            recent.reading = Reading::Idle;
            match recent.next_question(bytes, now) {
                None => {}
                Some(Ok(question)) => {
                    let from = match question {
                        Question::Page { from, .. } => from,
                        Question::Newest { to, .. } => to,
                    };
                    recent.reading = Reading::Asked(bytes, from);
                    self.history.asked_bytes += bytes;
                    self.counters.history_reads.add(1);
                    return Some(HistoryRead { channel: id, question });
                }
                Some(Err((from, to))) => self.add_lost_page(id, from, to),
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
        let is_tight = 2 * (sum.get() + self.history.listed_bytes) > HISTORY_PAGES_BYTES_MAX;
        let Some(recent) = self.channels.recent_mut(id) else { return };
        let last = draft.last();
        let page = match (end, last) {
            (ReadEnd::Big { bytes }, _) if bytes > bytes_max => {
                recent.grow_pages(bytes);
                return self.list_reading(id);
            }
            (ReadEnd::More, Some(last)) => {
                if !is_tight {
                    recent.grow_pages(0);
                }
                HistoryPage::new(from, last.min(to), draft, sum)
            }
            (ReadEnd::End { .. }, Some(_)) => {
                recent.shrink_pages();
                HistoryPage::new(from, to, draft, sum)
            }
            (ReadEnd::End { oldest: Some((oldest, previous)) }, None) => {
                // Nothing between two events that are there was forgotten.
                let lost_until = if oldest <= from { from } else { previous.max(from) };
                HistoryPage::empty(from, to, lost_until, sum)
            }
            (ReadEnd::End { oldest: None }, None) => {
                recent.reading = Reading::Asked(0, from);
                self.history.vanished.push((id, from, to));
                return self.history.wish_clock(ClockWish::WithEvictions);
            }
            // No progress can be made there.
            (ReadEnd::More | ReadEnd::Big { .. }, _) => HistoryPage::empty(from, to, to, sum),
        };
        self.add_page(id, from, page);
    }

    /// The ids of the newest events, newest first, and the one before the last; `None`: there are
    /// none.
    pub fn take_index(&mut self, read: HistoryRead, newest: Option<(EventId, Vec<EventId>)>) {
        let id = read.channel;
        let Question::Newest { count, to } = read.question else { return };
        if !self.end_reading(id) {
            return;
        }
        let Some(recent) = self.channels.recent_mut(id) else { return };
        if recent.floor() == Some(to) {
            let (previous, ids) = newest.unwrap_or((to, Vec::new()));
            let is_whole = ids.len() < count;
            recent.set_index(Index { ids, previous, is_whole });
            self.history.indexed.push(id);
        }
        self.wake_met(id, None);
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
            Question::Page { from, to, .. } => self.add_lost_page(id, from, to),
            Question::Newest { .. } => self.take_index_of_nothing(read),
        }
    }

    /// Ids that can't be had: as if nothing were kept.
    fn take_index_of_nothing(&mut self, read: HistoryRead) {
        if let Some(recent) = self.channels.recent_mut(read.channel) {
            recent.reading = Reading::Asked(0, EventId::ZERO);
        }
        self.take_index(read, None);
    }

    /// An answer has come. False if it is none to what is asked.
    fn end_reading(&mut self, id: ChannelId) -> bool {
        let Some(recent) = self.channels.recent_mut(id) else { return false };
        let Reading::Asked(bytes, _) = recent.reading else { return false };
        recent.reading = Reading::Idle;
        self.history.asked_bytes -= bytes;
        true
    }

    /// What can't be had counts as lost.
    fn add_lost_page(&mut self, id: ChannelId, from: EventId, to: EventId) {
        let page = HistoryPage::empty(from, to, to, &self.history.page_bytes);
        self.add_page(id, from, page);
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
        recent.add_page(Rc::clone(&page));
        let repaired = recent.repair.filter(|(missed, _)| *missed == from);
        self.history.paged.push_back(id);
        if let Some(repaired) = repaired {
            self.take_repair_page(id, Rc::clone(&page), repaired);
        }
        self.wake_met(id, Some(&page));
        self.drop_idle_pages(HISTORY_PAGES_IDLE_BYTES_MAX);
    }

    /// Lets the streams go on whose need is met; they hold the page from now on. The others need
    /// another.
    pub(super) fn wake_met(&mut self, id: ChannelId, page: Option<&Rc<HistoryPage>>) {
        let connections = &self.connections;
        let Some(recent) = self.channels.recent_mut(id) else { return };
        let met = recent.take_met(|waiter| connections.get(waiter.stream).is_some());
        let has_waiters = recent.has_waiters();
        for Waiter { stream, ticket, need } in met {
            let Some(catch_up) = self.connections.catch_up_mut(stream) else { continue };
            if let (Some(page), Need::After(cursor)) = (page, need)
                && page.continues(cursor)
                && let Some(place) = catch_up.places.iter_mut().find(|place| place.channel == id)
            {
                place.page = Some(Rc::clone(page));
            }
            if catch_up.arrived(ticket) {
                self.wake(stream);
            }
        }
        if has_waiters {
            self.list_reading(id);
        }
    }

    /// Lets pages go that nobody holds, the oldest first, until the rest is no more than `max`.
    pub(super) fn drop_idle_pages(&mut self, max: usize) {
        for _ in 0..self.history.paged.len() {
            if self.history.page_bytes.get() <= max {
                return;
            }
            let Some(id) = self.history.paged.pop_front() else { return };
            let Some(recent) = self.channels.recent_mut(id) else { continue };
            recent.drop_pages();
            if recent.has_pages() {
                self.history.paged.push_back(id);
            }
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
            let bytes = needs.iter().filter_map(|(channel, _)| {
                let recent = self.recent(*channel)?;
                (recent.reading == Reading::Idle).then(|| recent.next_bytes())
            });
            let bytes = bytes.sum();
            if !self.history.line.is_empty() || !self.has_room(bytes) {
                catch_up.drop_pages();
                catch_up.wait(0);
                return self.history.line.push_back(id);
            }
            catch_up.is_admitted = true;
            self.history.admitted += 1;
        }
        catch_up.has_read = true;
        let ticket = catch_up.wait(needs.len());
        for (channel, need) in needs {
            if let Some(recent) = self.channels.recent_mut(channel) {
                recent.wait(Waiter { stream: id, ticket, need });
            }
            self.list_reading(channel);
        }
    }

    /// The stream holds nothing any more.
    pub(super) fn release_pages(&mut self, catch_up: &mut CatchUp) {
        catch_up.drop_pages();
        if std::mem::take(&mut catch_up.is_admitted) {
            self.history.admitted -= 1;
        }
    }

    /// Whether another stream may hold so many bytes of pages more. One always may.
    fn has_room(&self, bytes: usize) -> bool {
        let history = &self.history;
        let taken = history.page_bytes.get() + history.listed_bytes + history.asked_bytes;
        history.admitted == 0 || taken + bytes <= HISTORY_PAGES_BYTES_MAX
    }

    /// Admits those who wait in line, as far as there is room.
    pub(super) fn serve_line(&mut self) {
        if self.history.line.is_empty() {
            return;
        }
        self.drop_idle_pages(HISTORY_PAGES_IDLE_BYTES_MAX);
        // What those will ask for who are admitted now.
        let mut expected = 0;
        while self.has_room(expected + HISTORY_PAGE_BYTES_MIN)
            && let Some(id) = self.history.line.pop_front()
        {
            let Some(catch_up) = self.connections.catch_up_mut(id) else { continue };
            expected += catch_up.places.len() * HISTORY_PAGE_BYTES_MIN;
            if !std::mem::replace(&mut catch_up.is_admitted, true) {
                self.history.admitted += 1;
            }
            self.wake(id);
        }
    }
}
