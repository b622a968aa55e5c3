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

/// All messages up to one with this data, which is left out.
pub(crate) fn until(stream: &mut Stream, data: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = stream.next_message();
        if message.data == data {
            return messages;
        }
        messages.push(message);
    }
}

/// Takes the resets out of what a stream got.
pub(crate) fn split_resets(messages: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    messages.into_iter().partition(|message| message.event == "stream-reset")
}

/// The target of a stream of several channels.
pub(crate) fn target(channels: &[&str]) -> String {
    format!("/events?channel={}", channels.join("&channel="))
}

#[track_caller]
pub(crate) fn assert_no_link_was_lost(server: &Server) {
    assert_eq!(server.metric("corecast_link_losses_total"), 0.0);
}

/// Keeps the events of channels below `kept/` alone.
pub(crate) fn start_beside_plain(url: &str, more: &[&str]) -> Server {
    let options =
        ["--redis", url, "--history", "kept/=1000", "--heartbeat", "1s", "--workers", "2"];
    Server::start(&[&options[..], more].concat())
}

/// A user of this name, with the password `pw` and these rights.
pub(crate) fn add_user(client: &mut Client, name: &str, rights: &[&str]) {
    let words = [&["ACL", "SETUSER", name, "on", ">pw"], rights].concat();
    let words: Vec<&[u8]> = words.into_iter().map(str::as_bytes).collect();
    assert_eq!(client.command(&words), Reply::Simple("OK".to_owned()));
}

/// A user who may do everything, but only with these channels.
pub(crate) fn user_of_channels(redis: &Redis, name: &str, channels: &[&str]) {
    let channels: Vec<String> = channels.iter().map(|channel| format!("&{channel}")).collect();
    let mut rights = vec!["resetchannels", "~*", "+@all"];
    rights.extend(channels.iter().map(String::as_str));
    add_user(&mut redis.client(), name, &rights);
}

pub(crate) fn url_of(user: &str, url: &str) -> String {
    url.replace("//", &format!("//{user}:pw@"))
}

/// Ends what links there are, all at once.
pub(crate) fn kill_links(redis: &Redis) {
    redis.client().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
}

/// Opens a stream on each worker, most likely.
pub(crate) fn open_some(server: &Server, target: &str) -> Vec<Stream> {
    (0..6).map(|_| server.open(target)).collect()
}

/// A user who may neither load nor call functions nor scripts.
pub(crate) fn plain_user(redis: &Redis) -> String {
    let taken = "-fcall -fcall_ro -function -eval -eval_ro -evalsha -evalsha_ro -script";
    let rights: Vec<&str> = ["~*", "&*", "+@all"].into_iter().chain(taken.split(' ')).collect();
    add_user(&mut redis.client(), "plain", &rights);
    url_of("plain", &redis.url())
}
