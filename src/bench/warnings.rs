//! What spoils a result, each with its remedy.

use std::io;

use super::observer::HostTime;
use super::score::{Failure, Tally};

/// What a test ran under.
pub(super) struct Circumstances<'a> {
    pub(super) tally: &'a Tally,
    /// Streams that were wanted.
    pub(super) streams: u32,
    /// Streams that descriptors have room for.
    pub(super) descriptors: usize,
    /// The longest time that a message left after it was due.
    pub(super) late_ns: u64,
    /// The cores' time from the first message to the last.
    pub(super) host: HostTime,
}

/// One line for each circumstance that the figures are not to blame on the server.
pub(super) fn of(circumstances: &Circumstances<'_>) -> Vec<String> {
    let Circumstances { tally, streams, descriptors, late_ns, host } = circumstances;
    let mut warnings = Vec::new();
    let failed = |error: rustix::io::Errno| {
        let error = io::Error::from_raw_os_error(error.raw_os_error());
        tally.failures.get(&Failure::from(error)).copied().unwrap_or(0)
    };
    if usize::try_from(*streams).unwrap_or(usize::MAX) > *descriptors {
        warnings.push(format!(
            "descriptors allow {descriptors} streams here: use more --threads, or raise ulimit -n"
        ));
    }
    let without_port =
        failed(rustix::io::Errno::ADDRNOTAVAIL) + failed(rustix::io::Errno::ADDRINUSE);
    if without_port > 0 {
        warnings.push(format!(
            "{without_port} streams found no free port: widen net.ipv4.ip_local_port_range, or \
             open fewer streams from this host"
        ));
    }
    let share = |part: u64| 100.0 * part as f64 / (host.all.max(1)) as f64;
    if share(host.stolen) > STOLEN_PERCENT_MAX {
        warnings.push(format!(
            "{:.0} % of the cores' time went to other guests of the machine: use a host of its \
             own, or compare with --compare-floor",
            share(host.stolen)
        ));
    }
    if tally.busy > BUSY_MAX {
        warnings.push(format!(
            "the load generator was busy for {:.0} % of the time, so latencies are partly its \
             own: use more --threads on more cores, or fewer messages",
            100.0 * tally.busy
        ));
    }
    if share(host.all - host.idle) > USED_PERCENT_MAX && tally.delivered > 0 {
        warnings.push(
            "all cores were busy, and the load generator shares them: run it on another host if \
             the server runs here, or compare with --compare-floor"
                .to_owned(),
        );
    }
    if *late_ns > LATE_NS_MAX {
        warnings.push(format!(
            "messages left up to {} ms late: lower --rate or --burst, or publish from another \
             host (latencies count from the time that was intended)",
            late_ns / 1_000_000
        ));
    }
    warnings
}

const STOLEN_PERCENT_MAX: f64 = 1.0;
const USED_PERCENT_MAX: f64 = 97.0;
const BUSY_MAX: f64 = 0.9;
const LATE_NS_MAX: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The only warning under circumstances that differ from good ones.
    #[track_caller]
    fn check(change: impl Fn(&mut Tally, &mut Circumstances<'_>), expected: &str) {
        let mut tally = Tally::new().unwrap();
        tally.delivered = 1;
        let empty = Tally::new().unwrap();
        let host = HostTime { all: 1000, idle: 500, stolen: 0 };
        let mut circumstances =
            Circumstances { tally: &empty, streams: 10, descriptors: 10, late_ns: 0, host };
        change(&mut tally, &mut circumstances);
        let warnings = of(&Circumstances { tally: &tally, ..circumstances });
        if expected.is_empty() {
            assert_eq!(warnings, Vec::<String>::new());
        } else {
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
        }
    }

    #[test]
    fn every_spoiler_is_named_and_nothing_else() {
        let no_port = Failure::System(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error());
        check(|_, _| {}, "");
        check(|_, c| c.streams = 11, "descriptors allow 10 streams");
        check(
            |tally, _| *tally.failures.entry(no_port).or_default() = 3,
            "3 streams found no free port",
        );
        check(|_, c| c.host.stolen = 20, "2 % of the cores' time went to other guests");
        check(|tally, _| tally.busy = 0.95, "busy for 95 % of the time");
        check(|_, c| c.host.idle = 0, "all cores were busy");
        check(|_, c| c.late_ns = 11_000_000, "up to 11 ms late");
    }
}
