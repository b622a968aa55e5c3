//! Very many streams: every message once, in order, to each of them.
#![cfg(test)]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread;
use std::time::Duration;

use support::address::Address;
use support::clock::now;
use support::crowd::{Crowd, Outcome, Plan, differing, payload};
use support::process::Process;
use support::redis::Redis;
use support::server::Server;

#[track_caller]
fn assert_all_complete(outcomes: &[Outcome], streams: usize, last: impl Fn(usize) -> u32) {
    assert_eq!(outcomes.len(), streams);
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.last, Some(last(index)), "stream {index}: {outcome:?}");
    }
    let undisturbed = |outcome: &Outcome| outcome.resets.is_empty() && !outcome.ended;
    assert_eq!(differing(outcomes, undisturbed), "");
}

#[test]
fn ten_thousand_streams_get_every_message_once_and_in_order() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &[]);
    let mut crowd = Crowd::gather(Plan::of_one_channel(server.listener().tcp(), 10_000, |_| 199));
    crowd.wait_open();
    let start = now();
    let messages: Vec<(&str, String)> =
        (0..200).map(|number| ("crowd", payload(number, 200))).collect();
    let mut client = redis.client();
    for batch in messages.chunks(20) {
        client.publish_all(batch);
    }
    crowd.wait_done();
    println!("10,000 streams, 200 messages: {:?}", start.elapsed());
    assert_all_complete(&crowd.leave(), 10_000, |_| 199);
}

#[test]
fn crowd_notices_what_is_lost_repeated_swapped_or_changed() {
    let notices = |numbers: &[u32], change: &str| {
        let mut answer = "HTTP/1.1 200 OK\r\n\r\nretry: 1\nid: 1\n\n".to_owned();
        for number in numbers {
            answer.push_str(&format!("data: {}{change}\n\n", payload(*number, 20)));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut socket = listener.accept().unwrap().0;
            socket.write_all(answer.as_bytes()).unwrap();
            socket
        });
        let plan = Plan { threads: 1, ..Plan::of_one_channel(address, 1, |_| 3) };
        let mut crowd = Crowd::gather(plan);
        let complaint = catch_unwind(AssertUnwindSafe(|| crowd.wait_done()));
        server.join().unwrap();
        complaint.is_err()
    };
    assert!(!notices(&[0, 1, 2, 3], ""));
    assert!(notices(&[0, 2, 3], ""));
    assert!(notices(&[0, 1, 1, 2, 3], ""));
    assert!(notices(&[0, 2, 1, 3], ""));
    assert!(notices(&[1, 2, 3], ""));
    assert!(notices(&[0, 1, 2, 3], "x"));
}

/// Channels of the streams with several: stream `i` has five of these twenty.
const CHANNELS: u32 = 20;
const MESSAGES: u32 = 240;

fn has_channel(index: usize, channel: u32) -> bool {
    let first = u32::try_from(index).unwrap() % CHANNELS;
    [0, 3, 7, 11, 16].iter().any(|step| (first + step) % CHANNELS == channel)
}

/// The channel on which a message is published: scattered, each as often as the others.
fn channel_of(number: u32) -> u32 {
    (number * 7 + number / CHANNELS * 3) % CHANNELS
}

fn next_of_stream(index: usize, previous: Option<u32>) -> u32 {
    let mut following = previous.map_or(0, |number| number + 1)..;
    following.find(|number| has_channel(index, channel_of(*number))).unwrap()
}

fn last_of_stream(index: usize) -> u32 {
    (0..MESSAGES).rev().find(|number| has_channel(index, channel_of(*number))).unwrap()
}

#[test]
fn streams_of_five_channels_keep_the_order_across_them_even_for_slow_readers() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--max-pending", "1MiB"]);
    let mut crowd = Crowd::gather(Plan {
        target: |index| {
            let channels = (0..CHANNELS).filter(|channel| has_channel(index, *channel));
            let parameters: Vec<String> =
                channels.map(|channel| format!("channel=c{channel}")).collect();
            format!("/events?{}", parameters.join("&"))
        },
        follows: next_of_stream,
        is_slow: |index| index % 100 == 7,
        ..Plan::of_one_channel(server.listener().tcp(), 2000, last_of_stream)
    });
    crowd.wait_open();
    let names: Vec<String> = (0..CHANNELS).map(|channel| format!("c{channel}")).collect();
    let messages: Vec<(&str, String)> = (0..MESSAGES)
        .map(|number| (names[channel_of(number) as usize].as_str(), payload(number, 2048)))
        .collect();
    let mut client = redis.client();
    for batch in messages.chunks(10) {
        client.publish_all(batch);
    }
    crowd.wait_done();
    assert_all_complete(&crowd.leave(), 2000, last_of_stream);
}

/// Streams of each process; the hard limit of descriptors is often not much higher.
const STREAMS_PER_PROCESS: usize = 12_500;
const PROCESSES: usize = 4;

#[test]
fn fifty_thousand_streams_in_one_process_get_one_message() {
    let server = Server::start(&["--workers", "3"]);
    let crowds: Vec<Process> = (0..PROCESSES)
        .map(|index| {
            let address = server.listener().tcp();
            let plan = format!("{address} {STREAMS_PER_PROCESS} {}", index * STREAMS_PER_PROCESS);
            Process::start(
                Command::new(std::env::current_exe().unwrap())
                    .args(["--ignored", "--exact", "--nocapture", "crowd_of_another_process"])
                    .env("CORECAST_TEST_CROWD", plan),
            )
        })
        .collect();
    let patience = Duration::from_secs(240);
    let wait_for = |word: &str| {
        for crowd in &crowds {
            let found = crowd.output.find_within(patience, |line| (line == word).then_some(()));
            assert!(found.is_some(), "not {word}: {}", crowd.transcript());
        }
    };
    let start = now();
    wait_for("open");
    println!("50,000 streams open: {:?}", start.elapsed());
    let start = now();
    server.publish("crowd", payload(0, 200));
    wait_for("done");
    println!("one message to each: {:?}", start.elapsed());
    for crowd in &crowds {
        crowd.finish();
    }
}

/// A part of the crowd above, in a process of its own.
#[test]
#[ignore = "the other half of fifty_thousand_streams_in_one_process_get_one_message"]
fn crowd_of_another_process() {
    let plan = std::env::var("CORECAST_TEST_CROWD").unwrap();
    let [address, streams, source_offset] = plan.split(' ').collect::<Vec<_>>()[..] else {
        panic!("CORECAST_TEST_CROWD={plan:?}");
    };
    let address = Address::parse(address).unwrap().tcp();
    let streams = streams.parse().unwrap();
    let source_offset = source_offset.parse().unwrap();
    let mut crowd =
        Crowd::gather(Plan { source_offset, ..Plan::of_one_channel(address, streams, |_| 0) });
    crowd.wait_open();
    println!("open");
    crowd.wait_done();
    println!("done");
    assert_all_complete(&crowd.leave(), streams, |_| 0);
}
