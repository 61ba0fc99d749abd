//! The segmented log over a simulated disk: damage, full and failing disks, kills, losses of power.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "store/completeness.rs"]
mod completeness;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/ownership.rs"]
mod ownership;
#[path = "store/simulation.rs"]
mod simulation;
#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::sim_disk::SimDisk;
use tapio::store::{
    Durability, Frame, FramePosition, SealedIndex, SegmentIndex, SegmentLog, SegmentLogConfig,
};

/// The number that each test's payload begins with.
fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// An index of the payloads' numbers, by position.
#[derive(Default)]
struct Numbers {
    open: BTreeMap<FramePosition, u64>,
    sealed: BTreeMap<u64, Vec<u64>>,
    /// Segments whose frames this index was given one by one.
    read: Vec<u64>,
}

impl Numbers {
    /// All numbers, oldest first.
    fn all(&self) -> Vec<u64> {
        let open = self.open.iter().map(|(position, number)| (position.segment, *number));
        let sealed = self.sealed.iter().flat_map(|(s, all)| all.iter().map(move |n| (*s, *n)));
        let mut all: Vec<_> = sealed.chain(open).collect();
        all.sort_by_key(|(segment, _)| *segment);
        all.into_iter().map(|(_, number)| number).collect()
    }
}

impl SegmentIndex for Numbers {
    fn frame(&mut self, frame: &Frame<'_>) {
        self.open.insert(frame.position, number_of(frame.payload));
        if self.read.last() != Some(&frame.position.segment) {
            self.read.push(frame.position.segment);
        }
    }

    fn seal(&mut self) -> SealedIndex {
        let open = std::mem::take(&mut self.open);
        let summary = open.values().flat_map(|number| number.to_le_bytes()).collect();
        let index = open.keys().flat_map(|position| position.offset.to_le_bytes()).collect();
        for (position, number) in open {
            self.sealed.entry(position.segment).or_default().push(number);
        }
        SealedIndex { summary, index }
    }

    fn discard(&mut self, segment: u64) {
        self.open.retain(|position, _| position.segment < segment);
        self.sealed.retain(|sealed, _| *sealed < segment);
    }

    fn sealed(&mut self, segment: u64, summary: &[u8]) {
        self.sealed.insert(segment, summary.chunks_exact(8).map(number_of).collect());
    }

    fn retired(&mut self, segment: u64) {
        self.sealed.remove(&segment);
    }
}

const DIR: &str = "/log";

fn config() -> SegmentLogConfig {
    SegmentLogConfig {
        dir: DIR.into(),
        segment_bytes: 1_000,
        retention_bytes: 1 << 20,
        retires_when_full: true,
        durability: Durability::Power,
        acknowledges_recovered: true,
    }
}

fn open(disk: &SimDisk, config: SegmentLogConfig) -> SegmentLog<Numbers> {
    SegmentLog::open(config, Arc::new(disk.clone()), Numbers::default()).unwrap()
}

/// Appends payloads of 100 bytes that begin with these numbers.
fn append(log: &mut SegmentLog<Numbers>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        log.append(&payload(number, 100), number).unwrap();
    }
}

fn sync(log: &mut SegmentLog<Numbers>) {
    if let Some(pending) = log.begin_sync() {
        log.finish_sync(&pending, pending.run()).unwrap();
    }
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(len.max(8), number as u8);
    payload
}

/// The numbers that a reader finds, oldest first.
fn stored(log: &SegmentLog<Numbers>) -> Vec<u64> {
    let mut found = Vec::new();
    let read = log.snapshot().oldest_first(FramePosition::default(), |frame| {
        found.push(number_of(frame.payload));
        ControlFlow::Continue(())
    });
    read.unwrap();
    found
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "tapio");
    disk.paths()
        .into_iter()
        .filter(|p| is_segment(p) && p.parent() == Some(Path::new(DIR)))
        .collect()
}

#[test]
fn frames_are_found_again_with_the_segments_they_are_in() {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..12);
    sync(&mut log);
    drop(log);
    disk.kill();
    let mut log = open(&disk, config());
    assert_eq!((log.index().all(), stored(&log)), ((0..12).collect(), (0..12).collect()));
    assert_eq!(log.index().read.len(), 1, "the sealed segments are known by their footers");
    append(&mut log, 12..14);
    assert_eq!((log.stats().frames, log.stats().segments), (14, 4));
    log.seal();
    sync(&mut log);
    drop(log);
    disk.kill();
    let log = open(&disk, config());
    assert!(log.index().read.is_empty());
    assert_eq!(stored(&log), (0..14).collect::<Vec<_>>());
}

#[test]
fn oldest_segments_make_room() {
    let disk = SimDisk::default();
    let mut log = open(&disk, SegmentLogConfig { retention_bytes: 3_000, ..config() });
    append(&mut log, 0..40);
    let kept = stored(&log);
    assert_eq!(kept, (40 - kept.len() as u64..40).collect::<Vec<_>>());
    assert!((10..=18).contains(&kept.len()), "{kept:?}");
    assert_eq!(log.index().all(), kept);
    assert_eq!(log.stats().retired_segments + log.stats().segments, 8);
    assert_eq!(segments(&disk).len() as u64, log.stats().segments);
}

#[test]
fn snapshot_has_the_frames_of_its_time() {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..12);
    let snapshot = log.snapshot();
    let all: Vec<u64> = snapshot.segments().collect();
    assert_eq!(all, [1, 2, 3]);
    append(&mut log, 12..20);
    log.retire_oldest();
    assert!(snapshot.frames(1).is_none(), "the first segment was removed since");
    let frames = snapshot.frames(3).unwrap();
    let payload = |offset| number_of(&frames.payload(offset).unwrap());
    let numbers: Vec<u64> = frames.offsets().rev().map(|(offset, _)| payload(offset)).collect();
    assert_eq!(numbers, [11, 10]);
    assert_eq!(snapshot.last_receipt_ns(3), frames.offsets().map(|(_, ns)| ns).max());
    let mut rest = Vec::new();
    let from = FramePosition { segment: 1, offset: 0 };
    snapshot
        .oldest_first(from, |frame| {
            rest.push(number_of(frame.payload));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rest, (5..12).collect::<Vec<_>>(), "the first segment was removed since");
}

#[test]
fn second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = SegmentLogConfig { dir: dir.path().to_owned(), ..config() };
    let files = Arc::new(tapio::store::OsFiles);
    let _log = SegmentLog::open(config.clone(), files.clone(), ()).unwrap();
    let error = SegmentLog::open(config, files, ()).err().unwrap().to_string();
    assert!(error.ends_with("in use by another process"), "{error}");
    assert!(error.starts_with(&*dir.path().to_string_lossy()), "{error}");
}

#[test]
fn log_on_a_real_disk_is_private_and_read_back() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/log");
    let config = SegmentLogConfig { dir: path.clone(), ..config() };
    let open = || {
        let files = Arc::new(tapio::store::OsFiles);
        SegmentLog::open(config.clone(), files, Numbers::default()).unwrap()
    };
    let mut log = open();
    append(&mut log, 0..12);
    sync(&mut log);
    assert!(log.begin_sync().is_none());
    drop(log);
    assert_eq!(stored(&open()), (0..12).collect::<Vec<_>>());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("segment-0000000000000001.tapio"))), (0o700, 0o600));
}
