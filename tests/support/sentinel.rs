//! Sentinels: real ones over real Redis servers, and one that says what the test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use super::address::Address;
use super::clock::eventually;
use super::process::Process;
use super::redis::{Client, Redis, Reply, free_port, program};

/// A master, its replica, and a Sentinel that watches them.
pub(crate) struct SentinelSet {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    sentinel: Process,
    port: u16,
}

impl SentinelSet {
    /// The Sentinel takes the master for dead after `down_after_ms` of silence.
    pub(crate) fn start(down_after_ms: u32) -> Self {
        let master = Redis::start();
        let replica = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
        let in_step = |client: &mut Client| match client.command(&[b"INFO", b"replication"]) {
            Reply::Bulk(Some(text)) => String::from_utf8(text).unwrap().contains("state=online"),
            _ => false,
        };
        eventually("the replica is in step", || in_step(&mut master.client()).then_some(()));
        let port = free_port();
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sentinel-{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster {down_after_ms}\n\
             sentinel failover-timeout mymaster 5000\n",
            master.port
        );
        std::fs::write(&file, text).unwrap();
        let sentinel = Process::start(Command::new(program()).arg(&file).arg("--sentinel"));
        let set = Self { master, replica, sentinel, port };
        eventually("the Sentinel knows the replica", || {
            assert!(!set.sentinel.has_ended(), "{}", set.sentinel.transcript());
            let mut client = Client::connect(&set.address()).ok()?;
            let reply = client.try_command(&[b"SENTINEL", b"REPLICAS", b"mymaster"]).ok()?;
            matches!(reply, Reply::Array(replicas) if !replicas.is_empty()).then_some(())
        });
        set
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/mymaster", self.port)
    }

    fn address(&self) -> Address {
        Address::Tcp(([127, 0, 0, 1], self.port).into())
    }
}

/// Answers whoever asks for the master with the port that the test has set.
pub(crate) struct ToldSentinel {
    port: u16,
    master: Arc<AtomicU16>,
}

impl ToldSentinel {
    pub(crate) fn start(master: &Redis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let master = Arc::new(AtomicU16::new(master.port));
        let told = Arc::clone(&master);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut client = BufReader::new(client);
                // An array of three bulk strings is seven lines.
                let mut line = String::new();
                let is_question =
                    (0..7).all(|_| client.read_line(&mut line).is_ok_and(|count| count > 0));
                let port = told.load(Ordering::Relaxed).to_string();
                let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
                if is_question {
                    let _ = client.get_mut().write_all(answer.as_bytes());
                }
            }
        });
        Self { port, master }
    }

    pub(crate) fn tell(&self, master: &Redis) {
        self.master.store(master.port, Ordering::Relaxed);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/mymaster", self.port)
    }
}
