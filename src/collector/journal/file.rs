//! One journal file, read from its first entry to its last and on as it grows.
//!
//! journald writes an entry, then the array item that points to it, then the count in the header: so what
//! the count covers can be read. Every length is held against bounds before it is read.

use std::fs::File;
use std::io;

use super::format::{
    ARRAY_BYTES, Bad, ENTRY_BYTES, HEADER_BYTES, Header, Kind, OBJECT_BYTES, id_at, object, u64_at,
};
use super::payload::unpack;
use super::position::Position;
use super::record::{Field, MOST_MESSAGE_BYTES, MOST_NAME_BYTES, Record};

/// Fields of an entry that are looked at.
const MOST_FIELDS: u64 = 1_024;
/// The most of a packed payload that is read, in bytes: enough for the beginning of any field.
const MOST_PACKED_BYTES: u64 = 1 << 20;
/// What is read of a data object at once: most are shorter.
const FIRST_BYTES: usize = 512;
/// Data objects that are remembered for each file: most fields repeat from record to record.
const REMEMBERED: usize = 1_024;

/// What can be read at any place.
pub(super) trait Bytes {
    /// Reads at most as much as fits; less at the end.
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

/// A data object that was seen.
enum Seen {
    /// Of no use here.
    Other,
    Value(Field, Box<[u8]>),
}

/// The next entry: where it lies, how long it is, and its place in the journal.
#[derive(Clone, Copy, Debug)]
struct Next {
    at: u64,
    size: u64,
    position: Position,
}

/// A file and how far it has been read.
pub(super) struct JournalFile<B> {
    bytes: B,
    header: Header,
    /// The array the next entry stands in, and its place there.
    array: u64,
    array_items: u64,
    item: u64,
    /// Entries read or skipped so far.
    done: u64,
    next: Option<Next>,
    seen: Box<[Option<(u64, Seen)>]>,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
}

impl<B: Bytes> JournalFile<B> {
    /// Looks at a file's header.
    pub(super) fn open(bytes: B) -> Result<Self, Bad> {
        let header = read_header(&bytes)?;
        Ok(Self {
            bytes,
            header,
            array: 0,
            array_items: 0,
            item: 0,
            done: 0,
            next: None,
            seen: (0..REMEMBERED).map(|_| None).collect(),
            packed: Vec::new(),
            unpacked: Vec::new(),
        })
    }

    /// What it is read from.
    pub(super) fn source(&self) -> &B {
        &self.bytes
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Entries that are there and weren't read.
    pub(super) fn left(&self) -> u64 {
        self.header.entries.saturating_sub(self.done)
    }

    /// Looks whether it has grown.
    pub(super) fn refresh(&mut self) -> Result<(), Bad> {
        let header = read_header(&self.bytes)?;
        if header.file_id != self.header.file_id || header.is_compact != self.header.is_compact {
            return Err(Bad::Object("header", 0));
        }
        self.header = header;
        Ok(())
    }

    /// The next entry's place, if there is one. An entry that can't be is an error, and skipped.
    pub(super) fn peek(&mut self) -> Result<Option<Position>, Bad> {
        if self.next.is_none() {
            self.next = self.find_next()?;
        }
        Ok(self.next.map(|next| next.position))
    }

    fn find_next(&mut self) -> Result<Option<Next>, Bad> {
        let Some(at) = self.next_item()? else { return Ok(None) };
        let entry = self.entry_at(at);
        // Read or not, it isn't looked at again.
        self.item += 1;
        self.done += 1;
        entry.map(Some)
    }

    /// The offset of the next entry, if there is one.
    fn next_item(&mut self) -> Result<Option<u64>, Bad> {
        if self.left() == 0 || !self.enter_array()? {
            return Ok(None);
        }
        let offset = self.item_at(self.item)?;
        // Counted and not yet there can't be; a file that was cut has such.
        if offset == 0 {
            Err(Bad::Object("entry array item", self.array))
        } else {
            Ok(Some(offset))
        }
    }

    /// Goes to the array in which the next entry stands.
    fn enter_array(&mut self) -> Result<bool, Bad> {
        while self.array == 0 || self.item >= self.array_items {
            let next = if self.array == 0 {
                self.header.entry_array
            } else {
                let mut link = [0; 8];
                self.exactly(self.array + OBJECT_BYTES, &mut link)?;
                u64_at(&link, 0)
            };
            if next == 0 {
                return Ok(false);
            }
            // Arrays are appended: one that leads back would never end.
            if next <= self.array {
                return Err(Bad::Object(Kind::EntryArray.word(), next));
            }
            let mut head = [0; OBJECT_BYTES as usize];
            self.exactly(next, &mut head)?;
            let (_, size) = object(Kind::EntryArray, ARRAY_BYTES, &head, next)?;
            self.array = next;
            self.array_items = (size - ARRAY_BYTES) / self.header.array_item_bytes();
            self.item = 0;
        }
        Ok(true)
    }

    fn item_at(&self, item: u64) -> Result<u64, Bad> {
        let len = self.header.array_item_bytes();
        let mut bytes = [0; 8];
        self.exactly(self.array + ARRAY_BYTES + item * len, &mut bytes[..len as usize])?;
        Ok(self.header.offset_at(&bytes, 0))
    }

    fn entry_at(&self, at: u64) -> Result<Next, Bad> {
        let mut head = [0; ENTRY_BYTES as usize];
        self.exactly(at, &mut head)?;
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

    /// Skips what comes before a place or is it. Whole arrays are skipped by their last entry.
    pub(super) fn seek(&mut self, after: &Position) -> Result<(), Bad> {
        while self.left() > 0 && self.enter_array()? {
            let here = self.left().min(self.array_items - self.item);
            let is_new = |file: &Self, n: u64| {
                let entry = file.item_at(file.item + n).and_then(|at| file.entry_at(at));
                entry.map(|entry| after.is_before(&entry.position))
            };
            // The first new one among those here; what can't be read is left for `peek` to tell.
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

    /// Skips all that is there.
    pub(super) fn skip_all(&mut self) -> Result<(), Bad> {
        self.next = None;
        while self.left() > 0 && self.enter_array()? {
            let here = self.left().min(self.array_items - self.item);
            self.item += here;
            self.done += here;
        }
        Ok(())
    }

    /// Gives up what is left. Returns how many entries that were.
    pub(super) fn abandon(&mut self) -> u64 {
        let left = self.left();
        self.done = self.header.entries;
        left
    }

    /// Reads the entry that [`JournalFile::peek`] showed. Fields that can't be read are left out and counted;
    /// returns how many.
    pub(super) fn take(&mut self, record: &mut Record) -> Result<u64, Bad> {
        let Some(next) = self.next.take() else { return Ok(0) };
        record.begin(next.position);
        let len = self.header.entry_item_bytes();
        let count = ((next.size - ENTRY_BYTES) / len).min(MOST_FIELDS);
        let mut items = vec![0; (count * len) as usize];
        self.exactly(next.at + ENTRY_BYTES, &mut items)?;
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

    fn field(&mut self, at: u64, record: &mut Record) -> Result<(), Bad> {
        let slot = (at / 8) as usize % REMEMBERED;
        if let Some((known, seen)) = &self.seen[slot]
            && *known == at
        {
            if let Seen::Value(field, value) = seen {
                record.put(*field, value);
            }
            return Ok(());
        }
        let seen = self.read_field(at, record)?;
        if let Some(seen) = seen {
            self.seen[slot] = Some((at, seen));
        }
        Ok(())
    }

    /// Reads a data object; returns what to remember of it.
    fn read_field(&mut self, at: u64, record: &mut Record) -> Result<Option<Seen>, Bad> {
        let begin = self.header.data_bytes();
        let mut first = [0; FIRST_BYTES];
        let got = self.some(at, &mut first)?;
        let first = &first[..got];
        let (flags, size) = object(Kind::Data, begin, first, at)?;
        let payload_len = size - begin;
        self.packed.clear();
        let here = first.get(begin as usize..).unwrap_or_default();
        let here = &here[..here.len().min(usize::try_from(payload_len).unwrap_or(usize::MAX))];
        self.packed.extend_from_slice(here);
        let packed = flags & 7 != 0;
        if !packed && Field::of(here).is_none() {
            return Ok(Some(Seen::Other));
        }
        let most = MOST_MESSAGE_BYTES + MOST_NAME_BYTES;
        let wanted = if packed { MOST_PACKED_BYTES } else { most as u64 }.min(payload_len) as usize;
        if wanted > here.len() {
            let before = self.packed.len();
            self.packed.resize(wanted, 0);
            let more = self.bytes.read_at(at + begin + before as u64, &mut self.packed[before..]);
            let more = more.map_err(|e| Bad::Io(at, e.to_string()))?;
            self.packed.truncate(before + more);
        }
        self.unpacked.clear();
        let whole = self.packed.len() as u64 == payload_len;
        unpack(flags, &self.packed, whole, most, &mut self.unpacked)?;
        let Some((field, value)) = Field::of(&self.unpacked) else {
            return Ok(Some(Seen::Other));
        };
        let value = &self.unpacked[value..];
        record.put(field, value);
        // A message is seldom said again.
        let remember = field != Field::Message && value.len() <= FIRST_BYTES;
        Ok(remember.then(|| Seen::Value(field, value.into())))
    }

    fn some(&self, at: u64, into: &mut [u8]) -> Result<usize, Bad> {
        self.bytes.read_at(at, into).map_err(|e| Bad::Io(at, e.to_string()))
    }

    fn exactly(&self, at: u64, into: &mut [u8]) -> Result<(), Bad> {
        if self.some(at, into)? == into.len() { Ok(()) } else { Err(Bad::Short(at)) }
    }
}

fn read_header(bytes: &impl Bytes) -> Result<Header, Bad> {
    let mut head = [0; HEADER_BYTES];
    let got = bytes.read_at(0, &mut head).map_err(|e| Bad::Io(0, e.to_string()))?;
    if got < HEADER_BYTES {
        return Err(Bad::NoJournal);
    }
    Header::parse(&head)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
