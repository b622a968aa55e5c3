//! The embedded broker: a thread that speaks enough RESP for any Redis client to publish, and for
//! the workers to subscribe, so that no Redis is needed.
//!
//! It answers what Redis 7.2 answers, and is not a data store. One thread owns everything: an epoll
//! set, the sockets, and the hub, which knows no sockets. Each turn reads a bounded piece of what
//! each client has sent, and then writes: a burst of PUBLISH leaves in few, large writes.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use crate::ground::config::{HistoryRules, Secret};
use crate::state::counters::Counter;

mod client;
mod commands;
mod event_loop;
mod glob;
mod history;
mod hub;
mod output;
mod reply;
mod requests;
mod table;

/// What the broker is told.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Asked of every client; `None` or empty: of none.
    pub password: Option<Secret>,
    /// Longest payload of a message.
    pub payload_bytes_max: usize,
    /// Channels on which a plain PUBLISH is kept too, and its subscribers get envelopes.
    pub history: HistoryRules,
    /// How long those are kept.
    pub history_ttl: Duration,
    /// Bytes of history of all channels.
    pub history_bytes_max: usize,
}

/// Where clients connect to. Options that are inherited by connections are set on it.
#[derive(Debug)]
pub enum BrokerListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What the broker counts. Its thread writes, the admin listener reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BrokerCounters {
    /// Gauge: connected clients.
    pub clients: Counter,
    pub accepted: Counter,
    /// Connections refused because there were too many.
    pub refused: Counter,
    /// Times that the kernel had no descriptor or memory for a connection.
    pub accept_failures: Counter,
    pub commands: Counter,
    pub published: Counter,
    /// Messages handed to subscribers, once per subscriber.
    pub delivered: Counter,
    pub authentication_failures: Counter,
    /// Connections closed because they did not speak RESP, or spoke HTTP.
    pub protocol_errors: Counter,
    /// Connections closed because they did not read what they were sent.
    pub overflows: Counter,
    /// Gauge: channels with a history.
    pub history_channels: Counter,
    /// Gauge: bytes of history.
    pub history_bytes: Counter,
    /// Events forgotten before their time because there were too many bytes.
    pub history_evicted: Counter,
}

/// Serves clients until `stop`, an eventfd, becomes readable.
///
/// # Errors
/// What the kernel answers to a call that can't fail in a sane process: on the listener, on epoll.
pub fn run(
    listener: BrokerListener,
    options: BrokerOptions,
    stop: OwnedFd,
    counters: Arc<BrokerCounters>,
) -> io::Result<()> {
    event_loop::EventLoop::new(listener, options, &stop, counters)?.run()
}

/// The version of Redis whose answers these are.
const REDIS_VERSION: &str = "7.2.0";

impl AsFd for BrokerListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
