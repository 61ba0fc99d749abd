//! Delivery from the shards' rings over the bridge into a server's storage: no event is lost or
//! stored twice, whatever happens to the server, and CONS-1 is exact at the end.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

#[path = "delivery/agents.rs"]
mod agents;
#[path = "delivery/backup.rs"]
mod backup;
#[path = "delivery/disk.rs"]
mod disk;
#[path = "delivery/followed.rs"]
mod followed;
#[path = "delivery/health.rs"]
mod health;
#[path = "delivery/incidents.rs"]
mod incidents;
#[path = "delivery/kills.rs"]
mod kills;
#[path = "delivery/memory.rs"]
mod memory;
#[path = "delivery/pushback.rs"]
mod pushback;
#[path = "delivery/queries.rs"]
mod queries;
#[path = "delivery/read_again.rs"]
mod read_again;
#[path = "delivery/retention.rs"]
mod retention;
#[path = "delivery/sequences.rs"]
mod sequences;
#[path = "delivery/servers.rs"]
mod servers;
#[path = "delivery/shards.rs"]
mod shards;
#[path = "delivery/simulation.rs"]
mod simulation;
#[path = "delivery/spool.rs"]
mod spool;
#[path = "delivery/story_links.rs"]
mod story_links;
#[path = "delivery/story_parts.rs"]
mod story_parts;
#[path = "support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use support::eventually::eventually;
use support::net::{any_port, free_address};
use tapio::bridge::{Bridge, BridgeConfig, BridgeHandle, BridgeSpool, BridgeStats, LatestReport};
use tapio::server::{Budget, Cursor, Filter, Server, ServerConfig, ServerHandle, Storage};
use tapio::store::OsFiles;
use tapio_core::event::{
    Event, EventId, Field, Member, Name, Reason, Severity, Stage, Story, StoryState, TraceId,
    Value, names,
};
use tapio_core::ring::{Bell, Header, Ledger, RecordWriter, StageLedger, WriteError, ring};
use tapio_core::shutdown::Shutdown;
use tapio_wire::{Batch, Item};

const COLLECTOR: u8 = 1;
const SHARDS: u64 = 2;
/// Events from this number on are errors.
const FIRST_ERROR: u64 = 10_000_000;

/// A bridge with one ring for each shard.
struct Node {
    ledger: Ledger,
    collect: Arc<StageLedger>,
    shutdown: Shutdown,
    bell: Arc<Bell>,
    writers: Vec<RecordWriter>,
    bridge: BridgeHandle,
}

fn config(endpoint: SocketAddr) -> BridgeConfig {
    BridgeConfig {
        endpoint: endpoint.to_string(),
        reconnect_max: Duration::from_millis(100),
        drain_timeout: Duration::from_secs(60),
        ..BridgeConfig::default()
    }
}

/// A bridge to be started.
struct NodeOptions {
    config: BridgeConfig,
    epoch: u64,
    quarantine: Option<PathBuf>,
    reports: Arc<LatestReport>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        let reports = Arc::default();
        Self { config: BridgeConfig::default(), epoch: 4711, quarantine: None, reports }
    }
}

fn node(config: BridgeConfig) -> Node {
    node_of(NodeOptions { config, ..NodeOptions::default() }, |_| None)
}

fn node_of(options: NodeOptions, spool: impl FnOnce(&mut Ledger) -> Option<BridgeSpool>) -> Node {
    let NodeOptions { config, epoch, quarantine, reports } = options;
    let mut ledger = Ledger::new(vec!["other".into(), "test".into(), "spool".into()]);
    let spool = spool(&mut ledger);
    let collect = ledger.stage(Stage::Collect);
    let bell = Arc::new(Bell::new(std::sync::OnceLock::new()));
    let shutdown = Shutdown::default();
    let (writers, readers) = (0..SHARDS).map(|_| ring(16 * 1024)).unzip();
    let bridge = Bridge {
        config,
        node: "node-1".into(),
        epoch,
        readers,
        bell: Arc::clone(&bell),
        ledger: ledger.stage(Stage::Bridge),
        shutdown: shutdown.clone(),
        spool,
        exports: None,
        reports,
        quarantine,
        placement: tapio_core::cpu::Placement::default(),
    };
    Node { ledger, collect, shutdown, bell, writers, bridge: bridge.spawn().unwrap() }
}

fn event_id(n: u64) -> EventId {
    EventId::from_sequence(99, 1, n)
}

fn send_event(writer: &mut RecordWriter, bell: &Bell, n: u64) {
    let fields = [
        Field { key: names::HOST_NAME, value: Value::Str("node-1") },
        Field {
            key: names::K8S_POD_UID,
            value: Value::Str("0af76519-16cd-43dd-8448-eb211c80319c"),
        },
        Field { key: names::PROCESS_PID, value: Value::Int(n as i64) },
    ];
    let event = Event {
        fields: &fields,
        entities: 3,
        clock: 0,
        message: "something happened",
        severity: if n >= FIRST_ERROR { Severity::ERROR } else { Severity::INFO },
        ..Event::new(event_id(n), tapio_core::clock::wall_ns(), names::OTLP_LOG, names::OTLP)
    };
    let header = Header::event(COLLECTOR, 0, event.time_ns);
    loop {
        match writer.write_event(&header, &event) {
            Ok(()) => return,
            Err(WriteError::Full) => {
                bell.ring();
                std::thread::sleep(Duration::from_micros(50));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Node {
    /// Writes events `range` into the rings, on a thread of its own.
    fn feed(&mut self, range: std::ops::Range<u64>) -> JoinHandle<Vec<RecordWriter>> {
        let (collect, bell) = (Arc::clone(&self.collect), Arc::clone(&self.bell));
        let mut writers = std::mem::take(&mut self.writers);
        std::thread::spawn(move || {
            for n in range {
                send_event(&mut writers[(n % SHARDS) as usize], &bell, n);
                collect.add_received(COLLECTOR, 1);
                collect.add_forwarded(COLLECTOR, 1);
                if n % 64 == 0 {
                    bell.ring();
                }
            }
            bell.ring();
            writers
        })
    }

    fn wait_for_acks(&self, events: u64) {
        eventually("the events are acknowledged", || {
            counter(self.bridge.stats(), "events_acked") >= events
        });
    }

    /// Ends the bridge as an agent does: closes the rings, then drains.
    fn end(mut self) -> Ledger {
        self.writers.clear();
        self.shutdown.request();
        self.bridge.join();
        self.ledger
    }
}

/// Reads a counter of the bridge.
fn counter(stats: &BridgeStats, name: &str) -> u64 {
    stats.readings().find(|reading| reading.name == name).unwrap().value
}

fn server_config(dir: &Path, grpc: SocketAddr) -> ServerConfig {
    ServerConfig {
        grpc_listen: grpc.into(),
        http_listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: dir.to_owned(),
        segment_bytes: 4 * 1024 * 1024,
        ..ServerConfig::default()
    }
}

fn start(dir: &Path, grpc: SocketAddr) -> ServerHandle {
    Server::start(server_config(dir, grpc)).unwrap()
}

/// How often each event is in the storage of a stopped server.
fn stored(dir: &Path) -> HashMap<EventId, u32> {
    count_events(&Storage::open(&server_config(dir, any_port()), Arc::new(OsFiles)).unwrap())
}

/// The batches of all matching events, in one page.
fn all_events(storage: &Storage, filter: &Filter) -> Vec<tapio::server::MatchingBatch> {
    let selection = storage.select_events(filter.clone(), Cursor::NEWEST);
    let page = selection.read(&Budget::UNLIMITED);
    // After a loss of power, frames that were never acknowledged look like lost ones.
    assert_eq!(page.next, None);
    page.items
}

fn count_events(storage: &Storage) -> HashMap<EventId, u32> {
    let mut seen = HashMap::new();
    for found in all_events(storage, &Filter::default()) {
        let batch = Batch::parse(&found.batch).unwrap();
        let mut decoder = batch.decoder();
        for item in batch.items() {
            if let Item::Event(raw) = item {
                *seen.entry(decoder.event(raw).unwrap().event.id).or_default() += 1;
            }
        }
    }
    seen
}

fn assert_stored_once(dir: &Path, events: u64) {
    let seen = stored(dir);
    assert_eq!(seen.len() as u64, events);
    assert!(seen.values().all(|times| *times == 1), "an event is stored twice");
    assert!((0..events).all(|n| seen.contains_key(&event_id(n))));
}

fn assert_cons1(ledger: &Ledger, received: u64, forwarded: u64) {
    let snapshot = ledger.snapshot();
    assert!(snapshot.holds(), "{snapshot:?}");
    let account = &snapshot.collectors[usize::from(COLLECTOR)];
    assert_eq!((account.received, account.forwarded, account.held), (received, forwarded, 0));
}

#[test]
fn every_event_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut node = node(config(server.grpc_addr));
    node.writers = node.feed(0..200_000).join().unwrap();
    let ledger = node.end();
    assert_cons1(&ledger, 200_000, 200_000);
    let status = server.status();
    assert_eq!((status.ingest.events, status.ingest.duplicates), (200_000, 0));
    assert_eq!(status.latency.count, 200_000);
    drop(server);
    assert_stored_once(dir.path(), 200_000);
}

#[test]
fn server_restarts_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path(), any_port());
    let address = server.grpc_addr;
    let mut node = node(config(address));
    let feeding = node.feed(0..200_000);
    for round in 1..=4 {
        node.wait_for_acks(round * 30_000);
        drop(server);
        std::thread::sleep(Duration::from_millis(50));
        server = start(dir.path(), address);
    }
    node.writers = feeding.join().unwrap();
    let stats = Arc::clone(node.bridge.stats());
    let ledger = node.end();
    assert_cons1(&ledger, 200_000, 200_000);
    assert!(counter(&stats, "connects") >= 2);
    drop(server);
    assert_stored_once(dir.path(), 200_000);
}

#[test]
fn server_started_late_receives_every_event() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut node = node(config(address));
    node.writers = node.feed(0..5_000).join().unwrap();
    eventually("a connection fails", || counter(node.bridge.stats(), "failed_connects") > 0);
    assert!(node.ledger.snapshot().holds());
    assert_eq!(node.ledger.snapshot().total.held, 5_000);
    let server = start(dir.path(), address);
    let ledger = node.end();
    assert_cons1(&ledger, 5_000, 5_000);
    drop(server);
    assert_stored_once(dir.path(), 5_000);
}

#[test]
fn full_queue_causes_backpressure_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let small = BridgeConfig { queue_bytes: 256 * 1024, batch_bytes: 64 * 1024, ..config(address) };
    let mut node = node(small);
    let feeding = node.feed(0..50_000);
    eventually("the queue is full", || counter(node.bridge.stats(), "queue_bytes") >= 256 * 1024);
    std::thread::sleep(Duration::from_millis(50));
    assert!(counter(node.bridge.stats(), "queue_bytes") < 512 * 1024);
    assert!(!feeding.is_finished(), "no backpressure: the rings accepted 50,000 events");
    let server = start(dir.path(), address);
    node.writers = feeding.join().unwrap();
    assert_cons1(&node.end(), 50_000, 50_000);
    drop(server);
    assert_stored_once(dir.path(), 50_000);
}

#[test]
fn shutdown_without_a_server_counts_dropped_events() {
    let impatient =
        BridgeConfig { drain_timeout: Duration::from_millis(100), ..config(free_address()) };
    let mut node = node(impatient);
    node.writers = node.feed(0..1_000).join().unwrap();
    let ledger = node.end();
    assert_cons1(&ledger, 1_000, 0);
    let dropped = &ledger.snapshot().total.dropped;
    assert_eq!(dropped, &[(Stage::Bridge, Reason::Shutdown, 1_000)]);
}

/// A story; all even ones share a member, and so do all odd ones.
fn story(n: u8, revision: u32) -> Story {
    let member = Member {
        id: EventId([n % 2; 16]),
        label: String::new(),
        time_ns: 1,
        kind: "t.a".into(),
        source: "t".into(),
        severity: Severity::ERROR,
        role: String::new(),
        pattern: String::new(),
        summary: String::new(),
    };
    Story {
        id: TraceId([n; 16]),
        trace_id: TraceId([n; 16]),
        rule: "test-rule".into(),
        pattern: if n.is_multiple_of(2) { "even" } else { "odd" }.into(),
        name: format!("story {n}"),
        intent: "a test".into(),
        state: StoryState::Updated,
        revision,
        key: vec![("host.name".into(), "node-1".into())],
        members: vec![member],
        members_total: u64::from(revision),
        first_ns: 1,
        last_ns: 2,
        severity: Severity::ERROR,
        actions: vec!["inspect".into()],
        confidence: 0.5,
        ..Story::default()
    }
}

/// A plain HTTP request, like one of curl.
fn http(address: SocketAddr, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn stories_and_events_are_queried_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path(), any_port());
    let mut node = node(config(server.grpc_addr));
    for revision in 0..3 {
        for n in 1..=4 {
            node.writers[0].write_story(&story(n, revision)).unwrap();
        }
    }
    node.writers = node.feed(0..100).join().unwrap();
    let ledger = node.end();
    assert_cons1(&ledger, 100, 100);
    for restarted in [false, true] {
        if restarted {
            let address = server.grpc_addr;
            drop(server);
            server = start(dir.path(), address);
        }
        let web = server.http_addr;
        let json = |path: &str| -> serde_json::Value {
            let (code, body) = http(web, path);
            assert_eq!(code, 200, "{path}: {body}");
            serde_json::from_str(&body).unwrap()
        };
        let items = |path: &str| json(path)["items"].clone();
        let stories = items("/api/v1/stories");
        assert_eq!(stories.as_array().unwrap().len(), 4);
        assert_eq!(stories[0]["name"], "story 4");
        assert_eq!(stories[0]["revision"], 2);
        let links = stories[0]["links"].as_array().unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!((&links[0]["name"], &links[0]["shared"]), (&"story 2".into(), &1.into()));
        assert_eq!(items("/api/v1/stories?pattern=odd&limit=1")[0]["name"], "story 3");
        let id = TraceId([2; 16]).to_string();
        assert_eq!(json(&format!("/api/v1/stories/{id}"))["name"], "story 2");
        assert_eq!(http(web, "/api/v1/stories/beef").0, 400);
        assert_eq!(http(web, &format!("/api/v1/stories/{}", "ab".repeat(16))).0, 404);
        let events = items("/api/v1/events?kind=otlp.*&limit=3");
        assert_eq!(events.as_array().unwrap().len(), 3);
        // The last two are from different rings, which the bridge reads one after the other.
        assert!(events[0]["entity"]["process.pid"].as_u64() >= Some(98), "newest first: {events}");
        assert_eq!(events[0]["message"], "something happened");
        assert_eq!(items("/api/v1/events?kind=kernel.tcp.*"), serde_json::json!([]));
        let found = items("/api/v1/events?entity=process.pid=42");
        assert_eq!(found.as_array().unwrap().len(), 1);
        assert_eq!(found[0]["entity"]["process.pid"], 42);
        assert_eq!(items("/api/v1/events?entity=process.pid=4200"), serde_json::json!([]));
        assert_eq!(http(web, "/api/v1/events?kinds=x").0, 400);
        assert_eq!(json("/api/v1/stats")["stories_kept"], 4);
        assert_eq!(http(web, "/healthz"), (200, "ok\n".into()));
        assert_eq!(http(web, "/readyz").0, 200);
        assert!(http(web, "/metrics").1.contains("tapio_server_stories_kept 4\n"));
    }
}

#[test]
fn second_server_fails_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let other = tempfile::tempdir().unwrap();
    let error = Server::start(server_config(other.path(), server.grpc_addr)).err().unwrap();
    assert!(error.to_string().starts_with("grpc_listen: 127.0.0.1:"), "{error}");
    let error = Server::start(server_config(dir.path(), any_port())).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn torn_tail_is_cut_off_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut node = node(config(server.grpc_addr));
    node.writers = node.feed(0..1_000).join().unwrap();
    node.wait_for_acks(1_000);
    drop(server);
    let mut segments: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "tapio"))
        .collect();
    segments.sort();
    let last = std::fs::OpenOptions::new().write(true).open(segments.last().unwrap()).unwrap();
    last.set_len(last.metadata().unwrap().len() / 2).unwrap();
    let server = start(dir.path(), any_port());
    let recovered = server.status().store;
    assert!(recovered.torn_bytes > 0, "{recovered:?}");
    assert_eq!((recovered.lost_bytes, recovered.corrupt_frames), (0, 0));
    drop(server);
    let kept = stored(dir.path()).len();
    assert!(kept < 1_000);
    node.end();
}
