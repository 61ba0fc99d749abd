//! The log: append, roll, retire.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use super::config::{Durability, SegmentLogConfig, SegmentLogStats};
use super::copy::replace;
use super::damage::Damage;
use super::files::Files;
use super::footer::Footer;
use super::format::{HEAD_BYTES, Previous};
use super::frame::{Frame, FramePosition};
use super::index::{SealedIndex, SegmentIndex};
use super::recovery::{Recovered, recover};
use super::scan::{FrameList, FrameReader};
use super::segment::{self, SealedSegment, SegmentWriter};
use super::snapshot::{LogSnapshot, SegmentView};

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) writer: SegmentWriter,
    /// Counts of the frames so far.
    footer: Footer,
}

/// A full segment without its footer.
pub(super) struct Unsealed {
    pub(super) writer: SegmentWriter,
    footer: Footer,
    index: Vec<u8>,
}

impl Unsealed {
    /// Writes the index and the footer.
    pub(super) fn seal(mut self) {
        if let Err(error) = self.writer.seal(&mut self.footer, &self.index) {
            // The segment is readable without a footer; the next start scans and seals it.
            let segment = self.writer.number();
            tracing::warn!(segment, %error, "segment log: can't write the footer of a segment");
        }
    }
}

/// Append-only log of frames in segments, locked against other processes.
pub struct SegmentLog<I> {
    pub(super) config: SegmentLogConfig,
    pub(super) files: Arc<dyn Files>,
    index: I,
    /// Oldest first.
    sealed: VecDeque<SealedSegment>,
    /// `None` until the first append.
    pub(super) active: Option<Active>,
    /// Full segments that have no footer yet, oldest first: their frames are synced before, or a
    /// loss of power might leave the footer without some of them.
    pub(super) unsealed: Vec<Unsealed>,
    /// Files were created or removed since the last sync.
    pub(super) is_dir_unsynced: bool,
    /// Every frame before it is on the disk.
    pub(super) synced: FramePosition,
    /// The first segment that this process created.
    first_own_number: u64,
    next_number: u64,
    damage: Arc<Damage>,
    /// Counts besides those of the contents.
    pub(super) counts: SegmentLogStats,
    /// Segments of earlier processes that the disk could neither sync nor copy.
    unsynced: Vec<u64>,
    /// Segments that aren't in the log any more, but whose files couldn't be removed.
    unremoved: Vec<u64>,
    _lock: Box<dyn Send>,
}

impl<I: SegmentIndex> SegmentLog<I> {
    /// Opens or creates a log. Passes what earlier processes appended to `index`, oldest first.
    ///
    /// # Errors
    /// When the folder can't be used, or another process uses it; the error names the folder. Files
    /// that can't be used are no error: they are counted and logged.
    pub fn open(config: SegmentLogConfig, files: Arc<dyn Files>, mut index: I) -> io::Result<Self> {
        let damage = Arc::new(Damage::new(&config.dir));
        let opened = files.create_dir(&config.dir).and_then(|()| {
            let lock = files.lock(&config.dir.join("lock"))?;
            Ok((lock, recover(&*files, &config, &damage, &mut index)?))
        });
        let (lock, recovered) = opened.map_err(|e| with_path(&config.dir, &e))?;
        let Recovered { segments, next_number, stats, unsynced } = recovered;
        let mut log = Self {
            config,
            files,
            index,
            sealed: segments,
            active: None,
            unsealed: Vec::new(),
            is_dir_unsynced: true,
            synced: FramePosition { segment: next_number, offset: 0 },
            first_own_number: next_number,
            next_number,
            damage,
            counts: stats,
            unsynced,
            unremoved: Vec::new(),
            _lock: lock,
        };
        log.retire_surplus();
        Ok(log)
    }

    /// The owner's index.
    pub fn index(&self) -> &I {
        &self.index
    }

    /// The owner's index.
    pub fn index_mut(&mut self) -> &mut I {
        &mut self.index
    }

    /// Appends a frame. On a full disk the oldest segments make room for it, if the configuration
    /// says so.
    ///
    /// # Errors
    /// When the disk refuses it; the log is unchanged then.
    pub fn append(&mut self, payload: &[u8], receipt_ns: u64) -> io::Result<FramePosition> {
        let segment_bytes = self.config.segment_bytes;
        if self.active.as_ref().is_some_and(|a| !a.writer.has_room(payload, segment_bytes)) {
            self.seal();
            self.retire_surplus();
        }
        loop {
            match self.try_append(payload, receipt_ns) {
                Ok(position) => {
                    self.index.frame(&Frame { position, receipt_ns, payload });
                    return Ok(position);
                }
                Err(error)
                    if self.config.retires_when_full
                        && is_disk_full(&error)
                        && self.retire_oldest() => {}
                Err(error) => return Err(with_path(&self.config.dir, &error)),
            }
        }
    }

    fn try_append(&mut self, payload: &[u8], receipt_ns: u64) -> io::Result<FramePosition> {
        let active = match &mut self.active {
            Some(active) => active,
            None => {
                let writer = self.create_segment()?;
                self.active.insert(Active { writer, footer: Footer::default() })
            }
        };
        let position = active.writer.append(payload, receipt_ns).inspect_err(|_| {
            // Harmless if it fails: the next frame overwrites it, and recovery recognizes it.
            let _ = active.writer.cut();
        })?;
        active.footer.add(receipt_ns);
        Ok(position)
    }

    /// Creates the next segment, and the folder if somebody removed it.
    fn create_segment(&mut self) -> io::Result<SegmentWriter> {
        let number = self.next_number;
        let path = segment::path(&self.config.dir, number);
        let file = match self.files.create(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.files.create_dir(&self.config.dir)?;
                self.files.create(&path)?
            }
            created => created?,
        };
        self.next_number += 1;
        self.is_dir_unsynced = true;
        SegmentWriter::create(file, number, self.previous()).inspect_err(|_| {
            let _ = self.files.remove(&path);
        })
    }

    /// The segment before the next one. Those of this process between the two are void: a disk that
    /// fails may not have removed them.
    fn previous(&self) -> Option<Previous> {
        let last = self.sealed.back();
        let direct = last.filter(|s| s.head.number >= self.first_own_number - 1);
        let last = last.map(|s| s.head.number);
        let earlier = Previous::of_earlier(self.first_own_number - 1, last);
        Some(direct.map_or(earlier, |s| Previous { number: s.head.number, end: s.end }))
    }

    /// Ends the segment that is appended to.
    pub fn seal(&mut self) {
        let Some(Active { writer, mut footer }) = self.active.take() else { return };
        footer.end = writer.len_bytes();
        footer.is_incomplete = self.damage.has(writer.number());
        let SealedIndex { summary, index } = self.index.seal();
        footer.summary = summary;
        self.sealed.push_back(SealedSegment::new(*writer.head(), &footer));
        let unsealed = Unsealed { writer, footer, index };
        match self.config.durability {
            Durability::Process => unsealed.seal(),
            Durability::Power => self.unsealed.push(unsealed),
        }
    }

    /// Syncs what the start couldn't: until then, frames of earlier processes may not be
    /// acknowledged.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn sync_recovered(&mut self) -> io::Result<()> {
        while let Some(number) = self.unsynced.last() {
            let path = segment::path(&self.config.dir, *number);
            match self.files.open(&path) {
                // It was retired.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => drop(replace(&*self.files, &path, &*opened?)?),
            }
            self.unsynced.pop();
        }
        Ok(())
    }

    /// Makes the numbers of new segments greater than `number`, which was in use before. To be
    /// called before the first append.
    pub fn skip_number(&mut self, number: u64) {
        if self.active.is_none() && self.next_number <= number {
            self.next_number = number + 1;
            self.first_own_number = self.next_number;
            self.synced = self.end();
        }
    }

    /// Removes the oldest segments until another one fits.
    fn retire_surplus(&mut self) {
        while self.bytes() + self.config.segment_bytes > self.config.retention_bytes
            && self.retire_oldest()
        {}
    }

    /// Changes the size of the log; removes the oldest segments beyond it.
    pub fn set_retention_bytes(&mut self, retention_bytes: u64) {
        self.config.retention_bytes = retention_bytes;
        self.retire_surplus();
    }

    /// The time of receipt of the first frame in the segment that is appended to.
    pub fn appended_since_ns(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.footer.first_receipt_ns)
    }

    /// Removes the segments whose last frame was received before `receipt_ns`.
    pub fn retire_before(&mut self, receipt_ns: u64) {
        while self.sealed.front().is_some_and(|s| s.last_receipt_ns < receipt_ns) {
            self.retire_oldest();
        }
    }

    /// Removes the segments before one, whose frames aren't needed any more.
    pub fn trim(&mut self, segment: u64) {
        while self.sealed.front().is_some_and(|s| s.head.number < segment) {
            if let Some(oldest) = self.sealed.pop_front() {
                self.remove(oldest.head.number);
            }
        }
    }

    /// Removes the oldest segment. Returns whether there was one.
    pub fn retire_oldest(&mut self) -> bool {
        let Some(oldest) = self.sealed.pop_front() else {
            return false;
        };
        self.counts.retired_segments += 1;
        self.remove(oldest.head.number);
        true
    }

    /// The oldest full segment of these numbers.
    pub fn full_segment(&self, numbers: impl RangeBounds<u64>) -> Option<u64> {
        self.sealed.iter().map(|s| s.head.number).find(|number| numbers.contains(number))
    }

    /// Removes a full segment. Returns whether there was one of this number.
    pub fn retire(&mut self, number: u64) -> bool {
        let Some(at) = self.sealed.iter().position(|s| s.head.number == number) else {
            return false;
        };
        self.counts.retired_segments += 1;
        self.sealed.remove(at);
        self.remove(number);
        true
    }

    fn remove(&mut self, number: u64) {
        self.is_dir_unsynced = true;
        self.index.retired(number);
        self.damage.retired(number);
        if let Some(oldest) = self.sealed.front() {
            self.damage.retired_before(oldest.head.number);
        }
        // The disk has its room again only once the file is closed.
        self.unsealed.retain(|unsealed| unsealed.writer.number() != number);
        if let Err(error) = self.remove_file(number) {
            let path = segment::path(&self.config.dir, number);
            tracing::warn!(segment = %path.display(), %error, "segment log: can't remove a segment; trying again");
            self.unremoved.push(number);
        }
    }

    fn remove_file(&self, number: u64) -> io::Result<()> {
        match self.files.remove(&segment::path(&self.config.dir, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Tries again to remove files that couldn't be removed: the next start would find them.
    fn remove_again(&mut self) {
        let mut unremoved = std::mem::take(&mut self.unremoved);
        unremoved.retain(|number| self.remove_file(*number).is_err());
        self.unremoved = unremoved;
    }

    /// The oldest of the latest segments that have about this many bytes together, at most
    /// `segments` of them.
    pub fn tail_start(&self, bytes: u64, segments: usize) -> u64 {
        let active = self.active.as_ref().map(|a| (a.writer.number(), a.writer.len_bytes()));
        let sealed = self.sealed.iter().rev().map(|s| (s.head.number, s.end));
        let mut sum = 0;
        let mut start = self.next_number;
        for (number, len_bytes) in active.into_iter().chain(sealed).take(segments) {
            start = number;
            sum += len_bytes;
            if sum >= bytes {
                break;
            }
        }
        start
    }

    /// The segment that is appended to, if there is one.
    pub fn appended_segment(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.writer.number())
    }

    /// The position behind the last frame.
    pub fn end(&self) -> FramePosition {
        match &self.active {
            Some(Active { writer, .. }) => {
                FramePosition { segment: writer.number(), offset: writer.len_bytes() }
            }
            None => FramePosition { segment: self.next_number, offset: 0 },
        }
    }

    /// Removes the frames from a position on, which the disk failed to write. The next frame begins
    /// a new segment.
    pub(super) fn discard(&mut self, from: FramePosition) {
        self.index.discard(from.segment);
        let frames = |log: &Self| log.stats().frames;
        let before = frames(self);
        if let Some(Active { writer, footer }) = self.active.take() {
            let footer = Footer { end: writer.len_bytes(), ..footer };
            self.sealed.push_back(SealedSegment::new(*writer.head(), &footer));
        }
        self.unsealed.clear();
        while self.sealed.back().is_some_and(|s| s.head.number >= from.segment)
            && let Some(last) = self.sealed.pop_back()
        {
            if let Some(kept) = self.cut(&last, from) {
                self.sealed.push_back(kept);
                break;
            }
            self.remove(last.head.number);
        }
        self.counts.unwritten_frames += before - frames(self);
        self.synced = self.end();
    }

    /// Cuts a segment off at a position. `None` if nothing is left of it.
    fn cut(&mut self, last: &SealedSegment, from: FramePosition) -> Option<SealedSegment> {
        if last.head.number > from.segment || from.offset <= HEAD_BYTES as u64 {
            return None;
        }
        let path = segment::path(&self.config.dir, last.head.number);
        let file = self.files.open(&path).ok()?;
        let list = FrameList::read(&*file, last.head.nonce, HEAD_BYTES as u64, from.offset).ok()?;
        let mut reader = FrameReader::new(&*file, last.head.number, from.offset);
        let mut footer = Footer { end: from.offset, ..Footer::default() };
        for (offset, mark) in &list.frames {
            if let Ok(Some(frame)) = reader.read(*offset, mark) {
                footer.add(frame.receipt_ns);
                self.index.frame(&frame);
            }
        }
        let SealedIndex { summary, index } = self.index.seal();
        footer.summary = summary;
        // On a disk that fails this may fail too: the next segment has the end of this one as well.
        let _ = SegmentWriter::resume(file, last.head, from.offset)
            .and_then(|mut writer| writer.seal(&mut footer, &index));
        Some(SealedSegment::new(last.head, &footer))
    }

    /// Notices segments that somebody deleted. The one that is appended to is written again from
    /// its open file; the others are lost, counted and logged. Removes files that couldn't be
    /// removed before. To be called about once a second.
    ///
    /// # Errors
    /// When the folder or the file can't be read, or the disk refuses the copy.
    pub fn check(&mut self) -> io::Result<()> {
        self.remove_again();
        let names = match self.files.names(&self.config.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(|e| with_path(&self.config.dir, &e))?,
        };
        let existing: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        let is_deleted = |s: &SealedSegment| !existing.contains(&s.head.number);
        let deleted: Vec<_> = self.sealed.iter().filter(|s| is_deleted(s)).copied().collect();
        for segment in &deleted {
            self.counts.deleted_segments += 1;
            self.index.retired(segment.head.number);
            self.damage.gone(segment.head.number, segment.last_receipt_ns);
            tracing::error!(
                segment = %segment::path(&self.config.dir, segment.head.number).display(),
                frames = segment.frames, "segment log: a segment was deleted; its frames are lost"
            );
        }
        self.sealed.retain(|s| existing.contains(&s.head.number));
        match &self.active {
            Some(active) if active.writer.file().links()? == 0 => self.recreate(),
            _ => Ok(()),
        }
    }

    /// Writes the segment that is appended to again: its file was deleted, but is still open.
    fn recreate(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let path = segment::path(&self.config.dir, active.writer.number());
        tracing::error!(segment = %path.display(), "segment log: the current segment was deleted; writing it again");
        self.files.create_dir(&self.config.dir)?;
        let file = self.files.create(&path)?;
        active.writer.move_to(file)?;
        // Nothing of it is on the disk any more.
        self.synced = self.synced.min(FramePosition { segment: active.writer.number(), offset: 0 });
        self.is_dir_unsynced = true;
        Ok(())
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, |a| a.writer.len_bytes());
        self.sealed.iter().map(|s| s.end).sum::<u64>() + active
    }

    /// A view of the current contents, which can be read without access to the log.
    #[must_use]
    pub fn snapshot(&self) -> LogSnapshot {
        let sealed = self.sealed.iter().map(|s| SegmentView {
            head: s.head,
            end: s.end,
            frames: s.frames,
            last_receipt_ns: s.last_receipt_ns,
        });
        let active = self.active.iter().map(|a| SegmentView {
            head: *a.writer.head(),
            end: a.writer.len_bytes(),
            frames: a.footer.frames,
            last_receipt_ns: a.footer.last_receipt_ns,
        });
        LogSnapshot::new(
            Arc::clone(&self.files),
            self.config.dir.clone(),
            sealed.chain(active).collect(),
            Arc::clone(&self.damage),
        )
    }

    /// The current counts.
    #[must_use]
    pub fn stats(&self) -> SegmentLogStats {
        let frames: u64 = self.sealed.iter().map(|s| s.frames).sum();
        SegmentLogStats {
            segments: self.sealed.len() as u64 + u64::from(self.active.is_some()),
            bytes: self.bytes(),
            frames: frames + self.active.as_ref().map_or(0, |a| a.footer.frames),
            corrupt_frames: self.damage.corrupt_frames(),
            unreadable_segments: self.damage.unreadable_segments(),
            ..self.counts
        }
    }
}

/// Whether the disk, or the user's share of it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn with_path(dir: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", dir.display()))
}
