//! Reads of a log that is appended to meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{DiskFile, Files};
use super::footer::Footer;
use super::format::{HEAD_BYTES, Head, MARK_BYTES, Mark};
use super::frame::{Frame, FramePosition};
use super::scan::{FrameList, FrameReader};
use super::segment;

/// The segments of a log at one time.
#[derive(Clone)]
pub struct LogSnapshot {
    files: Arc<dyn Files>,
    dir: PathBuf,
    /// Oldest first.
    segments: Vec<SegmentView>,
}

/// A segment at the time of a snapshot.
#[derive(Clone, Copy)]
pub(super) struct SegmentView {
    pub(super) head: Head,
    /// Offset behind the last frame.
    pub(super) end: u64,
    /// The latest time of receipt of its frames.
    pub(super) last_receipt_ns: u64,
}

/// The frames of one segment, of which single ones are read.
pub struct SegmentFrames {
    file: Arc<dyn DiskFile>,
    /// Oldest first.
    frames: Vec<(u64, Mark)>,
}

impl SegmentFrames {
    /// Offset and time of receipt of each frame, oldest first. Some may be corrupt.
    pub fn offsets(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.frames.iter().map(|(offset, mark)| (*offset, mark.receipt_ns))
    }

    /// The payload of the frame at an offset; `None` if there is none, or it is corrupt.
    ///
    /// # Errors
    /// When the segment can't be read.
    pub fn payload(&self, offset: u64) -> io::Result<Option<Vec<u8>>> {
        let Ok(index) = self.frames.binary_search_by_key(&offset, |(offset, _)| *offset) else {
            return Ok(None);
        };
        let mark = &self.frames[index].1;
        let mut payload = vec![0; mark.payload_bytes as usize];
        let read = self.file.read_at(&mut payload, offset + MARK_BYTES as u64)?;
        let is_intact = read == payload.len() && crc32c::crc32c(&payload) == mark.payload_checksum;
        Ok(is_intact.then_some(payload))
    }
}

impl LogSnapshot {
    pub(super) fn new(files: Arc<dyn Files>, dir: PathBuf, segments: Vec<SegmentView>) -> Self {
        Self { files, dir, segments }
    }

    /// The numbers of the segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.segments.iter().map(|segment| segment.head.number)
    }

    /// Passes the frames from a position on to `visit`, oldest first, until it breaks. Skips
    /// segments that were removed since, and corrupt frames.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub fn oldest_first(
        &self,
        from: FramePosition,
        mut visit: impl FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for segment in self.segments.iter().filter(|s| s.head.number >= from.segment) {
            let start = if segment.head.number == from.segment { from.offset } else { 0 };
            if self.visit(segment, start, &mut visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The latest time of receipt of a segment's frames; `None` if there is no such segment.
    #[must_use]
    pub fn last_receipt_ns(&self, segment: u64) -> Option<u64> {
        self.view(segment).map(|segment| segment.last_receipt_ns)
    }

    /// Lists the frames of a segment; `None` if it was removed since.
    ///
    /// # Errors
    /// When the segment can't be read.
    pub fn frames(&self, segment: u64) -> io::Result<Option<SegmentFrames>> {
        let Some(&SegmentView { head, end, .. }) = self.view(segment) else { return Ok(None) };
        let Some(file) = self.open(segment)? else { return Ok(None) };
        let frames = FrameList::read(&*file, head.nonce, HEAD_BYTES as u64, end)?.frames;
        Ok(Some(SegmentFrames { file, frames }))
    }

    fn view(&self, number: u64) -> Option<&SegmentView> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.head.number);
        at.ok().map(|at| &self.segments[at])
    }

    /// The owner's index of a sealed segment; `None` if it isn't sealed, was removed since, or has
    /// no intact index.
    ///
    /// # Errors
    /// When the segment can't be read.
    pub fn index(&self, segment: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(SegmentView { head, .. }) = self.view(segment) else { return Ok(None) };
        let Some(file) = self.open(segment)? else { return Ok(None) };
        match Footer::read(&*file, head.nonce, file.len_bytes()?)? {
            Some(footer) => footer.read_index(&*file, head.nonce),
            None => Ok(None),
        }
    }

    /// The payload of one frame; `None` if it was removed since or is corrupt.
    ///
    /// # Errors
    /// When the segment can't be read.
    pub fn payload(&self, position: FramePosition) -> io::Result<Option<Vec<u8>>> {
        let Some(SegmentView { head, end, .. }) = self.view(position.segment) else {
            return Ok(None);
        };
        let Some(file) = self.open(position.segment)? else { return Ok(None) };
        let mut mark = [0; MARK_BYTES];
        let read = file.read_at(&mut mark, position.offset)?;
        let Some(mark) = Mark::decode(&mark[..read], head.nonce, position.offset) else {
            return Ok(None);
        };
        let mut reader = FrameReader::new(&*file, position.segment, *end);
        Ok(reader.read(position.offset, &mark)?.map(|frame| frame.payload.to_vec()))
    }

    /// Opens a segment; `None` if it was removed since.
    fn open(&self, segment: u64) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match self.files.open(&segment::path(&self.dir, segment)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Visits the frames of a segment from `start` on.
    fn visit(
        &self,
        segment: &SegmentView,
        start: u64,
        visit: &mut impl FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let &SegmentView { head, end, .. } = segment;
        let Some(file) = self.open(head.number)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let start = start.max(HEAD_BYTES as u64);
        let list = FrameList::read(&*file, head.nonce, start, end)?;
        let mut reader = FrameReader::new(&*file, head.number, end);
        for (offset, mark) in &list.frames {
            if let Some(frame) = reader.read(*offset, mark)?
                && visit(frame).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
