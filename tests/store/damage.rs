//! Damaged files: each bit, each truncation, files that aren't segments.

use std::path::Path;

use super::support::sim_disk::SimDisk;
use super::{DIR, append, config, open, payload, segments, stored, sync};

/// A sealed segment with five frames, or one that isn't sealed with four.
fn one_segment(is_sealed: bool) -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..if is_sealed { 5 } else { 4 });
    if is_sealed {
        log.seal();
        sync(&mut log);
    }
    drop(log);
    disk.kill();
    let bytes = disk.contents(&segments(&disk)[0]);
    (disk, bytes)
}

#[test]
fn flipped_bit_costs_at_most_its_frame_and_is_counted() {
    for is_sealed in [false, true] {
        let (disk, bytes) = one_segment(is_sealed);
        let path = segments(&disk)[0].clone();
        let total = if is_sealed { 5 } else { 4 };
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            disk.put(&path, &damaged);
            let log = open(&disk, config());
            let (found, stats) = (stored(&log), log.stats());
            // The frames behind a footer aren't read before somebody asks for them.
            assert!(found.len() >= total - 1, "bit {bit}: {found:?}");
            assert!(found.is_sorted() && found.iter().all(|n| *n < total as u64), "bit {bit}");
            if !is_sealed {
                assert_eq!(stats.corrupt_frames as usize, total - found.len(), "bit {bit}");
                assert_eq!(log.index().all(), found, "bit {bit}");
            }
            assert_eq!((stats.lost_bytes, stats.quarantined_segments), (0, 0), "bit {bit}");
            drop(log);
            disk.kill();
        }
    }
}

#[test]
fn truncated_segment_keeps_its_complete_frames() {
    let (disk, bytes) = one_segment(true);
    let path = segments(&disk)[0].clone();
    let mut last = 0;
    for len in 0..bytes.len() {
        disk.put(&path, &bytes[..len]);
        let log = open(&disk, config());
        let found = stored(&log);
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "{len} bytes");
        assert!(found.len() >= last, "{len} bytes");
        last = found.len();
        drop(log);
        disk.kill();
        for path in disk.paths() {
            disk.delete(&path);
        }
    }
    assert_eq!(last, 5);
}

#[test]
fn file_that_is_no_segment_is_quarantined_and_its_number_not_used_again() {
    let (disk, bytes) = one_segment(true);
    let name = |n: u64| Path::new(DIR).join(format!("segment-{n:016x}.tapio"));
    disk.put(&name(2), b"something else, longer than the head of a segment: forty and more bytes of text, and more of it");
    let mut newer = bytes.clone();
    newer[4] = 9;
    let checksum = crc32c::crc32c(&newer[..44]);
    newer[44..48].copy_from_slice(&checksum.to_le_bytes());
    disk.put(&name(3), &newer);
    disk.put(&name(4), &bytes);
    disk.put(&name(5), &bytes[..20]);
    let mut log = open(&disk, config());
    assert_eq!(log.stats().quarantined_segments, 4);
    assert_eq!(stored(&log), [0, 1, 2, 3, 4]);
    append(&mut log, [5]);
    assert_eq!(segments(&disk), [name(1), name(6)]);
    let quarantined = disk.paths().into_iter().filter(|p| p.starts_with("/log/quarantine"));
    assert_eq!(quarantined.count(), 4);
}

#[test]
fn payload_with_copies_of_segments_adds_no_frame() {
    let (disk, mut bytes) = one_segment(true);
    bytes.extend_from_within(..);
    let forged = SimDisk::default();
    let mut log = open(&forged, config());
    let mut text = payload(7, 8);
    text.extend_from_slice(&bytes);
    log.append(&text, 0).unwrap();
    append(&mut log, [8]);
    drop(log);
    drop(disk);
    forged.kill();
    let path = segments(&forged)[0].clone();
    let bytes = forged.contents(&path);
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let _ = damaged.drain(bytes.len() - at % 100..);
        forged.put(&path, &damaged);
        let log = open(&forged, config());
        assert!(stored(&log).iter().all(|n| [7, 8].contains(n)), "byte {at}");
        drop(log);
        forged.kill();
    }
}
