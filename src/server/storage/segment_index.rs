//! The index of a sealed segment: by it a query knows which of its frames to read. Queries read a
//! few pages of it ([`IndexReader`](crate::store::IndexReader)), however large it is.
//!
//! ```text
//! head     u64 each: layout (2), bytes of the filter, number of entries
//! filter   of the hashes of the entities' keys and values (`filter.rs`)
//! fences   u64: the trace of every 256th entry
//! entries  u64 each: the hash of a trace id (`id_hash`), the offset of a frame with its events;
//!          ascending
//! ```
//!
//! Numbers are little-endian.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use super::filter;

const LAYOUT: u64 = 2;
const HEAD_BYTES: u64 = 24;
const FENCE_BYTES: u64 = 8;
const ENTRY_BYTES: u64 = 16;
/// Entries for each fence.
const BLOCK: u64 = 256;

/// The bytes of an index.
pub(super) fn encode(
    entities: &HashSet<u64, ahash::RandomState>,
    traces: &BTreeSet<(u64, u64)>,
) -> Vec<u8> {
    let filter = filter::build(entities.iter().copied());
    let head = [LAYOUT, filter.len() as u64, traces.len() as u64];
    let fences = traces.iter().step_by(BLOCK as usize).map(|(trace, _)| *trace);
    let entries = traces.iter().flat_map(|(trace, offset)| [*trace, *offset]);
    let mut bytes =
        Vec::with_capacity(filter.len() + traces.len() * ENTRY_BYTES as usize * 17 / 16);
    bytes.extend(head.iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend_from_slice(&filter);
    bytes.extend(fences.chain(entries).flat_map(u64::to_le_bytes));
    bytes
}

/// An index of which parts are read.
pub(super) struct SegmentIndex<R> {
    /// Reads a range of its bytes; `None` if they are damaged.
    read: R,
    filter_bytes: u64,
    entries: u64,
}

impl<R: Fn(Range<u64>) -> Option<Vec<u8>>> SegmentIndex<R> {
    /// `None` for an index of another layout and for a damaged one.
    pub(super) fn open(read: R) -> Option<Self> {
        let head = numbers(&read(0..HEAD_BYTES)?);
        let &[LAYOUT, filter_bytes, entries] = &head[..] else { return None };
        // Neither sum below can overflow then.
        let is_possible = filter_bytes < 1 << 40 && entries < 1 << 40;
        is_possible.then_some(Self { read, filter_bytes, entries })
    }

    /// Whether the segment may have events with this entity.
    pub(super) fn may_have_entity(&self, hash: u64) -> bool {
        match filter::block(self.filter_bytes, hash) {
            None => false,
            Some(Range { start, end }) => (self.read)(HEAD_BYTES + start..HEAD_BYTES + end)
                .is_none_or(|block| filter::may_contain(&block, hash)),
        }
    }

    /// Offsets of the frames that have events of a trace, ascending; `None` if that can't be read.
    pub(super) fn frames_of(&self, trace: u64) -> Option<Vec<u64>> {
        let fences_at = HEAD_BYTES + self.filter_bytes;
        let entries_at = fences_at + self.entries.div_ceil(BLOCK) * FENCE_BYTES;
        let fences = numbers(&(self.read)(fences_at..entries_at)?);
        // Its entries can begin in the block before the first one that begins with it.
        let first = (fences.partition_point(|fence| *fence < trace) as u64).saturating_sub(1);
        let last = fences.partition_point(|fence| *fence <= trace) as u64;
        let (from, to) = (first * BLOCK, (last * BLOCK).min(self.entries));
        let at = |entry| entries_at + entry * ENTRY_BYTES;
        let entries = if from < to { numbers(&(self.read)(at(from)..at(to))?) } else { Vec::new() };
        let of_trace = entries.as_chunks::<2>().0.iter().filter(|[t, _]| *t == trace);
        Some(of_trace.map(|[_, offset]| *offset).collect())
    }
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = Box<dyn Fn(Range<u64>) -> Option<Vec<u8>>>;

    fn index(bytes: &[u8]) -> Option<SegmentIndex<Read>> {
        let bytes = bytes.to_vec();
        SegmentIndex::open(Box::new(move |range: Range<u64>| {
            bytes.get(range.start as usize..range.end as usize).map(<[u8]>::to_vec)
        }))
    }

    proptest! {
        /// Few traces with many frames fill several blocks; many traces have their fences.
        #[test]
        fn frames_of_a_trace_are_those_that_were_added(
            traces in prop::collection::btree_set((0..40u64, 0..2_000u64), 0..3_000),
            spread in prop_oneof![Just(1), Just(u64::MAX / 40)],
        ) {
            let traces: BTreeSet<_> = traces.into_iter().map(|(t, o)| (t * spread, o)).collect();
            let bytes = encode(&HashSet::default(), &traces);
            let index = index(&bytes).unwrap();
            for trace in (0..41).map(|trace| trace * spread) {
                let expected = traces.iter().filter(|(t, _)| *t == trace).map(|(_, o)| *o);
                prop_assert_eq!(index.frames_of(trace), Some(expected.collect::<Vec<_>>()));
            }
            prop_assert_eq!(index.frames_of(7).map(|f| f.len()), Some(traces.range((7, 0)..(8, 0)).count()));
        }
    }

    #[test]
    fn entities_that_were_added_are_found() {
        let entities: HashSet<u64, _> = (0..1_000).map(|n: u64| n.wrapping_mul(!0 / 997)).collect();
        let bytes = encode(&entities, &BTreeSet::from([(1, 2)]));
        let index = index(&bytes).unwrap();
        assert!(entities.iter().all(|hash| index.may_have_entity(*hash)));
        let others = (1..10_001u64).filter(|n| index.may_have_entity(n.wrapping_mul(!0 / 9_973)));
        assert!(others.count() < 200);
    }

    #[test]
    fn index_that_is_cut_or_of_another_layout_excludes_nothing() {
        let entities: HashSet<u64, _> = (0..10).collect();
        let bytes = encode(&entities, &(0..1_000).map(|n| (n, n)).collect());
        for cut in (0..bytes.len()).step_by(7) {
            let Some(index) = index(&bytes[..cut]) else { continue };
            assert!((0..10).all(|hash| index.may_have_entity(hash)), "{cut}");
            assert!(index.frames_of(999).is_none_or(|frames| frames == [999]), "{cut}");
        }
        assert!(index(&[&1u64.to_le_bytes()[..], &bytes[8..]].concat()).is_none());
        assert!(index(&[&bytes[..8], &[255; 16], &bytes[24..]].concat()).is_none());
    }
}
