//! Writes a block into a batch.

use crate::buffer::varint_len;
use crate::decode::MAX_BATCH_BYTES;
use crate::encode::{Appended, BatchEncoder, EVENT_SLACK_BYTES, write_field};
use tapio_core::event::ArchivedLogBlock;
use tapio_core::ring::{BLOCK_BYTES, Header, Record};

/// Varint bytes of a block's length: up to 2 MiB, far more than a record of a ring.
const BLOCK_LEN_BYTES: usize = 3;

/// The most that a batch may grow where a receiver makes events of its log records: half of what a
/// batch may have.
const MAX_EXPANDED_BYTES: usize = MAX_BATCH_BYTES / 2;

/// Upper bound of the events that a receiver makes of a block, in bytes: each has the fields that
/// they share, and its own ones with shorter keys.
fn expanded_bound_bytes(block: &ArchivedLogBlock<'_>, record_blocks: usize) -> usize {
    let shared_bytes = (record_blocks * BLOCK_BYTES).saturating_sub(block.encoded.len());
    block.records.to_native() as usize * (2 * shared_bytes + EVENT_SLACK_BYTES)
        + 2 * block.encoded.len()
}

impl BatchEncoder {
    /// Appends log records of a record, as many as there are in `encoded`.
    pub fn append_logs(
        &mut self,
        record: &Record<'_>,
        (encoded, records): (&[u8], u32),
    ) -> Appended {
        let Some(block) = record.log_block() else { return Appended::Nothing };
        let bound = 2 * record.len_blocks() * BLOCK_BYTES + EVENT_SLACK_BYTES;
        let expanded_bytes = expanded_bound_bytes(block, record.len_blocks());
        let has_room = self.buffer.has_room(bound + self.names.text_bytes)
            && self.expanded_bytes + expanded_bytes <= MAX_EXPANDED_BYTES;
        if !has_room && !self.is_empty() {
            return Appended::Full;
        }
        self.buffer.reserve(bound);
        self.log_block(record.header(), block, (encoded, records));
        self.expanded_bytes += expanded_bytes;
        Appended::Event
    }

    /// Appends log records with what they share, for which there is room.
    fn log_block(
        &mut self,
        header: &Header,
        block: &ArchivedLogBlock<'_>,
        (encoded, records): (&[u8], u32),
    ) {
        let names = &mut self.names;
        let mut out = self.buffer.writer();
        out.byte(11 << 3 | 2);
        let start = out.reserve_length(BLOCK_LEN_BYTES);
        out.byte(1 << 3);
        out.varint(records.into());
        out.fixed64(2 << 3 | 1, block.shared.observed_ns.to_native());
        if header.trace_id.is_some() {
            out.delimited(3 << 3 | 2, &header.trace_id.0);
        }
        out.byte(4 << 3);
        out.varint(block.dropped_attributes.to_native().into());
        out.delimited(5 << 3 | 2, &block.resource_digest);
        out.delimited(6 << 3 | 2, &block.scope);
        for field in block.shared.entity_fields() {
            write_field(&mut out, 11 << 3 | 2, field, names);
        }
        for field in block.shared.attribute_fields() {
            write_field(&mut out, 12 << 3 | 2, field, names);
        }
        out.delimited(7 << 3 | 2, encoded);
        out.fill_length(start, BLOCK_LEN_BYTES);
        debug_assert!(varint_len((out.at - start) as u64) <= BLOCK_LEN_BYTES);
        self.buffer.used = out.at;
        self.count_events(header.account(), records);
    }
}
