//! Publishing to history: `corecast publish`, redis-cli and redis-py, to a real Redis and to the
//! embedded broker.
#![cfg(test)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use corecast::bytes::history::{self, EventId};
use support::address::Address;
use support::broker::Broker;
use support::clients::{python, redis_cli};
use support::process::Process;
use support::redis::{Client, Redis, Reply};

/// Runs `corecast publish` with these arguments, words of a line, and this input.
fn corecast(url: &str, line: &str, input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.arg("publish").args(line.split(' ')).args(["--redis", url]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap().trim_end().to_owned())
}

#[track_caller]
fn published(url: &str, line: &str, input: &str) -> String {
    let (succeeded, text) = corecast(url, line, input);
    assert!(succeeded, "{text}");
    text
}

/// The ids of a channel's history, and its entries' fields without `p`.
fn kept(address: &Address, channel: &str) -> Vec<(String, Vec<String>)> {
    let key = history::stream_key(channel.as_bytes());
    let reply = Client::connect(address).unwrap().command(&[b"XRANGE", &key, b"-", b"+"]);
    let Reply::Array(entries) = reply else { panic!("{reply:?}") };
    let read = |entry: &Reply| {
        let Reply::Array(parts) = entry else { panic!("{entry:?}") };
        let [id, Reply::Array(fields)] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!(text(&fields[0]), "p");
        (text(id), fields[2..].iter().map(text).collect())
    };
    entries.iter().map(read).collect()
}

fn text(reply: &Reply) -> String {
    let Reply::Bulk(Some(bytes)) = reply else { panic!("{reply:?}") };
    String::from_utf8(bytes.clone()).unwrap()
}

/// Everybody publishes to the same channel, and it has all their events in order.
fn check_publishers(address: &Address) {
    let url = format!("redis://127.0.0.1:{}", address.port());
    let first = published(&url, "news hello --history", "");
    let second = published(&url, "news started --event state --history 50", "");
    let lines = published(&url, "news --history", "one\ntwo\nthree\n");
    let last = lines.strip_prefix("3 events, the last is ").unwrap_or_else(|| panic!("{lines}"));
    let call = ["FCALL", "corecast_publish", "2", "corecast:{news}", "corecast:clock", "news"];
    let arguments = ["50", "600000", "from redis-cli", "state"];
    let cli = Process::start(redis_cli(address).args(call).args(arguments)).finish();

    let entries = kept(address, "news");
    let ids: Vec<&str> = entries.iter().map(|(id, _)| &**id).collect();
    assert_eq!([ids[0], ids[1], ids[4], ids[5]], [&*first, &*second, last, &*cli[0]]);
    let parsed: Vec<_> = ids.iter().map(|id| EventId::parse(id.as_bytes()).unwrap()).collect();
    assert!(parsed.is_sorted() && parsed.len() == 6, "{ids:?}");
    let fields: Vec<String> = entries.iter().map(|(_, fields)| fields.join(" ")).collect();
    let expected =
        ["d hello", "e state d started", "d one", "d two", "d three", "e state d from redis-cli"];
    assert_eq!(fields, expected);
}

#[test]
fn publishers_fill_the_history_of_a_redis() {
    let redis = Redis::start();
    check_publishers(&redis.address());
}

#[test]
fn publishers_fill_the_history_of_the_broker() {
    let broker = Broker::start(None);
    check_publishers(&Address::Tcp(broker.address));
}

#[test]
fn the_script_serves_where_functions_are_not_allowed() {
    let redis = Redis::start();
    let mut client = redis.client();
    let rules = ["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-fcall", "-function"];
    let reply = client.command(&rules.map(str::as_bytes));
    assert_eq!(reply, Reply::Simple("OK".into()));
    let url = format!("redis://u:p@127.0.0.1:{}", redis.port);
    published(&url, "news --history", "one\ntwo\n");
    assert_eq!(kept(&redis.address(), "news").len(), 2);

    client.command(&[b"ACL", b"SETUSER", b"u", b"-script"]);
    let (succeeded, text) = corecast(&url, "news x --history", "");
    assert!(!succeeded && text.contains("corecast publish --print-function"), "{text}");
}

#[test]
fn an_administrator_loads_what_is_printed() {
    let redis = Redis::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    let printed = command.args(["publish", "--print-function"]).output().unwrap().stdout;
    let reply = redis.client().command(&[b"FUNCTION", b"LOAD", b"REPLACE", &printed]);
    assert_eq!(text(&reply), "corecast");
}

#[test]
fn nothing_is_published_that_cannot_be_kept() {
    let redis = Redis::start();
    published(&redis.url(), "news one --history", "");
    let mut subscriber = redis.client();
    subscriber.command(&[b"SUBSCRIBE", b"news"]);
    let mut other = redis.client();
    other.command(&[b"CONFIG", b"SET", b"maxmemory", b"1"]);
    let (succeeded, told) = corecast(&redis.url(), "news two --history", "");
    assert!(!succeeded && told.contains("OOM"), "{told}");
    // The next message is another one: nothing was sent before it.
    other.publish("news", "three");
    let Reply::Array(message) = subscriber.reply().unwrap() else { panic!() };
    assert_eq!(text(&message[2]), "three");
}

#[test]
fn redis_py_publishes_to_history() {
    let (redis, broker) = (Redis::start(), Broker::start(None));
    for address in [redis.address(), Address::Tcp(broker.address)] {
        let port = address.port().to_string();
        published(&format!("redis://127.0.0.1:{port}"), "orders zero --history", "");
        let lines = Process::start(python("redis-py-8", "redis_py.py").args([&port, "", "fcall"]));
        let lines = lines.finish();
        let entries = kept(&address, "orders");
        assert_eq!(entries[1].0, lines[0]);
        assert_eq!(entries[1].1, ["e", "state", "d", "one"]);
    }
}
