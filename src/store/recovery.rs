//! Opens the segments that an earlier process left.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Durability, SegmentLogConfig, SegmentLogStats};
use super::copy::replace;
use super::damage::Damage;
use super::error::SegmentError;
use super::files::{DiskFile, Files};
use super::footer::Footer;
use super::format::{HEAD_BYTES, Head};
use super::index::{SealedIndex, SegmentIndex};
use super::scan::{FrameList, FrameReader};
use super::segment::{self, SealedSegment, SegmentWriter};
use super::snapshot::CHECKSUM;
use tapio_core::clock;

/// The folder for files that aren't intact segments.
const QUARANTINE: &str = "quarantine";

/// The segments of a folder, and the number of the next one.
pub(super) struct Recovered {
    /// Oldest first.
    pub(super) segments: VecDeque<SealedSegment>,
    pub(super) next_number: u64,
    pub(super) stats: SegmentLogStats,
    /// Segments that the disk neither syncs nor copies.
    pub(super) unsynced: Vec<u64>,
}

/// A segment file with an intact head.
struct Found {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    head: Head,
    len_bytes: u64,
    /// Where the segment after it says that this one ends.
    end: Option<u64>,
}

/// Opens all segments of a folder; passes summaries and frames to the index, oldest first.
///
/// # Errors
/// When the folder can't be read. A file that can't be used is counted and logged.
pub(super) fn recover(
    files: &dyn Files,
    config: &SegmentLogConfig,
    damage: &Damage,
    index: &mut impl SegmentIndex,
) -> io::Result<Recovered> {
    let dir = &config.dir;
    let mut numbers: Vec<u64> =
        files.names(dir)?.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let quarantined = files.names(&dir.join(QUARANTINE)).unwrap_or_default();
    let quarantined: Vec<u64> =
        quarantined.iter().filter_map(|name| segment::number(name)).collect();
    let highest = quarantined.iter().copied().chain(numbers.last().copied()).max();
    let mut recovery = Recovery {
        files,
        config,
        damage,
        stats: SegmentLogStats::default(),
        unsynced: Vec::new(),
        // Those of earlier starts are as gone as before.
        incomplete: quarantined,
    };
    let mut found: Vec<Found> = numbers.iter().filter_map(|n| recovery.open(*n)).collect();
    recovery.end_previous(&mut found);
    let segments: VecDeque<_> =
        found.into_iter().filter_map(|f| recovery.segment(f, index)).collect();
    let next_number = highest.unwrap_or_default() + 1;
    recovery.note_gone(&segments);
    let Recovery { stats, unsynced, .. } = recovery;
    Ok(Recovered { segments, next_number, stats, unsynced })
}

struct Recovery<'a> {
    files: &'a dyn Files,
    config: &'a SegmentLogConfig,
    damage: &'a Damage,
    stats: SegmentLogStats,
    unsynced: Vec<u64>,
    /// Segments that can't be used, or whose end is missing.
    incomplete: Vec<u64>,
}

impl Recovery<'_> {
    /// Opens a segment and decodes its head.
    fn open(&mut self, number: u64) -> Option<Found> {
        let path = segment::path(&self.config.dir, number);
        match self.read_head(&path, number) {
            Ok(Ok((file, head, len_bytes))) => {
                Some(Found { path, file, head, len_bytes, end: None })
            }
            Ok(Err(SegmentError::Empty)) => {
                // A process was killed while it created the file.
                let _ = self.files.remove(&path);
                None
            }
            Ok(Err(cause)) => {
                self.incomplete.push(number);
                self.quarantine(&path, cause);
                None
            }
            Err(error) => {
                self.incomplete.push(number);
                self.damage.unreadable(number, 0, &error);
                None
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "used once")]
    fn read_head(
        &self,
        path: &Path,
        number: u64,
    ) -> io::Result<Result<(Arc<dyn DiskFile>, Head, u64), SegmentError>> {
        let file = self.files.open(path)?;
        let mut bytes = [0; HEAD_BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let len_bytes = file.len_bytes()?;
        Ok(Head::decode(&bytes[..read]).and_then(|head| match head.number == number {
            true => Ok((file, head, len_bytes)),
            false => Err(SegmentError::WrongNumber(head.number)),
        }))
    }

    /// Applies what each segment says about the one before: where that ends, and that those between
    /// the two, if there are any, were never written as a whole.
    fn end_previous(&mut self, found: &mut Vec<Found>) {
        let previous: Vec<_> =
            found.iter().filter_map(|f| Some((f.head.previous?, f.head.number))).collect();
        for (previous, number) in previous {
            found.retain(|f| {
                let is_void = f.head.number > previous.number && f.head.number < number;
                if is_void {
                    let _ = self.files.remove(&f.path);
                }
                !is_void
            });
            if let Some(f) = found.iter_mut().find(|f| f.head.number == previous.number) {
                f.end = previous.known_end();
            }
        }
    }

    /// Notes the segments of which something is gone: those that can't be used or are cut off, and
    /// those of which only the next one says that they were there. A log that retires segments by
    /// itself retires the oldest first, so that none is missing between two others.
    fn note_gone(&mut self, segments: &VecDeque<SealedSegment>) {
        if !self.config.retires_when_full {
            return;
        }
        let pairs = segments.iter().zip(segments.iter().skip(1));
        for (earlier, later) in pairs {
            let Some(last) = later.head.previous.and_then(|previous| previous.last()) else {
                continue;
            };
            if last <= earlier.head.number || self.incomplete.contains(&last) {
                continue;
            }
            self.stats.deleted_segments += 1;
            self.damage.gone(last, later.first_receipt_ns);
            let path = segment::path(&self.config.dir, last);
            tracing::error!(segment = %path.display(), "segment log: a segment was deleted");
        }
        for number in &self.incomplete {
            // The frames in it were received before those of the next one.
            if segments.front().is_some_and(|oldest| oldest.head.number > *number) {
                // It would be retired by now.
                continue;
            }
            let later = segments.iter().find(|s| s.head.number > *number);
            let until_ns = later.map_or_else(clock::wall_ns, |s| s.first_receipt_ns);
            self.damage.gone(*number, until_ns);
        }
    }

    /// Moves a file that isn't an intact segment out of the way.
    fn quarantine(&mut self, path: &Path, cause: SegmentError) {
        self.stats.quarantined_segments += 1;
        let target = self.config.dir.join(QUARANTINE);
        let moved = self.files.create_dir(&target).and_then(|()| {
            let name = path.file_name().unwrap_or_default();
            self.files.rename(path, &target.join(name))?;
            self.files.sync_dir(&target)
        });
        let moved_to = moved.as_ref().map_or(path, |()| &target);
        tracing::warn!(
            segment = %path.display(), %cause, moved_to = %moved_to.display(),
            "segment log: skipped a file that isn't an intact segment"
        );
    }

    /// Reads the footer of a segment, or its frames, which it then seals.
    fn segment(&mut self, found: Found, index: &mut impl SegmentIndex) -> Option<SealedSegment> {
        match self.read(&found, index) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.incomplete.push(found.head.number);
                self.damage.unreadable(found.head.number, 0, &error);
                None
            }
        }
    }

    fn read(
        &mut self,
        found: &Found,
        index: &mut impl SegmentIndex,
    ) -> io::Result<Option<SealedSegment>> {
        let Found { file, head, len_bytes, .. } = found;
        let footer = Footer::read(&**file, head.nonce, *len_bytes)?
            .filter(|footer| found.end.is_none_or(|end| end == footer.end));
        if let Some(footer) = footer {
            self.sync(found);
            if footer.is_incomplete {
                self.damage.missing(head.number, 1, footer.last_receipt_ns);
            }
            index.sealed(head.number, &footer.summary);
            self.stats.recovered_frames += footer.frames;
            return Ok(Some(SealedSegment::new(*head, &footer)));
        }
        let limit = found.end.unwrap_or(*len_bytes).min(*len_bytes);
        let mut list = FrameList::read(&**file, head.nonce, HEAD_BYTES as u64, limit)?;
        // On a disk that can't be written to, the frames are readable nevertheless.
        let _ = list.repair(&**file, head.nonce);
        let file = self.sync(found);
        let is_cut = found.end.is_some_and(|end| list.end < end);
        if let Some(end) = found.end.filter(|_| is_cut) {
            // The next segment says that more was there than a frame that was never complete.
            list.lost_bytes += end - list.end;
            list.torn_bytes = 0;
        }
        let (mut footer, sealed_index) = self.frames(found, &list, index);
        if list.lost_bytes > 0 || list.skips > 0 {
            // How many frames those were isn't known.
            self.damage.missing(head.number, 1, footer.last_receipt_ns);
        }
        if is_cut {
            self.incomplete.push(head.number);
        }
        if footer.frames == 0 && list.frames.is_empty() {
            self.files.remove(&found.path)?;
            return Ok(None);
        }
        if self.unsynced.contains(&head.number) {
            // A loss of power might leave the footer without some of the frames.
            return Ok(Some(SealedSegment::new(*head, &footer)));
        }
        let sealed = SegmentWriter::resume(file, *head, list.end)
            .and_then(|mut writer| writer.seal(&mut footer, &sealed_index));
        if let Err(error) = sealed {
            // It is readable without a footer; the next start scans it again.
            tracing::warn!(segment = %found.path.display(), %error, "segment log: can't seal a segment");
        }
        Ok(Some(SealedSegment::new(*head, &footer)))
    }

    /// Syncs a segment whose frames the owner may acknowledge: an earlier process may have been
    /// killed before it did. Where the disk fails to, the segment is copied: what was written once
    /// may be lost without a further error. Returns the file, or its copy.
    fn sync(&mut self, found: &Found) -> Arc<dyn DiskFile> {
        let Found { path, file, head, .. } = found;
        if self.config.durability == Durability::Process || !self.config.acknowledges_recovered {
            return Arc::clone(file);
        }
        let Err(error) = file.sync() else { return Arc::clone(file) };
        tracing::warn!(segment = %path.display(), %error, "segment log: can't sync a segment; copying it");
        replace(self.files, path, &**file).unwrap_or_else(|error| {
            tracing::error!(segment = %path.display(), %error, "segment log: can't copy a segment");
            self.unsynced.push(head.number);
            Arc::clone(file)
        })
    }

    /// Passes the intact frames to the index, and counts and logs what is damaged.
    /// Returns the footer and the owner's index.
    fn frames(
        &mut self,
        found: &Found,
        list: &FrameList,
        index: &mut impl SegmentIndex,
    ) -> (Footer, Vec<u8>) {
        let mut reader = FrameReader::new(&*found.file, found.head.number, list.end);
        let mut footer = Footer { end: list.end, ..Footer::default() };
        for (offset, mark) in &list.frames {
            match reader.read(*offset, mark) {
                Ok(Some(frame)) => {
                    footer.add(frame.receipt_ns);
                    index.frame(&frame);
                }
                Ok(None) => self.corrupt(found, *offset, mark.receipt_ns, CHECKSUM),
                Err(e) => self.corrupt(found, *offset, mark.receipt_ns, &e.to_string()),
            }
        }
        // What is damaged was received, too.
        let damaged = list.frames.iter().map(|(_, mark)| mark.receipt_ns);
        footer.last_receipt_ns = damaged.max().unwrap_or(footer.last_receipt_ns);
        footer.is_incomplete =
            list.lost_bytes > 0 || footer.frames < list.frames.len() as u64 || list.skips > 0;
        let SealedIndex { summary, index } = index.seal();
        footer.summary = summary;
        self.stats.recovered_frames += footer.frames;
        self.stats.lost_bytes += list.lost_bytes;
        self.stats.torn_tails += u64::from(list.torn_bytes > 0);
        self.stats.torn_bytes += list.torn_bytes;
        if list.lost_bytes + list.torn_bytes > 0 {
            tracing::warn!(
                segment = %found.path.display(), offset = list.end,
                lost_bytes = list.lost_bytes, torn_bytes = list.torn_bytes,
                "segment log: dropped the damaged part of a segment"
            );
        }
        (footer, index)
    }

    fn corrupt(&self, found: &Found, offset: u64, receipt_ns: u64, cause: &str) {
        self.damage.corrupt(found.head.number, offset, receipt_ns, cause);
    }
}
