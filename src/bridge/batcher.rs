//! Encodes the records of the shards' rings into batches.

use std::sync::Arc;

use super::account::EventAccount;
use super::outbox::Outbox;
use tapio_core::event::Reason;
use tapio_core::ring::{Bell, MAX_ACCOUNTS, RecordReader, RecordType};
use tapio_wire::{Appended, BatchEncoder};

/// Blocks read from a ring before the next one's turn, and before sockets are polled: 256 KiB.
const CHUNK_BLOCKS: usize = 4096;

pub(super) struct Batcher {
    readers: Vec<RecordReader>,
    pub(super) bell: Arc<Bell>,
    pub(super) encoder: BatchEncoder,
    batch_events: u32,
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
        encoder: BatchEncoder,
        batch_events: u32,
    ) -> Self {
        Self { readers, bell, encoder, batch_events }
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
    pub(super) fn close(&mut self, outbox: &mut Outbox) {
        close_batch(&mut self.encoder, outbox);
    }

    /// Encodes a chunk of every ring, as long as the outbox has room.
    pub(super) fn drain(&mut self, outbox: &mut Outbox) -> Drained {
        let mut drained = Drained::default();
        let encoder = &mut self.encoder;
        for reader in &mut self.readers {
            drained.records += reader.drain(CHUNK_BLOCKS, |record| {
                if encoder.items() >= self.batch_events {
                    close_batch(encoder, outbox);
                }
                if !outbox.has_room() {
                    return false;
                }
                if encoder.append(record) == Appended::Full {
                    close_batch(encoder, outbox);
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
    pub(super) fn abandon(&mut self, account: &EventAccount) -> u64 {
        let mut dropped = [0; MAX_ACCOUNTS];
        for reader in &mut self.readers {
            reader.drain(usize::MAX, |record| {
                if record.header().record == RecordType::Event {
                    dropped[usize::from(record.header().account()) % MAX_ACCOUNTS] += 1;
                }
                true
            });
        }
        account.receive(&dropped);
        account.drop_unspooled(&dropped, Reason::Shutdown);
        dropped.iter().map(|n| u64::from(*n)).sum()
    }
}

fn close_batch(encoder: &mut BatchEncoder, outbox: &mut Outbox) {
    if let Some(batch) = encoder.finish() {
        outbox.push(batch);
    }
}
