//! Every call of monoio, so that another runtime stays one file away.
//!
//! Traps of monoio 0.2.4 that this file keeps from the rest: a task that wakes itself starves all
//! others and timers (so [`Yield`] goes through the driver), dropping a pending `accept` leaks the
//! socket (so nobody calls it), wakers must not cross threads (so nothing here is `Send`), and
//! dropping a runtime leaks its ring (so its thread's end frees it, with the descriptor table).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::sys::raw;

/// What the runtime waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    Uring,
    Epoll,
}

/// Submission queue entries: the few tasks of a worker never need more.
const RING_ENTRIES: u32 = 256;

/// Whether the kernel lets this process use io_uring, with all operations that monoio needs.
#[must_use]
pub fn has_uring() -> bool {
    monoio::utils::detect_uring()
}

/// Runs a future on a new runtime in this thread, together with what it spawns.
///
/// # Errors
/// What the kernel answers to the making of the ring or the epoll set.
pub fn run<F: Future>(driver: DriverKind, future: F) -> io::Result<F::Output> {
    // Dropping a runtime whose tasks wait for operations leaks its ring; the end of the thread,
    // whose descriptor table goes with it, does not.
    match driver {
        DriverKind::Uring => {
            let builder = RuntimeBuilder::<IoUringDriver>::new();
            let runtime = builder.with_entries(RING_ENTRIES).enable_timer().build()?;
            Ok(ManuallyDrop::new(runtime).block_on(future))
        }
        DriverKind::Epoll => {
            let builder = RuntimeBuilder::<LegacyDriver>::new();
            let runtime = builder.with_entries(RING_ENTRIES).enable_timer().build()?;
            Ok(ManuallyDrop::new(runtime).block_on(future))
        }
    }
}

/// Starts a task on this thread's runtime.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// Waits. Resolution: 1 ms.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Waits for a descriptor to become readable, whatever kind it is.
#[derive(Debug)]
pub struct Readable {
    // monoio's sockets offer the wait; of a socket nothing else is used.
    socket: TcpStream,
    yielding: Yield,
}

impl Readable {
    /// # Errors
    /// What the driver answers to the descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = TcpStream::from_std(std::net::TcpStream::from(fd))?;
        Ok(Self { socket, yielding: Yield::new()? })
    }

    /// Returns when the descriptor is readable; other tasks get their turn before it does.
    ///
    /// # Errors
    /// What the driver answers to the wait.
    pub async fn wait(&mut self) -> io::Result<()> {
        // On epoll a descriptor that is readable already would be answered on the spot, for ever.
        if self.yielding.is_epoll() {
            self.yielding.now().await?;
        }
        self.socket.readable(false).await
    }
}

/// Gives the thread to the driver and all other tasks once.
#[derive(Debug)]
pub struct Yield {
    near: TcpStream,
    far: TcpStream,
}

impl Yield {
    /// # Errors
    /// What the kernel answers to socketpair(2).
    pub fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let pollable = |stream: UnixStream| {
            stream.set_nonblocking(monoio::utils::is_legacy())?;
            TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(stream)))
        };
        Ok(Self { near: pollable(near)?, far: pollable(far)? })
    }

    fn is_epoll(&self) -> bool {
        monoio::utils::is_legacy()
    }

    /// # Errors
    /// What the driver answers.
    pub async fn now(&mut self) -> io::Result<()> {
        if !self.is_epoll() {
            // One poll operation on a socket that is always writable: it completes at the next
            // turn of the ring, and so does everybody else's.
            return self.near.writable(false).await;
        }
        // epoll answers what is ready without a turn, so make something that is not: a byte that
        // is sent only once the read of it waits.
        let near = &self.near;
        let mut read = pin!(self.far.read(vec![0_u8; 1]));
        let mut sent = false;
        let (read, _) = poll_fn(|context| {
            let polled = read.as_mut().poll(context);
            if polled.is_pending() && !sent {
                sent = true;
                if let Err(error) = rustix::io::write(raw::borrow(near.as_raw_fd()), b"y") {
                    return Poll::Ready((Err(error.into()), Vec::new()));
                }
            }
            polled
        })
        .await;
        read.map(drop)
    }
}

/// A flag that one task waits for and others of the same thread raise.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    inner: Rc<NotifyInner>,
}

#[derive(Debug, Default)]
struct NotifyInner {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    pub fn raise(&self) {
        self.inner.raised.set(true);
        if let Some(waiter) = self.inner.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Returns once the flag is raised, and lowers it.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.inner.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.inner.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
