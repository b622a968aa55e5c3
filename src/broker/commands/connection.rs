//! Commands about the connection itself: who the client is and what it speaks.

use std::borrow::Cow;

use super::super::client::{Client, State};
use super::super::hub::Hub;
use super::super::reply::Protocol;
use super::{integer, shown, syntax_error};
use crate::broker::REDIS_VERSION;

/// HELLO [version [AUTH user password] [SETNAME name]].
pub(super) fn hello(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let protocol = match arguments.get(1).map(|version| integer(version)) {
        None => client.protocol,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return client.reply().error("NOPROTO unsupported protocol version"),
        Some(None) => {
            let text = "ERR Protocol version is not an integer or out of range";
            return client.reply().error(text);
        }
    };
    let mut login = None;
    let mut name = None;
    let mut rest = arguments.get(2..).unwrap_or_default();
    while let Some(option) = rest.first() {
        rest = match rest {
            [_, user, password, after @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                login = Some((user, password));
                after
            }
            [_, given, after @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                if !is_attribute(given) {
                    return client.reply().error(INVALID_NAME);
                }
                name = Some(given);
                after
            }
            _ => {
                let parts = [b"ERR Syntax error in HELLO option '", shown(option), b"'"];
                return client.reply().error(parts.concat());
            }
        };
    }
    if let Some((user, password)) = login {
        if !may_log_in(hub, user, password) {
            return client.reply().error(WRONG_PASSWORD);
        }
        client.authenticated = true;
    }
    if !client.authenticated {
        return client.reply().error(HELLO_WITHOUT_AUTH);
    }
    if let Some(name) = name {
        client.name = name.to_vec();
    }
    client.protocol = protocol;
    describe(client);
}

/// The answer to HELLO.
fn describe(client: &mut Client) {
    let number = i64::try_from(client.number).unwrap_or(i64::MAX);
    let mut reply = client.reply();
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key);
        reply.bulk(value);
    }
    reply.bulk("proto");
    reply.integer(reply.protocol.number());
    reply.bulk("id");
    reply.integer(number);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key);
        reply.bulk(value);
    }
    reply.bulk("modules");
    reply.array(0);
}

/// AUTH [user] password.
pub(super) fn auth(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let (user, password): (&[u8], _) = match arguments {
        [_, _] if hub.options.password.is_none() => {
            return client.reply().error(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            );
        }
        [_, password] => (USER, password),
        [_, user, password] => (user, password),
        _ => return syntax_error(hub, client, arguments),
    };
    if may_log_in(hub, user, password) {
        client.authenticated = true;
        client.reply().ok();
    } else {
        client.reply().error(WRONG_PASSWORD);
    }
}

pub(super) fn ping(_: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let text = match arguments {
        [_] => None,
        [_, text] => Some(text),
        _ => {
            return client.reply().error("ERR wrong number of arguments for 'ping' command");
        }
    };
    let looks_like_push = client.protocol == Protocol::Resp2 && client.is_subscribed();
    let mut reply = client.reply();
    match text {
        _ if looks_like_push => {
            reply.array(2);
            reply.bulk("pong");
            reply.bulk(text.map_or(&[][..], AsRef::as_ref));
        }
        Some(text) => reply.bulk(text),
        None => reply.simple("PONG"),
    }
}

pub(super) fn echo(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, text] = arguments else { return syntax_error(hub, client, arguments) };
    client.reply().bulk(text);
}

pub(super) fn quit(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().ok();
    client.state = State::Finishing;
}

pub(super) fn reset(hub: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    hub.unsubscribe_all(client);
    client.transaction = None;
    client.protocol = Protocol::Resp2;
    client.authenticated = hub.options.password.is_none();
    client.name = Vec::new();
    client.reply().simple("RESET");
}

/// SELECT. Channels are the same in all databases, so any number will do.
pub(super) fn select(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, index] = arguments else { return syntax_error(hub, client, arguments) };
    match integer(index) {
        Some(0..) => client.reply().ok(),
        Some(_) => client.reply().error("ERR DB index is out of range"),
        None => client.reply().error("ERR value is not an integer or out of range"),
    }
}

pub(super) fn client_id(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    let number = i64::try_from(client.number).unwrap_or(i64::MAX);
    client.reply().integer(number);
}

pub(super) fn client_getname(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    if client.name.is_empty() {
        client.reply().null();
    } else {
        let name = client.name.clone();
        client.reply().bulk(name);
    }
}

pub(super) fn client_setname(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, _, name] = arguments else { return syntax_error(hub, client, arguments) };
    if is_attribute(name) {
        client.name = name.to_vec();
        client.reply().ok();
    } else {
        client.reply().error(INVALID_NAME);
    }
}

/// CLIENT SETINFO. Nobody asks which library a client uses, so it is only checked.
pub(super) fn client_setinfo(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let [_, _, attribute, value] = arguments else { return syntax_error(hub, client, arguments) };
    let known: [&[u8]; 2] = [b"lib-name", b"lib-ver"];
    let attribute = shown(attribute);
    if !known.iter().any(|known| attribute.eq_ignore_ascii_case(known)) {
        return client.reply().error([b"ERR Unrecognized option '", attribute, b"'"].concat());
    }
    if !is_attribute(value) {
        let words = b" cannot contain spaces, newlines or special characters.";
        return client.reply().error([b"ERR ", attribute, words].concat());
    }
    client.reply().ok();
}

/// CLIENT NO-EVICT and NO-TOUCH, which are about memory and keys that are not here.
pub(super) fn client_switch(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    match arguments {
        [_, _, switch]
            if switch.eq_ignore_ascii_case(b"on") || switch.eq_ignore_ascii_case(b"off") =>
        {
            client.reply().ok();
        }
        _ => syntax_error(hub, client, arguments),
    }
}

/// The only user.
const USER: &[u8] = b"default";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

const INVALID_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

const HELLO_WITHOUT_AUTH: &str = "NOAUTH HELLO must be called with the client already \
     authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to \
     authenticate the client and select the RESP protocol version at the same time";

/// Whether it is the user and its password, if there is one.
fn may_log_in(hub: &Hub, user: &[u8], given: &[u8]) -> bool {
    let is_right = hub.options.password.as_ref().is_none_or(|password| password.is(given));
    let may = user == USER && is_right;
    if !may {
        hub.counters.authentication_failures.add(1);
    }
    may
}

/// Whether Redis lets it be a client's name or the like: printable ASCII without spaces.
fn is_attribute(value: &[u8]) -> bool {
    shown(value).iter().all(u8::is_ascii_graphic)
}
