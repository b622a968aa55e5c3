//! Which clients hear which names. One such table each for channels, patterns and shard channels.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::mem;

use hashbrown::HashTable;

/// Slot of a name in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NameId(u32);

/// The names of one table that one client hears, kept in step with it by [`Table`].
#[derive(Debug)]
pub(super) struct Subscriptions {
    /// Slot of the client.
    client: u32,
    names: HashSet<NameId>,
}

/// Names, and who hears them. A name whose last subscriber has left is forgotten.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Slots of `names` by name.
    ids: HashTable<u32>,
    names: Vec<Name>,
    free: Vec<u32>,
    hasher: RandomState,
}

/// Invariant: known to `ids` exactly if it has subscribers.
#[derive(Debug)]
struct Name {
    name: Box<[u8]>,
    /// Slots of clients, each of whose [`Subscriptions`] have this name.
    subscribers: Vec<u32>,
}

impl Subscriptions {
    pub(super) fn new(client: u32) -> Self {
        Self { client, names: HashSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

impl Table {
    /// Number of names that somebody hears.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The clients that hear `name`.
    pub(super) fn subscribers(&self, name: &[u8]) -> &[u32] {
        self.find(name).and_then(|id| self.names.get(id as usize)).map_or(&[], Name::subscribers)
    }

    /// All names that somebody hears, and who.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u32])> {
        let heard = self.names.iter().filter(|name| !name.subscribers.is_empty());
        heard.map(|name| (&*name.name, name.subscribers()))
    }

    /// Lets a client hear `name`, if it does not yet.
    pub(super) fn subscribe(&mut self, name: &[u8], own: &mut Subscriptions) {
        let id = self.find(name).unwrap_or_else(|| self.insert(name));
        if own.names.insert(NameId(id))
            && let Some(name) = self.names.get_mut(id as usize)
        {
            name.subscribers.push(own.client);
        }
    }

    /// Lets a client no longer hear `name`, if it does.
    pub(super) fn unsubscribe(&mut self, name: &[u8], own: &mut Subscriptions) {
        if let Some(id) = self.find(name)
            && own.names.remove(&NameId(id))
        {
            self.leave(id, own.client);
        }
    }

    /// Lets a client no longer hear anything, and answers what it heard.
    pub(super) fn unsubscribe_all(
        &mut self,
        own: &mut Subscriptions,
    ) -> impl Iterator<Item = Box<[u8]>> {
        let client = own.client;
        mem::take(&mut own.names).into_iter().filter_map(move |NameId(id)| {
            let name = self.names.get(id as usize)?.name.clone();
            self.leave(id, client);
            Some(name)
        })
    }

    fn find(&self, name: &[u8]) -> Option<u32> {
        let same =
            |id: &u32| self.names.get(*id as usize).is_some_and(|known| &*known.name == name);
        self.ids.find(self.hasher.hash_one(name), same).copied()
    }

    /// Adds a name that is not there, for a subscriber that must follow.
    fn insert(&mut self, name: &[u8]) -> u32 {
        let entry = Name { name: name.into(), subscribers: Vec::new() };
        let id = match self.free.pop().map(|id| (id, self.names.get_mut(id as usize))) {
            Some((id, Some(vacant))) => {
                *vacant = entry;
                id
            }
            _ => {
                self.names.push(entry);
                u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Self { ids, names, hasher, .. } = self;
        let hash_of =
            |id: &u32| hasher.hash_one(names.get(*id as usize).map_or(&[][..], Name::name));
        ids.insert_unique(hasher.hash_one(name), id, hash_of);
        id
    }

    /// O(n) in the subscribers of the name: they are links, few to a channel.
    fn leave(&mut self, id: u32, client: u32) {
        let Some(name) = self.names.get_mut(id as usize) else { return };
        if let Some(place) = name.subscribers.iter().position(|&other| other == client) {
            name.subscribers.swap_remove(place);
        }
        if name.subscribers.is_empty() {
            let hash = self.hasher.hash_one(&*name.name);
            if let Ok(entry) = self.ids.find_entry(hash, |&other| other == id) {
                entry.remove();
            }
            *name = Name { name: Box::default(), subscribers: Vec::new() };
            self.free.push(id);
        }
        if self.ids.is_empty() {
            // Room for a million names is given back when the last is gone.
            self.ids = HashTable::new();
            self.names = Vec::new();
            self.free = Vec::new();
        }
    }
}

impl Name {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn subscribers(&self) -> &[u32] {
        &self.subscribers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Who hears what.
    type Model = BTreeMap<Vec<u8>, BTreeSet<u32>>;

    fn contents(table: &Table) -> Model {
        let entry = |(name, subscribers): (&[u8], &[u32])| {
            let set: BTreeSet<u32> = subscribers.iter().copied().collect();
            assert_eq!(set.len(), subscribers.len(), "twice in {name:?}");
            (name.to_vec(), set)
        };
        let contents: Model = table.iter().map(entry).collect();
        assert_eq!(contents.len(), table.len());
        contents
    }

    #[test]
    fn both_sides_always_agree() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut table = Table::default();
        let mut own: Vec<Subscriptions> = (0..4).map(Subscriptions::new).collect();
        let mut model = Model::new();
        for _ in 0..5000 {
            let client = random.usize(..own.len());
            let slot = u32::try_from(client).unwrap();
            let name = vec![b'x'; random.usize(..6)];
            match random.u8(..10) {
                0 => {
                    let heard: BTreeSet<_> = table.unsubscribe_all(&mut own[client]).collect();
                    let had = model.iter().filter(|(_, subscribers)| subscribers.contains(&slot));
                    assert!(
                        heard
                            .iter()
                            .map(|name| name.to_vec())
                            .eq(had.map(|(name, _)| name.clone()))
                    );
                    for subscribers in model.values_mut() {
                        subscribers.remove(&slot);
                    }
                }
                1..5 => {
                    table.unsubscribe(&name, &mut own[client]);
                    model.entry(name).or_default().remove(&slot);
                }
                _ => {
                    table.subscribe(&name, &mut own[client]);
                    model.entry(name).or_default().insert(slot);
                }
            }
            model.retain(|_, subscribers| !subscribers.is_empty());
            assert_eq!(contents(&table), model);
            for (name, subscribers) in &model {
                assert_eq!(table.subscribers(name).len(), subscribers.len());
            }
            for (slot, own) in (0..).zip(&own) {
                assert_eq!(own.len(), model.values().filter(|heard| heard.contains(&slot)).count());
            }
        }
        assert!(table.names.len() <= 6, "slots of forgotten names are used again");
        own.iter_mut().for_each(|own| table.unsubscribe_all(own).for_each(drop));
        assert_eq!(table.names.capacity() + table.ids.capacity() + table.free.capacity(), 0);
    }
}
