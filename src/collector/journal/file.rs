//! Reads one journal file entry by entry, as it grows.
//!
//! journald writes an entry, then the array item that points to it, then the count in the header:
//! the entries within the count are therefore readable. Every length is checked before it is used.

use std::fs::File;
use std::io;

use super::format::{
    ARRAY_BYTES, ENTRY_BYTES, HEADER_BYTES, Header, Kind, OBJECT_BYTES, ReadError, id_at, object,
    u64_at,
};
use super::payload::unpack;
use super::position::Position;
use super::record::{Field, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, Record};

/// Maximum number of fields read of an entry.
const MAX_FIELDS: u64 = 1_024;
/// Maximum length that is read of a compressed payload: enough for the maximum length of a field.
const MAX_COMPRESSED_BYTES: u64 = 1 << 20;
/// Size of the first read of a data object: most are shorter.
const FIRST_READ_BYTES: usize = 512;
/// Number of cached data objects per file: most fields repeat from record to record.
const CACHE_SLOTS: usize = 1_024;

/// Random access to a file's bytes.
pub(super) trait Bytes {
    /// Fills `into` from offset `at`; returns fewer bytes at the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl Bytes for File {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

impl Bytes for &[u8] {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }
}

/// A cached data object.
enum CachedField {
    /// A field that events don't need.
    Other,
    Value(Field, Box<[u8]>),
}

/// The next entry: its offset, size, and position in the journal.
#[derive(Clone, Copy, Debug)]
struct Next {
    at: u64,
    size: u64,
    position: Position,
}

/// A file, and the position of its reader.
pub(super) struct JournalFile<B> {
    bytes: B,
    header: Header,
    /// Offset of the entry array with the next entry, its number of items, and the entry's index.
    array: u64,
    array_items: u64,
    item: u64,
    /// Number of entries read or skipped.
    done: u64,
    next: Option<Next>,
    cache: Box<[Option<(u64, CachedField)>]>,
    /// Buffers: a payload as stored, and decompressed.
    stored: Vec<u8>,
    decompressed: Vec<u8>,
}

impl<B: Bytes> JournalFile<B> {
    /// Opens a file and checks its header.
    pub(super) fn open(bytes: B) -> Result<Self, ReadError> {
        let header = read_header(&bytes)?;
        Ok(Self {
            bytes,
            header,
            array: 0,
            array_items: 0,
            item: 0,
            done: 0,
            next: None,
            cache: (0..CACHE_SLOTS).map(|_| None).collect(),
            stored: Vec::new(),
            decompressed: Vec::new(),
        })
    }

    /// The underlying bytes.
    pub(super) fn source(&self) -> &B {
        &self.bytes
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Number of unread entries.
    pub(super) fn left(&self) -> u64 {
        self.header.entries.saturating_sub(self.done)
    }

    /// Reads the header again, to see new entries.
    pub(super) fn refresh(&mut self) -> Result<(), ReadError> {
        let header = read_header(&self.bytes)?;
        if header.file_id != self.header.file_id || header.is_compact != self.header.is_compact {
            return Err(ReadError::Object("header", 0));
        }
        self.header = header;
        Ok(())
    }

    /// The position of the next entry, if there is one. An invalid entry is an error and is
    /// skipped.
    pub(super) fn peek(&mut self) -> Result<Option<Position>, ReadError> {
        if self.next.is_none() {
            self.next = self.find_next()?;
        }
        Ok(self.next.map(|next| next.position))
    }

    fn find_next(&mut self) -> Result<Option<Next>, ReadError> {
        let Some(at) = self.next_item()? else { return Ok(None) };
        let entry = self.entry_at(at);
        // An unreadable entry is skipped too.
        self.item += 1;
        self.done += 1;
        entry.map(Some)
    }

    /// The offset of the next entry, if there is one.
    fn next_item(&mut self) -> Result<Option<u64>, ReadError> {
        if self.left() == 0 || !self.enter_array()? {
            return Ok(None);
        }
        let offset = self.item_at(self.item)?;
        // The count covers written items only; a truncated file can lack them.
        if offset == 0 {
            Err(ReadError::Object("entry array item", self.array))
        } else {
            Ok(Some(offset))
        }
    }

    /// Moves to the entry array with the next entry. Returns whether there is one.
    fn enter_array(&mut self) -> Result<bool, ReadError> {
        while self.array == 0 || self.item >= self.array_items {
            let next = if self.array == 0 {
                self.header.entry_array
            } else {
                let mut link = [0; 8];
                self.read_exactly(self.array + OBJECT_BYTES, &mut link)?;
                u64_at(&link, 0)
            };
            if next == 0 {
                return Ok(false);
            }
            // Arrays are appended, so a link backwards is invalid; following it might never end.
            if next <= self.array {
                return Err(ReadError::Object(Kind::EntryArray.name(), next));
            }
            let mut head = [0; OBJECT_BYTES as usize];
            self.read_exactly(next, &mut head)?;
            let (_, size) = object(Kind::EntryArray, ARRAY_BYTES, &head, next)?;
            self.array = next;
            self.array_items = (size - ARRAY_BYTES) / self.header.array_item_bytes();
            self.item = 0;
        }
        Ok(true)
    }

    fn item_at(&self, item: u64) -> Result<u64, ReadError> {
        let len = self.header.array_item_bytes();
        let mut bytes = [0; 8];
        self.read_exactly(self.array + ARRAY_BYTES + item * len, &mut bytes[..len as usize])?;
        Ok(self.header.offset_at(&bytes, 0))
    }

    fn entry_at(&self, at: u64) -> Result<Next, ReadError> {
        let mut head = [0; ENTRY_BYTES as usize];
        self.read_exactly(at, &mut head)?;
        let (_, size) = object(Kind::Entry, ENTRY_BYTES, &head, at)?;
        let position = Position {
            seqnum_id: self.header.seqnum_id,
            seqnum: u64_at(&head, 16),
            realtime_us: u64_at(&head, 24),
            monotonic_us: u64_at(&head, 32),
            boot_id: id_at(&head, 40),
            xor_hash: u64_at(&head, 56),
        };
        Ok(Next { at, size, position })
    }

    /// Skips the entries up to and including a position, by binary search in each array.
    pub(super) fn seek(&mut self, after: &Position) -> Result<(), ReadError> {
        while self.left() > 0 && self.enter_array()? {
            let here = self.left().min(self.array_items - self.item);
            let is_new = |file: &Self, n: u64| {
                let entry = file.item_at(file.item + n).and_then(|at| file.entry_at(at));
                entry.map(|entry| after.is_before(&entry.position))
            };
            // The first entry after the position. `peek` reports unreadable entries.
            let (mut low, mut high) = (0, here);
            while low < high {
                let middle = low + (high - low) / 2;
                if is_new(self, middle).unwrap_or(true) { high = middle } else { low = middle + 1 }
            }
            self.item += low;
            self.done += low;
            if low < here {
                break;
            }
        }
        Ok(())
    }

    /// Skips all entries.
    pub(super) fn skip_all(&mut self) -> Result<(), ReadError> {
        self.next = None;
        while self.left() > 0 && self.enter_array()? {
            let here = self.left().min(self.array_items - self.item);
            self.item += here;
            self.done += here;
        }
        Ok(())
    }

    /// Skips the remaining entries. Returns their number.
    pub(super) fn abandon(&mut self) -> u64 {
        let left = self.left();
        self.done = self.header.entries;
        left
    }

    /// Reads the entry that [`JournalFile::peek`] returned. Unreadable fields are omitted; returns
    /// their number.
    pub(super) fn take(&mut self, record: &mut Record) -> Result<u64, ReadError> {
        let Some(next) = self.next.take() else { return Ok(0) };
        record.begin(next.position);
        let len = self.header.entry_item_bytes();
        let count = ((next.size - ENTRY_BYTES) / len).min(MAX_FIELDS);
        let mut items = vec![0; (count * len) as usize];
        self.read_exactly(next.at + ENTRY_BYTES, &mut items)?;
        let mut bad = 0;
        for item in items.chunks_exact(len as usize) {
            let at = self.header.offset_at(item, 0);
            // Compact files pad an entry with zeros.
            if at != 0 && self.field(at, record).is_err() {
                bad += 1;
            }
        }
        Ok(bad)
    }

    fn field(&mut self, at: u64, record: &mut Record) -> Result<(), ReadError> {
        let slot = (at / 8) as usize % CACHE_SLOTS;
        if let Some((cached_at, cached)) = &self.cache[slot]
            && *cached_at == at
        {
            if let CachedField::Value(field, value) = cached {
                record.put(*field, value);
            }
            return Ok(());
        }
        let cached = self.read_field(at, record)?;
        if let Some(cached) = cached {
            self.cache[slot] = Some((at, cached));
        }
        Ok(())
    }

    /// Reads a data object. Returns the value to cache.
    fn read_field(
        &mut self,
        at: u64,
        record: &mut Record,
    ) -> Result<Option<CachedField>, ReadError> {
        let begin = self.header.data_bytes();
        let mut first = [0; FIRST_READ_BYTES];
        let got = self.read(at, &mut first)?;
        let first = &first[..got];
        let (flags, size) = object(Kind::Data, begin, first, at)?;
        let payload_len = size - begin;
        self.stored.clear();
        let here = first.get(begin as usize..).unwrap_or_default();
        let here = &here[..here.len().min(usize::try_from(payload_len).unwrap_or(usize::MAX))];
        self.stored.extend_from_slice(here);
        let is_compressed = flags & 7 != 0;
        if !is_compressed && Field::of(here).is_none() {
            return Ok(Some(CachedField::Other));
        }
        let max_bytes = MAX_MESSAGE_BYTES + MAX_NAME_BYTES;
        let wanted = if is_compressed { MAX_COMPRESSED_BYTES } else { max_bytes as u64 }
            .min(payload_len) as usize;
        if wanted > here.len() {
            let before = self.stored.len();
            self.stored.resize(wanted, 0);
            let more = self.bytes.read_at(at + begin + before as u64, &mut self.stored[before..]);
            let more = more.map_err(|e| ReadError::Io(at, e.to_string()))?;
            self.stored.truncate(before + more);
        }
        self.decompressed.clear();
        let is_whole = self.stored.len() as u64 == payload_len;
        unpack(flags, &self.stored, is_whole, max_bytes, &mut self.decompressed)?;
        let Some((field, value)) = Field::of(&self.decompressed) else {
            return Ok(Some(CachedField::Other));
        };
        let value = &self.decompressed[value..];
        record.put(field, value);
        // Messages seldom repeat.
        let is_cacheable = field != Field::Message && value.len() <= FIRST_READ_BYTES;
        Ok(is_cacheable.then(|| CachedField::Value(field, value.into())))
    }

    /// Reads at most `into.len()` bytes.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<usize, ReadError> {
        self.bytes.read_at(at, into).map_err(|e| ReadError::Io(at, e.to_string()))
    }

    /// Fills `into`.
    fn read_exactly(&self, at: u64, into: &mut [u8]) -> Result<(), ReadError> {
        if self.read(at, into)? == into.len() { Ok(()) } else { Err(ReadError::Short(at)) }
    }
}

fn read_header(bytes: &impl Bytes) -> Result<Header, ReadError> {
    let mut head = [0; HEADER_BYTES];
    let got = bytes.read_at(0, &mut head).map_err(|e| ReadError::Io(0, e.to_string()))?;
    if got < HEADER_BYTES {
        return Err(ReadError::NotAJournal);
    }
    Header::parse(&head)
}

#[cfg(test)]
mod tests;
