//! `corecast bench`: a load generator for servers of event streams.
//!
//! Threads hold the streams ([`crowd`]), another publishes on schedule ([`publisher`]), and the
//! main thread takes them through one test ([`round`]), or through several of the server and of the
//! [`floor`] in turn ([`comparison`]). Everything that decides something is a pure function: what a
//! stream has missed ([`sequence`]), when a message is due ([`schedule`]), what a response says
//! ([`response`]), where it comes back to ([`past`]), how sure a ratio is ([`statistics`]).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::sys::clock;

mod comparison;
mod crowd;
mod draw;
pub mod floor;
mod message;
mod observer;
pub mod options;
mod pace;
mod past;
mod progress;
mod publisher;
mod redis_link;
mod report;
mod response;
mod round;
pub mod schedule;
mod score;
mod sequence;
mod sink;
mod sources;
mod statistics;
pub mod target;
mod warnings;

use options::{Allowed, BenchOptions};
use progress::Progress;
use report::Report;
use round::{BenchError, Subject};

/// Tests, and says on stdout what was found; code 1 if something was lost, or nothing was found.
#[must_use]
pub fn run(options: &BenchOptions) -> ExitCode {
    match test(options) {
        Ok(fault) if fault <= options.allowed => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "corecast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The worst that any stream has met.
fn test(options: &BenchOptions) -> Result<Allowed, BenchError> {
    let mut progress = Progress::new(clock::monotonic_ns());
    let subject = Subject {
        target: options.target.clone(),
        load: options.load.clone(),
        pids: options.server_pids.clone(),
    };
    let mut stdout = io::stdout().lock();
    // A closed pipe changes nothing about what was found.
    match &options.comparison {
        None => {
            let report = round::run(options, &subject, &mut progress)?;
            say_what_was_wrong([&report]);
            let _ = match options.json {
                true => writeln!(stdout, "{}", report.to_json()),
                false => write!(stdout, "{report}"),
            };
            Ok(report.tally.worst())
        }
        Some(comparison) => {
            let compared = comparison::run(options, comparison, &subject, &mut progress)?;
            say_what_was_wrong(compared.reports());
            let _ = match options.json {
                true => writeln!(stdout, "{}", compared.to_json()),
                false => write!(stdout, "{compared}"),
            };
            let worst = compared.reports().map(|report| report.tally.worst()).max();
            Ok(worst.unwrap_or(Allowed::Nothing))
        }
    }
}

/// Faults of the server, and what spoils the figures, on stderr.
fn say_what_was_wrong<'a>(reports: impl IntoIterator<Item = &'a Report>) {
    let mut stderr = io::stderr().lock();
    let mut warned = BTreeSet::new();
    for report in reports {
        for fault in report.faults() {
            let _ = writeln!(stderr, "corecast: {}: {fault}", report.url);
        }
        // Rounds have the same to say.
        for warning in report.warnings.iter().filter(|warning| warned.insert(*warning)) {
            let _ = writeln!(stderr, "corecast: warning: {warning}");
        }
    }
}
