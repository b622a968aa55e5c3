//! A thread that holds a share of the streams: opens them, reads them, keeps the score.
//!
//! It has a descriptor table of its own, so that one process can hold far more streams than
//! RLIMIT_NOFILE says. A stream is a slot of 16 bytes and a sequence number for each of its
//! channels; all share one buffer.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event as Readiness, EventData, EventFlags};

use super::message::Stamp;
use super::pace::Pace;
use super::past::Past;
use super::response::{Data, Phase};
use super::score::{self, Failure, Live, Tally};
use super::sequence::{Arrival, Missing, Sequences};
use super::sources::Sources;
use super::target::Target;
use crate::bytes::event_stream::{KEEP_ALIVE, STREAM_OPEN};
use crate::bytes::history::EventId;
use crate::sys::socket::{self, Received};
use crate::sys::{clock, raw};

/// What all threads share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: SocketAddr,
    pub(super) target: Target,
    /// Streams of the test.
    pub(super) streams: u32,
    pub(super) channels: u32,
    pub(super) channels_per_stream: u32,
    /// `None`: any test's messages count, from any on.
    pub(super) expectation: Option<Expectation>,
    /// What the streams come back to; `None`: they are new.
    pub(super) past: Option<Arc<Past>>,
    /// Streams that stay when all others disconnect, spread evenly over all.
    pub(super) keep: Option<u32>,
    pub(super) timeout: Duration,
    /// Where streams need several source addresses; otherwise the kernel chooses.
    pub(super) sources: Option<Sources>,
}

/// What the streams are to receive.
#[derive(Debug)]
pub(super) struct Expectation {
    pub(super) token: u32,
    /// Messages of each channel, without the closing ones.
    pub(super) counts: Arc<Vec<u32>>,
    /// Whether each channel gets one more in the end.
    pub(super) has_closing: bool,
}

/// The streams of one thread: `streams` of them, the first being number `first` of the test.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) first: u32,
    pub(super) streams: u32,
    pub(super) pace: Pace,
}

/// Holds the streams of `share` until `live` stops.
///
/// # Errors
/// What epoll answers; what happens to a stream is counted instead.
pub(super) fn run(plan: Arc<Plan>, share: Share, live: Arc<Live>) -> io::Result<Tally> {
    let mut crowd = Crowd::new(plan, share, live)?;
    let mut ready = Vec::with_capacity(READY_PER_TURN);
    while !crowd.live.stops() {
        ready.clear();
        crowd.open_due();
        let wait = crowd.wait();
        match epoll::wait(&crowd.set, rustix::buffer::spare_capacity(&mut ready), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        crowd.turn(&ready);
        crowd.thin_out();
    }
    Ok(crowd.finish())
}

impl Plan {
    /// Messages for a channel, if that is known.
    fn expected(&self, channel: u32) -> Option<u32> {
        let expectation = self.expectation.as_ref()?;
        Some(expectation.count(channel) + u32::from(expectation.has_closing))
    }

    /// Whether a message is the one that comes after all others.
    fn is_closing(&self, channel: u32, sequence: u32) -> bool {
        let expectation = self.expectation.as_ref();
        expectation.is_some_and(|expectation| sequence >= expectation.count(channel))
    }

    /// The channels of a stream.
    fn channels_of(&self, stream: u32) -> impl Iterator<Item = u32> {
        let (first, channels) = (u64::from(stream), u64::from(self.channels));
        let channel = move |place| (first + u64::from(place)) % channels;
        // Less than `channels`.
        (0..self.channels_per_stream).map(move |place| u32::try_from(channel(place)).unwrap_or(0))
    }

    /// The last event that a stream had which comes back.
    fn position(&self, stream: u32) -> Option<EventId> {
        self.past.as_ref()?.position(stream, stream % self.channels)
    }

    /// Of each channel of a stream, the number of the message that is to come next.
    fn next_of(&self, stream: u32) -> impl Iterator<Item = u32> {
        let position = self.past.as_ref().zip(self.position(stream));
        let next = move |channel| position.map_or(0, |(past, id)| past.next(channel, id));
        self.channels_of(stream).map(next)
    }

    /// Whether a stream stays when others disconnect.
    fn stays(&self, stream: u32) -> bool {
        let Some(keep) = self.keep else { return true };
        let share = |streams: u32| u64::from(streams) * u64::from(keep) / u64::from(self.streams);
        share(stream) != share(stream + 1)
    }
}

impl Expectation {
    fn count(&self, channel: u32) -> u32 {
        let place = usize::try_from(channel).unwrap_or(usize::MAX);
        self.counts.get(place).copied().unwrap_or(0)
    }
}

struct Crowd {
    plan: Arc<Plan>,
    first: u32,
    live: Arc<Live>,
    set: OwnedFd,
    slots: Vec<Slot>,
    pace: Pace,
    /// Streams that are opening, and since when.
    opening: HashMap<u32, u64>,
    /// The same in the order in which they began, with some that are done.
    begun: VecDeque<(u32, u64)>,
    sequences: Sequences,
    /// What has arrived of heads and events that are not whole.
    tails: HashMap<u32, Vec<u8>>,
    buffer: Vec<u8>,
    tally: Tally,
    /// Time on a core and time of the clock when the first message had arrived.
    busy_since: Option<(u64, u64)>,
    is_thinned_out: bool,
}

#[derive(Clone, Copy)]
enum Slot {
    Unused,
    Connecting(RawFd),
    Connected(RawFd, Phase),
}

impl Crowd {
    fn new(plan: Arc<Plan>, share: Share, live: Arc<Live>) -> io::Result<Self> {
        let count = usize::try_from(share.streams).unwrap_or(usize::MAX);
        let sequences = match &plan.past {
            Some(_) => {
                let streams = (share.first..).take(count);
                Sequences::starting_at(streams.flat_map(|stream| plan.next_of(stream)).collect())
            }
            None => {
                let width = usize::try_from(plan.channels_per_stream).unwrap_or(usize::MAX);
                Sequences::new(count * width, plan.expectation.is_none())
            }
        };
        Ok(Self {
            sequences,
            plan,
            first: share.first,
            live,
            set: epoll::create(CreateFlags::CLOEXEC)?,
            slots: vec![Slot::Unused; count],
            pace: share.pace,
            opening: HashMap::new(),
            begun: VecDeque::new(),
            tails: HashMap::new(),
            buffer: vec![0; BUFFER_BYTES],
            tally: Tally::new()?,
            busy_since: None,
            is_thinned_out: false,
        })
    }

    fn open_due(&mut self) {
        let now_ns = clock::monotonic_ns();
        while let Some(slot) = self.pace.take(now_ns, self.opening.len()) {
            self.opening.insert(slot, now_ns);
            match self.connect(slot) {
                Ok(fd) => {
                    self.begun.push_back((slot, now_ns));
                    self.set_slot(slot, Slot::Connecting(fd));
                }
                Err(error) => self.fail(slot, error.into()),
            }
        }
    }

    fn connect(&self, slot: u32) -> io::Result<RawFd> {
        let address = self.plan.address;
        let source = self.plan.sources.map(|sources| sources.of(self.first + slot));
        let socket = match (source, socket::connect_stream(source, address)) {
            // Somebody else has that port; the kernel finds another one.
            (Some(source), Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {
                socket::connect_stream(Some(SocketAddr::new(source.ip(), 0)), address)
            }
            (_, result) => result,
        }?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.set, &socket, EventData::new_u64(slot.into()), flags)?;
        Ok(socket.into_raw_fd())
    }

    /// How long nothing is due.
    fn wait(&self) -> Timespec {
        let now_ns = clock::monotonic_ns();
        let until = match self.pace.due_ns() {
            // Over the bound, the next answer makes room.
            Some(due_ns) if due_ns > now_ns => due_ns - now_ns,
            _ => IDLE_WAIT_NS,
        };
        let tv_nsec = i64::try_from(until.min(IDLE_WAIT_NS)).unwrap_or_default();
        Timespec { tv_sec: 0, tv_nsec }
    }

    fn turn(&mut self, ready: &[Readiness]) {
        let before = self.tally.delivered;
        for readiness in ready {
            let (flags, data) = (readiness.flags, readiness.data);
            if let Ok(slot) = u32::try_from(data.u64()) {
                self.serve(slot, flags);
            }
        }
        self.expire();
        let delivered = self.tally.delivered - before;
        if delivered > 0 {
            score::add(&self.live.delivered, delivered);
            self.measure_busy();
        }
    }

    fn serve(&mut self, slot: u32, flags: EventFlags) {
        if let Slot::Connecting(fd) = self.slot(slot) {
            if let Err(error) = socket::connect_result(raw::borrow(fd)) {
                return self.fail(slot, error.into());
            }
            if !flags.contains(EventFlags::OUT) {
                return;
            }
            let stream = self.first + slot;
            let (channels, last) = (self.plan.channels_of(stream), self.plan.position(stream));
            let request = self.plan.target.stream_request(channels, last);
            match socket::send(raw::borrow(fd), &request) {
                Ok(sent) if sent == request.len() => {}
                _ => return self.fail(slot, Failure::Closed),
            }
            self.set_slot(slot, Slot::Connected(fd, Phase::Head));
        }
        self.read(slot, flags);
    }

    fn read(&mut self, slot: u32, flags: EventFlags) {
        let may_have_ended =
            flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Slot::Connected(fd, phase) = self.slot(slot) {
            match socket::receive(raw::borrow(fd), &mut buffer) {
                Received::Bytes(length) => {
                    self.take(slot, fd, phase, buffer.get(..length).unwrap_or_default());
                    // A short read has emptied the socket; what comes next is reported anew.
                    if length < buffer.len() && !may_have_ended {
                        break;
                    }
                }
                Received::Empty => break,
                Received::Closed if phase == Phase::Head => self.fail(slot, Failure::Closed),
                Received::Closed => self.end(slot),
            }
        }
        self.buffer = buffer;
    }

    /// Reads what a stream has received.
    fn take(&mut self, slot: u32, fd: RawFd, mut phase: Phase, bytes: &[u8]) {
        let now_ns = clock::monotonic_ns();
        let was_open = phase != Phase::Head;
        let mut tail = self.tails.remove(&slot).unwrap_or_default();
        let result = phase.read(&mut tail, bytes, &mut |data| self.receive(slot, data, now_ns));
        if !tail.is_empty() {
            self.tails.insert(slot, tail);
        }
        if !was_open && phase != Phase::Head {
            self.opened(slot, now_ns);
        }
        match result {
            Ok(()) => self.set_slot(slot, Slot::Connected(fd, phase)),
            Err(unusable) if phase == Phase::Head => {
                self.fail(slot, Failure::Response(unusable));
            }
            Err(_) => self.end(slot),
        }
    }

    fn receive(&mut self, slot: u32, data: Data<'_>, now_ns: u64) {
        // A server's own, and no message of ours.
        if matches!(data.name, STREAM_OPEN | KEEP_ALIVE) {
            return;
        }
        if data.name == b"stream-reset" {
            self.tally.record_reset(data.line);
            let told = self.lanes(slot).map(|lane| self.sequences.tell(lane)).sum();
            return score::add(&self.live.given_up, told);
        }
        let token = self.plan.expectation.as_ref().map(|expectation| expectation.token);
        let ours = |stamp: &Stamp| {
            let expected = self.plan.expected(stamp.channel);
            token.is_none_or(|token| stamp.token == token)
                && expected.is_none_or(|expected| stamp.sequence < expected)
        };
        let stamp = Stamp::parse(data.line).filter(ours);
        let found = stamp.and_then(|stamp| Some((stamp, self.lane(slot, &stamp)?)));
        let Some((stamp, (lane, channel))) = found else {
            self.tally.foreign += 1;
            return;
        };
        match self.sequences.arrive(lane, stamp.sequence) {
            Arrival::InOrder => {}
            Arrival::Ahead { told } => score::add(&self.live.given_up, told),
            Arrival::Late => self.tally.reordered += 1,
            Arrival::Again => {
                self.tally.duplicated += 1;
                return;
            }
        }
        self.tally.delivered += 1;
        self.tally.first_ns = self.tally.first_ns.or(Some(now_ns));
        self.tally.last_ns = Some(now_ns);
        let latency_us = now_ns.saturating_sub(stamp.due_ns) / 1000;
        if self.plan.is_closing(channel, stamp.sequence) {
            self.tally.closing.saturating_record(latency_us);
        } else if self.plan.past.is_none() {
            let turn = u64::from(stamp.sequence) * u64::from(self.plan.channels);
            self.tally.record_latency(turn + u64::from(channel), latency_us);
        }
    }

    fn opened(&mut self, slot: u32, now_ns: u64) {
        let since_ns = self.opening.remove(&slot).unwrap_or(now_ns);
        self.tally.opening.saturating_record(now_ns.saturating_sub(since_ns) / 1000);
        self.tally.opened += 1;
        let stream = self.first + slot;
        let channels = self.plan.channels_of(stream).zip(self.plan.next_of(stream));
        let left = |(channel, next)| self.plan.expected(channel).unwrap_or(0).saturating_sub(next);
        let expected: u64 = channels.map(left).map(u64::from).sum();
        self.tally.expected += expected;
        score::add(&self.live.expected, expected);
        score::add(&self.live.opened, 1);
    }

    fn fail(&mut self, slot: u32, failure: Failure) {
        self.opening.remove(&slot);
        *self.tally.failures.entry(failure).or_default() += 1;
        score::add(&self.live.failed, 1);
        self.close(slot);
    }

    /// The server has ended a stream.
    fn end(&mut self, slot: u32) {
        match self.live.server_stops.load(Ordering::Relaxed) {
            true => self.tally.dismissed += 1,
            false => self.tally.ended += 1,
        }
        score::add(&self.live.ended, 1);
        let missing = self.settle(slot);
        score::add(&self.live.given_up, missing.silent);
        self.close(slot);
    }

    /// Counts what a stream will not receive any more.
    fn settle(&mut self, slot: u32) -> Missing {
        let stream = self.first + slot;
        let lanes = self.lanes(slot).zip(self.plan.channels_of(stream));
        let missing = lanes
            .map(|(lane, channel)| self.sequences.missing(lane, self.plan.expected(channel)))
            .fold(Missing::default(), Missing::and);
        self.tally.record_missing(stream, missing);
        missing
    }

    /// Disconnects the streams that are not to stay, once it is time for that.
    fn thin_out(&mut self) {
        if self.is_thinned_out || !self.live.thins.load(Ordering::Relaxed) {
            return;
        }
        self.is_thinned_out = true;
        let mut left = 0;
        for slot in (0..).take(self.slots.len()) {
            if self.is_open(slot) && !self.plan.stays(self.first + slot) {
                self.settle(slot);
                self.close(slot);
                left += 1;
            }
        }
        score::add(&self.live.left, left);
        score::add(&self.live.threads_thinned, 1);
    }

    fn is_open(&self, slot: u32) -> bool {
        matches!(self.slot(slot), Slot::Connected(_, phase) if phase != Phase::Head)
    }

    fn close(&mut self, slot: u32) {
        if let Slot::Connecting(fd) | Slot::Connected(fd, _) = self.slot(slot) {
            raw::close(fd);
        }
        self.tails.remove(&slot);
        self.set_slot(slot, Slot::Unused);
    }

    /// Gives up streams that take too long to open.
    fn expire(&mut self) {
        let timeout_ns = u64::try_from(self.plan.timeout.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = clock::monotonic_ns();
        while let Some((slot, since_ns)) = self.begun.front().copied() {
            if self.opening.contains_key(&slot) {
                if now_ns.saturating_sub(since_ns) < timeout_ns {
                    return;
                }
                self.fail(slot, Failure::TimedOut);
            }
            self.begun.pop_front();
        }
    }

    fn measure_busy(&mut self) {
        let (cpu_ns, now_ns) = (clock::thread_cpu_ns(), clock::monotonic_ns());
        let (cpu_then, then) = *self.busy_since.get_or_insert((cpu_ns, now_ns));
        if now_ns > then {
            self.tally.busy = (cpu_ns - cpu_then) as f64 / (now_ns - then) as f64;
        }
    }

    /// Closes everything, and counts what is missing. Ports in TIME_WAIT would be in the way
    /// of the next test.
    fn finish(mut self) -> Tally {
        for slot in (0..).take(self.slots.len()) {
            if self.is_open(slot) {
                self.settle(slot);
            }
            if let Slot::Connecting(fd) | Slot::Connected(fd, _) = self.slot(slot) {
                socket::reset_on_close(raw::borrow(fd));
            }
            self.close(slot);
        }
        self.tally
    }

    /// A stream's sequences: one for each of its channels.
    fn lanes(&self, slot: u32) -> Range<u32> {
        let width = self.plan.channels_per_stream;
        slot * width..(slot + 1) * width
    }

    /// The sequence that a message belongs to, and its channel, if it is for this stream. A
    /// listener to one channel does not know which number its publisher gave it.
    fn lane(&self, slot: u32, stamp: &Stamp) -> Option<(u32, u32)> {
        let is_listener = self.plan.expectation.is_none() && self.plan.channels_per_stream == 1;
        let mut lanes = self.lanes(slot).zip(self.plan.channels_of(self.first + slot));
        lanes.find(|(_, channel)| is_listener || *channel == stamp.channel)
    }

    fn slot(&self, slot: u32) -> Slot {
        let place = usize::try_from(slot).ok();
        place.and_then(|place| self.slots.get(place).copied()).unwrap_or(Slot::Unused)
    }

    fn set_slot(&mut self, slot: u32, state: Slot) {
        let place = usize::try_from(slot).ok();
        if let Some(place) = place.and_then(|place| self.slots.get_mut(place)) {
            *place = state;
        }
    }
}

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

const READY_PER_TURN: usize = 512;

/// Longest wait: after it, a thread sees that it is to stop.
const IDLE_WAIT_NS: u64 = 100_000_000;

const _: () = assert!(size_of::<Slot>() <= 16);
