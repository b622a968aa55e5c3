//! A slab in pages: growing never copies what is there, and a slot's number stays its own.

/// Entries in pages of [`PAGE_ENTRIES`]. Freed slots are used again, last freed first.
///
/// A slot that was given back holds whatever the caller left in it; entries know themselves whether
/// they are vacant.
#[derive(Debug)]
pub struct Pages<T> {
    pages: Vec<Vec<T>>,
    free: Vec<u32>,
    /// Slots ever handed out: the length of the last page follows from it.
    slots: u32,
}

const PAGE_ENTRIES: usize = 1024;

impl<T> Pages<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), slots: 0 }
    }

    /// Puts an entry into a free slot and returns the slot's number.
    pub fn insert(&mut self, entry: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.get_mut(slot) {
                *place = entry;
            }
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE_ENTRIES => page.push(entry),
            _ => {
                let mut page = Vec::with_capacity(PAGE_ENTRIES);
                page.push(entry);
                self.pages.push(page);
            }
        }
        slot
    }

    /// Gives a slot back. The caller has made its entry vacant, and does not give it back twice.
    pub fn release(&mut self, slot: u32) {
        debug_assert!(slot < self.slots);
        self.free.push(slot);
        // All vacant: start anew, so that a burst does not keep its memory for good.
        if self.free.len() == self.slots as usize {
            *self = Self::new();
        }
    }

    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        self.pages.get(slot / PAGE_ENTRIES)?.get(slot % PAGE_ENTRIES)
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let slot = slot as usize;
        self.pages.get_mut(slot / PAGE_ENTRIES)?.get_mut(slot % PAGE_ENTRIES)
    }

    /// Slots up to the highest that was ever used, vacant ones included.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Entries that are not vacant.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots as usize - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_entries_keep_their_place() {
        let mut pages = Pages::new();
        for n in 0..3_000_u32 {
            assert_eq!(pages.insert(n), n);
        }
        pages.release(7);
        pages.release(2_999);
        assert_eq!(pages.len(), 2_998);
        assert_eq!(pages.insert(1), 2_999);
        assert_eq!(pages.insert(2), 7);
        assert_eq!(pages.get(2_999), Some(&1));
        assert_eq!(pages.get(7), Some(&2));
        assert_eq!(pages.get(1_500), Some(&1_500));
        assert_eq!(pages.get(3_000), None);
    }

    #[test]
    fn memory_is_given_back_once_all_slots_are_vacant() {
        let mut pages = Pages::new();
        for n in 0..2_000 {
            pages.insert(n);
        }
        for n in 0..2_000 {
            pages.release(n);
        }
        assert!(pages.is_empty());
        assert_eq!(pages.slots(), 0);
    }
}
