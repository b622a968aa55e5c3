//! What the kernel says about the server's processes, and about the host.

use std::fs;
use std::time::Duration;

/// Memory and time of some processes together, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) resident_bytes: u64,
    pub(super) user: Duration,
    pub(super) system: Duration,
}

/// Time of all cores of the host since it started, in ticks (proc_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostTime {
    pub(super) all: u64,
    pub(super) idle: u64,
    /// Given to other guests of the same machine.
    pub(super) stolen: u64,
}

impl Usage {
    /// The processes now; `None` if one of them is gone.
    pub(super) fn of(pids: &[u32]) -> Option<Self> {
        let mut usage = Self::default();
        for pid in pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (user, system) = times(&stat)?;
            usage.user += user;
            usage.system += system;
            // `smaps_rollup` counts pages; `status` reads counters that lag behind by up to 64
            // pages per core, but it may be read by other users.
            let resident = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .ok()
                .and_then(|text| kibibytes(&text, "Rss:"))
                .or_else(|| {
                    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                    kibibytes(&status, "VmRSS:")
                })?;
            usage.resident_bytes += resident * 1024;
        }
        Some(usage)
    }

    /// The most memory that the processes have ever had, together; `None` if one of them is gone.
    pub(super) fn peak_bytes(pids: &[u32]) -> Option<u64> {
        let peak = |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            Some(kibibytes(&status, "VmHWM:")? * 1024)
        };
        pids.iter().map(peak).sum()
    }

    /// The smallest difference of times that can be seen.
    pub(super) fn resolution() -> Duration {
        Duration::from_nanos(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
    }
}

impl HostTime {
    /// The host now; zeros where the kernel does not tell.
    pub(super) fn now() -> Self {
        fs::read_to_string("/proc/stat").ok().and_then(|text| host_time(&text)).unwrap_or_default()
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            all: self.all.saturating_sub(earlier.all),
            idle: self.idle.saturating_sub(earlier.idle),
            stolen: self.stolen.saturating_sub(earlier.stolen),
        }
    }
}

/// What every figure depends on: kernel, cores, model of the CPU.
pub(super) fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {cores} x {}", kernel.trim(), model.trim())
}

/// First and last port that the kernel gives to clients (ip(7)).
pub(super) fn client_ports() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().map_while(|word| word.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) if first <= last => (first, last),
        _ => (32_768, 60_999),
    }
}

/// User and system time from proc_pid_stat(5). The name before them may hold anything.
fn times(stat: &str) -> Option<(Duration, Duration)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse().ok());
    let time = |ticks: u32| Usage::resolution() * ticks;
    Some((time(ticks.next()?), time(ticks.next()?)))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

fn host_time(text: &str) -> Option<HostTime> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> =
        line.split_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
    match ticks.as_slice() {
        // User, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen.
        [_, _, _, idle, waiting, _, _, stolen] => {
            Some(HostTime { all: ticks.iter().sum(), idle: idle + waiting, stolen: *stolen })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a ) 1 2) S 1 7 7 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 1 0 5 6 7";
        let tick = Usage::resolution();
        assert_eq!(times(stat), Some((tick * 12, tick * 34)));
        assert_eq!(times("7 (a) S 1"), None);
    }

    #[test]
    fn the_host_tells_its_time() {
        let text = "cpu  10 1 20 300 5 6 7 8 90 91\ncpu0 1 2 3\n";
        assert_eq!(host_time(text), Some(HostTime { all: 357, idle: 305, stolen: 8 }));
        assert_eq!(host_time("cpu 1 2\n"), None);
    }

    #[test]
    fn this_process_can_be_observed() {
        let usage = Usage::of(&[std::process::id()]).unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert_eq!(Usage::of(&[u32::MAX]), None);
        assert!(HostTime::now().all > 0);
        let (first, last) = client_ports();
        assert!(first < last);
    }
}
