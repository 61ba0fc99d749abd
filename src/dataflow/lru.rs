//! A bounded map with least-recently-used eviction.

use std::borrow::Borrow;
use std::hash::Hash;

use hashbrown::HashTable;

/// No slot: the end of the list of slots in order of use.
const NONE: u32 = u32::MAX;

struct Slot<K, V> {
    entry: Option<(K, V)>,
    /// The neighbours in the list: the slot used next after this one, and the one used before it.
    newer: u32,
    older: u32,
}

/// Bounded map that evicts the least recently used entry. Slots are linked in order of use, so an
/// eviction costs the same for any number of entries.
pub(crate) struct Lru<K, V> {
    hasher: ahash::RandomState,
    /// Slots by the hash of their key, which only the slot has.
    slot_of: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    capacity: usize,
    /// Entries evicted so far.
    pub(crate) evicted: u64,
}

/// The key of a slot.
fn key_of<K, V>(slots: &[Slot<K, V>], slot: u32) -> Option<&K> {
    slots.get(slot as usize)?.entry.as_ref().map(|(key, _)| key)
}

impl<K: Hash + Eq, V> Lru<K, V> {
    /// Creates a map for at most `capacity` entries, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            hasher: ahash::RandomState::new(),
            slot_of: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            capacity: capacity.clamp(1, NONE as usize),
            evicted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slot_of.len()
    }

    /// The slot of a key.
    fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        let is_key = |slot: &u32| key_of(&self.slots, *slot).is_some_and(|k| k.borrow() == key);
        self.slot_of.find(self.hasher.hash_one(key), is_key).copied()
    }

    /// Returns the value of a key without counting it as a use.
    pub(crate) fn peek<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let slot = self.find(key)?;
        self.slots.get(slot as usize)?.entry.as_ref().map(|(_, value)| value)
    }

    /// Returns the value of a key and makes it the most recently used.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let slot = self.find(key)?;
        self.touch(slot);
        self.slots.get_mut(slot as usize)?.entry.as_mut().map(|(_, value)| value)
    }

    /// Inserts a key that isn't in the map. Returns the entry that was evicted for it.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let evicted = if self.slot_of.len() >= self.capacity { self.take_oldest() } else { None };
        self.evicted += u64::from(evicted.is_some());
        let hash = self.hasher.hash_one(&key);
        let new = Slot { entry: Some((key, value)), newer: NONE, older: NONE };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                self.slots.push(new);
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash_of = |slot: &u32| key_of(slots, *slot).map_or(0, |key| hasher.hash_one(key));
        self.slot_of.insert_unique(hash, slot, hash_of);
        self.link(slot);
        evicted
    }

    /// Sets the capacity, at least one. Returns the entries that were evicted for it.
    pub(crate) fn limit(&mut self, capacity: usize) -> Vec<(K, V)> {
        self.capacity = capacity.clamp(1, NONE as usize);
        let excess = self.len().saturating_sub(self.capacity);
        let evicted: Vec<_> = (0..excess).map_while(|_| self.take_oldest()).collect();
        self.evicted += evicted.len() as u64;
        evicted
    }

    /// All entries, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().filter_map(|s| s.entry.as_ref().map(|(k, v)| (k, v)))
    }

    fn take_oldest(&mut self) -> Option<(K, V)> {
        let slot = self.oldest;
        self.unlink(slot);
        let entry = self.slots.get_mut(slot as usize)?.entry.take()?;
        if let Ok(found) = self.slot_of.find_entry(self.hasher.hash_one(&entry.0), |s| *s == slot) {
            found.remove();
        }
        self.free.push(slot);
        Some(entry)
    }

    fn touch(&mut self, slot: u32) {
        if self.newest != slot {
            self.unlink(slot);
            self.link(slot);
        }
    }

    /// Links a slot at the newest end.
    fn link(&mut self, slot: u32) {
        let before = self.newest;
        if let Some(new) = self.slots.get_mut(slot as usize) {
            (new.newer, new.older) = (NONE, before);
        }
        match self.slots.get_mut(before as usize) {
            Some(before) => before.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Some(&Slot { newer, older, .. }) = self.slots.get(slot as usize) else {
            return;
        };
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares with a list in order of use.
        #[test]
        fn least_recently_used_entry_is_evicted(
            operations in prop::collection::vec((0u8..4, 0u8..12), 0..200),
            mut capacity in 1usize..8,
        ) {
            let mut lru = Lru::new(capacity);
            let mut list: Vec<(u8, usize)> = Vec::new();
            for (number, (operation, key)) in operations.into_iter().enumerate() {
                let at = list.iter().position(|(k, _)| *k == key);
                match (operation, at) {
                    (0, None) => {
                        let evicted = lru.insert(key, number);
                        let expected = (list.len() == capacity).then(|| list.remove(0));
                        prop_assert_eq!(evicted, expected);
                        list.push((key, number));
                    }
                    (1, _) => {
                        prop_assert_eq!(lru.peek(&key).copied(), at.map(|at| list[at].1));
                    }
                    (3, _) => {
                        capacity = usize::from(key % 8).max(1);
                        let excess = list.len().saturating_sub(capacity);
                        prop_assert_eq!(lru.limit(capacity), list.drain(..excess).collect::<Vec<_>>());
                    }
                    _ => {
                        prop_assert_eq!(lru.get(&key).copied(), at.map(|at| list[at].1));
                        if let Some(at) = at {
                            let used = list.remove(at);
                            list.push(used);
                        }
                    }
                }
                let mut all: Vec<_> = lru.iter().map(|(k, v)| (*k, *v)).collect();
                let mut expected = list.clone();
                all.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(all, expected);
            }
        }
    }
}
