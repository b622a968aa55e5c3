//! What a stream carries, from its first byte to its last.
#![cfg(test)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::address::Socket;
use support::clock::{eventually, now};
use support::event_source::Message;
use support::http::Connection;
use support::redis::Redis;
use support::server::Server;
use support::stream::{Stream, request};

#[track_caller]
fn assert_reset(message: &Message, reason: &str, channels: &[&str]) {
    let start = message.data.get(..200).unwrap_or(&message.data);
    assert_eq!(message.event, "stream-reset", "with the data {start}");
    let data: Value = serde_json::from_str(&message.data).unwrap();
    assert_eq!(data, json!({"reason": reason, "channels": channels}));
}

#[test]
fn stream_begins_with_a_retry_and_an_id() {
    let server = Server::start(&["--retry", "2s", "--retry-jitter", "50"]);
    let mut retries: Vec<u64> = Vec::new();
    for _ in 0..50 {
        let mut stream = server.open("/events/a");
        retries.push(stream.retry());
        assert!(!stream.last_event_id().is_empty());
    }
    assert!(retries.iter().all(|retry| (1000..=3000).contains(retry)), "{retries:?}");
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 25, "the jitter is no jitter: {retries:?}");
}

#[test]
fn stream_that_returns_learns_that_it_may_have_missed_something() {
    let server = Server::start(&[]);
    let mut first = server.open("/events/a");
    let id = first.last_event_id();
    for mut returning in [
        Stream::open_with(server.listener(), "/events/a", &[("Last-Event-ID", &id)]),
        server.open(&format!("/events/a?lastEventId={id}")),
        server.open("/events/a?last_event_id=7"),
        server.open("/events/a?last-event-id=7"),
    ] {
        assert_reset(&returning.next_message(), "no-history", &["a"]);
        server.publish("a", "news");
        assert_eq!(returning.next_message().data, "news");
    }
    // The first stream never left, and is told nothing but the news.
    assert_eq!(first.next_message().data, "news");
}

#[test]
fn reset_names_all_channels_of_the_stream() {
    let server = Server::start(&[]);
    let mut stream = Stream::open_with(
        server.listener(),
        "/events?channel=a&channel=b%22c",
        &[("Last-Event-ID", "x")],
    );
    assert_reset(&stream.next_message(), "no-history", &["a", "b\"c"]);
}

#[test]
fn payload_lines_and_bytes_arrive_as_they_were_published() {
    let server = Server::start(&[]);
    let mut stream = server.open("/events/a");
    let mut client = server.client();
    for (payload, data) in [
        (&b"plain"[..], "plain"),
        (b"", ""),
        (b"a\nb\r\nc\rd", "a\nb\nc\nd"),
        (b"trailing\n", "trailing\n"),
        (b" leading: colon", " leading: colon"),
        (b"\n", "\n"),
        (b"event: fake\n\ndata: fake", "event: fake\n\ndata: fake"),
        ("größe \u{1F600}\u{2028}".as_bytes(), "größe \u{1F600}\u{2028}"),
        (b"in\xffvalid\xc3", "in\u{FFFD}valid\u{FFFD}"),
        (b"nul\0inside", "nul\0inside"),
    ] {
        client.publish("a", payload);
        let message = stream.next_message();
        assert_eq!((message.event.as_str(), message.data.as_str()), ("message", data));
    }
}

#[test]
fn event_up_to_the_limit_always_fits() {
    let server = Server::start(&["--max-event-bytes", "1MiB", "--max-pending", "4KiB"]);
    let mut streams = [server.open("/events/a"), server.open("/events/a")];
    let payload = "0123456789abcdef".repeat(65_000);
    server.publish("a", &payload);
    server.publish("a", "after");
    for stream in &mut streams {
        assert_eq!(stream.next_message().data.len(), payload.len());
        assert_eq!(stream.next_message().data, "after");
    }
}

#[test]
fn oversize_message_is_skipped_and_the_stream_told() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--max-event-bytes", "16KiB"]);
    let mut stream = server.open("/events/a");
    let mut other = server.open("/events/b");
    let mut client = server.client();
    client.publish("a", "before");
    client.command(&[b"PUBLISH", b"a", &vec![b'x'; 3_000_000]]);
    client.publish("a", "after");
    client.publish("b", "unaffected");
    assert_eq!(stream.next_message().data, "before");
    assert_reset(&stream.next_message(), "oversize", &["a"]);
    assert_eq!(stream.next_message().data, "after");
    assert_eq!(other.next_message().data, "unaffected");
}

#[test]
fn payload_that_cannot_be_read_is_counted_and_the_next_arrives() {
    let server = Server::start(&["--format", "json"]);
    let mut stream = server.open("/events/a");
    server.publish("a", "{\"data\": ");
    server.publish("a", r#"{"data": {"n": 1}, "event": "update", "id": "7", "retry": 99}"#);
    let message = stream.next_message();
    assert_eq!(message.event, "update");
    assert_eq!(message.data, r#"{"n": 1}"#);
    assert_eq!(message.last_event_id, "7");
    assert_eq!(stream.retry(), 99);
    assert!(server.log_line(&["json"]).is_some(), "the payload was dropped in silence");
    let metrics = server.admin("/metrics").body;
    let counted = |line: &str| line.contains("undecodable") && !line.ends_with(" 0");
    assert!(metrics.lines().any(counted), "{metrics}");
}

#[test]
fn silent_streams_get_heartbeats() {
    let server = Server::start(&["--heartbeat", "400ms"]);
    let start = now();
    let mut streams: Vec<Stream> = (0..20).map(|_| server.open("/events/a")).collect();
    for stream in &mut streams {
        stream.comments(3);
    }
    assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
}

#[test]
fn heartbeats_can_be_turned_off() {
    let server = Server::start(&["--heartbeat", "0"]);
    let mut stream = server.open("/events/a");
    stream.stays_silent(Duration::from_millis(1500));
    assert_eq!(stream.comments(0), [""; 0]);
}

#[test]
fn message_published_after_the_head_is_never_missed() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &[]);
    let mut client = redis.client();
    for number in 0..10_000 {
        // New channels and known ones, whose subscription stands already.
        let channel = format!("race/{}", if number % 2 == 0 { number } else { number % 100 });
        let mut stream = server.open(&format!("/events/{channel}"));
        let payload = number.to_string();
        client.publish(&channel, &payload);
        assert_eq!(stream.next_message().data, payload, "{channel}");
    }
}

#[test]
fn several_channels_arrive_in_the_order_of_publication() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "2"]);
    let targets = ["/events?channel=a&channel=b&channel=c", "/events?channel=c&channel=a"];
    let mut streams = targets.map(|target| server.open(target));
    let messages: Vec<(&str, String)> = (0..3000)
        .map(|number| (["a", "b", "c"][number * number % 7 % 3], number.to_string()))
        .collect();
    redis.client().publish_all(&messages);
    for (stream, channels) in streams.iter_mut().zip([&["a", "b", "c"][..], &["a", "c"]]) {
        for (_, number) in messages.iter().filter(|message| channels.contains(&message.0)) {
            assert_eq!(&stream.next_message().data, number);
        }
    }
}

#[test]
fn slow_consumer_is_closed_and_counted_and_others_go_on() {
    let server = Server::start(&["--max-pending", "64KiB"]);
    let mut reader = server.open("/events/a");
    let mut stalled = stalled_stream(&server, "/events/a");
    let payload = "x".repeat(10_000);
    let mut client = server.client();
    for _ in 0..200 {
        client.publish("a", &payload);
        assert_eq!(reader.next_message().data.len(), payload.len());
    }
    eventually("the slow consumer is counted", || {
        let metrics = server.admin("/metrics").body;
        let counted = |line: &str| line.contains("slow") && line.ends_with(" 1");
        metrics.lines().any(counted).then_some(())
    });
    stalled.wait_end();
}

#[test]
fn slow_consumer_that_catches_up_in_time_loses_nothing() {
    let server = Server::start(&["--max-pending", "1MiB"]);
    let mut stalled = stalled_stream(&server, "/events/a");
    let mut client = server.client();
    for number in 0..90 {
        client.publish("a", format!("{number:010000}"));
    }
    for number in 0..90 {
        assert_eq!(stalled.next_message().data, format!("{number:010000}"));
    }
}

/// A stream whose client can hold little, and does not read until asked for a message.
fn stalled_stream(server: &Server, target: &str) -> Stream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.listener().tcp().into()).unwrap();
    Stream::over(Connection::over(Socket::Tcp(socket.into())), target, &[])
}

#[test]
fn metrics_follow_the_streams() {
    let server = Server::start(&[]);
    let connections = || {
        let metrics = server.admin("/metrics").body;
        let gauge = |line: &&str| line.starts_with("corecast_") && line.contains("connections");
        metrics
            .lines()
            .find(gauge)
            .and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("no gauge of connections in {metrics}"))
    };
    let streams: Vec<Stream> = (0..10).map(|_| server.open("/events/a")).collect();
    eventually("ten connections are counted", || (connections() >= 10.0).then_some(()));
    drop(streams);
    eventually("they are gone", || (connections() < 1.0).then_some(()));
}

#[test]
fn health_is_told_on_the_admin_listener_alone() {
    let server = Server::start(&[]);
    assert_eq!(server.admin("/livez").head.status, 200);
    assert_eq!(server.admin("/readyz").head.status, 200);
    assert!(server.admin("/metrics").body.lines().any(|line| line.starts_with("corecast_")));
    for target in ["/livez", "/readyz", "/metrics", "/channels"] {
        assert_eq!(server.get(target).head.status, 404, "{target}");
    }
}

#[test]
fn redis_with_a_password_and_a_database_is_spoken_to() {
    let redis = Redis::start_with(&["--requirepass", "p@ss:w/rd"]);
    let url = format!("redis://:p%40ss%3Aw%2Frd@127.0.0.1:{}/3", redis.port);
    let server = Server::start(&["--redis", &url]);
    let banner = server.banner_line(&["publish"]).unwrap();
    assert!(!banner.contains("p@ss") && !banner.contains("p%40ss"), "{banner}");
    let mut stream = server.open("/events/a");
    let mut client = redis.client();
    client.command(&[b"AUTH", b"p@ss:w/rd"]);
    client.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn redis_behind_a_unix_socket_is_spoken_to() {
    let path = support::clients::scratch("redis-unix").join("redis.sock");
    let redis = Redis::start_with(&["--unixsocket", path.to_str().unwrap()]);
    let server = Server::start(&["--redis", &format!("unix://{}", path.display())]);
    let mut stream = server.open("/events/a");
    redis.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn environment_and_file_set_what_the_command_line_leaves_open() {
    let file = support::clients::scratch("settings").join("corecast.toml");
    std::fs::write(&file, "retry = \"5s\"\nretry-jitter = 0\nheartbeat = \"300ms\"\n").unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let server = Server::start(&config);
    assert_eq!(server.open("/events/a").retry(), 5000);

    let variables = [("CORECAST_RETRY", "4s")];
    let server = Server::with_environment(&variables, &config);
    let mut stream = server.open("/events/a");
    assert_eq!(stream.retry(), 4000);
    stream.comments(1);

    let server = Server::with_environment(&variables, &[&config[..], &["--retry", "3s"]].concat());
    assert_eq!(server.open("/events/a").retry(), 3000);
}

#[test]
fn keep_alive_probe_of_an_idle_page_costs_no_stream() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    for _ in 0..3 {
        connection.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
        let status = connection.response().head.status;
        assert!(matches!(status, 200 | 204 | 404), "{status}");
    }
    connection.send(request("/events/a", &[]));
    Stream::of(connection);
}
