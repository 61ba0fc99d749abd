//! A bounded table that is read without a lock: the entries lie in slices, each behind an [`ArcSwap`]; a
//! writer copies one slice, changes the copy and swaps it in. Entries of what is gone stay for a while and
//! are the first to make room.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;
use arc_swap::ArcSwap;

/// Slices: a write copies one of them, so that with 20,000 entries it copies eighty.
const SLICES: usize = 256;

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// When it ended, from a clock of the writer's; `None` while it lives.
    gone_ns: Option<u64>,
}

type Slice<K, V> = HashMap<K, Entry<V>, RandomState>;

/// A slice, and the lock of those who write it.
type Guarded<K, V> = (Mutex<()>, ArcSwap<Slice<K, V>>);

/// The table. Values should be cheap to clone, such as an `Arc`.
pub struct Table<K, V> {
    slices: Box<[Guarded<K, V>]>,
    hasher: RandomState,
    /// Entries each slice may hold.
    slice_max: usize,
    kept_ns: u64,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> Table<K, V> {
    /// A table of about `max` entries, where what is gone stays for `kept_ns`.
    #[must_use]
    pub fn new(max: usize, kept_ns: u64) -> Self {
        let hasher = RandomState::new();
        let empty = || ArcSwap::from_pointee(Slice::with_hasher(hasher.clone()));
        Self {
            slices: (0..SLICES).map(|_| (Mutex::new(()), empty())).collect(),
            hasher,
            // Keys don't spread evenly: a slice may be half as full again as the mean, and a bit.
            slice_max: max / SLICES + max / SLICES / 2 + 8,
            kept_ns,
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn slice<Q: Hash + ?Sized>(&self, key: &Q) -> &Guarded<K, V> {
        &self.slices[self.hasher.hash_one(key) as usize % SLICES]
    }

    /// The value of a key, whether it lives or is gone and still kept.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slice(key).1.load().get(key).map(|e| e.value.clone())
    }

    /// Whether the key has a value that isn't gone.
    pub fn lives<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slice(key).1.load().get(key).is_some_and(|e| e.gone_ns.is_none())
    }

    /// Changes a key's value: `change` gets what there is and returns what is to be. Returns whether
    /// anything changed. A full slice forgets what was gone first; where nothing is gone, a new key is
    /// refused and counted.
    pub fn change(&self, key: K, now_ns: u64, change: impl FnOnce(Option<&V>) -> V) -> bool {
        let (lock, slice) = self.slice(&key);
        let _writing = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let old = slice.load();
        let known = old.get(&key);
        let value = change(known.map(|e| &e.value));
        if known.is_some_and(|e| e.value == value && e.gone_ns.is_none()) {
            return false;
        }
        let mut new = self.without_old(&old, now_ns);
        if new.len() >= self.slice_max && !new.contains_key(&key) && !self.make_room(&mut new) {
            // Relaxed, as all counters: they are read for display.
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        new.insert(key, Entry { value, gone_ns: None });
        slice.store(new.into());
        true
    }

    /// Sets a key's value. Returns whether anything changed.
    pub fn set(&self, key: K, now_ns: u64, value: V) -> bool {
        self.change(key, now_ns, |_| value)
    }

    /// Says that a key's owner is gone: it stays resolvable for a while.
    pub fn gone<Q>(&self, key: &Q, now_ns: u64)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (lock, slice) = self.slice(key);
        let _writing = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let old = slice.load();
        if old.get(key).is_none_or(|e| e.gone_ns.is_some()) {
            return;
        }
        let mut new = self.without_old(&old, now_ns);
        if let Some(entry) = new.get_mut(key) {
            entry.gone_ns = Some(now_ns);
        }
        slice.store(new.into());
    }

    /// A copy of a slice without what is gone for long enough.
    fn without_old(&self, slice: &Slice<K, V>, now_ns: u64) -> Slice<K, V> {
        let mut new = slice.clone();
        new.retain(|_, e| e.gone_ns.is_none_or(|gone| now_ns.saturating_sub(gone) < self.kept_ns));
        new
    }

    /// Forgets the one that is gone for longest.
    fn make_room(&self, slice: &mut Slice<K, V>) -> bool {
        let gone = |(k, e): (&K, &Entry<V>)| e.gone_ns.map(|gone| (gone, k.clone()));
        let Some((_, oldest)) = slice.iter().filter_map(gone).min_by_key(|(gone, _)| *gone) else {
            return false;
        };
        slice.remove(&oldest);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Every living key with its value.
    pub fn living(&self) -> Vec<(K, V)> {
        let slices = self.slices.iter().map(|(_, slice)| slice.load_full());
        let living = |slice: &Slice<K, V>| -> Vec<(K, V)> {
            let lives = slice.iter().filter(|(_, e)| e.gone_ns.is_none());
            lives.map(|(k, e)| (k.clone(), e.value.clone())).collect()
        };
        slices.flat_map(|slice| living(&slice)).collect()
    }

    /// Entries, those that are gone and kept among them.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|(_, slice)| slice.load().len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that are gone and had to make room before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Keys that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_stays_for_a_while() {
        let table: Table<u64, u64> = Table::new(1000, 100);
        assert!(table.set(1, 0, 10));
        assert!(!table.set(1, 1, 10), "nothing changed");
        table.gone(&1, 5);
        assert_eq!((table.get(&1), table.lives(&1)), (Some(10), false));
        // Any write to the slice looks for what is old: this one is the same key's.
        table.gone(&1, 50);
        assert_eq!(table.get(&1), Some(10));
        assert!(table.set(1, 60, 10), "it lives again");
        table.gone(&1, 70);
        table.set(1, 200, 11);
        assert_eq!((table.get(&1), table.len()), (Some(11), 1));
    }

    #[test]
    fn it_is_bounded_and_the_living_stay() {
        let table: Table<u64, u64> = Table::new(SLICES, u64::MAX);
        for n in 0..100_000 {
            table.set(n, n, n);
            if n % 2 == 0 {
                table.gone(&n, n);
            }
        }
        assert!(table.len() <= SLICES * 9, "{}", table.len());
        assert!(table.refused() > 0 && table.evicted() > 0);
        let living = table.living();
        assert!(living.iter().all(|(k, v)| k % 2 == 1 && k == v));
    }

    #[test]
    fn readers_see_whole_values_while_a_writer_writes() {
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
