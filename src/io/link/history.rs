//! What a link asks of Redis about events that are kept, and what it answers.

use super::Upstream;
use super::commands::{Asked, Commands, Sent};
use crate::bytes::history::{self, Clock, EventId};
use crate::bytes::resp::{Reply, Value};
use crate::state::streams::PageRead;

/// The newest id of all events.
const CLOCK: [&[u8]; 6] = [b"XREVRANGE", history::CLOCK_KEY, b"+", b"-", b"COUNT", b"1"];

impl Commands {
    /// Asks for the newest id of all events that are kept, and for the time.
    pub(super) fn read_clock(&mut self) {
        self.push_transaction(&[&CLOCK, &[b"TIME"]], Asked::Clock);
    }

    fn read_clock_for(&mut self, page: PageRead) {
        let questions: [&[&[u8]]; 3] = [&CLOCK, &[b"TIME"], &[b"INFO", b"stats"]];
        self.push_transaction(&questions, Asked::ClockOfEmptyPage(page));
    }

    fn push_transaction(&mut self, commands: &[&[&[u8]]], asked: Asked) {
        self.push(&[b"MULTI"], Sent::History(Asked::Queued));
        for command in commands {
            self.push(command, Sent::History(Asked::Queued));
        }
        self.push(&[b"EXEC"], Sent::History(asked));
    }

    /// Asks for events of one channel, the newest first. Should there be none, clock, time and
    /// evictions are asked for then, since they say what that means; most pages can do without.
    pub(super) fn read_page(&mut self, read: PageRead, channel: &[u8]) {
        let (key, newest) = (history::stream_key(channel), read.newest.to_string());
        let events = read.events.to_string();
        let page: [&[u8]; 6] =
            [b"XREVRANGE", &key, newest.as_bytes(), b"-", b"COUNT", events.as_bytes()];
        self.push(&page, Sent::History(Asked::Page(read)));
    }

    /// Begins the clock of a Redis that has none. It fails where somebody was faster.
    pub(super) fn start_clock(&mut self, now_ms: u64, ttl_ms: u64) {
        let (id, ttl_ms) = (EventId { ms: now_ms, seq: 0 }.to_string(), ttl_ms.to_string());
        let id = id.as_bytes();
        let start: [&[u8]; 9] = [
            b"XADD",
            history::CLOCK_KEY,
            b"MAXLEN",
            b"1",
            id,
            b"since",
            id,
            b"ttl",
            ttl_ms.as_bytes(),
        ];
        self.push(&start, Sent::History(Asked::Unheeded));
    }

    /// Loads the function that publishes events to be kept.
    pub(super) fn load_function(&mut self) {
        self.push_encoded(history::encode_load, Sent::History(Asked::LoadFunction));
    }

    /// Asks whether Redis may forget what it was told to keep.
    pub(super) fn ask_memory(&mut self) {
        self.push(&[b"INFO", b"memory"], Sent::History(Asked::Memory));
    }
}

/// How the answer to an EXEC begins that was itself refused; the reason follows.
const EXEC_REFUSED: &[u8] = b"EXECABORT Transaction discarded because of: ";

/// Acts on an answer. `queue_error` keeps what Redis said of a command of a transaction that it did
/// not take, since its EXEC then fails without a reason.
pub(super) fn settle(
    asked: Asked,
    reply: &Reply<'_>,
    queue_error: &mut Vec<u8>,
    commands: &mut Commands,
    upstream: &mut impl Upstream,
) {
    let reason = |queue_error: &mut Vec<u8>| match (std::mem::take(queue_error), reply) {
        (error, _) if !error.is_empty() => error,
        (_, Reply::Error(error)) => error.strip_prefix(EXEC_REFUSED).unwrap_or(error).to_vec(),
        _ => b"ERR the history can't be read".to_vec(),
    };
    match asked {
        Asked::Queued => {
            if let Reply::Error(error) = reply {
                *queue_error = error.to_vec();
            }
        }
        Asked::Clock => match read_clock(reply) {
            Some((clock, now_ms)) => upstream.clock(clock, now_ms),
            None => upstream.history_refused(None, &reason(queue_error)),
        },
        Asked::Page(read) => match reply {
            Reply::Other(Value::Array(entries)) if entries.is_empty() => {
                commands.read_clock_for(read);
            }
            Reply::Other(Value::Array(entries)) => upstream.page(read, entries),
            Reply::Error(error) => upstream.history_refused(Some(read), error),
            _ => upstream.history_refused(Some(read), &reason(queue_error)),
        },
        Asked::ClockOfEmptyPage(read) => match read_clock(reply) {
            Some((clock, now_ms)) => upstream.empty_page(read, clock, now_ms),
            None => upstream.history_refused(Some(read), &reason(queue_error)),
        },
        Asked::LoadFunction => {
            if let Reply::Error(error) = reply {
                upstream.function_refused(error);
            }
        }
        Asked::Memory => {
            if let Reply::Other(Value::String(text)) = reply {
                upstream.memory(text);
            }
        }
        Asked::Unheeded => {}
    }
}

/// The answer to [`Commands::read_clock`], or to [`Commands::read_clock_for`].
fn read_clock(reply: &Reply<'_>) -> Option<(Option<Clock>, u64)> {
    let Reply::Other(Value::Array(parts)) = reply else { return None };
    let [clock, time, evicted @ ..] = parts.as_slice() else { return None };
    let clock = match (clock_of(clock)?, evicted.first().and_then(evicted_keys)) {
        (Some(clock), Some(evicted)) => Some(clock.after_evictions(evicted)),
        (clock, _) => clock,
    };
    Some((clock, time_ms(time)?))
}

/// The answer to INFO: how many keys Redis has evicted since it started.
fn evicted_keys(value: &Value<'_>) -> Option<u64> {
    let Value::String(text) = value else { return None };
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("evicted_keys:")?.parse().ok())
}

fn clock_of(value: &Value<'_>) -> Option<Option<Clock>> {
    let Value::Array(entries) = value else { return None };
    Some(entries.first().and_then(Clock::from_entry))
}

/// The answer to TIME: seconds and microseconds.
fn time_ms(value: &Value<'_>) -> Option<u64> {
    let Value::Array(parts) = value else { return None };
    let [Value::String(seconds), Value::String(microseconds)] = parts.as_slice() else {
        return None;
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    number(seconds)?.checked_mul(1000)?.checked_add(number(microseconds)? / 1000)
}
