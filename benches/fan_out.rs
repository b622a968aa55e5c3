//! Fan-out beside a bare `send()` loop over the same sockets.
//!
//! One worker's own pieces (decode, encode, publish, passes in slices, yields through the driver)
//! against the least that could do the job. Runs are interleaved, the readers pause while the
//! senders are timed, and what counts is the median of the ratios.
//!
//! `cargo bench --bench fan_out`; environment: `STREAMS`, `ROUNDS`, `DRIVER=epoll`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod support;

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use corecast::bytes::event_stream;
use corecast::bytes::format;
use corecast::ground::config::{Format, HistoryRules};
use corecast::io::reactor::Reactor;
use corecast::state::catch_up::Start;
use corecast::state::counters::Counters;
use corecast::state::streams::{StreamLimits, Streams};
use corecast::sys::raw;
use corecast::sys::runtime::{self, DriverKind, Yield};
use corecast::sys::socket::{self, ClientSockets};
use rustix::net::SendFlags;
use support::{Crowd, is_small, median, now, print_host};

const LIMITS: StreamLimits = StreamLimits {
    max_pending_bytes: 64 * 1024,
    max_intake_bytes: 64 * 1024 * 1024,
    heartbeat_ticks: 150,
    linger_ticks: 300,
    coalesce_ms: 0,
};

/// Payload whose event takes 200 bytes on the wire.
const PAYLOAD_BYTES: usize = 200 - "data: \n\n".len();

fn main() {
    let small = is_small();
    let number = |name: &str, usual: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let streams = number("STREAMS", if small { 500 } else { 10_000 });
    let rounds = number("ROUNDS", if small { 5 } else { 41 });
    let driver = match std::env::var("DRIVER").as_deref() {
        Ok("epoll") => DriverKind::Epoll,
        _ if runtime::has_uring() => DriverKind::Uring,
        _ => DriverKind::Epoll,
    };
    print_host();
    support::raise_descriptor_limit();
    raw::make_descriptor_table_private().unwrap();
    runtime::run(driver, bench(streams, rounds, driver)).unwrap();
}

async fn bench(count: usize, rounds: usize, driver: DriverKind) {
    let listener = socket::listen_tcp(([127, 0, 0, 1], 0).into(), None, None).unwrap();
    let address = socket2::SockRef::from(&listener).local_addr().unwrap().as_socket().unwrap();
    let crowd = Crowd::open(address, count, |_| String::new());
    let mut streams =
        Streams::new(LIMITS, b"", HistoryRules::default(), 1, Arc::new(Counters::default()));
    let mut sockets = ClientSockets;
    let reactor = Reactor::new().unwrap();
    streams.link_up();
    let channel = streams.hold(b"news");
    streams.next_asks(1);
    streams.acknowledge(channel);
    let mut fds: Vec<RawFd> = Vec::with_capacity(count);
    while fds.len() < count {
        let Some(fd) = socket::accept(listener.as_fd()).unwrap() else { continue };
        let id = streams.add(fd);
        reactor.watch_connection(raw::borrow(fd), id).unwrap();
        streams.request(id, &[b"news"], Start::Now, b": head\n".to_vec(), 7, &mut sockets);
        fds.push(fd);
    }
    let mut expected =
        (count * ": head\nretry: 7\nevent: stream-open\ndata:\nid: live\n\n".len()) as u64;
    crowd.wait_received(expected);
    println!(
        "{count} streams, {rounds} interleaved rounds on {driver:?}, fd {}",
        listener.as_raw_fd()
    );

    let payload = "x".repeat(PAYLOAD_BYTES);
    let wire = format!("data: {payload}\n\n");
    let mut yielding = Yield::new().unwrap();
    let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut times = [0.0; 2];
        for turn in 0..2 {
            let which = (turn + round) % 2;
            crowd.pause(true);
            let start = now();
            if which == 0 {
                send_bare(&fds, wire.as_bytes());
            } else {
                let decoded = format::decode(Format::Raw, payload.as_bytes()).unwrap();
                let mut encoded = Vec::new();
                event_stream::encode(&decoded.event, &mut encoded);
                streams.publish(channel, &Rc::from(encoded));
                while streams.slice(256, &mut sockets) {
                    yielding.now().await.unwrap();
                }
            }
            times[which] = start.elapsed().as_secs_f64();
            crowd.pause(false);
            expected += (count * wire.len()) as u64;
            crowd.wait_received(expected);
        }
        bare.push(times[0]);
        ours.push(times[1]);
        ratios.push(times[0] / times[1]);
    }
    assert_eq!(crowd.received(), expected, "every byte once");
    let per_send = |times: &[f64]| median(times) / count as f64 * 1e6;
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[rounds / 4], ratios[rounds - 1 - rounds / 4]);
    println!(
        "bare loop {:.2} us a send, corecast {:.2} us: speed {:.3} of the bare loop \
         (median; quartiles {low:.3} to {high:.3}); {expected} bytes received",
        per_send(&bare),
        per_send(&ours),
        median(&ratios),
    );
}

fn send_bare(fds: &[RawFd], bytes: &[u8]) {
    for fd in fds {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::net::send(raw::borrow(*fd), bytes, flags).unwrap();
        assert_eq!(sent, bytes.len());
    }
}
