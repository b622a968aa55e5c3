//! Streams against a model: whatever is subscribed, published, closed and blocked, in any order,
//! every stream gets what was published on its channels since it opened, once, in order.

use std::collections::HashMap;
use std::ops::Range;

use super::*;
use crate::bytes::event_stream::{HEARTBEAT, ResetReason};
use crate::bytes::history::EventId;
use crate::state::sockets::memory::MemorySockets;

/// What a stream begins with.
const HEAD: &str = "head\nretry: 7\nevent: stream-open\ndata:\nid: live\n\n";

const LIMITS: StreamLimits = StreamLimits {
    max_pending_bytes: 1 << 20,
    max_intake_bytes: 1 << 20,
    heartbeat_ticks: 0,
    linger_ticks: 10,
    coalesce_ms: 0,
};

struct World {
    streams: Streams,
    sockets: MemorySockets,
    next_fd: RawFd,
    /// What each open stream must have received in the end, after its head.
    expected: HashMap<ConnectionId, (RawFd, Vec<usize>, String)>,
}

impl World {
    fn new(limits: StreamLimits) -> Self {
        let mut streams = Streams::new(limits, b"", HistoryRules::default(), 1, Arc::default());
        streams.link_up();
        let sockets = MemorySockets::default();
        Self { streams, sockets, next_fd: 10, expected: HashMap::new() }
    }

    fn request(&mut self, channels: &[usize]) -> ConnectionId {
        let fd = self.next_fd;
        self.next_fd += 1;
        let id = self.streams.add(fd);
        let names: Vec<String> = channels.iter().map(|n| format!("c{n}")).collect();
        let names: Vec<&[u8]> = names.iter().map(|n| n.as_bytes()).collect();
        self.streams.request(id, &names, Start::Now, b"head\n".to_vec(), 7, &mut self.sockets);
        self.expected.insert(id, (fd, channels.to_vec(), HEAD.to_owned()));
        id
    }

    fn acknowledge_all(&mut self) {
        for id in self.streams.next_asks(usize::MAX) {
            self.streams.acknowledge(id);
        }
    }

    fn open(&mut self, channels: &[usize]) -> ConnectionId {
        let id = self.request(channels);
        self.acknowledge_all();
        self.open_ready();
        id
    }

    /// Opens what may open, without a slice, which would send events too.
    fn open_ready(&mut self) {
        while let Some(ready) = self.streams.ready.pop_front() {
            self.streams.open(ready, &mut self.sockets);
        }
    }

    fn publish(&mut self, channel: usize, text: &str) {
        if let Some(id) = self.streams.find(format!("c{channel}").as_bytes()) {
            self.streams.publish(id, &Rc::from(text.as_bytes()));
        }
        for (_, channels, expected) in self.expected.values_mut() {
            if channels.contains(&channel) {
                expected.push_str(text);
            }
        }
    }

    fn close(&mut self, id: ConnectionId) {
        self.streams.close(id, CloseReason::PeerClosed, &mut self.sockets);
        self.expected.remove(&id);
    }

    fn text(&self, id: ConnectionId) -> String {
        self.sockets.text(self.expected[&id].0)
    }

    /// Gives every socket room and lets all events out.
    fn settle(&mut self) {
        self.sockets.room.values_mut().for_each(|room| *room = usize::MAX);
        while self.streams.slice(256, &mut self.sockets) {}
        let ids: Vec<_> = self.expected.keys().copied().collect();
        for id in ids {
            self.streams.flush(id, &mut self.sockets);
        }
    }

    fn check(&self, seed: u64) {
        for (id, (fd, channels, expected)) in &self.expected {
            assert_eq!(&self.sockets.text(*fd), expected, "seed {seed}, {id:?} of {channels:?}");
        }
        assert_eq!(self.streams.intake_bytes(), 0, "seed {seed}");
        assert_eq!(self.streams.connections(), self.expected.len(), "seed {seed}");
    }
}

fn random_channels(random: &mut fastrand::Rng, of: Range<usize>) -> Vec<usize> {
    let mut all: Vec<usize> = of.collect();
    random.shuffle(&mut all);
    let count = if random.bool() { 1 } else { random.usize(2..=all.len()) };
    all.truncate(count);
    all
}

#[test]
fn every_stream_gets_its_events_once_and_in_order() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(LIMITS);
        let mut open = Vec::new();
        for step in 0..random.usize(10..120) {
            match random.usize(0..10) {
                0..=1 => {
                    let channels = random_channels(&mut random, 0..4);
                    open.push(world.open(&channels));
                }
                2 if !open.is_empty() => {
                    let id = open.swap_remove(random.usize(0..open.len()));
                    world.close(id);
                }
                3 if !open.is_empty() => {
                    // This reader takes a few more bytes, then nothing.
                    let (fd, ..) = world.expected[&open[random.usize(0..open.len())]];
                    world.sockets.room.insert(fd, random.usize(0..30));
                }
                4 if !open.is_empty() => {
                    let id = open[random.usize(0..open.len())];
                    world.sockets.room.insert(world.expected[&id].0, random.usize(0..90));
                    world.streams.flush(id, &mut world.sockets);
                }
                5..=6 => {
                    world.streams.slice(random.usize(1..6), &mut world.sockets);
                }
                _ => {
                    let length = if random.u8(0..20) == 0 { 9_000 } else { random.usize(0..9) };
                    let text = format!("<{step}{}>", ".".repeat(length));
                    world.publish(random.usize(0..4), &text);
                }
            }
        }
        world.settle();
        world.check(seed);
    }
}

#[test]
fn a_stream_waits_for_all_its_subscriptions() {
    let mut world = World::new(LIMITS);
    let id = world.request(&[0, 1]);
    assert_eq!(world.text(id), "");
    let asked = world.streams.next_asks(usize::MAX);
    assert_eq!(asked.len(), 2);
    world.streams.acknowledge(asked[1]);
    world.streams.slice(9, &mut world.sockets);
    assert_eq!(world.text(id), "");
    world.streams.acknowledge(asked[0]);
    world.streams.slice(9, &mut world.sockets);
    assert_eq!(world.text(id), HEAD);
}

#[test]
fn a_stream_opened_without_its_subscription_is_reset_once_it_stands() {
    let mut world = World::new(LIMITS);
    let early = world.request(&[0]);
    world.streams.open(early, &mut world.sockets);
    let patient = world.request(&[0]);
    assert_eq!(world.text(early), HEAD);
    world.acknowledge_all();
    world.settle();
    assert!(world.text(early).contains(r#""reason": "link-lost""#), "{}", world.text(early));
    assert_eq!(world.text(patient), HEAD);
}

#[test]
fn a_lost_link_resets_every_stream_once_and_names_all_its_channels() {
    let mut world = World::new(LIMITS);
    let one = world.open(&[0]);
    let many = world.open(&[0, 1, 2]);
    world.streams.link_down(ResetReason::LinkLost);
    world.open_ready();
    let during = world.request(&[1]);
    assert_eq!(world.text(during), HEAD, "with the link down a stream opens at once");
    world.settle();
    assert_eq!(world.text(one), HEAD, "not before the subscription stands again");
    world.streams.link_up();
    world.acknowledge_all();
    world.publish(0, "after");
    world.settle();
    for id in [one, many, during] {
        assert_eq!(world.text(id).matches("stream-reset").count(), 1, "{}", world.text(id));
    }
    assert!(world.text(one).contains(r#""channels": ["c0"]"#), "{}", world.text(one));
    for name in ["c0", "c1", "c2"] {
        assert!(world.text(many).contains(name), "{}", world.text(many));
    }
    assert!(world.text(many).ends_with("after") && world.text(one).ends_with("after"));
}

#[test]
fn streams_are_told_why_the_link_was_lost_that_stood_last() {
    let mut world = World::new(LIMITS);
    let id = world.open(&[0]);
    world.streams.link_down(ResetReason::Overload);
    world.streams.link_down(ResetReason::LinkLost);
    world.streams.link_up();
    world.acknowledge_all();
    world.settle();
    assert!(world.text(id).contains(r#""reason": "overload""#), "{}", world.text(id));
    assert!(!world.text(id).contains("link-lost"), "{}", world.text(id));

    world.streams.link_down(ResetReason::LinkLost);
    world.streams.link_up();
    world.acknowledge_all();
    world.settle();
    assert!(world.text(id).contains(r#""reason": "link-lost""#), "{}", world.text(id));
}

#[test]
fn streams_of_the_first_moment_wait_for_the_link() {
    let mut world = World::new(LIMITS);
    world.streams = Streams::new(LIMITS, b"", HistoryRules::default(), 1, Arc::default());
    let id = world.request(&[0]);
    assert_eq!(world.text(id), "");
    world.streams.link_up();
    world.acknowledge_all();
    world.settle();
    assert_eq!(world.text(id), HEAD, "and nothing was missed, so no reset");

    world.streams = Streams::new(LIMITS, b"", HistoryRules::default(), 1, Arc::default());
    let id = world.request(&[0]);
    world.streams.link_down(ResetReason::LinkLost);
    world.open_ready();
    assert_eq!(world.text(id), HEAD, "the first attempt has failed");
}

#[test]
fn waiting_streams_open_when_the_link_is_lost() {
    let mut world = World::new(LIMITS);
    let id = world.request(&[0, 1]);
    world.streams.link_down(ResetReason::LinkLost);
    world.open_ready();
    assert_eq!(world.text(id), HEAD);
}

#[test]
fn an_unused_channel_is_unsubscribed_after_a_while_unless_somebody_comes_back() {
    let mut world = World::new(LIMITS);
    let (a, b) = (world.open(&[0]), world.open(&[1]));
    world.close(a);
    world.close(b);
    world.streams.set_time(Tick(9), 0);
    assert_eq!(world.streams.lapsed(), Vec::<Vec<u8>>::new());
    assert_eq!(world.streams.counters.subscriptions.get(), 2);
    let back = world.open(&[1]);
    assert_eq!(world.text(back), HEAD, "a lingering subscription still stands");
    world.streams.set_time(Tick(10), 0);
    assert_eq!(world.streams.lapsed(), [b"c0".to_vec()]);
    assert!(world.streams.find(b"c0").is_none());
    assert_eq!(world.streams.counters.subscriptions.get(), 1);
    world.close(back);
    world.streams.set_time(Tick(30), 0);
    assert_eq!(world.streams.lapsed(), [b"c1".to_vec()]);
    assert!(world.streams.channels.is_empty());
}

#[test]
fn a_refused_channel_that_nobody_uses_is_forgotten() {
    let mut world = World::new(LIMITS);
    let id = world.request(&[0]);
    world.close(id);
    for tick in 0..100 {
        world.streams.set_time(Tick(tick), 0);
        for id in world.streams.next_asks(usize::MAX) {
            world.streams.refuse(id);
        }
        assert_eq!(world.streams.lapsed(), Vec::<Vec<u8>>::new());
    }
    assert!(world.streams.channels.is_empty());
}

#[test]
fn a_refused_channel_does_not_remember_who_waited_for_it() {
    let mut world = World::new(LIMITS);
    for tick in 0..200 {
        world.streams.set_time(Tick(tick), 0);
        let id = world.request(&[0]);
        for id in world.streams.next_asks(usize::MAX) {
            world.streams.refuse(id);
        }
        world.streams.lapsed();
        world.streams.open(id, &mut world.sockets);
        world.close(id);
    }
    let waiting: usize = world.streams.waiters.values().map(Vec::len).sum();
    assert!(waiting <= REFUSED_TICKS as usize, "{waiting}");
}

#[test]
fn a_refused_channel_is_asked_once_at_a_time_however_often_the_link_is_lost() {
    let mut world = World::new(LIMITS);
    world.request(&[0]);
    for _ in 0..5 {
        for id in world.streams.next_asks(usize::MAX) {
            world.streams.refuse(id);
        }
        world.streams.link_down(ResetReason::LinkLost);
        world.streams.link_up();
    }
    for id in world.streams.next_asks(usize::MAX) {
        world.streams.refuse(id);
    }
    world.streams.set_time(Tick(REFUSED_TICKS), 0);
    world.streams.lapsed();
    assert_eq!(world.streams.next_asks(usize::MAX).len(), 1);
}

#[test]
fn channels_that_are_always_subscribed_are_asked_for_first() {
    let mut world = World::new(LIMITS);
    world.streams = Streams::new(LIMITS, b"", HistoryRules::default(), 1, Arc::default());
    let ahead = world.streams.hold(b"events_channel");
    for n in 0..500 {
        world.request(&[n]);
    }
    world.streams.link_up();
    assert_eq!(world.streams.next_asks(1), [ahead]);
}

#[test]
fn a_slow_consumer_is_closed_and_others_are_not_delayed() {
    let mut world = World::new(StreamLimits { max_pending_bytes: 100, ..LIMITS });
    let (slow, quick) = (world.open(&[0]), world.open(&[0]));
    world.sockets.room.insert(world.expected[&slow].0, 3);
    for n in 0..30 {
        world.publish(0, &format!("<{n:06}>"));
        while world.streams.slice(256, &mut world.sockets) {}
    }
    assert!(world.streams.get(slow).is_none());
    assert_eq!(world.streams.counters.closed(CloseReason::SlowConsumer), 1);
    assert_eq!(world.text(quick).len(), HEAD.len() + 30 * 8);
}

#[test]
fn one_event_larger_than_the_pending_bound_always_fits() {
    let mut world = World::new(StreamLimits { max_pending_bytes: 100, ..LIMITS });
    let id = world.open(&[0]);
    world.sockets.room.insert(world.expected[&id].0, 3);
    world.publish(0, &"x".repeat(100_000));
    world.settle();
    world.check(0);
}

#[test]
fn a_broken_connection_is_closed_by_the_send_that_finds_it() {
    let mut world = World::new(LIMITS);
    let (broken, whole) = (world.open(&[0]), world.open(&[0]));
    world.sockets.broken.push(world.expected[&broken].0);
    world.publish(0, "text");
    while world.streams.slice(256, &mut world.sockets) {}
    assert!(world.streams.get(broken).is_none());
    assert_eq!(world.text(whole), format!("{HEAD}text"));
}

#[test]
fn events_of_a_burst_leave_in_one_send() {
    let mut world = World::new(LIMITS);
    let ids: Vec<_> = [&[0][..], &[0, 1]].iter().map(|c| world.open(c)).collect();
    let before = world.sockets.sends;
    (0..20).for_each(|n| world.publish(0, &format!("<{n}>")));
    world.settle();
    assert_eq!(world.sockets.sends - before, ids.len());
    world.check(0);
}

#[test]
fn a_flood_stays_within_the_intake_bound_and_its_streams_are_told() {
    let bound = 10_000;
    let mut world = World::new(StreamLimits { max_intake_bytes: bound, ..LIMITS });
    let flooded = world.open(&[0]);
    let calm = world.open(&[1]);
    let both = world.open(&[0, 1]);
    world.publish(1, "<calm>");
    for n in 0..2_000 {
        world.publish(0, &format!("<{n:04}{}>", "x".repeat(50)));
        assert!(world.streams.intake_bytes() <= bound);
    }
    world.settle();
    assert_eq!(world.text(calm), format!("{HEAD}<calm>"));
    for id in [flooded, both] {
        let text = world.text(id);
        assert_eq!(text.matches(r#""reason": "overload""#).count(), 1, "{text}");
        assert!(text.contains("<1999x") && !text.contains("<0000x"));
        assert!(text.find("stream-reset") < text.find('<'), "{text}");
    }
    assert_eq!(world.streams.intake_bytes(), 0);
    assert!(world.streams.counters.overload.get() > 1_000);
}

#[test]
fn resets_that_fill_the_intake_do_not_make_every_event_trim_all_channels() {
    let count = 5_000;
    let mut world = World::new(StreamLimits { max_intake_bytes: 100_000, ..LIMITS });
    let ids: Vec<_> = (0..count).map(|n| world.request(&[n])).collect();
    ids.iter().for_each(|id| world.streams.open(*id, &mut world.sockets));
    world.acknowledge_all();
    let resets = world.streams.intake_bytes();
    // An event that comes in adds to the intake, unless it made room.
    let mut makes_room = || {
        let before = world.streams.intake_bytes();
        world.publish(0, "<event>");
        world.streams.intake_bytes() <= before
    };
    let trims = (0..1_000).filter(|_| makes_room()).count();
    assert!((1..100).contains(&trims), "{trims}");
    let left = world.streams.intake_bytes();
    assert!(left <= resets + 100_000 / 8, "events beside {resets} bytes of resets: {left}");
}

#[test]
fn silence_never_exceeds_the_heartbeat_and_busy_streams_get_none() {
    let interval = 20;
    let mut world = World::new(StreamLimits { heartbeat_ticks: interval, ..LIMITS });
    let silent: Vec<_> = (0..30).map(|_| world.open(&[0])).collect();
    let many = world.open(&[0, 2]);
    let busy = world.open(&[1]);
    let mut last = HashMap::new();
    for tick in 1..200 {
        world.streams.set_time(Tick(tick), 0);
        if tick % 5 == 0 {
            world.publish(1, "<busy>");
            while world.streams.slice(256, &mut world.sockets) {}
        }
        let quota = world.streams.sweep_quota();
        assert_eq!(world.streams.sweep(quota, usize::MAX, &mut world.sockets), 0);
        for id in silent.iter().chain([&many]) {
            let length = world.text(*id).len();
            let seen = last.entry(*id).or_insert((length, tick));
            if seen.0 != length {
                *seen = (length, tick);
            }
            assert!(tick - seen.1 <= interval, "{id:?} silent for {} ticks", tick - seen.1);
        }
    }
    let heartbeat = std::str::from_utf8(HEARTBEAT).unwrap();
    let count = world.text(silent[0]).matches(heartbeat).count();
    assert!((8..=11).contains(&count), "{count} heartbeats in 200 ticks");
    assert!(!world.text(busy).contains(heartbeat));
}

#[test]
fn merging_waits_its_time() {
    let mut world = World::new(StreamLimits { coalesce_ms: 50, ..LIMITS });
    let id = world.open(&[0]);
    world.publish(0, "a");
    assert!(!world.streams.slice(256, &mut world.sockets));
    assert_eq!(world.text(id), HEAD);
    assert_eq!(world.streams.merging_until(), Some(50));
    world.streams.set_time(Tick(0), 49);
    world.publish(0, "b");
    world.streams.slice(256, &mut world.sockets);
    assert_eq!(world.text(id), HEAD);
    let before = world.sockets.sends;
    world.streams.set_time(Tick(0), 50);
    world.streams.slice(256, &mut world.sockets);
    assert_eq!((world.text(id), world.sockets.sends - before), (format!("{HEAD}ab"), 1));
}

#[test]
fn resets_reach_streams_of_several_channels_merged() {
    let mut world = World::new(LIMITS);
    let id = world.open(&[0, 1, 2]);
    let channels = [0, 1, 0].map(|n| world.streams.find(format!("c{n}").as_bytes()).unwrap());
    for channel in channels {
        world.streams.reset(channel, ResetReason::Oversize);
    }
    world.settle();
    assert_eq!(world.text(id).matches("stream-reset").count(), 1);
    assert!(world.text(id).contains(r#""channels": ["c0", "c1"]"#), "{}", world.text(id));
}

#[test]
fn of_resets_side_by_side_the_last_has_the_id() {
    let mut world = World::new(LIMITS);
    let id = world.open(&[0, 1]);
    for (n, reason) in [(0, ResetReason::Oversize), (1, ResetReason::LinkLost)] {
        let channel = world.streams.find(format!("c{n}").as_bytes()).unwrap();
        world.streams.reset_at(channel, reason, Some(EventId { ms: 5 + n, seq: 0 }));
    }
    world.settle();
    let text = world.text(id);
    let resets: Vec<&str> = text.split("\n\n").filter(|b| b.contains("stream-reset")).collect();
    let [first, second] = resets[..] else { panic!("{text}") };
    assert!(first.contains("oversize") && !first.contains("id: "), "{text}");
    assert!(second.contains("link-lost") && second.ends_with("id: 6-0"), "{text}");
}

#[test]
fn what_a_socket_refused_is_offered_again_though_nobody_says_that_it_has_room() {
    for heartbeat_ticks in [0, 20] {
        let mut world = World::new(StreamLimits { heartbeat_ticks, ..LIMITS });
        let id = world.open(&[0]);
        let fd = world.expected[&id].0;
        world.sockets.room.insert(fd, 0);
        world.publish(0, "<late>");
        while world.streams.slice(256, &mut world.sockets) {}
        assert_eq!(world.text(id), HEAD);
        world.sockets.room.insert(fd, usize::MAX);
        for tick in 1..200 {
            world.streams.set_time(Tick(tick), 0);
            let quota = world.streams.sweep_quota();
            world.streams.sweep(quota, usize::MAX, &mut world.sockets);
        }
        assert!(world.text(id).starts_with(&format!("{HEAD}<late>")), "{}", world.text(id));
    }
}

#[test]
fn who_came_between_events_that_a_flood_costs_is_told_and_who_came_later_is_not() {
    let mut world = World::new(StreamLimits { max_intake_bytes: 10_000, ..LIMITS });
    for channels in [&[0][..], &[0, 1]] {
        world.open(channels);
    }
    world.publish(0, "<first>");
    let between = [&[0][..], &[0, 1]].map(|channels| world.open(channels));
    for n in 0..100 {
        world.publish(0, &format!("<{n:04}{}>", "x".repeat(50)));
    }
    let later = [&[0][..], &[0, 1]].map(|channels| world.open(channels));
    world.settle();
    let told = |id| world.text(id).matches(r#""reason": "overload""#).count();
    assert_eq!((between.map(told), later.map(told)), ([1, 1], [0, 0]));
}

#[test]
fn a_socket_that_has_room_again_at_once_is_offered_the_rest_at_once() {
    for channels in [&[0][..], &[0, 1]] {
        let mut world = World::new(LIMITS);
        let id = world.open(channels);
        world.sockets.hasty.push(world.expected[&id].0);
        world.publish(0, "<event>");
        while world.streams.slice(256, &mut world.sockets) {}
        assert_eq!(world.text(id), format!("{HEAD}<event>"), "the kernel will not say so again");
        assert!(!world.streams.has_backlog(id));
    }
}

#[test]
fn what_comes_of_a_request_takes_nothing_from_a_stream() {
    let mut world = World::new(LIMITS);
    let id = world.request(&[0]);
    assert!(world.streams.take_head(id).bytes.is_empty());
    world.streams.keep_head(id, HeadBuffer { bytes: b"more".to_vec(), skip: 0 });
    world.acknowledge_all();
    world.open_ready();
    assert_eq!(world.text(id), HEAD);
    world.sockets.room.insert(world.expected[&id].0, 3);
    world.publish(0, "<event>");
    while world.streams.slice(256, &mut world.sockets) {}
    assert!(world.streams.take_head(id).bytes.is_empty());
    world.settle();
    world.check(0);
}

#[test]
fn a_flood_costs_no_more_than_what_exceeds_the_bound() {
    for channels in [&[0][..], &[0, 1]] {
        // Events of 72 bytes, which take 200 while they wait.
        let mut world = World::new(StreamLimits { max_intake_bytes: 1600, ..LIMITS });
        let id = world.open(channels);
        let event = |n: usize| format!("<{n}>{}", "x".repeat(69));
        (0..8).for_each(|n| world.publish(0, &event(n)));
        assert_eq!(
            (world.streams.intake_bytes(), world.streams.counters.overload.get()),
            (1600, 0)
        );
        world.publish(0, &event(8));
        assert_eq!(world.streams.counters.overload.get(), 2, "seven eighths of the bound are left");
        world.settle();
        let text = world.text(id);
        assert!(!text.contains("<1>") && text.contains("<2>") && text.contains("<8>"), "{text}");
    }
}

#[test]
fn places_of_streams_that_went_while_events_were_on_their_way_are_given_back() {
    let mut world = World::new(LIMITS);
    (0..8).for_each(|_| _ = world.open(&[0]));
    for _ in 0..20 {
        let goes = world.open(&[0]);
        world.publish(0, "<event>");
        world.close(goes);
        world.settle();
    }
    world.check(0);
    let id = world.streams.find(b"c0").unwrap();
    assert_eq!(world.streams.channels.get(id).unwrap().subscribers.len(), 8);
}

#[test]
fn a_channel_is_named_once_in_a_merged_reset() {
    let mut world = World::new(LIMITS);
    let id = world.open(&[0, 1]);
    for name in [b"c0", b"c1", b"c0"] {
        let channel = world.streams.find(name).unwrap();
        world.streams.reset(channel, ResetReason::Oversize);
    }
    world.settle();
    assert!(world.text(id).contains(r#""channels": ["c0", "c1"]"#), "{}", world.text(id));
    assert_eq!(world.text(id).matches("stream-reset").count(), 1);
}

#[test]
fn a_channel_that_loses_events_again_and_again_is_reset_once() {
    let mut world = World::new(StreamLimits { max_intake_bytes: 10_000, ..LIMITS });
    let id = world.open(&[0]);
    (0..1_000).for_each(|n| world.publish(0, &format!("<{n:04}{}>", "x".repeat(50))));
    world.settle();
    assert_eq!(world.text(id).matches("stream-reset").count(), 1);
    assert_eq!(world.streams.counters.resets.get(), 1);
}

#[test]
fn a_slice_makes_as_many_sends_as_it_may_and_no_more() {
    // One channel, several, streams of several.
    for channels in [&[&[0][..]; 2], &[&[0][..], &[1]], &[&[0, 1][..]; 2]] {
        let mut world = World::new(LIMITS);
        (0..1_000).for_each(|n| _ = world.open(channels[n % 2]));
        let before = world.sockets.sends;
        (0..2).for_each(|channel| world.publish(channel, "<event>"));
        let mut sends = Vec::new();
        while world.streams.slice(256, &mut world.sockets) {
            sends.push(world.sockets.sends - before);
        }
        assert_eq!(sends.get(..3), Some(&[256, 512, 768][..]), "{channels:?}");
        world.check(0);
    }
}

#[test]
fn memory_of_a_burst_of_requests_is_given_back() {
    let mut world = World::new(LIMITS);
    let ids: Vec<_> = (0..5_000).map(|n| world.request(&[n])).collect();
    for id in world.streams.next_asks(usize::MAX) {
        world.streams.acknowledge(id);
    }
    (0..5_000).for_each(|n| world.publish(n, "<event>"));
    world.settle();
    (0..5_000).for_each(|n| world.publish(n, "<event>"));
    world.settle();
    ids.into_iter().for_each(|id| world.close(id));
    world.streams.give_memory_back();
    let streams = &world.streams;
    let kept = [streams.ask.capacity(), streams.ready.capacity(), streams.turns.capacity()];
    assert!(kept.iter().all(|places| *places < 100), "{kept:?}");
}
