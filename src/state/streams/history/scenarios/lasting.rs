//! What lasts: over a lost link, until somebody has looked at it, or while a question is on its
//! way, in the world of the model.

use super::*;
use crate::state::connections::State;
use crate::state::counters::CloseReason;

impl World {
    /// A link is lost and stands again.
    fn lose_link(&mut self) {
        self.link_down();
        self.link_up();
        self.run();
    }

    /// Ticks pass in which what there is to do is done.
    fn rest(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.pass_time(1);
            self.run();
        }
    }

    /// Delivers what is on its way up to the first thing that is `wanted`, which is delivered too,
    /// and lets nobody look at it.
    fn deliver_through(&mut self, wanted: fn(&Item) -> bool) {
        while !self.redis.wire.front().is_some_and(wanted) {
            assert!(!self.redis.wire.is_empty(), "that was not asked for");
            self.deliver(1);
            while self.streams.slice(256, &mut self.sockets) {}
            self.ask(false);
        }
        self.deliver(1);
    }
}

#[test]
fn an_event_without_history_is_told_of_over_a_lost_link() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.wire.push_back(Item::Plain(0));
    world.run();
    // What the worker noted in Redis it has read again, with the newest id, and will not once more.
    world.rest(60);
    world.lose_link();
    world.request(11, &["c0"], Start::After(begin));
    world.run();
    let text = world.sockets.text(11);
    assert!(text.contains(&reset("no-history", "\"c0\"")), "{text}");
}

#[test]
fn what_streams_went_on_without_is_told_over_a_lost_link() {
    let mut world = with_one_stream();
    let (_, last) = world.go_on_without_c1();
    world.redis.forbidden.clear();
    world.pass_time(200);
    world.run();
    world.lose_link();
    world.request(12, &["c0", "c1"], Start::After(last));
    world.run();
    let text = world.sockets.text(12);
    assert!(text.contains(&reset("link-lost", "\"c1\"")), "{text}");
}

#[test]
fn a_chain_that_was_forged_proves_nothing_over_a_lost_link() {
    let mut world = with_one_stream();
    let far = EventId { ms: u64::MAX, seq: 0 };
    for _ in 0..2 {
        world.redis.forge(0, far, far.before().unwrap(), true);
        world.run();
        world.lose_link();
    }
    assert_eq!(world.counters.gaps.get(), 1, "nothing is looked up again for that");
}

#[test]
fn a_page_that_came_for_a_stream_is_there_when_it_looks() {
    for start in [|begin| Start::After(begin), |_| Start::Last(3)] {
        let mut world = with_one_stream();
        let begin = world.redis.newest;
        (0..3).for_each(|_| world.redis.publish(1));
        world.request(11, &["c1"], start(begin));
        let before = world.counters.history_reads.get();
        world.deliver_through(|item| matches!(item, Item::Page(..) | Item::Index(..)));
        let asked = world.counters.history_reads.get() - before;
        // What nobody holds goes.
        world.streams.drop_idle_pages(0);
        world.run();
        assert_eq!(world.seen(11, 1), (3, 0));
        // The ids of the newest events are read, and then the events.
        let most = asked + u64::from(matches!(start(begin), Start::Last(_)));
        let reads = world.counters.history_reads.get() - before;
        assert!(reads <= most, "{reads} readings");
    }
}

#[test]
fn a_page_that_a_stream_holds_serves_those_who_come_later() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    (0..3).for_each(|_| world.redis.publish(1));
    world.request(11, &["c1", "c2"], Start::After(begin));
    let c1 = world.streams.find(b"c1");
    world.deliver_through(|item| matches!(item, Item::Page(..)));
    // The answer to the other question lets it wait.
    let Some(Item::Page(other, ..)) = world.redis.wire.pop_back() else { panic!("one more page") };
    assert_ne!(Some(other.channel), c1);
    world.streams.drop_idle_pages(0);
    let before = world.counters.history_reads.get();
    world.request(12, &["c1"], Start::After(begin));
    world.run();
    assert_eq!((world.seen(12, 1), world.counters.history_reads.get()), ((3, 0), before));
}

#[test]
fn a_question_for_the_newest_id_that_went_down_with_its_link_is_not_waited_for() {
    let mut world = with_one_stream();
    world.pass_time(60);
    assert!(matches!(world.redis.wire.back(), Some(Item::Clock(..))));
    world.lose_link();
    // What others publish moves the position, by what Redis is asked now and then.
    world.redis.publish(5);
    world.rest(70);
    let text = world.sockets.text(10);
    assert!(text.ends_with(&format!("data:\nid: {}\n\n", world.redis.newest)), "{text}");
}

#[test]
fn who_has_a_later_id_than_redis_had_when_it_was_asked_waits_for_the_next_answer() {
    let mut world = with_one_stream();
    world.pass_time(60);
    assert!(matches!(world.redis.wire.back(), Some(Item::Clock(..))));
    world.redis.publish(5);
    let later = world.redis.newest;
    world.request(11, &["c0"], Start::After(later));
    world.run_watched(1, |_| {});
    assert_eq!(world.seen(11, 0), (0, 0), "{}", world.sockets.text(11));
}

#[test]
fn one_question_for_the_newest_id_makes_a_subscription_stand() {
    let mut world = with_one_stream();
    let asked = world.streams.history.clock.asked;
    world.request(11, &["c1", "c2", "c3"], Start::Now);
    world.run();
    assert_eq!(world.streams.history.clock.asked, asked + 1);
}

#[test]
fn a_silent_stream_is_told_no_position_while_one_of_its_channels_is_refused() {
    let mut world = with_one_stream();
    world.redis.forbidden.insert(1);
    let one = world.request(11, &["c1"], Start::Now);
    let many = world.request(12, &["c0", "c1"], Start::Now);
    world.run();
    for id in [one, many] {
        assert_ne!(world.streams.get(id).unwrap().state, State::CatchingUp, "they have joined");
    }
    // Of this they hear nothing.
    world.redis.publish(1);
    world.rest(10);
    for fd in [11, 12] {
        let text = world.sockets.text(fd);
        assert!(text.ends_with(":\n\n") && !text.contains("keep-alive"), "{text}");
    }
    world.redis.forbidden.clear();
    world.rest(60);
    for fd in [11, 12] {
        let text = world.sockets.text(fd);
        let newest = world.redis.newest;
        assert!(text.ends_with(&format!("event: keep-alive\ndata:\nid: {newest}\n\n")), "{text}");
    }
}

#[test]
fn an_event_that_arrives_before_its_channel_stands_does_not_leave_before_what_was_missed_is_told() {
    let mut world = with_one_stream();
    world.redis.forbidden.insert(1);
    world.request(11, &["c0", "c1"], Start::Now);
    world.run();
    world.redis.publish(1);
    world.redis.forbidden.clear();
    world.rest(19);
    let before = world.sockets.text(11);
    world.pass_time(1);
    world.deliver_through(|item| matches!(item, Item::Acknowledged(_)));
    // It is published between the two answers.
    let Some(Item::Clock(_, now_ms, wish, marks)) = world.redis.wire.pop_back() else {
        panic!("the newest id is asked for with the channel")
    };
    world.redis.publish(1);
    world.redis.wire.push_back(Item::Clock(world.redis.clock(), now_ms, wish, marks));
    world.deliver(1);
    while world.streams.slice(256, &mut world.sockets) {}
    assert!(world.streams.history.position < Some(world.redis.newest), "it comes with the event");
    assert_eq!(world.sockets.text(11), before);
    world.run();
    let told = &world.sockets.text(11)[before.len()..];
    assert!(told.contains(&reset("link-lost", "\"c1\"")) && !told.contains("data: 1"), "{told}");
}

#[test]
fn of_several_resets_the_last_alone_says_how_far_a_stream_has_come() {
    let mut world = with_one_stream();
    world.request(11, &["c0", "c1"], Start::Now);
    world.run();
    let newest = world.redis.newest;
    for (name, reason) in [(b"c0", ResetReason::LinkLost), (b"c1", ResetReason::UnknownId)] {
        let id = world.streams.find(name).unwrap();
        world.streams.reset_at(id, reason, Some(newest));
    }
    world.run();
    let last = |reason, names| {
        format!("event: stream-reset\ndata: {{{}}}\nid: {newest}\n\n", reset(reason, names))
    };
    let first =
        |reason, names| format!("event: stream-reset\ndata: {{{}}}\n\n", reset(reason, names));
    let told = first("link-lost", "\"c0\"") + &last("unknown-id", "\"c1\"");
    let text = world.sockets.text(11);
    assert!(text.ends_with(&told), "{text}");
    // One that comes back is told in the same way.
    world.request(12, &["c0", "p", "c1", "q"], Start::Unknown);
    world.run();
    let told = last("no-history", "\"p\", \"q\"");
    let told = first("unknown-id", "\"c0\", \"c1\"") + &told;
    let text = world.sockets.text(12);
    assert!(text.ends_with(&told), "{text}");
}

#[test]
fn a_channel_that_lingered_while_history_was_given_up_stands_again_before_another_tick() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1"], Start::Now);
    world.run();
    world.streams.history.wish_clock(ClockWish::Newest);
    assert_eq!(world.streams.take_clock_wish(), Some(ClockWish::Newest));
    world.streams.give_history_up();
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    // Redis tells its newest id after all.
    world.streams.history.wish_clock(ClockWish::Newest);
    world.run();
    world.request(12, &["c1"], Start::Now);
    world.run();
    world.redis.publish(1);
    world.run();
    assert_eq!(world.seen(12, 1), (1, 0), "{}", world.sockets.text(12));
}

#[test]
fn what_follows_a_forged_event_is_passed_on_before_redis_has_told_anything() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.run();
    world.redis.forge(0, EventId { ms: 5, seq: 0 }, EventId::ZERO, true);
    world.redis.publish(0);
    // Behind both of them the newest id is asked for.
    world.deliver(2);
    while world.streams.slice(256, &mut world.sockets) {}
    assert_eq!(world.seen(10, 0), (2, 1), "{}", world.sockets.text(10));
    world.run();
    world.redis.publish(0);
    world.run();
    assert_eq!(world.seen(10, 0), (3, 1), "{}", world.sockets.text(10));
}
