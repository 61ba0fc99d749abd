//! A ring of blocks that is small as long as a small one suffices: a ring passes through all of its
//! memory, whatever little is in it.
//!
//! ```text
//! writer                                 reader
//! base full: hands a second ring over,   reads the base,
//! writes that one only                   reads the second ring where the base is empty
//! second ring empty: drops it,           drops it where it is empty and dropped
//! writes the base again
//! ```
//!
//! The writer writes the base only while the second ring is empty, so what is in the base is older
//! than what is in the second ring. The reader looks at the second ring first and at the base after
//! that: if it has found something in the second ring and then nothing in the base, nothing older
//! is left. This relies on rtrb, which writes positions with Release and reads them with Acquire.

use std::mem::MaybeUninit;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::{Arc, Mutex};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
use loom::sync::{Arc, Mutex};
#[cfg(not(loom))]
use rtrb::chunks::ReadChunk;
#[cfg(not(loom))]
use rtrb::{Consumer, Producer, RingBuffer};

use super::block::{Block, Header, RecordType, WriteError};
#[cfg(loom)]
use super::rtrb_model::{Consumer, Producer, ReadChunk, RingBuffer};

/// The blocks of the base: 512 KiB, at 165,000 events/s those of ten milliseconds.
const BASE_BLOCKS: usize = 8_192;

/// The second ring on its way from the writer to the reader.
#[derive(Default)]
struct Handover {
    ring: Mutex<Option<Consumer<Block>>>,
    /// Whether there is one, written under the lock. Release and Acquire: whoever sees it set sees
    /// the ring.
    is_waiting: AtomicBool,
}

impl Handover {
    fn set(&self, ring: Option<Consumer<Block>>) -> Option<Consumer<Block>> {
        let mut slot = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_waiting.store(ring.is_some(), Ordering::Release);
        std::mem::replace(&mut slot, ring)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Acquire)
    }
}

/// The writer's end.
pub(super) struct BlockWriter {
    base: Producer<Block>,
    second: Option<Producer<Block>>,
    /// The blocks of a second ring; 0: there is never one.
    second_blocks: usize,
    /// The blocks of the base that may be left over when the writer turns to a second ring.
    left_over_blocks: usize,
    handover: Arc<Handover>,
}

/// The reader's end.
pub(super) struct BlockReader {
    base: Consumer<Block>,
    second: Option<Consumer<Block>>,
    handover: Arc<Handover>,
}

/// Creates a ring of `blocks` blocks, at least twice `largest_record_blocks`: a record that doesn't
/// fit before the ring's end needs up to twice its length.
pub(super) fn elastic_ring(
    blocks: usize,
    largest_record_blocks: usize,
) -> (BlockWriter, BlockReader) {
    let left_over_blocks = 2 * largest_record_blocks;
    let blocks = blocks.max(left_over_blocks);
    let base_blocks = if blocks > 2 * BASE_BLOCKS { BASE_BLOCKS } else { blocks };
    let second_blocks =
        if base_blocks < blocks { blocks - base_blocks + left_over_blocks } else { 0 };
    ring_of(base_blocks, second_blocks, left_over_blocks)
}

fn ring_of(
    base_blocks: usize,
    second_blocks: usize,
    left_over_blocks: usize,
) -> (BlockWriter, BlockReader) {
    let (base, reader) = RingBuffer::new(base_blocks);
    let handover = Arc::<Handover>::default();
    (
        BlockWriter {
            base,
            second: None,
            second_blocks,
            left_over_blocks,
            handover: Arc::clone(&handover),
        },
        BlockReader { base: reader, second: None, handover },
    )
}

fn capacity(ring: &Producer<Block>) -> usize {
    ring.buffer().capacity()
}

impl BlockWriter {
    /// Blocks that can be written in any case.
    pub(super) fn free_blocks(&self) -> usize {
        match &self.second {
            Some(second) if second.slots() < capacity(second) => second.slots(),
            _ => self.free_from_base(self.base.slots()),
        }
    }

    pub(super) fn capacity_blocks(&self) -> usize {
        self.free_from_base(capacity(&self.base))
    }

    /// Free blocks where so many are free in the base and the second ring isn't used.
    fn free_from_base(&self, base_blocks: usize) -> usize {
        match self.second_blocks {
            0 => base_blocks,
            second_blocks => base_blocks + second_blocks - self.left_over_blocks,
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.base.is_abandoned()
    }

    /// Reserves `need` contiguous free blocks, calls `fill` to write a record into them, and
    /// publishes the number of blocks that it returns. `fill` must initialise every block that it
    /// counts.
    pub(super) fn place(
        &mut self,
        need: usize,
        fill: impl FnOnce(&mut [MaybeUninit<Block>]) -> Result<usize, WriteError>,
    ) -> Result<(), WriteError> {
        if self.second.as_ref().is_some_and(|second| second.slots() == capacity(second)) {
            self.second = None;
        }
        if let Some(second) = &mut self.second {
            return place(second, need, fill).unwrap_or(Err(WriteError::Full));
        }
        match place(&mut self.base, need, fill) {
            Ok(written) => written,
            Err(_) if self.second_blocks == 0 => Err(WriteError::Full),
            Err(fill) => self.place_in_second(need, fill),
        }
    }

    #[cold]
    fn place_in_second(
        &mut self,
        need: usize,
        fill: impl FnOnce(&mut [MaybeUninit<Block>]) -> Result<usize, WriteError>,
    ) -> Result<(), WriteError> {
        let (mut second, reader) = RingBuffer::new(self.second_blocks);
        let written = place(&mut second, need, fill).unwrap_or(Err(WriteError::Full));
        if written.is_ok() {
            // The reader has taken an earlier one: it was empty.
            self.handover.set(Some(reader));
            self.second = Some(second);
        }
        written
    }
}

/// Writes a record into one ring, as [`BlockWriter::place`]; returns `fill` where it is full.
fn place<F>(ring: &mut Producer<Block>, need: usize, fill: F) -> Result<Result<(), WriteError>, F>
where
    F: FnOnce(&mut [MaybeUninit<Block>]) -> Result<usize, WriteError>,
{
    let Ok(mut chunk) = ring.write_chunk_uninit(need) else { return Err(fill) };
    let before_end = chunk.as_mut_slices().0.len();
    if before_end >= need {
        return Ok(fill(&mut chunk.as_mut_slices().0[..need]).map(|used| {
            // SAFETY: `fill` initialised the first `used` blocks.
            unsafe { chunk.commit(used) };
        }));
    }
    let Ok(mut chunk) = ring.write_chunk_uninit(before_end + need) else { return Err(fill) };
    let (end, start) = chunk.as_mut_slices();
    let used = match fill(&mut start[..need]) {
        Ok(used) => used,
        Err(error) => return Ok(Err(error)),
    };
    let skip = Header::event(0, 0, 0).with_type(RecordType::Skip);
    // Every block, though one marker would suffice: the reader has them in one slice, which must
    // not contain uninitialised memory.
    for block in end {
        block.write(skip.write(before_end as u16, 0, 0));
    }
    // SAFETY: every block before the ring's end has a skip marker, and `fill` initialised the
    // first `used` blocks after it.
    unsafe { chunk.commit(before_end + used) };
    Ok(Ok(()))
}

/// Records that are read in one call. Frees the blocks of those that are done, also when the reader
/// panics on the next one.
struct Turn<'a> {
    /// `None` only while it is dropped.
    chunk: Option<ReadChunk<'a, Block>>,
    done: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            chunk.commit(self.done);
        }
    }
}

/// How far a drain has come.
struct Progress {
    limit_blocks: usize,
    blocks: usize,
    records: usize,
    /// Whether `read` didn't take a record.
    is_stopped: bool,
}

impl Progress {
    fn is_over(&self) -> bool {
        self.is_stopped || self.blocks >= self.limit_blocks
    }

    /// Reads the records in the first `slots` blocks of a ring.
    fn read(
        &mut self,
        ring: &mut Consumer<Block>,
        slots: usize,
        read: &mut impl FnMut(Header, &[Block]) -> bool,
    ) {
        let Ok(chunk) = ring.read_chunk(slots) else { return };
        let mut turn = Turn { chunk: Some(chunk), done: 0 };
        let Turn { chunk: Some(chunk), done } = &mut turn else { return };
        let (first, second) = chunk.as_slices();
        while *done < first.len() + second.len() && !self.is_over() {
            let rest =
                if *done < first.len() { &first[*done..] } else { &second[*done - first.len()..] };
            let header = Header::read(&rest[0]);
            let len = rest[0].blocks();
            if header.record != RecordType::Skip {
                self.is_stopped = !read(header, &rest[..len]);
                if self.is_stopped {
                    break;
                }
                self.records += 1;
            }
            *done += len;
            self.blocks += len;
        }
    }
}

impl BlockReader {
    pub(super) fn is_empty(&self) -> bool {
        self.base.is_empty()
            && self.second.as_ref().is_none_or(Consumer::is_empty)
            && !self.handover.is_waiting()
    }

    pub(super) fn is_finished(&self) -> bool {
        // The writer may write and leave between the two checks: is_abandoned first, then
        // emptiness.
        self.base.is_abandoned() && self.is_empty()
    }

    /// Unread blocks.
    pub(super) fn waiting_blocks(&self) -> usize {
        let handed_over = self.handover.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let second = self.second.iter().chain(&*handed_over).map(Consumer::slots);
        self.base.slots() + second.sum::<usize>()
    }

    /// Passes records to `read` in place, in order, until about `limit_blocks` blocks are read or
    /// `read` returns `false`; that record stays, as does one on which it panics. Returns the
    /// number of records.
    pub(super) fn drain(
        &mut self,
        limit_blocks: usize,
        mut read: impl FnMut(Header, &[Block]) -> bool,
    ) -> usize {
        let mut progress = Progress { limit_blocks, blocks: 0, records: 0, is_stopped: false };
        loop {
            let slots = self.base.slots();
            progress.read(&mut self.base, slots, &mut read);
            if progress.is_over() {
                break;
            }
            let Some(slots) = self.second_slots() else { break };
            if self.base.is_empty() {
                let Some(second) = &mut self.second else { break };
                progress.read(second, slots, &mut read);
                break;
            }
        }
        progress.records
    }

    /// Blocks to read in the second ring; `None` where there is nothing. Takes it over, and drops
    /// it when the writer has.
    #[inline]
    fn second_slots(&mut self) -> Option<usize> {
        if let Some(second) = &self.second {
            // The writer drops it when it is empty: is_abandoned first, then emptiness.
            let is_abandoned = second.is_abandoned();
            match second.slots() {
                0 if is_abandoned => self.second = None,
                0 => return None,
                slots => return Some(slots),
            }
        }
        if !self.handover.is_waiting() {
            return None;
        }
        self.second = self.handover.set(None);
        self.second.as_ref().map(Consumer::slots).filter(|slots| *slots > 0)
    }
}

/// The hand-over under every interleaving that loom distinguishes: `scripts/loom.sh`.
#[cfg(loom)]
#[cfg(test)]
mod loom_models {
    use super::*;

    /// Writes records of one block, as many as are asked for, and ends the writer.
    fn write(mut writer: BlockWriter, records: u64) {
        for order in 1..=records {
            let header = Header { order, ..Header::event(0, 0, 0) };
            let fill = |slots: &mut [MaybeUninit<Block>]| {
                slots[0].write(header.write(1, 0, 0));
                Ok(1)
            };
            while writer.place(1, fill).is_err() {
                loom::thread::yield_now();
            }
        }
    }

    fn every_record_is_read_once_in_order(second_blocks: usize, records: u64) {
        let mut builder = loom::model::Builder::new();
        // One more than the loss of the last record needs.
        builder.preemption_bound = Some(4);
        builder.check(move || {
            let (writer, mut reader) = ring_of(1, second_blocks, 1);
            let thread = loom::thread::spawn(move || write(writer, records));
            let mut last = 0;
            loop {
                // As a shard does: finished first, then the rest.
                let is_finished = reader.is_finished();
                let read = reader.drain(usize::MAX, |header, _| {
                    assert_eq!(header.order, last + 1, "a record is lost");
                    last = header.order;
                    true
                });
                if is_finished {
                    break;
                }
                // loom lets the writer go on before the reader looks again.
                if read == 0 {
                    loom::thread::yield_now();
                }
            }
            assert_eq!(last, records, "a record is lost");
            thread.join().unwrap();
        });
    }

    #[test]
    fn elastic_ring_loses_nothing_with_one_second_ring() {
        every_record_is_read_once_in_order(2, 3);
    }

    #[test]
    fn elastic_ring_loses_nothing_with_one_second_ring_after_another() {
        every_record_is_read_once_in_order(1, 4);
    }
}
