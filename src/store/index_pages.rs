//! The pages of the owner's index: each has a checksum of its own, so that a part of a large index
//! is read without the rest.

use std::ops::Range;
use std::sync::Arc;

use super::files::DiskFile;
use super::format::{FrameType, MARK_BYTES, Mark};

/// Bytes of a page: content, then the CRC32C (little-endian) of the segment's nonce, the page's
/// number, and the content. The last page is shorter.
const PAGE_BYTES: usize = 4096;
const CHECKSUM_BYTES: usize = 4;
const CONTENT_BYTES: usize = PAGE_BYTES - CHECKSUM_BYTES;

/// The pages of an index in the segment with this nonce.
pub(super) fn to_pages(index: &[u8], nonce: u64) -> Vec<u8> {
    let pages = index.len().div_ceil(CONTENT_BYTES);
    let mut bytes = Vec::with_capacity(index.len() + pages * CHECKSUM_BYTES);
    for (number, content) in (0..).zip(index.chunks(CONTENT_BYTES)) {
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(&checksum(nonce, number, content).to_le_bytes());
    }
    bytes
}

fn checksum(nonce: u64, number: u64, content: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c(&nonce.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(head, content)
}

/// The owner's index of a sealed segment, of which parts are read.
pub struct IndexReader {
    file: Arc<dyn DiskFile>,
    nonce: u64,
    /// Offset of the first page in the file.
    start: u64,
    /// Bytes of all pages.
    len_bytes: u64,
}

impl IndexReader {
    /// The index whose frame begins at `offset`; `None` if no intact one does.
    pub(super) fn open(file: Arc<dyn DiskFile>, nonce: u64, offset: u64) -> Option<Self> {
        let mut mark = [0; MARK_BYTES];
        let read = file.read_at(&mut mark, offset).ok()?;
        let mark = Mark::decode(&mark[..read], nonce, offset)?;
        let start = offset + MARK_BYTES as u64;
        let len_bytes = u64::from(mark.payload_bytes);
        (mark.frame_type == FrameType::Index).then_some(Self { file, nonce, start, len_bytes })
    }

    /// The bytes of the index in a range; `None` if it has fewer, or some of them are damaged or
    /// can't be read.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let (page, content) = (PAGE_BYTES as u64, CONTENT_BYTES as u64);
        let first = range.start / content;
        let from = first.checked_mul(page)?;
        let to = range.end.div_ceil(content).checked_mul(page)?.min(self.len_bytes);
        let mut pages = vec![0; usize::try_from(to.checked_sub(from)?).ok()?];
        if self.file.read_at(&mut pages, self.start + from).ok()? != pages.len() {
            return None;
        }
        let mut bytes = Vec::with_capacity(pages.len());
        for (number, page) in (first..).zip(pages.chunks(PAGE_BYTES)) {
            let (content, stored) = page.split_last_chunk::<CHECKSUM_BYTES>()?;
            if checksum(self.nonce, number, content) != u32::from_le_bytes(*stored) {
                return None;
            }
            bytes.extend_from_slice(content);
        }
        let skipped = usize::try_from(range.start - first * content).ok()?;
        let end =
            skipped.checked_add(usize::try_from(range.end.checked_sub(range.start)?).ok()?)?;
        bytes.get(skipped..end).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::MemoryFile;
    use super::*;

    const NONCE: u64 = 77;
    /// Where the frame of the index begins.
    const OFFSET: u64 = 100;

    fn index(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| (n * 7 % 251) as u8).collect()
    }

    fn file(index: &[u8]) -> Vec<u8> {
        let pages = to_pages(index, NONCE);
        let mark = Mark { frame_type: FrameType::Index, ..Mark::data(&pages, 0) };
        let mark = mark.encode(NONCE, OFFSET);
        [&[9; OFFSET as usize], &mark[..], &pages, &mark].concat()
    }

    fn reader(bytes: &[u8]) -> Option<IndexReader> {
        IndexReader::open(Arc::new(MemoryFile::of(bytes)), NONCE, OFFSET)
    }

    #[test]
    fn every_range_reads_as_it_was_written() {
        for len in [0, 1, CONTENT_BYTES - 1, CONTENT_BYTES, CONTENT_BYTES + 1, 3 * CONTENT_BYTES] {
            let index = index(len);
            let reader = reader(&file(&index)).unwrap();
            let ends = [0, 1, 5, CONTENT_BYTES - 1, CONTENT_BYTES, CONTENT_BYTES + 2, len, len + 1];
            for from in ends {
                for to in ends.into_iter().filter(|to| *to >= from) {
                    let expected = index.get(from..to).map(<[u8]>::to_vec);
                    assert_eq!(
                        reader.read(from as u64..to as u64),
                        expected,
                        "{from}..{to} of {len}"
                    );
                }
            }
            assert_eq!(reader.read(u64::MAX - 1..u64::MAX), None);
        }
    }

    #[test]
    fn damaged_page_is_not_read_and_the_others_are() {
        let index = index(3 * CONTENT_BYTES);
        let intact = file(&index);
        let pages = OFFSET as usize + MARK_BYTES;
        for at in [0, CONTENT_BYTES - 1, CONTENT_BYTES, PAGE_BYTES - 1] {
            let mut damaged = intact.clone();
            damaged[pages + PAGE_BYTES + at] ^= 4;
            let reader = reader(&damaged).unwrap();
            let page = |n: usize| (n * CONTENT_BYTES) as u64..((n + 1) * CONTENT_BYTES) as u64;
            let is_read = [0, 1, 2].map(|n| reader.read(page(n)).is_some());
            assert_eq!(is_read, [true, false, true], "byte {at} of the second page");
        }
    }

    #[test]
    fn page_in_another_place_is_not_read() {
        let index = index(3 * CONTENT_BYTES);
        let mut moved = file(&index);
        let pages = OFFSET as usize + MARK_BYTES;
        moved.copy_within(pages..pages + PAGE_BYTES, pages + PAGE_BYTES);
        let reader = reader(&moved).unwrap();
        assert_eq!(reader.read(CONTENT_BYTES as u64..2 * CONTENT_BYTES as u64), None);
    }

    #[test]
    fn frame_that_is_no_index_has_none() {
        let bytes = file(&index(10));
        assert!(reader(&bytes[..OFFSET as usize + 3]).is_none());
        let other_nonce = Arc::new(MemoryFile::of(&bytes));
        assert!(IndexReader::open(other_nonce, NONCE + 1, OFFSET).is_none());
        let mark = Mark::data(b"data", 0).encode(NONCE, OFFSET);
        let data = [&[9; OFFSET as usize], &mark[..], b"data", &mark].concat();
        assert!(reader(&data).is_none());
    }
}
