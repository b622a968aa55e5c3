//! User memory of idle streams: the real server, one worker, embedded broker, one shared channel.
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
    let driver = std::env::var("DRIVER").unwrap_or_else(|_| "auto".to_owned());
    print_host();
    support::raise_descriptor_limit();
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
    let request = "GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let crowd = Crowd::open(address, streams, request);
    wait("all streams are open", || crowd.opened() == streams as u64);
    let held = resident(server.id());
    assert_eq!(crowd.closed(), 0);
    let each = (held - at_rest) as f64 / streams as f64;
    println!(
        "at rest {:.2} MiB, with {streams} idle streams {:.2} MiB: {each:.0} bytes each",
        mib(at_rest),
        mib(held)
    );
    drop(crowd);
    server.kill().unwrap();
    server.wait().unwrap();
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
