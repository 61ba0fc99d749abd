//! The order of the annotations in force.

use super::entry::Entry;

/// The position of an entry in the list of all: its time, then its story and its number among
/// those of the same time. It stays the same until the entry isn't in force any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryKey {
    time_ns: u64,
    /// Of its story, or a hash of the silence's.
    id: [u8; 16],
    /// Its number among the entries of one time and id.
    number: u32,
}

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 8 + 16 + 4;

impl EntryKey {
    pub(super) fn new(entry: &Entry, id: &[u8], number: u32) -> Self {
        let mut of_entry = [0; 16];
        of_entry.iter_mut().zip(id).for_each(|(to, from)| *to = *from);
        Self { time_ns: entry.time_ns, id: of_entry, number }
    }

    pub(super) fn bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..8].copy_from_slice(&self.time_ns.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.id);
        bytes[24..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let number = u32::from_be_bytes(rest.try_into().ok()?);
        Some(Self { time_ns: u64::from_be_bytes(*time), id: *id, number })
    }
}
