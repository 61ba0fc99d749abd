//! A killed agent reads some events of its sources again, under the same ids: the storage has each
//! once.

use prost::Message as _;
use tapio_wire::proto::{Event, EventBatch};

use super::support::ingest;
use super::support::net::any_port;
use super::{start, stored};

/// A batch with events of these ids from process `epoch` of a node; `clock` 0 is the kernel's.
fn batch(node: &str, epoch: u64, first_sequence: u64, clock: u32, ids: &[u8]) -> EventBatch {
    let event = |id: &u8| Event {
        time_unix_nano: 1,
        id: vec![*id; 16],
        source: 1,
        clock,
        ..Event::default()
    };
    EventBatch {
        first_sequence,
        count: ids.len() as u32,
        node: node.into(),
        epoch,
        names: vec!["journal.message".into(), "journal".into(), "otlp".into()],
        events: ids.iter().map(event).collect(),
        ..EventBatch::default()
    }
}

/// Sends batches on one stream. Returns the sequence through which each is acknowledged.
fn deliver(to: std::net::SocketAddr, batches: &[EventBatch]) -> Vec<u64> {
    let messages: Vec<Vec<u8>> = batches.iter().map(|batch| batch.encode_to_vec()).collect();
    ingest::deliver(to, &messages).iter().map(|ack| ack.through).collect()
}

/// How often each id is stored, by its first byte.
fn counted(dir: &std::path::Path) -> Vec<(u8, u32)> {
    let mut all: Vec<_> = stored(dir).into_iter().map(|(id, n)| (id.0[0], n)).collect();
    all.sort_unstable();
    all
}

#[test]
fn events_resent_after_a_kill_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let sent = [batch("n", 10, 0, 1, &[1, 2]), batch("n", 10, 2, 1, &[3, 4])];
    assert_eq!(deliver(server.grpc_addr, &sent), [2, 4]);
    // The next process starts after event 2; the server was restarted in between.
    drop(server);
    let server = start(dir.path(), any_port());
    let resent = [batch("n", 20, 0, 1, &[3, 4, 5]), batch("n", 20, 3, 1, &[6])];
    assert_eq!(deliver(server.grpc_addr, &resent), [3, 4], "duplicates are acknowledged too");
    let counts = server.status().ingest;
    assert_eq!((counts.events, counts.duplicates), (2, 2));
    // Events of another node, of the kernel or of an application are never duplicates.
    deliver(server.grpc_addr, &[batch("m", 30, 0, 1, &[1]), batch("n", 40, 0, 0, &[2])]);
    let mut otlp = batch("n", 40, 1, 1, &[3]);
    otlp.events[0].source = 2;
    deliver(server.grpc_addr, &[otlp]);
    drop(server);
    assert_eq!(counted(dir.path()), [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1), (6, 1)]);
}
