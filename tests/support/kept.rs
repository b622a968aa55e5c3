//! Publishing to history over plain connections.

use corecast::bytes::history::{self, Call, EventId, Publication};

use super::clock::eventually;
use super::redis::{Client, Redis, Reply};

/// Time to live of what the tests publish.
pub(crate) const TTL_MS: u64 = 600_000;

/// Longest payload that the tests may publish: of some, the servers are to see that it is too long.
const BYTES_MAX: usize = 64 << 20;

/// Loads the function for publishing, once Redis has loaded its data.
pub(crate) fn load_function(client: &mut Client) {
    let mut command = Vec::new();
    history::encode_load(&mut command);
    let reply = eventually("Redis has loaded", || {
        client.send_bytes(&command).unwrap();
        let reply = client.reply().unwrap();
        let is_loading = matches!(&reply, Reply::Error(text) if text.starts_with("LOADING"));
        (!is_loading).then_some(reply)
    });
    assert!(matches!(reply, Reply::Bulk(Some(_))), "FUNCTION LOAD answered {reply:?}");
}

/// A connection that publishes to history, and has loaded the function.
pub(crate) struct Publisher {
    pub(crate) client: Client,
    kept: usize,
}

impl Publisher {
    pub(crate) fn new(redis: &Redis) -> Self {
        Self::over(redis.client(), 1000)
    }

    /// Keeps `kept` events of each channel.
    pub(crate) fn over(mut client: Client, kept: usize) -> Self {
        load_function(&mut client);
        Self { client, kept }
    }

    pub(crate) fn publish(&mut self, channel: &str, payload: impl AsRef<[u8]>) -> EventId {
        self.try_publish(channel, payload).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// The error is that of the server.
    pub(crate) fn try_publish(
        &mut self,
        channel: &str,
        payload: impl AsRef<[u8]>,
    ) -> Result<EventId, String> {
        self.send(&[(channel.as_bytes(), payload.as_ref())]);
        match self.client.reply().unwrap() {
            Reply::Error(refusal) => Err(refusal),
            reply => Ok(id_of(&reply)),
        }
    }

    /// Publishes numbers, and returns the ids.
    pub(crate) fn publish_numbers(
        &mut self,
        channel: &str,
        numbers: std::ops::Range<u32>,
    ) -> Vec<EventId> {
        numbers.map(|number| self.publish(channel, number.to_string())).collect()
    }

    /// Publishes in one write; each has an answer, which [`Self::receive`] returns.
    pub(crate) fn send(&mut self, events: &[(&[u8], &[u8])]) {
        let mut bytes = Vec::new();
        for (channel, payload) in events {
            let (kept, ttl_ms) = (self.kept, TTL_MS);
            let publication = Publication {
                channel,
                kept,
                ttl_ms,
                payload,
                event: b"",
                bytes_max: Some(BYTES_MAX),
            };
            history::encode_publication(Call::Function, &publication, &mut bytes);
        }
        self.client.send_bytes(&bytes).unwrap();
    }

    pub(crate) fn receive(&mut self) -> EventId {
        id_of(&self.client.reply().unwrap())
    }
}

fn id_of(reply: &Reply) -> EventId {
    let id = match reply {
        Reply::Bulk(Some(text)) => EventId::parse(text),
        _ => None,
    };
    id.unwrap_or_else(|| panic!("the publisher was answered {reply:?}"))
}
