//! Records in an rtrb ring: the producer writes them in place, the consumer reads them in place.

use std::mem::MaybeUninit;

use rkyv::Serialize;
use rkyv::api::low::{self, LowSerializer};
use rkyv::rancor::Failure;
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rtrb::chunks::ReadChunk;
use rtrb::{Consumer, Producer, RingBuffer};

use super::block::{BLOCK_BYTES, Block, Header, MAX_RECORD_BLOCKS, RecordType};
use super::membership::Membership;
use crate::event::{
    ArchivedEvent, ArchivedField, ArchivedLogBlock, ArchivedStory, Event, Field, LogBlock, Story,
};

/// Fields of minimal size that fit into the largest record.
const MAX_FIELDS: usize =
    MAX_RECORD_BLOCKS * BLOCK_BYTES / std::mem::size_of::<ArchivedField<'static>>();

/// Scratch memory for rkyv: the resolvers of one event's fields while they are written, and one
/// more for alignment. Pages that an event doesn't need are never touched.
const SCRATCH_BYTES: usize =
    (MAX_FIELDS + 1) * std::mem::size_of::<<Field<'static> as rkyv::Archive>::Resolver>();

/// Memberships of a record: their count has one byte.
const MAX_MEMBERSHIPS: usize = 255;

/// The largest forwarded record: the largest event with all the memberships that shards add. A ring
/// must accept it, so that forwarding can't fail because of its size.
pub const MAX_FORWARDED_BLOCKS: usize = MAX_RECORD_BLOCKS + MAX_MEMBERSHIPS;

/// The producer's end of a record ring.
pub struct RecordWriter {
    blocks: Producer<Block>,
    scratch: Box<[MaybeUninit<u8>]>,
    /// Blocks known to be free: only this end fills them. Reading the reader's position for each
    /// event would cost a cache miss.
    known_free: usize,
}

/// The consumer's end of a record ring.
pub struct RecordReader {
    blocks: Consumer<Block>,
}

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

/// Creates a ring of at least `blocks` blocks, and large enough for the largest record.
#[must_use]
pub fn ring(blocks: usize) -> (RecordWriter, RecordReader) {
    // A record that doesn't fit before the ring's end needs up to twice its length.
    let (producer, consumer) = RingBuffer::new(blocks.max(2 * MAX_FORWARDED_BLOCKS));
    (
        RecordWriter {
            blocks: producer,
            scratch: Box::new_uninit_slice(SCRATCH_BYTES),
            known_free: 0,
        },
        RecordReader { blocks: consumer },
    )
}

fn as_bytes_mut(blocks: &mut [MaybeUninit<Block>]) -> &mut [MaybeUninit<u8>] {
    let len = std::mem::size_of_val(blocks);
    // SAFETY: Block is 64 plain bytes without padding, and MaybeUninit<u8> may hold anything, so
    // the same memory can be seen as that many possibly uninitialised bytes for the same lifetime.
    unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), len) }
}

fn as_bytes(blocks: &[Block]) -> &[u8] {
    // SAFETY: Block is 64 plain, initialised bytes without padding.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), std::mem::size_of_val(blocks)) }
}

impl RecordWriter {
    /// Free blocks.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.blocks.slots()
    }

    /// Capacity in blocks.
    #[must_use]
    pub fn capacity_blocks(&self) -> usize {
        self.blocks.buffer().capacity()
    }

    /// Whether the reader is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.blocks.is_abandoned()
    }

    /// Whether at least this many blocks are free.
    fn has_free(&mut self, blocks: usize) -> bool {
        if self.known_free < blocks {
            self.known_free = self.blocks.slots();
        }
        self.known_free >= blocks
    }

    /// Checks that `reserve_blocks` blocks stay free behind a record of `need` blocks, where there
    /// are to be any.
    fn keep_free(&mut self, reserve_blocks: usize, need: usize) -> Result<(), WriteError> {
        if reserve_blocks > 0 && !self.has_free(reserve_blocks + 2 * need) {
            return Err(WriteError::Full);
        }
        self.known_free = self.known_free.saturating_sub(2 * need);
        Ok(())
    }

    /// Writes an event. The record's type is [`RecordType::Event`], whatever the header has.
    ///
    /// # Errors
    /// [`WriteError::Full`] or [`WriteError::Oversize`]; nothing is written then.
    pub fn write_event(&mut self, header: &Header, event: &Event<'_>) -> Result<(), WriteError> {
        self.write_event_above(header, event, 0)
    }

    /// Writes an event if at least `reserve_blocks` blocks stay free, also where the record has to
    /// skip the end of the ring.
    ///
    /// # Errors
    /// As [`RecordWriter::write_event`].
    pub fn write_event_above(
        &mut self,
        header: &Header,
        event: &Event<'_>,
        reserve_blocks: usize,
    ) -> Result<(), WriteError> {
        let need = need_blocks(event.archive_bound_bytes())?;
        self.keep_free(reserve_blocks, need)?;
        let Self { blocks, scratch, .. } = self;
        // The reader trusts the type unchecked: it must match the archive.
        write_archive(blocks, scratch, need, &header.with_type(RecordType::Event), event)
    }

    /// Writes log records that pass as they came, if at least `reserve_blocks` blocks stay free.
    /// The record's type is [`RecordType::LogBlock`].
    ///
    /// # Errors
    /// As [`RecordWriter::write_event`].
    pub fn write_log_block(
        &mut self,
        header: &Header,
        block: &LogBlock<'_>,
        reserve_blocks: usize,
    ) -> Result<(), WriteError> {
        let need = need_blocks(block.archive_bound_bytes())?;
        self.keep_free(reserve_blocks, need)?;
        let Self { blocks, scratch, .. } = self;
        // As in `write_event_above`.
        write_archive(blocks, scratch, need, &header.with_type(RecordType::LogBlock), block)
    }

    /// Forwards a record with a new header, except for its type, and more memberships after those
    /// it has.
    ///
    /// # Errors
    /// [`WriteError::Full`]; nothing is written then.
    pub fn forward(
        &mut self,
        record: &Record<'_>,
        header: &Header,
        more: &[Membership],
    ) -> Result<(), WriteError> {
        self.known_free = 0;
        let old = record.blocks[0].memberships();
        // Beyond the maximum, the first memberships are kept.
        let more = &more[..more.len().min(MAX_MEMBERSHIPS - old)];
        let need = record.blocks.len() + more.len();
        // The reader trusts the type unchecked: it must match the archive.
        let header = header.with_type(record.header.record);
        place(&mut self.blocks, need, |room| {
            let archive = record.blocks[0].archive_bytes() as u32;
            room[0].write(header.write(need as u16, archive, (old + more.len()) as u8));
            let (kept, rest) = room[1..].split_at_mut(old);
            let (added, tail) = rest.split_at_mut(more.len());
            let (source_kept, source_tail) = record.blocks[1..].split_at(old);
            copy_blocks(kept, source_kept);
            added.iter_mut().zip(more).for_each(|(to, membership)| {
                to.write(membership.write());
            });
            copy_blocks(tail, source_tail);
            Ok(need)
        })
    }

    /// Writes a story.
    ///
    /// # Errors
    /// [`WriteError::Full`] or [`WriteError::Oversize`]; nothing is written then.
    pub fn write_story(&mut self, story: &Story) -> Result<(), WriteError> {
        self.known_free = 0;
        let bytes = rkyv::to_bytes::<Failure>(story).map_err(|_| WriteError::Oversize)?;
        let used = bytes.len().div_ceil(BLOCK_BYTES);
        if 1 + used > MAX_RECORD_BLOCKS {
            return Err(WriteError::Oversize);
        }
        place(&mut self.blocks, 1 + used, |room| {
            let header = Header::event(0, 0, story.last_ns).with_type(RecordType::Story);
            room[0].write(header.write((1 + used) as u16, bytes.len() as u32, 0));
            let body = as_bytes_mut(&mut room[1..]);
            for (to, from) in body.iter_mut().zip(bytes.iter().copied().chain(std::iter::repeat(0)))
            {
                to.write(from);
            }
            Ok(1 + used)
        })
    }

    /// Writes a watermark.
    ///
    /// # Errors
    /// [`WriteError::Full`].
    pub fn write_watermark(&mut self, order: u64) -> Result<(), WriteError> {
        self.known_free = 0;
        place(&mut self.blocks, 1, |room| {
            room[0].write(Header::watermark(order).write(1, 0, 0));
            Ok(1)
        })
    }
}

/// The blocks of a record with an archive of at most so many bytes.
fn need_blocks(archive_bytes: usize) -> Result<usize, WriteError> {
    let need = 1 + archive_bytes.div_ceil(BLOCK_BYTES);
    if need > MAX_RECORD_BLOCKS { Err(WriteError::Oversize) } else { Ok(need) }
}

/// Writes a record of `need` blocks at most: a header, and the archive of a value. The header has
/// the type of record that the value is.
fn write_archive(
    blocks: &mut Producer<Block>,
    scratch: &mut [MaybeUninit<u8>],
    need: usize,
    header: &Header,
    value: &impl for<'w, 's> Serialize<LowSerializer<Buffer<'w>, SubAllocator<'s>, Failure>>,
) -> Result<(), WriteError> {
    place(blocks, need, |room| {
        let (head, body) = room.split_at_mut(1);
        let body = as_bytes_mut(body);
        let scratch = SubAllocator::new(scratch);
        let buffer = Buffer::from(&mut *body);
        let written = low::to_bytes_in_with_alloc::<_, _, Failure>(value, buffer, scratch)
            .map_err(|_| WriteError::Oversize)?
            .len();
        let used = written.div_ceil(BLOCK_BYTES);
        body[written..used * BLOCK_BYTES].fill(MaybeUninit::new(0));
        head[0].write(header.write((1 + used) as u16, written as u32, 0));
        Ok(1 + used)
    })
}

fn copy_blocks(to: &mut [MaybeUninit<Block>], from: &[Block]) {
    to.iter_mut().zip(from).for_each(|(to, from)| {
        to.write(*from);
    });
}

/// Reserves `need` contiguous free blocks, calls `fill` to write a record into them, and publishes
/// the number of blocks that it returns. `fill` must initialise every block that it counts.
fn place(
    ring: &mut Producer<Block>,
    need: usize,
    fill: impl FnOnce(&mut [MaybeUninit<Block>]) -> Result<usize, WriteError>,
) -> Result<(), WriteError> {
    let mut chunk = ring.write_chunk_uninit(need).map_err(|_| WriteError::Full)?;
    let before_end = chunk.as_mut_slices().0.len();
    if before_end >= need {
        let used = fill(&mut chunk.as_mut_slices().0[..need])?;
        // SAFETY: `fill` initialised the first `used` blocks.
        unsafe { chunk.commit(used) };
        return Ok(());
    }
    let mut chunk = ring.write_chunk_uninit(before_end + need).map_err(|_| WriteError::Full)?;
    let (end, start) = chunk.as_mut_slices();
    let used = fill(&mut start[..need])?;
    let skip = Header::event(0, 0, 0).with_type(RecordType::Skip);
    // Every block, though one marker would suffice: the reader has them in one slice, which must
    // not contain uninitialised memory.
    for block in end {
        block.write(skip.write(before_end as u16, 0, 0));
    }
    // SAFETY: every block before the ring's end has a skip marker, and `fill` initialised the
    // first `used` blocks after it.
    unsafe { chunk.commit(before_end + used) };
    Ok(())
}

/// A record, read in place.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    header: Header,
    blocks: &'a [Block],
}

impl<'a> Record<'a> {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its size in blocks.
    #[must_use]
    pub fn len_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The memberships of the event so far.
    pub fn memberships(&self) -> impl ExactSizeIterator<Item = Membership> + Clone + use<'a> {
        self.blocks[1..=self.blocks[0].memberships()].iter().map(Membership::read)
    }

    /// Copies the record out of the ring.
    #[must_use]
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord { header: self.header, blocks: self.blocks.into() }
    }

    fn archive(&self) -> &'a [u8] {
        let first = 1 + self.blocks[0].memberships();
        &as_bytes(&self.blocks[first..])[..self.blocks[0].archive_bytes()]
    }

    /// The event. `None` for a record of another type.
    #[must_use]
    pub fn event(&self) -> Option<&'a ArchivedEvent<'a>> {
        // SAFETY: an Event record's archive bytes were written by `write_event` of this process
        // and are only ever copied whole; they hold a valid ArchivedEvent whose root is at the end.
        (self.header.record == RecordType::Event)
            .then(|| unsafe { rkyv::access_unchecked::<ArchivedEvent<'_>>(self.archive()) })
    }

    /// The log records that pass as they came. `None` for a record of another type.
    #[must_use]
    pub fn log_block(&self) -> Option<&'a ArchivedLogBlock<'a>> {
        // SAFETY: as in `event`, written by `write_log_block`.
        (self.header.record == RecordType::LogBlock)
            .then(|| unsafe { rkyv::access_unchecked::<ArchivedLogBlock<'_>>(self.archive()) })
    }

    /// The number of events in the record: 0 for a story or a watermark.
    #[must_use]
    pub fn events(&self) -> u32 {
        match self.header.record {
            RecordType::Event => 1,
            RecordType::LogBlock => self.log_block().map_or(0, |block| block.records.to_native()),
            RecordType::Story | RecordType::Watermark | RecordType::Skip => 0,
        }
    }

    /// The story. `None` for a record of another type.
    #[must_use]
    pub fn story(&self) -> Option<&'a ArchivedStory> {
        // SAFETY: as in `event`, written by `write_story`.
        (self.header.record == RecordType::Story)
            .then(|| unsafe { rkyv::access_unchecked::<ArchivedStory>(self.archive()) })
    }
}

/// A record copied out of its ring.
pub struct OwnedRecord {
    header: Header,
    blocks: Box<[Block]>,
}

impl OwnedRecord {
    /// The record.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        Record { header: self.header, blocks: &self.blocks }
    }

    /// The event. `None` for a record of another type.
    #[must_use]
    pub fn event(&self) -> Option<&ArchivedEvent<'_>> {
        self.record().event()
    }
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

impl RecordReader {
    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Unread blocks.
    #[must_use]
    pub fn waiting_blocks(&self) -> usize {
        self.blocks.slots()
    }

    /// Whether the writer is gone and all its records were read.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // The writer may write and leave between the two checks: is_abandoned first, then
        // emptiness.
        self.blocks.is_abandoned() && self.blocks.is_empty()
    }

    /// Passes records to `read` in place, until about `limit_blocks` blocks are read or `read`
    /// returns `false`; that record stays, as does one on which it panics. Frees their blocks on
    /// return. Returns the number of
    /// records.
    pub fn drain(
        &mut self,
        limit_blocks: usize,
        mut read: impl FnMut(&Record<'_>) -> bool,
    ) -> usize {
        let Ok(chunk) = self.blocks.read_chunk(self.blocks.slots()) else {
            return 0;
        };
        let mut turn = Turn { chunk: Some(chunk), done: 0 };
        let Turn { chunk: Some(chunk), done } = &mut turn else { return 0 };
        let (first, second) = chunk.as_slices();
        let mut records = 0;
        while *done < limit_blocks.min(first.len() + second.len()) {
            let rest =
                if *done < first.len() { &first[*done..] } else { &second[*done - first.len()..] };
            let header = Header::read(&rest[0]);
            let len = rest[0].blocks();
            if header.record != RecordType::Skip {
                if !read(&Record { header, blocks: &rest[..len] }) {
                    break;
                }
                records += 1;
            }
            *done += len;
        }
        records
    }
}
