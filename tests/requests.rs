//! Requests as bytes, good and bad, and the answers to them (CONTRACT: RFC 9112, WHATWG Fetch).
#![cfg(test)]

mod support;

use std::time::Duration;

use support::address::Address;
use support::clock::{Deadline, eventually, now};
use support::http::{Connection, Head, Response};
use support::server::Server;
use support::stream::{Stream, request};

/// Sends a whole request and returns the answer, on a connection of its own.
fn ask(server: &Server, request: &str) -> Response {
    let mut connection = Connection::open(server.listener());
    connection.send(request);
    connection.response()
}

/// Asserts an error's status, its line of text, and that nothing else is sent.
#[track_caller]
fn assert_error(response: &Response, status: u16) {
    assert_eq!(response.head.status, status, "{response:?}");
    let content_type = response.head.field("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain"), "{response:?}");
    assert_eq!(response.body.lines().count(), 1, "{response:?}");
    assert!(!response.body.trim().is_empty(), "{response:?}");
}

#[track_caller]
fn assert_stream_head(head: &Head) {
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(head.field("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(head.field("x-accel-buffering"), Some("no"));
    assert_eq!(head.field("connection"), Some("close"));
    assert_eq!(head.field("content-length"), None);
    assert_eq!(head.field("transfer-encoding"), None);
}

#[test]
fn stream_head_is_close_delimited_and_uncached() {
    let server = Server::start(&[]);
    assert_stream_head(&server.open("/events/a").head);
    assert_stream_head(&server.open("/events?channel=a&channel=b").head);
    assert_stream_head(&server.open("/events/?channel=a").head);
}

#[test]
fn head_is_answered_with_the_head_alone() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    connection.send("HEAD /events/a HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = connection.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    if head.field("connection") != Some("close") {
        // Then the connection is kept, and serves the next request.
        connection.send("HEAD /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(connection.response_to_head().head.status, 404);
    }
    assert_eq!(connection.read_to_end(), b"");
}

#[test]
fn other_methods_are_told_which_are_allowed() {
    let server = Server::start(&[]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
        let request =
            format!("{method} /events/a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        let response = ask(&server, &request);
        assert_error(&response, 405);
        let allow = response.head.field("allow").unwrap();
        assert!(["GET", "HEAD", "OPTIONS"].iter().all(|method| allow.contains(method)), "{allow}");
    }
}

#[test]
fn unknown_paths_are_not_found_and_keep_the_connection() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    for target in ["/", "/nowhere", "/event/a", "/metrics"] {
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_error(&connection.response(), 404);
    }
    connection.send(request("/events/a", &[]));
    let mut stream = Stream::of(connection);
    server.publish("a", "still here");
    assert_eq!(stream.next_message().data, "still here");
}

#[test]
fn short_answers_close_where_the_client_asks_for_it() {
    let server = Server::start(&[]);
    for request in [
        "GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /nowhere HTTP/1.0\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.listener());
        connection.send(request);
        assert_error(&connection.response(), 404);
        assert_eq!(connection.read_to_end(), b"");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    connection.send(
        "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n\
         PUT /events/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
         GET /events/a HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    assert_error(&connection.response(), 404);
    assert_error(&connection.response(), 405);
    let mut stream = Stream::of(connection);
    server.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn a_flood_of_pipelined_requests_is_cut_off() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    // The server may close before it has read all of them.
    let _ = connection.try_send("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20_000));
    eventually("the flood is cut off", || {
        (server.metric("corecast_closes_total{reason=\"bad-request\"}") == 1.0).then_some(())
    });
    assert_eq!(server.get("/nowhere").head.status, 404);
}

#[test]
fn what_follows_the_request_of_a_stream_is_ignored() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    connection.send(request("/events/a", &[]) + &request("/events/b", &[]));
    let mut stream = Stream::of(connection);
    server.publish("b", "not for this stream");
    server.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn head_may_come_byte_by_byte() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    for byte in request("/events/course-state%2F42", &[("Cookie", "a=b")]).bytes() {
        connection.send([byte]);
    }
    let mut stream = Stream::of(connection);
    server.publish("course-state/42", "started");
    assert_eq!(stream.next_message().data, "started");
}

#[test]
fn absolute_form_and_http_1_0_are_understood() {
    let server = Server::start(&[]);
    for request in [
        "GET http://example.org/events/a HTTP/1.1\r\nHost: example.org\r\n\r\n",
        "GET /events/a HTTP/1.0\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.listener());
        connection.send(request);
        let mut stream = Stream::of(connection);
        server.publish("a", "hello");
        assert_eq!(stream.next_message().data, "hello");
    }
}

#[test]
fn bad_heads_are_refused_and_the_connection_closed() {
    let server = Server::start(&[]);
    for request in [
        "GET /events/a HTTP/1.1\r\n\r\n",
        "GET /events/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /events/a HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "GET /events/a HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
        "GET  /events/a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /events/a\r\nHost: h\r\n\r\n",
        "GET /events/a HTTP/2.0\r\nHost: h\r\n\r\n",
        "/events/a\r\n\r\n",
        "PUT /events/a HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        "PUT /events/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.listener());
        connection.send(request);
        let response = connection.response();
        assert!(matches!(response.head.status, 400 | 505), "{request:?}: {response:?}");
        assert_error(&response, response.head.status);
        assert_eq!(connection.read_to_end(), b"", "{request:?}");
    }
}

#[test]
fn answer_to_a_bad_head_is_read_even_by_a_client_that_goes_on_sending() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    connection.send("PUT /events/a HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    // Unread bytes at close(2) would reset the connection, and the answer with it.
    for _ in 0..100 {
        connection.send([b'x'; 1000]);
    }
    assert_error(&connection.response(), 400);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let server = Server::start(&["--max-head-bytes", "2KiB"]);
    let fill = |length: usize| "x".repeat(length);
    for request in [
        format!("GET /events/a HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n", fill(3000)),
        format!("GET /events/a HTTP/1.1\r\nHost: h\r\nCookie: {}", fill(3000)),
        format!("GET /events/{} HTTP/1.1\r\nHost: h\r\n\r\n", fill(3000)),
        "a".repeat(3000),
    ] {
        let mut connection = Connection::open(server.listener());
        connection.send(&request);
        let response = connection.response();
        let status = if request.starts_with("GET") { 431 } else { response.head.status };
        assert_error(&response, status);
        assert!(matches!(response.head.status, 400 | 431), "{response:?}");
        assert_eq!(connection.read_to_end(), b"");
    }
    let fits = format!("GET /nowhere HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n", fill(1900));
    assert_error(&ask(&server, &fits), 404);
}

#[test]
fn heads_that_are_too_slow_time_out() {
    let server = Server::start(&["--head-timeout", "300ms"]);
    let mut connection = Connection::open(server.listener());
    let start = now();
    connection.send("GET /events/a HTTP/1.1\r\n");
    let response = connection.response();
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_error(&response, 408);
    assert_eq!(connection.read_to_end(), b"");
}

#[test]
fn connections_end_for_one_reason_each() {
    let server = Server::start(&["--head-timeout", "300ms"]);
    for request in [
        "bad\r\n\r\n",
        "GET /events/late HTTP/1.1\r\n",
        "GET /nowhere HTTP/1.0\r\n\r\n",
        "HEAD /events/a HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.listener());
        connection.send(request);
        connection.read_to_end();
    }
    eventually("all are closed", || (server.metric("corecast_connections ") == 0.0).then_some(()));
    let closed = |reason| server.metric(&format!("corecast_closes_total{{reason=\"{reason}\"}}"));
    assert_eq!(
        [closed("bad-request"), closed("head-timeout"), closed("answered")],
        [1.0, 1.0, 2.0]
    );
    assert_eq!(server.metric("corecast_closes_total"), 4.0);
}

#[test]
fn connections_that_never_sent_a_byte_are_closed_without_an_answer() {
    let server = Server::start(&["--head-timeout", "300ms"]);
    let mut silent = Connection::open(server.listener());
    assert_eq!(silent.read_to_end(), b"");

    // The same holds for a kept connection that sends no second request.
    let mut kept = Connection::open(server.listener());
    kept.send("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_error(&kept.response(), 404);
    assert_eq!(kept.read_to_end(), b"");
}

#[test]
fn channels_that_cannot_be_are_refused() {
    let server =
        Server::start(&["--max-channel-bytes", "16", "--max-channels-per-connection", "3"]);
    for target in [
        "/events?channel=",
        "/events",
        "/events/",
        "/events?channel=12345678901234567",
        "/events?channel=a&channel=b&channel=c&channel=d",
        "/events/%zz",
        "/events/a%0Ab",
        "/events/__anycable__",
        "/events/corecast:control",
        "/events?channel=a&channel=corecast:probe:0",
    ] {
        let response = ask(&server, &request(target, &[]));
        assert_error(&response, 400);
    }
    server.open("/events?channel=a&channel=b&channel=a&channel=c");
    server.open("/events?channel=1234567890123456");
}

#[test]
fn channels_subscribed_ahead_are_not_for_clients() {
    let server = Server::start(&["--subscribe-ahead", "events_channel"]);
    assert_error(&ask(&server, &request("/events/events_channel", &[])), 400);
}

#[test]
fn route_with_a_slash_inside_a_segment_is_refused() {
    let server = Server::start(&["--route", "/course-state-stream/{ext}/=course-state/{ext}"]);
    assert_error(&ask(&server, &request("/course-state-stream/a%2Fb/", &[])), 400);
    assert_error(&ask(&server, &request("/events/a", &[])), 404);
    let mut stream = server.open("/course-state-stream/4%202/?ignored=1");
    server.publish("course-state/4 2", "started");
    assert_eq!(stream.next_message().data, "started");
}

#[test]
fn preflight_names_what_an_allowed_origin_may_do() {
    let server = Server::start(&["--cors-origin", "https://app.example"]);
    let preflight = |origin: &str| {
        ask(
            &server,
            &format!(
                "OPTIONS /events/a HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: GET\r\n\
                 Access-Control-Request-Headers: last-event-id\r\n\r\n"
            ),
        )
        .head
    };
    let allowed = preflight("https://app.example");
    assert!(matches!(allowed.status, 200 | 204), "{allowed:?}");
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://app.example"));
    let methods = allowed.field("access-control-allow-methods").unwrap();
    assert!(methods.contains("GET"), "{methods}");
    let headers = allowed.field("access-control-allow-headers").unwrap();
    assert!(headers.to_ascii_lowercase().contains("last-event-id"), "{headers}");
    assert_eq!(preflight("https://evil.example").field("access-control-allow-origin"), None);
}

#[test]
fn cors_fields_are_on_streams_and_errors_alike() {
    let server = Server::start(&["--cors-origin", "https://app.example"]);
    let origin = [("Origin", "https://app.example")];
    let stream = Stream::open_with(server.listener(), "/events/a", &origin);
    let error = ask(&server, &request("/events?channel=", &origin));
    assert_error(&error, 400);
    for head in [&stream.head, &error.head] {
        assert_eq!(head.field("access-control-allow-origin"), Some("https://app.example"));
        let vary = head.field("vary").unwrap_or_default();
        assert!(vary.to_ascii_lowercase().contains("origin"), "{head:?}");
    }
    let other = [("Origin", "https://evil.example")];
    let stream = Stream::open_with(server.listener(), "/events/a", &other);
    assert_eq!(stream.head.field("access-control-allow-origin"), None);
}

#[test]
fn client_that_ends_its_side_after_the_request_gets_an_answer() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.listener());
    connection.send("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n");
    connection.finish_sending();
    assert_error(&connection.response(), 404);
    assert_eq!(connection.read_to_end(), b"");
}

#[test]
fn unix_listener_serves_what_tcp_serves() {
    let directory = support::clients::scratch("unix-listener");
    let path = directory.join("streams.sock");
    let server = Server::start(&[
        "--workers",
        "2",
        "--listen",
        &format!("unix:{}", path.display()),
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(server.listeners[0], Address::Unix(path.clone()));
    let mut streams: Vec<Stream> =
        (0..20).map(|number| Stream::open(&server.listeners[number % 2], "/events/a")).collect();
    server.publish("a", "hello");
    for stream in &mut streams {
        assert_eq!(stream.next_message().data, "hello");
    }
    assert_error(&support::http::get(&server.listeners[0], "/nowhere"), 404);
    server.terminate();
    drop(streams);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(!path.exists(), "the socket file is left behind");
}

#[test]
fn unix_listener_takes_over_a_socket_that_nobody_listens_on() {
    let directory = support::clients::scratch("stale-unix-listener");
    let listen = format!("unix:{}", directory.join("streams.sock").display());
    let server = Server::start(&["--listen", &listen]);
    server.kill();
    let server = Server::start(&["--listen", &listen]);
    let mut stream = server.open("/events/a");
    server.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn second_server_on_the_same_port_is_refused() {
    let server = Server::start(&[]);
    let listen = server.listener().tcp().to_string();
    let second = support::process::Process::start(&mut support::server::command(
        &[],
        &["--listen", &listen],
    ));
    assert_eq!(second.wait().code(), Some(1));
    let said = second.errors.rest().join("\n");
    assert!(said.contains(&listen), "{said}");
}

#[test]
fn bad_options_are_named_with_what_is_allowed() {
    for (options, words) in [
        (&["--workers", "0"][..], &["--workers", "0"][..]),
        (&["--max-pending", "many"], &["--max-pending", "many"]),
        (&["--heartbeat", "1 fortnight"], &["--heartbeat", "fortnight"]),
        (&["--driver", "kqueue"], &["--driver", "kqueue", "epoll"]),
        (&["--format", "sse=xml"], &["--format", "xml"]),
        (&["--route", "/a"], &["--route", "/a"]),
        (&["--redis", "http://x"], &["--redis"]),
        (&["--broker-listen", "0.0.0.0:0"], &["--broker-password"]),
    ] {
        let process = support::process::Process::start(&mut support::server::command(&[], options));
        assert_eq!(process.wait().code(), Some(2), "{options:?}\n{}", process.transcript());
        let said = process.errors.rest().join("\n");
        assert!(words.iter().all(|word| said.contains(word)), "{options:?}: {said}");
    }
}

#[test]
fn full_server_turns_streams_away_with_a_longer_retry() {
    let server = Server::start(&["--max-connections", "2", "--retry", "1s"]);
    let occupants = [server.open("/events/a"), server.open("/events/a")];
    let mut turned_away = server.open("/events/a");
    assert!(turned_away.retry() > 1500, "{} ms", turned_away.retry());
    assert!(!turned_away.comments(1).is_empty());
    turned_away.wait_end();
    assert_eq!(turned_away.next_message_or_end(), None);

    drop(occupants);
    let mut stream = eventually("there is room again", || {
        let mut stream = server.open("/events/a");
        (stream.retry() <= 1500).then_some(stream)
    });
    server.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}

#[test]
fn admin_refuses_foreign_origins_and_hosts() {
    let server = Server::start(&[]);
    let ask = |fields: &str| {
        let mut connection = Connection::open(&server.admin);
        connection.send(format!("GET /livez HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"));
        connection.head().status
    };
    let port = server.admin.port();
    assert_eq!(ask(&format!("Host: 127.0.0.1:{port}\r\n")), 200);
    assert!(ask("Host: evil.example\r\n") >= 400);
    assert!(ask(&format!("Host: 127.0.0.1:{port}\r\nOrigin: https://evil.example\r\n")) >= 400);
}

#[test]
fn silent_connections_cost_no_answer_and_no_stream() {
    let server = Server::start(&["--head-timeout", "200ms"]);
    let mut connections: Vec<Connection> =
        (0..50).map(|_| Connection::open(server.listener())).collect();
    let mut stream = server.open("/events/a");
    for connection in &mut connections {
        assert_eq!(connection.read_to_end(), b"");
    }
    assert!(Deadline::after(Duration::from_secs(1)).left().is_some());
    server.publish("a", "hello");
    assert_eq!(stream.next_message().data, "hello");
}
