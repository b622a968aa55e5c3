//! EVAL of the scripts that publishers use: Laravel's, which publishes to several channels, and the
//! one that keeps events.

use std::borrow::Cow;

use super::super::client::Client;
use super::super::hub::{Hub, Scope};
use super::pubsub::unpublishable;
use super::{history, keys_and_values, syntax_error};
use crate::bytes::history::SCRIPT;

/// A script that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Publishes one payload to several channels.
    Publish,
    /// Publishes an event and keeps it.
    History,
}

/// Laravel's script, as its Redis broadcaster sends it.
const PUBLISH_SCRIPT: &str = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend";

/// SHA-1 of the script.
const PUBLISH_SCRIPT_SHA1: &str = "6f799f6e3f4ab9f8b891f6405d5fc1348a6a0595";

/// SHA-1 of the script that keeps events.
const HISTORY_SCRIPT_SHA1: &str = "ec2fb26f3f8ece87d7938d676479ed2460a39c3f";

const OTHER_SCRIPT: &str = "ERR only corecast's own script is known here, and this one: for i = 2, \
                            #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end";

pub(super) fn eval(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, script, keys, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    evaluate(Script::of(script).ok_or(OTHER_SCRIPT), keys, rest, hub, client);
}

pub(super) fn evalsha(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, sha1, keys, rest @ ..] = arguments else {
        return syntax_error(hub, client, arguments);
    };
    let sha1 = sha1.to_ascii_lowercase();
    let script = Script::ALL.into_iter().find(|script| script.sha1().as_bytes() == sha1);
    let unknown = "NOSCRIPT No matching script. Please use EVAL.";
    evaluate(script.ok_or(unknown), keys, rest, hub, client);
}

pub(super) fn load(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, _, script] = arguments else { return syntax_error(hub, client, arguments) };
    match Script::of(script) {
        Some(script) => client.reply().bulk(script.sha1()),
        None => client.reply().error(OTHER_SCRIPT),
    }
}

pub(super) fn exists(_: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let names = arguments.get(2..).unwrap_or_default();
    let mut reply = client.reply();
    reply.array(names.len());
    for sha1 in names {
        let is_known = Script::ALL.iter().any(|script| script.sha1().as_bytes() == &**sha1);
        reply.integer(is_known.into());
    }
}

/// Runs a script with `rest`, the first of which are `keys` keys. If it is not known, the error
/// says so; as in Redis only after the keys were counted.
fn evaluate(
    script: Result<Script, &str>,
    keys: &[u8],
    rest: &[Cow<'_, [u8]>],
    hub: &mut Hub,
    client: &mut Client,
) {
    let not_a_number = "ERR value is not an integer or out of range";
    let (keys, values) = match keys_and_values(keys, rest, not_a_number) {
        Ok(parts) => parts,
        Err(error) => return client.reply().error(error),
    };
    match script {
        Ok(Script::Publish) => publish_to_all(values, hub, client),
        Ok(Script::History) => history::publish(keys, values, hub, client),
        Err(error) => client.reply().error(error),
    }
}

fn publish_to_all(values: &[Cow<'_, [u8]>], hub: &mut Hub, client: &mut Client) {
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

impl Script {
    const ALL: [Self; 2] = [Self::Publish, Self::History];

    /// The script with this text; Laravel's however it is indented.
    fn of(text: &[u8]) -> Option<Self> {
        if text == SCRIPT.as_bytes() {
            Some(Self::History)
        } else {
            is_publish_script(text).then_some(Self::Publish)
        }
    }

    fn sha1(self) -> &'static str {
        match self {
            Self::Publish => PUBLISH_SCRIPT_SHA1,
            Self::History => HISTORY_SCRIPT_SHA1,
        }
    }
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
