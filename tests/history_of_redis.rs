//! What a Redis may be like whose history streams come back to: one that takes its time to load, a
//! replica, one database of several, one that grants few rights, one with an event that no link
//! survives.
#![cfg(test)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use corecast::bytes::history::EventId;
use support::clients::{redis_cli, scratch};
use support::clock::{Deadline, eventually};
use support::fault_proxy::FaultProxy;
use support::kept::Publisher;
use support::process::Process;
use support::redis::{Client, Redis, Reply, free_port};
use support::resumption::{
    assert_event, assert_numbers, assert_reset, config, resume, start, start_at,
};
use support::server::Server;

/// Saves to the directory when it is told to, and takes a millisecond for each key when it is
/// started again, during which it answers.
fn slow_to_load(directory: &Path) -> Redis {
    Redis::start_with(&[
        "--dir",
        directory.to_str().unwrap(),
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ])
}

/// Saves what is there, and enough more to be busy with for longer than any test waits.
fn save(redis: &Redis) {
    let mut client = redis.client();
    let keys: Vec<String> = (0..60_000).map(|number| format!("filler:{number}")).collect();
    let mut command: Vec<&[u8]> = vec![b"MSET"];
    command.extend(keys.iter().flat_map(|key| [key.as_bytes(), b"x"]));
    assert_eq!(client.command(&command), Reply::Simple("OK".to_owned()));
    assert_eq!(client.command(&[b"SAVE"]), Reply::Simple("OK".to_owned()));
}

fn refuses(redis: &Redis, code: &str) -> bool {
    matches!(redis.client().command(&[b"PING"]), Reply::Error(error) if error.starts_with(code))
}

/// Lets it load the rest at once.
fn finish_loading(redis: &Redis) {
    config(&mut redis.client(), "key-load-delay", "0");
    eventually("Redis has loaded", || (!refuses(redis, "LOADING")).then_some(()));
}

/// Waits until the links were refused with this code more than once.
fn wait_refused(server: &Server, code: &str) {
    let refused = || server.metric("corecast_link_losses_total{reason=\"refused\"}");
    let before = refused();
    eventually("links are tried again and again", || (refused() >= before + 6.0).then_some(()));
    assert!(server.log_line(&["it answered", code]).is_some(), "{}", server.process().transcript());
}

#[test]
fn a_redis_that_takes_long_to_load_is_waited_for_and_has_everything() {
    let directory = scratch("loading");
    let mut redis = slow_to_load(&directory);
    let mut publisher = Publisher::new(&redis);
    let proxy = FaultProxy::start(redis.address().tcp());
    let server = start_at(&proxy.url(), &[]);
    let mut stream = server.open("/events/a");
    let mut ids = publisher.publish_numbers("a", 0..5);
    assert_numbers(&mut stream, 0, &ids);
    proxy.refuse(true);
    proxy.cut();
    eventually("the links are lost", || (proxy.open() == 0).then_some(()));
    ids.extend(publisher.publish_numbers("a", 5..10));
    save(&redis);
    redis.restart();
    assert!(refuses(&redis, "LOADING"));
    proxy.refuse(false);
    // Who comes now is given a stream too, and waits with the others.
    let mut returned = resume(&server, "/events/a", ids[2]);
    wait_refused(&server, "LOADING");
    assert!(refuses(&redis, "LOADING"), "it has loaded too soon to tell anything");
    finish_loading(&redis);
    assert_numbers(&mut stream, 5, &ids[5..]);
    assert_numbers(&mut returned, 3, &ids[3..]);
    let after = Publisher::new(&redis).publish("a", "after");
    for stream in [&mut stream, &mut returned] {
        assert_event(stream, after, "after");
    }
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
    assert_eq!(server.metric("corecast_worker_restarts_total"), 0.0);
    server.kill();
    assert!(server.log_line(&["may not load the function"]).is_none());
    drop((server, redis));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_a_redis_has_not_saved_before_it_loads_is_told_of() {
    let directory = scratch("forgetful-loading");
    let mut redis = slow_to_load(&directory);
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let saved = publisher.publish_numbers("a", 0..3);
    save(&redis);
    let lost = publisher.publish_numbers("a", 3..5);
    assert_numbers(&mut stream, 0, &[saved.as_slice(), &lost].concat());
    redis.restart();
    wait_refused(&server, "LOADING");
    finish_loading(&redis);
    assert_reset(&stream.next_message(), "link-lost", &["a"]);
    let mut returned = resume(&server, "/events/a", lost[0]);
    assert_reset(&returned.next_message(), "unknown-id", &["a"]);
    server.wait_ready();
    let after = Publisher::new(&redis).publish("a", "after");
    assert_event(&mut stream, after, "after");
    assert_event(&mut returned, after, "after");
    drop((server, redis));
    std::fs::remove_dir_all(&directory).unwrap();
}

fn replicate(redis: &Redis, host: &str, port: &str) {
    let reply = redis.client().command(&[b"REPLICAOF", host.as_bytes(), port.as_bytes()]);
    assert_eq!(reply, Reply::Simple("OK".to_owned()));
}

#[test]
fn a_replica_without_its_master_is_waited_for_until_it_is_one_itself() {
    let redis = Redis::start_with(&["--replica-serve-stale-data", "no"]);
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let ids = publisher.publish_numbers("a", 0..3);
    assert_numbers(&mut stream, 0, &ids);
    replicate(&redis, "127.0.0.1", &free_port().to_string());
    assert!(refuses(&redis, "MASTERDOWN"));
    redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    let mut returned = resume(&server, "/events/a", ids[0]);
    wait_refused(&server, "MASTERDOWN");
    replicate(&redis, "NO", "ONE");
    let after = publisher.publish("a", "after");
    assert_numbers(&mut returned, 1, &ids[1..]);
    for stream in [&mut stream, &mut returned] {
        assert_event(stream, after, "after");
    }
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

#[test]
fn a_replica_gives_history_though_it_takes_none() {
    let master = Redis::start();
    let mut publisher = Publisher::new(&master);
    let replica = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let first = publisher.publish("a", "first");
    let has_first = || match replica.client().command(&[b"EXISTS", b"corecast:{a}"]) {
        Reply::Integer(count) => (count == 1).then_some(()),
        _ => None,
    };
    eventually("the replica is in step", has_first);
    let server = start(&replica, &[]);
    assert!(server.log_line(&["may not load the function", "READONLY"]).is_some());
    let mut stream = resume(&server, "/events/a", first);
    let ids = publisher.publish_numbers("a", 0..3);
    assert_numbers(&mut stream, 0, &ids);
    replica.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    let more = publisher.publish_numbers("a", 3..6);
    assert_numbers(&mut stream, 3, &more);
    assert_numbers(&mut resume(&server, "/events/a", ids[1]), 2, &[&ids[2..], &more].concat());
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

/// Publishes an event that is kept for a fifth of a second.
fn publish_briefly(client: &mut Client, channel: &str) -> EventId {
    let key = format!("corecast:{{{channel}}}");
    let words =
        ["FCALL", "corecast_publish", "2", &key, "corecast:clock", channel, "9", "200", "x"];
    match client.command(&words.map(str::as_bytes)) {
        Reply::Bulk(Some(id)) => EventId::parse(&id).unwrap(),
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn a_channel_that_was_silent_for_longer_than_events_are_kept_goes_on_as_before() {
    let redis = Redis::start();
    Publisher::new(&redis);
    let with_redis = start(&redis, &[]);
    let with_broker = Server::start(&["--history", "9", "--history-ttl", "1s"]);
    for (server, mut client) in
        [(&with_redis, redis.client()), (&with_broker, with_broker.client())]
    {
        let mut stream = server.open("/events/silent");
        let begin = publish_briefly(&mut client, "busy");
        while publish_briefly(&mut client, "busy").ms < begin.ms + 500 {}
        let id = publish_briefly(&mut client, "silent");
        assert_event(&mut stream, id, "x");
        assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
    }
}

/// Publishes by redis-cli to history that a database keeps.
fn publish_in(redis: &Redis, database: &str, data: &str) -> EventId {
    let call = ["FCALL", "corecast_publish", "2", "corecast:{a}", "corecast:clock", "a", "9"];
    let mut command = redis_cli(&redis.address());
    let lines =
        Process::start(command.args(["-n", database]).args(call).args(["60000", data])).finish();
    EventId::parse(lines[0].as_bytes()).unwrap_or_else(|| panic!("{lines:?}"))
}

#[test]
fn history_is_that_of_the_database_in_the_url() {
    let redis = Redis::start();
    let server = start_at(&format!("{}/3", redis.url()), &[]);
    let ids: Vec<EventId> = [("0", "a"), ("3", "b"), ("0", "c"), ("3", "d"), ("0", "e")]
        .map(|(database, data)| publish_in(&redis, database, data))
        .to_vec();
    let mut stream = resume(&server, "/events/a", ids[1]);
    assert_event(&mut stream, ids[3], "d");
    let mut newest = server.open("/events/a?last=9");
    assert_event(&mut newest, ids[1], "b");
    assert_event(&mut newest, ids[3], "d");
    let live = publish_in(&redis, "3", "live");
    for stream in [&mut stream, &mut newest] {
        assert_event(stream, live, "live");
    }
    redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    let again = publish_in(&redis, "3", "again");
    assert_event(&mut stream, again, "again");
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

/// What the README tells operators to grant to corecast's user with `--history`, beside what it
/// needs without.
const LIVE_RIGHTS: &str = "&news* &corecast:probe:* +ping +subscribe +unsubscribe +publish";
const HISTORY_RIGHTS: &str = "~corecast:* +multi +exec +xrevrange +xrange +time +xadd +info";
/// What it can do without where somebody else does it, and then says so.
const HISTORY_COMFORT: &str = "+function|load +fcall_ro";
/// What it tells them to grant to who publishes.
const PUBLISHER_RIGHTS: &str =
    "~corecast:* &news* +fcall +time +info +xrevrange +xadd +pexpireat +publish";

/// Makes `user` anew, who has these rights only.
fn set_user(redis: &Redis, rights: &[&str]) -> String {
    let mut client = redis.client();
    client.command(&[b"ACL", b"DELUSER", b"user"]);
    let mut command: Vec<&[u8]> =
        vec![b"ACL", b"SETUSER", b"user", b"on", b">pw", b"resetchannels", b"-@all"];
    command.extend(rights.iter().map(|right| right.as_bytes()));
    assert_eq!(client.command(&command), Reply::Simple("OK".to_owned()));
    redis.url().replace("//", "//user:pw@")
}

/// All rights of the lists but one.
fn all_but<'a>(lists: &[&'a str], left_out: &str) -> Vec<&'a str> {
    let rights = lists.iter().flat_map(|list| list.split_whitespace());
    rights.filter(|right| *right != left_out).collect()
}

/// Whether a stream of a channel of which nothing was ever kept comes back, to a server that has
/// never heard of it and a Redis that may evict, and gets the first event; and what the log says.
fn resumes_with(rights: &[&str]) -> (bool, Server) {
    let redis = Redis::start_with(&["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]);
    let url = set_user(&redis, rights);
    let options = ["--redis", &url, "--history", "100", "--workers", "1"];
    let begin = Server::start(&options).open("/events/news").last_event_id();
    let mut publisher = Publisher::new(&redis);
    publisher.publish("other", "before");
    let server = Server::start(&options);
    let mut returned = resume(&server, "/events/news", begin);
    returned.retry();
    // It is in the present, or never will be.
    let froms = ["memory", "redis", "reset"].map(|from| format!("from=\"{from}\""));
    let resumes =
        || froms.iter().map(|from| server.metric(&format!("corecast_resumes_total{{{from}}}")));
    let deadline = Deadline::after(Duration::from_secs(1));
    while resumes().sum::<f64>() == 0.0 && deadline.left().is_some() {
        returned.poll(Duration::from_millis(20));
    }
    let id = publisher.publish("news", "first");
    let message = returned.next_message();
    // Its log is whole then.
    server.kill();
    (message.last_event_id == id.to_string() && message.data == "first", server)
}

#[test]
fn each_right_for_history_in_the_readme_is_needed_and_no_other() {
    let readme = include_str!("../README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(HISTORY_RIGHTS), "the README grants something else");
    let lists = [LIVE_RIGHTS, HISTORY_RIGHTS, HISTORY_COMFORT];
    let (resumes, server) = resumes_with(&all_but(&lists, ""));
    assert!(resumes, "{}", server.process().transcript());
    assert!(server.log_line(&["may not load the function"]).is_none());
    for right in HISTORY_RIGHTS.split_whitespace() {
        let (resumes, server) = resumes_with(&all_but(&lists, right));
        assert!(!resumes, "without {right}\n{}", server.process().transcript());
    }
}

#[test]
fn what_history_can_do_without_is_missed_in_the_log_alone() {
    for (rights, loads) in [("", false), (HISTORY_COMFORT, true)] {
        let (resumes, server) = resumes_with(&all_but(&[LIVE_RIGHTS, HISTORY_RIGHTS, rights], ""));
        assert!(resumes, "with {rights}\n{}", server.process().transcript());
        let complains = server.log_line(&["may not load the function"]).is_some();
        assert_eq!(complains, !loads, "with {rights}");
        assert!(server.log_line(&["history wants noeviction"]).is_some());
    }
}

#[test]
fn a_database_of_its_own_needs_one_right_more() {
    let redis = Redis::start();
    let lists = [LIVE_RIGHTS, HISTORY_RIGHTS, "+select"];
    let url = set_user(&redis, &all_but(&lists, "+select")) + "/3";
    let server = Server::start_unready(&["--redis", &url, "--workers", "1"]);
    assert!(server.log_line(&["it answered: NOPERM", "select"]).is_some());
    set_user(&redis, &all_but(&lists, ""));
    server.wait_ready();
}

#[test]
fn each_right_for_publishing_in_the_readme_is_needed_and_no_other() {
    let readme = include_str!("../README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(PUBLISHER_RIGHTS), "the README grants something else");
    let redis = Redis::start();
    Publisher::new(&redis);
    let publishes_with = |rights: &[&str]| {
        redis.client().command(&[b"DEL", b"corecast:{news}"]);
        let url = set_user(&redis, rights);
        let arguments = ["publish", "news", "hello", "--history", "--redis", &url];
        let process = Process::start(Command::new(env!("CARGO_BIN_EXE_corecast")).args(arguments));
        process.wait().success()
    };
    assert!(publishes_with(&all_but(&[PUBLISHER_RIGHTS], "")));
    for right in PUBLISHER_RIGHTS.split_whitespace() {
        assert!(!publishes_with(&all_but(&[PUBLISHER_RIGHTS], right)), "without {right}");
    }
    redis.client().command(&[b"FUNCTION", b"FLUSH"]);
    assert!(!publishes_with(&all_but(&[PUBLISHER_RIGHTS], "")));
    assert!(publishes_with(&all_but(&[PUBLISHER_RIGHTS, "+function|load"], "")));
}
