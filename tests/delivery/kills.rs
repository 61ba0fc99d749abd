//! Kills of the agent, of the server, of both, also while the server doesn't answer, at random
//! times under load: over `receiver`, OTLP and a followed file. The senders' own ledgers of what
//! was answered are the oracle: each of those events is stored exactly once, and so is each line of
//! the file; nothing is stored twice.
//!
//! `TAPIO_KILLS=1000 cargo test --test delivery kills` runs as many rounds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use tapio_wire::{IngestClient, IngestClientConfig, grpc_framed, proto};

use super::support::agent;
use super::support::sim_disk::Rng;
use super::*;

const BATCH_EVENTS: u64 = 50;
/// Records of an OTLP request.
const RECORDS: u64 = 20;

/// The ways that events take; their messages begin with it.
const RECEIVER: &str = "receiver";
const OTLP: &str = "otlp";
const FILE: &str = "file";

/// The faults of a round.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillAgent,
    KillServer,
    KillBoth,
    /// The server is stopped while the agent is killed, and goes on in the next round.
    StallServerAndKillAgent,
}

/// The processes and their files.
struct Lab {
    dir: tempfile::TempDir,
    receiver: SocketAddr,
    otlp: SocketAddr,
    admin: SocketAddr,
    agent: Option<Child>,
    server: Option<Child>,
    is_stalled: bool,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (receiver, otlp, admin) = (free_address(), free_address(), free_address());
        let (grpc, http, otlp_grpc) = (free_address(), free_address(), free_address());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (state, store, file) = (path("state"), path("store"), path("app.jsonl"));
        std::fs::write(dir.path().join("app.jsonl"), "").unwrap();
        let yaml = format!(
            "state_dir: {state}\nnode: test\nadmin: {{ listen: \"{admin}\" }}\ncollectors:\n  \
             only: [receiver, otlp, jsonl]\n  \
             receiver: {{ enabled: true, listen: \"{receiver}\" }}\n  \
             otlp: {{ enabled: true, grpc_listen: \"{otlp_grpc}\", http_listen: \"{otlp}\" }}\n  \
             jsonl: {{ paths: [\"{file}\"], follow: true }}\n\
             bridge: {{ endpoint: \"{grpc}\", reconnect_max: 50ms, queue_bytes: 524288 }}\n\
             server: {{ grpc_listen: \"{grpc}\", http_listen: \"{http}\", data_dir: {store} }}\n"
        );
        std::fs::write(dir.path().join("tapio.yaml"), yaml).unwrap();
        Self { dir, receiver, otlp, admin, agent: None, server: None, is_stalled: false }
    }

    fn start(&self, verb: &str) -> Child {
        let config = self.dir.path().join("tapio.yaml");
        agent::start_quiet(&[verb, "--config", &config.display().to_string()])
    }

    fn start_what_is_down(&mut self) {
        if self.server.is_none() {
            self.server = Some(self.start("server"));
        }
        if self.agent.is_none() {
            self.agent = Some(self.start("run"));
        }
    }

    fn signal_server(&self, signal: Signal) {
        if let Some(server) = &self.server {
            kill_process(Pid::from_raw(server.id() as i32).unwrap(), signal).unwrap();
        }
    }

    fn inject(&mut self, fault: Fault) {
        if matches!(fault, Fault::KillServer | Fault::KillBoth) {
            kill(self.server.take());
            self.is_stalled = false;
        }
        if matches!(fault, Fault::StallServerAndKillAgent) {
            self.signal_server(Signal::STOP);
            self.is_stalled = true;
        }
        if !matches!(fault, Fault::KillServer) {
            kill(self.agent.take());
        }
    }

    fn resume_server(&mut self) {
        if std::mem::take(&mut self.is_stalled) {
            self.signal_server(Signal::CONT);
        }
    }

    fn status(&self) -> Option<serde_json::Value> {
        TcpStream::connect(self.admin).ok()?;
        serde_json::from_str(&http(self.admin, "/status").1).ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.resume_server();
        kill(self.agent.take());
        kill(self.server.take());
    }
}

fn kill(process: Option<Child>) {
    if let Some(mut process) = process {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// The message of an event: its way, the round, and its number in it.
fn message(way: &str, round: u64, n: u64) -> String {
    format!("{way} {round} {n}")
}

fn batch(round: u64, first: u64) -> Vec<u8> {
    let event = |n| proto::Event {
        time_unix_nano: 1,
        id: EventId::from_sequence(round, 7, n).0.to_vec(),
        message: message(RECEIVER, round, n),
        ..Default::default()
    };
    let batch = proto::EventBatch {
        first_sequence: first,
        count: BATCH_EVENTS as u32,
        node: "sender".into(),
        epoch: round,
        names: vec!["test.kind".into()],
        events: (first..first + BATCH_EVENTS).map(event).collect(),
        ..Default::default()
    };
    batch.encode_to_vec()
}

/// Sends batches to the receiver until the round is over. Returns how many events it acknowledged.
fn send_batches(to: SocketAddr, round: u64, is_over: &AtomicBool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = IngestClientConfig::to(&to.to_string());
    let mut acknowledged = 0;
    runtime.block_on(async {
        let Some(mut client) = connect(&config, is_over).await else { return };
        let mut sent = 0;
        while !is_over.load(Ordering::Relaxed) {
            while sent < acknowledged + 40 * BATCH_EVENTS
                && client.send_framed(grpc_framed(&batch(round, sent))).is_ok()
            {
                sent += BATCH_EVENTS;
            }
            match tokio::time::timeout(Duration::from_millis(50), client.ack()).await {
                Ok(Ok(ack)) => acknowledged = ack.through,
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
    });
    acknowledged
}

async fn connect(config: &IngestClientConfig, is_over: &AtomicBool) -> Option<IngestClient> {
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(client) = IngestClient::connect(config).await {
            return Some(client);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// A field of a protobuf message whose content has a length below 16 KiB.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// An `ExportLogsServiceRequest` (opentelemetry-proto 1.x, collector/logs/v1).
fn export_request(round: u64, first: u64) -> Vec<u8> {
    let record = |n| field(2, &field(5, &field(1, message(OTLP, round, n).as_bytes())));
    let records: Vec<u8> = (first..first + RECORDS).flat_map(record).collect();
    field(1, &field(2, &records))
}

/// Posts a request. Returns whether it was answered with success.
fn post(to: SocketAddr, body: &[u8]) -> Option<bool> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer.starts_with(b"HTTP/1.1 200"))
}

/// Posts requests until the round is over. Returns the first record of each that was answered.
fn send_requests(to: SocketAddr, round: u64, is_over: &AtomicBool) -> Vec<u64> {
    let (mut answered, mut next) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        match post(to, &export_request(round, next)) {
            Some(true) => answered.push(next),
            Some(false) | None => std::thread::sleep(Duration::from_millis(2)),
        }
        // A request that wasn't answered isn't repeated: it may have been taken.
        next += RECORDS;
    }
    answered
}

/// Appends lines to the file until the round is over. Returns how many.
fn append_lines(path: &Path, round: u64, is_over: &AtomicBool) -> u64 {
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let mut lines = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut text = String::new();
        for _ in 0..10 {
            let message = message(FILE, round, lines);
            text.push_str(&format!(
                "{{\"time\":\"2026-01-02T03:04:05Z\",\"kind\":\"app.log\",\"source\":\"app\",\
                 \"message\":\"{message}\"}}\n"
            ));
            lines += 1;
        }
        file.write_all(text.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    lines
}

/// The knowledge of a round's senders.
struct SenderLedger {
    round: u64,
    acknowledged: u64,
    answered: Vec<u64>,
    lines: u64,
}

impl SenderLedger {
    /// The messages of all events that must be stored.
    fn messages(&self) -> impl Iterator<Item = String> + '_ {
        let otlp = self.answered.iter().flat_map(|first| *first..*first + RECORDS);
        let ways = [(RECEIVER, self.acknowledged), (FILE, self.lines)];
        let others = ways.into_iter().flat_map(|(way, n)| (0..n).map(move |n| (way, n)));
        others.chain(otlp.map(|n| (OTLP, n))).map(|(way, n)| message(way, self.round, n))
    }
}

/// Runs the senders, and injects a fault after a while.
fn run_round(lab: &mut Lab, round: u64, fault: Fault, after: Duration) -> SenderLedger {
    let is_over = AtomicBool::new(false);
    let (receiver, otlp, file) = (lab.receiver, lab.otlp, lab.dir.path().join("app.jsonl"));
    std::thread::scope(|scope| {
        let batches = scope.spawn(|| send_batches(receiver, round, &is_over));
        let requests = scope.spawn(|| send_requests(otlp, round, &is_over));
        let lines = scope.spawn(|| append_lines(&file, round, &is_over));
        std::thread::sleep(after);
        lab.inject(fault);
        std::thread::sleep(Duration::from_millis(5));
        is_over.store(true, Ordering::Relaxed);
        SenderLedger {
            round,
            acknowledged: batches.join().unwrap(),
            answered: requests.join().unwrap(),
            lines: lines.join().unwrap(),
        }
    })
}

/// How often each message is stored, after the server was killed.
fn stored_messages(dir: &Path) -> HashMap<String, u32> {
    let storage = Storage::open(&server_config(dir, any_port()), Arc::new(OsFiles)).unwrap();
    let mut seen = HashMap::new();
    let page = storage.select_events(Filter::default(), Cursor::NEWEST).read(&Budget::UNLIMITED);
    for found in page.items {
        for event in proto::EventBatch::decode(&found.batch[..]).unwrap().events {
            *seen.entry(event.message).or_default() += 1;
        }
    }
    seen
}

#[test]
fn answered_events_survive_kills_of_agent_and_server() {
    let rounds: u64 = std::env::var("TAPIO_KILLS").map_or(16, |n| n.parse().unwrap());
    let mut rng = Rng(std::env::var("TAPIO_SEED").map_or(5, |n| n.parse().unwrap()));
    let mut lab = Lab::new();
    let mut ledgers = Vec::new();
    // A slow machine needs more time to start than others for a round.
    lab.start_what_is_down();
    let began = tapio_core::clock::instant();
    eventually("the agent has started", || lab.status().is_some());
    let start_us = began.elapsed().as_micros() as u64;
    for round in 1..=rounds {
        lab.resume_server();
        lab.start_what_is_down();
        let fault = match rng.below(4) {
            0 => Fault::KillAgent,
            1 => Fault::KillServer,
            2 => Fault::KillBoth,
            _ => Fault::StallServerAndKillAgent,
        };
        // From before the agent has started to well within the load.
        let after = Duration::from_micros(2_000 + rng.below(250_000 + start_us));
        ledgers.push(run_round(&mut lab, round, fault, after));
    }
    lab.resume_server();
    lab.start_what_is_down();
    let lines: u64 = ledgers.iter().map(|ledger| ledger.lines).sum();
    let mut quiet = 0;
    eventually("everything has arrived", || {
        std::thread::sleep(Duration::from_millis(200));
        let Some(status) = lab.status() else { return false };
        let is_empty =
            status["cons1"]["total"]["held"] == 0 && status["bridge"]["connected"] == true;
        quiet = if is_empty { quiet + 1 } else { 0 };
        quiet > 5
    });
    let dir = lab.dir.path().join("store");
    kill(lab.agent.take());
    kill(lab.server.take());
    let stored = stored_messages(&dir);
    let expected: Vec<String> = ledgers.iter().flat_map(SenderLedger::messages).collect();
    let lost: Vec<_> = expected.iter().filter(|m| !stored.contains_key(*m)).take(20).collect();
    assert!(lost.is_empty(), "of {} events: {lost:?}", expected.len());
    let twice: Vec<_> = stored.iter().filter(|(_, times)| **times > 1).take(20).collect();
    assert!(twice.is_empty(), "stored twice: {twice:?}");
    for (way, least) in [(RECEIVER, rounds), (OTLP, rounds / 4), (FILE, lines)] {
        let n = expected.iter().filter(|message| message.starts_with(way)).count() as u64;
        assert!(n >= least && n > 0, "{n} events over {way}");
    }
}
