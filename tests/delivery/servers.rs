//! The bridge and servers that refuse, fail, ask for a pause, or don't answer.

use std::sync::atomic::{AtomicBool, Ordering};

use tapio::bridge::{CircuitState, Compression};
use tonic::{Code, Status};

use super::support::scripted_server::{Reply, ScriptedServer};
use super::*;

/// A bridge whose refused items go to a file in `dir`.
fn node_with_quarantine(config: BridgeConfig, dir: &Path) -> Node {
    let quarantine = Some(dir.join("quarantine.jsonl"));
    node_of(NodeOptions { config, quarantine, ..NodeOptions::default() }, |_| None)
}

fn has_poison(batch: &tapio_wire::proto::EventBatch, poison: &[u64]) -> bool {
    batch.events.iter().any(|event| poison.iter().any(|n| event.id == event_id(*n).0))
}

/// Events that a server objects to are found and quarantined; every other event is stored once.
fn poisoned(reply: fn() -> Reply, poison: &'static [u64], events: u64) {
    let dir = tempfile::tempdir().unwrap();
    let script = move |_: usize, batch: &tapio_wire::proto::EventBatch| {
        if has_poison(batch, poison) { reply() } else { Reply::Store }
    };
    let server = ScriptedServer::start(any_port(), script);
    let mut node = node_with_quarantine(config(server.address), dir.path());
    node.writers = node.feed(0..events).join().unwrap();
    let stats = Arc::clone(node.bridge.stats());
    eventually("every event is answered", || {
        node.ledger.snapshot().total.held == 0 && node.ledger.snapshot().total.received == events
    });
    assert_cons1(&node.end(), events, events - poison.len() as u64);
    assert_eq!(counter(&stats, "events_refused"), poison.len() as u64);
    server.seen(|seen| {
        assert_eq!(seen.events.len() as u64, events - poison.len() as u64);
    });
    let text = std::fs::read_to_string(dir.path().join("quarantine.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<_> = lines.iter().map(|line| line["event"]["id"].as_str().unwrap()).collect();
    let expected: Vec<String> = poison.iter().map(|n| event_id(*n).to_string()).collect();
    assert_eq!(ids, expected);
    assert!(lines.iter().all(|line| line["cause"] == "poison"), "{text}");
}

#[test]
fn refused_events_are_found_and_quarantined() {
    poisoned(|| Reply::Refuse("poison"), &[1_234, 7_777], 10_000);
}

#[test]
fn events_that_end_the_stream_are_found_and_quarantined() {
    poisoned(|| Reply::End(Status::invalid_argument("poison")), &[700], 1_000);
}

#[test]
fn server_that_fails_gets_every_event_later() {
    let is_failing = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&is_failing);
    let server =
        ScriptedServer::start(any_port(), move |_, _| match failing.load(Ordering::Relaxed) {
            true => Reply::End(Status::new(Code::Internal, "broken")),
            false => Reply::Store,
        });
    let mut node = node(config(server.address));
    node.writers = node.feed(0..1_000).join().unwrap();
    eventually("the bridge has tried again", || server.seen(|seen| seen.streams.len()) > 5);
    assert_eq!(counter(node.bridge.stats(), "events_refused"), 0);
    assert!(node.bridge.stats().last_error().contains("broken"));
    assert_ne!(node.bridge.stats().circuit(), CircuitState::Closed);
    is_failing.store(false, Ordering::Relaxed);
    node.wait_for_acks(1_000);
    eventually("the circuit is closed", || node.bridge.stats().circuit() == CircuitState::Closed);
    assert_cons1(&node.end(), 1_000, 1_000);
}

/// `google.rpc.Status` with a `RetryInfo` (google/rpc/error_details.proto).
fn retry_info(milliseconds: u32) -> Bytes {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Pair {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Info {
        #[prost(message, optional, tag = "1")]
        delay: Option<Pair>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Details {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let delay = Pair { seconds: 0, nanos: milliseconds as i32 * 1_000_000 };
    let value = prost::Message::encode_to_vec(&Info { delay: Some(delay) });
    let any = Any { url: "type.googleapis.com/google.rpc.RetryInfo".into(), value };
    prost::Message::encode_to_vec(&Details { details: vec![any] }).into()
}

#[test]
fn pause_that_the_server_asks_for_is_kept() {
    let server = ScriptedServer::start(any_port(), |stream, _| match stream {
        0 => Reply::End(Status::with_details(Code::Unavailable, "busy", retry_info(700))),
        _ => Reply::Store,
    });
    let mut node = node(config(server.address));
    node.writers = node.feed(0..100).join().unwrap();
    node.wait_for_acks(100);
    server.seen(|seen| {
        let pause = seen.streams[1] - seen.streams[0];
        assert!(pause >= Duration::from_millis(700), "{pause:?}");
    });
    node.end();
}

#[test]
fn another_server_takes_over_from_one_that_is_gone_or_silent() {
    let silent = ScriptedServer::start(any_port(), |_, _| Reply::Silence);
    let second = ScriptedServer::start(any_port(), |_, _| Reply::Store);
    let config = BridgeConfig {
        failover: vec![silent.address.to_string(), second.address.to_string()],
        ack_timeout: Duration::from_millis(500),
        ..config(free_address())
    };
    let mut node = node(config);
    node.writers = node.feed(0..5_000).join().unwrap();
    node.wait_for_acks(5_000);
    let stats = Arc::clone(node.bridge.stats());
    assert_eq!(stats.endpoint(), second.address.to_string());
    silent.seen(|seen| assert!(!seen.streams.is_empty()));
    assert_cons1(&node.end(), 5_000, 5_000);
    second.seen(|seen| assert_eq!(seen.events.len(), 5_000));
}

#[test]
fn half_open_circuit_tries_one_batch() {
    let server = ScriptedServer::start(any_port(), |stream, _| match stream {
        0..3 => Reply::End(Status::unavailable("not yet")),
        _ => Reply::Store,
    });
    let config = BridgeConfig { batch_events: 10, ..config(server.address) };
    let mut node = node(config);
    node.writers = node.feed(0..1_000).join().unwrap();
    node.wait_for_acks(1_000);
    // One batch on each of the streams that failed.
    assert_eq!(counter(node.bridge.stats(), "batches_resent"), 3);
    node.end();
}

#[test]
fn compressed_batches_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let zstd = BridgeConfig { compression: Compression::Zstd, ..config(server.grpc_addr) };
    let mut node = node(zstd);
    node.writers = node.feed(0..50_000).join().unwrap();
    assert_cons1(&node.end(), 50_000, 50_000);
    drop(server);
    assert_stored_once(dir.path(), 50_000);
}

#[test]
fn no_more_is_in_flight_than_the_server_grants() {
    let server = ScriptedServer::start(any_port(), |_, batch| match batch.first_sequence {
        0 => Reply::Grant(1),
        _ => Reply::Silence,
    });
    let config = BridgeConfig {
        batch_events: 10,
        drain_timeout: Duration::from_millis(1),
        ..config(server.address)
    };
    let mut node = node(config);
    node.writers = node.feed(0..1_000).join().unwrap();
    eventually("the second batch is sent", || counter(node.bridge.stats(), "batches_sent") == 2);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(counter(node.bridge.stats(), "batches_sent"), 2);
    node.end();
}
