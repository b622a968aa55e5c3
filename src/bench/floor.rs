//! The floor: the least that does a server's job, for a server to be compared with.
//!
//! Threads with a listener each; accept, a fixed response head, one `send()` per socket and
//! message. Nothing else: no routes, no merging, no backlog, no timers. A socket that does not take
//! a whole message is closed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use socket2::Socket;

use super::options::{Comparison, FloorOptions};
use super::redis_link;
use crate::broker::{self, BrokerCounters, BrokerListener, BrokerOptions};
use crate::bytes::resp::{Incoming, Parsed, encode_command, parse};
use crate::ground::config::{HistoryRules, RedisAddress, RedisEndpoint};
use crate::sys::socket::{self, Received};
use crate::sys::thread::spawn;
use crate::sys::{host, raw};

/// Runs the floor until standard input ends.
#[must_use]
pub fn run(options: &FloorOptions) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "corecast: the floor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A floor in a process of its own, which ends with this value.
pub(super) struct Floor {
    child: Child,
    pub(super) streams: SocketAddr,
    pub(super) redis: RedisAddress,
}

impl Floor {
    /// Starts a floor that serves `channel`.
    ///
    /// # Errors
    /// What kept it from starting.
    pub(super) fn start(comparison: &Comparison, channel: &str) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", "--channel", channel]);
        command.args(["--workers", &comparison.workers.to_string()]);
        if let Some(redis) = &comparison.redis {
            // In the environment, which other users can't read, for the password in it.
            command.env("CORECAST_REDIS", redis_url(redis));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let no_answer = || io::Error::other("it did not say where it listens");
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(no_answer)?);
        let streams = next_address(&mut lines)?;
        let redis = match &comparison.redis {
            Some(redis) => redis.clone(),
            None => broker_address(next_address(&mut lines)?),
        };
        Ok(Self { child, streams, redis })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_address(lines: &mut BufReader<ChildStdout>) -> io::Result<SocketAddr> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    line.trim().parse().map_err(|_| io::Error::other("it did not say where it listens"))
}

fn redis_url(redis: &RedisAddress) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let user = redis.username.as_deref().map(encode).unwrap_or_default();
    let user = match redis.password.as_deref() {
        Some(password) => format!("{user}:{}@", encode(password)),
        None => String::new(),
    };
    match &redis.endpoint {
        RedisEndpoint::Unix(path) => format!("unix://{user}{}", path.display()),
        near => format!("redis://{user}{near}"),
    }
}

fn broker_address(address: SocketAddr) -> RedisAddress {
    let endpoint = RedisEndpoint::Tcp { host: address.ip().to_string(), port: address.port() };
    RedisAddress { endpoint, username: None, password: None, database: 0, tls: None }
}

fn serve(options: &FloorOptions) -> io::Result<()> {
    let _ = host::raise_descriptor_limit();
    let (_held, streams) = socket::reserve_tcp(options.listen)?;
    let broker = match options.redis {
        Some(_) => None,
        None => Some(start_broker()?),
    };
    let Some(redis) = options.redis.clone().or_else(|| broker.map(broker_address)) else {
        return Err(io::Error::other("no broker"));
    };
    let (ready, workers_ready) = mpsc::channel();
    let cores = host::usable_cores();
    for number in 0..options.workers {
        let (channel, redis, ready) = (options.channel.clone(), redis.clone(), ready.clone());
        let core = cores.get(number % cores.len().max(1)).copied();
        spawn("floor", true, move || {
            if let Some(core) = core {
                host::pin_to_core(core)?;
            }
            let result =
                Worker::new(streams, &redis, &channel).and_then(|mut worker| worker.run(&ready));
            // Without one of its threads the floor compares with nothing.
            if let Err(error) = &result {
                let _ = writeln!(io::stderr(), "corecast: the floor: {error}");
                std::process::exit(1);
            }
            result
        })?;
    }
    for _ in 0..options.workers {
        workers_ready.recv().map_err(io::Error::other)?;
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{streams}")?;
    if let Some(broker) = broker {
        writeln!(stdout, "{broker}")?;
    }
    stdout.flush()?;
    io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink())?;
    Ok(())
}

fn start_broker() -> io::Result<SocketAddr> {
    let listener = socket::listen_tcp_alone((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = listener.local_addr()?;
    spawn("broker", true, move || {
        let never = eventfd(0, EventfdFlags::CLOEXEC)?;
        let options = BrokerOptions {
            password: None,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            history: HistoryRules::default(),
            history_ttl: Duration::from_secs(1),
            history_bytes_max: 0,
        };
        let counters = Arc::new(BrokerCounters::default());
        broker::run(BrokerListener::Tcp(listener), options, never, counters)
    })?;
    Ok(address)
}

struct Worker {
    set: OwnedFd,
    listener: OwnedFd,
    link: Socket,
    /// By descriptor, which are small numbers in a table of their own.
    streams: Vec<Stream>,
    input: Vec<u8>,
    event: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Closed,
    /// So many bytes of the blank line have arrived.
    Asking(u8),
    Live,
}

impl Worker {
    fn new(streams: SocketAddr, redis: &RedisAddress, channel: &str) -> io::Result<Self> {
        let listener =
            socket::listen_tcp(streams, Some(DEAD_PEER_TIMEOUT), Some(DEAD_PEER_TIMEOUT))?;
        let link = redis_link::connect(redis)?;
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        for fd in [listener.as_fd(), link.as_fd()] {
            epoll::add(&set, fd, EventData::new_u64(key(fd.as_raw_fd())), EventFlags::IN)?;
        }
        let mut command = Vec::new();
        encode_command(&[b"SUBSCRIBE", channel.as_bytes()], &mut command);
        (&link).write_all(&command)?;
        let (input, event) = (Vec::new(), Vec::new());
        Ok(Self { set, listener, link, streams: Vec::new(), input, event })
    }

    fn run(&mut self, ready: &Sender<()>) -> io::Result<()> {
        let mut events = Vec::with_capacity(512);
        loop {
            events.clear();
            match epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let data = event.data;
                let Ok(fd) = RawFd::try_from(data.u64()) else { continue };
                if fd == self.listener.as_raw_fd() {
                    self.accept()?;
                } else if fd == self.link.as_raw_fd() {
                    self.read_link(ready)?;
                } else {
                    self.read_stream(fd);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Some(fd) = socket::accept(&self.listener)? {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.set, raw::borrow(fd), EventData::new_u64(key(fd)), flags)?;
            let place = usize::try_from(fd).unwrap_or_default();
            if self.streams.len() <= place {
                self.streams.resize(place + 1, Stream::Closed);
            }
            self.set_stream(fd, Stream::Asking(0));
        }
        Ok(())
    }

    fn read_stream(&mut self, fd: RawFd) {
        let mut buffer = [0; 4096];
        while let Some(stream) = self.stream(fd).filter(|stream| *stream != Stream::Closed) {
            match (socket::receive(raw::borrow(fd), &mut buffer), stream) {
                (Received::Empty, _) => return,
                (Received::Closed, _) => self.close(fd),
                (Received::Bytes(length), Stream::Asking(matched)) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    match bytes.iter().fold(matched, blank_line) {
                        BLANK_LINE => self.go_live(fd),
                        matched => self.set_stream(fd, Stream::Asking(matched)),
                    }
                }
                (Received::Bytes(_), Stream::Live | Stream::Closed) => {}
            }
        }
    }

    fn go_live(&mut self, fd: RawFd) {
        self.set_stream(fd, Stream::Live);
        if socket::send(raw::borrow(fd), HEAD) != Ok(HEAD.len()) {
            self.close(fd);
        }
    }

    fn read_link(&mut self, ready: &Sender<()>) -> io::Result<()> {
        self.input.reserve(READ_BYTES);
        if socket::receive_more(&self.link, &mut self.input) == Received::Closed {
            return Err(io::Error::other("Redis has closed the link"));
        }
        let input = std::mem::take(&mut self.input);
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            match parse(rest, PAYLOAD_BYTES_MAX).map_err(io::Error::other)? {
                Parsed::Complete { incoming, consumed } => {
                    match incoming {
                        Incoming::Message { payload, .. } => self.fan_out(payload),
                        Incoming::Subscribed { .. } => {
                            // Nobody may be waiting any more.
                            let _ = ready.send(());
                        }
                        _ => {}
                    }
                    taken += consumed;
                }
                Parsed::Partial { .. } => break,
                Parsed::Oversize { .. } | Parsed::Overlong { .. } => {
                    return Err(io::Error::other("a message is too long"));
                }
            }
        }
        self.input = input;
        self.input.drain(..taken);
        Ok(())
    }

    fn fan_out(&mut self, payload: &[u8]) {
        let mut event = std::mem::take(&mut self.event);
        event.clear();
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(payload);
        event.extend_from_slice(b"\n\n");
        for (fd, stream) in (0..).zip(&mut self.streams) {
            if *stream == Stream::Live && socket::send(raw::borrow(fd), &event) != Ok(event.len()) {
                *stream = Stream::Closed;
                raw::close(fd);
            }
        }
        self.event = event;
    }

    fn close(&mut self, fd: RawFd) {
        self.set_stream(fd, Stream::Closed);
        raw::close(fd);
    }

    fn stream(&self, fd: RawFd) -> Option<Stream> {
        self.streams.get(usize::try_from(fd).ok()?).copied()
    }

    fn set_stream(&mut self, fd: RawFd, state: Stream) {
        let place = usize::try_from(fd).ok();
        if let Some(stream) = place.and_then(|place| self.streams.get_mut(place)) {
            *stream = state;
        }
    }
}

/// How much of CR LF CR LF has been seen once `byte` has followed.
fn blank_line(matched: u8, byte: &u8) -> u8 {
    match (matched, byte) {
        (BLANK_LINE, _) => BLANK_LINE,
        (2, b'\r') => 3,
        (1 | 3, b'\n') => matched + 1,
        (_, b'\r') => 1,
        _ => 0,
    }
}

fn key(fd: RawFd) -> u64 {
    u64::try_from(fd).unwrap_or(u64::MAX)
}

const BLANK_LINE: u8 = 4;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache\r\nConnection: close\r\n\r\nretry: 2000\n\n";

const READ_BYTES: usize = 64 * 1024;

const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The default of the server's `--dead-peer-timeout`.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_line_ends_a_request_wherever_it_is_cut() {
        let ends = |text: &str| text.as_bytes().iter().fold(0, blank_line) == BLANK_LINE;
        assert!(ends("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(ends("\r\r\n\r\nrest"));
        assert!(!ends("GET / HTTP/1.1\r\nHost: x\r\n"));
        assert!(!ends("\r\n\n\r\n"));
    }

    #[test]
    fn a_floor_is_told_the_redis_with_user_and_password() {
        let redis = |endpoint| RedisAddress {
            endpoint,
            username: Some("a".to_owned()),
            password: Some("p@:/".into()),
            database: 0,
            tls: None,
        };
        let tcp = RedisEndpoint::Tcp { host: "::1".to_owned(), port: 7 };
        assert_eq!(redis_url(&redis(tcp)), "redis://a:p%40%3A%2F@[::1]:7");
        assert_eq!(redis_url(&redis(RedisEndpoint::Unix("/run/r".into()))), {
            "unix://a:p%40%3A%2F@/run/r"
        });
    }
}
