//! A server whose disk fails, runs full or loses power: what it has acknowledged is stored, once.

use std::path::PathBuf;

use super::support::sim_disk::{Rng, SimDisk};
use super::*;

const DIR: &str = "/store";

fn disk_config(grpc: SocketAddr) -> ServerConfig {
    ServerConfig { segment_bytes: 64 * 1024, ..server_config(&PathBuf::from(DIR), grpc) }
}

fn start_on(disk: &SimDisk, grpc: SocketAddr) -> ServerHandle {
    Server::start_on(disk_config(grpc), Arc::new(disk.clone())).unwrap()
}

/// How often each event is stored, after the server was stopped.
fn stored_on(disk: &SimDisk) -> HashMap<EventId, u32> {
    disk.kill();
    let storage = Storage::open(&disk_config(any_port()), Arc::new(disk.clone())).unwrap();
    count_events(&storage)
}

#[test]
fn failed_sync_is_not_acknowledged_and_its_batches_are_sent_again() {
    let disk = SimDisk::default();
    let server = start_on(&disk, free_address());
    let mut node = node(BridgeConfig { batch_bytes: 8 * 1024, ..config(server.grpc_addr) });
    let failed = || server.status().ingest.disk_errors;
    for n in 0..3 {
        disk.fail_syncs(1);
        node.writers = node.feed(n * 5_000..(n + 1) * 5_000).join().unwrap();
        eventually("a sync fails", || failed() > n);
    }
    node.writers = node.feed(15_000..20_000).join().unwrap();
    node.wait_for_acks(20_000);
    let status = server.status();
    assert_eq!((status.ingest.disk_errors, status.ingest.disk_failing), (3, false));
    assert!(status.store.batches_unwritten > 0, "{:?}", status.store);
    // One that fails while the agent reconnects has no stream to end.
    assert!(counter(node.bridge.stats(), "connects") >= 2, "a failure ends the stream");
    assert_cons1(&node.end(), 20_000, 20_000);
    drop(server);
    disk.crash(&mut Rng(7));
    let stored = stored_on(&disk);
    assert_eq!(stored.len(), 20_000, "acknowledged events survive a loss of power");
    assert!(stored.values().all(|times| *times == 1));
}

#[test]
fn acknowledged_events_survive_losses_of_power() {
    let (disk, mut rng) = (SimDisk::default(), Rng(11));
    let address = free_address();
    let mut server = start_on(&disk, address);
    let mut node = node(BridgeConfig { batch_bytes: 8 * 1024, ..config(address) });
    for round in 0..5 {
        let feeding = node.feed(round * 4_000..(round + 1) * 4_000);
        eventually("some events are acknowledged", || {
            counter(node.bridge.stats(), "events_acked") > round * 4_000
        });
        // Without the sync at a stop: the disk is cut off first.
        disk.set_read_only(true);
        disk.fail_syncs(u32::MAX);
        drop(server);
        disk.crash(&mut rng);
        disk.fail_syncs(0);
        disk.set_read_only(false);
        server = start_on(&disk, address);
        node.writers = feeding.join().unwrap();
    }
    node.wait_for_acks(20_000);
    assert_cons1(&node.end(), 20_000, 20_000);
    drop(server);
    let stored = stored_on(&disk);
    assert_eq!(stored.len(), 20_000);
    assert!(stored.values().all(|times| *times == 1));
}

#[test]
fn full_disk_retires_the_oldest_batches() {
    let disk = SimDisk::default();
    let server = start_on(&disk, free_address());
    disk.set_capacity(Some(512 * 1024));
    let mut node = node(BridgeConfig { batch_bytes: 8 * 1024, ..config(server.grpc_addr) });
    node.writers = node.feed(0..20_000).join().unwrap();
    node.wait_for_acks(20_000);
    let store = server.status().store;
    assert!(store.segments_retired > 0 && store.stored_bytes <= 512 * 1024, "{store:?}");
    assert_cons1(&node.end(), 20_000, 20_000);
    drop(server);
    let stored = stored_on(&disk);
    assert!(stored.contains_key(&event_id(19_999)) && !stored.contains_key(&event_id(0)));
}
