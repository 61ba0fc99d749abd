//! The agent, and its end: it drains the components in the direction of the data.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admin::{self, Admin};
use super::config::Config;
use super::debug_state::DebugState;
use super::lock::AgentLock;
use super::losses::LossMonitor;
use super::metrics;
use super::reload::RuleFiles;
use super::report::StatusReporter;
use super::rows::reads_again;
use super::start::{
    Start, load_rules, start_collectors, start_correlator, start_delivery, start_server,
    watch_memory,
};
use super::start_error::{StartError, system_error};
use super::status::Status;
use super::threads::AgentProcess;
use crate::bridge::{BridgeHandle, BridgeStats};
use crate::export::Exporters;
use crate::server::ServerHandle;
use crate::telemetry::{MetricSource, in_span};
use tapio_collectors::{CollectorManager, CollectorStatus, JournalConfig, LiveRate, Row};
use tapio_core::clock;
use tapio_core::counters::Reading;
use tapio_core::ring::{Bell, Router, Snapshot};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::evidence::LiveWeights;
use tapio_dataflow::rules::LiveRules;
use tapio_dataflow::{Correlator, Started};

/// The running agent.
pub struct Agent {
    shutdown: Shutdown,
    /// `None` once it is drained.
    correlator: Option<Correlator>,
    files: RuleFiles,
    bridge: BridgeHandle,
    exporters: Option<Exporters>,
    server: Option<ServerHandle>,
    admin: Admin,
    status: Arc<Status>,
    journal_rate: Arc<LiveRate>,
    weights: LiveWeights,
    reporter: StatusReporter,
    has_spool: bool,
    _lock: AgentLock,
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
        Self::start_in(AgentProcess::default(), config, standalone, rows, prepare)
    }

    /// Starts the agent with these collectors, with the limits and the layout of this process.
    /// `prepare` is called before they start, with the rules' router and the server of
    /// `standalone`: the caller can follow the server from the first event on. It returns the
    /// router to use: a test can put a component of its own between collectors and rules.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_in(
        process: AgentProcess,
        mut config: Config,
        standalone: bool,
        rows: Vec<Row>,
        prepare: impl FnOnce(Arc<LiveRules>, Option<&ServerHandle>) -> Arc<dyn Router>,
    ) -> Result<Self, StartError> {
        let AgentProcess { sandbox, layout, log } = process.adjust(&mut config);
        let lock = AgentLock::take(&config.state_dir())?;
        let (live, files) = load_rules(&config)?;
        let server = standalone.then(|| start_server(&mut config)).transpose()?;
        let rows: Vec<Row> = rows.into_iter().filter(|r| r.enabled).collect();
        let mut start = Start::new(&config, &rows, layout);
        let memory = watch_memory(&config, &start)?;
        let bell = Arc::new(Bell::new(Default::default()));
        let (Started { correlator, entrances, exits, assessor, .. }, recovery_log) =
            start_correlator(&config, &live, &rows, &bell, &mut start)?;
        let (bridge, exporters) =
            start_delivery(&config, (exits, bell), reads_again(&rows), &mut start)?;
        let site = start.site(&config);
        let manager = CollectorManager::new(site.clone(), start.shutdown.clone())
            .hung_after(config.collectors.hung_after.0)
            .confined(sandbox.as_ref().and_then(|sandbox| sandbox.confinement.clone()));
        let router = prepare(Arc::clone(&live), server.as_ref());
        let manager = start_collectors(manager, rows, entrances, &router, &mut start)?;
        let Start { node, epoch, shutdown, redactor, ledger, weights, layout, reports, .. } = start;
        let ledger = Arc::new(ledger);
        site.set_ledger(Arc::clone(&ledger));
        let status = Arc::new(Status {
            debug: DebugState::new(&config, log, bridge.recorder())?,
            access: admin::access(&config.admin)?,
            node,
            service: config.dataflow.service(),
            started_ns: epoch,
            rules: live,
            reloads: files.stats(),
            recovery_log,
            memory,
            manager: Arc::new(Mutex::new(manager)),
            directory: Arc::clone(&site.directory),
            shards: correlator.stats.clone(),
            assessor,
            bridge: Arc::clone(bridge.stats()),
            sinks: exporters.as_ref().map_or(Vec::new(), |exporters| exporters.stats().to_vec()),
            server: server.as_ref().map(ServerHandle::health),
            ledger,
            losses: LossMonitor::default(),
            sandbox: sandbox.map(|sandbox| sandbox.state),
            layout,
            redactor,
            shutdown: shutdown.clone(),
        });
        let admin = Admin::start(&config.admin.listen, Arc::clone(&status))
            .map_err(system_error("admin server"))?;
        Ok(Self {
            shutdown,
            correlator: Some(correlator),
            files,
            bridge,
            exporters,
            server,
            admin,
            status,
            journal_rate: Arc::clone(&site.journal_rate),
            weights,
            reporter: StatusReporter::new(reports),
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

    /// The metrics of the agent and of an embedded server.
    #[must_use]
    pub fn metrics(&self) -> MetricSource {
        let status = Arc::clone(&self.status);
        let server = self.server.as_ref().map(ServerHandle::metrics);
        MetricSource::new(move || metrics::page(&status)).with(server)
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

    /// Reloads rules whose files have changed, replaces hung runs of collectors, logs losses, and
    /// reports the agent's state to the server.
    /// To be called about once a second.
    pub fn poll(&mut self) {
        self.files.poll();
        self.manager().check_health();
        self.status.poll_losses();
        self.status.poll_history();
        self.status.debug.poll();
        self.reporter.poll(&self.status, clock::instant());
    }

    /// Reloads the rules, and takes over the values of a configuration that a reload takes. Returns
    /// the keys of those that it couldn't; they are as in `old` then. Rules with errors are
    /// refused.
    pub fn reload(&mut self, old: &Config, new: &mut Config) -> Vec<&'static str> {
        let mut refused = Vec::new();
        if !self.files.reload(Some(new.dataflow.clone())) {
            new.dataflow.clone_from(&old.dataflow);
            let keys = Config::reloaded_keys().filter(|key| key.starts_with("dataflow."));
            refused.extend(keys);
        }
        if new.memory_limit != old.memory_limit {
            let memory = self.status.memory.as_ref();
            if !memory.is_some_and(|memory| memory.reload(new.memory_limit)) {
                new.memory_limit = old.memory_limit;
                refused.push("memory_limit");
            }
        }
        self.weights.set(new.evidence.weights.weights());
        if let Some(exporters) = &self.exporters {
            exporters.reload(&new.export);
        }
        let (was, journal) = (&old.collectors.journal, &new.collectors.journal);
        let rate = |c: &JournalConfig| (c.rate_per_unit, c.burst_per_unit);
        if rate(was) != rate(journal) {
            self.journal_rate.set(journal.rate_per_unit, journal.burst_per_unit);
        }
        self.status.debug.reload(&old.debug.recorder, &new.debug.recorder);
        refused
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
        let assessor = ("assessor".to_owned(), rounds(Box::new(self.status.assessor.readings())));
        let bridge = ("bridge".to_owned(), rounds(Box::new(self.bridge.stats().readings())));
        shards.chain([assessor, bridge]).collect()
    }

    /// CONS-1 now.
    #[must_use]
    pub fn account(&self) -> Snapshot {
        self.status.ledger.snapshot()
    }

    /// The state of each collector.
    #[must_use]
    pub fn collectors(&self) -> Vec<CollectorStatus> {
        self.manager().status()
    }

    /// Drains: collectors stop, shards close their stories, the bridge delivers what is left. An
    /// embedded server stays up, so that the last stories can be queried. Returns CONS-1.
    pub fn drain(&mut self) -> Snapshot {
        let Ok(account) = in_span("agent.drain", || Ok::<_, Infallible>(self.drain_in_order()));
        account
    }

    fn drain_in_order(&mut self) -> Snapshot {
        self.shutdown.request();
        self.manager().join();
        if let Some(correlator) = self.correlator.take() {
            correlator.join();
        }
        self.bridge.join();
        if let Some(exporters) = &mut self.exporters {
            exporters.join();
        }
        self.status.ledger.snapshot()
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
        self.status.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
