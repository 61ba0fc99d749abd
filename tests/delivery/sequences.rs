//! Only what is stored counts as stored, whatever a sender claims.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use prost::Message as _;
use tapio::server::{Ingest, ServerConfig};
use tapio::store::OsFiles;
use tapio_wire::BatchHandler as _;
use tapio_wire::proto::{Ack, Event, EventBatch};

use super::support::ingest;
use super::support::net::any_port;
use super::{start, stored};

/// A batch with `count` events from process `epoch` of a node.
fn batch(node: &str, epoch: u64, first_sequence: u64, count: u64) -> EventBatch {
    let event = |n: u64| Event {
        time_unix_nano: 1,
        id: (u128::from(epoch) << 64 | u128::from(first_sequence + n)).to_be_bytes().to_vec(),
        ..Event::default()
    };
    EventBatch {
        first_sequence,
        count: count as u32,
        node: node.into(),
        epoch,
        names: vec!["test.kind".into()],
        events: (0..count).map(event).collect(),
        ..EventBatch::default()
    }
}

/// Sends batches on one stream.
fn deliver(to: std::net::SocketAddr, batches: &[EventBatch]) -> Vec<Ack> {
    let messages: Vec<Vec<u8>> = batches.iter().map(|batch| batch.encode_to_vec()).collect();
    ingest::deliver(to, &messages)
}

#[test]
fn every_sender_process_of_a_group_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let config = ServerConfig { data_dir: dir.path().into(), ..ServerConfig::default() };
    let ingest = Ingest::open(&config, Arc::new(OsFiles)).unwrap();
    let mut stream = ingest.stream(None);
    for group in 0..3 {
        for epoch in 1..=32 {
            let one = batch("n", 100 * group + epoch, 0, 1).encode_to_vec();
            assert_eq!(stream.handle(&one.into()), None);
        }
        stream.end_group();
        ingest.sync();
        let mut acked = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(Some(ack))) = stream.poll_ack(&mut context) {
            assert_eq!(ack.through, 1);
            acked.push(ack.epoch % 100);
        }
        acked.sort_unstable();
        assert_eq!(acked, (1..=32).collect::<Vec<_>>());
    }
}

#[test]
fn claim_of_a_high_sequence_silences_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    deliver(server.grpc_addr, &[batch("n", 7, 0, 10)]);
    // Somebody with the node's name and epoch begins far ahead, and says that the rest is dropped.
    let forged = EventBatch { dropped_from: Some(0), ..batch("n", 7, 1 << 62, 0) };
    let acks = deliver(server.grpc_addr, &[forged, batch("n", 7, 1 << 62, 1)]);
    for ack in &acks {
        assert!(ack.refused[0].cause.contains("more than 2^32 beyond the 10"), "{ack:?}");
    }
    let acks = deliver(server.grpc_addr, &[batch("n", 7, 10, 10), batch("n", 7, 20, 10)]);
    assert_eq!(acks.iter().map(|ack| ack.through).collect::<Vec<_>>(), [20, 30]);
    let counts = server.status().ingest;
    assert_eq!((counts.duplicates, counts.jumps_refused), (0, 2));
    drop(server);
    assert_eq!(stored(dir.path()).len(), 30);
}

#[test]
fn refused_batch_is_refused_again_and_its_items_are_new() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let bad = EventBatch { count: 99, ..batch("n", 7, 0, 10) };
    for first in [99, 100] {
        let acks = deliver(server.grpc_addr, &[bad.clone(), batch("n", 7, 99, 1)]);
        assert_eq!(acks[0].refused.len(), 1, "{acks:?}");
        assert_eq!((acks[0].through, acks[1].through), (first, 100));
    }
    let acks = deliver(server.grpc_addr, &[batch("n", 7, 0, 10)]);
    assert_eq!((acks[0].through, acks[0].refused.len()), (10, 0));
    let status = server.status().ingest;
    assert_eq!((status.events, status.duplicates, status.batches_refused), (11, 1, 2));
    drop(server);
    assert_eq!(stored(dir.path()).len(), 11);
}

#[test]
fn resent_and_overlapping_batches_are_recognised_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    deliver(server.grpc_addr, &[batch("n", 7, 0, 10), batch("n", 7, 10, 10)]);
    drop(server);
    let server = start(dir.path(), any_port());
    let acks = deliver(server.grpc_addr, &[batch("n", 7, 10, 10), batch("n", 7, 15, 10)]);
    assert_eq!((acks[0].through, acks[0].refused.len()), (20, 0), "a duplicate");
    assert!(acks[1].refused[0].cause.contains("stored already"), "{acks:?}");
    deliver(server.grpc_addr, &[batch("m", 7, 0, 10), batch("n", 8, 0, 10)]);
    drop(server);
    let stored = stored(dir.path());
    assert_eq!(stored.len(), 30, "another epoch's ids are others, another node's the same");
    assert_eq!(stored.values().sum::<u32>(), 40);
}
