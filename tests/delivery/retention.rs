//! Batches are retired by their age, also where nothing new comes.

use std::path::{Path, PathBuf};

use prost::Message as _;
use tapio_wire::proto;

use super::support::sim_disk::SimDisk;
use super::*;

const SECOND: u64 = 1_000_000_000;
const AGE: u64 = 80 * SECOND;

fn config() -> ServerConfig {
    ServerConfig {
        retention_age: Duration::from_nanos(AGE),
        ..server_config(&PathBuf::from("/store"), any_port())
    }
}

fn open(disk: &SimDisk) -> Storage {
    Storage::open(&config(), Arc::new(disk.clone())).unwrap()
}

/// Stores a batch of one event, which is received at `receipt_ns`.
fn append(storage: &mut Storage, sequence: u64, receipt_ns: u64) {
    let event = proto::Event { id: vec![0; 16], ..Default::default() };
    let bytes = proto::EventBatch {
        first_sequence: sequence,
        count: 1,
        node: "n".into(),
        epoch: 7,
        names: vec!["t.a".into()],
        events: vec![event],
        ..Default::default()
    }
    .encode_to_vec();
    storage.append(&bytes, receipt_ns).unwrap();
    storage.check().unwrap();
}

fn segments(disk: &SimDisk) -> usize {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "tapio");
    disk.paths().iter().filter(|path| is_segment(path)).count()
}

#[test]
fn batches_are_kept_for_their_age_and_an_eighth_at_most() {
    let disk = SimDisk::default();
    let mut storage = open(&disk);
    for second in 0..400 {
        let now_ns = second * SECOND;
        append(&mut storage, second, now_ns);
        storage.retire_expired(now_ns);
        let batches = storage.stats().batches;
        // One a second.
        assert!(batches > second.min(80), "{second}: {batches} batches");
        assert!(batches <= 80 + 12, "{second}: {batches} batches");
    }
    let stats = storage.stats();
    assert_eq!(stats.segments as usize, segments(&disk), "what is retired is removed");
    assert!((25..=32).contains(&stats.segments_retired), "{stats:?}");
}

#[test]
fn last_segment_is_retired_without_new_batches() {
    let disk = SimDisk::default();
    let mut storage = open(&disk);
    append(&mut storage, 0, SECOND);
    storage.retire_expired(SECOND + AGE);
    assert_eq!((storage.stats().batches, segments(&disk)), (1, 1), "not older than the age");
    storage.retire_expired(SECOND + AGE + 1);
    assert_eq!((storage.stats().batches, segments(&disk)), (0, 0));
    assert!(storage.begin_sync().is_some(), "the folder is written to the disk");
    append(&mut storage, 1, 2 * AGE);
    assert_eq!(storage.stats().batches, 1);
}

#[test]
fn batches_of_an_earlier_process_are_retired() {
    let disk = SimDisk::default();
    let mut storage = open(&disk);
    append(&mut storage, 0, SECOND);
    drop(storage);
    disk.kill();
    let mut storage = open(&disk);
    append(&mut storage, 1, AGE);
    storage.retire_expired(AGE + 2 * SECOND);
    assert_eq!((storage.stats().batches, storage.stats().segments_retired), (1, 1));
}

#[test]
fn file_that_cannot_be_removed_is_removed_later() {
    let disk = SimDisk::default();
    let mut storage = open(&disk);
    append(&mut storage, 0, SECOND);
    disk.set_read_only(true);
    storage.retire_expired(3 * AGE);
    assert_eq!((storage.stats().batches, segments(&disk)), (0, 1));
    disk.set_read_only(false);
    storage.check().unwrap();
    assert_eq!(segments(&disk), 0);
}

#[test]
fn server_retires_by_age_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let age = Duration::from_secs(1);
    let config = ServerConfig { retention_age: age, ..server_config(dir.path(), any_port()) };
    let server = Server::start(config).unwrap();
    let mut node = node(super::config(server.grpc_addr));
    node.writers = node.feed(0..1_000).join().unwrap();
    node.wait_for_acks(1_000);
    eventually("the batches are retired", || server.status().store.batches == 0);
    assert!(server.status().store.segments_retired > 0);
    let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "tapio");
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| is_segment(path)).count(), 0);
    node.end();
}

#[test]
fn oldest_segments_are_retired() {
    let dir = tempfile::tempdir().unwrap();
    let small = ServerConfig {
        segment_bytes: 256 * 1024,
        retention_bytes: 1024 * 1024,
        ..server_config(dir.path(), any_port())
    };
    let server = Server::start(small.clone()).unwrap();
    let mut node = node(BridgeConfig { batch_bytes: 32 * 1024, ..super::config(server.grpc_addr) });
    node.writers = node.feed(0..30_000).join().unwrap();
    assert_cons1(&node.end(), 30_000, 30_000);
    let store = server.status().store;
    assert!(store.stored_bytes <= 1024 * 1024, "{store:?}");
    assert!(store.segments_retired > 2, "{store:?}");
    drop(server);
    let storage = Storage::open(&small, Arc::new(OsFiles)).unwrap();
    let found = all_events(&storage, &Filter::default());
    let newest = Batch::parse(&found[0].batch).unwrap();
    assert_eq!(newest.head.first_sequence + u64::from(newest.head.count), 30_000);
    assert_eq!((storage.stats().corrupt_frames, storage.stats().torn_bytes), (0, 0));
}
