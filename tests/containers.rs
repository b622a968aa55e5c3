//! What containers refuse: io_uring, private descriptor tables, descriptors. The server runs all
//! the same, and says what it had to do without.
#![cfg(test)]

mod support;

use support::clients::plain_python;
use support::clock::eventually;
use support::process::Process;
use support::server::{Server, command};
use support::stream::Stream;

/// The words of a command line that refuse these system calls to what follows them.
fn refusing(calls: &[&str]) -> Vec<String> {
    let mut words = plain_python("refuse.py").to_vec();
    words.extend(calls.iter().map(|&call| call.to_owned()));
    words.push("--".to_owned());
    words
}

fn start_refusing(calls: &[&str], options: &[&str]) -> Server {
    let words = refusing(calls);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Server::start_under(&words, options)
}

/// Everything the server has said by now, in lower case.
fn said(server: &Server) -> String {
    server.process().transcript().to_lowercase()
}

#[track_caller]
fn assert_serves(server: &Server) {
    let mut streams: Vec<Stream> = (0..20).map(|_| server.open("/events/a")).collect();
    server.publish("a", "hello");
    for stream in &mut streams {
        assert_eq!(stream.next_message().data, "hello");
    }
}

#[test]
fn without_io_uring_the_server_runs_on_epoll_and_says_so_once() {
    let server = start_refusing(&["io_uring_setup"], &["--driver", "auto", "--workers", "2"]);
    assert_serves(&server);
    assert!(server.banner_line(&["epoll"]).is_some(), "{}", said(&server));
    let warnings = server.process().errors.rest();
    let about = |line: &&String| line.contains("io_uring");
    assert_eq!(warnings.iter().filter(about).count(), 1, "{warnings:?}");
}

#[test]
fn without_io_uring_a_server_that_must_use_it_does_not_start() {
    let words = refusing(&["io_uring_setup"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let process = Process::start(&mut command(&words, &["--driver", "uring"]));
    assert_eq!(process.wait().code(), Some(1), "{}", process.transcript());
    assert!(process.errors.rest().join("\n").contains("io_uring"), "{}", process.transcript());
}

#[test]
fn without_private_descriptor_tables_the_workers_share_one_and_say_so() {
    let server = start_refusing(&["unshare", "close_range"], &["--workers", "2"]);
    assert_serves(&server);
    assert!(said(&server).contains("shared"), "{}", said(&server));
}

#[test]
fn worker_that_dies_on_a_shared_descriptor_table_closes_its_streams_too() {
    if !cfg!(debug_assertions) {
        return;
    }
    let mut words = refusing(&["unshare", "close_range"]);
    words.extend(["env", "CORECAST_TEST_PANIC=1"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let server = Server::start_under(&words, &["--workers", "1"]);
    let mut streams: Vec<Stream> = (0..20).map(|_| server.open("/events/a")).collect();
    server.publish("corecast:test:panic", "0");
    streams.iter_mut().for_each(Stream::wait_end);
    eventually("its end is noticed", || {
        (server.metric("corecast_worker_restarts_total") == 1.0).then_some(())
    });
    server.wait_ready();
    assert_serves(&server);
}

#[test]
fn one_way_to_a_private_descriptor_table_is_enough() {
    for refused in ["unshare", "close_range"] {
        let server = start_refusing(&[refused], &["--workers", "2"]);
        assert_serves(&server);
        assert!(!said(&server).contains("shared"), "{}", said(&server));
    }
}

#[test]
fn without_any_of_it_the_server_still_serves() {
    let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register", "unshare", "close_range"];
    let server = start_refusing(&calls, &["--driver", "auto", "--workers", "2"]);
    assert_serves(&server);
}

#[test]
fn with_few_descriptors_streams_beyond_them_are_turned_away() {
    let server = Server::start_under(&["prlimit", "--nofile=256:256"], &["--workers", "1"]);
    let mut served = Vec::new();
    let mut turned_away = 0;
    for _ in 0..256 {
        let mut stream = server.open("/events/a");
        // Only a stream that is turned away begins with a comment.
        let start = stream.read_until(|text| text.ends_with("\n\n"));
        if start.lines().any(|line| line.starts_with(':')) {
            stream.wait_end();
            turned_away += 1;
        } else {
            served.push(stream);
        }
    }
    assert!(served.len() >= 64, "only {} streams", served.len());
    assert!(turned_away > 0, "{} streams with 256 descriptors", served.len());
    server.publish("a", "hello");
    for stream in &mut served {
        assert_eq!(stream.next_message().data, "hello");
    }
}
