//! The agent: everything together, from start to drained end.

use std::sync::{Arc, Mutex, PoisonError};

use super::admin::Admin;
use super::config::{Config, DataflowConfig};
use super::lock::{AgentLock, LockError};
use super::recall::{Recall, RecallStats};
use super::reload::{self, RuleFiles};
use super::status::Status;
use crate::bridge::{Bridge, BridgeHandle, BridgeStats};
use crate::server::{Server, ServerHandle};
use tapio_collectors::{CollectorManager, CollectorSpec, CollectorStatus, Row, Site};
use tapio_core::clock;
use tapio_core::event::{Stage, stable_hash};
use tapio_core::ring::{Bell, Ledger, RecordReader, Router, Sink, Snapshot};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::evidence::{AssessorStats, Bounds};
use tapio_dataflow::rules::{LiveRules, RuleSet};
use tapio_dataflow::{
    Correlator, CorrelatorPlan, Entrance, LaneOptions, Order, Shard, Started, ThreadPlan,
};

/// Blocks of 64 bytes that an event of usual size (197 bytes, 8 attributes) takes in a ring.
const BLOCKS_PER_EVENT: usize = 8;

/// Blocks of 64 bytes for stories on their way to the bridge.
const STORY_RING_BLOCKS: usize = 1 << 14;

/// Ways into the rings for each collector: the second one is for when the first is in the hands of a thread that hangs.
const WAYS_IN: usize = 2;

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another agent, or no folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A rule is wrong.
    #[error("{0}")]
    Rules(String),
    /// The admin pages' or the server's address, a thread, a file.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        cause: std::io::Error,
    },
}

fn system(what: &str) -> impl FnOnce(std::io::Error) -> StartError + '_ {
    move |cause| StartError::System { what: what.to_owned(), cause }
}

/// The running agent.
pub struct Agent {
    shutdown: Shutdown,
    manager: Arc<Mutex<CollectorManager>>,
    /// Until it is drained.
    correlator: Option<Correlator>,
    files: RuleFiles,
    bridge: BridgeHandle,
    server: Option<ServerHandle>,
    admin: Admin,
    ledger: Arc<Ledger>,
    _lock: AgentLock,
}

/// What the parts are given, as they are started one after the other.
struct Start {
    node: String,
    epoch: u64,
    shutdown: Shutdown,
    threads: ThreadPlan,
    ledger: Ledger,
}

/// The correlator, and what it is joined to the rest by.
struct Correlating {
    correlator: Correlator,
    entrances: Vec<Entrance>,
    readers: Vec<RecordReader>,
    assessor: Arc<AssessorStats>,
    recalled: Option<Arc<RecallStats>>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// CONS-1 at the end.
    pub account: Snapshot,
}

impl Agent {
    /// Starts everything. With `standalone` a server runs in the same process and the bridge
    /// delivers to it.
    ///
    /// # Errors
    /// When something the agent can't do without can't be had.
    pub fn start(config: Config, standalone: bool) -> Result<Self, StartError> {
        let rows = config.collectors.rows();
        Self::start_with(config, standalone, rows, |rules| rules)
    }

    /// The same with these collectors, and with a router that is made of the rules': for who puts something of its own
    /// between the parts, as tests do.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_with(
        mut config: Config,
        standalone: bool,
        rows: Vec<Row>,
        router: impl FnOnce(Arc<LiveRules>) -> Arc<dyn Router>,
    ) -> Result<Self, StartError> {
        let lock = AgentLock::take(&config.state_dir())?;
        let seen = reload::look(&config.dataflow.rules);
        let rules = reload::load(&config.dataflow).map_err(StartError::Rules)?;
        let server = standalone.then(|| start_server(&mut config)).transpose()?;
        config.bridge.flush_interval = config.dataflow.flush_interval;
        let rows: Vec<Row> = rows.into_iter().filter(|r| r.enabled).collect();
        let mut start = Start {
            node: config.node_name(),
            epoch: clock::wall_ns(),
            shutdown: Shutdown::default(),
            threads: ThreadPlan::pinned(),
            ledger: Ledger::new(rows.iter().map(|r| r.name.to_owned()).collect()),
        };
        let bell = Arc::new(Bell::new(Default::default()));
        let rules = RuleSet::new(rules, &config.cluster, config.shards());
        let rules = Arc::new(LiveRules::new(rules));
        let files = RuleFiles::new(config.dataflow.clone(), Arc::clone(&rules), seen);
        let Correlating { correlator, entrances, readers, assessor, recalled } =
            start_correlator(&config, &rules, WAYS_IN * rows.len(), &bell, &mut start)?;
        let bridge = Bridge {
            config: config.bridge.clone(),
            node: start.node.clone(),
            epoch: start.epoch,
            readers,
            bell,
            ledger: start.ledger.stage(Stage::Bridge),
            shutdown: start.shutdown.clone(),
            core: start.threads.next_core(),
        };
        let bridge = bridge.spawn().map_err(system("the bridge"))?;
        let site = Site::new(&start.node, origin(&start.node, start.epoch))
            .with_state_dir(config.state_dir());
        let manager = CollectorManager::new(site.clone(), start.shutdown.clone())
            .hung_after(config.collectors.hung_after.0);
        let manager = start_collectors(manager, rows, entrances, &router(rules), &mut start)?;
        let manager = Arc::new(Mutex::new(manager));
        let Start { node, epoch, shutdown, ledger, .. } = start;
        let ledger = Arc::new(ledger);
        site.account_in(Arc::clone(&ledger));
        let status = Status {
            node,
            service: config.dataflow.service(),
            started_ns: epoch,
            rules: files.stats(),
            recalled,
            manager: Arc::clone(&manager),
            directory: Arc::clone(&site.directory),
            shards: correlator.stats.clone(),
            assessor,
            bridge: Arc::clone(bridge.stats()),
            ledger: Arc::clone(&ledger),
            shutdown: shutdown.clone(),
        };
        let admin = Admin::start(config.admin.listen, status).map_err(system("admin.listen"))?;
        let correlator = Some(correlator);
        Ok(Self {
            shutdown,
            manager,
            correlator,
            files,
            bridge,
            server,
            admin,
            ledger,
            _lock: lock,
        })
    }

    /// Asks everything to end; [`Agent::finish`] waits for it.
    #[must_use]
    pub fn stop(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Where the admin pages are.
    #[must_use]
    pub fn admin_addr(&self) -> std::net::SocketAddr {
        self.admin.addr
    }

    /// The embedded server, where there is one.
    #[must_use]
    pub fn server(&self) -> Option<&ServerHandle> {
        self.server.as_ref()
    }

    /// How the bridge is doing.
    #[must_use]
    pub fn bridge(&self) -> &BridgeStats {
        self.bridge.stats()
    }

    /// Whether every collector has read its source to the end.
    #[must_use]
    pub fn sources_are_finished(&self) -> bool {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).is_finished()
    }

    /// Takes over rules whose files have changed, and gives the place of a collector that hangs to another run of it. Call
    /// it about once a second.
    pub fn look(&mut self) {
        self.files.look();
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).look();
    }

    /// Reads the rules again, from where a new configuration says if there is one. Rules that are wrong
    /// change nothing; `/status` says why.
    pub fn reload_rules(&mut self, config: Option<DataflowConfig>) {
        self.files.reload(config);
    }

    /// CONS-1 now.
    #[must_use]
    pub fn account(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    /// How the collectors are.
    #[must_use]
    pub fn collectors(&self) -> Vec<CollectorStatus> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).statistics()
    }

    /// Drains: collectors stop, shards close their stories, the bridge delivers what is left. An
    /// embedded server goes on, so that the last stories can be asked for. Returns CONS-1.
    pub fn drain(&mut self) -> Snapshot {
        self.shutdown.request();
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).join();
        if let Some(correlator) = self.correlator.take() {
            correlator.join();
        }
        self.bridge.join();
        self.ledger.snapshot()
    }

    /// Drains, then ends the rest.
    #[must_use]
    pub fn finish(mut self) -> Ended {
        let account = self.drain();
        self.admin.stop();
        if let Some(server) = &mut self.server {
            server.stop();
        }
        Ended { account }
    }
}

/// Starts the embedded server and points the bridge at it.
fn start_server(config: &mut Config) -> Result<ServerHandle, StartError> {
    let server = Server::start(config.server()).map_err(system("the embedded server"))?;
    config.bridge.endpoint = server.grpc_addr.to_string();
    Ok(server)
}

/// Makes the shards, and shows them what an earlier run of the agent recorded.
fn recollect(
    config: &Config,
    plan: &CorrelatorPlan,
) -> Result<(Vec<Shard>, Option<Recall>), StartError> {
    let mut shards = plan.shards();
    if plan.recorder.is_none() {
        return Ok((shards, None));
    }
    let dir = config.state_dir().join("recall");
    let recall =
        Recall::open(dir, config.dataflow.recall_bytes).map_err(system("dataflow.recall_bytes"))?;
    recall
        .recollect(&plan.rules.current(), &mut shards)
        .map_err(system("dataflow.recall_bytes"))?;
    Ok((shards, Some(recall)))
}

fn plan(config: &Config, rules: &Arc<LiveRules>) -> CorrelatorPlan {
    CorrelatorPlan {
        rules: Arc::clone(rules),
        order: Order::Arrival,
        options: LaneOptions {
            max_keys: config.dataflow.max_keys,
            max_stories: config.dataflow.max_stories,
            ..LaneOptions::default()
        },
        grouping: config.dataflow.enable_semantic_grouping,
        evidence: Some(Bounds::LIVE),
        ring_blocks: config.dataflow.buffer_size * BLOCKS_PER_EVENT,
        recorder: (config.dataflow.recall_bytes > 0 && config.dataflow.enable_semantic_grouping)
            .then(|| Arc::new(Bell::new(Default::default()))),
    }
}

/// Identifies this start of this node's agent in event ids.
fn origin(node: &str, epoch: u64) -> u64 {
    let hash = stable_hash(&[b"origin", node.as_bytes(), &epoch.to_le_bytes()]);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes)
}

/// Starts the shards, the assessor and the recorder, with so many ways in.
fn start_correlator(
    config: &Config,
    rules: &Arc<LiveRules>,
    ways_in: usize,
    bell: &Arc<Bell>,
    start: &mut Start,
) -> Result<Correlating, StartError> {
    let assessor_bell = Arc::new(Bell::new(Default::default()));
    let bells = [bell, &assessor_bell];
    let plan = plan(config, rules);
    let (shards, recall) = recollect(config, &plan)?;
    let recalled = recall.as_ref().map(Recall::stats);
    let Start { node, epoch, shutdown, threads, ledger } = start;
    let started = Correlator::start(&plan, shards, ways_in, bells, ledger, shutdown, threads)
        .map_err(system("the correlator's threads"))?;
    let Started { mut correlator, entrances, exits: mut readers, notes, recorded } = started;
    let (stories, assessor) = correlator
        .assess(Bounds::LIVE, notes, bells, plan.ring_blocks.min(STORY_RING_BLOCKS))
        .map_err(system("the assessor's thread"))?;
    readers.push(stories);
    if let (Some(recall), Some(bell)) = (recall, &plan.recorder) {
        correlator
            .keep(recall.record(recorded, Arc::clone(bell), node, *epoch))
            .map_err(system("the recorder's thread"))?;
    }
    Ok(Correlating { correlator, entrances, readers, assessor, recalled })
}

fn start_collectors(
    mut manager: CollectorManager,
    rows: Vec<Row>,
    entrances: Vec<Entrance>,
    router: &Arc<dyn Router>,
    start: &mut Start,
) -> Result<CollectorManager, StartError> {
    let Start { shutdown, threads, ledger, .. } = start;
    let mut entrances = entrances.into_iter();
    for (number, row) in (0u8..).zip(rows) {
        let mut sink = |entrance| {
            let (stage, kernel) = (ledger.stage(Stage::Collect), ledger.stage(Stage::Kernel));
            Sink::new(number, row.on_full, Arc::clone(router), entrance, stage, shutdown.clone())
                .with_kernel_ledger(kernel)
        };
        let (Some(first), Some(second)) = (entrances.next(), entrances.next()) else { break };
        let sink = sink(first).with_spare(sink(second));
        let spec = CollectorSpec { name: row.name, make: row.make, sink };
        manager.start(spec, threads.next_core()).map_err(system("a collector's thread"))?;
    }
    Ok(manager)
}
