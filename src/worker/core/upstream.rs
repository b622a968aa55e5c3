//! What the link tells: messages become events for their streams, and kept ones remember their ids.

use std::rc::Rc;

use tracing::{debug, info, warn};

use super::Core;
#[cfg(debug_assertions)]
use super::PANIC_CHANNEL;
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::format::{self, Decoded};
use crate::bytes::history::{Clock, Envelope, EventId, Newest, Page, PageEnd, PageEntry};
use crate::ground::ids::ChannelId;
use crate::ground::limits::READ_BUFFER_BYTES;
use crate::io::link::{LinkError, Protocol, Upstream};
use crate::state::history_page::PageDraft;
use crate::state::recent::{HistoryRead, Kept};
use crate::state::streams::{ClockWish, DELAYED_TICKS, ReadEnd, Told};
use crate::sys::clock;

impl Upstream for Core {
    fn link_up(&mut self, protocol: Protocol) {
        self.wants_proof = true;
        self.clock_missed_at = None;
        self.clock_was_started = false;
        self.clock_to_start = None;
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
            return self.streams.publish_kept(id, kept);
        }
        let payload = envelope.as_ref().map_or(payload, |envelope| envelope.payload);
        if payload.len() > self.config.max_event_bytes {
            self.note_plain(channel);
            return self.skip_oversize(channel);
        }
        let Some(decoded) = self.decode(channel, payload) else { return };
        let inner = decoded.channel.map(|inner| [&*self.config.strip_prefix, &*inner].concat());
        let name = inner.as_deref().unwrap_or(channel);
        self.note_plain(name);
        let Some(target) = self.streams.find(name) else { return };
        let mut event = decoded.event;
        if let Some(envelope) = &envelope {
            named(&mut event, envelope);
        }
        if self.streams.is_kept(target) {
            event.id = None;
        }
        if self.streams.has_streams(target) {
            self.deliver(target, &event);
        }
    }

    fn oversize(&mut self, channel: &[u8], start: &[u8]) {
        self.counters.received.add(1);
        let envelope = Envelope::parse_start(start);
        match (envelope, self.streams.find(channel)) {
            (Some(envelope), Some(id)) if self.streams.is_kept(id) => {
                self.tell_oversize(channel);
                let bytes = self.oversize_reset(id, envelope.id).into();
                let Envelope { id: event, previous, is_chained, .. } = envelope;
                self.streams.publish_kept(id, Kept { id: event, previous, is_chained, bytes });
            }
            _ => {
                self.note_plain(channel);
                self.skip_oversize(channel);
            }
        }
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

    fn clock(
        &mut self,
        clock: Option<Clock>,
        now_ms: u64,
        plain: &[(EventId, &[u8])],
        wish: ClockWish,
    ) {
        let clock = match clock {
            Some(clock) => clock,
            None if self.leaves_clock_to_others() => return self.streams.delay_clock(wish, 1),
            None if !self.clock_was_started => {
                self.clock_was_started = true;
                self.clock_to_start = Some(now_ms);
                return self.streams.repeat_clock(wish);
            }
            // We may not write it, and nothing was ever kept: what will be comes later than now.
            None => {
                let newest = EventId { ms: now_ms.saturating_sub(1), seq: u64::MAX };
                Clock { newest, since: newest, ttl_ms: u64::MAX, evicted: None }
            }
        };
        let is_first = !std::mem::replace(&mut self.clock_was_told, true);
        let found = self.streams.tell_clock(&Told { clock, now_ms, plain, wish, is_first });
        if found.has_lost {
            warn!(worker = %self.id, "Redis has lost events that were kept: streams begin anew");
        }
        if found.forged > 0
            && let Some(suppressed) = self.forged_line.permit(clock::now())
        {
            let channels = found.forged;
            warn!(worker = %self.id, channels, suppressed,
                "events arrived that Redis did not keep: is a publisher in another database than \
                that of --redis, or does it forge them?");
        }
    }

    fn clock_refused(&mut self, wish: ClockWish, error: &[u8]) {
        self.tell_refused(error);
        if passes(error) {
            self.streams.delay_clock(wish, DELAYED_TICKS);
        } else {
            self.streams.give_history_up();
        }
    }

    fn page(&mut self, read: HistoryRead, page: &Page<'_>) {
        let mut draft = PageDraft::default();
        for entry in &page.entries {
            // An id that does not rise is none that Redis gave.
            if draft.last().is_some_and(|last| entry.id() <= last) {
                continue;
            }
            let previous = self.encode_entry(read.channel, entry, &mut draft.bytes);
            draft.end_event(entry.id(), previous);
        }
        let end = match page.end {
            PageEnd::End => ReadEnd::End { oldest: page.oldest },
            PageEnd::More => ReadEnd::More,
            PageEnd::Big { bytes } => ReadEnd::Big { bytes },
        };
        self.streams.take_page(read, end, draft);
    }

    fn index(&mut self, read: HistoryRead, newest: Option<Newest>) {
        self.streams.take_index(read, newest.map(|newest| (newest.previous, newest.ids)));
    }

    fn read_refused(&mut self, read: HistoryRead, error: &[u8]) {
        self.tell_refused(error);
        self.streams.fail_read(read, !passes(error));
    }

    fn newest(&mut self, newest: Vec<(ChannelId, Option<Newest>)>) {
        let last = |newest: Newest| Some((newest.previous, *newest.ids.first()?));
        let newest: Vec<_> =
            newest.into_iter().map(|(channel, newest)| (channel, newest.and_then(last))).collect();
        self.streams.take_newest(&newest);
    }

    fn newest_refused(&mut self, channels: Vec<ChannelId>, error: &[u8]) {
        self.tell_refused(error);
        self.streams.fail_newest(channels, !passes(error));
    }

    fn mark_answered(&mut self, error: Option<&[u8]>) {
        self.streams.mark_answered();
        if let Some(error) = error
            && let Some(suppressed) = self.mark_line.permit(clock::now())
        {
            let error = String::from_utf8_lossy(error);
            warn!(worker = %self.id, suppressed,
                "Redis does not note that a channel has events without history, so other servers \
                do not tell streams that come back over them: {error}");
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
        let bytes = Rc::from(self.encoded.as_slice());
        if event.id.is_some() {
            self.streams.publish_with_id(channel, &bytes);
        } else {
            self.streams.publish(channel, &bytes);
        }
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

    /// An event that is kept, as its streams get it.
    fn keep(&mut self, id: ChannelId, envelope: &Envelope<'_>) -> Kept {
        let mut bytes = Vec::new();
        self.encode_kept(id, envelope, &mut bytes);
        let Envelope { id, previous, is_chained, .. } = *envelope;
        Kept { id, previous, is_chained, bytes: bytes.into() }
    }

    /// Appends an event that is kept, under its own id. One that is too large is a reset, one that
    /// can't be read is nothing.
    fn encode_kept(&mut self, id: ChannelId, envelope: &Envelope<'_>, bytes: &mut Vec<u8>) {
        if envelope.payload.len() > self.config.max_event_bytes {
            self.counters.oversize.add(1);
            bytes.extend(self.oversize_reset(id, envelope.id));
            return;
        }
        let channel = self.streams.name(id).to_vec();
        if let Some(decoded) = self.decode(&channel, envelope.payload) {
            let mut event = decoded.event;
            named(&mut event, envelope);
            event.id = Some(envelope.id.to_string().into_bytes().into());
            event_stream::encode(&event, bytes);
        }
    }

    /// Appends an entry of a channel's history. Returns the id before it.
    fn encode_entry(
        &mut self,
        channel: ChannelId,
        entry: &PageEntry<'_>,
        bytes: &mut Vec<u8>,
    ) -> EventId {
        match entry {
            PageEntry::Event(envelope) => {
                self.encode_kept(channel, envelope, bytes);
                envelope.previous
            }
            PageEntry::Overlong { id, previous } => {
                self.counters.oversize.add(1);
                bytes.extend(self.oversize_reset(channel, *id));
                *previous
            }
            // Nothing can be told of what was there.
            PageEntry::Foreign { id } => *id,
        }
    }

    /// What streams get in the place of an event that is longer than they may have.
    fn oversize_reset(&self, channel: ChannelId, id: EventId) -> Vec<u8> {
        self.counters.resets.add(1);
        let mut bytes = Vec::new();
        let (name, id) = (self.streams.public_name(channel), id.to_string());
        event_stream::encode_reset(ResetReason::Oversize, &[name], Some(id.as_bytes()), &mut bytes);
        bytes
    }

    /// Redis does not tell of its history.
    fn tell_refused(&mut self, error: &[u8]) {
        if let Some(suppressed) = self.history_line.permit(clock::now()) {
            let error = String::from_utf8_lossy(error);
            warn!(worker = %self.id, suppressed, "Redis does not tell its history: {error}");
        }
    }

    /// Somebody publishes without history, on a channel whose events may be kept.
    fn note_plain(&mut self, channel: &[u8]) {
        if !self.streams.keeps(channel) {
            return;
        }
        self.counters.plain.add(1);
        if self.streams.note_plain(channel)
            && let Some(suppressed) = self.plain_line.permit(clock::now())
        {
            let channel = String::from_utf8_lossy(channel);
            warn!(worker = %self.id, %channel, suppressed,
                "published without history where --history keeps events: streams that come back \
                will be reset");
        }
    }

    /// A message is longer than an event may be.
    fn tell_oversize(&mut self, channel: &[u8]) {
        self.counters.oversize.add(1);
        if let Some(suppressed) = self.oversize_line.permit(clock::now()) {
            let bound = self.config.max_event_bytes;
            let channel = String::from_utf8_lossy(channel);
            warn!(worker = %self.id, %channel, suppressed,
                "skipped a message over --max-event-bytes {bound}");
        }
    }

    /// Streams are told of a message that is longer than an event may be.
    fn skip_oversize(&mut self, channel: &[u8]) {
        self.tell_oversize(channel);
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
