//! Layout of a record in a ring. All numbers are little-endian; records don't leave the process.
//!
//! ```text
//! header block  0 type  1 collector  2..4 blocks  4..8 archive bytes
//!               8..16 visits  16..24 order  24..32 time  32..48 trace  48..56 span
//!               56 memberships  57 generation
//! membership    0..16 story  16..18 rule  18..20 pattern  20..22 role  22 rank  24..56 two ids
//! archive       rkyv bytes, root at their end, zeros up to the block's end
//! ```

use super::ledger::account;
use crate::event::TraceId;

/// The size of a block: one cache line.
pub const BLOCK_BYTES: usize = 64;

/// The largest record: 64 KiB. A larger event is refused and counted.
pub const MAX_RECORD_BLOCKS: usize = 1024;

/// Element of an rtrb ring.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Block(pub(super) [u8; BLOCK_BYTES]);

/// Why a record wasn't written. The caller still has the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No room now; the consumer may make some.
    #[error("the ring is full")]
    Full,
    /// The record is larger than a record may be.
    #[error("the event is larger than {} KiB", MAX_RECORD_BLOCKS * BLOCK_BYTES / 1024)]
    Oversize,
}

/// Type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// An event.
    Event = 1,
    /// A story, emitted by a shard.
    Story = 2,
    /// A promise: no event of an earlier position in the order follows on this ring.
    Watermark = 3,
    /// Skips the rest of the ring: the next record is at its start.
    Skip = 4,
    /// Log records that pass as they came.
    LogBlock = 5,
}

/// A record's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the record.
    pub record: RecordType,
    /// The number of its collector.
    pub collector: u8,
    /// The generation of the collector's events that it is counted in ([`super::Sink`]): 0 or 1.
    pub generation: u8,
    /// Bit set of the shards still to visit.
    pub visits: u64,
    /// Position in an order, from 1: live, the collector's order; in replay, the total order.
    pub order: u64,
    /// Event time, nanoseconds since the Unix epoch; 0 in a watermark.
    pub time_ns: u64,
    /// The trace that a shard has assigned to the event.
    pub trace_id: TraceId,
    /// The event's span within the trace; zero for none.
    pub span_id: [u8; 8],
}

impl Header {
    /// The header of an event that no shard has processed yet.
    #[must_use]
    pub fn event(collector: u8, visits: u64, time_ns: u64) -> Self {
        Self {
            record: RecordType::Event,
            collector,
            generation: 0,
            visits,
            order: 0,
            time_ns,
            trace_id: TraceId::NONE,
            span_id: [0; 8],
        }
    }

    /// The header of a watermark.
    #[must_use]
    pub fn watermark(order: u64) -> Self {
        Self { order, ..Self::event(0, 0, 0).with_type(RecordType::Watermark) }
    }

    /// The number under which every stage counts the event.
    #[must_use]
    #[inline]
    pub fn account(&self) -> u8 {
        account(self.collector, self.generation)
    }

    /// The same header with another record type.
    pub(super) fn with_type(self, record: RecordType) -> Self {
        Self { record, ..self }
    }

    pub(super) fn write(&self, blocks: u16, archive_bytes: u32, memberships: u8) -> Block {
        let mut b = [0; BLOCK_BYTES];
        b[0] = self.record as u8;
        b[1] = self.collector;
        b[2..4].copy_from_slice(&blocks.to_le_bytes());
        b[4..8].copy_from_slice(&archive_bytes.to_le_bytes());
        b[8..16].copy_from_slice(&self.visits.to_le_bytes());
        b[16..24].copy_from_slice(&self.order.to_le_bytes());
        b[24..32].copy_from_slice(&self.time_ns.to_le_bytes());
        b[32..48].copy_from_slice(&self.trace_id.0);
        b[48..56].copy_from_slice(&self.span_id);
        b[56] = memberships;
        b[57] = self.generation;
        Block(b)
    }

    pub(super) fn read(block: &Block) -> Self {
        let b = &block.0;
        Self {
            record: match b[0] {
                1 => RecordType::Event,
                2 => RecordType::Story,
                3 => RecordType::Watermark,
                5 => RecordType::LogBlock,
                _ => RecordType::Skip,
            },
            collector: b[1],
            generation: b[57],
            visits: u64_at(b, 8),
            order: u64_at(b, 16),
            time_ns: u64_at(b, 24),
            trace_id: TraceId(bytes(b, 32)),
            span_id: bytes(b, 48),
        }
    }
}

impl Block {
    pub(super) fn blocks(&self) -> usize {
        usize::from(u16::from_le_bytes(bytes(&self.0, 2)))
    }

    pub(super) fn archive_bytes(&self) -> usize {
        u32::from_le_bytes(bytes(&self.0, 4)) as usize
    }

    pub(super) fn memberships(&self) -> usize {
        usize::from(self.0[56])
    }
}

pub(super) fn bytes<const N: usize>(block: &[u8; BLOCK_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

fn u64_at(block: &[u8; BLOCK_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes(block, at))
}
