//! A log knows what it lacks: whatever somebody does to its segments, while it is open or closed,
//! each frame that can't be read any more was received at the latest at the time that it names, and
//! something is counted.

use std::collections::BTreeSet;

use tapio::store::Scrubber;

use super::support::seeds::run_each;
use super::support::sim_disk::Rng;
use super::*;

const SEEDS: u64 = 2_000;
const FRAMES: u64 = 60;

/// Deletes, truncates or damages a segment.
fn tamper(disk: &SimDisk, segment: &Path, rng: &mut Rng) {
    let mut bytes = disk.contents(segment);
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len() as u64) as usize;
    match rng.below(4) {
        0 => return disk.delete(segment),
        1 => bytes.truncate(at),
        2 => bytes[at] ^= 1 << rng.below(8),
        _ => {
            let len = rng.below(300) as usize;
            bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = rng.below(256) as u8);
        }
    }
    disk.put(segment, &bytes);
}

/// The numbers that can be read, frame by frame.
fn readable(log: &SegmentLog<Numbers>) -> BTreeSet<u64> {
    let snapshot = log.snapshot();
    let frames = snapshot.segments().filter_map(|segment| snapshot.frames(segment));
    let payloads = frames.flat_map(|frames| {
        let offsets: Vec<u64> = frames.offsets().map(|(offset, _)| offset).collect();
        offsets.into_iter().filter_map(move |offset| frames.payload(offset))
    });
    payloads.map(|payload| number_of(&payload)).collect()
}

/// Appends frames by several processes, each of which ends or is killed. The last one goes on.
fn written(disk: &SimDisk, rng: &mut Rng) -> SegmentLog<Numbers> {
    let mut log = open(disk, config());
    for first in (1..FRAMES).step_by(20) {
        append(&mut log, first..(first + 20).min(FRAMES));
        sync(&mut log);
        if first + 20 < FRAMES && rng.one_in(2) {
            if rng.one_in(2) {
                log.seal();
                sync(&mut log);
            }
            drop(log);
            disk.kill();
            log = open(disk, config());
        }
    }
    log
}

/// Everything that is missing is counted, and was received before the time that is named.
fn check(log: &mut SegmentLog<Numbers>, seed: u64) {
    log.check().unwrap();
    let mut scrubber = Scrubber::default();
    while !scrubber.advance(&log.snapshot(), 500) {}
    let stats = log.stats();
    let found = readable(log);
    assert_eq!(log.stats(), stats, "seed {seed}: the scrubber has found everything");
    let last_missing = (1..FRAMES).filter(|number| !found.contains(number)).max();
    let counted = stats.corrupt_frames
        + stats.lost_bytes
        + stats.quarantined_segments
        + stats.unreadable_segments
        + stats.deleted_segments;
    let named = log.snapshot().damaged_receipt_ns();
    assert!(last_missing <= named, "seed {seed}: {last_missing:?} is missing, {named:?} named");
    let is_known = counted > 0 || log.snapshot().damaged_receipt_ns().is_some();
    assert!(last_missing.is_none() || is_known, "seed {seed}: {last_missing:?}, {stats:?}");
}

fn run(seed: u64) {
    let mut rng = Rng(Rng(seed).next());
    let disk = SimDisk::default();
    let mut log = Some(written(&disk, &mut rng));
    if rng.one_in(2)
        && let Some(mut closed) = log.take()
    {
        if rng.one_in(2) {
            closed.seal();
            sync(&mut closed);
        }
        disk.kill();
    }
    // With the oldest or the newest one, nobody knows what else there was.
    let all = segments(&disk);
    for _ in 0..=rng.below(2) {
        let at = 1 + rng.below(all.len() as u64 - 2) as usize;
        if disk.paths().contains(&all[at]) {
            tamper(&disk, &all[at], &mut rng);
        }
    }
    let mut log = log.unwrap_or_else(|| open(&disk, config()));
    check(&mut log, seed);
    for _ in 0..2 {
        drop(log);
        disk.kill();
        log = open(&disk, config());
        check(&mut log, seed);
    }
}

#[test]
fn every_missing_frame_is_counted_and_received_before_the_time_named() {
    run_each(SEEDS, run);
}
