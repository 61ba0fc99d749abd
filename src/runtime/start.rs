//! Starts the components of an agent, in the direction opposite to that of the data.

use std::sync::Arc;

use super::config::Config;
use super::memory::{LimitedMemory, MemoryWatch};
use super::recovery_log::{RecoveryLog, RecoveryLogState};
use super::reload::{self, RuleFiles};
use super::rows::{accounts, given_times, origin};
use super::rule_texts::builtin_rule_texts;
use super::service_state::kept_services;
use super::start_error::{StartError, system_error};
use crate::bridge::{
    self, Bridge, BridgeHandle, BridgeSpool, LatestReport, QUARANTINE_FILE, SpoolConfig, SpoolFeed,
};
use crate::export::{self, Exporters};
use crate::server::{Server, ServerHandle};
use crate::telemetry::in_span;
use tapio_collectors::{CollectorManager, CollectorSpec, Row, Site};
use tapio_core::clock;
use tapio_core::cpu::ThreadLayout;
use tapio_core::event::Stage;
use tapio_core::memory::MemoryPressure;
use tapio_core::redact::Redactor;
use tapio_core::ring::{Bell, Ledger, RecordReader, Router, Sink};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::evidence::{Bounds, LiveWeights};
use tapio_dataflow::rules::{LiveRules, RuleSet};
use tapio_dataflow::{CollectorRings, LaneOptions, Order, Started, Topology};

/// Blocks of 64 bytes that an event of usual size (197 bytes, 8 attributes) takes in a ring.
const BLOCKS_PER_EVENT: usize = 8;

/// Blocks of 64 bytes of the ring that carries stories to the bridge.
const STORY_RING_BLOCKS: usize = 1 << 14;

/// Sets of rings per collector. The second set is for the run that replaces a hung one, which keeps
/// the first.
const RING_SETS: usize = 2;

/// Shared by the components as they are started one after the other.
pub(super) struct Start {
    pub(super) node: String,
    pub(super) epoch: u64,
    pub(super) shutdown: Shutdown,
    pub(super) layout: Arc<ThreadLayout>,
    pub(super) memory: MemoryPressure,
    pub(super) redactor: Arc<Redactor>,
    /// Whether events are redacted.
    pub(super) redacts_events: bool,
    pub(super) ledger: Ledger,
    /// The weights of the evidence, which a reload replaces.
    pub(super) weights: LiveWeights,
    /// The agent's reports of its own state.
    pub(super) reports: Arc<LatestReport>,
}

impl Start {
    pub(super) fn new(config: &Config, rows: &[Row], layout: ThreadLayout) -> Self {
        Self {
            node: config.node_name(),
            epoch: clock::wall_ns(),
            shutdown: Shutdown::default(),
            layout: Arc::new(layout),
            memory: MemoryPressure::default(),
            redactor: config.redactor(),
            redacts_events: config.redact.enabled,
            ledger: Ledger::new(accounts(rows)),
            weights: LiveWeights::new(config.evidence.weights.weights()),
            reports: Arc::default(),
        }
    }

    /// The environment of the collectors.
    pub(super) fn site(&self, config: &Config) -> Site {
        Site::new(&self.node, origin(&self.node, self.epoch))
            .with_state_dir(config.state_dir())
            .with_redactor(Arc::clone(&self.redactor))
            .with_layout(Arc::clone(&self.layout))
    }
}

/// Loads the rule set, and prepares its reloads.
pub(super) fn load_rules(config: &Config) -> Result<(Arc<LiveRules>, RuleFiles), StartError> {
    let fingerprint = reload::fingerprint(&config.dataflow.rules);
    let rules = in_span("rules.load", || reload::load(&config.dataflow));
    let rules = rules.map_err(StartError::Rules)?;
    let rules = RuleSet::new(rules, &config.cluster, config.shards());
    let rules = Arc::new(LiveRules::new(rules));
    let files = RuleFiles::new(config.dataflow.clone(), Arc::clone(&rules), fingerprint);
    Ok((rules, files))
}

/// Starts the thread that keeps memory below its limit, if there is one.
pub(super) fn watch_memory(
    config: &Config,
    start: &Start,
) -> Result<Option<LimitedMemory>, StartError> {
    let keys = config.shards() * config.dataflow.max_keys;
    let (memory, shutdown) = (start.memory.clone(), start.shutdown.clone());
    MemoryWatch::start(config.memory_limit, keys, memory, shutdown)
        .map_err(system_error("thread memory"))
}

/// Starts the embedded server and makes it the bridge's endpoint.
pub(super) fn start_server(config: &mut Config) -> Result<ServerHandle, StartError> {
    let server = Server::start(config.server()).map_err(system_error("embedded server"))?;
    server.describe_rules(builtin_rule_texts);
    config.bridge.endpoint = server.grpc_endpoint().to_owned();
    Ok(server)
}

/// Starts the bridge, and the exporters, which read its spool.
pub(super) fn start_delivery(
    config: &Config,
    (readers, bell): (Vec<RecordReader>, Arc<Bell>),
    reads_again: u32,
    start: &mut Start,
) -> Result<(BridgeHandle, Option<Exporters>), StartError> {
    let spool = config.state_dir().join("spool");
    let mut exporters = Exporters::prepare(&config.export, &spool, Arc::clone(&bell));
    let feed = exporters.as_ref().map(|exporters| Arc::clone(exporters.feed()));
    let bridge = start_bridge(config, (readers, bell), feed, reads_again, start)?;
    if let Some(exporters) = &mut exporters {
        let placement = start.layout.placement(export::THREAD);
        let drain_timeout = config.bridge.drain_timeout;
        let started = exporters.start(&config.otlp_service(), drain_timeout, placement);
        started.map_err(system_error("export"))?;
    }
    Ok((bridge, exporters))
}

/// Starts the bridge, which reads the shards' rings and the assessor's.
fn start_bridge(
    config: &Config,
    (readers, bell): (Vec<RecordReader>, Arc<Bell>),
    exports: Option<Arc<SpoolFeed>>,
    reads_again: u32,
    start: &mut Start,
) -> Result<BridgeHandle, StartError> {
    let bridge = Bridge {
        config: config.bridge(),
        node: start.node.clone(),
        epoch: start.epoch,
        readers,
        bell,
        ledger: start.ledger.stage(Stage::Bridge),
        shutdown: start.shutdown.clone(),
        spool: spool(config, start, reads_again),
        exports,
        reports: Arc::clone(&start.reports),
        quarantine: Some(config.state_dir().join(QUARANTINE_FILE)),
        placement: start.layout.placement(bridge::THREAD),
    };
    bridge.spawn().map_err(system_error("bridge"))
}

/// The bridge's spool, unless it is disabled.
fn spool(config: &Config, start: &mut Start, reads_again: u32) -> Option<BridgeSpool> {
    let bytes = config.bridge.spool_bytes;
    let recovered = start.ledger.names().len() as u8 - 1;
    let ledger = start.ledger.stage(Stage::Collect);
    let dir = config.state_dir().join("spool");
    let durability = config.bridge.durability;
    let config = SpoolConfig { dir, bytes, durability, recovered };
    (bytes > 0).then_some(BridgeSpool { config, ledger, reads_again })
}

/// Plans the shards and the assessor thread, with rings for this many collectors. `given_times`:
/// bit n is set for a collector whose senders choose the times of its events.
fn topology(
    config: &Config,
    rules: &Arc<LiveRules>,
    collectors: usize,
    given_times: u32,
) -> Topology {
    let ring_blocks = config.dataflow.buffer_size * BLOCKS_PER_EVENT;
    Topology::new(Arc::clone(rules), Order::Arrival)
        .lane_options(LaneOptions {
            max_keys: config.dataflow.max_keys,
            max_stories: config.dataflow.max_stories,
            given_times,
            ..LaneOptions::default()
        })
        .correlation(config.dataflow.enable_semantic_grouping)
        .evidence(Bounds::LIVE)
        .service_sensitivity(config.dataflow.service_sensitivity)
        .kept_services(kept_services(&config.state_dir()))
        .ring_blocks(ring_blocks)
        .collectors(collectors)
        .assessor_thread(ring_blocks.min(STORY_RING_BLOCKS))
}

/// Starts the threads of the shards and the assessor, and of the recovery log where it is enabled:
/// the shards are first restored from the log of an earlier run.
pub(super) fn start_correlator(
    config: &Config,
    rules: &Arc<LiveRules>,
    rows: &[Row],
    exit_bell: &Arc<Bell>,
    start: &mut Start,
) -> Result<(Started, Option<RecoveryLogState>), StartError> {
    let mut topology = topology(config, rules, RING_SETS * rows.len(), given_times(rows));
    topology = topology.memory(start.memory.clone()).weights(start.weights.clone());
    let mut recovery_log = None;
    if config.dataflow.recovery_log_bytes > 0 && config.dataflow.enable_semantic_grouping {
        let dir = config.state_dir().join("recovery");
        let state = match RecoveryLog::open(dir, config.dataflow.recovery_log_bytes) {
            Ok(log) => {
                let mut state = RecoveryLogState { stats: log.stats(), ..Default::default() };
                topology = topology.restored(|shards| {
                    if let Err(error) = log.restore(&rules.current(), shards) {
                        state.unreadable(&error);
                    }
                });
                let (node, epoch) = (start.node.clone(), start.epoch);
                topology =
                    topology.recorder(move |rings, bell| log.record(rings, bell, &node, epoch));
                state
            }
            Err(error) => RecoveryLogState::unavailable(&error),
        };
        recovery_log = Some(state);
    }
    let Start { shutdown, layout, ledger, .. } = start;
    let started = topology
        .start(exit_bell, ledger, shutdown, layout)
        .map_err(system_error("correlator threads"))?;
    Ok((started, recovery_log))
}

/// Starts the collectors, each with [`RING_SETS`] sets of rings.
pub(super) fn start_collectors(
    mut manager: CollectorManager,
    rows: Vec<Row>,
    entrances: Vec<CollectorRings>,
    router: &Arc<dyn Router>,
    start: &mut Start,
) -> Result<CollectorManager, StartError> {
    let redactor = start.redacts_events.then(|| Arc::clone(&start.redactor));
    let Start { shutdown, memory, ledger, .. } = start;
    let mut entrances = entrances.into_iter();
    for (number, row) in (0u8..).zip(rows) {
        let mut new_sink = |entrance| {
            let (stage, kernel) = (ledger.stage(Stage::Collect), ledger.stage(Stage::Kernel));
            Sink::new(number, row.on_full, Arc::clone(router), entrance, stage, shutdown.clone())
                .with_kernel_ledger(kernel)
                .with_memory(memory.clone())
                .with_redactor(redactor.clone())
        };
        let (Some(first), Some(second)) = (entrances.next(), entrances.next()) else { break };
        let sink = new_sink(first).with_spare(new_sink(second));
        let spec = CollectorSpec { name: row.name, factory: row.factory, sink };
        manager.start(spec).map_err(system_error("collector thread"))?;
    }
    Ok(manager)
}
