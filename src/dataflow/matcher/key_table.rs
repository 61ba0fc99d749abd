//! A bounded table of what is pending, by rule and join key. Full keys are compared: a hash only
//! finds the place. When the table is full the entry whose deadline is nearest makes room.

use hashbrown::HashTable;

use crate::matcher::timer_wheel::Wheel;

/// What is pending for one rule and one key.
pub(crate) struct Entry<T> {
    pub(crate) rule: u16,
    hash: u64,
    pub(crate) key: Box<[u8]>,
    generation: u32,
    pub(crate) body: T,
}

/// The table.
pub(crate) struct KeyTable<T> {
    places: HashTable<u32>,
    entries: Vec<Option<Entry<T>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    wheel: Wheel,
    capacity: usize,
    pub(crate) evicted: u64,
}

/// Timers beyond twice the entries that may wait for an entry which is gone, before they are swept
/// out: a short life must not cost memory until its deadline.
const STALE_TIMERS: usize = 1024;

fn token(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// The entry a timer was set for, if it is still there.
fn alive<T>(entries: &[Option<Entry<T>>], timer: u64) -> Option<u32> {
    let slot = timer as u32;
    let entry = entries.get(slot as usize)?.as_ref()?;
    (token(slot, entry.generation) == timer).then_some(slot)
}

impl<T> KeyTable<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            places: HashTable::new(),
            entries: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            wheel: Wheel::default(),
            capacity: capacity.max(1),
            evicted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn find(&self, hash: u64, rule: u16, key: &[u8]) -> Option<u32> {
        self.places
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

    /// Adds an entry that isn't there yet. Returns its slot, and what was evicted to make room.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        rule: u16,
        key: &[u8],
        deadline_ns: u64,
        body: T,
    ) -> (u32, Option<T>) {
        let mut evicted = None;
        while self.places.len() >= self.capacity {
            let Some(token) = self.wheel.pop_earliest() else {
                break;
            };
            if let Some(slot) = alive(&self.entries, token) {
                evicted = self.remove(slot);
                self.evicted += 1;
            }
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.generations.push(0);
            (self.entries.len() - 1) as u32
        });
        let generation = self.generations[slot as usize];
        self.entries[slot as usize] = Some(Entry { rule, hash, key: key.into(), generation, body });
        let entries = &self.entries;
        self.places
            .insert_unique(hash, slot, |s| entries[*s as usize].as_ref().map_or(0, |e| e.hash));
        self.wheel.set(deadline_ns, token(slot, generation));
        (slot, evicted)
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        self.generations[slot as usize] = entry.generation.wrapping_add(1);
        if let Ok(place) = self.places.find_entry(entry.hash, |s| *s == slot) {
            place.remove();
        }
        self.free.push(slot);
        if self.wheel.len() > 2 * self.places.len() + STALE_TIMERS {
            let entries = &self.entries;
            self.wheel.retain(|timer| alive(entries, timer).is_some());
        }
        Some(entry.body)
    }

    /// Moves time on and returns the entries to look at. Each has to be removed, or asked for
    /// again with [`KeyTable::look_again`].
    pub(crate) fn due(&mut self, now_ns: u64) -> Vec<u32> {
        if self.wheel.is_empty() {
            return Vec::new();
        }
        let mut fired = Vec::new();
        self.wheel.advance(now_ns, &mut fired);
        fired.into_iter().filter_map(|timer| alive(&self.entries, timer)).collect()
    }

    /// Sets the time of the next look at an entry.
    pub(crate) fn look_again(&mut self, slot: u32, deadline_ns: u64) {
        if let Some(Some(entry)) = self.entries.get(slot as usize) {
            self.wheel.set(deadline_ns, token(slot, entry.generation));
        }
    }

    /// The entries there are, in no order.
    pub(crate) fn slots(&self) -> Vec<u32> {
        (0..self.entries.len() as u32).filter(|s| self.entries[*s as usize].is_some()).collect()
    }

    /// Gives each entry's rule its new number; forgets those whose rule has none.
    pub(crate) fn renumber(&mut self, places: &[Option<u16>]) {
        for slot in self.slots() {
            let Some(Some(entry)) = self.entries.get_mut(slot as usize) else { continue };
            match places.get(usize::from(entry.rule)).copied().flatten() {
                Some(place) => entry.rule = place,
                None => {
                    self.remove(slot);
                }
            }
        }
    }

    /// Forgets everything.
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
    fn the_nearest_deadline_makes_room() {
        let mut table: KeyTable<&str> = KeyTable::new(2);
        table.insert(1, 0, b"a", 50_000_000_000, "a");
        table.insert(2, 0, b"b", 10_000_000_000, "b");
        let (_, evicted) = table.insert(3, 0, b"c", 90_000_000_000, "c");
        assert_eq!((evicted, table.evicted, table.len()), (Some("b"), 1, 2));
        assert!(table.find(2, 0, b"b").is_none());
        assert!(table.find(1, 0, b"a").is_some());
    }

    #[test]
    fn short_lives_leave_no_timers_behind() {
        let mut table: KeyTable<()> = KeyTable::new(1_000_000);
        table.insert(0, 0, b"stays", 7_000_000_000, ());
        for n in 1..100_000u64 {
            let (slot, _) = table.insert(n, 0, &n.to_le_bytes(), 1_800_000_000_000, ());
            table.remove(slot);
            assert!(table.wheel.len() <= 2 + STALE_TIMERS, "after {n}");
        }
        assert_eq!(table.due(8_000_000_000).len(), 1, "what lives keeps its timer");
    }

    #[test]
    fn equal_hashes_are_told_apart() {
        let mut table: KeyTable<u8> = KeyTable::new(8);
        let (a, _) = table.insert(7, 0, b"a", 1, 1);
        let (b, _) = table.insert(7, 0, b"b", 1, 2);
        let (other_rule, _) = table.insert(7, 1, b"a", 1, 3);
        assert_eq!(table.find(7, 0, b"a"), Some(a));
        assert_eq!(table.find(7, 0, b"b"), Some(b));
        assert_eq!(table.find(7, 1, b"a"), Some(other_rule));
    }

    #[test]
    fn an_entry_lives_as_long_as_it_is_needed() {
        let mut table: KeyTable<u64> = KeyTable::new(8);
        table.insert(1, 0, b"a", 1_000_000_000, 5_000_000_000);
        let due = table.due(2_000_000_000);
        assert_eq!(due.len(), 1);
        table.look_again(due[0], 5_000_000_000);
        assert!(table.due(4_000_000_000).is_empty());
        assert_eq!(table.due(6_000_000_000), due);
        table.remove(due[0]);
        assert_eq!(table.len(), 0);
    }
}
