//! What streams that come back may take of memory and of Redis, and what they are told where
//! something can't be had, in the world of the model.

use super::scenarios::{reset, with_one_stream};
use super::tests::{Item, World};
use super::*;
use crate::ground::limits::{
    HISTORY_PAGE_BYTES_MAX, HISTORY_PAGES_BYTES_MAX, HISTORY_READING_BYTES_MAX,
    REPAIR_HELD_BYTES_MAX, REPAIR_PAGES_BYTES_MAX,
};
use crate::state::catch_up::Start;
use crate::state::counters::CloseReason;
use crate::state::history_page::Account;
use crate::state::recent::{HistoryRead, Question};
use crate::state::streams::ReadEnd;

#[test]
fn a_stream_of_many_channels_looks_a_few_times_and_no_more() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    let names: Vec<String> = (20..52).map(|n| format!("c{n}")).collect();
    for n in 20..52 {
        (0..30).for_each(|_| world.redis.publish(n));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = world.counters.looks.get();
    world.request(11, &names, Start::After(begin));
    // Answers come one by one.
    world.run_watched(1, |_| {});
    assert_eq!(world.sockets.text(11).matches("data: ").count(), 32 * 30);
    let looks = world.counters.looks.get() - before;
    assert!(looks <= 4 * (32 + 32), "{looks} looks");
}

#[test]
fn a_gap_of_any_size_takes_a_page_of_memory_a_channel() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 20_000;
    (0..3000).for_each(|n| world.redis.publish(1 + n % 2));
    world.request(11, &["c1", "c2"], Start::After(begin));
    let before = world.counters.history_reads.get();
    let mut highest = 0;
    world.run_watched(1, |world| {
        highest = highest.max(world.streams.history.page_bytes.get());
    });
    assert_eq!((world.seen(11, 1).0, world.seen(11, 2).0), (1500, 1500));
    assert!(highest <= HISTORY_PAGES_BYTES_MAX, "{highest}");
    // 60 MB, in pages that are large but for the first ones.
    let reads = world.counters.history_reads.get() - before;
    assert!(reads <= 300, "{reads} readings");
}

#[test]
fn a_crowd_holds_no_more_than_it_may_and_everybody_is_served() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 9_000;
    for n in 20..84 {
        (0..30).for_each(|_| world.redis.publish(n));
    }
    for client in 0..150 {
        let names: Vec<String> =
            (0..32).map(|n| format!("c{}", 20 + (client * 7 + n) % 64)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.request(100 + client, &names, Start::After(begin));
    }
    let (mut highest, mut asked) = (0, 0);
    world.run_watched(1, |world| {
        let history = &world.streams.history;
        highest = highest.max(history.page_bytes.get());
        asked = asked.max(history.asked_bytes);
    });
    for client in 0..150 {
        let events = world.sockets.text(100 + client).matches("\ndata: ").count();
        assert_eq!(events, 32 * 30, "client {client}");
    }
    assert!(highest <= 2 * HISTORY_PAGES_BYTES_MAX, "{highest}");
    assert!(asked <= HISTORY_READING_BYTES_MAX, "{asked}");
}

#[test]
fn who_comes_back_to_ever_older_places_finds_what_others_had_read() {
    let mut world = with_one_stream();
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(world.redis.newest);
        world.redis.publish(1);
    }
    world.run();
    let before = world.counters.history_reads.get();
    for (client, id) in (100..).zip(ids.iter().rev()) {
        world.request(client, &["c1"], Start::After(*id));
        world.run();
        let events = 50 - ids.iter().position(|other| other == id).unwrap();
        assert_eq!(world.seen(client, 1), (events, 0));
    }
    let reads = world.counters.history_reads.get() - before;
    assert!(reads <= 8, "{reads} readings for 50 places");
}

#[test]
fn a_slow_reader_holds_no_pages_while_it_does_not_read() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 20_000;
    (0..100).for_each(|_| world.redis.publish(1));
    // The publisher rests: nothing is ahead of the clock.
    world.run();
    world.sockets.room.insert(11, 1000);
    let id = world.request(11, &["c1"], Start::After(begin));
    world.run();
    assert!(world.streams.has_backlog(id));
    assert_eq!(world.streams.history.admitted, 0);
    world.pass_time(60);
    assert_eq!(world.streams.history.page_bytes.get(), 0);
    world.sockets.room.insert(11, usize::MAX);
    world.streams.flush(id, &mut world.sockets);
    world.run();
    assert_eq!(world.seen(11, 1), (100, 0));
}

#[test]
fn a_stream_that_goes_while_it_catches_up_leaves_nothing_behind() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    (0..100).for_each(|_| world.redis.publish(1));
    let id = world.request(11, &["c1", "c2"], Start::After(begin));
    world.deliver(3);
    world.streams.close(id, CloseReason::PeerClosed, &mut world.sockets);
    world.run();
    world.pass_time(60);
    world.run();
    let history = &world.streams.history;
    assert_eq!((history.admitted, history.asked_bytes, history.listed_bytes), (0, 0, 0));
    assert_eq!(history.page_bytes.get(), 0);
    assert!(world.streams.find(b"c1").is_none() && world.streams.find(b"c2").is_none());
}

#[test]
fn a_reading_without_progress_ends_in_a_word_to_the_client() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.publish(1);
    for (fd, end) in [(11, ReadEnd::More), (12, ReadEnd::Big { bytes: 5 })] {
        world.request(fd, &["c1"], Start::After(begin));
        world.deliver_until_page(end);
        world.run();
        let text = world.sockets.text(fd);
        assert!(text.contains(&reset("history-trimmed", "\"c1\"")), "{end:?}: {text}");
        // The next does not find that in memory.
        world.pass_time(60);
    }
}

impl World {
    /// Lets the next page be empty, and end so.
    fn deliver_until_page(&mut self, end: ReadEnd) {
        loop {
            if let Some(Item::Page(_, of_page, events)) = self.redis.wire.front_mut() {
                (*of_page, *events) = (end, Vec::new());
                return self.deliver(1);
            }
            self.go_on();
        }
    }

    /// One thing more arrives, and what follows from it is done.
    fn go_on(&mut self) {
        self.deliver(1);
        let more = self.streams.slice(256, &mut self.sockets);
        self.ask(false);
        assert!(more || !self.redis.wire.is_empty(), "nothing more was asked for");
    }
}

#[test]
fn a_large_event_is_asked_for_with_as_much_as_it_takes() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    world.redis.padding = 900_000;
    (0..3).for_each(|_| world.redis.publish(1));
    world.request(11, &["c1"], Start::After(begin));
    world.run();
    assert_eq!(world.seen(11, 1), (3, 0));
}

#[test]
fn what_is_refused_for_a_moment_is_asked_again_and_what_is_for_good_is_told() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    (0..3).for_each(|_| world.redis.publish(1));
    let read = |world: &mut World| -> HistoryRead {
        loop {
            if let Some(Item::Page(read, ..)) = world.redis.wire.front() {
                let read = *read;
                world.redis.wire.pop_front();
                return read;
            }
            world.go_on();
        }
    };
    world.request(11, &["c1"], Start::After(begin));
    let first = read(&mut world);
    assert!(matches!(first.question, Question::Page { from, .. } if from == begin));
    world.streams.fail_read(first, false);
    world.pass_time(DELAYED_TICKS);
    let second = read(&mut world);
    assert_eq!(second.question, first.question);
    world.streams.fail_read(second, true);
    world.run();
    assert!(world.sockets.text(11).contains(&reset("history-trimmed", "\"c1\"")));
}

#[test]
fn after_a_lost_link_who_gets_no_room_for_what_it_missed_is_told() {
    let mut world = World::new(0, usize::MAX);
    world.link_up();
    let names: Vec<String> = (0..800).map(|n| format!("c{n}")).collect();
    for (fd, name) in (100..).zip(&names) {
        world.request(fd, &[name], Start::Now);
    }
    world.run();
    world.link_down();
    world.redis.padding = 100_000;
    (0..800).for_each(|n| world.redis.publish(n));
    world.link_up();
    let mut highest = 0;
    world.run_watched(1, |world| {
        highest = highest.max(world.streams.history.page_bytes.get());
    });
    assert!(highest <= REPAIR_PAGES_BYTES_MAX + HISTORY_READING_BYTES_MAX, "{highest}");
    let mut told = 0;
    for (fd, channel) in (100..).zip(0..800) {
        let (events, resets) = world.seen(fd, channel);
        assert_eq!(events + resets, 1, "channel {channel}: {events} events, {resets} resets");
        told += resets as u64;
    }
    assert!(told > 0 && told == world.counters.history_over_bound.get(), "{told}");
}

#[test]
fn what_arrives_while_a_lost_link_is_made_up_for_is_held_up_to_a_bound_and_read_again() {
    let mut world = with_one_stream();
    world.link_down();
    world.redis.publish(0);
    world.link_up();
    world.deliver_until_page(ReadEnd::Big { bytes: HISTORY_PAGE_BYTES_MAX + 1 });
    // What was missed is asked again, and does not come before all this.
    let missed = world.redis.wire.pop_back();
    world.redis.padding = 1_000_000;
    (0..20).for_each(|_| world.redis.publish(0));
    let mut highest = 0;
    while !world.redis.wire.is_empty() {
        world.deliver(1);
        let repair = world.streams.history.repair.as_ref();
        highest = highest.max(repair.map_or(0, |repair| repair.held_bytes()));
    }
    assert!(highest > 0 && highest <= REPAIR_HELD_BYTES_MAX, "{highest}");
    world.redis.wire.extend(missed);
    world.run();
    assert_eq!(world.seen(10, 0), (21, 0));
}

#[test]
fn what_is_held_of_a_channel_goes_where_it_is_to_be_learned_anew() {
    let mut world = with_one_stream();
    world.link_down();
    world.redis.publish(0);
    world.link_up();
    world.deliver_until_page(ReadEnd::Big { bytes: HISTORY_PAGE_BYTES_MAX + 1 });
    let missed = world.redis.wire.pop_back();
    (0..3).for_each(|_| world.redis.publish(0));
    world.deliver(3);
    let held = |world: &World| world.streams.history.repair.as_ref().map(|it| it.held_bytes());
    assert!(held(&world) > Some(0));
    let far = EventId { ms: u64::MAX, seq: 0 };
    world.redis.forge(0, far, far.before().unwrap(), true);
    world.deliver(1);
    assert_eq!(held(&world), Some(0));
    world.redis.wire.extend(missed);
    world.run();
    assert_eq!(world.seen(10, 0).0, 4, "{}", world.sockets.text(10));
}

#[test]
fn streams_that_go_while_they_wait_for_the_link_or_for_room_are_forgotten() {
    let mut world = with_one_stream();
    let begin = world.redis.newest;
    (0..3).for_each(|_| world.redis.publish(1));
    world.request(11, &["c2"], Start::After(begin));
    world.run();
    // Somebody has all the room.
    let sum = std::rc::Rc::clone(&world.streams.history.set_aside);
    let _all = Account::new(HISTORY_PAGES_BYTES_MAX, &sum);
    world.streams.history.admitted += 1;
    // Who has gone is no longer first in line; behind the first they are looked for.
    world.request(12, &["c1"], Start::After(begin));
    world.run();
    world.come_and_go(|history| history.line.len(), begin);
    world.streams.history.line.clear();
    world.streams.history.admitted -= 1;
    world.link_down();
    world.come_and_go(|history| history.suspended.len(), begin);
}

impl World {
    /// Many streams come and go that have to wait. Few of them are remembered.
    fn come_and_go(&mut self, waiting: fn(&History) -> usize, begin: EventId) {
        let mut highest = 0;
        for fd in (self.streams.slots() as i32 * 100_000..).take(9000) {
            let id = self.request(fd, &["c1"], Start::After(begin));
            self.deliver(usize::MAX);
            while self.streams.slice(256, &mut self.sockets) {}
            self.streams.close(id, CloseReason::PeerClosed, &mut self.sockets);
            highest = highest.max(waiting(&self.streams.history));
            if fd % 100 == 0 {
                self.pass_time(1);
            }
        }
        assert!(highest > 1000, "{highest} waited");
        assert!(highest < 2000, "{highest} are remembered");
    }
}
