//! Deduplication by sequence number: which items of a sender are stored already. Delivery is at
//! least once on the wire; with this, each item is stored exactly once.
//!
//! Only what is stored counts as stored. What was refused, or dropped by its sender, is answered on
//! the stream that it came on ([`StreamItems`]) and is forgotten with it, so that no claim of a
//! sender can make items pass for stored that aren't.

use std::collections::{BTreeMap, HashMap};

/// Ranges kept for one sender process, which bounds its memory to 16 KiB. A process that sends in
/// order needs one.
const MAX_RANGES: usize = 1024;

/// Sender processes kept. Beyond, the one that was silent for longest is evicted.
const MAX_SENDERS: usize = 4096;

/// Items by which a batch may be ahead of those that are stored.
const MAX_JUMP: u64 = 1 << 32;
/// Items that a process may send in a second: six times what was measured.
const MAX_RATE: u64 = 1_000_000;
/// Time by which a process may have started in the future: clocks differ, but not by more.
const MAX_EPOCH_AHEAD_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Why a batch can't be of a real process. Without these bounds one batch with a forged head would
/// stand before everything that the process sends later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Jump {
    /// Its sequence is too far ahead.
    #[error(
        "its sequence goes up to {end}: more than 2^32 beyond the {known} that are stored, and more \
         than the process can have sent since its start"
    )]
    Sequence {
        /// One past the last item of the batch.
        end: u64,
        /// One past the last item that is stored.
        known: u64,
    },
    /// The process began in the future.
    #[error("its epoch is {days} days ahead of this clock")]
    Epoch {
        /// Days, rounded down; at least one.
        days: u64,
    },
}

impl Jump {
    /// Checks a batch whose items end at `end`, of a process that started at `epoch`. `known`: one
    /// past the last stored item of the process; `now_ns`: the wall clock. A process that has sent
    /// to another server in the meantime is ahead by as much as it can have sent.
    pub fn check(epoch: u64, end: u64, known: impl FnOnce() -> u64, now_ns: u64) -> Option<Self> {
        let ahead_ns = epoch.saturating_sub(now_ns);
        if ahead_ns > MAX_EPOCH_AHEAD_NS {
            return Some(Self::Epoch { days: ahead_ns / MAX_EPOCH_AHEAD_NS });
        }
        // Nearly always: nothing is to be looked up.
        if end <= MAX_JUMP {
            return None;
        }
        let seconds = now_ns.saturating_sub(epoch) / SECOND_NS;
        let sent = seconds.saturating_mul(MAX_RATE).saturating_add(MAX_JUMP);
        if end <= sent {
            return None;
        }
        let known = known();
        (end > known.saturating_add(MAX_JUMP)).then_some(Self::Sequence { end, known })
    }
}

/// How the items of a batch relate to the stored ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// None is stored.
    New,
    /// All are stored.
    Duplicate,
    /// Some are stored. tapio's senders never divide items into batches anew, except for those that
    /// were refused.
    Overlap,
    /// Some are older than those that are remembered: whether they are stored is unknown.
    Forgotten,
}

/// The stored items of one sender process, as disjoint ranges of sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSet {
    /// First → one past the last. Adjacent ranges are merged.
    ranges: BTreeMap<u64, u64>,
    /// Ranges that end here or before aren't remembered.
    floor: u64,
}

impl SequenceSet {
    /// Checks the items `[first, first + count)`.
    #[must_use]
    pub fn check(&self, first: u64, count: u32) -> SequenceCheck {
        let end = first.saturating_add(u64::from(count));
        let before = self.ranges.range(..=first).next_back();
        if before.is_some_and(|(_, range_end)| *range_end >= end) {
            return SequenceCheck::Duplicate;
        }
        if first < self.floor {
            return SequenceCheck::Forgotten;
        }
        let overlaps = before.is_some_and(|(_, range_end)| *range_end > first)
            || self.ranges.range(first..end).next().is_some();
        if overlaps { SequenceCheck::Overlap } else { SequenceCheck::New }
    }

    /// Adds `[first, end)`.
    pub fn insert(&mut self, mut first: u64, mut end: u64) {
        if first >= end {
            return;
        }
        while let Some((&range_first, &range_end)) = self.ranges.range(..=end).next_back() {
            if range_end < first {
                break;
            }
            self.ranges.remove(&range_first);
            first = first.min(range_first);
            end = end.max(range_end);
        }
        self.ranges.insert(first, end);
        if self.ranges.len() > MAX_RANGES
            && let Some((_, oldest_end)) = self.ranges.pop_first()
        {
            self.floor = oldest_end;
        }
    }

    /// Removes `[first, end)`: the items are new again.
    pub fn remove(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        while let Some((&range_first, &range_end)) = self.ranges.range(..end).next_back() {
            if range_end <= first {
                break;
            }
            self.ranges.remove(&range_first);
            if range_end > end {
                self.ranges.insert(end, range_end);
            }
            if range_first < first {
                self.ranges.insert(range_first, first);
                break;
            }
        }
    }

    /// One past the last item.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(self.floor, |(_, end)| *end)
    }

    /// One past the last item of the range that contains `from`; `from` if none does.
    #[must_use]
    pub fn contiguous_end(&self, from: u64) -> u64 {
        match self.ranges.range(..=from).next_back() {
            Some((_, &range_end)) if range_end > from => range_end,
            _ => from,
        }
    }
}

/// The items of one sender process on one stream, and how far they are answered.
#[derive(Debug)]
pub struct StreamItems {
    /// Every item from the stream's first one up to this one is answered.
    through: u64,
    /// Items behind it that are answered although they aren't stored.
    unstored: SequenceSet,
}

impl StreamItems {
    /// The items of a sender whose first one on the stream is this.
    #[must_use]
    pub fn starting_at(first_sequence: u64) -> Self {
        Self { through: first_sequence, unstored: SequenceSet::default() }
    }

    /// Notes items `[first, end)` that won't be stored: they are refused, or the sender dropped
    /// them.
    pub fn give_up(&mut self, first: u64, end: u64) {
        self.unstored.insert(first, end);
    }

    /// One past the last item up to which all are answered. `stored`: the sender's stored items.
    pub fn answered_through(&mut self, stored: &SequenceSet) -> u64 {
        loop {
            let end = self.unstored.contiguous_end(stored.contiguous_end(self.through));
            if end == self.through {
                break;
            }
            self.through = end;
        }
        self.unstored.remove(0, self.through);
        self.through
    }
}

#[derive(Debug, Default)]
struct Sender {
    sequences: SequenceSet,
    last_used: u64,
}

/// The stored items of every sender process, by node and epoch.
#[derive(Debug, Default)]
pub struct SequenceTracker {
    senders: HashMap<(String, u64), Sender, ahash::RandomState>,
    /// Counts uses, to order the senders by them.
    uses: u64,
}

impl SequenceTracker {
    /// The stored items of a node's process.
    pub fn sender(&mut self, node: &str, epoch: u64) -> &mut SequenceSet {
        self.uses += 1;
        let key = (node.to_owned(), epoch);
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&key) {
            let silent = self.senders.iter().min_by_key(|(_, s)| s.last_used);
            if let Some(silent) = silent.map(|(key, _)| key.clone()) {
                self.senders.remove(&silent);
            }
        }
        let sender = self.senders.entry(key).or_default();
        sender.last_used = self.uses;
        &mut sender.sequences
    }

    /// Sender processes kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether no sender process is kept.
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
    fn ranges_merge_and_contiguous_end_stops_at_a_gap() {
        let mut s = SequenceSet::default();
        s.insert(0, 10);
        s.insert(20, 30);
        let ends = (s.contiguous_end(0), s.contiguous_end(10), s.contiguous_end(25));
        assert_eq!(ends, (10, 10, 30));
        assert_eq!(s.check(5, 5), SequenceCheck::Duplicate);
        assert_eq!(s.check(5, 6), SequenceCheck::Overlap);
        assert_eq!(s.check(10, 10), SequenceCheck::New);
        assert_eq!(s.check(15, 6), SequenceCheck::Overlap);
        s.insert(10, 20);
        assert_eq!(s.contiguous_end(0), 30);
        assert_eq!(s.ranges.len(), 1);
    }

    #[test]
    fn gaps_are_bounded() {
        let mut s = SequenceSet::default();
        (0..5_000u64).for_each(|n| s.insert(n * 2, n * 2 + 1));
        assert_eq!(s.ranges.len(), MAX_RANGES);
        assert_eq!(s.check(9_997, 1), SequenceCheck::New);
        assert_eq!(s.check(9_998, 1), SequenceCheck::Duplicate);
        let kept_from = (5_000 - MAX_RANGES as u64) * 2;
        assert_eq!(s.check(kept_from - 2, 1), SequenceCheck::Forgotten, "stored, but forgotten");
        assert_eq!(s.check(1, 1), SequenceCheck::Forgotten, "was never stored");
        assert_eq!(s.check(kept_from - 1, 1), SequenceCheck::New);
        assert_eq!(s.check(kept_from, 1), SequenceCheck::Duplicate);
    }

    #[test]
    fn refused_items_are_answered_on_their_stream_only() {
        let mut stored = SequenceSet::default();
        let mut stream = StreamItems::starting_at(10);
        stored.insert(20, 30);
        assert_eq!(stream.answered_through(&stored), 10, "items 10 to 20 are missing");
        stream.give_up(10, 20);
        stream.give_up(35, 40);
        assert_eq!(stream.answered_through(&stored), 30);
        stored.insert(30, 35);
        assert_eq!(stream.answered_through(&stored), 40);
        assert_eq!(stored.check(10, 10), SequenceCheck::New);
        // A claim about the far future has no effect on the stored items.
        assert_eq!(StreamItems::starting_at(1 << 62).answered_through(&stored), 1 << 62);
        assert_eq!(StreamItems::starting_at(25).answered_through(&stored), 35);
    }

    #[test]
    fn jumps_are_bounded_by_what_a_process_can_have_sent() {
        let day_ns = 24 * 60 * 60 * SECOND_NS;
        let now = 1_800_000_000 * SECOND_NS;
        let check = |epoch, end, known| Jump::check(epoch, end, || known, now);
        assert_eq!(check(now, MAX_JUMP, 0), None);
        assert_eq!(
            check(now, MAX_JUMP + 11, 10),
            Some(Jump::Sequence { end: MAX_JUMP + 11, known: 10 })
        );
        assert_eq!(check(now, MAX_JUMP + 11, 11), None);
        assert!(check(0, 1 << 62, 0).is_some(), "however long it has been running");
        // A server that hears of it after a month with another one.
        assert_eq!(check(now - 30 * day_ns, 165_000 * 30 * 24 * 60 * 60, 1_000), None);
        assert_eq!(check(now + day_ns, 10, 0), None);
        assert_eq!(check(now + 3 * day_ns, 10, 0), Some(Jump::Epoch { days: 3 }));
    }

    #[test]
    fn longest_silent_sender_is_evicted() {
        let mut tracker = SequenceTracker::default();
        for epoch in 0..MAX_SENDERS as u64 {
            tracker.sender("n", epoch).insert(0, 1);
        }
        tracker.sender("n", 0);
        tracker.sender("n", 1_000_000).insert(0, 1);
        assert_eq!(tracker.len(), MAX_SENDERS);
        assert_eq!(tracker.sender("n", 0).check(0, 1), SequenceCheck::Duplicate);
        assert_eq!(tracker.sender("n", 1).check(0, 1), SequenceCheck::New);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(
            ranges in prop::collection::vec((any::<bool>(), 0u64..200, 0u64..12), 0..40),
            probe in 0u64..220,
            count in 1u32..20,
        ) {
            let mut s = SequenceSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (is_removed, first, len) in ranges {
                if is_removed {
                    s.remove(first, first + len);
                    model.retain(|n| !(first..first + len).contains(n));
                } else {
                    s.insert(first, first + len);
                    model.extend(first..first + len);
                }
            }
            let handled = (probe..probe + u64::from(count)).filter(|n| model.contains(n)).count();
            let expected = match handled {
                0 => SequenceCheck::New,
                n if n == count as usize => SequenceCheck::Duplicate,
                _ => SequenceCheck::Overlap,
            };
            prop_assert_eq!(s.check(probe, count), expected);
            let end = (probe..).find(|n| !model.contains(n)).unwrap();
            prop_assert_eq!(s.contiguous_end(probe), end);
        }
    }
}
