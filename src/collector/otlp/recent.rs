//! Requests and records that were accepted lately, to recognise those that are sent again.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Entries kept at most.
const MAX_ENTRIES: usize = 65_536;
/// How long an entry is kept. Exporters retry for five minutes by default.
const KEPT_NS: u64 = 10 * 60 * 1_000_000_000;

/// A bounded map that forgets its oldest entries.
pub(super) struct Recent<K, V> {
    entries: HashMap<K, V, ahash::RandomState>,
    /// The keys with the times of their insertion, the oldest first.
    order: VecDeque<(u64, K)>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::default(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Copy, V> Recent<K, V> {
    /// The value of a key that was inserted within the last ten minutes.
    pub(super) fn get(&mut self, key: &K, now_ns: u64) -> Option<&V> {
        let expired_ns = now_ns.saturating_sub(KEPT_NS);
        while self.order.front().is_some_and(|(at_ns, _)| *at_ns < expired_ns) {
            self.forget_oldest();
        }
        self.entries.get(key)
    }

    /// Inserts a key that isn't in the map.
    pub(super) fn insert(&mut self, key: K, value: V, now_ns: u64) {
        if self.order.len() >= MAX_ENTRIES {
            self.forget_oldest();
        }
        self.entries.insert(key, value);
        self.order.push_back((now_ns, key));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_forgotten_by_age_and_number() {
        let mut recent = Recent::default();
        recent.insert(1, 'a', 100);
        recent.insert(2, 'b', 200);
        assert_eq!(recent.get(&1, KEPT_NS + 100), Some(&'a'));
        assert_eq!(recent.get(&1, KEPT_NS + 101), None);
        assert_eq!(recent.get(&2, KEPT_NS + 101), Some(&'b'));
        for n in 3..MAX_ENTRIES + 3 {
            recent.insert(n, 'c', 300);
        }
        assert_eq!(recent.get(&2, 300), None);
        assert_eq!(recent.get(&3, 300), Some(&'c'));
        assert_eq!(recent.entries.len(), MAX_ENTRIES);
    }
}
