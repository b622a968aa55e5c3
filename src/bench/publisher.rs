//! The threads that publish: on schedule, whatever the other side does.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use super::draw::{Draw, Message};
use super::message::Stamp;
use super::options::{Publication, Sink};
use super::schedule::Schedule;
use super::score::Live;
use super::{past, redis_link};
use crate::ground::limits::LINK_DEADLINE;
use crate::sys::clock;
use crate::sys::socket::{self, Received};

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// When the first message was due.
    pub(super) start_ns: u64,
    /// When the last message was answered.
    pub(super) end_ns: u64,
    /// The longest time that a message left after it was due.
    pub(super) late_ns: u64,
}

impl Published {
    /// What became of two publications together.
    fn and(self, other: Self) -> Self {
        Self {
            start_ns: self.start_ns.min(other.start_ns),
            end_ns: self.end_ns.max(other.end_ns),
            late_ns: self.late_ns.max(other.late_ns),
        }
    }
}

/// Threads that publish, each over a connection of its own.
#[derive(Debug)]
pub(super) struct Publishers(Vec<JoinHandle<io::Result<Published>>>);

impl Publishers {
    /// Connects all, and then starts them at once, each with the messages that `draw` gives to its
    /// connection.
    ///
    /// # Errors
    /// What keeps a connection or a thread from being made.
    pub(super) fn start(
        publication: &Publication,
        schedule: Schedule,
        token: u32,
        live: &Arc<Live>,
        draw: impl Fn(u32) -> Draw,
    ) -> io::Result<Self> {
        if let Sink::Redis { server, history: Some(_), .. } = &publication.sink {
            past::load_function(server)?;
        }
        let sockets: Vec<Socket> = (0..publication.connections)
            .map(|_| connect(&publication.sink))
            .collect::<io::Result<_>>()?;
        let start_ns = clock::monotonic_ns();
        let spawn = |(connection, socket)| {
            let draw = draw(connection);
            let publication = publication.clone();
            let live = Arc::clone(live);
            let run = move || {
                let publisher =
                    Publisher::new(&publication, schedule, token, draw, socket, start_ns);
                publisher.run(&live)
            };
            std::thread::Builder::new().name("publisher".to_owned()).spawn(run)
        };
        Ok(Self((0..).zip(sockets).map(spawn).collect::<io::Result<_>>()?))
    }

    pub(super) fn are_finished(&self) -> bool {
        self.0.iter().all(JoinHandle::is_finished)
    }

    /// # Errors
    /// What kept messages from being published.
    pub(super) fn join(self) -> io::Result<Published> {
        let mut all = None;
        for thread in self.0 {
            let published =
                thread.join().map_err(|_| io::Error::other("a publisher panicked"))??;
            all = Some(all.map_or(published, |all: Published| all.and(published)));
        }
        all.ok_or_else(|| io::Error::other("there was no publisher"))
    }
}

struct Publisher<'a> {
    publication: &'a Publication,
    schedule: Schedule,
    token: u32,
    draw: Draw,
    socket: Socket,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Messages in `output` or beyond.
    sent: u32,
    /// Invariant: answered <= sent.
    answered: u32,
    /// When the last answer came.
    answered_ns: u64,
    published: Published,
}

impl<'a> Publisher<'a> {
    fn new(
        publication: &'a Publication,
        schedule: Schedule,
        token: u32,
        draw: Draw,
        socket: Socket,
        start_ns: u64,
    ) -> Self {
        Self {
            publication,
            schedule,
            token,
            draw,
            socket,
            output: Vec::new(),
            input: Vec::new(),
            sent: 0,
            answered: 0,
            answered_ns: start_ns,
            published: Published { start_ns, end_ns: start_ns, late_ns: 0 },
        }
    }

    fn run(mut self, live: &Live) -> io::Result<Published> {
        while self.answered < self.draw.messages() && !live.stops() {
            self.turn()?;
        }
        Ok(self.published)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.encode_due();
        let sent = socket::send(&self.socket, &self.output)
            .map_err(|_| io::Error::other("the connection is broken"))?;
        self.output.drain(..sent);
        self.wait()?;
        let length = self.input.len();
        self.input.reserve(READ_BYTES);
        match socket::receive_more(&self.socket, &mut self.input) {
            Received::Bytes(_) => self.take_answers(),
            Received::Empty => self.check_silence(),
            Received::Closed if length == 0 && self.sent == self.answered => self.reconnect(),
            Received::Closed => Err(io::Error::other("the connection was closed")),
        }
    }

    /// Encodes what is due.
    fn encode_due(&mut self) {
        while self.has_room() {
            let now_ns = clock::monotonic_ns();
            let due_ns = self.due_ns().unwrap_or(now_ns);
            if due_ns > now_ns {
                return;
            }
            self.published.late_ns = self.published.late_ns.max(now_ns - due_ns);
            let Some(Message { channel, sequence, .. }) = self.draw.take() else { return };
            let stamp = Stamp { token: self.token, channel, sequence, due_ns };
            let payload = stamp.payload(self.publication.bytes);
            self.publication.sink.encode(channel, &payload, &mut self.output);
            if self.sent == self.answered {
                self.answered_ns = now_ns;
            }
            self.sent += 1;
        }
    }

    /// Whether there is another message, and nothing that it has to wait for but its time.
    fn has_room(&self) -> bool {
        self.output.len() < OUTPUT_BYTES_MAX
            && self.draw.next_number().is_some()
            && self.sent - self.answered < self.publication.sink.unanswered_max()
    }

    /// When the next message is due, if the schedule says so.
    fn due_ns(&self) -> Option<u64> {
        let offset_ns = self.schedule.due_ns(self.draw.next_number()?)?;
        Some(self.published.start_ns.saturating_add(offset_ns))
    }

    /// Waits for answers, for room in the socket, or for the next message.
    fn wait(&self) -> io::Result<()> {
        let until_ns = match self.due_ns() {
            _ if !self.has_room() => WAIT_NS_MAX,
            Some(due_ns) => due_ns.saturating_sub(clock::monotonic_ns()),
            None => 0,
        };
        let tv_nsec = i64::try_from(until_ns.min(WAIT_NS_MAX)).unwrap_or_default();
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.output.is_empty());
        let mut fds = [PollFd::new(&self.socket, flags)];
        match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec })) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_answers(&mut self) -> io::Result<()> {
        let answers = self.publication.sink.take_answers(&mut self.input);
        let answers = answers.map_err(|answer| io::Error::other(format!("refused: {answer}")))?;
        if answers.count > self.sent - self.answered {
            return Err(io::Error::other("an answer to nothing"));
        }
        if answers.count > 0 {
            self.answered += answers.count;
            self.answered_ns = clock::monotonic_ns();
            self.published.end_ns = self.answered_ns;
        }
        match (answers.closes, self.sent == self.answered) {
            (false, _) => Ok(()),
            (true, true) => self.reconnect(),
            // Whether the others were read is not known.
            (true, false) => Err(io::Error::other("the connection was closed")),
        }
    }

    fn check_silence(&self) -> io::Result<()> {
        let silence_ns = clock::monotonic_ns().saturating_sub(self.answered_ns);
        if self.sent > self.answered && u128::from(silence_ns) > LINK_DEADLINE.as_nanos() {
            let seconds = LINK_DEADLINE.as_secs();
            return Err(io::Error::other(format!("no answer within {seconds} s")));
        }
        Ok(())
    }

    fn reconnect(&mut self) -> io::Result<()> {
        self.socket = connect(&self.publication.sink)?;
        Ok(())
    }
}

fn connect(sink: &Sink) -> io::Result<Socket> {
    match sink {
        Sink::Redis { server, .. } => redis_link::connect(server),
        Sink::Http(posting) => {
            let socket = redis_link::connect_tcp(posting.target.resolve()?)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        }
    }
}

const READ_BYTES: usize = 16 * 1024;

/// Output after which nothing more is encoded until it is sent.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Longest wait: after it, the thread sees that it is to stop.
const WAIT_NS_MAX: u64 = 100_000_000;
