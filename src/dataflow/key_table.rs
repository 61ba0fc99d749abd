//! A bounded table by rule and join key, with a deadline for each entry. Full keys are compared:
//! the hash only finds the slot. When the table is full, the entry with the nearest deadline is
//! evicted.

use hashbrown::HashTable;

use crate::timer_wheel::TimerWheel;

/// The state of one rule for one key.
pub(crate) struct Entry<T> {
    pub(crate) rule: u16,
    hash: u64,
    pub(crate) key: Box<[u8]>,
    generation: u32,
    pub(crate) body: T,
}

/// Bounded map from rule and key to state.
pub(crate) struct KeyTable<T> {
    slot_of: HashTable<u32>,
    entries: Vec<Option<Entry<T>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    wheel: TimerWheel,
    capacity: usize,
    /// Entries evicted so far.
    pub(crate) evicted: u64,
}

/// Timers of removed entries that may stay in the wheel, beyond twice the number of entries, before
/// they are swept: a short-lived entry must not cost memory until its deadline.
const STALE_TIMERS: usize = 1024;

fn token(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// The slot of the entry a timer was set for, if that entry still exists.
fn live_slot<T>(entries: &[Option<Entry<T>>], timer: u64) -> Option<u32> {
    let slot = timer as u32;
    let entry = entries.get(slot as usize)?.as_ref()?;
    (token(slot, entry.generation) == timer).then_some(slot)
}

impl<T> KeyTable<T> {
    /// Creates a table for at most `capacity` entries, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slot_of: HashTable::new(),
            entries: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            wheel: TimerWheel::default(),
            capacity: capacity.max(1),
            evicted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slot_of.len()
    }

    /// Finds the slot of a rule and key; `hash` is the key's.
    pub(crate) fn find(&self, hash: u64, rule: u16, key: &[u8]) -> Option<u32> {
        self.slot_of
            .find(hash, |slot| {
                self.entries[*slot as usize]
                    .as_ref()
                    .is_some_and(|e| e.hash == hash && e.rule == rule && *e.key == *key)
            })
            .copied()
    }

    pub(crate) fn get(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// Inserts a rule and key that aren't in the table. Returns the slot, and the state that was
    /// evicted for it.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        rule: u16,
        key: &[u8],
        deadline_ns: u64,
        body: T,
    ) -> (u32, Option<T>) {
        let mut evicted = None;
        self.evict_to(self.capacity - 1, |body| evicted = Some(body));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.generations.push(0);
            (self.entries.len() - 1) as u32
        });
        let generation = self.generations[slot as usize];
        self.entries[slot as usize] = Some(Entry { rule, hash, key: key.into(), generation, body });
        let entries = &self.entries;
        self.slot_of
            .insert_unique(hash, slot, |s| entries[*s as usize].as_ref().map_or(0, |e| e.hash));
        self.wheel.set(deadline_ns, token(slot, generation));
        (slot, evicted)
    }

    /// Sets the capacity, at least one. Passes the state that is evicted for it.
    pub(crate) fn limit(&mut self, capacity: usize, evicted: impl FnMut(T)) {
        self.capacity = capacity.max(1);
        self.evict_to(self.capacity, evicted);
    }

    /// Evicts the entries with the nearest deadlines, down to this number.
    fn evict_to(&mut self, entries: usize, mut evicted: impl FnMut(T)) {
        while self.slot_of.len() > entries {
            let Some(token) = self.wheel.pop_earliest() else {
                break;
            };
            if let Some(body) = live_slot(&self.entries, token).and_then(|slot| self.remove(slot)) {
                self.evicted += 1;
                evicted(body);
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        self.generations[slot as usize] = entry.generation.wrapping_add(1);
        if let Ok(found) = self.slot_of.find_entry(entry.hash, |s| *s == slot) {
            found.remove();
        }
        self.free.push(slot);
        if self.wheel.len() > 2 * self.slot_of.len() + STALE_TIMERS {
            let entries = &self.entries;
            self.wheel.retain(|timer| live_slot(entries, timer).is_some());
        }
        Some(entry.body)
    }

    /// Advances time and returns the slots whose deadline has passed. The caller either removes
    /// each or sets its next deadline with [`KeyTable::reschedule`].
    pub(crate) fn due(&mut self, now_ns: u64) -> Vec<u32> {
        if self.wheel.is_empty() {
            return Vec::new();
        }
        let mut fired = Vec::new();
        self.wheel.advance(now_ns, &mut fired);
        fired.into_iter().filter_map(|timer| live_slot(&self.entries, timer)).collect()
    }

    /// Sets the next deadline of an entry.
    pub(crate) fn reschedule(&mut self, slot: u32, deadline_ns: u64) {
        if let Some(Some(entry)) = self.entries.get(slot as usize) {
            self.wheel.set(deadline_ns, token(slot, entry.generation));
        }
    }

    /// All slots in use, in no particular order.
    pub(crate) fn slots(&self) -> Vec<u32> {
        (0..self.entries.len() as u32).filter(|s| self.entries[*s as usize].is_some()).collect()
    }

    /// Gives each entry's rule its new number; removes entries whose rule has none.
    pub(crate) fn renumber(&mut self, numbers: &[Option<u16>]) {
        for slot in self.slots() {
            let Some(Some(entry)) = self.entries.get_mut(slot as usize) else { continue };
            match numbers.get(usize::from(entry.rule)).copied().flatten() {
                Some(number) => entry.rule = number,
                None => {
                    self.remove(slot);
                }
            }
        }
    }

    /// Removes all entries.
    pub(crate) fn clear(&mut self) {
        for slot in self.slots() {
            self.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_with_nearest_deadline_is_evicted() {
        let mut table: KeyTable<&str> = KeyTable::new(2);
        table.insert(1, 0, b"a", 50_000_000_000, "a");
        table.insert(2, 0, b"b", 10_000_000_000, "b");
        let (_, evicted) = table.insert(3, 0, b"c", 90_000_000_000, "c");
        assert_eq!((evicted, table.evicted, table.len()), (Some("b"), 1, 2));
        assert!(table.find(2, 0, b"b").is_none());
        assert!(table.find(1, 0, b"a").is_some());
    }

    #[test]
    fn smaller_capacity_evicts_what_is_beyond_it() {
        let mut table: KeyTable<u64> = KeyTable::new(8);
        for n in 0..8 {
            table.insert(n, 0, &n.to_le_bytes(), (8 - n) * 1_000_000_000, n);
        }
        let mut evicted = Vec::new();
        table.limit(3, |n| evicted.push(n));
        assert_eq!((evicted, table.len(), table.evicted), (vec![7, 6, 5, 4, 3], 3, 5));
        table.limit(8, |_| panic!("a larger capacity evicts nothing"));
        assert_eq!(table.insert(9, 0, b"i", 1, 9).1, None);
    }

    #[test]
    fn timers_of_removed_entries_are_swept() {
        let mut table: KeyTable<()> = KeyTable::new(1_000_000);
        table.insert(0, 0, b"stays", 7_000_000_000, ());
        for n in 1..100_000u64 {
            let (slot, _) = table.insert(n, 0, &n.to_le_bytes(), 1_800_000_000_000, ());
            table.remove(slot);
            assert!(table.wheel.len() <= 2 + STALE_TIMERS, "after {n}");
        }
        assert_eq!(table.due(8_000_000_000).len(), 1, "a live entry keeps its timer");
    }

    #[test]
    fn equal_hashes_are_distinguished_by_rule_and_key() {
        let mut table: KeyTable<u8> = KeyTable::new(8);
        let (a, _) = table.insert(7, 0, b"a", 1, 1);
        let (b, _) = table.insert(7, 0, b"b", 1, 2);
        let (other_rule, _) = table.insert(7, 1, b"a", 1, 3);
        assert_eq!(table.find(7, 0, b"a"), Some(a));
        assert_eq!(table.find(7, 0, b"b"), Some(b));
        assert_eq!(table.find(7, 1, b"a"), Some(other_rule));
    }

    #[test]
    fn rescheduled_entry_is_due_at_its_new_deadline() {
        let mut table: KeyTable<u64> = KeyTable::new(8);
        table.insert(1, 0, b"a", 1_000_000_000, 5_000_000_000);
        let due = table.due(2_000_000_000);
        assert_eq!(due.len(), 1);
        table.reschedule(due[0], 5_000_000_000);
        assert!(table.due(4_000_000_000).is_empty());
        assert_eq!(table.due(6_000_000_000), due);
        table.remove(due[0]);
        assert_eq!(table.len(), 0);
    }
}
