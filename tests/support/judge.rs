//! The judgement on what a client of the soak test was told: every event of its channels once and
//! in order, or a word that some may be missing, and no such word without a cause.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use corecast::bytes::history::EventId;

use super::channels::{self, Channels, is_forged, is_mixed};
use super::ledger::{self, Ledger, MessageKind, Published};

/// Violations that are described; the others are only counted.
const DESCRIBED_MAX: usize = 20;

/// What a server knows of the time of Redis may be ahead of ours by so much.
const TIME_MS: u64 = 100;

/// From where on a client asks for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// What comes after the id that it has …
    Rest,
    /// … which is none that Redis gave.
    Unknown,
    /// It begins anew, with what is published from now on,
    Present,
    /// with so many of the newest events,
    Last(usize),
    /// with the oldest,
    All,
    /// with what was published so many milliseconds ago.
    Ago(u64),
}

impl Ask {
    pub(crate) fn is_anew(self) -> bool {
        !matches!(self, Self::Rest | Self::Unknown)
    }
}

/// What was published may be on its way to a server for so long: links are held, and Redis stopped.
const LAG_MS: u64 = 15_000;

/// What a client did or was told, to be judged once the ledger has come that far.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// It connected.
    Arrival(Ask),
    /// The stream was opened, with everything up to this id if there is one.
    Open(Option<EventId>),
    /// It has everything up to here.
    KeepAlive(EventId),
    Event {
        id: EventId,
        channel: usize,
        number: u32,
    },
    /// A message that is not kept, or one that looks as if it were.
    Message {
        channel: usize,
        number: u32,
        kind: MessageKind,
    },
    /// It may have missed something of these channels; with everything else it has come to `id`.
    Reset {
        reason: String,
        channels: Vec<usize>,
        id: Option<EventId>,
    },
    /// What no server may tell.
    Nonsense(String),
}

/// A channel of an event `stream-reset`.
#[derive(Debug)]
pub(crate) struct Reset {
    pub(crate) reason: String,
    pub(crate) channel: usize,
    /// What the client had before.
    pub(crate) cursor: EventId,
    pub(crate) cause: Option<Cause>,
    /// What it had asked for.
    pub(crate) ask: Ask,
    pub(crate) name: usize,
    pub(crate) read_ms: u64,
}

/// Why it is right that a client is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Redis refuses the channel to the server.
    Refused,
    /// Messages of the channel are not kept.
    Mixed,
    /// An event was forged on the channel.
    Forged,
    /// The client has an id that Redis did not give.
    StrangeId,
    /// The stream was opened before the server knew anything of Redis.
    Unheard,
    /// An event was too long, or a message that is not kept.
    Oversize,
    /// The client comes back with the id before all, from when Redis knows nothing.
    Beginning,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    /// Plain messages and forged events that arrived.
    pub(crate) messages: u64,
    /// Events that were too long, and were told of.
    pub(crate) oversize: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Events that were never published, or are none of the client's.
    pub(crate) foreign: u64,
    /// Events that a reset excused.
    pub(crate) excused: u64,
    /// Streams that began anew, by how.
    pub(crate) beginnings: BTreeMap<&'static str, u64>,
    pub(crate) resets: Vec<Reset>,
    pub(crate) descriptions: Vec<String>,
}

impl Tally {
    pub(crate) fn violations(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.foreign
    }

    /// How many resets there were of each reason for each cause.
    pub(crate) fn reasons(&self) -> BTreeMap<(&str, Option<Cause>), usize> {
        let mut reasons = BTreeMap::new();
        for reset in &self.resets {
            *reasons.entry((&*reset.reason, reset.cause)).or_default() += 1;
        }
        reasons
    }

    fn describe(&mut self, description: impl FnOnce() -> String) {
        if self.descriptions.len() < DESCRIBED_MAX {
            self.descriptions.push(description());
        }
    }

    fn lose(&mut self, description: impl FnOnce() -> String) {
        self.lost += 1;
        self.describe(description);
    }

    fn repeat(&mut self, description: impl FnOnce() -> String) {
        self.duplicated += 1;
        self.describe(description);
    }

    fn disown(&mut self, description: impl FnOnce() -> String) {
        self.foreign += 1;
        self.describe(description);
    }
}

#[derive(Debug)]
pub(crate) struct Judge {
    name: usize,
    /// Its channels that Redis lets servers have, and the others.
    open: Channels,
    refused: Channels,
    /// Each with the time of day at which it was read, in milliseconds.
    claims: VecDeque<(u64, Claim)>,
    /// It has, or was told that it has not, everything up to here. `None`: it has begun anew.
    cursor: Option<EventId>,
    /// With which id its stream was opened that begins with the newest events: those come after it,
    /// and what is between is not among what it asked for.
    head: Option<EventId>,
    life: Life,
    visit: Visit,
    missed: HashSet<EventId>,
    /// Messages up to this number were looked for.
    messages_judged: usize,
}

/// What counts from when a client began anew until it does so again.
#[derive(Debug, Default)]
struct Life {
    /// How it began, and when the stream told from where.
    ask: Option<Ask>,
    begun_ms: u64,
    /// When its first stream was open.
    opened_ms: Option<u64>,
    /// Until when it may have missed something of a channel.
    excused_until_ms: HashMap<usize, u64>,
    /// When it was told last that something of a channel may be missing.
    told_ms: HashMap<usize, u64>,
    /// Plain messages that it got.
    messages: HashSet<u32>,
}

/// What counts from when a client connected until it does so again.
#[derive(Debug)]
struct Visit {
    ask: Ask,
    asked_ms: u64,
    /// The stream was opened without an id of Redis.
    is_early: bool,
    /// The id that the client has is none of Redis.
    is_strange: bool,
    /// Before anything else it must be told that it may have missed something.
    must_be_told: bool,
    /// It was told so of everything.
    is_lost: bool,
    /// Channels that it was told of.
    told: Channels,
    messages: HashSet<u32>,
}

impl Visit {
    fn new(ask: Ask, asked_ms: u64) -> Self {
        let is_unknown = ask == Ask::Unknown;
        Self {
            ask,
            asked_ms,
            is_early: false,
            is_strange: is_unknown,
            must_be_told: is_unknown,
            is_lost: false,
            told: Channels::default(),
            messages: HashSet::new(),
        }
    }
}

impl Judge {
    pub(crate) fn new(name: usize, channels: &[usize]) -> Self {
        let all: Channels = channels.iter().copied().collect();
        Self {
            name,
            open: all.filter(channels::is_open),
            refused: all.filter(|channel| !channels::is_open(channel)),
            claims: VecDeque::new(),
            cursor: None,
            head: None,
            life: Life::default(),
            visit: Visit::new(Ask::Present, 0),
            missed: HashSet::new(),
            messages_judged: 0,
        }
    }

    /// Takes in a claim that was read at a time of day.
    pub(crate) fn hear(&mut self, at_ms: u64, claim: Claim) {
        self.claims.push_back((at_ms, claim));
    }

    /// Judges the claims of which the ledger knows enough.
    pub(crate) fn judge(&mut self, ledger: &Ledger, tally: &mut Tally) {
        while let Some((at_ms, claim)) = self.claims.front() {
            let id = match claim {
                Claim::KeepAlive(id) | Claim::Event { id, .. } => Some(*id),
                Claim::Open(id) | Claim::Reset { id, .. } => *id,
                _ => None,
            };
            // What others had at that time counts where it is about a number of events.
            let is_counted = self.cursor.is_none() && matches!(self.visit.ask, Ask::Last(_));
            let is_known = id.is_none_or(|id| ledger::is_forged(id) || id <= ledger.newest())
                && (!is_counted || *at_ms < ledger.known_ms);
            if !is_known {
                return;
            }
            if let Some((at_ms, claim)) = self.claims.pop_front() {
                self.judge_claim(at_ms, claim, ledger, tally);
            }
        }
    }

    fn judge_claim(&mut self, at_ms: u64, claim: Claim, ledger: &Ledger, tally: &mut Tally) {
        match claim {
            Claim::Arrival(ask) => {
                self.arrive(at_ms, ask);
                if ask == Ask::All {
                    *tally.beginnings.entry("with the oldest").or_default() += 1;
                }
            }
            Claim::Open(id) => {
                self.life.opened_ms.get_or_insert(at_ms);
                self.visit.is_early = id.is_none();
                self.visit.must_be_told |= id.is_none() && self.visit.ask == Ask::Present;
                let begins = matches!(self.visit.ask, Ask::Last(_)) && self.cursor.is_none();
                match id {
                    Some(id) if begins && !ledger::is_forged(id) => self.head = Some(id),
                    Some(id) => self.reach(id, at_ms, ledger, tally),
                    None => {}
                }
            }
            Claim::KeepAlive(id) => {
                self.reach(id, at_ms, ledger, tally);
                self.check_told(id, ledger, tally);
            }
            Claim::Event { id, channel, number } => {
                self.check_refused(tally);
                let event = Published { id, channel, number, is_oversize: false };
                self.receive(event, at_ms, ledger, tally);
            }
            Claim::Message { channel, number, kind } => {
                self.receive_message(channel, number, kind, ledger, tally);
            }
            Claim::Reset { reason, channels, id } => {
                self.be_told(at_ms, (reason, &channels, id), ledger, tally);
            }
            Claim::Nonsense(text) => tally.disown(|| format!("{self} {text}")),
        }
    }

    fn arrive(&mut self, at_ms: u64, ask: Ask) {
        self.visit = Visit::new(ask, at_ms);
        if ask.is_anew() {
            self.life = Life { ask: Some(ask), begun_ms: at_ms, ..Life::default() };
            self.missed.clear();
            // Who asks for all has to get what is there from the beginning on.
            self.cursor = (ask == Ask::All).then_some(EventId::ZERO);
            self.head = None;
        } else {
            self.cursor = self.cursor.or_else(|| self.head.take());
        }
    }

    /// A stream of many channels, some of which Redis refuses to its server, is told of those
    /// before it is given anything.
    fn check_refused(&mut self, tally: &mut Tally) {
        while let Some(channel) = self.refused.first_beside(self.visit.told) {
            self.visit.told.insert(channel);
            let name = channels::name(channel);
            tally.lose(|| format!("{self} was not told that it does not get {name}"));
        }
    }

    /// A stream that gets a sign of life with an id has been told of everything up to there.
    fn check_told(&mut self, id: EventId, ledger: &Ledger, tally: &mut Tally) {
        self.check_refused(tally);
        if !self.visit.ask.is_anew() {
            let mixed = self.open.filter(is_mixed);
            while let Some(channel) = mixed.first_beside(self.visit.told) {
                self.visit.told.insert(channel);
                tally.lose(|| format!("{self} came back to c{channel}, and was not told"));
            }
        }
        let opened_ms = self.life.opened_ms.unwrap_or(u64::MAX);
        for (message, done_ms) in ledger.messages_from(self.messages_judged) {
            if *done_ms >= id.ms {
                break;
            }
            self.messages_judged += 1;
            let told_ms = self.life.told_ms.get(&message.channel).copied().unwrap_or(0);
            let is_owed = message.kind == MessageKind::Plain
                && self.open.contains(message.channel)
                && message.sent_ms > opened_ms;
            let is_paid =
                told_ms >= message.sent_ms || self.life.messages.contains(&message.number);
            if is_owed && !is_paid {
                tally.lose(|| format!("{self} never heard of {message:?}, up to {id}"));
            }
        }
    }

    fn receive(&mut self, event: Published, at_ms: u64, ledger: &Ledger, tally: &mut Tally) {
        if ledger.get(event.id) != Some(&event) || !self.open.contains(event.channel) {
            return tally.disown(|| format!("{self} got {event:?}"));
        }
        match event.is_oversize {
            true => tally.oversize += 1,
            false => tally.deliveries += 1,
        }
        self.visit.is_strange = false;
        if self.cursor.is_some_and(|cursor| event.id <= cursor) {
            // It came after a later one, or for the second time.
            if self.missed.remove(&event.id) {
                tally.lost -= 1;
                tally.reordered += 1;
                tally.describe(|| format!("{self} got {event:?} late"));
            } else {
                tally.repeat(|| format!("{self} got {event:?} twice"));
            }
            return;
        }
        if self.cursor.is_none() {
            self.begin(event.id.before().unwrap_or_default(), at_ms, ledger, tally);
        }
        self.pass(event.id, Some(event), ledger, tally);
    }

    /// The client has everything up to `id`, if that is one of Redis.
    fn reach(&mut self, id: EventId, at_ms: u64, ledger: &Ledger, tally: &mut Tally) {
        if ledger::is_forged(id) {
            return;
        }
        self.visit.is_strange = false;
        match self.cursor {
            None => self.begin(id, at_ms, ledger, tally),
            Some(_) => self.pass(id, None, ledger, tally),
        }
    }

    /// A stream that began anew told from where: what comes after `id`.
    fn begin(&mut self, id: EventId, at_ms: u64, ledger: &Ledger, tally: &mut Tally) {
        self.cursor = Some(id);
        self.life.begun_ms = at_ms;
        if let Some(head) = self.head.take().filter(|head| *head > id) {
            tally.lose(|| format!("{self} was opened at {head}, and begins at {id}"));
        }
        if self.visit.must_be_told {
            self.visit.must_be_told = false;
            tally.lose(|| format!("{self} was not told that it may have missed something"));
        }
        let name = match self.visit.ask {
            Ask::Last(count) if !self.visit.is_lost => {
                self.check_count(count, id, at_ms, ledger, tally);
                "with the newest"
            }
            Ask::Ago(ms) if !self.visit.is_lost => {
                // From the time on, though it may have been quiet then.
                let ms = at_ms.saturating_sub(ms) + TIME_MS;
                self.cursor = Some(id.min(EventId { ms, seq: 0 }));
                self.pass(id, None, ledger, tally);
                "since a time"
            }
            Ask::Present => "with the present",
            _ => "otherwise",
        };
        *tally.beginnings.entry(name).or_default() += 1;
    }

    /// The stream begins behind `id`, and its client asked for the newest `count` events. It may
    /// have more where its head was sent before they were found.
    fn check_count(
        &self,
        count: usize,
        id: EventId,
        at_ms: u64,
        ledger: &Ledger,
        tally: &mut Tally,
    ) {
        let forged = self.open.filter(is_forged);
        // One that was forged may have counted as an event.
        let forged = ledger.forgeries(forged, at_ms);
        let given = ledger.count(self.open, id, at_ms);
        let all = ledger.count_certain(self.open, EventId::ZERO, at_ms);
        let later = ledger.count_certain(self.open, id, at_ms);
        if given + forged < count && later < all {
            tally.lose(|| format!("{self} begins with {given} and not the newest {count}"));
        }
        // What had not arrived when the newest were counted follows them.
        let before_ms = self.visit.asked_ms.saturating_sub(LAG_MS);
        let surplus = ledger.count_certain(self.open, id, before_ms);
        if surplus > count && !self.visit.is_early {
            tally.disown(|| format!("{self} begins with {surplus} and not the newest {count}"));
        }
    }

    /// The client moves on to `id`: it must have had every event of its channels in between.
    fn pass(
        &mut self,
        id: EventId,
        arrived: Option<Published>,
        ledger: &Ledger,
        tally: &mut Tally,
    ) {
        let cursor = self.cursor.unwrap_or_default();
        for event in ledger.after(cursor) {
            if event.id > id || arrived == Some(*event) {
                break;
            }
            if !self.open.contains(event.channel) || self.is_optional(event, ledger) {
                continue;
            }
            if self.is_excused(event) {
                tally.excused += 1;
            } else {
                self.missed.insert(event.id);
                tally.lose(|| format!("{self} never got {event:?}, and moved on to {id}"));
            }
        }
        self.cursor = Some(cursor.max(id));
    }

    fn is_excused(&self, event: &Published) -> bool {
        let until_ms = self.life.excused_until_ms.get(&event.channel);
        until_ms.is_some_and(|until_ms| event.id.ms <= *until_ms)
    }

    /// Whether the stream may have begun before or behind this event.
    fn is_optional(&self, event: &Published, ledger: &Ledger) -> bool {
        let (ms, begun_ms) = (event.id.ms, self.life.begun_ms);
        match self.life.ask {
            Some(Ask::Present) => ms <= begun_ms,
            Some(Ask::Ago(ago_ms)) => ms <= begun_ms.saturating_sub(ago_ms) + TIME_MS,
            // It is none of the newest that are kept.
            Some(Ask::Last(_)) => ms <= begun_ms && ledger.may_be_trimmed(event.channel, ms),
            _ => false,
        }
    }

    fn receive_message(
        &mut self,
        channel: usize,
        number: u32,
        kind: MessageKind,
        ledger: &Ledger,
        tally: &mut Tally,
    ) {
        tally.messages += 1;
        self.visit.is_strange |= kind == MessageKind::Forged;
        let is_ours = ledger.message(number).is_some_and(|message| {
            message.channel == channel && message.kind == kind && !message.is_oversize
        });
        if !is_ours || !self.open.contains(channel) {
            return tally.disown(|| format!("{self} got {kind:?} {number} of {channel}"));
        }
        if !self.visit.messages.insert(number) {
            tally.repeat(|| format!("{self} got {kind:?} {number} of {channel} twice"));
        }
        self.life.messages.insert(number);
    }

    fn be_told(
        &mut self,
        at_ms: u64,
        (reason, channels, id): (String, &[usize], Option<EventId>),
        ledger: &Ledger,
        tally: &mut Tally,
    ) {
        if let (true, &[channel], Some(id)) = (reason == "oversize", channels, id) {
            let event = ledger.get(id).filter(|event| event.is_oversize);
            if let Some(event) = event.filter(|event| event.channel == channel) {
                let cause = Some(Cause::Oversize);
                tally.resets.push(self.reset(reason, channel, at_ms, cause));
                self.check_refused(tally);
                return self.receive(*event, at_ms, ledger, tally);
            }
        }
        for &channel in channels {
            if !self.open.contains(channel) && !self.refused.contains(channel) {
                tally.disown(|| format!("{self} was told of {channel}: {reason}"));
                continue;
            }
            let cause = self.cause(&reason, channel, at_ms, ledger);
            let trimmed_ms = at_ms.min(ledger.trimmed_ms(channel));
            let until_ms = match (&*reason, cause) {
                ("oversize", _) => 0,
                // One word may stand for two: of what is kept and was not trimmed nothing may be
                // missing.
                ("no-history" | "history-trimmed", _) => trimmed_ms,
                ("link-lost" | "overload", Some(Cause::Mixed)) => trimmed_ms,
                _ => at_ms,
            };
            let excused = self.life.excused_until_ms.entry(channel).or_default();
            *excused = until_ms.max(*excused);
            self.life.told_ms.insert(channel, at_ms);
            self.visit.told.insert(channel);
            tally.resets.push(self.reset(reason.clone(), channel, at_ms, cause));
        }
        let is_lost = matches!(&*reason, "unknown-id" | "link-lost");
        self.visit.is_lost |= is_lost && self.open.first_beside(self.visit.told).is_none();
        self.visit.must_be_told &= !is_lost;
        match id {
            Some(id) if ledger::is_forged(id) => self.visit.is_strange = true,
            Some(id) => self.reach(id, at_ms, ledger, tally),
            None => {}
        }
    }

    fn reset(&self, reason: String, channel: usize, read_ms: u64, cause: Option<Cause>) -> Reset {
        let (cursor, ask) = (self.cursor.unwrap_or_default(), self.visit.ask);
        Reset { reason, channel, cursor, cause, ask, name: self.name, read_ms }
    }

    fn cause(&self, reason: &str, channel: usize, at_ms: u64, ledger: &Ledger) -> Option<Cause> {
        let is_mixed = is_mixed(channel);
        let is_forged =
            || is_forged(channel) && ledger.forgeries([channel].into_iter().collect(), at_ms) > 0;
        match reason {
            "link-lost" if self.refused.contains(channel) => Some(Cause::Refused),
            "link-lost" if is_mixed && !is_forged() => Some(Cause::Mixed),
            "link-lost" if is_forged() => Some(Cause::Forged),
            "link-lost" if self.visit.is_early && self.visit.ask.is_anew() => Some(Cause::Unheard),
            "history-trimmed"
                if self.visit.ask == Ask::Rest && self.cursor == Some(EventId::ZERO) =>
            {
                Some(Cause::Beginning)
            }
            "no-history" if is_mixed => Some(Cause::Mixed),
            "unknown-id" if self.visit.is_strange => Some(Cause::StrangeId),
            "unknown-id" if is_forged() => Some(Cause::Forged),
            "oversize" if ledger.had_oversize(channel, at_ms) => Some(Cause::Oversize),
            _ => None,
        }
    }

    /// Whether it has everything of its channels that was published, and nothing is left to be
    /// judged.
    pub(crate) fn has_reached_the_end(&self, ledger: &Ledger) -> bool {
        let Some(cursor) = self.cursor.filter(|_| self.claims.is_empty()) else { return false };
        let is_owed = |event: &&Published| {
            self.open.contains(event.channel)
                && !self.is_excused(event)
                && !self.is_optional(event, ledger)
        };
        cursor >= ledger.newest_of(self.open) || !ledger.after(cursor).iter().any(|e| is_owed(&e))
    }
}

impl std::fmt::Display for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cursor = self.cursor.unwrap_or_default();
        let (open, ask) = (self.open.iter().collect::<Vec<_>>(), self.visit.ask);
        write!(f, "stream {} of {open:?} ({ask:?}), which was at {cursor},", self.name)
    }
}
