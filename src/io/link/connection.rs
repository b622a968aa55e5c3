//! A connection to Redis: its socket, and what has come in and was not yet taken.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;

use super::LinkError;
use crate::bytes::resp::{self, Incoming, Parsed};
use crate::io::reactor::{Reactor, Token};
use crate::sys::socket::{self, Received};

/// Room made for each read.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// A connection, perhaps one that is still being made.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// Whether the reactor tells when the socket has room for more.
    awaits_room: bool,
    pub(super) input: Input,
}

/// What has come in, from the first item that was not whole yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Bytes that the item at the start of `bytes` takes at least.
    needed: usize,
    /// Bytes of an oversize payload still to be thrown away.
    skip: u64,
}

/// One thing that came in.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Whole(Incoming<'a>),
    /// A message whose payload is thrown away.
    Oversize {
        channel: &'a [u8],
    },
}

/// A host name whose addresses are asked for, which may take seconds: on a thread of its own.
#[derive(Debug)]
pub(super) struct Resolving(JoinHandle<io::Result<Vec<SocketAddr>>>);

impl Connection {
    /// Starts to connect to a TCP address.
    ///
    /// # Errors
    /// What the kernel answers at once.
    pub(super) fn start_tcp(address: SocketAddr, reactor: &Reactor) -> io::Result<Self> {
        Self::start(socket::connect_tcp(address)?, reactor)
    }

    /// Starts to connect to a unix socket.
    ///
    /// # Errors
    /// What the kernel answers at once.
    pub(super) fn start_unix(path: &Path, reactor: &Reactor) -> io::Result<Self> {
        Self::start(socket::connect_unix(path)?, reactor)
    }

    fn start(socket: OwnedFd, reactor: &Reactor) -> io::Result<Self> {
        reactor.watch_input(&socket, Token::Link)?;
        reactor.watch_both(&socket, Token::Link, true)?;
        Ok(Self { socket, awaits_room: true, input: Input::default() })
    }

    /// How the attempt to connect went, once the socket is ready.
    ///
    /// # Errors
    /// Why the connection was not made.
    pub(super) fn result(&self) -> io::Result<()> {
        socket::connect_result(&self.socket)
    }

    /// Reads once what has arrived.
    pub(super) fn receive(&mut self) -> Received {
        let Input { bytes, needed, .. } = &mut self.input;
        bytes.reserve(READ_BYTES.max(needed.saturating_sub(bytes.len())));
        socket::receive_more(&self.socket, bytes)
    }

    /// Writes what the socket takes of `output`, and watches for room if that is not all.
    ///
    /// # Errors
    /// That the connection is broken, or can't be watched.
    pub(super) fn send(
        &mut self,
        output: &mut Vec<u8>,
        reactor: &Reactor,
    ) -> Result<(), LinkError> {
        let mut sent = 0;
        while let Some(rest) = output.get(sent..).filter(|rest| !rest.is_empty()) {
            match socket::send(&self.socket, rest) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(_) => return Err(LinkError::Closed),
            }
        }
        output.drain(..sent);
        if output.is_empty() {
            // A link at rest holds no buffer.
            *output = Vec::new();
        }
        let awaits_room = !output.is_empty();
        if awaits_room != self.awaits_room {
            self.awaits_room = awaits_room;
            let watched = reactor.watch_both(&self.socket, Token::Link, awaits_room);
            watched.map_err(LinkError::Connect)?;
        }
        Ok(())
    }

    /// Ends the watch; the connection closes when it is dropped.
    pub(super) fn forget(&self, reactor: &Reactor) {
        reactor.forget(&self.socket);
    }
}

impl Input {
    /// Hands over every whole item, in order.
    ///
    /// # Errors
    /// That what came is not the Redis protocol, or what `take` answers.
    pub(super) fn take_in(
        &mut self,
        payload_bytes_max: usize,
        take: impl FnMut(Item<'_>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let consumed = self.take_items(payload_bytes_max, take)?;
        self.bytes.drain(..consumed);
        Ok(())
    }

    /// Returns how many bytes the items took.
    fn take_items(
        &mut self,
        payload_bytes_max: usize,
        mut take: impl FnMut(Item<'_>) -> Result<(), LinkError>,
    ) -> Result<usize, LinkError> {
        let mut consumed = 0;
        loop {
            let rest = self.bytes.get(consumed..).unwrap_or_default();
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
            match resp::parse(rest, payload_bytes_max).map_err(LinkError::Protocol)? {
                Parsed::Partial { needed } => {
                    self.needed = needed;
                    return Ok(consumed);
                }
                Parsed::Oversize { channel, consumed: head, skip } => {
                    take(Item::Oversize { channel })?;
                    consumed += head;
                    self.skip = skip;
                }
                Parsed::Complete { incoming, consumed: length } => {
                    take(Item::Whole(incoming))?;
                    consumed += length;
                }
            }
        }
    }

    /// A link at rest holds no buffer.
    pub(super) fn give_memory_back(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

impl Resolving {
    /// # Errors
    /// That no thread can be started.
    pub(super) fn start(host: &str, port: u16) -> io::Result<Self> {
        let host = host.to_owned();
        let resolve = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        std::thread::Builder::new().name("resolve".to_owned()).spawn(resolve).map(Self)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// # Errors
    /// Why the name has no address.
    pub(super) fn addresses(self) -> io::Result<Vec<SocketAddr>> {
        self.0.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }
}
