//! What is claimed, told and let go where clocks go back or lag behind, where somebody forges what
//! is close to the present, and for streams that were told before.

use super::scenarios::{reset, with_one_stream};
use super::tests::{Item, World};
use super::*;
use crate::ground::limits::{HISTORY_PAGES_BYTES_MAX, LAST_EVENTS_COUNTED_MAX};
use crate::state::catch_up::Start;
use crate::state::connections::State;
use crate::state::counters::CloseReason;
use crate::state::recent::Question;

impl World {
    fn is_joined(&self, id: ConnectionId) -> bool {
        matches!(self.streams.get(id).map(|c| c.state), Some(State::One | State::Many))
    }

    /// The id that a client has got last.
    fn last_id(&self, fd: i32) -> EventId {
        let text = self.sockets.text(fd);
        let id = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
        EventId::parse(id.as_bytes()).unwrap()
    }

    /// So much happens, and no more.
    fn run_for(&mut self, steps: usize) {
        for _ in 0..steps {
            self.ask(false);
            self.deliver(1);
            self.streams.slice(256, &mut self.sockets);
        }
    }

    /// The next clock that Redis tells.
    fn tell(&mut self, clock: crate::bytes::history::Clock) -> Findings {
        self.streams.tell_clock(&Told {
            clock,
            now_ms: self.redis.now_ms,
            plain: &[],
            wish: ClockWish::Newest,
            is_first: false,
        })
    }
}

#[test]
fn the_newest_event_of_a_channel_whose_clock_lags_behind_is_no_place_to_be_at() {
    let mut world = with_one_stream();
    let before = world.redis.newest;
    let now_ms = world.redis.now_ms;
    // Published while the time of day was ahead; then the clock was lost.
    world.redis.now_ms = now_ms + 60_000;
    world.redis.publish(1);
    world.redis.newest = before;
    world.redis.now_ms = now_ms;
    let id = world.request(11, &["c1", "c2"], Start::Last(1));
    world.run();
    let claimed = world.last_id(11);
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    world.redis.publish(2);
    world.pass_time(700);
    world.redis.publish(2);
    world.run();
    world.pass_time(1);
    world.run();
    world.request(12, &["c1", "c2"], Start::After(claimed));
    world.run();
    let (seen, resets) = world.seen(12, 2);
    assert!(seen == 2 || resets > 0, "{seen} of 2 after {claimed}: {}", world.sockets.text(12));
}

#[test]
fn a_clock_that_goes_back_keeps_nobody_who_waits_for_a_page() {
    let mut world = with_one_stream();
    let older = world.redis.clock();
    (0..3).for_each(|_| world.redis.publish(1));
    let from = world.redis.newest;
    (0..3).for_each(|_| world.redis.publish(1));
    world.run();
    world.pass_time(50);
    world.run();
    let id = world.request(11, &["c1"], Start::After(from));
    // Its page is about to be asked for.
    while world.streams.history.reads.is_empty() {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
    }
    world.redis.newest = older.newest;
    world.redis.trim(1, 0);
    assert!(world.tell(older).has_lost);
    world.run_for(1000);
    let reads = world.counters.history_reads.get();
    assert!(world.is_joined(id), "{reads} readings, and it waits: {}", world.sockets.text(11));
    assert!(world.sockets.text(11).contains(&reset("unknown-id", "\"c1\"")));
}

#[test]
fn what_was_read_of_a_time_that_redis_has_lost_serves_nobody() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.publish(1);
    let clock = world.redis.clock();
    (0..3).for_each(|_| world.redis.publish(1));
    world.run();
    world.pass_time(50);
    world.run();
    world.request(12, &["c1"], Start::After(begin));
    world.run();
    assert_eq!(world.seen(12, 1).0, 4);
    // All but the first are lost, and another is published with an id of theirs.
    world.redis.newest = clock.newest;
    world.redis.trim(1, 0);
    assert!(world.tell(clock).has_lost);
    world.redis.now_ms = begin.ms;
    world.redis.padding = 7;
    world.redis.publish(1);
    world.run();
    world.request(13, &["c1"], Start::After(begin));
    world.run();
    let text = world.sockets.text(13);
    assert!(text.contains("data: 1......."), "{text}");
}

#[test]
fn a_question_for_evictions_outlives_another_that_is_delayed_with_it() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.publish(1);
    world.redis.trim(1, 0);
    let id = world.request(11, &["c1"], Start::After(begin));
    let is_clock = |item: &Item, of| matches!(item, Item::Clock(_, _, wish, _) if *wish == of);
    while !world.redis.wire.iter().any(|item| is_clock(item, ClockWish::WithEvictions)) {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.ask(false);
    }
    // Somebody else needs the clock; then a script takes its time, and both are refused.
    world.request(12, &["c0"], Start::Unknown);
    assert!(world.redis.wire.iter().any(|item| is_clock(item, ClockWish::Newest)));
    while let Some(item) = world.redis.wire.pop_front() {
        match item {
            Item::Clock(_, _, wish, _) => world.streams.delay_clock(wish, DELAYED_TICKS),
            other => world.redis.wire.push_back(other),
        }
        if !world.redis.wire.iter().any(|item| matches!(item, Item::Clock(..))) {
            break;
        }
    }
    for _ in 0..100 {
        world.pass_time(1);
        world.run();
    }
    assert!(world.is_joined(id), "it waits for ever: {}", world.sockets.text(11));
}

#[test]
fn an_event_right_behind_a_forged_gap_costs_nobody_the_link() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Now);
    world.redis.publish(0);
    world.run();
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    world.redis.publish(0);
    world.redis.publish(1);
    world.run();
    assert!(world.redis.is_up, "a forger has cost all channels the link");
    assert_eq!((world.seen(10, 0).0, world.seen(11, 1)), (2, (1, 0)));
}

#[test]
fn a_forged_gap_while_a_lost_link_is_made_up_for_costs_nobody_another() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    world.link_down();
    world.redis.publish(0);
    world.link_up();
    while !world.streams.history.repair.as_ref().is_some_and(|repair| repair.is_begun()) {
        world.deliver(1);
    }
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    let forged = world.redis.wire.pop_back().unwrap();
    world.redis.wire.push_front(forged);
    world.run();
    assert!(world.redis.is_up, "a forger has cost all channels the link");
    assert_eq!(world.seen(10, 0).0, 2);
}

#[test]
fn an_entry_that_is_no_event_costs_nobody_the_link() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Now);
    world.redis.publish(0);
    world.run();
    world.redis.write_foreign(0);
    // Its `p` is that entry's id.
    world.redis.publish(0);
    world.redis.publish(1);
    world.run();
    assert!(world.redis.is_up, "one entry has cost all channels the link");
    assert_eq!((world.seen(10, 0).0, world.seen(11, 1)), (2, (1, 0)));
}

#[test]
fn an_id_that_the_clock_has_passed_by_takes_nobody_back() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1", "c2"], Start::Now);
    world.run();
    world.redis.publish(2);
    let first = world.redis.newest;
    world.redis.publish(2);
    world.run();
    world.pass_time(1);
    world.run();
    assert!(world.streams.history.position >= Some(world.redis.newest));
    world.redis.forge(1, first, EventId::ZERO, false);
    world.run();
    let last = world.last_id(11);
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    world.request(12, &["c1", "c2"], Start::After(last));
    world.run();
    assert_eq!((world.seen(11, 2).0, world.seen(12, 2).0), (2, 0), "one came twice");
}

#[test]
fn an_id_from_before_all_takes_nobody_back_while_its_channel_begins_anew() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1", "c2"], Start::Now);
    world.redis.publish(2);
    world.run();
    world.pass_time(1);
    world.run();
    let low = EventId { ms: 5, seq: 0 };
    world.redis.forge(1, low, EventId::ZERO, false);
    world.redis.forge(1, low, EventId::ZERO, false);
    world.deliver(2);
    while world.streams.slice(256, &mut world.sockets) {}
    let last = world.last_id(11);
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    world.request(12, &["c1", "c2"], Start::After(last));
    world.run();
    assert_eq!((world.seen(11, 2).0, world.seen(12, 2).0), (1, 0), "{last}: one came twice");
}

#[test]
fn who_began_with_all_is_told_of_what_has_expired_since_its_head() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1"], Start::All);
    world.streams.open(id, &mut world.sockets);
    world.link_down();
    world.redis.publish(1);
    world.redis.trim(1, 0);
    // Longer than events are kept.
    world.pass_time(30_000);
    world.link_up();
    world.run();
    assert!(world.is_joined(id));
    assert!(world.sockets.text(11).contains("stream-reset"), "{}", world.sockets.text(11));
}

#[test]
fn who_began_with_the_newest_before_anything_was_heard_is_told() {
    let mut world = World::new(0, usize::MAX);
    let id = world.request(11, &["c1"], Start::Last(2));
    world.streams.open(id, &mut world.sockets);
    (0..5).for_each(|_| world.redis.publish(1));
    world.link_up();
    world.run();
    let (seen, resets) = world.seen(11, 1);
    assert!(seen == 5 || resets > 0, "{seen} of 5: {}", world.sockets.text(11));
}

#[test]
fn a_head_that_is_early_while_history_is_given_up_promises_nothing() {
    let mut world = with_one_stream();
    (0..3).for_each(|_| world.redis.publish(1));
    world.run();
    let id = world.request(11, &["c1"], Start::Now);
    world.streams.give_history_up();
    world.redis.wire.clear();
    world.streams.open(id, &mut world.sockets);
    // It can be read again, and Redis acknowledges the subscription.
    world.streams.history.wish_clock(ClockWish::Newest);
    world.run();
    let c1 = world.streams.find(b"c1").unwrap();
    world.streams.acknowledge(c1);
    world.run();
    assert!(world.is_joined(id));
    let text = world.sockets.text(11);
    assert!(!text.contains("id: 0-0"), "{text}");
    assert_eq!(world.seen(11, 1).0, 0, "a new stream gets what was before it: {text}");
}

#[test]
fn an_event_without_history_between_head_and_join_is_told_whatever_was_asked_for() {
    for start in [Start::Last(90), Start::All] {
        let mut world = with_one_stream();
        world.redis.padding = 20_000;
        (0..100).for_each(|_| world.redis.publish(1));
        world.run();
        let id = world.request(11, &["c1"], start);
        while world.seen(11, 1).0 == 0 {
            world.deliver(1);
            world.streams.slice(256, &mut world.sockets);
            world.ask(false);
        }
        assert_eq!(world.streams.get(id).unwrap().state, State::CatchingUp);
        world.redis.wire.push_back(Item::Plain(1));
        world.run();
        assert!(world.is_joined(id));
        let text = world.sockets.text(11).replace("....", "");
        assert!(text.contains("plain") || text.contains("stream-reset"), "{start:?}");
    }
}

#[test]
fn who_was_told_of_an_unknown_id_is_told_again_when_redis_has_lost_what_came_then() {
    let mut world = with_one_stream();
    let before = world.redis.clock();
    world.redis.padding = 70_000;
    world.sockets.room.insert(11, 1000);
    let id = world.request(11, &["c0"], Start::Unknown);
    // Right behind the clock that it has waited for, and ahead of that.
    (0..2).for_each(|_| world.redis.publish(0));
    world.redis.padding = 0;
    world.deliver(3);
    while world.streams.slice(256, &mut world.sockets) {}
    assert!(world.streams.has_backlog(id));
    // A failover that has lost both.
    world.link_down();
    world.redis.newest = before.newest;
    world.redis.trim(0, 0);
    world.link_up();
    world.run();
    world.pass_time(1);
    world.run();
    world.sockets.room.insert(11, usize::MAX);
    world.streams.flush(id, &mut world.sockets);
    world.run();
    let text = world.sockets.text(11).replace("....", "");
    assert!(world.is_joined(id));
    assert!(world.seen(11, 0).0 == 2 || text.matches("stream-reset").count() == 2, "{text}");
}

#[test]
fn what_is_dropped_of_a_distrusted_channel_is_told_though_the_repair_ends_before() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1"], Start::Now);
    world.redis.publish(0);
    world.redis.publish(1);
    world.run();
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    while !matches!(world.redis.wire.front(), Some(Item::Page(..))) {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.ask(false);
    }
    // Before Redis has answered that, these are published.
    let page = world.redis.wire.pop_front().unwrap();
    assert!(world.redis.wire.is_empty());
    world.redis.forge(1, EventId { ms: 5, seq: 0 }, EventId::ZERO, false);
    world.deliver(1);
    // The clock that is asked for now comes last.
    assert!(matches!(world.redis.wire.pop_front(), Some(Item::Clock(..))));
    let resets = world.counters.resets.get();
    world.redis.publish(1);
    world.deliver(1);
    world.redis.wire.push_back(page);
    world.deliver(1);
    while world.streams.slice(256, &mut world.sockets) {}
    assert!(world.streams.history.repair.is_none());
    let (clock, now_ms) = (world.redis.clock(), world.redis.now_ms);
    world.redis.wire.push_back(Item::Clock(clock, now_ms, ClockWish::Newest, Vec::new()));
    world.deliver(1);
    while world.streams.slice(256, &mut world.sockets) {}
    world.redis.publish(1);
    world.run();
    assert!(world.is_joined(id));
    let seen = world.seen(11, 1).0;
    let told = world.counters.resets.get() - resets;
    assert!(seen == 3 || told > 0, "{seen} of 3, and nothing told since");
}

#[test]
fn ids_of_the_newest_events_that_many_wait_for_have_the_bound_of_pages() {
    let mut world = with_one_stream();
    let count = LAST_EVENTS_COUNTED_MAX;
    // Somebody fills all the room, so that the others wait in line.
    let begin = world.redis.newest;
    world.redis.padding = 9_000;
    for n in 2_000..2_010 {
        (0..30).for_each(|_| world.redis.publish(n));
    }
    world.redis.padding = 0;
    for n in 0..10 {
        let names: Vec<String> = (0..32).map(|m| format!("c{}", 2_000 + 32 * n + m)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.request(100 + n, &names, Start::After(begin));
    }
    for n in 0..300 {
        let name = format!("c{}", 10_000 + n);
        world.request(1_000 + n, &[&name], Start::Last(count));
    }
    let now = world.redis.newest;
    let ids: Vec<EventId> =
        (0..count as u64).rev().map(|n| EventId { ms: begin.ms - 1_000_000 + n, seq: 0 }).collect();
    assert!(ids.iter().all(|id| *id < now));
    let mut highest = 0;
    for _ in 0..5_000 {
        world.ask(false);
        for item in &mut world.redis.wire {
            if let Item::Index(read, newest) = item
                && newest.is_none()
                && matches!(read.question, Question::Newest { .. })
            {
                *newest = Some((EventId::ZERO, ids.clone()));
            }
        }
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        highest = highest.max(world.streams.history.page_bytes.get());
    }
    assert!(highest <= 2 * HISTORY_PAGES_BYTES_MAX, "{highest} bytes are held");
}

#[test]
fn an_event_without_history_that_is_noted_while_a_lost_link_is_made_up_for_is_told() {
    let mut world = with_one_stream();
    world.link_down();
    world.link_up();
    while !matches!(world.redis.wire.front(), Some(Item::Newest(_))) {
        world.deliver(1);
    }
    // Another server notes what was published before our subscription stood.
    let id = EventId { ms: world.redis.now_ms, seq: 0 };
    world.redis.marks.push((id, b"c0".to_vec()));
    world.run();
    world.pass_time(100);
    world.run();
    let text = world.sockets.text(10);
    assert!(text.contains(&reset("no-history", "\"c0\"")), "{text}");
}

#[test]
fn newest_events_that_can_not_be_counted_are_told() {
    let mut world = with_one_stream();
    (0..3).for_each(|_| world.redis.publish(1));
    let id = world.request(11, &["c1"], Start::Last(2));
    while !matches!(world.redis.wire.front(), Some(Item::Index(..))) {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.ask(false);
    }
    // The key holds something else.
    let Some(Item::Index(read, _)) = world.redis.wire.pop_front() else { panic!() };
    world.streams.fail_read(read, true);
    world.run();
    assert!(world.is_joined(id));
    let text = world.sockets.text(11);
    assert!(text.contains(&reset("history-trimmed", "\"c1\"")), "{text}");
}

#[test]
fn an_event_without_history_counts_for_as_long_as_the_last() {
    let mut marks = Marks::new(1000);
    marks.note(b"c", 5000);
    marks.note(b"c", 5200);
    let told = |now_ms| marks.contains(b"c", now_ms);
    assert!(told(6199), "the second is forgotten with the first");
}

#[test]
fn a_forged_id_of_the_near_future_passes_nothing_of_other_channels_by() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1", "c2"], Start::Now);
    world.run();
    let near = EventId { ms: world.redis.now_ms + 60_000, seq: 0 };
    world.redis.forge(1, near, EventId::ZERO, false);
    world.run();
    let last = world.last_id(11);
    // It goes before Redis has told that there was no such event.
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    world.redis.publish(2);
    world.run();
    world.pass_time(1);
    world.run();
    world.pass_time(700);
    world.redis.publish(2);
    world.run();
    world.pass_time(1);
    world.run();
    assert!(world.counters.forged.get() > 0, "it is known to be forged");
    world.request(12, &["c1", "c2"], Start::After(last));
    world.run();
    let (seen, resets) = world.seen(12, 2);
    assert!(seen == 2 || resets > 0, "{seen} of 2 after {last}: {}", world.sockets.text(12));
}

#[test]
fn who_went_on_without_a_channel_is_told_when_it_comes_back_after_that_was_forgotten() {
    let mut world = with_one_stream();
    let (id, last) = world.go_on_without_c1();
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    for _ in 0..100 {
        world.pass_time(1);
        world.run();
    }
    assert!(world.streams.find(b"c1").is_none());
    world.redis.forbidden.clear();
    world.request(12, &["c0", "c1"], Start::After(last));
    world.run();
    let text = world.sockets.text(12);
    assert!(text.contains(&reset("link-lost", "\"c1\"")), "{text}");
}

#[test]
fn who_misses_something_of_several_channels_is_told_once_of_all() {
    let mut world = with_one_stream();
    world.request(11, &["c1", "c2", "c3"], Start::Unknown);
    world.run();
    let text = world.sockets.text(11);
    assert_eq!(text.matches("stream-reset").count(), 1, "{text}");
    assert!(text.contains(&reset("unknown-id", "\"c1\", \"c2\", \"c3\"")), "{text}");
}

#[test]
fn ids_that_redis_gives_after_a_lost_link_are_known_though_one_was_forged_before() {
    let mut world = with_one_stream();
    world.redis.publish(1);
    world.run();
    world.redis.forge(0, EventId { ms: u64::MAX, seq: 0 }, EventId::ZERO, false);
    world.deliver(usize::MAX);
    while world.streams.slice(256, &mut world.sockets) {}
    world.link_down();
    world.link_up();
    world.run();
    // In the same millisecond in which Redis told its clock.
    world.redis.publish(1);
    let last = world.redis.newest;
    world.redis.publish(1);
    world.run();
    world.request(11, &["c1"], Start::After(last));
    world.run();
    assert_eq!(world.seen(11, 1), (1, 0), "{}", world.sockets.text(11));
}

#[test]
fn who_asks_for_all_is_told_that_some_are_gone_though_the_rest_is_in_memory() {
    let mut world = with_one_stream();
    (0..5).for_each(|_| world.redis.publish(1));
    world.request(11, &["c1"], Start::Now);
    world.run();
    (0..5).for_each(|_| world.redis.publish(1));
    (0..2).for_each(|_| world.redis.publish(0));
    world.redis.trim(1, 3);
    world.run();
    // Of c2 there was never anything.
    world.request(12, &["c0", "c1", "c2"], Start::All);
    world.run();
    assert_eq!((world.seen(12, 0).0, world.seen(12, 1).0), (2, 5));
    let text = world.sockets.text(12);
    let told = text.find(&reset("history-trimmed", "\"c1\"")).unwrap();
    assert!(
        told < text.find("data: 1").unwrap() && text.matches("event: stream-reset").count() == 1,
        "{text}"
    );
}
