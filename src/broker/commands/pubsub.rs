//! PUBLISH, SUBSCRIBE and their kin.

use std::borrow::Cow;

use super::super::client::Client;
use super::super::glob;
use super::super::hub::{Hub, Scope};
use super::super::table::{Subscriptions, Table};
use super::{shown, syntax_error};
use crate::ground::limits;

pub(super) fn publish(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    publish_in(Scope::Global, hub, client, arguments);
}

pub(super) fn spublish(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    publish_in(Scope::Shard, hub, client, arguments);
}

pub(super) fn subscribe(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    subscribe_to(Kind::Channel, hub, client, arguments);
}

pub(super) fn psubscribe(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    subscribe_to(Kind::Pattern, hub, client, arguments);
}

pub(super) fn ssubscribe(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    subscribe_to(Kind::Shard, hub, client, arguments);
}

pub(super) fn unsubscribe(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    unsubscribe_from(Kind::Channel, hub, client, arguments);
}

pub(super) fn punsubscribe(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    unsubscribe_from(Kind::Pattern, hub, client, arguments);
}

pub(super) fn sunsubscribe(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    unsubscribe_from(Kind::Shard, hub, client, arguments);
}

pub(super) fn channels(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    list(&hub.channels, client, arguments);
}

pub(super) fn shardchannels(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    list(&hub.shards, client, arguments);
}

pub(super) fn numsub(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    count(&hub.channels, client, arguments);
}

pub(super) fn shardnumsub(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    count(&hub.shards, client, arguments);
}

pub(super) fn numpat(hub: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().count(hub.patterns.len());
}

/// Why a message can't be published, if it can't.
pub(super) fn unpublishable(hub: &Hub, channel: &[u8], payload: &[u8]) -> Option<String> {
    if channel.len() > limits::BROKER_CHANNEL_BYTES_MAX {
        let max = limits::BROKER_CHANNEL_BYTES_MAX;
        return Some(format!("ERR channel name is longer than {max} bytes"));
    }
    let max = hub.options.payload_bytes_max;
    (payload.len() > max).then(|| format!("ERR payload is longer than {max} bytes"))
}

/// What a subscription names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    fn subscribe(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    fn unsubscribe(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }

    /// The names that all clients hear, and those that this one hears.
    fn tables<'a>(
        self,
        hub: &'a mut Hub,
        client: &'a mut Client,
    ) -> (&'a mut Table, &'a mut Subscriptions) {
        match self {
            Self::Channel => (&mut hub.channels, &mut client.channels),
            Self::Pattern => (&mut hub.patterns, &mut client.patterns),
            Self::Shard => (&mut hub.shards, &mut client.shards),
        }
    }

    /// The number that an acknowledgement reports: channels and patterns together, shards apart.
    fn count(self, client: &Client) -> usize {
        match self {
            Self::Channel | Self::Pattern => client.channels.len() + client.patterns.len(),
            Self::Shard => client.shards.len(),
        }
    }
}

fn publish_in(scope: Scope, hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, channel, payload] = arguments else { return syntax_error(hub, client, arguments) };
    if let Some(error) = unpublishable(hub, channel, payload) {
        return client.reply().error(error);
    }
    let receivers = hub.publish(client, scope, channel, payload);
    client.reply().count(receivers);
}

fn subscribe_to(kind: Kind, hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let names = arguments.get(1..).unwrap_or_default();
    if let Some(error) = unsubscribable(kind, hub, client, names) {
        return client.reply().error(error);
    }
    for name in names {
        let (table, own) = kind.tables(hub, client);
        table.subscribe(name, own);
        acknowledge(kind.subscribe(), Some(name), kind.count(client), client);
    }
}

/// Why a client can't have these subscriptions, if it can't.
fn unsubscribable(
    kind: Kind,
    hub: &Hub,
    client: &Client,
    names: &[Cow<'_, [u8]>],
) -> Option<String> {
    let bytes_max = match kind {
        Kind::Channel | Kind::Shard => limits::BROKER_CHANNEL_BYTES_MAX,
        Kind::Pattern => limits::BROKER_PATTERN_BYTES_MAX,
    };
    if names.iter().any(|name| name.len() > bytes_max) {
        return Some(format!("ERR name is longer than {bytes_max} bytes"));
    }
    if kind == Kind::Pattern && hub.patterns.len() + names.len() > limits::BROKER_PATTERNS_MAX {
        return Some(format!("ERR more than {} patterns", limits::BROKER_PATTERNS_MAX));
    }
    let max = limits::BROKER_SUBSCRIPTIONS_MAX;
    (kind.count(client) + names.len() > max).then(|| format!("ERR more than {max} subscriptions"))
}

fn unsubscribe_from(kind: Kind, hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let names = arguments.get(1..).unwrap_or_default();
    for name in names {
        let (table, own) = kind.tables(hub, client);
        table.unsubscribe(name, own);
        acknowledge(kind.unsubscribe(), Some(name), kind.count(client), client);
    }
    if !names.is_empty() {
        return;
    }
    let (table, own) = kind.tables(hub, client);
    let names: Vec<_> = table.unsubscribe_all(own).collect();
    let left = kind.count(client);
    for (name, more) in names.iter().zip((0..names.len()).rev()) {
        acknowledge(kind.unsubscribe(), Some(name), left + more, client);
    }
    if names.is_empty() {
        acknowledge(kind.unsubscribe(), None, left, client);
    }
}

fn acknowledge(what: &str, name: Option<&[u8]>, count: usize, client: &mut Client) {
    let mut reply = client.reply();
    reply.push(3);
    reply.bulk(what);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.count(count);
}

/// PUBSUB CHANNELS. O(n) in all names.
fn list(table: &Table, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let pattern = match arguments {
        [_, _] => None,
        [_, _, pattern] => Some(pattern),
        [_, subcommand, ..] => {
            let subcommand = shown(subcommand);
            let parts: [&[u8]; 3] = [
                b"ERR unknown subcommand or wrong number of arguments for '",
                subcommand,
                b"'. Try PUBSUB HELP.",
            ];
            return client.reply().error(parts.concat());
        }
        _ => return client.reply().error("ERR syntax error"),
    };
    let matching = |name: &&[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
    let names: Vec<&[u8]> = table.iter().map(|(name, _)| name).filter(matching).collect();
    let mut reply = client.reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
}

/// PUBSUB NUMSUB.
fn count(table: &Table, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let names = arguments.get(2..).unwrap_or_default();
    let mut reply = client.reply();
    reply.array(names.len() * 2);
    for name in names {
        reply.bulk(name);
        reply.count(table.subscribers(name).len());
    }
}
