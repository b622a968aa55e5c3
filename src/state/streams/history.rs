//! Events that are kept: how far the worker's streams have come, and how what was missed while the
//! link was lost is made up for.
//!
//! Redis gives ids to kept events that grow over all channels, and executes one command after the
//! other. So one id, the position, tells how far a worker has come on all channels: of those whose
//! subscription stands, it has passed on every event up to there. It is what a stream begins with,
//! and what heartbeats tell.
//!
//! A subscription stands once Redis has acknowledged it and then told its newest id: what is
//! published later arrives, what was published before is history. A lost link is repaired before
//! anything else is passed on: what arrives meanwhile is held, every channel is read back to the
//! position, and then all events after it leave, in order of their ids over all channels.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::{LinkState, Streams};
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::history::{Clock, EventId};
use crate::ground::config::HistoryRules;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::{
    CLOCK_READ_INTERVAL, HISTORY_CACHE_BYTES, HISTORY_CACHE_BYTES_MAX, HISTORY_READS_MAX, TICK,
};
use crate::state::channels::Subscription;
use crate::state::deadlines::{Deadlines, Tick};
use crate::state::recent::{Kept, Reach, Reading, Recent};

/// A page of a channel's history that Redis is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRead {
    pub channel: ChannelId,
    /// The newest id of the page.
    pub newest: EventId,
    pub events: usize,
}

/// A worker's knowledge of what is kept.
#[derive(Debug)]
pub(super) struct History {
    rules: HistoryRules,
    /// Every event up to this one was passed on. `None`: no link has stood yet.
    pub(super) position: Option<EventId>,
    pub(super) repair: Option<Repair>,
    /// Channels that Redis acknowledged, and that stand when it has told its newest id.
    acknowledged: Vec<ChannelId>,
    /// Channels to be read, and how many readings are on their way.
    reads: VecDeque<ChannelId>,
    reads_asked: usize,
    /// Channels whose reading failed for the moment.
    delayed: Deadlines<ChannelId>,
    /// The newest id is to be asked for.
    pub(super) wants_clock: bool,
    /// How often it was asked for, and how often told.
    pub(super) clock_asked: u64,
    pub(super) clock_told: u64,
    clock_told_at: Tick,
    /// When it is asked for again, after Redis could not tell it.
    clock_due: Option<Tick>,
    /// Streams that wait for it.
    pub(super) clock_waiters: Vec<ConnectionId>,
    /// Streams that wait for the link, or for its repair.
    pub(super) suspended: Vec<ConnectionId>,
    /// A channel for each event that is kept in memory, oldest first.
    cached: VecDeque<ChannelId>,
    /// Its length at which those are taken out whose events are gone in another way.
    cached_max: usize,
    cached_bytes: usize,
    /// After the first id of each up to the second, there are events that Redis has lost.
    lost_times: Vec<(EventId, EventId)>,
    /// Channels that keep events in memory.
    pub(super) channels: usize,
}

/// The making up for what was missed while the link was lost.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// How far Redis had come when it told last.
    head: EventId,
    /// Everything that was asked when the link came up has been answered.
    is_settled: bool,
    is_begun: bool,
    /// Channels that are still read.
    missing: HashSet<ChannelId>,
}

/// Times whose events Redis has lost that are told apart.
const LOST_TIMES_MAX: usize = 8;

/// Entries of the list of cached events that are not worth being looked through.
const CACHED_MIN: usize = 1024;

/// Ticks after which what Redis could not tell for the moment is asked for again.
pub const DELAYED_TICKS: u32 = 10;

/// Events that are forgotten for each that comes, at most.
const FORGOTTEN_AT_ONCE_MAX: usize = 64;

impl History {
    pub(super) fn new(rules: HistoryRules) -> Self {
        Self {
            rules,
            position: None,
            repair: None,
            acknowledged: Vec::new(),
            reads: VecDeque::new(),
            reads_asked: 0,
            delayed: Deadlines::new(DELAYED_TICKS),
            wants_clock: false,
            clock_asked: 0,
            clock_told: 0,
            clock_told_at: Tick::default(),
            clock_due: None,
            clock_waiters: Vec::new(),
            suspended: Vec::new(),
            cached: VecDeque::new(),
            cached_max: CACHED_MIN,
            cached_bytes: 0,
            lost_times: Vec::new(),
            channels: 0,
        }
    }

    /// Whether events of a channel are kept, by its name in Redis.
    pub(super) fn keeps(&self, name: &[u8]) -> bool {
        self.rules.of(name).is_some()
    }

    /// The link speaks: streams begin with the newest id, whatever they listen to.
    pub(super) fn begin(&mut self) {
        self.wants_clock = !self.rules.is_empty();
    }

    /// Whether an id is of a time whose events Redis has lost: what came after it then is lost too,
    /// whatever came later.
    pub(super) fn is_of_lost_time(&self, id: EventId) -> bool {
        self.lost_times.iter().any(|(begin, end)| *begin < id && id <= *end)
    }

    /// Redis has gone back from one id to another. Of many such times the oldest become one.
    fn lose_time(&mut self, begin: EventId, end: EventId) {
        self.lost_times.push((begin, end));
        if self.lost_times.len() > LOST_TIMES_MAX {
            let (begin, _) = self.lost_times.remove(0);
            self.lost_times.iter_mut().take(1).for_each(|oldest| oldest.0 = begin);
        }
    }

    /// Whether what arrives may be passed on.
    pub(super) fn is_current(&self) -> bool {
        self.repair.is_none() && self.position.is_some()
    }
}

impl Streams {
    /// Whether events of the channel are kept.
    #[must_use]
    pub fn is_kept(&self, id: ChannelId) -> bool {
        self.channels.get(id).is_some_and(|channel| channel.recent.is_some())
    }

    /// Takes in an event that is kept, for all streams of its channel. False: one before it has not
    /// arrived, so the link can't be trusted and is to be given up.
    #[must_use]
    pub fn publish_kept(&mut self, id: ChannelId, event: Kept) -> bool {
        let Some(channel) = self.channels.get_mut(id) else { return true };
        let has_streams = channel.has_streams();
        let Some(recent) = &mut channel.recent else { return true };
        let (event_id, bytes) = (event.id, Rc::clone(&event.bytes));
        let before = recent.bytes();
        let is_next = recent.push(event);
        let stands = recent.floor().is_some();
        self.history.cached_bytes = self.history.cached_bytes + recent.bytes() - before;
        self.history.cached.push_back(id);
        if !is_next {
            self.counters.gaps.add(1);
            self.history.repair.get_or_insert_default();
        }
        match &mut self.history.repair {
            Some(repair) => repair.head = repair.head.max(event_id),
            None if stands => {
                self.history.position = self.history.position.max(Some(event_id));
                if has_streams && !bytes.is_empty() {
                    self.publish(id, &bytes);
                }
            }
            None => {}
        }
        self.bound_cache();
        is_next
    }

    /// Notes that an event was published that is not kept, on a channel whose events are.
    pub fn note_plain(&mut self, id: ChannelId) {
        let position = self.history.position.unwrap_or_default();
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.last_plain = Some(position);
        }
    }

    /// Notes that an event could not be taken in.
    pub fn note_skipped(&mut self, id: ChannelId) {
        if let Some(recent) = self.channels.recent_mut(id) {
            self.history.cached_bytes -= recent.bytes();
            recent.skip();
        }
    }

    /// Whether Redis is to be asked for its newest id now; to be asked once.
    pub fn takes_clock_wish(&mut self) -> bool {
        let wants = std::mem::take(&mut self.history.wants_clock);
        self.history.clock_asked += u64::from(wants);
        wants
    }

    /// Redis had no newest id yet: it is asked again.
    pub fn repeat_clock(&mut self) {
        self.history.clock_told += 1;
        self.history.wants_clock = true;
    }

    /// Redis can't tell its newest id for the moment: it is asked again after so many ticks.
    pub fn delay_clock(&mut self, ticks: u32) {
        self.history.clock_told += 1;
        self.history.clock_due = Some(self.now.after(ticks));
    }

    /// The history of this Redis can't be read: from now on streams are live only.
    pub fn give_history_up(&mut self) {
        if self.history.rules.is_empty() {
            return;
        }
        let rules = HistoryRules::default();
        let suspended = std::mem::take(&mut self.history.suspended);
        let waiters = std::mem::take(&mut self.history.clock_waiters);
        let acknowledged = std::mem::take(&mut self.history.acknowledged);
        self.history = History { position: Some(EventId::ZERO), ..History::new(rules) };
        self.ready.extend(suspended.into_iter().chain(waiters));
        for id in self.channels.ids() {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            if let Some(recent) = channel.recent.take() {
                self.ready.extend(recent.waiters);
            }
        }
        acknowledged.into_iter().for_each(|id| self.stand(id));
    }

    /// Redis told its newest id: what it acknowledged before stands.
    pub fn tell_clock(&mut self, clock: Clock) {
        self.history.clock_told += 1;
        self.history.clock_told_at = self.now;
        match &mut self.history.repair {
            Some(repair) => repair.head = repair.head.max(clock.newest),
            None => self.history.position = self.history.position.max(Some(clock.newest)),
        }
        for id in std::mem::take(&mut self.history.acknowledged) {
            if let Some(recent) = self.channels.recent_mut(id) {
                recent.align(clock.newest);
            }
            self.stand(id);
            self.wake_waiters(id);
        }
        self.ready.extend(self.history.clock_waiters.drain(..));
        self.begin_repair();
        if self.history.is_current() {
            self.ready.extend(self.history.suspended.drain(..));
        }
    }

    /// Redis has fewer events than streams have seen: it has lost some, and begun anew.
    #[must_use]
    pub fn is_ahead_of(&self, clock: Clock) -> bool {
        self.history.position.is_some_and(|position| position > clock.newest)
    }

    /// Everything was lost with Redis: all streams are told, and begin anew with its newest id.
    pub fn begin_anew(&mut self, clock: Clock) {
        if let Some(position) = self.history.position.replace(clock.newest) {
            self.history.lose_time(clock.newest, position);
        }
        // One that is still to begin goes on, so that nobody is told of the lost link again.
        let repair = self.history.repair.take_if(|repair| !repair.is_begun);
        self.history.repair = repair.map(|Repair { is_settled, .. }| Repair {
            head: clock.newest,
            is_settled,
            ..Repair::default()
        });
        let mut anew = Vec::new();
        event_stream::encode_id(clock.newest.to_string().as_bytes(), &mut anew);
        anew.push(b'\n');
        let anew: Rc<[u8]> = anew.into();
        for id in self.channels.ids() {
            if self.is_kept(id) && self.has_streams(id) {
                self.reset(id, ResetReason::LinkLost);
                // The ids of before may lie ahead of those to come.
                self.publish(id, &anew);
            }
        }
    }

    /// Redis acknowledged the subscription of a channel whose events are kept.
    pub(super) fn await_clock(&mut self, id: ChannelId) {
        if let Some(recent) = self.channels.recent_mut(id) {
            // What arrived before belongs to a subscription that ended.
            self.history.cached_bytes -= recent.begin();
        }
        self.history.acknowledged.push(id);
        // One that was asked for behind the subscription is still to be told.
        self.history.wants_clock |= self.history.clock_asked == self.history.clock_told;
    }

    /// Once in a tick: asks for the newest id from time to time, so that the position of quiet
    /// streams moves on with those of others.
    pub fn history_tick(&mut self) {
        while let Some((_, id)) = self.history.delayed.pop_due(self.now) {
            let Some(recent) = self.channels.recent_mut(id) else {
                continue;
            };
            if recent.reading == Reading::Delayed {
                recent.reading = Reading::Listed;
                self.history.reads.push_back(id);
            }
        }
        if self.history.clock_due.take_if(|due| self.now.has_reached(*due)).is_some() {
            self.history.wants_clock = true;
        }
        let interval = CLOCK_READ_INTERVAL.as_millis() / TICK.as_millis();
        let is_due = u128::from(self.now.since(self.history.clock_told_at)) >= interval;
        let is_asked = self.history.clock_asked > self.history.clock_told;
        if self.history.channels > 0 && self.link == LinkState::Up && is_due && !is_asked {
            self.history.wants_clock = true;
        }
        if self.history.suspended.len() > 2 * self.connections.len() + 1024 {
            let connections = &self.connections;
            self.history.suspended.retain(|id| connections.get(*id).is_some());
        }
    }

    /// Everything that was asked when the link came up has been answered: what was missed is to be
    /// made up for.
    pub fn repair(&mut self) {
        if let Some(repair) = &mut self.history.repair {
            repair.is_settled = true;
        }
        self.begin_repair();
    }

    /// Reads back to where the last link was lost, once all channels stand.
    fn begin_repair(&mut self) {
        let Some(position) = self.history.position else { return };
        let Some(repair) = &mut self.history.repair else { return };
        if !repair.is_settled || !self.history.acknowledged.is_empty() {
            return;
        }
        if std::mem::replace(&mut repair.is_begun, true) {
            return;
        }
        for id in self.channels.ids() {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            let (has_streams, stands) =
                (channel.has_streams(), channel.subscription == Subscription::Standing);
            let Some(recent) = &mut channel.recent else { continue };
            if !has_streams || !stands {
                continue;
            }
            recent.is_repaired = true;
            if recent.reach(position) == Reach::Readable {
                repair.missing.insert(id);
                want(recent, id, &mut self.history.reads);
            }
        }
        if repair.missing.is_empty() {
            self.end_repair();
        }
    }

    /// What was missed is here: it leaves, in the order in which it was published.
    fn end_repair(&mut self) {
        let Some(repair) = self.history.repair.take() else { return };
        let Some(position) = self.history.position else { return };
        let mut missed: Vec<(EventId, ChannelId, Rc<[u8]>)> = Vec::new();
        let mut resets = Vec::new();
        for id in self.channels.ids() {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            let has_streams = channel.has_streams_left();
            let Some(recent) = &mut channel.recent else { continue };
            recent.is_repaired = false;
            if !has_streams {
                continue;
            }
            match recent.reach(position) {
                Reach::Covered if recent.last_plain.is_some() => {
                    resets.push((id, self.link_loss));
                }
                Reach::Covered => {}
                Reach::Hole | Reach::Readable => resets.push((id, ResetReason::HistoryTrimmed)),
                Reach::Unknown => {
                    recent.has_gone_on_without = true;
                    resets.push((id, ResetReason::LinkLost));
                }
            }
            missed.extend(
                recent
                    .after(position)
                    .filter(|event| !event.bytes.is_empty())
                    .map(|event| (event.id, id, Rc::clone(&event.bytes))),
            );
        }
        for (id, reason) in resets {
            self.reset(id, reason);
        }
        missed.sort_unstable_by_key(|(event, ..)| *event);
        self.counters.repaired.add(missed.len() as u64);
        for (_, id, bytes) in missed {
            self.publish(id, &bytes);
        }
        self.history.position = Some(position.max(repair.head));
        self.ready.extend(self.history.suspended.drain(..));
        self.bound_cache();
    }

    /// The link is lost: what is kept in memory does not lead up to what comes next.
    pub(super) fn lose_history(&mut self) {
        let history = &mut self.history;
        if history.position.is_some() {
            let repair = history.repair.get_or_insert_default();
            (repair.is_settled, repair.is_begun) = (false, false);
            repair.missing.clear();
        }
        history.acknowledged.clear();
        history.reads.clear();
        history.reads_asked = 0;
        history.delayed = Deadlines::new(DELAYED_TICKS);
        history.clock_told = history.clock_asked;
        history.clock_due = None;
        history.suspended.append(&mut history.clock_waiters);
        for id in self.channels.ids() {
            if let Some(recent) = self.channels.recent_mut(id) {
                self.history.cached_bytes -= recent.lose(self.now);
            }
            self.wake_waiters(id);
        }
        self.history.cached = VecDeque::new();
        debug_assert_eq!(self.history.cached_bytes, 0);
    }

    /// Wants more of a channel's history.
    pub(super) fn want(&mut self, id: ChannelId) {
        if let Some(recent) = self.channels.recent_mut(id) {
            want(recent, id, &mut self.history.reads);
        }
    }

    /// The next page that Redis is to be asked for.
    pub fn next_read(&mut self, event_bytes_max: usize) -> Option<PageRead> {
        while self.history.reads_asked < HISTORY_READS_MAX {
            let id = self.history.reads.pop_front()?;
            let Some(recent) = self.channels.recent_mut(id) else {
                continue;
            };
            recent.reading = Reading::Idle;
            let Some(newest) = recent.floor() else { continue };
            let events = recent.next_page(event_bytes_max, self.now);
            if events == 0 || self.history.cached_bytes > HISTORY_CACHE_BYTES_MAX {
                recent.give_up();
                self.after_reading(id);
                continue;
            }
            recent.reading = Reading::Asked;
            self.history.reads_asked += 1;
            self.counters.history_reads.add(1);
            return Some(PageRead { channel: id, newest, events });
        }
        None
    }

    /// A page that was asked for: events from the newest to the oldest. `expired`: see
    /// [`Recent::extend`].
    pub fn read_page(&mut self, read: PageRead, page: Vec<Kept>, expired: EventId) {
        self.history.reads_asked = self.history.reads_asked.saturating_sub(1);
        let id = read.channel;
        let Some(recent) = self.channels.recent_mut(id) else {
            return;
        };
        recent.reading = Reading::Idle;
        self.history.cached.extend(std::iter::repeat_n(id, page.len()));
        self.history.cached_bytes += recent.extend(page, read.events, expired);
        self.after_reading(id);
    }

    /// A page can't be had: for the moment, or at all.
    pub fn fail_page(&mut self, id: ChannelId, for_good: bool) {
        self.history.reads_asked = self.history.reads_asked.saturating_sub(1);
        let Some(recent) = self.channels.recent_mut(id) else {
            return;
        };
        if for_good {
            recent.reading = Reading::Idle;
            recent.give_up();
            self.after_reading(id);
        } else {
            recent.reading = Reading::Delayed;
            self.history.delayed.push(self.now, id);
        }
    }

    /// A channel's history reaches deeper, or can't.
    fn after_reading(&mut self, id: ChannelId) {
        self.wake_waiters(id);
        let Some(recent) = self.channels.recent_mut(id) else {
            return;
        };
        let (Some(position), Some(repair)) = (self.history.position, &mut self.history.repair)
        else {
            return self.bound_cache();
        };
        if !repair.missing.contains(&id) {
            return;
        }
        if recent.reach(position) == Reach::Readable {
            return want(recent, id, &mut self.history.reads);
        }
        repair.missing.remove(&id);
        if repair.is_begun && repair.missing.is_empty() {
            self.end_repair();
        }
    }

    /// Lets the streams that wait for a channel look again.
    pub(super) fn wake_waiters(&mut self, id: ChannelId) {
        if let Some(recent) = self.channels.recent_mut(id) {
            self.ready.extend(std::mem::take(&mut recent.waiters));
        }
    }

    /// Forgets the oldest events while more are kept in memory than should be, some at a time.
    fn bound_cache(&mut self) {
        if self.history.cached.len() > self.history.cached_max {
            self.tidy_cached();
        }
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            if self.history.cached_bytes <= HISTORY_CACHE_BYTES {
                return;
            }
            let Some(id) = self.history.cached.pop_front() else { return };
            let Some(recent) = self.channels.recent_mut(id) else {
                continue;
            };
            if recent.is_needed() {
                // Somebody waits for it, and will not for long.
                self.history.cached.push_back(id);
            } else {
                self.history.cached_bytes -= recent.forget_oldest();
            }
        }
    }

    /// Takes out what was cached and is gone by now. O(n), paid for by as many as have come.
    fn tidy_cached(&mut self) {
        let mut counted: HashMap<ChannelId, usize> = HashMap::new();
        let mut kept = VecDeque::new();
        for id in std::mem::take(&mut self.history.cached).into_iter().rev() {
            let count = counted.entry(id).or_default();
            if self.channels.recent_mut(id).is_some_and(|recent| *count < recent.count()) {
                *count += 1;
                kept.push_front(id);
            }
        }
        self.history.cached_max = 2 * kept.len() + CACHED_MIN;
        self.history.cached = kept;
    }

    /// A channel is forgotten, and what is kept of it.
    pub(super) fn forget_recent(&mut self, id: ChannelId) {
        if let Some(recent) = self.channels.get_mut(id).and_then(|c| c.recent.take()) {
            self.history.cached_bytes -= recent.bytes();
            self.history.channels -= 1;
        }
    }
}

fn want(recent: &mut Recent, id: ChannelId, reads: &mut VecDeque<ChannelId>) {
    if recent.reading == Reading::Idle {
        recent.reading = Reading::Listed;
        reads.push_back(id);
    }
}

#[cfg(test)]
mod tests;
