//! What the benches share: a crowd of clients, medians, what the host says.
#![allow(dead_code, reason = "each bench uses its part")]
#![expect(clippy::indexing_slicing, reason = "a bench may panic")]

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};

/// Whether the bench only shows that it works (`CORECAST_BENCH_SMALL=1`).
pub(crate) fn is_small() -> bool {
    std::env::var_os("CORECAST_BENCH_SMALL").is_some()
}

/// Raises the soft limit of descriptors, which a crowd needs.
pub(crate) fn raise_descriptor_limit() {
    println!("nofile {}", corecast::sys::host::raise_descriptor_limit());
}

/// Streams held by a thread with a descriptor table of its own, which reads and counts.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Bytes read by all streams together.
    received: AtomicU64,
    /// Streams of which something was read.
    opened: AtomicU64,
    closed: AtomicU64,
    paused: AtomicBool,
    ended: AtomicBool,
}

impl Crowd {
    /// Opens `count` connections to `server` from several loopback addresses, and sends on each
    /// what `request` makes of its number.
    pub(crate) fn open(server: SocketAddr, count: usize, request: fn(usize) -> String) -> Self {
        let shared = Arc::new(Shared::default());
        let s = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            corecast::sys::raw::make_descriptor_table_private().unwrap();
            run(server, count, request, &s).unwrap();
        });
        Self { shared, thread: Some(thread) }
    }

    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Acquire)
    }

    /// Streams that have received something.
    pub(crate) fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::Acquire)
    }

    pub(crate) fn closed(&self) -> u64 {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Stops reading, or goes on.
    pub(crate) fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Release);
    }

    /// Waits until all streams together have received so many bytes.
    pub(crate) fn wait_received(&self, bytes: u64) {
        wait("the crowd has received everything", || self.received() >= bytes);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connections of one source address, and the first of their ports, which are named: the kernel
/// looks long for a free one among tens of thousands.
const PER_SOURCE: usize = 20_000;
const FIRST_PORT: u16 = 10_000;

fn run(
    server: SocketAddr,
    count: usize,
    request: fn(usize) -> String,
    shared: &Shared,
) -> io::Result<()> {
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    let mut sockets = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::with_capacity(1024);
    for number in 0..count {
        let host = u8::try_from(2 + number / PER_SOURCE).unwrap();
        let port = FIRST_PORT + u16::try_from(number % PER_SOURCE).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        // Closed connections must not hold their ports for the next crowd.
        socket.set_linger(Some(Duration::ZERO))?;
        let [low, high] = server.port().to_be_bytes();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, low, high, host), port)).into())?;
        socket.connect(&server.into())?;
        epoll::add(&set, &socket, EventData::new_u64(number as u64), EventFlags::IN)?;
        let request = request(number);
        if !request.is_empty() {
            rustix::net::send(&socket, request.as_bytes(), SendFlags::NOSIGNAL)?;
        }
        sockets.push(Some(socket));
    }
    let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while !shared.ended.load(Ordering::Acquire) {
        if shared.paused.load(Ordering::Acquire) {
            let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 200_000 });
            continue;
        }
        events.clear();
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), Some(&pause))?;
        for event in &events {
            let number = usize::try_from({ event.data }.u64()).unwrap();
            let Some(socket) = &sockets[number] else { continue };
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => {
                    sockets[number] = None;
                    shared.closed.fetch_add(1, Ordering::Release);
                }
                Ok((bytes, _)) => {
                    if !std::mem::replace(&mut seen[number], true) {
                        shared.opened.fetch_add(1, Ordering::Release);
                    }
                    shared.received.fetch_add(bytes as u64, Ordering::Release);
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Waits, at most a minute, until something holds.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 300_000 });
    }
}

pub(crate) fn now() -> Instant {
    corecast::sys::clock::now()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Kernel, CPU and date: no figure without them.
pub(crate) fn print_host() {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name")).unwrap_or("unknown CPU");
    let model = model.split(':').next_back().unwrap_or(model).trim();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("kernel {}, {cores} x {model}", kernel.trim());
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
