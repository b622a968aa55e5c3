//! Streams that come back to their history, and what they must find.

use corecast::bytes::history::EventId;
use serde_json::Value;

use super::event_source::Message;
use super::redis::{Client, Redis, Reply};
use super::server::Server;
use super::stream::Stream;

/// Everything is kept; ids arrive soon.
const HISTORY: [&str; 6] = ["--history", "1000", "--heartbeat", "1s", "--workers", "2"];

pub(crate) fn start(redis: &Redis, more: &[&str]) -> Server {
    start_at(&redis.url(), more)
}

pub(crate) fn start_at(url: &str, more: &[&str]) -> Server {
    Server::start(&[&["--redis", url], &HISTORY[..], more].concat())
}

/// A client that comes back with the id of its last event.
pub(crate) fn resume(server: &Server, target: &str, id: impl ToString) -> Stream {
    Stream::open_with(server.listener(), target, &[("Last-Event-ID", &id.to_string())])
}

pub(crate) fn config(client: &mut Client, name: &str, value: &str) {
    let reply = client.command(&[b"CONFIG", b"SET", name.as_bytes(), value.as_bytes()]);
    assert_eq!(reply, Reply::Simple("OK".to_owned()));
}

/// The next event of the stream is this one, with its id.
#[track_caller]
pub(crate) fn assert_event(stream: &mut Stream, id: EventId, data: &str) {
    let message = stream.next_message();
    let found = (&*message.event, &*message.data, &*message.last_event_id);
    assert_eq!(found, ("message", data, &*id.to_string()));
}

/// What the stream gets next are numbers from `first` on, with these ids.
#[track_caller]
pub(crate) fn assert_numbers(stream: &mut Stream, first: u32, ids: &[EventId]) {
    for (number, id) in (first..).zip(ids) {
        assert_event(stream, *id, &number.to_string());
    }
}

#[track_caller]
pub(crate) fn assert_reset(message: &Message, reason: &str, channels: &[&str]) {
    assert_eq!(message.event, "stream-reset", "{message:?}");
    let data: Value = serde_json::from_str(&message.data).unwrap();
    assert_eq!(data["reason"], reason, "{message:?}");
    assert_eq!(data["channels"], Value::from(channels), "{message:?}");
}
