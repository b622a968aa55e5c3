//! A real Redis, and a client of the Redis protocol that is small enough to be trusted.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::process::Command;

use rustix::process::Signal;

use super::address::{Address, Socket};
use super::clock::{PATIENCE, eventually};
use super::process::Process;

/// A Redis of the test's own, without persistence.
pub(crate) struct Redis {
    process: Process,
    program: OsString,
    pub(crate) port: u16,
    options: Vec<String>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts with `options` as redis-server's command line takes them.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_program(program(), options)
    }

    /// Starts the redis-server of the PATH, whatever the others are.
    pub(crate) fn start_original(options: &[&str]) -> Self {
        Self::start_program(ORIGINAL.into(), options)
    }

    fn start_program(program: OsString, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = free_port();
        Self { process: run(&program, port, &options), program, port, options }
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp(([127, 0, 0, 1], self.port).into())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address()).unwrap()
    }

    pub(crate) fn publish(&self, channel: &str, payload: &str) -> i64 {
        self.client().publish(channel, payload)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGKILL: its clients see the end of their connections and nothing more.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// The same Redis again, on the same port, empty.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = run(&self.program, self.port, &self.options);
    }
}

const ORIGINAL: &str = "redis-server";

/// The program of a Redis or a Sentinel: what `CORECAST_TEST_REDIS` names, such as a valkey-server,
/// or the redis-server of the PATH.
pub(crate) fn program() -> OsString {
    std::env::var_os("CORECAST_TEST_REDIS").unwrap_or_else(|| ORIGINAL.into())
}

/// A port that nobody listens on now, and that the kernel gives to nobody else soon.
pub(crate) fn free_port() -> u16 {
    free_ports::<1>()[0]
}

/// Such ports, each another one: what nobody listens on yet may be given away again.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn run(program: &OsStr, port: u16, options: &[String]) -> Process {
    let process = Process::start(
        Command::new(program)
            .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .args(["--loglevel", "warning"])
            .args(["--port", &port.to_string()])
            // What a replica is sent is nothing for another one to find.
            .args(["--dir", env!("CARGO_TARGET_TMPDIR"), "--rdb-del-sync-files", "yes"])
            .args(["--dbfilename", &format!("redis-{port}.rdb")])
            .args(options),
    );
    eventually("the Redis answers", || {
        assert!(!process.has_ended(), "the Redis ended\n{}", process.transcript());
        let mut client = Client::connect(&Address::Tcp(([127, 0, 0, 1], port).into())).ok()?;
        client.try_command(&[b"PING"]).ok()
    });
    process
}

/// What a Redis answers, in RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Self>),
}

/// A connection that speaks RESP2, one command at a time.
pub(crate) struct Client {
    socket: Socket,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        let socket = address.connect()?;
        socket.set_read_timeout(PATIENCE)?;
        Ok(Self { socket, unread: Vec::new() })
    }

    pub(crate) fn command(&mut self, arguments: &[&[u8]]) -> Reply {
        self.try_command(arguments).unwrap()
    }

    pub(crate) fn try_command(&mut self, arguments: &[&[u8]]) -> io::Result<Reply> {
        self.send(arguments)?;
        self.reply()
    }

    /// Publishes, and returns how many received it.
    pub(crate) fn publish(&mut self, channel: &str, payload: impl AsRef<[u8]>) -> i64 {
        match self.command(&[b"PUBLISH", channel.as_bytes(), payload.as_ref()]) {
            Reply::Integer(receivers) => receivers,
            other => panic!("PUBLISH answered {other:?}"),
        }
    }

    /// Publishes many in one write, and waits for all answers.
    pub(crate) fn publish_all<P: AsRef<[u8]>>(&mut self, messages: &[(&str, P)]) {
        let mut bytes = Vec::new();
        for (channel, payload) in messages {
            encode(&mut bytes, &[b"PUBLISH", channel.as_bytes(), payload.as_ref()]);
        }
        self.socket.write_all(&bytes).unwrap();
        for _ in messages {
            let reply = self.reply().unwrap();
            assert!(matches!(reply, Reply::Integer(_)), "PUBLISH answered {reply:?}");
        }
    }

    pub(crate) fn send(&mut self, arguments: &[&[u8]]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, arguments);
        self.socket.write_all(&bytes)
    }

    /// Sends commands that were encoded elsewhere.
    pub(crate) fn send_bytes(&mut self, commands: &[u8]) -> io::Result<()> {
        self.socket.write_all(commands)
    }

    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().map_err(|_| io::ErrorKind::InvalidData);
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut bytes = self.take(length + 2)?;
                    bytes.truncate(length);
                    Reply::Bulk(Some(bytes))
                }
                Err(_) => Reply::Bulk(None),
            },
            "*" => {
                let length = usize::try_from(number()?).unwrap_or(0);
                Reply::Array((0..length).map(|_| self.reply()).collect::<io::Result<_>>()?)
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.fill()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.socket.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

fn encode(bytes: &mut Vec<u8>, arguments: &[&[u8]]) {
    bytes.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}
