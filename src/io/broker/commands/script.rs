//! EVAL of the one script that publishers use: Laravel's, which publishes to several channels.

use std::borrow::Cow;

use super::super::client::Client;
use super::super::hub::{Hub, Scope};
use super::pubsub::unpublishable;
use super::syntax_error;

/// Laravel's script, as its Redis broadcaster sends it.
const PUBLISH_SCRIPT: &str = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend";

/// SHA-1 of the script.
const PUBLISH_SCRIPT_SHA1: &str = "6f799f6e3f4ab9f8b891f6405d5fc1348a6a0595";

const OTHER_SCRIPT: &str = "ERR only one script is known here: for i = 2, #ARGV do \
                            redis.call('publish', ARGV[i], ARGV[1]) end";

pub(super) fn eval(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, script, keys, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    evaluate(is_publish_script(script), OTHER_SCRIPT, keys, rest, hub, client);
}

pub(super) fn evalsha(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, sha1, keys, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    let is_known = sha1.eq_ignore_ascii_case(PUBLISH_SCRIPT_SHA1.as_bytes());
    let unknown = "NOSCRIPT No matching script. Please use EVAL.";
    evaluate(is_known, unknown, keys, rest, hub, client);
}

pub(super) fn load(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, _, script] = arguments else { return syntax_error(hub, client, arguments) };
    if is_publish_script(script) {
        client.reply().bulk(PUBLISH_SCRIPT_SHA1);
    } else {
        client.reply().error(OTHER_SCRIPT);
    }
}

pub(super) fn exists(_: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let names = arguments.get(2..).unwrap_or_default();
    let mut reply = client.reply();
    reply.array(names.len());
    for sha1 in names {
        reply.integer((**sha1 == *PUBLISH_SCRIPT_SHA1.as_bytes()).into());
    }
}

/// Runs the publish script with `rest`, the first of which are `keys` keys. If it is another
/// script, the error is `unknown`; as in Redis only after the keys were counted.
fn evaluate(
    is_known: bool,
    unknown: &str,
    keys: &[u8],
    rest: &[Cow<'_, [u8]>],
    hub: &mut Hub,
    client: &mut Client,
) {
    let keys = match super::integer(keys) {
        Some(keys) if keys < 0 => {
            return client.reply().error("ERR Number of keys can't be negative");
        }
        Some(keys) => usize::try_from(keys).unwrap_or(usize::MAX),
        None => return client.reply().error("ERR value is not an integer or out of range"),
    };
    let Some(values) = rest.get(keys..) else {
        return client.reply().error("ERR Number of keys can't be greater than number of args");
    };
    if !is_known {
        return client.reply().error(unknown);
    }
    if let [payload, channels @ ..] = values {
        for channel in channels {
            if let Some(error) = unpublishable(hub, channel, payload) {
                return client.reply().error(error);
            }
            hub.publish(client, Scope::Global, channel, payload);
        }
    }
    client.reply().null();
}

/// Whether it is Laravel's script, however it is indented.
fn is_publish_script(script: &[u8]) -> bool {
    let without_space = |script: &[u8]| -> Vec<u8> {
        script.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
    };
    script.len() <= SCRIPT_BYTES_MAX
        && without_space(script) == without_space(PUBLISH_SCRIPT.as_bytes())
}

/// Ten times the script's own length; what is longer is another.
const SCRIPT_BYTES_MAX: usize = 10 * PUBLISH_SCRIPT.len();
