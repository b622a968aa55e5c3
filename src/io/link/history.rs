//! What a link asks of Redis about events that are kept, and what it answers.
//!
//! History is read by functions where Redis lets us, else by scripts, else by plain commands: a
//! refusal of one way makes the session ask again in the next.

use std::collections::VecDeque;

use super::Upstream;
use super::commands::{Asked, Commands, Question, Sent};
use crate::bytes::history::{
    self, Clock, EventId, Newest, NewestOf, Nothing, Page, PageEnd, PageQuestion, ReadCall,
    marks_from_answer, marks_question, newest_from_answer, oldest_from_answer,
};
use crate::bytes::resp::{Reply, Value};
use crate::ground::ids::ChannelId;
use crate::ground::limits::{HISTORY_PAGE_EVENTS_MAX, HISTORY_RANGE_BYTES_MAX};
use crate::state::recent::{HistoryRead, Question as Wanted};
use crate::state::streams::ClockWish;

/// How a session reads history.
#[derive(Debug)]
pub(super) struct Reader {
    call: ReadCall,
    load: Load,
    /// What Redis said of the last command of a transaction that it did not take.
    queue_error: Vec<u8>,
    /// Channels whose newest event is still to be asked for by plain commands, which bring it
    /// whole, and how many are asked for.
    plain_newest: VecDeque<(ChannelId, Vec<u8>)>,
    plain_asked: usize,
}

/// What has become of the library of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Unasked,
    Asked,
    /// Redis has answered; what was asked behind that finds it, or it is not to be had.
    Answered,
}

/// The newest id of all events.
const CLOCK: [&[u8]; 6] = [b"XREVRANGE", history::CLOCK_KEY, b"+", b"-", b"COUNT", b"1"];

impl Default for Reader {
    fn default() -> Self {
        Self {
            call: ReadCall::Function,
            load: Load::Unasked,
            queue_error: Vec::new(),
            plain_newest: VecDeque::new(),
            plain_asked: 0,
        }
    }
}

impl Reader {
    /// Asks for a page of a channel's history, or for ids of its newest events.
    pub(super) fn read(
        &self,
        read: HistoryRead,
        name: Vec<u8>,
        event_bytes_max: usize,
        commands: &mut Commands,
    ) {
        ask(Question { read, name, call: self.call, event_bytes_max, told: None }, commands);
    }

    /// Asks for the newest id of each channel.
    pub(super) fn read_newest(
        &mut self,
        channels: Vec<ChannelId>,
        names: Vec<Vec<u8>>,
        commands: &mut Commands,
    ) {
        if self.call == ReadCall::Plain {
            self.plain_newest.extend(channels.into_iter().zip(names));
            return self.read_plain_newest(commands);
        }
        self.ask_newest(channels, names, commands);
    }

    /// Asks for the newest events of as many channels as may come at a time.
    fn read_plain_newest(&mut self, commands: &mut Commands) {
        while self.plain_asked < PLAIN_NEWEST_MAX
            && let Some((channel, name)) = self.plain_newest.pop_front()
        {
            self.plain_asked += 1;
            self.ask_newest(vec![channel], vec![name], commands);
        }
    }

    fn ask_newest(&self, channels: Vec<ChannelId>, names: Vec<Vec<u8>>, commands: &mut Commands) {
        let call = self.call;
        let mut bytes = Vec::new();
        let keys: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        history::encode_newest(call, &keys, 1, &mut bytes);
        let asked = Asked::Newest { channels, names, call };
        commands.push_encoded(|out| out.extend_from_slice(&bytes), Sent::History(asked));
    }

    /// Whether to ask once more in another way, after an error to a question that was asked in one.
    fn tries_again(&mut self, asked: ReadCall, error: &[u8], commands: &mut Commands) -> bool {
        if is_of_key(error) {
            return false;
        }
        if asked != self.call {
            return true;
        }
        let is_missing = contains(error, b"Function not found");
        let is_refused =
            error.starts_with(b"NOPERM") || contains(error, b"unknown command") || is_missing;
        if !is_refused {
            return false;
        }
        if is_missing && self.load != Load::Answered {
            if self.load == Load::Unasked {
                self.load = Load::Asked;
                commands.push_encoded(history::encode_read_load, Sent::History(Asked::LoadReader));
            }
            return true;
        }
        match asked.next() {
            Some(next) => {
                self.call = next;
                true
            }
            None => false,
        }
    }

    /// Acts on an answer.
    pub(super) fn settle(
        &mut self,
        asked: Asked,
        reply: &Reply<'_>,
        commands: &mut Commands,
        upstream: &mut impl Upstream,
    ) {
        match asked {
            Asked::Queued => {
                if let Reply::Error(error) = reply {
                    self.queue_error = error.to_vec();
                }
            }
            Asked::Clock(wish) => match read_clock(reply) {
                Some(told) => upstream.clock(told.clock, told.now_ms, &told.marks, wish),
                None => upstream.clock_refused(wish, &self.reason(reply)),
            },
            Asked::Read(question) => match reply {
                Reply::Error(error) if self.tries_again(question.call, error, commands) => {
                    let Question { read, name, event_bytes_max, .. } = question;
                    self.read(read, name, event_bytes_max, commands);
                }
                Reply::Error(error) => upstream.read_refused(question.read, error),
                Reply::Other(value) => {
                    let read = question.read;
                    if !question.settle(value, commands, upstream) {
                        upstream.read_refused(read, NO_ANSWER);
                    }
                }
                _ => upstream.read_refused(question.read, NO_ANSWER),
            },
            Asked::Oldest(read) => match reply {
                Reply::Other(value) => match oldest_from_answer(value) {
                    Some(oldest) => upstream.page(read, &empty_page(oldest)),
                    None => upstream.read_refused(read, NO_ANSWER),
                },
                _ => upstream.read_refused(read, &self.reason(reply)),
            },
            Asked::Newest { channels, names, call } => {
                if call == ReadCall::Plain {
                    self.plain_asked = self.plain_asked.saturating_sub(1);
                    self.read_plain_newest(commands);
                }
                self.settle_newest(channels, names, call, reply, commands, upstream);
            }
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
            Asked::Mark => upstream.mark_answered(match reply {
                Reply::Error(error) => Some(error),
                _ => None,
            }),
            Asked::LoadReader => self.load = Load::Answered,
            Asked::Unheeded => {}
        }
    }

    fn settle_newest(
        &mut self,
        channels: Vec<ChannelId>,
        names: Vec<Vec<u8>>,
        call: ReadCall,
        reply: &Reply<'_>,
        commands: &mut Commands,
        upstream: &mut impl Upstream,
    ) {
        match reply {
            // One of them has failed them all.
            Reply::Error(error) if is_of_key(error) && channels.len() > 1 => {
                for (channel, name) in channels.into_iter().zip(names) {
                    self.read_newest(vec![channel], vec![name], commands);
                }
            }
            Reply::Error(error) if self.tries_again(call, error, commands) => {
                self.read_newest(channels, names, commands);
            }
            Reply::Error(error) => upstream.newest_refused(channels, error),
            Reply::Other(value) => match newest_from_answer(call, value) {
                Some(newest) if newest.len() == channels.len() => {
                    tell_newest(channels, newest, upstream);
                }
                _ => upstream.newest_refused(channels, NO_ANSWER),
            },
            _ => upstream.newest_refused(channels, NO_ANSWER),
        }
    }

    /// Why a transaction failed: what Redis said of a command of it that it did not take, since its
    /// EXEC then fails without a reason, or could not do.
    fn reason(&mut self, reply: &Reply<'_>) -> Vec<u8> {
        match (std::mem::take(&mut self.queue_error), reply) {
            (error, _) if !error.is_empty() => error,
            (_, Reply::Error(error)) => error.strip_prefix(EXEC_REFUSED).unwrap_or(error).to_vec(),
            (_, Reply::Other(Value::Array(parts))) => {
                let error = parts.iter().find_map(|part| match part {
                    Value::Error(error) => Some(error.to_vec()),
                    _ => None,
                });
                error.unwrap_or_else(|| UNREADABLE.to_vec())
            }
            _ => UNREADABLE.to_vec(),
        }
    }
}

/// Whether an error says that our user may not read a key, whichever way it asks.
fn is_of_key(error: &[u8]) -> bool {
    error.starts_with(b"NOPERM") && contains(error, b" to access ")
}

fn tell_newest(channels: Vec<ChannelId>, newest: Vec<NewestOf>, upstream: &mut impl Upstream) {
    let (mut told, mut refused) = (Vec::new(), Vec::new());
    for (channel, newest) in channels.into_iter().zip(newest) {
        match newest {
            Ok(newest) => told.push((channel, Some(newest))),
            Err(Nothing::Kept) => told.push((channel, None)),
            Err(Nothing::Readable) => refused.push(channel),
        }
    }
    upstream.newest(told);
    if !refused.is_empty() {
        upstream.newest_refused(refused, NO_HISTORY);
    }
}

fn ask(question: Question, commands: &mut Commands) {
    let Question { read, name, call, event_bytes_max, told } = &question;
    let mut bytes = Vec::new();
    match page_question(*call, read.question, *event_bytes_max) {
        Ok(page) => history::encode_page(*call, name, &page, &mut bytes),
        Err(count) if *call == ReadCall::Plain => {
            let told = told.as_ref().map_or(&[][..], |told| &told.ids);
            let left = count.saturating_sub(told.len());
            let step = left.min(of_plain(*event_bytes_max));
            history::encode_newest_before(name, told.last().copied(), step, &mut bytes);
        }
        Err(count) => history::encode_newest(*call, &[name], count, &mut bytes),
    }
    let sent = Sent::History(Asked::Read(question));
    commands.push_encoded(|out| out.extend_from_slice(&bytes), sent);
}

/// Events that a plain command may bring at a time.
fn of_plain(event_bytes_max: usize) -> usize {
    (HISTORY_RANGE_BYTES_MAX / event_bytes_max.max(1)).clamp(1, HISTORY_PAGE_EVENTS_MAX)
}

impl Question {
    /// False: it is no answer to that.
    fn settle(
        self,
        value: &Value<'_>,
        commands: &mut Commands,
        upstream: &mut impl Upstream,
    ) -> bool {
        let Self { read, name, call, event_bytes_max, told } = self;
        match page_question(call, read.question, event_bytes_max) {
            Ok(question) => {
                let Some(page) = Page::from_answer(call, &question, value) else { return false };
                if call == ReadCall::Plain && page.entries.is_empty() {
                    let asked = Sent::History(Asked::Oldest(read));
                    commands.push_encoded(|out| history::encode_oldest(&name, out), asked);
                } else {
                    upstream.page(read, &page);
                }
                true
            }
            Err(count) => {
                let newest = newest_from_answer(call, value).and_then(|mut newest| newest.pop());
                let newest = match (newest, told) {
                    (Some(Ok(newest)), Some(told)) => {
                        let ids = [told.ids, newest.ids].concat();
                        Some(Ok(Newest { ids, ..newest }))
                    }
                    (Some(Err(Nothing::Kept)), Some(told)) => {
                        upstream.index(read, Some(told));
                        return true;
                    }
                    (newest, _) => newest,
                };
                match newest {
                    Some(Ok(newest)) if call == ReadCall::Plain && newest.ids.len() < count => {
                        let told = Some(newest);
                        ask(Self { read, name, call, event_bytes_max, told }, commands);
                    }
                    Some(Ok(newest)) => upstream.index(read, Some(newest)),
                    Some(Err(Nothing::Kept)) => upstream.index(read, None),
                    Some(Err(Nothing::Readable)) => upstream.read_refused(read, NO_HISTORY),
                    None => return false,
                }
                true
            }
        }
    }
}

/// What is asked of a channel's history: a page, or else how many ids.
fn page_question(
    call: ReadCall,
    question: Wanted,
    event_bytes_max: usize,
) -> Result<PageQuestion, usize> {
    match question {
        Wanted::Page { from, to, bytes_max, caution } => {
            let entries_max = match call {
                ReadCall::Plain => (of_plain(event_bytes_max) >> caution).max(1),
                _ => HISTORY_PAGE_EVENTS_MAX,
            };
            Ok(PageQuestion { from, to, bytes_max, entries_max, event_bytes_max })
        }
        Wanted::Newest { count } => Err(count),
    }
}

fn empty_page(oldest: Option<(EventId, EventId)>) -> Page<'static> {
    Page { end: PageEnd::End, oldest, entries: Vec::new() }
}

impl Commands {
    /// Asks for the newest id of all events that are kept, for the time, and for what was noted of
    /// events that are not kept.
    pub(super) fn read_clock(&mut self, wish: ClockWish, marks_after: EventId) {
        let marks = marks_question(marks_after);
        let marks = marks.each_ref().map(Vec::as_slice);
        let mut questions: Vec<&[&[u8]]> = vec![&CLOCK, &[b"TIME"], &marks];
        if wish == ClockWish::WithEvictions {
            questions.push(&[b"INFO", b"stats"]);
        }
        self.push(&[b"MULTI"], Sent::History(Asked::Queued));
        for question in questions {
            self.push(question, Sent::History(Asked::Queued));
        }
        self.push(&[b"EXEC"], Sent::History(Asked::Clock(wish)));
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

    /// Notes that a channel has events beside those that are kept.
    pub(super) fn write_mark(&mut self, channel: &[u8]) {
        self.push_encoded(|out| history::encode_mark(channel, out), Sent::History(Asked::Mark));
    }
}

/// Newest events that plain commands ask for at a time.
const PLAIN_NEWEST_MAX: usize = 8;

/// How the answer to an EXEC begins that was itself refused; the reason follows.
const EXEC_REFUSED: &[u8] = b"EXECABORT Transaction discarded because of: ";

const UNREADABLE: &[u8] = b"ERR the history can't be read";

/// Asked again it would be the same.
const NO_ANSWER: &[u8] = b"ERR what Redis answers is no history";

const NO_HISTORY: &[u8] = b"WRONGTYPE the key of a channel holds something else than its history";

/// What [`Commands::read_clock`] asks.
struct ClockAnswer<'a> {
    clock: Option<Clock>,
    now_ms: u64,
    marks: Vec<(EventId, &'a [u8])>,
}

fn read_clock<'a>(reply: &Reply<'a>) -> Option<ClockAnswer<'a>> {
    let Reply::Other(Value::Array(parts)) = reply else { return None };
    let [clock, time, marks, evicted @ ..] = parts.as_slice() else { return None };
    let clock = match (clock_of(clock)?, evicted.first().and_then(evicted_keys)) {
        (Some(clock), Some(evicted)) => Some(clock.after_evictions(evicted)),
        (clock, _) => clock,
    };
    // Whoever spoils the marks, or has never let us read them, costs nobody the rest.
    let marks = marks_from_answer(marks).unwrap_or_default();
    Some(ClockAnswer { clock, now_ms: time_ms(time)?, marks })
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

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
