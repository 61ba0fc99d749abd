//! Disks that are full, fail, turn read-only, and files that somebody deletes.

use super::support::sim_disk::SimDisk;
use super::{append, config, open, payload, segments, stored, sync};

#[test]
fn full_disk_retires_the_oldest_and_heals() {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..20);
    disk.set_capacity(Some(4_000));
    append(&mut log, 20..60);
    let kept = stored(&log);
    assert_eq!(kept.last(), Some(&59));
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kept:?}");
    assert!(log.stats().retired_segments > 0);
    // Not even one frame fits, and then there is room again.
    disk.set_capacity(Some(10));
    let error = log.append(&payload(60, 100), 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.set_capacity(None);
    append(&mut log, 60..62);
    assert!(stored(&log).ends_with(&[60, 61]));
    let before = stored(&log);
    drop(log);
    disk.kill();
    assert_eq!(stored(&open(&disk, config())), before);
}

#[test]
fn read_only_disk_refuses_appends_and_heals() {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..3);
    disk.set_read_only(true);
    assert!(log.append(&payload(3, 100), 0).is_err());
    log.check().unwrap();
    assert_eq!(stored(&log), [0, 1, 2]);
    disk.set_read_only(false);
    append(&mut log, 3..5);
    assert_eq!(stored(&log), [0, 1, 2, 3, 4]);
}

#[test]
fn deleted_segments_are_noticed_and_the_current_one_is_written_again() {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..12);
    let before = log.stats();
    let all = segments(&disk);
    disk.delete(&all[0]);
    disk.delete(&all[2]);
    log.check().unwrap();
    assert_eq!((log.stats().deleted_segments, log.stats().frames), (1, before.frames - 5));
    assert_eq!((stored(&log), log.index().all()), ((5..12).collect(), (5..12).collect()));
    append(&mut log, [12]);
    sync(&mut log);
    drop(log);
    disk.crash(&mut super::support::sim_disk::Rng(1));
    assert_eq!(stored(&open(&disk, config())), (5..13).collect::<Vec<_>>());
}

#[test]
fn frames_that_the_disk_failed_to_write_are_removed_and_dont_come_back() {
    let disk = SimDisk::default();
    let mut log = open(&disk, config());
    append(&mut log, 0..3);
    sync(&mut log);
    append(&mut log, 3..8);
    disk.fail_syncs(1);
    let pending = log.begin_sync().unwrap();
    let (from, _) = log.finish_sync(&pending, pending.run()).unwrap_err();
    assert_eq!((stored(&log), log.index().all()), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!((log.stats().unwritten_frames, from.segment), (5, 1));
    append(&mut log, 3..9);
    sync(&mut log);
    drop(log);
    disk.kill();
    let log = open(&disk, config());
    assert_eq!((stored(&log), log.index().all()), ((0..9).collect(), (0..9).collect()));
}
