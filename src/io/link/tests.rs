//! A link against a Redis of a few lines, with a clock of the test's own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::bytes::history::EventId;
use crate::ground::config::RedisAddress;
use crate::ground::ids::WorkerId;
use crate::ground::limits::{LINK_BEHIND, LINK_READ_BYTES_MAX};
use crate::io::prober::{Outcome, Probes};
use crate::state::recent::Question;
use crate::sys::clock;

/// What a link told.
#[derive(Debug, Default)]
struct Told {
    ups: usize,
    proofs: usize,
    unproven: usize,
    subscribed: usize,
    losses: Vec<String>,
    refusals: usize,
    settled: usize,
    history: Vec<String>,
}

impl Upstream for Told {
    fn link_up(&mut self, _: Protocol) {
        self.ups += 1;
    }

    fn link_proven(&mut self) {
        self.proofs += 1;
    }

    fn link_unproven(&mut self) {
        self.unproven += 1;
    }

    fn unprobed(&mut self, _: &[u8]) {}

    fn link_down(&mut self, error: &LinkError, _: bool) {
        self.losses.push(error.to_string());
    }

    fn message(&mut self, _: &[u8], _: &[u8]) {}

    fn oversize(&mut self, _: &[u8], _: &[u8]) {}

    fn subscribed(&mut self, _: &[u8]) {
        self.subscribed += 1;
    }

    fn refused(&mut self, _: ChannelId, _: &[u8]) {
        self.refusals += 1;
    }

    fn link_settled(&mut self) {
        self.settled += 1;
    }

    fn clock(
        &mut self,
        clock: Option<Clock>,
        now_ms: u64,
        marks: &[(EventId, &[u8])],
        wish: ClockWish,
    ) {
        let marks = marks.len();
        self.history.push(format!("{wish:?} {clock:?} at {now_ms}, {marks} marks"));
    }

    fn clock_refused(&mut self, _: ClockWish, error: &[u8]) {
        self.history.push(String::from_utf8_lossy(error).into_owned());
    }

    fn page(&mut self, read: HistoryRead, page: &Page<'_>) {
        let Page { end, oldest, entries } = page;
        let (number, count) = (read.channel.0, entries.len());
        self.history.push(format!("{count} entries of {number}, {end:?}, {oldest:?}"));
    }

    fn index(&mut self, read: HistoryRead, newest: Option<Newest>) {
        let count = newest.map_or(0, |newest| newest.ids.len());
        self.history.push(format!("{count} ids of {}", read.channel.0));
    }

    fn read_refused(&mut self, _: HistoryRead, error: &[u8]) {
        self.history.push(String::from_utf8_lossy(error).into_owned());
    }

    fn newest(&mut self, newest: Vec<(ChannelId, Option<Newest>)>) {
        let newest: Vec<_> = newest.into_iter().map(|(id, n)| (id, n.map(|n| n.ids))).collect();
        self.history.push(format!("newest: {newest:?}"));
    }

    fn newest_refused(&mut self, channels: Vec<ChannelId>, error: &[u8]) {
        let error = String::from_utf8_lossy(error);
        self.history.push(format!("no newest of {channels:?}: {error}"));
    }

    fn mark_answered(&mut self, error: Option<&[u8]>) {
        self.history.push(format!("marked: {}", error.is_none()));
    }

    fn function_refused(&mut self, _: &[u8]) {}

    fn memory(&mut self, _: &[u8]) {}
}

struct World {
    link: Link,
    told: Told,
    probes: Arc<Probes>,
    reactor: Reactor,
    redis: TcpStream,
    now: Instant,
}

impl World {
    /// A link that is up.
    fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = RedisEndpoint::Tcp { host: "127.0.0.1".to_owned(), port };
        let address =
            RedisAddress { endpoint, username: None, password: None, database: 0, tls: None };
        let redis = Redis::new(address).unwrap();
        let (now, reactor, mut told) = (clock::now(), Reactor::new().unwrap(), Told::default());
        let probes = Arc::new(Probes::new(1).unwrap());
        let line = ProbeLine::new(Arc::clone(&probes), WorkerId(0));
        let mut link = Link::new(redis, "test".to_owned(), 1024, line, now);
        link.on_tick(now, &reactor, &mut told);
        let (redis, _) = listener.accept().unwrap();
        redis.set_nodelay(true).unwrap();
        let mut world = Self { link, told, probes, reactor, redis, now };
        world.turn();
        world.hears("HELLO");
        world.answers("%0\r\n");
        assert_eq!(world.told.ups, 1);
        world.hears("corecast:probe:");
        world.answers(">3\r\n$9\r\nsubscribe\r\n$1\r\np\r\n:1\r\n");
        world
    }

    fn turn(&mut self) {
        self.link.on_ready(self.now, &self.reactor, &mut self.told);
    }

    /// Redis reads until `word` has come.
    fn hears(&mut self, word: &str) {
        let mut heard = String::new();
        while !heard.contains(word) {
            let mut buffer = [0; 4096];
            let count = self.redis.read(&mut buffer).unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    fn answers(&mut self, answer: &str) {
        assert_eq!(self.told.losses, Vec::<String>::new());
        self.redis.write_all(answer.as_bytes()).unwrap();
        self.wait_ready();
        self.turn();
    }

    /// Waits until the reactor has something for the link.
    fn wait_ready(&mut self) {
        loop {
            let events = self.reactor.ready().unwrap();
            let is_ready = !events.is_empty();
            self.reactor.give_back(events);
            if is_ready {
                return;
            }
        }
    }

    /// Lets the link subscribe to channels and asks for its proof, as its worker does.
    fn subscribe(&mut self, channels: &[&str]) {
        let ids = (0..).take(channels.len()).map(ChannelId).collect();
        let names = channels.iter().map(|name| name.as_bytes().to_vec()).collect();
        self.link.subscribe(ids, names);
        self.link.ping(self.now);
        self.turn();
        self.hears("PING");
    }

    /// Something that was published arrives.
    fn delivers(&mut self) {
        self.answers(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n");
    }

    fn tick_after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.link.on_tick(self.now, &self.reactor, &mut self.told);
    }
}

#[test]
fn each_attempt_takes_the_next_address_of_a_name() {
    let listeners = [0, 1].map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let location = Location::Tcp { host: "several".to_owned(), addresses };
    let reactor = Reactor::new().unwrap();
    for attempt in 0..4 {
        let _connection = Connection::start(&location, attempt, None, &reactor).unwrap();
        listeners[attempt % 2].accept().unwrap();
    }
}

#[test]
fn a_redis_that_answers_slowly_is_waited_for_as_long_as_it_answers() {
    let mut world = World::new();
    let names = ["a", "b", "c", "d"];
    world.subscribe(&names);
    for name in names {
        world.tick_after(4);
        world.answers(&format!(">3\r\n$9\r\nsubscribe\r\n$1\r\n{name}\r\n:1\r\n"));
    }
    world.tick_after(4);
    world.answers("+PONG\r\n");
    assert_eq!(world.told.losses, Vec::<String>::new());
    assert_eq!((world.told.subscribed, world.told.proofs), (4, 0));
    world.delivers();
    assert_eq!(world.told.proofs, 1);
}

/// A link whose subscription stands, and to which something was delivered.
fn proven() -> World {
    let mut world = World::new();
    world.subscribe(&["a"]);
    world.answers(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+PONG\r\n");
    world.delivers();
    assert_eq!((world.told.proofs, world.told.unproven), (1, 0));
    world
}

#[test]
fn a_link_that_is_closed_while_more_came_than_it_could_read_was_behind() {
    let mut world = proven();
    let message = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n";
    world.redis.set_nonblocking(true).unwrap();
    let flood = message.repeat(64 * 1024);
    let mut unread = 0;
    while let Ok(count) = world.redis.write(&flood.as_bytes()[unread % message.len()..]) {
        unread += count;
    }
    assert!(unread > LINK_READ_BYTES_MAX, "the kernel's buffers hold only {unread} bytes");
    world.redis.shutdown(Shutdown::Write).unwrap();
    for _ in 0..=unread / LINK_READ_BYTES_MAX + 1 {
        world.turn();
    }
    assert_eq!(world.told.losses.len(), 1);
    assert!(world.told.losses[0].contains("we were behind"), "{:?}", world.told.losses);
}

#[test]
fn a_link_that_is_closed_some_time_after_a_flood_was_not_behind() {
    let mut world = proven();
    world.redis.set_nonblocking(true).unwrap();
    let flood = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n".repeat(64 * 1024);
    let mut unread = world.redis.write(flood.as_bytes()).unwrap();
    assert!(unread > LINK_READ_BYTES_MAX, "the kernel's buffers hold only {unread} bytes");
    while unread > 0 {
        world.turn();
        unread = unread.saturating_sub(LINK_READ_BYTES_MAX);
    }
    world.now += LINK_BEHIND;
    world.redis.shutdown(Shutdown::Write).unwrap();
    world.wait_ready();
    world.turn();
    assert_eq!(world.told.losses, ["it closed the connection"]);
}

#[test]
fn a_link_that_answers_but_delivers_nothing_is_given_up() {
    let mut world = proven();
    world.tick_after(3);
    assert_eq!(world.link.stage(), Stage::Proven);
    world.tick_after(1);
    world.probes.answer(Outcome::Published);
    world.tick_after(1);
    world.hears("PING");
    world.answers("+PONG\r\n");
    world.tick_after(2);
    assert!(world.link.is_up());
    world.tick_after(1);
    assert_eq!(world.told.losses, ["what is published does not arrive from it"]);
}

#[test]
fn a_probe_that_waits_for_publishers_to_go_on_costs_no_link() {
    let mut world = proven();
    world.tick_after(4);
    world.tick_after(3);
    world.hears("PING");
    world.answers("+PONG\r\n");
    world.probes.answer(Outcome::Published);
    world.tick_after(1);
    world.delivers();
    world.tick_after(3);
    assert_eq!((world.told.proofs, world.told.unproven), (1, 0));
    assert_eq!(world.told.losses, Vec::<String>::new());
}

#[test]
fn a_link_is_unproven_while_nothing_can_be_published_and_proven_again_after() {
    let mut world = proven();
    world.tick_after(4);
    world.probes.answer(Outcome::Failed);
    for _ in 0..3 {
        world.tick_after(1);
        world.probes.answer(Outcome::Failed);
    }
    world.hears("PING");
    world.answers("+PONG\r\n");
    assert_eq!((world.told.unproven, world.link.stage()), (0, Stage::Proven));
    world.tick_after(2);
    assert_eq!((world.told.unproven, world.link.stage()), (1, Stage::Unproven));
    world.tick_after(1);
    assert_eq!(world.told.unproven, 1, "told once");
    world.delivers();
    assert_eq!((world.told.proofs, world.link.stage()), (2, Stage::Proven));
    assert_eq!(world.told.losses, Vec::<String>::new());
}

#[test]
fn where_probes_are_forbidden_the_answer_to_ping_is_proof() {
    let mut world = World::new();
    world.link.ping(world.now);
    world.turn();
    world.hears("PING");
    world.answers("+PONG\r\n");
    world.tick_after(1);
    world.probes.answer(Outcome::Forbidden);
    world.tick_after(1);
    world.hears("PING");
    world.answers("+PONG\r\n");
    assert_eq!((world.told.proofs, world.link.stage()), (1, Stage::Proven));
    world.tick_after(4);
    world.hears("PING");
    world.tick_after(5);
    assert_eq!(world.told.losses, ["no answer to PING within 5 s"]);
}

#[test]
fn what_arrived_while_we_slept_counts() {
    let mut world = proven();
    world.tick_after(4);
    world.probes.answer(Outcome::Published);
    world.tick_after(1);
    world.redis.write_all(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n").unwrap();
    world.wait_ready();
    world.tick_after(60);
    assert_eq!(world.told.losses, Vec::<String>::new());
}

#[test]
fn a_redis_that_falls_silent_is_given_up() {
    let mut world = World::new();
    world.subscribe(&["a", "b"]);
    world.tick_after(4);
    world.answers(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    world.tick_after(4);
    assert!(world.link.is_up());
    world.tick_after(1);
    assert_eq!(world.told.losses, ["no answer to PING within 5 s"]);
}

#[test]
fn a_redis_that_is_busy_with_a_script_keeps_a_link_that_was_proven() {
    let busy = "-BUSY Redis is busy running a script.\r\n";
    let mut world = World::new();
    world.subscribe(&["a"]);
    world.answers(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+PONG\r\n");
    world.tick_after(5);
    world.hears("PING");
    world.answers(busy);
    assert_eq!(world.told.losses, Vec::<String>::new());
    world.tick_after(5);
    world.hears("PING");
    world.answers("-NOAUTH Authentication required.\r\n");
    assert_eq!(world.told.losses.len(), 1);

    let mut world = World::new();
    world.subscribe(&["a"]);
    world.answers(&format!("{busy}{busy}"));
    assert_eq!(world.told.losses.len(), 1, "what was asked is not proven to stand");
}

#[test]
fn a_command_that_was_spoiled_on_the_way_is_no_refusal_of_its_channel() {
    let mut world = World::new();
    world.subscribe(&["a"]);
    world.answers("-ERR Protocol error: invalid multibulk length\r\n");
    let loss = "it answered: ERR Protocol error: invalid multibulk length";
    assert_eq!((world.told.losses, world.told.refusals), (vec![loss.to_owned()], 0));

    let mut world = World::new();
    world.subscribe(&["a"]);
    world.answers("-NOPERM no\r\n+PONG\r\n");
    assert_eq!((world.told.losses, world.told.refusals), (Vec::new(), 1));
}

#[test]
fn channels_that_are_asked_for_again_alone_are_waited_for() {
    let mut world = World::new();
    world.subscribe(&["a", "b"]);
    world.answers("-NOPERM b\r\n+PONG\r\n");
    assert_eq!(world.told.settled, 0);
    world.link.flush(world.now, &world.reactor, &mut world.told);
    world.hears("PING");
    world.answers(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n-NOPERM b\r\n+PONG\r\n");
    assert_eq!((world.told.subscribed, world.told.refusals, world.told.settled), (1, 1, 1));
}

const ENTRY: &str = "*1\r\n*2\r\n$3\r\n7-3\r\n*6\r\n$5\r\nsince\r\n$3\r\n1-0\r\n\
    $3\r\nttl\r\n$1\r\n9\r\n$7\r\nevicted\r\n$1\r\n4\r\n";
const TIME: &str = "*2\r\n$1\r\n8\r\n$4\r\n5999\r\n";
const MARKS: &str = "*1\r\n*2\r\n$3\r\n5-0\r\n*2\r\n$1\r\nc\r\n$4\r\nnews\r\n";

#[test]
fn the_clock_is_told_with_all_that_belongs_to_it_or_why_it_is_not() {
    let mut world = World::new();
    let after = "4-0".parse_id();
    let queued = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
    world.link.read_clock(ClockWish::Newest, after);
    world.link.flush(world.now, &world.reactor, &mut world.told);
    world.hears("(4-0");
    world.answers(&format!("{queued}*3\r\n{ENTRY}{TIME}{MARKS}"));
    world.link.read_clock(ClockWish::WithEvictions, after);
    world.link.flush(world.now, &world.reactor, &mut world.told);
    world.hears("stats");
    let stats = "=38\r\ntxt:# Stats\r\nevicted_keys:5\r\nother:1\r\n\r\n";
    world.answers(&format!("{queued}+QUEUED\r\n*4\r\n{ENTRY}{TIME}*0\r\n{stats}"));
    world.link.read_clock(ClockWish::Newest, after);
    world.answers("+OK\r\n-NOPERM clock\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT discarded\r\n");
    world.link.read_clock(ClockWish::Newest, after);
    let refused = "-EXECABORT Transaction discarded because of: NOPERM exec\r\n";
    world.answers(&format!("{queued}{refused}"));
    let newest = "7-3".parse_id();
    let clock = Clock { newest, since: "1-0".parse_id(), ttl_ms: 9, evicted: Some(4) };
    let expected = [
        format!("Newest {:?} at 8005, 1 marks", Some(clock)),
        format!("WithEvictions {:?} at 8005, 0 marks", Some(clock.after_evictions(5))),
        "NOPERM clock".to_owned(),
        "NOPERM exec".to_owned(),
    ];
    assert_eq!(world.told.history, expected);
}

impl World {
    /// Asks for a page of a channel, behind 1-0 and up to 9-0.
    fn reads(&mut self, number: u32, name: &str) {
        let (from, to) = ("1-0".parse_id(), "9-0".parse_id());
        let question = Question::Page { from, to, bytes_max: 100, caution: 0 };
        let read = HistoryRead { channel: ChannelId(number), question };
        self.link.read_history(read, name.as_bytes(), 1 << 20);
        self.flush();
    }

    fn flush(&mut self) {
        self.link.flush(self.now, &self.reactor, &mut self.told);
    }
}

#[test]
fn the_library_is_loaded_once_where_it_is_missing() {
    let mut world = World::new();
    world.reads(4, "a");
    world.reads(5, "b");
    world.hears("corecast:{b}");
    let missing = "-ERR Function not found\r\n";
    world.answers(&format!("{missing}{missing}"));
    world.flush();
    world.hears("corecast:{b}");
    let page = "*3\r\n$3\r\nend\r\n*2\r\n$3\r\n7-0\r\n$3\r\n6-0\r\n*0\r\n";
    world.answers(&format!("$13\r\ncorecast_read\r\n{page}{page}"));
    let told = |number| {
        format!(
            "0 entries of {number}, End, Some(({:?}, {:?}))",
            "7-0".parse_id(),
            "6-0".parse_id()
        )
    };
    assert_eq!(world.told.history, [told(4), told(5)]);
    // It is gone, and can't be loaded: scripts do.
    world.reads(6, "c");
    world.answers(missing);
    world.flush();
    world.hears("EVAL_RO");
    world.answers("-NOPERM eval_ro\r\n");
    world.flush();
    world.hears("EVAL");
    world.answers("-NOPERM eval\r\n");
    world.flush();
    world.hears("XRANGE");
    world.answers("*0\r\n");
    world.flush();
    world.hears("corecast:{c}");
    world.answers("*1\r\n*2\r\n$3\r\n7-0\r\n*2\r\n$1\r\np\r\n$3\r\n6-0\r\n");
    assert_eq!(world.told.history.last(), Some(&told(6)));
    world.reads(7, "d");
    world.answers("-NOPERM xrange\r\n");
    assert_eq!(world.told.history.last().map(String::as_str), Some("NOPERM xrange"));
}

#[test]
fn newest_ids_of_many_channels_are_told_by_one_answer_or_one_each() {
    let mut world = World::new();
    let channels = vec![ChannelId(1), ChannelId(2)];
    let names = vec![b"a".to_vec(), b"b".to_vec()];
    world.link.read_newest(channels.clone(), names.clone());
    world.answers("*2\r\n*2\r\n$3\r\n1-0\r\n$3\r\n2-0\r\n*0\r\n");
    let newest = [(ChannelId(1), Some(vec!["2-0".parse_id()])), (ChannelId(2), None)];
    assert_eq!(world.told.history, [format!("newest: {newest:?}")]);
    // A key that holds something else costs its own channel the answer.
    world.link.read_newest(channels.clone(), names.clone());
    world.answers("*2\r\n$9\r\nWRONGTYPE\r\n*0\r\n");
    let [.., told, refused] = world.told.history.as_slice() else { panic!() };
    assert_eq!(*told, format!("newest: {:?}", [(ChannelId(2), None::<Vec<EventId>>)]));
    assert!(refused.starts_with("no newest of [channel #1]: WRONGTYPE"), "{refused}");
    world.link.read_newest(channels, names);
    world.answers("-BUSY script\r\n");
    let told = world.told.history.last().unwrap();
    assert!(told.starts_with("no newest") && told.ends_with("BUSY script"), "{told}");
}

trait ParseId {
    fn parse_id(&self) -> EventId;
}

impl ParseId for str {
    fn parse_id(&self) -> EventId {
        EventId::parse(self.as_bytes()).unwrap()
    }
}
