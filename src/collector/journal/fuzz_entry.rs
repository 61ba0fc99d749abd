//! The entry point of the fuzz target `journal`.

use super::file::JournalFile;
use super::record::Record;

/// Longest input that is read, in bytes: the size bounds the work.
const MAX_BYTES: usize = 64 << 20;

/// Counts the readable and the unreadable entries of a journal file. Never panics, whatever the
/// bytes are.
#[must_use]
pub fn count_entries(bytes: &[u8]) -> (u64, u64) {
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    let (mut good, mut bad) = (0, 0);
    let Ok(mut file) = JournalFile::open(bytes) else { return (0, 0) };
    let mut record = Record::default();
    loop {
        let left = file.left();
        match file.peek() {
            Ok(None) => return (good, bad),
            Ok(Some(_)) => match file.take(&mut record) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            },
            Err(_) if file.left() < left => bad += 1,
            Err(_) => return (good, bad + file.abandon()),
        }
    }
}
