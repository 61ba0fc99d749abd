//! Files of a segmented log. Any bytes in the place of a segment, and any edits of real ones: the
//! log starts, each frame that it has is one that was appended, and what is appended afterwards is
//! there at the next start.

#![no_main]

#[path = "../../../support/sim_disk.rs"]
#[allow(dead_code, reason = "a part is used")]
mod sim_disk;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sim_disk::SimDisk;
use tapio::store::{Durability, FramePosition, SegmentLog, SegmentLogConfig};

/// The frames of the log before it is damaged; the first one has the bytes of a mark's size.
const PAYLOADS: [&[u8]; 5] = [b"a frame of 32 bytes, as a mark is", b"", b"b", b"cc", b"the last"];

fn config() -> SegmentLogConfig {
    SegmentLogConfig {
        dir: "/log".into(),
        // Two frames a segment.
        segment_bytes: 250,
        retention_bytes: 1 << 20,
        retires_when_full: true,
        durability: Durability::Power,
        acknowledges_recovered: true,
    }
}

fn open(disk: &SimDisk) -> SegmentLog<()> {
    disk.kill();
    match SegmentLog::open(config(), Arc::new(disk.clone()), ()) {
        Ok(log) => log,
        Err(error) => panic!("the log doesn't start: {error}"),
    }
}

fn payloads(log: &SegmentLog<()>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let read = log.snapshot().oldest_first(FramePosition::default(), |frame| {
        found.push(frame.payload.to_vec());
        ControlFlow::Continue(())
    });
    assert!(read.is_ok(), "{read:?}");
    found
}

/// A log on a disk, sealed except for the last segment if `is_killed`.
fn written(is_killed: bool) -> SimDisk {
    let disk = SimDisk::default();
    let mut log = open(&disk);
    for payload in PAYLOADS {
        assert!(log.append(payload, 7).is_ok());
    }
    if !is_killed {
        log.seal();
    }
    disk
}

/// Edits one of the files: pairs of a place and a byte, or where it ends.
fn edit(disk: &SimDisk, edits: &[u8]) {
    let paths: Vec<_> =
        disk.paths().into_iter().filter(|p| p.extension().is_some_and(|e| e == "tapio")).collect();
    for edit in edits.chunks_exact(4) {
        let path = &paths[usize::from(edit[0] & 0x7f) % paths.len()];
        let mut bytes = disk.contents(path);
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % (bytes.len() + 1);
        if edit[0] & 0x80 != 0 {
            bytes.truncate(at);
        } else if let Some(byte) = bytes.get_mut(at) {
            *byte ^= edit[3];
        } else {
            bytes.push(edit[3]);
        }
        disk.put(path, &bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let disk = if mode & 1 == 0 {
        let disk = SimDisk::default();
        drop(open(&disk));
        disk.put(Path::new("/log/segment-0000000000000001.tapio"), bytes);
        disk
    } else {
        let disk = written(mode & 2 != 0);
        edit(&disk, bytes);
        disk
    };
    let mut log = open(&disk);
    let found = payloads(&log);
    let mut known = PAYLOADS.iter();
    if mode & 1 == 1 {
        // In order, each once.
        let is_known = |payload: &Vec<u8>| known.any(|known| *known == payload.as_slice());
        assert!(found.iter().all(is_known), "{found:?}");
    }
    assert!(log.append(b"after", 8).is_ok());
    drop(log);
    let again = payloads(&open(&disk));
    assert_eq!(again.last().map(Vec::as_slice), Some(&b"after"[..]));
    assert_eq!(again[..again.len() - 1], found[..]);
});
