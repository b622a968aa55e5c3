//! The making up for what was missed while the link was lost, or on a channel whose events break
//! their chain: before anything newer is passed on, and in the order of publication.
//!
//! Of all channels that stand again Redis is asked for the newest id, hundreds at a time, since
//! most have nothing new. Those that have are read forwards from where they were, and what they
//! missed leaves merged by id, up to where all are known. What arrives meanwhile is held behind
//! that. All of it has a bound: what is held and exceeds it is dropped and read again; channels
//! whose pages exceed it are told that they have missed something.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::Streams;
use super::clock::{ClockWish, DELAYED_TICKS, DISTRUST_TICKS};
use crate::bytes::event_stream::ResetReason;
use crate::bytes::history::EventId;
use crate::ground::ids::ChannelId;
use crate::ground::limits::{
    HISTORY_PAGE_BYTES_MAX, REPAIR_HELD_BYTES_MAX, REPAIR_PAGE_BYTES_MIN, REPAIR_PAGES_BYTES_MAX,
};
use crate::state::channels::Subscription;
use crate::state::deadlines::Tick;
use crate::state::history_page::HistoryPage;
use crate::state::recent::Kept;

#[derive(Debug, Default)]
pub(super) struct Repair {
    stage: Stage,
    /// How far Redis had come when it told last.
    head: EventId,
    /// Channels whose newest id is to be asked, and how many questions are on their way.
    to_count: VecDeque<ChannelId>,
    counting: usize,
    paused_until: Option<Tick>,
    /// Channels of which Redis keeps nothing up to an id.
    vanished: Vec<(ChannelId, EventId)>,
    /// Channels that are to be read on, by the id up to which they were passed on.
    unread: BTreeSet<(EventId, ChannelId)>,
    /// The next event of each channel that has a page at hand.
    next: BinaryHeap<Reverse<(EventId, ChannelId)>>,
    pages: HashMap<ChannelId, Source>,
    /// What has arrived, and its bytes. In the order of ids, for one that was forged is not to keep
    /// the others waiting.
    held: BTreeMap<(EventId, ChannelId), Kept>,
    held_bytes: usize,
    /// Events named others before them that had not arrived. At most one a channel.
    doubts: Vec<Doubt>,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    channel: ChannelId,
    /// The last event of the channel that arrived before, and the one that is named.
    arrived: EventId,
    named: EventId,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The link is not there, or not everything that was asked when it came up is answered.
    #[default]
    Connecting,
    Settled,
    /// The channels' newest ids are asked for.
    Counting,
    /// What was missed is read and passed on.
    Reading,
}

/// A page that is being passed on.
#[derive(Debug)]
struct Source {
    page: Rc<HistoryPage>,
    /// The number of the next entry.
    number: usize,
    /// What was missed goes up to here.
    to: EventId,
}

/// What comes next.
enum Next {
    Page(ChannelId),
    Held,
    End,
    /// Something has to be read first.
    Wait,
}

impl Repair {
    /// Notes how far Redis has come.
    pub(super) fn tell(&mut self, newest: EventId) {
        self.head = self.head.max(newest);
    }

    /// Redis has gone back: what it told before does not count.
    pub(super) fn begin_anew(&mut self) {
        self.head = EventId::ZERO;
        self.held.clear();
        self.held_bytes = 0;
        self.unread.clear();
        self.next.clear();
        self.pages.clear();
        self.doubts.clear();
    }

    /// The link is lost: all that was asked and held belongs to it.
    pub(super) fn lose(&mut self) {
        *self = Self::default();
    }

    /// Whether channels are read, or about to be.
    pub(super) fn is_begun(&self) -> bool {
        matches!(self.stage, Stage::Counting | Stage::Reading)
    }

    /// Whether it names channels, which are not to be forgotten meanwhile.
    pub(super) fn has_channels(&self) -> bool {
        self.is_begun() || !self.held.is_empty()
    }

    /// Of a channel that is doubted, the event that arrived last.
    pub(super) fn doubted(&self, channel: ChannelId) -> Option<EventId> {
        self.doubts.iter().find(|doubt| doubt.channel == channel).map(|doubt| doubt.arrived)
    }

    /// An event of a channel has arrived that is not held. One of before it that has not, and that
    /// a doubt is about, comes before it.
    pub(super) fn note_arrival(&mut self, channel: ChannelId, id: EventId) {
        for doubt in self.doubts.iter_mut().filter(|doubt| doubt.channel == channel) {
            doubt.named = doubt.named.min(id.before().unwrap_or_default());
        }
    }

    /// Takes in an event that arrived. True if more is held than may be.
    pub(super) fn hold(&mut self, channel: ChannelId, event: Kept) -> bool {
        self.held_bytes += cost(&event);
        let same = self.held.insert((event.id, channel), event);
        self.held_bytes -= same.map_or(0, |same| cost(&same));
        self.held_bytes > REPAIR_HELD_BYTES_MAX
    }

    /// Lets go what is held of a channel after `id`.
    pub(super) fn forget_after(&mut self, channel: ChannelId, id: EventId) {
        self.held.retain(|(event, of), _| *of != channel || *event <= id);
        self.held_bytes = self.held.values().map(cost).sum();
    }

    /// Bytes of what is held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn next(&mut self, is_aligned: bool) -> Next {
        if self.stage != Stage::Reading || !is_aligned {
            return Next::Wait;
        }
        // What was at hand of a channel may have gone since.
        while self.next.peek().is_some_and(|Reverse(next)| !self.is_at_hand(*next)) {
            self.next.pop();
        }
        let limit = self.unread.first().map(|(id, _)| *id);
        let is_known = |id: EventId| limit.is_none_or(|limit| id <= limit);
        let page = self.next.peek().map(|Reverse(next)| *next);
        let held = self.held.first_key_value().map(|((id, _), _)| *id);
        match (page, held) {
            (Some((id, channel)), held) if held.is_none_or(|held| id < held) => {
                if is_known(id) {
                    Next::Page(channel)
                } else {
                    Next::Wait
                }
            }
            (_, Some(id)) => {
                if is_known(id) {
                    Next::Held
                } else {
                    Next::Wait
                }
            }
            _ if self.unread.is_empty() => Next::End,
            _ => Next::Wait,
        }
    }

    fn is_at_hand(&self, (id, channel): (EventId, ChannelId)) -> bool {
        let source = self.pages.get(&channel);
        let entry = source.and_then(|source| source.page.entry(source.number));
        entry.is_some_and(|(entry, _)| entry.id == id)
    }
}

impl Streams {
    /// Everything that was asked when the link came up has been answered: what was missed is to be
    /// made up for.
    pub fn repair(&mut self) {
        if let Some(repair) = &mut self.history.repair
            && repair.stage == Stage::Connecting
        {
            repair.stage = Stage::Settled;
        }
        self.begin_repair();
    }

    /// Asks what was missed, once all channels stand.
    pub(super) fn begin_repair(&mut self) {
        let is_aligned = self.history.acknowledged.is_empty();
        let Some(repair) = &mut self.history.repair else { return };
        if self.history.position.is_none() || repair.stage != Stage::Settled || !is_aligned {
            return;
        }
        repair.stage = Stage::Counting;
        let mut to_count = VecDeque::new();
        for id in self.channels.ids() {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            let has_streams = channel.has_streams_left();
            let stands = channel.subscription == Subscription::Standing;
            let Some(recent) = &mut channel.recent else { continue };
            if !has_streams {
                continue;
            }
            if stands {
                to_count.push_back(id);
            } else {
                recent.has_gone_on_without = true;
            }
            // Nothing makes up for what was published there without history, or is while the
            // channel is refused.
            if !stands || self.is_mixed(id) {
                self.reset_at(id, self.link_loss, None);
            }
        }
        let is_empty = to_count.is_empty();
        if let Some(repair) = &mut self.history.repair {
            repair.to_count = to_count;
            if is_empty {
                repair.stage = Stage::Reading;
            }
        }
        self.wake_repair();
    }

    /// An event of the channel says that another came before it, which has not arrived. That is
    /// looked up; meanwhile nothing is passed on.
    pub(super) fn doubt(&mut self, id: ChannelId, named: EventId) {
        let until = self.now.after(DISTRUST_TICKS);
        let mut arrived = EventId::ZERO;
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.distrusted_until = Some(until);
            arrived = recent.newest().unwrap_or_default();
        }
        let repair = self
            .history
            .repair
            .get_or_insert_with(|| Box::new(Repair { stage: Stage::Reading, ..Repair::default() }));
        repair.doubts.retain(|doubt| doubt.channel != id);
        repair.doubts.push(Doubt { channel: id, arrived, named });
        self.realign(id);
    }

    /// More is held than may be: it is read again, from where it was.
    pub(super) fn drop_held(&mut self) {
        let Some(repair) = &mut self.history.repair else { return };
        let held = std::mem::take(&mut repair.held);
        repair.held_bytes = 0;
        let channels: HashSet<ChannelId> = held.into_keys().map(|(_, channel)| channel).collect();
        for id in channels {
            self.realign(id);
        }
    }

    /// Of a channel what comes after `from` was missed, up to `to`.
    pub(super) fn miss(&mut self, id: ChannelId, from: EventId, to: EventId) {
        let Some(recent) = self.channels.recent_mut(id) else { return };
        recent.passed = recent.passed.max(from);
        let before = recent.repair.replace((from, to));
        if let Some(repair) = &mut self.history.repair {
            if let Some((before, _)) = before {
                repair.unread.remove(&(before, id));
            }
            // What is at hand of it is read again.
            repair.pages.remove(&id);
            repair.unread.insert((from, id));
        }
        self.list_reading(id);
    }

    /// Channels whose newest id is to be asked, at most `max`.
    pub fn next_newest(&mut self, max: usize) -> Vec<ChannelId> {
        let Some(repair) = &mut self.history.repair else { return Vec::new() };
        if repair.paused_until.is_some_and(|until| !self.now.has_reached(until)) {
            return Vec::new();
        }
        let count = repair.to_count.len().min(max);
        let ids: Vec<ChannelId> = repair.to_count.drain(..count).collect();
        repair.counting += count;
        ids
    }

    /// Redis told the newest ids of channels, and the one before each; `None`: it keeps nothing.
    pub fn take_newest(&mut self, newest: &[(ChannelId, Option<(EventId, EventId)>)]) {
        let position = self.history.position.unwrap_or_default();
        for (id, newest) in newest {
            let Some(recent) = self.channels.recent_mut(*id) else { continue };
            let from = recent.passed.max(position);
            // It is aligned again otherwise, and read then.
            let Some(floor) = recent.floor() else { continue };
            match *newest {
                Some((_, last)) if last <= from => recent.passed = floor.max(from),
                Some((previous, last)) if last > floor && previous <= from => {
                    recent.passed = floor.max(from);
                }
                Some(_) => self.miss(*id, from, floor),
                None => {
                    if let Some(repair) = &mut self.history.repair {
                        repair.vanished.push((*id, floor));
                    }
                }
            }
        }
        self.end_counting(newest.len());
    }

    /// Of so many channels the newest id is known, or never will be.
    fn end_counting(&mut self, count: usize) {
        let Some(repair) = &mut self.history.repair else { return };
        repair.counting = repair.counting.saturating_sub(count);
        if repair.stage != Stage::Counting || repair.counting > 0 || !repair.to_count.is_empty() {
            return;
        }
        if repair.vanished.is_empty() {
            repair.stage = Stage::Reading;
            self.wake_repair();
        } else {
            // What it means that nothing is left of them the clock says.
            self.history.wish_clock(ClockWish::WithEvictions);
        }
    }

    /// The newest ids can't be had: for the moment, or at all.
    pub fn fail_newest(&mut self, channels: Vec<ChannelId>, for_good: bool) {
        let until = self.now.after(DELAYED_TICKS);
        if let Some(repair) = &mut self.history.repair
            && !for_good
        {
            repair.counting = repair.counting.saturating_sub(channels.len());
            repair.to_count.extend(channels);
            repair.paused_until = Some(until);
            return;
        }
        let position = self.history.position.unwrap_or_default();
        for id in &channels {
            let Some(recent) = self.channels.recent_mut(*id) else { continue };
            recent.passed = recent.floor().unwrap_or_default().max(position);
            self.reset_at(*id, ResetReason::HistoryTrimmed, None);
        }
        self.end_counting(channels.len());
    }

    /// The clock told up to where what is missing may have expired, after all was counted.
    pub(super) fn settle_counting(&mut self, expired: EventId) {
        let position = self.history.position.unwrap_or_default();
        let Some(repair) = &mut self.history.repair else { return };
        if repair.stage != Stage::Counting || repair.counting > 0 || !repair.to_count.is_empty() {
            return;
        }
        repair.stage = Stage::Reading;
        for (id, until) in std::mem::take(&mut repair.vanished) {
            let Some(recent) = self.channels.recent_mut(id) else { continue };
            let from = recent.passed.max(position);
            recent.passed = from.max(until);
            if expired.min(until) > from {
                self.reset_at(id, ResetReason::HistoryTrimmed, None);
            }
        }
        self.wake_repair();
    }

    /// Bytes of the next page of a channel that is made up for.
    pub(super) fn repair_bytes(&self, at_least: usize) -> usize {
        let channels = self.history.repair.as_ref().map_or(0, |repair| repair.unread.len());
        let share = REPAIR_PAGES_BYTES_MAX / channels.max(1);
        share.clamp(REPAIR_PAGE_BYTES_MIN, HISTORY_PAGE_BYTES_MAX).max(at_least)
    }

    /// A page of what was missed.
    pub(super) fn take_repair_page(
        &mut self,
        id: ChannelId,
        page: Rc<HistoryPage>,
        (from, to): (EventId, EventId),
    ) {
        let Some(recent) = self.channels.recent_mut(id) else { return };
        recent.repair = None;
        let is_lost = page.is_empty() && page.lost_until() > recent.passed.max(from);
        if is_lost {
            self.reset_at(id, ResetReason::HistoryTrimmed, None);
        }
        let is_over = self.history.page_bytes.get() > REPAIR_PAGES_BYTES_MAX;
        let Some(repair) = &mut self.history.repair else { return };
        repair.unread.remove(&(from, id));
        if let Some(place) = repair.doubts.iter().position(|doubt| doubt.channel == id) {
            let doubt = repair.doubts.swap_remove(place);
            // It is here, and had to have arrived. What is no event never does.
            let begin = page.position(doubt.arrived);
            let first = (begin..)
                .map_while(|number| Some(page.entry(number)?.0))
                .find(|entry| entry.previous < entry.id)
                .map(|entry| entry.id);
            self.has_gap |= first.is_some_and(|first| first <= doubt.named);
            // The clock passed it by: what comes late would take streams back.
            let position = self.history.position.unwrap_or_default();
            if first.is_some_and(|first| first <= position) {
                if let Some(recent) = self.channels.recent_mut(id) {
                    recent.passed = recent.passed.max(position);
                }
                self.reset_at(id, ResetReason::LinkLost, None);
            }
        }
        let Some(repair) = &mut self.history.repair else { return };
        match page.entry(0).map(|(entry, _)| entry) {
            Some(entry) => {
                repair.next.push(Reverse((entry.id, id)));
                repair.pages.insert(id, Source { page, number: 0, to });
                self.tell_hole(id, entry.previous);
            }
            None => self.end_repair_page(id, page.to(), to),
        }
        if is_over {
            self.give_unread_up();
        }
        self.wake_repair();
    }

    /// Everything of a channel up to `until` was passed on, of what was missed up to `to`.
    fn end_repair_page(&mut self, id: ChannelId, until: EventId, to: EventId) {
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.passed = recent.passed.max(until);
        }
        if until < to {
            self.miss(id, until, to);
        }
    }

    /// There is no room for pages of the channels that have none yet: their streams are told.
    fn give_unread_up(&mut self) {
        let Some(repair) = &mut self.history.repair else { return };
        for (_, id) in std::mem::take(&mut repair.unread) {
            self.counters.history_over_bound.add(1);
            if let Some(recent) = self.channels.recent_mut(id)
                && let Some((_, to)) = recent.repair.take()
            {
                recent.passed = recent.passed.max(to);
            }
            self.reset_at(id, ResetReason::HistoryTrimmed, None);
        }
    }

    /// An event that did not arrive is there: the link is to be given up. To be asked once.
    pub fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.has_gap)
    }

    fn wake_repair(&mut self) {
        self.has_repair_turn = true;
    }

    /// Passes on what was missed, at most `budget` events. Returns how many, and whether there is
    /// more to do now.
    pub(super) fn repair_turn(&mut self, budget: usize) -> (usize, bool) {
        let mut passed = 0;
        while passed < budget && self.intake_bytes <= self.limits.max_intake_bytes / 2 {
            let is_aligned = self.history.acknowledged.is_empty();
            let Some(repair) = &mut self.history.repair else { return (passed, false) };
            match repair.next(is_aligned) {
                Next::Page(id) => self.pass_page_event(id),
                Next::Held => {
                    let Some(((_, id), event)) = repair.held.pop_first() else { continue };
                    repair.held_bytes -= cost(&event);
                    self.pass_held(id, &event);
                }
                Next::Wait => return (passed, false),
                Next::End => {
                    self.end_repair();
                    return (passed, false);
                }
            }
            passed += 1;
        }
        (passed, true)
    }

    fn pass_page_event(&mut self, id: ChannelId) {
        let Some(repair) = &mut self.history.repair else { return };
        repair.next.pop();
        let Some(source) = repair.pages.get_mut(&id) else { return };
        let page = Rc::clone(&source.page);
        let (number, to) = (source.number, source.to);
        source.number += 1;
        let Some((entry, bytes)) = page.entry(number) else { return };
        match page.entry(number + 1) {
            Some((next, _)) => repair.next.push(Reverse((next.id, id))),
            None => _ = repair.pages.remove(&id),
        }
        let position = self.history.position.unwrap_or_default();
        let Some(recent) = self.channels.recent_mut(id) else { return };
        let is_new = recent.passed < entry.id;
        recent.passed = recent.passed.max(entry.id);
        if is_new {
            self.counters.repaired.add(1);
            self.history.position = Some(position.max(entry.id));
            if !bytes.is_empty() && self.has_streams(id) {
                self.publish(id, &Rc::from(bytes));
            }
        }
        match page.entry(number + 1) {
            Some((next, _)) => self.tell_hole(id, next.previous),
            None => self.end_repair_page(id, page.to(), to),
        }
    }

    /// Of a channel nothing is known up to the next event's predecessor. Its streams are told
    /// before anything later of their other channels passes that by.
    fn tell_hole(&mut self, id: ChannelId, previous: EventId) {
        let Some(recent) = self.channels.recent_mut(id) else { return };
        if previous > recent.passed {
            recent.passed = previous;
            self.reset_at(id, ResetReason::HistoryTrimmed, None);
        }
    }

    fn pass_held(&mut self, id: ChannelId, event: &Kept) {
        let position = self.history.position.unwrap_or_default();
        let Some(recent) = self.channels.recent_mut(id) else { return };
        if event.id <= recent.passed {
            return;
        }
        if event.is_chained && event.previous > recent.passed.max(position) {
            self.reset_at(id, ResetReason::HistoryTrimmed, None);
        }
        self.counters.repaired.add(1);
        self.pass_on(id, event);
    }

    /// What was missed was passed on.
    fn end_repair(&mut self) {
        let Some(repair) = self.history.repair.take() else { return };
        self.history.position = self.history.position.max(Some(repair.head));
        // What arrived meanwhile of channels that begin anew was dropped.
        for id in self.history.realigned.clone() {
            if self.has_streams(id) {
                self.reset_at(id, ResetReason::UnknownId, None);
            }
        }
        self.resume_suspended();
        self.drop_idle_pages(0);
    }
}

/// What an event takes that is held.
fn cost(event: &Kept) -> usize {
    event.bytes.len() + 2 * size_of::<Kept>()
}
