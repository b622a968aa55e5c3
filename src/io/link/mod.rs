//! The link of one worker to Redis: one connection that subscribes, and is found out when it dies.
//!
//! It has no task of its own. The worker's reactor tells it that its socket is ready, the worker's
//! tick that time has passed; it tells its worker what happened through [`Upstream`].
//!
//! A link waits, looks for its Redis, or has a session: a connection, with what was asked and not
//! yet answered on it. When a session ends, everything on it ends; the link waits and starts anew.

mod commands;
mod connection;
mod error;
mod history;
mod proof;
mod session;
#[cfg(test)]
mod tests;
mod transport;

use std::net::SocketAddr;
use std::time::Instant;

use self::commands::Commands;
use self::connection::{Connection, Locating};
pub use self::error::LinkError;
use self::history::Reader;
use self::session::{Identity, Session};
use crate::bytes::history::{Clock, EventId, Newest, Page};
use crate::ground::config::RedisEndpoint;
use crate::ground::ids::ChannelId;
use crate::ground::limits::{LINK_DEADLINE, LINK_RETRY_MAX, LINK_RETRY_MIN};
use crate::io::prober::{ProbeLine, place_number};
use crate::io::reactor::Reactor;
use crate::io::redis::{Location, Redis};
use crate::state::recent::HistoryRead;
use crate::state::streams::ClockWish;

/// What a link tells its worker.
pub trait Upstream {
    /// The link speaks; everything that is needed may be asked of it.
    fn link_up(&mut self, protocol: Protocol);
    /// Everything that was asked when the link came up has been answered, and what is published
    /// arrives. Told again after [`Self::link_unproven`].
    fn link_proven(&mut self);
    /// The link stands, but nothing proves any more that what is published arrives.
    fn link_unproven(&mut self);
    /// Redis does not let us receive probes: PING has to do as proof.
    fn unprobed(&mut self, error: &[u8]);
    /// The link is gone, and every subscription with it. Also told when an attempt to connect
    /// fails.
    fn link_down(&mut self, error: &LinkError, was_up: bool);
    fn message(&mut self, channel: &[u8], payload: &[u8]);
    /// A message longer than `--max-event-bytes` was thrown away, but for its start.
    fn oversize(&mut self, channel: &[u8], start: &[u8]);
    fn subscribed(&mut self, channel: &[u8]);
    /// Redis does not let us subscribe to this channel now.
    fn refused(&mut self, channel: ChannelId, error: &[u8]);
    /// Everything that was asked when the link came up has been answered.
    fn link_settled(&mut self);
    /// The newest id of events that are kept, the time of Redis, and what was noted of events that
    /// are not kept. `None`: none was ever kept.
    fn clock(
        &mut self,
        clock: Option<Clock>,
        now_ms: u64,
        marks: &[(EventId, &[u8])],
        wish: ClockWish,
    );
    /// Redis does not tell it.
    fn clock_refused(&mut self, wish: ClockWish, error: &[u8]);
    /// A page of a channel's history.
    fn page(&mut self, read: HistoryRead, page: &Page<'_>);
    /// The ids of a channel's newest events; `None`: there are none.
    fn index(&mut self, read: HistoryRead, newest: Option<Newest>);
    /// Redis does not tell a page, or those ids.
    fn read_refused(&mut self, read: HistoryRead, error: &[u8]);
    /// The newest event of each channel; `None`: it has none.
    fn newest(&mut self, newest: Vec<(ChannelId, Option<Newest>)>);
    /// Redis does not tell those.
    fn newest_refused(&mut self, channels: Vec<ChannelId>, error: &[u8]);
    /// Redis has noted the oldest of the channels that it was to note, or not.
    fn mark_answered(&mut self, error: Option<&[u8]>);
    /// Redis does not let us load the function that publishes events to be kept.
    fn function_refused(&mut self, error: &[u8]);
    /// What INFO memory says.
    fn memory(&mut self, text: &[u8]);
}

/// Version of the Redis protocol that a link speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// How far a link is, as it is shown to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Down = 0,
    Connecting = 1,
    Greeting = 2,
    /// Up, but nothing proves that what is published arrives.
    Unproven = 3,
    Proven = 4,
}

/// A link, up or on its way there.
#[derive(Debug)]
pub struct Link {
    redis: Redis,
    identity: Identity,
    payload_bytes_max: usize,
    line: ProbeLine,
    state: State,
    /// Attempts since the link was last healthy.
    attempts: u32,
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Locating {
        locating: Locating,
        since: Instant,
    },
    Connected {
        session: Box<Session>,
        /// Where, if it can be elsewhere tomorrow.
        place: Option<Place>,
    },
}

/// Where a master was when the link was made.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u32,
    /// How often the prober had asked before.
    sightings: u32,
}

impl Link {
    #[must_use]
    pub fn new(
        redis: Redis,
        name: String,
        payload_bytes_max: usize,
        line: ProbeLine,
        now: Instant,
    ) -> Self {
        Self {
            identity: Identity::new(&redis, name),
            redis,
            payload_bytes_max,
            line,
            state: State::Waiting { until: now },
            attempts: 0,
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(&self.state, State::Connected { session, .. } if session.is_up())
    }

    #[must_use]
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::Waiting { .. } => Stage::Down,
            State::Locating { .. } => Stage::Connecting,
            State::Connected { session, .. } => session.stage(),
        }
    }

    /// When something that was published arrived last on the connection that stands.
    #[must_use]
    pub fn proven_at(&self) -> Option<Instant> {
        match &self.state {
            State::Connected { session, .. } => session.proven_at(),
            State::Waiting { .. } | State::Locating { .. } => None,
        }
    }

    /// Subscribes to channels, one command for all. The link must be up.
    pub fn subscribe(&mut self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>) {
        debug_assert!(self.is_up());
        if let State::Connected { session, .. } = &mut self.state {
            session.subscribe(channels, names);
        }
    }

    /// Ends subscriptions, one command for all.
    pub fn unsubscribe(&mut self, names: &[Vec<u8>]) {
        if let State::Connected { session, .. } = &mut self.state {
            session.unsubscribe(names);
        }
    }

    /// Asks for a sign of life; its answer comes after those to everything asked before.
    pub fn ping(&mut self, now: Instant) {
        if let State::Connected { session, .. } = &mut self.state {
            session.ping(now);
        }
    }

    /// Asks for the newest id of events that are kept, and for what was noted after an id.
    pub fn read_clock(&mut self, wish: ClockWish, marks_after: EventId) {
        if let Some((commands, _)) = self.commands() {
            commands.read_clock(wish, marks_after);
        }
    }

    /// Asks for something of a channel's history.
    pub fn read_history(&mut self, read: HistoryRead, channel: &[u8], event_bytes_max: usize) {
        if let Some((commands, reader)) = self.commands() {
            reader.read(read, channel.to_vec(), event_bytes_max, commands);
        }
    }

    /// Asks for the newest event of each channel.
    pub fn read_newest(&mut self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>) {
        if let Some((commands, reader)) = self.commands() {
            reader.read_newest(channels, names, commands);
        }
    }

    /// Notes that a channel has events beside those that are kept.
    pub fn write_mark(&mut self, channel: &[u8]) {
        if let Some((commands, _)) = self.commands() {
            commands.write_mark(channel);
        }
    }

    /// Begins the clock of a Redis that has none yet.
    pub fn start_clock(&mut self, now_ms: u64, ttl_ms: u64) {
        if let Some((commands, _)) = self.commands() {
            commands.start_clock(now_ms, ttl_ms);
        }
    }

    /// Loads the function that publishes events to be kept, and asks whether they will be.
    pub fn prepare_history(&mut self) {
        if let Some((commands, _)) = self.commands() {
            commands.load_function();
            commands.ask_memory();
        }
    }

    /// Gives the connection up.
    pub fn give_up(
        &mut self,
        error: LinkError,
        now: Instant,
        reactor: &Reactor,
        upstream: &mut impl Upstream,
    ) {
        self.check(Err(error), now, reactor, upstream);
    }

    fn commands(&mut self) -> Option<(&mut Commands, &mut Reader)> {
        match &mut self.state {
            State::Connected { session, .. } => session.commands(),
            State::Waiting { .. } | State::Locating { .. } => None,
        }
    }

    /// Closes the connection without a word to anybody.
    pub fn abandon(&mut self) {
        if let State::Connected { session, .. } = &self.state {
            self.state = State::Waiting { until: session.since };
        }
    }

    /// The socket is ready: reads, bounded, and writes.
    pub fn on_ready(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        let State::Connected { session, .. } = &mut self.state else { return };
        let went = session
            .on_ready(now, &self.identity, self.payload_bytes_max, upstream)
            .and_then(|()| session.flush(reactor));
        self.check(went, now, reactor, upstream);
    }

    /// Time has passed: connects again, asks for a sign of life, gives up.
    pub fn on_tick(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        let went = match &mut self.state {
            State::Waiting { until } if now < *until => return,
            State::Waiting { .. } => self.start(now, reactor),
            State::Locating { locating, .. } if locating.is_finished() => {
                self.connect_located(now, reactor)
            }
            State::Locating { since, .. } if now.duration_since(*since) >= LINK_DEADLINE => {
                Err(LinkError::Silent("where it is"))
            }
            State::Locating { .. } => return,
            State::Connected { place: Some(place), .. } if place.is_left(&self.line) => {
                Err(LinkError::Moved)
            }
            State::Connected { session, .. } => {
                if session.is_healthy(now) {
                    self.attempts = 0;
                }
                session
                    .on_tick(now, &self.identity, self.payload_bytes_max, upstream)
                    .and_then(|()| session.flush(reactor))
            }
        };
        self.check(went, now, reactor, upstream);
    }

    /// Writes what is to be written, and watches for room if the socket does not take it all.
    pub fn flush(&mut self, now: Instant, reactor: &Reactor, upstream: &mut impl Upstream) {
        if let State::Connected { session, .. } = &mut self.state {
            let went = session.flush(reactor);
            self.check(went, now, reactor, upstream);
        }
    }

    /// Starts an attempt.
    fn start(&mut self, now: Instant, reactor: &Reactor) -> Result<(), LinkError> {
        self.attempts = self.attempts.saturating_add(1);
        match known_location(&self.redis.address.endpoint) {
            Some(location) => self.connect(&location, now, reactor),
            None => {
                let locating = Locating::start(&self.redis).map_err(LinkError::Connect)?;
                self.state = State::Locating { locating, since: now };
                Ok(())
            }
        }
    }

    fn connect_located(&mut self, now: Instant, reactor: &Reactor) -> Result<(), LinkError> {
        let waiting = State::Waiting { until: now };
        let State::Locating { locating, .. } = std::mem::replace(&mut self.state, waiting) else {
            return Ok(());
        };
        self.connect(&locating.location()?, now, reactor)
    }

    fn connect(
        &mut self,
        location: &Location,
        now: Instant,
        reactor: &Reactor,
    ) -> Result<(), LinkError> {
        let (attempt, tls) = (self.attempts as usize, self.redis.tls.as_ref());
        let connection = Connection::start(location, attempt, tls, reactor)?;
        let place = self
            .redis
            .must_be_master()
            .then(|| Place { number: place_number(location), sightings: self.line.sighting().0 });
        let session = Box::new(Session::new(connection, self.line.clone(), now));
        self.state = State::Connected { session, place };
        Ok(())
    }

    /// If something went wrong, gives the connection up, and plans the next.
    fn check(
        &mut self,
        went: Result<(), LinkError>,
        now: Instant,
        reactor: &Reactor,
        upstream: &mut impl Upstream,
    ) {
        let Err(error) = went else { return };
        let ceiling = LINK_RETRY_MIN
            .saturating_mul(1 << self.attempts.min(16))
            .clamp(LINK_RETRY_MIN, LINK_RETRY_MAX);
        let until = now + ceiling.mul_f64(fastrand::f64());
        let was_up = self.is_up();
        if let State::Connected { session, .. } =
            std::mem::replace(&mut self.state, State::Waiting { until })
        {
            session.forget(reactor);
        }
        upstream.link_down(&error, was_up);
    }
}

impl Place {
    /// Whether the master has been seen elsewhere since.
    fn is_left(self, line: &ProbeLine) -> bool {
        let (sightings, number) = line.sighting();
        // The first one since may have been under way when the link was made.
        sightings.wrapping_sub(self.sightings) >= 2 && number != self.number
    }
}

/// Where a Redis is, if nobody has to be asked.
fn known_location(endpoint: &RedisEndpoint) -> Option<Location> {
    match endpoint {
        RedisEndpoint::Unix(path) => Some(Location::Unix(path.clone())),
        RedisEndpoint::Tcp { host, port } => {
            let address = SocketAddr::new(host.parse().ok()?, *port);
            Some(Location::Tcp { host: host.clone(), addresses: vec![address] })
        }
        RedisEndpoint::Sentinel(_) => None,
    }
}
