//! Streams on their way to the present: from the id of the last event that the client had, through
//! what it missed, to their channels' lists.
//!
//! Every stream of a channel whose events are kept comes this way; one that wants nothing of the
//! past passes through in no time. What was missed is taken from the channels' recent events, which
//! are read from Redis as deep as somebody needs them. It leaves in writes of a bounded size, the
//! next when the last has left. Once nothing is missing the stream joins the lists, in the same
//! step, so that nothing can arrive in between.

use super::{LinkState, Streams};
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::history::EventId;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::CATCH_UP_WRITE_BYTES_MAX;
use crate::state::catch_up::{CatchUp, Reset, Start};
use crate::state::channels::Subscription;
use crate::state::connections::{Rare, State};
use crate::state::recent::{Kept, Reach};
use crate::state::sockets::Sockets;

/// What comes next for a stream.
enum Step {
    Wait,
    /// Some of what was missed, up to this id.
    Send(Vec<u8>, EventId),
    /// The rest of it.
    Join(Vec<u8>),
}

impl CatchUp {
    /// Notes that something is missing of a channel that is not kept.
    fn lacks(&mut self, channel: ChannelId, reason: ResetReason) {
        if !self.resets.iter().any(|reset| reset.channel == channel) {
            self.resets.push(Reset { channel, reason, until: None, is_told: false });
        }
    }

    /// Notes that something is missing of a channel that is kept.
    fn lacks_until(&mut self, channel: ChannelId, reason: ResetReason, until: EventId) {
        let new = Reset { channel, reason, until: Some(until), is_told: false };
        match self.resets.iter_mut().find(|reset| reset.channel == channel) {
            Some(known) if !known.is_told => known.until = Some(until),
            Some(known) => *known = new,
            None => self.resets.push(new),
        }
    }

    /// Up to where nothing of a channel is owed to the client that has everything up to `after`.
    fn owed_from(&self, channel: ChannelId, after: EventId) -> EventId {
        let reset = self.resets.iter().find(|reset| reset.channel == channel);
        after.max(reset.and_then(|reset| reset.until).unwrap_or_default())
    }

    /// Ticks of silence, as far as it counts: none is noted for the few streams that wait.
    pub(super) fn silence(&self) -> Option<u32> {
        self.head.is_empty().then_some(u32::MAX)
    }
}

impl Streams {
    /// Makes the connection a stream of `channels`, some of which are kept. True if it has to wait.
    pub(super) fn begin_catch_up(
        &mut self,
        id: ConnectionId,
        channels: Vec<ChannelId>,
        start: Start,
        head: Vec<u8>,
        sockets: &mut impl Sockets,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        connection.state = State::CatchingUp;
        let mut catch_up = CatchUp {
            channels,
            start,
            head,
            unsent: None,
            resets: Vec::new(),
            since: EventId::ZERO,
            opened: None,
            clock_needed: 0,
            has_read: false,
        };
        if matches!(start, Start::After(_) | Start::Unknown) {
            for channel in catch_up.channels.clone() {
                if !self.is_kept(channel) {
                    catch_up.lacks(channel, ResetReason::NoHistory);
                }
            }
        }
        self.connections.set_rare(id.slot, Rare::CatchUp(Box::new(catch_up)));
        self.catch_up(id, sockets);
        self.connections.get(id).is_some_and(|c| c.state == State::CatchingUp)
    }

    /// Takes a stream as far towards the present as it goes now.
    pub(super) fn catch_up(&mut self, id: ConnectionId, sockets: &mut impl Sockets) {
        if self.connections.get(id).is_none_or(|c| c.state != State::CatchingUp) {
            return;
        }
        let mut catch_up = match self.connections.take_rare(id.slot) {
            Rare::CatchUp(catch_up) => catch_up,
            other => return self.connections.set_rare(id.slot, other),
        };
        match self.next_step(id, &mut catch_up) {
            Step::Wait => self.connections.set_rare(id.slot, Rare::CatchUp(catch_up)),
            Step::Send(bytes, last) => {
                catch_up.start = Start::After(last);
                self.connections.set_rare(id.slot, Rare::CatchUp(catch_up));
                self.ready.push_back(id);
                self.send_own(id, &bytes, sockets);
            }
            Step::Join(mut bytes) => {
                self.count_resumed(&catch_up);
                if !catch_up.resets.is_empty() {
                    self.encode_resets(&mut catch_up, true, &mut bytes);
                    encode_start(Start::Now, self.history.position, &mut bytes);
                }
                match *catch_up.channels.as_slice() {
                    [channel] => self.join_one(id, channel),
                    _ => self.join_many(id, std::mem::take(&mut catch_up.channels)),
                }
                self.counters.streams.add(1);
                if !bytes.is_empty() {
                    self.send_own(id, &bytes, sockets);
                }
            }
        }
    }

    fn count_resumed(&self, catch_up: &CatchUp) {
        if catch_up.start == Start::Now {
            return;
        }
        let counters = &self.counters;
        let counter = match (catch_up.resets.is_empty(), catch_up.has_read) {
            (false, _) => &counters.resumed_with_reset,
            (true, true) => &counters.resumed_from_redis,
            (true, false) => &counters.resumed_from_memory,
        };
        counter.add(1);
    }

    /// Sends the head of a stream that waits: the rest follows.
    pub(super) fn open_early(&mut self, id: ConnectionId, sockets: &mut impl Sockets) {
        let position = self.history.position;
        let Some(catch_up) = self.connections.catch_up_mut(id) else { return };
        if catch_up.head.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut catch_up.head);
        match (catch_up.start, position) {
            // What is published from here on will be made up for.
            (Start::Now, Some(position)) => catch_up.start = Start::After(position),
            (Start::Now, None) => catch_up.start = Start::Unheard,
            (Start::Last(_), position) => catch_up.opened = position,
            _ => {}
        }
        let start = catch_up.start;
        if start != Start::Unknown {
            // Nothing makes up for what is published on a channel that is not kept.
            let channels = &self.channels;
            let is_plain = |id: &ChannelId| channels.get(*id).is_some_and(|c| c.recent.is_none());
            for channel in catch_up.channels.clone().into_iter().filter(is_plain) {
                catch_up.lacks(channel, ResetReason::LinkLost);
            }
        }
        // An id promises that the client has everything up to there.
        let has = position.filter(|_| !matches!(start, Start::Last(_) | Start::Unknown));
        encode_start(start, has, &mut bytes);
        self.send_own(id, &bytes, sockets);
    }

    fn next_step(&mut self, id: ConnectionId, catch_up: &mut CatchUp) -> Step {
        if catch_up.unsent.is_some() {
            return Step::Wait;
        }
        let Some(position) = self.history.position.filter(|_| self.is_current()) else {
            self.history.suspended.push(id);
            return Step::Wait;
        };
        if self.waits_for_subscriptions(id, catch_up, position) {
            return Step::Wait;
        }
        let after = match catch_up.start {
            Start::Now => position,
            Start::Unknown => self.start_anew(catch_up, ResetReason::UnknownId, position),
            Start::Unheard => self.start_anew(catch_up, ResetReason::LinkLost, position),
            Start::After(after) if after > position => {
                if self.history.channels > 0 && !self.is_known(id, catch_up) {
                    return Step::Wait;
                }
                self.start_anew(catch_up, ResetReason::UnknownId, position)
            }
            Start::After(after) if self.history.is_of_lost_time(after) => {
                self.start_anew(catch_up, ResetReason::UnknownId, position)
            }
            Start::After(after) => after,
            Start::Last(count) => match self.start_of_last(id, catch_up, count) {
                Some(after) => after,
                None => return Step::Wait,
            },
        };
        if self.waits_for_history(id, catch_up, after) {
            return Step::Wait;
        }
        let mut bytes = std::mem::take(&mut catch_up.head);
        if !bytes.is_empty() {
            encode_start(Start::After(after), Some(position), &mut bytes);
        }
        self.encode_resets(catch_up, false, &mut bytes);
        match self.gather(catch_up, after, &mut bytes) {
            Some(last) => Step::Send(bytes, last),
            None => Step::Join(bytes),
        }
    }

    /// Nothing is known of what the client has: it is told, and begins with the present.
    fn start_anew(
        &self,
        catch_up: &mut CatchUp,
        reason: ResetReason,
        position: EventId,
    ) -> EventId {
        catch_up.start = Start::After(position);
        for channel in catch_up.channels.clone() {
            if self.is_kept(channel) {
                catch_up.lacks_until(channel, reason, position);
            } else {
                catch_up.lacks(channel, ResetReason::NoHistory);
            }
        }
        position
    }

    /// Whether the link stands and nothing has to be made up for first.
    fn is_current(&self) -> bool {
        self.link == LinkState::Up && self.history.is_current()
    }

    /// Whether an id beyond our position was checked: another worker may know of later events.
    fn is_known(&mut self, id: ConnectionId, catch_up: &mut CatchUp) -> bool {
        if catch_up.clock_needed == 0 {
            // One that is on its way may have been asked before the client had its id.
            catch_up.clock_needed = self.history.clock_asked + 1;
            self.history.wants_clock = true;
        }
        if self.history.clock_told >= catch_up.clock_needed {
            return true;
        }
        self.history.clock_waiters.push(id);
        false
    }

    fn waits_for_subscriptions(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        position: EventId,
    ) -> bool {
        let mut waits = false;
        for channel in catch_up.channels.clone() {
            let Some(entry) = self.channels.get_mut(channel) else { continue };
            match (entry.subscription, &mut entry.recent) {
                (Subscription::Standing, _) => {}
                (Subscription::Refused, None) => catch_up.lacks(channel, ResetReason::LinkLost),
                (Subscription::Refused, Some(_)) => {
                    // It is told again once the subscription stands.
                    catch_up.lacks_until(channel, ResetReason::LinkLost, position);
                }
                (Subscription::Idle | Subscription::Asked, Some(recent)) => {
                    recent.waiters.push(id);
                    waits = true;
                }
                (Subscription::Idle | Subscription::Asked, None) => {
                    self.waiters.entry(channel).or_default().push(id);
                    waits = true;
                }
            }
        }
        waits
    }

    /// Whether something after `after` is still to be read. What can't be had is noted.
    fn waits_for_history(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        after: EventId,
    ) -> bool {
        let position = self.history.position.unwrap_or_default();
        let is_new = catch_up.start == Start::Now;
        let mut waits = false;
        for channel in catch_up.channels.clone() {
            let has = catch_up.owed_from(channel, after).max(catch_up.since);
            let Some(entry) = self.channels.get_mut(channel) else { continue };
            let Some(recent) = &mut entry.recent else { continue };
            if entry.subscription == Subscription::Refused {
                continue;
            }
            match recent.reach(has) {
                Reach::Covered
                    if !is_new && recent.last_plain.is_some_and(|plain| has <= plain) =>
                {
                    catch_up.lacks_until(channel, ResetReason::NoHistory, position);
                }
                Reach::Covered => {}
                Reach::Hole => {
                    catch_up.lacks_until(channel, ResetReason::HistoryTrimmed, position);
                }
                Reach::Readable | Reach::Unknown => {
                    recent.waiters.push(id);
                    self.want(channel);
                    waits = true;
                }
            }
        }
        catch_up.has_read |= waits;
        waits
    }

    /// The id after which the newest `count` events of the stream's channels come; `None` while
    /// some are still to be read.
    fn start_of_last(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        count: usize,
    ) -> Option<EventId> {
        let mut waits = false;
        let mut ids = Vec::new();
        for channel in &catch_up.channels {
            let recent = self.channels.recent_mut(*channel);
            let Some(recent) = recent else { continue };
            if recent.reach_of_newest(count) == Reach::Covered {
                ids.extend(recent.newest_first().take(count).map(|event| event.id));
                catch_up.since = catch_up.since.max(recent.floor().unwrap_or_default());
            } else {
                recent.waiters.push(id);
                self.want(*channel);
                waits = true;
            }
        }
        if waits {
            catch_up.has_read = true;
            return None;
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(count);
        let first = ids.last().copied();
        let position = self.history.position.unwrap_or_default();
        let after = first.map_or(position, |first| first.before().unwrap_or(first));
        let opened = catch_up.opened.unwrap_or(after);
        catch_up.since = catch_up.since.min(opened);
        Some(after.min(opened))
    }

    /// Appends what the stream missed after `after`, in the order of publication, up to the size of
    /// one write. The id of the last event if that is not all.
    fn gather(&self, catch_up: &CatchUp, after: EventId, bytes: &mut Vec<u8>) -> Option<EventId> {
        let mut sources: Vec<_> = catch_up
            .channels
            .iter()
            .filter_map(|channel| Some((channel, self.channels.get(*channel)?.recent.as_ref()?)))
            .map(|(id, recent)| recent.after(catch_up.owed_from(*id, after)).peekable())
            .collect();
        let mut count = 0;
        let mut last = None;
        loop {
            let id_of = |event: Option<&&Kept>| event.map(|event| event.id);
            let first = sources
                .iter_mut()
                .filter_map(|source| id_of(source.peek()).map(|id| (id, source)))
                .min_by_key(|(id, _)| *id);
            let Some((_, source)) = first else { break };
            if let Some(last) = last
                && bytes.len() >= CATCH_UP_WRITE_BYTES_MAX
            {
                self.counters.deliveries.add(count);
                return Some(last);
            }
            if let Some(event) = source.next() {
                bytes.extend_from_slice(&event.bytes);
                last = Some(event.id);
                count += 1;
            }
        }
        self.counters.deliveries.add(count);
        None
    }

    /// Appends what the client has to be told of what is missing; `all`: also of channels that are
    /// not kept, since the stream joins them.
    fn encode_resets(&self, catch_up: &mut CatchUp, all: bool, bytes: &mut Vec<u8>) {
        while let Some(reason) = catch_up
            .resets
            .iter()
            .find(|reset| !reset.is_told && (all || reset.until.is_some()))
            .map(|reset| reset.reason)
        {
            let mut names: Vec<&[u8]> = Vec::new();
            for reset in &mut catch_up.resets {
                if !reset.is_told && reset.reason == reason && (all || reset.until.is_some()) {
                    reset.is_told = true;
                    names.push(self.public_name(reset.channel));
                }
            }
            event_stream::encode_reset(reason, &names, bytes);
            self.counters.resets.add(1);
        }
    }
}

/// The id that a stream begins with, and the end of the block of its first fields.
fn encode_start(start: Start, position: Option<EventId>, bytes: &mut Vec<u8>) {
    let id = match (start, position) {
        (Start::After(after), _) => Some(after),
        (_, position) => position,
    };
    match id {
        Some(id) => event_stream::encode_id(id.to_string().as_bytes(), bytes),
        None => event_stream::encode_id(event_stream::FIRST_EVENT_ID, bytes),
    }
    bytes.push(b'\n');
}
