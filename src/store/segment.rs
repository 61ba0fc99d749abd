//! Segment files: their names, and the segment that is appended to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::copy;
use super::files::DiskFile;
use super::footer::Footer;
use super::format::{FrameType, HEAD_BYTES, Head, MAX_PAYLOAD_BYTES, Mark, Previous};
use super::frame::FramePosition;
use super::index_pages::to_pages;

/// The path of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:016x}.tapio"))
}

/// The number of a segment, from its file name.
pub(super) fn number(file_name: &str) -> Option<u64> {
    let hex = file_name.strip_prefix("segment-")?.strip_suffix(".tapio")?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

/// A segment that isn't appended to any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealedSegment {
    pub(super) head: Head,
    pub(super) frames: u64,
    pub(super) end: u64,
    pub(super) first_receipt_ns: u64,
    pub(super) last_receipt_ns: u64,
}

impl SealedSegment {
    pub(super) fn new(head: Head, footer: &Footer) -> Self {
        let Footer { frames, end, first_receipt_ns, last_receipt_ns, .. } = *footer;
        Self { head, frames, end, first_receipt_ns, last_receipt_ns }
    }
}

/// The segment that is appended to.
pub(super) struct SegmentWriter {
    file: Arc<dyn DiskFile>,
    head: Head,
    /// Offset behind the last complete frame. After a failed write the file may be longer.
    end: u64,
}

impl SegmentWriter {
    /// Writes the head of a new segment with a nonce of its own.
    ///
    /// # Errors
    /// When the disk refuses it, or the kernel has no random bytes.
    pub(super) fn create(
        file: Arc<dyn DiskFile>,
        number: u64,
        previous: Option<Previous>,
    ) -> io::Result<Self> {
        let mut nonce = [0; 8];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
        let head = Head { number, nonce: u64::from_le_bytes(nonce), previous };
        file.write_at([&head.encode(), &[], &[]], 0)?;
        Ok(Self { file, head, end: HEAD_BYTES as u64 })
    }

    /// Continues a segment behind its last frame, to seal it.
    ///
    /// # Errors
    /// When the disk refuses to cut off what follows that frame.
    pub(super) fn resume(file: Arc<dyn DiskFile>, head: Head, end: u64) -> io::Result<Self> {
        file.truncate(end)?;
        Ok(Self { file, head, end })
    }

    /// Copies the segment to another file and goes on there.
    ///
    /// # Errors
    /// When one of the files can't be read or written.
    pub(super) fn move_to(&mut self, file: Arc<dyn DiskFile>) -> io::Result<()> {
        copy(&*self.file, &*file, self.end)?;
        self.file = file;
        Ok(())
    }

    pub(super) fn number(&self) -> u64 {
        self.head.number
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.end
    }

    pub(super) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Whether a frame of this payload fits into a segment of `limit_bytes`.
    pub(super) fn has_room(&self, payload: &[u8], limit_bytes: u64) -> bool {
        self.end == HEAD_BYTES as u64
            || self.end + Mark::data(&[], 0).frame_bytes() + payload.len() as u64 <= limit_bytes
    }

    /// Appends a frame with one system call.
    ///
    /// # Errors
    /// When the disk refuses it. The segment is unchanged then: the next frame overwrites what was
    /// written of this one.
    pub(super) fn append(&mut self, payload: &[u8], receipt_ns: u64) -> io::Result<FramePosition> {
        let position = FramePosition { segment: self.head.number, offset: self.end };
        self.write(&Mark::data(payload, receipt_ns), payload)?;
        Ok(position)
    }

    /// Appends the owner's index and the footer, after which nothing may follow.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    pub(super) fn seal(&mut self, footer: &mut Footer, index: &[u8]) -> io::Result<()> {
        let mark = |frame_type, payload: &[u8]| Mark { frame_type, ..Mark::data(payload, 0) };
        if !index.is_empty() {
            let pages = to_pages(index, self.head.nonce);
            self.write(&mark(FrameType::Index, &pages), &pages)?;
            footer.index_bytes = self.end - footer.end;
        }
        let footer = footer.encode();
        self.write(&mark(FrameType::Footer, &footer), &footer)?;
        // A failed write may have left bytes behind the last frame.
        self.file.truncate(self.end)
    }

    /// Cuts off what a failed write may have left behind the last frame.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.truncate(self.end)
    }

    fn write(&mut self, mark: &Mark, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            let message =
                format!("a frame of {} bytes, at most {MAX_PAYLOAD_BYTES}", payload.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let bytes = mark.encode(self.head.nonce, self.end);
        self.file.write_at([&bytes, payload, &bytes], self.end)?;
        self.end += mark.frame_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_numbers_are_in_file_names() {
        let name = path(Path::new("/d"), 0x1f);
        assert_eq!(number(name.file_name().unwrap().to_str().unwrap()), Some(0x1f));
        assert_eq!((number("lock"), number("segment-1f.tapio")), (None, None));
    }
}
