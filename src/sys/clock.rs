//! The one place that reads the clock; floors 0 to 2 are told the time.

use std::time::Instant;

/// The time now (CLOCK_MONOTONIC).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}
