//! Bounded table with lock-free reads: entries are in slices, each behind an [`ArcSwap`]; a writer
//! copies one slice, changes the copy and swaps it in. Entries of removed keys stay resolvable for
//! a while and are evicted first.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;
use arc_swap::ArcSwap;

use crate::counters::Value;

/// Number of slices. A write copies one of them: about eighty of 20,000 entries.
const SLICES: usize = 256;

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// Time of removal, by the writer's clock; `None` for a live entry.
    removed_ns: Option<u64>,
}

type Slice<K, V> = HashMap<K, Entry<V>, RandomState>;

/// Entries that a table lost for lack of room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Losses {
    /// Removed entries that were evicted before their retention was over.
    pub(super) evicted: u64,
    /// New keys that were refused.
    pub(super) refused: u64,
}

/// A slice, and the lock of its writers.
type LockedSlice<K, V> = (Mutex<()>, ArcSwap<Slice<K, V>>);

/// Bounded table. Values should be cheap to clone, such as an `Arc`.
pub struct Table<K, V> {
    slices: Box<[LockedSlice<K, V>]>,
    hasher: RandomState,
    /// Maximum entries of a slice.
    max_slice_entries: usize,
    /// How long removed entries stay resolvable.
    retention_ns: u64,
    evicted: Value,
    refused: Value,
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> Table<K, V> {
    /// A table of about `max` entries. Removed entries stay resolvable for `retention_ns`.
    #[must_use]
    pub fn new(max: usize, retention_ns: u64) -> Self {
        let hasher = RandomState::new();
        let empty = || ArcSwap::from_pointee(Slice::with_hasher(hasher.clone()));
        Self {
            slices: (0..SLICES).map(|_| (Mutex::new(()), empty())).collect(),
            hasher,
            // Keys don't spread evenly: a slice may be half as large again as the mean, plus a few.
            max_slice_entries: max / SLICES + max / SLICES / 2 + 8,
            retention_ns,
            evicted: Value::default(),
            refused: Value::default(),
        }
    }

    fn slice<Q: Hash + ?Sized>(&self, key: &Q) -> &LockedSlice<K, V> {
        &self.slices[self.hasher.hash_one(key) as usize % SLICES]
    }

    /// The value of a key, live or removed and still resolvable.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slice(key).1.load().get(key).map(|e| e.value.clone())
    }

    /// Whether the key has a live value.
    pub fn is_live<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slice(key).1.load().get(key).is_some_and(|e| e.removed_ns.is_none())
    }

    /// Updates a key: `update` gets the current value and returns the new one. Returns whether
    /// anything changed. A full slice evicts the entry removed first; if none is removed, a new key
    /// is refused and counted.
    pub fn update(&self, key: K, now_ns: u64, update: impl FnOnce(Option<&V>) -> V) -> bool {
        let (lock, slice) = self.slice(&key);
        let _writing = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let old = slice.load();
        let current = old.get(&key);
        let value = update(current.map(|e| &e.value));
        if current.is_some_and(|e| e.value == value && e.removed_ns.is_none()) {
            return false;
        }
        let mut new = self.without_expired(&old, now_ns);
        if new.len() >= self.max_slice_entries
            && !new.contains_key(&key)
            && !self.evict_removed(&mut new)
        {
            self.refused.add(1);
            return false;
        }
        new.insert(key, Entry { value, removed_ns: None });
        slice.store(new.into());
        true
    }

    /// Sets the value of a key. Returns whether anything changed.
    pub fn set(&self, key: K, now_ns: u64, value: V) -> bool {
        self.update(key, now_ns, |_| value)
    }

    /// Removes a key. It stays resolvable for a while.
    pub fn remove<Q>(&self, key: &Q, now_ns: u64)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (lock, slice) = self.slice(key);
        let _writing = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let old = slice.load();
        if old.get(key).is_none_or(|e| e.removed_ns.is_some()) {
            return;
        }
        let mut new = self.without_expired(&old, now_ns);
        if let Some(entry) = new.get_mut(key) {
            entry.removed_ns = Some(now_ns);
        }
        slice.store(new.into());
    }

    /// Copies a slice without the entries whose retention is over.
    fn without_expired(&self, slice: &Slice<K, V>, now_ns: u64) -> Slice<K, V> {
        let is_retained = |e: &Entry<V>| {
            e.removed_ns.is_none_or(|at_ns| now_ns.saturating_sub(at_ns) < self.retention_ns)
        };
        let mut new = slice.clone();
        new.retain(|_, e| is_retained(e));
        new
    }

    /// Evicts the entry that was removed first. Returns whether there was one.
    fn evict_removed(&self, slice: &mut Slice<K, V>) -> bool {
        let removed = |(k, e): (&K, &Entry<V>)| e.removed_ns.map(|at_ns| (at_ns, k.clone()));
        let Some((_, oldest)) = slice.iter().filter_map(removed).min_by_key(|(at_ns, _)| *at_ns)
        else {
            return false;
        };
        slice.remove(&oldest);
        self.evicted.add(1);
        true
    }

    /// All live entries.
    pub fn live_entries(&self) -> Vec<(K, V)> {
        let slices = self.slices.iter().map(|(_, slice)| slice.load_full());
        let live = |slice: &Slice<K, V>| -> Vec<(K, V)> {
            let entries = slice.iter().filter(|(_, e)| e.removed_ns.is_none());
            entries.map(|(k, e)| (k.clone(), e.value.clone())).collect()
        };
        slices.flat_map(|slice| live(&slice)).collect()
    }

    /// Entries, including removed ones that are still resolvable.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|(_, slice)| slice.load().len()).sum()
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries lost for lack of room so far.
    pub(super) fn losses(&self) -> Losses {
        Losses { evicted: self.evicted.get(), refused: self.refused.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_entry_stays_for_the_retention() {
        let table: Table<u64, u64> = Table::new(1000, 100);
        assert!(table.set(1, 0, 10));
        assert!(!table.set(1, 1, 10), "nothing changed");
        table.remove(&1, 5);
        assert_eq!((table.get(&1), table.is_live(&1)), (Some(10), false));
        // Any write to the slice drops expired entries: this one has the same key.
        table.remove(&1, 50);
        assert_eq!(table.get(&1), Some(10));
        assert!(table.set(1, 60, 10), "live again");
        table.remove(&1, 70);
        table.set(1, 200, 11);
        assert_eq!((table.get(&1), table.len()), (Some(11), 1));
    }

    #[test]
    fn table_is_bounded_and_keeps_live_entries() {
        let table: Table<u64, u64> = Table::new(SLICES, u64::MAX);
        for n in 0..100_000 {
            table.set(n, n, n);
            if n % 2 == 0 {
                table.remove(&n, n);
            }
        }
        assert!(table.len() <= SLICES * 9, "{}", table.len());
        let losses = table.losses();
        assert!(losses.refused > 0 && losses.evicted > 0);
        let live = table.live_entries();
        assert!(live.iter().all(|(k, v)| k % 2 == 1 && k == v));
    }

    #[test]
    fn readers_see_consistent_values_during_writes() {
        let table: Table<u64, std::sync::Arc<(u64, u64)>> = Table::new(1000, 100);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000 {
                    table.set(n % 50, n, std::sync::Arc::new((n, n * 3)));
                }
            });
            for n in 0..20_000u64 {
                if let Some(pair) = table.get(&(n % 50)) {
                    assert_eq!(pair.1, pair.0 * 3);
                }
            }
        });
    }
}
