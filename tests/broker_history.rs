//! The embedded broker keeps events and gives them back as the script of `bytes::history` does in a
//! real redis-server, byte for byte but for the ids, which are times.
#![cfg(test)]

mod support;

use corecast::bytes::history::{self, Call, Publication};
use corecast::bytes::resp::encode_command;
use support::pair::Pair;

fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(arguments, &mut bytes);
    bytes
}

/// Both servers know the function, and the broker's clock begins as that of Redis does.
fn start() -> Pair {
    let pair = Pair::start(None);
    let mut load = Vec::new();
    history::encode_load(&mut load);
    pair.check(&[(0, load)]);
    pair
}

/// A call of the function as typed.
fn fcall(channel: &str, rest: &str) -> String {
    format!("FCALL corecast_publish 2 corecast:{{{channel}}} corecast:clock {channel} {rest}")
}

#[test]
fn events_are_published_and_kept_alike() {
    let pair = start();
    for hello in ["", "0 HELLO 3\n1 HELLO 3\n"] {
        pair.check_lines(&format!(
            "{hello}0 DEL corecast:{{a}} corecast:{{b}}
             1 SUBSCRIBE a
             0 {one}
             0 {two}
             0 {three}
             0 {four}
             0 XRANGE corecast:{{a}} - +
             0 XREVRANGE corecast:{{a}} + -
             0 XRANGE corecast:{{b}} - +
             0 XLEN corecast:{{a}}
             0 EXISTS corecast:{{a}} corecast:{{b}} corecast:{{c}} corecast:clock corecast:{{a}}
             0 DEL corecast:{{a}} corecast:{{c}}
             0 XRANGE corecast:{{a}} - +
             0 EXISTS corecast:{{a}}",
            one = fcall("a", "10 600000 hello"),
            two = fcall("b", "10 600000 \"\" state"),
            three = fcall("a", "10 600000 \"two\\r\\nlines\" \"a\\r\\nb\\x00c\""),
            four = fcall("a", "10 600000 \"\\x00{\\\"data\\\": 1}\" \"\""),
        ));
    }
}

#[test]
fn what_is_wrong_with_a_call_is_said_alike() {
    let pair = start();
    let long = "e".repeat(1025);
    for rest in [
        "",
        "10",
        "10 1000",
        "0 1000 x",
        "-1 1000 x",
        "x 1000 x",
        "1.5 1000 x",
        "01 1000 x",
        "10 0 x",
        "10 -1 x",
        "10 x x",
        "\"\" 1000 x",
        "1000000000000000 1000 x",
        "10 1000000000000000 x",
        "10 1000 x e e",
        &format!("10 1000 x {long}"),
    ] {
        pair.check_lines(&format!("0 {}\n0 XLEN corecast:{{a}}", fcall("a", rest)));
    }
    pair.check_lines(
        "0 FCALL corecast_publish 2 corecast:{a} corecast:clock b 10 1000 x
         0 FCALL corecast_publish 2 corecast:{a} clock a 10 1000 x
         0 FCALL corecast_publish 2 a corecast:clock a 10 1000 x
         0 FCALL corecast_publish 1 corecast:{a} corecast:clock a 10 1000 x
         0 FCALL corecast_publish 3 corecast:{a} corecast:clock a 10 1000 x
         0 FCALL corecast_publish 0
         0 FCALL corecast_publish -1
         0 FCALL corecast_publish x
         0 FCALL corecast_publish 9 a
         0 FCALL corecast_publish
         0 FCALL nonsense 0
         0 FCALL nonsense x
         0 FCALL
         0 XLEN corecast:{a}",
    );
}

#[test]
fn ranges_are_read_alike() {
    let pair = start();
    let publish: String =
        (0..5).map(|n| format!("0 {}\n", fcall("a", &format!("10 600000 {n}")))).collect();
    let mut script = publish + "0 XRANGE corecast:{a} - +\n";
    // What was seen of the channel: the five ids, and then the first event's `p`.
    for ids in [
        "- +",
        "@1@ +",
        "(@1@ +",
        "(@3@ +",
        "- @3@",
        "- (@3@",
        "(@2@ (@4@",
        "(@3@ @3@",
        "@3@ @3@",
        "@4@ @2@",
        "(@5@ +",
        "+ -",
        "0 18446744073709551615",
        "(0-0 (18446744073709551615-5",
        "0-1 1",
        "1 0",
        "(18446744073709551615-18446744073709551615 +",
        "- (0-0",
        "- (0",
        "(- +",
        "- (+",
        "x +",
        "- x",
        "1-x +",
        "-1 +",
        "1- +",
        "1-2-3 +",
        "\"\" +",
        "( +",
        "18446744073709551616 +",
        "007 +",
    ] {
        for count in [
            "",
            " COUNT 2",
            " COUNT 0",
            " COUNT -3",
            " count 100",
            " COUNT x",
            " COUNT",
            " LIMIT 2",
            " COUNT 1 COUNT 3",
        ] {
            script += &format!("0 XRANGE corecast:{{a}} {ids}{count}\n");
            let (start, end) = ids.split_once(' ').unwrap();
            script += &format!("0 XREVRANGE corecast:{{a}} {end} {start}{count}\n");
        }
    }
    for key in ["corecast:{b}", "nonsense", "\"\""] {
        script += &format!("0 XRANGE {key} - +\n0 XRANGE {key} - + COUNT 0\n0 XLEN {key}\n");
    }
    script += "0 XRANGE corecast:{a} -\n0 XREVRANGE corecast:{a}\n0 XLEN\n0 DEL\n0 EXISTS\n";
    pair.check_lines(&script);
    pair.check_lines(&format!("0 HELLO 3\n{script}"));
}

#[test]
fn transactions_read_several_histories_alike() {
    let pair = start();
    for hello in ["", "0 HELLO 3\n"] {
        pair.check_lines(&format!(
            "{hello}0 {one}
             0 {two}
             0 XRANGE corecast:{{a}} - + COUNT 1
             0 MULTI
             0 XREVRANGE corecast:clock (0 - COUNT 1
             0 XRANGE corecast:{{a}} (@1@ + COUNT 100
             0 XRANGE corecast:{{b}} - + COUNT 100
             0 XRANGE corecast:{{c}} - + COUNT 100
             0 {three}
             0 XRANGE corecast:{{c}} - +
             0 XRANGE corecast:{{c}} - + COUNT x
             0 DEL corecast:{{a}} corecast:{{b}} corecast:{{c}}
             0 EXEC",
            one = fcall("a", "10 600000 one"),
            two = fcall("b", "10 600000 two"),
            three = fcall("c", "10 600000 three"),
        ));
    }
}

#[test]
fn the_library_is_loaded_and_listed_alike() {
    let pair = start();
    let code = history::LIBRARY_CODE.as_bytes();
    let reader = history::READ_LIBRARY_CODE.as_bytes();
    for hello in ["", "HELLO 3\r\n"] {
        let mut script = vec![(0, hello.into())];
        for arguments in [
            &[b"LOAD".as_slice(), b"REPLACE", code][..],
            &[b"load", b"replace", b"REPLACE", code],
            &[b"LOAD", code],
            &[b"LOAD", b"REPLACE", reader],
            &[b"LOAD", reader],
            &[b"LOAD", b"NONSENSE", code],
            &[b"LOAD"],
            // In which order Redis tells of both nobody knows.
            &[b"LIST", b"WITHCODE", b"LIBRARYNAME", b"corecast"],
            &[b"LIST", b"LIBRARYNAME", b"core*t"],
            &[b"LIST", b"LIBRARYNAME", b"corecast"],
            &[b"LIST", b"libraryname", b"x*", b"withcode"],
            &[b"LIST", b"LIBRARYNAME"],
            &[b"LIST", b"WITHCODE", b"WITHCODE"],
            &[b"LIST", b"NONSENSE"],
            &[b"NONSENSE"],
            &[],
        ] {
            script.push((0, command(&[&[b"FUNCTION".as_slice()], arguments].concat())));
        }
        pair.check(&script);
    }
}

#[test]
fn the_script_is_known_alike() {
    let pair = Pair::start(None);
    let sha1 = {
        let mut client = pair.redis.client();
        let reply = client.command(&[b"SCRIPT", b"LOAD", history::SCRIPT.as_bytes()]);
        let support::redis::Reply::Bulk(Some(sha1)) = reply else { panic!("{reply:?}") };
        sha1
    };
    let publish = |payload, event| {
        let publication = Publication {
            channel: b"a",
            kept: 5,
            ttl_ms: 600_000,
            payload,
            event,
            bytes_max: None,
        };
        let mut bytes = Vec::new();
        history::encode_publication(Call::Script { sha1: &sha1 }, &publication, &mut bytes);
        (0, bytes)
    };
    let arguments: [&[u8]; 9] = [
        b"EVAL",
        history::SCRIPT.as_bytes(),
        b"2",
        b"corecast:{a}",
        history::CLOCK_KEY,
        b"a",
        b"5",
        b"600000",
        b"x",
    ];
    pair.check(&[
        (0, command(&[b"SCRIPT", b"LOAD", history::SCRIPT.as_bytes()])),
        (0, command(&[b"SCRIPT", b"EXISTS", &sha1, b"x"])),
        (1, b"SUBSCRIBE a\r\n".to_vec()),
        publish(b"one", b""),
        publish(b"two", b"state"),
        (0, command(&arguments)),
        (0, command(&arguments[..8])),
        (0, command(&[b"XRANGE", b"corecast:{a}", b"-", b"+"])),
    ]);
}

#[test]
fn the_newest_are_kept_and_time_is_up_alike() {
    let pair = start();
    let publish = |rest: &str| format!("0 {}\n", fcall("a", rest));
    // Redis keeps up to a whole node more than asked, of 100 entries.
    let mut script = String::new();
    for n in 0..250 {
        script += &publish(&format!("250 600000 {n}"));
    }
    script += "0 XLEN corecast:{a}\n0 XRANGE corecast:{a} - + COUNT 3\n";
    // The event of a millisecond is gone before the next answer.
    script += &publish("250 1 last");
    pair.check_lines(&script);
    for address in [pair.redis.address().tcp(), pair.broker.address] {
        let mut client =
            support::redis::Client::connect(&support::address::Address::Tcp(address)).unwrap();
        support::clock::eventually("the history expires", || {
            let reply = client.command(&[b"EXISTS", b"corecast:{a}"]);
            (reply == support::redis::Reply::Integer(0)).then_some(())
        });
    }
    pair.check_lines("0 XRANGE corecast:{a} - +\n0 XLEN corecast:{a}\n0 DEL corecast:{a}");
}
