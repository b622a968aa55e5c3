//! Three servers, one Redis, five hundred clients that wander between them, and everything that can
//! happen to such a system, drawn from one seed: no event is lost in silence, comes twice or out of
//! order.
//!
//! `CORECAST_SOAK_SECONDS` says how long (60 if it is not given), `CORECAST_SOAK_SEED` repeats the
//! faults of another run.
#![cfg(test)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corecast::bytes::history::EventId;
use support::channels;
use support::chaos::{Fault, System};
use support::clock::{Deadline, eventually_within, let_pass, now, time_of_day_ms};
use support::follower::{Follower, message_data, payload};
use support::judge::{Ask, Reset, Tally};
use support::ledger::{Ledger, Message, MessageKind, Notice, Published};
use support::publishing::Publishing;
use support::wanderers::{Journey, Wanderers};

const CLIENTS: usize = 500;

/// The part of each minute in which history is trimmed.
const TRIMMED_SECONDS: std::ops::Range<u64> = 20..30;

/// Channels of a stream, at the most: what the servers allow.
const CHANNELS_MAX: usize = 32;

/// How long it may take, after all faults, until every client has everything.
const SETTLE: Duration = Duration::from_secs(60);

/// Whatever an environment variable says, or what to take without it.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// The channels of a client: most have a few, some up to as many as a stream may have, and some
/// one that the servers do not get.
fn draw_channels(random: &mut fastrand::Rng) -> Vec<usize> {
    let kind = random.u32(0..100);
    if kind < 6 {
        return vec![random.usize(channels::QUIET)];
    }
    let count = match kind {
        6..76 => random.usize(1..=5),
        76..90 => random.usize(6..=15),
        _ => random.usize(16..=CHANNELS_MAX),
    };
    let mut drawn = random.choose_multiple(0..channels::OPEN, count);
    if random.u32(0..8) == 0 {
        drawn[0] = random.usize(channels::OPEN..channels::ALL);
        // Alone it would tell nothing.
        if count == 1 {
            drawn.push(random.usize(0..channels::OPEN));
        }
    }
    drawn
}

/// What has happened, beside what the judge has found.
struct Course<'a> {
    system: &'a System,
    ledger: &'a Ledger,
    losses: &'a [BTreeMap<String, u64>],
    published: u64,
    refused: u64,
    resumes: u64,
}

fn report(course: &Course<'_>, tally: &Tally) {
    let Course { system, ledger, .. } = *course;
    println!("{} events published, {} delivered", course.published, tally.deliveries);
    let [forged, plain, oversize] = ledger.messages_by_kind();
    println!(
        "{} of them too long, told of {} times; {} publications refused",
        ledger.oversize_events(),
        tally.oversize,
        course.refused
    );
    println!(
        "beside them {forged} forged and {plain} plain, {oversize} of both too long; {} delivered",
        tally.messages
    );
    println!("{} faults:", system.faults.values().sum::<usize>());
    for (name, count) in &system.faults {
        println!("  {count:>6} {name}");
    }
    println!("{} resumes, and streams that began anew:", course.resumes);
    for (name, count) in &tally.beginnings {
        println!("  {count:>6} {name}");
    }
    println!("{} resets of a channel, for {} events:", tally.resets.len(), tally.excused);
    for ((reason, cause), count) in tally.reasons() {
        let is_unexplained = |reset: &&Reset| {
            reset.reason == reason && reset.cause == cause && !system.explains(reset)
        };
        let unexplained = tally.resets.iter().filter(is_unexplained).count();
        let cause = cause.map_or_else(|| "Trimmed".to_owned(), |cause| format!("{cause:?}"));
        println!("  {count:>6} {reason}, {cause}, {unexplained} of them without that");
    }
    let unexplained = tally.resets.iter().filter(|reset| !system.explains(reset));
    unexplained.take(10).for_each(|reset| println!("         {reset:?}"));
    for (server, losses) in course.losses.iter().enumerate() {
        println!("links that server {server} lost: {losses:?}");
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

    let channels = (0..CLIENTS).map(|_| draw_channels(&mut random));
    let wanderers = Wanderers::depart(Journey {
        channels: channels.collect(),
        servers: system.nodes.iter().map(|node| node.listen).collect(),
        seed: random.u64(..),
    });
    eventually_within(SETTLE, "all clients are there", || {
        (wanderers.progress().begun.load(Ordering::SeqCst) == CLIENTS).then_some(())
    });
    let publishing = Publishing::start(&system.redis, wanderers.notices.clone(), random.u64(..));
    let published = Arc::clone(&publishing.published);

    torment(&mut system, &wanderers, &mut random, Duration::from_secs(seconds));
    system.repair(true);
    let (last, refused) = publishing.finish();
    wanderers.settle(last);
    let arrived = arrive(&wanderers);
    let resumes = wanderers.progress().resumes.load(Ordering::SeqCst);
    system.check();
    let losses = system.losses();
    let (tally, ledger) = wanderers.finish();
    let published = published.load(Ordering::SeqCst);
    let course =
        Course { system: &system, ledger: &ledger, losses: &losses, published, refused, resumes };
    report(&course, &tally);

    assert_eq!(tally.violations(), 0, "{:#?}", tally.descriptions);
    assert_eq!(arrived, CLIENTS, "clients did not get the last events\n{:#?}", tally.descriptions);
    let unexplained: Vec<&Reset> =
        tally.resets.iter().filter(|reset| !system.explains(reset)).collect();
    assert!(unexplained.is_empty(), "resets while all was kept: {unexplained:?}");
    let unexplained = system.unexplained_losses(&losses);
    assert!(unexplained.is_empty(), "links were lost: {unexplained:?}");
    for channel in 0..channels::ALL {
        let kept = system.kept_of(channel).unwrap_or_else(|| ledger.len_of(channel));
        assert_eq!(kept, ledger.len_of(channel), "events that Redis keeps of channel {channel}");
    }
}

/// Makes faults until the time has passed, or a client was wronged.
fn torment(system: &mut System, wanderers: &Wanderers, random: &mut fastrand::Rng, time: Duration) {
    let (start, deadline) = (now(), Deadline::after(time));
    while deadline.left().is_some() {
        let (fault, pause_ms) = (Fault::draw(random), random.u64(20..400));
        let trims = TRIMMED_SECONDS.contains(&(start.elapsed().as_secs() % 60));
        if trims || !matches!(fault, Fault::Trim { .. }) {
            system.inflict(fault, &wanderers.notices);
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

/// An event, published so many milliseconds after the beginning of time.
fn event(ms: u64, channel: usize) -> Notice {
    let id = EventId { ms, seq: 0 };
    let is_oversize = ms % 10 == 5;
    Notice::Published(vec![Published { id, channel, number: 1, is_oversize }], u64::MAX)
}

/// A message that is not kept, published then.
fn message(number: u32, kind: MessageKind, channel: usize, sent_ms: u64) -> [Notice; 2] {
    let is_oversize = sent_ms % 10 == 5;
    let message = Message { channel, number, kind, is_oversize, sent_ms };
    [Notice::Message(message), Notice::Sent { number, at_ms: sent_ms }]
}

/// A block of the stream, by a word for it.
fn block(word: &str) -> String {
    let own = |event: &str, data: &str, id: &str| match id {
        "" => format!("event: {event}\ndata: {data}\n\n"),
        id => format!("event: {event}\ndata: {data}\nid: {id}-0\n\n"),
    };
    let (kind, rest) = word.split_at(1);
    let (first, second) = rest.split_once('/').unwrap_or((rest, ""));
    match kind {
        "^" => own("stream-open", "", first),
        "@" => own("keep-alive", "", first),
        "!" => {
            let (reason, id) = second.split_once('@').unwrap_or((second, ""));
            let name = channels::name(first.parse().unwrap());
            own(
                "stream-reset",
                &format!("{{\"reason\":\"{reason}\",\"channels\":[\"{name}\"]}}"),
                id,
            )
        }
        "p" => {
            let (channel, number) = (first.parse().unwrap(), second.parse().unwrap());
            format!("data: {}\n\n", message_data(MessageKind::Plain, channel, number))
        }
        "f" => {
            let (channel, number) = (first.parse().unwrap(), second.parse().unwrap());
            let data = message_data(MessageKind::Forged, channel, number);
            format!("data: {data}\nid: 18446744073709551615-0\n\n")
        }
        _ => {
            let (ms, channel) = word.split_once('/').unwrap();
            let data = payload(channel.parse().unwrap(), 1, 30);
            format!("data: {data}\nid: {ms}-0\n\n")
        }
    }
}

/// How the judge finds what a client of these channels got, of which the words of a connection are
/// read at the time that its first word is: what was lost, duplicated, reordered, foreign, and how
/// many resets were without a cause.
fn judged(channels: &[usize], notices: &[Notice], visits: &[(Ask, &str)]) -> [u64; 5] {
    let mut ledger = Ledger::default();
    notices.iter().for_each(|notice| ledger.note(notice.clone()));
    let (mut follower, mut tally) = (Follower::new(0, channels.to_vec()), Tally::default());
    for (ask, stream) in visits {
        if ask.is_anew() {
            follower.forget();
        }
        let (time, words) = stream.split_once(' ').unwrap();
        let read_ms = time.parse().unwrap();
        follower.connect(*ask, read_ms);
        for word in words.split_whitespace() {
            follower.take_in(block(word).as_bytes(), read_ms);
        }
    }
    follower.judge(&ledger, &mut tally);
    let causeless = tally.resets.iter().filter(|reset| reset.cause.is_none()).count();
    [tally.lost, tally.duplicated, tally.reordered, tally.foreign, causeless as u64]
}

const NOTHING: [u64; 5] = [0; 5];
const LOST: [u64; 5] = [1, 0, 0, 0, 0];
const TWICE: [u64; 5] = [0, 1, 0, 0, 0];
const LATE: [u64; 5] = [0, 0, 1, 0, 0];
const FOREIGN: [u64; 5] = [0, 0, 0, 1, 0];
const CAUSELESS: [u64; 5] = [0, 0, 0, 0, 1];

#[test]
fn the_judge_notices_what_is_lost_repeated_late_or_foreign() {
    let notices =
        [event(10, 1), event(20, 2), event(30, 1), event(40, 3), event(50, 1), event(60, 3)];
    let all = |stream: &str| judged(&[1, 2], &notices, &[(Ask::All, &format!("35 ^0 {stream}"))]);
    assert_eq!(all("10/1 20/2 30/1 50/1"), NOTHING);
    assert_eq!(all("10/1 20/2 30/1 @40 @40 50/1 @60"), NOTHING);
    assert_eq!(all("10/1 20/2 50/1"), LOST);
    assert_eq!(all("10/1 @20 30/1"), LOST);
    assert_eq!(all("10/1 20/2 10/1 30/1"), TWICE);
    assert_eq!(all("10/1 30/1 20/2"), LATE);
    assert_eq!(all("10/1 20/2 30/1 40/3"), FOREIGN);
    assert_eq!(all("10/1 25/2"), FOREIGN);
    assert_eq!(all("10/1 !3/unknown-id"), FOREIGN);
    // A reset excuses its channel, until it was read, and no other. It needs a cause.
    assert_eq!(all("10/1 !1/unknown-id 20/2 50/1"), CAUSELESS);
    assert_eq!(all("10/1 !1/unknown-id 50/1"), [1, 0, 0, 0, 1]);
    assert_eq!(all("10/1 !2/unknown-id 50/1"), [1, 0, 0, 0, 1]);
    assert_eq!(all("10/1 !1/unknown-id 20/2 @50"), [1, 0, 0, 0, 1]);
    // It comes before any later id, or is none.
    assert_eq!(all("10/1 @30 !1/unknown-id !2/unknown-id 50/1"), [2, 0, 0, 0, 2]);
}

#[test]
fn the_judge_notices_where_a_stream_begins_that_asks_for_the_newest() {
    let mut notices: Vec<Notice> = (1..=5).map(|n| event(10 * n, 1)).collect();
    notices.extend((6..=9).map(|n| event(10 * n, 2)));
    let last = |count, stream: &str| judged(&[1, 2], &notices, &[(Ask::Last(count), stream)]);
    assert_eq!(last(3, "95 ^60 70/2 80/2 90/2"), NOTHING);
    assert_eq!(last(6, "95 ^39 40/1 50/1 60/2 70/2 80/2 90/2"), NOTHING);
    assert_eq!(last(100, "95 ^9 10/1 20/1 30/1 40/1 50/1 60/2 70/2 80/2 90/2"), NOTHING);
    // The newest then were the newest when it was opened.
    assert_eq!(last(3, "75 ^40 50/1 60/2 70/2 80/2 90/2"), NOTHING);
    assert_eq!(last(3, "95 ^70 80/2 90/2"), LOST);
    assert_eq!(last(3, "95 ^60 70/2 90/2"), LOST);
    assert_eq!(last(100, "95 ^10 20/1 30/1 40/1 50/1 60/2 70/2 80/2 90/2"), LOST);
    assert_eq!(last(3, "15095 ^20 30/1 40/1 50/1 60/2 70/2 80/2 90/2"), FOREIGN);
    // Where the head came first it begins with its first event.
    assert_eq!(last(3, "95 ^ 70/2 80/2 90/2"), NOTHING);
    assert_eq!(last(3, "95 ^ 80/2 90/2"), LOST);
    // The id of the head may be an earlier one, and who goes with that one gets the rest.
    assert_eq!(last(3, "95 ^50 70/2 80/2 90/2"), NOTHING);
    assert_eq!(last(3, "95 ^70 70/2 80/2 90/2"), LOST);
    let cut = |rest| judged(&[1, 2], &notices, &[(Ask::Last(3), "95 ^60"), (Ask::Rest, rest)]);
    assert_eq!(cut("96 ^60 70/2 80/2 90/2"), NOTHING);
    assert_eq!(cut("96 ^60 80/2 90/2"), LOST);
    // What was trimmed is none of the newest that are kept.
    notices.push(Notice::Trimmed { channel: 2, until_ms: 75 });
    let last = |count, stream: &str| judged(&[1, 2], &notices, &[(Ask::Last(count), stream)]);
    assert_eq!(last(3, "95 ^49 50/1 80/2 90/2"), NOTHING);
    assert_eq!(last(3, "95 ^49 50/1 90/2"), LOST);
}

#[test]
fn the_judge_notices_where_a_stream_begins_that_asks_for_a_time_or_the_present() {
    let notices: Vec<Notice> = (1..=9).map(|n| event(1000 * n, 1)).collect();
    let begun = |ask, stream: &str| judged(&[1], &notices, &[(ask, stream)]);
    assert_eq!(begun(Ask::All, "9500 ^0 1000/1 @1000"), NOTHING);
    assert_eq!(begun(Ask::All, "9500 ^0 2000/1 @2000"), LOST);
    assert_eq!(begun(Ask::All, "9500 ^ 2000/1 @2000"), LOST);
    assert_eq!(begun(Ask::Ago(2000), "9500 ^7499 8000/1 9000/1"), NOTHING);
    assert_eq!(begun(Ask::Ago(2000), "9500 ^5000 8000/1 9000/1"), NOTHING);
    assert_eq!(begun(Ask::Ago(2000), "9500 ^7499 9000/1"), LOST);
    assert_eq!(begun(Ask::Ago(2000), "9500 ^8500 9000/1"), LOST);
    assert_eq!(begun(Ask::Ago(2000), "9500 ^ 8000/1 9000/1"), NOTHING);
    assert_eq!(begun(Ask::Ago(2000), "9500 ^ 9000/1"), LOST);
    assert_eq!(begun(Ask::Ago(700), "9500 ^ 9000/1"), NOTHING);
    assert_eq!(begun(Ask::Present, "5500 ^5000 6000/1 7000/1"), NOTHING);
    assert_eq!(begun(Ask::Present, "5500 ^4000 6000/1 7000/1"), NOTHING);
    assert_eq!(begun(Ask::Present, "5500 ^4000 7000/1"), LOST);
    // Who was here before goes on where it was.
    let back = |stream| {
        judged(&[1], &notices, &[(Ask::Present, "5500 ^5000 6000/1"), (Ask::Rest, stream)])
    };
    assert_eq!(back("7500 ^6000 7000/1 8000/1"), NOTHING);
    assert_eq!(back("7500 ^7000 8000/1"), LOST);
    assert_eq!(back("7500 ^6000 6000/1"), TWICE);
    let anew = [(Ask::Present, "5500 ^5000 6000/1"), (Ask::Last(2), "7500 ^5999 6000/1 7000/1")];
    assert_eq!(judged(&[1], &notices, &anew), NOTHING);
    // A stream that was opened before anything was known of Redis is told.
    assert_eq!(begun(Ask::Present, "5500 ^ !1/link-lost@7000 8000/1"), NOTHING);
    assert_eq!(begun(Ask::Present, "5500 ^ 8000/1"), LOST);
    assert_eq!(begun(Ask::Present, "5500 ^5000 !1/link-lost@7000 8000/1"), [2, 0, 0, 0, 1]);
}

#[test]
fn the_judge_notices_who_is_not_told_of_channels_that_are_refused() {
    let notices = [event(10, 1), event(20, channels::OPEN), event(30, 1)];
    let channels = [1, channels::OPEN];
    let all = |stream: &str| judged(&channels, &notices, &[(Ask::All, stream)]);
    let told = format!("!{}/link-lost", channels::OPEN);
    assert_eq!(all(&format!("35 ^0 {told} 10/1 30/1 {told}")), NOTHING);
    assert_eq!(all(&format!("35 ^0 10/1 {told} 30/1")), LOST);
    assert_eq!(all("35 ^0 10/1 30/1"), LOST);
    assert_eq!(all("35 ^0 @0"), LOST);
    assert_eq!(all(&format!("35 ^0 {told} 30/1")), LOST);
    assert_eq!(all(&format!("35 ^0 {told} 10/1 20/{} 30/1", channels::OPEN)), FOREIGN);
    assert_eq!(all(&format!("35 ^0 {told} !1/link-lost 10/1 30/1")), CAUSELESS);
    let again = |stream: &str| {
        let first = format!("15 ^0 {told} 10/1");
        judged(&channels, &notices, &[(Ask::All, &first), (Ask::Rest, stream)])
    };
    assert_eq!(again(&format!("35 ^10 {told} 30/1")), NOTHING);
    assert_eq!(again("35 ^10 30/1"), LOST);
}

#[test]
fn the_judge_notices_who_is_not_told_of_an_event_that_is_too_long() {
    let notices = [event(10, 1), event(15, 2), event(20, 1), event(25, 3), event(30, 1)];
    let all = |stream: &str| judged(&[1, 2], &notices, &[(Ask::All, stream)]);
    assert_eq!(all("35 ^0 10/1 !2/oversize@15 20/1 30/1"), NOTHING);
    assert_eq!(all("35 ^0 10/1 20/1 30/1"), LOST);
    assert_eq!(all("35 ^0 10/1 15/2 20/1 30/1"), [1, 0, 0, 1, 0]);
    assert_eq!(all("35 ^0 10/1 !2/oversize@15 20/1 !2/oversize@15 30/1"), TWICE);
    assert_eq!(all("35 ^0 10/1 20/1 !2/oversize@15 30/1"), LATE);
    // It has to name the channel, and excuses nothing but its event.
    assert_eq!(all("35 ^0 10/1 !1/oversize@15 20/1 30/1"), [1, 0, 0, 0, 1]);
    assert_eq!(all("35 ^0 10/1 !2/oversize@20 30/1"), [2, 0, 0, 0, 1]);
    assert_eq!(all("35 ^0 10/1 !2/oversize@15 30/1"), LOST);
    assert_eq!(all("35 ^0 10/1 !2/oversize@15 20/1 !3/oversize@25 30/1"), [0, 0, 0, 1, 0]);
}

#[test]
fn the_judge_notices_who_is_not_told_of_messages_that_are_not_kept() {
    let plain = channels::MIXED.start;
    let mut notices = vec![event(10, 1)];
    notices.extend(message(0, MessageKind::Plain, plain, 14));
    notices.push(event(20, 1));
    notices.extend(message(1, MessageKind::Plain, plain, 25));
    notices.extend([event(30, plain), event(40, 1)]);
    let judge = |visits: &[(Ask, &str)]| judged(&[1, plain], &notices, visits);
    let live = |stream: &str| judge(&[(Ask::Present, &format!("12 ^10 {stream}"))]);
    let (got, told) = (format!("p{plain}/0"), format!("!{plain}/oversize"));
    // What is read at 12 can't tell of what is published later.
    let later =
        |stream: &str| judge(&[(Ask::Present, "12 ^10"), (Ask::Rest, &format!("28 ^10 {stream}"))]);
    let back = format!("!{plain}/no-history");
    assert_eq!(later(&format!("{back} 20/1 30/{plain} 40/1 @40")), NOTHING);
    assert_eq!(later(&format!("20/1 {back} 30/{plain} 40/1 @40")), NOTHING);
    assert_eq!(later(&format!("{back} 20/1 30/{plain} @30 40/1 @40")), NOTHING);
    // Who comes back is told, and nobody else; nothing that is kept may be missing.
    assert_eq!(later(&format!("20/1 30/{plain} 40/1 @40")), [3, 0, 0, 0, 0]);
    assert_eq!(later(&format!("{back} 20/1 40/1 @40")), LOST);
    assert_eq!(later(&format!("{back} !1/no-history 20/1 30/{plain} 40/1 @40")), CAUSELESS);
    // But for what was trimmed, of which the same word may tell.
    let trimmed = Notice::Trimmed { channel: plain, until_ms: 35 };
    let trimmed = [&notices[..], &[trimmed]].concat();
    let visits = [(Ask::Present, "12 ^10"), (Ask::Rest, &format!("38 ^10 {back} 20/1 40/1 @40"))];
    assert_eq!(judged(&[1, plain], &trimmed, &visits), NOTHING);
    let visits = [(Ask::Present, "12 ^10"), (Ask::Rest, &format!("28 ^10 {back} 20/1 40/1 @40"))];
    assert_eq!(judged(&[1, plain], &trimmed, &visits), LOST);
    // Who was there gets it, or is told.
    assert_eq!(live(&format!("{got} 20/1 @20")), NOTHING);
    assert_eq!(live("20/1 @20"), LOST);
    assert_eq!(live(&format!("{got} {got} 20/1 @20")), TWICE);
    assert_eq!(live(&format!("{got} 20/1 30/{plain} 40/1 @40")), LOST);
    assert_eq!(live(&format!("p{plain}/1 {got} 20/1 @20")), FOREIGN);
    assert_eq!(live(&format!("p1/0 {got} 20/1 @20")), FOREIGN);
    let anew = format!("28 ^20 30/{plain} 40/1 @40");
    assert_eq!(judge(&[(Ask::Present, &anew)]), NOTHING);
    assert_eq!(judge(&[(Ask::Present, &format!("28 ^20 {told} 30/{plain} @40"))]), LOST);
    assert_eq!(live(&format!("{told} {got} 20/1 @20")), CAUSELESS);
}

#[test]
fn the_judge_notices_what_a_forged_event_costs_others() {
    let forged = channels::FORGED.end - 1;
    let mut notices = vec![event(10, 1)];
    notices.extend(message(0, MessageKind::Forged, forged, 14));
    notices.extend([event(20, forged), event(30, 1), event(40, forged)]);
    let judge = |visits: &[(Ask, &str)]| judged(&[1, forged], &notices, visits);
    let all = |stream: &str| judge(&[(Ask::All, &format!("25 ^0 {stream}"))]);
    let (got, told) = (format!("f{forged}/0"), format!("!{forged}/unknown-id"));
    assert_eq!(all(&format!("10/1 20/{forged} 30/1 40/{forged}")), NOTHING);
    assert_eq!(all(&format!("10/1 {got} {told} 30/1 40/{forged}")), NOTHING);
    assert_eq!(all(&format!("10/1 {got} {told}@10 20/{forged} 30/1")), NOTHING);
    assert_eq!(all(&format!("10/1 {got} 30/1 40/{forged}")), LOST);
    assert_eq!(all(&format!("10/1 {got} {told} 40/{forged}")), LOST);
    assert_eq!(all(&format!("10/1 {got} {got} {told} 30/1")), TWICE);
    assert_eq!(all(&format!("10/1 20/{forged} !1/unknown-id 30/1")), CAUSELESS);
    assert_eq!(all("10/1 @18446744073709551615"), FOREIGN);
    assert_eq!(judged(&[1], &notices, &[(Ask::All, &format!("25 ^0 10/1 {got} 30/1"))]), FOREIGN);
    let strange = "25 ^18446744073709551615 10/1";
    assert_eq!(judged(&[1], &notices, &[(Ask::All, strange)]), FOREIGN);
    // Who comes back with its id is told that all may be missing.
    let first = format!("25 ^0 10/1 {got}");
    let back = |stream: &str| judge(&[(Ask::All, &first), (Ask::Rest, stream)]);
    assert_eq!(back(&format!("35 ^ !1/unknown-id {told}@30 40/{forged}")), NOTHING);
    assert_eq!(back(&format!("35 ^ {told}@30 40/{forged}")), LOST);
    assert_eq!(back(&format!("35 ^ 20/{forged} 30/1")), NOTHING);
    // Before anything was forged, or much later, it is no cause.
    let before = format!("12 ^0 10/1 {told} 20/{forged}");
    assert_eq!(judge(&[(Ask::All, &before)]), CAUSELESS);
    let much_later = format!("60000 ^0 10/1 20/{forged} {told} 30/1");
    assert_eq!(judge(&[(Ask::All, &much_later)]), CAUSELESS);
}
