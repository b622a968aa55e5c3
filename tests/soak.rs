//! Three servers, one Redis, five hundred clients that wander between them, and everything that can
//! happen to such a system, drawn from one seed: no event is lost in silence, comes twice or out of
//! order.
//!
//! `CORECAST_SOAK_SECONDS` says how long (60 if it is not given), `CORECAST_SOAK_SEED` repeats the
//! faults of another run.
#![cfg(test)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use corecast::bytes::history::EventId;
use support::chaos::{Fault, System};
use support::clock::{Deadline, eventually_within, let_pass, now};
use support::follower::{Follower, Reset, Tally, payload};
use support::kept::{Log, Published, Publisher};
use support::redis::Redis;
use support::wanderers::{Journey, Wanderers};

const CHANNELS: usize = 12;
const CLIENTS: usize = 500;

/// Connections that publish at the same time.
const PUBLISHERS: usize = 3;

/// Events that are kept of a channel: more than are published in the longest run.
const KEPT: usize = 1_000_000;

/// The part of each minute in which history is trimmed.
const TRIMMED_SECONDS: std::ops::Range<u64> = 20..30;

/// How long it may take, after all faults, until every client has everything.
const SETTLE: Duration = Duration::from_secs(60);

/// Whatever an environment variable says, or what to take without it.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn time_of_day_ms() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(time.as_millis()).unwrap()
}

/// A thread that publishes, over several connections at a time, and tells the clients' judge.
struct Publishing {
    thread: JoinHandle<EventId>,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
}

impl Publishing {
    fn start(redis: &Redis, log: Sender<Vec<Published>>, seed: u64) -> Self {
        let publishers: Vec<Publisher> =
            (0..PUBLISHERS).map(|_| Publisher::over(redis.client(), KEPT)).collect();
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&published));
        let random = fastrand::Rng::with_seed(seed);
        let thread = thread::spawn(move || publish(publishers, random, &log, &stopped, &counter));
        Self { thread, stop, published }
    }

    /// The id of the last event: one more of each channel, when all others were published.
    fn finish(self) -> EventId {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn publish(
    mut publishers: Vec<Publisher>,
    mut random: fastrand::Rng,
    log: &Sender<Vec<Published>>,
    stop: &AtomicBool,
    counter: &AtomicU64,
) -> EventId {
    let mut number = 0;
    loop {
        let is_last = stop.load(Ordering::SeqCst);
        let mut batches: Vec<Vec<(usize, u32)>> = vec![Vec::new(); publishers.len()];
        for batch in &mut batches {
            // Mostly a few, at times a burst.
            let count = if random.u32(0..40) == 0 { 100 } else { random.usize(0..8) };
            let mut add = |channel| {
                number += 1;
                batch.push((channel, number));
            };
            (0..count).for_each(|_| add(random.usize(0..CHANNELS)));
            if is_last {
                (0..CHANNELS).for_each(add);
            }
        }
        for (publisher, batch) in publishers.iter_mut().zip(&batches) {
            let length = random.usize(20..200);
            let events: Vec<(String, String)> = batch
                .iter()
                .map(|(channel, number)| {
                    (format!("c{channel}"), payload(*channel, *number, length))
                })
                .collect();
            let events: Vec<(&[u8], &[u8])> =
                events.iter().map(|(name, data)| (name.as_bytes(), data.as_bytes())).collect();
            publisher.send(&events);
        }
        // Once all have their answers, nothing earlier than the latest can be missing in the log.
        let mut events = Vec::new();
        for (publisher, batch) in publishers.iter_mut().zip(batches) {
            for (channel, number) in batch {
                events.push(Published { id: publisher.receive(), channel, number });
            }
        }
        let last = events.iter().map(|event| event.id).max();
        counter.store(number.into(), Ordering::SeqCst);
        // The clients' thread tells itself why it has ended.
        let _ = log.send(events);
        if let (true, Some(last)) = (is_last, last) {
            return last;
        }
        let_pass(Duration::from_millis(random.u64(10..120)));
    }
}

fn report(system: &System, tally: &Tally, published: u64, resumes: u64) {
    println!("{published} events published, {} delivered", tally.deliveries);
    println!("{} faults:", system.faults.values().sum::<usize>());
    for (name, count) in &system.faults {
        println!("  {count:>6} {name}");
    }
    println!("{resumes} resumes");
    println!("{} resets, for {} events:", tally.resets.len(), tally.excused);
    for (reason, count) in tally.reasons() {
        let unexplained = |reset: &&Reset| reset.reason == reason && !system.explains(reset);
        let unexplained = tally.resets.iter().filter(unexplained).count();
        println!("  {count:>6} {reason}, {unexplained} of them though nothing was trimmed");
    }
    for name in ["memory", "redis", "reset"] {
        let count = system.metric(&format!("corecast_resumes_total{{from=\"{name}\"}}"));
        println!("  servers since their last start: {count} resumes, from {name}");
    }
    println!(
        "{} lost, {} duplicated, {} reordered, {} foreign",
        tally.lost, tally.duplicated, tally.reordered, tally.foreign
    );
    for description in &tally.descriptions {
        println!("  {description}");
    }
}

#[test]
fn whatever_happens_every_event_comes_once_and_in_order_or_a_reset_does() {
    let seconds = setting("CORECAST_SOAK_SECONDS", 60);
    let seed = setting("CORECAST_SOAK_SEED", time_of_day_ms());
    println!("CORECAST_SOAK_SECONDS={seconds} CORECAST_SOAK_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut system = System::start();
    eventually_within(SETTLE, "all servers are ready", || system.is_ready().then_some(()));

    let channels = (0..CLIENTS).map(|_| {
        let count = random.usize(1..=5);
        random.choose_multiple(0..CHANNELS, count)
    });
    let wanderers = Wanderers::depart(Journey {
        channels: channels.collect(),
        servers: system.nodes.iter().map(|node| node.listen).collect(),
        seed: random.u64(..),
    });
    eventually_within(SETTLE, "all clients are there", || {
        (wanderers.progress().begun.load(Ordering::SeqCst) == CLIENTS).then_some(())
    });
    let publishing = Publishing::start(&system.redis, wanderers.log.clone(), random.u64(..));
    let published = Arc::clone(&publishing.published);

    torment(&mut system, &wanderers, &mut random, Duration::from_secs(seconds));
    system.repair(true);
    let last = publishing.finish();
    wanderers.settle(last);
    let arrived = arrive(&wanderers);
    let resumes = wanderers.progress().resumes.load(Ordering::SeqCst);
    system.check();
    let tally = wanderers.finish();
    report(&system, &tally, published.load(Ordering::SeqCst), resumes);

    assert_eq!(tally.violations(), 0, "{:#?}", tally.descriptions);
    assert_eq!(arrived, CLIENTS, "clients did not get the last events\n{:#?}", tally.descriptions);
    let unexplained: Vec<&Reset> =
        tally.resets.iter().filter(|reset| !system.explains(reset)).collect();
    assert!(unexplained.is_empty(), "resets while all was kept: {unexplained:?}");
}

/// Makes faults until the time has passed, or a client was wronged.
fn torment(system: &mut System, wanderers: &Wanderers, random: &mut fastrand::Rng, time: Duration) {
    let (start, deadline) = (now(), Deadline::after(time));
    while deadline.left().is_some() {
        let (fault, pause_ms) = (Fault::draw(random, CHANNELS), random.u64(20..400));
        let trims = TRIMMED_SECONDS.contains(&(start.elapsed().as_secs() % 60));
        if trims || !matches!(fault, Fault::Trim { .. }) {
            system.inflict(fault);
        }
        system.repair(false);
        if wanderers.progress().violations.load(Ordering::SeqCst) > 0 {
            break;
        }
        let_pass(Duration::from_millis(pause_ms));
    }
}

/// How many clients have everything, once all have or none of them gets any further.
fn arrive(wanderers: &Wanderers) -> usize {
    let deadline = Deadline::after(SETTLE);
    loop {
        let arrived = wanderers.progress().arrived.load(Ordering::SeqCst);
        if arrived == CLIENTS || deadline.left().is_none() {
            return arrived;
        }
        let_pass(Duration::from_millis(20));
    }
}

#[test]
fn the_judge_notices_what_is_lost_repeated_late_or_foreign() {
    let event = |ms, channel| Published { id: EventId { ms, seq: 0 }, channel, number: 1 };
    let judged = |stream: &str| {
        let mut log = Log::default();
        log.extend(vec![event(40, 3), event(20, 2), event(10, 1), event(30, 1), event(50, 1)]);
        let (mut follower, mut tally) = (Follower::new(0, vec![1, 2]), Tally::default());
        for word in stream.split_whitespace() {
            let (kind, rest) = word.split_at(1);
            let block = match kind {
                "@" => format!("id: {rest}-0\n\n"),
                "!" => {
                    let data = format!("{{\"reason\": \"r\", \"channels\": [\"c{rest}\"]}}");
                    format!("event: stream-reset\ndata: {data}\n\n")
                }
                _ => {
                    let (ms, channel) = word.split_once('/').unwrap();
                    let data = payload(channel.parse().unwrap(), 1, 30);
                    format!("id: {ms}-0\ndata: {data}\n\n")
                }
            };
            follower.take_in(block.as_bytes(), 35);
        }
        follower.judge(&log, &mut tally);
        [tally.lost, tally.duplicated, tally.reordered, tally.foreign]
    };
    assert_eq!(judged("@0 10/1 20/2 30/1 50/1"), [0; 4]);
    assert_eq!(judged("@15 20/2 30/1 @40 @40 50/1 @60"), [0; 4]);
    assert_eq!(judged("@0 10/1 20/2 50/1"), [1, 0, 0, 0]);
    assert_eq!(judged("@0 10/1 @20 30/1"), [1, 0, 0, 0]);
    assert_eq!(judged("@0 10/1 20/2 10/1 30/1"), [0, 1, 0, 0]);
    assert_eq!(judged("@0 10/1 30/1 20/2"), [0, 0, 1, 0]);
    assert_eq!(judged("@0 10/1 20/2 30/1 40/3"), [0, 0, 0, 1]);
    assert_eq!(judged("@0 10/1 25/2"), [0, 0, 0, 1]);
    // A reset excuses its channel, until it was read, and no other.
    assert_eq!(judged("@0 10/1 !1 20/2 50/1"), [0; 4]);
    assert_eq!(judged("@0 10/1 !1 50/1"), [1, 0, 0, 0]);
    assert_eq!(judged("@0 10/1 !2 50/1"), [1, 0, 0, 0]);
    assert_eq!(judged("@0 10/1 !1 20/2 @50"), [1, 0, 0, 0]);
    // It comes before any later id, or is none.
    assert_eq!(judged("@0 10/1 @30 !1 !2 50/1"), [2, 0, 0, 0]);
}
