//! Any Redis client publishes to the embedded broker, and subscribes from it, with and without a
//! password.
#![cfg(test)]

mod support;

use std::process::Command;

use support::clients::{node, python, redis_cli};
use support::process::Process;
use support::redis::{Client, Reply};
use support::server::Server;

const PASSWORD: &str = "correct horse battery staple";

/// Three messages from the client reach a stream and are counted, and a client without the
/// password is told to go.
fn check_publishing(client: impl Fn(&[&str]) -> Command) {
    for password in ["", PASSWORD] {
        let server = start(password);
        let mut stream = server.open("/events/orders");
        let port = server.broker.port().to_string();

        let output = Process::start(&mut client(&[&port, password, "publish"])).finish();

        for data in ["one", "two", "three\nlines\n"] {
            assert_eq!(stream.next_message().data, data);
        }
        let answers: Vec<i64> = serde_json::from_str(&output[0]).unwrap();
        assert_eq!(answers.len(), 3, "{output:?}");
        assert!(answers.iter().all(|&receivers| receivers >= 1), "{output:?}");

        let wrong = if password.is_empty() { continue } else { "wrong" };
        let refused = Process::start(&mut client(&[&port, wrong, "publish"]));
        assert!(!refused.wait().success(), "published with a wrong password");
    }
}

/// The client gets what was published on a channel and on a pattern, and leaves in good order.
fn check_subscribing(client: impl Fn(&[&str]) -> Command) {
    for password in ["", PASSWORD] {
        let server = start(password);
        let port = server.broker.port().to_string();
        let process = Process::start(&mut client(&[&port, password, "subscribe"]));
        assert_eq!(process.output.next().as_deref(), Some("ready"));

        let mut publisher = authenticated(&server, password);
        assert_eq!(publisher.publish("elsewhere", "not for you"), 0);
        assert!(publisher.publish("stock/7", "a \"b\"\r\n") >= 1);
        assert!(publisher.publish("orders", "ein Ü") >= 1);
        assert!(publisher.publish("orders", "end") >= 1);

        let lines = process.finish();
        let messages: Vec<[String; 2]> =
            lines[1..].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = [["stock/7", "a \"b\"\r\n"], ["orders", "ein Ü"], ["orders", "end"]];
        assert_eq!(messages, expected.map(|message| message.map(str::to_owned)));
    }
}

fn start(password: &str) -> Server {
    if password.is_empty() {
        Server::start(&[])
    } else {
        Server::start(&["--broker-password", password])
    }
}

fn authenticated(server: &Server, password: &str) -> Client {
    let mut client = server.client();
    if !password.is_empty() {
        let reply = client.command(&[b"AUTH", password.as_bytes()]);
        assert_eq!(reply, Reply::Simple("OK".into()));
    }
    client
}

/// One module per client, so that each of its tests has a name of its own.
macro_rules! clients {
    ($($name:ident: $command:expr;)*) => {$(
        mod $name {
            use super::*;

            fn client(arguments: &[&str]) -> Command {
                let mut command: Command = $command;
                command.args(arguments);
                command
            }

            #[test]
            fn publishes() {
                check_publishing(client);
            }

            #[test]
            fn subscribes() {
                check_subscribing(client);
            }
        }
    )*};
}

/// A Node program and the package that it is to use.
fn node_with(program: &str, package: &str) -> Command {
    let mut command = node(program);
    command.arg(package);
    command
}

clients! {
    redis_py_5: python("redis-py-5", "redis_py.py");
    redis_py_6: python("redis-py-6", "redis_py.py");
    redis_py_7: python("redis-py-7", "redis_py.py");
    redis_py_8: python("redis-py-8", "redis_py.py");
    ioredis_5: node_with("ioredis.mjs", "ioredis5");
    ioredis_6: node_with("ioredis.mjs", "ioredis6");
    node_redis_4: node_with("node_redis.mjs", "redis4");
    node_redis_5: node_with("node_redis.mjs", "redis5");
    node_redis_6: node_with("node_redis.mjs", "redis6");
}

/// `redis-cli` with the password, which it takes from its environment without a warning.
fn redis_cli_with(server: &Server, password: &str) -> Command {
    let mut command = redis_cli(&server.broker);
    if !password.is_empty() {
        command.env("REDISCLI_AUTH", password);
    }
    command
}

#[test]
fn redis_cli_publishes_one_shot_in_resp2_and_resp3() {
    for password in ["", PASSWORD] {
        let server = start(password);
        let mut stream = server.open("/events/course-state/42");
        for protocol in ["-2", "-3"] {
            let mut command = redis_cli_with(&server, password);
            command.args([protocol, "publish", "course-state/42", "started"]);
            let output = Process::start(&mut command).finish();
            assert!(output[0].parse::<i64>().unwrap() >= 1, "{output:?}");
            assert_eq!(stream.next_message().data, "started");
        }
    }
}

#[test]
fn redis_cli_is_refused_without_the_password() {
    let server = start(PASSWORD);
    let output =
        Process::start(redis_cli(&server.broker).args(["publish", "orders", "one"])).finish();
    assert!(output[0].starts_with("NOAUTH"), "{output:?}");
}

#[test]
fn redis_cli_subscribes() {
    for password in ["", PASSWORD] {
        let server = start(password);
        let mut command = redis_cli_with(&server, password);
        let process = Process::start(command.args(["subscribe", "orders", "stock"]));
        for line in ["subscribe", "orders", "1", "subscribe", "stock", "2"] {
            assert_eq!(process.output.next().as_deref(), Some(line));
        }
        authenticated(&server, password).publish("stock", "7 left");
        for line in ["message", "stock", "7 left"] {
            assert_eq!(process.output.next().as_deref(), Some(line));
        }
    }
}

#[test]
fn redis_cli_pipes_commands_in_bulk() {
    let server = start("");
    let mut stream = server.open("/events/orders");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "seq 1 1000 | sed 's/.*/PUBLISH orders &/' | redis-cli -p {} --pipe",
        server.broker.port()
    ));
    let output = Process::start(&mut shell).finish().join("\n");
    assert!(output.contains("errors: 0, replies: 1000"), "{output}");
    for number in 1..=1000 {
        assert_eq!(stream.next_message().data, number.to_string());
    }
}

#[test]
fn redis_cli_reads_commands_from_a_script() {
    let server = start("");
    let mut stream = server.open("/events/orders");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "printf 'PING\\nPUBLISH orders \"two words\"\\n' | redis-cli -p {}",
        server.broker.port()
    ));
    assert_eq!(Process::start(&mut shell).finish()[0], "PONG");
    assert_eq!(stream.next_message().data, "two words");
}

#[test]
fn what_the_broker_is_not_fails_clearly() {
    let server = start("");
    let mut client = server.client();
    for command in [&[b"SET".as_slice(), b"key", b"value"][..], &[b"LPUSH", b"celery", b"task"]] {
        let reply = client.command(command);
        let Reply::Error(text) = &reply else { panic!("{reply:?}") };
        assert!(text.starts_with("ERR unknown command"), "{text}");
    }
    assert_eq!(client.command(&[b"PING"]), Reply::Simple("PONG".into()));
}
