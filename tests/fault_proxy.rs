//! The proxy through which other tests disturb the link to Redis does to bytes what it is told, and
//! nothing else.
#![cfg(test)]

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::clock::{PATIENCE, eventually, now};
use support::fault_proxy::{FaultProxy, Way};

/// A server that sends back what it gets, until the end.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || {
                // The proxy may reset it at any moment.
                let _ = io::copy(&mut &socket, &mut &socket);
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let socket = TcpStream::connect(proxy.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn exchange(socket: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    socket.write_all(bytes).unwrap();
    let mut echoed = vec![0; bytes.len()];
    socket.read_exact(&mut echoed).unwrap();
    echoed
}

#[test]
fn bytes_pass_unchanged_both_ways_and_the_end_too() {
    let proxy = FaultProxy::start(echo());
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for dribbles in [false, true] {
        proxy.dribble(Way::ToClient, dribbles);
        let bytes = if dribbles { &bytes[..1000] } else { &bytes };
        let mut socket = connect(&proxy);
        let mut writer = socket.try_clone().unwrap();
        let sent = bytes.to_vec();
        let sender = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut echoed = Vec::new();
        socket.read_to_end(&mut echoed).unwrap();
        sender.join().unwrap();
        assert!(echoed == bytes, "{} bytes of {}", echoed.len(), bytes.len());
    }
    assert_eq!([Way::ToServer, Way::ToClient].map(|way| proxy.passed(way)), [1_001_000; 2]);
    assert_eq!(proxy.accepted(), 2);
    eventually("both connections are gone", || (proxy.open() == 0).then_some(()));
}

#[test]
fn a_cut_resets_what_stands_and_nothing_else() {
    let proxy = FaultProxy::start(echo());
    let mut sockets = [connect(&proxy), connect(&proxy)];
    sockets.iter_mut().for_each(|socket| assert_eq!(exchange(socket, b"before"), b"before"));
    proxy.cut();
    for socket in &mut sockets {
        let end = socket.read(&mut [0; 8]);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(exchange(&mut connect(&proxy), b"after"), b"after");
    proxy.refuse(true);
    assert!(matches!(connect(&proxy).read(&mut [0; 8]), Ok(0) | Err(_)));
    proxy.heal();
    assert_eq!(exchange(&mut connect(&proxy), b"again"), b"again");
}

#[test]
fn an_ended_half_leaves_the_other() {
    let proxy = FaultProxy::start(echo());
    let mut socket = connect(&proxy);
    assert_eq!(exchange(&mut socket, b"before"), b"before");
    proxy.end(Way::ToClient);
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0);
    let passed = proxy.passed(Way::ToServer);
    socket.write_all(b"more").unwrap();
    eventually("it goes on", || (proxy.passed(Way::ToServer) == passed + 4).then_some(()));
}

#[test]
fn a_black_hole_swallows_everything_and_gives_it_back() {
    let proxy = FaultProxy::start(echo());
    let mut socket = connect(&proxy);
    assert_eq!(exchange(&mut socket, b"before"), b"before");
    for ways in [&[Way::ToClient][..], &[Way::ToServer], &[Way::ToServer, Way::ToClient]] {
        ways.iter().for_each(|way| proxy.hold(*way, true));
        // A read that had begun may still take what is sent at once.
        eventually("the hole is open", || {
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket.write_all(b"x").unwrap();
            socket.read_exact(&mut [0]).is_err().then_some(())
        });
        let mut fresh = connect(&proxy);
        fresh.write_all(b"fresh").unwrap();
        proxy.heal();
        let mut echoed = [0; 5];
        fresh.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"fresh");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.read_exact(&mut [0]).unwrap();
        assert_eq!(exchange(&mut socket, b"after"), b"after");
    }
}

#[test]
fn delay_and_rate_take_their_time() {
    let proxy = FaultProxy::start(echo());
    let mut socket = connect(&proxy);
    proxy.delay(Way::ToServer, Duration::from_millis(150));
    let start = now();
    assert_eq!(exchange(&mut socket, b"late"), b"late");
    assert!(start.elapsed() >= Duration::from_millis(150));
    proxy.heal();
    proxy.limit(Way::ToClient, 50_000);
    let start = now();
    let bytes = vec![b'x'; 10_000];
    assert!(exchange(&mut socket, &bytes) == bytes);
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
}

#[test]
fn a_distance_keeps_everything_waiting_and_its_rate() {
    let proxy = FaultProxy::start(echo());
    let mut socket = connect(&proxy);
    for way in [Way::ToServer, Way::ToClient] {
        proxy.set_distance(way, Duration::from_millis(40));
    }
    proxy.heal();
    let start = now();
    assert_eq!(exchange(&mut socket, b"far"), b"far");
    assert!(start.elapsed() >= Duration::from_millis(80));
    // One piece after the other would take two seconds.
    let start = now();
    let bytes: Vec<u8> = (0..400_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    assert!(exchange(&mut socket, &bytes) == bytes);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    // What is on its way arrives before the end, and in order where it comes nearer.
    socket.write_all(b"before").unwrap();
    proxy.set_distance(Way::ToServer, Duration::ZERO);
    socket.write_all(b"after").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut echoed = Vec::new();
    socket.read_to_end(&mut echoed).unwrap();
    assert_eq!(echoed, b"beforeafter");
}

#[test]
fn one_byte_is_spoiled_once() {
    let proxy = FaultProxy::start(echo());
    let mut socket = connect(&proxy);
    for way in [Way::ToServer, Way::ToClient] {
        proxy.spoil(way, b'\r');
        assert_eq!(exchange(&mut socket, b"no such byte"), b"no such byte");
        assert_eq!(exchange(&mut socket, b"a\r\nb\r\n"), b"aX\nb\r\n");
        assert_eq!(exchange(&mut socket, b"a\r\nb\r\n"), b"a\r\nb\r\n");
    }
}
