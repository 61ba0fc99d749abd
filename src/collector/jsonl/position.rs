//! A position in a content of a followed path.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use serde::{Deserialize, Serialize};

use super::lines::LinePosition;
use tapio_core::event::stable_hash;

/// The identity of a file while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The first bytes of a content, as far as they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Number of hashed bytes.
    pub(super) bytes: usize,
    hash: String,
}

impl Head {
    pub(super) const MAX_BYTES: usize = 256;

    pub(super) fn of(bytes: &[u8]) -> Self {
        let hash = u128::from_be_bytes(stable_hash(&[bytes]));
        Self { bytes: bytes.len(), hash: format!("{hash:032x}") }
    }
}

/// A position in a content of a followed path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    #[serde(flatten)]
    pub(super) id: FileId,
    #[serde(flatten)]
    pub(super) lines: LinePosition,
    /// Number of the content, from 0.
    pub(super) generation: u64,
    pub(super) head: Head,
}

/// The first bytes of a file; fewer than `len` if it is shorter.
pub(super) fn read_head(file: &File, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            n => read += n,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}
