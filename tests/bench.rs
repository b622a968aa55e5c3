//! `corecast bench`, against the server and against a fake that makes the mistakes it is to notice.
#![cfg(test)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::Value;
use support::process::Process;
use support::server::Server;

/// What a run has come to.
struct Outcome {
    code: i32,
    report: Value,
    errors: String,
}

fn bench(arguments: &[&str]) -> Outcome {
    outcome(&start(arguments))
}

fn start(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    Process::start(command.arg("bench").args(arguments).args(["--json"]))
}

fn outcome(process: &Process) -> Outcome {
    let code = process.wait().code().unwrap();
    let errors = process.errors.rest().join("\n");
    let output = process.output.rest().join("\n");
    let report = serde_json::from_str(&output).unwrap_or(Value::Null);
    Outcome { code, report, errors }
}

/// A run against the server: its streams, and publishing through its broker.
fn bench_server(server: &Server, path: &str, arguments: &[&str]) -> Outcome {
    outcome(&start_bench_of(server, path, arguments))
}

fn start_bench_of(server: &Server, path: &str, arguments: &[&str]) -> Process {
    let url = format!("http://{}{path}", server.listener().tcp());
    let redis = format!("redis://{}", server.broker.tcp());
    let pid = server.process().pid().to_string();
    let own = [url.as_str(), "--redis", &redis, "--server-pid", &pid, "--idle", "100ms"];
    start(&[&own, arguments].concat())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_server_that_loses_nothing_passes_and_the_figures_agree() {
    let server = Server::start(&["--workers", "2"]);
    let outcome = bench_server(
        &server,
        "/events/bench",
        &["--streams", "200", "--messages", "50", "--rate", "100", "--burst", "5"],
    );
    let report = &outcome.report;
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(report["ok"], true);
    assert_eq!(report["streams"]["opened"], 200);
    assert_eq!(report["streams"]["failed"], 0);
    for (figure, expected) in
        [("expected", 10_000), ("received", 10_000), ("lost", 0), ("duplicated", 0)]
    {
        assert_eq!(report["deliveries"][figure], expected, "{figure}");
    }
    let latency = &report["latency_ms"];
    let quantiles = ["p50", "p90", "p99", "p99.9", "max"].map(|name| number(&latency[name]));
    assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{latency}");
    let last = &report["last_stream_ms"];
    assert!(number(&last["median"]) <= number(&last["max"]), "{last}");
    assert!((number(&last["max"]) - quantiles[4]).abs() <= quantiles[4] / 500.0, "{report}");
    let seconds = number(&report["messages"]["seconds"]);
    assert!((0.45..20.0).contains(&seconds), "ten bursts, 50 ms apart, took {seconds} s");
    assert!(number(&report["deliveries"]["per_second"]) < 10_000.0 / 0.45);
    assert!(number(&report["server"]["resident_bytes"]["idle"]) > 1e6);
}

#[test]
fn channels_share_streams_and_messages() {
    let server = Server::start(&["--workers", "2"]);
    let options = ["--streams", "30", "--channels", "7", "--messages", "50", "--rate", "max"];
    let outcome = bench_server(&server, "/events/bench-{n}", &options);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    // Messages 0 and 7 and so on go to channel 0, which has streams 0, 7, 14, 21 and 28.
    let streams = |channel| (0..30).filter(|stream| stream % 7 == channel).count();
    let expected: usize = (0..50).map(|message| streams(message % 7)).sum();
    assert_eq!(outcome.report["deliveries"]["received"], expected);
}

#[test]
fn streams_listen_to_what_another_bench_publishes() {
    let server = Server::start(&["--workers", "1"]);
    let options = ["--streams", "20", "--listen-only", "3s"];
    let listening = start_bench_of(&server, "/events/bench", &options);
    support::clock::eventually("the streams are open", || {
        (server.metric("corecast_connections ") >= 20.0).then_some(())
    });
    let options = ["--streams", "0", "--messages", "10", "--rate", "1000"];
    let publishing = bench_server(&server, "/events/bench", &options);
    assert_eq!(publishing.code, 0, "{}", publishing.errors);
    let listening = outcome(&listening);
    assert_eq!(listening.code, 0, "{}", listening.errors);
    assert_eq!(listening.report["deliveries"]["received"], 200);
    assert_eq!(listening.report["deliveries"]["foreign"], 0);
}

#[test]
fn the_floor_takes_the_same_load() {
    let server = Server::start(&["--workers", "2"]);
    let url = format!("http://{}/events/bench", server.listener().tcp());
    let broker = server.broker.tcp().to_string();
    // The floor has a broker of its own, or uses the Redis that is named.
    check_comparison(&[&url, "--broker-listen", &broker]);
    check_comparison(&[&url, "--redis", &format!("redis://{broker}")]);
}

#[track_caller]
fn check_comparison(subject: &[&str]) {
    let options = ["--streams", "50", "--messages", "10", "--burst", "5", "--rate", "50"];
    let comparison = ["--compare-floor", "2", "--floor-workers", "2", "--idle", "10ms"];
    let outcome = bench(&[subject, &options, &comparison].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(outcome.report["rounds"], 2);
    for side in ["server", "floor"] {
        let rounds = outcome.report[side].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            assert_eq!(round["deliveries"]["received"], 500, "{side}");
        }
    }
    let figures = outcome.report["figures"].as_array().unwrap();
    let p50 = figures.iter().find(|figure| figure["name"] == "latency p50").unwrap();
    let ratio = ["low", "median", "high"].map(|name| number(&p50["ratio"][name]));
    assert!(ratio.is_sorted() && ratio[0] > 0.0, "{p50}");
}

#[test]
fn lost_messages_are_named_and_fail_the_run() {
    let fake = Fake::new(|stream, message| usize::from((stream, message) != (3, 7)));
    let outcome = fake.bench(&[]);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.report["deliveries"]["lost"], 1);
    assert_eq!(outcome.report["deliveries"]["received"], 99);
    let line = "1 message lost by 1 stream: stream 3 lost 1 from message 7 on";
    assert!(outcome.errors.contains(line), "{}", outcome.errors);
    assert_eq!(fake.bench(&["--allow-loss"]).code, 0);
}

#[test]
fn the_end_of_a_stream_is_missed() {
    let fake = Fake::new(|stream, message| usize::from(stream != 4 || message < 6));
    let outcome = fake.bench(&[]);
    assert_eq!(outcome.code, 1);
    let line = "4 messages lost by 1 stream: stream 4 lost 4 from message 6 on";
    assert!(outcome.errors.contains(line), "{}", outcome.errors);
}

#[test]
fn messages_that_come_again_fail_the_run() {
    let fake = Fake::new(|stream, message| 1 + usize::from((stream, message) == (9, 9)));
    let outcome = fake.bench(&[]);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.report["deliveries"]["duplicated"], 1);
    assert_eq!(outcome.report["deliveries"]["lost"], 0);
    assert!(outcome.errors.contains("1 message received again"), "{}", outcome.errors);
}

#[test]
fn messages_may_be_wrapped_and_posted_ahead_of_answers() {
    let fake = Fake { answered_at_once: 5, ..Fake::new(|_, _| 1) };
    let body = "another line\ndata: {message}";
    let outcome = fake.bench(&["--publish-body", body, "--publish-ahead", "5"]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(outcome.report["deliveries"]["received"], 100);
    assert_eq!(outcome.report["deliveries"]["foreign"], 100);
}

#[test]
fn a_server_that_refuses_or_is_not_there_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let refusing = thread::spawn(move || {
        for socket in listener.incoming().take(STREAMS) {
            let mut socket = socket.unwrap();
            read_head(&mut socket);
            socket.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let arguments = [url.as_str(), "--streams", "10", "--listen-only", "1ms"];
    let outcome = bench(&arguments);
    refusing.join().unwrap();
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.report["streams"]["failures"]["status 503"], 10);
    // The listener is gone.
    let outcome = bench(&arguments);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.report["streams"]["failed"], 10);
    assert!(outcome.errors.contains("10 streams did not open: Connection refused"));
}

#[test]
fn misuse_is_answered_in_one_line() {
    let url = "http://127.0.0.1:1/events/a";
    for (arguments, expected) in [
        (&["https://h/"][..], "https is not supported"),
        (&[url, "--channels", "2"], "--channels \"2\": expected {n} in the URL"),
        (&[url, "--rate", "0"], "expected messages per second"),
        (&[url, "--publishers", "2"], "--publishers \"2\": expected at most 1"),
        (&[url, "--keep", "2"], "required arguments were not provided: --server-pid"),
        (&["http://127.0.0.1:1/a"], "--channel: expected the channel that the URL streams"),
        (&["http://h/events/{n}", "--compare-floor", "1"], "expected a URL without {n}"),
        (&["http://h/events/{n}", "--channel", "a"], "--channel: expected {n} in it"),
        (&[url, "--publish-body", "a"], "expected {message} in it"),
    ] {
        let outcome = bench(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.errors.starts_with("corecast: "), "{}", outcome.errors);
        assert!(outcome.errors.contains(expected), "{}", outcome.errors);
        assert_eq!(outcome.errors.lines().count(), 1, "{}", outcome.errors);
    }
}

#[test]
fn who_cannot_publish_is_told_at_once() {
    let server = Server::start(&["--workers", "1"]);
    let url = format!("http://{}/events/a", server.listener().tcp());
    let start = support::clock::now();
    let outcome = bench(&[&url, "--streams", "3", "--redis", "redis://127.0.0.1:1"]);
    assert_eq!(outcome.code, 1);
    let line = "corecast: cannot publish at 127.0.0.1:1: Connection refused";
    assert!(outcome.errors.starts_with(line), "{}", outcome.errors);
    assert_eq!(outcome.errors.lines().count(), 1, "{}", outcome.errors);
    assert!(start.elapsed() < std::time::Duration::from_secs(9), "it waited for messages");
}

#[test]
fn losses_that_a_stream_reset_tells_are_counted_apart() {
    let fake = Fake {
        deliver: |stream, message| usize::from(!matches!((stream, message), (3, 7) | (5, 2..=4))),
        resets: |stream, message| stream == 5 && message == 4,
        answered_at_once: 1,
    };
    let outcome = fake.bench(&["--allow-told-loss"]);
    assert_eq!(outcome.code, 1, "stream 3 was not told");
    let deliveries = &outcome.report["deliveries"];
    assert_eq!((&deliveries["lost"], &deliveries["losers"]), (&1.into(), &1.into()));
    assert_eq!((&deliveries["told"], &deliveries["told_losers"]), (&3.into(), &1.into()));
    assert_eq!(deliveries["reset_reasons"]["overload"], 1);
    let told = Fake {
        deliver: |stream, message| usize::from(stream != 5 || message < 8),
        resets: |stream, message| stream == 5 && message == 8,
        answered_at_once: 1,
    };
    let outcome = told.bench(&["--allow-told-loss"]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let line = "2 messages lost, and 1 stream told so by a stream-reset";
    assert!(outcome.errors.contains(line), "{}", outcome.errors);
    assert_eq!(told.bench(&[]).code, 1);
}

#[test]
fn channels_are_drawn_over_several_connections_and_closed_in_the_end() {
    let server = Server::start(&["--workers", "2"]);
    let options = ["--streams", "40", "--messages", "900", "--rate", "max", "--order", "random"];
    let more = ["--publishers", "3", "--closing-after", "10ms"];
    let outcome = bench_server(&server, "/events/c{nnn}", &[&options[..], &more].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(outcome.report["deliveries"]["received"], 940);
    assert_eq!(outcome.report["closing"]["received"], 40);
}

#[test]
fn streams_come_back_to_the_history_of_an_earlier_bench() {
    let server = Server::start(&["--workers", "2", "--history", "20"]);
    let path = "/events/past-{n}";
    let common = ["--channels", "4", "--history", "20"];
    let resume = ["--streams", "100", "--resume"];
    let outcome = bench_server(&server, path, &[&common[..], &resume].concat());
    assert_eq!(outcome.code, 1);
    assert!(outcome.errors.contains("past-0: nothing is kept there"), "{}", outcome.errors);

    let publish = ["--streams", "0", "--messages", "200", "--rate", "max"];
    let outcome = bench_server(&server, path, &[&common[..], &publish].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let outcome = bench_server(&server, path, &[&common[..], &resume].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let report = &outcome.report;
    let missed = number(&report["resumption"]["events"]);
    assert!((500.0..1400.0).contains(&missed), "100 streams had 0 to 19 to get: {report}");
    // And one live event each.
    assert_eq!(number(&report["deliveries"]["received"]), missed + 100.0);
    assert_eq!(report["closing"]["received"], 100);
    assert_eq!(report["deliveries"]["resets"], 0);
}

#[test]
fn streams_of_several_channels_get_the_messages_of_each_and_come_back_to_all() {
    let server = Server::start(&["--workers", "2", "--history", "20"]);
    let path = "/events?channel=past-{n}";
    let common = ["--channels", "4", "--history", "20", "--channels-per-stream", "3"];
    let fresh = ["--streams", "40", "--messages", "80", "--rate", "max", "--closing-after", "0"];
    let outcome = bench_server(&server, path, &[&common[..], &fresh].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(outcome.report["deliveries"]["received"], 40 * 3 * (20 + 1));
    let resume = ["--streams", "100", "--resume"];
    let outcome = bench_server(&server, path, &[&common[..], &resume].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let report = &outcome.report;
    let missed = number(&report["resumption"]["events"]);
    assert!((500.0..1400.0).contains(&missed), "100 streams had 0 to 19 to get: {report}");
    assert_eq!(number(&report["deliveries"]["received"]), missed + 300.0);
    assert_eq!(report["closing"]["received"], 300);
    assert_eq!(report["deliveries"]["resets"], 0);
}

#[test]
fn streams_leave_in_the_end_and_the_server_stops() {
    let server = Server::start(&["--workers", "2", "--drain-time", "200ms"]);
    let options = ["--streams", "60", "--messages", "2", "--settle", "10ms", "--keep", "20"];
    let outcome =
        bench_server(&server, "/events/a", &[&options[..], &["--stop-server", "20s"]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(outcome.report["streams"]["dismissed"], 20);
    assert_eq!(outcome.report["streams"]["ended"], 0);
    let server_report = &outcome.report["server"];
    assert!(number(&server_report["drain_seconds"]) > 0.0);
    let bytes = &server_report["resident_bytes"];
    for moment in ["settled", "kept"] {
        assert!(number(&bytes[moment]) <= number(&bytes["peak"]) * 1.1, "{bytes}");
    }
    assert!(server.process().wait().success());
}

const STREAMS: usize = 10;
const MESSAGES: usize = 10;

/// A server for one test, which takes its streams first and then what is posted for them.
#[derive(Clone, Copy)]
struct Fake {
    /// How often a stream gets a message.
    deliver: fn(usize, usize) -> usize,
    /// Whether a stream is told of a loss in the place of a message, or before it.
    resets: fn(usize, usize) -> bool,
    /// Messages that it wants to have read before it answers.
    answered_at_once: usize,
}

impl Fake {
    fn new(deliver: fn(usize, usize) -> usize) -> Self {
        Self { deliver, resets: |_, _| false, answered_at_once: 1 }
    }

    fn bench(&self, arguments: &[&str]) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fake = *self;
        let server = thread::spawn(move || fake.serve(&listener));
        let outcome = bench_fake(address, arguments);
        server.join().unwrap();
        outcome
    }

    fn serve(self, listener: &TcpListener) {
        let mut streams: Vec<TcpStream> = Vec::new();
        while streams.len() < STREAMS {
            let mut socket = listener.accept().unwrap().0;
            assert!(read_head(&mut socket).starts_with("GET /sub "));
            socket
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                      Transfer-Encoding: chunked\r\n\r\n",
                )
                .unwrap();
            streams.push(socket);
        }
        let mut publisher = listener.accept().unwrap().0;
        for message in 0..MESSAGES {
            let head = read_head(&mut publisher);
            let length =
                head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            publisher.read_exact(&mut body).unwrap();
            if (message + 1) % self.answered_at_once == 0 {
                let answers = "HTTP/1.1 204 No Content\r\n\r\n".repeat(self.answered_at_once);
                publisher.write_all(answers.as_bytes()).unwrap();
            }
            let chunk = |event: &str| format!("{:x}\r\n{event}\r\n", event.len());
            let reset = chunk("event: stream-reset\ndata: {\"reason\": \"overload\"}\n\n");
            let chunk = chunk(&format!("data: {}\n\n", String::from_utf8(body).unwrap()));
            for (stream, socket) in streams.iter_mut().enumerate() {
                socket
                    .write_all(reset.repeat((self.resets)(stream, message).into()).as_bytes())
                    .unwrap();
                socket.write_all(chunk.repeat((self.deliver)(stream, message)).as_bytes()).unwrap();
            }
        }
        // The streams stay open until the bench has seen enough.
        for mut socket in streams {
            let _ = socket.read(&mut [0]);
        }
    }
}

fn bench_fake(address: SocketAddr, arguments: &[&str]) -> Outcome {
    let (url, publish) = (format!("http://{address}/sub"), format!("http://{address}/pub"));
    let (streams, messages) = (STREAMS.to_string(), MESSAGES.to_string());
    let own = [
        &url,
        "--publish-url",
        &publish,
        "--streams",
        &streams,
        "--messages",
        &messages,
        "--rate",
        "1000",
        "--idle",
        "10ms",
        "--patience",
        "300ms",
        // One thread opens the streams in the order of their numbers.
        "--open-rate",
        "200",
    ];
    bench(&[&own, arguments].concat())
}

/// A request's head, byte by byte: what follows it stays in the socket.
fn read_head(socket: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
