//! One client of the broker as the protocol knows it: who it is, what it hears, what it is owed.

use super::output::Output;
use super::reply::{Protocol, Reply};
use super::table::Subscriptions;

/// A client, and the tenancy of its slot: an id from before or after finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A client without its socket.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) slot: u32,
    /// What CLIENT ID answers: unlike the slot never given to another client.
    pub(super) number: u64,
    pub(super) protocol: Protocol,
    pub(super) authenticated: bool,
    /// Bytes of its commands while it was not authenticated.
    pub(super) unauthenticated_bytes: usize,
    pub(super) name: Vec<u8>,
    pub(super) channels: Subscriptions,
    pub(super) patterns: Subscriptions,
    pub(super) shards: Subscriptions,
    pub(super) transaction: Option<Transaction>,
    pub(super) output: Output,
    /// Messages that the client's own command published to it. They follow the command's reply: in
    /// the middle of it, as before Redis 7.2, they would break up what EXEC answers.
    pub(super) deferred: Output,
    pub(super) state: State,
    /// Whether it is in the list of those that have output to be written.
    pub(super) is_listed: bool,
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// The queued commands, encoded.
    pub(super) queue: Vec<u8>,
    pub(super) commands: usize,
    /// A command was refused, so EXEC will be.
    pub(super) aborted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// No further command is read; the connection closes once the output is sent.
    Finishing,
    /// To be closed as it is.
    Closing(CloseReason),
}

/// Why the broker, not the client, ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// A browser was made to send us its requests.
    CrossProtocol,
    OutputOverflow,
}

impl ClientId {
    /// The id as one number, as epoll carries it.
    pub(super) fn to_token(self) -> u64 {
        u64::from(self.slot) | u64::from(self.generation) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the number apart")]
    pub(super) fn from_token(token: u64) -> Self {
        Self { slot: token as u32, generation: (token >> 32) as u32 }
    }
}

impl Client {
    pub(super) fn new(slot: u32, number: u64, authenticated: bool) -> Self {
        Self {
            slot,
            number,
            protocol: Protocol::Resp2,
            authenticated,
            unauthenticated_bytes: 0,
            name: Vec::new(),
            channels: Subscriptions::new(slot),
            patterns: Subscriptions::new(slot),
            shards: Subscriptions::new(slot),
            transaction: None,
            output: Output::default(),
            deferred: Output::default(),
            state: State::Open,
            is_listed: false,
        }
    }

    pub(super) fn reply(&mut self) -> Reply<'_> {
        Reply { output: &mut self.output, protocol: self.protocol }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.channels.len() + self.patterns.len() + self.shards.len() > 0
    }
}
