//! The life of one connection to Redis: connecting, greeting, up. It ends with an error, and what
//! was asked on it ends with it.

use std::time::{Duration, Instant};

use super::commands::{Commands, Sent, Settled};
use super::connection::{Connection, Input, Item};
use super::history::Reader;
use super::proof::{Proof, Step};
use super::transport::READ_BYTES;
use super::{LinkError, Protocol, Stage, Upstream};
use crate::bytes::resp::{Incoming, Reply, Value};
use crate::ground::config::{RedisAddress, Secret};
use crate::ground::ids::ChannelId;
use crate::ground::limits::{
    LINK_BEHIND, LINK_DEADLINE, LINK_PING_AFTER, LINK_READ_BYTES_MAX, RESP_BULK_BYTES_SPARE,
};
use crate::io::prober::ProbeLine;
use crate::io::reactor::Reactor;
use crate::io::redis::Redis;
use crate::sys::socket::Received;

/// As whom a link speaks.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    /// Name of the connection, as CLIENT LIST shows it.
    pub(super) name: String,
    /// Whether the peer has to be a master.
    pub(super) of_master: bool,
    /// Channels know no databases, but what is kept of them is in one.
    database: u32,
}

impl Identity {
    pub(super) fn new(redis: &Redis, name: String) -> Self {
        let RedisAddress { username, password, database, .. } = &redis.address;
        let of_master = redis.must_be_master();
        let (username, password) = (username.clone(), password.clone());
        Self { username, password, name, of_master, database: *database }
    }
}

#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    commands: Commands,
    proof: Proof,
    phase: Phase,
    pub(super) reader: Reader,
    /// When a turn last ended with more to read.
    behind: Option<Instant>,
    asked_again: Again,
    /// When the phase began.
    pub(super) since: Instant,
}

#[derive(Debug)]
enum Phase {
    Connecting,
    Greeting,
    Up {
        heard: Instant,
        pinged: Option<Instant>,
        /// Everything that was asked when the link came up has been answered.
        settled: bool,
    },
}

/// Whether channels were asked for again, each alone, behind the PING whose answer was to say that
/// all have been answered: then another PING is to say so. Once: who comes later is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    No,
    Yes,
    Pinged,
}

/// A link that held for so long was healthy: the next loss is a new story.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

impl Session {
    pub(super) fn new(connection: Connection, line: ProbeLine, now: Instant) -> Self {
        let (commands, proof) = (Commands::default(), Proof::new(line));
        Self {
            connection,
            commands,
            proof,
            phase: Phase::Connecting,
            reader: Reader::default(),
            behind: None,
            asked_again: Again::No,
            since: now,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.is_up() && now.duration_since(self.since) >= HEALTHY_AFTER
    }

    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Connecting => Stage::Connecting,
            Phase::Greeting => Stage::Greeting,
            Phase::Up { .. } if self.proof.is_proven() => Stage::Proven,
            Phase::Up { .. } => Stage::Unproven,
        }
    }

    /// When something that was published arrived last.
    pub(super) fn proven_at(&self) -> Option<Instant> {
        self.proof.last()
    }

    pub(super) fn subscribe(&mut self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>) {
        debug_assert!(self.is_up());
        self.commands.subscribe(channels, names);
    }

    pub(super) fn unsubscribe(&mut self, names: &[Vec<u8>]) {
        if self.is_up() && !names.is_empty() {
            self.commands.unsubscribe(names);
        }
    }

    /// The commands of a session that is up, and how it reads history.
    pub(super) fn commands(&mut self) -> Option<(&mut Commands, &mut Reader)> {
        self.is_up().then_some((&mut self.commands, &mut self.reader))
    }

    /// Asks for a sign of life; its answer comes after those to everything asked before.
    pub(super) fn ping(&mut self, now: Instant) {
        if let Phase::Up { pinged, .. } = &mut self.phase {
            *pinged = Some(now);
            self.commands.push(&[b"PING"], Sent::Ping);
        }
    }

    /// The socket is ready: greets, or reads, bounded.
    ///
    /// # Errors
    /// Why the session has ended.
    pub(super) fn on_ready(
        &mut self,
        now: Instant,
        identity: &Identity,
        payload_bytes_max: usize,
        upstream: &mut impl Upstream,
    ) -> Result<(), LinkError> {
        match self.phase {
            Phase::Connecting => {
                self.connection.result().map_err(LinkError::Connect)?;
                self.enter(Phase::Greeting, now);
                self.greet(identity);
                Ok(())
            }
            Phase::Greeting | Phase::Up { .. } => {
                self.read(now, identity, payload_bytes_max, upstream)
            }
        }
    }

    /// Time has passed: asks for a sign of life, or finds that there was none.
    ///
    /// # Errors
    /// What has stayed silent for too long.
    pub(super) fn on_tick(
        &mut self,
        now: Instant,
        identity: &Identity,
        payload_bytes_max: usize,
        upstream: &mut impl Upstream,
    ) -> Result<(), LinkError> {
        let Phase::Up { settled, .. } = self.phase else {
            return self.silence(now).map_or(Ok(()), Err);
        };
        let mut step = if settled { self.proof.on_tick(now) } else { Step::Nothing };
        if step == Step::Lost || self.silence(now).is_some() {
            // It may be us who slept: what is awaited may have arrived meanwhile.
            self.read(now, identity, payload_bytes_max, upstream)?;
            step = self.proof.on_tick(now);
        }
        if let Some(error) = self.silence(now) {
            return Err(error);
        }
        let Phase::Up { heard, pinged, .. } = self.phase else { return Ok(()) };
        match step {
            Step::Lost => return Err(LinkError::Undelivered),
            Step::Unproven => upstream.link_unproven(),
            Step::Ping | Step::Nothing => {}
        }
        let is_quiet = now.duration_since(heard) >= LINK_PING_AFTER;
        if pinged.is_none() && (is_quiet || step == Step::Ping) {
            self.ping(now);
        }
        Ok(())
    }

    /// What has not answered in time.
    fn silence(&self, now: Instant) -> Option<LinkError> {
        let late = |since: Instant| now.duration_since(since) >= LINK_DEADLINE;
        match &self.phase {
            Phase::Connecting if late(self.since) => Some(LinkError::Silent("the connection")),
            Phase::Greeting if late(self.since) => Some(LinkError::Silent("HELLO")),
            // Answers come in order: while others arrive, that to PING is on its way.
            Phase::Up { heard, pinged: Some(pinged), .. } if late((*pinged).max(*heard)) => {
                Some(LinkError::Silent("PING"))
            }
            _ => None,
        }
    }

    /// Writes what is to be written, once somebody is there to read it.
    ///
    /// # Errors
    /// Why the session has ended.
    pub(super) fn flush(&mut self, reactor: &Reactor) -> Result<(), LinkError> {
        match self.phase {
            Phase::Connecting => Ok(()),
            Phase::Greeting | Phase::Up { .. } => {
                self.connection.send(self.commands.output(), reactor)
            }
        }
    }

    pub(super) fn forget(&self, reactor: &Reactor) {
        self.connection.forget(reactor);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    /// The connection stands: says who we are.
    fn greet(&mut self, identity: &Identity) {
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &identity.password {
            let username = identity.username.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", username.as_bytes(), password.as_bytes()]);
        }
        hello.extend([b"SETNAME", identity.name.as_bytes()]);
        self.commands.push(&hello, Sent::Hello);
    }

    /// The peer knows no HELLO: the same in the words of RESP2.
    fn greet_resp2(&mut self, identity: &Identity) {
        if let Some(password) = &identity.password {
            let mut auth: Vec<&[u8]> = vec![b"AUTH"];
            auth.extend(identity.username.as_deref().map(str::as_bytes));
            auth.push(password.as_bytes());
            self.commands.push(&auth, Sent::Auth);
        }
        if identity.of_master {
            self.commands.push(&[b"ROLE"], Sent::Role);
        }
        let set_name: [&[u8]; 3] = [b"CLIENT", b"SETNAME", identity.name.as_bytes()];
        self.commands.push(&set_name, Sent::SetName);
    }

    fn read(
        &mut self,
        now: Instant,
        identity: &Identity,
        payload_bytes_max: usize,
        upstream: &mut impl Upstream,
    ) -> Result<(), LinkError> {
        let bulk_bytes_max = payload_bytes_max.saturating_add(RESP_BULK_BYTES_SPARE);
        let mut total = 0;
        while total < LINK_READ_BYTES_MAX {
            let count = match self.connection.receive()? {
                Received::Bytes(count) => count,
                Received::Empty => break,
                Received::Closed if self.is_behind(now) => return Err(LinkError::Behind),
                Received::Closed => return Err(LinkError::Closed),
            };
            total += count;
            if let Phase::Up { heard, .. } = &mut self.phase {
                *heard = now;
            }
            let mut input: Input = std::mem::take(&mut self.connection.input);
            let mut arrived = false;
            input.take_in(payload_bytes_max, bulk_bytes_max, |item| {
                match item {
                    Item::Whole(Incoming::Message { channel, payload }) => {
                        arrived = true;
                        if channel != self.proof.channel {
                            upstream.message(channel, payload);
                        }
                    }
                    Item::Whole(incoming) => match self.commands.settle(incoming)? {
                        Settled::Subscribed(channel) => upstream.subscribed(channel),
                        Settled::Answered(sent, reply) => {
                            self.settle(sent, &reply, now, identity, upstream)?;
                        }
                        Settled::Nothing => {}
                    },
                    Item::Oversize { channel, start } => upstream.oversize(channel, start),
                }
                Ok(())
            })?;
            self.connection.input = input;
            if arrived {
                self.arrived(now, upstream);
            }
            if count < READ_BYTES {
                break;
            }
        }
        if total >= LINK_READ_BYTES_MAX {
            self.behind = Some(now);
        }
        self.connection.input.give_memory_back();
        Ok(())
    }

    /// Whether more arrives, or has just arrived, than could be read in a turn.
    fn is_behind(&self, now: Instant) -> bool {
        self.behind.is_some_and(|at| now.duration_since(at) < LINK_BEHIND)
    }

    /// Acts on the answer to a command.
    fn settle(
        &mut self,
        sent: Sent,
        reply: &Reply<'_>,
        now: Instant,
        identity: &Identity,
        upstream: &mut impl Upstream,
    ) -> Result<(), LinkError> {
        let error = match reply {
            Reply::Error(error) => Some(*error),
            _ => None,
        };
        match (sent, error) {
            (_, Some(error)) if error.starts_with(UNREADABLE) => return Err(refused(error)),
            (Sent::Hello, None) if identity.of_master && role_in_hello(reply) != MASTER => {
                return Err(LinkError::NotMaster);
            }
            (Sent::Role, None) if role(reply) != MASTER => return Err(LinkError::NotMaster),
            (Sent::Role, None) => {}
            (Sent::Hello, None) => self.set_up(Protocol::Resp3, now, identity, upstream),
            (Sent::Hello, Some(error)) if knows_no_hello(error) => self.greet_resp2(identity),
            (Sent::Hello | Sent::Auth | Sent::Role | Sent::Select, Some(error)) => {
                return Err(refused(error));
            }
            (Sent::Auth | Sent::Select, None) => {}
            // A name is a convenience; a server that knows none serves all the same.
            (Sent::SetName, _) => self.set_up(Protocol::Resp2, now, identity, upstream),
            (Sent::Ping, None) if *reply != Reply::Pong => return Err(LinkError::OutOfStep),
            (Sent::Ping, error) => {
                let Phase::Up { pinged, settled, .. } = &mut self.phase else { return Ok(()) };
                *pinged = None;
                match error {
                    // A script takes its time; Redis lives, and the subscriptions stand.
                    Some(error) if *settled && error.starts_with(b"BUSY ") => {}
                    Some(error) => return Err(refused(error)),
                    None if self.asked_again == Again::Yes => {
                        self.asked_again = Again::Pinged;
                        self.ping(now);
                    }
                    None => {
                        if !std::mem::replace(settled, true) {
                            self.proof.begin(now);
                            upstream.link_settled();
                        }
                        if self.proof.ponged(now) {
                            upstream.link_proven();
                        }
                    }
                }
            }
            (Sent::SubscribeProbe, Some(error)) => {
                self.proof.forbid();
                upstream.unprobed(error);
            }
            (Sent::Subscribe { channels, names, .. }, Some(error)) => match *channels.as_slice() {
                [channel] => upstream.refused(channel, error),
                _ => self.ask_for_each(channels, names),
            },
            (Sent::Unsubscribe { .. }, Some(_)) => {}
            (Sent::History(asked), _) if !asked.allows(reply) => return Err(LinkError::OutOfStep),
            (Sent::History(asked), _) => {
                self.reader.settle(asked, reply, &mut self.commands, upstream);
            }
            (Sent::Subscribe { .. } | Sent::SubscribeProbe | Sent::Unsubscribe { .. }, None) => {
                return Err(LinkError::OutOfStep);
            }
        }
        Ok(())
    }

    /// One forbidden channel has failed them all: asks for each alone.
    fn ask_for_each(&mut self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>) {
        for (channel, name) in channels.into_iter().zip(names) {
            self.subscribe(vec![channel], vec![name]);
        }
        let is_settled = matches!(self.phase, Phase::Up { settled: true, .. });
        if !is_settled && self.asked_again == Again::No {
            self.asked_again = Again::Yes;
        }
    }

    /// Something that was published has arrived.
    fn arrived(&mut self, now: Instant, upstream: &mut impl Upstream) {
        let is_settled = matches!(self.phase, Phase::Up { settled: true, .. });
        if is_settled && self.proof.arrived(now) {
            upstream.link_proven();
        }
    }

    fn set_up(
        &mut self,
        protocol: Protocol,
        now: Instant,
        identity: &Identity,
        upstream: &mut impl Upstream,
    ) {
        self.enter(Phase::Up { heard: now, pinged: None, settled: false }, now);
        if identity.database != 0 {
            let database = identity.database.to_string();
            self.commands.push(&[b"SELECT", database.as_bytes()], Sent::Select);
        }
        // Alone, so that whoever may not do it is refused nothing else.
        self.commands.push(&[b"SUBSCRIBE", &self.proof.channel], Sent::SubscribeProbe);
        upstream.link_up(protocol);
    }
}

/// Whether the answer to HELLO says that the server speaks RESP2 only.
fn knows_no_hello(error: &[u8]) -> bool {
    let error = String::from_utf8_lossy(error).to_ascii_lowercase();
    error.starts_with("noproto") || error.contains("unknown command")
}

const MASTER: Option<&[u8]> = Some(b"master");

/// What Redis answers, before it closes the connection, to what was spoiled on the way: whatever
/// had been asked, this is no answer to it.
const UNREADABLE: &[u8] = b"ERR Protocol error";

/// What the answer to HELLO says that the server is.
fn role_in_hello<'a>(reply: &'a Reply<'_>) -> Option<&'a [u8]> {
    let Reply::Other(Value::Map(pairs)) = reply else { return None };
    pairs.iter().find_map(|pair| match pair {
        (Value::String(b"role"), Value::String(role)) => Some(*role),
        _ => None,
    })
}

/// What the answer to ROLE says that the server is.
fn role<'a>(reply: &'a Reply<'_>) -> Option<&'a [u8]> {
    let Reply::Other(Value::Array(parts)) = reply else { return None };
    match parts.first() {
        Some(Value::String(role)) => Some(role),
        _ => None,
    }
}

fn refused(error: &[u8]) -> LinkError {
    LinkError::Refused(String::from_utf8_lossy(error).into_owned())
}
