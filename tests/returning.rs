//! Streams that come back to a lot, to little, with strange ids or beside strange messages: each
//! gets all that it missed, nobody else notices, and the server stays small.
#![cfg(test)]

mod support;

use std::process::Command;
use std::time::Duration;

use corecast::bytes::history::{EventId, stream_key};
use support::clock::eventually;
use support::event_source::Message;
use support::fault_proxy::{FaultProxy, Way};
use support::http::Connection;
use support::kept::Publisher;
use support::process::Process;
use support::redis::{Client, Redis, Reply};
use support::resumption::{
    assert_event, assert_no_link_was_lost, assert_numbers, assert_reset, plain_user, resume,
    split_resets, start, start_at, start_beside_plain, target, until, url_of, user_of_channels,
};
use support::server::Server;
use support::stream::{Stream, request};

/// An event that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    id: EventId,
    /// Its data begins so, and goes on with filling.
    name: String,
}

/// Data of this length that begins with a name.
fn data(name: &str, length: usize) -> String {
    format!("{name} {}", "x".repeat(length.saturating_sub(name.len() + 1)))
}

/// Publishes to each channel in turn, as often as `rounds` says, events of this length.
fn publish_rounds(
    publisher: &mut Publisher,
    channels: &[&str],
    rounds: usize,
    length: usize,
) -> Vec<Event> {
    let mut events = Vec::new();
    for round in 0..rounds {
        let names: Vec<String> = channels.iter().map(|name| format!("{name}:{round}")).collect();
        let texts: Vec<String> = names.iter().map(|name| data(name, length)).collect();
        let channels = channels.iter().map(|channel| channel.as_bytes());
        let messages: Vec<_> = channels.zip(texts.iter().map(String::as_bytes)).collect();
        publisher.send(&messages);
        events.extend(names.into_iter().map(|name| Event { id: publisher.receive(), name }));
    }
    events
}

/// What the stream gets next are these events, in this order, of this length each.
#[track_caller]
fn assert_all(stream: &mut Stream, events: &[Event], length: usize) {
    for (number, event) in events.iter().enumerate() {
        let message = stream.next_message();
        let name = message.data.split(' ').next().unwrap();
        let found = (&*message.event, name, &*message.last_event_id);
        assert_eq!(found, ("message", &*event.name, &*event.id.to_string()), "event {number}");
        assert!(message.data.len() >= length, "{} bytes", message.data.len());
    }
}

#[track_caller]
fn assert_names(messages: &[Message], events: &[Event]) {
    let found: Vec<&str> =
        messages.iter().map(|message| message.data.split(' ').next().unwrap()).collect();
    let expected: Vec<&str> = events.iter().map(|event| &*event.name).collect();
    assert_eq!(found, expected);
}

fn many_channels() -> Vec<String> {
    (0..32).map(|number| format!("channel{number}")).collect()
}

/// A figure of the server's memory in bytes, from proc_pid_status(5).
fn memory_bytes(server: &Server, name: &str) -> usize {
    let path = format!("/proc/{}/status", server.process().pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    1024 * line.trim_end_matches("kB").trim().parse::<usize>().unwrap()
}

/// A Redis and the embedded broker, each with a server that keeps so many events.
fn with_both(kept: usize, mut check: impl FnMut(&Server, Publisher)) {
    let redis = Redis::start();
    let kept_text = kept.to_string();
    let options = ["--history", &kept_text, "--workers", "2", "--heartbeat", "1s"];
    let with_redis = Server::with_redis(&redis, &options);
    check(&with_redis, Publisher::over(redis.client(), kept));
    let with_broker = Server::start(&options);
    check(&with_broker, Publisher::over(with_broker.client(), kept));
}

#[test]
fn megabytes_of_many_channels_come_back_in_order_and_in_little_memory() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let names = many_channels();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = publisher.publish("before", "");
    let events = publish_rounds(&mut publisher, &names, 100, 6000);
    let rss = memory_bytes(&server, "VmRSS:");
    assert_all(&mut resume(&server, &target(&names), before), &events, 6000);
    let mut newest = server.open(&(target(&names) + "&last=1000"));
    assert_all(&mut newest, &events[events.len() - 1000..], 6000);
    let peak = memory_bytes(&server, "VmHWM:");
    assert!(peak.saturating_sub(rss) <= 64 << 20, "grew from {rss} to {peak} bytes");
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
    assert_no_link_was_lost(&server);
}

#[test]
fn a_stream_of_many_channels_looks_seldom_for_what_it_missed() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let proxy = FaultProxy::start(redis.address().tcp());
    let server = start_at(&proxy.url(), &[]);
    let names = many_channels();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = publisher.publish("before", "");
    let events = publish_rounds(&mut publisher, &names, 30, 100);
    for way in [Way::ToServer, Way::ToClient] {
        proxy.delay(way, Duration::from_millis(20));
    }
    let reads_before = server.metric("corecast_history_reads_total");
    let looks_before = server.metric("corecast_history_looks_total");
    let mut stream = resume(&server, &target(&names), before);
    assert_all(&mut stream, &events, 100);
    let pages = server.metric("corecast_history_reads_total") - reads_before;
    let looks = server.metric("corecast_history_looks_total") - looks_before;
    assert!(pages >= 1.0 && looks >= 1.0, "{looks} looks for {pages} pages");
    assert!(looks <= 4.0 * (32.0 + pages), "{looks} looks for {pages} pages");
    let live = publisher.publish(names[7], "live");
    assert_event(&mut stream, live, "live");
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

#[test]
fn live_events_of_other_channels_follow_what_was_missed_of_one() {
    with_both(1000, |server, mut publisher| {
        let before = publisher.publish("before", "");
        let events = publish_rounds(&mut publisher, &["busy"], 900, 20_000);
        let mut stream = resume(server, &target(&["quiet", "busy", "still"]), before);
        let live = publish_rounds(&mut publisher, &["quiet", "still", "busy"], 2, 100);
        assert_all(&mut stream, &events, 20_000);
        assert_all(&mut stream, &live, 100);

        assert_eq!(server.metric("corecast_resets_total"), 0.0);
        assert_no_link_was_lost(server);
    });
}

#[test]
fn a_thousand_large_events_are_given_to_who_asks_for_the_newest() {
    with_both(1000, |server, mut publisher| {
        let mut events = publish_rounds(&mut publisher, &["full"], 1000, 20_000);
        for last in [1000, 500] {
            let mut stream = server.open(&format!("/events/full?last={last}"));
            assert_all(&mut stream, &events[events.len() - last..], 20_000);
            let live = publish_rounds(&mut publisher, &["full"], 1, 20_000);
            assert_all(&mut stream, &live, 20_000);
            events.extend(live);
        }
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
        assert_no_link_was_lost(server);
    });
}

#[test]
fn a_channel_that_is_refused_is_told_once_and_the_others_have_their_newest() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    user_of_channels(&redis, "sse", &["ok", "corecast:probe:*"]);
    let server = start_at(&url_of("sse", &redis.url()), &[]);
    let ids = publisher.publish_numbers("ok", 0..5);
    let mut stream = server.open("/events?channel=ok&channel=forbidden&last=2");
    let first = publisher.publish("ok", "first");
    let (resets, events) = split_resets(until(&mut stream, "first"));
    assert_eq!(resets.len(), 1, "{resets:?}");
    assert_reset(&resets[0], "link-lost", &["forbidden"]);
    let found: Vec<&str> = events.iter().map(|event| &*event.last_event_id).collect();
    assert_eq!(found, [ids[3].to_string(), ids[4].to_string()]);
    assert!(ids[4] < first);
    for number in 0..10 {
        let data = format!("live {number}");
        let id = publisher.publish("ok", &data);
        assert_event(&mut stream, id, &data);
    }
    stream.stays_silent(Duration::from_millis(500));
    assert_no_link_was_lost(&server);
}

#[test]
fn a_channel_that_is_refused_is_told_once_during_a_long_way_back() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    user_of_channels(&redis, "sse", &["ok", "corecast:probe:*"]);
    let proxy = FaultProxy::start(redis.address().tcp());
    let server = start_at(&url_of("sse", &proxy.url()), &[]);
    let before = publisher.publish("before", "");
    let events = publish_rounds(&mut publisher, &["ok"], 600, 10_000);
    proxy.delay(Way::ToClient, Duration::from_millis(5));
    let mut stream = resume(&server, "/events?channel=forbidden&channel=ok", before);
    publisher.publish("ok", "live");
    let (resets, found) = split_resets(until(&mut stream, "live"));
    assert_names(&found, &events);
    assert_eq!(resets.len(), 1, "{resets:?}");
    assert_reset(&resets[0], "link-lost", &["forbidden"]);
    stream.stays_silent(Duration::from_millis(500));
}

/// Publishes an event that is kept for two seconds.
fn publish_briefly(client: &mut Client, channel: &str, data: &str) -> EventId {
    let key = format!("corecast:{{{channel}}}");
    let words = ["FCALL", "corecast_publish", "2", &key, "corecast:clock", channel, "50", "2000"];
    let words = [&words[..], &[data]].concat();
    let words: Vec<&[u8]> = words.into_iter().map(str::as_bytes).collect();
    match client.command(&words) {
        Reply::Bulk(Some(id)) => EventId::parse(&id).unwrap(),
        reply => panic!("{reply:?}"),
    }
}

fn exists(client: &mut Client, channel: &str) -> bool {
    client.command(&[b"EXISTS", &stream_key(channel.as_bytes())]) == Reply::Integer(1)
}

#[test]
fn the_newest_of_several_channels_come_though_one_was_silent_for_longer_than_events_are_kept() {
    let redis = Redis::start();
    Publisher::new(&redis);
    let options = ["--history", "50", "--history-ttl", "2s"];
    let with_redis = Server::with_redis(&redis, &options);
    let with_broker = Server::start(&options);
    for (server, mut client) in
        [(&with_redis, redis.client()), (&with_broker, with_broker.client())]
    {
        publish_briefly(&mut client, "a", "gone");
        let mut ids = Vec::new();
        for number in 0..5 {
            let id = publish_briefly(&mut client, "b", &number.to_string());
            ids.push(id);
            eventually("some time has passed", || {
                let now = publish_briefly(&mut client, "clock", "x");
                (now.ms >= id.ms + 300).then_some(())
            });
        }
        eventually("the silent channel's history has expired", || {
            (!exists(&mut client, "a")).then_some(())
        });
        ids.push(publish_briefly(&mut client, "b", "5"));
        for channels in [&["a", "b"][..], &["a", "b", "c"], &["b", "a"]] {
            let mut stream = server.open(&(target(channels) + "&last=20"));
            assert_numbers(&mut stream, 0, &ids);
        }
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
        assert_no_link_was_lost(server);
    }
}

/// Users, of whom one may neither load nor call functions nor scripts.
fn users_of_history(redis: &Redis) -> [String; 2] {
    user_of_channels(redis, "full", &["*"]);
    [url_of("full", &redis.url()), plain_user(redis)]
}

#[test]
fn large_events_and_small_ones_after_them_come_back_without_a_lost_link() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let before = publisher.publish("before", "");
    let large = publish_rounds(&mut publisher, &["kept/a"], 45, 1_000_000);
    let small = publish_rounds(&mut publisher, &["kept/a"], 320, 50);
    for url in users_of_history(&redis) {
        let server = start_beside_plain(&url, &[]);
        let mut bystanders: Vec<Stream> = (0..4).map(|_| server.open("/events/plain")).collect();
        let mut stream = resume(&server, "/events/kept/a", before);
        assert_all(&mut stream, &large, 1_000_000);
        assert_all(&mut stream, &small, 50);
        redis.publish("plain", "live");
        for bystander in &mut bystanders {
            assert_eq!(bystander.next_message().data, "live");
        }
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
        assert_no_link_was_lost(&server);
    }
}

/// Five events, one of 17 MiB, and five more. Returns the id before them, and theirs.
fn publish_around_one_too_large(publisher: &mut Publisher) -> (EventId, [Vec<EventId>; 2]) {
    let before = publisher.publish("kept/a", "seen");
    let first = publisher.publish_numbers("kept/a", 0..5);
    publisher.publish("kept/a", vec![b'x'; 17 << 20]);
    let last = publisher.publish_numbers("kept/a", 5..10);
    (before, [first, last])
}

#[test]
fn an_event_larger_than_any_page_is_told_of_to_who_comes_back_and_its_neighbours_arrive() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let (before, [first, last]) = publish_around_one_too_large(&mut publisher);
    for url in users_of_history(&redis) {
        let server = start_beside_plain(&url, &[]);
        let mut bystander = server.open("/events/plain");
        let mut stream = resume(&server, "/events/kept/a", before);
        assert_numbers(&mut stream, 0, &first);
        assert_reset(&stream.next_message(), "oversize", &["kept/a"]);
        assert_numbers(&mut stream, 5, &last);
        redis.publish("plain", "live");
        assert_eq!(bystander.next_message().data, "live");
        assert_no_link_was_lost(&server);
    }
}

/// How often Redis has run a command.
fn calls(client: &mut Client, command: &str) -> u64 {
    let Reply::Bulk(Some(stats)) = client.command(&[b"INFO", b"commandstats"]) else { panic!() };
    let stats = String::from_utf8(stats).unwrap();
    let line = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|text| text.strip_prefix(&line)?.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_page_ends_once_it_has_left_out_a_lot() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let before = publisher.publish("a", "seen");
    for _ in 0..20 {
        publisher.publish("a", vec![b'x'; 3 << 19]);
    }
    let last = publisher.publish("a", "last");
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/a", before);
    let (resets, events) = split_resets(until(&mut stream, "last"));
    assert_eq!(events, []);
    assert_eq!(resets.len(), 20);
    assert_eq!(stream.last_event_id(), last.to_string());
    assert_eq!(server.metric("corecast_resets_total"), 20.0);
    // Three that are left out are over 4 MiB.
    let pages = calls(&mut publisher.client, "fcall_ro");
    assert!(pages >= 7, "{pages} pages");
    assert_no_link_was_lost(&server);
}

#[test]
fn a_live_event_arrives_while_a_crowd_is_given_what_it_missed() {
    with_both(1000, |server, mut publisher| {
        let mut other = server.open("/events/other");
        let before = publisher.publish("before", "");
        let events = publish_rounds(&mut publisher, &["busy"], 50, 20_000);
        let id = before.to_string();
        let crowd: Vec<Connection> = (0..60)
            .map(|_| {
                let mut connection = Connection::open(server.listener());
                connection.send(request("/events/busy", &[("Last-Event-ID", &id)]));
                connection
            })
            .collect();
        let live = publisher.publish("other", "live");
        assert_event(&mut other, live, "live");
        for connection in crowd {
            assert_all(&mut Stream::of(connection), &events, 20_000);
        }
        assert_eq!(server.metric("corecast_overload_total"), 0.0);
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
        assert_no_link_was_lost(server);
    });
}

#[test]
fn a_message_too_large_is_told_of_to_who_is_still_on_the_way_back() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let before = publisher.publish("before", "");
    for too_large in ["a", "b"] {
        publisher.client.command(&[b"DEL", &stream_key(b"a"), &stream_key(b"b")]);
        let events = publish_rounds(&mut publisher, &["a"], 900, 20_000);
        // Nobody reads: it can't be there yet.
        let mut stream = resume(&server, "/events?channel=a&channel=b", before);
        publisher.publish(too_large, vec![b'x'; 2 << 20]);
        publisher.publish("a", "after");
        let (resets, found) = split_resets(until(&mut stream, "after"));
        assert_names(&found, &events);
        assert_eq!(resets.len(), 1, "{resets:?}");
        assert_reset(&resets[0], "oversize", &[too_large]);
        let live = publisher.publish(too_large, "live");
        assert_event(&mut stream, live, "live");
    }
    assert_no_link_was_lost(&server);
}

#[test]
fn who_brings_an_unknown_id_is_given_one_with_the_reset_and_not_before() {
    with_both(100, |server, mut publisher| {
        publisher.publish_numbers("a", 0..3);
        let newest = publisher.publish("b", "newest");
        for id in ["99999999999999-0", "strange", "0"] {
            let mut stream = resume(server, "/events/a", id);
            let text = stream.read_until(|text| text.matches("\n\n").count() >= 2);
            let (first, rest) = text.split_once("\n\n").unwrap();
            assert!(first.lines().all(|line| !line.starts_with("id")), "{text}");
            assert!(rest.contains(&format!("id: {newest}\n")), "{text}");
            let reset = stream.next_message();
            assert_reset(&reset, "unknown-id", &["a"]);
            assert_eq!(reset.last_event_id, newest.to_string());
        }
        let next = publisher.publish("a", "next");
        assert_event(&mut resume(server, "/events/a", newest), next, "next");
    });
}

#[test]
fn a_new_stream_is_given_nothing_that_others_had_before_it_was_there() {
    with_both(1000, |server, mut publisher| {
        let mut others: Vec<Stream> = (0..6).map(|_| server.open("/events/a")).collect();
        for (round, query) in ["", "?last=0", "", "?last=0"].iter().enumerate() {
            let first = 21 * u32::try_from(round).unwrap();
            let ids = publisher.publish_numbers("a", first..first + 20);
            for other in &mut others {
                assert_numbers(other, first, &ids);
            }
            let mut new = server.open(&format!("/events/a{query}"));
            let live = publisher.publish_numbers("a", first + 20..first + 21);
            for stream in others.iter_mut().chain([&mut new]) {
                assert_numbers(stream, first + 20, &live);
            }
        }
    });
}

#[test]
fn streams_begin_with_the_oldest_event_or_behind_any_other() {
    with_both(1000, |server, mut publisher| {
        let ids = publisher.publish_numbers("a", 0..120);
        assert_numbers(&mut server.open("/events/a?since=0"), 0, &ids);
        for first in [1, 60, 119] {
            let since = ids[first as usize - 1];
            let mut stream = server.open(&format!("/events/a?since={since}"));
            assert_numbers(&mut stream, first, &ids[first as usize..]);
            let live = publisher.publish("b", "x");
            assert!(live > ids[119]);
        }
        let mut none = server.open(&format!("/events/a?since={}", ids[119]));
        none.stays_silent(Duration::from_millis(200));
        // What the client has counts for more.
        let mut stream = resume(server, "/events/a?since=0", ids[100]);
        assert_numbers(&mut stream, 101, &ids[101..]);
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
    });
}

/// A time as RFC 3339 says it.
fn rfc3339(seconds: u64) -> String {
    let date = format!("@{seconds}");
    let mut command = Command::new("date");
    Process::start(command.args(["-u", "-d", &date, "+%FT%TZ"])).finish().remove(0)
}

#[test]
fn streams_begin_with_what_was_published_since_a_time() {
    with_both(1000, |server, mut publisher| {
        let mut ids = publisher.publish_numbers("a", 0..3);
        let second = ids[0].ms / 1000 + 1;
        // Another channel shows how time goes by.
        eventually("a second has passed", || {
            (publisher.publish("clock", "x").ms >= 1000 * second).then_some(())
        });
        ids.extend(publisher.publish_numbers("a", 3..6));
        let first = ids.partition_point(|id| id.ms < 1000 * second);
        let times = [rfc3339(second), second.to_string(), rfc3339(second).replace('Z', "%2B00:00")];
        for (time, next) in times.iter().zip(6..) {
            let mut stream = server.open(&format!("/events/a?since={time}"));
            let number = u32::try_from(first).unwrap();
            assert_numbers(&mut stream, number, &ids[first..]);
            let live = publisher.publish_numbers("a", next..next + 1);
            assert_numbers(&mut stream, next, &live);
            ids.extend(live);
        }
        // What came ahead of what Redis has told the worker lies ahead of the stream too.
        let mut future = server.open("/events/a?since=2100-01-01T00:00:00Z");
        ids.push(publisher.publish("a", "live"));
        let messages = until(&mut future, "live");
        let found: Vec<&str> = messages.iter().map(|event| &*event.last_event_id).collect();
        let newest = ids[ids.len() - 1 - found.len()..ids.len() - 1].iter();
        assert_eq!(found, newest.map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
    });
}

/// Makes a Redis one that has kept everything for so long.
fn age(redis: &Redis, ms: u64) {
    let mut client = redis.client();
    let Reply::Array(time) = client.command(&[b"TIME"]) else { panic!("no time") };
    let Reply::Bulk(Some(seconds)) = &time[0] else { panic!("{time:?}") };
    let seconds: u64 = std::str::from_utf8(seconds).unwrap().parse().unwrap();
    let id = format!("{}-0", 1000 * seconds - ms);
    let words = ["XADD", "corecast:clock", &id, "since", &id, "ttl", "600000", "evicted", "0"];
    assert!(matches!(client.command(&words.map(str::as_bytes)), Reply::Bulk(Some(_))));
}

#[test]
fn streams_begin_with_what_was_published_some_time_ago() {
    let redis = Redis::start();
    age(&redis, 300_000);
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut ids = publisher.publish_numbers("a", 0..10);
    for (since, next) in ["-60s", "-2m", "-59000ms"].iter().zip(10..) {
        let mut stream = server.open(&format!("/events/a?since={since}"));
        assert_numbers(&mut stream, 0, &ids);
        let live = publisher.publish_numbers("a", next..next + 1);
        assert_numbers(&mut stream, next, &live);
        ids.extend(live);
    }
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

#[test]
fn what_was_published_before_anything_is_known_may_be_missing() {
    with_both(1000, |server, mut publisher| {
        let ids = publisher.publish_numbers("a", 0..10);
        let mut stream = server.open("/events/a?since=-60s");
        publisher.publish("a", "live");
        let (resets, events) = split_resets(until(&mut stream, "live"));
        let found: Vec<&str> = events.iter().map(|event| &*event.last_event_id).collect();
        let expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
        assert!(resets.len() <= 1, "{resets:?}");
        for reset in resets {
            assert_reset(&reset, "history-trimmed", &["a"]);
        }
    });
}

#[test]
fn who_asks_for_more_events_than_are_kept_gets_all() {
    with_both(2000, |server, mut publisher| {
        let events = publish_rounds(&mut publisher, &["a"], 1500, 100);
        for last in ["100000", "1500", "99999999999999999999999999"] {
            let mut stream = server.open(&format!("/events/a?last={last}"));
            assert_all(&mut stream, &events, 100);
            stream.stays_silent(Duration::from_millis(100));
        }
        assert_eq!(server.metric("corecast_resets_total"), 0.0);
    });
}

#[test]
fn who_asks_for_what_can_not_be_read_is_told_in_the_stream() {
    with_both(100, |server, mut publisher| {
        publisher.publish_numbers("a", 0..3);
        for query in ["since=nonsense", "lastEventId=0", "last=some", "since=-5", "since="] {
            let mut stream = server.open(&format!("/events/a?{query}"));
            assert_reset(&stream.next_message(), "unknown-id", &["a"]);
            let live = publisher.publish("a", query);
            assert_event(&mut stream, live, query);
        }
    });
}
