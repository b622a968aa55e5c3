//! What a load test is told.

use std::net::SocketAddr;
use std::time::Duration;

use super::schedule::Schedule;
use super::target::{Target, Template};
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
    /// Threads that hold the streams; `None`: as many as descriptors and cores ask for.
    pub threads: Option<usize>,
    pub opening: Opening,
    /// Silence between the last stream that opens and the first message.
    pub idle: Duration,
    pub load: Load,
    /// Silence after which messages that are missing are given up.
    pub patience: Duration,
    /// Processes of the server, whose memory and time are measured.
    pub server_pids: Vec<u32>,
    pub allow_loss: bool,
    pub json: bool,
    pub comparison: Option<Comparison>,
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
#[derive(Clone, Debug)]
pub enum Load {
    Publish(Publication),
    /// Somebody else publishes; the streams listen for so long.
    Listen(Duration),
}

#[derive(Clone, Debug)]
pub struct Publication {
    pub sink: Sink,
    /// Messages, sent to the channels in turn.
    pub messages: u32,
    pub schedule: Schedule,
    /// Length of a payload.
    pub bytes: usize,
}

/// Where messages are published.
#[derive(Clone, Debug)]
pub enum Sink {
    Redis { server: RedisAddress, channel: Template },
    Http(Target),
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

/// Most messages of a test: threads remember a figure for each.
pub const MESSAGES_MAX: u32 = 1_000_000;

impl Publication {
    /// Messages for a channel, of which there are `channels`.
    #[must_use]
    pub fn messages_of_channel(&self, channel: u32, channels: u32) -> u32 {
        self.messages / channels + u32::from(channel < self.messages % channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_share_the_messages_in_turn() {
        let sink = Sink::Http(Target::parse("http://h/").unwrap());
        for messages in 0..20 {
            for channels in 1..8 {
                let schedule = Schedule { interval: None, burst: 1 };
                let publication = Publication { sink: sink.clone(), messages, schedule, bytes: 0 };
                for channel in 0..channels {
                    let in_turn =
                        (0..messages).filter(|message| message % channels == channel).count();
                    let share = publication.messages_of_channel(channel, channels);
                    assert_eq!(share as usize, in_turn, "{messages} {channels} {channel}");
                }
            }
        }
    }
}
