//! Clients that leave and come back at random, each time to any of several servers, with the id of
//! the last event that they had. One thread holds all of them, and judges what they get.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use corecast::bytes::history::EventId;
use rustix::event::{Timespec, epoll};
use socket2::SockRef;

use super::clock::{now, time_of_day_ms};
use super::follower::Follower;
use super::judge::{Ask, Tally};
use super::ledger::{Ledger, Notice};
use super::stream::request;

/// How long a client waits for the handshake of TCP, which the kernel makes for a busy server too.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the clients do.
pub(crate) struct Journey {
    pub(crate) servers: Vec<SocketAddr>,
    /// The channels of each client.
    pub(crate) channels: Vec<Vec<usize>>,
    pub(crate) seed: u64,
}

pub(crate) struct Wanderers {
    thread: JoinHandle<(Tally, Ledger)>,
    progress: Arc<Progress>,
    /// Everything that was published, in order.
    pub(crate) notices: Sender<Notice>,
}

#[derive(Default)]
pub(crate) struct Progress {
    /// Clients come back and then stay.
    settles: AtomicBool,
    stop: AtomicBool,
    /// Clients that have a position.
    pub(crate) begun: AtomicUsize,
    /// Connections with the id of a last event that were answered with a stream.
    pub(crate) resumes: AtomicU64,
    /// Connections that the server ended or refused.
    pub(crate) ended: AtomicU64,
    pub(crate) violations: AtomicU64,
    /// The id of the last event that was published, 0-0 while there will be more, and how many
    /// clients have all of their channels'.
    last_ms: AtomicU64,
    last_seq: AtomicU64,
    pub(crate) arrived: AtomicUsize,
}

impl Wanderers {
    pub(crate) fn depart(journey: Journey) -> Self {
        let (notices, noted) = channel();
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = thread::spawn(move || Crowd::new(journey, shared).run(&noted));
        Self { thread, progress, notices }
    }

    /// What has happened so far.
    pub(crate) fn progress(&self) -> &Progress {
        assert!(!self.thread.is_finished(), "the thread of the clients has ended");
        &self.progress
    }

    /// From now on all come back and stay until everything up to this id has reached them.
    pub(crate) fn settle(&self, last: EventId) {
        self.progress.last_seq.store(last.seq, Ordering::SeqCst);
        self.progress.last_ms.store(last.ms, Ordering::SeqCst);
        self.progress.settles.store(true, Ordering::SeqCst);
    }

    pub(crate) fn finish(self) -> (Tally, Ledger) {
        self.progress.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Client {
    follower: Follower,
    connection: Option<Connection>,
    /// When it comes back, or leaves.
    acts_at: Instant,
}

struct Connection {
    socket: TcpStream,
    /// The response head as far as it has arrived; `None` once it is complete.
    head: Option<Vec<u8>>,
}

struct Crowd {
    servers: Vec<SocketAddr>,
    clients: Vec<Client>,
    epoll: rustix::fd::OwnedFd,
    random: fastrand::Rng,
    progress: Arc<Progress>,
    ledger: Ledger,
    tally: Tally,
}

impl Crowd {
    fn new(journey: Journey, progress: Arc<Progress>) -> Self {
        let start = now();
        let client = |(name, channels)| Client {
            follower: Follower::new(name, channels),
            connection: None,
            acts_at: start,
        };
        Self {
            servers: journey.servers,
            clients: journey.channels.into_iter().enumerate().map(client).collect(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            random: fastrand::Rng::with_seed(journey.seed),
            progress,
            ledger: Ledger::default(),
            tally: Tally::default(),
        }
    }

    fn run(mut self, noted: &Receiver<Notice>) -> (Tally, Ledger) {
        let mut ready = Vec::with_capacity(512);
        let mut buffer = vec![0; 64 * 1024];
        while !self.progress.stop.load(Ordering::SeqCst) {
            ready.clear();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let room = rustix::buffer::spare_capacity(&mut ready);
            match epoll::wait(&self.epoll, room, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                result => _ = result.unwrap(),
            }
            for event in &ready {
                self.read(usize::try_from(event.data.u64()).unwrap(), &mut buffer);
            }
            noted.try_iter().for_each(|notice| self.ledger.note(notice));
            for client in &mut self.clients {
                client.follower.judge(&self.ledger, &mut self.tally);
            }
            self.act();
            self.count();
        }
        (self.tally, self.ledger)
    }

    fn count(&self) {
        let last_ms = self.progress.last_ms.load(Ordering::SeqCst);
        let last = EventId { ms: last_ms, seq: self.progress.last_seq.load(Ordering::SeqCst) };
        let is_over = last_ms > 0 && self.ledger.newest() >= last;
        let count = |is_so: &dyn Fn(&Follower) -> bool| {
            self.clients.iter().filter(|client| is_so(&client.follower)).count()
        };
        let begun = count(&|follower| !follower.last_event_id.is_empty());
        self.progress.begun.store(begun, Ordering::SeqCst);
        let arrived = count(&|follower| is_over && follower.has_reached_the_end(&self.ledger));
        self.progress.arrived.store(arrived, Ordering::SeqCst);
        self.progress.violations.store(self.tally.violations(), Ordering::SeqCst);
    }

    /// Lets those leave and come back whose time it is.
    fn act(&mut self) {
        let now = now();
        let settles = self.progress.settles.load(Ordering::SeqCst);
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let is_awaited = settles && client.connection.is_none();
            if client.acts_at > now && !is_awaited {
                continue;
            }
            if client.connection.is_none() {
                self.connect(index);
            } else if !settles {
                self.leave(index);
            }
        }
    }

    fn connect(&mut self, index: usize) {
        let server = self.servers[self.random.usize(0..self.servers.len())];
        let settles = self.progress.settles.load(Ordering::SeqCst);
        let now_ms = time_of_day_ms();
        let beginning = self.draw_beginning(now_ms);
        let follower = &mut self.clients[index].follower;
        // Some open the page anew.
        if self.random.u32(0..12) == 0 && !settles {
            follower.forget();
        }
        let (mut target, id) = follower.connect(beginning, now_ms);
        let mut fields = Vec::new();
        if !id.is_empty() && self.random.bool() {
            target.push_str(&format!("&lastEventId={id}"));
        } else if !id.is_empty() {
            fields.push(("Last-Event-ID", &*id));
        }
        match open(server, &request(&target, &fields)) {
            Ok(socket) => {
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN).unwrap();
                let connection = Connection { socket, head: Some(Vec::new()) };
                self.clients[index].connection = Some(connection);
                // Most stay for some seconds, a few hardly long enough to get anything.
                let stay_ms = 50 + 10_000 * self.random.u64(0..1000).pow(2) / 1_000_000;
                self.act_after(index, stay_ms);
            }
            Err(_) => self.ended(index),
        }
    }

    /// What a client asks for that begins anew. All that is kept is a lot to ask for.
    fn draw_beginning(&mut self, now_ms: u64) -> Ask {
        let (kind, share) = (self.random.u32(0..40), self.random.u64(0..1000));
        let age_ms = self.ledger.oldest().map_or(0, |oldest| now_ms.saturating_sub(oldest.ms));
        let ago_ms = 500 + 8 * share;
        match kind {
            0 => Ask::All,
            1..20 => Ask::Last(1 + usize::try_from(300 * share * share / 1_000_000).unwrap()),
            // Of a time before the first event nothing is known.
            20..30 if ago_ms + 3000 < age_ms => Ask::Ago(ago_ms),
            _ => Ask::Present,
        }
    }

    fn act_after(&mut self, index: usize, wait_ms: u64) {
        self.clients[index].acts_at = now() + Duration::from_millis(wait_ms);
    }

    /// The client leaves: it closes, or vanishes with what it has not read.
    fn leave(&mut self, index: usize) {
        let Some(connection) = self.clients[index].connection.take() else { return };
        if self.random.bool() {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        // Some are away so long that nobody remembers in memory what they have missed.
        let away_ms = match self.random.u32(0..20) {
            0 => self.random.u64(5_000..15_000),
            1..=4 => self.random.u64(500..3_000),
            _ => self.random.u64(0..200),
        };
        self.act_after(index, away_ms);
    }

    /// The server ended or refused the connection.
    fn ended(&mut self, index: usize) {
        self.clients[index].connection = None;
        self.progress.ended.fetch_add(1, Ordering::SeqCst);
        let wait_ms = self.random.u64(10..200);
        self.act_after(index, wait_ms);
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(connection) = &mut self.clients[index].connection else { return };
        match connection.socket.read(buffer) {
            Ok(length) if length > 0 => self.take_in(index, &buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => self.ended(index),
        }
    }

    fn take_in(&mut self, index: usize, bytes: &[u8]) {
        let Client { follower, connection, .. } = &mut self.clients[index];
        let Some(connection) = connection else { return };
        let now_ms = time_of_day_ms();
        let Some(head) = &mut connection.head else { return follower.take_in(bytes, now_ms) };
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
        let text = String::from_utf8_lossy(&head[..end]);
        assert!(text.starts_with("HTTP/1.1 200 "), "stream {index}: {text}");
        let resumes = u64::from(!follower.last_event_id.is_empty());
        self.progress.resumes.fetch_add(resumes, Ordering::SeqCst);
        follower.take_in(&head[end + 4..], now_ms);
        connection.head = None;
    }
}

fn open(server: SocketAddr, request: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
    // Thousands of closed connections would hold their ports for a minute.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    socket.write_all(request.as_bytes())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
