//! What a load test is told.

use std::net::SocketAddr;
use std::time::Duration;

use super::schedule::Schedule;
use super::target::{Target, Template};
use crate::bytes::history::HistoryOptions;
use crate::ground::config::RedisAddress;

#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub target: Target,
    /// Connections; 0 only publishes.
    pub streams: u32,
    /// Stream `n` is one of channel `n % channels`.
    ///
    /// Invariant: at least 1, and 1 unless the target has a number.
    pub channels: u32,
    /// Channels of each stream: that one, and those after it.
    ///
    /// Invariant: at least 1, at most as many as channels, and 1 unless the target has a number in
    /// its query alone.
    pub channels_per_stream: u32,
    /// Threads that hold the streams; `None`: as many as descriptors and cores ask for.
    pub threads: Option<usize>,
    pub opening: Opening,
    /// Streams come back to events of their channels' histories, all of which they get first.
    ///
    /// Invariant: the load publishes to a Redis, nothing but closing messages.
    pub resumes: bool,
    /// Silence between the last stream that opens and the first message.
    pub idle: Duration,
    pub load: Load,
    /// Silence after which messages that are missing are given up.
    pub patience: Duration,
    /// Processes of the server, whose memory and time are measured.
    pub server_pids: Vec<u32>,
    /// What is measured once all messages are received.
    pub aftermath: Aftermath,
    pub allowed: Allowed,
    pub json: bool,
    pub comparison: Option<Comparison>,
}

/// What a test does with its streams once all messages are received.
#[derive(Clone, Copy, Debug)]
pub struct Aftermath {
    /// Silence before the server's memory is measured again.
    pub settle: Duration,
    /// Streams that stay when all others disconnect; `None`: all.
    pub keep: Option<u32>,
    /// The longest time that the server may take to end all streams once it is told to stop;
    /// `None`: it is not told.
    pub stop_server: Option<Duration>,
}

/// What may be lost without failing the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowed {
    Nothing,
    /// Messages whose loss a `stream-reset` has told.
    Told,
    Anything,
}

/// How streams are opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Streams per second; `None`: as fast as the server takes them.
    pub rate: Option<u32>,
    /// From the first packet to the end of the response head.
    pub timeout: Duration,
}

/// What happens once the streams are open.
#[expect(clippy::large_enum_variant, reason = "there is one, and it is never moved about")]
#[derive(Clone, Debug)]
pub enum Load {
    Publish(Publication),
    /// Somebody else publishes; the streams listen for so long.
    Listen(Duration),
}

#[derive(Clone, Debug)]
pub struct Publication {
    pub sink: Sink,
    /// Messages, over all channels.
    pub messages: u32,
    pub schedule: Schedule,
    /// Length of a payload.
    pub bytes: usize,
    /// Connections to publish over, in parallel.
    ///
    /// Invariant: at least 1, and at most as many as channels.
    pub connections: u32,
    pub choice: Choice,
    pub closing: Option<Closing>,
}

/// Which channel is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    InTurn,
    Random,
}

/// One more message to each channel, once all others are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Silence before it.
    pub after: Duration,
    /// Average time between two of them.
    pub interval: Duration,
}

/// Where messages are published.
#[derive(Clone, Debug)]
pub enum Sink {
    Redis {
        server: RedisAddress,
        channel: Template,
        /// `None`: a plain PUBLISH.
        history: Option<HistoryOptions>,
    },
    Http(Box<Posting>),
}

/// How messages are published by HTTP.
#[derive(Clone, Debug)]
pub struct Posting {
    pub target: Target,
    pub body: Wrapping,
    /// Requests that may wait for their answers.
    ///
    /// Invariant: at least 1.
    pub unanswered_max: u32,
}

/// What stands before and behind a message in the body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrapping {
    pub before: String,
    pub behind: String,
}

impl Wrapping {
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (before, behind) =
            text.split_once(MESSAGE).ok_or_else(|| format!("expected {MESSAGE} in it"))?;
        Ok(Self { before: before.to_owned(), behind: behind.to_owned() })
    }
}

/// How the server is compared with the floor.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub rounds: u32,
    /// Threads of the floor.
    pub workers: usize,
    /// What the floor subscribes to; `None`: an embedded broker of its own.
    pub redis: Option<RedisAddress>,
}

/// What the floor is told.
#[derive(Clone, Debug)]
pub struct FloorOptions {
    pub listen: SocketAddr,
    pub workers: usize,
    pub channel: String,
    /// `None`: an embedded broker of its own.
    pub redis: Option<RedisAddress>,
}

/// The place of the message in a body.
const MESSAGE: &str = "{message}";

/// Most messages of a test.
pub const MESSAGES_MAX: u32 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_somewhere_in_a_body() {
        let wrapping = |text| Wrapping::parse(text).map(|body| (body.before, body.behind));
        assert_eq!(wrapping("{message}"), Ok((String::new(), String::new())));
        let json = r#"{"data": "{message}"}"#;
        assert_eq!(wrapping(json), Ok((r#"{"data": ""#.to_owned(), r#""}"#.to_owned())));
        assert!(wrapping("{}").is_err());
    }
}
