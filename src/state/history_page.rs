//! A stretch of a channel's history as it was read from Redis: encoded once, shared by all streams
//! that need it.

use std::cell::Cell;
use std::rc::Rc;

use crate::bytes::history::EventId;

/// Events of one channel from one id to another, as streams get them.
#[derive(Debug)]
pub struct HistoryPage {
    /// The page begins behind this id …
    from: EventId,
    /// … and everything that Redis keeps up to this one is here.
    to: EventId,
    /// Of a page without entries: what was published up to here may have been lost.
    lost_until: EventId,
    /// Of such a page: Redis keeps later ones.
    is_followed: bool,
    /// Invariant: ids and ends rise.
    entries: Box<[Entry]>,
    bytes: Box<[u8]>,
    account: Account,
}

/// An event of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: EventId,
    /// No event of the channel is between this and `id`; `id` itself where nothing is known.
    pub previous: EventId,
    /// Where its bytes end; they begin where those of the entry before end.
    end: usize,
}

/// A page that is being put together.
#[derive(Debug, Default)]
pub struct PageDraft {
    /// Encoded events. Whoever appends one calls [`Self::end_event`] then.
    pub bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// The bytes of all pages of a worker.
pub type PageBytes = Rc<Cell<usize>>;

/// What something takes of a sum, until it is gone.
#[derive(Debug)]
pub struct Account {
    bytes: usize,
    sum: PageBytes,
}

impl PageDraft {
    /// All that was appended to `bytes` since the last call is the event `id`; it may be nothing.
    /// Ids must rise.
    pub fn end_event(&mut self, id: EventId, previous: EventId) {
        debug_assert!(self.entries.last().is_none_or(|last| last.id < id));
        self.entries.push(Entry { id, previous, end: self.bytes.len() });
    }

    /// Id of the last event.
    #[must_use]
    pub fn last(&self) -> Option<EventId> {
        self.entries.last().map(|entry| entry.id)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl HistoryPage {
    /// A page of what Redis keeps behind `from`, up to `to`.
    #[must_use]
    pub fn new(from: EventId, to: EventId, draft: PageDraft, sum: &PageBytes) -> Self {
        let PageDraft { bytes, entries } = draft;
        let cost = size_of::<Self>() + bytes.len() + entries.len() * size_of::<Entry>();
        Self {
            from,
            to,
            lost_until: from,
            is_followed: false,
            entries: entries.into(),
            bytes: bytes.into(),
            account: Account::new(cost, sum),
        }
    }

    /// A page where Redis keeps nothing, and perhaps did: up to `lost_until`.
    #[must_use]
    pub fn empty(from: EventId, to: EventId, lost_until: EventId, sum: &PageBytes) -> Self {
        let lost_until = lost_until.min(to);
        Self { lost_until, ..Self::new(from, to, PageDraft::default(), sum) }
    }

    /// The same, though Redis keeps later ones.
    #[must_use]
    pub fn before_others(self) -> Self {
        Self { is_followed: true, ..self }
    }

    /// Bytes of memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.account.bytes
    }

    #[must_use]
    pub fn from(&self) -> EventId {
        self.from
    }

    #[must_use]
    pub fn to(&self) -> EventId {
        self.to
    }

    /// Up to where events may have been lost, should there be no entry.
    #[must_use]
    pub fn lost_until(&self) -> EventId {
        self.lost_until
    }

    /// Whether who has everything up to `id` finds here what comes next.
    #[must_use]
    pub fn continues(&self, id: EventId) -> bool {
        self.from <= id && id < self.to
    }

    /// Whether everything of the other page is here.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }

    /// Whether Redis keeps later events, should there be no entry.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// The number of the first entry behind `id`. O(log n).
    #[must_use]
    pub fn position(&self, id: EventId) -> usize {
        self.entries.partition_point(|entry| entry.id <= id)
    }

    /// An entry and its bytes.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<(Entry, &[u8])> {
        let entry = *self.entries.get(number)?;
        let before = number.checked_sub(1).and_then(|before| self.entries.get(before));
        let begin = before.map_or(0, |before| before.end);
        Some((entry, self.bytes.get(begin..entry.end).unwrap_or_default()))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Account {
    #[must_use]
    pub fn new(bytes: usize, sum: &PageBytes) -> Self {
        sum.set(sum.get() + bytes);
        Self { bytes, sum: Rc::clone(sum) }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.sum.set(self.sum.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    #[test]
    fn entries_are_found_by_the_id_before_them() {
        let sum = PageBytes::default();
        let mut draft = PageDraft::default();
        for (ms, text) in [(2, "two"), (4, ""), (5, "five")] {
            draft.bytes.extend_from_slice(text.as_bytes());
            draft.end_event(id(ms), id(ms - 1));
        }
        assert_eq!(draft.last(), Some(id(5)));
        let page = HistoryPage::new(id(1), id(7), draft, &sum);
        let texts = |from| -> Vec<&[u8]> {
            (page.position(id(from))..).map_while(|n| Some(page.entry(n)?.1)).collect()
        };
        assert_eq!(texts(0), [&b"two"[..], b"", b"five"]);
        assert_eq!(texts(2), [&b""[..], b"five"]);
        assert_eq!(texts(5), [&b""[..]; 0]);
        let continued: Vec<u64> = (0..9).filter(|ms| page.continues(id(*ms))).collect();
        assert_eq!(continued, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn pages_are_counted_while_they_are_there() {
        let sum = PageBytes::default();
        let mut draft = PageDraft::default();
        draft.bytes.extend_from_slice(&[0; 1000]);
        draft.end_event(id(1), id(0));
        let page = Rc::new(HistoryPage::new(id(0), id(1), draft, &sum));
        assert!((1000..1400).contains(&sum.get()), "{}", sum.get());
        let other = Rc::clone(&page);
        drop(page);
        assert!(sum.get() >= 1000);
        drop(other);
        assert_eq!(sum.get(), 0);
    }

    #[test]
    fn what_was_lost_ends_with_the_page() {
        let sum = PageBytes::default();
        let page = HistoryPage::empty(id(1), id(5), id(9), &sum);
        assert_eq!((page.lost_until(), page.is_empty()), (id(5), true));
    }
}
