//! The layout of journal files (systemd's docs/JOURNAL_FILE_FORMAT.md and journal-def.h): little
//! endian, objects on 8-byte boundaries. Only the parts that a sequential reader needs.

/// Length of the longest known header, in bytes; older files have a shorter one.
pub(super) const HEADER_BYTES: usize = 208;
/// Length of an object's header: type, flags, size.
pub(super) const OBJECT_BYTES: u64 = 16;
/// Offset of an entry's items.
pub(super) const ENTRY_BYTES: u64 = 64;
/// Offset of an entry array's items.
pub(super) const ARRAY_BYTES: u64 = 24;

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";

const COMPRESSED_XZ: u32 = 1;
const COMPRESSED_LZ4: u32 = 1 << 1;
const KEYED_HASH: u32 = 1 << 2;
const COMPRESSED_ZSTD: u32 = 1 << 3;
const COMPACT: u32 = 1 << 4;
/// Incompatible flags that this reader supports.
const SUPPORTED: u32 = COMPRESSED_XZ | COMPRESSED_LZ4 | KEYED_HASH | COMPRESSED_ZSTD | COMPACT;

/// `STATE_ARCHIVED`: the file is complete.
const ARCHIVED: u8 = 2;

/// Why a file, or a part of it, can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    #[error("not a journal file, or one that is being created")]
    NotAJournal,
    #[error("unsupported flags {0:#x} of a later format")]
    LaterFormat(u32),
    #[error("invalid {0} at offset {1}")]
    Object(&'static str, u64),
    #[error("the file ends before offset {0}")]
    Short(u64),
    #[error("read error at offset {0}: {1}")]
    Io(u64, String),
    #[error("can't decompress {0}")]
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
    /// Identifies the file, also after a rename.
    pub(super) file_id: [u8; 16],
    /// Identifies the sequence of the entries' numbers.
    pub(super) seqnum_id: [u8; 16],
    /// Number of entries.
    pub(super) entries: u64,
    pub(super) tail_seqnum: u64,
    pub(super) tail_realtime_us: u64,
    /// Offset of the first entry array; zero without entries.
    pub(super) entry_array: u64,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ReadError> {
        if bytes.get(..8) != Some(SIGNATURE) || id_at(bytes, 24) == [0; 16] {
            return Err(ReadError::NotAJournal);
        }
        let flags = u32_at(bytes, 12);
        if flags & !SUPPORTED != 0 {
            return Err(ReadError::LaterFormat(flags & !SUPPORTED));
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

    /// Offset of a data object's payload.
    pub(super) fn data_bytes(&self) -> u64 {
        if self.is_compact { 72 } else { 64 }
    }

    /// Length of an entry array's items.
    pub(super) fn array_item_bytes(&self) -> u64 {
        if self.is_compact { 4 } else { 8 }
    }

    /// Length of an entry's items, each of which begins with the offset of its data object.
    pub(super) fn entry_item_bytes(&self) -> u64 {
        if self.is_compact { 4 } else { 16 }
    }

    /// Decodes the offset in an item.
    pub(super) fn offset_at(&self, bytes: &[u8], at: usize) -> u64 {
        if self.is_compact { u64::from(u32_at(bytes, at)) } else { u64_at(bytes, at) }
    }
}

/// The object types that are read.
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

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Data => "data object",
            Self::Entry => "entry",
            Self::EntryArray => "entry array",
        }
    }
}

/// Decodes an object's header: flags and total size in bytes. The object must be of this kind and
/// at least `min_bytes` long.
pub(super) fn object(
    kind: Kind,
    min_bytes: u64,
    head: &[u8],
    at: u64,
) -> Result<(u8, u64), ReadError> {
    let size = u64_at(head, 8);
    let plausible = head.first() == Some(&kind.number())
        && size >= min_bytes
        && at.is_multiple_of(8)
        && at.checked_add(size).is_some();
    if plausible { Ok((head[1], size)) } else { Err(ReadError::Object(kind.name(), at)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_decoded_or_refused() {
        let mut bytes = [0; HEADER_BYTES];
        assert_eq!(Header::parse(&bytes), Err(ReadError::NotAJournal));
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[24] = 7;
        bytes[12] = 0x1c;
        bytes[16] = 2;
        bytes[152] = 9;
        let header = Header::parse(&bytes).unwrap();
        assert!(header.is_compact && header.is_archived);
        assert_eq!((header.entries, header.file_id[0], header.data_bytes()), (9, 7, 72));
        bytes[12] = 0x20;
        assert_eq!(Header::parse(&bytes), Err(ReadError::LaterFormat(0x20)));
    }
}
