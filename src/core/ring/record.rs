//! Records in an rtrb ring: the producer writes them in place, the consumer reads them in place.

use std::mem::MaybeUninit;

use rkyv::Serialize;
use rkyv::api::low::{self, LowSerializer};
use rkyv::rancor::Failure;
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;

use super::block::{BLOCK_BYTES, Block, Header, MAX_RECORD_BLOCKS, RecordType, WriteError};
use super::elastic::{BlockReader, BlockWriter, elastic_ring};
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
    blocks: BlockWriter,
    scratch: Box<[MaybeUninit<u8>]>,
    /// Blocks known to be free: only this end fills them. Reading the reader's position for each
    /// event would cost a cache miss.
    known_free: usize,
}

/// The consumer's end of a record ring.
pub struct RecordReader {
    blocks: BlockReader,
}

/// Creates a ring of at least `blocks` blocks, and large enough for the largest record.
#[must_use]
pub fn ring(blocks: usize) -> (RecordWriter, RecordReader) {
    let (writer, reader) = elastic_ring(blocks, MAX_FORWARDED_BLOCKS);
    let scratch = Box::new_uninit_slice(SCRATCH_BYTES);
    (RecordWriter { blocks: writer, scratch, known_free: 0 }, RecordReader { blocks: reader })
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
        self.blocks.free_blocks()
    }

    /// Capacity in blocks.
    #[must_use]
    pub fn capacity_blocks(&self) -> usize {
        self.blocks.capacity_blocks()
    }

    /// Whether the reader is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.blocks.is_abandoned()
    }

    /// Whether at least this many blocks are free.
    fn has_free(&mut self, blocks: usize) -> bool {
        if self.known_free < blocks {
            self.known_free = self.blocks.free_blocks();
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
        self.blocks.place(need, |room| {
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
        self.blocks.place(1 + used, |room| {
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
        self.blocks.place(1, |room| {
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
    blocks: &mut BlockWriter,
    scratch: &mut [MaybeUninit<u8>],
    need: usize,
    header: &Header,
    value: &impl for<'w, 's> Serialize<LowSerializer<Buffer<'w>, SubAllocator<'s>, Failure>>,
) -> Result<(), WriteError> {
    blocks.place(need, |room| {
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

impl RecordReader {
    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Unread blocks.
    #[must_use]
    pub fn waiting_blocks(&self) -> usize {
        self.blocks.waiting_blocks()
    }

    /// Whether the writer is gone and all its records were read.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.blocks.is_finished()
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
        self.blocks.drain(limit_blocks, |header, blocks| read(&Record { header, blocks }))
    }
}
