//! What floor 2 asks of client sockets. Floor 3 answers with system calls, tests with memory.

use std::io::IoSlice;
use std::os::fd::RawFd;

/// A stream in its channel's list: all that the fan-out loop reads of it. 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Subscriber {
    pub fd: RawFd,
    /// Slot of the connection; [`Subscriber::RARE`] is set where the loop must not send.
    slot: u32,
}

const _: () = assert!(size_of::<Subscriber>() == 8);

impl Subscriber {
    /// Set while the stream has unsent bytes, and for the gap that a closed stream leaves.
    const RARE: u32 = 1 << 31;
    const GAP: Self = Self { fd: -1, slot: u32::MAX };

    #[must_use]
    pub fn new(fd: RawFd, slot: u32) -> Self {
        debug_assert!(slot < Self::RARE);
        Self { fd, slot }
    }

    /// What a closed stream leaves behind while its channel's positions must not move.
    #[must_use]
    pub fn gap() -> Self {
        Self::GAP
    }

    #[must_use]
    pub fn is_gap(self) -> bool {
        self.slot == u32::MAX
    }

    /// Whether the fan-out loop must leave this entry to the cold path.
    #[must_use]
    pub fn is_rare(self) -> bool {
        self.slot & Self::RARE != 0
    }

    #[must_use]
    pub fn slot(self) -> u32 {
        self.slot & !Self::RARE
    }

    pub fn set_rare(&mut self, rare: bool) {
        self.slot = if rare { self.slot | Self::RARE } else { self.slot & !Self::RARE };
    }
}

/// A subscriber that a fan-out pass could not serve in its stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cold {
    /// Index in the slice that was given to [`Sockets::send_to_all`].
    pub index: usize,
    pub outcome: Outcome,
}

/// What became of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not tried: the entry is rare.
    Skipped,
    /// The socket took so many bytes, fewer than were offered; 0 if its buffer was full.
    Partial(usize),
    /// The connection is broken.
    Failed,
}

/// The connection behind a socket is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Non-blocking sends on client sockets.
pub trait Sockets {
    /// Offers `bytes` to every subscriber that is not rare, in order, and appends to `cold` all
    /// that did not take them whole.
    fn send_to_all(&mut self, subscribers: &[Subscriber], bytes: &[u8], cold: &mut Vec<Cold>);

    /// Bytes taken, 0 if the buffer is full.
    ///
    /// # Errors
    /// [`Broken`] if the connection can't take any more, ever.
    fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Result<usize, Broken>;

    /// As [`Sockets::send`], from several buffers.
    ///
    /// # Errors
    /// [`Broken`] if the connection can't take any more, ever.
    fn send_vectored(&mut self, fd: RawFd, buffers: &[IoSlice<'_>]) -> Result<usize, Broken>;

    /// Closes the descriptor; it must not be used again. Where the peer lives, input that was not
    /// read must not spoil what was sent last.
    fn close(&mut self, fd: RawFd, peer_lives: bool);
}

/// Sockets in memory, with buffers of a given size, for tests of this floor.
#[cfg(test)]
pub(crate) mod memory {
    use super::*;
    use std::collections::HashMap;

    #[derive(Debug, Default)]
    pub(crate) struct MemorySockets {
        pub(crate) room: HashMap<RawFd, usize>,
        pub(crate) received: HashMap<RawFd, Vec<u8>>,
        pub(crate) broken: Vec<RawFd>,
        pub(crate) closed: Vec<RawFd>,
        /// Sockets that have room, and take one byte of their next write all the same.
        pub(crate) hasty: Vec<RawFd>,
        pub(crate) sends: usize,
    }

    impl MemorySockets {
        pub(crate) fn text(&self, fd: RawFd) -> String {
            self.received
                .get(&fd)
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default()
        }
    }

    impl Sockets for MemorySockets {
        fn send_to_all(&mut self, subscribers: &[Subscriber], bytes: &[u8], cold: &mut Vec<Cold>) {
            for (index, subscriber) in subscribers.iter().enumerate() {
                if subscriber.is_rare() {
                    cold.push(Cold { index, outcome: Outcome::Skipped });
                    continue;
                }
                match self.send(subscriber.fd, bytes) {
                    Ok(sent) if sent == bytes.len() => {}
                    Ok(sent) => cold.push(Cold { index, outcome: Outcome::Partial(sent) }),
                    Err(Broken) => cold.push(Cold { index, outcome: Outcome::Failed }),
                }
            }
        }

        fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Result<usize, Broken> {
            assert!(fd >= 0 && !self.closed.contains(&fd), "send to a closed descriptor {fd}");
            if self.broken.contains(&fd) {
                return Err(Broken);
            }
            self.sends += 1;
            let room = self.room.entry(fd).or_insert(usize::MAX);
            let mut sent = bytes.len().min(*room);
            if let Some(place) = self.hasty.iter().position(|hasty| *hasty == fd) {
                self.hasty.swap_remove(place);
                sent = sent.min(1);
            }
            *room -= sent;
            self.received.entry(fd).or_default().extend_from_slice(&bytes[..sent]);
            Ok(sent)
        }

        fn send_vectored(&mut self, fd: RawFd, buffers: &[IoSlice<'_>]) -> Result<usize, Broken> {
            let mut total = 0;
            for buffer in buffers {
                let sent = self.send(fd, buffer)?;
                total += sent;
                if sent < buffer.len() {
                    break;
                }
            }
            Ok(total)
        }

        fn close(&mut self, fd: RawFd, _peer_lives: bool) {
            assert!(!self.closed.contains(&fd), "descriptor {fd} closed twice");
            self.closed.push(fd);
        }
    }
}
