//! The link to Redis: through TLS, by way of Sentinels, as a user with few rights, and whether it
//! tells the truth when nothing arrives any more.
#![cfg(test)]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::certificates::Authority;
use support::clock::{eventually, eventually_within, now};
use support::event_source::Message;
use support::process::Process;
use support::redis::{Redis, Reply, free_port};
use support::sentinel::{SentinelSet, ToldSentinel};
use support::server::Server;
use support::stream::Stream;

/// `/readyz` tells of a link that delivers nothing within this time, and the machine's own.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

#[track_caller]
fn assert_link_lost(message: &Message) {
    let data: Value = serde_json::from_str(&message.data).unwrap();
    assert_eq!((&*message.event, &data["reason"]), ("stream-reset", &"link-lost".into()));
}

fn is_ready(server: &Server) -> bool {
    server.admin("/readyz").head.status == 200
}

/// Publishes numbers until the stream has one, and returns it.
fn publish_until_received(redis: &Redis, stream: &mut Stream) -> String {
    let mut number = 0;
    eventually_within(Duration::from_secs(30), "a message arrives", || {
        number += 1;
        redis.publish("a", &number.to_string());
        stream.poll(Duration::from_millis(20));
        stream.take_message().filter(|message| message.event != "stream-reset")
    })
    .data
}

#[track_caller]
fn passes(redis: &Redis, stream: &mut Stream, data: &str) {
    redis.publish("a", data);
    assert_eq!(stream.next_message().data, data);
}

/// A Redis that speaks TLS on the second port, as well as in the clear.
fn secure_redis(authority: &Authority, more: &[&str]) -> (Redis, u16) {
    let [certificate, key] = authority.sign("redis", &["localhost", "127.0.0.1"]);
    let port = free_port();
    let (own, ca) = (port.to_string(), authority.path("ca.pem"));
    let options = ["--tls-port", &own, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let options = [&options[..], &["--tls-ca-cert-file", &ca], more];
    (Redis::start_with(&options.concat()), port)
}

fn publish_with(options: &[&str]) -> Process {
    Process::start(
        Command::new(env!("CARGO_BIN_EXE_corecast"))
            .args(["publish", "a", "from the command line"])
            .args(options),
    )
}

#[test]
fn tls_is_spoken_with_whom_the_authority_vouches_for() {
    let authority = Authority::new();
    let (redis, port) = secure_redis(&authority, &["--tls-auth-clients", "no"]);
    let (url, ca) = (format!("rediss://localhost:{port}"), authority.path("ca.pem"));
    let room = ["--workers", "2", "--max-pending", "16MiB"];
    let server = Server::start(&[&["--redis", &url, "--redis-ca", &ca], &room[..]].concat());
    let mut stream = server.open("/events/a");
    passes(&redis, &mut stream, "hello");
    // More than one TLS record, one read and one buffer take.
    let large = "x".repeat(900_000);
    passes(&redis, &mut stream, &large);
    let mut client = redis.client();
    let many: Vec<(&str, String)> = (0..5000).map(|n| ("a", format!("{n:0200}"))).collect();
    client.publish_all(&many);
    for (_, data) in many {
        assert_eq!(stream.next_message().data, data);
    }
    publish_with(&["--redis", &url, "--redis-ca", &ca]).finish();
    assert_eq!(stream.next_message().data, "from the command line");
    assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
}

#[test]
fn a_certificate_of_another_authority_is_refused_and_the_log_says_so() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_redis, port) = secure_redis(&authority, &["--tls-auth-clients", "no"]);
    let (url, ca) = (format!("rediss://127.0.0.1:{port}"), other.path("ca.pem"));
    let options = ["--redis", &url, "--redis-ca", &ca, "--workers", "1", "--log-level", "debug"];
    let server = Server::start_unready(&options);
    let words = ["WARN", "no link to Redis: no TLS with it", "UnknownIssuer", "--redis-ca"];
    assert!(server.log_line(&words).is_some(), "{}", server.process().transcript());
    // The first loss is a warning, every further attempt a line for who asks for more.
    let words = ["DEBUG", "no link to Redis: no TLS with it"];
    assert!(server.log_line(&words).is_some(), "it does not try again");
    assert!(!is_ready(&server));
    let publisher = publish_with(&["--redis", &url, "--redis-ca", &ca]);
    assert_eq!(publisher.wait().code(), Some(1));
    assert!(publisher.errors.find(|line| line.contains("UnknownIssuer").then_some(())).is_some());
}

#[test]
fn a_redis_that_wants_to_know_us_is_shown_a_certificate() {
    let authority = Authority::new();
    let (redis, port) = secure_redis(&authority, &["--tls-auth-clients", "yes"]);
    let (url, ca) = (format!("rediss://127.0.0.1:{port}"), authority.path("ca.pem"));
    let [certificate, key] = authority.sign("client", &["client"]);
    let options = ["--redis", &url, "--redis-ca", &ca, "--workers", "1"];
    let nobody = Server::start_unready(&options);
    let words = ["no link to Redis", "CertificateRequired", "--redis-client-cert"];
    assert!(nobody.log_line(&words).is_some(), "{}", nobody.process().transcript());

    let identity = ["--redis-client-cert", &certificate, "--redis-client-key", &key];
    let server = Server::start(&[&options[..], &identity].concat());
    let mut stream = server.open("/events/a");
    passes(&redis, &mut stream, "hello");
}

#[test]
fn a_frozen_master_is_replaced_and_streams_go_on_from_the_new_one() {
    let set = SentinelSet::start(1500);
    let server = Server::start(&["--redis", &set.url(), "--workers", "2"]);
    let mut streams: Vec<Stream> = (0..8).map(|_| server.open("/events/a")).collect();
    set.master.publish("a", "before");
    streams.iter_mut().for_each(|stream| assert_eq!(stream.next_message().data, "before"));
    let frozen = now();
    set.master.signal(Signal::STOP);
    // The replica answers publishers all the time, but nobody who asks Sentinels finds it yet.
    let first = publish_until_received(&set.replica, &mut streams[0]);
    eprintln!("delivery was out for {:?}, until message {first}", frozen.elapsed());
    server.wait_ready();
    for stream in &mut streams[1..] {
        assert_link_lost(&stream.next_message());
    }
    set.replica.publish("a", "last");
    for stream in &mut streams {
        while stream.next_message().data != "last" {}
    }
    set.master.signal(Signal::CONT);
    publish_with(&["--redis", &set.url()]).finish();
    assert_eq!(streams[0].next_message().data, "from the command line");
}

#[test]
fn a_healthy_link_to_a_node_that_is_master_no_more_is_left() {
    let (old, new) = (Redis::start(), Redis::start());
    let sentinel = ToldSentinel::start(&old);
    let server = Server::start(&["--redis", &sentinel.url(), "--workers", "2"]);
    let mut stream = server.open("/events/a");
    passes(&old, &mut stream, "old");
    let moved = now();
    sentinel.tell(&new);
    let first = publish_until_received(&new, &mut stream);
    eprintln!("the new master was found within {:?}, at message {first}", moved.elapsed());
    server.wait_ready();
    assert!(server.metric("corecast_link_losses_total{reason=\"moved\"}") >= 2.0);
}

#[test]
fn a_link_that_answers_but_gets_nothing_of_what_is_published_is_given_up() {
    // One path, as one name or one virtual address, that leads to another Redis from some time on,
    // while the connections to the old one stay and are answered.
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = |name: &str| directory.join(format!("{name}-{}.sock", free_port()));
    let [old_path, new_path, link, next] = ["old", "new", "redis", "next"].map(path);
    let start = |path: &Path| Redis::start_with(&["--unixsocket", path.to_str().unwrap()]);
    let (old, new) = (start(&old_path), start(&new_path));
    symlink(&old_path, &link).unwrap();
    let url = format!("unix://{}", link.display());
    let server = Server::start(&["--redis", &url, "--workers", "2"]);
    let mut stream = server.open("/events/a");
    passes(&old, &mut stream, "old");
    let moved = now();
    symlink(&new_path, &next).unwrap();
    std::fs::rename(&next, &link).unwrap();
    let first = publish_until_received(&new, &mut stream);
    eprintln!("delivery was out for {:?}, until message {first}", moved.elapsed());
    server.wait_ready();
    let lost = server.metric("corecast_link_losses_total{reason=\"undelivered\"}");
    assert_eq!((lost, server.metric("corecast_probes_lost_total")), (2.0, 2.0));
    std::fs::remove_file(&link).unwrap();
}

#[test]
fn a_frozen_redis_makes_the_server_unready_and_ready_again_once_it_thaws() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "2"]);
    let mut stream = server.open("/events/a");
    let frozen = now();
    redis.signal(Signal::STOP);
    eventually_within(TOLD_WITHIN, "the server is not ready", || {
        (!is_ready(&server)).then_some(())
    });
    eprintln!("not ready {:?} after the freeze", frozen.elapsed());
    let thawed = now();
    redis.signal(Signal::CONT);
    server.wait_ready();
    eprintln!("ready {:?} after the thaw", thawed.elapsed());
    publish_until_received(&redis, &mut stream);
}

#[test]
fn a_pause_of_redis_loses_neither_link_nor_message() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &["--workers", "2"]);
    let mut stream = server.open("/events/a");
    for mode in ["ALL", "WRITE"] {
        let sent = || server.metric("corecast_probes_sent_total");
        // So that the pause falls on the next probe.
        let before = sent();
        eventually("a probe has passed", || (sent() > before).then_some(()));
        redis.client().command(&[b"CLIENT", b"PAUSE", b"3000", mode.as_bytes()]);
        let mut publishers: Vec<_> = (0..5).map(|_| redis.client()).collect();
        for (number, publisher) in publishers.iter_mut().enumerate() {
            publisher.send(&[b"PUBLISH", b"a", number.to_string().as_bytes()]).unwrap();
        }
        let before = sent();
        let mut got: Vec<String> = (0..5).map(|_| stream.next_message().data).collect();
        got.sort_unstable();
        assert_eq!(got, ["0", "1", "2", "3", "4"]);
        eventually("another probe has passed", || {
            assert!(is_ready(&server), "a pause made the server unready");
            (sent() > before).then_some(())
        });
    }
    assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
    assert_eq!(server.metric("corecast_probes_lost_total"), 0.0);
}

/// What the README tells operators to grant, and no more.
const MINIMAL_ACL: &str = "on >pw resetchannels &news* &corecast:probe:* -@all +ping +subscribe \
                           +unsubscribe +publish";

fn set_user(redis: &Redis, rules: &str) {
    let mut command: Vec<&[u8]> = vec![b"ACL", b"SETUSER", b"corecast"];
    command.extend(rules.split_whitespace().map(str::as_bytes));
    assert_eq!(redis.client().command(&command), Reply::Simple("OK".to_owned()));
}

#[test]
fn the_minimal_acl_is_enough_and_a_forbidden_channel_fails_alone() {
    let readme = include_str!("../README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(&MINIMAL_ACL.replace("  ", " ")), "the README grants something else");
    let redis = Redis::start();
    set_user(&redis, MINIMAL_ACL);
    let url = format!("redis://corecast:pw@127.0.0.1:{}", redis.port);
    let server = Server::start(&["--redis", &url, "--workers", "1"]);
    let _forbidden = server.open("/events/secret");
    assert!(server.log_line(&["refuses to subscribe", "NOPERM"]).is_some());
    let mut stream = server.open("/events/news");
    redis.publish("news", "hello");
    assert_eq!(stream.next_message().data, "hello");
    let sent = server.metric("corecast_probes_sent_total");
    eventually("probes pass", || {
        (server.metric("corecast_probes_sent_total") > sent).then_some(())
    });
    assert!(is_ready(&server));
    assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
}

#[test]
fn who_may_not_probe_is_proven_by_ping() {
    let redis = Redis::start();
    for (right, words) in [
        ("-publish", ["may not publish", "proven by PING"]),
        ("resetchannels &news*", ["may not subscribe", "proven by PING"]),
    ] {
        set_user(&redis, &format!("{MINIMAL_ACL} {right}"));
        let url = format!("redis://corecast:pw@127.0.0.1:{}", redis.port);
        let server = Server::start(&["--redis", &url, "--workers", "1"]);
        assert!(server.log_line(&words).is_some(), "{}", server.process().transcript());
        let mut stream = server.open("/events/news");
        redis.publish("news", "hello");
        assert_eq!(stream.next_message().data, "hello");
    }
}

#[test]
fn a_unix_socket_is_a_link_like_any_other() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("r{}.sock", free_port()));
    let redis = Redis::start_with(&["--unixsocket", path.to_str().unwrap()]);
    let url = format!("unix://{}", path.display());
    let server = Server::start(&["--redis", &url, "--workers", "1"]);
    let mut stream = server.open("/events/a");
    passes(&redis, &mut stream, "hello");
}

#[test]
fn a_redis_that_is_full_busy_or_loading_is_tried_again() {
    let redis = Redis::start_with(&["--busy-reply-threshold", "1"]);
    redis.client().command(&[b"CONFIG", b"SET", b"maxclients", b"1"]);
    let mut holder = redis.client();
    holder.command(&[b"PING"]);
    let server = Server::start_unready(&["--redis", &redis.url(), "--workers", "1"]);
    let words = ["no link to Redis", "max number of clients reached"];
    assert!(server.log_line(&words).is_some(), "{}", server.process().transcript());
    holder.command(&[b"CONFIG", b"SET", b"maxclients", b"1000"]);
    server.wait_ready();

    let script: [&[u8]; 3] = [b"EVAL", b"while true do end", b"0"];
    holder.send(&script).unwrap();
    let mut stream = server.open("/events/a");
    eventually_within(TOLD_WITHIN, "nobody can publish", || (!is_ready(&server)).then_some(()));
    redis.client().command(&[b"SCRIPT", b"KILL"]);
    server.wait_ready();
    publish_until_received(&redis, &mut stream);
}

#[test]
fn a_name_leads_to_the_redis_that_has_it() {
    let redis = Redis::start();
    let url = format!("redis://localhost:{}", redis.port);
    let server = Server::start(&["--redis", &url, "--workers", "2"]);
    let mut stream = server.open("/events/a");
    passes(&redis, &mut stream, "hello");
}
