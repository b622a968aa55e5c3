//! The commands the broker knows, and what stands between a command and its execution.

use std::borrow::Cow;

use super::client::{Client, CloseReason, State};
use super::hub::Hub;
use super::reply::Protocol;
use crate::bytes::resp::encode_command;
use crate::ground::limits;

mod connection;
mod history;
mod pubsub;
mod reading;
mod script;
mod server;
mod transaction;

/// A command, or a subcommand by the name `command|subcommand`.
#[derive(Debug)]
struct Command {
    /// In lower case, as errors show it.
    name: &'static str,
    /// Its number of arguments including its name; if negative, the least number.
    arity: isize,
    run: Run,
    /// Whether a client may send it before it has authenticated.
    before_authentication: bool,
    /// Whether a subscribed RESP2 client may send it: such a one can't tell replies from messages.
    while_subscribed: bool,
    /// Whether MULTI queues it.
    queued: bool,
    subcommands: &'static [Self],
}

type Run = fn(&mut Hub, &mut Client, &[Cow<'_, [u8]>]);

/// The most frequent first.
static COMMANDS: &[Command] = &[
    Command::new("publish", 3, pubsub::publish),
    Command::new("ping", -1, connection::ping).while_subscribed(),
    Command::new("subscribe", -2, pubsub::subscribe).while_subscribed(),
    Command::new("unsubscribe", -1, pubsub::unsubscribe).while_subscribed(),
    Command::new("psubscribe", -2, pubsub::psubscribe).while_subscribed(),
    Command::new("punsubscribe", -1, pubsub::punsubscribe).while_subscribed(),
    Command::new("ssubscribe", -2, pubsub::ssubscribe).while_subscribed(),
    Command::new("sunsubscribe", -1, pubsub::sunsubscribe).while_subscribed(),
    Command::new("spublish", 3, pubsub::spublish),
    Command::new("pubsub", -2, syntax_error).with(&[
        Command::new("pubsub|channels", -2, pubsub::channels),
        Command::new("pubsub|numsub", -2, pubsub::numsub),
        Command::new("pubsub|numpat", 2, pubsub::numpat),
        Command::new("pubsub|shardchannels", -2, pubsub::shardchannels),
        Command::new("pubsub|shardnumsub", -2, pubsub::shardnumsub),
    ]),
    Command::new("fcall", -3, reading::fcall),
    Command::new("fcall_ro", -3, reading::fcall_ro),
    Command::new("xadd", -5, reading::xadd),
    Command::new("xrange", -4, history::xrange),
    Command::new("xrevrange", -4, history::xrevrange),
    Command::new("xlen", 2, history::xlen),
    Command::new("exists", -2, history::exists),
    Command::new("del", -2, history::del),
    Command::new("function", -2, syntax_error).with(&[
        Command::new("function|load", -3, history::function_load),
        Command::new("function|list", -2, history::function_list),
    ]),
    Command::new("multi", 1, transaction::multi).unqueued(),
    Command::new("exec", 1, transaction::exec).unqueued(),
    Command::new("discard", 1, transaction::discard).unqueued(),
    Command::new("eval", -3, script::eval),
    Command::new("evalsha", -3, script::evalsha),
    Command::new("script", -2, syntax_error).with(&[
        Command::new("script|exists", -3, script::exists),
        Command::new("script|load", 3, script::load),
    ]),
    Command::new("hello", -1, connection::hello).before_authentication(),
    Command::new("auth", -2, connection::auth).before_authentication(),
    Command::new("quit", -1, connection::quit)
        .before_authentication()
        .while_subscribed()
        .unqueued(),
    Command::new("reset", 1, connection::reset)
        .before_authentication()
        .while_subscribed()
        .unqueued(),
    Command::new("echo", 2, connection::echo),
    Command::new("select", 2, connection::select),
    Command::new("client", -2, syntax_error).with(&[
        Command::new("client|getname", 2, connection::client_getname),
        Command::new("client|id", 2, connection::client_id),
        Command::new("client|no-evict", 3, connection::client_switch),
        Command::new("client|no-touch", 3, connection::client_switch),
        Command::new("client|setinfo", 4, connection::client_setinfo),
        Command::new("client|setname", 3, connection::client_setname),
    ]),
    Command::new("info", -1, server::info),
    Command::new("command", -1, server::no_commands).with(&[
        Command::new("command|count", 2, server::command_count),
        Command::new("command|docs", -2, server::command_docs),
        Command::new("command|info", -2, server::no_commands),
    ]),
    Command::new("config", -2, syntax_error).with(&[Command::new(
        "config|get",
        -3,
        server::config_get,
    )]),
    Command::new("get", 2, server::get),
    Command::new("time", 1, server::time),
];

impl Command {
    const fn new(name: &'static str, arity: isize, run: Run) -> Self {
        Self {
            name,
            arity,
            run,
            before_authentication: false,
            while_subscribed: false,
            queued: true,
            subcommands: &[],
        }
    }

    const fn before_authentication(self) -> Self {
        Self { before_authentication: true, ..self }
    }

    const fn while_subscribed(self) -> Self {
        Self { while_subscribed: true, ..self }
    }

    const fn unqueued(self) -> Self {
        Self { queued: false, ..self }
    }

    const fn with(self, subcommands: &'static [Self]) -> Self {
        Self { subcommands, ..self }
    }

    fn accepts(&self, arguments: usize) -> bool {
        let arity = self.arity.unsigned_abs();
        if self.arity < 0 { arguments >= arity } else { arguments == arity }
    }
}

/// Executes, queues or refuses a command, in the order of checks that Redis has.
pub(super) fn execute(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    hub.counters.commands.add(1);
    if is_cross_protocol(arguments) {
        hub.counters.protocol_errors.add(1);
        client.state = State::Closing(CloseReason::CrossProtocol);
        return;
    }
    let Some(name) = arguments.first() else { return };
    let command = match find(name, arguments.get(1)) {
        Ok(command) => command,
        Err(parent) => {
            let text = unknown(parent, arguments);
            return reject(client, None, "ERR", &text);
        }
    };
    if !command.accepts(arguments.len()) {
        let text = format!("wrong number of arguments for '{}' command", command.name);
        return reject(client, Some(command), "ERR", text.as_bytes());
    }
    if !client.authenticated && !command.before_authentication {
        return reject(client, Some(command), "NOAUTH", b"Authentication required.");
    }
    let pushes_look_like_replies = client.protocol == Protocol::Resp2 && client.is_subscribed();
    if pushes_look_like_replies && !command.while_subscribed {
        let text = format!(
            "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
             allowed in this context",
            command.name
        );
        return reject(client, Some(command), "ERR", text.as_bytes());
    }
    if client.transaction.is_some() && command.queued {
        queue(client, arguments);
    } else {
        (command.run)(hub, client, arguments);
    }
}

/// Executes a command that was checked when it was queued.
fn execute_queued(hub: &mut Hub, client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    match arguments.first().map(|name| find(name, arguments.get(1))) {
        // Its kin only may because they always could.
        Some(Ok(command)) if command.name == "ssubscribe" => {
            client.reply().error("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
        }
        Some(Ok(command)) => (command.run)(hub, client, arguments),
        Some(Err(_)) | None => {}
    }
}

/// Finds a command, or the subcommand that its first argument names. The error is a command that
/// has subcommands, but not this one.
fn find(
    name: &[u8],
    subcommand: Option<&Cow<'_, [u8]>>,
) -> Result<&'static Command, Option<&'static Command>> {
    let named = |command: &&Command| name.eq_ignore_ascii_case(command.name.as_bytes());
    let command = COMMANDS.iter().find(named).ok_or(None)?;
    let Some(subcommand) = subcommand.filter(|_| !command.subcommands.is_empty()) else {
        return Ok(command);
    };
    let named = |command: &&Command| {
        let name = command.name.split_once('|').map_or("", |(_, name)| name);
        subcommand.eq_ignore_ascii_case(name.as_bytes())
    };
    command.subcommands.iter().find(named).ok_or(Some(command))
}

/// Whether this begins an HTTP request, which a page can make a browser send here: what follows in
/// its body could be commands.
fn is_cross_protocol(arguments: &[Cow<'_, [u8]>]) -> bool {
    match arguments {
        [name, ..] if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") => {
            true
        }
        [name, _, version] => name.eq_ignore_ascii_case(b"get") && version.starts_with(b"HTTP/"),
        _ => false,
    }
}

/// How Redis words it; clients recognise servers without HELLO by it.
fn unknown(parent: Option<&Command>, arguments: &[Cow<'_, [u8]>]) -> Vec<u8> {
    let mut arguments = arguments.iter().map(|argument| shown(argument));
    let name = arguments.next().unwrap_or_default();
    if let Some(parent) = parent {
        let subcommand = cut(arguments.next().unwrap_or_default(), SHOWN_BYTES_MAX);
        let help = parent.name.to_ascii_uppercase();
        let parts: [&[u8]; 5] =
            [b"unknown subcommand '", subcommand, b"'. Try ", help.as_bytes(), b" HELP."];
        return parts.concat();
    }
    let mut shown = Vec::new();
    for argument in arguments {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let room = SHOWN_BYTES_MAX - shown.len();
        shown.extend_from_slice(&[b"'", cut(argument, room), b"' "].concat());
    }
    let name = cut(name, SHOWN_BYTES_MAX);
    [b"unknown command '", name, b"', with args beginning with: ", &shown].concat()
}

/// What of an argument Redis shows in an error: it ends with the first NUL.
fn shown(argument: &[u8]) -> &[u8] {
    argument.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn cut(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}

/// Refuses a command, and with it the transaction that it would have been part of.
fn reject(client: &mut Client, command: Option<&Command>, code: &str, text: &[u8]) {
    if let Some(transaction) = &mut client.transaction {
        transaction.abort();
    }
    let code = code.as_bytes();
    if command.is_some_and(|command| command.name == "exec") {
        client.transaction = None;
        let code = if code == b"ERR" { &[][..] } else { &[code, b" "].concat() };
        let parts = [b"EXECABORT Transaction discarded because of: ", code, text];
        client.reply().error(parts.concat());
    } else {
        client.reply().error([code, b" ", text].concat());
    }
}

fn queue(client: &mut Client, arguments: &[Cow<'_, [u8]>]) {
    let Some(transaction) = &mut client.transaction else { return };
    let bytes: usize = arguments.iter().map(|argument| argument.len()).sum();
    if transaction.queue.len() + bytes > limits::BROKER_TRANSACTION_BYTES_MAX {
        return reject(client, None, "ERR", b"transaction too large");
    }
    if !transaction.aborted {
        let slices: Vec<&[u8]> = arguments.iter().map(AsRef::as_ref).collect();
        encode_command(&slices, &mut transaction.queue);
        transaction.commands += 1;
    }
    client.reply().simple("QUEUED");
}

/// A number as Redis reads one: decimal, without a plus or leading zeros.
fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// Arguments of a command.
type Words<'a, 'b> = &'b [Cow<'a, [u8]>];

/// The keys and the arguments of a script, behind the number of keys.
fn keys_and_values<'a, 'b>(
    keys: &[u8],
    rest: Words<'a, 'b>,
    not_a_number: &'static str,
) -> Result<(Words<'a, 'b>, Words<'a, 'b>), &'static str> {
    let keys = match integer(keys) {
        Some(keys) => usize::try_from(keys).map_err(|_| "ERR Number of keys can't be negative"),
        None => Err(not_a_number),
    };
    rest.split_at_checked(keys?).ok_or("ERR Number of keys can't be greater than number of args")
}

fn syntax_error(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    client.reply().error("ERR syntax error");
}

/// Bytes of a client's own words that an error repeats.
const SHOWN_BYTES_MAX: usize = 128;
