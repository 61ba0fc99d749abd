//! The log: recovery, appends, retention.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::frame::{Frame, Frames, HEADER_BYTES};
use super::segment::{self, SegmentWriter};
use super::snapshot::LogSnapshot;

/// Where a log is and how large it may become.
#[derive(Clone, Debug)]
pub struct SegmentLogConfig {
    /// The folder; created if missing.
    pub dir: PathBuf,
    /// The size of a segment. A larger frame gets a segment of its own.
    pub segment_bytes: u64,
    /// About the size of all segments.
    pub retention_bytes: u64,
}

/// Contents of a log, and what recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentLogStats {
    /// Segments.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Frames in them.
    pub frames: u64,
    /// Segments removed or overwritten to make room.
    pub retired_segments: u64,
    /// Intact frames found by recovery.
    pub recovered_frames: u64,
    /// Damaged frames that recovery skipped.
    pub corrupt_frames: u64,
    /// Incomplete frames that recovery cut off the end of a segment.
    pub torn_tails: u64,
}

/// A segment that isn't written to any more.
#[derive(Clone, Debug)]
struct SealedSegment {
    number: u64,
    bytes: u64,
    frames: u64,
}

/// Append-only log of frames in segments, locked against other processes.
pub struct SegmentLog {
    config: SegmentLogConfig,
    /// Oldest first.
    sealed: VecDeque<SealedSegment>,
    active: SegmentWriter,
    /// Counts of recovery and of retired segments.
    counts: SegmentLogStats,
    _lock: File,
}

impl SegmentLog {
    /// Opens or creates a log and passes each recovered frame to `recover`, oldest first.
    ///
    /// # Errors
    /// When the folder can't be used, or another process uses it; the error names the folder.
    pub fn open(config: SegmentLogConfig, mut recover: impl FnMut(Frame<'_>)) -> io::Result<Self> {
        let dir = config.dir.clone();
        Self::open_in(config, &mut recover).map_err(|e| with_path(&dir, &e))
    }

    fn open_in(config: SegmentLogConfig, recover: &mut impl FnMut(Frame<'_>)) -> io::Result<Self> {
        std::fs::create_dir_all(&config.dir)?;
        let lock = lock(&config.dir)?;
        let mut counts = SegmentLogStats::default();
        let mut sealed = VecDeque::new();
        for number in segment_numbers(&config.dir)? {
            sealed.push_back(recover_segment(&config.dir, number, &mut counts, recover)?);
        }
        // Each process starts a new segment, unless the last one is empty.
        let number = match sealed.back() {
            Some(last) if last.bytes == 0 => last.number,
            Some(last) => last.number + 1,
            None => 1,
        };
        sealed.retain(|s| s.number != number);
        let active = SegmentWriter::new(create(&config.dir, number)?, number);
        let mut log = Self { config, sealed, active, counts, _lock: lock };
        if let Some(unused) = log.retire()? {
            std::fs::remove_file(unused)?;
        }
        Ok(log)
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// When the disk refuses it; the log is unchanged then.
    pub fn append(&mut self, payload: &[u8], receipt_ns: u64) -> io::Result<()> {
        let appended = self.append_frame(payload, receipt_ns);
        appended.map_err(|e| with_path(&self.config.dir, &e))
    }

    fn append_frame(&mut self, payload: &[u8], receipt_ns: u64) -> io::Result<()> {
        let frame_bytes = (HEADER_BYTES + payload.len()) as u64;
        let len_bytes = self.active.len_bytes;
        if len_bytes > 0 && len_bytes + frame_bytes > self.config.segment_bytes {
            self.roll()?;
        }
        self.active.append(payload, receipt_ns)
    }

    /// Starts a new segment. When the log is full, it reuses the file of the oldest one.
    fn roll(&mut self) -> io::Result<()> {
        let number = self.active.number + 1;
        let file = match self.retire()? {
            Some(unused) => {
                let path = segment::path(&self.config.dir, number);
                std::fs::rename(unused, &path)?;
                OpenOptions::new().write(true).open(path)?
            }
            None => create(&self.config.dir, number)?,
        };
        // Bytes behind the last frame can't be mistaken for one, so a failure is harmless.
        if let Err(error) = self.active.seal() {
            let segment = self.active.number;
            tracing::warn!(%error, segment, "segment log: can't truncate a full segment");
        }
        let full = std::mem::replace(&mut self.active, SegmentWriter::new(file, number));
        self.sealed.push_back(SealedSegment {
            number: full.number,
            bytes: full.len_bytes,
            frames: full.frames,
        });
        Ok(())
    }

    /// Retires the oldest segments until another one fits. Returns the file of the last of them,
    /// which isn't deleted, for reuse.
    fn retire(&mut self) -> io::Result<Option<PathBuf>> {
        let mut unused: Option<PathBuf> = None;
        while self.bytes() + self.config.segment_bytes > self.config.retention_bytes
            && let Some(oldest) = self.sealed.pop_front()
        {
            self.counts.retired_segments += 1;
            let path = segment::path(&self.config.dir, oldest.number);
            if let Some(former) = unused.replace(path) {
                std::fs::remove_file(former)?;
            }
        }
        Ok(unused)
    }

    fn bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.bytes).sum::<u64>() + self.active.len_bytes
    }

    /// A view of the current contents, which can be read without access to the log.
    #[must_use]
    pub fn snapshot(&self) -> LogSnapshot {
        let sealed = self.sealed.iter().map(|s| (s.number, s.bytes));
        let active = std::iter::once((self.active.number, self.active.len_bytes));
        LogSnapshot::new(self.config.dir.clone(), sealed.chain(active).collect())
    }

    /// The current counts.
    #[must_use]
    pub fn stats(&self) -> SegmentLogStats {
        let sealed_frames: u64 = self.sealed.iter().map(|s| s.frames).sum();
        SegmentLogStats {
            segments: self.sealed.len() as u64 + 1,
            bytes: self.bytes(),
            frames: sealed_frames + self.active.frames,
            ..self.counts
        }
    }
}

fn with_path(dir: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", dir.display()))
}

fn create(dir: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(segment::path(dir, number))
}

/// Locks the folder against other processes for as long as the returned file is open.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::create(dir.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "in use by another process"))
        }
        Err(e) => Err(e.into()),
    }
}

/// The numbers of the segments in a folder, ascending.
fn segment_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = std::fs::read_dir(dir)?
        .filter_map(|entry| segment::number(entry.ok()?.file_name().to_str()?))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a segment, passes its intact frames to `recover`, and cuts off what follows the last one.
fn recover_segment(
    dir: &Path,
    number: u64,
    counts: &mut SegmentLogStats,
    recover: &mut impl FnMut(Frame<'_>),
) -> io::Result<SealedSegment> {
    let path = segment::path(dir, number);
    let mut bytes = Vec::new();
    File::open(&path)?.read_to_end(&mut bytes)?;
    let mut frames = Frames::new(&bytes, number);
    let mut intact = 0;
    for frame in frames.by_ref() {
        intact += 1;
        recover(frame);
    }
    counts.recovered_frames += intact;
    counts.corrupt_frames += frames.corrupt;
    counts.torn_tails += u64::from(frames.torn);
    if frames.torn || frames.corrupt > 0 {
        tracing::warn!(
            segment = %path.display(), corrupt_frames = frames.corrupt, torn = frames.torn,
            "segment log: recovered the intact frames of a damaged segment"
        );
    }
    let end = frames.end() as u64;
    if end < bytes.len() as u64 {
        OpenOptions::new().write(true).open(&path)?.set_len(end)?;
    }
    Ok(SealedSegment { number, bytes: end, frames: intact })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn config(dir: &Path) -> SegmentLogConfig {
        SegmentLogConfig { dir: dir.to_owned(), segment_bytes: 100, retention_bytes: 300 }
    }

    fn payloads(log: &SegmentLog) -> Vec<u8> {
        let mut found = Vec::new();
        log.snapshot().oldest_first(|frame| found.push(frame.payload[0])).unwrap();
        found
    }

    #[test]
    fn frames_are_recovered_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let config = SegmentLogConfig { retention_bytes: 1_000, ..config(dir.path()) };
        let mut log = SegmentLog::open(config.clone(), |_| {}).unwrap();
        for n in 0..5 {
            log.append(&[n; 10], n.into()).unwrap();
        }
        drop(log);
        let mut recovered = Vec::new();
        let take = |frame: Frame<'_>| recovered.push((frame.receipt_ns, frame.payload[0]));
        let log = SegmentLog::open(config, take).unwrap();
        assert_eq!(recovered, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
        assert_eq!((log.stats().frames, log.stats().recovered_frames), (5, 5));
    }

    #[test]
    fn oldest_segments_are_retired() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = SegmentLog::open(config(dir.path()), |_| {}).unwrap();
        for n in 0..20 {
            log.append(&[n; 10], n.into()).unwrap();
        }
        // Two frames of 42 bytes a segment.
        assert_eq!(payloads(&log), [14, 15, 16, 17, 18, 19]);
        let stats = log.stats();
        assert_eq!((stats.segments, stats.retired_segments, stats.bytes), (3, 7, 252));
        let mut newest = Vec::new();
        let read = log.snapshot().newest_first(u64::MAX, |frame| {
            newest.push(frame.payload[0]);
            if newest.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read.unwrap();
        assert_eq!(newest, [19, 18, 17]);
    }

    #[test]
    fn snapshot_skips_segments_retired_since() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = SegmentLog::open(config(dir.path()), |_| {}).unwrap();
        (0..6).for_each(|n| log.append(&[n; 10], 0).unwrap());
        let snapshot = log.snapshot();
        log.append(&[6; 10], 0).unwrap();
        let mut found = Vec::new();
        snapshot.oldest_first(|frame| found.push(frame.payload[0])).unwrap();
        assert_eq!(found, [2, 3, 4, 5]);
    }

    #[test]
    fn second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _log = SegmentLog::open(config(dir.path()), |_| {}).unwrap();
        let error = SegmentLog::open(config(dir.path()), |_| {}).err().unwrap().to_string();
        assert!(error.ends_with("in use by another process"), "{error}");
        assert!(error.starts_with(&*dir.path().to_string_lossy()), "{error}");
    }
}
