//! Entries that nobody's function wrote, clocks that are none, and users who may read with plain
//! commands alone: what one channel has costs no other channel its link.
#![cfg(test)]

mod support;

use std::time::Duration;

use corecast::bytes::history::{PAGE_FUNCTION, encode_read_load, stream_key};
use support::clock::{eventually, eventually_within};
use support::kept::Publisher;
use support::redis::{Client, Redis, Reply};
use support::resumption::{
    add_user, assert_event, assert_no_link_was_lost, kill_links, open_some, plain_user, resume,
    start, start_beside_plain, target, until, url_of,
};
use support::server::Server;
use support::stream::Stream;

/// Longer than what Redis keeps for a subscriber that does not read (client-output-buffer-limit).
const LONG: usize = 40 << 20;

fn add(client: &mut Client, channel: &str, fields: &[&[u8]]) {
    let key = stream_key(channel.as_bytes());
    let words = [&[b"XADD", key.as_slice(), b"*"], fields].concat();
    let reply = client.command(&words);
    assert!(matches!(reply, Reply::Bulk(Some(_))), "{reply:?}");
}

/// A server of one worker.
fn start_alone(url: &str) -> Server {
    let options = ["--redis", url, "--history", "1000", "--heartbeat", "1s", "--workers", "1"];
    Server::start(&options)
}

#[test]
fn an_entry_with_a_long_type_costs_nobody_the_link() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let before = publisher.publish("news", "before");
    let long = vec![b'x'; LONG];
    add(&mut publisher.client, "news", &[b"p", b"0-1", b"e", &long, b"d", b"x"]);
    publisher.publish("news", "after");
    let mut stream = resume(&server, "/events/news", before);
    until(&mut stream, "after");
    assert_no_link_was_lost(&server);
}

#[test]
fn an_entry_with_a_long_predecessor_costs_nobody_the_link() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let long = vec![b'1'; LONG];
    add(&mut publisher.client, "news", &[b"p", &long, b"d", b"x"]);
    let mut stream = server.open("/events/news?last=1");
    publisher.publish("news", "after");
    until(&mut stream, "after");
    assert_no_link_was_lost(&server);
}

#[test]
fn an_entry_with_a_long_predecessor_does_not_end_each_link_anew() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let _news = open_some(&server, "/events/news");
    let mut others = open_some(&server, "/events/other");
    let long = vec![b'1'; LONG];
    add(&mut publisher.client, "news", &[b"p", &long, b"d", b"x"]);
    kill_links(&redis);
    let id = publisher.publish("other", "live");
    for other in &mut others {
        assert_event(other, id, "live");
    }
    let losses = server.metric("corecast_link_losses_total");
    assert!(losses <= 2.0, "{losses} links were lost");
}

#[test]
fn a_page_ends_once_it_has_passed_over_a_lot_that_is_no_event() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut load = Vec::new();
    encode_read_load(&mut load);
    client.send_bytes(&load).unwrap();
    client.reply().unwrap();
    let long = vec![b'x'; 1 << 20];
    for _ in 0..60 {
        add(&mut client, "news", &[b"other", &long]);
    }
    let key = stream_key(b"news");
    let words: [&[u8]; 9] = [
        b"FCALL_RO",
        PAGE_FUNCTION.as_bytes(),
        b"1",
        &key,
        b"0-0",
        b"18446744073709551615-0",
        b"32768",
        b"4096",
        b"1048576",
    ];
    let Reply::Array(parts) = client.command(&words) else { panic!() };
    let Reply::Array(entries) = &parts[2] else { panic!() };
    assert!(entries.len() <= 12, "{} MiB were read for a page of 32 KiB", entries.len());
}

#[test]
fn a_clock_that_is_none_leaves_streams_live() {
    let redis = Redis::start();
    redis.client().command(&[b"SET", b"corecast:clock", b"x"]);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/news");
    let message = eventually_within(Duration::from_secs(10), "the stream hears of it", || {
        redis.publish("news", "live");
        stream.poll(Duration::from_millis(50));
        stream.take_message()
    });
    assert_eq!(message.data, "live");
}

#[test]
fn marks_that_are_none_cost_nobody_the_history() {
    let redis = Redis::start();
    redis.client().command(&[b"SET", b"corecast:plain", b"x"]);
    let mut publisher = Publisher::new(&redis);
    let first = publisher.publish("news", "first");
    let second = publisher.publish("news", "second");
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/news", first);
    assert_event(&mut stream, second, "second");
    let third = publisher.publish("news", "third");
    assert_event(&mut stream, third, "third");
    assert_no_link_was_lost(&server);
}

#[test]
fn a_lost_link_is_made_up_for_by_plain_commands_whatever_the_newest_events_are() {
    let redis = Redis::start();
    let url = plain_user(&redis);
    let mut publisher = Publisher::new(&redis);
    let server = start_alone(&url);
    let names: Vec<String> = (0..60).map(|number| format!("channel{number}")).collect();
    let mut streams: Vec<Stream> =
        names.iter().map(|name| server.open(&format!("/events/{name}"))).collect();
    let large = "x".repeat(1_000_000);
    for (name, stream) in names.iter().zip(&mut streams) {
        publisher.publish(name, &large);
        assert_eq!(stream.next_message().data.len(), large.len());
    }
    kill_links(&redis);
    eventually("the link is lost", || {
        (server.metric("corecast_link_losses_total") >= 1.0).then_some(())
    });
    streams[1].stays_silent(Duration::from_secs(5));
    let live = publisher.publish("channel0", "live");
    assert_event(&mut streams[0], live, "live");
    let losses = server.metric("corecast_link_losses_total");
    assert!(losses <= 3.0, "{losses} links were lost");
}

#[test]
fn the_newest_of_many_large_events_are_counted_by_plain_commands_without_a_lost_link() {
    let redis = Redis::start();
    let url = plain_user(&redis);
    let mut publisher = Publisher::new(&redis);
    let large = "x".repeat(200_000);
    for _ in 0..300 {
        publisher.publish("kept/a", &large);
    }
    let server = start_beside_plain(&url, &[]);
    let mut stream = server.open("/events/kept/a?last=300");
    for _ in 0..300 {
        assert_eq!(stream.next_message().data.len(), large.len());
    }
    assert_no_link_was_lost(&server);
}

#[test]
fn a_history_that_our_user_may_not_read_costs_others_no_function() {
    let redis = Redis::start();
    let keys = ["~corecast:{ok*", "~corecast:clock", "~corecast:plain"];
    add_user(&mut redis.client(), "some", &[&["&*", "+@all"], &keys[..]].concat());
    let mut publisher = Publisher::new(&redis);
    let before = publisher.publish("ok1", "before");
    for channel in ["ok1", "ok2", "secret"] {
        for number in 0..3 {
            publisher.publish(channel, number.to_string());
        }
    }
    let server = start_alone(&url_of("some", &redis.url()));
    let mut stream = resume(&server, "/events/secret", before);
    publisher.publish("secret", "live");
    until(&mut stream, "live");
    let mut stream = resume(&server, &target(&["ok1", "ok2"]), before);
    publisher.publish("ok1", "live");
    let found = until(&mut stream, "live");
    assert_eq!(found.len(), 6, "{found:?}");
    let Reply::Bulk(Some(stats)) = redis.client().command(&[b"INFO", b"commandstats"]) else {
        panic!()
    };
    let stats = String::from_utf8(stats).unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_fcall_ro"));
    assert!(line.is_some_and(|line| !line.contains(":calls=0,")), "{line:?}");
}

#[test]
fn a_newest_event_that_no_plain_answer_may_have_does_not_end_each_link_anew() {
    let redis = Redis::start();
    let url = plain_user(&redis);
    let mut publisher = Publisher::new(&redis);
    let server = start_alone(&url);
    let mut news = server.open("/events/news");
    let mut other = server.open("/events/other");
    publisher.publish("news", vec![b'x'; 17 << 20]);
    assert_eq!(news.next_message().event, "stream-reset");
    kill_links(&redis);
    eventually("the link is lost", || {
        (server.metric("corecast_link_losses_total") >= 1.0).then_some(())
    });
    let live = publisher.publish("other", "live");
    let message = eventually_within(Duration::from_secs(60), "the stream hears of it", || {
        other.poll(Duration::from_millis(50));
        other.take_message()
    });
    assert_eq!(message.last_event_id, live.to_string());
}
