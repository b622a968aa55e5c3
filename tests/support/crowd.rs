//! Very many streams at once: a few threads, each with an epoll set, verify that every stream gets
//! every message once and in order.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::clock::eventually_within;
use super::event_source::EventSource;
use super::stream::request;

/// Streams of one source address.
const STREAMS_PER_SOURCE: usize = 20_000;

/// First source port: below those that the kernel gives to others.
const FIRST_PORT: u16 = 10_000;

/// Streams of one thread that wait for their head, so that no accept queue overflows.
const OPENING_MAX: usize = 256;

/// How long ten thousand streams may take for anything, in a debug build, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a crowd does.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) streams: usize,
    pub(crate) threads: usize,
    /// The request target of each stream.
    pub(crate) target: fn(usize) -> String,
    /// The number that follows in a stream, and the first for `None`.
    pub(crate) follows: fn(usize, Option<u32>) -> u32,
    /// The number with which a stream is done.
    pub(crate) last: fn(usize) -> u32,
    /// Streams that read one byte at a time through a small receive buffer.
    pub(crate) is_slow: fn(usize) -> bool,
    /// Added to the index where it chooses the source address.
    pub(crate) source_offset: usize,
}

impl Plan {
    /// `streams` streams of one target, which get the numbers 0 to `last`.
    pub(crate) fn of_one_channel(
        address: SocketAddr,
        streams: usize,
        last: fn(usize) -> u32,
    ) -> Self {
        Self {
            address,
            streams,
            threads: 2,
            target: |_| "/events/crowd".to_owned(),
            follows: |_, previous| previous.map_or(0, |number| number + 1),
            last,
            is_slow: |_| false,
            source_offset: 0,
        }
    }
}

/// What a stream has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) last: Option<u32>,
    /// The data of each `stream-reset`.
    pub(crate) resets: Vec<String>,
    /// Whether the server ended it.
    pub(crate) ended: bool,
}

/// A message of a crowd: its number, and dots up to `length` bytes.
pub(crate) fn payload(number: u32, length: usize) -> String {
    format!("{number:08}{:.<width$}", "", width = length - 8)
}

pub(crate) struct Crowd {
    threads: Vec<JoinHandle<Vec<Outcome>>>,
    streams: usize,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    opened: AtomicUsize,
    done: AtomicUsize,
    reset: AtomicUsize,
    stop: AtomicBool,
}

impl Crowd {
    /// Begins to open all streams.
    pub(crate) fn gather(plan: Plan) -> Self {
        raise_descriptor_limit();
        let (streams, count) = (plan.streams, plan.threads);
        let plan = Arc::new(plan);
        let progress = Arc::new(Progress::default());
        let threads = (0..count)
            .map(|index| {
                let range = streams * index / count..streams * (index + 1) / count;
                let (plan, progress) = (Arc::clone(&plan), Arc::clone(&progress));
                thread::spawn(move || Watch::new(&plan, range, &progress).run())
            })
            .collect();
        Self { threads, streams, progress }
    }

    /// Waits for the response heads of all streams.
    pub(crate) fn wait_open(&mut self) {
        self.wait_for("streams are open", |progress| &progress.opened, self.streams);
    }

    /// Waits until all streams have got their last message.
    pub(crate) fn wait_done(&mut self) {
        self.wait_for("streams have got all messages", |progress| &progress.done, self.streams);
    }

    /// Waits until `count` events `stream-reset` have been seen.
    pub(crate) fn wait_resets(&mut self, count: usize) {
        self.wait_for("resets were seen", |progress| &progress.reset, count);
    }

    pub(crate) fn opened(&self) -> usize {
        self.progress.opened.load(Ordering::Relaxed)
    }

    /// Ends all streams, and tells what each has seen.
    pub(crate) fn leave(mut self) -> Vec<Outcome> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let threads = mem::take(&mut self.threads);
        threads.into_iter().flat_map(join).collect()
    }

    fn wait_for(&mut self, what: &str, counter: fn(&Progress) -> &AtomicUsize, goal: usize) {
        let progress = Arc::clone(&self.progress);
        let mut reached = 0;
        let what = format!("{goal} {what}");
        eventually_within(PATIENCE, &what, || {
            // A thread that found a mistake has ended, and its panic is the message.
            if let Some(index) = self.threads.iter().position(JoinHandle::is_finished) {
                join(self.threads.remove(index));
            }
            reached = counter(&progress).load(Ordering::Relaxed);
            (reached >= goal).then_some(())
        });
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }
}

fn join(thread: JoinHandle<Vec<Outcome>>) -> Vec<Outcome> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// One thread's share of the streams.
struct Watch<'a> {
    plan: &'a Plan,
    range: Range<usize>,
    progress: &'a Progress,
    epoll: rustix::fd::OwnedFd,
    members: Vec<Member>,
    opened: usize,
}

struct Member {
    socket: TcpStream,
    index: usize,
    is_slow: bool,
    /// The response head as far as it has arrived; `None` once it is complete.
    head: Option<Vec<u8>>,
    parser: EventSource,
    outcome: Outcome,
}

impl<'a> Watch<'a> {
    fn new(plan: &'a Plan, range: Range<usize>, progress: &'a Progress) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        Self { plan, range, progress, epoll, members: Vec::new(), opened: 0 }
    }

    fn run(mut self) -> Vec<Outcome> {
        let mut ready = Vec::with_capacity(512);
        let mut buffer = vec![0; 64 * 1024];
        while !self.progress.stop.load(Ordering::Relaxed) {
            while self.range.start < self.range.end
                && self.members.len() - self.opened < OPENING_MAX
            {
                let index = self.range.start;
                self.range.start += 1;
                self.open(index);
            }
            ready.clear();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut ready),
                Some(&timeout),
            ) {
                Err(rustix::io::Errno::INTR) => {}
                result => _ = result.unwrap(),
            }
            for event in &ready {
                let slot = usize::try_from(event.data.u64()).unwrap();
                self.read(slot, &mut buffer);
            }
        }
        self.members.into_iter().map(|member| member.outcome).collect()
    }

    fn open(&mut self, index: usize) {
        let is_slow = (self.plan.is_slow)(index);
        // Each server under test has source addresses of its own, and the ports are named: the
        // kernel looks long for a free one among tens of thousands, and one that was bound is lost
        // to everybody who only connects, whatever the address.
        let number = index + self.plan.source_offset;
        let [low, high] = self.plan.address.port().to_be_bytes();
        let host = u8::try_from(2 + number / STREAMS_PER_SOURCE).unwrap();
        let port = FIRST_PORT + u16::try_from(number % STREAMS_PER_SOURCE).unwrap();
        let source = SocketAddr::from((Ipv4Addr::new(127, low, high, host), port));
        let mut socket = connect(source, self.plan.address, is_slow)
            .unwrap_or_else(|error| panic!("stream {index} does not connect: {error}"));
        socket.write_all(request(&(self.plan.target)(index), &[]).as_bytes()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let slot = epoll::EventData::new_u64(self.members.len() as u64);
        epoll::add(&self.epoll, &socket, slot, epoll::EventFlags::IN).unwrap();
        let (parser, outcome) = (EventSource::default(), Outcome::default());
        self.members.push(Member {
            socket,
            index,
            is_slow,
            head: Some(Vec::new()),
            parser,
            outcome,
        });
    }

    fn read(&mut self, slot: usize, buffer: &mut [u8]) {
        let member = &mut self.members[slot];
        let length = if member.is_slow { 1 } else { buffer.len() };
        match member.socket.read(&mut buffer[..length]) {
            Ok(0) => self.end(slot),
            Ok(length) => self.take_in(slot, &buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.end(slot),
        }
    }

    fn end(&mut self, slot: usize) {
        let member = &mut self.members[slot];
        let index = member.index;
        assert!(member.head.is_none(), "stream {index} ended inside its head");
        member.outcome.ended = true;
        epoll::delete(&self.epoll, &member.socket).unwrap();
    }

    fn take_in(&mut self, slot: usize, bytes: &[u8]) {
        let member = &mut self.members[slot];
        match &mut member.head {
            None => member.parser.push(bytes),
            Some(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                    return;
                };
                let text = String::from_utf8_lossy(head);
                assert!(text.starts_with("HTTP/1.1 200 "), "stream {}: {text}", member.index);
                member.parser.push(&head[end + 4..]);
                member.head = None;
                self.opened += 1;
                self.progress.opened.fetch_add(1, Ordering::Relaxed);
            }
        }
        member.parser.comments.clear();
        for message in mem::take(&mut member.parser.messages) {
            match message.event.as_str() {
                "message" => member.number(&message.data, self.plan, self.progress),
                "stream-reset" => {
                    member.outcome.resets.push(message.data);
                    self.progress.reset.fetch_add(1, Ordering::Relaxed);
                }
                "stream-open" | "keep-alive" => {}
                _ => panic!("stream {}: {message:?}", member.index),
            }
        }
    }
}

impl Member {
    fn number(&mut self, data: &str, plan: &Plan, progress: &Progress) {
        let due = (plan.follows)(self.index, self.outcome.last);
        let number = data[..8].parse().ok();
        let index = self.index;
        assert_eq!(number, Some(due), "stream {index} after {:?}", self.outcome);
        assert!(data[8..].bytes().all(|byte| byte == b'.'), "stream {index}: {data:?}");
        self.outcome.last = number;
        if due == (plan.last)(index) {
            progress.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection from one loopback address; a slow one can hold little before it is read.
fn connect(source: SocketAddr, address: SocketAddr, is_slow: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if is_slow {
        socket.set_recv_buffer_size(4096)?;
    }
    // Thousands of closed connections would hold their ports for a minute.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&source.into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// A summary of outcomes that differ from what all should be.
pub(crate) fn differing(outcomes: &[Outcome], is_right: impl Fn(&Outcome) -> bool) -> String {
    let mut text = String::new();
    for (index, outcome) in outcomes.iter().enumerate().filter(|(_, outcome)| !is_right(outcome)) {
        writeln!(text, "stream {index}: {outcome:?}").unwrap();
        if text.len() > 2000 {
            return text + "…";
        }
    }
    text
}
