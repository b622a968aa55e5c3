//! When Redis goes, freezes, or a worker dies: streams stay where they can, and are told the truth.
#![cfg(test)]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::clock::{Deadline, eventually, eventually_within, let_pass, now};
use support::crowd::{Crowd, Outcome, Plan, differing, payload};
use support::event_source::Message;
use support::http::Connection;
use support::process::Process;
use support::redis::{Redis, free_port};
use support::server::{Server, command};
use support::stream::Stream;
use support::{address::Address, http};

fn reason(data: &str) -> String {
    let data: Value = serde_json::from_str(data).unwrap();
    data["reason"].as_str().unwrap().to_owned()
}

#[track_caller]
fn assert_link_lost(message: &Message) {
    assert_eq!(message.event, "stream-reset", "{message:?}");
    assert_eq!(reason(&message.data), "link-lost");
}

#[test]
fn streams_outlive_a_restart_of_redis_and_are_told_once() {
    let mut redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "2"]);
    let plan = Plan::of_one_channel(server.listener().tcp(), 1000, |_| 19);
    let mut crowd = Crowd::gather(plan);
    crowd.wait_open();
    let numbered = |numbers: std::ops::Range<u32>| -> Vec<(&str, String)> {
        numbers.map(|number| ("crowd", payload(number, 200))).collect()
    };
    redis.client().publish_all(&numbered(0..10));
    // Redis answers the publisher before its subscribers; killed in between, it would lose some.
    eventually("the first ten are delivered", || {
        (server.metric("corecast_deliveries_total") >= 10_000.0).then_some(())
    });

    redis.kill();
    eventually("the server is not ready without Redis", || {
        (server.admin("/readyz").head.status == 503).then_some(())
    });
    assert_eq!(server.admin("/livez").head.status, 200);
    redis.restart();
    server.wait_ready();
    crowd.wait_resets(1000);
    redis.client().publish_all(&numbered(10..20));
    crowd.wait_done();

    let outcomes = crowd.leave();
    let is_right = |outcome: &Outcome| {
        let resets: Vec<String> = outcome.resets.iter().map(|data| reason(data)).collect();
        outcome.last == Some(19) && resets == ["link-lost"] && !outcome.ended
    };
    assert_eq!(differing(&outcomes, is_right), "");
}

#[test]
fn streams_opened_without_redis_are_reset_once_it_is_there() {
    let mut redis = Redis::start();
    redis.kill();
    // The banner comes with readiness, so the ports must be known before.
    let [listen, admin] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let options = ["--redis", &redis.url(), "--listen", &listen, "--admin-listen", &admin];
    let server = Process::start(&mut command(&[], &options));
    let [listen, admin] = [listen, admin].map(|text| Address::parse(&text).unwrap());
    eventually("the server listens", || {
        assert!(!server.has_ended(), "{}", server.transcript());
        (listen.connect().is_ok() && admin.connect().is_ok()).then_some(())
    });
    assert_eq!(http::get(&admin, "/livez").head.status, 200);
    assert_eq!(http::get(&admin, "/readyz").head.status, 503);

    let mut stream = Stream::open(&listen, "/events/a");
    stream.stays_silent(Duration::from_millis(200));
    redis.restart();
    assert_link_lost(&stream.next_message());
    // The other worker's link may take a moment longer.
    eventually("every link is proven", || {
        (http::get(&admin, "/readyz").head.status == 200).then_some(())
    });
    redis.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn frozen_redis_is_noticed_and_streams_go_on_after_it_thaws() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "1"]);
    let mut stream = server.open("/events/a");
    redis.signal(Signal::STOP);
    eventually_within(Duration::from_secs(30), "the server gives the link up", || {
        (server.metric("corecast_link_losses_total") >= 1.0).then_some(())
    });
    assert_eq!(server.admin("/readyz").head.status, 503);
    redis.signal(Signal::CONT);
    server.wait_ready();
    assert_link_lost(&stream.next_message());
    redis.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn killed_link_is_replaced_and_streams_are_told() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "1"]);
    let mut stream = server.open("/events/a");
    for round in 0..3 {
        redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
        assert_link_lost(&stream.next_message());
        let data = round.to_string();
        redis.publish("a", &data);
        assert_eq!(stream.next_message().data, data);
    }
}

#[test]
fn worker_that_dies_takes_only_its_own_streams() {
    if !cfg!(debug_assertions) {
        return;
    }
    let redis = Redis::start();
    let server = Server::with_environment(
        &[("CORECAST_TEST_PANIC", "1")],
        &["--redis", &redis.url(), "--workers", "2"],
    );
    let mut streams: Vec<Stream> = (0..64).map(|_| server.open("/events/a")).collect();
    redis.publish("corecast:test:panic", "1");
    eventually("some streams end", || {
        streams.iter_mut().for_each(|stream| stream.poll(Duration::from_millis(1)));
        streams.iter().any(Stream::has_ended).then_some(())
    });
    assert!(server.log_line(&["panic"]).is_some(), "the panic is not in the log");

    // The worker is there again, and a page that comes back gets what is published then.
    server.wait_ready();
    let mut returned: Vec<Stream> = (0..64).map(|_| server.open("/events/a")).collect();
    redis.publish("a", "hello");
    for stream in &mut returned {
        assert_eq!(stream.next_message().data, "hello");
    }
    let survivors = streams.iter_mut().filter_map(Stream::next_message_or_end);
    let survivors: Vec<Message> = survivors.collect();
    assert!(survivors.iter().all(|message| message.data == "hello"), "{survivors:?}");
    assert!((1..64).contains(&survivors.len()), "{} of 64 streams survived", survivors.len());
    server.terminate();
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn worker_that_dies_again_and_again_comes_back_every_time() {
    if !cfg!(debug_assertions) {
        return;
    }
    let redis = Redis::start();
    let server = Server::with_environment(
        &[("CORECAST_TEST_PANIC", "1")],
        &["--redis", &redis.url(), "--workers", "1"],
    );
    for round in 0..5 {
        let mut stream = server.open("/events/a");
        let data = round.to_string();
        redis.publish("a", &data);
        assert_eq!(stream.next_message().data, data);
        redis.publish("corecast:test:panic", "0");
        stream.wait_end();
        eventually("its end is noticed", || {
            let restarts = server.metric("corecast_worker_restarts_total");
            (restarts > f64::from(round)).then_some(())
        });
        server.wait_ready();
    }
}

#[test]
fn termination_closes_streams_evenly_each_with_a_retry_of_its_own() {
    let server = Server::start(&["--drain-time", "1s", "--workers", "2"]);
    let mut streams: Vec<Stream> = (0..40).map(|_| server.open("/events/a")).collect();
    let start = now();
    server.terminate();
    let mut ended_at = vec![None; streams.len()];
    eventually("all streams end", || {
        for (stream, ended_at) in streams.iter_mut().zip(&mut ended_at) {
            if ended_at.is_none() {
                stream.poll(Duration::from_millis(1));
                *ended_at = stream.has_ended().then(|| start.elapsed());
            }
        }
        ended_at.iter().all(Option::is_some).then_some(())
    });
    assert_eq!(server.wait_exit().code(), Some(0));

    let mut ends: Vec<Duration> = ended_at.into_iter().flatten().collect();
    ends.sort_unstable();
    // Only that no stream ends before its time: how late one does is the machine's business.
    assert!(ends[30] > Duration::from_millis(400), "too early: {ends:?}");
    let mut retries: Vec<u64> = streams.iter_mut().map(Stream::retry).collect();
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 20, "{retries:?}");
}

#[test]
fn termination_without_streams_is_immediate() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&["--drain-time", "60s"]);
        server.process().signal(signal);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
}

#[test]
fn termination_refuses_new_connections() {
    let server = Server::start(&["--drain-time", "60s"]);
    let _streams: Vec<Stream> = (0..4).map(|_| server.open("/events/a")).collect();
    server.terminate();
    eventually("the listener is closed", || server.listener().connect().is_err().then_some(()));
}

#[test]
fn second_signal_ends_the_server_at_once() {
    let server = Server::start(&["--drain-time", "60s"]);
    let mut streams: Vec<Stream> = (0..4).map(|_| server.open("/events/a")).collect();
    server.terminate();
    eventually("the listener is closed", || server.listener().connect().is_err().then_some(()));
    server.terminate();
    server.wait_exit();
    for stream in &mut streams {
        stream.wait_end();
    }
}

#[test]
fn events_go_on_while_streams_drain() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--drain-time", "2s"]);
    let mut streams: Vec<Stream> = (0..10).map(|_| server.open("/events/a")).collect();
    server.terminate();
    eventually("the listener is closed", || server.listener().connect().is_err().then_some(()));
    redis.publish("a", "last words");
    let got = streams.iter_mut().filter_map(Stream::next_message_or_end).count();
    assert!(got >= 1, "no stream got what was published during the drain");
}

#[test]
fn server_at_rest_uses_no_processor() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "2"]);
    let plan = Plan::of_one_channel(server.listener().tcp(), 1000, |_| 0);
    let mut crowd = Crowd::gather(plan);
    crowd.wait_open();
    let (start, before) = (now(), server.cpu_time());
    let_pass(Duration::from_secs(5));
    let used = server.cpu_time().saturating_sub(before);
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share < 0.02, "{:.1} % of a core at rest", share * 100.0);
}

#[test]
fn redis_that_is_gone_is_not_asked_without_pause() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "2"]);
    let _stream = server.open("/events/a");
    redis.kill();
    eventually("the link is gone", || (server.admin("/readyz").head.status == 503).then_some(()));
    let before = server.cpu_time();
    let deadline = Deadline::after(Duration::from_secs(3));
    while deadline.left().is_some() {
        let_pass(Duration::from_millis(100));
    }
    let used = server.cpu_time().saturating_sub(before);
    assert!(used < Duration::from_millis(150), "{used:?} in 3 s");
}

#[test]
fn bombs_on_the_broker_port_cost_no_memory() {
    let server = Server::start(&["--workers", "1"]);
    let resident = || {
        let status = format!("/proc/{}/status", server.process().pid());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let bomb = |start: &str, more: &[u8]| {
        let mut connection = Connection::open(&server.broker);
        let _ = connection.try_send(start);
        // 64 MiB, unless the broker closes before: it throws them away while its error is read.
        let _ = (0..1024).try_for_each(|_| connection.try_send(more));
        eventually("the connection is closed", || {
            (server.metric("corecast_broker_clients ") == 1.0).then_some(())
        });
    };
    bomb("QUIT\r\n", b"");
    let before = resident();
    for (start, more) in [
        ("*1\r\n", "*1\r\n".repeat(16 * 1024)),
        ("*2\r\n$7\r\nPUBLISH\r\n$10737418240\r\n", "x".repeat(64 * 1024)),
        ("PUBLISH ", "x".repeat(64 * 1024)),
        ("GET / HTTP/1.1\r\n", "Host: x\r\n".repeat(8 * 1024)),
    ] {
        bomb(start, more.as_bytes());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB more than {before}");
    let mut stream = server.open("/events/a");
    server.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}
