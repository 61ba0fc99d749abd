//! The agent: starts the components in the direction opposite to that of the data, and drains them
//! in its direction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admin::{self, Admin};
use super::config::{Config, DataflowConfig};
use super::lock::AgentLock;
use super::memory::{MemoryStats, MemoryWatch};
use super::recovery_log::{RecoveryLog, RecoveryLogState};
use super::reload::{self, RuleFiles};
use super::rows::{accounts, given_times, origin, reads_again};
use super::sandbox::Sandbox;
use super::start_error::{StartError, system_error};
use super::status::Status;
use crate::bridge::{
    Bridge, BridgeHandle, BridgeSpool, BridgeStats, QUARANTINE_FILE, SpoolConfig, SpoolFeed,
};
use crate::export::Exporters;
use crate::server::{Server, ServerHandle};
use tapio_collectors::{CollectorManager, CollectorSpec, CollectorStatus, Row, Site};
use tapio_core::clock;
use tapio_core::counters::Reading;
use tapio_core::event::Stage;
use tapio_core::memory::MemoryPressure;
use tapio_core::redact::Redactor;
use tapio_core::ring::{Bell, Ledger, RecordReader, Router, Sink, Snapshot};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::evidence::{AssessorStats, Bounds};
use tapio_dataflow::rules::{LiveRules, RuleSet};
use tapio_dataflow::{
    CollectorRings, Correlator, LaneOptions, Order, Started, ThreadPlan, Topology,
};

/// Blocks of 64 bytes that an event of usual size (197 bytes, 8 attributes) takes in a ring.
const BLOCKS_PER_EVENT: usize = 8;

/// Blocks of 64 bytes of the ring that carries stories to the bridge.
const STORY_RING_BLOCKS: usize = 1 << 14;

/// Sets of rings per collector. The second set is for the run that replaces a hung one, which keeps
/// the first.
const RING_SETS: usize = 2;

/// The running agent.
pub struct Agent {
    shutdown: Shutdown,
    manager: Arc<Mutex<CollectorManager>>,
    /// `None` once it is drained.
    correlator: Option<Correlator>,
    files: RuleFiles,
    assessor: Arc<AssessorStats>,
    bridge: BridgeHandle,
    exporters: Option<Exporters>,
    server: Option<ServerHandle>,
    admin: Admin,
    ledger: Arc<Ledger>,
    has_spool: bool,
    _lock: AgentLock,
}

/// Shared by the components as they are started one after the other.
struct Start {
    node: String,
    epoch: u64,
    shutdown: Shutdown,
    threads: ThreadPlan,
    memory: MemoryPressure,
    redactor: Arc<Redactor>,
    /// Whether events are redacted.
    redacts_events: bool,
    ledger: Ledger,
}

impl Start {
    fn new(config: &Config, rows: &[Row]) -> Self {
        Self {
            node: config.node_name(),
            epoch: clock::wall_ns(),
            shutdown: Shutdown::default(),
            threads: ThreadPlan::pinned(),
            memory: MemoryPressure::default(),
            redactor: config.redactor(),
            redacts_events: config.redact.enabled,
            ledger: Ledger::new(accounts(rows)),
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Exit {
    /// CONS-1 at the end.
    pub account: Snapshot,
}

impl Agent {
    /// Starts all components. With `standalone`, a server runs in the same process and the bridge
    /// delivers to it.
    ///
    /// # Errors
    /// When a component that the agent needs can't start.
    pub fn start(config: Config, standalone: bool) -> Result<Self, StartError> {
        let rows = config.collectors.rows();
        Self::start_with(config, standalone, rows, |rules, _| rules)
    }

    /// Starts the agent in a process that may use its rights without limits, as
    /// [`Agent::start_in`].
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_with(
        config: Config,
        standalone: bool,
        rows: Vec<Row>,
        prepare: impl FnOnce(Arc<LiveRules>, Option<&ServerHandle>) -> Arc<dyn Router>,
    ) -> Result<Self, StartError> {
        Self::start_in(None, config, standalone, rows, prepare)
    }

    /// Starts the agent with these collectors, in the sandbox of this process. `prepare` is called
    /// before they start, with the rules' router and the server of `standalone`: the caller can
    /// follow the server from the first event on. It returns the router to use: a test can put a
    /// component of its own between collectors and rules.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_in(
        sandbox: Option<Sandbox>,
        mut config: Config,
        standalone: bool,
        rows: Vec<Row>,
        prepare: impl FnOnce(Arc<LiveRules>, Option<&ServerHandle>) -> Arc<dyn Router>,
    ) -> Result<Self, StartError> {
        let lock = AgentLock::take(&config.state_dir())?;
        let (live, files) = load_rules(&config)?;
        let server = standalone.then(|| start_server(&mut config)).transpose()?;
        let rows: Vec<Row> = rows.into_iter().filter(|r| r.enabled).collect();
        let mut start = Start::new(&config, &rows);
        let memory = watch_memory(&config, &start)?;
        let bell = Arc::new(Bell::new(Default::default()));
        let (Started { correlator, entrances, exits, assessor, .. }, recovery_log) =
            start_correlator(&config, &live, &rows, &bell, &mut start)?;
        let (bridge, exporters) =
            start_delivery(&config, (exits, bell), reads_again(&rows), &mut start)?;
        let site = Site::new(&start.node, origin(&start.node, start.epoch))
            .with_state_dir(config.state_dir())
            .with_redactor(Arc::clone(&start.redactor));
        let manager = CollectorManager::new(site.clone(), start.shutdown.clone())
            .hung_after(config.collectors.hung_after.0)
            .confined(sandbox.as_ref().and_then(|sandbox| sandbox.confinement.clone()));
        let router = prepare(Arc::clone(&live), server.as_ref());
        let manager = start_collectors(manager, rows, entrances, &router, &mut start)?;
        let manager = Arc::new(Mutex::new(manager));
        let Start { node, epoch, shutdown, redactor, ledger, .. } = start;
        let ledger = Arc::new(ledger);
        site.set_ledger(Arc::clone(&ledger));
        let access = admin::access(&config.admin.listen, &config.admin.access());
        let access = access.map_err(|e| system_error("admin")(std::io::Error::other(e)))?;
        let status = Status {
            access,
            node,
            service: config.dataflow.service(),
            started_ns: epoch,
            rules: live,
            reloads: files.stats(),
            recovery_log,
            memory,
            manager: Arc::clone(&manager),
            directory: Arc::clone(&site.directory),
            shards: correlator.stats.clone(),
            assessor: Arc::clone(&assessor),
            bridge: Arc::clone(bridge.stats()),
            sinks: exporters.as_ref().map_or(Vec::new(), |exporters| exporters.stats().to_vec()),
            ledger: Arc::clone(&ledger),
            sandbox: sandbox.map(|sandbox| sandbox.state),
            redactor,
            shutdown: shutdown.clone(),
        };
        let admin =
            Admin::start(&config.admin.listen, status).map_err(system_error("admin server"))?;
        let correlator = Some(correlator);
        Ok(Self {
            shutdown,
            manager,
            correlator,
            files,
            assessor,
            bridge,
            exporters,
            server,
            admin,
            ledger,
            has_spool: config.bridge.spool_bytes > 0,
            _lock: lock,
        })
    }

    /// The agent's shutdown signal. Requesting it makes all components end; [`Agent::finish`] waits
    /// for them.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The address of the admin pages.
    #[must_use]
    pub fn admin_addr(&self) -> std::net::SocketAddr {
        self.admin.addr
    }

    /// The embedded server, if there is one.
    #[must_use]
    pub fn server(&self) -> Option<&ServerHandle> {
        self.server.as_ref()
    }

    /// The embedded server, to reload its configuration.
    #[must_use]
    pub fn server_mut(&mut self) -> Option<&mut ServerHandle> {
        self.server.as_mut()
    }

    /// Whether events wait in a spool for the server.
    #[must_use]
    pub fn has_spool(&self) -> bool {
        self.has_spool
    }

    /// The bridge's counters.
    #[must_use]
    pub fn bridge(&self) -> &BridgeStats {
        self.bridge.stats()
    }

    /// Whether every collector has read its source to the end.
    #[must_use]
    pub fn sources_are_finished(&self) -> bool {
        self.manager().is_finished()
    }

    /// Reloads rules whose files have changed and replaces hung runs of collectors. To be called
    /// about once a second.
    pub fn poll(&mut self) {
        self.files.poll();
        self.manager().check_health();
    }

    /// Reloads the rules, of a new configuration if there is one. Those with errors are refused.
    pub fn reload_rules(&mut self, config: Option<DataflowConfig>) {
        self.files.reload(config);
    }

    /// Whether the source of every collector is open, or can't be opened.
    #[must_use]
    pub fn sources_are_settled(&self) -> bool {
        self.manager().status().iter().all(|status| status.is_settled)
    }

    /// The rounds of each thread that events pass through. One that stands still hangs: each makes
    /// a round a second at least, whether there are events or not.
    #[must_use]
    pub fn rounds(&self) -> Vec<(String, u64)> {
        let rounds = |mut all: Box<dyn Iterator<Item = Reading>>| {
            all.find(|reading| reading.name == "rounds").map_or(0, |reading| reading.value)
        };
        let correlator = self.correlator.iter();
        let shards = correlator.flat_map(|correlator| correlator.stats.iter()).zip(0u32..);
        let shards = shards.map(|(s, n)| (format!("shard:{n}"), rounds(Box::new(s.readings()))));
        let assessor = ("assessor".to_owned(), rounds(Box::new(self.assessor.readings())));
        let bridge = ("bridge".to_owned(), rounds(Box::new(self.bridge.stats().readings())));
        shards.chain([assessor, bridge]).collect()
    }

    /// CONS-1 now.
    #[must_use]
    pub fn account(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    /// The state of each collector.
    #[must_use]
    pub fn collectors(&self) -> Vec<CollectorStatus> {
        self.manager().status()
    }

    /// Drains: collectors stop, shards close their stories, the bridge delivers what is left. An
    /// embedded server stays up, so that the last stories can be queried. Returns CONS-1.
    pub fn drain(&mut self) -> Snapshot {
        self.shutdown.request();
        self.manager().join();
        if let Some(correlator) = self.correlator.take() {
            correlator.join();
        }
        self.bridge.join();
        if let Some(exporters) = &mut self.exporters {
            exporters.join();
        }
        self.ledger.snapshot()
    }

    /// Drains, then ends the admin pages and the embedded server.
    #[must_use]
    pub fn finish(mut self) -> Exit {
        let account = self.drain();
        self.admin.shutdown();
        if let Some(server) = &mut self.server {
            server.stop();
        }
        Exit { account }
    }

    fn manager(&self) -> MutexGuard<'_, CollectorManager> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads the rule set, and prepares its reloads.
fn load_rules(config: &Config) -> Result<(Arc<LiveRules>, RuleFiles), StartError> {
    let fingerprint = reload::fingerprint(&config.dataflow.rules);
    let rules = reload::load(&config.dataflow).map_err(StartError::Rules)?;
    let rules = RuleSet::new(rules, &config.cluster, config.shards());
    let rules = Arc::new(LiveRules::new(rules));
    let files = RuleFiles::new(config.dataflow.clone(), Arc::clone(&rules), fingerprint);
    Ok((rules, files))
}

/// Starts the thread that keeps memory below its limit, if there is one.
fn watch_memory(config: &Config, start: &Start) -> Result<Option<Arc<MemoryStats>>, StartError> {
    let keys = config.shards() * config.dataflow.max_keys;
    let (memory, shutdown) = (start.memory.clone(), start.shutdown.clone());
    MemoryWatch::start(config.memory_limit, keys, memory, shutdown)
        .map_err(system_error("thread memory"))
}

/// Starts the embedded server and makes it the bridge's endpoint.
fn start_server(config: &mut Config) -> Result<ServerHandle, StartError> {
    let server = Server::start(config.server()).map_err(system_error("embedded server"))?;
    config.bridge.endpoint = server.grpc_endpoint().to_owned();
    Ok(server)
}

/// Starts the bridge, and the exporters, which read its spool.
fn start_delivery(
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
        let started = exporters.start(&config.otlp_service(), config.bridge.drain_timeout);
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
        quarantine: Some(config.state_dir().join(QUARANTINE_FILE)),
        core: start.threads.next_core(),
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
        .ring_blocks(ring_blocks)
        .collectors(collectors)
        .assessor_thread(ring_blocks.min(STORY_RING_BLOCKS))
}

/// Starts the threads of the shards and the assessor, and of the recovery log where it is enabled:
/// the shards are first restored from the log of an earlier run.
fn start_correlator(
    config: &Config,
    rules: &Arc<LiveRules>,
    rows: &[Row],
    exit_bell: &Arc<Bell>,
    start: &mut Start,
) -> Result<(Started, Option<RecoveryLogState>), StartError> {
    let mut topology = topology(config, rules, RING_SETS * rows.len(), given_times(rows));
    topology = topology.memory(start.memory.clone());
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
    let Start { shutdown, threads, ledger, .. } = start;
    let started = topology
        .start(exit_bell, ledger, shutdown, threads)
        .map_err(system_error("correlator threads"))?;
    Ok((started, recovery_log))
}

/// Starts the collectors, each with [`RING_SETS`] sets of rings.
fn start_collectors(
    mut manager: CollectorManager,
    rows: Vec<Row>,
    entrances: Vec<CollectorRings>,
    router: &Arc<dyn Router>,
    start: &mut Start,
) -> Result<CollectorManager, StartError> {
    let redactor = start.redacts_events.then(|| Arc::clone(&start.redactor));
    let Start { shutdown, threads, memory, ledger, .. } = start;
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
        manager.start(spec, threads.next_core()).map_err(system_error("collector thread"))?;
    }
    Ok(manager)
}
