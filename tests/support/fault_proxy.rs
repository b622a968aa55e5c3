//! A TCP proxy between a server under test and its Redis that misbehaves on command.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::clock::{let_pass, now};

/// How long a thread of the proxy waits before it looks for new commands.
const ATTENTION: Duration = Duration::from_millis(10);

/// Bytes that may be on their way over a distance.
const ON_THE_WAY_MAX: usize = 1 << 20;

/// Which half of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// Two threads copy for every connection, one each way; what is set here holds for all of them.
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    controls: Arc<Controls>,
}

#[derive(Default)]
struct Controls {
    /// Connections of earlier generations are cut.
    generation: AtomicU64,
    refuses: AtomicBool,
    open: AtomicUsize,
    accepted: AtomicUsize,
    ways: [WayControls; 2],
    stop: AtomicBool,
}

/// What happens to bytes that go one way.
#[derive(Default)]
struct WayControls {
    holds: AtomicBool,
    dribbles: AtomicBool,
    delay_ms: AtomicU64,
    distance_ms: AtomicU64,
    /// 0 for as fast as it goes.
    bytes_per_second: AtomicU64,
    /// The byte that is spoiled at its next occurrence; negative for none.
    spoils: Spoils,
    /// Connections of earlier generations are ended this way.
    ended: AtomicU64,
    passed: AtomicU64,
}

struct Spoils(AtomicI32);

impl Default for Spoils {
    fn default() -> Self {
        Self(AtomicI32::new(-1))
    }
}

impl FaultProxy {
    /// Listens on a port of its own, and connects whoever comes to `server`.
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let controls = Arc::new(Controls::default());
        let shared = Arc::clone(&controls);
        thread::spawn(move || serve(&listener, server, &shared));
        Self { address, controls }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Resets all connections.
    pub(crate) fn cut(&self) {
        self.controls.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends one half of all connections in good order; the other goes on.
    pub(crate) fn end(&self, way: Way) {
        self.way(way).ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.controls.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Whether bytes that go this way are left unread: a black hole, which gives them back when it
    /// closes, as retransmission does. New connections fall into it too.
    pub(crate) fn hold(&self, way: Way, holds: bool) {
        self.way(way).holds.store(holds, Ordering::SeqCst);
    }

    pub(crate) fn hold_both(&self, holds: bool) {
        self.hold(Way::ToServer, holds);
        self.hold(Way::ToClient, holds);
    }

    /// Whether every byte leaves in a write of its own.
    pub(crate) fn dribble(&self, way: Way, dribbles: bool) {
        self.way(way).dribbles.store(dribbles, Ordering::SeqCst);
    }

    /// Lets everything that goes this way wait that long first.
    pub(crate) fn delay(&self, way: Way, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap();
        self.way(way).delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    /// Lets what goes this way arrive so much later, however much there is; no fault, and nothing
    /// that [`Self::heal`] changes.
    pub(crate) fn set_distance(&self, way: Way, distance: Duration) {
        let distance_ms = u64::try_from(distance.as_millis()).unwrap();
        self.way(way).distance_ms.store(distance_ms, Ordering::SeqCst);
    }

    /// Bounds what goes this way; 0 lifts the bound.
    pub(crate) fn limit(&self, way: Way, bytes_per_second: u64) {
        self.way(way).bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Makes another byte of the next `byte` that goes this way, once.
    pub(crate) fn spoil(&self, way: Way, byte: u8) {
        self.way(way).spoils.0.store(i32::from(byte), Ordering::SeqCst);
    }

    /// Behaves from now on, but for what was done.
    pub(crate) fn heal(&self) {
        self.refuse(false);
        for way in [Way::ToServer, Way::ToClient] {
            self.hold(way, false);
            self.dribble(way, false);
            self.delay(way, Duration::ZERO);
            self.limit(way, 0);
            self.way(way).spoils.0.store(-1, Ordering::SeqCst);
        }
    }

    /// Connections that stand now.
    pub(crate) fn open(&self) -> usize {
        self.controls.open.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.controls.accepted.load(Ordering::SeqCst)
    }

    /// Bytes that have gone this way.
    pub(crate) fn passed(&self, way: Way) -> u64 {
        self.way(way).passed.load(Ordering::SeqCst)
    }

    fn way(&self, way: Way) -> &WayControls {
        &self.controls.ways[way as usize]
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.controls.stop.store(true, Ordering::SeqCst);
        // Wakes the listening thread, if it is still there.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(listener: &TcpListener, server: SocketAddr, controls: &Arc<Controls>) {
    for client in listener.incoming().flatten() {
        if controls.stop.load(Ordering::SeqCst) {
            return;
        }
        controls.accepted.fetch_add(1, Ordering::SeqCst);
        if controls.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(upstream) = TcpStream::connect(server) else { continue };
        controls.open.fetch_add(1, Ordering::SeqCst);
        let pumps = [(Way::ToServer, &client, &upstream), (Way::ToClient, &upstream, &client)]
            .map(|(way, from, to)| Pump::new(way, from, to, controls));
        let controls = Arc::clone(controls);
        thread::spawn(move || {
            let threads = pumps.map(|mut pump| thread::spawn(move || pump.run()));
            let is_cut = threads.into_iter().any(|thread| !thread.join().unwrap_or(false));
            if is_cut {
                for socket in [&client, &upstream] {
                    // Fails for a socket that the peer has reset.
                    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                }
            }
            drop((client, upstream));
            controls.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// One half of a connection.
struct Pump {
    way: Way,
    from: TcpStream,
    to: TcpStream,
    controls: Arc<Controls>,
    generation: u64,
    ended: u64,
    /// What is on its way, and when it arrives, in order.
    underway: VecDeque<(Instant, Vec<u8>)>,
    underway_bytes: usize,
    /// How long a read waits.
    patience: Duration,
}

impl Pump {
    fn new(way: Way, from: &TcpStream, to: &TcpStream, controls: &Arc<Controls>) -> Self {
        let [from, to] = [from, to].map(|socket| socket.try_clone().unwrap());
        from.set_read_timeout(Some(ATTENTION)).unwrap();
        to.set_write_timeout(Some(ATTENTION)).unwrap();
        to.set_nodelay(true).unwrap();
        let generation = controls.generation.load(Ordering::SeqCst);
        let ended = controls.ways[way as usize].ended.load(Ordering::SeqCst);
        Self {
            way,
            from,
            to,
            controls: Arc::clone(controls),
            generation,
            ended,
            underway: VecDeque::new(),
            underway_bytes: 0,
            patience: ATTENTION,
        }
    }

    /// Copies until the end, of which true says that it came in good order.
    fn run(&mut self) -> bool {
        let mut buffer = vec![0; 16 * 1024];
        let mut is_over = false;
        loop {
            if self.is_cut() {
                return false;
            }
            let controls = &self.controls.ways[self.way as usize];
            if controls.ended.load(Ordering::SeqCst) != self.ended {
                break;
            }
            if controls.holds.load(Ordering::SeqCst) {
                let_pass(ATTENTION);
                continue;
            }
            let limit = controls.bytes_per_second.load(Ordering::SeqCst);
            if !self.arrive() {
                return false;
            }
            let wait = self.wait();
            if is_over || self.underway_bytes >= ON_THE_WAY_MAX {
                if self.underway.is_empty() {
                    break;
                }
                let_pass(wait);
                continue;
            }
            self.be_patient(wait);
            let share = usize::try_from(limit / 50).unwrap().clamp(1, buffer.len());
            let room = if limit == 0 { buffer.len() } else { share };
            match self.from.read(&mut buffer[..room]) {
                Ok(0) => is_over = true,
                Ok(length) => {
                    if !self.take(&mut buffer[..length]) {
                        return false;
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(_) => return false,
            }
        }
        self.to.shutdown(Shutdown::Write).is_ok()
    }

    /// Passes on what has come the whole way.
    fn arrive(&mut self) -> bool {
        while self.underway.front().is_some_and(|(at, _)| *at <= now())
            && let Some((_, mut bytes)) = self.underway.pop_front()
        {
            self.underway_bytes -= bytes.len();
            if !self.pass_on(&mut bytes) {
                return false;
            }
        }
        true
    }

    /// How long nothing arrives.
    fn wait(&self) -> Duration {
        let next = self.underway.front().map(|(at, _)| at.saturating_duration_since(now()));
        next.map_or(ATTENTION, |next| next.clamp(Duration::from_millis(1), ATTENTION))
    }

    fn be_patient(&mut self, wait: Duration) {
        if wait != self.patience {
            self.from.set_read_timeout(Some(wait)).unwrap();
            self.patience = wait;
        }
    }

    /// Sends bytes on their way, or passes them on where there is none.
    fn take(&mut self, bytes: &mut [u8]) -> bool {
        let controls = &self.controls.ways[self.way as usize];
        let distance_ms = controls.distance_ms.load(Ordering::SeqCst);
        if distance_ms == 0 && self.underway.is_empty() {
            return self.pass_on(bytes);
        }
        let last = self.underway.back().map(|(at, _)| *at);
        let at = (now() + Duration::from_millis(distance_ms)).max(last.unwrap_or_else(now));
        self.underway_bytes += bytes.len();
        self.underway.push_back((at, bytes.to_vec()));
        true
    }

    fn pass_on(&self, bytes: &mut [u8]) -> bool {
        let controls = &self.controls.ways[self.way as usize];
        // Read only now: the bytes may have been waited for since before the command.
        let limit = controls.bytes_per_second.load(Ordering::SeqCst);
        let delay_ms = controls.delay_ms.load(Ordering::SeqCst);
        let time_ms = (bytes.len() as u64 * 1000).checked_div(limit).unwrap_or(0);
        let_pass(Duration::from_millis(delay_ms + time_ms));
        let spoils = controls.spoils.0.load(Ordering::SeqCst);
        if let Some(byte) = bytes.iter_mut().find(|byte| i32::from(**byte) == spoils) {
            let swap =
                controls.spoils.0.compare_exchange(spoils, -1, Ordering::SeqCst, Ordering::SeqCst);
            if swap.is_ok() {
                *byte ^= 0x55;
            }
        }
        let dribbles = controls.dribbles.load(Ordering::SeqCst);
        let pieces = bytes.chunks(if dribbles { 1 } else { bytes.len() });
        pieces.into_iter().all(|piece| self.write(piece))
    }

    fn write(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match (&self.to).write(bytes) {
                Ok(length) => {
                    let passed = &self.controls.ways[self.way as usize].passed;
                    passed.fetch_add(length as u64, Ordering::SeqCst);
                    bytes = &bytes[length..];
                }
                Err(error) if is_timeout(&error) && !self.is_cut() => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn is_cut(&self) -> bool {
        self.controls.generation.load(Ordering::SeqCst) != self.generation
            || self.controls.stop.load(Ordering::SeqCst)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
