//! Commands about the server: what it is, and that it is no data store.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;

use super::super::client::Client;
use super::super::hub::Hub;
use crate::broker::REDIS_VERSION;
use crate::ground::limits;
use crate::sys::clock;

/// INFO [section …]. Clients look for the version, `role` and `loading`.
pub(super) fn info(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let asked = arguments.get(1..).unwrap_or_default();
    let is_asked = |section: &str| {
        asked.is_empty()
            || asked.iter().any(|name| {
                let groups = ["all", "default", "everything"];
                let mut names = groups.iter().chain([&section]);
                names.any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            })
    };
    let mut text = String::new();
    for (section, fields) in sections(hub) {
        if !is_asked(section) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        // Writing to a string can't fail.
        let _ = write!(text, "# {section}\r\n");
        for (field, value) in fields {
            let _ = write!(text, "{field}:{value}\r\n");
        }
    }
    client.reply().verbatim(&text);
}

/// COMMAND and COMMAND INFO: a client that knows no commands by name asks about none.
pub(super) fn no_commands(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().array(0);
}

pub(super) fn command_count(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().integer(0);
}

pub(super) fn command_docs(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().map(0);
}

pub(super) fn config_get(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().map(0);
}

/// GET. There are no keys, so each is missing; a client may look for one to see if we answer.
pub(super) fn get(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().null();
}

/// TIME: seconds since 1970, and microseconds.
pub(super) fn time(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut reply = client.reply();
    reply.array(2);
    reply.bulk(now.as_secs().to_string());
    reply.bulk(now.subsec_micros().to_string());
}

type Fields = Vec<(&'static str, String)>;

fn sections(hub: &Hub) -> [(&'static str, Fields); 6] {
    let uptime = clock::now().saturating_duration_since(hub.started).as_secs();
    let counters = &hub.counters;
    [
        (
            "Server",
            vec![
                ("redis_version", REDIS_VERSION.to_owned()),
                ("server_name", env!("CARGO_PKG_NAME").to_owned()),
                ("server_version", env!("CARGO_PKG_VERSION").to_owned()),
                ("redis_mode", "standalone".to_owned()),
                ("process_id", std::process::id().to_string()),
                ("uptime_in_seconds", uptime.to_string()),
            ],
        ),
        (
            "Clients",
            vec![
                ("connected_clients", counters.clients.get().to_string()),
                ("maxclients", limits::BROKER_CLIENTS_MAX.to_string()),
            ],
        ),
        ("Persistence", vec![("loading", "0".to_owned())]),
        (
            "Stats",
            vec![
                ("total_connections_received", counters.accepted.get().to_string()),
                ("total_commands_processed", counters.commands.get().to_string()),
                ("rejected_connections", counters.refused.get().to_string()),
                ("evicted_keys", "0".to_owned()),
                ("pubsub_channels", hub.channels.len().to_string()),
                ("pubsub_patterns", hub.patterns.len().to_string()),
                ("pubsubshard_channels", hub.shards.len().to_string()),
            ],
        ),
        ("Replication", vec![("role", "master".to_owned()), ("connected_slaves", "0".to_owned())]),
        ("Cluster", vec![("cluster_enabled", "0".to_owned())]),
    ]
}
