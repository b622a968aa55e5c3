//! What the streams have gone through: live, for who waits, and in full, at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;

use super::options::Allowed;
use super::response::Unusable;
use super::sequence::Missing;

/// What the threads tell while they run; each adds to it once a turn.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) opened: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Streams that were open and are no more.
    pub(super) ended: AtomicU64,
    /// Messages that are to be received by all streams that have opened.
    pub(super) expected: AtomicU64,
    /// Messages received, each once.
    pub(super) delivered: AtomicU64,
    /// Messages that streams will not receive any more: they have ended, or were told.
    pub(super) given_up: AtomicU64,
    /// The streams that are not to stay disconnect.
    pub(super) thins: AtomicBool,
    /// Streams that have disconnected for that, and threads that have seen to it.
    pub(super) left: AtomicU64,
    pub(super) threads_thinned: AtomicU64,
    /// The server is told to stop, and ends the streams.
    pub(super) server_stops: AtomicBool,
    pub(super) stop: AtomicBool,
}

/// Everything about some streams.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) opened: u64,
    /// Streams that did not open.
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) ended: u64,
    /// Streams ended by a server that was told to stop.
    pub(super) dismissed: u64,
    /// Time from the first packet to the end of the head, in microseconds.
    pub(super) opening: Histogram<u64>,
    /// Messages received, each once.
    pub(super) delivered: u64,
    pub(super) expected: u64,
    /// Messages lost in silence.
    pub(super) lost: u64,
    /// Streams that have lost something in silence.
    pub(super) losers: u64,
    /// Messages lost whose streams were told by a `stream-reset`.
    pub(super) told: u64,
    /// Streams that were told of such a loss.
    pub(super) told_losers: u64,
    /// The first of them.
    pub(super) losses: Vec<Loss>,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    /// `stream-reset` events, by their reason.
    pub(super) resets: BTreeMap<String, u64>,
    /// Lines of data of somebody else.
    pub(super) foreign: u64,
    /// Time from the moment a message was due, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// The same of closing messages, which count as delivered too.
    pub(super) closing: Histogram<u64>,
    /// The longest latency of each message, in microseconds.
    pub(super) slowest: Vec<u32>,
    /// When the first and the last message was received.
    pub(super) first_ns: Option<u64>,
    pub(super) last_ns: Option<u64>,
    /// Share of the time between them that the busiest thread spent on a core.
    pub(super) busy: f64,
}

/// What one stream has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) stream: u32,
    pub(super) messages: u64,
    /// The first message that is missing, by its place in its channel.
    pub(super) first: u32,
}

/// Why a stream did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    TimedOut,
    /// Closed before the head was whole.
    Closed,
    Response(Unusable),
    /// What a call answered.
    System(i32),
}

impl Live {
    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Adds to a figure that others read while it grows.
pub(super) fn add(figure: &AtomicU64, count: u64) {
    if count > 0 {
        figure.fetch_add(count, Ordering::Relaxed);
    }
}

impl Tally {
    /// # Errors
    /// None in a sane process: the bounds of the histograms are right.
    pub(super) fn new() -> io::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Ok(Self {
            opened: 0,
            failures: BTreeMap::new(),
            ended: 0,
            dismissed: 0,
            opening: histogram().map_err(io::Error::other)?,
            delivered: 0,
            expected: 0,
            lost: 0,
            losers: 0,
            told: 0,
            told_losers: 0,
            losses: Vec::new(),
            duplicated: 0,
            reordered: 0,
            resets: BTreeMap::new(),
            foreign: 0,
            latency: histogram().map_err(io::Error::other)?,
            closing: histogram().map_err(io::Error::other)?,
            slowest: Vec::new(),
            first_ns: None,
            last_ns: None,
            busy: 0.0,
        })
    }

    /// Adds what other streams have gone through.
    ///
    /// # Errors
    /// None in a sane process: all histograms have the same bounds.
    pub(super) fn merge(&mut self, other: &Self) -> io::Result<()> {
        self.opened += other.opened;
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.ended += other.ended;
        self.dismissed += other.dismissed;
        self.opening.add(&other.opening).map_err(io::Error::other)?;
        self.delivered += other.delivered;
        self.expected += other.expected;
        self.lost += other.lost;
        self.losers += other.losers;
        self.told += other.told;
        self.told_losers += other.told_losers;
        let room = LOSSES_SHOWN_MAX.saturating_sub(self.losses.len());
        self.losses.extend(other.losses.iter().take(room));
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        for (reason, count) in &other.resets {
            *self.resets.entry(reason.clone()).or_default() += count;
        }
        self.foreign += other.foreign;
        self.latency.add(&other.latency).map_err(io::Error::other)?;
        self.closing.add(&other.closing).map_err(io::Error::other)?;
        if self.slowest.len() < other.slowest.len() {
            self.slowest.resize(other.slowest.len(), 0);
        }
        for (mine, others) in self.slowest.iter_mut().zip(&other.slowest) {
            *mine = (*mine).max(*others);
        }
        self.first_ns = self.first_ns.into_iter().chain(other.first_ns).min();
        self.last_ns = self.last_ns.max(other.last_ns);
        self.busy = self.busy.max(other.busy);
        Ok(())
    }

    /// Remembers how long a message took; `message` names it among all messages.
    pub(super) fn record_latency(&mut self, message: u64, latency_us: u64) {
        self.latency.saturating_record(latency_us);
        let message = usize::try_from(message).ok().filter(|message| *message < SLOWEST_MAX);
        let Some(message) = message else { return };
        if self.slowest.len() <= message {
            self.slowest.resize(message + 1, 0);
        }
        if let Some(slowest) = self.slowest.get_mut(message) {
            *slowest = (*slowest).max(u32::try_from(latency_us).unwrap_or(u32::MAX));
        }
    }

    /// Counts a `stream-reset` by the reason in its data.
    pub(super) fn record_reset(&mut self, data: &[u8]) {
        let data: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
        let reason = data.get("reason").and_then(|reason| reason.as_str()).unwrap_or("unknown");
        *self.resets.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts what a stream has not received.
    pub(super) fn record_missing(&mut self, stream: u32, missing: Missing) {
        self.told += missing.told;
        self.told_losers += u64::from(missing.told > 0);
        if let Some(first) = missing.first_silent {
            self.lost += missing.silent;
            self.losers += 1;
            if self.losses.len() < LOSSES_SHOWN_MAX {
                self.losses.push(Loss { stream, messages: missing.silent, first });
            }
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Whether every stream has opened and received every message once and in order.
    pub(super) fn is_flawless(&self) -> bool {
        self.worst() == Allowed::Nothing
    }

    /// What has to be allowed for this to be no failure.
    pub(super) fn worst(&self) -> Allowed {
        match self.failed() + self.ended + self.lost + self.duplicated + self.reordered {
            0 if self.told == 0 => Allowed::Nothing,
            0 => Allowed::Told,
            _ => Allowed::Anything,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Closed => f.write_str("closed without an answer"),
            Self::Response(Unusable::Status(status)) => write!(f, "status {status}"),
            Self::Response(Unusable::ContentType) => f.write_str("no event stream"),
            Self::Response(Unusable::Malformed) => f.write_str("no HTTP"),
            Self::Response(Unusable::Ended) => f.write_str("an empty event stream"),
            Self::System(error) => write!(f, "{}", io::Error::from_raw_os_error(*error)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::Closed, Self::System)
    }
}

/// Enough to see whether they have something in common.
const LOSSES_SHOWN_MAX: usize = 3;

/// Messages whose slowest stream is remembered: by every thread, in 4 bytes each.
const SLOWEST_MAX: usize = 1_000_000;

/// An hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut all = Tally::new().unwrap();
        for (opened, latency_us, message) in [(3, 100, 0), (4, 300, 2), (0, 200, 0)] {
            let mut tally = Tally::new().unwrap();
            tally.opened = opened;
            tally.failures.insert(Failure::TimedOut, 1);
            tally.record_latency(message, latency_us);
            tally.last_ns = Some(latency_us);
            tally.first_ns = Some(latency_us);
            tally.busy = 1.0 / f64::from(u32::try_from(latency_us).unwrap());
            all.merge(&tally).unwrap();
        }
        assert_eq!((all.opened, all.failed()), (7, 3));
        assert_eq!((all.first_ns, all.last_ns), (Some(100), Some(300)));
        assert_eq!(all.slowest, [200, 0, 300]);
        assert_eq!(all.latency.len(), 3);
        assert_eq!(all.busy, 0.01);
    }

    #[test]
    fn every_kind_of_fault_is_a_flaw() {
        let silent = |tally: &mut Tally| {
            tally.record_missing(0, Missing { silent: 1, told: 0, first_silent: Some(0) });
        };
        let flaws: [fn(&mut Tally); 5] = [
            silent,
            |tally| tally.duplicated = 1,
            |tally| tally.reordered = 1,
            |tally| tally.ended = 1,
            |tally| *tally.failures.entry(Failure::Closed).or_default() = 1,
        ];
        assert!(Tally::new().unwrap().is_flawless());
        for flaw in flaws {
            let mut tally = Tally::new().unwrap();
            flaw(&mut tally);
            assert_eq!(tally.worst(), Allowed::Anything);
        }
    }

    #[test]
    fn a_loss_that_was_told_is_another_matter() {
        let mut tally = Tally::new().unwrap();
        tally.record_missing(0, Missing { silent: 0, told: 3, first_silent: None });
        assert_eq!(tally.worst(), Allowed::Told);
        assert_eq!((tally.told, tally.told_losers, tally.losers), (3, 1, 0));
    }

    #[test]
    fn resets_are_counted_by_reason() {
        let mut tally = Tally::new().unwrap();
        for data in ["{\"reason\": \"overload\"}", "{\"reason\":\"overload\"}", "?"] {
            tally.record_reset(data.as_bytes());
        }
        let expected = [("overload".to_owned(), 2), ("unknown".to_owned(), 1)];
        assert_eq!(tally.resets, BTreeMap::from(expected));
    }
}
