//! What once was lost, held or kept for ever: by forgery, by a Redis that refuses, goes back or has
//! lost its memory, and by streams that ask for much.

use std::rc::Rc;

use super::scenarios::{reset, with_one_stream};
use super::tests::{Item, World};
use super::*;
use crate::ground::limits::{HISTORY_PAGES_BYTES_MAX, LAST_EVENTS_COUNTED_MAX};
use crate::state::catch_up::Start;
use crate::state::connections::State;
use crate::state::counters::CloseReason;

#[test]
fn history_that_is_given_up_over_a_second_link_too_lets_streams_go_on() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    let id = world.request(11, &["c1"], Start::After(begin));
    world.streams.give_history_up();
    world.link_down();
    while world.streams.slice(256, &mut world.sockets) {}
    // Link comes back, the clock is refused again.
    for _ in 0..5 {
        world.redis.is_up = true;
        world.streams.link_up();
        let asks = world.streams.next_asks(usize::MAX);
        let _ = world.streams.take_clock_wish();
        for id in asks {
            world.streams.acknowledge(id);
        }
        world.streams.give_history_up();
        world.streams.repair();
        while world.streams.slice(256, &mut world.sockets) {}
    }
    world.streams.open(id, &mut world.sockets);
    let c1 = world.streams.find(b"c1").unwrap();
    world.streams.publish(c1, &Rc::from(&b"data: live\n\n"[..]));
    while world.streams.slice(256, &mut world.sockets) {}
    assert_ne!(world.streams.get(id).unwrap().state, State::CatchingUp);
}

#[test]
fn a_channel_that_lingered_while_history_was_given_up_is_asked_for_again() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1"], Start::Now);
    world.run();
    world.streams.give_history_up();
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    // Redis tells its clock again while the channel lingers.
    world.streams.history.wish_clock(ClockWish::Newest);
    world.run();
    assert!(!world.streams.history.is_given_up);
    let id = world.request(12, &["c1"], Start::Now);
    for _ in 0..100 {
        world.run();
        world.pass_time(100);
        world.redis.publish(1);
    }
    assert_ne!(world.streams.get(id).unwrap().state, State::CatchingUp);
}

#[test]
fn channels_that_nobody_uses_lapse_after_a_lost_link() {
    let mut world = with_one_stream();
    for n in 100..200 {
        let name = format!("c{n}");
        let id = world.request(n, &[&name], Start::Now);
        world.run();
        world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    }
    world.link_down();
    world.link_up();
    for _ in 0..100 {
        world.run();
        world.pass_time(100);
    }
    assert_eq!(world.streams.channels.len(), 1);
}

#[test]
fn channels_that_redis_refuses_lapse() {
    let mut world = with_one_stream();
    for n in 100..200 {
        world.redis.forbidden.insert(n as usize);
        let name = format!("c{n}");
        let id = world.request(n, &[&name], Start::Now);
        world.run();
        world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    }
    for _ in 0..100 {
        world.run();
        world.pass_time(100);
    }
    assert_eq!(world.streams.channels.len(), 1);
}

#[test]
fn a_slow_stream_that_had_a_forged_id_is_told_of_what_that_passed_by() {
    let mut world = with_one_stream();
    world.request(12, &["c0", "c1"], Start::Now);
    world.run();
    let begin = world.redis.newest;
    let far = EventId { ms: u64::MAX - 5, seq: 0 };
    let farther = EventId { ms: u64::MAX, seq: 0 };
    let c0 = world.streams.find(b"c0").unwrap();
    let big: Rc<[u8]> =
        format!("data: forged{}\nid: {far}\n\n", ".".repeat(70_000)).into_bytes().into();
    world
        .streams
        .publish_kept(c0, Kept { id: far, previous: EventId::ZERO, is_chained: false, bytes: big });
    world.redis.forge(0, farther, EventId::ZERO, false);
    world.deliver(1);
    world.sockets.room.insert(11, 1000);
    let id = world.request(11, &["c0", "c1"], Start::After(begin));
    assert!(world.streams.has_backlog(id));
    world.pass_time(1);
    world.run();
    (0..3).for_each(|_| world.redis.publish(1));
    world.run();
    world.pass_time(1);
    world.run();
    world.sockets.room.insert(11, usize::MAX);
    world.streams.flush(id, &mut world.sockets);
    world.run();
    world.redis.publish(1);
    world.run();
    let text = world.sockets.text(11).replace("....", "");
    assert_eq!(world.streams.get(id).unwrap().state, State::Many);
    assert!(world.seen(11, 1).0 == 4 || text.contains("stream-reset"), "{text}");
}

#[test]
fn a_slow_stream_is_told_that_redis_has_lost_what_it_had() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 70_000;
    let before = world.redis.clock();
    (0..2).for_each(|_| world.redis.publish(0));
    world.redis.padding = 0;
    world.run();
    world.pass_time(1);
    world.run();
    world.sockets.room.insert(11, 1000);
    let id = world.request(11, &["c0"], Start::After(begin));
    world.run();
    assert!(world.streams.has_backlog(id));
    // A failover that has lost all since `begin`.
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
    assert_eq!(world.streams.get(id).unwrap().state, State::One);
    assert!(world.seen(11, 0).0 == 2 || text.contains("stream-reset"), "{text}");
}

#[test]
fn a_repair_of_many_channels_reads_events_that_are_larger_than_their_share() {
    let mut world = World::new(0, usize::MAX);
    world.link_up();
    let n: i32 = 2600;
    for c in 0..n {
        let name = format!("c{c}");
        world.request(100 + c, &[&name], Start::Now);
    }
    world.run();
    world.link_down();
    for c in 0..n as usize {
        world.redis.padding = if c % 2 == 0 { 120_000 } else { 100 };
        world.redis.publish(c);
    }
    world.link_up();
    let mut reads = Vec::new();
    for _ in 0..40 {
        for _ in 0..500 {
            world.ask(false);
            world.deliver(1);
            world.streams.slice(256, &mut world.sockets);
        }
        reads.push((
            world.counters.history_reads.get(),
            world.counters.repaired.get(),
            world.streams.history.page_bytes.get(),
        ));
    }
    assert!(world.streams.history.repair.is_none());
}

#[test]
fn streams_that_all_need_other_pages_hold_no_more_than_they_may() {
    let mut world = World::new(0, usize::MAX);
    world.link_up();
    world.request(10, &["c0"], Start::Now);
    world.run();
    let mut ids = Vec::new();
    world.redis.padding = 20_000;
    for n in 0..3000 {
        if n % 5 == 0 {
            ids.push(world.redis.newest);
        }
        world.redis.publish(1);
        world.redis.publish(2);
    }
    world.run();
    for (fd, id) in (10_000..).zip(&ids) {
        world.request(fd, &["c2"], Start::After(*id));
    }
    for (fd, id) in (20_000..).zip(&ids) {
        world.request(fd, &["c1", "c2"], Start::After(*id));
    }
    let mut highest = 0;
    for _ in 0..6000 {
        world.ask(false);
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.sockets.received.clear();
        highest = highest.max(world.streams.history.page_bytes.get());
        assert!(world.streams.history.paged.len() <= 3);
    }
    assert!(highest <= HISTORY_PAGES_BYTES_MAX * 2, "{highest}");
}

#[test]
fn who_began_with_all_is_told_of_what_is_trimmed_later() {
    let mut world = World::new(0, 2);
    world.link_up();
    world.request(10, &["c0"], Start::Now);
    world.run();
    world.link_down();
    world.redis.padding = 70_000;
    (0..2).for_each(|_| world.redis.publish(0));
    world.redis.padding = 0;
    world.link_up();
    world.run();
    let id = world.request(11, &["c0"], Start::All);
    while world.seen(11, 0).0 == 0 {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.ask(false);
    }
    assert_eq!(world.streams.get(id).unwrap().state, State::CatchingUp);
    world.link_down();
    while world.streams.slice(256, &mut world.sockets) {}
    (0..2).for_each(|_| world.redis.publish(0));
    world.link_up();
    // Until it is about to be read.
    while world.streams.history.repair.is_some()
        || world.streams.history.position < Some(world.redis.newest)
    {
        world.deliver(1);
        world.ask(false);
        if world.streams.history.repair.is_some() {
            world.streams.slice(256, &mut world.sockets);
        }
    }
    (0..2).for_each(|_| world.redis.publish(0));
    world.run();
    let text = world.sockets.text(11).replace("....", "");
    assert!(text.contains("stream-reset"), "6 events, {} seen, no reset", world.seen(11, 0).0);
}

#[test]
fn a_channel_that_comes_to_stand_while_a_stream_catches_up_is_told_again() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.forbidden.insert(3);
    world.redis.padding = 70_000;
    (0..2).for_each(|_| world.redis.publish(0));
    world.run();
    world.pass_time(1);
    world.run();
    world.sockets.room.insert(11, 1000);
    let id = world.request(11, &["c0", "c3"], Start::After(begin));
    world.run();
    world.streams.flush(id, &mut world.sockets);
    assert!(world.streams.has_backlog(id));
    // Told now; this comes later.
    world.redis.padding = 0;
    world.redis.publish(3);
    world.redis.padding = 70_000;
    (0..3).for_each(|_| world.redis.publish(0));
    world.run();
    for _ in 0..3 {
        world.sockets.room.insert(11, 71_000);
        world.streams.flush(id, &mut world.sockets);
        world.run();
    }
    assert_eq!(world.streams.get(id).unwrap().state, State::CatchingUp);
    world.redis.forbidden.clear();
    for _ in 0..30 {
        world.pass_time(1);
        world.run();
    }
    let c3 = world.streams.find(b"c3").unwrap();
    assert_eq!(world.streams.channels.get(c3).unwrap().subscription, Subscription::Standing);
    world.sockets.room.insert(11, usize::MAX);
    world.streams.flush(id, &mut world.sockets);
    world.run();
    world.redis.publish(3);
    world.run();
    assert!(world.seen(11, 3).0 == 2 || world.seen(11, 0).1 > 1, "one of c3 lost in silence");
}

#[test]
fn events_without_history_between_head_and_join_are_told() {
    let mut world = with_one_stream();
    world.redis.padding = 20_000;
    (0..100).for_each(|_| world.redis.publish(1));
    world.run();
    let id = world.request(11, &["c1", "p9"], Start::Last(90));
    while world.seen(11, 1).0 == 0 {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.ask(false);
    }
    assert_eq!(world.streams.get(id).unwrap().state, State::CatchingUp);
    let p9 = world.streams.find(b"p9").unwrap();
    world.streams.publish(p9, &Rc::from(&b"data: plain\n\n"[..]));
    world.run();
    assert_eq!(world.streams.get(id).unwrap().state, State::Many);
    let text = world.sockets.text(11).replace("....", "");
    assert!(text.contains("plain") || text.contains("stream-reset"));
}

#[test]
fn an_event_without_history_between_head_and_join_is_told_where_others_are_kept() {
    for is_early in [true, false] {
        for (count, is_lost) in [(0, false), (1, false), (0, true)] {
            let mut world = with_one_stream();
            world.streams.note_plain(b"c1");
            world.redis.padding = 20_000;
            (0..100).for_each(|_| world.redis.publish(1));
            world.run();
            let id = world.request(11, &["c1"], Start::Last(90));
            if is_early {
                world.streams.open(id, &mut world.sockets);
            }
            while !is_early && world.seen(11, 1).0 == 0 {
                world.deliver(1);
                world.streams.slice(256, &mut world.sockets);
                world.ask(false);
            }
            assert_eq!(world.streams.get(id).unwrap().state, State::CatchingUp);
            (0..count).for_each(|_| world.redis.wire.push_back(Item::Plain(1)));
            if is_lost {
                world.link_down();
                world.link_up();
            }
            world.run();
            assert_eq!(world.streams.get(id).unwrap().state, State::One);
            let told = world.sockets.text(11).matches(&reset("no-history", "\"c1\"")).count();
            // Before the subscription stood, nobody would have heard of one.
            let may_lack = is_early || count > 0 || is_lost;
            assert_eq!(told, usize::from(may_lack), "{is_early} {count} {is_lost}");
        }
    }
}

#[test]
fn an_event_without_history_is_told_to_who_was_told_of_something_before() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 20_000;
    (0..100).for_each(|_| world.redis.publish(1));
    world.redis.trim(1, 50);
    world.run();
    let id = world.request(11, &["c1"], Start::After(begin));
    while world.seen(11, 1).0 == 0 {
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        world.ask(false);
    }
    assert_eq!(world.streams.get(id).unwrap().state, State::CatchingUp);
    world.redis.wire.push_back(Item::Plain(1));
    world.run();
    assert_eq!(world.streams.get(id).unwrap().state, State::One);
    let text = world.sockets.text(11);
    assert!(text.contains("history-trimmed"));
    assert!(text.contains("plain") || text.contains(&reset("no-history", "\"c1\"")));
}

#[test]
fn a_gap_that_is_not_looked_up_is_no_hole_in_memory() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    world.run();
    world.pass_time(1);
    world.run();
    let last = world.redis.newest;
    world.redis.publish(0);
    world.redis.publish(0);
    world.redis.wire.pop_front();
    world.run();
    world.pass_time(1);
    world.run();
    world.request(11, &["c0"], Start::After(last));
    world.run();
    let text = world.sockets.text(11);
    assert!(world.seen(11, 0).0 == 2 || text.contains("stream-reset"));
}

#[test]
fn a_forger_on_one_channel_holds_nobody_else() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Now);
    world.run();
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    world.deliver(usize::MAX);
    for _ in 0..1000 {
        world.redis.publish(1);
        // Right behind whatever is on its way: the turn reads it in one go.
        world.redis.forge(0, EventId { ms: 5, seq: 0 }, EventId::ZERO, false);
        let count = world.redis.wire.len();
        world.deliver(count);
        while world.streams.slice(256, &mut world.sockets) {}
        world.ask(false);
        world.pass_time(1);
    }
    assert!(world.seen(11, 1).0 > 0);
}

#[test]
fn the_newest_events_are_found_while_others_leave_memory() {
    let mut world = with_one_stream();
    world.redis.padding = 200_000;
    (0..200).for_each(|_| world.redis.publish(0));
    world.run();
    world.sockets.received.clear();
    world.request(11, &["c0"], Start::Last(150));
    for _ in 0..1000 {
        world.redis.publish(0);
        let count = world.redis.wire.len();
        world.deliver(count);
        while world.streams.slice(256, &mut world.sockets) {}
        world.sockets.received.remove(&10);
        world.ask(false);
    }
    assert!(world.seen(11, 0).0 > 100);
}

#[test]
fn ids_of_the_newest_events_count_as_what_they_take() {
    let mut world = with_one_stream();
    let count = LAST_EVENTS_COUNTED_MAX;
    (0..4 * count).for_each(|n| world.redis.publish(1 + n % 4));
    world.run();
    world.request(11, &["c1", "c2", "c3", "c4"], Start::Last(count));
    let (mut asked, mut held) = (0, 0);
    for _ in 0..20 {
        world.ask(false);
        asked = asked.max(world.streams.history.asked_bytes);
        world.deliver(1);
        world.streams.slice(256, &mut world.sockets);
        held = held.max(world.streams.history.page_bytes.get());
    }
    let of_one = count * size_of::<EventId>();
    assert!(asked >= of_one && held >= of_one, "{asked}, {held}");
}

#[test]
fn an_event_that_the_clock_had_passed_by_when_it_was_missed_is_told() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    world.redis.publish(0);
    world.redis.wire.pop_front();
    // The clock moves the position past it.
    world.pass_time(50);
    world.run();
    world.redis.publish(0);
    world.run();
    world.link_up();
    world.run();
    let text = world.sockets.text(10);
    assert!(world.seen(10, 0).0 == 3 || text.contains("stream-reset"));
}

#[test]
fn events_of_no_bytes_are_gathered_some_at_a_time() {
    let mut world = with_one_stream();
    let c0 = world.streams.find(b"c0").unwrap();
    let begin = world.redis.newest;
    for n in 1..=180_000 {
        let id = EventId { ms: begin.ms, seq: n };
        let previous = EventId { ms: begin.ms, seq: n - 1 };
        world
            .streams
            .publish_kept(c0, Kept { id, previous, is_chained: n > 1, bytes: Rc::from(&b""[..]) });
    }
    world.redis.newest = EventId { ms: begin.ms, seq: 180_000 };
    world.run();
    let names: Vec<String> = (0..32).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.request(11, &names, Start::Now);
    world.run();
    world.request(12, &names, Start::After(begin));
    let mut most = 0;
    for _ in 0..500 {
        world.ask(false);
        world.deliver(1);
        let before = world.counters.deliveries.get();
        world.streams.slice(256, &mut world.sockets);
        most = most.max(world.counters.deliveries.get() - before);
    }
    assert!(most > 0 && most < 20_000, "{most} in one slice");
}

#[test]
fn history_that_is_given_up_in_a_repair_is_told() {
    let mut world = with_one_stream();
    world.link_down();
    world.redis.publish(0);
    world.link_up();
    while !world.streams.history.repair.as_ref().is_some_and(|r| r.is_begun()) {
        world.deliver(1);
    }
    // Published now: held.
    world.redis.publish(0);
    let last = world.redis.wire.pop_back().unwrap();
    world.redis.wire.clear();
    world.redis.wire.push_back(last);
    world.deliver(1);
    // INFO, or the clock, is refused now.
    world.streams.give_history_up();
    world.run();
    world.pass_time(300);
    world.run();
    world.redis.publish(0);
    world.run();
    let text = world.sockets.text(10);
    assert!(world.seen(10, 0).0 == 3 || text.contains("stream-reset"));
}

#[test]
fn who_comes_back_when_history_is_given_up_is_told() {
    let mut world = with_one_stream();
    world.request(11, &["c1"], Start::Ago(60_000));
    world.streams.give_history_up();
    world.redis.wire.clear();
    let c1 = world.streams.find(b"c1").unwrap();
    world.streams.acknowledge(c1);
    world.run();
    let text = world.sockets.text(11);
    assert!(text.contains("stream-reset"));
}

#[test]
fn a_stream_of_the_present_gets_no_id_when_history_is_given_up() {
    let mut world = with_one_stream();
    world.redis.publish(1);
    world.redis.publish(1);
    world.request(11, &["c1"], Start::Now);
    world.streams.give_history_up();
    world.redis.wire.clear();
    let c1 = world.streams.find(b"c1").unwrap();
    world.streams.acknowledge(c1);
    world.run();
    assert!(!world.sockets.text(11).contains("id: 0-0"));
}

#[test]
fn streams_that_go_are_forgotten_though_a_reading_is_delayed() {
    let mut world = with_one_stream();
    (0..3).for_each(|_| world.redis.publish(1));
    world.run();
    for n in 0..2000 {
        let id = world.request(11 + n, &["c1"], Start::Last(2));
        for _ in 0..20 {
            if let Some(Item::Index(read, _)) = world.redis.wire.front() {
                let read = *read;
                world.redis.wire.pop_front();
                world.streams.fail_read(read, false);
            }
            world.deliver(1);
            world.streams.slice(256, &mut world.sockets);
        }
        world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
        if n % 10 == 0 {
            world.pass_time(1);
        }
    }
    let c1 = world.streams.find(b"c1").unwrap();
    let text = format!("{:?}", world.streams.recent(c1).unwrap());
    let waiters = text.matches("Waiter {").count();
    assert!(waiters < 100);
}
