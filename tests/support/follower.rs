//! A client of the soak test that comes back again and again: what it asks for, and what it reads
//! in its streams.

use corecast::bytes::history::EventId;
use serde_json::Value;

use super::channels;
use super::event_source::{EventSource, Message};
use super::judge::{Ask, Claim, Judge, Tally};
use super::ledger::{self, Ledger, MessageKind};

#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) channels: Vec<usize>,
    parser: EventSource,
    /// What a browser would send as `Last-Event-ID`.
    pub(crate) last_event_id: String,
    /// What it has sent as such.
    sent_id: String,
    /// What the stream had for such before the message that is read.
    seen_id: String,
    judge: Judge,
}

impl Follower {
    pub(crate) fn new(name: usize, channels: Vec<usize>) -> Self {
        Self {
            judge: Judge::new(name, &channels),
            channels,
            parser: EventSource::default(),
            last_event_id: String::new(),
            sent_id: String::new(),
            seen_id: String::new(),
        }
    }

    /// Forgets where it was.
    pub(crate) fn forget(&mut self) {
        self.last_event_id.clear();
    }

    /// A new connection, at a time of day: what the last one left unfinished is void. `beginning`
    /// is what it asks for if it has no id. Returns the target and the id to send.
    pub(crate) fn connect(&mut self, beginning: Ask, now_ms: u64) -> (String, String) {
        self.parser = EventSource::default();
        self.seen_id.clear();
        self.sent_id.clone_from(&self.last_event_id);
        let id = EventId::parse(self.sent_id.as_bytes());
        let ask = match id {
            _ if self.sent_id.is_empty() => beginning,
            Some(id) if !ledger::is_forged(id) => Ask::Rest,
            _ => Ask::Unknown,
        };
        self.judge.hear(now_ms, Claim::Arrival(ask));
        let names = self.channels.iter().map(|channel| channels::name(*channel));
        let mut target = format!("/events?channel={}", names.collect::<Vec<_>>().join("&channel="));
        match ask {
            Ask::Last(count) => target.push_str(&format!("&last={count}")),
            Ask::All => target.push_str("&since=0"),
            Ask::Ago(ms) => target.push_str(&format!("&since=-{ms}ms")),
            Ask::Rest | Ask::Unknown | Ask::Present => {}
        }
        (target, self.sent_id.clone())
    }

    /// Takes in bytes of the body, read at the time of day `now_ms`.
    pub(crate) fn take_in(&mut self, bytes: &[u8], now_ms: u64) {
        self.parser.push(bytes);
        self.parser.comments.clear();
        for message in std::mem::take(&mut self.parser.messages) {
            let claim = self.claim(&message);
            self.judge.hear(now_ms, claim);
            self.seen_id = message.last_event_id;
        }
        let last = &self.parser.last_event_id;
        if *last != self.seen_id {
            let text = format!("got the id {last} in a block without data");
            self.judge.hear(now_ms, Claim::Nonsense(text));
            self.seen_id.clone_from(last);
        }
        if !last.is_empty() && *last != self.last_event_id {
            self.last_event_id.clone_from(last);
        }
    }

    fn claim(&self, message: &Message) -> Claim {
        // A message without an id has that of the one before.
        let has_id = message.last_event_id != self.seen_id;
        let id = EventId::parse(message.last_event_id.as_bytes());
        let nonsense = || Claim::Nonsense(format!("got {message:?}"));
        let is_forged = id.is_some_and(ledger::is_forged);
        match (&*message.event, id) {
            // It may be the client's own, or that before an event which somebody forged.
            ("stream-open", _) if is_forged && self.may_have_forged_ids() => Claim::Open(None),
            ("stream-open", Some(_)) if is_forged => nonsense(),
            ("stream-open", id) => Claim::Open(id),
            ("keep-alive", Some(id)) if !is_forged => Claim::KeepAlive(id),
            ("stream-reset", id) => {
                let reset = self.reset(&message.data, id.filter(|_| has_id));
                reset.unwrap_or_else(nonsense)
            }
            ("message", id) => match parse_payload(&message.data) {
                Some((None, channel, number)) => match id.filter(|_| !is_forged) {
                    Some(id) => Claim::Event { id, channel, number },
                    None => nonsense(),
                },
                Some((Some(MessageKind::Plain), ..)) if has_id => nonsense(),
                Some((Some(MessageKind::Forged), ..)) if !is_forged => nonsense(),
                Some((Some(kind), channel, number)) => Claim::Message { channel, number, kind },
                None => nonsense(),
            },
            _ => nonsense(),
        }
    }

    fn reset(&self, data: &str, id: Option<EventId>) -> Option<Claim> {
        let data: Value = serde_json::from_str(data).ok()?;
        let names = data["channels"].as_array()?.iter();
        let channels: Option<Vec<usize>> =
            names.map(|name| channels::number(name.as_str()?)).collect();
        let reason = data["reason"].as_str()?.to_owned();
        // An event that was forged and is too long has the place of one that is kept.
        let is_good = id.is_none_or(|id| !ledger::is_forged(id) || reason == "oversize");
        is_good.then_some(Claim::Reset { reason, channels: channels?, id })
    }

    fn may_have_forged_ids(&self) -> bool {
        self.channels.iter().any(|channel| channels::is_forged(*channel))
    }

    pub(crate) fn judge(&mut self, ledger: &Ledger, tally: &mut Tally) {
        self.judge.judge(ledger, tally);
    }

    pub(crate) fn has_reached_the_end(&self, ledger: &Ledger) -> bool {
        self.judge.has_reached_the_end(ledger)
    }
}

/// The payload of an event.
pub(crate) fn payload(channel: usize, number: u32, length: usize) -> String {
    let head = format!("{channel} {number} ");
    let width = length.saturating_sub(head.len());
    format!("{head}{:.<width$}", "")
}

/// The data of a message that is not kept.
pub(crate) fn message_data(kind: MessageKind, channel: usize, number: u32) -> String {
    match kind {
        MessageKind::Plain => format!("plain {channel} {number} "),
        MessageKind::Forged => format!("forged {channel} {number} "),
    }
}

/// What kind of data it is, if it is not that of an event which is kept, the channel and the
/// number. What is no envelope stands before the words of a plain message.
fn parse_payload(data: &str) -> Option<(Option<MessageKind>, usize, u32)> {
    let (kind, rest) = if let Some((_, rest)) = data.split_once("plain ") {
        (Some(MessageKind::Plain), rest)
    } else if let Some(rest) = data.strip_prefix("forged ") {
        (Some(MessageKind::Forged), rest)
    } else {
        (None, data)
    };
    let mut words = rest.split(' ');
    let (channel, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next()?.bytes().all(|byte| byte == b'.').then_some((kind, channel, number))
}
