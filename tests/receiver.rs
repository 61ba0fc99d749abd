//! The load generator, the collector `receiver` and the server with each other, and senders that
//! violate the protocol.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

#[path = "support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use support::eventually::eventually;
use support::ingest::deliver;
use support::net::{any_port, free_address};
use support::router::OneShard;
use tapio::bridge::{Bridge, BridgeConfig, BridgeHandle};
use tapio::load::{LoadConfig, LoadError, run};
use tapio::server::{Server, ServerConfig, ServerHandle};
use tapio_collectors::receiver::ReceiverConfig;
use tapio_collectors::{CollectorConfig, CollectorManager, CollectorSpec, Site};
use tapio_core::cpu::Placement;
use tapio_core::event::{Event, EventId, Reason, Severity, Stage, names};
use tapio_core::ring::{Bell, Header, Ledger, OnFull, RecordReader, Sink, ring};
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto;

fn server(dir: &std::path::Path) -> ServerHandle {
    Server::start(ServerConfig {
        grpc_listen: any_port().into(),
        http_listen: any_port().into(),
        data_dir: dir.to_owned(),
        ..ServerConfig::default()
    })
    .unwrap()
}

/// Starts a bridge that sends what it reads from a ring.
fn bridge(
    node: &str,
    to: SocketAddr,
    reader: RecordReader,
    bell: &Arc<Bell>,
    ledger: &mut Ledger,
    shutdown: &Shutdown,
) -> BridgeHandle {
    let bridge = Bridge {
        exports: None,
        reports: Arc::default(),
        quarantine: None,
        config: BridgeConfig { endpoint: to.to_string(), ..BridgeConfig::default() },
        node: node.into(),
        epoch: 4711,
        readers: vec![reader],
        bell: Arc::clone(bell),
        ledger: ledger.stage(Stage::Bridge),
        shutdown: shutdown.clone(),
        spool: None,
        placement: Placement::default(),
    };
    bridge.spawn().unwrap()
}

/// An agent without shards: receiver → ring → bridge.
struct Agent {
    listen: SocketAddr,
    shutdown: Shutdown,
    ledger: Arc<Ledger>,
    collectors: CollectorManager,
    bridge: BridgeHandle,
}

fn agent(server: SocketAddr) -> Agent {
    let listen = free_address();
    let mut ledger = Ledger::new(vec!["receiver".into()]);
    let shutdown = Shutdown::default();
    let bell = Arc::new(Bell::new(std::sync::OnceLock::new()));
    let (writer, reader) = ring(16 * 1024);
    let bridge = bridge("node-1", server, reader, &bell, &mut ledger, &shutdown);
    let config =
        ReceiverConfig { enabled: true, listen: listen.into(), ..ReceiverConfig::default() };
    let sink = Sink::new(
        0,
        OnFull::Wait,
        Arc::new(OneShard),
        vec![(writer, bell)],
        ledger.stage(Stage::Collect),
        shutdown.clone(),
    );
    let (site, ledger) = (Site::new("node-1", 1), Arc::new(ledger));
    site.set_ledger(Arc::clone(&ledger));
    let mut collectors = CollectorManager::new(site, shutdown.clone());
    let spec = CollectorSpec { name: "receiver", factory: config.factory(), sink };
    collectors.start(spec).unwrap();
    eventually("the receiver listens", || std::net::TcpStream::connect(listen).is_ok());
    Agent { listen, shutdown, ledger, collectors, bridge }
}

impl Agent {
    fn end(mut self) -> Arc<Ledger> {
        self.shutdown.request();
        self.collectors.join();
        self.bridge.join();
        self.ledger
    }

    fn counter(&self, name: &str) -> u64 {
        let statistics = self.collectors.status();
        let counters = &statistics[0].counters;
        counters.iter().find(|c| c.0 == name).map_or(0, |c| c.1)
    }
}

#[test]
fn load_through_an_agent_is_stored_completely() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let agent = agent(server.grpc_addr);
    let load = LoadConfig {
        target: agent.listen.to_string(),
        rate: Some(50_000),
        duration: Duration::from_millis(999),
        keys: 10,
        ..LoadConfig::default()
    };
    let report = run(&load, &Shutdown::default()).unwrap();
    assert_eq!((report.offered, report.acked, report.refused), (49_950, 49_950, 0));
    let unscheduled = LoadConfig { rate: None, duration: Duration::from_millis(200), ..load };
    let second = run(&unscheduled, &Shutdown::default()).unwrap();
    assert!(second.offered > 0);
    assert_eq!(second.offered, second.acked);
    let total = report.offered + second.offered;
    let ledger = agent.end();
    let snapshot = ledger.snapshot();
    assert!(snapshot.holds(), "{snapshot:?}");
    assert_eq!((snapshot.total.received, snapshot.total.forwarded), (total, total));
    let status = server.status();
    assert_eq!((status.ingest.events, status.latency.count), (total, total));
    assert_eq!(status.ingest.duplicates, 0);
}

#[test]
fn both_lanes_of_another_agent_are_received() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let agent = agent(server.grpc_addr);
    let mut ledger = Ledger::new(vec!["test".into()]);
    let (collect, shutdown) = (ledger.stage(Stage::Collect), Shutdown::default());
    let bell = Arc::new(Bell::new(std::sync::OnceLock::new()));
    let (mut writer, reader) = ring(4096);
    let mut first = bridge("node-0", agent.listen, reader, &bell, &mut ledger, &shutdown);
    for n in 0..200 {
        let severity = if n % 3 == 0 { Severity::ERROR } else { Severity::INFO };
        let id = EventId::from_sequence(7, 1, n);
        let event = Event { severity, ..Event::new(id, 1 + n, names::OTLP_LOG, names::OTLP) };
        writer.write_event(&Header::event(0, 0, event.time_ns), &event).unwrap();
        collect.add_received(0, 1);
        collect.add_forwarded(0, 1);
        bell.ring();
        std::thread::sleep(Duration::from_millis(1));
    }
    eventually("every event is acknowledged", || {
        first.stats().readings().any(|r| (r.name, r.value) == ("events_acked", 200))
    });
    drop(writer);
    shutdown.request();
    first.join();
    let snapshot = ledger.snapshot();
    assert!(snapshot.holds() && snapshot.total.forwarded == 200, "{snapshot:?}");
    let received = agent.end().snapshot();
    assert!(received.holds(), "{received:?}");
    assert_eq!((received.total.received, received.total.forwarded), (200, 200));
    assert_eq!(server.status().ingest.events, 200);
}

#[test]
fn load_to_a_server_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let load = LoadConfig {
        target: server.grpc_addr.to_string(),
        rate: Some(10_000),
        duration: Duration::from_millis(100),
        ..LoadConfig::default()
    };
    assert_eq!(run(&load, &Shutdown::default()).unwrap().acked, 1_000);
    assert_eq!(server.status().ingest.events, 1_000);
}

#[test]
fn load_ends_at_shutdown_though_its_target_stalls() {
    // The kernel accepts the connection; nobody reads from it.
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let load = LoadConfig {
        target: target.local_addr().unwrap().to_string(),
        rate: None,
        duration: Duration::from_secs(600),
        ..LoadConfig::default()
    };
    let shutdown = Shutdown::default();
    let requested = shutdown.clone();
    let load = std::thread::spawn(move || run(&load, &requested));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!load.is_finished());
    shutdown.request();
    eventually("the load ends", || load.is_finished());
    let error = load.join().unwrap().unwrap_err();
    assert!(matches!(error, LoadError::Unacknowledged { acked: 0, .. }), "{error}");
}

#[test]
fn unreachable_target_is_named_in_the_error() {
    let unused = free_address();
    let load = LoadConfig { target: unused.to_string(), ..LoadConfig::default() };
    let error = run(&load, &Shutdown::default()).unwrap_err();
    assert!(matches!(error, LoadError::Target(_)));
    assert!(error.to_string().contains(&unused.to_string()), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

fn batch(node: &str, first_sequence: u64, events: u32) -> proto::EventBatch {
    proto::EventBatch {
        first_sequence,
        count: events,
        node: node.into(),
        epoch: 4711,
        names: vec!["test.kind".into()],
        events: (0..events)
            .map(|n| proto::Event {
                time_unix_nano: 1,
                id: vec![n as u8; 16],
                ..proto::Event::default()
            })
            .collect(),
        stories: Vec::new(),
        collector_events: Vec::new(),
        dropped_from: None,
        log_blocks: Vec::new(),
    }
}

/// A valid batch, one with a wrong count, one truncated within an event, the first one again, one
/// that overlaps it, a valid one.
fn invalid_messages() -> Vec<Vec<u8>> {
    let mut miscounted = batch("n", 5, 2);
    miscounted.count = 3;
    let mut cut = batch("n", 8, 2).encode_to_vec();
    cut.truncate(cut.len() - 3);
    vec![
        batch("n", 0, 5).encode_to_vec(),
        miscounted.encode_to_vec(),
        cut,
        batch("n", 0, 5).encode_to_vec(),
        batch("n", 4, 12).encode_to_vec(),
        batch("n", 10, 1).encode_to_vec(),
    ]
}

fn check_acks_of_invalid_messages(acks: &[proto::Ack]) {
    let through: Vec<u64> = acks.iter().map(|ack| ack.through).collect();
    assert_eq!(through, [5, 8, 10, 10, 16, 16]);
    let causes: Vec<Vec<&str>> =
        acks.iter().map(|ack| ack.refused.iter().map(|r| r.cause.as_str()).collect()).collect();
    assert_eq!(causes[0], [""; 0]);
    assert!(causes[1][0].starts_with("count is 3, but the batch has 2 items"), "{causes:?}");
    assert!(causes[2][0].contains("ends in the middle"), "{causes:?}");
    assert_eq!(causes[3], [""; 0]);
    assert!(causes[4][0].starts_with("some of its items"), "{causes:?}");
    assert_eq!((acks[1].refused[0].first_sequence, acks[1].refused[0].count), (5, 3));
}

#[test]
fn server_refuses_invalid_batches_and_continues() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    check_acks_of_invalid_messages(&deliver(server.grpc_addr, &invalid_messages()));
    let counts = server.status().ingest;
    assert_eq!((counts.events, counts.duplicates, counts.batches_refused), (6, 5, 3));
    let garbage = deliver(server.grpc_addr, &[vec![0xff; 40], batch("m", 0, 1).encode_to_vec()]);
    assert_eq!(garbage[0].refused.len(), 1);
    assert_eq!(garbage[1].through, 1);
    let long_name = batch(&"n".repeat(256), 0, 1).encode_to_vec();
    let refused = deliver(server.grpc_addr, &[long_name]);
    assert!(refused[0].refused[0].cause.contains("longer than 255 bytes"), "{refused:?}");
}

#[test]
fn receiver_refuses_invalid_batches_and_continues() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let agent = agent(server.grpc_addr);
    check_acks_of_invalid_messages(&deliver(agent.listen, &invalid_messages()));
    // An invalid event doesn't affect the others of its batch.
    let mut bad = batch("other", 0, 3);
    bad.events[1].severity = 99;
    assert_eq!(deliver(agent.listen, &[bad.encode_to_vec()])[0].through, 3);
    eventually("the refusals are counted", || {
        agent.counter("events_invalid") == 1 && agent.counter("batches_refused") == 3
    });
    let ledger = agent.end();
    let snapshot = ledger.snapshot();
    assert!(snapshot.holds(), "{snapshot:?}");
    assert_eq!(snapshot.total.forwarded, 5 + 1 + 2);
    // The refused batches count as the items of their heads.
    let refused = 3 + 2 + 12;
    assert_eq!(snapshot.total.dropped, [(Stage::Collect, Reason::BadInput, refused + 1)]);
}

#[test]
fn batch_that_overlaps_stored_items_is_divided() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    // Another sender has used the agent's name and the epoch of its ordinary lane.
    let forged = proto::EventBatch { epoch: 4711 + 1, ..batch("node-1", 0, 5) };
    deliver(server.grpc_addr, &[forged.encode_to_vec()]);
    let agent = agent(server.grpc_addr);
    deliver(agent.listen, &[batch("a", 0, 12).encode_to_vec()]);
    let ledger = agent.end();
    let snapshot = ledger.snapshot();
    assert!(snapshot.holds(), "{snapshot:?}");
    assert_eq!((snapshot.total.received, snapshot.total.held), (12, 0));
    let counts = server.status().ingest;
    assert_eq!((counts.batches_refused, counts.events), (1, 5 + 7), "{counts:?}");
}
