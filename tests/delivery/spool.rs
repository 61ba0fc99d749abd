//! The spool: acknowledged events survive kills of the agent, outages are spooled, and every event
//! that is dropped is counted.

mod spool_damage;

use tapio::bridge::{BridgeSpool, SpoolConfig};
use tapio::store::Durability;

use super::*;

/// The ledger's account of events from earlier processes.
pub(super) const RECOVERED: u8 = 2;

/// A bridge with a spool.
pub(super) fn spooling_node(config: BridgeConfig, dir: &Path, epoch: u64, bytes: u64) -> Node {
    let durability = config.durability;
    node_of(NodeOptions { config, epoch, ..NodeOptions::default() }, |ledger| {
        let dir = dir.join("spool");
        let config = SpoolConfig { dir, bytes, durability, recovered: RECOVERED };
        let ledger = ledger.stage(Stage::Collect);
        Some(BridgeSpool { config, ledger, reads_again: 1 << COLLECTOR })
    })
}

pub(super) fn away() -> BridgeConfig {
    BridgeConfig { queue_bytes: 1024 * 1024, ..config(free_address()) }
}

pub(super) fn account(ledger: &Ledger, collector: u8) -> tapio_core::ring::CollectorAccount {
    let snapshot = ledger.snapshot();
    assert!(snapshot.holds(), "{snapshot:?}");
    snapshot.collectors[usize::from(collector)].clone()
}

/// Waits until the bridge has read every event.
pub(super) fn wait_until_spooled(node: &Node, events: u64) {
    eventually("every event is in the spool", || {
        node.ledger.unsettled(COLLECTOR, 0) == 0 && node.ledger.snapshot().total.received >= events
    });
}

#[test]
fn outage_is_spooled_and_drained() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = away();
    let server = bridge.endpoint.parse().unwrap();
    let mut node = spooling_node(bridge, dir.path(), 10, 256 << 20);
    node.writers = node.feed(0..100_000).join().unwrap();
    wait_until_spooled(&node, 100_000);
    assert_eq!(account(&node.ledger, COLLECTOR).held, 100_000);
    let in_memory = counter(node.bridge.stats(), "queue_bytes");
    assert!(in_memory <= 1024 * 1024, "{in_memory} bytes in memory");
    let server = start(&dir.path().join("store"), server);
    node.writers = node.feed(100_000..120_000).join().unwrap();
    node.wait_for_acks(120_000);
    assert_cons1(&node.end(), 120_000, 120_000);
    drop(server);
    let stored = stored(&dir.path().join("store"));
    assert_eq!(stored.len(), 120_000);
    assert!(stored.values().all(|times| *times == 1));
}

#[test]
fn spooled_events_are_sent_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = spooling_node(away(), dir.path(), 10, 256 << 20);
    node.writers = node.feed(0..30_000).join().unwrap();
    wait_until_spooled(&node, 30_000);
    let ledger = node.end();
    assert_eq!(account(&ledger, COLLECTOR).held, 30_000, "a stop doesn't wait for the server");
    let server = start(&dir.path().join("store"), any_port());
    let mut node = spooling_node(config(server.grpc_addr), dir.path(), 20, 256 << 20);
    node.writers = node.feed(30_000..40_000).join().unwrap();
    node.wait_for_acks(40_000);
    let ledger = node.end();
    assert_eq!(account(&ledger, RECOVERED).forwarded, 30_000);
    assert_eq!(account(&ledger, COLLECTOR).forwarded, 10_000);
    drop(server);
    let stored = stored(&dir.path().join("store"));
    assert_eq!(stored.len(), 40_000);
    assert!(stored.values().all(|times| *times == 1));
    let mut node = spooling_node(away(), dir.path(), 30, 256 << 20);
    node.writers.clear();
    assert_eq!(account(&node.end(), RECOVERED).received, 0, "nothing is left");
}

#[test]
fn oldest_events_make_room_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = away();
    let server = bridge.endpoint.parse().unwrap();
    let mut node = spooling_node(bridge, dir.path(), 10, 16 << 20);
    node.writers = node.feed(0..200_000).join().unwrap();
    wait_until_spooled(&node, 200_000);
    let spooled = account(&node.ledger, COLLECTOR);
    let dropped: u64 = spooled.dropped.iter().map(|(_, _, n)| n).sum();
    assert_eq!(spooled.held + dropped, 200_000);
    assert!(dropped > 0 && spooled.dropped.iter().all(|(_, r, _)| *r == Reason::SpoolFull));
    let server = start(&dir.path().join("store"), server);
    node.wait_for_acks(spooled.held);
    let after = account(&node.end(), COLLECTOR);
    assert_eq!((after.forwarded + dropped, after.held), (200_000, 0));
    drop(server);
    let stored = stored(&dir.path().join("store"));
    assert_eq!(stored.len() as u64, after.forwarded);
    assert!(stored.contains_key(&event_id(199_999)));
}

#[test]
fn errors_keep_their_place_in_a_flood() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = away();
    let server = bridge.endpoint.parse().unwrap();
    let mut node = spooling_node(bridge, dir.path(), 10, 16 << 20);
    for n in 0..3 {
        let errors = FIRST_ERROR + n * 100;
        node.writers = node.feed(errors..errors + 100).join().unwrap();
        node.writers = node.feed(n * 100_000..(n + 1) * 100_000).join().unwrap();
    }
    wait_until_spooled(&node, 300_300);
    let spooled = account(&node.ledger, COLLECTOR);
    assert!(spooled.held < 200_000, "most of the flood doesn't fit: {spooled:?}");
    assert!(counter(node.bridge.stats(), "spool_bytes") <= 16 << 20);
    let server = start(&dir.path().join("store"), server);
    node.wait_for_acks(spooled.held);
    node.end();
    drop(server);
    let stored = stored(&dir.path().join("store"));
    let errors = FIRST_ERROR..FIRST_ERROR + 300;
    let lost = errors.filter(|n| !stored.contains_key(&event_id(*n))).count();
    assert_eq!(lost, 0, "errors");
}

#[test]
fn events_are_accepted_once_they_are_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir.path().join("store"), any_port());
    let power = BridgeConfig { durability: Durability::Power, ..config(server.grpc_addr) };
    let mut node = spooling_node(power.clone(), dir.path(), 10, 64 << 20);
    node.writers = node.feed(0..50_000).join().unwrap();
    wait_until_spooled(&node, 50_000);
    node.wait_for_acks(50_000);
    assert_cons1(&node.end(), 50_000, 50_000);
    // Without the server: through the backlog.
    let away = BridgeConfig { durability: Durability::Power, ..away() };
    let mut node = spooling_node(away, dir.path(), 20, 64 << 20);
    node.writers = node.feed(50_000..100_000).join().unwrap();
    wait_until_spooled(&node, 50_000);
    assert_eq!(account(&node.end(), COLLECTOR).held, 50_000);
    let mut node = spooling_node(power, dir.path(), 30, 64 << 20);
    node.writers = node.feed(100_000..110_000).join().unwrap();
    node.wait_for_acks(60_000);
    let ledger = node.end();
    assert_eq!(account(&ledger, RECOVERED).forwarded, 50_000);
    drop(server);
    assert_stored_once(&dir.path().join("store"), 110_000);
}

/// The segments of a spool, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(dir.join("spool/ordinary")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "tapio")).collect();
    all.sort();
    all
}

#[test]
fn damaged_and_deleted_segments_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = away();
    let server = bridge.endpoint.parse().unwrap();
    let mut node = spooling_node(bridge, dir.path(), 10, 64 << 20);
    node.writers = node.feed(0..100_000).join().unwrap();
    wait_until_spooled(&node, 100_000);
    let all = segments(dir.path());
    assert!(all.len() > 5, "{all:?}");
    std::fs::remove_file(&all[3]).unwrap();
    let mut bytes = std::fs::read(&all[4]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&all[4], &bytes).unwrap();
    // Unreadable: it can't be opened as a file.
    std::fs::remove_file(&all[5]).unwrap();
    std::fs::create_dir(&all[5]).unwrap();
    let server = start(&dir.path().join("store"), server);
    eventually("everything is answered or counted", || node.ledger.snapshot().total.held == 0);
    let after = account(&node.end(), COLLECTOR);
    let lost: u64 = after.dropped.iter().map(|(_, _, n)| n).sum();
    assert_eq!(after.forwarded + lost, 100_000);
    assert!(lost > 0 && after.dropped.iter().all(|(_, r, _)| *r == Reason::SpoolLost), "{after:?}");
    drop(server);
    assert_eq!(stored(&dir.path().join("store")).len() as u64, after.forwarded);
}

#[test]
fn deleted_folder_is_made_again_while_the_server_answers() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir.path().join("store"), any_port());
    let bridge = BridgeConfig { endpoint: server.grpc_addr.to_string(), ..away() };
    let mut node = spooling_node(bridge, dir.path(), 10, 64 << 20);
    node.writers = node.feed(0..20_000).join().unwrap();
    eventually("everything is stored", || node.ledger.snapshot().total.held == 0);
    let folder = segments(dir.path())[0].parent().unwrap().to_owned();
    std::fs::remove_dir_all(&folder).unwrap();
    eventually("the folder is there again", || folder.join("checkpoint").exists());
    node.writers = node.feed(20_000..40_000).join().unwrap();
    eventually("everything is stored", || node.ledger.snapshot().total.held == 0);
    assert!(!segments(dir.path()).is_empty());
    let after = account(&node.end(), COLLECTOR);
    assert_eq!((after.forwarded, after.dropped), (40_000, vec![]));
    drop(server);
    assert_eq!(stored(&dir.path().join("store")).len(), 40_000);
}
