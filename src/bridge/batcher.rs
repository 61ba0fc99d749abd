//! Encodes the records of the shards' rings into batches, one for each lane.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Accounts;
use super::lanes::{LANES, lane_of};
use super::outbox::Outbox;
use tapio_core::clock;
use tapio_core::event::{EventId, Reason};
use tapio_core::ring::{Bell, MAX_ACCOUNTS, MAX_COLLECTORS, Record, RecordReader};
use tapio_wire::{Appended, BatchEncoder, log_ids};

/// Blocks read from a ring before the next one's turn, and before sockets are polled: 256 KiB.
const CHUNK_BLOCKS: usize = 4096;

/// A batch of this size is worth closing as soon as the rings are read: senders wait until their
/// events are in the spool.
const WORTHWHILE_BYTES: usize = 32 * 1024;

/// The batch that a lane is being written.
struct OpenBatch {
    encoder: BatchEncoder,
    /// When its first record was read.
    opened: Option<Instant>,
}

/// Events that sources deliver again after a restart although the spool has them: their saved
/// position was behind.
pub(super) struct ReadAgain {
    /// Ids of the latest events in the spool.
    pub(super) ids: HashSet<EventId, ahash::RandomState>,
    /// Bit n: the collector with this number reads events again.
    pub(super) collectors: u32,
}

impl ReadAgain {
    /// Whether a record can have such events.
    fn concerns(&self, record: &Record<'_>) -> bool {
        let collector = usize::from(record.header().account()) % MAX_COLLECTORS;
        !self.ids.is_empty() && self.collectors >> collector & 1 == 1
    }

    /// Whether a record is such an event; it is one once.
    fn take(&mut self, record: &Record<'_>) -> bool {
        self.concerns(record)
            && record.event().is_some_and(|event| self.ids.remove(&EventId(event.id.0)))
    }

    /// The log records of a record without such events, and their number; `None` if it has none of
    /// them.
    fn new_logs(&mut self, record: &Record<'_>, node: &str) -> Option<(Vec<u8>, u32)> {
        let block = record.log_block().filter(|_| self.concerns(record))?;
        let (mut encoded, mut records) = (Vec::with_capacity(block.encoded.len()), 0);
        for (_, log) in log_ids(node, block).filter(|(id, _)| !self.ids.remove(id)) {
            encoded.extend_from_slice(log);
            records += 1;
        }
        (records < block.records.to_native()).then_some((encoded, records))
    }
}

pub(super) struct Batcher {
    readers: Vec<RecordReader>,
    pub(super) bell: Arc<Bell>,
    open: [OpenBatch; LANES],
    batch_events: u32,
    read_again: ReadAgain,
}

/// Result of one pass over the rings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    pub(super) records: usize,
    /// Records are left, and the outbox has room for them.
    pub(super) more: bool,
}

impl Batcher {
    pub(super) fn new(
        readers: Vec<RecordReader>,
        bell: Arc<Bell>,
        encoders: [BatchEncoder; LANES],
        batch_events: u32,
        read_again: ReadAgain,
    ) -> Self {
        let open = encoders.map(|encoder| OpenBatch { encoder, opened: None });
        Self { readers, bell, open, batch_events, read_again }
    }

    /// Stops to recognise events that come again.
    pub(super) fn forget_read_again(&mut self) {
        self.read_again.ids = HashSet::default();
    }

    /// Whether a ring has records.
    pub(super) fn has_input(&self) -> bool {
        self.readers.iter().any(|r| !r.is_empty())
    }

    /// Whether all writers are gone, and their records are read and in closed batches.
    pub(super) fn is_finished(&self) -> bool {
        self.readers.iter().all(RecordReader::is_finished) && !self.has_open()
    }

    /// Whether a batch is being written.
    pub(super) fn has_open(&self) -> bool {
        self.open.iter().any(|open| !open.encoder.is_empty())
    }

    /// Closes the batches whose first record was read at least `age` ago, large ones sooner.
    pub(super) fn close(&mut self, outbox: &mut Outbox, now: Instant, age: Duration) {
        for lane in 0..LANES {
            let open = &mut self.open[lane];
            if open.encoder.is_empty() {
                open.opened = None;
                continue;
            }
            let opened = *open.opened.get_or_insert(now);
            let is_worthwhile = open.encoder.len_bytes() >= WORTHWHILE_BYTES;
            if is_worthwhile || now.saturating_duration_since(opened) >= age {
                open.opened = None;
                push(&mut open.encoder, lane, outbox);
            }
        }
    }

    /// Encodes a chunk of every ring, as long as the outbox has room.
    pub(super) fn drain(&mut self, outbox: &mut Outbox) -> Drained {
        let mut drained = Drained::default();
        let Self { readers, open, batch_events, read_again, .. } = self;
        for reader in readers {
            drained.records += reader.drain(CHUNK_BLOCKS, |record| {
                let lane = lane_of(record);
                let OpenBatch { encoder, opened } = &mut open[lane];
                if encoder.items() >= *batch_events {
                    push(encoder, lane, outbox);
                    *opened = None;
                }
                if !outbox.has_room() {
                    return false;
                }
                if read_again.take(record) {
                    outbox.drop_from_rings(&events_of(record, 1), Reason::ReadAgain);
                    return true;
                }
                if let Some((logs, number)) = read_again.new_logs(record, encoder.node()) {
                    let known = events_of(record, record.events() - number);
                    outbox.drop_from_rings(&known, Reason::ReadAgain);
                    if number > 0 && encoder.append_logs(record, (&logs, number)) == Appended::Full
                    {
                        push(encoder, lane, outbox);
                        encoder.append_logs(record, (&logs, number));
                    }
                    return true;
                }
                if encoder.append(record) == Appended::Full {
                    push(encoder, lane, outbox);
                    *opened = None;
                    if !outbox.has_room() {
                        return false;
                    }
                    // An empty batch takes any record.
                    encoder.append(record);
                }
                true
            });
        }
        drained.more = self.has_input() && outbox.has_room();
        drained
    }

    /// Drops the rest of the rings. Returns the number of events.
    pub(super) fn abandon(&mut self, outbox: &Outbox) -> u64 {
        let mut dropped = [0; MAX_ACCOUNTS];
        for reader in &mut self.readers {
            reader.drain(usize::MAX, |record| {
                dropped[usize::from(record.header().account()) % MAX_ACCOUNTS] += record.events();
                true
            });
        }
        outbox.drop_from_rings(&dropped, Reason::Shutdown);
        dropped.iter().map(|n| u64::from(*n)).sum()
    }
}

/// So many events of a record's collector.
fn events_of(record: &Record<'_>, number: u32) -> Accounts {
    let mut accounts = [0; MAX_ACCOUNTS];
    accounts[usize::from(record.header().account()) % MAX_ACCOUNTS] = number;
    accounts
}

fn push(encoder: &mut BatchEncoder, lane: usize, outbox: &mut Outbox) {
    if let Some(batch) = encoder.finish() {
        outbox.push(lane, batch, clock::wall_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Event, LogBlock, names};
    use tapio_core::ring::{Header, ring};

    #[test]
    fn log_records_that_come_again_are_left_out_of_their_block() {
        let logs: Vec<[u8; 4]> = (0..4).map(|n| [2 << 3 | 2, 2, 2 << 3, n]).collect();
        let (mut writer, mut reader) = ring(0);
        let encoded = logs.concat();
        let block = LogBlock {
            shared: Event::new(EventId::default(), 1, names::OTLP_LOG, names::OTLP),
            records: 4,
            dropped_attributes: 0,
            resource_digest: [7; 16],
            scope: &[],
            encoded: &encoded,
        };
        let collector = 3;
        writer.write_log_block(&Header::event(collector, 1, 1), &block, 0).unwrap();
        reader.drain(usize::MAX, |record| {
            let block = record.log_block().unwrap();
            let known: Vec<EventId> = log_ids("n", block).map(|(id, _)| id).step_by(2).collect();
            let new_logs = |ids: &[EventId], collectors| {
                let ids = ids.iter().copied().collect();
                ReadAgain { ids, collectors }.new_logs(record, "n")
            };
            let left = [logs[1], logs[3]].concat();
            assert_eq!(new_logs(&known, 1 << collector), Some((left, 2)));
            assert_eq!(new_logs(&known, 1 << 4), None, "another collector's");
            assert_eq!(new_logs(&[EventId([9; 16])], 1 << collector), None, "all are new");
            true
        });
    }
}
