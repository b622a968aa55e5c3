//! An eventfd that one thread rings and another waits for.
//!
//! It is made before threads take private descriptor tables, so each of them has it under the same
//! number; only the numbers cross threads, never a waker.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::EventfdFlags;

/// A bell. Rings are not counted: one that nobody heard yet stands for all.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
}

impl Wake {
    /// # Errors
    /// What eventfd(2) answers.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self { fd: rustix::event::eventfd(0, flags)? })
    }

    /// Never blocks.
    pub fn ring(&self) {
        // Fails only when the counter is full: then it rings already.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Silences the bell until the next ring.
    pub fn hear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
    }

    /// The descriptor's number, the same in every table that was copied since.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
