//! Streams whose events are kept against a model of Redis: whatever is published, trimmed, forged,
//! refused, lost and resumed, in any order, every client gets every event of its channels once and
//! in order, or is told where it may have missed some, before an id of its passes that by.

use std::collections::{HashMap, HashSet};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::bytes::history::Clock;
use crate::ground::config::HistoryRule;
use crate::state::catch_up::Start;
use crate::state::counters::{CloseReason, Counters};
use crate::state::history_page::PageDraft;
use crate::state::recent::{HistoryRead, Question};
use crate::state::sockets::memory::MemorySockets;
use crate::state::streams::{ReadEnd, StreamLimits};

const LIMITS: StreamLimits = StreamLimits {
    max_pending_bytes: 1 << 28,
    max_intake_bytes: 1 << 28,
    heartbeat_ticks: 4,
    linger_ticks: 10,
    coalesce_ms: 0,
};

/// Channels of which clients listen to up to four.
const CHANNELS: usize = 8;

/// Events are kept for so long, by what the marks of others are good for.
const TTL_MS: u64 = 1_000_000;

/// An event as Redis keeps it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    id: EventId,
    previous: EventId,
    bytes: Rc<[u8]>,
}

/// The Redis of the model, as the script for publishing leaves it.
#[derive(Default)]
pub(super) struct Redis {
    pub(super) now_ms: u64,
    pub(super) newest: EventId,
    since: EventId,
    kept: usize,
    streams: HashMap<usize, VecDeque<Event>>,
    /// All that was ever published and kept.
    log: Vec<(EventId, usize)>,
    pub(super) marks: Vec<(EventId, Vec<u8>)>,
    pub(super) subscribed: HashSet<usize>,
    /// Channels whose subscription is refused.
    pub(super) forbidden: HashSet<usize>,
    /// What is on its way to the worker, in order.
    pub(super) wire: VecDeque<Item>,
    pub(super) is_up: bool,
    /// Bytes beside its number that an event has.
    pub(super) padding: usize,
}

pub(super) enum Item {
    Acknowledged(ChannelId),
    Refused(ChannelId),
    Clock(Clock, u64, ClockWish, Vec<(EventId, Vec<u8>)>),
    Page(HistoryRead, ReadEnd, Vec<Event>),
    Index(HistoryRead, Option<(EventId, Vec<EventId>)>),
    Newest(Vec<(ChannelId, Option<(EventId, EventId)>)>),
    Message(usize, Kept),
    Plain(usize),
    Proof,
}

pub(super) struct Client {
    channels: Vec<usize>,
    connection: Option<(ConnectionId, RawFd)>,
    /// What the browser would send.
    last_event_id: Option<EventId>,
    /// It has, or was told that it has not, everything up to here.
    cursor: Option<EventId>,
    /// When it asked for the present, Redis had come so far.
    begin: EventId,
    /// Up to where the client was told that it may have missed events.
    excused: HashMap<usize, EventId>,
    pub(super) resets: usize,
    events: usize,
}

pub(super) struct World {
    pub(super) redis: Redis,
    pub(super) streams: Streams,
    pub(super) counters: Arc<Counters>,
    pub(super) sockets: MemorySockets,
    pub(super) clients: Vec<Client>,
    next_fd: RawFd,
    tick: u32,
    seed: u64,
    is_first_clock: bool,
    /// An event that is too large for any link, and how many links it has ended.
    pub(super) too_large: Option<EventId>,
    pub(super) links_ended: usize,
}

impl Client {
    pub(super) fn new(channels: Vec<usize>) -> Self {
        Self {
            channels,
            connection: None,
            last_event_id: None,
            cursor: None,
            begin: EventId::ZERO,
            excused: HashMap::new(),
            resets: 0,
            events: 0,
        }
    }
}

impl Redis {
    pub(super) fn clock(&self) -> Clock {
        Clock { newest: self.newest, since: self.since, ttl_ms: TTL_MS, evicted: None }
    }

    pub(super) fn publish(&mut self, channel: usize) {
        let id = self.newest.next().unwrap().max(EventId { ms: self.now_ms, seq: 0 });
        let stream = self.streams.entry(channel).or_default();
        let is_chained = !stream.is_empty();
        let previous = match stream.back() {
            Some(last) => last.id,
            None => self.clock().expired(self.now_ms),
        };
        self.newest = id;
        let padding = ".".repeat(self.padding);
        let text = format!("data: {channel}{padding}\nid: {id}\n\n");
        let bytes: Rc<[u8]> = text.into_bytes().into();
        let stream = self.streams.entry(channel).or_default();
        stream.push_back(Event { id, previous, bytes: Rc::clone(&bytes) });
        if stream.len() > self.kept {
            stream.pop_front();
        }
        self.log.push((id, channel));
        self.send(channel, Kept { id, previous, is_chained, bytes });
    }

    /// What somebody sends who may publish, as if it were kept.
    pub(super) fn forge(
        &mut self,
        channel: usize,
        id: EventId,
        previous: EventId,
        is_chained: bool,
    ) {
        let bytes = format!("data: forged\nid: {id}\n\n").into_bytes().into();
        self.send(channel, Kept { id, previous, is_chained, bytes });
    }

    /// Somebody writes into a channel's history what is no event, and sends nothing.
    pub(super) fn write_foreign(&mut self, channel: usize) {
        let id = self.newest.next().unwrap().max(EventId { ms: self.now_ms, seq: 0 });
        self.newest = id;
        let foreign = Event { id, previous: id, bytes: Rc::from(&b""[..]) };
        self.streams.entry(channel).or_default().push_back(foreign);
    }

    fn send(&mut self, channel: usize, kept: Kept) {
        if self.is_up && self.subscribed.contains(&channel) {
            self.wire.push_back(Item::Message(channel, kept));
        }
    }

    pub(super) fn trim(&mut self, channel: usize, kept: usize) {
        let stream = self.streams.entry(channel).or_default();
        let gone = stream.len().saturating_sub(kept);
        stream.drain(..gone);
    }

    fn answer(&mut self, channel: usize, read: HistoryRead) -> Item {
        let stream = self.streams.entry(channel).or_default();
        match read.question {
            Question::Page { from, to, bytes_max, .. } => {
                let mut events = Vec::new();
                let mut bytes = 0;
                let wanted = stream.iter().filter(|event| from < event.id && event.id <= to);
                for event in wanted {
                    if bytes + event.bytes.len() > bytes_max {
                        let end = match events.is_empty() {
                            true => ReadEnd::Big { bytes: event.bytes.len() },
                            false => ReadEnd::More,
                        };
                        return Item::Page(read, end, events);
                    }
                    bytes += event.bytes.len();
                    events.push(event.clone());
                }
                let oldest = stream.front().map(|oldest| (oldest.id, oldest.previous));
                Item::Page(read, ReadEnd::End { oldest }, events)
            }
            Question::Newest { count } => {
                let newest: Vec<&Event> = stream.iter().rev().take(count).collect();
                let ids = newest.iter().map(|event| event.id).collect();
                Item::Index(read, newest.last().map(|last| (last.previous, ids)))
            }
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, kept: usize) -> Self {
        let rules =
            HistoryRules::new(vec![HistoryRule { prefix: b"c".to_vec(), events: kept }], b"");
        let begin = EventId { ms: 1_000_000_000, seq: 0 };
        let counters: Arc<Counters> = Arc::default();
        let redis =
            Redis { kept, newest: begin, since: begin, now_ms: begin.ms, ..Redis::default() };
        Self {
            redis,
            streams: Streams::new(LIMITS, b"", rules, TTL_MS, Arc::clone(&counters)),
            counters,
            sockets: MemorySockets::default(),
            clients: Vec::new(),
            next_fd: 10,
            tick: 0,
            seed,
            is_first_clock: true,
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
        let Client { channels, last_event_id, .. } = &self.clients[client];
        let names: Vec<String> = channels.iter().map(|n| format!("c{n}")).collect();
        let names: Vec<&[u8]> = names.iter().map(|n| n.as_bytes()).collect();
        let start = last_event_id.map_or(Start::Now, Start::After);
        self.clients[client].begin = self.redis.newest;
        let head = b"head\n".to_vec();
        self.streams.request(id, &names, start, head, 1, &mut self.sockets);
        self.clients[client].connection = Some((id, fd));
    }

    fn disconnect(&mut self, client: usize) {
        if let Some((id, fd)) = self.clients[client].connection.take() {
            self.streams.close(id, CloseReason::PeerClosed, &mut self.sockets);
            self.read(client, fd);
        }
    }

    pub(super) fn link_up(&mut self) {
        if !self.redis.is_up {
            self.redis.is_up = true;
            self.is_first_clock = true;
            self.streams.link_up();
            self.ask(true);
        }
    }

    pub(super) fn link_down(&mut self) {
        self.redis.is_up = false;
        self.redis.subscribed.clear();
        self.redis.wire.clear();
        self.streams.link_down(ResetReason::LinkLost);
    }

    /// What a worker does after each turn.
    pub(super) fn ask(&mut self, wants_proof: bool) {
        if self.streams.take_gap() {
            self.link_down();
        }
        if !self.redis.is_up {
            return;
        }
        for id in self.streams.next_asks(usize::MAX) {
            let channel = number(self.streams.name(id));
            if self.redis.forbidden.contains(&channel) {
                self.redis.wire.push_back(Item::Refused(id));
            } else {
                self.redis.subscribed.insert(channel);
                self.redis.wire.push_back(Item::Acknowledged(id));
            }
        }
        loop {
            let channels = self.streams.next_newest(3);
            if channels.is_empty() {
                break;
            }
            let newest = channels.into_iter().map(|id| {
                let stream = self.redis.streams.get(&number(self.streams.name(id)));
                let last = stream.and_then(|stream| stream.back());
                (id, last.map(|last| (last.previous, last.id)))
            });
            self.redis.wire.push_back(Item::Newest(newest.collect()));
        }
        if let Some(wish) = self.streams.take_clock_wish() {
            let read = self.streams.marks_read();
            let marks = self.redis.marks.iter().filter(|(id, _)| *id > read).cloned().collect();
            let (clock, now_ms) = (self.redis.clock(), self.redis.now_ms);
            self.redis.wire.push_back(Item::Clock(clock, now_ms, wish, marks));
        }
        if wants_proof {
            self.redis.wire.push_back(Item::Proof);
        }
        while let Some(read) = self.streams.next_read() {
            let answer = self.redis.answer(number(self.streams.name(read.channel)), read);
            self.redis.wire.push_back(answer);
        }
        while let Some(name) = self.streams.next_mark() {
            let seq = self.redis.marks.len() as u64;
            self.redis.marks.push((EventId { ms: self.redis.now_ms, seq }, name.to_vec()));
            self.streams.mark_answered();
        }
    }

    pub(super) fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(item) = self.redis.wire.pop_front() else { return };
            match item {
                Item::Acknowledged(id) => self.streams.acknowledge(id),
                Item::Refused(id) => self.streams.refuse(id),
                Item::Clock(clock, now_ms, wish, marks) => {
                    let plain: Vec<(EventId, &[u8])> =
                        marks.iter().map(|(id, name)| (*id, name.as_slice())).collect();
                    let is_first = std::mem::take(&mut self.is_first_clock);
                    let told = Told { clock, now_ms, plain: &plain, wish, is_first };
                    self.streams.tell_clock(&told);
                }
                Item::Page(_, _, page) if page.iter().any(|k| Some(k.id) == self.too_large) => {
                    self.links_ended += 1;
                    self.link_down();
                }
                Item::Page(read, end, page) => {
                    let mut draft = PageDraft::default();
                    for event in page {
                        draft.bytes.extend_from_slice(&event.bytes);
                        draft.end_event(event.id, event.previous);
                    }
                    self.streams.take_page(read, end, draft);
                }
                Item::Index(read, newest) => self.streams.take_index(read, newest),
                Item::Newest(newest) => self.streams.take_newest(&newest),
                Item::Message(channel, kept) => {
                    if let Some(id) = self.streams.find(format!("c{channel}").as_bytes()) {
                        self.streams.publish_kept(id, kept);
                    }
                }
                Item::Plain(channel) => {
                    let name = format!("c{channel}");
                    self.streams.note_plain(name.as_bytes());
                    if let Some(id) = self.streams.find(name.as_bytes()) {
                        self.streams.publish(id, &Rc::from(&b"data: plain\n\n"[..]));
                    }
                }
                Item::Proof => self.streams.repair(),
            }
            self.ask(false);
            self.check_bounds();
        }
    }

    /// What streams may hold has a bound.
    fn check_bounds(&self) {
        let held = self.streams.history.room_taken();
        if self.streams.history.repair.is_some() {
            return;
        }
        let spare = 64 * crate::ground::limits::HISTORY_PAGE_BYTES_MAX;
        let bound = crate::ground::limits::HISTORY_PAGES_BYTES_MAX + spare;
        assert!(held <= bound, "seed {}: {held} bytes of pages", self.seed);
    }

    pub(super) fn pass_time(&mut self, ticks: u32) {
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
            let data = field("data: ");
            let has_data = block.lines().any(|line| line.starts_with("data:"));
            assert!(id.is_none() || has_data, "seed {}: an id without data: {block}", self.seed);
            let is_last = block.lines().last().is_some_and(|line| line.starts_with("id: "));
            assert!(id.is_none() || is_last, "seed {}: an id before the end: {block}", self.seed);
            let me = &mut self.clients[client];
            match (field("event: "), data) {
                (Some("stream-reset"), Some(data)) => {
                    me.resets += 1;
                    for channel in me.channels.clone() {
                        if data.contains(&format!("\"c{channel}\"")) {
                            me.excused.insert(channel, newest);
                        }
                    }
                    if let Some(id) = id {
                        self.move_to(client, id, None);
                        self.clients[client].cursor = Some(id);
                    }
                }
                (Some("stream-open" | "keep-alive"), None) => {
                    // Its own id says nothing new, whoever gave it that.
                    if let Some(id) = id.filter(|id| me.last_event_id != Some(*id)) {
                        self.move_to(client, id, None);
                    }
                }
                (None, Some("forged")) => {}
                (None, Some("plain")) => assert_eq!(id, None),
                (None, Some(data)) => {
                    me.events += 1;
                    let channel = data.trim_end_matches('.').parse().unwrap();
                    assert!(me.channels.contains(&channel), "seed {}: {block}", self.seed);
                    self.move_to(client, id.unwrap(), Some(channel));
                }
                _ => assert!(block.is_empty() || block == ":", "seed {}: {block}", self.seed),
            }
            let me = &mut self.clients[client];
            me.last_event_id = id.or(me.last_event_id);
        }
    }

    /// The client moves on to `id`; it must have had every event of its channels in between.
    fn move_to(&mut self, client: usize, id: EventId, channel: Option<usize>) {
        let (log, seed) = (&self.redis.log, self.seed);
        let me = &mut self.clients[client];
        let Some(cursor) = me.cursor else {
            // It wants nothing of before; it may get what has not arrived yet.
            for channel in &me.channels {
                let excused = me.excused.entry(*channel).or_insert(me.begin);
                *excused = me.begin.max(*excused);
            }
            me.cursor = Some(id);
            return;
        };
        assert!(id > cursor || channel.is_none(), "seed {seed}: {id} twice or late");
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

    pub(super) fn settle(&mut self) {
        self.redis.forbidden.clear();
        self.link_up();
        self.sockets.room.values_mut().for_each(|room| *room = usize::MAX);
        for client in 0..self.clients.len() {
            self.connect(client);
        }
        for _ in 0..60 {
            self.link_up();
            self.deliver(usize::MAX);
            self.pass_time(1);
            while self.streams.slice(256, &mut self.sockets) {
                self.ask(false);
            }
            for client in 0..self.clients.len() {
                if let Some((id, _)) = self.clients[client].connection {
                    self.streams.flush(id, &mut self.sockets);
                }
            }
            self.ask(false);
        }
        for client in 0..self.clients.len() {
            let (_, fd) = self.clients[client].connection.unwrap();
            self.read(client, fd);
            let newest = self.redis.newest;
            if self.clients[client].cursor.is_some() {
                self.move_to(client, newest, None);
            }
        }
        let seed = self.seed;
        let history = &self.streams.history;
        assert_eq!(self.streams.intake_bytes(), 0, "seed {seed}");
        assert!(history.suspended.is_empty() && history.line.is_empty(), "seed {seed}");
        assert_eq!((history.admitted, history.asked_bytes, history.listed_bytes), (0, 0, 0));
        assert_eq!(history.set_aside.get(), 0, "seed {seed}");
        assert!(history.repair.is_none(), "seed {seed}: {:?}", history.repair);
    }

    fn step(&mut self, random: &mut fastrand::Rng, chaos: Chaos) {
        let client = random.usize(0..self.clients.len());
        let channel = random.usize(0..CHANNELS);
        match random.usize(0..28) {
            0..=6 => self.redis.publish(channel),
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
            23 => {
                if let Some((id, _)) = self.clients[client].connection {
                    self.streams.open(id, &mut self.sockets);
                }
            }
            24 if chaos == Chaos::All => self.redis.trim(channel, random.usize(1..4)),
            25 if chaos == Chaos::All => {
                let far = EventId { ms: u64::MAX - random.u64(0..9), seq: 0 };
                let near = self.redis.newest;
                match random.usize(0..4) {
                    0 => self.redis.forge(channel, far, EventId::ZERO, false),
                    1 => self.redis.forge(channel, far, near, true),
                    2 => self.redis.forge(
                        channel,
                        far,
                        EventId { seq: 9, ..far.before().unwrap() },
                        true,
                    ),
                    _ => self.redis.forge(channel, EventId { ms: 5, seq: 0 }, EventId::ZERO, true),
                }
            }
            26 if chaos == Chaos::All => {
                let is_forbidden = self.redis.forbidden.remove(&channel);
                self.redis.forbidden.extend((!is_forbidden).then_some(channel));
            }
            27 if chaos == Chaos::All => {
                let arrives = self.redis.subscribed.contains(&channel) && self.redis.is_up;
                self.redis.wire.extend(arrives.then_some(Item::Plain(channel)));
            }
            _ => {}
        }
        self.ask(false);
    }
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chaos {
    /// Links are lost, readers are slow.
    Losses,
    /// And events are trimmed, forged, published without history, channels refused.
    All,
}

fn number(name: &[u8]) -> usize {
    // Channels that are not kept have names without a number.
    std::str::from_utf8(&name[1..]).unwrap().parse().unwrap_or(usize::MAX)
}

fn run(seeds: std::ops::Range<u64>, kept: usize, chaos: Chaos) -> (usize, usize) {
    let (mut events, mut resets) = (0, 0);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(seed, kept);
        // Some worlds have events of which few fit in a page, or none.
        world.redis.padding = [0, 0, 20_000, 50_000][random.usize(0..4)];
        for _ in 0..random.usize(1..6) {
            let mut channels: Vec<usize> = (0..CHANNELS).collect();
            random.shuffle(&mut channels);
            channels.truncate(random.usize(1..=4));
            world.clients.push(Client::new(channels));
        }
        world.link_up();
        world.deliver(usize::MAX);
        for _ in 0..random.usize(20..400) {
            world.step(&mut random, chaos);
        }
        world.settle();
        events += world.clients.iter().map(|client| client.events).sum::<usize>();
        resets += world.clients.iter().map(|client| client.resets).sum::<usize>();
    }
    (events, resets)
}

#[test]
fn with_all_events_kept_every_client_gets_all_of_them_and_no_reset() {
    let (events, resets) = run(0..1_500, usize::MAX, Chaos::Losses);
    assert!(events > 50_000, "{events}");
    assert_eq!(resets, 0);
}

#[test]
fn with_few_events_kept_every_hole_is_told() {
    let (events, resets) = run(0..1_500, 3, Chaos::Losses);
    assert!(events > 25_000 && resets > 50, "{events}, {resets}");
}

#[test]
fn whatever_else_happens_every_hole_is_told() {
    let (events, resets) = run(0..3_000, 20, Chaos::All);
    assert!(events > 50_000 && resets > 1_000, "{events}, {resets}");
}
