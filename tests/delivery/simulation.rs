//! Deterministic simulation of delivery: the agent's outbox and spool, the network and the server's
//! ingest and store, on simulated disks. One seed decides what happens, in which order, and what
//! fails: kills and losses of power of either side, full, failing and read-only disks, lost
//! connections whose last messages arrive late, and clocks that jump.
//!
//! The oracle is a ledger of the events that were accepted. At the end, with every fault healed,
//! each of them is stored exactly once, or no more are missing than were counted as dropped;
//! nothing is stored twice, and the accounts hold. Where no agent is killed, exactly as many are
//! missing: the next process can't know what the server has without having acknowledged it.
//!
//! `TAPIO_SEED=N cargo test --test delivery simulation` runs one seed.

mod small_disk;
mod tampering;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use tapio::bridge::{Outbox, OutboxConfig, SpoolConfig, SpoolSync};
use tapio::server::{Ingest, IngestStream};
use tapio::store::{Durability, Files};
use tapio_core::ring::{RecordReader, StageLedger};
use tapio_wire::{BatchEncoder, BatchHandler as _, EncodedBatch, GRPC_PREFIX_BYTES, proto::Ack};

use super::support::seeds::run_each;
use super::support::sim_disk::{Rng, SimDisk};
use super::*;

const SEEDS: u64 = 2_000;
const STEPS: u64 = 120;
/// Steps without faults in which everything has to arrive.
const HEALED_STEPS: u64 = 4_000;
/// Events of a batch.
const MAX_EVENTS: u64 = 30;
const LANES: u8 = 2;
const RECOVERED: u8 = LANES;

/// A connection: batches on their way to the server, acks on their way back.
struct Connection {
    to_server: VecDeque<Bytes>,
    to_agent: VecDeque<Ack>,
    stream: IngestStream,
    retry: Option<Bytes>,
    /// Whether the agent still listens. What it has sent may arrive later all the same.
    has_agent: bool,
    is_ended: bool,
}

/// The agent's process.
struct Agent {
    outbox: Outbox,
    ledger: Ledger,
    collect: Arc<StageLedger>,
    encoders: [BatchEncoder; LANES as usize],
    syncing: Option<SpoolSync>,
    /// Events offered to each lane, in order.
    offered: [Vec<u64>; LANES as usize],
}

struct World {
    seed: u64,
    rng: Rng,
    agent_disk: SimDisk,
    server_disk: SimDisk,
    durability: Durability,
    server_durability: Durability,
    /// Whether an agent was killed.
    has_killed_agent: bool,
    agent: Option<Agent>,
    server: Option<Ingest>,
    connections: Vec<Connection>,
    ring: (RecordWriter, RecordReader),
    next_event: u64,
    next_epoch: u64,
    /// Accepted by processes that are gone.
    accepted: Vec<u64>,
    /// Dropped and counted by processes that are gone.
    dropped: u64,
    now_ns: u64,
}

fn server_config(durability: Durability) -> ServerConfig {
    ServerConfig {
        data_dir: "/store".into(),
        segment_bytes: 64 * 1024,
        retention_bytes: 1 << 30,
        durability,
        ..ServerConfig::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds of this generator have the same numbers, shifted by one.
        let mut rng = Rng(Rng(seed).next());
        let mut durability = || match rng.one_in(2) {
            true => Durability::Power,
            false => Durability::Process,
        };
        let (durability, server_durability) = (durability(), durability());
        let mut world = Self {
            seed,
            rng,
            agent_disk: SimDisk::default(),
            server_disk: SimDisk::default(),
            durability,
            server_durability,
            has_killed_agent: false,
            agent: None,
            server: None,
            connections: Vec::new(),
            ring: ring(4096),
            next_event: 0,
            next_epoch: 1_000,
            accepted: Vec::new(),
            dropped: 0,
            now_ns: 1 << 60,
        };
        world.start_agent();
        world.start_server();
        world
    }

    fn start_agent(&mut self) {
        let mut ledger = Ledger::new(vec!["important".into(), "ordinary".into(), "spool".into()]);
        let (collect, stage) = (ledger.stage(Stage::Collect), ledger.stage(Stage::Bridge));
        self.next_epoch += 10;
        let spool = SpoolConfig {
            dir: "/spool".into(),
            bytes: 512 * 1024,
            durability: self.durability,
            recovered: RECOVERED,
        };
        let config = OutboxConfig {
            node: "n",
            epoch: self.next_epoch,
            queue_bytes: 16 * 1024,
            spool: Some(&spool),
            quarantine: None,
        };
        let files: Arc<dyn Files> = Arc::new(self.agent_disk.clone());
        // A disk that is read-only or full refuses to start; the operator mends it.
        let Ok(outbox) = Outbox::open(config, &files, stage, Some(&collect)) else {
            self.agent_disk.kill();
            return;
        };
        let encoder = |lane| BatchEncoder::new("n", self.next_epoch + lane, 64 * 1024);
        self.agent = Some(Agent {
            outbox,
            ledger,
            collect,
            encoders: [encoder(0), encoder(1)],
            syncing: None,
            offered: [Vec::new(), Vec::new()],
        });
    }

    fn start_server(&mut self) {
        let config = server_config(self.server_durability);
        match Ingest::open(&config, Arc::new(self.server_disk.clone())) {
            Ok(server) => self.server = Some(server),
            Err(_) => self.server_disk.kill(),
        }
    }

    /// Ends the agent's process without warning.
    fn kill_agent(&mut self, loses_power: bool) {
        self.connections.iter_mut().for_each(|connection| connection.has_agent = false);
        let Some(agent) = self.agent.take() else { return };
        self.has_killed_agent = true;
        self.note_accepted(&agent);
        self.dropped += dropped(&agent.ledger);
        drop(agent);
        self.agent_disk.kill();
        if loses_power {
            self.agent_disk.crash(&mut self.rng);
        }
    }

    fn note_accepted(&mut self, agent: &Agent) {
        for lane in 0..LANES {
            let offered = &agent.offered[usize::from(lane)];
            let waiting = agent.ledger.unsettled(lane, 0) as usize;
            self.accepted.extend(&offered[..offered.len() - waiting]);
        }
    }

    fn kill_server(&mut self, loses_power: bool) {
        self.connections.clear();
        if let Some(agent) = &mut self.agent {
            agent.outbox.rewind();
        }
        if self.server.take().is_some() {
            self.server_disk.kill();
            if loses_power {
                self.server_disk.crash(&mut self.rng);
            }
        }
    }

    /// Offers a batch of new events.
    fn offer(&mut self) {
        let lane = self.rng.below(u64::from(LANES)) as u8;
        let events = 1 + self.rng.below(MAX_EVENTS);
        let Some(agent) = &mut self.agent else { return };
        // The bridge reads nothing from its rings otherwise.
        if !agent.outbox.has_room() {
            return;
        }
        for _ in 0..events {
            agent.offered[usize::from(lane)].push(self.next_event);
            encode(&mut self.ring, &mut agent.encoders[usize::from(lane)], lane, self.next_event);
            self.next_event += 1;
        }
        agent.collect.add_received(lane, events);
        agent.collect.add_forwarded(lane, events);
        if let Some(batch) = agent.encoders[usize::from(lane)].finish() {
            agent.outbox.push(lane.into(), EncodedBatch::clone(&batch), self.now_ns);
        }
    }

    /// A pass of the bridge's thread.
    fn run_agent(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if agent.outbox.is_failing() {
            agent.outbox.append(self.now_ns);
        }
        if agent.syncing.is_none() {
            agent.syncing = agent.outbox.begin_sync();
        }
        agent.outbox.refill();
        if let Some(connection) = self.connections.iter_mut().find(|c| c.has_agent) {
            let window = [0, 4_096, 1 << 20][self.rng.below(3) as usize];
            while agent
                .outbox
                .send_next(window, |framed| {
                    let has_room = connection.to_server.len() < 8;
                    if has_room {
                        connection.to_server.push_back(framed.slice(GRPC_PREFIX_BYTES..));
                    }
                    has_room
                })
                .is_some()
            {}
        }
    }

    fn finish_sync(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if let Some(sync) = agent.syncing.take() {
            let results = sync.run();
            agent.outbox.finish_sync(&sync, results);
        }
    }

    /// Opens a connection if there is none.
    fn connect(&mut self) {
        let is_connected = self.connections.iter().any(|c| c.has_agent);
        if let (Some(server), Some(agent), false) = (&self.server, &mut self.agent, is_connected) {
            agent.outbox.rewind();
            self.connections.push(Connection {
                to_server: VecDeque::new(),
                to_agent: VecDeque::new(),
                stream: server.stream(None),
                retry: None,
                has_agent: true,
                is_ended: false,
            });
        }
    }

    fn disconnect(&mut self) {
        self.connections.iter_mut().for_each(|connection| connection.has_agent = false);
        if let Some(agent) = &mut self.agent {
            agent.outbox.rewind();
        }
    }

    /// Lets the server handle some batches of some connection.
    fn run_server(&mut self) {
        if self.server.is_none() || self.connections.is_empty() {
            return;
        }
        let at = self.rng.below(self.connections.len() as u64) as usize;
        let batches = self.rng.below(5);
        self.connections[at].handle(batches);
        self.connections.retain(|c| c.has_agent || !(c.to_server.is_empty() || c.is_ended));
    }

    /// Delivers some acks to the agent.
    fn deliver_acks(&mut self) {
        let acks = 1 + self.rng.below(4);
        let Some(agent) = &mut self.agent else { return };
        let Some(connection) = self.connections.iter_mut().find(|c| c.has_agent) else { return };
        for _ in 0..acks {
            let Some(ack) = connection.to_agent.pop_front() else { break };
            let done = agent.outbox.acknowledge(&ack);
            assert!(!done.has_refused, "seed {}: {ack:?}", self.seed);
        }
        if connection.is_ended && connection.to_agent.is_empty() {
            self.disconnect();
        }
    }

    fn maintain(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.outbox.maintain();
        }
    }

    fn step(&mut self) {
        match self.rng.below(44) {
            0..10 => self.offer(),
            10..17 => self.run_agent(),
            17..20 => self.finish_sync(),
            20..27 => self.run_server(),
            27..29 => self.server.iter().for_each(Ingest::sync),
            29..34 => self.deliver_acks(),
            34..36 => self.maintain(),
            36 => self.disconnect(),
            37 if self.seed.is_multiple_of(4) => self.disconnect(),
            37 => {
                let loses_power = self.durability == Durability::Power && self.rng.one_in(2);
                self.kill_agent(loses_power);
            }
            38 => {
                let loses_power = self.server_durability == Durability::Power && self.rng.one_in(2);
                self.kill_server(loses_power);
            }
            39 => {
                let syncs = self.rng.below(3) as u32;
                if self.rng.one_in(2) { &self.agent_disk } else { &self.server_disk }
                    .fail_syncs(syncs);
            }
            40 => {
                let is_read_only = self.rng.one_in(2);
                if self.rng.one_in(2) { &self.agent_disk } else { &self.server_disk }
                    .set_read_only(is_read_only);
            }
            41 => {
                let bytes = self.rng.below(200_000);
                self.agent_disk.set_capacity(self.rng.one_in(2).then_some(bytes));
            }
            42 => self.now_ns = (1 << 60) + self.rng.below(1 << 50),
            _ => self.start_what_is_down(),
        }
        self.now_ns += self.rng.below(1_000_000_000);
        if self.rng.one_in(3) {
            self.connect();
        }
        if self.rng.one_in(4) {
            self.start_what_is_down();
        }
    }

    fn start_what_is_down(&mut self) {
        if self.agent.is_none() {
            self.start_agent();
        }
        if self.server.is_none() {
            self.start_server();
        }
    }

    /// Gives each part its turn.
    fn pass(&mut self) {
        self.connect();
        self.run_agent();
        self.finish_sync();
        self.run_server();
        self.server.iter().for_each(Ingest::sync);
        self.deliver_acks();
        self.maintain();
    }

    /// Ends all faults and lets everything arrive.
    fn heal(&mut self) {
        for disk in [&self.agent_disk, &self.server_disk] {
            disk.fail_syncs(0);
            disk.set_read_only(false);
            disk.set_capacity(None);
        }
        for _ in 0..HEALED_STEPS {
            self.start_what_is_down();
            self.pass();
            let is_quiet = self.connections.iter().all(|c| c.has_agent);
            if is_quiet && self.agent.as_ref().is_some_and(|agent| agent.outbox.is_empty()) {
                return;
            }
        }
        let seed = self.seed;
        let held = self.agent.as_ref().map(|agent| agent.ledger.snapshot());
        panic!("seed {seed}: something doesn't arrive: {held:?}");
    }

    fn check(mut self) {
        let seed = self.seed;
        let Some(agent) = self.agent.take() else { panic!("seed {seed}: the agent doesn't start") };
        self.note_accepted(&agent);
        self.dropped += dropped(&agent.ledger);
        let snapshot = agent.ledger.snapshot();
        assert!(snapshot.holds() && snapshot.total.held == 0, "seed {seed}: {snapshot:?}");
        let stored: BTreeMap<EventId, u32> =
            self.server.iter().flat_map(|s| s.with_storage(count_events)).collect();
        let twice = stored.iter().find(|(_, times)| **times > 1);
        assert!(twice.is_none(), "seed {seed}: stored twice: {twice:?}");
        let is_lost = |n: &&u64| !stored.contains_key(&event_id(**n));
        let lost: Vec<u64> = self.accepted.iter().filter(is_lost).copied().collect();
        assert!(
            lost.len() as u64 <= self.dropped,
            "seed {seed}: {} accepted events are lost, {} counted: {lost:?}",
            lost.len(),
            self.dropped
        );
        if !self.has_killed_agent {
            assert_eq!(lost.len() as u64, self.dropped, "seed {seed}: stored ones are counted");
        }
    }
}

/// Events that a process has dropped and counted.
fn dropped(ledger: &Ledger) -> u64 {
    ledger.snapshot().total.dropped.iter().map(|(_, _, n)| n).sum()
}

/// Encodes an event of collector `lane`.
fn encode(
    (writer, reader): &mut (RecordWriter, RecordReader),
    encoder: &mut BatchEncoder,
    lane: u8,
    n: u64,
) {
    let event = Event {
        message: "an event of some length, so that a batch has some",
        ..Event::new(event_id(n), n, names::KERNEL_PROCESS_EXEC, Name(0))
    };
    writer.write_event(&Header::event(lane, 0, n), &event).unwrap();
    reader.drain(usize::MAX, |record| {
        encoder.append(record);
        true
    });
}

impl Connection {
    /// Handles batches as the server's `AckStream` does.
    fn handle(&mut self, batches: u64) {
        if self.is_ended {
            return;
        }
        let mut handled = 0;
        for _ in 0..batches {
            let Some(batch) = self.retry.take().or_else(|| self.to_server.pop_front()) else {
                break;
            };
            if self.stream.handle(&batch).is_some() {
                self.retry = Some(batch);
                break;
            }
            handled += 1;
        }
        if handled > 0 {
            self.stream.end_group();
        }
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match self.stream.poll_ack(&mut context) {
                Poll::Ready(Ok(Some(ack))) => self.to_agent.push_back(ack),
                Poll::Ready(Ok(None)) | Poll::Pending => break,
                Poll::Ready(Err(_)) => {
                    self.is_ended = true;
                    break;
                }
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    world.check();
}

#[test]
fn accepted_events_are_stored_once_whatever_fails() {
    let seeds = std::env::var("TAPIO_SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    run_each(seeds, run);
}
