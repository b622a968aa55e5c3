//! What the server's own pieces cost, one by one and without a kernel: request heads, routes,
//! pushes from Redis, payload formats, encoding, the table of subscribers, and a fan-out pass.
//!
//! `cargo bench --bench micro [FILTER]`. Before anything is measured, each piece shows by a sum
//! over its results that it does its work.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod support;

use std::io::IoSlice;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use corecast::bytes::event_stream::{self, Event};
use corecast::bytes::format;
use corecast::bytes::http::{self, Cors};
use corecast::bytes::resp::{self, Incoming};
use corecast::bytes::target::{Reserved, Resolved, Routes};
use corecast::ground::config::{Format, HistoryRules, RequestLimits, RouteTemplate};
use corecast::ground::ids::{ChannelId, ConnectionId};
use corecast::state::catch_up::Start;
use corecast::state::counters::{CloseReason, Counters};
use corecast::state::sockets::{Broken, Cold, Sockets, Subscriber};
use corecast::state::streams::{StreamLimits, Streams};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, Divan, black_box};

fn main() {
    support::print_host();
    check_sums();
    let divan = Divan::from_args();
    if support::is_small() { divan.sample_count(1).sample_size(1) } else { divan }.main();
}

/// Every piece once, with what must come of it.
fn check_sums() {
    let routed: usize = TARGETS.iter().map(|target| resolve(&routes(), target)).sum();
    let (mut table, channel) = subscribed(1000);
    let passed = fan_out(&mut table, channel, &Rc::from(&b"data: x\n\n"[..]));
    let (mut empty, channel) = subscribed(0);
    let decoded: usize = FORMATS.iter().map(|name| decode(name, &payload(name))).sum();
    for (piece, sum, expected) in [
        ("request head", parse_head(HEAD), HEAD.len()),
        ("routes", routed, "news".len() + "course-state/42".len() + "a".len() + "b".len()),
        ("pushes", parse_pushes(&pushes()), PUSHES * PAYLOAD_BYTES),
        // Text, which is the same in all formats.
        ("formats", decoded, FORMATS.len() * TEXT.len()),
        ("encoding, a line", encode(TEXT).len(), "data: \n\n".len() + TEXT.len()),
        ("encoding, 3 lines", encode("a\nb\r\nc").len(), 3 * "data: x\n".len() + 1),
        ("subscribe and close", subscribe_and_close(&mut empty, &[b"news"], channel), 0),
        ("fan-out", passed, 1000 * "data: x\n\n".len()),
    ] {
        println!("sum of {piece}: {sum}");
        assert_eq!(sum, expected, "{piece}");
    }
}

/// As a browser sends it.
const HEAD: &[u8] = b"GET /events/orders%2F42?lastEventId=7 HTTP/1.1\r\n\
    Host: stream.example.org\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Cache-Control: no-cache\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\nReferer: https://www.example.org/orders\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const TARGETS: [&str; 3] =
    ["/events/news", "/course-state-stream/42/", "/events?channel=a&channel=b"];

const TEXT: &str = "the quick brown fox jumps over the lazy dog";
const PAYLOAD_BYTES: usize = 200;
const PUSHES: usize = 100;

#[divan::bench]
fn request_head(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::new(HEAD.len())).bench(|| parse_head(black_box(HEAD)));
}

fn parse_head(head: &[u8]) -> usize {
    match http::parse_head(head, 8192).unwrap() {
        http::Parsed::Complete { consumed, .. } => consumed,
        http::Parsed::Partial => 0,
    }
}

#[divan::bench]
fn response_head(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| Vec::with_capacity(512)).bench_local_refs(|out| {
        http::stream_head(black_box(Cors::default()), out);
        out.len()
    });
}

#[divan::bench(args = TARGETS)]
fn route(bencher: Bencher<'_, '_>, target: &str) {
    let routes = routes();
    bencher.bench_local(|| resolve(&routes, black_box(target)));
}

fn routes() -> Routes {
    let limits = RequestLimits { head_bytes: 8192, channels: 32, channel_bytes: 256 };
    let template = |path: &str, channel: &str| RouteTemplate {
        path: path.to_owned(),
        channel: channel.to_owned(),
    };
    let templates = [
        template("/events/{*channel}", "{channel}"),
        template("/events", "{?channel}"),
        template("/course-state-stream/{ext}/", "course-state/{ext}"),
        template("/stream", "{?channel=sse}"),
    ];
    Routes::new(&templates, limits, Reserved::new(&[], b"")).unwrap()
}

/// Bytes of the channels that a target asks for.
fn resolve(routes: &Routes, target: &str) -> usize {
    match routes.resolve(target.as_bytes()) {
        Resolved::Stream(request) => request.channels.iter().map(Vec::len).sum(),
        Resolved::NotFound | Resolved::Bad(_) => 0,
    }
}

#[divan::bench]
fn push_from_redis(bencher: Bencher<'_, '_>) {
    let input = pushes();
    bencher.counter(ItemsCount::new(PUSHES)).bench_local(|| parse_pushes(black_box(&input)));
}

fn pushes() -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..PUSHES {
        input.extend_from_slice(b">3\r\n");
        for part in [&b"message"[..], b"course-state/42", &[b'x'; PAYLOAD_BYTES]] {
            resp::encode_bulk(part, &mut input);
        }
    }
    input
}

/// Bytes of the payloads.
fn parse_pushes(mut input: &[u8]) -> usize {
    let mut payloads = 0;
    while let resp::Parsed::Complete { incoming, consumed } = resp::parse(input, 1 << 20).unwrap() {
        if let Incoming::Message { payload, .. } = incoming {
            payloads += payload.len();
        }
        input = input.get(consumed..).unwrap_or_default();
        if input.is_empty() {
            break;
        }
    }
    payloads
}

const FORMATS: [&str; 7] =
    ["raw", "json", "django-sse", "flask-sse", "django-eventstream", "laravel", "anycable"];

#[divan::bench(args = FORMATS)]
fn decode_format(bencher: Bencher<'_, '_>, name: &str) {
    let payload = payload(name);
    bencher.bench_local(|| decode(name, black_box(&payload)));
}

fn payload(name: &str) -> String {
    let object = |members: &str| format!("{{{members}, \"data\": \"{TEXT}\"}}");
    match name {
        "raw" => TEXT.to_owned(),
        "json" => object("\"event\": \"state\", \"id\": \"7\""),
        "django-sse" => format!("[\"state\", \"{TEXT}\"]"),
        "flask-sse" => object("\"type\": \"state\", \"id\": \"7\""),
        "django-eventstream" => object("\"channel\": \"a\", \"event_type\": \"state\""),
        "laravel" => object("\"event\": \"state\", \"socket\": null"),
        _ => object("\"stream\": \"a\""),
    }
}

/// Bytes of the event's data.
fn decode(name: &str, payload: &str) -> usize {
    let format = match name {
        "raw" => Format::Raw,
        "json" => Format::Json,
        "django-sse" => Format::DjangoSse,
        "flask-sse" => Format::FlaskSse,
        "django-eventstream" => Format::DjangoEventstream,
        "laravel" => Format::Laravel,
        _ => Format::Anycable,
    };
    format::decode(format, payload.as_bytes()).unwrap().event.data.len()
}

#[divan::bench(args = [40, 200, 4000])]
fn encode_one_line(bencher: Bencher<'_, '_>, bytes: usize) {
    let data = "x".repeat(bytes);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| encode(black_box(&data)));
}

#[divan::bench(args = [2, 20])]
fn encode_lines(bencher: Bencher<'_, '_>, lines: usize) {
    let data = vec![TEXT; lines].join("\n");
    bencher.counter(BytesCount::new(data.len())).bench_local(|| encode(black_box(&data)));
}

fn encode(data: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let event = Event { data: data.as_bytes().into(), ..Event::default() };
    event_stream::encode(&event, &mut out);
    out
}

const LIMITS: StreamLimits = StreamLimits {
    max_pending_bytes: 64 * 1024,
    max_intake_bytes: 64 * 1024 * 1024,
    heartbeat_ticks: 150,
    linger_ticks: 300,
    coalesce_ms: 0,
};

/// Sockets that take everything at once.
#[derive(Default)]
struct FakeSockets {
    sent_bytes: usize,
}

impl Sockets for FakeSockets {
    fn send_to_all(&mut self, subscribers: &[Subscriber], bytes: &[u8], _: &mut Vec<Cold>) {
        for subscriber in subscribers {
            if !subscriber.is_rare() {
                // A call could not be left out either.
                black_box(subscriber.fd);
                self.sent_bytes += bytes.len();
            }
        }
    }

    fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Result<usize, Broken> {
        black_box(fd);
        self.sent_bytes += bytes.len();
        Ok(bytes.len())
    }

    fn send_vectored(&mut self, fd: RawFd, buffers: &[IoSlice<'_>]) -> Result<usize, Broken> {
        buffers.iter().map(|buffer| self.send(fd, buffer)).sum()
    }

    fn close(&mut self, fd: RawFd, _peer_lives: bool) {
        black_box(fd);
    }
}

struct Table {
    streams: Streams,
    sockets: FakeSockets,
}

/// A table in which so many streams have one channel, which stands.
fn subscribed(count: usize) -> (Table, ChannelId) {
    let mut streams =
        Streams::new(LIMITS, b"", HistoryRules::default(), 1, Arc::new(Counters::default()));
    streams.link_up();
    let channel = streams.hold(b"news");
    streams.next_asks(1);
    streams.acknowledge(channel);
    let mut table = Table { streams, sockets: FakeSockets::default() };
    for _ in 0..count {
        open(&mut table, &[b"news"]);
    }
    (table, channel)
}

fn open(table: &mut Table, channels: &[&[u8]]) -> ConnectionId {
    let id = table.streams.add(1);
    let head = b"head\n".to_vec();
    table.streams.request(id, channels, Start::Now, head, 2000, &mut table.sockets);
    id
}

#[divan::bench(args = [0, 10_000])]
fn stream_comes_and_goes(bencher: Bencher<'_, '_>, beside: usize) {
    let (mut table, channel) = subscribed(beside);
    bencher.bench_local(|| subscribe_and_close(&mut table, &[b"news"], channel));
}

/// Streams of the channel that are there after one has come and gone, as far as can be told.
fn subscribe_and_close(table: &mut Table, channels: &[&[u8]], channel: ChannelId) -> usize {
    let id = open(table, black_box(channels));
    assert!(table.streams.has_streams(channel));
    table.streams.close(id, CloseReason::PeerClosed, &mut table.sockets);
    table.streams.connections()
}

#[divan::bench(args = [100, 10_000])]
fn fan_out_pass(bencher: Bencher<'_, '_>, streams: usize) {
    let (mut table, channel) = subscribed(streams);
    let event: Rc<[u8]> = Rc::from(encode(&"x".repeat(PAYLOAD_BYTES)));
    let counted = bencher.counter(ItemsCount::new(streams));
    counted.bench_local(|| fan_out(&mut table, channel, black_box(&event)));
}

/// Bytes that one event takes on all sockets.
fn fan_out(table: &mut Table, channel: ChannelId, event: &Rc<[u8]>) -> usize {
    let before = table.sockets.sent_bytes;
    table.streams.publish(channel, event);
    while table.streams.slice(256, &mut table.sockets) {}
    table.sockets.sent_bytes - before
}

#[divan::bench]
fn channel_is_found(bencher: Bencher<'_, '_>) {
    let mut streams =
        Streams::new(LIMITS, b"", HistoryRules::default(), 1, Arc::new(Counters::default()));
    let names: Vec<String> = (0..10_000).map(|number| format!("orders/{number}")).collect();
    for name in &names {
        streams.hold(name.as_bytes());
    }
    let counted = bencher.counter(ItemsCount::new(names.len()));
    counted.bench_local(|| {
        let found = |name: &&String| streams.find(black_box(name.as_bytes())).is_some();
        names.iter().filter(found).count()
    });
}
