//! A connection to Redis: how it is made, and what has come in and was not yet taken.

use std::io;
use std::thread::JoinHandle;

use super::LinkError;
use super::transport::{READ_BYTES, Transport, Written};
use crate::bytes::resp::{self, Incoming, Parsed};
use crate::io::reactor::{Reactor, Token};
use crate::io::redis::{LocateError, Location, Redis, locate};
use crate::io::tls::Tls;
use crate::sys::socket::{self, Received};

/// A connection, perhaps one that is still being made.
#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
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
    /// Bytes of an oversize payload, or of an overlong string, still to be thrown away …
    skip: u64,
    /// … behind so many bytes of the item that it is in.
    kept: usize,
}

/// One thing that came in.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Whole(Incoming<'a>),
    /// A message whose payload is thrown away, but for its start.
    Oversize {
        channel: &'a [u8],
        start: &'a [u8],
    },
}

/// The search for where Redis is, which may take seconds: on a thread of its own.
#[derive(Debug)]
pub(super) struct Locating(JoinHandle<Result<Location, LocateError>>);

impl Connection {
    /// Starts to connect to a place; where a name stands for several addresses, each attempt takes
    /// the next.
    ///
    /// # Errors
    /// What the kernel answers at once, or that TLS can't be spoken with such a host.
    pub(super) fn start(
        location: &Location,
        attempt: usize,
        tls: Option<&Tls>,
        reactor: &Reactor,
    ) -> Result<Self, LinkError> {
        let connecting = match location {
            Location::Unix(path) => socket::connect_unix(path).map(Transport::Plain),
            Location::Tcp { host, addresses } => {
                let address = addresses.get(attempt % addresses.len().max(1)).copied();
                let connecting = address
                    .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
                    .and_then(socket::connect_tcp);
                match tls {
                    None => connecting.map(Transport::Plain),
                    Some(tls) => {
                        let client = Box::new(tls.client(host).map_err(LinkError::Tls)?);
                        connecting.map(|socket| Transport::Tls { socket, client })
                    }
                }
            }
        };
        let transport = connecting.map_err(LinkError::Connect)?;
        let watched = reactor
            .watch_input(transport.socket(), Token::Link)
            .and_then(|()| reactor.watch_both(transport.socket(), Token::Link, true));
        watched.map_err(LinkError::Connect)?;
        Ok(Self { transport, awaits_room: true, input: Input::default() })
    }

    /// How the attempt to connect went, once the socket is ready.
    ///
    /// # Errors
    /// Why the connection was not made.
    pub(super) fn result(&self) -> io::Result<()> {
        socket::connect_result(self.transport.socket())
    }

    /// Reads once what has arrived.
    ///
    /// # Errors
    /// That TLS failed.
    pub(super) fn receive(&mut self) -> Result<Received, LinkError> {
        let Input { bytes, needed, .. } = &mut self.input;
        bytes.reserve(READ_BYTES.max(needed.saturating_sub(bytes.len())));
        self.transport.receive(bytes)
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
        let Written { count, awaits_room } = self.transport.send(output)?;
        output.drain(..count);
        if output.is_empty() {
            // A link at rest holds no buffer.
            *output = Vec::new();
        }
        if awaits_room != self.awaits_room {
            self.awaits_room = awaits_room;
            let watched = reactor.watch_both(self.transport.socket(), Token::Link, awaits_room);
            watched.map_err(LinkError::Connect)?;
        }
        Ok(())
    }

    /// Ends the watch; the connection closes when it is dropped.
    pub(super) fn forget(&self, reactor: &Reactor) {
        reactor.forget(self.transport.socket());
    }
}

impl Input {
    /// Hands over every whole item, in order. In replies, a bulk string of more than
    /// `bulk_bytes_max` bytes is thrown away as it comes in, and a null handed over in its place.
    ///
    /// # Errors
    /// That what came is not the Redis protocol, or what `take` answers.
    pub(super) fn take_in(
        &mut self,
        payload_bytes_max: usize,
        bulk_bytes_max: usize,
        mut take: impl FnMut(Item<'_>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut consumed = 0;
        while self.skip(&mut consumed) {
            let rest = self.bytes.get(consumed..).unwrap_or_default();
            if rest.len() < self.needed || rest.is_empty() {
                break;
            }
            self.needed = 0;
            let parsed = resp::parse_but_overlong(rest, payload_bytes_max, bulk_bytes_max);
            match parsed.map_err(LinkError::Protocol)? {
                Parsed::Partial { needed } => self.needed = needed,
                Parsed::Oversize { channel, start, consumed: head, skip } => {
                    take(Item::Oversize { channel, start })?;
                    consumed += head;
                    (self.skip, self.kept) = (skip, 0);
                }
                Parsed::Overlong { header, skip } => {
                    (self.skip, self.kept) = (skip, header.start + resp::NULL.len());
                    let header = consumed + header.start..consumed + header.end;
                    self.bytes.splice(header, resp::NULL.iter().copied());
                }
                Parsed::Complete { incoming, consumed: length } => {
                    take(Item::Whole(incoming))?;
                    consumed += length;
                }
            }
        }
        self.bytes.drain(..consumed);
        Ok(())
    }

    /// Throws away what is to be thrown away and is there. True once that is all.
    fn skip(&mut self, consumed: &mut usize) -> bool {
        if self.skip > 0 {
            let start = *consumed + self.kept;
            let there = self.bytes.len().saturating_sub(start);
            let count = usize::try_from(self.skip).unwrap_or(there).min(there);
            if self.kept == 0 {
                *consumed += count;
            } else {
                self.bytes.drain(start..start + count);
            }
            self.skip -= count as u64;
        }
        self.skip == 0
    }

    /// A link at rest holds no buffer.
    pub(super) fn give_memory_back(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

impl Locating {
    /// # Errors
    /// That no thread can be started.
    pub(super) fn start(redis: &Redis) -> io::Result<Self> {
        let redis = redis.clone();
        let locate = move || locate(&redis);
        std::thread::Builder::new().name("locate".to_owned()).spawn(locate).map(Self)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// # Errors
    /// Why nobody knows where it is.
    pub(super) fn location(self) -> Result<Location, LinkError> {
        match self.0.join() {
            Ok(located) => located.map_err(LinkError::Locate),
            Err(_) => Err(LinkError::Connect(io::ErrorKind::Other.into())),
        }
    }
}

#[cfg(test)]
mod tests;
