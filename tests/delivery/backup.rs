//! A copy of the folder of a running server is a backup: a server starts on it with every batch
//! that was acknowledged before the copy began.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::sim_disk::Rng;
use super::*;

/// Events that are acknowledged before the copy begins.
const BEFORE: u64 = 20_000;

fn small_segments(dir: &Path, grpc: SocketAddr) -> ServerConfig {
    ServerConfig { segment_bytes: 64 * 1024, ..server_config(dir, grpc) }
}

/// Copies a folder file by file, in random order.
fn copy_shuffled(from: &Path, to: &Path, rng: &mut Rng) {
    std::fs::create_dir_all(to).unwrap();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    for end in (1..files.len()).rev() {
        files.swap(end, rng.below(end as u64 + 1) as usize);
    }
    for file in files.iter().filter(|file| file.is_file()) {
        std::fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Copies a folder as an operator does.
fn copy_with_cp(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Makes copies while the server stores batches; returns the folders.
fn copies_under_load(dir: &Path, server: &ServerHandle) -> Vec<PathBuf> {
    let mut node = node(BridgeConfig { batch_bytes: 16 * 1024, ..config(server.grpc_addr) });
    node.writers = node.feed(0..BEFORE).join().unwrap();
    node.wait_for_acks(BEFORE);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let mut writers = std::mem::take(&mut node.writers);
    let (collect, bell) = (Arc::clone(&node.collect), Arc::clone(&node.bell));
    let feeding = std::thread::spawn(move || {
        let mut n = BEFORE;
        while !over.load(Ordering::Relaxed) {
            send_event(&mut writers[(n % SHARDS) as usize], &bell, n);
            collect.add_received(COLLECTOR, 1);
            collect.add_forwarded(COLLECTOR, 1);
            n += 1;
        }
        bell.ring();
        (writers, n)
    });
    let data_dir = dir.join("store");
    let mut copies = vec![dir.join("with-cp")];
    copy_with_cp(&data_dir, &copies[0]);
    for seed in 0..4 {
        copies.push(dir.join(format!("copy-{seed}")));
        copy_shuffled(&data_dir, &copies[seed as usize + 1], &mut Rng(seed));
    }
    is_over.store(true, Ordering::Relaxed);
    let (writers, events) = feeding.join().unwrap();
    node.writers = writers;
    assert_cons1(&node.end(), events, events);
    copies
}

#[test]
fn copy_of_a_running_server_has_what_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(small_segments(&dir.path().join("store"), any_port())).unwrap();
    let copies = copies_under_load(dir.path(), &server);
    let events = server.status().ingest.events;
    drop(server);
    for copy in copies {
        let restored = Server::start(small_segments(&copy, any_port())).unwrap();
        let store = restored.status().store;
        assert_eq!((store.corrupt_frames, store.lost_bytes), (0, 0), "{store:?}");
        drop(restored);
        let seen = stored(&copy);
        assert!((0..BEFORE).all(|n| seen.contains_key(&event_id(n))), "{}", copy.display());
        assert!(seen.values().all(|times| *times == 1), "an event is stored twice");
        let known: std::collections::HashSet<_> = (0..events).map(event_id).collect();
        assert!(seen.keys().all(|id| known.contains(id)), "an event was invented");
    }
}

#[test]
fn agent_goes_on_with_a_restored_server() {
    let dir = tempfile::tempdir().unwrap();
    let (store, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let address = free_address();
    let server = start(&store, address);
    let mut node = node(config(address));
    node.writers = node.feed(0..5_000).join().unwrap();
    node.wait_for_acks(5_000);
    copy_with_cp(&store, &backup);
    node.writers = node.feed(5_000..10_000).join().unwrap();
    node.wait_for_acks(10_000);
    drop(server);
    let restored = start(&backup, address);
    node.writers = node.feed(10_000..15_000).join().unwrap();
    assert_cons1(&node.end(), 15_000, 15_000);
    drop(restored);
    let seen = stored(&backup);
    assert!((0..5_000).chain(10_000..15_000).all(|n| seen.get(&event_id(n)) == Some(&1)));
    assert_eq!(seen.len(), 10_000, "those that were acknowledged after the copy are lost");
}
