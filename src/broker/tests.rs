//! The broker without sockets.

use std::collections::HashMap;

use super::client::{ClientId, CloseReason, State};
use super::hub::Hub;
use super::*;
use crate::bytes::resp::encode_command;
use crate::ground::config::HistoryRule;
use crate::ground::limits;

/// A hub, and the beginnings of commands that its clients have sent.
struct Bench {
    hub: Hub,
    unread: HashMap<u32, Vec<u8>>,
}

impl Bench {
    fn new(password: Option<&str>, payload_bytes_max: usize) -> Self {
        Self::with_history(password, payload_bytes_max, &[])
    }

    fn with_history(
        password: Option<&str>,
        payload_bytes_max: usize,
        rules: &[(&str, usize)],
    ) -> Self {
        let rule =
            |&(prefix, events): &(&str, usize)| HistoryRule { prefix: prefix.into(), events };
        let options = BrokerOptions {
            password: password.map(Secret::from),
            payload_bytes_max,
            history: HistoryRules::new(rules.iter().map(rule).collect(), b""),
            history_ttl: Duration::from_secs(600),
            history_bytes_max: 1 << 20,
        };
        Self { hub: Hub::new(options, Arc::default()), unread: HashMap::new() }
    }

    fn open(&mut self) -> ClientId {
        self.hub.open().unwrap()
    }

    fn send(&mut self, id: ClientId, bytes: impl AsRef<[u8]>) {
        let unread = self.unread.entry(id.slot).or_default();
        unread.extend_from_slice(bytes.as_ref());
        let taken = self.hub.receive(id, unread);
        unread.drain(..taken.consumed);
        assert!(taken.needed > 0);
    }

    /// Takes what a client is to be sent.
    fn output(&mut self, id: ClientId) -> String {
        let client = self.hub.client(id).unwrap();
        let mut sent = Vec::new();
        while !client.output.is_empty() {
            let (slices, used) = client.output.slices();
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            client.output.advance(bytes.len());
            sent.extend_from_slice(&bytes);
        }
        String::from_utf8(sent).unwrap()
    }

    fn ask(&mut self, id: ClientId, bytes: impl AsRef<[u8]>) -> String {
        self.send(id, bytes);
        self.output(id)
    }

    fn state(&mut self, id: ClientId) -> State {
        self.hub.client(id).unwrap().state
    }
}

fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(arguments, &mut bytes);
    bytes
}

#[test]
fn a_session_does_not_depend_on_how_its_bytes_arrive() {
    let session = b"HELLO 3\r\n*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n\r\nMULTI\r\n\
        *3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$5\r\n\r\n*1\r\r\nECHO \"x\\r\\n\"\nEXEC\r\n\
        *0\r\nNONSENSE\r\nPING\r\n*1\r\n$x\r\nPING\r\n";
    let run = |pieces: &[&[u8]]| {
        let mut bench = Bench::new(None, 100);
        let id = bench.open();
        pieces.iter().map(|piece| bench.ask(id, piece)).collect::<String>()
    };
    let expected = run(&[session]);
    assert!(expected.ends_with("-ERR Protocol error: invalid bulk length\r\n"), "{expected}");
    for split in 0..session.len() {
        assert_eq!(run(&[&session[..split], &session[split..]]), expected, "{split}");
    }
    assert_eq!(run(&session.chunks(1).collect::<Vec<_>>()), expected);
}

#[test]
fn a_message_to_its_own_publisher_follows_the_reply() {
    let script = "for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end";
    let mut bench = Bench::new(None, 100_000);
    let id = bench.open();
    bench.ask(id, "HELLO 3\r\nSUBSCRIBE a\r\nPSUBSCRIBE a*\r\n");
    let message = |payload: &str| {
        let length = payload.len();
        format!(
            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n${length}\r\n{payload}\r\n\
             >4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n${length}\r\n{payload}\r\n"
        )
    };
    let one = message("1");
    assert_eq!(bench.ask(id, "PUBLISH a 1\r\n"), format!(":2\r\n{one}"));
    assert_eq!(bench.ask(id, "MULTI\r\n"), "+OK\r\n");
    assert_eq!(bench.ask(id, "PUBLISH a 1\r\nPING\r\n"), "+QUEUED\r\n+QUEUED\r\n");
    assert_eq!(bench.ask(id, "EXEC\r\n"), format!("*2\r\n:2\r\n+PONG\r\n{one}"));
    assert_eq!(bench.ask(id, format!("EVAL \"{script}\" 0 1 a a\r\n")), format!("_\r\n{one}{one}"));
    assert_eq!(bench.ask(id, "PUBLISH a 1\r\nPING\r\n"), format!(":2\r\n{one}+PONG\r\n"));
    let large = "x".repeat(50_000);
    let reply = bench.ask(id, command(&[b"PUBLISH", b"a", large.as_bytes()]));
    assert_eq!(reply, format!(":2\r\n{}", message(&large)));
}

#[test]
fn each_subscriber_gets_its_own_version_of_a_message() {
    let mut bench = Bench::new(None, 100_000);
    let [old, new, publisher] = [bench.open(), bench.open(), bench.open()];
    bench.ask(old, "SUBSCRIBE a\r\n");
    bench.ask(new, "HELLO 3\r\nSUBSCRIBE a\r\n");
    for payload in ["", "small", &"large".repeat(10_000)] {
        assert_eq!(
            bench.ask(publisher, command(&[b"PUBLISH", b"a", payload.as_bytes()])),
            ":2\r\n"
        );
        let text = format!("3\r\n$7\r\nmessage\r\n$1\r\na\r\n${}\r\n{payload}\r\n", payload.len());
        assert_eq!(bench.output(old), format!("*{text}"));
        assert_eq!(bench.output(new), format!(">{text}"));
    }
}

#[test]
fn what_a_client_heard_ends_with_it() {
    let mut bench = Bench::new(None, 100);
    let [one, two, publisher] = [bench.open(), bench.open(), bench.open()];
    for id in [one, two] {
        bench.ask(id, "SUBSCRIBE a b\r\nPSUBSCRIBE a*\r\nSSUBSCRIBE a\r\n");
    }
    assert_eq!(bench.ask(publisher, "PUBLISH a 1\r\nSPUBLISH a 1\r\n"), ":4\r\n:2\r\n");
    bench.hub.close(one);
    assert_eq!(bench.ask(publisher, "PUBLISH a 1\r\nSPUBLISH a 1\r\n"), ":2\r\n:1\r\n");
    bench.ask(two, "QUIT\r\n");
    assert_eq!(bench.state(two), State::Finishing);
    assert_eq!(bench.ask(publisher, "PUBLISH a 1\r\nSPUBLISH a 1\r\n"), ":0\r\n:0\r\n");
    assert_eq!(bench.hub.channels.len() + bench.hub.patterns.len() + bench.hub.shards.len(), 0);
}

#[test]
fn a_stale_id_finds_nobody() {
    let mut bench = Bench::new(None, 100);
    let old = bench.open();
    bench.hub.close(old);
    let new = bench.open();
    assert_eq!(old.slot, new.slot);
    assert!(bench.hub.client(old).is_none());
    assert_eq!(bench.hub.receive(old, b"PING\r\n").consumed, 0);
    bench.hub.close(old);
    assert_eq!(bench.ask(new, "CLIENT ID\r\n"), ":2\r\n");
    assert_eq!(bench.hub.counters.clients.get(), 1);
    for id in [old, new] {
        assert_eq!(ClientId::from_token(id.to_token()), id);
    }
}

#[test]
fn clients_are_bounded() {
    let mut bench = Bench::new(None, 100);
    let first = bench.open();
    for _ in 1..limits::BROKER_CLIENTS_MAX {
        bench.open();
    }
    assert_eq!(bench.hub.open(), None);
    bench.hub.close(first);
    assert_eq!(bench.open().slot, first.slot);
}

#[test]
fn before_authentication_a_client_has_few_bytes() {
    let mut bench = Bench::new(Some("secret"), 100);
    let id = bench.open();
    let pings = limits::BROKER_UNAUTHENTICATED_BYTES_MAX / "PING\r\n".len();
    let refused = "-NOAUTH Authentication required.\r\n";
    assert_eq!(bench.ask(id, "PING\r\n".repeat(pings)), refused.repeat(pings));
    assert_eq!(bench.state(id), State::Open);
    assert_eq!(bench.ask(id, "PING\r\nAUTH secret\r\n"), refused);
    assert_eq!(bench.state(id), State::Finishing);
    let id = bench.open();
    assert_eq!(bench.ask(id, "AUTH secret\r\n"), "+OK\r\n");
    assert_eq!(bench.ask(id, "PING\r\n".repeat(20_000)), "+PONG\r\n".repeat(20_000));
}

#[test]
fn an_empty_password_is_none() {
    let mut bench = Bench::new(Some(""), 100);
    let id = bench.open();
    assert_eq!(bench.ask(id, "PING\r\n"), "+PONG\r\n");
}

#[test]
fn a_short_limit_on_events_is_none_on_commands() {
    let mut bench = Bench::new(Some("a password longer than events"), 5);
    let [id, other] = [bench.open(), bench.open()];
    assert_eq!(bench.ask(id, "AUTH \"a password longer than events\"\r\n"), "+OK\r\n");
    bench.ask(other, "AUTH \"a password longer than events\"\r\nSUBSCRIBE a\r\n");
    assert_eq!(bench.ask(id, "PUBLISH a 12345\r\n"), ":1\r\n");
    let too_long = "-ERR payload is longer than 5 bytes\r\n";
    assert_eq!(bench.ask(id, "PUBLISH a 123456\r\n"), too_long);
    let script = "for i=2,#ARGV do redis.call('publish',ARGV[i],ARGV[1])end";
    assert_eq!(bench.ask(id, format!("EVAL \"{script}\" 0 123456 a\r\n")), too_long);
    assert_eq!(bench.ask(id, format!("EVAL \"{script}\" 0 123 a\r\n")), "$-1\r\n");
    assert_eq!(bench.output(other).matches("message").count(), 2);
}

#[test]
fn names_and_patterns_are_bounded() {
    let mut bench = Bench::new(None, 1024 * 1024);
    let id = bench.open();
    let long = vec![b'x'; limits::BROKER_CHANNEL_BYTES_MAX + 1];
    assert_eq!(
        bench.ask(id, command(&[b"SUBSCRIBE", b"a", &long])),
        "-ERR name is longer than 65536 bytes\r\n"
    );
    assert_eq!(
        bench.ask(id, command(&[b"PUBLISH", &long, b"x"])),
        "-ERR channel name is longer than 65536 bytes\r\n"
    );
    let pattern = vec![b'x'; limits::BROKER_PATTERN_BYTES_MAX + 1];
    assert_eq!(
        bench.ask(id, command(&[b"PSUBSCRIBE", &pattern])),
        "-ERR name is longer than 1024 bytes\r\n"
    );
    assert_eq!(bench.ask(id, "PUBSUB NUMSUB a\r\n"), "*2\r\n$1\r\na\r\n:0\r\n");
    for n in 0..limits::BROKER_PATTERNS_MAX {
        bench.ask(id, format!("PSUBSCRIBE {n}*\r\n"));
    }
    assert_eq!(bench.ask(id, "PSUBSCRIBE x*\r\n"), "-ERR more than 1024 patterns\r\n");
}

#[test]
fn a_transaction_is_bounded() {
    let mut bench = Bench::new(None, 1024 * 1024);
    let id = bench.open();
    bench.ask(id, "MULTI\r\n");
    let large = command(&[b"PUBLISH", b"a", &[b'x'; 1_000_000]]);
    for _ in 0..16 {
        assert_eq!(bench.ask(id, &large), "+QUEUED\r\n");
    }
    assert_eq!(bench.ask(id, &large), "-ERR transaction too large\r\n");
    assert!(bench.hub.client(id).unwrap().transaction.as_ref().unwrap().queue.is_empty());
    assert_eq!(bench.ask(id, "PING\r\n"), "+QUEUED\r\n");
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    assert_eq!(bench.ask(id, "EXEC\r\nPING\r\n"), format!("{aborted}+PONG\r\n"));
}

#[test]
fn replies_that_nobody_reads_end_the_connection_and_not_the_memory() {
    let mut bench = Bench::new(None, 1024 * 1024);
    let id = bench.open();
    let echo = command(&[b"ECHO", &[b'x'; 1024 * 1024]]);
    for _ in 0..32 {
        bench.send(id, &echo);
    }
    assert_eq!(bench.state(id), State::Open);
    bench.send(id, &echo);
    assert_eq!(bench.state(id), State::Closing(CloseReason::OutputOverflow));
    assert!(bench.hub.client(id).unwrap().output.is_empty());
}

#[test]
fn messages_that_nobody_reads_end_the_connection_and_not_the_publisher() {
    let mut bench = Bench::new(None, 1024 * 1024);
    let [slow, quick, publisher] = [bench.open(), bench.open(), bench.open()];
    bench.ask(slow, "SUBSCRIBE a\r\n");
    bench.ask(quick, "SUBSCRIBE a\r\n");
    let publish = command(&[b"PUBLISH", b"a", &[b'x'; 1024 * 1024]]);
    for _ in 0..40 {
        assert_eq!(bench.ask(publisher, &publish), ":2\r\n");
        assert!(bench.output(quick).len() > 1024 * 1024);
    }
    assert!(bench.hub.client(slow).unwrap().output.has_overflowed());
    assert!(bench.hub.client(slow).unwrap().output.is_empty());
}

#[test]
fn requests_of_browsers_are_recognised() {
    for request in
        ["POST / HTTP/1.1\r\n", "host: x\r\n", "GET / HTTP/1.0\r\n", "get * HTTP/1.1\r\n"]
    {
        let mut bench = Bench::new(Some("secret"), 100);
        let id = bench.open();
        bench.send(id, format!("{request}AUTH secret\r\n"));
        assert_eq!(bench.state(id), State::Closing(CloseReason::CrossProtocol), "{request}");
    }
    let mut bench = Bench::new(None, 100);
    let id = bench.open();
    assert_eq!(bench.ask(id, "GET HTTP/1.1\r\n"), "$-1\r\n");
}

#[test]
fn clients_find_what_they_look_for() {
    let mut bench = Bench::new(None, 100);
    let id = bench.open();
    let info = bench.ask(id, "INFO\r\n");
    for field in [
        "redis_version:7.2.0",
        "redis_mode:standalone",
        "role:master",
        "loading:0",
        "connected_clients:1",
    ] {
        assert!(info.contains(&format!("\r\n{field}\r\n")), "{field} {info}");
    }
    let replication = "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n";
    let bulk = format!("${}\r\n{replication}\r\n", replication.len());
    assert_eq!(bench.ask(id, "INFO replication nonsense\r\n"), bulk);
    assert_eq!(bench.ask(id, "INFO nonsense\r\n"), "$0\r\n\r\n");
    assert_eq!(
        bench.ask(id, "CLIENT SETINFO lib-name x\r\nclient setinfo LIB-VER 1\r\n"),
        "+OK\r\n+OK\r\n"
    );
    assert_eq!(bench.ask(id, "CLIENT SETINFO lib-x x\r\n"), "-ERR Unrecognized option 'lib-x'\r\n");
    let spaces = "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n";
    assert_eq!(bench.ask(id, "CLIENT SETINFO lib-name \"a b\"\r\n"), spaces);
    assert_eq!(
        bench.ask(id, "CLIENT NO-TOUCH on\r\nCLIENT NO-TOUCH x\r\n"),
        "+OK\r\n-ERR syntax error\r\n"
    );
    assert_eq!(
        bench.ask(id, "COMMAND\r\nCOMMAND COUNT\r\nCOMMAND DOCS\r\nCOMMAND INFO x\r\n"),
        "*0\r\n:0\r\n*0\r\n*0\r\n"
    );
    assert_eq!(bench.ask(id, "SELECT 99\r\n"), "+OK\r\n");
    let time = bench.ask(id, "TIME\r\n");
    assert!(time.starts_with("*2\r\n$10\r\n1") || time.starts_with("*2\r\n$10\r\n2"), "{time}");
    let other = "-ERR only corecast's own script is known here, and this one: for i = 2, #ARGV do \
                 redis.call('publish', ARGV[i], ARGV[1]) end\r\n";
    assert_eq!(
        bench.ask(id, "EVAL \"return 1\" 0\r\nSCRIPT LOAD \"return 1\"\r\n"),
        other.repeat(2)
    );
    bench.ask(id, "HELLO 3\r\n");
    assert_eq!(bench.ask(id, "COMMAND DOCS\r\nCONFIG GET x\r\n"), "%0\r\n%0\r\n");
    let verbatim = format!("={}\r\ntxt:{replication}\r\n", 4 + replication.len());
    assert_eq!(bench.ask(id, "INFO Replication\r\n"), verbatim);
}

#[test]
fn a_plain_publish_is_kept_where_the_channel_has_a_history() {
    let mut bench = Bench::with_history(None, 1000, &[("a", 2), ("a/none", 0)]);
    let [subscriber, publisher] = [bench.open(), bench.open()];
    bench.ask(subscriber, "SUBSCRIBE a b a/none corecast:probe:a\r\nSSUBSCRIBE a\r\n");

    // The clock's only entry, as RESP2.
    let clock = bench.ask(publisher, "XRANGE corecast:clock - +\r\n");
    let since = clock.split("\r\n").nth(8).unwrap().to_owned();
    for n in ["1", "2", "3"] {
        assert_eq!(bench.ask(publisher, format!("PUBLISH a {n}\r\n")), ":1\r\n");
        let message = bench.output(subscriber);
        let envelope = message.split_once("\0").unwrap().1;
        assert!(envelope.ends_with(&format!("\n{n}\r\n")), "{message}");
        if n == "1" {
            assert!(envelope.contains(&format!(" <{since}\n")), "{envelope} {clock}");
        }
    }
    assert_eq!(bench.ask(publisher, "XLEN corecast:{a}\r\n"), ":2\r\n");

    for plain in ["PUBLISH b", "PUBLISH a/none", "PUBLISH corecast:probe:a", "SPUBLISH a"] {
        assert_eq!(bench.ask(publisher, format!("{plain} x\r\n")), ":1\r\n", "{plain}");
        assert!(bench.output(subscriber).ends_with("\r\n$1\r\nx\r\n"), "{plain}");
    }
    assert_eq!(bench.ask(publisher, "XLEN corecast:{b}\r\nXLEN corecast:{a}\r\n"), ":0\r\n:2\r\n");
    let counters = Arc::clone(&bench.hub.counters);
    assert_eq!((counters.published.get(), counters.history_channels.get()), (7, 1));
}

#[test]
fn what_is_too_long_is_neither_sent_nor_kept() {
    let mut bench = Bench::with_history(None, 10, &[]);
    let id = bench.open();
    let call = |payload: &str| {
        format!("FCALL corecast_publish 2 corecast:{{a}} corecast:clock a 5 1000 {payload}\r\n")
    };
    assert_eq!(bench.ask(id, call("12345678901")), "-ERR payload is longer than 10 bytes\r\n");
    assert_eq!(bench.ask(id, "XLEN corecast:{a}\r\n"), ":0\r\n");
    assert!(bench.ask(id, call("1234567890")).starts_with('$'));
}
