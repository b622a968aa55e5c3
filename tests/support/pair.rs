//! The embedded broker beside a real redis-server: the same bytes to both, and the same from both.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::broker::{Broker, Connection};
use super::clock::Deadline;
use super::redis::Redis;

/// How long bytes may be on their way on a busy machine.
const LATE: Duration = Duration::from_secs(5);

/// One of the two that are compared, and the connections of one script to it.
struct Server {
    connections: Vec<Connection>,
    control: Connection,
    /// Ids of events that it has given, in the order in which they were first seen.
    ids: Vec<String>,
}

impl Server {
    fn new(address: SocketAddr, connections: usize) -> Self {
        Self {
            connections: (0..connections).map(|_| Connection::open(address)).collect(),
            control: Connection::open(address),
            ids: Vec::new(),
        }
    }

    /// Returns once everything that was sent before has been executed. Both servers serve
    /// connections in the order in which they became readable, 16 KiB or more at a time, and write
    /// before they serve again.
    fn settle(&mut self, sent: usize) {
        for _ in 0..sent / (16 * 1024) + 2 {
            self.control.send("PING\r\n");
            self.control.receive_until(|received| received.ends_with(b"\r\n"));
            self.control.received.clear();
        }
        self.connections.iter_mut().for_each(Connection::receive);
    }

    /// What each connection has received, without what differs on purpose: the version, the numbers
    /// of clients, a word that Redis 7.2 has added, and the ids of events, which are times.
    fn transcripts(&mut self) -> Vec<String> {
        let Self { connections, ids, .. } = self;
        let mut shown = |connection: &Connection| {
            let text = connection.received.escape_ascii().to_string();
            let text = with_numbered_ids(&text, ids);
            let text = text.replace("$6\\r\\n7.0.15", "$5\\r\\n7.2.0");
            let text = text.replace("the HELLO AUTH <user>", "the HELLO <proto> AUTH <user>");
            let mut parts = text.split("$2\\r\\nid\\r\\n:");
            let mut shown = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
                let _ = write!(shown, "$2\\r\\nid\\r\\n:N{rest}");
            }
            shown + if connection.closed { " closed" } else { "" }
        };
        connections.iter().map(&mut shown).collect()
    }
}

/// Both servers, with or without a password.
pub(crate) struct Pair {
    pub(crate) redis: Redis,
    pub(crate) broker: Broker,
}

impl Pair {
    pub(crate) fn start(password: Option<&str>) -> Self {
        let options = ["--proto-max-bulk-len", "1mb", "--requirepass", password.unwrap_or("")];
        Self { redis: Redis::start_original(&options), broker: Broker::start(password) }
    }

    /// Runs a script: which connection sends what. `@1@` in it is the first id that was seen.
    pub(crate) fn check(&self, script: &[(usize, Vec<u8>)]) {
        let connections = script.iter().map(|(connection, _)| connection + 1).max().unwrap_or(0);
        let redis = Server::new(self.redis.address().tcp(), connections);
        let broker = Server::new(self.broker.address, connections);
        let mut servers = [redis, broker];
        for (step, (connection, bytes)) in script.iter().enumerate() {
            for server in &mut servers {
                let bytes = with_real_ids(bytes, &server.ids);
                server.connections[*connection].send(&bytes);
                server.settle(bytes.len());
            }
            // Bytes of other connections may still be on their way.
            let deadline = Deadline::after(LATE);
            loop {
                let [expected, found] = servers.each_mut().map(Server::transcripts);
                if expected == found {
                    break;
                }
                assert!(
                    deadline.left().is_some(),
                    "step {step}, {connection} < {}\nredis:  {expected:#?}\nbroker: {found:#?}",
                    bytes.escape_ascii()
                );
                for server in &mut servers {
                    server.connections.iter_mut().for_each(Connection::receive);
                }
            }
            for connection in servers.iter_mut().flat_map(|server| &mut server.connections) {
                connection.received.clear();
            }
        }
    }

    /// Runs a script of lines `N command`, each of which connection N sends as a typed line.
    pub(crate) fn check_lines(&self, script: &str) {
        let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
        let steps = lines.map(|line| {
            let (connection, command) = line.split_once(' ').unwrap_or((line, ""));
            (connection.parse().unwrap(), format!("{command}\r\n").into_bytes())
        });
        self.check(&steps.collect::<Vec<_>>());
    }
}

/// Replaces each id, with its length if it is a whole string, by its number in `ids`, to which new
/// ones are added.
fn with_numbered_ids(text: &str, ids: &mut Vec<String>) -> String {
    let mut shown = String::new();
    let mut rest = text;
    // Times of day have had 13 digits since 2001, and nothing else in the tests has.
    while let Some((start, end)) = find_id(rest) {
        let id = &rest[start..end];
        let number = ids.iter().position(|known| known == id).unwrap_or_else(|| {
            ids.push(id.to_owned());
            ids.len() - 1
        });
        let length = format!("${}\\r\\n", id.len());
        let before = &rest[..start];
        shown.push_str(before.strip_suffix(&length).unwrap_or(before));
        let _ = write!(shown, "@{}@", number + 1);
        rest = &rest[end..];
    }
    shown + rest
}

/// Where the first id is.
fn find_id(text: &str) -> Option<(usize, usize)> {
    let hyphens = text.match_indices('-').map(|(position, _)| position);
    let mut ids = hyphens.filter_map(|hyphen| {
        let is_digit = |character: char| character.is_ascii_digit();
        // An envelope's NUL is shown as digits too.
        let digits = hyphen - text[..hyphen].trim_end_matches(is_digit).len();
        let seq = text[hyphen + 1..].len() - text[hyphen + 1..].trim_start_matches(is_digit).len();
        (digits >= 13 && seq > 0).then(|| (hyphen - 13, hyphen + 1 + seq))
    });
    ids.next()
}

/// Replaces `@1@` by the first of the ids, and so on.
fn with_real_ids(bytes: &[u8], ids: &[String]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    let mut text = text.to_owned();
    for (number, id) in (1..).zip(ids) {
        text = text.replace(&format!("@{number}@"), id);
    }
    text.into_bytes()
}
