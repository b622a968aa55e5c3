//! What a worker counts. Each counter has one writer, its worker; the admin listener reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer at a time: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// For gauges.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.get().saturating_sub(n), Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A short answer that does not keep the connection.
    Answered,
    /// An error answer after which the connection can't be used.
    BadRequest,
    /// Refused for want of room: told to come back later.
    Capacity,
    /// The server is going away: told to come back.
    Drained,
    HeadTimeout,
    PeerClosed,
    SlowConsumer,
    /// Its worker panicked.
    WorkerFailed,
    WriteFailed,
}

impl CloseReason {
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::BadRequest,
        Self::Capacity,
        Self::Drained,
        Self::HeadTimeout,
        Self::PeerClosed,
        Self::SlowConsumer,
        Self::WorkerFailed,
        Self::WriteFailed,
    ];

    /// The reason as metrics and logs spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::BadRequest => "bad-request",
            Self::Capacity => "capacity",
            Self::Drained => "drained",
            Self::HeadTimeout => "head-timeout",
            Self::PeerClosed => "peer-closed",
            Self::SlowConsumer => "slow-consumer",
            Self::WorkerFailed => "worker-failed",
            Self::WriteFailed => "write-failed",
        }
    }
}

/// Why a link to Redis that stood was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// It could not be found or reached.
    Unreachable,
    Tls,
    /// Redis closed it, or it broke.
    Closed,
    /// The same while more had arrived than could be read.
    Behind,
    /// What came was no answer to what was asked.
    Protocol,
    /// Redis answered with an error.
    Refused,
    /// Another one is the master now.
    Moved,
    /// It did not answer in time.
    Silent,
    /// What was published did not arrive.
    Undelivered,
}

impl LossReason {
    pub const ALL: [Self; 9] = [
        Self::Unreachable,
        Self::Tls,
        Self::Closed,
        Self::Behind,
        Self::Protocol,
        Self::Refused,
        Self::Moved,
        Self::Silent,
        Self::Undelivered,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::Behind => "behind",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Moved => "moved",
            Self::Silent => "silent",
            Self::Undelivered => "undelivered",
        }
    }
}

/// The counters of one worker. Aligned to its own cache lines: neighbours must not slow each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Gauge: connections, whatever they are doing.
    pub connections: Counter,
    /// Gauge: connections that receive events.
    pub streams: Counter,
    /// Gauge: channels with a subscription that stands.
    pub subscriptions: Counter,
    pub accepted: Counter,
    /// Events taken in from Redis.
    pub received: Counter,
    /// Events handed to the kernel or queued, once per stream.
    pub deliveries: Counter,
    pub delivered_bytes: Counter,
    pub heartbeats: Counter,
    /// Payloads that their channel's format can't read.
    pub undecodable: Counter,
    /// Messages over `--max-event-bytes`.
    pub oversize: Counter,
    /// Events given up over `--max-intake`.
    pub overload: Counter,
    /// `stream-reset` events, once per channel.
    pub resets: Counter,
    /// Events that did not arrive on a link that seemed to stand.
    pub gaps: Counter,
    /// Events that were passed on after a lost link.
    pub repaired: Counter,
    /// Events without history on channels whose events are kept.
    pub plain: Counter,
    /// Gauge: channels with events beside those that are kept, as far as it is known.
    pub mixed_channels: Counter,
    /// Times that something looked like an event that is kept, and was none.
    pub forged: Counter,
    /// Readings of history that Redis was asked for.
    pub history_reads: Counter,
    /// Times that a stream which catches up looked for what comes next.
    pub looks: Counter,
    /// Channels whose streams were told of a loss, since there was no room to make up for it.
    pub history_over_bound: Counter,
    /// Streams that came back and missed nothing that memory did not have.
    pub resumed_from_memory: Counter,
    /// Streams that came back and got what they missed from Redis.
    pub resumed_from_redis: Counter,
    /// Streams that came back and were told that they may have missed something.
    pub resumed_with_reset: Counter,
    /// Times that the kernel had no descriptor or memory for a connection.
    pub accept_failures: Counter,
    /// Gauge: 1 while the link to Redis is up, all its subscriptions stand, and what is published
    /// arrives.
    pub link_ready: Counter,
    /// Gauge: how far the link is, as a number of `io::link::Stage`.
    pub link_stage: Counter,
    /// Gauge: when something that was published arrived last, in milliseconds of CLOCK_MONOTONIC;
    /// 0 if nothing has on the link that stands.
    pub proven_at_ms: Counter,
    /// Subscriptions made again because a link was lost.
    pub resubscriptions: Counter,
    /// Probes that Redis took and that did not arrive.
    pub probes_lost: Counter,
    link_losses: [Counter; LossReason::ALL.len()],
    closes: [Counter; CloseReason::ALL.len()],
}

impl Counters {
    /// The worker is gone, and what it held with it. For whoever found it dead.
    pub fn bury(&self) {
        if let Some(failed) = self.closes.get(CloseReason::WorkerFailed as usize) {
            failed.add(self.connections.get());
        }
        for gauge in [
            &self.connections,
            &self.streams,
            &self.subscriptions,
            &self.link_ready,
            &self.link_stage,
            &self.proven_at_ms,
        ] {
            gauge.set(0);
        }
    }

    pub fn close(&self, reason: CloseReason) {
        if let Some(counter) = self.closes.get(reason as usize) {
            counter.add(1);
        }
    }

    pub fn lose_link(&self, reason: LossReason) {
        if let Some(counter) = self.link_losses.get(reason as usize) {
            counter.add(1);
        }
    }

    #[must_use]
    pub fn links_lost(&self, reason: LossReason) -> u64 {
        self.link_losses.get(reason as usize).map_or(0, Counter::get)
    }

    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closes.get(reason as usize).map_or(0, Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let counters = Counters::default();
        for (n, reason) in CloseReason::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                counters.close(reason);
            }
        }
        for (n, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.closed(reason), n as u64 + 1, "{}", reason.as_str());
        }
        for (n, reason) in LossReason::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                counters.lose_link(reason);
            }
        }
        for (n, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.links_lost(reason), n as u64 + 1, "{}", reason.as_str());
        }
    }
}
