//! A client that comes back again and again, and the judgement on what it got: every event of its
//! channels once and in order, or a word that some may be missing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use corecast::bytes::history::EventId;
use serde_json::Value;

use super::event_source::{EventSource, Message};
use super::kept::{Log, Published};

/// Violations that are described; the others are only counted.
const DESCRIBED_MAX: usize = 20;

/// What a client was told, to be judged once the log of what was published has come that far.
#[derive(Debug)]
enum Claim {
    /// It has everything up to here.
    Position(EventId),
    Event(Published),
    /// It may have missed what was published on these channels before this time.
    Reset {
        reason: String,
        channels: Vec<usize>,
        read_ms: u64,
    },
}

/// An event `stream-reset`.
#[derive(Debug)]
pub(crate) struct Reset {
    pub(crate) reason: String,
    pub(crate) channels: Vec<usize>,
    /// What the client had before.
    pub(crate) cursor: EventId,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Events that were never published, or are none of the client's.
    pub(crate) foreign: u64,
    /// Events that a reset excused.
    pub(crate) excused: u64,
    pub(crate) resets: Vec<Reset>,
    pub(crate) descriptions: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) name: usize,
    /// Numbers of channels, whose names are these behind a `c`.
    pub(crate) channels: Vec<usize>,
    parser: EventSource,
    /// What a browser would send as `Last-Event-ID`.
    pub(crate) last_event_id: String,
    claims: VecDeque<Claim>,
    /// It has, or was told that it has not, everything up to here.
    cursor: Option<EventId>,
    excused_until_ms: HashMap<usize, u64>,
    missed: HashSet<EventId>,
}

impl Tally {
    pub(crate) fn violations(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.foreign
    }

    pub(crate) fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for reset in &self.resets {
            *reasons.entry(&*reset.reason).or_default() += 1;
        }
        reasons
    }

    fn describe(&mut self, description: impl FnOnce() -> String) {
        if self.descriptions.len() < DESCRIBED_MAX {
            self.descriptions.push(description());
        }
    }
}

impl Follower {
    pub(crate) fn new(name: usize, channels: Vec<usize>) -> Self {
        Self {
            name,
            channels,
            parser: EventSource::default(),
            last_event_id: String::new(),
            claims: VecDeque::new(),
            cursor: None,
            excused_until_ms: HashMap::new(),
            missed: HashSet::new(),
        }
    }

    /// A new connection: what the last one left unfinished is void.
    pub(crate) fn reconnect(&mut self) {
        self.parser = EventSource::default();
    }

    /// Takes in bytes of the body, read at the time of day `now_ms`.
    pub(crate) fn take_in(&mut self, bytes: &[u8], now_ms: u64) {
        self.parser.push(bytes);
        self.parser.comments.clear();
        for message in std::mem::take(&mut self.parser.messages) {
            self.claim(&message, now_ms);
        }
        let last = &self.parser.last_event_id;
        if !last.is_empty() && *last != self.last_event_id {
            self.last_event_id.clone_from(last);
        }
        self.claim_position(&self.last_event_id.clone());
    }

    fn claim(&mut self, message: &Message, now_ms: u64) {
        if matches!(&*message.event, "stream-open" | "keep-alive") {
            return self.claim_position(&message.last_event_id);
        }
        if message.event == "stream-reset" {
            let data: Value = serde_json::from_str(&message.data).unwrap();
            let channels = data["channels"].as_array().unwrap();
            let channels = channels.iter().map(|name| number(name.as_str().unwrap())).collect();
            let reason = data["reason"].as_str().unwrap().to_owned();
            self.claims.push_back(Claim::Reset { reason, channels, read_ms: now_ms });
            // What it passes by it has told of.
            self.claim_position(&message.last_event_id);
            return;
        }
        let (channel, number) = parse_payload(&message.data);
        let id = EventId::parse(message.last_event_id.as_bytes());
        let id = id.unwrap_or_else(|| panic!("stream {}: {message:?} has no id", self.name));
        self.claims.push_back(Claim::Event(Published { id, channel, number }));
    }

    /// An id that is none of an event proves nothing.
    fn claim_position(&mut self, id: &str) {
        let Some(id) = EventId::parse(id.as_bytes()) else { return };
        let last = match self.claims.back() {
            Some(Claim::Position(id)) => Some(*id),
            Some(Claim::Event(event)) => Some(event.id),
            Some(Claim::Reset { .. }) => None,
            None => self.cursor,
        };
        if last != Some(id) {
            self.claims.push_back(Claim::Position(id));
        }
    }

    /// Judges the claims of which the log knows enough.
    pub(crate) fn judge(&mut self, log: &Log, tally: &mut Tally) {
        while let Some(claim) = self.claims.front() {
            let told = match claim {
                Claim::Position(id) | Claim::Event(Published { id, .. }) => Some(*id),
                Claim::Reset { .. } => None,
            };
            if told > Some(log.newest()) {
                return;
            }
            let Some(claim) = self.claims.pop_front() else { return };
            match claim {
                Claim::Position(id) => self.pass(id, None, log, tally),
                Claim::Event(event) => self.receive(event, log, tally),
                Claim::Reset { reason, channels, read_ms } => {
                    self.excused_until_ms.extend(channels.iter().map(|c| (*c, read_ms)));
                    let cursor = self.cursor.unwrap_or_default();
                    tally.resets.push(Reset { reason, channels, cursor });
                }
            }
        }
    }

    fn receive(&mut self, event: Published, log: &Log, tally: &mut Tally) {
        tally.deliveries += 1;
        let before = event.id.before().unwrap_or_default();
        if log.after(before).first() != Some(&event) || !self.channels.contains(&event.channel) {
            tally.foreign += 1;
            tally.describe(|| format!("{self} got {event:?}"));
            return;
        }
        if self.cursor.is_some_and(|cursor| event.id <= cursor) {
            // It came after a later one, or for the second time.
            let kind = if self.missed.remove(&event.id) {
                tally.lost -= 1;
                tally.reordered += 1;
                "late"
            } else {
                tally.duplicated += 1;
                "twice"
            };
            tally.describe(|| format!("{self} got {event:?} {kind}"));
            return;
        }
        self.pass(event.id, Some(event), log, tally);
    }

    /// The client moves on to `id`: it must have had every event of its channels in between.
    fn pass(&mut self, id: EventId, arrived: Option<Published>, log: &Log, tally: &mut Tally) {
        let Some(cursor) = self.cursor else {
            self.cursor = Some(id);
            return;
        };
        for event in log.after(cursor) {
            if event.id > id || arrived == Some(*event) {
                break;
            }
            if !self.channels.contains(&event.channel) {
                continue;
            }
            let excused_until_ms = self.excused_until_ms.get(&event.channel);
            if excused_until_ms.is_some_and(|until| event.id.ms <= *until) {
                tally.excused += 1;
            } else {
                tally.lost += 1;
                self.missed.insert(event.id);
                tally.describe(|| format!("{self} never got {event:?}, and moved on to {id}"));
            }
        }
        self.cursor = Some(cursor.max(id));
    }

    /// Whether it has come as far as `id`, and nothing is left to be judged.
    pub(crate) fn has_reached(&self, id: EventId) -> bool {
        self.claims.is_empty() && self.cursor.is_some_and(|cursor| cursor >= id)
    }
}

impl std::fmt::Display for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cursor = self.cursor.unwrap_or_default();
        write!(f, "stream {} of {:?}, which was at {cursor},", self.name, self.channels)
    }
}

/// The payload of an event.
pub(crate) fn payload(channel: usize, number: u32, length: usize) -> String {
    let head = format!("{channel} {number} ");
    let width = length.saturating_sub(head.len());
    format!("{head}{:.<width$}", "")
}

fn parse_payload(data: &str) -> (usize, u32) {
    let mut words = data.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (channel, number, dots) = (next().parse(), next().parse(), next());
    match (channel, number) {
        (Ok(channel), Ok(number)) if dots.bytes().all(|byte| byte == b'.') => (channel, number),
        _ => panic!("not a payload of ours: {data:?}"),
    }
}

fn number(name: &str) -> usize {
    name.strip_prefix('c').and_then(|number| number.parse().ok()).unwrap()
}
