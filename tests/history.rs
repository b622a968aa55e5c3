//! Streams of channels whose events are kept: whoever comes back gets exactly what was missed, or
//! is told that it can't be had, whatever happened to Redis, the link or the server in between.
#![cfg(test)]

mod support;

use std::time::{Duration, Instant};

use corecast::bytes::history::{EventId, stream_key};
use rustix::process::Signal;
use support::clock::{eventually, eventually_within, now};
use support::fault_proxy::{FaultProxy, Way};
use support::kept::Publisher;
use support::redis::{Client, Redis, Reply};
use support::resumption::{
    assert_event, assert_numbers, assert_reset, config, resume, start, start_at,
};
use support::server::Server;
use support::stream::Stream;

/// How long a link may take that has to find out by itself that nobody answers any more.
const NOTICE: Duration = Duration::from_secs(40);

/// Whoever comes back with one of `ids` gets the rest; `first` is the number of the first.
#[track_caller]
fn assert_resumable(server: &Server, target: &str, first: u32, ids: &[EventId]) {
    for (number, position) in (first + 1..).zip(1..ids.len()) {
        let mut stream = resume(server, target, ids[position - 1]);
        assert_numbers(&mut stream, number, &ids[position..]);
    }
}

fn tell_outage(what: &str, start: Instant) {
    println!("{what}: delivery was out for {:?}", start.elapsed());
}

#[test]
fn a_stream_comes_back_to_exactly_what_it_missed_on_any_worker_and_server() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let servers = [start(&redis, &[]), start(&redis, &[])];
    let mut stream = servers[0].open("/events/a");
    let mut ids = publisher.publish_numbers("a", 0..3);
    assert_numbers(&mut stream, 0, &ids);
    drop(stream);
    ids.extend(publisher.publish_numbers("a", 3..40));
    // More streams than workers: each worker has some of them.
    for server in &servers {
        let mut streams: Vec<Stream> =
            (0..8).map(|_| resume(server, "/events/a", ids[2])).collect();
        for stream in &mut streams {
            assert_numbers(stream, 3, &ids[3..]);
        }
    }
    assert_resumable(&servers[1], "/events/a", 0, &ids);
    let mut by_query = servers[1].open(&format!("/events/a?lastEventId={}", ids[37]));
    assert_numbers(&mut by_query, 38, &ids[38..]);
    // It is in the present now.
    let last = publisher.publish("a", "live");
    assert_event(&mut by_query, last, "live");
    // Who has everything gets nothing.
    let mut stream = resume(&servers[0], "/events/a", last);
    stream.stays_silent(Duration::from_millis(300));
}

#[test]
fn a_server_that_was_killed_has_lost_nothing() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let mut ids = publisher.publish_numbers("a", 0..5);
    assert_numbers(&mut stream, 0, &ids);
    let killed = now();
    server.kill();
    stream.wait_end();
    ids.extend(publisher.publish_numbers("a", 5..10));
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/a", ids[4]);
    assert_numbers(&mut stream, 5, &ids[5..]);
    tell_outage("a new process", killed);
}

#[test]
fn several_channels_come_back_in_the_order_of_publication() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let names = ["a", "b", "c"];
    let events: Vec<(EventId, String)> = (0..90_usize)
        .map(|number| {
            let name = names[(number * 7 + number / 5) % 3];
            let data = format!("{name}{number}");
            (publisher.publish(name, &data), data)
        })
        .collect();
    let target = "/events?channel=a&channel=c";
    let mut stream = resume(&server, target, events[9].0);
    for (id, data) in events[10..].iter().filter(|(_, data)| !data.starts_with('b')) {
        assert_event(&mut stream, *id, data);
    }
    // One that has lost its link goes on in that order too.
    redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    for number in 0..30 {
        let data = number.to_string();
        let id = publisher.publish(["c", "a"][number % 2], &data);
        if number == 0 {
            assert_eq!(stream.next_message().last_event_id, id.to_string());
        } else {
            assert_event(&mut stream, id, &data);
        }
    }
}

#[test]
fn the_newest_events_are_given_to_who_asks_for_them() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let ids = publisher.publish_numbers("a", 0..10);
    for (count, first) in [(1, 9), (3, 7), (10, 0), (100, 0)] {
        let mut stream = server.open(&format!("/events/a?last={count}"));
        assert_numbers(&mut stream, first, &ids[first as usize..]);
    }
    // An id that the client has counts for more.
    let mut stream = resume(&server, "/events/a?last=5", ids[8]);
    assert_numbers(&mut stream, 9, &ids[9..]);
    server.open("/events/a?last=0").stays_silent(Duration::from_millis(200));
}

#[test]
fn ids_that_are_none_of_ours_or_too_old_are_answered_with_a_reset() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let ids = publisher.publish_numbers("a", 0..10);
    for id in ["99999999999999-0", "live", "x", "12", "1-2-3"] {
        let mut stream = resume(&server, "/events/a", id);
        assert_reset(&stream.next_message(), "unknown-id", &["a"]);
        let data = format!("after {id}");
        let id = publisher.publish("a", &data);
        assert_event(&mut stream, id, &data);
    }
    let key = stream_key(b"a");
    publisher.client.command(&[b"XTRIM", &key, b"MAXLEN", b"8"]);
    let trimmed = start(&redis, &[]);
    for server in [&server, &trimmed] {
        // The last that is gone, and one before it.
        for position in [4, 6] {
            let mut stream = resume(server, "/events?channel=a&channel=b", ids[position - 1]);
            let message = stream.next_message();
            // The server that has seen them go by still has them.
            if message.event == "message" {
                assert_eq!(message.last_event_id, ids[position].to_string());
                continue;
            }
            assert_reset(&message, "history-trimmed", &["a"]);
            // What is left of them comes all the same.
            assert_numbers(&mut stream, 7, &ids[7..]);
            let id = publisher.publish("a", "after");
            while stream.next_message().last_event_id != id.to_string() {}
        }
    }
    assert!(trimmed.metric("corecast_resumes_total{from=\"reset\"}") > 0.0);
}

#[test]
fn what_is_published_without_history_comes_once_without_an_id() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = Server::with_redis(&redis, &["--history", "100", "--workers", "1"]);
    let mut stream = server.open("/events/a");
    let before = publisher.publish("a", "kept");
    assert_event(&mut stream, before, "kept");
    redis.publish("a", "passing");
    assert_event(&mut stream, before, "passing");
    // Who was away is told of what nobody can give back.
    let mut stream = resume(&server, "/events/a", before);
    assert_reset(&stream.next_message(), "no-history", &["a"]);
    let after = publisher.publish("a", "kept again");
    assert_event(&mut stream, after, "kept again");
}

#[test]
fn silent_streams_learn_how_far_the_others_have_come() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut quiet = server.open("/events/quiet");
    let begin = EventId::parse(quiet.last_event_id().as_bytes()).unwrap();
    let newest = publisher.publish("busy", "x");
    assert!(newest > begin);
    eventually("a heartbeat tells the id", || {
        quiet.poll(Duration::from_millis(50));
        (EventId::parse(quiet.last_event_id().as_bytes()) >= Some(newest)).then_some(())
    });
    let id = publisher.publish("quiet", "at last");
    assert_event(&mut resume(&server, "/events/quiet", newest), id, "at last");
    assert_event(&mut quiet, id, "at last");
}

#[test]
fn a_killed_link_costs_nobody_anything() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut streams: Vec<Stream> = (0..8).map(|_| server.open("/events/a")).collect();
    for round in 0..5 {
        let first = round * 20;
        let mut ids = publisher.publish_numbers("a", first..first + 10);
        redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
        let killed = now();
        ids.extend(publisher.publish_numbers("a", first + 10..first + 20));
        for (index, stream) in streams.iter_mut().enumerate() {
            assert_numbers(stream, first, &ids);
            if index == 0 {
                tell_outage("CLIENT KILL", killed);
            }
        }
    }
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
    assert!(server.metric("corecast_link_losses_total") >= 5.0);
}

/// The id with which a stream begins.
fn first_id(stream: &mut Stream) -> EventId {
    let text = stream.read_until(|text| text.contains("\n\n"));
    let id = text.lines().find_map(|line| line.strip_prefix("id: "));
    id.and_then(|id| EventId::parse(id.as_bytes())).unwrap_or_else(|| panic!("no id in {text}"))
}

#[test]
fn a_frozen_redis_costs_nobody_anything() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let ids = publisher.publish_numbers("a", 0..3);
    assert_numbers(&mut stream, 0, &ids);
    redis.signal(Signal::STOP);
    eventually_within(NOTICE, "the server notices", || {
        (server.admin("/readyz").head.status == 503).then_some(())
    });
    // The stream stays, and there are new ones, which begin where their worker has come to.
    let mut fresh = server.open("/events/a");
    let begin = first_id(&mut fresh);
    let comments = stream.comments(0).len();
    stream.comments(comments + 1);
    redis.signal(Signal::CONT);
    let thawed = now();
    let more = publisher.publish_numbers("a", 3..10);
    assert_numbers(&mut stream, 3, &more);
    tell_outage("SIGSTOP, after SIGCONT", thawed);
    // What its worker had been sent before is not for it; what it had not may be.
    let all = [ids, more].concat();
    let message = fresh.next_message();
    let first = all.iter().position(|id| id.to_string() == message.last_event_id).unwrap();
    assert!(first <= 3 && all[first] > begin, "{message:?} after {begin}");
    assert_numbers(&mut fresh, u32::try_from(first).unwrap() + 1, &all[first + 1..]);
}

#[test]
fn a_redis_that_persists_comes_back_with_everything() {
    let directory = std::env::temp_dir().join(format!("corecast-aof-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.to_string_lossy().into_owned();
    let options = ["--appendonly", "yes", "--appendfsync", "always", "--dir", &path];
    let mut redis = Redis::start_with(&options);
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let ids = publisher.publish_numbers("a", 0..5);
    assert_numbers(&mut stream, 0, &ids);
    let killed = now();
    redis.restart();
    let more = Publisher::new(&redis).publish_numbers("a", 5..10);
    assert_numbers(&mut stream, 5, &more);
    tell_outage("restart of a Redis that persists", killed);
    assert_resumable(&server, "/events/a", 0, &[ids, more].concat());
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
    drop((server, redis));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Lets Redis evict every history, as it may where its memory is full and its policy allows it.
fn evict_histories(client: &mut Client, channel: &str) {
    config(client, "maxmemory-policy", "volatile-random");
    config(client, "maxmemory", "1");
    eventually("eviction", || {
        let reply = client.command(&[b"EXISTS", &stream_key(channel.as_bytes())]);
        (reply == Reply::Integer(0)).then_some(())
    });
    config(client, "maxmemory", "0");
    assert_eq!(client.command(&[b"EXISTS", b"corecast:clock"]), Reply::Integer(1));
}

#[test]
fn events_that_redis_evicts_are_not_missed_in_silence() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let before = publisher.publish_numbers("a", 0..5);
    evict_histories(&mut publisher.client, "a");
    // Others than the channel's own make no difference.
    publisher.publish("b", "0");

    // Nothing is left, and nothing has come since.
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/a", before[2]);
    assert_reset(&stream.next_message(), "history-trimmed", &["a"]);
    // The same with something after it.
    let after = publisher.publish_numbers("a", 5..8);
    assert_numbers(&mut stream, 5, &after);
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/a", before[2]);
    assert_reset(&stream.next_message(), "history-trimmed", &["a"]);
    // What was published since is all there.
    assert_resumable(&server, "/events/a", 5, &after);

    // Of a channel that was silent nothing is known up to then, and all from then on.
    let position = server.open("/events/c").last_event_id();
    publisher.publish_numbers("a", 8..10);
    let server = start(&redis, &[]);
    let mut stream = resume(&server, "/events/c", position);
    let id = publisher.publish("c", "first");
    assert_event(&mut stream, id, "first");
    let mut stream = resume(&server, "/events/c", before[2]);
    assert_reset(&stream.next_message(), "history-trimmed", &["c"]);
}

#[test]
fn an_eviction_is_seen_by_who_comes_back_before_anybody_publishes() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let ids = publisher.publish_numbers("a", 0..5);
    let server = start(&redis, &[]);
    evict_histories(&mut publisher.client, "a");
    let mut stream = resume(&server, "/events/a", ids[2]);
    assert_reset(&stream.next_message(), "history-trimmed", &["a"]);
}

#[test]
fn a_redis_that_forgets_is_told_of() {
    let mut redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let ids = publisher.publish_numbers("a", 0..5);
    assert_numbers(&mut stream, 0, &ids);
    let killed = now();
    redis.restart();
    let mut publisher = Publisher::new(&redis);
    // What the old one may have published after its last answer is lost with it.
    let id = publisher.publish("a", "anew");
    let message = stream.next_message();
    tell_outage("restart of a Redis that forgets", killed);
    assert_reset(&message, "history-trimmed", &["a"]);
    let after = publisher.publish("a", "later");
    let message = stream.next_message();
    if message.data == "anew" {
        assert_eq!(message.last_event_id, id.to_string());
        assert_event(&mut stream, after, "later");
    } else {
        assert_eq!((&*message.data, message.last_event_id), ("later", after.to_string()));
    }
    let mut returned = resume(&server, "/events/a", ids[2]);
    assert_reset(&returned.next_message(), "history-trimmed", &["a"]);
    assert_eq!(server.metric("corecast_worker_restarts_total"), 0.0);
}

#[test]
fn a_pause_of_redis_is_waited_for() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let mut number = 0;
    for kind in [&b"ALL"[..], b"WRITE"] {
        let paused = now();
        redis.client().command(&[b"CLIENT", b"PAUSE", b"3000", kind]);
        let ids = publisher.publish_numbers("a", number..number + 5);
        assert_numbers(&mut stream, number, &ids);
        tell_outage("CLIENT PAUSE 3000", paused);
        number += 5;
    }
    assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
}

/// Connections in a subscribed state.
fn links(client: &mut Client) -> usize {
    match client.command(&[b"CLIENT", b"LIST", b"TYPE", b"pubsub"]) {
        Reply::Bulk(Some(list)) => list.split(|byte| *byte == b'\n').count() - 1,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn a_worker_too_slow_for_redis_makes_up_for_what_it_was_not_sent() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let proxy = FaultProxy::start(redis.address().tcp());
    let server = start_at(&proxy.url(), &["--max-pending", "64MiB"]);
    let mut stream = server.open("/events/a");
    config(&mut publisher.client, "client-output-buffer-limit", "pubsub 1mb 0 0");
    let payload = "x".repeat(50_000);
    let all = links(&mut publisher.client);
    proxy.hold(Way::ToClient, true);
    let mut ids = Vec::new();
    while links(&mut publisher.client) == all {
        ids.push(publisher.publish("a", &payload));
        assert!(ids.len() < 900, "Redis does not mind");
    }
    // It has noticed, and lost what was queued.
    ids.extend((0..10).map(|_| publisher.publish("a", &payload)));
    // Pages of history count too.
    config(&mut publisher.client, "client-output-buffer-limit", "pubsub 32mb 8mb 60");
    let healed = now();
    proxy.heal();
    for id in &ids {
        assert_event(&mut stream, *id, &payload);
    }
    tell_outage("output buffer limit, after the hold", healed);
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

#[test]
fn an_event_too_large_is_told_of_and_what_follows_arrives() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &["--max-event-bytes", "1MiB"]);
    let mut streams: Vec<Stream> = (0..4).map(|_| server.open("/events/a")).collect();
    let before = publisher.publish("a", "before");
    publisher.publish("a", vec![b'x'; 10 << 20]);
    let after = publisher.publish("a", "after");
    for stream in &mut streams {
        assert_event(stream, before, "before");
        assert_reset(&stream.next_message(), "oversize", &["a"]);
        assert_event(stream, after, "after");
    }
    assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
    // Who was away is told too, of whichever server.
    for server in [&server, &start(&redis, &["--max-event-bytes", "1MiB"])] {
        let mut stream = resume(server, "/events/a", before);
        let message = stream.next_message();
        assert_eq!(message.event, "stream-reset", "{message:?}");
        let last = publisher.publish("a", "last");
        while stream.next_message().last_event_id != last.to_string() {}
    }
}

#[test]
fn messages_that_no_link_survives_are_told_of_and_not_read_again_and_again() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let before = publisher.publish("a", "before");
    assert_event(&mut stream, before, "before");
    // Redis closes every subscriber for whom more than 32 MB are queued.
    let payload = vec![b'x'; 33 << 20];
    for round in 0..3 {
        let published = now();
        publisher.publish("a", &payload);
        let message = stream.next_message();
        // Its length can be had, where the event itself can't.
        assert_reset(&message, "oversize", &["a"]);
        tell_outage("a message of 33 MB", published);
        let data = format!("after {round}");
        let after = publisher.publish("a", &data);
        assert_event(&mut stream, after, &data);
    }
    server.wait_ready();
    let losses = server.metric("corecast_link_losses_total");
    println!("{losses} links were lost");
    let mut returned = resume(&server, "/events/a", before);
    let message = returned.next_message();
    assert_eq!(message.event, "stream-reset", "{message:?}");
    let last = publisher.publish("a", "last");
    assert_event(&mut stream, last, "last");
    while returned.next_message().last_event_id != last.to_string() {}
    let losses = server.metric("corecast_link_losses_total");
    assert!(losses <= 20.0, "{losses} links were lost");
}

#[test]
fn a_redis_without_memory_refuses_and_nothing_is_lost() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let before = publisher.publish("a", "before");
    config(&mut redis.client(), "maxmemory", "1");
    let refusal = publisher.try_publish("a", "refused").unwrap_err();
    assert!(refusal.contains("OOM"), "{refusal}");
    config(&mut redis.client(), "maxmemory", "0");
    let after = publisher.publish("a", "after");
    for stream in [&mut stream, &mut resume(&server, "/events/a", before)] {
        let mut message = stream.next_message();
        if message.data == "before" {
            message = stream.next_message();
        }
        assert_eq!((&*message.data, message.last_event_id), ("after", after.to_string()));
    }
    assert_eq!(server.metric("corecast_resets_total"), 0.0);
}

#[test]
fn a_busy_redis_is_asked_again() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let server = start(&redis, &[]);
    let mut stream = server.open("/events/a");
    let ids = publisher.publish_numbers("a", 0..3);
    assert_numbers(&mut stream, 0, &ids);
    config(&mut redis.client(), "busy-reply-threshold", "50");
    let mut busy = redis.client();
    busy.send(&[b"EVAL", b"while true do end", b"0"]).unwrap();
    eventually("it is busy", || {
        let reply = redis.client().command(&[b"PING"]);
        matches!(reply, Reply::Error(error) if error.starts_with("BUSY")).then_some(())
    });
    // Neither the subscription of this one nor the history of that one can be had now.
    let mut fresh = server.open("/events/b");
    let mut returned = resume(&server, "/events?channel=a&channel=b", ids[0]);
    redis.client().command(&[b"SCRIPT", b"KILL"]);
    eventually("it is free again", || {
        let reply = redis.client().command(&[b"PING"]);
        (!matches!(reply, Reply::Error(_))).then_some(())
    });
    let freed = now();
    let last = publish_until_received(&mut publisher, "b", &mut fresh);
    tell_outage("a busy script, after its end", freed);
    // Where nobody can say what is published meanwhile, the client is told so, maybe twice.
    let mut excuses = String::new();
    let mut next_but_resets = |excuses: &mut String| loop {
        let message = returned.next_message();
        if message.event == "message" {
            return message;
        }
        assert!(message.data.contains("link-lost"), "{message:?}");
        excuses.push_str(&message.data);
    };
    let mut message = next_but_resets(&mut excuses);
    if !excuses.contains("\"a\"") {
        for (number, id) in (1..).zip(&ids[1..]) {
            let expected = (number.to_string(), id.to_string());
            assert_eq!((message.data, message.last_event_id), expected);
            message = next_but_resets(&mut excuses);
        }
    }
    while message.last_event_id != last.to_string() {
        message = next_but_resets(&mut excuses);
    }
    // The streams that stood have missed nothing.
    let id = publisher.publish("a", "later");
    assert_event(&mut stream, id, "later");
}

/// Publishes until something is received; returns the id of the last that was published.
fn publish_until_received(
    publisher: &mut Publisher,
    channel: &str,
    stream: &mut Stream,
) -> EventId {
    eventually("an event arrives", || {
        let id = publisher.publish(channel, "again");
        stream.poll(Duration::from_millis(20));
        let message = stream.take_message().filter(|message| message.event == "message");
        message.map(|_| id)
    })
}

#[test]
fn a_user_who_may_not_read_history_gets_streams_that_are_live() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let rights = "SETUSER sse on >secret resetchannels &* -@all +subscribe +unsubscribe +ping \
                  +hello +auth +client|setname +publish +role";
    let words: Vec<&[u8]> =
        ["ACL"].into_iter().chain(rights.split_whitespace()).map(str::as_bytes).collect();
    assert_eq!(publisher.client.command(&words), Reply::Simple("OK".to_owned()));
    let server = start_at(&redis.url().replace("//", "//sse:secret@"), &[]);
    let mut stream = server.open("/events/a");
    let id = publisher.publish("a", "live");
    assert_eq!(stream.next_message().data, "live");
    let mut returned = resume(&server, "/events/a", id);
    assert_reset(&returned.next_message(), "no-history", &["a"]);
    redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    assert_reset(&stream.next_message(), "link-lost", &["a"]);
    publisher.publish("a", "again");
    assert_eq!(stream.next_message().data, "again");
}

#[test]
fn the_embedded_broker_keeps_events_as_redis_does() {
    let server = Server::start(&["--history", "3", "--workers", "2", "--heartbeat", "1s"]);
    let mut publisher = Publisher::over(server.client(), 3);
    let mut stream = server.open("/events/a");
    let ids = publisher.publish_numbers("a", 0..8);
    assert_numbers(&mut stream, 0, &ids);
    drop(stream);
    let more = publisher.publish_numbers("a", 8..10);
    let all = [ids, more].concat();
    assert_resumable(&server, "/events/a", 6, &all[6..]);
    assert_numbers(&mut server.open("/events/a?last=2"), 8, &all[8..]);
    let mut unknown = resume(&server, "/events/a", "99999999999999-0");
    assert_reset(&unknown.next_message(), "unknown-id", &["a"]);
    server.publish("a", "passing");
    assert_eq!(unknown.next_message().data, "passing");
}
