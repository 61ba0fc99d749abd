//! Reads of a log that is appended to meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::damage::Damage;
use super::files::{DiskFile, Files};
use super::format::{HEAD_BYTES, Head, MARK_BYTES, Mark};
use super::frame::{Frame, FramePosition};
use super::index_pages::IndexReader;
use super::scan::{FrameList, FrameReader};
use super::segment;

/// The segments of a log at one time.
#[derive(Clone)]
pub struct LogSnapshot {
    files: Arc<dyn Files>,
    dir: PathBuf,
    /// Oldest first.
    segments: Vec<SegmentView>,
    damage: Arc<Damage>,
}

/// A segment at the time of a snapshot.
#[derive(Clone, Copy)]
pub(super) struct SegmentView {
    pub(super) head: Head,
    /// Offset behind the last frame.
    pub(super) end: u64,
    /// Intact frames before it.
    pub(super) frames: u64,
    /// The latest time of receipt of its frames.
    pub(super) last_receipt_ns: u64,
}

/// The frames of one segment, of which single ones are read.
pub struct SegmentFrames {
    segment: u64,
    file: Arc<dyn DiskFile>,
    /// Oldest first.
    frames: Vec<(u64, Mark)>,
    damage: Arc<Damage>,
}

impl SegmentFrames {
    /// Offset and time of receipt of each frame, oldest first. Some may be damaged.
    pub fn offsets(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.frames.iter().map(|(offset, mark)| (*offset, mark.receipt_ns))
    }

    /// The payload of the frame at an offset; `None` if there is none, or it can't be read: that is
    /// noted as damage.
    #[must_use]
    pub fn payload(&self, offset: u64) -> Option<Vec<u8>> {
        let index = self.frames.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        let mark = &self.frames[index].1;
        let mut payload = vec![0; mark.payload_bytes as usize];
        let corrupt =
            |cause: &str| self.damage.corrupt(self.segment, offset, mark.receipt_ns, cause);
        match self.file.read_at(&mut payload, offset + MARK_BYTES as u64) {
            Ok(read)
                if read == payload.len() && crc32c::crc32c(&payload) == mark.payload_checksum =>
            {
                return Some(payload);
            }
            Ok(_) => corrupt(CHECKSUM),
            Err(error) => corrupt(&error.to_string()),
        }
        None
    }
}

/// Why a frame is damaged.
pub(super) const CHECKSUM: &str = "its checksum doesn't match";

impl LogSnapshot {
    pub(super) fn new(
        files: Arc<dyn Files>,
        dir: PathBuf,
        segments: Vec<SegmentView>,
        damage: Arc<Damage>,
    ) -> Self {
        Self { files, dir, segments, damage }
    }

    /// The numbers of the segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.segments.iter().map(|segment| segment.head.number)
    }

    /// Whether there is a segment of this number.
    #[must_use]
    pub fn has_segment(&self, number: u64) -> bool {
        self.view(number).is_some()
    }

    /// Passes the frames from a position on to `visit`, oldest first, until it breaks. Skips
    /// segments that were removed since, and damaged frames, which are noted.
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

    /// The latest receipt of what is damaged or was deleted; `None` if nothing is.
    #[must_use]
    pub fn damaged_receipt_ns(&self) -> Option<u64> {
        self.damage.last_receipt_ns()
    }

    /// Lists the frames of a segment; `None` if it was removed since, or can't be read: that is
    /// noted as damage.
    #[must_use]
    pub fn frames(&self, segment: u64) -> Option<SegmentFrames> {
        let view = self.view(segment)?;
        let listed = self.open(segment).and_then(|file| {
            let Some(file) = file else { return Ok(None) };
            let list = FrameList::read(&*file, view.head.nonce, HEAD_BYTES as u64, view.end)?;
            Ok(Some((file, list.frames)))
        });
        let (file, frames) = self.note(view, listed)??;
        let missing = view.frames.saturating_sub(frames.len() as u64);
        if missing > 0 {
            self.damage.missing(segment, missing, view.last_receipt_ns);
        }
        Some(SegmentFrames { segment, file, frames, damage: Arc::clone(&self.damage) })
    }

    /// Writes the head of a segment again if it is damaged: with it the next start would lose the
    /// whole segment.
    pub(super) fn restore_head(&self, segment: u64) {
        let Some(view) = self.view(segment) else { return };
        let Ok(Some(file)) = self.open(segment) else { return };
        let mut bytes = [0; HEAD_BYTES];
        let read = file.read_at(&mut bytes, 0);
        if read.is_ok() && bytes != view.head.encode() {
            let path = segment::path(&self.dir, segment);
            let restored = file.write_at([&view.head.encode(), &[], &[]], 0);
            tracing::error!(segment = %path.display(), ?restored, "segment log: a head was damaged");
        }
    }

    /// Notes whether a segment can be read.
    fn note<T>(&self, view: &SegmentView, read: io::Result<T>) -> Option<T> {
        match &read {
            Ok(_) => self.damage.readable(view.head.number),
            Err(error) => {
                self.damage.unreadable(view.head.number, view.last_receipt_ns, error);
            }
        }
        read.ok()
    }

    fn view(&self, number: u64) -> Option<&SegmentView> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.head.number);
        at.ok().map(|at| &self.segments[at])
    }

    /// The owner's index of a sealed segment; `None` if it isn't sealed, was removed since, or has
    /// no intact index.
    #[must_use]
    pub fn index(&self, segment: u64) -> Option<IndexReader> {
        let view = self.view(segment)?;
        let file = self.open(segment).ok()??;
        IndexReader::open(file, view.head.nonce, view.end)
    }

    /// The payload of one frame; `None` if it was removed since, or can't be read: that is noted as
    /// damage, received at `receipt_ns`.
    #[must_use]
    pub fn payload(&self, position: FramePosition, receipt_ns: u64) -> Option<Vec<u8>> {
        let view = self.view(position.segment)?;
        let file = self.note(view, self.open(position.segment))??;
        match read_payload(&*file, view, position.offset) {
            Ok(Some(payload)) => return Some(payload),
            Ok(None) => {
                self.damage.corrupt(position.segment, position.offset, receipt_ns, CHECKSUM);
            }
            Err(error) => {
                let cause = error.to_string();
                self.damage.corrupt(position.segment, position.offset, receipt_ns, &cause);
            }
        }
        None
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
            match reader.read(*offset, mark)? {
                None => self.damage.corrupt(head.number, *offset, mark.receipt_ns, CHECKSUM),
                Some(frame) if visit(frame).is_break() => return Ok(ControlFlow::Break(())),
                Some(_) => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Reads the payload of the frame at an offset; `None` if it is damaged.
fn read_payload(
    file: &dyn DiskFile,
    view: &SegmentView,
    offset: u64,
) -> io::Result<Option<Vec<u8>>> {
    let mut mark = [0; MARK_BYTES];
    let read = file.read_at(&mut mark, offset)?;
    let Some(mark) = Mark::decode(&mark[..read], view.head.nonce, offset) else {
        return Ok(None);
    };
    let mut reader = FrameReader::new(file, view.head.number, view.end);
    Ok(reader.read(offset, &mark)?.map(|frame| frame.payload.to_vec()))
}
