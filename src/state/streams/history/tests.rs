//! Streams whose events are kept against a model of Redis: whatever is published, trimmed, lost and
//! resumed, in any order, every client gets every event of its channels once and in order, or is
//! told where it may have missed some.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::*;
use crate::ground::config::HistoryRule;
use crate::state::counters::CloseReason;
use crate::state::sockets::memory::MemorySockets;
use crate::state::streams::{Start, StreamLimits};

const LIMITS: StreamLimits = StreamLimits {
    max_pending_bytes: 1 << 20,
    max_intake_bytes: 1 << 20,
    heartbeat_ticks: 4,
    linger_ticks: 10,
    coalesce_ms: 0,
};

/// The Redis of the model, as the script for publishing leaves it.
#[derive(Default)]
struct Redis {
    now_ms: u64,
    newest: EventId,
    since: EventId,
    kept: usize,
    streams: HashMap<usize, VecDeque<Kept>>,
    /// All that was ever published.
    log: Vec<(EventId, usize)>,
    subscribed: HashSet<usize>,
    /// What is on its way to the worker, in order.
    wire: VecDeque<Item>,
    is_up: bool,
}

enum Item {
    Acknowledged(ChannelId),
    Clock(Clock),
    Page(PageRead, Vec<Kept>, EventId),
    Message(usize, Kept),
    Proof,
}

struct Client {
    channels: Vec<usize>,
    connection: Option<(ConnectionId, RawFd)>,
    cursor: Option<EventId>,
    /// Up to where the client was told that it may have missed events.
    excused: HashMap<usize, EventId>,
    resets: usize,
    events: usize,
}

struct World {
    redis: Redis,
    streams: Streams,
    sockets: MemorySockets,
    clients: Vec<Client>,
    next_fd: RawFd,
    tick: u32,
    seed: u64,
    /// An event that is too large for any link, and how many links it has ended.
    too_large: Option<EventId>,
    links_ended: usize,
}

impl Redis {
    fn clock(&self) -> Clock {
        Clock { newest: self.newest, since: self.since, ttl_ms: 1_000_000, evicted: None }
    }

    fn publish(&mut self, channel: usize) {
        let stream = self.streams.entry(channel).or_default();
        let is_chained = !stream.is_empty();
        let previous = stream.back().map_or(self.since, |kept| kept.id);
        self.newest = self.newest.next().unwrap().max(EventId { ms: self.now_ms, seq: 0 });
        let bytes = format!("id: {}\ndata: {channel}\n\n", self.newest).into_bytes().into();
        let kept = Kept { id: self.newest, previous, is_chained, bytes };
        stream.push_back(kept.clone());
        if stream.len() > self.kept {
            stream.pop_front();
        }
        self.log.push((self.newest, channel));
        if self.is_up && self.subscribed.contains(&channel) {
            self.wire.push_back(Item::Message(channel, kept));
        }
    }

    fn page(&self, channel: usize, read: &PageRead) -> Vec<Kept> {
        let stream = self.streams.get(&channel).into_iter().flatten();
        stream.rev().filter(|kept| kept.id <= read.newest).take(read.events).cloned().collect()
    }
}

impl World {
    fn new(seed: u64, kept: usize) -> Self {
        let rules =
            HistoryRules::new(vec![HistoryRule { prefix: b"c".to_vec(), events: kept }], b"");
        let begin = EventId { ms: 1_000_000_000, seq: 0 };
        Self {
            redis: Redis { kept, newest: begin, since: begin, ..Redis::default() },
            streams: Streams::new(LIMITS, b"", rules, Arc::default()),
            sockets: MemorySockets::default(),
            clients: Vec::new(),
            next_fd: 10,
            tick: 0,
            seed,
            too_large: None,
            links_ended: 0,
        }
    }

    fn connect(&mut self, client: usize) {
        if self.clients[client].connection.is_some() {
            return;
        }
        let fd = self.next_fd;
        self.next_fd += 1;
        let id = self.streams.add(fd);
        let Client { channels, cursor, .. } = &self.clients[client];
        let names: Vec<String> = channels.iter().map(|n| format!("c{n}")).collect();
        let names: Vec<&[u8]> = names.iter().map(|n| n.as_bytes()).collect();
        let start = cursor.map_or(Start::Now, Start::After);
        self.streams.request(id, &names, start, Vec::from("retry: 1\n"), &mut self.sockets);
        self.clients[client].connection = Some((id, fd));
    }

    fn disconnect(&mut self, client: usize) {
        if let Some((id, fd)) = self.clients[client].connection.take() {
            self.streams.close(id, CloseReason::PeerClosed, &mut self.sockets);
            self.read(client, fd);
        }
    }

    fn link_up(&mut self) {
        if !self.redis.is_up {
            self.redis.is_up = true;
            self.streams.link_up();
            self.ask(true);
        }
    }

    fn link_down(&mut self) {
        self.redis.is_up = false;
        self.redis.subscribed.clear();
        self.redis.wire.clear();
        self.streams.link_down(ResetReason::LinkLost);
    }

    /// What a worker does after each turn.
    fn ask(&mut self, wants_proof: bool) {
        if !self.redis.is_up {
            return;
        }
        for id in self.streams.next_asks(usize::MAX) {
            self.redis.subscribed.insert(number(self.streams.name(id)));
            self.redis.wire.push_back(Item::Acknowledged(id));
        }
        if self.streams.takes_clock_wish() {
            self.redis.wire.push_back(Item::Clock(self.redis.clock()));
        }
        if wants_proof {
            self.redis.wire.push_back(Item::Proof);
        }
        while let Some(read) = self.streams.next_read(1024) {
            let page = self.redis.page(number(self.streams.name(read.channel)), &read);
            let expired = self.redis.clock().expired(self.redis.now_ms);
            self.redis.wire.push_back(Item::Page(read, page, expired));
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(item) = self.redis.wire.pop_front() else { return };
            match item {
                Item::Acknowledged(id) => self.streams.acknowledge(id),
                Item::Clock(clock) => self.streams.tell_clock(clock),
                Item::Page(_, page, _) if page.iter().any(|k| Some(k.id) == self.too_large) => {
                    self.links_ended += 1;
                    self.link_down();
                }
                Item::Page(read, page, expired) => self.streams.read_page(read, page, expired),
                Item::Message(channel, kept) => {
                    if let Some(id) = self.streams.find(format!("c{channel}").as_bytes()) {
                        let is_next = self.streams.publish_kept(id, kept);
                        assert!(is_next, "seed {}: the model has no gaps", self.seed);
                    }
                }
                Item::Proof => self.streams.repair(),
            }
            self.ask(false);
        }
    }

    fn pass_time(&mut self, ticks: u32) {
        self.tick += ticks;
        self.redis.now_ms += 100 * u64::from(ticks);
        self.streams.set_time(Tick(self.tick), u64::from(self.tick) * 100);
        self.streams.history_tick();
        for name in self.streams.lapsed() {
            self.redis.subscribed.remove(&number(&name));
            // Messages that are under way come to nobody.
        }
        let visits = self.streams.sweep_quota();
        self.streams.sweep(visits, 100, &mut self.sockets);
        self.ask(false);
    }

    /// Reads what the client has received, and checks it.
    fn read(&mut self, client: usize, fd: RawFd) {
        let text = self.sockets.text(fd);
        self.sockets.received.remove(&fd);
        let newest = self.redis.newest;
        let Some(end) = text.rfind("\n\n") else { return };
        for block in text[..end].split("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let id = field("id: ").and_then(|id| EventId::parse(id.as_bytes()));
            let me = &mut self.clients[client];
            if field("event: ") == Some("stream-reset") {
                me.resets += 1;
                for channel in me.channels.clone() {
                    if field("data: ").unwrap().contains(&format!("\"c{channel}\"")) {
                        me.excused.insert(channel, newest);
                    }
                }
                me.cursor = id.or(me.cursor);
            } else if let Some(channel) = field("data: ") {
                let id = id.unwrap();
                me.events += 1;
                self.check_all_until(client, id, Some(channel.parse().unwrap()));
            } else if let Some(id) = id {
                if self.clients[client].cursor.is_some() {
                    self.check_all_until(client, id, None);
                } else {
                    self.clients[client].cursor = Some(id);
                }
            }
        }
    }

    /// The client moves on to `id`; it must have had every event of its channels in between.
    fn check_all_until(&mut self, client: usize, id: EventId, channel: Option<usize>) {
        let (log, seed) = (&self.redis.log, self.seed);
        let me = &mut self.clients[client];
        let cursor = me.cursor.expect("a stream begins with an id");
        let begins_again = id == cursor && channel.is_none();
        assert!(begins_again || id > cursor || channel.is_none(), "seed {seed}: {id} twice");
        for (event, of) in &log[log.partition_point(|(event, _)| *event <= cursor)..] {
            if *event > id || *event == id && channel == Some(*of) {
                break;
            }
            let excused = me.excused.get(of).is_some_and(|until| event <= until);
            assert!(
                !me.channels.contains(of) || excused,
                "seed {seed}: client {client} of {:?} never had {event} of {of}, now {id}",
                me.channels
            );
        }
        me.cursor = Some(cursor.max(id));
    }

    fn settle(&mut self) {
        self.link_up();
        self.sockets.room.values_mut().for_each(|room| *room = usize::MAX);
        for client in 0..self.clients.len() {
            self.connect(client);
        }
        for _ in 0..40 {
            self.deliver(usize::MAX);
            self.pass_time(1);
            while self.streams.slice(256, &mut self.sockets) {}
            for client in 0..self.clients.len() {
                if let Some((id, _)) = self.clients[client].connection {
                    self.streams.flush(id, &mut self.sockets);
                }
            }
        }
        for client in 0..self.clients.len() {
            let (_, fd) = self.clients[client].connection.unwrap();
            self.read(client, fd);
            let newest = self.redis.newest;
            self.check_all_until(client, newest, None);
        }
        assert_eq!(self.streams.intake_bytes(), 0, "seed {}", self.seed);
        assert!(self.streams.history.suspended.is_empty(), "seed {}", self.seed);
    }

    fn step(&mut self, random: &mut fastrand::Rng) {
        let client = random.usize(0..self.clients.len());
        match random.usize(0..24) {
            0..=6 => self.redis.publish(random.usize(0..4)),
            7..=11 => self.deliver(random.usize(1..6)),
            12..=14 => self.connect(client),
            15..=16 => self.disconnect(client),
            17..=18 => _ = self.streams.slice(random.usize(1..6), &mut self.sockets),
            19 => self.pass_time(random.u32(1..200)),
            20 if random.usize(0..4) == 0 => self.link_down(),
            20..=21 => self.link_up(),
            22 => {
                if let Some((id, fd)) = self.clients[client].connection {
                    self.sockets.room.insert(fd, random.usize(0..200));
                    self.streams.flush(id, &mut self.sockets);
                }
            }
            _ => {
                if let Some((id, _)) = self.clients[client].connection {
                    self.streams.open(id, &mut self.sockets);
                }
            }
        }
        self.ask(false);
    }
}

fn number(name: &[u8]) -> usize {
    std::str::from_utf8(&name[1..]).unwrap().parse().unwrap()
}

fn run(seeds: std::ops::Range<u64>, kept: usize) -> (usize, usize) {
    let (mut events, mut resets) = (0, 0);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(seed, kept);
        for _ in 0..random.usize(1..6) {
            let mut channels: Vec<usize> = (0..4).collect();
            random.shuffle(&mut channels);
            channels.truncate(random.usize(1..=4));
            world.clients.push(Client {
                channels,
                connection: None,
                cursor: None,
                excused: HashMap::new(),
                resets: 0,
                events: 0,
            });
        }
        world.link_up();
        world.deliver(usize::MAX);
        for _ in 0..random.usize(20..400) {
            world.step(&mut random);
        }
        world.settle();
        events += world.clients.iter().map(|client| client.events).sum::<usize>();
        resets += world.clients.iter().map(|client| client.resets).sum::<usize>();
    }
    (events, resets)
}

#[test]
fn with_all_events_kept_every_client_gets_all_of_them_and_no_reset() {
    let (events, resets) = run(0..3_000, usize::MAX);
    assert!(events > 100_000, "{events}");
    assert_eq!(resets, 0);
}

#[test]
fn with_few_events_kept_every_hole_is_told() {
    let (events, resets) = run(0..3_000, 3);
    assert!(events > 50_000 && resets > 100, "{events}, {resets}");
}

#[test]
fn an_event_that_ends_every_link_is_not_read_again_and_again() {
    let mut world = World::new(0, usize::MAX);
    world.clients.push(Client {
        channels: vec![0],
        connection: None,
        cursor: None,
        excused: HashMap::new(),
        resets: 0,
        events: 0,
    });
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
    }
    world.settle();
    assert!((1..=8).contains(&world.links_ended), "{} links", world.links_ended);
    assert_eq!(world.clients[0].resets, 1);
}

#[test]
fn a_redis_that_cannot_tell_its_newest_id_is_asked_again_after_a_pause() {
    let mut streams = World::new(0, usize::MAX).streams;
    streams.link_up();
    assert!(streams.takes_clock_wish());
    streams.delay_clock(DELAYED_TICKS);
    for tick in 1..=10 {
        assert!(!streams.takes_clock_wish());
        streams.set_time(Tick(tick), u64::from(tick) * 100);
        streams.history_tick();
    }
    assert!(streams.takes_clock_wish());
    streams.repeat_clock();
    assert!(streams.takes_clock_wish(), "one that has begun its clock is asked at once");
}

/// A world whose only stream is that of one channel, and open.
fn with_one_stream() -> World {
    let mut world = World::new(0, usize::MAX);
    world.link_up();
    world.request(10, &["c0"], Start::Now);
    world.run();
    world
}

impl World {
    /// Lets everybody do what there is to do.
    fn run(&mut self) {
        for _ in 0..3 {
            self.ask(false);
            self.deliver(usize::MAX);
            while self.streams.slice(256, &mut self.sockets) {}
        }
    }

    /// A client that asks for channels, whatever they are.
    fn request(&mut self, fd: RawFd, names: &[&str], start: Start) -> ConnectionId {
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let id = self.streams.add(fd);
        self.streams.request(id, &names, start, Vec::from("head\n"), &mut self.sockets);
        self.ask(false);
        id
    }

    fn kept(&self, ms: u64, previous_ms: u64, is_chained: bool) -> Kept {
        let [id, previous] = [ms, previous_ms].map(|ms| EventId { ms, seq: 0 });
        Kept { id, previous, is_chained, bytes: format!("data: {ms}\n\n").into_bytes().into() }
    }
}

#[test]
fn a_channel_whose_events_have_expired_has_no_gap_and_a_chain_that_breaks_has_one() {
    let mut world = with_one_stream();
    let c0 = world.streams.find(b"c0").unwrap();
    let begin = world.redis.newest.ms;
    // Long after the subscription began, and nothing of the channel is left.
    assert!(world.streams.publish_kept(c0, world.kept(begin + 900, begin + 500, false)));
    assert!(world.streams.publish_kept(c0, world.kept(begin + 950, begin + 900, true)));
    assert!(world.streams.history.repair.is_none());
    assert!(!world.streams.publish_kept(c0, world.kept(begin + 999, begin + 970, true)));
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
        assert!(text.contains("id: "), "{text}");
    }
}

#[test]
fn the_newest_events_are_those_since_an_early_head_where_these_are_more() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1"], Start::Last(2));
    world.streams.open(id, &mut world.sockets);
    (0..5).for_each(|_| world.redis.publish(1));
    world.run();
    let text = world.sockets.text(11);
    assert_eq!(text.matches("data: 1\n").count(), 5, "{text}");
}

#[test]
fn plain_channels_of_a_stream_with_the_newest_events_are_not_missed_in_silence() {
    let mut world = with_one_stream();
    let id = world.request(11, &["c1", "p9"], Start::Last(2));
    world.streams.open(id, &mut world.sockets);
    world.run();
    let text = world.sockets.text(11);
    assert!(text.contains(r#""reason": "link-lost", "channels": ["p9"]"#), "{text}");
}

#[test]
fn ids_of_what_a_redis_has_lost_are_unknown_for_good() {
    let mut world = with_one_stream();
    world.redis.publish(0);
    world.deliver(usize::MAX);
    let (kept, before) = (world.redis.newest, world.redis.clock());
    world.redis.publish(0);
    let lost = world.redis.newest;
    world.redis.publish(0);
    world.deliver(usize::MAX);
    let newest = world.redis.newest;
    assert!(world.streams.is_ahead_of(before));
    world.streams.begin_anew(before);
    world.streams.tell_clock(Clock { newest: newest.next().unwrap(), ..before });
    for (fd, id, is_known) in [(11, kept, true), (12, lost, false), (13, newest, false)] {
        world.request(fd, &["c0"], Start::After(id));
        while world.streams.slice(256, &mut world.sockets) {}
        let text = world.sockets.text(fd);
        assert_eq!(!text.contains("unknown-id"), is_known, "{text}");
    }
}

#[test]
fn times_that_were_lost_are_told_apart_and_few() {
    let mut history = History::new(HistoryRules::default());
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
    world.request(11, &["c0", "c1"], Start::Now);
    let c1 = world.streams.find(b"c1").unwrap();
    world.redis.wire.retain(|item| !matches!(item, Item::Acknowledged(id) if *id == c1));
    world.streams.refuse(c1);
    world.run();
    // Of the one it hears nothing, of the other it gets a later id.
    world.redis.subscribed.remove(&1);
    world.redis.publish(1);
    world.redis.publish(0);
    world.deliver(usize::MAX);
    let last = world.redis.newest;
    world.pass_time(200);
    world.deliver(usize::MAX);
    let subscription = world.streams.channels.get(c1).unwrap().subscription;
    assert_eq!(subscription, Subscription::Standing);
    world.request(12, &["c0", "c1"], Start::After(last));
    world.run();
    let text = world.sockets.text(12);
    assert!(text.contains("stream-reset") && text.contains(r#"["c1"]"#), "{text}");
}

#[test]
fn a_repair_waits_for_channels_that_redis_has_acknowledged_and_not_told_its_newest_id_for() {
    let mut world = with_one_stream();
    world.link_down();
    world.redis.publish(0);
    world.streams.link_up();
    world.redis.is_up = true;
    for id in world.streams.next_asks(usize::MAX) {
        world.streams.acknowledge(id);
    }
    assert!(world.streams.takes_clock_wish());
    world.streams.delay_clock(1);
    world.streams.repair();
    while world.streams.slice(256, &mut world.sockets) {}
    world.streams.tell_clock(world.redis.clock());
    world.run();
    let text = world.sockets.text(10);
    assert!(text.contains("data: 0") && !text.contains("stream-reset"), "{text}");
}

#[test]
fn the_list_of_what_is_cached_does_not_outgrow_it() {
    let mut world = with_one_stream();
    let c0 = world.streams.find(b"c0").unwrap();
    for _ in 0..20_000 {
        world.redis.publish(0);
        world.deliver(usize::MAX);
        world.streams.note_skipped(c0);
        while world.streams.slice(256, &mut world.sockets) {}
        world.sockets.received.clear();
    }
    assert!(world.streams.history.cached.len() <= 2 * CACHED_MIN);
    assert!(world.streams.channels.recent_mut(c0).unwrap().count() <= 1);
}
