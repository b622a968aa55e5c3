//! The publishers of the soak test, who tell the judge of all that they publish.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use corecast::bytes::history::EventId;

use super::channels;
use super::clock::{let_pass, now, time_of_day_ms};
use super::follower::payload;
use super::intruder::{EVENT_BYTES_MAX, Intruder};
use super::kept::Publisher;
use super::ledger::{Notice, Published};
use super::redis::Redis;

/// Connections that publish at the same time.
const PUBLISHERS: usize = 3;

/// Events that are kept of a channel: more than are published in the longest run.
pub(crate) const KEPT: usize = 1_000_000;

/// The part of each minute in which events are forged.
const FORGED_SECONDS: Range<u64> = 35..50;

/// A thread that publishes, over several connections at a time.
pub(crate) struct Publishing {
    thread: JoinHandle<(EventId, u64)>,
    stop: Arc<AtomicBool>,
    pub(crate) published: Arc<AtomicU64>,
}

impl Publishing {
    pub(crate) fn start(redis: &Redis, notices: Sender<Notice>, seed: u64) -> Self {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut random = fastrand::Rng::with_seed(seed);
        let publishers = (0..PUBLISHERS).map(|_| Publisher::over(redis.client(), KEPT));
        let mut desk = Desk {
            publishers: publishers.collect(),
            intruder: Intruder::new(redis, notices.clone(), random.u64(..)),
            random,
            notices,
            number: 0,
            newest: EventId::ZERO,
            start: now(),
        };
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&published));
        let thread = thread::spawn(move || {
            desk.work(&stopped, &counter);
            (desk.newest, desk.intruder.refused)
        });
        Self { thread, stop, published }
    }

    /// The id of the last event, one more of each channel, when all others were published; and how
    /// often a publisher without rights was refused.
    pub(crate) fn finish(self) -> (EventId, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Desk {
    publishers: Vec<Publisher>,
    intruder: Intruder,
    random: fastrand::Rng,
    notices: Sender<Notice>,
    number: u32,
    newest: EventId,
    start: Instant,
}

/// An event that is to be published.
#[derive(Clone, Copy)]
struct Draft {
    channel: usize,
    number: u32,
    length: usize,
}

impl Desk {
    fn work(&mut self, stop: &AtomicBool, counter: &AtomicU64) {
        loop {
            let is_last = stop.load(Ordering::SeqCst);
            self.publish(is_last);
            counter.store(self.number.into(), Ordering::SeqCst);
            if is_last {
                return;
            }
            let forges = FORGED_SECONDS.contains(&(self.start.elapsed().as_secs() % 60));
            self.intruder.intrude(forges, self.newest);
            let_pass(Duration::from_millis(self.random.u64(10..120)));
        }
    }

    fn publish(&mut self, is_last: bool) {
        let batches: Vec<Vec<Draft>> =
            (0..self.publishers.len()).map(|_| self.draft(is_last)).collect();
        for (publisher, batch) in self.publishers.iter_mut().zip(&batches) {
            let events: Vec<(String, String)> = batch
                .iter()
                .map(|event| {
                    let Draft { channel, number, length } = *event;
                    (channels::name(channel), payload(channel, number, length))
                })
                .collect();
            let events: Vec<(&[u8], &[u8])> =
                events.iter().map(|(name, data)| (name.as_bytes(), data.as_bytes())).collect();
            publisher.send(&events);
        }
        // Once all have their answers, nothing earlier than the latest can be missing.
        let mut events = Vec::new();
        for (publisher, batch) in self.publishers.iter_mut().zip(batches) {
            for Draft { channel, number, length } in batch {
                let (id, is_oversize) = (publisher.receive(), length > EVENT_BYTES_MAX);
                events.push(Published { id, channel, number, is_oversize });
            }
        }
        self.newest =
            self.newest.max(events.iter().map(|event| event.id).max().unwrap_or_default());
        let known_ms = if is_last { u64::MAX } else { time_of_day_ms() };
        // The clients' thread tells itself why it has ended.
        let _ = self.notices.send(Notice::Published(events, known_ms));
    }

    /// What a publisher sends next.
    fn draft(&mut self, is_last: bool) -> Vec<Draft> {
        // Mostly a few, at times a burst.
        let count = if self.random.u32(0..40) == 0 { 100 } else { self.random.usize(0..8) };
        let mut channels: Vec<usize> = (0..count).map(|_| self.draw_channel()).collect();
        if is_last {
            // The last ids are of channels on which nobody forges any.
            channels.extend((0..channels::ALL).rev());
        }
        let length = self.random.usize(20..200);
        let mut batch = Vec::with_capacity(channels.len());
        for channel in channels {
            self.number += 1;
            batch.push(Draft { channel, number: self.number, length });
        }
        // A few are as long as can be, or longer.
        let (kind, more) = (self.random.u32(0..100), self.random.usize(1..24_000));
        if let (0..=4, Some(draft)) = (kind, batch.first_mut()) {
            draft.length = EVENT_BYTES_MAX + if kind == 0 { 0 } else { more };
        }
        batch
    }

    fn draw_channel(&mut self) -> usize {
        let (channel, is_quiet) = (self.random.usize(0..channels::ALL), self.random.u32(0..10) > 0);
        if channels::QUIET.contains(&channel) && is_quiet { 0 } else { channel }
    }
}
