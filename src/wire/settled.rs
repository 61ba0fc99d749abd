//! Which items of a sender were seen. Delivery is at least once on the wire; this makes it exactly
//! once in a store.

use std::collections::{BTreeMap, HashMap};

/// Ranges kept for one sender process. One that sends in order needs one.
const MAX_RANGES: usize = 1024;

/// Sender processes remembered. The one that was silent longest is forgotten first.
const MAX_SENDERS: usize = 4096;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None of its items was seen.
    New,
    /// All of its items were seen.
    Seen,
    /// Some were and some weren't: no sender of ours cuts its items into batches anew.
    Overlaps,
}

/// The items of one sender process that are stored or refused, as disjoint ranges of sequence
/// numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// First → one past the last. Touching ranges are joined.
    ranges: BTreeMap<u64, u64>,
}

impl Settled {
    /// Looks whether items `[first, first + count)` were seen.
    #[must_use]
    pub fn look(&self, first: u64, count: u32) -> Verdict {
        let end = first.saturating_add(u64::from(count));
        let before = self.ranges.range(..=first).next_back();
        if before.is_some_and(|(_, until)| *until >= end) {
            return Verdict::Seen;
        }
        let touches = before.is_some_and(|(_, until)| *until > first)
            || self.ranges.range(first..end).next().is_some();
        if touches { Verdict::Overlaps } else { Verdict::New }
    }

    /// Adds `[first, end)`.
    pub fn settle(&mut self, mut first: u64, mut end: u64) {
        if first >= end {
            return;
        }
        while let Some((&from, &until)) = self.ranges.range(..=end).next_back() {
            if until < first {
                break;
            }
            self.ranges.remove(&from);
            first = first.min(from);
            end = end.max(until);
        }
        self.ranges.insert(first, end);
        if self.ranges.len() > MAX_RANGES {
            // Too many holes to remember: the oldest one counts as settled. Its sender has sent
            // a thousand later batches without it, so it is not in flight any more.
            let oldest: Vec<u64> = self.ranges.keys().take(2).copied().collect();
            if let [a, b] = oldest[..] {
                let until = self.ranges.remove(&b).unwrap_or(b);
                self.ranges.insert(a, until);
            }
        }
    }

    /// One past the last item of the unbroken run of settled items that `from` is in.
    #[must_use]
    pub fn through(&self, from: u64) -> u64 {
        match self.ranges.range(..=from).next_back() {
            Some((_, &until)) if until > from => until,
            _ => from,
        }
    }
}

#[derive(Debug, Default)]
struct Sender {
    settled: Settled,
    /// When it was heard of last, in turns of the table.
    turn: u64,
}

/// What is settled, for every sender process.
#[derive(Debug, Default)]
pub struct SettledTable {
    senders: HashMap<(String, u64), Sender, ahash::RandomState>,
    turn: u64,
}

impl SettledTable {
    /// What is settled of a node's process.
    pub fn of(&mut self, node: &str, epoch: u64) -> &mut Settled {
        self.turn += 1;
        let key = (node.to_owned(), epoch);
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&key) {
            let silent = self.senders.iter().min_by_key(|(_, s)| s.turn);
            if let Some(silent) = silent.map(|(key, _)| key.clone()) {
                self.senders.remove(&silent);
            }
        }
        let sender = self.senders.entry(key).or_default();
        sender.turn = self.turn;
        &mut sender.settled
    }

    /// Sender processes remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_join_and_through_stops_at_a_hole() {
        let mut s = Settled::default();
        s.settle(0, 10);
        s.settle(20, 30);
        assert_eq!((s.through(0), s.through(10), s.through(25)), (10, 10, 30));
        assert_eq!(s.look(5, 5), Verdict::Seen);
        assert_eq!(s.look(5, 6), Verdict::Overlaps);
        assert_eq!(s.look(10, 10), Verdict::New);
        assert_eq!(s.look(15, 6), Verdict::Overlaps);
        s.settle(10, 20);
        assert_eq!(s.through(0), 30);
        assert_eq!(s.ranges.len(), 1);
    }

    #[test]
    fn holes_are_bounded() {
        let mut s = Settled::default();
        (0..5_000u64).for_each(|n| s.settle(n * 2, n * 2 + 1));
        assert_eq!(s.ranges.len(), MAX_RANGES);
        assert_eq!(s.look(9_997, 1), Verdict::New);
        assert_eq!(s.look(1, 1), Verdict::Seen);
    }

    #[test]
    fn the_longest_silent_sender_is_forgotten() {
        let mut table = SettledTable::default();
        for epoch in 0..MAX_SENDERS as u64 {
            table.of("n", epoch).settle(0, 1);
        }
        table.of("n", 0);
        table.of("n", 1_000_000).settle(0, 1);
        assert_eq!(table.len(), MAX_SENDERS);
        assert_eq!(table.of("n", 0).look(0, 1), Verdict::Seen);
        assert_eq!(table.of("n", 1).look(0, 1), Verdict::New);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(ranges in prop::collection::vec((0u64..200, 0u64..12), 0..40), probe in 0u64..220, count in 1u32..20) {
            let mut s = Settled::default();
            let mut set = std::collections::BTreeSet::new();
            for (first, len) in ranges {
                s.settle(first, first + len);
                set.extend(first..first + len);
            }
            let seen = (probe..probe + u64::from(count)).filter(|n| set.contains(n)).count();
            let expected = match seen {
                0 => Verdict::New,
                n if n == count as usize => Verdict::Seen,
                _ => Verdict::Overlaps,
            };
            prop_assert_eq!(s.look(probe, count), expected);
            let through = (probe..).find(|n| !set.contains(n)).unwrap();
            prop_assert_eq!(s.through(probe), through);
        }
    }
}
