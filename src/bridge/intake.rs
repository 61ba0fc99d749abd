//! From the shards' rings into batches.

use std::sync::Arc;

use super::queue::{Account, SendQueue};
use tapio_core::event::Reason;
use tapio_core::ring::{Bell, MAX_COLLECTORS, RecordReader, RecordType};
use tapio_wire::{Appended, BatchEncoder};

/// Blocks read from a ring before the next one's turn, and before sockets are looked at: 256 KiB.
const CHUNK_BLOCKS: usize = 4096;

pub(super) struct Intake {
    readers: Vec<RecordReader>,
    pub(super) bell: Arc<Bell>,
    pub(super) encoder: BatchEncoder,
    batch_events: u32,
    queue_bytes: usize,
}

/// What a look into the rings brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    pub(super) records: usize,
    /// There is more, and room for it.
    pub(super) more: bool,
}

impl Intake {
    pub(super) fn new(
        readers: Vec<RecordReader>,
        bell: Arc<Bell>,
        encoder: BatchEncoder,
        batch_events: u32,
        queue_bytes: usize,
    ) -> Self {
        Self { readers, bell, encoder, batch_events, queue_bytes }
    }

    /// Whether a ring has something.
    pub(super) fn has_input(&self) -> bool {
        self.readers.iter().any(|r| !r.is_empty())
    }

    /// Whether nothing will ever come again.
    pub(super) fn is_finished(&self) -> bool {
        self.readers.iter().all(RecordReader::is_finished)
    }

    /// Closes the batch being written.
    pub(super) fn close(&mut self, queue: &mut SendQueue) {
        if let Some(batch) = self.encoder.finish() {
            queue.push(batch);
        }
    }

    /// Whether the queue takes another batch.
    pub(super) fn has_room(&self, queue: &SendQueue) -> bool {
        queue.bytes() < self.queue_bytes
    }

    /// Reads a chunk of every ring into batches, as long as the queue has room.
    pub(super) fn drain(&mut self, queue: &mut SendQueue, account: &mut Account) -> Drained {
        let mut drained = Drained::default();
        let mut taken = [0; MAX_COLLECTORS];
        let (encoder, limit) = (&mut self.encoder, self.queue_bytes);
        for reader in &mut self.readers {
            drained.records += reader.drain(CHUNK_BLOCKS, |record| {
                if encoder.items() >= self.batch_events {
                    finish(encoder, queue);
                }
                if queue.bytes() >= limit {
                    return false;
                }
                let mut outcome = encoder.append(record);
                if outcome == Appended::Full {
                    finish(encoder, queue);
                    if queue.bytes() >= limit {
                        return false;
                    }
                    outcome = encoder.append(record);
                }
                if outcome == Appended::Event {
                    let collector = usize::from(record.header().collector) % MAX_COLLECTORS;
                    taken[collector] += 1;
                }
                true
            });
        }
        account.take(&taken);
        drained.more = self.has_input() && self.has_room(queue);
        drained
    }

    /// Counts what is left in the rings as lost. Returns the events.
    pub(super) fn abandon(&mut self, account: &mut Account) -> u64 {
        let mut lost = [0; MAX_COLLECTORS];
        for reader in &mut self.readers {
            reader.drain(usize::MAX, |record| {
                if record.header().record == RecordType::Event {
                    lost[usize::from(record.header().collector) % MAX_COLLECTORS] += 1;
                }
                true
            });
        }
        account.take(&lost);
        account.settle(&lost, Some(Reason::Shutdown));
        lost.iter().map(|n| u64::from(*n)).sum()
    }
}

fn finish(encoder: &mut BatchEncoder, queue: &mut SendQueue) {
    if let Some(batch) = encoder.finish() {
        queue.push(batch);
    }
}
