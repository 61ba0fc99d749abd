//! The layout of journal files (systemd's docs/JOURNAL_FILE_FORMAT.md and journal-def.h): little
//! endian, objects on 8-byte boundaries. Only what a reader in sequence needs.

/// The longest header that is known, in bytes; older files have a shorter one.
pub(super) const HEADER_BYTES: usize = 208;
/// An object's own head: type, flags, size.
pub(super) const OBJECT_BYTES: u64 = 16;
/// Where an entry's items begin.
pub(super) const ENTRY_BYTES: u64 = 64;
/// Where an entry array's items begin.
pub(super) const ARRAY_BYTES: u64 = 24;

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";

const COMPRESSED_XZ: u32 = 1;
const COMPRESSED_LZ4: u32 = 1 << 1;
const KEYED_HASH: u32 = 1 << 2;
const COMPRESSED_ZSTD: u32 = 1 << 3;
const COMPACT: u32 = 1 << 4;
/// Flags a reader must know, and this one does.
const KNOWN: u32 = COMPRESSED_XZ | COMPRESSED_LZ4 | KEYED_HASH | COMPRESSED_ZSTD | COMPACT;

/// `STATE_ARCHIVED`: nothing is appended any more.
const ARCHIVED: u8 = 2;

/// Why bytes aren't a journal's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("not a journal file, or one that is just being made")]
    NoJournal,
    #[error("flags {0:#x} of a later format")]
    LaterFormat(u32),
    #[error("the {0} at {1} can't be")]
    Object(&'static str, u64),
    #[error("it ends before {0}")]
    Short(u64),
    #[error("reading at {0}: {1}")]
    Io(u64, String),
    #[error("{0} can't be decompressed")]
    Compression(&'static str),
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

pub(super) fn id_at(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).unwrap_or_default()
}

/// A file's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_compact: bool,
    pub(super) is_archived: bool,
    /// Names the file for ever, whatever it is renamed to.
    pub(super) file_id: [u8; 16],
    /// Names the sequence that `seqnum`s are of.
    pub(super) seqnum_id: [u8; 16],
    /// Entries so far.
    pub(super) entries: u64,
    pub(super) tail_seqnum: u64,
    pub(super) tail_realtime_us: u64,
    /// The first array of entries; zero before the first entry.
    pub(super) entry_array: u64,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Bad> {
        if bytes.get(..8) != Some(SIGNATURE) || id_at(bytes, 24) == [0; 16] {
            return Err(Bad::NoJournal);
        }
        let flags = u32_at(bytes, 12);
        if flags & !KNOWN != 0 {
            return Err(Bad::LaterFormat(flags & !KNOWN));
        }
        Ok(Self {
            is_compact: flags & COMPACT != 0,
            is_archived: bytes[16] == ARCHIVED,
            file_id: id_at(bytes, 24),
            seqnum_id: id_at(bytes, 72),
            entries: u64_at(bytes, 152),
            tail_seqnum: u64_at(bytes, 160),
            tail_realtime_us: u64_at(bytes, 192),
            entry_array: u64_at(bytes, 176),
        })
    }

    /// Where a data object's payload begins.
    pub(super) fn data_bytes(&self) -> u64 {
        if self.is_compact { 72 } else { 64 }
    }

    /// The length of an entry array's items.
    pub(super) fn array_item_bytes(&self) -> u64 {
        if self.is_compact { 4 } else { 8 }
    }

    /// The length of an entry's items, each of which begins with its data object's offset.
    pub(super) fn entry_item_bytes(&self) -> u64 {
        if self.is_compact { 4 } else { 16 }
    }

    /// An offset, as it stands in an item.
    pub(super) fn offset_at(&self, bytes: &[u8], at: usize) -> u64 {
        if self.is_compact { u64::from(u32_at(bytes, at)) } else { u64_at(bytes, at) }
    }
}

/// The type of an object, as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Entry,
    EntryArray,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Entry => 3,
            Self::EntryArray => 6,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Data => "data object",
            Self::Entry => "entry",
            Self::EntryArray => "entry array",
        }
    }
}

/// An object's flags and whole size in bytes, if it is of this kind and at least `least` bytes long.
pub(super) fn object(kind: Kind, least: u64, head: &[u8], at: u64) -> Result<(u8, u64), Bad> {
    let size = u64_at(head, 8);
    let plausible = head.first() == Some(&kind.number())
        && size >= least
        && at.is_multiple_of(8)
        && at.checked_add(size).is_some();
    if plausible { Ok((head[1], size)) } else { Err(Bad::Object(kind.word(), at)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_or_refused() {
        let mut bytes = [0; HEADER_BYTES];
        assert_eq!(Header::parse(&bytes), Err(Bad::NoJournal));
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[24] = 7;
        bytes[12] = 0x1c;
        bytes[16] = 2;
        bytes[152] = 9;
        let header = Header::parse(&bytes).unwrap();
        assert!(header.is_compact && header.is_archived);
        assert_eq!((header.entries, header.file_id[0], header.data_bytes()), (9, 7, 72));
        bytes[12] = 0x20;
        assert_eq!(Header::parse(&bytes), Err(Bad::LaterFormat(0x20)));
    }
}
