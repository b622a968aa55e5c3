//! All streams of a worker: who listens to what, and what is still to be sent to whom.
//!
//! This file holds the life of a connection; [`subscriptions`] what Redis is asked for, [`fanout`]
//! the way of an event to the streams of one channel, [`many`] to streams of several, [`intake`]
//! the bound on what waits, [`heartbeat`] the signs of life on silent streams, [`history`] what is
//! kept, [`reading`] how it is read, [`catch_up`] the way of a stream that comes back, [`repair`]
//! that of all others after a lost link, [`marks`] what is published beside what is kept.

mod cache;
mod catch_up;
mod clock;
mod fanout;
mod heartbeat;
mod history;
mod intake;
mod many;
mod marks;
mod reading;
mod repair;
mod subscriptions;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::bytes::event_stream::{self, ResetReason};
use crate::ground::config::HistoryRules;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::state::backlog::Backlog;
use crate::state::catch_up::{CatchUp, Start};
use crate::state::channels::{Channels, Subscription};
use crate::state::connections::{Connection, Connections, HeadBuffer, Opening, Rare, State};
use crate::state::counters::{CloseReason, Counters};
use crate::state::deadlines::{Deadlines, Tick};
use crate::state::sockets::{Broken, Cold, Outcome, Sockets, Subscriber};
pub use clock::{ClockWish, DELAYED_TICKS, Findings, Told};
use history::History;
use many::Lane;
use marks::Marks;
pub use reading::ReadEnd;

/// The bounds that streams obey; each an option of the command line.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    pub max_pending_bytes: usize,
    pub max_intake_bytes: usize,
    /// Ticks between two heartbeats of a silent stream, at least 2; 0: none.
    pub heartbeat_ticks: u32,
    pub linger_ticks: u32,
    /// Longest wait to merge several events of a channel, in milliseconds; 0: none.
    pub coalesce_ms: u64,
}

#[derive(Debug)]
pub struct Streams {
    limits: StreamLimits,
    counters: Arc<Counters>,
    connections: Connections,
    channels: Channels,
    /// Begins the names in Redis of channels that clients know without it.
    strip_prefix: Box<[u8]>,
    lane: Lane,
    /// Who has something to send, in the order of their turns.
    turns: VecDeque<Turn>,
    /// Channels that wait for more to merge (`--coalesce`), by the time at which they stop waiting.
    merging: VecDeque<(u64, Turn)>,
    /// Streams whose last subscription was acknowledged, to be opened.
    ready: VecDeque<ConnectionId>,
    /// Streams that wait for a channel's acknowledgement.
    waiters: HashMap<ChannelId, Vec<(ConnectionId, u32)>>,
    /// Channels to be asked of Redis.
    ask: VecDeque<ChannelId>,
    /// Channels that Redis refused, to be asked again.
    refused: Deadlines<ChannelId>,
    lingering: Deadlines<ChannelId>,
    link: LinkState,
    /// What streams that missed something are told: why the link was lost last.
    link_loss: ResetReason,
    history: History,
    /// What was missed can be passed on.
    has_repair_turn: bool,
    /// An event did not arrive that Redis keeps.
    has_gap: bool,
    /// Bytes taken in and not yet fanned out; an event that waits both for single streams and for
    /// streams of several channels counts twice.
    intake_bytes: usize,
    /// What the last trim of the intake left of it; 0 if it has fallen below its bound since.
    trimmed_bytes: usize,
    now: Tick,
    now_ms: u64,
    /// Next slot of the heartbeat sweep.
    sweep: u32,
    /// Visits that the sweep owes, times its period in ticks: what a tick leaves undivided.
    sweep_due: u32,
    /// Reused by every pass.
    cold: Vec<Cold>,
    scratch: Vec<u8>,
}

/// Whether the link to Redis can be asked for channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// The worker has just started: the first attempt to connect is on its way, and worth the wait.
    Coming,
    Up,
    Down,
}

/// Whose turn it is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Channel(ChannelId),
    Many,
}

/// Ticks after which a channel that Redis refused is asked again.
const REFUSED_TICKS: u32 = 20;

/// Streams that come back have this part of a slice, where there are live events too.
const READY_SHARE: usize = 4;

/// Bytes of a long write that cost as much as another send.
const BYTES_PER_SEND: usize = 4096;

/// Events that can be looked at for the price of one send.
const LOOKS_PER_SEND: usize = 16;

impl Streams {
    #[must_use]
    pub fn new(
        limits: StreamLimits,
        strip_prefix: &[u8],
        history: HistoryRules,
        history_ttl_ms: u64,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            limits,
            counters,
            connections: Connections::default(),
            channels: Channels::default(),
            strip_prefix: strip_prefix.into(),
            lane: Lane::default(),
            turns: VecDeque::new(),
            merging: VecDeque::new(),
            ready: VecDeque::new(),
            waiters: HashMap::new(),
            ask: VecDeque::new(),
            refused: Deadlines::new(REFUSED_TICKS),
            lingering: Deadlines::new(limits.linger_ticks),
            link: LinkState::Coming,
            link_loss: ResetReason::LinkLost,
            history: History::new(history, Marks::new(history_ttl_ms)),
            has_repair_turn: false,
            has_gap: false,
            intake_bytes: 0,
            trimmed_bytes: 0,
            now: Tick::default(),
            now_ms: 0,
            sweep: 0,
            sweep_due: 0,
            cold: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Tells the time: the tick for deadlines, milliseconds since the worker's start for merging.
    pub fn set_time(&mut self, now: Tick, now_ms: u64) {
        self.now = now;
        self.now_ms = now_ms;
    }

    /// Takes a connection in; its request head comes next.
    pub fn add(&mut self, fd: RawFd) -> ConnectionId {
        self.counters.accepted.add(1);
        self.counters.connections.add(1);
        self.connections.insert(fd)
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Highest slot in use, for walks over all connections.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.connections.slots()
    }

    /// The connection in a slot at this moment.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<(ConnectionId, State)> {
        self.connections.in_slot(slot).map(|(id, connection)| (id, connection.state))
    }

    /// The socket of the connection in a slot at this moment.
    #[must_use]
    pub fn descriptor_in_slot(&self, slot: u32) -> Option<RawFd> {
        self.connections.in_slot(slot).map(|(_, connection)| connection.fd)
    }

    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id)
    }

    #[must_use]
    pub fn has_backlog(&self, id: ConnectionId) -> bool {
        self.connections.has_backlog(id.slot)
    }

    /// Takes the bytes of an incomplete request away from its connection.
    pub fn take_head(&mut self, id: ConnectionId) -> HeadBuffer {
        match self.connections.get(id).map(|c| c.state) {
            Some(State::Head) => match self.connections.take_rare(id.slot) {
                Rare::Head(head) => head,
                _ => HeadBuffer::default(),
            },
            _ => HeadBuffer::default(),
        }
    }

    /// Keeps the bytes of an incomplete request until more come.
    pub fn keep_head(&mut self, id: ConnectionId, head: HeadBuffer) {
        if (!head.bytes.is_empty() || head.skip > 0)
            && self.connections.get(id).is_some_and(|c| c.state == State::Head)
        {
            self.connections.set_rare(id.slot, Rare::Head(head));
        }
    }

    /// Notes when the request head of a connection has to be there. A later deadline replaces it.
    pub fn set_head_deadline(&mut self, id: ConnectionId, deadline: Tick) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.state == State::Head
        {
            connection.position = deadline.0;
        }
    }

    /// Whether a connection still has to send its request head by this deadline.
    #[must_use]
    pub fn has_head_deadline(&self, id: ConnectionId, deadline: Tick) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|c| c.state == State::Head && c.position == deadline.0)
    }

    /// The last answer is sent: from now on what comes is thrown away.
    pub fn set_lingering(&mut self, id: ConnectionId, reason: CloseReason) {
        if let Some(connection) = self.connections.get_mut(id) {
            debug_assert_eq!(connection.state, State::Head);
            connection.state = State::Lingering(reason);
            self.connections.take_rare(id.slot);
        }
    }

    /// Makes the connection a stream of `channels`, which are not empty and not repeated. `head`,
    /// the response head, leaves as soon as all subscriptions stand; at once if the link is down.
    /// The first block follows it, with the reconnection time and an id.
    ///
    /// True if the stream has to wait, so that the caller sets its deadline.
    pub fn request(
        &mut self,
        id: ConnectionId,
        channels: &[&[u8]],
        start: Start,
        head: Vec<u8>,
        retry_ms: u64,
        sockets: &mut impl Sockets,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        debug_assert_eq!(connection.state, State::Head);
        connection.state = State::Opening;
        let channels: Vec<_> = channels.iter().map(|name| self.hold(name)).collect();
        if channels.iter().any(|channel| self.is_kept(*channel)) {
            let catch_up = CatchUp::new(channels, start, head, retry_ms);
            return self.begin_catch_up(id, catch_up, sockets);
        }
        let mut answer = head;
        event_stream::encode_open(retry_ms, Some(event_stream::FIRST_EVENT_ID), &mut answer);
        if start.returns() {
            let names: Vec<&[u8]> = channels.iter().map(|id| self.public_name(*id)).collect();
            event_stream::encode_reset(ResetReason::NoHistory, &names, None, &mut answer);
            self.counters.resets.add(1);
        }
        let standing = |id: &ChannelId| {
            self.channels.get(*id).is_some_and(|c| c.subscription == Subscription::Standing)
        };
        let missing: Vec<_> = channels.iter().filter(|id| !standing(id)).copied().collect();
        let opening = Opening { channels, missing: missing.len(), answer };
        let wait = self.link != LinkState::Down && !missing.is_empty();
        self.connections.set_rare(id.slot, Rare::Opening(Box::new(opening)));
        if wait {
            for channel in missing {
                self.waiters.entry(channel).or_default().push((id, 0));
            }
        } else {
            self.open(id, sockets);
        }
        wait
    }

    /// Opens a stream that waited, whether its subscriptions stand or not: those that do not yet
    /// will bring a `stream-reset`, or what was missed.
    pub fn open(&mut self, id: ConnectionId, sockets: &mut impl Sockets) {
        match self.connections.get(id).map(|c| c.state) {
            Some(State::Opening) => {}
            Some(State::CatchingUp) => return self.open_early(id, sockets),
            _ => return,
        }
        let Rare::Opening(opening) = self.connections.take_rare(id.slot) else { return };
        let Opening { channels, answer, .. } = *opening;
        match *channels.as_slice() {
            [channel] => self.join_one(id, channel),
            _ => self.join_many(id, channels),
        }
        self.counters.streams.add(1);
        self.send_own(id, &answer, sockets);
    }

    /// Sends bytes of the server's own on a stream, behind whatever is queued there.
    pub fn send_own(&mut self, id: ConnectionId, bytes: &[u8], sockets: &mut impl Sockets) {
        let Some(connection) = self.connections.get(id).filter(|_| !bytes.is_empty()) else {
            return;
        };
        let fd = connection.fd;
        if let Some(backlog) = self.connections.backlog_mut(id.slot) {
            backlog.push(Rc::from(bytes), 0);
            if backlog.behind() > self.limits.max_pending_bytes {
                self.close(id, CloseReason::SlowConsumer, sockets);
            }
            return;
        }
        match sockets.send(fd, bytes) {
            Ok(sent) if sent == bytes.len() => {}
            Ok(sent) => self.begin_backlog(id, Backlog::new(Rc::from(bytes), sent), sockets),
            Err(Broken) => self.close(id, CloseReason::WriteFailed, sockets),
        }
    }

    /// The socket takes bytes again.
    pub fn flush(&mut self, id: ConnectionId, sockets: &mut impl Sockets) {
        let Some(connection) = self.connections.get(id) else { return };
        let fd = connection.fd;
        loop {
            let Some(backlog) = self.connections.backlog_mut(id.slot) else { return };
            let (offered, sent) = backlog.with_buffers(|buffers| {
                let offered: usize = buffers.iter().map(|buffer| buffer.len()).sum();
                (offered, sockets.send_vectored(fd, buffers))
            });
            match sent {
                Ok(sent) => {
                    backlog.advance(sent);
                    if backlog.is_empty() {
                        return self.end_backlog(id);
                    }
                    if sent < offered {
                        return;
                    }
                }
                Err(Broken) => return self.close(id, CloseReason::WriteFailed, sockets),
            }
        }
    }

    /// Ends a connection: its descriptor is closed, its place in every table freed. One that was
    /// answered for the last time keeps the reason that it has.
    pub fn close(&mut self, id: ConnectionId, reason: CloseReason, sockets: &mut impl Sockets) {
        let Some(connection) = self.connections.get(id) else { return };
        let (fd, state) = (connection.fd, connection.state);
        let (home, position) = (connection.home, connection.position);
        match state {
            State::One => self.leave_one(ChannelId(home), position as usize),
            State::Many => self.leave_many(home),
            State::Opening | State::CatchingUp => {
                let channels = match self.connections.take_rare(id.slot) {
                    Rare::Opening(opening) => opening.channels,
                    Rare::CatchUp(mut catch_up) => {
                        self.release_pages(&mut catch_up);
                        catch_up.places.iter().map(|place| place.channel).collect()
                    }
                    _ => Vec::new(),
                };
                channels.into_iter().for_each(|channel| self.release(channel));
            }
            State::Vacant | State::Head | State::Lingering(_) => {}
        }
        self.connections.remove(id);
        sockets.close(fd, reason != CloseReason::PeerClosed);
        self.counters.close(match state {
            State::Lingering(known) => known,
            _ => reason,
        });
        self.counters.connections.subtract(1);
        if matches!(state, State::One | State::Many) {
            self.counters.streams.subtract(1);
        }
    }

    /// Sends what is due, at most about `budget` sends. True while there is more to do.
    pub fn slice(&mut self, budget: usize, sockets: &mut impl Sockets) -> bool {
        let mut used = 0;
        while let Some((due, turn)) = self.merging.front().copied()
            && due <= self.now_ms
        {
            self.merging.pop_front();
            self.turns.push_back(turn);
        }
        if self.has_repair_turn {
            let (passed, more) = self.repair_turn(budget);
            used += passed.div_ceil(LOOKS_PER_SEND);
            self.has_repair_turn = more;
        }
        // Live events and streams that come back leave each other a share.
        let share = if self.ready.is_empty() { 0 } else { budget / READY_SHARE };
        while used + share < budget
            && let Some(turn) = self.turns.pop_front()
        {
            let (sends, more) = match turn {
                Turn::Channel(channel) => {
                    self.channel_turn(channel, budget - share - used, sockets)
                }
                Turn::Many => self.many_turn(budget - share - used, sockets),
            };
            used += sends.max(1);
            if more {
                self.turns.push_back(turn);
            }
        }
        while used < budget
            && let Some(id) = self.ready.pop_front()
        {
            let bytes = match self.connections.get(id).map(|c| c.state) {
                Some(State::CatchingUp) => self.catch_up(id, sockets),
                _ => {
                    self.open(id, sockets);
                    0
                }
            };
            used += 1 + bytes / BYTES_PER_SEND;
        }
        self.has_more()
    }

    /// Whether something is due.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.turns.is_empty() || !self.ready.is_empty() || self.has_repair_turn
    }

    /// When the next channel stops waiting for more to merge, in milliseconds since the start.
    #[must_use]
    pub fn merging_until(&self) -> Option<u64> {
        self.merging.front().map(|(due, _)| *due)
    }

    /// Gives somebody with something to send a turn, at once or after the wait for more to merge.
    fn take_turn(&mut self, turn: Turn) {
        if self.limits.coalesce_ms == 0 {
            self.turns.push_back(turn);
        } else {
            self.merging.push_back((self.now_ms + self.limits.coalesce_ms, turn));
        }
    }

    fn join_one(&mut self, id: ConnectionId, channel: ChannelId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(entry) = self.channels.get_mut(channel) else { return };
        let position = entry.subscribe(Subscriber::new(connection.fd, id.slot));
        connection.state = State::One;
        connection.home = channel.0;
        connection.position = index(position);
    }

    fn leave_one(&mut self, channel: ChannelId, position: usize) {
        let Some(entry) = self.channels.get_mut(channel) else { return };
        if let Some(traffic) = &mut entry.traffic {
            if let Some(subscriber) = entry.subscribers.get_mut(position) {
                *subscriber = Subscriber::gap();
                traffic.gaps += 1;
            }
        } else if position < entry.subscribers.len() {
            entry.subscribers.swap_remove(position);
            if let Some(moved) = entry.subscribers.get(position)
                && let Some(connection) = self.connections.in_slot_mut(moved.slot())
            {
                connection.position = index(position);
            }
            shrink(&mut entry.subscribers);
        }
        self.release(channel);
    }

    /// Queues what a stream's socket did not take, and lets the fan-out loop pass the stream by.
    fn begin_backlog(&mut self, id: ConnectionId, backlog: Backlog, sockets: &mut impl Sockets) {
        match self.connections.catch_up_mut(id) {
            Some(catch_up) => catch_up.unsent = Some(backlog),
            None => {
                self.connections.set_rare(id.slot, Rare::Backlog(backlog));
                self.mark_rare(id.slot, true);
            }
        }
        // The kernel may have made room between the short send and now, and have said so already.
        self.flush(id, sockets);
    }

    fn end_backlog(&mut self, id: ConnectionId) {
        if let Some(catch_up) = self.connections.catch_up_mut(id) {
            catch_up.unsent = None;
            return self.wake(id);
        }
        self.connections.take_rare(id.slot);
        self.mark_rare(id.slot, false);
    }

    fn mark_rare(&mut self, slot: u32, rare: bool) {
        let Some((_, connection)) = self.connections.in_slot(slot) else { return };
        if connection.state == State::One
            && let Some(channel) = self.channels.get_mut(ChannelId(connection.home))
            && let Some(subscriber) = channel.subscribers.get_mut(connection.position as usize)
        {
            subscriber.set_rare(rare);
        }
    }

    /// Settles with a stream that did not take the events `pieces`, `outcome` says how far.
    fn settle(
        &mut self,
        slot: u32,
        outcome: Outcome,
        pieces: &[(Rc<[u8]>, usize)],
        sockets: &mut impl Sockets,
    ) {
        let Some((id, _)) = self.connections.in_slot(slot) else { return };
        let mut sent = match outcome {
            Outcome::Failed => return self.close(id, CloseReason::WriteFailed, sockets),
            Outcome::Skipped => 0,
            Outcome::Partial(sent) => sent,
        };
        let mut begun = None;
        for (bytes, from) in pieces {
            let left = bytes.len() - from;
            if sent >= left {
                sent -= left;
                continue;
            }
            let from = from + std::mem::take(&mut sent);
            match (self.connections.backlog_mut(slot), &mut begun) {
                (Some(backlog), _) | (None, Some(backlog)) => backlog.push(Rc::clone(bytes), from),
                (None, none) => *none = Some(Backlog::new(Rc::clone(bytes), from)),
            }
        }
        if let Some(backlog) = begun {
            self.begin_backlog(id, backlog, sockets);
        }
        let behind = self.connections.backlog_mut(slot).map_or(0, |backlog| backlog.behind());
        if behind > self.limits.max_pending_bytes {
            self.close(id, CloseReason::SlowConsumer, sockets);
        }
    }
}

/// Positions and counts of one worker fit: it has fewer connections than there are descriptors.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the descriptor table")]
fn index(position: usize) -> u32 {
    debug_assert!(position < u32::MAX as usize);
    position as u32
}

/// Gives memory back once three quarters of it lie idle. Amortised O(1) per removal.
fn shrink<T>(list: &mut Vec<T>) {
    if list.len() * 4 <= list.capacity() {
        list.shrink_to(list.len() * 2);
    }
}
