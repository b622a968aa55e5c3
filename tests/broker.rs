//! The embedded broker over real sockets: what depends on them, and what must not end it.
#![cfg(test)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use corecast::broker::BrokerListener;
use support::broker::{Broker, Connection, PAYLOAD_BYTES_MAX};
use support::clock::eventually;

fn publish(channel: &str, payload: &[u8]) -> Vec<u8> {
    let head =
        format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

fn message(channel: &str, payload: &[u8]) -> Vec<u8> {
    let head =
        format!(">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

/// A RESP3 client that hears `channel`.
fn subscriber(broker: &Broker, channel: &str) -> Connection {
    let mut connection = broker.connect();
    connection.send("HELLO 3\r\n");
    connection.receive_until(|received| received.ends_with(b"$7\r\nmodules\r\n*0\r\n"));
    connection.received.clear();
    let length = channel.len();
    let acknowledgement = format!(">3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:1\r\n");
    connection.ask(format!("SUBSCRIBE {channel}\r\n"), acknowledgement);
    connection
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let broker = Broker::start(None);
    let mut subscribers = [subscriber(&broker, "a"), subscriber(&broker, "a")];
    let payloads: Vec<Vec<u8>> = (0..20_000).map(|n| format!("{n:0200}").into_bytes()).collect();
    let burst: Vec<u8> = payloads.iter().flat_map(|payload| publish("a", payload)).collect();
    let mut publisher = broker.connect();
    publisher.send(&burst);
    publisher.expect(":2\r\n".repeat(payloads.len()));
    for subscriber in &mut subscribers {
        subscriber
            .expect(payloads.iter().flat_map(|payload| message("a", payload)).collect::<Vec<_>>());
    }
    assert_eq!(broker.counters.published.get(), 20_000);
    assert_eq!(broker.counters.delivered.get(), 40_000);
}

#[test]
fn large_payloads_arrive_whole() {
    let broker = Broker::start(None);
    let mut subscriber = subscriber(&broker, "a");
    let mut publisher = broker.connect();
    for length in [8191, 8192, 65_536, PAYLOAD_BYTES_MAX] {
        let payload: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
        publisher.send(publish("a", &payload).repeat(3));
        publisher.expect(":1\r\n".repeat(3));
        subscriber.expect(message("a", &payload).repeat(3));
    }
}

#[test]
fn a_client_that_reads_late_gets_all_its_replies() {
    let broker = Broker::start(None);
    let mut client = broker.connect();
    let payload = "x".repeat(PAYLOAD_BYTES_MAX);
    let echo = format!("*2\r\n$4\r\nECHO\r\n${PAYLOAD_BYTES_MAX}\r\n{payload}\r\n");
    let reply = format!("${PAYLOAD_BYTES_MAX}\r\n{payload}\r\n");
    // More than socket buffers hold; sent without reading a byte.
    client.socket.set_nonblocking(false).unwrap();
    for _ in 0..20 {
        client.socket.write_all(echo.as_bytes()).unwrap();
    }
    client.socket.write_all(b"QUIT\r\n").unwrap();
    let mut received = Vec::new();
    client.socket.read_to_end(&mut received).unwrap();
    assert!(received == (reply.repeat(20) + "+OK\r\n").into_bytes());
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_replies() {
    let broker = Broker::start(None);
    let mut client = broker.connect();
    client.send("PING\r\nPING\r\n");
    client.socket.shutdown(Shutdown::Write).unwrap();
    client.expect_end("+PONG\r\n+PONG\r\n");
    eventually("the client is forgotten", || (broker.counters.clients.get() == 0).then_some(()));
}

#[test]
fn the_sender_of_a_too_large_payload_can_read_why_it_was_refused() {
    let broker = Broker::start(None);
    let mut client = broker.connect();
    client.send(publish("a", &vec![b'x'; 4 * PAYLOAD_BYTES_MAX]));
    client.expect_end("-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(broker.counters.protocol_errors.get(), 1);
}

#[test]
fn a_client_that_quits_and_stays_is_closed() {
    let broker = Broker::start(None);
    let mut client = broker.connect();
    client.ask("QUIT\r\n", "+OK\r\n");
    eventually("the client is closed", || (broker.counters.clients.get() == 0).then_some(()));
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_alone() {
    let broker = Broker::start(None);
    let slow = subscriber(&broker, "a");
    let mut quick = subscriber(&broker, "a");
    let mut publisher = broker.connect();
    let payload = vec![b'x'; PAYLOAD_BYTES_MAX];
    for _ in 0..60 {
        publisher.send(publish("a", &payload));
        publisher.receive_until(|received| received.ends_with(b"\r\n"));
        quick.expect(message("a", &payload));
    }
    assert!(publisher.received.starts_with(b":2\r\n") && publisher.received.ends_with(b":1\r\n"));
    assert_eq!(broker.counters.overflows.get(), 1);
    assert_eq!(broker.counters.clients.get(), 2);
    drop(slow);
}

#[test]
fn bombs_end_only_the_connection_that_throws_them() {
    let broker = Broker::start(None);
    let mut bystander = broker.connect();
    bystander.ask("PING\r\n", "+PONG\r\n");
    let error = |text: &str| format!("-ERR Protocol error: {text}\r\n");
    for (bomb, answer) in [
        ("*1\r\n".repeat(100_000), error("expected '$', got '*'")),
        ("*1\r\n$10737418240\r\n".to_owned(), error("invalid bulk length")),
        ("*2147483647\r\n".to_owned(), error("invalid multibulk length")),
        ("x".repeat(200_000), error("too big inline request")),
        ("\0".repeat(200_000), error("too big inline request")),
        ("*4096\r\n$1048576\r\n".to_owned(), String::new()),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), String::new()),
        ("POST / HTTP/1.1\r\n\r\nPUBLISH a x\r\n".to_owned(), String::new()),
    ] {
        let mut client = broker.connect();
        client.send(&bomb);
        if bomb.starts_with("*4096") {
            // A command that never ends is waited for, and costs what has arrived of it.
            client.expect("");
        } else {
            client.expect_end(answer);
        }
        bystander.ask("PING\r\n", "+PONG\r\n");
    }
    assert_eq!(broker.counters.published.get(), 0);
    assert_eq!(broker.counters.protocol_errors.get(), 7);
}

#[test]
fn many_clients_come_and_go() {
    let broker = Broker::start(None);
    for _ in 0..2 {
        let mut clients: Vec<Connection> = (0..300).map(|_| broker.connect()).collect();
        for client in &mut clients {
            client.send("SUBSCRIBE a\r\n");
        }
        for client in &mut clients {
            client.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
        }
        broker.connect().ask(publish("a", b"x"), ":300\r\n");
        for client in &mut clients {
            client.expect("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
        }
        drop(clients);
        eventually("all are forgotten", || (broker.counters.clients.get() == 0).then_some(()));
    }
    assert_eq!(broker.counters.accepted.get(), 602);
}

#[test]
fn a_unix_socket_will_do() {
    let path = std::env::temp_dir().join(format!("corecast-broker-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let _broker = Broker::start_on(BrokerListener::Unix(listener), Some("secret"));
    let mut client = UnixStream::connect(&path).unwrap();
    fs::remove_file(&path).unwrap();
    client.write_all(b"PING\r\nAUTH secret\r\nPING\r\nQUIT\r\n").unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "-NOAUTH Authentication required.\r\n+OK\r\n+PONG\r\n+OK\r\n");
}
