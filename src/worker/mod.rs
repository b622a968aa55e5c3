//! Floor 5: one core's server. It owns everything below and orders what happens.
//!
//! Three tasks run on the worker's runtime: one waits for the reactor and hands what is ready to
//! whom it concerns, one sends in slices, one ticks. Everything is in [`Worker`], which they borrow
//! in turn, never across an await.

mod core;
mod drain;
mod mailbox;
mod requests;
mod rest;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::bytes::format::Formats;
use crate::bytes::history::ENVELOPE_BYTES_MAX;
use crate::bytes::target::Routes;
use crate::ground::config::Config;
use crate::ground::ids::WorkerId;
use crate::ground::limits::{
    ACCEPTS_PER_TURN_MAX, CHANNELS_PER_NEWEST_MAX, CHANNELS_PER_SUBSCRIBE_MAX, LISTEN_BACKLOG,
    OPEN_WAIT, SENDS_PER_SLICE_MAX, TICK,
};
use crate::io::link::{Link, LinkError};
use crate::io::prober::ProbeLine;
use crate::io::reactor::{Reactor, Readiness, Token};
use crate::io::redis::Redis;
use crate::state::counters::{CloseReason, Counters};
use crate::sys::runtime::{DriverKind, Notify, Readable, Yield};
use crate::sys::{clock, raw, runtime, socket};

use self::core::Core;
pub use mailbox::Mailbox;
use rest::{Activity, Rest};

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub id: WorkerId,
    pub config: Arc<Config>,
    pub routes: Arc<Routes>,
    pub formats: Arc<Formats>,
    pub redis: Redis,
    pub probes: ProbeLine,
    pub driver: DriverKind,
    pub listeners: Vec<ListenerSetup>,
    pub capacity: Capacity,
    pub counters: Arc<Counters>,
    pub mailbox: Arc<Mailbox>,
}

/// How many connections fit.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Into this worker's descriptor table.
    pub worker: usize,
    /// Into the process, where that is less than into all workers together; then the counters of
    /// all workers tell how many there are. Read only to admit a stream, and never waited for.
    pub process: Option<(usize, Arc<[Arc<Counters>]>)>,
}

/// A public listener, from a worker's point of view.
#[derive(Clone, Debug)]
pub enum ListenerSetup {
    /// Each worker listens by itself (SO_REUSEPORT).
    Own(std::net::SocketAddr),
    /// `main` listens, and all workers take from its queue: unix sockets can't be shared otherwise.
    Shared(RawFd),
}

/// Connections beyond the capacity that are taken in order to be told to come back later.
const REFUSABLE_CONNECTIONS: usize = 64;

/// Runs a worker until it has drained.
///
/// # Errors
/// What keeps it from serving: its runtime, its listeners, its reactor.
pub fn run(setup: Setup) -> io::Result<()> {
    let driver = setup.driver;
    runtime::run(driver, serve(setup))?
}

async fn serve(setup: Setup) -> io::Result<()> {
    let worker = Worker::new(setup)?;
    let readable = Readable::new(worker.reactor.duplicate()?)?;
    let yielding = Yield::new()?;
    let worker = Rc::new(RefCell::new(worker));
    let _hang_up = HangUp(Rc::clone(&worker));
    let (work, end) = (Notify::default(), Notify::default());
    let failure = Rc::new(RefCell::new(None));

    let (w, n, e, f) = (Rc::clone(&worker), work.clone(), end.clone(), Rc::clone(&failure));
    runtime::spawn(async move {
        *f.borrow_mut() = watch(&w, readable, &n).await.err();
        e.raise();
    });
    let (w, n, e, f) = (Rc::clone(&worker), work.clone(), end.clone(), Rc::clone(&failure));
    runtime::spawn(async move {
        *f.borrow_mut() = send(&w, yielding, &n).await.err();
        e.raise();
    });
    let (w, n, e) = (Rc::clone(&worker), work, end.clone());
    runtime::spawn(async move {
        loop {
            runtime::sleep(TICK).await;
            if w.borrow_mut().tick() {
                e.raise();
            }
            n.raise();
        }
    });
    end.wait().await;
    failure.borrow_mut().take().map_or(Ok(()), Err)
}

/// Hands out what is ready, turn by turn.
async fn watch(worker: &RefCell<Worker>, mut readable: Readable, work: &Notify) -> io::Result<()> {
    loop {
        readable.wait().await?;
        worker.borrow_mut().turn()?;
        work.raise();
    }
}

/// Sends what there is to send, slice by slice.
async fn send(worker: &RefCell<Worker>, mut yielding: Yield, work: &Notify) -> io::Result<()> {
    // When the alarm for merged events rings, so that there is only one at a time.
    let mut alarm = None;
    loop {
        work.wait().await;
        while worker.borrow_mut().slice() {
            yielding.now().await?;
        }
        let merging = worker.borrow().merging_until();
        if let Some(due) = merging
            && alarm != merging
        {
            alarm = merging;
            let wait = due.saturating_duration_since(clock::now());
            let work = work.clone();
            runtime::spawn(async move {
                runtime::sleep(wait).await;
                work.raise();
            });
        }
    }
}

/// One core's server.
struct Worker {
    core: Core,
    reactor: Reactor,
    link: Link,
    listeners: Vec<Listener>,
    mailbox: Arc<Mailbox>,
    /// Connections that the sweep for heartbeats has still to visit in this tick.
    visits: usize,
    drain: Option<drain::Drain>,
    rest: Rest,
    started: Instant,
    is_ready: bool,
}

struct Listener {
    socket: ListenerSocket,
    /// The kernel had no room for another connection; asked again at the next tick.
    paused: bool,
}

enum ListenerSocket {
    Own(OwnedFd),
    Shared(RawFd),
}

impl Worker {
    fn new(setup: Setup) -> io::Result<Self> {
        let now = clock::now();
        let reactor = Reactor::new()?;
        reactor.watch_input(raw::borrow(setup.mailbox.number()), Token::Wake)?;
        let mut listeners = Vec::new();
        for (place, listener) in setup.listeners.iter().enumerate() {
            let socket = match listener {
                ListenerSetup::Own(address) => ListenerSocket::Own(socket::listen_tcp(
                    *address,
                    setup.config.dead_peer_timeout,
                    setup.config.heartbeat,
                )?),
                ListenerSetup::Shared(fd) => ListenerSocket::Shared(*fd),
            };
            let listener = Listener { socket, paused: false };
            reactor.watch_input(listener.fd(), Token::Listener(place))?;
            listeners.push(listener);
        }
        let name = format!("corecast-{}", setup.id);
        let (redis, line) = (setup.redis.clone(), setup.probes.clone());
        let mut link =
            Link::new(redis, name, setup.config.max_event_bytes + ENVELOPE_BYTES_MAX, line, now);
        let mailbox = Arc::clone(&setup.mailbox);
        let mut core = Core::new(setup, now);
        link.on_tick(now, &reactor, &mut core);
        Ok(Self {
            core,
            reactor,
            link,
            listeners,
            mailbox,
            visits: 0,
            drain: None,
            rest: Rest::default(),
            started: now,
            is_ready: false,
        })
    }

    /// Handles what is ready.
    fn turn(&mut self) -> io::Result<()> {
        let now = clock::now();
        self.core.set_time(now);
        let events = self.reactor.ready()?;
        for readiness in events.iter().filter_map(Readiness::of) {
            match readiness.token {
                Token::Connection(id) => self.core.on_ready(id, readiness),
                Token::Listener(place) => _ = self.accept(place),
                Token::Link => self.link.on_ready(now, &self.reactor, &mut self.core),
                Token::Wake => self.on_wake(),
            }
        }
        self.reactor.give_back(events);
        if self.core.streams.take_gap() {
            self.link.give_up(LinkError::Gap, now, &self.reactor, &mut self.core);
        }
        self.ask();
        Ok(())
    }

    /// Time passes. True once the worker has drained.
    fn tick(&mut self) -> bool {
        let now = clock::now();
        self.core.set_time(now);
        self.core.on_deadlines();
        self.link.on_tick(now, &self.reactor, &mut self.core);
        self.show_link(now);
        self.core.streams.history_tick();
        let lapsed = self.core.streams.lapsed();
        for names in lapsed.chunks(CHANNELS_PER_SUBSCRIBE_MAX) {
            self.link.unsubscribe(names);
        }
        self.ask();
        self.core.streams.give_memory_back();
        let visits = self.visits + self.core.streams.sweep_quota();
        self.visits = visits.min(self.core.streams.slots() as usize);
        for place in 0..self.listeners.len() {
            self.resume_listener(place);
        }
        self.announce(now);
        if self.rest.is_due(self.core.now, Activity::of(&self.core.counters)) {
            raw::release_memory();
        }
        match &mut self.drain {
            Some(drain) => drain.tick(&mut self.core),
            None => false,
        }
    }

    /// Counts how the link is.
    fn show_link(&self, now: Instant) {
        let counters = &self.core.counters;
        counters.link_stage.set(self.link.stage() as u64);
        let now_ms = clock::monotonic_ns() / 1_000_000;
        let proven_at_ms = self.link.proven_at().map_or(0, |at| {
            let age = now.saturating_duration_since(at).as_millis();
            now_ms.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX))
        });
        counters.proven_at_ms.set(proven_at_ms);
    }

    /// `main` has something to say.
    fn on_wake(&mut self) {
        self.mailbox.hear();
        if self.drain.is_none() && self.mailbox.is_draining() {
            self.begin_drain();
        }
    }

    /// Sends a slice's worth of what is due. True if there is more.
    fn slice(&mut self) -> bool {
        self.core.set_time(clock::now());
        let mut more = self.core.streams.slice(SENDS_PER_SLICE_MAX, &mut self.core.sockets);
        let budget = SENDS_PER_SLICE_MAX / 2;
        if self.visits > 0 {
            // Visits are cheap next to sends, but not free.
            let visits = self.visits.min(SENDS_PER_SLICE_MAX * 16);
            let left = self.core.streams.sweep(visits, budget, &mut self.core.sockets);
            self.visits -= visits - left;
            more |= self.visits > 0;
        }
        if let Some(drain) = &mut self.drain {
            more |= drain.slice(budget, &mut self.core);
        }
        // What streams wish for now is asked for at once. Some of those in line may go on by that.
        self.ask();
        more || self.core.streams.has_more()
    }

    fn merging_until(&self) -> Option<Instant> {
        let due = self.core.streams.merging_until()?;
        Some(self.started + Duration::from_millis(due))
    }

    /// Passes on to Redis what streams ask for.
    fn ask(&mut self) {
        let now = clock::now();
        while self.link.is_up() && self.core.streams.has_asks() {
            let channels = self.core.streams.next_asks(CHANNELS_PER_SUBSCRIBE_MAX);
            let name = |id: &_| self.core.streams.name(*id).to_vec();
            let names = channels.iter().map(name).collect();
            self.link.subscribe(channels, names);
        }
        self.ask_for_history();
        if std::mem::take(&mut self.core.wants_proof) {
            self.link.ping(now);
        }
        self.link.flush(now, &self.reactor, &mut self.core);
    }

    /// Passes on to Redis what is wanted of kept events.
    fn ask_for_history(&mut self) {
        if !self.link.is_up() {
            return;
        }
        if let Some(now_ms) = self.core.clock_to_start.take() {
            let ttl_ms = self.core.config.history_ttl.as_millis();
            self.link.start_clock(now_ms, u64::try_from(ttl_ms).unwrap_or(u64::MAX));
        }
        if std::mem::take(&mut self.core.prepares_history) {
            self.link.prepare_history();
        }
        let streams = &mut self.core.streams;
        loop {
            let channels = streams.next_newest(CHANNELS_PER_NEWEST_MAX);
            if channels.is_empty() {
                break;
            }
            let names = channels.iter().map(|id| streams.name(*id).to_vec()).collect();
            self.link.read_newest(channels, names);
        }
        if let Some(wish) = streams.take_clock_wish() {
            self.link.read_clock(wish, streams.marks_read());
        }
        while let Some(read) = streams.next_read() {
            let name = streams.name(read.channel);
            self.link.read_history(read, name, self.core.config.max_event_bytes);
        }
        while let Some(name) = streams.next_mark() {
            self.link.write_mark(&name);
        }
    }

    /// Takes connections from a listener's queue, a turn's worth. True if there may be more.
    fn accept(&mut self, place: usize) -> bool {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let Some(listener) = self.listeners.get(place) else { return false };
            if self.core.streams.connections() >= self.core.capacity.worker + REFUSABLE_CONNECTIONS
            {
                self.pause_listener(place);
                return false;
            }
            match socket::accept(listener.fd()) {
                Ok(Some(fd)) => {
                    let id = self.core.take_in(fd);
                    if let Err(error) = self.reactor.watch_connection(raw::borrow(fd), id) {
                        self.core.close(id, CloseReason::WriteFailed);
                        self.exhausted(place, &error);
                        return false;
                    }
                }
                Ok(None) => return false,
                Err(error) if socket::is_exhausted(&error) => {
                    self.exhausted(place, &error);
                    return false;
                }
                // The peer has gone while it waited in the queue: take the next (accept(2)).
                Err(_) => {}
            }
        }
        true
    }

    /// The kernel has no room for another connection.
    fn exhausted(&mut self, place: usize, error: &io::Error) {
        self.core.counters.accept_failures.add(1);
        if let Some(suppressed) = self.core.exhausted_line.permit(clock::now()) {
            warn!(worker = %self.core.id, suppressed, %error, "no room for a connection; waiting");
        }
        self.pause_listener(place);
    }

    fn pause_listener(&mut self, place: usize) {
        if let Some(listener) = self.listeners.get_mut(place) {
            listener.paused = true;
            self.reactor.forget(listener.fd());
        }
    }

    fn resume_listener(&mut self, place: usize) {
        let Some(listener) = self.listeners.get_mut(place).filter(|l| l.paused) else { return };
        if self.core.streams.connections() >= self.core.capacity.worker + REFUSABLE_CONNECTIONS {
            return;
        }
        listener.paused = false;
        if let Err(error) = self.reactor.watch_input(listener.fd(), Token::Listener(place)) {
            error!(worker = %self.core.id, %error, "a listener can't be watched; trying again");
            listener.paused = true;
        }
    }

    /// Tells `main` once that this worker serves: with its link if that comes soon, else without.
    fn announce(&mut self, now: Instant) {
        let waited = now.duration_since(self.started) >= OPEN_WAIT;
        if !self.is_ready && (self.core.counters.link_ready.get() == 1 || waited) {
            self.is_ready = true;
            self.mailbox.announce();
        }
    }

    /// Closes every socket, and nothing else: the tables may be in any state.
    fn hang_up(&mut self) {
        self.listeners.clear();
        self.link.abandon();
        for slot in 0..self.core.streams.slots() {
            if let Some(connection) = self.core.streams.descriptor_in_slot(slot) {
                raw::close(connection);
            }
        }
    }

    /// Stops accepting, and plans the end of each stream.
    fn begin_drain(&mut self) {
        for place in 0..self.listeners.len() {
            // Who is in the queue already was promised a connection by the kernel.
            let turns = LISTEN_BACKLOG as usize / ACCEPTS_PER_TURN_MAX;
            for _ in 0..turns {
                if !self.accept(place) {
                    break;
                }
            }
        }
        for listener in self.listeners.drain(..) {
            self.reactor.forget(listener.fd());
        }
        let streams = self.core.streams.connections();
        info!(worker = %self.core.id, streams, "draining");
        self.drain = Some(self.core.begin_drain());
    }
}

/// Closes a worker's sockets when it panics. The end of its thread would, with the thread's own
/// descriptor table; where the table is shared, nobody else does.
struct HangUp(Rc<RefCell<Worker>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(mut worker) = self.0.try_borrow_mut()
        {
            worker.hang_up();
        }
    }
}

impl Capacity {
    /// Whether `own` connections of this worker, and those of the others, are more than fit.
    fn is_exceeded(&self, own: usize) -> bool {
        let of_process = |(capacity, workers): &(usize, Arc<[Arc<Counters>]>)| {
            let all: u64 = workers.iter().map(|worker| worker.connections.get()).sum();
            all > *capacity as u64
        };
        own > self.worker || self.process.as_ref().is_some_and(of_process)
    }
}

impl Listener {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        match &self.socket {
            ListenerSocket::Own(socket) => socket.as_fd(),
            ListenerSocket::Shared(fd) => raw::borrow(*fd),
        }
    }
}
