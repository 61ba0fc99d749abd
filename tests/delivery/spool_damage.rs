//! Segments of the spool that somebody deletes, truncates or overwrites while no agent runs: their
//! events are counted, the rest is sent.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;

const EVENTS: u64 = 40_000;

/// The segments of the ordinary lane, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let lane = dir.join("spool/ordinary");
    let entries = std::fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "tapio");
    let mut segments: Vec<_> = entries.filter(is_segment).collect();
    segments.sort_unstable();
    segments
}

/// Spools events while the server is away, lets `damage` change the segments, and starts an agent
/// again. Returns the events that it counts as lost.
fn lost_by(damage: impl FnOnce(&[PathBuf])) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let mut node = spooling_node(away(), dir.path(), 10, 16 << 20);
    node.writers = node.feed(0..EVENTS).join().unwrap();
    wait_until_spooled(&node, EVENTS);
    assert_eq!(account(&node.end(), COLLECTOR).held, EVENTS);
    let before = segments(dir.path());
    assert!(before.len() > 5, "{before:?}");
    damage(&before);
    let server = start(&dir.path().join("store"), any_port());
    let node = spooling_node(config(server.grpc_addr), dir.path(), 20, 16 << 20);
    let after = account(&node.ledger, RECOVERED);
    assert_eq!(after.received, EVENTS);
    eventually("the rest is stored", || account(&node.ledger, RECOVERED).held == 0);
    let after = account(&node.end(), RECOVERED);
    drop(server);
    let stored = stored(&dir.path().join("store"));
    assert!(stored.values().all(|times| *times == 1));
    assert_eq!(stored.len() as u64, after.forwarded);
    assert!(after.dropped.iter().all(|(_, reason, _)| *reason == Reason::SpoolLost));
    let lost = after.dropped.iter().map(|(_, _, n)| n).sum();
    assert_eq!(after.forwarded + lost, EVENTS);
    lost
}

#[test]
fn nothing_is_lost_without_damage() {
    assert_eq!(lost_by(|_| {}), 0);
}

#[test]
fn deleted_segments_are_counted() {
    let lost = lost_by(|segments| {
        std::fs::remove_file(&segments[0]).unwrap();
        std::fs::remove_file(&segments[2]).unwrap();
        std::fs::remove_file(segments.last().unwrap()).unwrap();
    });
    assert!(lost > 2_000, "{lost}");
}

#[test]
fn truncated_segments_are_counted() {
    let lost = lost_by(|segments| {
        for segment in [&segments[1], segments.last().unwrap()] {
            let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    });
    assert!(lost > 500, "{lost}");
}

#[test]
fn segments_that_are_none_any_more_are_counted() {
    let lost = lost_by(|segments| {
        let file = std::fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
        file.write_all_at(&[0xff; 4096], 0).unwrap();
    });
    assert!(lost > 1_000, "{lost}");
}

#[test]
fn damage_to_the_last_segment_is_counted_once() {
    let lost = lost_by(|segments| {
        let last = segments.last().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(last).unwrap();
        file.write_all_at(b"damage", 2_000).unwrap();
    });
    assert!((1_000..3_000).contains(&lost), "{lost}");
}

#[test]
fn damage_to_answered_batches_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let server = start(&store, any_port());
    let bridge = BridgeConfig { batch_bytes: 8 * 1024, ..config(server.grpc_addr) };
    let mut node = spooling_node(bridge.clone(), dir.path(), 10, 16 << 20);
    node.writers = node.feed(0..5_000).join().unwrap();
    node.wait_for_acks(5_000);
    drop(server);
    node.writers = node.feed(5_000..8_000).join().unwrap();
    wait_until_spooled(&node, 8_000);
    node.end();
    let file = std::fs::OpenOptions::new().write(true).open(&segments(dir.path())[0]).unwrap();
    file.write_all_at(b"damage", 2_000).unwrap();
    let server = start(&store, any_port());
    let bridge = BridgeConfig { endpoint: server.grpc_addr.to_string(), ..bridge };
    let node = spooling_node(bridge, dir.path(), 20, 16 << 20);
    eventually("the rest is stored", || account(&node.ledger, RECOVERED).held == 0);
    assert_eq!(account(&node.end(), RECOVERED).dropped, []);
    drop(server);
    assert_eq!(stored(&store).len(), 8_000);
}

#[test]
fn damaged_batches_are_counted() {
    let lost = lost_by(|segments| {
        let file = std::fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
        // In one of the two batches that a segment has room for; between them are marks.
        file.write_all_at(b"damage", file.metadata().unwrap().len() / 3).unwrap();
    });
    assert!((1_000..3_000).contains(&lost), "{lost}");
}
