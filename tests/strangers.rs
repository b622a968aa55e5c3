//! What others publish beside events that are kept, on the same channels or on other ones, in good
//! faith or not: streams of other channels never notice, and who comes back is told of what nobody
//! can give back.
#![cfg(test)]

mod support;

use std::time::Duration;

use corecast::bytes::history::{EventId, stream_key};
use support::clock::{eventually, eventually_within};
use support::kept::Publisher;
use support::redis::{Client, Redis, Reply};
use support::resumption::{
    assert_event, assert_no_link_was_lost, assert_numbers, assert_reset, kill_links, open_some,
    resume, split_resets, start, start_beside_plain, target, until, user_of_channels,
};
use support::server::Server;

/// An event ahead of all time, the first of its channel.
const FORGED: &[u8] = b"\x0018446744073709551615-0 <0-0\nx";

/// The same, after one that nobody has had.
const FORGED_CHAINED: &[u8] = b"\x0018446744073709551615-0 18446744073709551614-0\nx";

#[test]
fn a_forged_event_costs_nobody_else_anything_after_a_lost_link() {
    for forged in [FORGED, FORGED_CHAINED] {
        let redis = Redis::start();
        let mut publisher = Publisher::new(&redis);
        let server = start(&redis, &[]);
        let _news = open_some(&server, "/events/news");
        let mut others = open_some(&server, "/events/other");
        let before = publisher.publish_numbers("other", 0..3);
        publisher.publish("news", "true");
        redis.client().publish("news", forged);
        let mut ids = before.clone();
        ids.extend(publisher.publish_numbers("other", 3..6));
        kill_links(&redis);
        for _ in 0..6 {
            assert_numbers(&mut resume(&server, "/events/other", before[0]), 1, &ids[1..]);
        }
        server.wait_ready();
        ids.extend(publisher.publish_numbers("other", 6..9));
        for _ in 0..6 {
            assert_numbers(&mut resume(&server, "/events/other", ids[4]), 5, &ids[5..]);
        }
        for other in &mut others {
            assert_numbers(other, 0, &ids);
        }
    }
}

#[test]
fn forged_events_one_after_the_other_cost_no_link_and_nothing_of_other_channels() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut news = open_some(&server, "/events/news");
    let mut others = open_some(&server, "/events/other");
    let first = publisher.publish("news", "first");
    for stream in &mut news {
        assert_event(stream, first, "first");
    }
    for number in 0..5 {
        redis.client().publish("news", FORGED_CHAINED);
        let id = publisher.publish("other", number.to_string());
        for other in &mut others {
            assert_event(other, id, &number.to_string());
        }
    }
    let id = publisher.publish("other", "last");
    for other in &mut others {
        assert_event(other, id, "last");
    }
    // Its own streams go on too, and leave with an id that is one.
    let last = publisher.publish("news", "last");
    for stream in &mut news {
        until(stream, "last");
        assert_eq!(stream.last_event_id(), last.to_string());
    }
    let next = publisher.publish("news", "next");
    for stream in &mut news {
        assert_event(stream, next, "next");
    }
    assert_no_link_was_lost(&server);
}

#[test]
fn events_behind_a_forged_one_that_names_another_cost_no_link() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut news = open_some(&server, "/events/news");
    let mut others = open_some(&server, "/events/other");
    let first = publisher.publish("news", "first");
    for stream in &mut news {
        assert_event(stream, first, "first");
    }
    redis.client().publish("news", FORGED_CHAINED);
    let behind = publisher.publish("news", "behind");
    let id = publisher.publish("other", "other");
    for stream in &mut news {
        assert_event(stream, behind, "behind");
    }
    for other in &mut others {
        assert_event(other, id, "other");
    }
    assert_no_link_was_lost(&server);
}

#[test]
fn a_forged_event_may_be_the_first_thing_that_a_server_hears() {
    for has_history in [false, true] {
        let redis = Redis::start();
        let mut publisher = Publisher::new(&redis);
        if has_history {
            publisher.publish("other", "before");
        }
        let server = start(&redis, &[]);
        let mut news = server.open("/events/news");
        let mut other = server.open("/events/other");
        redis.client().publish("news", FORGED_CHAINED);
        for number in 0..5 {
            let data = format!("live {number}");
            let id = publisher.publish("other", &data);
            assert_event(&mut other, id, &data);
        }
        publisher.publish("news", "true");
        until(&mut news, "true");
        let next = publisher.publish("news", "next");
        assert_event(&mut news, next, "next");
        assert_no_link_was_lost(&server);
    }
}

#[test]
fn the_embedded_broker_keeps_what_looks_like_its_own_as_any_other() {
    let server = Server::start(&["--history", "100", "--workers", "2", "--heartbeat", "1s"]);
    let mut publisher = Publisher::over(server.client(), 100);
    let mut news = open_some(&server, "/events/news");
    let mut others = open_some(&server, "/events/other");
    let first = publisher.publish("news", "first");
    for forged in [FORGED, FORGED_CHAINED] {
        server.publish("news", forged);
        let id = publisher.publish("other", "live");
        for other in &mut others {
            assert_event(other, id, "live");
        }
    }
    let last = publisher.publish("news", "last");
    news.push(resume(&server, "/events/news", first));
    for stream in &mut news {
        let (resets, _) = split_resets(until(stream, "last"));
        assert_eq!(resets, []);
        assert_eq!(stream.last_event_id(), last.to_string());
    }
    assert_no_link_was_lost(&server);
}

#[test]
fn a_publisher_without_the_right_to_a_channel_leaves_nothing_behind() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/news");
    let first = publisher.publish("news", "first");
    assert_event(&mut stream, first, "first");
    user_of_channels(&redis, "pub", &["allowed"]);
    let mut client = redis.client();
    assert_eq!(client.command(&[b"AUTH", b"pub", b"pw"]), Reply::Simple("OK".to_owned()));
    let mut stranger = Publisher::over(client, 1000);
    let kept = length(&mut publisher.client, &stream_key(b"news"));
    for _ in 0..3 {
        let refusal = stranger.try_publish("news", "forbidden").unwrap_err();
        assert!(refusal.contains("NOPERM"), "{refusal}");
    }
    assert_eq!(length(&mut publisher.client, &stream_key(b"news")), kept);
    stranger.publish("allowed", "allowed");
    let next = publisher.publish("news", "next");
    assert_event(&mut stream, next, "next");
    assert_event(&mut resume(&server, "/events/news", first), next, "next");
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
    assert_no_link_was_lost(&server);
}

#[test]
fn who_comes_back_over_an_event_that_could_not_be_kept_is_told() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let first = publisher.publish("news", "first");
    let other = publisher.publish("other", "first");
    // Somebody has written into the history, far ahead of the present.
    let (key, far) = (stream_key(b"news"), b"9999999999999-0");
    publisher.client.command(&[b"XADD", &key, far, b"d", b"x"]);
    publisher.client.command(&[b"XDEL", &key, far]);
    let mut stream = server.open("/events/news");
    let refusal = publisher.try_publish("news", "sent").unwrap_err();
    assert!(refusal.contains("is not kept"), "{refusal}");
    assert_eq!(stream.next_message().data, "sent");
    assert_no_link_was_lost(&server);
    let id = first.to_string();
    publisher.client.command(&[b"XSETID", &key, id.as_bytes()]);
    let second = publisher.publish("other", "second");
    let next = publisher.publish("news", "next");
    assert_event(&mut stream, next, "next");
    // Where it was not received, only Redis can tell that there was one.
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/news", first);
    assert_reset(&stream.next_message(), "history-trimmed", &["news"]);
    assert_event(&mut stream, next, "next");
    // Another channel's were all kept, but nobody can tell.
    let mut stream = resume(&server, "/events/other", other);
    assert_reset(&stream.next_message(), "history-trimmed", &["other"]);
    assert_event(&mut stream, second, "second");
    // What comes later has no hole.
    let last = publisher.publish("news", "last");
    assert_event(&mut resume(&server, "/events/news", next), last, "last");
    assert_no_link_was_lost(&server);
}

/// Entries of a stream.
fn length(client: &mut Client, key: &[u8]) -> i64 {
    match client.command(&[b"XLEN", key]) {
        Reply::Integer(length) => length,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn ids_of_a_plain_channel_do_not_count_beside_those_of_a_kept_one() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start_beside_plain(&redis.url(), &["--format", "plain/=json"]);
    let channels = target(&["kept/a", "plain/b"]);
    let mut stream = server.open(&channels);
    let first = publisher.publish("kept/a", "first");
    assert_event(&mut stream, first, "first");
    redis.publish("plain/b", r#"{"data": "passing", "id": "99999999999999-0"}"#);
    assert_event(&mut stream, first, "passing");
    let id = stream.last_event_id();
    drop(stream);
    let ids = publisher.publish_numbers("kept/a", 0..20);
    let mut stream = resume(&server, &channels, id);
    let live = publisher.publish("kept/a", "live");
    // What it may have missed of the plain one it is told when it joins, before or after `live`.
    let messages = (0..22).map(|_| stream.next_message()).collect();
    let (resets, events) = split_resets(messages);
    let found: Vec<&str> = events.iter().map(|event| &*event.last_event_id).collect();
    let expected: Vec<String> = ids.iter().chain([&live]).map(ToString::to_string).collect();
    assert_eq!(found, expected);
    assert_eq!(resets.len(), 1, "{resets:?}");
    assert_reset(&resets[0], "no-history", &["plain/b"]);
    assert_eq!(stream.last_event_id(), live.to_string());
    // Alone, it has the ids that its events bring.
    let mut alone = server.open("/events/plain/b");
    redis.publish("plain/b", r#"{"data": "again", "id": "99999999999999-0"}"#);
    assert_eq!(alone.next_message().last_event_id, "99999999999999-0");
    assert_event(&mut stream, live, "again");
}

/// Waits until Redis knows of a channel with events that are not kept.
fn wait_noted(redis: &Redis) {
    let mut client = redis.client();
    eventually("the mark is written", || {
        (length(&mut client, b"corecast:plain") >= 1).then_some(())
    });
}

fn wait_mixed(server: &Server) {
    eventually("the server counts the channel", || {
        (server.metric("corecast_mixed_channels ") == 1.0).then_some(())
    });
}

/// Who comes back to `news` is told, and goes on; streams of other channels aren't.
fn assert_told(server: &Server, publisher: &mut Publisher, id: EventId) {
    for _ in 0..4 {
        // Each time it is another text.
        let round = length(&mut publisher.client, &stream_key(b"news"));
        let data = format!("round {round}");
        let mut stream = resume(server, "/events/news", id);
        publisher.publish("news", &data);
        let (resets, events) = split_resets(until(&mut stream, &data));
        assert_eq!(resets.len(), 1, "{resets:?}");
        assert_reset(&resets[0], "no-history", &["news"]);
        assert_eq!(i64::try_from(events.len()).unwrap(), round - 1, "{events:?}");
        let next = publisher.publish("news", "next");
        assert_event(&mut stream, next, "next");
        let mut other = resume(server, "/events/other", id);
        publisher.publish("other", &data);
        let (resets, _) = split_resets(until(&mut other, &data));
        assert_eq!(resets, []);
    }
}

#[test]
fn who_comes_back_over_what_is_not_kept_is_told_by_any_server() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/news");
    let before = publisher.publish("news", "before");
    assert_event(&mut stream, before, "before");
    redis.publish("news", "passing");
    assert_event(&mut stream, before, "passing");
    drop(stream);
    wait_noted(&redis);
    assert_told(&server, &mut publisher, before);
    let later = start(&redis, &[]);
    assert_told(&later, &mut publisher, before);
    for server in [&server, &later] {
        wait_mixed(server);
        // Who only wants the newest has missed nothing.
        let mut newest = server.open("/events/news?last=1");
        assert_eq!(newest.next_message().data, "next");
        assert_no_link_was_lost(server);
    }
}

#[test]
fn what_is_not_kept_is_remembered_though_nobody_streams_the_channel_any_more() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/news");
    let before = publisher.publish("news", "before");
    assert_event(&mut stream, before, "before");
    redis.publish("news", "passing");
    assert_event(&mut stream, before, "passing");
    drop(stream);
    let mut client = redis.client();
    eventually_within(Duration::from_secs(60), "the channel is let go", || {
        let reply = client.command(&[b"PUBSUB", b"NUMSUB", b"news"]);
        let Reply::Array(parts) = reply else { panic!("{reply:?}") };
        (parts[1] == Reply::Integer(0)).then_some(())
    });
    assert_told(&server, &mut publisher, before);
    assert_told(&start(&redis, &[]), &mut publisher, before);
    assert_no_link_was_lost(&server);
}

#[test]
fn a_plain_message_too_large_counts_as_one_that_is_not_kept() {
    // An envelope may take as much more as the first of them has.
    for length in [65_537, 100_000] {
        check_plain_message_too_large(length);
    }
}

fn check_plain_message_too_large(length: usize) {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &["--max-event-bytes", "64KiB"]);
    let mut stream = server.open("/events/news");
    let before = publisher.publish("news", "before");
    assert_event(&mut stream, before, "before");
    redis.publish("news", &"x".repeat(length));
    assert_reset(&stream.next_message(), "oversize", &["news"]);
    drop(stream);
    wait_noted(&redis);
    wait_mixed(&server);
    assert_told(&server, &mut publisher, before);
    assert_told(&start(&redis, &[]), &mut publisher, before);
    assert_no_link_was_lost(&server);
}
