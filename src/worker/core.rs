//! The part of a worker that link and connections act on: its streams, and what came in for them.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::bytes::format::Formats;
use crate::bytes::target::Routes;
use crate::ground::config::Config;
use crate::ground::ids::{ConnectionId, WorkerId};
use crate::ground::limits::{CHANNEL_LINGER, LINGERING_CLOSE, OPEN_WAIT, READ_BUFFER_BYTES, TICK};
use crate::io::rate_limited::RateLimited;
use crate::io::reactor::Readiness;
use crate::state::connections::State;
use crate::state::counters::{CloseReason, Counters};
use crate::state::deadlines::{Deadlines, Tick};
use crate::state::streams::{StreamLimits, Streams};
use crate::sys::socket::{ClientSockets, Received};
use crate::sys::{clock, raw, socket};

use super::{Capacity, Setup};

mod upstream;

pub(super) struct Core {
    pub(super) id: WorkerId,
    pub(super) config: Arc<Config>,
    pub(super) routes: Arc<Routes>,
    formats: Arc<Formats>,
    pub(super) streams: Streams,
    pub(super) sockets: ClientSockets,
    pub(super) counters: Arc<Counters>,
    pub(super) capacity: Capacity,
    pub(super) draining: bool,
    started: Instant,
    pub(super) now: Tick,
    pub(super) heads: Deadlines<ConnectionId>,
    pub(super) openings: Deadlines<ConnectionId>,
    pub(super) lingerings: Deadlines<ConnectionId>,
    /// The link came up: what was asked of it is to be proven by a PING.
    pub(super) wants_proof: bool,
    /// The time of a Redis that has no clock for history yet, to begin it.
    pub(super) clock_to_start: Option<u64>,
    /// When the link that stands was first told that there is none.
    clock_missed_at: Option<Tick>,
    clock_was_started: bool,
    /// It was told on the link that stands.
    clock_was_told: bool,
    /// The link came up: the function for publishing is to be loaded.
    pub(super) prepares_history: bool,
    link_was_missed: bool,
    /// A link has stood before.
    had_link: bool,
    read_buffer: Vec<u8>,
    /// Requests answered in this turn of a connection.
    pub(super) answers: usize,
    encoded: Vec<u8>,
    pub(super) exhausted_line: RateLimited,
    undecodable_line: RateLimited,
    refused_line: RateLimited,
    oversize_line: RateLimited,
    slow_line: RateLimited,
    plain_line: RateLimited,
    history_line: RateLimited,
    forged_line: RateLimited,
    mark_line: RateLimited,
    slow_seen: u64,
}

/// Answers to one connection in one turn: nobody asks for so many at once and then reads them.
pub(super) const ANSWERS_PER_TURN_MAX: usize = 64;

/// Reads of one connection in one turn. Who sends more than that many buffers full at once is no
/// EventSource.
const READS_PER_TURN_MAX: usize = 64;

/// In a debug build that was asked for it, a message on this channel makes the worker panic whose
/// number is its payload: how the tests see that only its streams pay.
#[cfg(debug_assertions)]
const PANIC_CHANNEL: &[u8] = b"corecast:test:panic";

impl Core {
    pub(super) fn new(setup: Setup, now: Instant) -> Self {
        let config = setup.config;
        let limits = StreamLimits {
            max_pending_bytes: config.max_pending_bytes,
            max_intake_bytes: config.max_intake_bytes,
            heartbeat_ticks: config.heartbeat.map_or(0, |interval| ticks(interval).max(2)),
            linger_ticks: ticks(CHANNEL_LINGER),
            coalesce_ms: u64::try_from(config.coalesce.as_millis()).unwrap_or(u64::MAX),
        };
        let mut streams = Streams::new(
            limits,
            &config.strip_prefix,
            config.history.clone(),
            u64::try_from(config.history_ttl.as_millis()).unwrap_or(u64::MAX),
            Arc::clone(&setup.counters),
        );
        for channel in &config.subscribe_ahead {
            streams.hold(channel);
        }
        #[cfg(debug_assertions)]
        if std::env::var_os("CORECAST_TEST_PANIC").is_some() {
            streams.hold(PANIC_CHANNEL);
        }
        Self {
            id: setup.id,
            routes: setup.routes,
            formats: setup.formats,
            streams,
            sockets: ClientSockets,
            counters: setup.counters,
            capacity: setup.capacity,
            draining: false,
            started: now,
            now: Tick::default(),
            heads: Deadlines::new(ticks(config.head_timeout)),
            openings: Deadlines::new(ticks(OPEN_WAIT)),
            lingerings: Deadlines::new(ticks(LINGERING_CLOSE)),
            wants_proof: false,
            clock_to_start: None,
            clock_missed_at: None,
            clock_was_started: false,
            clock_was_told: false,
            prepares_history: false,
            link_was_missed: false,
            had_link: false,
            read_buffer: vec![0; READ_BUFFER_BYTES],
            answers: 0,
            encoded: Vec::new(),
            exhausted_line: RateLimited::default(),
            undecodable_line: RateLimited::default(),
            refused_line: RateLimited::default(),
            oversize_line: RateLimited::default(),
            slow_line: RateLimited::default(),
            plain_line: RateLimited::default(),
            history_line: RateLimited::default(),
            forged_line: RateLimited::default(),
            mark_line: RateLimited::default(),
            slow_seen: 0,
            config,
        }
    }

    pub(super) fn set_time(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.started);
        self.now = Tick(ticks(elapsed));
        self.streams.set_time(self.now, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    }

    /// A new connection: its request head has a deadline.
    pub(super) fn take_in(&mut self, fd: RawFd) -> ConnectionId {
        let id = self.streams.add(fd);
        self.await_head(id);
        id
    }

    /// Sets the deadline of the next request head.
    pub(super) fn await_head(&mut self, id: ConnectionId) {
        let deadline = self.heads.push(self.now, id);
        self.streams.set_head_deadline(id, deadline);
    }

    pub(super) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        self.streams.close(id, reason, &mut self.sockets);
    }

    /// A client's socket is ready.
    pub(super) fn on_ready(&mut self, id: ConnectionId, readiness: Readiness) {
        if readiness.hung_up {
            return self.close(id, CloseReason::PeerClosed);
        }
        if readiness.readable {
            self.on_readable(id, readiness.peer_finished);
        }
        if readiness.writable && self.streams.has_backlog(id) {
            self.streams.flush(id, &mut self.sockets);
        }
    }

    fn on_readable(&mut self, id: ConnectionId, peer_finished: bool) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        self.answers = 0;
        self.read_all(id, peer_finished, &mut buffer);
        self.read_buffer = buffer;
    }

    /// Reads until nothing is left, as an edge-triggered watch demands. A read that leaves room in
    /// the buffer took all there was (epoll(7)), but for the end where the peer has announced it.
    fn read_all(&mut self, id: ConnectionId, peer_finished: bool, buffer: &mut [u8]) {
        for _ in 0..READS_PER_TURN_MAX {
            let Some(connection) = self.streams.get(id) else { return };
            let (fd, state) = (connection.fd, connection.state);
            match socket::receive(raw::borrow(fd), buffer) {
                Received::Empty => return,
                Received::Closed => return self.close(id, CloseReason::PeerClosed),
                Received::Bytes(count) => {
                    // A stream's client has nothing to say; what a refused one says is thrown away.
                    if state == State::Head {
                        self.on_head_bytes(id, buffer.get(..count).unwrap_or_default());
                    }
                    if count < buffer.len() && !peer_finished {
                        return;
                    }
                }
            }
        }
        self.close(id, CloseReason::BadRequest);
    }

    /// Deadlines of heads, of openings, of lingering closes.
    pub(super) fn on_deadlines(&mut self) {
        while let Some((deadline, id)) = self.heads.pop_due(self.now) {
            if self.streams.has_head_deadline(id, deadline) {
                self.on_head_timeout(id);
            }
        }
        while let Some((_, id)) = self.openings.pop_due(self.now) {
            // Does nothing if the stream is open by now.
            self.streams.open(id, &mut self.sockets);
        }
        while let Some((_, id)) = self.lingerings.pop_due(self.now) {
            if self.streams.get(id).is_some_and(|c| matches!(c.state, State::Lingering(_))) {
                self.close(id, CloseReason::Answered);
            }
        }
        let slow = self.counters.closed(CloseReason::SlowConsumer);
        if slow > self.slow_seen
            && let Some(_) = self.slow_line.permit(clock::now())
        {
            let closed = slow - std::mem::replace(&mut self.slow_seen, slow);
            let bound = self.config.max_pending_bytes;
            warn!(worker = %self.id, closed, "slow consumers: over --max-pending {bound} bytes");
        }
    }
}

/// A duration in ticks, rounded up.
fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX / 4)
}
