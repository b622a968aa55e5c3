//! All clients and what they hear: bytes of commands in, bytes of replies and messages out. No
//! socket; the event loop moves the bytes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::client::{Client, ClientId};
use super::glob;
use super::history::History;
use super::output::Message;
use super::table::Table;
use super::{BrokerCounters, BrokerOptions};
use crate::bytes::history::{ENVELOPE_BYTES_MAX, EventId, Publication};
use crate::bytes::resp_request::RequestBounds;
use crate::ground::limits;
use crate::sys::clock;

/// The broker without its sockets.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) options: BrokerOptions,
    pub(super) counters: Arc<BrokerCounters>,
    pub(super) started: Instant,
    pub(super) channels: Table,
    pub(super) patterns: Table,
    pub(super) shards: Table,
    pub(super) history: History,
    pub(super) clients: Vec<Slot>,
    free: Vec<u32>,
    /// Clients so far, which numbers them.
    opened: u64,
    /// Slots of clients with output that nobody has tried to write yet.
    pub(super) unwritten: Vec<u32>,
    /// Bytes added to these outputs.
    pub(super) unwritten_bytes: usize,
    message: Message,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: u32,
    /// `None` also while the client's own command is executed, which has it out.
    pub(super) client: Option<Box<Client>>,
}

/// Which namespace a channel is in. Shard channels know no patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Global,
    Shard,
}

impl Hub {
    pub(super) fn new(options: BrokerOptions, counters: Arc<BrokerCounters>) -> Self {
        let password = options.password.filter(|password| !password.is_empty());
        let history = History::new(
            options.history_bytes_max,
            milliseconds(options.history_ttl),
            now_ms(),
            Arc::clone(&counters),
        );
        Self {
            options: BrokerOptions { password, ..options },
            counters,
            history,
            started: clock::now(),
            channels: Table::default(),
            patterns: Table::default(),
            shards: Table::default(),
            clients: Vec::new(),
            free: Vec::new(),
            opened: 0,
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            message: Message::default(),
        }
    }

    /// Admits a client, unless there are [`limits::BROKER_CLIENTS_MAX`].
    pub(super) fn open(&mut self) -> Option<ClientId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.clients.len() < limits::BROKER_CLIENTS_MAX => {
                self.clients.push(Slot::default());
                u32::try_from(self.clients.len() - 1).ok()?
            }
            None => return None,
        };
        let entry = self.clients.get_mut(slot as usize)?;
        self.opened += 1;
        let authenticated = self.options.password.is_none();
        entry.client = Some(Box::new(Client::new(slot, self.opened, authenticated)));
        self.counters.clients.add(1);
        self.counters.accepted.add(1);
        Some(ClientId { slot, generation: entry.generation })
    }

    /// Forgets a client whose connection is gone.
    pub(super) fn close(&mut self, id: ClientId) {
        let Some(mut client) = self.take(id) else { return };
        self.unsubscribe_all(&mut client);
        if let Some(entry) = self.clients.get_mut(id.slot as usize) {
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(id.slot);
            self.counters.clients.subtract(1);
        }
    }

    pub(super) fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.entry(id)?.client.as_deref_mut()
    }

    /// The id of the client that has this slot now.
    pub(super) fn id_of(&self, slot: u32) -> Option<ClientId> {
        let entry = self.clients.get(slot as usize)?;
        Some(ClientId { slot, generation: entry.generation })
    }

    /// Takes the slots of clients with output that nobody has tried to write yet.
    pub(super) fn take_unwritten(&mut self) -> Vec<u32> {
        self.unwritten_bytes = 0;
        self.message.clear();
        let unwritten = std::mem::take(&mut self.unwritten);
        for &slot in &unwritten {
            let entry = self.clients.get_mut(slot as usize);
            if let Some(client) = entry.and_then(|entry| entry.client.as_deref_mut()) {
                client.is_listed = false;
            }
        }
        unwritten
    }

    /// Bytes of output that nobody has tried to write yet, roughly.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    /// What a command of this client may be. A short limit on events must not be one on passwords.
    pub(super) fn bounds(&self, client: &Client) -> RequestBounds {
        RequestBounds {
            authenticated: client.authenticated,
            bulk_bytes_max: self.options.payload_bytes_max.max(limits::BROKER_BULK_BYTES_MIN),
        }
    }

    /// Publishes a message as PUBLISH does, and answers how many hear it. Where the channel has a
    /// history, the message is kept.
    pub(super) fn publish(
        &mut self,
        publisher: &mut Client,
        scope: Scope,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        let kept = self.options.history.of(channel).filter(|_| scope == Scope::Global);
        let Some(kept) = kept else { return self.send(publisher, scope, channel, payload) };
        let ttl_ms = milliseconds(self.options.history_ttl);
        let publication =
            Publication { channel, kept, ttl_ms, payload, event: b"", bytes_max: None };
        self.publish_to_history(publisher, &publication).1
    }

    /// Keeps an event and sends it in its envelope. Answers its id, and how many hear it.
    pub(super) fn publish_to_history(
        &mut self,
        publisher: &mut Client,
        publication: &Publication<'_>,
    ) -> (EventId, usize) {
        let envelope = self.history.publish(publication, now_ms());
        let mut message = Vec::with_capacity(ENVELOPE_BYTES_MAX + publication.payload.len());
        envelope.encode(&mut message);
        (envelope.id, self.send(publisher, Scope::Global, publication.channel, &message))
    }

    /// Sends a message to all who hear the channel, and answers how many did: a client counts once
    /// for the channel and once for each of its patterns. O(n) in them and in all patterns.
    fn send(
        &mut self,
        publisher: &mut Client,
        scope: Scope,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        self.counters.published.add(1);
        let Self { clients, unwritten, unwritten_bytes, message, .. } = self;
        let mut receivers = 0;
        let mut send = |strings: &[&[u8]], subscribers: &[u32]| {
            message.encode(strings, payload, receivers > 0);
            receivers += subscribers.len();
            *unwritten_bytes += subscribers.len() * payload.len();
            for &slot in subscribers {
                if slot == publisher.slot {
                    publisher.deferred.push(publisher.protocol.push(), message);
                } else if let Some(client) =
                    clients.get_mut(slot as usize).and_then(|entry| entry.client.as_deref_mut())
                {
                    client.output.push(client.protocol.push(), message);
                    list(client, unwritten);
                }
            }
        };
        let (kind, table): (&[u8], _) = match scope {
            Scope::Global => (b"message", &self.channels),
            Scope::Shard => (b"smessage", &self.shards),
        };
        let subscribers = table.subscribers(channel);
        if !subscribers.is_empty() {
            send(&[kind, channel], subscribers);
        }
        if scope == Scope::Global {
            for (pattern, subscribers) in self.patterns.iter() {
                if glob::matches(pattern, channel) {
                    send(&[b"pmessage", pattern, channel], subscribers);
                }
            }
        }
        self.counters.delivered.add(receivers as u64);
        receivers
    }

    /// Lets a client hear nothing any more.
    pub(super) fn unsubscribe_all(&mut self, client: &mut Client) {
        self.channels.unsubscribe_all(&mut client.channels).for_each(drop);
        self.patterns.unsubscribe_all(&mut client.patterns).for_each(drop);
        self.shards.unsubscribe_all(&mut client.shards).for_each(drop);
    }

    /// Takes a client out of its slot.
    pub(super) fn take(&mut self, id: ClientId) -> Option<Box<Client>> {
        self.entry(id)?.client.take()
    }

    fn entry(&mut self, id: ClientId) -> Option<&mut Slot> {
        self.clients.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }
}

/// Milliseconds since 1970, the time of day.
pub(super) fn now_ms() -> u64 {
    milliseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Lists a client that has output.
pub(super) fn list(client: &mut Client, unwritten: &mut Vec<u32>) {
    if !client.is_listed {
        client.is_listed = true;
        unwritten.push(client.slot);
    }
}
