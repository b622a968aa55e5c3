//! What a worker does with sockets that are ready and at its end, with sockets of its own.

use std::io::{Read, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::{Capacity, Mailbox, Setup};
use crate::bytes::target::{Reserved, Routes};
use crate::ground::config::{
    Config, Driver, HistoryRules, ListenAddress, RedisAddress, RedisEndpoint, RequestLimits,
};
use crate::ground::ids::{ConnectionId, WorkerId};
use crate::ground::limits::READ_BUFFER_BYTES;
use crate::io::prober::{ProbeLine, Probes};
use crate::io::reactor::{Readiness, Token};
use crate::io::redis::Redis;
use crate::io::wake::Wake;
use crate::state::connections::State;
use crate::state::counters::CloseReason;
use crate::sys::runtime::DriverKind;
use crate::sys::socket::{self, Received};
use crate::sys::{clock, raw};

const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A worker's core without a link, and what its clients hold.
struct World {
    core: Core,
    started: Instant,
}

impl World {
    fn new() -> Self {
        let started = clock::now();
        Self { core: Core::new(setup(), started), started }
    }

    /// A client that is connected.
    fn connect(&mut self) -> (ConnectionId, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        (self.core.take_in(server.into_raw_fd()), client)
    }

    /// A client whose stream is open.
    fn open(&mut self) -> (ConnectionId, UnixStream) {
        let (id, mut client) = self.connect();
        client.write_all(REQUEST).unwrap();
        self.core.on_ready(id, readable(false));
        self.core.streams.open(id, &mut self.core.sockets);
        (id, client)
    }

    fn state(&self, id: ConnectionId) -> Option<State> {
        self.core.streams.get(id).map(|connection| connection.state)
    }

    fn pass(&mut self, time: Duration) {
        self.core.set_time(self.started + time);
    }
}

const REQUEST: &[u8] = b"GET /events/news HTTP/1.1\r\nHost: x\r\n\r\n";

fn readable(peer_finished: bool) -> Readiness {
    Readiness { token: Token::Wake, readable: true, writable: false, peer_finished, hung_up: false }
}

fn text(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // Ends with the end of what is there, whether the other end is closed or not.
    let _ = client.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_client_that_has_finished_is_gone_in_the_turn_that_reads_its_last_bytes() {
    let mut world = World::new();
    let (id, mut client) = world.connect();
    client.write_all(REQUEST).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    world.core.on_ready(id, readable(true));
    assert_eq!(world.state(id), None, "nothing more is told of that socket");
    assert_eq!(world.core.counters.closed(CloseReason::PeerClosed), 1);
}

#[test]
fn all_that_a_client_has_sent_is_read_in_one_turn() {
    let mut world = World::new();
    let (id, mut client) = world.open();
    client.write_all(&vec![b'x'; 3 * READ_BUFFER_BYTES + 1]).unwrap();
    world.core.on_ready(id, readable(false));
    let fd = world.core.streams.get(id).unwrap().fd;
    assert_eq!(socket::receive(raw::borrow(fd), &mut [0; 9]), Received::Empty);
}

#[test]
fn a_drain_gives_unsent_bytes_the_time_that_there_is_and_no_more() {
    let mut world = World::new();
    let (slow, mut reader) = world.open();
    let (quick, _client) = world.open();
    text(&mut reader);
    let event = "x".repeat(4 << 20);
    let mut bytes = event.as_bytes();
    world.core.streams.send_own(slow, bytes, &mut world.core.sockets);
    assert!(world.core.streams.has_backlog(slow));
    let mut drain = world.core.begin_drain();
    for tick in 1..(DRAIN_TIME.as_secs() * 10) {
        world.pass(Duration::from_millis(100 * tick));
        assert!(!drain.tick(&mut world.core));
        while drain.slice(100, &mut world.core) {}
    }
    assert_eq!(world.state(quick), None);
    assert!(world.state(slow).is_some(), "it still reads");
    // It reads all of it, in the last moment.
    let mut received = String::new();
    while received.len() < bytes.len() {
        received += &text(&mut reader);
        world.core.streams.flush(slow, &mut world.core.sockets);
    }
    bytes = received.as_bytes();
    assert_eq!(bytes, event.as_bytes());
    world.core.streams.send_own(slow, bytes, &mut world.core.sockets);
    world.pass(DRAIN_TIME);
    assert!(!drain.tick(&mut world.core));
    while drain.slice(100, &mut world.core) {}
    assert_eq!(world.state(slow), None, "its time is over");
    assert!(drain.tick(&mut world.core));
}

fn setup() -> Setup {
    let local = ListenAddress::Unix("/nowhere".into());
    let limits = RequestLimits { head_bytes: 8192, channels: 9, channel_bytes: 99 };
    let config = Config {
        listen: vec![local.clone()],
        redis: None,
        broker_listen: local.clone(),
        broker_password: None,
        admin_listen: local,
        admin_token: None,
        workers: 1,
        pin: false,
        driver: Driver::Auto,
        routes: Vec::new(),
        formats: Vec::new(),
        strip_prefix: Vec::new(),
        subscribe_ahead: Vec::new(),
        heartbeat: None,
        retry: Duration::from_secs(1),
        retry_jitter_percent: 0,
        max_connections: None,
        limits,
        max_event_bytes: 1 << 20,
        head_timeout: Duration::from_secs(5),
        max_pending_bytes: 8 << 20,
        max_intake_bytes: 8 << 20,
        dead_peer_timeout: None,
        coalesce: Duration::ZERO,
        cors_origins: Vec::new(),
        history: HistoryRules::default(),
        history_ttl: Duration::from_secs(60),
        broker_history_bytes: 0,
        drain_time: DRAIN_TIME,
    };
    let endpoint = RedisEndpoint::Unix("/nowhere".into());
    let address = RedisAddress { endpoint, username: None, password: None, database: 0, tls: None };
    Setup {
        id: WorkerId(0),
        config: Arc::new(config),
        routes: Arc::new(Routes::new(&[], limits, Reserved::new(&[], b"")).unwrap()),
        formats: Arc::default(),
        redis: Redis::new(address).unwrap(),
        probes: ProbeLine::new(Arc::new(Probes::new(1).unwrap()), WorkerId(0)),
        driver: DriverKind::Epoll,
        listeners: Vec::new(),
        capacity: Capacity { worker: 99, process: None },
        counters: Arc::default(),
        mailbox: Arc::new(Mailbox::new(Arc::new(Wake::new().unwrap())).unwrap()),
    }
}
