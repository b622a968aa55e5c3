//! The link of one worker to Redis: one connection that subscribes, and is found out when it dies.
//!
//! It has no task of its own. The worker's reactor tells it that its socket is ready, the worker's
//! tick that time has passed; it tells its worker what happened through [`Upstream`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::bytes::resp::{self, Incoming, Parsed, ProtocolError, Reply};
use crate::ground::config::{RedisAddress, RedisEndpoint};
use crate::ground::ids::ChannelId;
use crate::ground::limits::{
    LINK_DEADLINE, LINK_PING_AFTER, LINK_READ_BYTES_MAX, LINK_RETRY_MAX, LINK_RETRY_MIN,
};
use crate::io::reactor::{Reactor, Token};
use crate::sys::socket;

/// What a link tells its worker.
pub trait Upstream {
    /// The link speaks; everything that is needed may be asked of it.
    fn link_up(&mut self, protocol: Protocol);
    /// Everything that was asked when the link came up has been answered.
    fn link_proven(&mut self);
    /// The link is gone, and every subscription with it. Also told when an attempt to connect
    /// fails.
    fn link_down(&mut self, error: &LinkError, was_up: bool);
    fn message(&mut self, channel: &[u8], payload: &[u8]);
    /// A message longer than `--max-event-bytes` was thrown away.
    fn oversize(&mut self, channel: &[u8]);
    fn subscribed(&mut self, channel: &[u8]);
    /// Redis does not let us subscribe to this channel now.
    fn refused(&mut self, channel: ChannelId, error: &[u8]);
}

/// Version of the Redis protocol that a link speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// Why a link is down.
#[derive(Debug)]
pub enum LinkError {
    Resolve(io::Error),
    Connect(io::Error),
    /// Redis closed the connection, or it broke.
    Closed,
    Protocol(ProtocolError),
    /// An answer that no command of ours asked for.
    OutOfStep,
    /// Redis answered the greeting with this error.
    Refused(String),
    /// No answer in time to what is named here.
    Silent(&'static str),
}

/// A link, up or on its way there.
#[derive(Debug)]
pub struct Link {
    address: RedisAddress,
    /// Name of the connection, as CLIENT LIST shows it.
    name: String,
    payload_bytes_max: usize,
    state: State,
    /// Attempts since the link was last healthy.
    attempts: u32,
    input: Vec<u8>,
    /// Bytes that the item at the start of `input` takes at least.
    needed: usize,
    /// Bytes of an oversize payload still to be thrown away.
    skip: u64,
    output: Vec<u8>,
    /// Whether the reactor tells when the socket has room for more.
    awaits_room: bool,
    /// Commands without an answer yet, oldest first.
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant },
    Resolving { thread: JoinHandle<io::Result<Vec<SocketAddr>>>, since: Instant },
    Connecting { socket: OwnedFd, since: Instant },
    Greeting { socket: OwnedFd, since: Instant },
    Up { socket: OwnedFd, heard: Instant, pinged: Option<Instant>, proven: bool, since: Instant },
}

/// A command whose answer is to come.
#[derive(Debug)]
enum Sent {
    Hello,
    Auth,
    SetName,
    Ping,
    Subscribe { channels: Vec<ChannelId>, names: Vec<Vec<u8>>, acknowledged: usize },
    Unsubscribe { left: usize },
}

/// Room made for each read.
const READ_BYTES: usize = 64 * 1024;

/// A link that held for so long was healthy: the next loss is a new story.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

impl Link {
    #[must_use]
    pub fn new(
        address: RedisAddress,
        name: String,
        payload_bytes_max: usize,
        now: Instant,
    ) -> Self {
        Self {
            address,
            name,
            payload_bytes_max,
            state: State::Waiting { until: now },
            attempts: 0,
            input: Vec::new(),
            needed: 0,
            skip: 0,
            output: Vec::new(),
            awaits_room: false,
            sent: VecDeque::new(),
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Subscribes to channels, one command for all.
    pub fn subscribe(&mut self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>) {
        debug_assert!(self.is_up() && channels.len() == names.len() && !channels.is_empty());
        self.command("SUBSCRIBE", &names);
        self.sent.push_back(Sent::Subscribe { channels, names, acknowledged: 0 });
    }

    /// Ends subscriptions, one command for all.
    pub fn unsubscribe(&mut self, names: &[Vec<u8>]) {
        if self.is_up() && !names.is_empty() {
            self.command("UNSUBSCRIBE", names);
            self.sent.push_back(Sent::Unsubscribe { left: names.len() });
        }
    }

    /// Asks for a sign of life; its answer comes after those to everything asked before.
    pub fn ping(&mut self, now: Instant) {
        if let State::Up { pinged, .. } = &mut self.state {
            *pinged = Some(now);
            resp::encode_command(&[b"PING"], &mut self.output);
            self.sent.push_back(Sent::Ping);
        }
    }

    /// Closes the connection without a word to anybody.
    pub fn abandon(&mut self) {
        if let State::Connecting { since, .. }
        | State::Greeting { since, .. }
        | State::Up { since, .. } = self.state
        {
            self.state = State::Waiting { until: since };
        }
    }

    /// The socket is ready: reads, bounded, and writes.
    pub fn on_ready(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        let went = match &self.state {
            State::Connecting { socket, .. } => match socket::connect_result(socket) {
                Ok(()) => self.greet(now),
                Err(error) => Err(LinkError::Connect(error)),
            },
            State::Greeting { .. } | State::Up { .. } => self.read(now, upstream),
            State::Waiting { .. } | State::Resolving { .. } => Ok(()),
        };
        match went {
            Ok(()) => self.flush(now, reactor, upstream),
            Err(error) => self.fail(now, &error, reactor, upstream),
        }
    }

    /// Time has passed: connects again, asks for a sign of life, gives up.
    pub fn on_tick(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        let late = |since: Instant| now.duration_since(since) >= LINK_DEADLINE;
        let error = match &mut self.state {
            State::Waiting { until } if now < *until => return,
            State::Waiting { .. } => return self.connect(now, reactor, upstream),
            State::Resolving { thread, .. } if thread.is_finished() => {
                return self.connect_resolved(now, reactor, upstream);
            }
            State::Resolving { since, .. } if late(*since) => {
                Some(LinkError::Silent("the resolving of its name"))
            }
            State::Connecting { since, .. } if late(*since) => {
                Some(LinkError::Silent("the connection"))
            }
            State::Greeting { since, .. } if late(*since) => Some(LinkError::Silent("HELLO")),
            // Answers come in order: while others arrive, that to PING is on its way.
            State::Up { heard, pinged: Some(pinged), .. } if late((*pinged).max(*heard)) => {
                Some(LinkError::Silent("PING"))
            }
            State::Up { heard, pinged, since, .. } => {
                if now.duration_since(*since) >= HEALTHY_AFTER {
                    self.attempts = 0;
                }
                if pinged.is_none() && now.duration_since(*heard) >= LINK_PING_AFTER {
                    self.ping(now);
                    return self.flush(now, reactor, upstream);
                }
                None
            }
            State::Resolving { .. } | State::Connecting { .. } | State::Greeting { .. } => None,
        };
        if let Some(error) = error {
            self.fail(now, &error, reactor, upstream);
        }
    }

    /// Writes what is to be written, and watches for room if the socket does not take it all.
    pub fn flush(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        let (State::Greeting { socket, .. } | State::Up { socket, .. }) = &self.state else {
            return;
        };
        let mut sent = 0;
        while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            match socket::send(socket, rest) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(_) => return self.fail(now, &LinkError::Closed, reactor, upstream),
            }
        }
        self.output.drain(..sent);
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        let awaits_room = !self.output.is_empty();
        if awaits_room != self.awaits_room {
            self.awaits_room = awaits_room;
            if let Err(error) = reactor.watch_both(socket, Token::Link, awaits_room) {
                self.fail(now, &LinkError::Connect(error), reactor, upstream);
            }
        }
    }

    fn connect(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        self.attempts = self.attempts.saturating_add(1);
        let connecting = match &self.address.endpoint {
            RedisEndpoint::Unix(path) => socket::connect_unix(path),
            RedisEndpoint::Tcp { host, port } => match host.parse() {
                Ok(address) => socket::connect_tcp(SocketAddr::new(address, *port)),
                Err(_) => {
                    // A name: asking for its address may take seconds, which streams can't wait.
                    let (host, port) = (host.clone(), *port);
                    let resolve =
                        move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
                    let thread = std::thread::Builder::new().name("resolve".to_owned());
                    match thread.spawn(resolve) {
                        Ok(thread) => {
                            self.state = State::Resolving { thread, since: now };
                            return;
                        }
                        Err(error) => Err(error),
                    }
                }
            },
        };
        self.start_connection(connecting, now, reactor, upstream);
    }

    fn connect_resolved(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        let waiting = State::Waiting { until: now };
        let State::Resolving { thread, .. } = std::mem::replace(&mut self.state, waiting) else {
            return;
        };
        let addresses = thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => return self.fail(now, &LinkError::Resolve(error), reactor, upstream),
        };
        // A name may stand for several addresses: each attempt takes the next.
        let turn = self.attempts as usize % addresses.len().max(1);
        let connecting = match addresses.get(turn) {
            Some(address) => socket::connect_tcp(*address),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        self.start_connection(connecting, now, reactor, upstream);
    }

    fn start_connection(
        &mut self,
        connecting: io::Result<OwnedFd>,
        now: Instant,
        reactor: &Reactor,
        upstream: &mut impl Upstream,
    ) {
        let watched = connecting.and_then(|socket| {
            reactor.watch_input(&socket, Token::Link)?;
            reactor.watch_both(&socket, Token::Link, true)?;
            Ok(socket)
        });
        match watched {
            Ok(socket) => {
                self.awaits_room = true;
                self.state = State::Connecting { socket, since: now };
            }
            Err(error) => self.fail(now, &LinkError::Connect(error), reactor, upstream),
        }
    }

    /// The connection stands: says who we are.
    fn greet(&mut self, now: Instant) -> Result<(), LinkError> {
        let waiting = State::Waiting { until: now };
        let State::Connecting { socket, .. } = std::mem::replace(&mut self.state, waiting) else {
            return Err(LinkError::OutOfStep);
        };
        self.state = State::Greeting { socket, since: now };
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.address.password {
            let username = self.address.username.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", username.as_bytes(), password.as_bytes()]);
        }
        hello.extend([b"SETNAME", self.name.as_bytes()]);
        resp::encode_command(&hello, &mut self.output);
        self.sent.push_back(Sent::Hello);
        Ok(())
    }

    /// The peer knows no HELLO: the same in the words of RESP2.
    fn greet_resp2(&mut self) {
        if let Some(password) = &self.address.password {
            let mut auth: Vec<&[u8]> = vec![b"AUTH"];
            auth.extend(self.address.username.as_deref().map(str::as_bytes));
            auth.push(password.as_bytes());
            resp::encode_command(&auth, &mut self.output);
            self.sent.push_back(Sent::Auth);
        }
        let set_name: [&[u8]; 3] = [b"CLIENT", b"SETNAME", self.name.as_bytes()];
        resp::encode_command(&set_name, &mut self.output);
        self.sent.push_back(Sent::SetName);
    }

    fn read(&mut self, now: Instant, upstream: &mut impl Upstream) -> Result<(), LinkError> {
        let mut total = 0;
        while total < LINK_READ_BYTES_MAX {
            let (State::Greeting { socket, .. } | State::Up { socket, .. }) = &self.state else {
                return Ok(());
            };
            self.input.reserve(READ_BYTES.max(self.needed.saturating_sub(self.input.len())));
            let count = match socket::receive_more(socket, &mut self.input) {
                socket::Received::Bytes(count) => count,
                socket::Received::Empty => break,
                socket::Received::Closed => return Err(LinkError::Closed),
            };
            total += count;
            if let State::Up { heard, .. } = &mut self.state {
                *heard = now;
            }
            let input = std::mem::take(&mut self.input);
            let consumed = self.take_in(&input, now, upstream)?;
            self.input = input;
            self.input.drain(..consumed);
            if count < READ_BYTES {
                break;
            }
        }
        if self.input.is_empty() {
            // A link at rest holds no buffer.
            self.input = Vec::new();
        }
        Ok(())
    }

    /// Takes in every whole item of the input. Returns how many bytes they took.
    fn take_in(
        &mut self,
        input: &[u8],
        now: Instant,
        upstream: &mut impl Upstream,
    ) -> Result<usize, LinkError> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len() as u64);
                self.skip -= skipped;
                // At most the length of the rest.
                consumed += usize::try_from(skipped).unwrap_or(rest.len());
                if self.skip > 0 {
                    return Ok(consumed);
                }
                continue;
            }
            if rest.len() < self.needed || rest.is_empty() {
                return Ok(consumed);
            }
            self.needed = 0;
            match resp::parse(rest, self.payload_bytes_max).map_err(LinkError::Protocol)? {
                Parsed::Partial { needed } => {
                    self.needed = needed;
                    return Ok(consumed);
                }
                Parsed::Oversize { channel, consumed: head, skip } => {
                    upstream.oversize(channel);
                    consumed += head;
                    self.skip = skip;
                }
                Parsed::Complete { incoming, consumed: length } => {
                    consumed += length;
                    match incoming {
                        Incoming::Message { channel, payload } => {
                            upstream.message(channel, payload);
                        }
                        other => self.settle(other, now, upstream)?,
                    }
                }
            }
        }
    }

    /// Matches an answer with the command it belongs to.
    fn settle(
        &mut self,
        incoming: Incoming<'_>,
        now: Instant,
        upstream: &mut impl Upstream,
    ) -> Result<(), LinkError> {
        match (incoming, self.sent.front_mut()) {
            (Incoming::Message { .. } | Incoming::Ignored, _) => {}
            (
                Incoming::Subscribed { channel },
                Some(Sent::Subscribe { channels, acknowledged, .. }),
            ) => {
                *acknowledged += 1;
                if *acknowledged == channels.len() {
                    self.sent.pop_front();
                }
                upstream.subscribed(channel);
            }
            (Incoming::Unsubscribed { .. }, Some(Sent::Unsubscribe { left })) => {
                *left -= 1;
                if *left == 0 {
                    self.sent.pop_front();
                }
            }
            (Incoming::Reply(reply), Some(_)) => return self.settle_reply(&reply, now, upstream),
            _ => return Err(LinkError::OutOfStep),
        }
        Ok(())
    }

    fn settle_reply(
        &mut self,
        reply: &Reply<'_>,
        now: Instant,
        upstream: &mut impl Upstream,
    ) -> Result<(), LinkError> {
        let error = match reply {
            Reply::Error(error) => Some(*error),
            _ => None,
        };
        let refused =
            |error: &[u8]| LinkError::Refused(String::from_utf8_lossy(error).into_owned());
        match (self.sent.pop_front(), error) {
            (Some(Sent::Hello), None) => self.set_up(Protocol::Resp3, now, upstream),
            (Some(Sent::Hello), Some(error)) if knows_no_hello(error) => self.greet_resp2(),
            (Some(Sent::Hello | Sent::Auth), Some(error)) => return Err(refused(error)),
            (Some(Sent::Auth), None) => {}
            // A name is a convenience; a server that knows none serves all the same.
            (Some(Sent::SetName), _) => self.set_up(Protocol::Resp2, now, upstream),
            (Some(Sent::Ping), error) => {
                let State::Up { pinged, proven, .. } = &mut self.state else { return Ok(()) };
                match error {
                    // A script takes its time; Redis lives, and the subscriptions stand.
                    Some(error) if *proven && error.starts_with(b"BUSY ") => {}
                    Some(error) => return Err(refused(error)),
                    None if !std::mem::replace(proven, true) => upstream.link_proven(),
                    None => {}
                }
                *pinged = None;
            }
            (Some(Sent::Subscribe { channels, names, .. }), Some(error)) => {
                match *channels.as_slice() {
                    [channel] => upstream.refused(channel, error),
                    // One forbidden channel fails them all: ask for each alone.
                    _ => channels
                        .into_iter()
                        .zip(names)
                        .for_each(|(channel, name)| self.subscribe(vec![channel], vec![name])),
                }
            }
            (Some(Sent::Unsubscribe { .. }), Some(_)) => {}
            (Some(Sent::Subscribe { .. } | Sent::Unsubscribe { .. }) | None, _) => {
                return Err(LinkError::OutOfStep);
            }
        }
        Ok(())
    }

    fn set_up(&mut self, protocol: Protocol, now: Instant, upstream: &mut impl Upstream) {
        let waiting = State::Waiting { until: now };
        if let State::Greeting { socket, .. } = std::mem::replace(&mut self.state, waiting) {
            self.state = State::Up { socket, heard: now, pinged: None, proven: false, since: now };
            upstream.link_up(protocol);
        }
    }

    /// Gives the connection up, and plans the next.
    fn fail(
        &mut self,
        now: Instant,
        error: &LinkError,
        reactor: &Reactor,
        upstream: &mut impl Upstream,
    ) {
        let ceiling = LINK_RETRY_MIN
            .saturating_mul(1 << self.attempts.min(16))
            .clamp(LINK_RETRY_MIN, LINK_RETRY_MAX);
        let until = now + ceiling.mul_f64(fastrand::f64());
        let old = std::mem::replace(&mut self.state, State::Waiting { until });
        let was_up = matches!(old, State::Up { .. });
        if let State::Connecting { socket, .. }
        | State::Greeting { socket, .. }
        | State::Up { socket, .. } = old
        {
            reactor.forget(&socket);
        }
        self.input = Vec::new();
        self.needed = 0;
        self.skip = 0;
        self.output = Vec::new();
        self.sent = VecDeque::new();
        upstream.link_down(error, was_up);
    }

    fn command(&mut self, name: &str, arguments: &[Vec<u8>]) {
        resp::encode_length(b'*', arguments.len() + 1, &mut self.output);
        resp::encode_bulk(name.as_bytes(), &mut self.output);
        arguments.iter().for_each(|argument| resp::encode_bulk(argument, &mut self.output));
    }
}

/// Whether the answer to HELLO says that the server speaks RESP2 only.
fn knows_no_hello(error: &[u8]) -> bool {
    let error = String::from_utf8_lossy(error).to_ascii_lowercase();
    error.starts_with("noproto") || error.contains("unknown command")
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "its name can't be resolved: {error}"),
            Self::Connect(error) => write!(f, "it can't be reached: {error}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Protocol(error) => write!(f, "it does not speak the Redis protocol: {error}"),
            Self::OutOfStep => f.write_str("it sent an answer that nothing had asked for"),
            Self::Refused(error) => write!(f, "it answered: {error}"),
            Self::Silent(what) => {
                write!(f, "no answer to {what} within {} s", LINK_DEADLINE.as_secs())
            }
        }
    }
}
