//! The wait: for signals, and for workers that failed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{error, info, warn};

use crate::admin::Overview;
use crate::ground::config::Config;
use crate::io::wake::Wake;
use crate::process::error::ServeError;
use crate::sys::thread::spawn;
use crate::sys::{clock, host};
use crate::worker::{self, Setup};

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Drained,
    /// A second signal, or streams that would not close in time.
    CutShort,
}

/// Delays before a failed worker is started again grow from here …
const RESTART_MIN: Duration = Duration::from_millis(100);

/// … to here.
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A worker that ran for so long was healthy: its failure is a new story.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// What workers get beyond the drain time before they are left behind.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Longest wait of `main`, and the wait for a thread that has said its last word to end.
const WAIT_MAX: Duration = Duration::from_secs(1);
const WAIT_FOR_END: Duration = Duration::from_millis(20);

/// The workers' threads.
pub(super) struct Supervisor {
    slots: Vec<Slot>,
    bell: Arc<Wake>,
    overview: Arc<Overview>,
    private_table: bool,
    cores: Vec<usize>,
}

/// One worker, and how it fares.
struct Slot {
    setup: Setup,
    life: Life,
    failures: u32,
}

enum Life {
    Running {
        thread: JoinHandle<io::Result<()>>,
        since: Instant,
    },
    /// Failed; to be started again.
    Waiting {
        until: Instant,
    },
    Drained,
}

impl Supervisor {
    /// Starts all workers.
    pub(super) fn start(
        setups: Vec<Setup>,
        bell: Arc<Wake>,
        overview: Arc<Overview>,
        private_table: bool,
    ) -> io::Result<Self> {
        let cores = host::usable_cores();
        let mut supervisor = Self { slots: Vec::new(), bell, overview, private_table, cores };
        for setup in setups {
            let life = supervisor.start_worker(&setup)?;
            supervisor.slots.push(Slot { setup, life, failures: 0 });
        }
        Ok(supervisor)
    }

    /// Waits until the server is told to end, and has. Calls `serving` once every worker serves.
    /// The server can't do without `threads`.
    pub(super) fn run(
        mut self,
        signals: &OwnedFd,
        threads: &[(&'static str, &JoinHandle<io::Result<()>>)],
        config: &Config,
        serving: impl FnOnce(),
    ) -> Result<Ending, ServeError> {
        let mut serving = Some(serving);
        let mut drained_by = None;
        let mut wait = WAIT_MAX;
        loop {
            let (signalled, rung) = self.wait(signals, wait)?;
            let now = clock::now();
            wait = if rung { WAIT_FOR_END } else { WAIT_MAX };
            self.look_after_workers(now, serving.is_some())?;
            if let Some((name, _)) = threads.iter().find(|(_, thread)| thread.is_finished()) {
                return Err(ServeError::Thread(name));
            }
            if self.slots.iter().all(|slot| slot.setup.mailbox.is_ready())
                && let Some(serving) = serving.take()
            {
                serving();
            }
            if signalled && drained_by.is_some() {
                warn!("second signal: ending at once");
                return Ok(Ending::CutShort);
            }
            if signalled {
                info!("draining over {:?}", config.drain_time);
                self.overview.draining.store(true, Ordering::Relaxed);
                self.slots.iter().for_each(|slot| slot.setup.mailbox.drain());
                drained_by = Some(now + config.drain_time + DRAIN_GRACE);
            }
            if drained_by.is_some() && self.has_drained() {
                info!("drained");
                return Ok(Ending::Drained);
            }
            if drained_by.is_some_and(|deadline| now >= deadline) {
                warn!("some streams did not close in time: leaving them");
                return Ok(Ending::CutShort);
            }
        }
    }

    /// Waits for a signal or the bell, whichever comes first.
    fn wait(&self, signals: &OwnedFd, longest: Duration) -> io::Result<(bool, bool)> {
        let mut sources = [
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
        ];
        let timeout = Timespec::try_from(longest).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match rustix::event::poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [signalled, rung] = sources.map(|source| source.revents().contains(PollFlags::IN));
        if rung {
            self.bell.hear();
        }
        if signalled {
            // A signal each (signalfd(2)); which of the two does not matter.
            let mut signal = [0; 128];
            rustix::io::read(signals, &mut signal)?;
        }
        Ok((signalled, rung))
    }

    /// Buries workers that ended, and starts those again whose time has come.
    fn look_after_workers(&mut self, now: Instant, starting: bool) -> Result<(), ServeError> {
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else { continue };
            let ended = matches!(&slot.life, Life::Running { thread, .. } if thread.is_finished());
            if ended {
                slot.bury(now, starting)?;
                self.overview.restarts.fetch_add(u64::from(slot.is_waiting()), Ordering::Relaxed);
            }
            // While draining, nobody needs it any more.
            let may_start = !slot.setup.mailbox.is_draining();
            if may_start && matches!(slot.life, Life::Waiting { until } if now >= until) {
                let setup = slot.setup.clone();
                let life = self.start_worker(&setup).unwrap_or_else(|error| {
                    error!(worker = %setup.id, %error, "can't be started; trying again");
                    Life::Waiting { until: now + RESTART_MAX }
                });
                if let Some(slot) = self.slots.get_mut(place) {
                    slot.life = life;
                }
            }
        }
        Ok(())
    }

    fn start_worker(&self, setup: &Setup) -> io::Result<Life> {
        let name = format!("worker-{}", setup.id);
        // More workers than cores compete: bound to a core that somebody else keeps busy, some
        // would starve beside others that have time.
        let core = self
            .cores
            .get(usize::from(setup.id.0) % self.cores.len().max(1))
            .filter(|_| setup.config.pin && setup.config.workers <= self.cores.len())
            .copied();
        let setup = setup.clone();
        let thread = spawn(&name, self.private_table, move || {
            let _ring = setup.mailbox.ring_main_on_drop();
            if let Some(core) = core
                && let Err(error) = host::pin_to_core(core)
            {
                warn!(worker = %setup.id, core, %error, "can't be pinned");
            }
            worker::run(setup)
        })?;
        Ok(Life::Running { thread, since: clock::now() })
    }

    fn has_drained(&self) -> bool {
        self.slots.iter().all(|slot| !matches!(slot.life, Life::Running { .. }))
    }
}

impl Slot {
    fn is_waiting(&self) -> bool {
        matches!(self.life, Life::Waiting { .. })
    }

    /// The thread has ended: in peace, or to be started again.
    fn bury(&mut self, now: Instant, starting: bool) -> Result<(), ServeError> {
        let Life::Running { thread, since } = std::mem::replace(&mut self.life, Life::Drained)
        else {
            return Ok(());
        };
        let worker = self.setup.id;
        match thread.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if starting => return Err(ServeError::Worker(error)),
            Ok(Err(error)) => error!(%worker, %error, "failed; its streams will reconnect"),
            Err(_) => error!(%worker, "panicked; its streams will reconnect"),
        }
        self.setup.counters.bury();
        if now.duration_since(since) >= HEALTHY_AFTER {
            self.failures = 0;
        }
        let delay = RESTART_MIN.saturating_mul(1 << self.failures.min(10)).min(RESTART_MAX);
        self.failures += 1;
        self.life = Life::Waiting { until: now + delay };
        Ok(())
    }
}
