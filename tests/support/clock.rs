//! Deadlines: every wait of a test ends, and none is a guess.

use std::time::{Duration, Instant, SystemTime};

/// Long enough for anything that is going to happen, on a loaded machine, in a debug build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, as the ids of events count them.
pub(crate) fn time_of_day_ms() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(time.as_millis()).unwrap()
}

/// A moment by which something must have happened.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(wait: Duration) -> Self {
        Self(now() + wait)
    }

    /// What is left, or `None` once it has passed.
    pub(crate) fn left(self) -> Option<Duration> {
        let left = self.0.saturating_duration_since(now());
        (!left.is_zero()).then_some(left)
    }
}

/// Asks again until `check` answers; panics with `what` once [`PATIENCE`] has passed.
pub(crate) fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, check)
}

/// [`eventually`], with a patience of its own.
#[expect(clippy::disallowed_methods, reason = "the pause between two questions")]
pub(crate) fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Deadline::after(patience);
    loop {
        if let Some(answer) = check() {
            return answer;
        }
        assert!(deadline.left().is_some(), "{what}: did not happen within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass where time itself is what a test measures, such as CPU at rest.
#[expect(clippy::disallowed_methods, reason = "the passing time is what is measured")]
pub(crate) fn let_pass(time: Duration) {
    std::thread::sleep(time);
}
