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
    /// Head, and offset behind the last frame; oldest first.
    segments: Vec<(Head, u64)>,
}

impl LogSnapshot {
    pub(super) fn new(files: Arc<dyn Files>, dir: PathBuf, segments: Vec<(Head, u64)>) -> Self {
        Self { files, dir, segments }
    }

    /// The numbers of the segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.segments.iter().map(|(head, _)| head.number)
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
        for &(head, end) in self.segments.iter().filter(|(head, _)| head.number >= from.segment) {
            let start = if head.number == from.segment { from.offset } else { 0 };
            if self.visit(head, start, end, false, &mut visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Passes the frames of the segments for which `selects` holds to `visit`, newest first, until
    /// it breaks. Skips segments that were removed since, and corrupt frames.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub fn newest_first(
        &self,
        mut selects: impl FnMut(u64) -> bool,
        mut visit: impl FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for &(head, end) in self.segments.iter().rev() {
            if selects(head.number) && self.visit(head, 0, end, true, &mut visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The owner's index of a sealed segment; `None` if it isn't sealed, was removed since, or has
    /// no intact index.
    ///
    /// # Errors
    /// When the segment can't be read.
    pub fn index(&self, segment: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((head, _)) = self.segments.iter().find(|(head, _)| head.number == segment) else {
            return Ok(None);
        };
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
        let head = self.segments.iter().find(|(head, _)| head.number == position.segment);
        let Some((head, end)) = head else { return Ok(None) };
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

    /// Visits the frames of a segment from `start` to `end`.
    fn visit(
        &self,
        head: Head,
        start: u64,
        end: u64,
        is_reversed: bool,
        visit: &mut impl FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let Some(file) = self.open(head.number)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let start = start.max(HEAD_BYTES as u64);
        let mut list = FrameList::read(&*file, head.nonce, start, end)?;
        if is_reversed {
            list.frames.reverse();
        }
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
