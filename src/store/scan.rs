//! Reads a segment without its footer: one that wasn't sealed, or whose footer is damaged.
//!
//! The scan goes from mark to mark and never looks for one inside a payload. Damage to a payload
//! costs that frame, because the marks around it have its length. Where the mark before a payload
//! is damaged, the scan goes on from the other end: the marks behind the payloads lead from the end
//! of the file back to the damaged one, whose copy behind the payload replaces it. A segment so
//! loses the frames that are damaged; with several damaged marks also those between the first and
//! the last.

use std::io;

use super::files::DiskFile;
use super::format::{FRAME_OVERHEAD_BYTES, FrameType, MARK_BYTES, Mark};
use super::frame::{Frame, FramePosition};

/// Bytes read at once: several frames, or the begin of a large one.
const READ_BYTES: usize = 256 << 10;
/// Bytes read at once for marks: the payloads between them are large, and aren't read.
const MARK_READ_BYTES: usize = 4 << 10;

/// The frames of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameList {
    /// Offset and mark of each frame of data, oldest first. Payloads aren't checked yet.
    pub(super) frames: Vec<(u64, Mark)>,
    /// Frames that cover damaged ones of before.
    pub(super) skips: u64,
    /// Bytes between two damaged marks: frames whose number isn't known.
    pub(super) lost_bytes: u64,
    /// Bytes at the end that belong to no complete frame.
    pub(super) torn_bytes: u64,
    /// Offset behind the last frame of data: where the footer belongs.
    pub(super) end: u64,
    /// Offset where the walk from the front ended, if it didn't reach the end.
    broken: Option<u64>,
}

impl FrameList {
    /// Lists the frames from the one at `start` to the end of the file, which is at `len_bytes`.
    ///
    /// # Errors
    /// When the file can't be read. Damage isn't an error.
    pub(super) fn read(
        file: &dyn DiskFile,
        nonce: u64,
        start: u64,
        len_bytes: u64,
    ) -> io::Result<Self> {
        let mut marks =
            Marks { window: Window::new(file, len_bytes, MARK_READ_BYTES), nonce, len_bytes };
        let mut list = Self { end: start, ..Self::default() };
        while let Some(mark) = marks.at(list.end)? {
            if matches!(mark.frame_type, FrameType::Footer | FrameType::Index) {
                return Ok(list);
            }
            match mark.frame_type {
                FrameType::Data => list.frames.push((list.end, mark)),
                _ => list.skips += 1,
            }
            list.end += mark.frame_bytes();
        }
        if list.end < len_bytes {
            list.read_backwards(&mut marks)?;
        }
        Ok(list)
    }

    /// Lists what follows the last frame so far, where no mark is intact: backwards from the end.
    fn read_backwards(&mut self, marks: &mut Marks<'_>) -> io::Result<()> {
        let (from, len_bytes) = (self.end, marks.len_bytes);
        let mut found = Vec::new();
        let mut start = len_bytes;
        while let Some((offset, mark)) = marks.behind(start, from)? {
            match mark.frame_type {
                FrameType::Data => found.push((offset, mark)),
                FrameType::Skip => self.skips += 1,
                FrameType::Footer | FrameType::Index => {}
            }
            start = offset;
        }
        if start == len_bytes {
            self.torn_bytes = len_bytes - from;
            return Ok(());
        }
        self.lost_bytes = start - from;
        self.broken = Some(from);
        self.end = found.first().map_or(start, |(offset, mark)| offset + mark.frame_bytes());
        self.frames.extend(found.into_iter().rev());
        Ok(())
    }
}

impl FrameList {
    /// Cuts off an incomplete frame; restores the marks that are damaged, and covers lost frames,
    /// so that the next scan gets past them from the front: the end may be damaged by then.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn repair(&self, file: &dyn DiskFile, nonce: u64) -> io::Result<()> {
        if self.torn_bytes > 0 {
            file.truncate(self.end)?;
        }
        let Some(broken) = self.broken else {
            return Ok(());
        };
        let write = |bytes: &[u8], at: u64| file.write_at([bytes, &[], &[]], at);
        if self.lost_bytes >= FRAME_OVERHEAD_BYTES {
            let mark = Mark::skip(self.lost_bytes).encode(nonce, broken);
            write(&mark, broken)?;
            write(&mark, broken + self.lost_bytes - MARK_BYTES as u64)?;
        }
        let behind = self.frames.iter().filter(|(offset, _)| *offset >= broken);
        behind
            .map(|(offset, mark)| (mark.encode(nonce, *offset), *offset))
            .try_for_each(|(mark, offset)| write(&mark, offset))
    }
}

/// Reads the marks of a segment.
struct Marks<'a> {
    window: Window<'a>,
    nonce: u64,
    len_bytes: u64,
}

impl Marks<'_> {
    /// The mark of the frame that starts at `offset`, if it is intact and the frame complete.
    fn at(&mut self, offset: u64) -> io::Result<Option<Mark>> {
        let mark = Mark::decode(self.window.read(offset, MARK_BYTES)?, self.nonce, offset);
        Ok(mark.filter(|mark| offset + mark.frame_bytes() <= self.len_bytes))
    }

    /// The offset and the mark of the frame that ends at `end` and starts at `from` or later.
    fn behind(&mut self, end: u64, from: u64) -> io::Result<Option<(u64, Mark)>> {
        let Some(at) = end.checked_sub(MARK_BYTES as u64).filter(|at| *at >= from) else {
            return Ok(None);
        };
        let found = Mark::decode_trailing(self.window.read(at, MARK_BYTES)?, self.nonce, end);
        Ok(found.filter(|(offset, _)| *offset >= from))
    }
}

/// Reads the frames of a segment.
pub(super) struct FrameReader<'a> {
    window: Window<'a>,
    number: u64,
}

impl<'a> FrameReader<'a> {
    /// For a segment that ends at `len_bytes`.
    pub(super) fn new(file: &'a dyn DiskFile, number: u64, len_bytes: u64) -> Self {
        Self { window: Window::new(file, len_bytes, READ_BYTES), number }
    }

    /// Reads a frame; `None` if its payload is damaged.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn read(&mut self, offset: u64, mark: &Mark) -> io::Result<Option<Frame<'_>>> {
        let (start, len) = (offset + MARK_BYTES as u64, mark.payload_bytes as usize);
        let payload = self.window.read(start, len)?;
        let is_intact = payload.len() == len && crc32c::crc32c(payload) == mark.payload_checksum;
        let position = FramePosition { segment: self.number, offset };
        Ok(is_intact.then_some(Frame { position, receipt_ns: mark.receipt_ns, payload }))
    }
}

/// Reads a file through a buffer.
struct Window<'a> {
    file: &'a dyn DiskFile,
    /// Nothing behind it is read.
    len_bytes: u64,
    read_bytes: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Reads `read_bytes` at once.
    fn new(file: &'a dyn DiskFile, len_bytes: u64, read_bytes: usize) -> Self {
        Self { file, len_bytes, read_bytes, start: 0, bytes: Vec::new() }
    }

    /// The bytes at `offset`; fewer than `len` at the end.
    fn read(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len as u64 > end {
            let remaining_bytes = self.len_bytes.saturating_sub(offset);
            self.bytes.resize(remaining_bytes.min(len.max(self.read_bytes) as u64) as usize, 0);
            self.start = offset;
            let read = self.file.read_at(&mut self.bytes, offset);
            // After an error the buffer holds nothing.
            self.bytes.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        let at = ((offset - self.start) as usize).min(self.bytes.len());
        Ok(&self.bytes[at..self.bytes.len().min(at + len)])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::format::HEAD_BYTES;
    use super::super::segment::SegmentWriter;
    use super::super::testing::MemoryFile;
    use super::*;

    const PAYLOADS: [&[u8]; 4] = [b"one", b"", b"three", b"the fourth"];

    fn segment() -> (Vec<u8>, u64) {
        let file = MemoryFile::default();
        let mut writer = SegmentWriter::create(Arc::new(file.clone()), 7, None).unwrap();
        for (receipt_ns, payload) in (0..).zip(PAYLOADS) {
            writer.append(payload, receipt_ns).unwrap();
        }
        (file.contents(), writer.head().nonce)
    }

    /// The intact payloads, and the list of frames.
    fn scan(bytes: &[u8], nonce: u64) -> (Vec<Vec<u8>>, FrameList) {
        let file = MemoryFile::of(bytes);
        let list = FrameList::read(&file, nonce, HEAD_BYTES as u64, bytes.len() as u64).unwrap();
        let mut reader = FrameReader::new(&file, 7, bytes.len() as u64);
        let mut read = |(offset, mark): &(u64, Mark)| {
            reader.read(*offset, mark).unwrap().map(|frame| frame.payload.to_vec())
        };
        (list.frames.iter().filter_map(&mut read).collect(), list)
    }

    #[test]
    fn flipped_bit_costs_at_most_the_frame_it_is_in() {
        let (bytes, nonce) = segment();
        for bit in HEAD_BYTES * 8..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (found, list) = scan(&damaged, nonce);
            assert_eq!(list.frames.len(), PAYLOADS.len(), "bit {bit}");
            assert!(found.len() >= PAYLOADS.len() - 1, "bit {bit}");
            assert!(found.iter().all(|payload| PAYLOADS.contains(&&payload[..])), "bit {bit}");
            let counts = (list.end, list.torn_bytes, list.lost_bytes);
            assert_eq!(counts, (bytes.len() as u64, 0, 0), "bit {bit}");
        }
    }

    #[test]
    fn truncation_costs_the_frames_behind_it() {
        let (bytes, nonce) = segment();
        let mut ends = vec![HEAD_BYTES];
        for payload in PAYLOADS {
            ends.push(ends[ends.len() - 1] + 2 * MARK_BYTES + payload.len());
        }
        for len in HEAD_BYTES..bytes.len() {
            let (found, list) = scan(&bytes[..len], nonce);
            let complete = ends.iter().filter(|end| **end <= len).count() - 1;
            assert_eq!(found, PAYLOADS[..complete], "{len} bytes");
            assert_eq!(list.torn_bytes, (len - ends[complete]) as u64, "{len} bytes");
            assert_eq!((list.lost_bytes, list.end), (0, ends[complete] as u64));
        }
    }

    #[test]
    fn damaged_region_costs_the_frames_it_touches() {
        let (mut bytes, nonce) = segment();
        let second = HEAD_BYTES + 2 * MARK_BYTES + 3;
        // The end of the first frame, the second one, and the begin of the third.
        bytes[second - 10..second + 2 * MARK_BYTES + 10].fill(0);
        let (found, list) = scan(&bytes, nonce);
        assert_eq!(found, [PAYLOADS[0], PAYLOADS[2], PAYLOADS[3]], "each has an intact mark");
        assert_eq!((list.lost_bytes, list.torn_bytes), (2 * MARK_BYTES as u64, 0));
    }

    #[test]
    fn frames_of_another_segment_inside_a_payload_are_not_found() {
        let (inner, _) = segment();
        let file = MemoryFile::default();
        let mut writer = SegmentWriter::create(Arc::new(file.clone()), 7, None).unwrap();
        writer.append(&inner, 0).unwrap();
        writer.append(b"last", 1).unwrap();
        let mut bytes = file.contents();
        bytes[HEAD_BYTES + 3] ^= 1;
        let (found, list) = scan(&bytes, writer.head().nonce);
        assert_eq!((found.len(), list.lost_bytes), (2, 0));
        // Torn inside that payload: its last bytes are a mark of the other segment.
        bytes.truncate(HEAD_BYTES + MARK_BYTES + inner.len());
        bytes[HEAD_BYTES + 3] ^= 1;
        assert_eq!(scan(&bytes, writer.head().nonce).0.len(), 0);
    }
}
