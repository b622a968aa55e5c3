//! Which channel a message goes to, and over which connection it is published.
//!
//! Messages of a channel all take one connection, or they would arrive in any order. So connection
//! `k` of `p` has the messages `k`, `k + p`, `k + 2p` and so on, and the channels likewise. What is
//! drawn depends on the test's token alone: whoever knows it knows what every channel gets.

use super::options::{Choice, Publication};

/// The messages of one connection, one after another.
#[derive(Debug)]
pub(super) struct Draw {
    connection: u32,
    connections: u32,
    choice: Choice,
    random: fastrand::Rng,
    /// Messages so far.
    taken: u32,
    messages: u32,
    /// Per channel of this connection, the sequence number that comes next.
    ///
    /// Invariant: not empty.
    sequences: Vec<u32>,
}

/// A message: its place among all, its channel, and its place among those of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) number: u32,
    pub(super) channel: u32,
    pub(super) sequence: u32,
}

impl Draw {
    /// The messages of a test that go over `connection`.
    pub(super) fn new(
        publication: &Publication,
        token: u32,
        channels: u32,
        connection: u32,
    ) -> Self {
        let connections = publication.connections;
        Self {
            connection,
            connections,
            choice: publication.choice,
            random: fastrand::Rng::with_seed(u64::from(token) << 32 | u64::from(connection)),
            taken: 0,
            messages: share(publication.messages, connections, connection),
            sequences: vec![0; wide(share(channels, connections, connection))],
        }
    }

    /// One more message for each channel, after `counts` of them.
    pub(super) fn closing(publication: &Publication, counts: &[u32], connection: u32) -> Self {
        let connections = publication.connections;
        let own = counts.iter().skip(wide(connection)).step_by(wide(connections));
        let sequences: Vec<u32> = own.copied().collect();
        Self {
            connection,
            connections,
            choice: Choice::InTurn,
            random: fastrand::Rng::with_seed(0),
            taken: 0,
            messages: u32::try_from(sequences.len()).unwrap_or(u32::MAX),
            sequences,
        }
    }

    pub(super) fn messages(&self) -> u32 {
        self.messages
    }

    /// The place of the next message among all; `None` after the last one.
    pub(super) fn next_number(&self) -> Option<u32> {
        (self.taken < self.messages).then(|| self.connection + self.connections * self.taken)
    }

    pub(super) fn take(&mut self) -> Option<Message> {
        let number = self.next_number()?;
        let owned = u32::try_from(self.sequences.len()).unwrap_or(u32::MAX);
        let place = match self.choice {
            Choice::InTurn => self.taken % owned.max(1),
            Choice::Random => self.random.u32(..owned.max(1)),
        };
        self.taken += 1;
        let sequence = self.sequences.get_mut(wide(place))?;
        *sequence += 1;
        let channel = self.connection + self.connections * place;
        Some(Message { number, channel, sequence: *sequence - 1 })
    }
}

/// How many messages each channel gets. O(messages).
pub(super) fn counts(publication: &Publication, token: u32, channels: u32) -> Vec<u32> {
    let mut counts = vec![0; wide(channels)];
    for connection in 0..publication.connections {
        let mut draw = Draw::new(publication, token, channels, connection);
        while let Some(message) = draw.take() {
            if let Some(count) = counts.get_mut(wide(message.channel)) {
                *count += 1;
            }
        }
    }
    counts
}

/// Of `all`, dealt out to `connections` in turn, those of one.
fn share(all: u32, connections: u32, connection: u32) -> u32 {
    all / connections + u32::from(connection < all % connections)
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::options::{Posting, Sink, Wrapping};
    use super::super::schedule::Schedule;
    use super::super::target::Target;
    use super::*;

    fn publication(messages: u32, connections: u32, choice: Choice) -> Publication {
        let target = Target::parse("http://h/").unwrap();
        let posting = Posting { target, body: Wrapping::default(), unanswered_max: 1 };
        Publication {
            sink: Sink::Http(Box::new(posting)),
            messages,
            schedule: Schedule { interval: None, burst: 1 },
            bytes: 0,
            connections,
            choice,
            closing: None,
        }
    }

    fn drawn(publication: &Publication, channels: u32) -> Vec<Message> {
        let draws = (0..publication.connections)
            .map(|connection| Draw::new(publication, 7, channels, connection));
        draws.flat_map(|mut draw| std::iter::from_fn(move || draw.take())).collect()
    }

    #[test]
    fn one_connection_serves_the_channels_in_turn() {
        let messages = drawn(&publication(7, 1, Choice::InTurn), 3);
        let channels: Vec<u32> = messages.iter().map(|message| message.channel).collect();
        assert_eq!(channels, [0, 1, 2, 0, 1, 2, 0]);
        let sequences: Vec<u32> = messages.iter().map(|message| message.sequence).collect();
        assert_eq!(sequences, [0, 0, 0, 1, 1, 1, 2]);
    }

    #[test]
    fn every_message_has_one_place_and_every_channel_one_connection() {
        for choice in [Choice::InTurn, Choice::Random] {
            for (messages, channels, connections) in [(20, 7, 3), (1, 4, 4), (100, 5, 1), (9, 9, 2)]
            {
                let publication = publication(messages, connections, choice);
                let drawn = drawn(&publication, channels);
                let numbers: HashSet<u32> = drawn.iter().map(|message| message.number).collect();
                assert_eq!(numbers, (0..messages).collect(), "{publication:?}");
                let of_channel = |channel| {
                    drawn.iter().filter(move |message: &&Message| message.channel == channel)
                };
                let counts = counts(&publication, 7, channels);
                for (channel, count) in (0..channels).zip(&counts) {
                    let sequences: Vec<u32> =
                        of_channel(channel).map(|message| message.sequence).collect();
                    assert_eq!(sequences, (0..*count).collect::<Vec<u32>>(), "{publication:?}");
                    let connection = |message: &Message| message.number % connections;
                    assert!(of_channel(channel).all(|m| connection(m) == channel % connections));
                }
                assert_eq!(counts.iter().sum::<u32>(), messages);
            }
        }
    }

    #[test]
    fn random_channels_depend_on_the_token_alone() {
        let publication = publication(1000, 2, Choice::Random);
        let counts_of = |token| counts(&publication, token, 10);
        assert_eq!(counts_of(1), counts_of(1));
        assert_ne!(counts_of(1), counts_of(2));
        assert!(counts_of(1).iter().all(|count| (50..150).contains(count)), "{:?}", counts_of(1));
    }

    #[test]
    fn closing_messages_continue_every_channel_once() {
        let publication = publication(100, 3, Choice::Random);
        let counts = [4, 0, 7, 1];
        let mut closing: Vec<Message> = (0..3)
            .map(|connection| Draw::closing(&publication, &counts, connection))
            .flat_map(|mut draw| std::iter::from_fn(move || draw.take()))
            .collect();
        closing.sort_by_key(|message| message.channel);
        let found: Vec<(u32, u32)> = closing.iter().map(|m| (m.channel, m.sequence)).collect();
        assert_eq!(found, [(0, 4), (1, 0), (2, 7), (3, 1)]);
    }
}
