//! A link against a Redis of a few lines, with a clock of the test's own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::ground::config::RedisAddress;
use crate::sys::clock;

/// What a link told.
#[derive(Debug, Default)]
struct Told {
    ups: usize,
    proofs: usize,
    subscribed: usize,
    losses: Vec<String>,
}

impl Upstream for Told {
    fn link_up(&mut self, _: Protocol) {
        self.ups += 1;
    }

    fn link_proven(&mut self) {
        self.proofs += 1;
    }

    fn link_down(&mut self, error: &LinkError, _: bool) {
        self.losses.push(error.to_string());
    }

    fn message(&mut self, _: &[u8], _: &[u8]) {}

    fn oversize(&mut self, _: &[u8]) {}

    fn subscribed(&mut self, _: &[u8]) {
        self.subscribed += 1;
    }

    fn refused(&mut self, _: ChannelId, _: &[u8]) {}
}

struct World {
    link: Link,
    told: Told,
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
        let mut link = Link::new(redis, "test".to_owned(), 1024, now);
        link.on_tick(now, &reactor, &mut told);
        let (redis, _) = listener.accept().unwrap();
        redis.set_nodelay(true).unwrap();
        let mut world = Self { link, told, reactor, redis, now };
        world.turn();
        world.hears("HELLO");
        world.answers("%0\r\n");
        assert_eq!(world.told.ups, 1);
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
        loop {
            let events = self.reactor.ready().unwrap();
            let is_ready = !events.is_empty();
            self.reactor.give_back(events);
            if is_ready {
                return self.turn();
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

    fn tick_after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.link.on_tick(self.now, &self.reactor, &mut self.told);
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
    assert_eq!((world.told.subscribed, world.told.proofs), (4, 1));
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
