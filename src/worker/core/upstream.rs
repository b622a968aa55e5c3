//! What the link tells: messages become events for their streams, and kept ones remember their ids.

use std::rc::Rc;

use tracing::{debug, info, warn};

use super::Core;
#[cfg(debug_assertions)]
use super::PANIC_CHANNEL;
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::format::{self, Decoded};
use crate::bytes::history::{Clock, Envelope, EventId};
use crate::bytes::resp::Value;
use crate::ground::ids::ChannelId;
use crate::ground::limits::READ_BUFFER_BYTES;
use crate::io::link::{LinkError, Protocol, Upstream};
use crate::state::recent::Kept;
use crate::state::streams::{DELAYED_TICKS, PageRead};
use crate::sys::clock;

impl Upstream for Core {
    fn link_up(&mut self, protocol: Protocol) {
        self.wants_proof = true;
        self.clock_missed_at = None;
        self.clock_was_started = false;
        self.clock_to_start = None;
        self.has_gap = false;
        self.clock_was_told = false;
        if protocol == Protocol::Resp2 {
            self.streams.give_history_up();
        }
        self.prepares_history = self.id.0 == 0 && !self.config.history.is_empty();
        self.streams.link_up();
        if std::mem::replace(&mut self.had_link, true) {
            self.counters.resubscriptions.add(self.streams.asks() as u64);
        }
        if protocol == Protocol::Resp2 && self.id.0 == 0 {
            warn!("Redis speaks RESP2 only: streams are live, without history");
        }
    }

    fn link_proven(&mut self) {
        self.counters.link_ready.set(1);
        if std::mem::take(&mut self.link_was_missed) {
            info!(worker = %self.id, "the link to Redis stands again");
        } else {
            debug!(worker = %self.id, "the link to Redis stands");
        }
    }

    fn link_unproven(&mut self) {
        self.counters.link_ready.set(0);
        self.link_was_missed = true;
        warn!(worker = %self.id, "nothing proves that what is published arrives; not ready");
    }

    fn unprobed(&mut self, error: &[u8]) {
        // All workers are one user.
        if self.id.0 == 0 {
            let error = String::from_utf8_lossy(error);
            warn!(
                "our user at Redis may not subscribe to corecast:probe:*, so links are proven \
                by PING alone, which a node that lost its publishers answers too: {error}"
            );
        }
    }

    fn link_down(&mut self, error: &LinkError, was_up: bool) {
        self.counters.link_ready.set(0);
        if was_up {
            self.counters.lose_link(error.reason());
        }
        if matches!(error, LinkError::Undelivered) {
            self.counters.probes_lost.add(1);
        }
        let is_news = !std::mem::replace(&mut self.link_was_missed, true);
        // What keeps a link from being proven again, such as a Redis that loads, it does to all.
        if was_up && (is_news || self.id.0 == 0) {
            warn!(worker = %self.id, "lost the link to Redis: {error}; connecting again");
        } else if is_news && self.id.0 == 0 {
            warn!("no link to Redis: {error}; streams open all the same, and I keep trying");
        } else {
            debug!(worker = %self.id, "no link to Redis: {error}");
        }
        self.streams.link_down(match error {
            LinkError::Behind => ResetReason::Overload,
            _ => ResetReason::LinkLost,
        });
    }

    fn message(&mut self, channel: &[u8], payload: &[u8]) {
        self.counters.received.add(1);
        #[cfg(debug_assertions)]
        self.panic_if_asked(channel, payload);
        let envelope = Envelope::parse(payload);
        let id = self.streams.find(channel);
        if let (Some(envelope), Some(id)) = (&envelope, id)
            && self.streams.is_kept(id)
        {
            let kept = self.keep(id, envelope);
            self.has_gap |= !self.streams.publish_kept(id, kept);
            return;
        }
        let payload = envelope.as_ref().map_or(payload, |envelope| envelope.payload);
        if payload.len() > self.config.max_event_bytes {
            return self.skip_oversize(channel);
        }
        let Some(decoded) = self.decode(channel, payload) else { return };
        let target = match &decoded.channel {
            None => id,
            Some(inner) if self.config.strip_prefix.is_empty() => self.streams.find(inner),
            Some(inner) => {
                let name = [&*self.config.strip_prefix, inner].concat();
                self.streams.find(&name)
            }
        };
        let Some(target) = target else { return };
        let mut event = decoded.event;
        if let Some(envelope) = &envelope {
            named(&mut event, envelope);
        }
        if self.streams.is_kept(target) {
            self.note_plain(target);
            event.id = None;
        }
        if self.streams.has_streams(target) {
            self.deliver(target, &event);
        }
    }

    fn oversize(&mut self, channel: &[u8]) {
        self.counters.received.add(1);
        if let Some(id) = self.streams.find(channel) {
            self.streams.note_skipped(id);
        }
        self.skip_oversize(channel);
    }

    fn subscribed(&mut self, channel: &[u8]) {
        if let Some(id) = self.streams.find(channel) {
            self.streams.acknowledge(id);
        }
    }

    fn refused(&mut self, channel: ChannelId, error: &[u8]) {
        if let Some(suppressed) = self.refused_line.permit(clock::now()) {
            let channel = String::from_utf8_lossy(self.streams.name(channel));
            let error = String::from_utf8_lossy(error);
            warn!(worker = %self.id, %channel, suppressed, "Redis refuses to subscribe: {error}");
        }
        self.streams.refuse(channel);
    }

    fn link_settled(&mut self) {
        self.streams.repair();
    }

    fn clock(&mut self, clock: Option<Clock>, now_ms: u64) {
        let clock = match clock {
            Some(clock) => clock,
            None if self.leaves_clock_to_others() => return self.streams.delay_clock(1),
            None if !self.clock_was_started => {
                self.clock_was_started = true;
                self.clock_to_start = Some(now_ms);
                return self.streams.repeat_clock();
            }
            // We may not write it, and nothing was ever kept: what will be comes later than now.
            None => {
                let newest = EventId { ms: now_ms.saturating_sub(1), seq: u64::MAX };
                Clock { newest, since: newest, ttl_ms: u64::MAX, evicted: None }
            }
        };
        let is_first = !std::mem::replace(&mut self.clock_was_told, true);
        if self.streams.is_ahead_of(clock) {
            if is_first {
                let worker = self.id;
                warn!(%worker, "Redis has lost events that were kept: streams begin anew");
                self.streams.begin_anew(clock);
            } else if let Some(suppressed) = self.history_line.permit(clock::now()) {
                warn!(worker = %self.id, suppressed,
                    "events arrive that Redis does not keep: are they published in another \
                    database than that of --redis?");
            }
        }
        self.streams.tell_clock(clock);
    }

    fn page(&mut self, read: PageRead, entries: &[Value<'_>]) {
        let mut page = Vec::with_capacity(entries.len());
        for entry in entries {
            // What is no event of ours ends what can be told of the channel.
            let Some(envelope) = Envelope::from_entry(entry) else { break };
            page.push(self.keep(read.channel, &envelope));
        }
        self.streams.read_page(read, page, read.newest);
    }

    fn empty_page(&mut self, read: PageRead, clock: Option<Clock>, now_ms: u64) {
        // Without a clock nothing is known of what was forgotten.
        let expired = clock.map_or(read.newest, |clock| clock.expired(now_ms));
        self.streams.read_page(read, Vec::new(), expired);
    }

    fn history_refused(&mut self, read: Option<PageRead>, error: &[u8]) {
        let passes = passes(error);
        if let Some(suppressed) = self.history_line.permit(clock::now()) {
            let error = String::from_utf8_lossy(error);
            warn!(worker = %self.id, suppressed, "Redis does not tell its history: {error}");
        }
        match read {
            Some(read) => self.streams.fail_page(read.channel, !passes),
            None if passes => self.streams.delay_clock(DELAYED_TICKS),
            None => self.streams.give_history_up(),
        }
    }

    fn function_refused(&mut self, error: &[u8]) {
        // The link is lost by that too, and the next one asks again.
        if passes(error) {
            return;
        }
        let error = String::from_utf8_lossy(error);
        info!(
            "our user at Redis may not load the function corecast_publish ({error}): if nobody \
            has, load it by corecast publish --print-function | redis-cli -x FUNCTION LOAD REPLACE"
        );
    }

    fn memory(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let policy = value("maxmemory_policy:").unwrap_or("noeviction");
        if policy != "noeviction" && value("maxmemory:").is_some_and(|limit| limit != "0") {
            warn!(
                "Redis forgets events early when its memory is full (maxmemory-policy {policy}), \
                and streams that come back are reset: history wants noeviction"
            );
        }
    }
}

impl Core {
    /// There is no clock. Each worker leaves it to the first one to begin it, for a second: of two
    /// that begin it at the same time the second would begin it anew, a millisecond later, and
    /// streams of the other would be reset when they come back.
    fn leaves_clock_to_others(&mut self) -> bool {
        let missed_at = *self.clock_missed_at.get_or_insert(self.now);
        self.id.0 != 0 && self.now.since(missed_at) < CLOCK_PATIENCE_TICKS
    }

    /// An event for the streams of a channel, by its name in Redis.
    fn deliver(&mut self, channel: ChannelId, event: &event_stream::Event<'_>) {
        self.encoded.clear();
        event_stream::encode(event, &mut self.encoded);
        self.streams.publish(channel, &Rc::from(self.encoded.as_slice()));
        if self.encoded.capacity() > READ_BUFFER_BYTES {
            self.encoded = Vec::new();
        }
    }

    #[cfg(debug_assertions)]
    fn panic_if_asked(&self, channel: &[u8], payload: &[u8]) {
        let asked = channel == PANIC_CHANNEL && payload == self.id.to_string().as_bytes();
        assert!(!asked, "asked to panic");
    }

    /// The payload of a message, read in its channel's format.
    fn decode<'a>(&mut self, channel: &[u8], payload: &'a [u8]) -> Option<Decoded<'a>> {
        match format::decode(self.formats.of(channel), payload) {
            Ok(decoded) => Some(decoded),
            Err(error) => {
                self.counters.undecodable.add(1);
                if let Some(suppressed) = self.undecodable_line.permit(clock::now()) {
                    let channel = String::from_utf8_lossy(channel);
                    warn!(worker = %self.id, %channel, suppressed, "unreadable payload: {error}");
                }
                None
            }
        }
    }

    /// An event that is kept, as its streams get it: under its own id. One that is too large is a
    /// reset, one that can't be read is nothing.
    fn keep(&mut self, id: ChannelId, envelope: &Envelope<'_>) -> Kept {
        let mut bytes = Vec::new();
        if envelope.payload.len() > self.config.max_event_bytes {
            self.counters.oversize.add(1);
            event_stream::encode_id(envelope.id.to_string().as_bytes(), &mut bytes);
            let name = self.streams.public_name(id);
            event_stream::encode_reset(ResetReason::Oversize, &[name], &mut bytes);
        } else {
            let channel = self.streams.name(id).to_vec();
            if let Some(decoded) = self.decode(&channel, envelope.payload) {
                let mut event = decoded.event;
                named(&mut event, envelope);
                event.id = Some(envelope.id.to_string().into_bytes().into());
                event_stream::encode(&event, &mut bytes);
            }
        }
        let Envelope { id, previous, is_chained, .. } = *envelope;
        Kept { id, previous, is_chained, bytes: bytes.into() }
    }

    /// Somebody publishes without history where events are kept.
    fn note_plain(&mut self, id: ChannelId) {
        self.counters.plain.add(1);
        self.streams.note_plain(id);
        if let Some(suppressed) = self.plain_line.permit(clock::now()) {
            let channel = String::from_utf8_lossy(self.streams.name(id));
            warn!(worker = %self.id, %channel, suppressed,
                "published without history where --history keeps events: streams that come back \
                will be reset");
        }
    }

    /// A message is longer than an event may be: its streams are told.
    fn skip_oversize(&mut self, channel: &[u8]) {
        self.counters.oversize.add(1);
        if let Some(suppressed) = self.oversize_line.permit(clock::now()) {
            let bound = self.config.max_event_bytes;
            let channel = String::from_utf8_lossy(channel);
            warn!(worker = %self.id, %channel, suppressed,
                "skipped a message over --max-event-bytes {bound}");
        }
        // A message on such a channel was for some other, and which can't be read any more.
        if self.config.subscribe_ahead.iter().any(|ahead| ahead == channel) {
            self.streams.reset_all(ResetReason::Oversize);
        } else if let Some(id) = self.streams.find(channel)
            && self.streams.has_streams(id)
        {
            self.streams.reset(id, ResetReason::Oversize);
        }
    }
}

/// The type that an envelope names counts more than the payload's.
fn named<'a>(event: &mut event_stream::Event<'a>, envelope: &Envelope<'a>) {
    if let Some(name) = envelope.event {
        event.event = name.into();
    }
}

const CLOCK_PATIENCE_TICKS: u32 = 10;

fn passes(error: &[u8]) -> bool {
    PASSING_ERRORS.iter().any(|passing| error.starts_with(passing))
}

/// How the errors begin that pass by themselves.
const PASSING_ERRORS: [&[u8]; 6] =
    [b"BUSY", b"LOADING", b"MASTERDOWN", b"TRYAGAIN", b"CLUSTERDOWN", b"ERR the history"];
