//! The bytes of a connection: as they are, or through TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use rustls::ClientConnection;

use super::LinkError;
use crate::sys::socket::{self, Received};

/// Room made for each read.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// A socket that does not block, and what stands between it and us.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(OwnedFd),
    Tls { socket: OwnedFd, client: Box<ClientConnection> },
}

/// What a write left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes taken.
    pub(super) count: usize,
    /// The socket has to have room before there is more to do.
    pub(super) awaits_room: bool,
}

impl Transport {
    pub(super) fn socket(&self) -> &OwnedFd {
        match self {
            Self::Plain(socket) | Self::Tls { socket, .. } => socket,
        }
    }

    /// Reads what has arrived behind what the buffer holds. [`READ_BYTES`] of room were made for
    /// it; fewer bytes than that mean that nothing more is there now.
    ///
    /// # Errors
    /// That TLS failed.
    pub(super) fn receive(&mut self, buffer: &mut Vec<u8>) -> Result<Received, LinkError> {
        match self {
            Self::Plain(socket) => Ok(socket::receive_more(&*socket, buffer)),
            Self::Tls { socket, client } => receive_tls(socket, client, buffer),
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// That the connection is broken.
    pub(super) fn send(&mut self, output: &[u8]) -> Result<Written, LinkError> {
        let mut count = 0;
        match self {
            Self::Plain(socket) => {
                while let Some(rest) = output.get(count..).filter(|rest| !rest.is_empty()) {
                    match socket::send(&*socket, rest) {
                        Ok(0) => break,
                        Ok(sent) => count += sent,
                        Err(_) => return Err(LinkError::Closed),
                    }
                }
                Ok(Written { count, awaits_room: count < output.len() })
            }
            Self::Tls { socket, client } => loop {
                // Takes a bounded amount; before the handshake is done, it waits in there.
                let rest = output.get(count..).unwrap_or_default();
                let taken = client.writer().write(rest).map_err(|_| LinkError::Closed)?;
                count += taken;
                while client.wants_write() {
                    match client.write_tls(&mut Pipe(socket)) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            return Ok(Written { count, awaits_room: true });
                        }
                        Err(_) => return Err(LinkError::Closed),
                    }
                }
                if taken == 0 || count == output.len() {
                    return Ok(Written { count, awaits_room: false });
                }
            },
        }
    }
}

fn receive_tls(
    socket: &OwnedFd,
    client: &mut ClientConnection,
    buffer: &mut Vec<u8>,
) -> Result<Received, LinkError> {
    let before = buffer.len();
    while buffer.len() - before < READ_BYTES {
        match client.read_tls(&mut Pipe(socket)) {
            Ok(0) if buffer.len() == before => return Ok(Received::Closed),
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Ok(Received::Closed),
        }
        let state = client.process_new_packets().map_err(|error| {
            // The alert tells the peer why; it need not hear.
            let _ = client.write_tls(&mut Pipe(socket));
            LinkError::Tls(error)
        })?;
        // All of it now: nothing would tell us later that it is there.
        let start = buffer.len();
        buffer.resize(start + state.plaintext_bytes_to_read(), 0);
        let read = client.reader().read_exact(buffer.get_mut(start..).unwrap_or_default());
        read.map_err(|_| LinkError::Closed)?;
    }
    match buffer.len() - before {
        0 => Ok(Received::Empty),
        count => Ok(Received::Bytes(count)),
    }
}

/// The socket as TLS wants it.
struct Pipe<'a>(&'a OwnedFd);

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match socket::receive(self.0, buffer) {
            Received::Bytes(count) => Ok(count),
            Received::Empty => Err(ErrorKind::WouldBlock.into()),
            Received::Closed => Ok(0),
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match socket::send(self.0, bytes) {
            Ok(0) => Err(ErrorKind::WouldBlock.into()),
            Ok(count) => Ok(count),
            Err(_) => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
