//! Channels with events that are not kept beside those that are: "mixed" ones.
//!
//! Whoever publishes such an event without history, nobody can give it back to streams that come
//! over it. A worker that sees one notes the channel in Redis, where all workers of all servers
//! read it with the clock. Where nobody listened, nobody has seen it; so a channel that has had
//! one counts as mixed for as long as ids may predate it, and who comes back to it is told.

use std::collections::{HashMap, VecDeque};

use super::Streams;
use super::clock::Told;
use crate::bytes::event_stream::ResetReason;
use crate::bytes::history::{EventId, PLAIN_MARKS_MAX};
use crate::ground::ids::ChannelId;
use crate::state::channels::Subscription;

#[derive(Debug)]
pub(super) struct Marks {
    /// How long a channel counts as mixed: no kept event is older, by Redis' time.
    retention_ms: u64,
    /// By name in Redis.
    known: HashMap<Box<[u8]>, Mark>,
    /// There were more than can be told apart: until then all channels count.
    all_until: u64,
    /// Marks in Redis are read up to this one.
    read: EventId,
    /// What is to be noted in Redis, and what Redis has not answered yet.
    unwritten: VecDeque<Box<[u8]>>,
    writing: VecDeque<Box<[u8]>>,
    pruned_at_ms: u64,
}

/// A channel that counts as mixed.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    until: u64,
    /// The same by what Redis has of it.
    noted: u64,
}

/// Time between two looks for marks that are over.
const PRUNE_MS: u64 = 10_000;

impl Marks {
    pub(super) fn new(retention_ms: u64) -> Self {
        Self {
            retention_ms: retention_ms.max(1),
            known: HashMap::new(),
            all_until: 0,
            read: EventId::ZERO,
            unwritten: VecDeque::new(),
            writing: VecDeque::new(),
            pruned_at_ms: 0,
        }
    }

    pub(super) fn read(&self) -> EventId {
        self.read
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether a channel counts as mixed at a time of Redis.
    pub(super) fn contains(&self, name: &[u8], now_ms: u64) -> bool {
        let until = self.known.get(name).map_or(0, |mark| mark.until).max(self.all_until);
        now_ms < until
    }

    /// Somebody has published without history. True if that is news of the channel.
    pub(super) fn note(&mut self, name: &[u8], now_ms: u64) -> bool {
        let until = now_ms.saturating_add(self.retention_ms);
        let known = self.known.get(name).copied();
        // What Redis has of it lasts for a while: others let it count for a quarter longer.
        let noted = known.map_or(0, |mark| mark.noted);
        let is_noted = noted.saturating_add(self.retention_ms / 4) > until;
        self.remember(name, Mark { until, noted: if is_noted { noted } else { until } });
        if is_noted {
            return false;
        }
        self.unwritten.push_back(name.into());
        known.is_none()
    }

    fn remember(&mut self, name: &[u8], mark: Mark) {
        if self.known.len() >= PLAIN_MARKS_MAX && !self.known.contains_key(name) {
            self.all_until = self.all_until.max(mark.until);
            return;
        }
        let entry = self.known.entry(name.into()).or_default();
        entry.until = mark.until.max(entry.until);
        entry.noted = mark.noted.max(entry.noted);
    }

    /// Takes in what others have noted. Returns the names that are new.
    fn learn<'a>(&mut self, marks: &[(EventId, &'a [u8])], now_ms: u64) -> Vec<&'a [u8]> {
        let is_cut = marks.len() >= PLAIN_MARKS_MAX
            && marks.first().is_some_and(|(id, _)| self.counts_until(id.ms) > now_ms);
        if is_cut {
            // Older ones may have been there that count.
            self.all_until = now_ms.saturating_add(self.retention_ms);
        }
        let mut news = Vec::new();
        for (id, name) in marks {
            self.read = self.read.max(*id);
            let until = self.counts_until(id.ms);
            if until <= now_ms {
                continue;
            }
            if !self.known.contains_key(*name) {
                news.push(*name);
            }
            let noted = id.ms.saturating_add(self.retention_ms);
            self.remember(name, Mark { until, noted });
        }
        news
    }

    /// Until when a channel counts that somebody noted then: who did may have seen more since, and
    /// notes it again after a quarter of the time.
    fn counts_until(&self, noted_ms: u64) -> u64 {
        noted_ms.saturating_add(self.retention_ms).saturating_add(self.retention_ms / 4)
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        if now_ms >= self.pruned_at_ms.saturating_add(PRUNE_MS) {
            self.pruned_at_ms = now_ms;
            self.known.retain(|_, mark| now_ms < mark.until);
            self.known.shrink_to(self.known.len() * 2);
        }
    }

    /// The link is lost: what Redis has not answered may not have reached it.
    pub(super) fn lose(&mut self) {
        self.writing.append(&mut self.unwritten);
        self.unwritten = std::mem::take(&mut self.writing);
    }
}

impl Streams {
    /// Whether events of a channel are kept, by its name in Redis.
    #[must_use]
    pub fn keeps(&self, name: &[u8]) -> bool {
        self.history.keeps(name)
    }

    /// Notes that an event was published that is not kept, on a channel whose events are, by its
    /// name in Redis. True if that is news of the channel.
    pub fn note_plain(&mut self, name: &[u8]) -> bool {
        if !self.history.keeps(name) {
            return false;
        }
        let recent = self.channels.find(name).and_then(|id| self.channels.recent_mut(id));
        if let Some(recent) = recent {
            recent.plain = recent.plain.wrapping_add(1);
        }
        let now_ms = self.history.redis_time_ms(self.now_ms);
        self.history.marks.note(name, now_ms)
    }

    /// The next channel to be noted as mixed.
    pub fn next_mark(&mut self) -> Option<Box<[u8]>> {
        let name = self.history.marks.unwritten.pop_front()?;
        self.history.marks.writing.push_back(name.clone());
        Some(name)
    }

    /// Redis answered to the oldest of them.
    pub fn mark_answered(&mut self) {
        self.history.marks.writing.pop_front();
    }

    /// Whether a channel has events beside those that are kept.
    pub(super) fn is_mixed(&self, id: ChannelId) -> bool {
        let now_ms = self.history.redis_time_ms(self.now_ms);
        self.history.marks.contains(self.name(id), now_ms)
    }

    /// Others have seen events that are not kept. Where we have not, it was before our subscription
    /// stood: streams that have come back since may have missed them.
    pub(super) fn learn_marks(&mut self, told: &Told<'_>) {
        let is_begun = self.history.repair.as_ref().is_some_and(|repair| repair.is_begun());
        let is_told_now = self.history.is_current() || is_begun;
        for name in self.history.marks.learn(told.plain, told.now_ms) {
            let Some(id) = self.channels.find(name) else { continue };
            if let Some(recent) = self.channels.recent_mut(id) {
                recent.plain = recent.plain.wrapping_add(1);
            }
            let stands = |id| {
                let channel = self.channels.get(id);
                channel.is_some_and(|channel| channel.subscription == Subscription::Standing)
            };
            if is_told_now && self.is_kept(id) && self.has_streams(id) && stands(id) {
                self.reset_at(id, ResetReason::NoHistory, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    #[test]
    fn a_channel_is_mixed_for_as_long_as_ids_may_predate_its_last_event_without_history() {
        let mut marks = Marks::new(1000);
        assert!(marks.note(b"a", 5000));
        assert!(!marks.note(b"a", 5100), "noted a moment ago");
        assert_eq!(marks.unwritten.len(), 1);
        assert!(!marks.note(b"a", 5900), "not news, but noted again");
        assert_eq!(marks.unwritten.len(), 2);
        assert!(marks.contains(b"a", 6899) && !marks.contains(b"a", 6900));
        assert!(!marks.contains(b"b", 5000));
        marks.tick(20_000);
        assert_eq!(marks.len(), 0);
    }

    #[test]
    fn what_others_have_noted_counts_from_then_on() {
        let mut marks = Marks::new(1000);
        marks.note(b"mine", 5000);
        let told: [(EventId, &[u8]); 4] =
            [(id(3000), b"old"), (id(4500), b"a"), (id(5000), b"mine"), (id(5001), b"a")];
        assert_eq!(marks.learn(&told, 5002), [b"a"]);
        assert_eq!(marks.read(), id(5001));
        assert!(marks.contains(b"a", 6250) && !marks.contains(b"a", 6251));
        assert!(!marks.contains(b"old", 5002));
    }

    #[test]
    fn marks_beyond_those_that_are_told_apart_count_for_all_channels() {
        let mut marks = Marks::new(1000);
        let names: Vec<Vec<u8>> =
            (0..=PLAIN_MARKS_MAX).map(|n| n.to_string().into_bytes()).collect();
        for name in &names[1..] {
            marks.note(name, 5000);
        }
        assert!(!marks.contains(b"other", 5000));
        marks.note(&names[0], 5000);
        assert!(marks.contains(b"other", 5000) && !marks.contains(b"other", 6000));
        assert_eq!(marks.len(), PLAIN_MARKS_MAX);

        let mut marks = Marks::new(1000);
        let told: Vec<(EventId, &[u8])> =
            names[1..].iter().map(|name| (id(4500), name.as_slice())).collect();
        marks.learn(&told, 5000);
        assert!(marks.contains(b"other", 5999) && !marks.contains(b"other", 6000));
    }

    #[test]
    fn what_redis_has_not_answered_is_noted_again() {
        let mut marks = Marks::new(1000);
        for name in [&b"a"[..], b"b", b"c"] {
            marks.note(name, 5000);
        }
        for _ in 0..2 {
            let name = marks.unwritten.pop_front().unwrap();
            marks.writing.push_back(name);
        }
        marks.writing.pop_front();
        marks.lose();
        let left: Vec<&[u8]> = marks.unwritten.iter().map(|name| &**name).collect();
        assert_eq!(left, [b"b", b"c"]);
    }
}
