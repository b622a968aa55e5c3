//! The one place that reads the clock; floors 0 to 2 are told the time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The time now (CLOCK_MONOTONIC).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time now in nanoseconds of CLOCK_MONOTONIC, which all processes of a host share.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Time that this thread has spent on a core, in nanoseconds (CLOCK_THREAD_CPUTIME_ID).
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// Does nothing for a while. For tools that wait for other threads; no worker may call it.
pub fn pause(time: Duration) {
    if let Ok(time) = rustix::time::Timespec::try_from(time) {
        // A signal cuts it short, which a caller that asks again does not mind.
        let _ = rustix::thread::nanosleep(&time);
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
