//! A bounded map: when it is full, what wasn't used for longest makes room.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// No slot: the end of the list of slots in the order of their use.
const NONE: u32 = u32::MAX;

struct Slot<K, V> {
    entry: Option<(K, V)>,
    /// The slot that was used next after this one, and the one used last before it.
    newer: u32,
    older: u32,
}

/// The map. Slots are chained in the order of their use, so that making room costs the same however
/// many entries there are.
pub(super) struct Lru<K, V> {
    places: HashMap<K, u32, ahash::RandomState>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    capacity: usize,
    pub(super) evicted: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            capacity: capacity.clamp(1, NONE as usize),
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Looks without counting as a use.
    pub(super) fn peek<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = *self.places.get(key)?;
        self.slots.get(place as usize)?.entry.as_ref().map(|(_, value)| value)
    }

    /// The entry of a key, if it is there.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = *self.places.get(key)?;
        self.use_now(place);
        self.slots.get_mut(place as usize)?.entry.as_mut().map(|(_, value)| value)
    }

    /// Puts an entry in that isn't there yet. Returns what made room for it.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let out = if self.places.len() >= self.capacity { self.take_oldest() } else { None };
        self.evicted += u64::from(out.is_some());
        let slot = Slot { entry: Some((key.clone(), value)), newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.places.insert(key, place);
        self.link(place);
        out
    }

    /// All entries, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().filter_map(|s| s.entry.as_ref().map(|(k, v)| (k, v)))
    }

    fn take_oldest(&mut self) -> Option<(K, V)> {
        let place = self.oldest;
        self.unlink(place);
        let entry = self.slots.get_mut(place as usize)?.entry.take()?;
        self.places.remove(&entry.0);
        self.free.push(place);
        Some(entry)
    }

    fn use_now(&mut self, place: u32) {
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    fn link(&mut self, place: u32) {
        let before = self.newest;
        if let Some(slot) = self.slots.get_mut(place as usize) {
            (slot.newer, slot.older) = (NONE, before);
        }
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let Some(&Slot { newer, older, .. }) = self.slots.get(place as usize) else {
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
        /// Against a list in the order of use.
        #[test]
        fn it_keeps_what_was_used_last(
            acts in prop::collection::vec((0u8..3, 0u8..12), 0..200), capacity in 1usize..8,
        ) {
            let mut lru = Lru::new(capacity);
            let mut list: Vec<(u8, usize)> = Vec::new();
            for (turn, (act, key)) in acts.into_iter().enumerate() {
                let at = list.iter().position(|(k, _)| *k == key);
                match (act, at) {
                    (0, None) => {
                        let out = lru.insert(key, turn);
                        let expected = (list.len() == capacity).then(|| list.remove(0));
                        prop_assert_eq!(out, expected);
                        list.push((key, turn));
                    }
                    (1, _) => {
                        prop_assert_eq!(lru.peek(&key).copied(), at.map(|at| list[at].1));
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
