//! User memory of idle streams: the real server, one worker, embedded broker; first one channel
//! for all, then for each stream its own, with a name of 20 bytes. The broker is in the same
//! process, so its share of each channel counts too.
//!
//! `cargo bench --bench idle_memory`; environment: `STREAMS`, `DRIVER=epoll`.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{Crowd, is_small, print_host, resident, wait};

fn main() {
    let usual = if is_small() { 500 } else { 18_000 };
    let streams = std::env::var("STREAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    print_host();
    support::raise_descriptor_limit();
    measure("one channel", streams, |_| request("news"));
    measure("a channel each", streams, |number| request(&format!("courses/state/{number:06}")));
}

fn measure(what: &str, streams: usize, request: fn(usize) -> String) {
    let driver = std::env::var("DRIVER").unwrap_or_else(|_| "auto".to_owned());
    let mut server = Command::new(env!("CARGO_BIN_EXE_corecast"))
        .args(["--workers", "1", "--driver", &driver, "--heartbeat", "0"])
        .args(["--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut banner = BufReader::new(server.stdout.take().unwrap()).lines();
    let url = banner
        .find_map(|line| line.unwrap().trim().strip_prefix("streams  http://").map(str::to_owned))
        .unwrap();
    let address = url.split('/').next().unwrap().parse().unwrap();

    let at_rest = resident(server.id());
    let crowd = Crowd::open(address, streams, request);
    wait("all streams are open", || crowd.opened() == streams as u64);
    let held = resident(server.id());
    assert_eq!(crowd.closed(), 0);
    let each = (held - at_rest) as f64 / streams as f64;
    println!(
        "{what}: at rest {:.2} MiB, with {streams} idle streams {:.2} MiB: {each:.0} bytes each",
        mib(at_rest),
        mib(held)
    );
    drop(crowd);
    server.kill().unwrap();
    server.wait().unwrap();
}

fn request(channel: &str) -> String {
    format!("GET /events/{channel} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
