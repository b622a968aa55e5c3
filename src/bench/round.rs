//! One test of one server: open the streams, let them be idle, publish, wait, add up.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use super::crowd::{self, Expectation, Plan, Share};
use super::draw::{self, Draw};
use super::observer::{HostTime, Usage};
use super::options::{Aftermath, BenchOptions, Load, Publication, Sink};
use super::pace::Pace;
use super::past::{self, Past};
use super::progress::Progress;
use super::publisher::{Published, Publishers};
use super::report::{Later, Report, Resumption, ServerUsage};
use super::schedule::Schedule;
use super::score::{Live, Tally};
use super::sources::Sources;
use super::target::Target;
use super::warnings::{self, Circumstances};
use crate::ground::limits::DESCRIPTORS_RESERVED;
use crate::sys::{clock, host, raw};

/// Which server is tested.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) target: Target,
    pub(super) load: Load,
    pub(super) pids: Vec<u32>,
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum BenchError {
    Resolve(Target, io::Error),
    /// A process of the server is not there.
    Observe(Vec<u32>),
    Publish(Box<Sink>, io::Error),
    Past(io::Error),
    Thread(io::Error),
    Floor(io::Error),
}

/// Tests a server.
pub(super) fn run(
    options: &BenchOptions,
    subject: &Subject,
    progress: &mut Progress,
) -> Result<Report, BenchError> {
    let result = Round::start(options, subject).and_then(|round| round.finish(progress));
    progress.clear();
    result
}

/// A test that runs.
struct Round<'a> {
    options: &'a BenchOptions,
    subject: &'a Subject,
    live: Arc<Live>,
    crowds: Vec<JoinHandle<io::Result<Tally>>>,
    token: u32,
    /// Messages of each channel, if they are known.
    counts: Arc<Vec<u32>>,
    past: Option<Arc<Past>>,
    /// What Redis had executed before the first stream, by command.
    calls: BTreeMap<String, u64>,
    start_ns: u64,
    before: Option<Usage>,
    descriptors: usize,
}

impl<'a> Round<'a> {
    fn start(options: &'a BenchOptions, subject: &'a Subject) -> Result<Self, BenchError> {
        let target = &subject.target;
        let address =
            target.resolve().map_err(|error| BenchError::Resolve(target.clone(), error))?;
        let before = observe(subject)?;
        let past = read_past(options, subject)?;
        let token = past.as_ref().map_or_else(|| fastrand::u32(..), |past| past.token);
        let counts = match (&past, &subject.load) {
            (Some(past), _) => past.counts(),
            (None, Load::Publish(publication)) => {
                draw::counts(publication, token, options.channels)
            }
            (None, Load::Listen(_)) => Vec::new(),
        };
        let descriptors = Descriptors::find();
        let mut round = Self {
            options,
            subject,
            live: Arc::default(),
            crowds: Vec::new(),
            token,
            counts: Arc::new(counts),
            calls: calls(past.is_some(), subject)?,
            past: past.map(Arc::new),
            start_ns: clock::monotonic_ns(),
            before,
            descriptors: 0,
        };
        let threads = descriptors.threads(options);
        round.descriptors = descriptors.room(threads);
        let plan = Arc::new(round.plan(address));
        for share in shares(options, threads, round.start_ns) {
            let (plan, live) = (Arc::clone(&plan), Arc::clone(&round.live));
            let is_private = descriptors.are_private;
            let builder = std::thread::Builder::new().name("streams".to_owned());
            let crowd = builder.stack_size(STACK_BYTES).spawn(move || {
                if is_private {
                    raw::make_descriptor_table_private()?;
                }
                crowd::run(plan, share, live)
            });
            round.crowds.push(crowd.map_err(BenchError::Thread)?);
        }
        Ok(round)
    }

    fn plan(&self, address: SocketAddr) -> Plan {
        let expectation = match &self.subject.load {
            Load::Publish(publication) => Some(Expectation {
                token: self.token,
                counts: Arc::clone(&self.counts),
                has_closing: publication.closing.is_some(),
            }),
            Load::Listen(_) => None,
        };
        Plan {
            address,
            target: self.subject.target.clone(),
            streams: self.options.streams,
            channels: self.options.channels,
            channels_per_stream: self.options.channels_per_stream,
            expectation,
            past: self.past.clone(),
            keep: self.options.aftermath.keep,
            timeout: self.options.opening.timeout,
            sources: Sources::of_streams_to(address.ip()),
        }
    }

    fn finish(mut self, progress: &mut Progress) -> Result<Report, BenchError> {
        self.wait_open(progress)?;
        let open_ns = clock::monotonic_ns() - self.start_ns;
        let resumption = self.past.is_some().then(|| self.wait_resumed(progress)).transpose()?;
        let opened = observe(self.subject)?;
        clock::pause(self.options.idle);
        let idle = observe(self.subject)?;
        let host_before = HostTime::now();
        let published = match &self.subject.load {
            Load::Publish(publication) => Some(self.publish(publication, progress)?),
            Load::Listen(duration) => {
                self.listen(*duration, progress)?;
                None
            }
        };
        let end = observe(self.subject)?;
        let host = HostTime::now().since(host_before);
        let server = match (self.before, opened, idle, end) {
            (Some(before), Some(opened), Some(idle), Some(end)) => {
                Some(ServerUsage { before, opened, idle, end, later: self.see_later(progress)? })
            }
            _ => None,
        };
        // What comes now comes a second time.
        clock::pause(LINGER);
        self.live.stop.store(true, Ordering::Relaxed);
        let threads = self.crowds.len();
        let tally = self.join()?;
        let warnings = warnings::of(&Circumstances {
            tally: &tally,
            streams: self.options.streams,
            descriptors: self.descriptors,
            late_ns: published.map_or(0, |published| published.late_ns),
            host,
        });
        Ok(Report {
            url: self.subject.target.to_string(),
            streams: self.options.streams,
            threads,
            open_ns,
            resumption,
            load: self.subject.load.clone(),
            published,
            server,
            tally,
            warnings,
        })
    }

    /// What becomes of the server's memory, and of its streams when it is told to stop.
    fn see_later(&self, progress: &mut Progress) -> Result<Later, BenchError> {
        let Aftermath { settle, keep, stop_server } = self.options.aftermath;
        let mut later = Later {
            peak_bytes: Usage::peak_bytes(&self.subject.pids).unwrap_or(0),
            ..Later::default()
        };
        if !settle.is_zero() {
            clock::pause(settle);
            later.settled = observe(self.subject)?;
        }
        if keep.is_some() {
            self.live.thins.store(true, Ordering::Relaxed);
            let threads = u64::try_from(self.crowds.len()).unwrap_or(u64::MAX);
            while read(&self.live.threads_thinned) < threads {
                self.check_threads()?;
                clock::pause(POLL);
            }
            clock::pause(settle);
            later.kept = observe(self.subject)?;
        }
        if let Some(limit) = stop_server {
            later.drained_ns = self.stop_server(limit, progress)?;
        }
        Ok(later)
    }

    /// Tells the server to stop, and waits until it has ended all streams. The time that took;
    /// `None` if it takes longer than `limit`.
    fn stop_server(
        &self,
        limit: Duration,
        progress: &mut Progress,
    ) -> Result<Option<u64>, BenchError> {
        let start_ns = clock::monotonic_ns();
        let ended_before = read(&self.live.ended);
        let streams = read(&self.live.opened) - read(&self.live.left);
        self.live.server_stops.store(true, Ordering::Relaxed);
        for pid in &self.subject.pids {
            let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
            let told = pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM));
            if !matches!(told, Some(Ok(()))) {
                return Err(BenchError::Observe(self.subject.pids.clone()));
            }
        }
        loop {
            let (ended, now_ns) = (read(&self.live.ended), clock::monotonic_ns());
            if ended >= streams {
                return Ok(Some(now_ns - start_ns));
            }
            if Duration::from_nanos(now_ns - start_ns) >= limit {
                return Ok(None);
            }
            self.check_threads()?;
            progress.show(now_ns, || {
                let (ended, open) = (ended - ended_before, streams - ended_before);
                format!("{ended} of {open} streams ended by the server")
            });
            clock::pause(POLL);
        }
    }

    /// Waits until every stream is open or has failed.
    fn wait_open(&self, progress: &mut Progress) -> Result<(), BenchError> {
        loop {
            let (opened, failed) = (read(&self.live.opened), read(&self.live.failed));
            if opened + failed >= u64::from(self.options.streams) {
                return Ok(());
            }
            self.check_threads()?;
            progress.show(clock::monotonic_ns(), || {
                format!("{opened} of {} streams open, {failed} failed", self.options.streams)
            });
            clock::pause(POLL);
        }
    }

    /// Waits until every stream has what it has missed.
    fn wait_resumed(&self, progress: &mut Progress) -> Result<Resumption, BenchError> {
        // The rest is a closing message for each channel of each stream.
        let width = u64::from(self.options.channels_per_stream);
        let missed = || read(&self.live.expected).saturating_sub(read(&self.live.opened) * width);
        self.wait_settled(missed, progress)?;
        let time_ns = clock::monotonic_ns() - self.start_ns;
        let mut calls = calls(true, self.subject)?;
        for (command, count) in &mut calls {
            *count -= self.calls.get(command).copied().unwrap_or(0).min(*count);
        }
        calls.retain(|command, count| *count > 0 && command != "info");
        Ok(Resumption { events: missed(), time_ns, calls })
    }

    /// Waits until so many messages are received, or nothing is received any more.
    fn wait_settled(
        &self,
        wanted: impl Fn() -> u64,
        progress: &mut Progress,
    ) -> Result<(), BenchError> {
        let (mut settled, mut since_ns) = (self.settled(), clock::monotonic_ns());
        while settled < wanted() {
            self.wait_for_more(progress)?;
            let now_ns = clock::monotonic_ns();
            if self.settled() != settled {
                (settled, since_ns) = (self.settled(), now_ns);
            } else if Duration::from_nanos(now_ns - since_ns) >= self.options.patience {
                break;
            }
        }
        Ok(())
    }

    /// Publishes, and waits until all is received or nothing is received any more.
    fn publish(
        &self,
        publication: &Publication,
        progress: &mut Progress,
    ) -> Result<Published, BenchError> {
        let first =
            |connection| Draw::new(publication, self.token, self.options.channels, connection);
        let mut published =
            self.run_publishers(publication, publication.schedule, first, progress)?;
        if let Some(closing) = publication.closing {
            clock::pause(closing.after);
            let schedule = Schedule { interval: Some(closing.interval), burst: 1 };
            let last = |connection| Draw::closing(publication, &self.counts, connection);
            let closed = self.run_publishers(publication, schedule, last, progress)?;
            published.late_ns = published.late_ns.max(closed.late_ns);
        }
        self.wait_settled(|| read(&self.live.expected), progress)?;
        Ok(published)
    }

    fn run_publishers(
        &self,
        publication: &Publication,
        schedule: Schedule,
        draw: impl Fn(u32) -> Draw,
        progress: &mut Progress,
    ) -> Result<Published, BenchError> {
        let failed = |error| BenchError::Publish(Box::new(publication.sink.clone()), error);
        let publishers = Publishers::start(publication, schedule, self.token, &self.live, draw);
        let publishers = publishers.map_err(failed)?;
        while !publishers.are_finished() {
            self.wait_for_more(progress)?;
        }
        publishers.join().map_err(failed)
    }

    /// Messages that need not be waited for any more.
    fn settled(&self) -> u64 {
        read(&self.live.delivered) + read(&self.live.given_up)
    }

    fn wait_for_more(&self, progress: &mut Progress) -> Result<(), BenchError> {
        self.check_threads()?;
        progress.show(clock::monotonic_ns(), || {
            let (delivered, expected) = (read(&self.live.delivered), read(&self.live.expected));
            format!("{delivered} of {expected} messages received")
        });
        clock::pause(POLL);
        Ok(())
    }

    fn listen(&self, duration: Duration, progress: &mut Progress) -> Result<(), BenchError> {
        let start_ns = clock::monotonic_ns();
        loop {
            let now_ns = clock::monotonic_ns();
            let passed = Duration::from_nanos(now_ns - start_ns);
            if passed >= duration {
                return Ok(());
            }
            self.check_threads()?;
            progress.show(now_ns, || {
                let delivered = read(&self.live.delivered);
                format!("{} s: {delivered} messages received", passed.as_secs())
            });
            clock::pause(POLL);
        }
    }

    /// No thread ends before it is told to, unless something is wrong with it.
    fn check_threads(&self) -> Result<(), BenchError> {
        match self.crowds.iter().any(JoinHandle::is_finished) {
            true => Err(BenchError::Thread(io::Error::other("it ended early"))),
            false => Ok(()),
        }
    }

    fn join(&mut self) -> Result<Tally, BenchError> {
        let mut all = Tally::new().map_err(BenchError::Thread)?;
        for crowd in self.crowds.drain(..) {
            let tally = crowd.join().map_err(panicked)?.map_err(BenchError::Thread)?;
            all.merge(&tally).map_err(BenchError::Thread)?;
        }
        Ok(all)
    }
}

impl Drop for Round<'_> {
    /// Whatever has happened: the next round begins without these streams.
    fn drop(&mut self) {
        self.live.stop.store(true, Ordering::Relaxed);
        for crowd in self.crowds.drain(..) {
            // How it ended does not matter any more.
            let _ = crowd.join();
        }
    }
}

/// Room for streams in descriptor tables.
#[derive(Clone, Copy)]
struct Descriptors {
    limit: usize,
    /// Whether each thread can have a table of its own.
    are_private: bool,
}

impl Descriptors {
    fn find() -> Self {
        let limit = host::raise_descriptor_limit().saturating_sub(DESCRIPTORS_RESERVED).max(1);
        // Tried by a thread that ends with its table.
        let tried = std::thread::spawn(raw::make_descriptor_table_private).join();
        Self { limit, are_private: matches!(tried, Ok(Ok(()))) }
    }

    /// As many threads as streams need tables, and otherwise as many as can run at a time.
    fn threads(self, options: &BenchOptions) -> usize {
        let streams = usize::try_from(options.streams).unwrap_or(usize::MAX);
        let tables = if self.are_private { streams.div_ceil(self.limit) } else { 1 };
        let busy = streams.div_ceil(STREAMS_PER_THREAD_MIN).min(host::usable_cores().len());
        options.threads.unwrap_or_else(|| tables.max(busy)).clamp(1, streams.max(1))
    }

    /// Streams that fit into so many threads.
    fn room(self, threads: usize) -> usize {
        if self.are_private { self.limit.saturating_mul(threads) } else { self.limit }
    }
}

/// Divides the streams among the threads.
fn shares(options: &BenchOptions, threads: usize, start_ns: u64) -> Vec<Share> {
    let threads_wide = u64::try_from(threads).unwrap_or(1).max(1);
    let bound = |thread: u64| {
        u32::try_from(u64::from(options.streams) * thread / threads_wide).unwrap_or(u32::MAX)
    };
    let under_way = (OPENING_MAX / u32::try_from(threads).unwrap_or(u32::MAX)).max(1);
    let second_ns: u64 = 1_000_000_000;
    let per_stream_ns = options.opening.rate.map(|rate| second_ns / u64::from(rate.max(1)));
    (0..threads_wide)
        .map(|thread| {
            let (first, end) = (bound(thread), bound(thread + 1));
            let start_ns = start_ns + per_stream_ns.unwrap_or(0) * thread;
            let interval_ns = per_stream_ns.map(|time| time * threads_wide);
            let pace = Pace::new(end - first, start_ns, interval_ns, under_way);
            Share { first, streams: end - first, pace }
        })
        .collect()
}

/// What the streams come back to, if they do.
fn read_past(options: &BenchOptions, subject: &Subject) -> Result<Option<Past>, BenchError> {
    match &subject.load {
        Load::Publish(Publication { sink: Sink::Redis { server, channel, .. }, .. })
            if options.resumes =>
        {
            let (channels, width) = (options.channels, options.channels_per_stream);
            Past::read(server, channel, channels, width).map(Some).map_err(BenchError::Past)
        }
        _ => Ok(None),
    }
}

/// How often Redis has executed each command, if that matters.
fn calls(matters: bool, subject: &Subject) -> Result<BTreeMap<String, u64>, BenchError> {
    match &subject.load {
        Load::Publish(Publication { sink: Sink::Redis { server, .. }, .. }) if matters => {
            past::calls(server).map_err(BenchError::Past)
        }
        _ => Ok(BTreeMap::new()),
    }
}

fn observe(subject: &Subject) -> Result<Option<Usage>, BenchError> {
    if subject.pids.is_empty() {
        return Ok(None);
    }
    Usage::of(&subject.pids).map(Some).ok_or_else(|| BenchError::Observe(subject.pids.clone()))
}

fn read(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

fn panicked<T>(_: T) -> BenchError {
    BenchError::Thread(io::Error::other("it panicked"))
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(target, error) => write!(f, "cannot find the host of {target}: {error}"),
            Self::Observe(pids) => {
                let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
                write!(f, "--server-pid {}: no such process any more", pids.join(", "))
            }
            Self::Publish(sink, error) => match &**sink {
                Sink::Redis { server, .. } => write!(
                    f,
                    "cannot publish at {}: {error} (--redis, --broker-listen or --publish-url name \
                 another place, --listen-only publishes nothing)",
                    server.endpoint
                ),
                Sink::Http(posting) => {
                    write!(f, "cannot publish at {}: {error}", posting.target)
                }
            },
            Self::Past(error) => write!(f, "cannot come back to history: {error}"),
            Self::Thread(error) => write!(f, "a thread failed: {error}"),
            Self::Floor(error) => write!(f, "the floor did not start: {error}"),
        }
    }
}

impl std::error::Error for BenchError {}

/// Streams that are opening at a time, over all threads: far below the queue of a listener.
const OPENING_MAX: u32 = 512;

/// A thread with fewer would cost more than it helps.
const STREAMS_PER_THREAD_MIN: usize = 2000;

/// How often the main thread looks at what the others do.
const POLL: Duration = Duration::from_millis(2);

/// Time in which duplicates are waited for.
const LINGER: Duration = Duration::from_millis(100);

const STACK_BYTES: usize = 256 * 1024;
