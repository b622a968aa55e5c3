//! The embedded broker on a thread of the test, and connections that see every byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use corecast::broker::{self, BrokerCounters, BrokerListener, BrokerOptions};
use corecast::ground::config::HistoryRules;
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::clock::{Deadline, PATIENCE};

/// The smallest bound on arguments that redis-server takes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<BrokerCounters>,
    stop: OwnedFd,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Broker {
    /// Listens on a TCP port of its own.
    pub(crate) fn start(password: Option<&str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut broker = Self::start_on(BrokerListener::Tcp(listener), password);
        broker.address = address;
        broker
    }

    pub(crate) fn start_on(listener: BrokerListener, password: Option<&str>) -> Self {
        let options = BrokerOptions {
            password: password.map(Into::into),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            history: HistoryRules::default(),
            history_ttl: Duration::from_secs(600),
            history_bytes_max: 64 * 1024 * 1024,
        };
        Self::start_with(listener, options)
    }

    pub(crate) fn start_with(listener: BrokerListener, options: BrokerOptions) -> Self {
        let address = ([127, 0, 0, 1], 0).into();
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let counters = Arc::new(BrokerCounters::default());
        let (stopped, counted) = (stop.try_clone().unwrap(), Arc::clone(&counters));
        let thread = std::thread::spawn(move || broker::run(listener, options, stopped, counted));
        Self { address, counters, stop, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).unwrap();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// One connection, and what came over it and was not looked at yet.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) received: Vec<u8>,
    pub(crate) closed: bool,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, received: Vec::new(), closed: false }
    }

    /// Sends everything, and receives meanwhile. A connection that was closed swallows it.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref();
        let deadline = Deadline::after(PATIENCE);
        while !bytes.is_empty() && !self.closed {
            match self.socket.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(deadline.left().is_some(), "the server does not read");
                    self.receive();
                }
                Err(_) => self.closed = true,
            }
        }
    }

    /// Receives what has arrived.
    pub(crate) fn receive(&mut self) {
        let mut buffer = [0; 64 * 1024];
        while !self.closed {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true,
            }
        }
    }

    /// Receives until `enough`, or the end. Panics with what was received if neither comes.
    pub(crate) fn receive_until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        self.receive();
        while !enough(&self.received) && !self.closed {
            let Some(left) = deadline.left() else {
                panic!("received nothing but {}", self.received.escape_ascii());
            };
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            rustix::event::poll(&mut polled, Some(&left.try_into().unwrap())).unwrap();
            self.receive();
        }
    }

    /// Waits until exactly these bytes were received.
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        self.receive_until(|received| received.len() >= expected.len());
        assert_eq!(self.received.escape_ascii().to_string(), expected.escape_ascii().to_string());
        self.received.clear();
    }

    /// Waits until these bytes and then the end were received.
    pub(crate) fn expect_end(&mut self, expected: impl AsRef<[u8]>) {
        self.receive_until(|_| false);
        self.expect(expected);
    }

    /// Sends, and waits for exactly that answer.
    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(bytes);
        self.expect(expected);
    }
}
