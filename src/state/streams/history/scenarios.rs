//! What streams of channels that are kept are owed in cases that have a name, in the world of the
//! model.

mod lasting;

use std::os::fd::RawFd;
use std::rc::Rc;

use super::tests::{Client, Item, World};
use super::*;
use crate::bytes::history::Clock;
use crate::bytes::history::PLAIN_MARKS_MAX;
use crate::ground::limits::HISTORY_CACHE_BYTES;
use crate::state::catch_up::Start;

/// A world whose only stream is that of one channel, and open.
pub(super) fn with_one_stream() -> World {
    let mut world = World::new(0, usize::MAX);
    world.link_up();
    world.request(10, &["c0"], Start::Now);
    world.run();
    world
}

impl World {
    /// Lets everybody do what there is to do.
    pub(super) fn run(&mut self) {
        self.run_watched(usize::MAX, |_| {});
    }

    /// The same, of what comes from Redis so much at a time, and looks at it in between.
    pub(super) fn run_watched(&mut self, step: usize, mut watch: impl FnMut(&Self)) {
        for _ in 0..1_000_000 {
            self.ask(false);
            self.deliver(step);
            let more = self.streams.slice(256, &mut self.sockets);
            self.ask(false);
            watch(self);
            if !more && self.redis.wire.is_empty() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// A client that asks for channels, whatever they are.
    pub(super) fn request(&mut self, fd: RawFd, names: &[&str], start: Start) -> ConnectionId {
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let id = self.streams.add(fd);
        let head = Vec::from("head\n");
        self.streams.request(id, &names, start, head, 7, &mut self.sockets);
        self.ask(false);
        id
    }

    fn channel(&self, name: &str) -> ChannelId {
        self.streams.find(name.as_bytes()).unwrap()
    }

    /// A stream of `c0` and `c1`, which Redis refuses: it hears nothing of an event there, and gets
    /// a later id. Returns the stream, and that id.
    pub(super) fn go_on_without_c1(&mut self) -> (ConnectionId, EventId) {
        self.redis.forbidden.insert(1);
        let id = self.request(11, &["c0", "c1"], Start::Now);
        self.run();
        self.redis.publish(1);
        self.redis.publish(0);
        self.run();
        (id, self.redis.newest)
    }

    /// How many events of a channel a client has got, and how many resets.
    pub(super) fn seen(&self, fd: RawFd, channel: usize) -> (usize, usize) {
        let text = self.sockets.text(fd);
        let events = text.matches(&format!("data: {channel}")).count();
        (events, text.matches("stream-reset").count())
    }
}

pub(super) fn reset(reason: &str, names: &str) -> String {
    format!("\"reason\": \"{reason}\", \"channels\": [{names}]")
}

#[test]
fn an_event_that_ends_every_link_is_not_read_again_and_again() {
    let mut world = World::new(0, usize::MAX);
    world.clients.push(Client::new(vec![0]));
    world.settle();
    world.link_down();
    (0..20).for_each(|_| world.redis.publish(0));
    world.too_large = Some(world.redis.newest);
    // What is read before it comes to the turn must not make it forgotten.
    (0..20).for_each(|_| world.redis.publish(0));
    for _ in 0..100 {
        world.link_up();
        world.deliver(usize::MAX);
        world.pass_time(1);
        while world.streams.slice(256, &mut world.sockets) {}
    }
    world.settle();
    assert!((1..=8).contains(&world.links_ended), "{} links", world.links_ended);
    assert_eq!(world.clients[0].resets, 1);
}

#[test]
fn a_redis_that_cannot_tell_its_newest_id_is_asked_again_after_a_pause() {
    let mut streams = World::new(0, usize::MAX).streams;
    streams.link_up();
    assert_eq!(streams.take_clock_wish(), Some(ClockWish::Newest));
    streams.delay_clock(ClockWish::WithEvictions, DELAYED_TICKS);
    for tick in 1..=10 {
        assert_eq!(streams.take_clock_wish(), None);
        streams.set_time(Tick(tick), u64::from(tick) * 100);
        streams.history_tick();
    }
    assert_eq!(streams.take_clock_wish(), Some(ClockWish::WithEvictions), "as it was asked");
    streams.repeat_clock(ClockWish::Newest);
    let again = streams.take_clock_wish();
    assert_eq!(again, Some(ClockWish::Newest), "one that has begun its clock is asked at once");
}

#[test]
fn a_history_that_cannot_be_read_is_tried_again_and_streams_go_on_with_it() {
    let mut world = with_one_stream();
    let id = world.redis.newest;
    world.request(11, &["c1"], Start::After(id));
    world.streams.give_history_up();
    world.redis.wire.clear();
    assert!(!world.streams.is_kept(world.channel("c0")));
    for id in [world.channel("c0"), world.channel("c1")] {
        world.streams.acknowledge(id);
    }
    world.run();
    assert!(world.sockets.text(11).contains(&reset("no-history", "\"c1\"")));
    world.pass_time(300);
    world.run();
    assert!(world.streams.is_kept(world.channel("c0")));
    world.redis.publish(0);
    let last = world.redis.newest;
    world.redis.publish(0);
    world.run();
    assert_eq!(world.seen(10, 0), (2, 0));
    world.request(12, &["c0"], Start::After(last));
    world.run();
    assert_eq!(world.seen(12, 0), (1, 0), "{}", world.sockets.text(12));
}

#[test]
fn a_channel_whose_events_have_expired_has_no_gap() {
    let mut world = with_one_stream();
    let c0 = world.channel("c0");
    let begin = world.redis.newest.ms;
    let kept = |ms, previous_ms, is_chained| Kept {
        id: EventId { ms, seq: 0 },
        previous: EventId { ms: previous_ms, seq: 0 },
        is_chained,
        bytes: format!("data: {ms}\n\n").into_bytes().into(),
    };
    // Long after the subscription began, and nothing of the channel is left.
    world.streams.publish_kept(c0, kept(begin + 900, begin + 500, false));
    world.streams.publish_kept(c0, kept(begin + 950, begin + 900, true));
    assert!(world.streams.history.repair.is_none());
}

#[test]
fn an_event_that_names_one_which_has_not_arrived_is_looked_up_and_not_passed_on_before() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    world.redis.publish(0);
    world.redis.publish(0);
    // The first of them gets lost on the way, on a link that seems to stand.
    world.redis.wire.pop_front();
    world.deliver(1);
    assert_eq!(world.seen(10, 0), (1, 0));
    assert_eq!(world.counters.gaps.get(), 1);
    world.deliver(usize::MAX);
    assert!(!world.redis.is_up, "what is lost on a link may not be all");
    world.link_up();
    world.run();
    assert_eq!(world.seen(10, 0), (3, 0));
}

#[test]
fn a_forged_gap_costs_its_channel_a_look_and_nobody_the_link() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Now);
    world.run();
    let far = EventId { ms: u64::MAX, seq: 0 };
    for _ in 0..5 {
        world.redis.forge(0, far, far.before().unwrap(), true);
        world.redis.publish(1);
        world.run();
        world.pass_time(1);
    }
    world.run();
    assert!(world.redis.is_up);
    assert_eq!(world.seen(11, 1), (5, 0), "{}", world.sockets.text(11));
    world.redis.publish(0);
    world.run();
    assert_eq!(world.seen(10, 0).0, 1, "{}", world.sockets.text(10));
    // All of them were one look and then, without trust, resets of this channel alone.
    assert_eq!(world.counters.gaps.get(), 1);
    assert!(world.seen(10, 0).1 >= 1);
}

#[test]
fn events_behind_a_forged_gap_are_no_proof_of_one() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    (0..3).for_each(|_| world.redis.publish(0));
    world.run();
    assert!(world.redis.is_up);
    assert_eq!(world.counters.gaps.get(), 1);
    assert_eq!(world.seen(10, 0), (4, 0), "{}", world.sockets.text(10));
}

#[test]
fn a_forged_id_before_a_lost_link_takes_no_time_from_streams_that_ask_for_it() {
    let mut world = with_one_stream();
    world.pass_time(100);
    (0..3).for_each(|_| world.redis.publish(1));
    world.run();
    world.pass_time(20);
    world.run();
    world.redis.forge(0, EventId { ms: u64::MAX, seq: 0 }, EventId::ZERO, false);
    world.deliver(usize::MAX);
    while world.streams.slice(256, &mut world.sockets) {}
    // Whether Redis had it and has lost it nobody knows.
    world.link_down();
    world.link_up();
    world.run();
    assert!(!world.streams.history.lost_times.is_empty());
    world.pass_time(10);
    world.redis.publish(0);
    world.run();
    for (fd, ms, expected) in [(11, 500, 0), (12, 2000, 0), (13, 5000, 3)] {
        world.request(fd, &["c1"], Start::Ago(ms));
        world.run();
        assert_eq!(world.seen(fd, 1), (expected, 0), "{}", world.sockets.text(fd));
    }
    world.redis.publish(1);
    world.run();
    for (fd, expected) in [(11, 1), (12, 1), (13, 4)] {
        assert_eq!(world.seen(fd, 1), (expected, 0), "{}", world.sockets.text(fd));
    }
}

#[test]
fn events_that_got_lost_in_more_than_a_page_cost_the_link_too() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    world.redis.padding = 100_000;
    (0..6).for_each(|_| world.redis.publish(0));
    world.redis.wire.clear();
    world.redis.publish(0);
    world.deliver(usize::MAX);
    assert!(!world.redis.is_up, "what is lost on a link may not be all");
    world.link_up();
    world.run();
    assert_eq!(world.seen(10, 0), (8, 0));
}

#[test]
fn a_forged_id_is_nobodys_place_to_be_at() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Now);
    world.run();
    let forged = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, forged, EventId::ZERO, false);
    world.redis.publish(1);
    world.deliver(usize::MAX);
    while world.streams.slice(256, &mut world.sockets) {}
    // A stream that comes now is not given it, nor are silent ones.
    world.request(12, &["c1"], Start::Now);
    while world.streams.slice(256, &mut world.sockets) {}
    world.pass_time(1);
    world.run();
    let last = world.redis.newest;
    for fd in [11, 12] {
        assert!(
            !world.sockets.text(fd).contains(&forged.to_string()),
            "{}",
            world.sockets.text(fd)
        );
    }
    // Its own streams are set right.
    let text = world.sockets.text(10);
    let right = format!("{}}}\nid: {last}\n", reset("unknown-id", "\"c0\""));
    assert!(text.ends_with(&format!("{right}\n")), "{text}");
    // And a lost link later who comes back is known.
    world.link_down();
    world.link_up();
    world.redis.publish(1);
    world.run();
    world.request(13, &["c1"], Start::After(last));
    world.run();
    assert_eq!(world.seen(13, 1), (1, 0), "{}", world.sockets.text(13));
}

#[test]
fn a_gap_before_redis_has_told_anything_hangs_nobody() {
    let mut world = World::new(0, usize::MAX);
    world.link_up();
    world.request(10, &["c0"], Start::Now);
    let c0 = world.channel("c0");
    let (id, previous) = (EventId { ms: 9, seq: 0 }, EventId { ms: 8, seq: 0 });
    let bytes: Rc<[u8]> = Rc::from(&b"data: x\n\n"[..]);
    world.streams.publish_kept(c0, Kept { id, previous, is_chained: true, bytes });
    world.run();
    world.redis.publish(0);
    world.run();
    assert_eq!(world.seen(10, 0), (1, 0));
}

#[test]
fn a_head_that_leaves_early_promises_nothing_that_is_still_to_be_sent() {
    for (start, promises) in [(Start::Now, true), (Start::Last(3), false), (Start::Unknown, false)]
    {
        let mut world = with_one_stream();
        let id = world.request(11, &["c1"], start);
        world.streams.open(id, &mut world.sockets);
        let text = world.sockets.text(11);
        assert_eq!(text.contains(&world.redis.newest.to_string()), promises, "{start:?}: {text}");
        assert_eq!(text.contains("id: "), start != Start::Unknown, "{text}");
    }
}

#[test]
fn an_unknown_id_is_passed_by_in_the_block_that_tells_of_it() {
    let mut world = with_one_stream();
    world.request(11, &["c0"], Start::Unknown);
    world.run();
    let (text, newest) = (world.sockets.text(11), world.redis.newest);
    let told = reset("unknown-id", "\"c0\"");
    let open = "head\nretry: 7\nevent: stream-open\ndata:\n\n";
    let expected = format!("{open}event: stream-reset\ndata: {{{told}}}\nid: {newest}\n\n");
    assert_eq!(text, expected);
}

#[test]
fn the_newest_events_are_those_since_an_early_head_where_these_are_more() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1"], Start::Last(2));
    world.streams.open(id, &mut world.sockets);
    (0..5).for_each(|_| world.redis.publish(1));
    world.run();
    assert_eq!(world.seen(11, 1), (5, 0));
}

#[test]
fn the_newest_events_of_several_channels_are_the_newest_of_all_and_silence_is_no_loss() {
    let mut world = with_one_stream();
    for n in 0..9 {
        world.redis.publish(n % 2);
    }
    // Longer than events are kept: of a channel of which nothing is there nothing is known.
    world.pass_time(30_000);
    for n in 0..6 {
        world.redis.publish(n % 2);
    }
    world.run();
    for (fd, count, expected) in [(11, 4, (2, 2)), (12, 100, (8, 7)), (13, 0, (0, 0))] {
        world.request(fd, &["c0", "c1", "c2"], Start::Last(count));
        world.run();
        let seen = (world.seen(fd, 0).0, world.seen(fd, 1).0);
        assert_eq!((seen, world.seen(fd, 2).1), (expected, 0), "{}", world.sockets.text(fd));
    }
}

#[test]
fn what_was_trimmed_before_the_newest_events_is_not_missed() {
    let mut world = with_one_stream();
    for channel in [2, 1, 1] {
        world.redis.publish(channel);
    }
    world.redis.trim(1, 1);
    world.run();
    world.request(11, &["c1", "c2"], Start::Last(9));
    world.run();
    assert_eq!((world.seen(11, 1), world.seen(11, 2)), ((1, 0), (1, 0)));
}

#[test]
fn a_refused_channel_does_not_keep_the_newest_events_of_others_back() {
    let mut world = with_one_stream();
    world.redis.forbidden.insert(3);
    (0..4).for_each(|_| world.redis.publish(0));
    world.request(11, &["c0", "c3"], Start::Last(2));
    world.run();
    (0..3).for_each(|_| world.redis.publish(0));
    world.run();
    assert_eq!(world.seen(11, 0), (5, 1), "{}", world.sockets.text(11));
    assert!(world.sockets.text(11).contains(&reset("link-lost", "\"c3\"")));
}

#[test]
fn a_refused_channel_is_told_of_once_however_much_is_caught_up_with() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.forbidden.insert(3);
    world.redis.padding = 20_000;
    (0..60).for_each(|_| world.redis.publish(0));
    world.request(11, &["c0", "c3"], Start::After(begin));
    world.run();
    assert_eq!(world.seen(11, 0), (60, 1));
}

#[test]
fn all_that_is_kept_begins_with_the_oldest_and_tells_what_was_trimmed() {
    let mut world = with_one_stream();
    (0..5).for_each(|_| world.redis.publish(1));
    world.run();
    world.request(11, &["c1", "c2"], Start::All);
    world.run();
    assert_eq!(world.seen(11, 1), (5, 0), "{}", world.sockets.text(11));
    world.redis.trim(1, 2);
    world.pass_time(60);
    world.request(12, &["c1", "c2"], Start::All);
    world.run();
    assert_eq!(world.seen(12, 1), (2, 1), "{}", world.sockets.text(12));
    assert!(world.sockets.text(12).contains(&reset("history-trimmed", "\"c1\"")));
}

#[test]
fn what_was_published_since_a_time() {
    let mut world = with_one_stream();
    // Of what was before Redis' clock began nobody knows.
    world.pass_time(600);
    world.redis.publish(0);
    world.pass_time(600);
    world.redis.publish(0);
    world.redis.publish(0);
    let now_ms = world.redis.now_ms;
    world.run();
    world.pass_time(1);
    world.run();
    let starts = [
        (Start::Ago(30_000), 2),
        (Start::Ago(61_000), 3),
        (Start::At(now_ms), 2),
        (Start::At(now_ms + 5), 0),
    ];
    for (fd, (start, count)) in (11..).zip(starts) {
        world.request(fd, &["c0"], start);
        world.run();
        assert_eq!(world.seen(fd, 0), (count, 0), "{start:?}: {}", world.sockets.text(fd));
    }
}

#[test]
fn plain_channels_of_a_stream_with_the_newest_events_are_not_missed_in_silence() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1", "p9"], Start::Last(2));
    world.streams.open(id, &mut world.sockets);
    world.run();
    assert!(world.sockets.text(11).contains(&reset("link-lost", "\"p9\"")));
}

#[test]
fn ids_of_what_a_redis_has_lost_are_unknown_for_good() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    let (kept, before) = (world.redis.newest, world.redis.clock());
    world.redis.publish(0);
    let lost = world.redis.newest;
    world.redis.publish(0);
    world.run();
    world.pass_time(1);
    world.run();
    let newest = world.redis.newest;
    let told = |clock| Told {
        clock,
        now_ms: newest.ms,
        plain: &[],
        wish: ClockWish::Newest,
        is_first: true,
    };
    assert!(world.streams.tell_clock(&told(before)).has_lost);
    assert!(world.sockets.text(10).contains("data: 0"));
    world.streams.tell_clock(&told(Clock { newest: newest.next().unwrap(), ..before }));
    for (fd, id, is_known) in [(11, kept, true), (12, lost, false), (13, newest, false)] {
        world.request(fd, &["c0"], Start::After(id));
        world.run();
        let text = world.sockets.text(fd);
        assert_eq!(!text.contains("unknown-id"), is_known, "{text}");
    }
}

#[test]
fn times_that_were_lost_are_told_apart_and_few() {
    let mut history = History::new(HistoryRules::default(), Marks::new(1));
    let id = |ms| EventId { ms, seq: 0 };
    (1..=20).for_each(|number| history.lose_time(id(10 * number), id(10 * number + 5)));
    let is_lost: Vec<u64> = (0..=20).filter(|n| history.is_of_lost_time(id(10 * n + 3))).collect();
    assert_eq!(is_lost, (1..=20).collect::<Vec<_>>());
    let is_known: Vec<u64> =
        (0..=20).filter(|n| !history.is_of_lost_time(id(10 * n + 8))).collect();
    assert_eq!(is_known, [&[0], &(13..=20).collect::<Vec<_>>()[..]].concat());
    assert_eq!(history.lost_times.len(), LOST_TIMES_MAX);
}

#[test]
fn streams_that_went_on_without_a_channel_are_told_of_it_when_they_come_back() {
    let mut world = with_one_stream();
    let (_, last) = world.go_on_without_c1();
    world.redis.forbidden.clear();
    world.pass_time(200);
    world.run();
    let subscription = world.streams.channels.get(world.channel("c1")).unwrap().subscription;
    assert_eq!(subscription, Subscription::Standing);
    world.request(12, &["c0", "c1"], Start::After(last));
    world.run();
    assert!(world.sockets.text(12).contains(&reset("link-lost", "\"c1\"")));
}

#[test]
fn a_repair_waits_for_channels_that_redis_has_acknowledged_and_not_told_its_newest_id_for() {
    let mut world = with_one_stream();
    world.link_down();
    world.redis.publish(0);
    world.streams.link_up();
    world.redis.is_up = true;
    for id in world.streams.next_asks(usize::MAX) {
        world.redis.subscribed.insert(0);
        world.streams.acknowledge(id);
    }
    let wish = world.streams.take_clock_wish().unwrap();
    world.streams.delay_clock(wish, 1);
    world.streams.repair();
    while world.streams.slice(256, &mut world.sockets) {}
    world.pass_time(1);
    world.run();
    assert_eq!(world.seen(10, 0), (1, 0), "{}", world.sockets.text(10));
}

#[test]
fn the_list_of_what_is_cached_does_not_outgrow_it() {
    let mut world = with_one_stream();
    let c0 = world.channel("c0");
    for _ in 0..20_000 {
        world.redis.publish(0);
        world.deliver(usize::MAX);
        world.streams.realign(c0);
        world.ask(false);
        world.deliver(usize::MAX);
        while world.streams.slice(256, &mut world.sockets) {}
        world.sockets.received.clear();
    }
    assert!(world.streams.history.cached.len() <= 2 * CACHED_MIN);
    assert!(world.streams.channels.recent_mut(c0).unwrap().count() <= 1);
}

#[test]
fn what_has_arrived_is_kept_up_to_a_bound_and_read_again_from_there() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 100_000;
    let mut highest = 0;
    for _ in 0..400 {
        world.redis.publish(0);
        world.run();
        world.sockets.received.clear();
        highest = highest.max(world.streams.history.cached_bytes);
    }
    assert!(highest > HISTORY_CACHE_BYTES / 2 && highest <= HISTORY_CACHE_BYTES, "{highest}");
    world.request(11, &["c0"], Start::After(begin));
    world.run();
    assert_eq!(world.seen(11, 0), (400, 0));
}

#[test]
fn who_comes_back_over_an_event_without_history_is_told_on_every_worker() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.wire.push_back(Item::Plain(0));
    world.run();
    world.request(11, &["c0"], Start::After(begin));
    world.run();
    assert!(world.sockets.text(11).contains(&reset("no-history", "\"c0\"")));
    // Another worker, that has never heard of the channel.
    let mut other = World::new(1, usize::MAX);
    other.redis.marks.clone_from(&world.redis.marks);
    other.link_up();
    other.request(11, &["c0", "c1"], Start::After(begin));
    other.run();
    assert!(other.sockets.text(11).contains(&reset("no-history", "\"c0\"")));
    // New streams are not, and those that stand neither.
    other.request(12, &["c0"], Start::Now);
    other.run();
    assert_eq!((other.seen(12, 0).1, world.seen(10, 0).1), (0, 0));
    // Until the mark has expired.
    other.pass_time(20_000);
    other.run();
    let last = other.redis.newest;
    other.request(13, &["c0"], Start::After(last));
    other.run();
    assert_eq!(other.seen(13, 0).1, 0, "{}", other.sockets.text(13));
}

#[test]
fn streams_that_came_back_before_others_had_told_of_an_event_without_history_are_told_then() {
    let mut world = with_one_stream();
    let id = EventId { ms: world.redis.now_ms, seq: 0 };
    world.redis.marks.push((id, b"c0".to_vec()));
    world.pass_time(100);
    world.run();
    assert!(world.sockets.text(10).contains(&reset("no-history", "\"c0\"")));
    assert!(world.streams.history.marks.len() < PLAIN_MARKS_MAX);
}

#[test]
fn streams_of_mixed_channels_are_told_after_a_lost_link() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Now);
    world.redis.wire.push_back(Item::Plain(0));
    world.run();
    world.link_down();
    world.link_up();
    world.run();
    assert_eq!((world.seen(10, 0).1, world.seen(11, 1).1), (1, 0));
}

#[test]
fn an_id_of_a_plain_channel_does_not_reach_a_stream_that_has_a_kept_one() {
    let mut world = with_one_stream();
    world.request(11, &["c0", "p"], Start::Now);
    world.request(12, &["p", "q"], Start::Now);
    world.request(13, &["p"], Start::Now);
    world.run();
    let p = world.channel("p");
    world.streams.publish_with_id(p, &Rc::from(&b"data: x\nid: 99999999999999-0\n\n"[..]));
    world.run();
    let has_id = |fd| world.sockets.text(fd).contains("99999999999999-0");
    assert_eq!([11, 12, 13].map(has_id), [false, true, true]);
    assert!(world.sockets.text(11).ends_with("data: x\n\n"));
}

#[test]
fn a_silent_stream_is_told_the_position_once_nothing_is_ahead_of_it() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.deliver(usize::MAX);
    while world.streams.slice(256, &mut world.sockets) {}
    let position = world.streams.history.position;
    assert!(position < Some(world.redis.newest));
    for _ in 0..10 {
        world.pass_time(1);
        world.run();
    }
    let newest = world.redis.newest;
    let text = world.sockets.text(10);
    assert!(text.ends_with(&format!("event: keep-alive\ndata:\nid: {newest}\n\n")), "{text}");
}
