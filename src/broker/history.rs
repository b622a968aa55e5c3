//! Events that the broker keeps: per channel the newest, for a time after the last, and of all
//! channels together no more bytes than it was told. What the script of `bytes::history` does with
//! a Redis, without a socket or a clock.

use std::collections::{BTreeSet, HashMap, VecDeque, vec_deque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::BrokerCounters;
use crate::bytes::history::{Clock, Envelope, EventId, Publication};

/// All histories, and the clock.
#[derive(Debug)]
pub(super) struct History {
    /// By name. Each has an entry in both sets below.
    channels: HashMap<Arc<[u8]>, Channel>,
    /// Channels by their oldest event.
    by_oldest: BTreeSet<(EventId, Arc<[u8]>)>,
    /// Channels by the time at which they expire.
    by_expiry: BTreeSet<(u64, Arc<[u8]>)>,
    clock: Clock,
    /// The latest time of day so far: what expired then stays expired if it is set back.
    now_ms: u64,
    /// Of all channels and entries, roughly. Invariant: between calls at most `bytes_max`.
    bytes: usize,
    bytes_max: usize,
    /// When somebody noted a channel with events beside those that are kept, and its name. Bounded
    /// by [`PLAIN_BYTES_MAX`] and by who notes.
    plain: VecDeque<(EventId, Box<[u8]>)>,
    plain_bytes: usize,
    counters: Arc<BrokerCounters>,
}

/// Names of channels that are noted, together.
const PLAIN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Invariant: has at least one entry.
#[derive(Debug)]
struct Channel {
    /// In the order of their ids.
    entries: VecDeque<Entry>,
    expires_ms: u64,
}

/// An event that is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EventId,
    previous: EventId,
    /// The event's type, of this length, and then its data.
    text: Box<[u8]>,
    event_bytes: usize,
}

impl History {
    /// Its clock begins now. Whoever comes with an earlier id has been at another broker.
    pub(super) fn new(
        bytes_max: usize,
        ttl_ms: u64,
        now_ms: u64,
        counters: Arc<BrokerCounters>,
    ) -> Self {
        let begin = EventId { ms: now_ms, seq: 0 };
        Self {
            channels: HashMap::new(),
            by_oldest: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            clock: Clock { newest: begin, since: begin, ttl_ms: ttl_ms.max(1), evicted: Some(0) },
            now_ms,
            bytes: 0,
            bytes_max,
            plain: VecDeque::new(),
            plain_bytes: 0,
            counters,
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Begins a new clock: of all events that were published nothing is known.
    pub(super) fn forget_clock(&mut self) {
        self.clock.since = self.clock.newest;
    }

    /// Keeps an event, and answers with its envelope. O(log n) in channels, and in what it makes
    /// room for.
    pub(super) fn publish<'a>(
        &mut self,
        publication: &Publication<'a>,
        now_ms: u64,
    ) -> Envelope<'a> {
        self.expire(now_ms);
        let now_ms = self.now_ms;
        let Publication { channel, kept, ttl_ms, payload, event, .. } = *publication;
        let newest = self.clock.newest;
        let id = match newest.next() {
            Some(next) if now_ms <= newest.ms => next,
            _ => EventId { ms: now_ms, seq: 0 },
        };
        let last = self.channels.get(channel).and_then(|channel| channel.entries.back());
        let is_chained = last.is_some();
        let previous = last.map_or_else(|| self.clock.expired(now_ms), |last| last.id);
        self.clock.newest = id;
        self.clock.ttl_ms = self.clock.ttl_ms.min(ttl_ms);

        let entry = Entry {
            id,
            previous,
            text: [event, payload].concat().into(),
            event_bytes: event.len(),
        };
        self.insert(channel, kept, id.ms.saturating_add(ttl_ms), entry);
        self.make_room();
        self.count();
        let event = Some(event).filter(|event| !event.is_empty());
        Envelope { id, previous, is_chained, event, payload }
    }

    /// The entries of a channel with these ids, the oldest first.
    pub(super) fn range(
        &mut self,
        channel: &[u8],
        ids: RangeInclusive<EventId>,
        now_ms: u64,
    ) -> vec_deque::Iter<'_, Entry> {
        self.expire(now_ms);
        let Some(Channel { entries, .. }) = self.channels.get(channel) else {
            return vec_deque::Iter::default();
        };
        let start = entries.partition_point(|entry| entry.id < *ids.start());
        let end = entries.partition_point(|entry| entry.id <= *ids.end());
        entries.range(start.min(end)..end)
    }

    /// How many events of a channel are kept.
    pub(super) fn len(&mut self, channel: &[u8], now_ms: u64) -> usize {
        self.expire(now_ms);
        self.channels.get(channel).map_or(0, |channel| channel.entries.len())
    }

    /// Forgets a channel's events, and says whether there were any.
    pub(super) fn delete(&mut self, channel: &[u8], now_ms: u64) -> bool {
        self.expire(now_ms);
        let Some(last) = self.remove(channel) else { return false };
        // They are not old enough to have expired.
        self.clock.since = self.clock.since.max(last);
        self.count();
        true
    }

    /// Notes that a channel has events beside those that are kept; of all notes `most` stay.
    pub(super) fn note_plain(&mut self, name: &[u8], most: usize, now_ms: u64) -> EventId {
        let last = self.plain.back().map_or(EventId::ZERO, |(id, _)| *id);
        let id = EventId { ms: now_ms, seq: 0 }.max(last.next().unwrap_or(last));
        self.plain.push_back((id, name.into()));
        self.plain_bytes += name.len();
        while self.plain.len() > most || self.plain_bytes > PLAIN_BYTES_MAX {
            let Some((_, oldest)) = self.plain.pop_front() else { break };
            self.plain_bytes -= oldest.len();
        }
        id
    }

    /// The notes with these ids, the oldest first.
    pub(super) fn plain(
        &self,
        ids: RangeInclusive<EventId>,
    ) -> impl Iterator<Item = (EventId, &[u8])> {
        let notes = self.plain.iter().filter(move |(id, _)| ids.contains(id));
        notes.map(|(id, name)| (*id, &**name))
    }

    pub(super) fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Forgets the notes, and says whether there were any.
    pub(super) fn forget_plain(&mut self) -> bool {
        self.plain_bytes = 0;
        !std::mem::take(&mut self.plain).is_empty()
    }

    fn insert(&mut self, name: &[u8], kept: usize, expires_ms: u64, entry: Entry) {
        self.bytes += entry.bytes();
        let known = self.channels.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| {
            self.bytes += CHANNEL_BYTES + name.len();
            Arc::from(name)
        });
        let channel = self
            .channels
            .entry(Arc::clone(&name))
            .or_insert_with(|| Channel { entries: VecDeque::new(), expires_ms });
        if let Some(oldest) = channel.entries.front() {
            self.by_oldest.remove(&(oldest.id, Arc::clone(&name)));
            self.by_expiry.remove(&(channel.expires_ms, Arc::clone(&name)));
        }
        channel.entries.push_back(entry);
        channel.expires_ms = expires_ms;
        while channel.entries.len() > kept
            && let Some(oldest) = channel.entries.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
        if let Some(oldest) = channel.entries.front() {
            self.by_oldest.insert((oldest.id, Arc::clone(&name)));
            self.by_expiry.insert((expires_ms, name));
        }
    }

    /// Forgets the oldest events of all channels until the rest is within the bound.
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((_, name)) = self.by_oldest.pop_first()
            && let Some(channel) = self.channels.get_mut(&name)
        {
            let Some(oldest) = channel.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.counters.history_evicted.add(1);
            if let Some(next) = channel.entries.front() {
                self.by_oldest.insert((next.id, name));
                continue;
            }
            // The next event of the channel could not tell that there was this one.
            self.clock.since = self.clock.since.max(oldest.id);
            self.by_expiry.remove(&(channel.expires_ms, Arc::clone(&name)));
            self.channels.remove(&name);
            self.bytes -= CHANNEL_BYTES + name.len();
        }
    }

    /// Forgets the channels whose time is over.
    fn expire(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let mut expired = false;
        while let Some((expires_ms, name)) = self.by_expiry.first()
            && *expires_ms < self.now_ms
        {
            let name = Arc::clone(name);
            self.remove(&name);
            expired = true;
        }
        if expired {
            self.count();
        }
    }

    /// Forgets a channel, and answers with the id of its newest event.
    fn remove(&mut self, name: &[u8]) -> Option<EventId> {
        let (name, channel) = self.channels.remove_entry(name)?;
        let entries: usize = channel.entries.iter().map(Entry::bytes).sum();
        self.bytes -= entries + CHANNEL_BYTES + name.len();
        self.by_expiry.remove(&(channel.expires_ms, Arc::clone(&name)));
        let (oldest, newest) = (channel.entries.front()?.id, channel.entries.back()?.id);
        self.by_oldest.remove(&(oldest, name));
        Some(newest)
    }

    fn count(&self) {
        self.counters.history_bytes.set(self.bytes as u64);
        self.counters.history_channels.set(self.channels.len() as u64);
    }
}

impl Entry {
    pub(super) fn previous(&self) -> EventId {
        self.previous
    }

    /// The event's type, which may be empty, and its data.
    pub(super) fn event_and_data(&self) -> (&[u8], &[u8]) {
        self.text.split_at_checked(self.event_bytes).unwrap_or_default()
    }

    /// The entry's fields and their values, as the script writes them.
    pub(super) fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let (event, data) = self.event_and_data();
        let mut fields = vec![("p", self.previous.to_string().into_bytes())];
        if !event.is_empty() {
            fields.push(("e", event.to_vec()));
        }
        fields.push(("d", data.to_vec()));
        fields
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + ALLOCATION_BYTES + self.text.len()
    }
}

/// What an allocation costs beside its bytes, roughly.
const ALLOCATION_BYTES: usize = 16;

/// What a channel costs beside its name and its entries: itself, its places in three tables, its
/// room for entries.
const CHANNEL_BYTES: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_MS: u64 = 1000;

    struct Bench {
        history: History,
        now_ms: u64,
    }

    impl Bench {
        fn new(bytes_max: usize) -> Self {
            let now_ms = 50_000;
            Self { history: History::new(bytes_max, TTL_MS, now_ms, Arc::default()), now_ms }
        }

        /// Publishes, and answers with the id and the id before.
        fn publish(&mut self, channel: &str, payload: &[u8]) -> (String, String) {
            self.publish_for(channel, payload, TTL_MS)
        }

        fn publish_for(&mut self, channel: &str, payload: &[u8], ttl_ms: u64) -> (String, String) {
            let channel = channel.as_bytes();
            let publication =
                Publication { channel, kept: 3, ttl_ms, payload, event: b"", bytes_max: None };
            let envelope = self.history.publish(&publication, self.now_ms);
            self.check();
            (envelope.id.to_string(), envelope.previous.to_string())
        }

        fn kept(&mut self, channel: &str) -> Vec<String> {
            let all = EventId::ZERO..=EventId { ms: u64::MAX, seq: u64::MAX };
            let entries = self.history.range(channel.as_bytes(), all, self.now_ms);
            entries.map(|entry| entry.id.to_string()).collect()
        }

        /// All tables agree, and the bytes are those of what is there.
        fn check(&self) {
            let History { channels, by_oldest, by_expiry, bytes, bytes_max, .. } = &self.history;
            assert_eq!((by_oldest.len(), by_expiry.len()), (channels.len(), channels.len()));
            let mut sum = 0;
            for (name, channel) in channels {
                let oldest = channel.entries.front().unwrap().id;
                assert!(by_oldest.contains(&(oldest, Arc::clone(name))));
                assert!(by_expiry.contains(&(channel.expires_ms, Arc::clone(name))));
                assert!(channel.entries.iter().map(|entry| entry.id).is_sorted());
                sum += CHANNEL_BYTES + name.len();
                sum += channel.entries.iter().map(Entry::bytes).sum::<usize>();
            }
            assert_eq!(sum, *bytes);
            assert!(bytes <= bytes_max);
            assert_eq!(self.history.counters.history_bytes.get(), sum as u64);
        }
    }

    fn pair(id: &str, previous: &str) -> (String, String) {
        (id.to_owned(), previous.to_owned())
    }

    #[test]
    fn every_event_names_the_one_before_in_its_channel() {
        let mut bench = Bench::new(1 << 20);
        assert_eq!(bench.publish("a", b"1"), pair("50000-1", "50000-0"));
        assert_eq!(bench.publish("b", b"1"), pair("50000-2", "50000-0"));
        assert_eq!(bench.publish("a", b"2"), pair("50000-3", "50000-1"));
        bench.now_ms += 5;
        assert_eq!(bench.publish("b", b"2"), pair("50005-0", "50000-2"));
        assert_eq!(bench.kept("a"), ["50000-1", "50000-3"]);
        assert_eq!(bench.history.len(b"b", bench.now_ms), 2);
        assert_eq!(bench.history.len(b"c", bench.now_ms), 0);
    }

    #[test]
    fn ids_grow_though_the_time_of_day_is_set_back() {
        let mut bench = Bench::new(1 << 20);
        bench.now_ms = 60_000;
        assert_eq!(bench.publish("a", b"").0, "60000-0");
        bench.now_ms = 10_000;
        assert_eq!(bench.publish("a", b"").0, "60000-1");
        assert_eq!(bench.publish("b", b"").0, "60000-2");
        bench.now_ms = 60_001;
        assert_eq!(bench.publish("a", b"").0, "60001-0");
    }

    #[test]
    fn no_more_than_the_asked_number_is_kept() {
        let mut bench = Bench::new(1 << 20);
        let ids: Vec<String> = (0..5).map(|_| bench.publish("a", b"x").0).collect();
        assert_eq!(bench.kept("a"), ids[2..]);
    }

    #[test]
    fn history_ends_some_time_after_its_last_event() {
        let mut bench = Bench::new(1 << 20);
        bench.publish("a", b"1");
        bench.now_ms += TTL_MS;
        assert_eq!(bench.publish("a", b"2"), pair("51000-0", "50000-1"));
        bench.now_ms += TTL_MS;
        assert_eq!(bench.kept("a").len(), 2, "it is kept for its whole time");
        bench.now_ms += 1;
        assert_eq!(bench.kept("a").len(), 0);
        bench.check();
        // Streams that have come to 51102-0 miss nothing; others may.
        bench.publish("b", b"");
        assert_eq!(bench.publish("a", b"3"), pair("52001-1", "51102-0"));
    }

    #[test]
    fn the_shortest_time_to_live_counts() {
        let mut bench = Bench::new(1 << 20);
        bench.publish_for("a", b"", 10 * TTL_MS);
        assert_eq!(bench.history.clock().ttl_ms, TTL_MS);
        bench.publish_for("b", b"", 10);
        assert_eq!(bench.history.clock().ttl_ms, 10);
        bench.now_ms += 11;
        assert_eq!(bench.publish("b", b""), pair("50011-0", "50000-2"));
        assert_eq!(bench.kept("a"), ["50000-1"]);
    }

    #[test]
    fn the_oldest_events_of_all_channels_make_room() {
        let bytes_max = 15_000;
        let mut bench = Bench::new(bytes_max);
        let first = bench.publish("quiet", &[b'x'; 100]).0;
        for n in 0..100 {
            bench.publish(["a", "b"][n % 2], &[b'x'; 3000]);
        }
        // The channel is gone, and so is whatever could tell of its event but the clock.
        assert_eq!(bench.kept("quiet").len(), 0);
        let since = bench.history.clock().since;
        assert_eq!(since.to_string(), first);
        assert_eq!(bench.publish("quiet", b"").1, "50000-1");
        let evicted = bench.history.counters.history_evicted.get();
        assert!(evicted > 0, "{evicted}");
        bench.publish("huge", &vec![b'x'; bytes_max]);
        assert_eq!(bench.history.channels.len(), 0);
        assert_eq!(bench.history.clock().since, bench.history.clock().newest);
    }

    #[test]
    fn what_was_deleted_is_known_to_be_unknown() {
        let mut bench = Bench::new(1 << 20);
        let last = bench.publish("a", b"").0;
        bench.publish("b", b"");
        assert!(bench.history.delete(b"a", bench.now_ms));
        assert!(!bench.history.delete(b"a", bench.now_ms));
        bench.check();
        assert_eq!(bench.history.clock().since.to_string(), last);
        bench.history.forget_clock();
        assert_eq!(bench.history.clock().since, bench.history.clock().newest);
        assert_eq!(bench.kept("b").len(), 1);
    }

    /// A stream that was away from one id to the next is told, or has missed nothing.
    #[test]
    fn no_event_is_missed_in_silence() {
        let mut random = fastrand::Rng::with_seed(7);
        for bytes_max in [2000, 5000, 1 << 20] {
            let mut bench = Bench::new(bytes_max);
            let mut published: Vec<(usize, EventId, EventId)> = Vec::new();
            for _ in 0..2000 {
                let channel = random.usize(..5);
                let name = channel.to_string();
                let payload = vec![b'x'; random.usize(..300)];
                let ttl_ms = TTL_MS + random.u64(..2) * random.u64(..TTL_MS);
                let (id, previous) = bench.publish_for(&name, &payload, ttl_ms);
                let parse = |text: String| EventId::parse(text.as_bytes()).unwrap();
                published.push((channel, parse(id), parse(previous)));
                bench.now_ms += random.u64(..3) * random.u64(..400);
                if random.u8(..50) == 0 {
                    bench.now_ms -= random.u64(..2000);
                    bench.history.delete(random.usize(..5).to_string().as_bytes(), bench.now_ms);
                }
                check_return(&mut bench, &published, &mut random);
            }
            // The promise of every event itself.
            for (n, (channel, id, previous)) in published.iter().enumerate() {
                let before = published[..n].iter().rfind(|(other, ..)| other == channel);
                assert!(before.is_none_or(|(_, before, _)| before <= previous), "{id}");
            }
        }
    }

    /// A stream comes back with the id of some event: what it gets is all there was, or it knows.
    fn check_return(
        bench: &mut Bench,
        published: &[(usize, EventId, EventId)],
        random: &mut fastrand::Rng,
    ) {
        let back = random.usize(..published.len().min(60));
        let (_, cursor, _) = published[published.len() - 1 - back];
        let channel = random.usize(..5);
        let clock = bench.history.clock();
        let after = cursor.next().unwrap()..=clock.newest;
        let name = channel.to_string();
        let entries = bench.history.range(name.as_bytes(), after, bench.now_ms);
        let found: Vec<_> = entries.map(|entry| (entry.id, entry.previous)).collect();
        let has_entries = bench.history.len(name.as_bytes(), bench.now_ms) > 0;
        let complete = cursor >= clock.since
            && match found.first() {
                Some((_, previous)) => *previous <= cursor,
                None => has_entries || cursor >= clock.expired(bench.now_ms),
            };
        if complete {
            let missed =
                published.iter().filter(|(other, id, _)| *other == channel && *id > cursor);
            let found = found.iter().map(|(id, _)| *id);
            assert!(missed.map(|(_, id, _)| *id).eq(found), "{cursor} {channel}");
        }
    }
}
