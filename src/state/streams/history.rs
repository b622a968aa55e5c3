//! Events that are kept: how far the worker's streams have come, and what Redis is asked.
//!
//! Redis gives ids to kept events that grow over all channels, and executes one command after the
//! other. So one id, the position, tells how far a worker has come on all channels: of those whose
//! subscription stands, it has passed on every event up to there. It is what a stream begins with,
//! and what heartbeats tell.
//!
//! Only Redis' own clock moves the position. Events that arrive run ahead of it and are passed on
//! under their ids; the clock is then asked, soon and not often. Whoever may publish may also send
//! what looks like an event that is kept: an id that the clock does not reach proves that, and
//! costs that channel a reset, and no other anything.
//!
//! A subscription stands once Redis has acknowledged it and then told its newest id: what is
//! published later arrives, what was published before is history.

use std::collections::VecDeque;

use super::clock::{ClockState, ClockWish, DELAYED_TICKS, DISTRUST_TICKS, Findings, Told};
use super::marks::Marks;
use super::repair::Repair;
use super::{LinkState, Streams};
use crate::bytes::event_stream::ResetReason;
use crate::bytes::history::EventId;
use crate::ground::config::HistoryRules;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::{CLOCK_READ_INTERVAL, TICK};
use crate::state::channels::Subscription;
use crate::state::deadlines::{Deadlines, Tick};
use crate::state::history_page::PageBytes;
use crate::state::recent::{Follows, Kept, Reading, Recent};

/// A worker's knowledge of what is kept.
#[derive(Debug)]
pub(super) struct History {
    rules: HistoryRules,
    /// Redis does not let us read it: streams are live only, for the time being.
    pub(super) is_given_up: bool,
    /// Every event up to this one was passed on. `None`: no link has stood yet.
    pub(super) position: Option<EventId>,
    /// Of events up to this id the clock knows nothing.
    pub(super) since: EventId,
    pub(super) repair: Option<Box<Repair>>,
    /// Channels that stand, or will, when Redis has told its newest id.
    pub(super) acknowledged: Vec<ChannelId>,
    /// Channels that begin anew then, and that nobody else waits for: their streams are told.
    pub(super) realigned: Vec<ChannelId>,
    /// Channels with events passed on that the clock has not confirmed.
    ahead: Vec<ChannelId>,
    pub(super) marks: Marks,
    clock: ClockState,
    /// Redis' time of day, and the worker's when it was told, both in milliseconds.
    time_told: (u64, u64),
    /// Streams that wait for the clock.
    pub(super) clock_waiters: Vec<ConnectionId>,
    /// Streams that wait for the link, or for its repair.
    pub(super) suspended: Vec<ConnectionId>,
    /// Streams that wait for room to hold pages in, in the order of their coming.
    pub(super) line: VecDeque<ConnectionId>,
    /// Streams that may hold pages while they wait.
    pub(super) admitted: usize,
    /// Channels to be read, and those whose reading failed for the moment.
    pub(super) reads: VecDeque<ChannelId>,
    pub(super) delayed: Deadlines<ChannelId>,
    /// Bytes set aside for pages that are to be asked, and for those that were.
    pub(super) listed_bytes: usize,
    pub(super) asked_bytes: usize,
    /// Pages found empty of channels of which nothing is left, until the clock says what that is.
    pub(super) vanished: Vec<(ChannelId, EventId, EventId)>,
    /// Bytes of all pages.
    pub(super) page_bytes: PageBytes,
    /// Bytes set aside for pages that streams wait for.
    pub(super) set_aside: PageBytes,
    /// Bytes of those that have come since those were let go last that nobody holds, and whether
    /// somebody has let some go since.
    pub(super) bytes_added: usize,
    pub(super) has_let_go: bool,
    /// Channels with pages that nobody may need any more, the oldest first.
    pub(super) paged: VecDeque<ChannelId>,
    /// Channels with ids of their newest events.
    pub(super) indexed: Vec<ChannelId>,
    /// When a stream that comes back looked last for what is at hand.
    pub(super) looked_at: Tick,
    /// A channel for each event that is kept in memory, oldest first.
    pub(super) cached: VecDeque<ChannelId>,
    /// Its length at which those are taken out whose events are gone in another way.
    pub(super) cached_max: usize,
    pub(super) cached_bytes: usize,
    /// After the first id of each up to the second, there are events that Redis has lost.
    lost_times: Vec<(EventId, EventId)>,
    /// Ids that streams were given and Redis never gave, the oldest first.
    forged: VecDeque<EventId>,
    /// Channels that were forgotten, the last first, and that streams had gone on without: up to an
    /// id, or until they stand again.
    pub(super) gone_on_without: VecDeque<(Box<[u8]>, Option<EventId>)>,
    /// Channels that keep events in memory.
    pub(super) channels: usize,
}

/// Forged ids that are remembered.
const FORGED_MAX: usize = 256;

/// Times whose events Redis has lost that are told apart.
const LOST_TIMES_MAX: usize = 8;

/// Entries of the list of cached events that are not worth being looked through.
pub(super) const CACHED_MIN: usize = 1024;

/// Ticks after which a history that can't be read is asked for again.
const GIVEN_UP_TICKS: u32 = 300;

/// Ticks after the last look of a stream that came back, after which pages that nobody holds go:
/// a crowd takes some seconds to come.
const IDLE_TICKS: u32 = 50;

impl History {
    pub(super) fn new(rules: HistoryRules, marks: Marks) -> Self {
        Self {
            rules,
            is_given_up: false,
            position: None,
            since: EventId::ZERO,
            repair: None,
            acknowledged: Vec::new(),
            realigned: Vec::new(),
            ahead: Vec::new(),
            marks,
            clock: ClockState::default(),
            time_told: (0, 0),
            clock_waiters: Vec::new(),
            suspended: Vec::new(),
            line: VecDeque::new(),
            admitted: 0,
            reads: VecDeque::new(),
            delayed: Deadlines::new(DELAYED_TICKS),
            listed_bytes: 0,
            asked_bytes: 0,
            vanished: Vec::new(),
            page_bytes: PageBytes::default(),
            set_aside: PageBytes::default(),
            bytes_added: 0,
            has_let_go: false,
            paged: VecDeque::new(),
            indexed: Vec::new(),
            looked_at: Tick::default(),
            cached: VecDeque::new(),
            cached_max: CACHED_MIN,
            cached_bytes: 0,
            lost_times: Vec::new(),
            forged: VecDeque::new(),
            gone_on_without: VecDeque::new(),
            channels: 0,
        }
    }

    /// Whether events of a channel are kept, by its name in Redis.
    pub(super) fn keeps(&self, name: &[u8]) -> bool {
        !self.is_given_up && self.rules.of(name).is_some()
    }

    /// The link speaks: streams begin with the newest id, whatever they listen to.
    pub(super) fn begin(&mut self) {
        if !self.rules.is_empty() {
            self.clock.wish = Some(ClockWish::Newest);
        }
    }

    pub(super) fn wish_clock(&mut self, wish: ClockWish) {
        self.clock.wish = self.clock.wish.max(Some(wish));
    }

    /// The number of the next answer of the clock that is asked for from now on.
    pub(super) fn next_clock(&mut self) -> u64 {
        self.wish_clock(ClockWish::Newest);
        self.clock.asked + 1
    }

    pub(super) fn has_told(&self, number: u64) -> bool {
        self.clock.told >= number
    }

    /// The time of day of Redis, as far as it is known.
    pub(super) fn redis_time_ms(&self, now_ms: u64) -> u64 {
        let (there, here) = self.time_told;
        there.saturating_add(now_ms.saturating_sub(here))
    }

    /// Whether an id is of a time whose events Redis has lost: what came after it then is lost too,
    /// whatever came later. One that somebody forged was of a time to come.
    pub(super) fn is_of_lost_time(&self, id: EventId) -> bool {
        self.lost_since(id).is_some() || self.forged.contains(&id)
    }

    /// The id after which the events are lost that an id is among.
    pub(super) fn lost_since(&self, id: EventId) -> Option<EventId> {
        let (begin, _) = self.lost_times.iter().find(|(begin, end)| *begin < id && id <= *end)?;
        Some(*begin)
    }

    fn note_forged(&mut self, id: EventId) {
        if self.forged.len() == FORGED_MAX {
            self.forged.pop_front();
        }
        self.forged.push_back(id);
    }

    /// Redis has gone back from one id to another. Of many such times the oldest become one.
    fn lose_time(&mut self, begin: EventId, end: EventId) {
        self.lost_times.push((begin, end));
        if self.lost_times.len() > LOST_TIMES_MAX {
            let (begin, _) = self.lost_times.remove(0);
            self.lost_times.iter_mut().take(1).for_each(|oldest| oldest.0 = begin);
        }
    }

    /// The position, unless events were passed on that lie ahead of it.
    pub(super) fn confirmed(&self) -> Option<EventId> {
        self.position.filter(|_| self.is_current() && self.ahead.is_empty())
    }

    /// Bytes of pages that are there, or are to come.
    pub(super) fn room_taken(&self) -> usize {
        let to_come = self.set_aside.get().max(self.listed_bytes + self.asked_bytes);
        self.page_bytes.get() + to_come
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

    /// Takes in an event that is kept, for all streams of its channel.
    pub fn publish_kept(&mut self, id: ChannelId, event: Kept) {
        let now = self.now;
        let Some(channel) = self.channels.get(id) else { return };
        let stands = channel.subscription == Subscription::Standing;
        let Some(recent) = &channel.recent else { return };
        let Some(position) = self.history.position.filter(|_| stands) else {
            // It is history before the subscription stands.
            return;
        };
        if event.id <= position {
            // What Redis gives an id to it sends before its clock tells of that: nobody is to be
            // taken back to it.
            return self.distrust(id);
        }
        match recent.follows(&event) {
            // It is read when the channel is aligned.
            Follows::Unaligned if self.history.repair.is_some() => {
                if let Some(repair) = &mut self.history.repair {
                    repair.note_arrival(id, event.id);
                }
                return;
            }
            Follows::Unaligned | Follows::Next => {}
            Follows::Gap if recent.is_trusted(now) => {
                self.counters.gaps.add(1);
                return self.doubt(id, event.previous);
            }
            Follows::Gap => {
                self.reset_at(id, ResetReason::LinkLost, None);
                // What is known of it would have a hole.
                self.begin_apart(id);
                if self.history.repair.is_some() {
                    return;
                }
            }
            // Of this id and those before it one was forged.
            Follows::Backwards => return self.distrust(id),
        }
        self.keep_recent(id, event.clone());
        match &mut self.history.repair {
            Some(repair) => {
                let is_over = repair.hold(id, event);
                self.has_repair_turn = true;
                if is_over {
                    self.drop_held();
                }
            }
            None => self.pass_on(id, &event),
        }
        self.bound_cache();
    }

    /// Takes an event into the channel's recent ones.
    fn keep_recent(&mut self, id: ChannelId, event: Kept) {
        let Some(recent) = self.channels.recent_mut(id) else { return };
        let before = recent.bytes();
        recent.push(event);
        if recent.bytes() > before {
            self.history.cached_bytes += recent.bytes() - before;
            self.history.cached.push_back(id);
        }
    }

    /// Passes an event on to the streams of its channel, ahead of the clock.
    pub(super) fn pass_on(&mut self, id: ChannelId, event: &Kept) {
        let position = self.history.position;
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.passed = recent.passed.max(event.id);
            if Some(event.id) > position && !std::mem::replace(&mut recent.is_ahead, true) {
                self.history.ahead.push(id);
            }
        }
        if !event.bytes.is_empty() && self.has_streams(id) {
            self.publish(id, &event.bytes);
        }
    }

    /// Somebody publishes what Redis did not keep as if it had: the channel's streams are told, and
    /// what is known of the channel is learned anew.
    pub(super) fn distrust(&mut self, id: ChannelId) {
        self.note_forgery(id);
        if self.has_streams(id) {
            self.reset_at(id, ResetReason::UnknownId, None);
        }
        self.begin_apart(id);
    }

    /// What is known of a channel begins anew with what Redis tells next. Nobody else waits for it.
    fn begin_apart(&mut self, id: ChannelId) {
        if self.unalign(id) {
            self.history.realigned.push(id);
        }
    }

    /// What is known of a channel begins anew with what Redis tells next, and what it missed until
    /// then is made up for.
    pub(super) fn realign(&mut self, id: ChannelId) {
        if self.unalign(id) {
            self.history.acknowledged.push(id);
        }
    }

    /// True if something was known.
    fn unalign(&mut self, id: ChannelId) -> bool {
        if let Some(repair) = &mut self.history.repair {
            repair.forget_after(id, EventId::ZERO);
        }
        self.history.wish_clock(ClockWish::Newest);
        let Some(recent) = self.channels.recent_mut(id) else { return false };
        let was_aligned = recent.floor().is_some();
        self.history.cached_bytes -= recent.unalign();
        was_aligned
    }

    /// What Redis is to be asked of its clock now; to be asked once.
    pub fn take_clock_wish(&mut self) -> Option<ClockWish> {
        let wish = self.history.clock.wish.take();
        self.history.clock.asked += u64::from(wish.is_some());
        wish
    }

    /// Marks that Redis has are to be read from here on.
    #[must_use]
    pub fn marks_read(&self) -> EventId {
        self.history.marks.read()
    }

    /// Redis had no newest id yet: it is asked again.
    pub fn repeat_clock(&mut self, wish: ClockWish) {
        self.history.clock.told += 1;
        self.history.wish_clock(wish);
    }

    /// Redis can't tell its newest id for the moment: it is asked again after so many ticks.
    pub fn delay_clock(&mut self, wish: ClockWish, ticks: u32) {
        self.history.clock.told += 1;
        // Of several that were refused the most is asked again.
        let wish = self.history.clock.due.map_or(wish, |(_, due)| due.max(wish));
        self.history.clock.due = Some((self.now.after(ticks), wish));
    }

    /// The history of this Redis can't be read: streams are live only, until it can.
    pub fn give_history_up(&mut self) {
        self.history.clock.told += 1;
        self.history.clock.due = Some((self.now.after(GIVEN_UP_TICKS), ClockWish::Newest));
        if self.history.rules.is_empty() {
            return;
        }
        self.history.is_given_up = true;
        self.forget_history();
        let mut acknowledged = std::mem::take(&mut self.history.acknowledged);
        acknowledged.append(&mut self.history.realigned);
        let was_repaired = self.history.repair.take().is_some();
        self.history.position = Some(EventId::ZERO);
        for id in self.channels.ids() {
            let was_kept = self.forget_recent(id);
            let channel = self.channels.get(id);
            let stands = channel.is_some_and(|c| c.subscription == Subscription::Standing);
            if was_repaired && was_kept && stands && self.has_streams(id) {
                self.reset_at(id, self.link_loss, None);
            }
        }
        acknowledged.into_iter().for_each(|id| self.stand(id));
        self.resume_suspended();
    }

    /// Redis told its newest id after all.
    fn take_history_up(&mut self) {
        if !std::mem::take(&mut self.history.is_given_up) {
            return;
        }
        self.history.position = None;
        for id in self.channels.ids() {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            let is_kept = channel.users > 0 && self.history.keeps(channel.name());
            if !is_kept || channel.recent.is_some() {
                continue;
            }
            channel.recent = Some(Box::default());
            self.history.channels += 1;
            if channel.subscription == Subscription::Standing {
                self.history.acknowledged.push(id);
            }
        }
    }

    /// Redis told its newest id: what it acknowledged before stands.
    pub fn tell_clock(&mut self, told: &Told<'_>) -> Findings {
        self.history.clock.told += 1;
        self.history.clock.told_at = self.now;
        self.history.time_told = (told.now_ms, self.now_ms);
        self.take_history_up();
        let newest = told.clock.newest;
        self.history.since = told.clock.since;
        self.learn_marks(told);
        let has_lost = self.history.position.is_some_and(|position| position > newest);
        let unknown = self.settle_ahead(newest, told.is_first.then_some(told.now_ms));
        if has_lost {
            self.begin_anew(newest, told.now_ms);
        }
        match &mut self.history.repair {
            Some(repair) => repair.tell(newest),
            None => self.history.position = self.history.position.max(Some(newest)),
        }
        for id in std::mem::take(&mut self.history.realigned) {
            self.align_apart(id, newest);
        }
        for id in std::mem::take(&mut self.history.acknowledged) {
            self.align(id, newest);
        }
        if told.wish == ClockWish::WithEvictions {
            self.settle_vanished(told.clock.expired(told.now_ms));
        }
        for id in std::mem::take(&mut self.history.clock_waiters) {
            self.wake(id);
        }
        self.begin_repair();
        self.has_repair_turn = self.history.repair.is_some();
        if self.history.is_current() {
            self.resume_suspended();
        }
        Findings {
            has_lost: has_lost || told.is_first && unknown > 0,
            forged: if told.is_first { 0 } else { unknown },
        }
    }

    /// Of events that were passed on ahead of the clock those up to `newest` are confirmed. Later
    /// ones Redis has not: it never had them, or, if it is asked for the first time on a link, at
    /// `lost_at_ms`, it may have lost them. Returns on how many channels there are such.
    fn settle_ahead(&mut self, newest: EventId, lost_at_ms: Option<u64>) -> usize {
        let mut channels = 0;
        let mut last = EventId::ZERO;
        for id in std::mem::take(&mut self.history.ahead) {
            let Some(recent) = self.channels.recent_mut(id) else { continue };
            recent.is_ahead = false;
            if recent.passed <= newest {
                continue;
            }
            channels += 1;
            last = last.max(recent.passed);
            if lost_at_ms.is_none() {
                let others = recent.newest_first(newest).filter(|id| *id != recent.passed);
                let given = others.take(FORGED_MAX).chain([recent.passed]);
                given.for_each(|id| self.history.note_forged(id));
            }
            recent.passed = newest;
            self.history.cached_bytes -= recent.forget_after(newest);
            if let Some(repair) = &mut self.history.repair {
                repair.forget_after(id, newest);
            }
            let reason = match lost_at_ms {
                Some(_) => ResetReason::LinkLost,
                None => {
                    self.note_forgery(id);
                    ResetReason::UnknownId
                }
            };
            if self.has_streams(id) {
                // Its streams must not keep an id that is none; but what is held was not passed on.
                let confirmed = self.history.repair.is_none();
                self.reset_at(id, reason, confirmed.then_some(newest));
            }
        }
        if let Some(lost_at_ms) = lost_at_ms.filter(|_| channels > 0) {
            // Ids of Redis' own time, and later ones, it had not given before.
            let end = last.min(EventId { ms: lost_at_ms, seq: 0 }.before().unwrap_or_default());
            if end > newest {
                self.history.lose_time(newest, end);
            }
        }
        channels
    }

    /// Something looked like an event that is kept: for a while the channel's chain proves nothing.
    fn note_forgery(&mut self, id: ChannelId) {
        self.counters.forged.add(1);
        let until = self.now.after(DISTRUST_TICKS);
        if let Some(recent) = self.channels.recent_mut(id) {
            recent.distrusted_until = Some(until);
        }
    }

    /// Everything was lost with Redis: all streams are told, and begin anew with its newest id.
    fn begin_anew(&mut self, newest: EventId, now_ms: u64) {
        if let Some(position) = self.history.position.replace(newest) {
            let end = position.min(EventId { ms: now_ms, seq: u64::MAX }.max(newest));
            self.history.lose_time(newest, end.max(newest));
        }
        for id in self.channels.ids() {
            let has_streams = self.has_streams(id);
            let Some(recent) = self.channels.recent_mut(id) else { continue };
            recent.passed = newest;
            recent.repair = None;
            self.history.cached_bytes -= recent.forget_after(newest);
            // What was read, and what somebody needs, is of a time that is none.
            for waiter in recent.forget_history() {
                self.wake(waiter.stream);
            }
            if has_streams {
                // The ids of before may lie ahead of those to come.
                self.reset_at(id, ResetReason::LinkLost, Some(newest));
            }
        }
        if let Some(repair) = &mut self.history.repair {
            repair.begin_anew();
        }
    }

    /// A channel that is distrusted begins anew. Nobody waits for what came meanwhile, should
    /// nothing be passed on: its streams are told.
    fn align_apart(&mut self, id: ChannelId, newest: EventId) {
        let Some(recent) = self.channels.recent_mut(id) else { return };
        if self.history.repair.is_some() {
            recent.passed = recent.passed.max(newest);
            if self.has_streams(id) {
                self.reset_at(id, ResetReason::UnknownId, None);
            }
        }
        self.align(id, newest);
    }

    /// What is published on a channel from now on arrives; everything before is history.
    fn align(&mut self, id: ChannelId, newest: EventId) {
        let position = self.history.position.unwrap_or_default();
        let repair = self.history.repair.as_ref();
        let is_repaired = repair.is_some_and(|repair| repair.is_begun());
        let doubted = repair.and_then(|repair| repair.doubted(id));
        let Some(recent) = self.channels.recent_mut(id) else { return };
        self.history.cached_bytes -= recent.align(newest);
        let passed = recent.passed.max(position);
        let from = doubted.map_or(passed, |arrived| arrived.min(passed));
        let stood = self.channels.get(id).is_some_and(|c| c.subscription == Subscription::Standing);
        if is_repaired && stood && from < newest {
            self.miss(id, from, newest);
        }
        self.stand(id);
        let met = self.channels.recent_mut(id).map_or_else(Vec::new, Recent::take_arrived);
        self.wake_met(id, met, |_| {});
    }

    /// Redis acknowledged the subscription of a channel whose events are kept.
    pub(super) fn await_clock(&mut self, id: ChannelId) {
        if let Some(recent) = self.channels.recent_mut(id) {
            // What arrived before belongs to a subscription that ended.
            self.history.cached_bytes -= recent.unalign();
        }
        self.history.acknowledged.push(id);
        // One that was asked for behind the subscription is still to be told.
        if self.history.clock.asked == self.history.clock.told {
            self.history.wish_clock(ClockWish::Newest);
        }
    }

    /// Once in a tick: asks for the newest id while events run ahead of it, and from time to time,
    /// so that the position of quiet streams moves on with those of others.
    pub fn history_tick(&mut self) {
        while let Some((_, id)) = self.history.delayed.pop_due(self.now) {
            if let Some(recent) = self.channels.recent_mut(id)
                && recent.reading == Reading::Delayed
            {
                recent.reading = Reading::Idle;
                self.list_reading(id);
            }
        }
        let due = self.history.clock.due.take_if(|(due, _)| self.now.has_reached(*due));
        if let Some((_, wish)) = due {
            self.history.wish_clock(wish);
        }
        let interval = CLOCK_READ_INTERVAL.as_millis() / TICK.as_millis();
        let is_due = u128::from(self.now.since(self.history.clock.told_at)) >= interval;
        let is_wanted = !self.history.ahead.is_empty() || is_due && self.history.channels > 0;
        let is_asked = self.history.clock.asked > self.history.clock.told;
        if is_wanted && self.link == LinkState::Up && !is_asked && self.history.clock.due.is_none()
        {
            self.history.wish_clock(ClockWish::Newest);
        }
        let now_ms = self.history.redis_time_ms(self.now_ms);
        self.history.marks.tick(now_ms);
        self.counters.mixed_channels.set(self.history.marks.len() as u64);
        let waiting = 2 * self.connections.len() + 1024;
        let connections = &self.connections;
        if self.history.suspended.len() > waiting {
            self.history.suspended.retain(|id| connections.get(*id).is_some());
        }
        if self.history.line.len() > waiting {
            self.history.line.retain(|id| connections.get(*id).is_some());
        }
        if self.now.since(self.history.looked_at) >= IDLE_TICKS {
            self.history.looked_at = self.now;
            self.drop_idle_pages(0);
        }
    }

    /// The link is lost: what is kept in memory does not lead up to what comes next.
    pub(super) fn lose_history(&mut self) {
        if self.history.position.is_some() && !self.history.is_given_up {
            let repair = self.history.repair.get_or_insert_default();
            repair.lose();
        }
        self.history.acknowledged.clear();
        for id in std::mem::take(&mut self.history.realigned) {
            if let Some(recent) = self.channels.recent_mut(id) {
                recent.has_gone_on_without = true;
            }
        }
        self.forget_history();
        self.history.clock.told = self.history.clock.asked;
        self.history.clock.due = None;
        self.history.clock.wish = None;
        self.history.marks.lose();
        for id in self.channels.ids() {
            if let Some(recent) = self.channels.recent_mut(id) {
                self.history.cached_bytes -= recent.lose(self.now);
            }
        }
        self.history.cached = VecDeque::new();
        debug_assert_eq!(self.history.cached_bytes, 0);
    }

    /// Forgets what is asked of Redis; all who wait for it will look again, when there is a link.
    fn forget_history(&mut self) {
        let history = &mut self.history;
        history.reads.clear();
        history.delayed = Deadlines::new(DELAYED_TICKS);
        (history.listed_bytes, history.asked_bytes) = (0, 0);
        history.vanished.clear();
        history.paged.clear();
        history.indexed.clear();
        history.suspended.append(&mut history.clock_waiters);
        history.suspended.extend(history.line.drain(..));
        for id in self.channels.ids() {
            let Some(recent) = self.channels.recent_mut(id) else { continue };
            recent.is_paged = false;
            let waiters = recent.take_all_waiters();
            self.history.suspended.extend(waiters.iter().map(|waiter| waiter.stream));
        }
    }

    pub(super) fn resume_suspended(&mut self) {
        for id in std::mem::take(&mut self.history.suspended) {
            self.wake(id);
        }
    }

    /// What is known of a channel's history, to be read.
    pub(super) fn recent(&self, id: ChannelId) -> Option<&Recent> {
        self.channels.get(id)?.recent.as_deref()
    }
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
