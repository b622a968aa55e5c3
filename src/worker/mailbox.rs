//! What `main` and a worker tell each other: flags, and a bell for each side.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::io::wake::Wake;

/// One worker's mailbox. Its bells are made by `main` before the worker's thread starts.
#[derive(Debug)]
pub struct Mailbox {
    /// Rung by `main`.
    bell: Wake,
    /// Rung by all workers, heard by `main`.
    main_bell: Arc<Wake>,
    draining: AtomicBool,
    ready: AtomicBool,
}

impl Mailbox {
    /// # Errors
    /// What eventfd(2) answers.
    pub fn new(main_bell: Arc<Wake>) -> std::io::Result<Self> {
        Ok(Self {
            bell: Wake::new()?,
            main_bell,
            draining: AtomicBool::new(false),
            ready: AtomicBool::new(false),
        })
    }

    /// Tells the worker to stop accepting and to close its streams over the drain time.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.bell.ring();
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Tells `main` that the worker serves.
    pub fn announce(&self) {
        self.ready.store(true, Ordering::Release);
        self.main_bell.ring();
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The number of the worker's bell, to be watched.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.bell.number()
    }

    /// The numbers of both bells: what a worker's own descriptor table must keep.
    #[must_use]
    pub fn numbers(&self) -> [RawFd; 2] {
        [self.bell.number(), self.main_bell.number()]
    }

    /// Rings `main`'s bell when the worker ends, however it does.
    #[must_use]
    pub fn ring_main_on_drop(&self) -> RingOnDrop {
        RingOnDrop(Arc::clone(&self.main_bell))
    }

    pub(super) fn hear(&self) {
        self.bell.hear();
    }
}

/// Rings a bell when it is dropped, so also when its thread panics.
#[derive(Debug)]
pub struct RingOnDrop(Arc<Wake>);

impl Drop for RingOnDrop {
    fn drop(&mut self) {
        self.0.ring();
    }
}
