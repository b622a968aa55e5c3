//! Commands on their way: the bytes not yet sent, and what is not yet answered, oldest first.
//!
//! Redis answers in the order in which it was asked, so an answer belongs to the oldest command. A
//! SUBSCRIBE that succeeds has no answer but a push for each of its channels.

use std::collections::VecDeque;

use super::LinkError;
use crate::bytes::history::{Newest, ReadCall};
use crate::bytes::resp::{self, Incoming, Reply};
use crate::ground::ids::ChannelId;
use crate::state::recent::HistoryRead;
use crate::state::streams::ClockWish;

/// A command whose answer is to come.
#[derive(Debug)]
pub(super) enum Sent {
    Hello,
    Auth,
    Role,
    SetName,
    Select,
    Ping,
    /// SUBSCRIBE to the channel on which probes arrive.
    SubscribeProbe,
    Subscribe {
        channels: Vec<ChannelId>,
        names: Vec<Vec<u8>>,
        acknowledged: usize,
    },
    Unsubscribe {
        left: usize,
    },
    /// Something about events that are kept.
    History(Asked),
}

/// A command about events that are kept, whose answer is to come.
#[derive(Debug)]
pub(super) enum Asked {
    /// Of a transaction, all but its EXEC.
    Queued,
    /// EXEC of what asks for the clock.
    Clock(ClockWish),
    /// A page of a channel's history, or ids of its newest events.
    Read(Question),
    /// The oldest event of a channel, since a page was empty.
    Oldest(HistoryRead),
    /// The newest id of each channel.
    Newest {
        channels: Vec<ChannelId>,
        names: Vec<Vec<u8>>,
        call: ReadCall,
    },
    /// Its answer changes nothing.
    Unheeded,
    /// FUNCTION LOAD of what reads history.
    LoadReader,
    LoadFunction,
    Memory,
    /// The note that a channel has events beside those that are kept.
    Mark,
}

/// A question for history.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) read: HistoryRead,
    pub(super) name: Vec<u8>,
    pub(super) call: ReadCall,
    pub(super) event_bytes_max: usize,
    /// The newest ids as far as plain commands have told them, which bring the events too.
    pub(super) told: Option<Newest>,
}

impl Asked {
    /// Whether this can be an answer to it. Otherwise all answers are taken for those to the next
    /// questions, and channels get each other's events.
    pub(super) fn allows(&self, reply: &Reply<'_>) -> bool {
        match (self, reply) {
            (_, Reply::Error(_)) => true,
            (_, Reply::Pong) => false,
            (Self::Clock(_) | Self::Read(_) | Self::Oldest(_) | Self::Newest { .. }, reply) => {
                matches!(reply, Reply::Other(_))
            }
            _ => true,
        }
    }
}

/// What came, matched with what had been asked.
#[derive(Debug)]
pub(super) enum Settled<'a> {
    /// The channel's subscription stands.
    Subscribed(&'a [u8]),
    /// The answer to this command.
    Answered(Sent, Reply<'a>),
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Commands {
    output: Vec<u8>,
    sent: VecDeque<Sent>,
}

impl Commands {
    /// Adds a command; `sent` says what its answer means.
    pub(super) fn push(&mut self, arguments: &[&[u8]], sent: Sent) {
        resp::encode_command(arguments, &mut self.output);
        self.sent.push_back(sent);
    }

    /// Adds one SUBSCRIBE for all channels.
    pub(super) fn subscribe(&mut self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>) {
        debug_assert!(channels.len() == names.len() && !channels.is_empty());
        self.encode("SUBSCRIBE", &names);
        self.sent.push_back(Sent::Subscribe { channels, names, acknowledged: 0 });
    }

    /// Adds one UNSUBSCRIBE for all channels, of which there is at least one.
    pub(super) fn unsubscribe(&mut self, names: &[Vec<u8>]) {
        debug_assert!(!names.is_empty());
        self.encode("UNSUBSCRIBE", names);
        self.sent.push_back(Sent::Unsubscribe { left: names.len() });
    }

    /// Adds a command that is encoded elsewhere.
    pub(super) fn push_encoded(&mut self, encode: impl FnOnce(&mut Vec<u8>), sent: Sent) {
        encode(&mut self.output);
        self.sent.push_back(sent);
    }

    /// The bytes to be sent; what was sent is to be taken from the start.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Matches what came with the command it belongs to.
    ///
    /// # Errors
    /// [`LinkError::OutOfStep`] if nothing that was asked is answered by it.
    pub(super) fn settle<'a>(&mut self, incoming: Incoming<'a>) -> Result<Settled<'a>, LinkError> {
        match (incoming, self.sent.front_mut()) {
            (Incoming::Message { .. } | Incoming::Ignored, _) => Ok(Settled::Nothing),
            (
                Incoming::Subscribed { channel },
                Some(Sent::Subscribe { channels, acknowledged, .. }),
            ) => {
                *acknowledged += 1;
                if *acknowledged == channels.len() {
                    self.sent.pop_front();
                }
                Ok(Settled::Subscribed(channel))
            }
            (Incoming::Subscribed { .. }, Some(Sent::SubscribeProbe)) => {
                self.sent.pop_front();
                Ok(Settled::Nothing)
            }
            (Incoming::Unsubscribed { .. }, Some(Sent::Unsubscribe { left })) => {
                *left -= 1;
                if *left == 0 {
                    self.sent.pop_front();
                }
                Ok(Settled::Nothing)
            }
            (Incoming::Reply(reply), Some(_)) => match self.sent.pop_front() {
                Some(sent) => Ok(Settled::Answered(sent, reply)),
                None => Err(LinkError::OutOfStep),
            },
            _ => Err(LinkError::OutOfStep),
        }
    }

    fn encode(&mut self, name: &str, arguments: &[Vec<u8>]) {
        resp::encode_length(b'*', arguments.len() + 1, &mut self.output);
        resp::encode_bulk(name.as_bytes(), &mut self.output);
        arguments.iter().for_each(|argument| resp::encode_bulk(argument, &mut self.output));
    }
}
