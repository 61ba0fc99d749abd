//! Encodes the records of the shards' rings into batches.

use std::sync::Arc;

use super::queue::{EventAccount, SendQueue};
use tapio_core::event::Reason;
use tapio_core::ring::{Bell, MAX_COLLECTORS, RecordReader, RecordType};
use tapio_wire::{Appended, BatchEncoder};

/// Blocks read from a ring before the next one's turn, and before sockets are polled: 256 KiB.
const CHUNK_BLOCKS: usize = 4096;

pub(super) struct Batcher {
    readers: Vec<RecordReader>,
    pub(super) bell: Arc<Bell>,
    pub(super) encoder: BatchEncoder,
    batch_events: u32,
    queue_bytes: usize,
}

/// Result of one pass over the rings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    pub(super) records: usize,
    /// Records are left, and the queue has room for them.
    pub(super) more: bool,
}

impl Batcher {
    pub(super) fn new(
        readers: Vec<RecordReader>,
        bell: Arc<Bell>,
        encoder: BatchEncoder,
        batch_events: u32,
        queue_bytes: usize,
    ) -> Self {
        Self { readers, bell, encoder, batch_events, queue_bytes }
    }

    /// Whether a ring has records.
    pub(super) fn has_input(&self) -> bool {
        self.readers.iter().any(|r| !r.is_empty())
    }

    /// Whether all writers are gone and their records are read.
    pub(super) fn is_finished(&self) -> bool {
        self.readers.iter().all(RecordReader::is_finished)
    }

    /// Closes the batch being written.
    pub(super) fn close(&mut self, queue: &mut SendQueue) {
        close_batch(&mut self.encoder, queue);
    }

    /// Whether the queue has room for another batch.
    pub(super) fn has_room(&self, queue: &SendQueue) -> bool {
        queue.bytes() < self.queue_bytes
    }

    /// Encodes a chunk of every ring, as long as the queue has room.
    pub(super) fn drain(&mut self, queue: &mut SendQueue, account: &EventAccount) -> Drained {
        let mut drained = Drained::default();
        let mut received = [0; MAX_COLLECTORS];
        let (encoder, limit) = (&mut self.encoder, self.queue_bytes);
        for reader in &mut self.readers {
            drained.records += reader.drain(CHUNK_BLOCKS, |record| {
                if encoder.items() >= self.batch_events {
                    close_batch(encoder, queue);
                }
                if queue.bytes() >= limit {
                    return false;
                }
                let mut appended = encoder.append(record);
                if appended == Appended::Full {
                    close_batch(encoder, queue);
                    if queue.bytes() >= limit {
                        return false;
                    }
                    appended = encoder.append(record);
                }
                if appended == Appended::Event {
                    let collector = usize::from(record.header().collector) % MAX_COLLECTORS;
                    received[collector] += 1;
                }
                true
            });
        }
        account.receive(&received);
        drained.more = self.has_input() && self.has_room(queue);
        drained
    }

    /// Drops the rest of the rings. Returns the number of events.
    pub(super) fn abandon(&mut self, account: &EventAccount) -> u64 {
        let mut dropped = [0; MAX_COLLECTORS];
        for reader in &mut self.readers {
            reader.drain(usize::MAX, |record| {
                if record.header().record == RecordType::Event {
                    dropped[usize::from(record.header().collector) % MAX_COLLECTORS] += 1;
                }
                true
            });
        }
        account.receive(&dropped);
        account.drop_events(&dropped, Reason::Shutdown);
        dropped.iter().map(|n| u64::from(*n)).sum()
    }
}

fn close_batch(encoder: &mut BatchEncoder, queue: &mut SendQueue) {
    if let Some(batch) = encoder.finish() {
        queue.push(batch);
    }
}
