//! The part of a worker that link and connections act on: its streams, and what came in for them.

use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::format::{self, Formats};
use crate::bytes::target::Routes;
use crate::ground::config::Config;
use crate::ground::ids::{ChannelId, ConnectionId, WorkerId};
use crate::ground::limits::{CHANNEL_LINGER, LINGERING_CLOSE, OPEN_WAIT, READ_BUFFER_BYTES, TICK};
use crate::io::link::{LinkError, Protocol, Upstream};
use crate::io::rate_limited::RateLimited;
use crate::io::reactor::Readiness;
use crate::state::connections::State;
use crate::state::counters::{CloseReason, Counters};
use crate::state::deadlines::{Deadlines, Tick};
use crate::state::streams::{StreamLimits, Streams};
use crate::sys::socket::{ClientSockets, Received};
use crate::sys::{clock, raw, socket};

use super::{Capacity, Setup};

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
            Default::default(),
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

    /// An event for the streams of a channel, by its name in Redis.
    fn deliver(&mut self, channel: ChannelId, event: &event_stream::Event<'_>) {
        self.encoded.clear();
        event_stream::encode(event, &mut self.encoded);
        self.streams.publish(channel, &Rc::from(self.encoded.as_slice()));
        if self.encoded.capacity() > READ_BUFFER_BYTES {
            self.encoded = Vec::new();
        }
    }

    #[cfg(debug_assertions)]
    fn panic_if_asked(&self, channel: &[u8], payload: &[u8]) {
        let asked = channel == PANIC_CHANNEL && payload == self.id.to_string().as_bytes();
        assert!(!asked, "asked to panic");
    }
}

impl Upstream for Core {
    fn link_up(&mut self, protocol: Protocol) {
        self.wants_proof = true;
        self.streams.link_up();
        if std::mem::replace(&mut self.had_link, true) {
            self.counters.resubscriptions.add(self.streams.asks() as u64);
        }
        if protocol == Protocol::Resp2 && self.id.0 == 0 {
            warn!("Redis speaks RESP2 only: streams are live, without history");
        }
    }

    fn link_proven(&mut self) {
        self.counters.link_ready.set(1);
        if std::mem::take(&mut self.link_was_missed) {
            info!(worker = %self.id, "the link to Redis stands again");
        } else {
            debug!(worker = %self.id, "the link to Redis stands");
        }
    }

    fn link_unproven(&mut self) {
        self.counters.link_ready.set(0);
        self.link_was_missed = true;
        warn!(worker = %self.id, "nothing proves that what is published arrives; not ready");
    }

    fn unprobed(&mut self, error: &[u8]) {
        // All workers are one user.
        if self.id.0 == 0 {
            let error = String::from_utf8_lossy(error);
            warn!(
                "our user at Redis may not subscribe to corecast:probe:*, so links are proven \
                by PING alone, which a node that lost its publishers answers too: {error}"
            );
        }
    }

    fn link_down(&mut self, error: &LinkError, was_up: bool) {
        self.counters.link_ready.set(0);
        if was_up {
            self.counters.lose_link(error.reason());
        }
        if matches!(error, LinkError::Undelivered) {
            self.counters.probes_lost.add(1);
        }
        let is_news = !std::mem::replace(&mut self.link_was_missed, true);
        if was_up {
            warn!(worker = %self.id, "lost the link to Redis: {error}; connecting again");
        } else if is_news && self.id.0 == 0 {
            warn!("no link to Redis: {error}; streams open all the same, and I keep trying");
        } else {
            debug!(worker = %self.id, "no link to Redis: {error}");
        }
        self.streams.link_down();
    }

    fn message(&mut self, channel: &[u8], payload: &[u8]) {
        self.counters.received.add(1);
        #[cfg(debug_assertions)]
        self.panic_if_asked(channel, payload);
        let decoded = match format::decode(self.formats.of(channel), payload) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.counters.undecodable.add(1);
                if let Some(suppressed) = self.undecodable_line.permit(clock::now()) {
                    let channel = String::from_utf8_lossy(channel);
                    warn!(worker = %self.id, %channel, suppressed, "unreadable payload: {error}");
                }
                return;
            }
        };
        let target = match &decoded.channel {
            None => self.streams.find(channel),
            Some(inner) if self.config.strip_prefix.is_empty() => self.streams.find(inner),
            Some(inner) => {
                let name = [&*self.config.strip_prefix, inner].concat();
                self.streams.find(&name)
            }
        };
        if let Some(target) = target.filter(|target| self.streams.has_streams(*target)) {
            self.deliver(target, &decoded.event);
        }
    }

    fn sheds(&mut self, is_behind: bool) -> bool {
        self.streams.sheds(is_behind)
    }

    fn shed(&mut self, channel: &[u8]) -> bool {
        // Whose message it is on such a channel is not known before it is decoded.
        let is_ahead = self.config.subscribe_ahead.iter().any(|ahead| ahead == channel);
        let shed = !is_ahead && self.streams.shed(channel);
        self.counters.received.add(u64::from(shed));
        shed
    }

    fn oversize(&mut self, channel: &[u8]) {
        self.counters.received.add(1);
        self.counters.oversize.add(1);
        if let Some(suppressed) = self.oversize_line.permit(clock::now()) {
            let bound = self.config.max_event_bytes;
            let channel = String::from_utf8_lossy(channel);
            warn!(worker = %self.id, %channel, suppressed,
                "skipped a message over --max-event-bytes {bound}");
        }
        // A message on such a channel was for some other, and which can't be read any more.
        if self.config.subscribe_ahead.iter().any(|ahead| ahead == channel) {
            self.streams.reset_all(ResetReason::Oversize);
        } else if let Some(id) = self.streams.find(channel)
            && self.streams.has_streams(id)
        {
            self.streams.reset(id, ResetReason::Oversize);
        }
    }

    fn subscribed(&mut self, channel: &[u8]) {
        if let Some(id) = self.streams.find(channel) {
            self.streams.acknowledge(id);
        }
    }

    fn refused(&mut self, channel: ChannelId, error: &[u8]) {
        if let Some(suppressed) = self.refused_line.permit(clock::now()) {
            let channel = String::from_utf8_lossy(self.streams.name(channel));
            let error = String::from_utf8_lossy(error);
            warn!(worker = %self.id, %channel, suppressed, "Redis refuses to subscribe: {error}");
        }
        self.streams.refuse(channel);
    }
}

/// A duration in ticks, rounded up.
fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX / 4)
}
