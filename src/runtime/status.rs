//! The state of the agent: `/status` as JSON, and whether it is ready. CONS-1 is checked at each
//! request.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value as Json, json};

use super::debug_state::DebugState;
use super::losses::LossMonitor;
use super::memory::{self, LimitedMemory};
use super::recovery_log::RecoveryLogState;
use super::reload::ReloadStats;
use super::sandbox::SandboxState;
use super::threads::layout_json;
use crate::bridge::BridgeStats;
use crate::export::SinkStats;
use crate::server::{AccessStats, ServerHealth};
use tapio_collectors::{CollectorManager, CollectorStatus, Health};
use tapio_core::clock;
use tapio_core::counters::Reading;
use tapio_core::cpu::ThreadLayout;
use tapio_core::event::{Name, Reason, rfc3339};
use tapio_core::identity::Directory;
use tapio_core::redact::Redactor;
use tapio_core::ring::{CollectorAccount, Ledger, Snapshot};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::WorkerStats;
use tapio_dataflow::evidence::{AssessorStats, rule_documents};
use tapio_dataflow::rules::{LiveRules, RuleFailures};
use tapio_wire::Access;

/// The sources of everything that the agent reports about itself.
pub struct Status {
    /// The node's name.
    pub node: String,
    /// `service.name`, `service.version` and `deployment.environment.name`, as configured.
    pub service: [String; 3],
    /// When the agent started, nanoseconds since the Unix epoch.
    pub started_ns: u64,
    /// The rules in force.
    pub rules: Arc<LiveRules>,
    /// Reloads of the rules.
    pub reloads: Arc<ReloadStats>,
    /// The recovery log's state; `None` where it is disabled.
    pub recovery_log: Option<RecoveryLogState>,
    /// The memory; `None` where it has no limit.
    pub memory: Option<LimitedMemory>,
    /// The collectors.
    pub manager: Arc<Mutex<CollectorManager>>,
    /// The entity directory.
    pub directory: Arc<Directory>,
    /// Each shard's counters.
    pub shards: Vec<Arc<WorkerStats>>,
    /// The assessor's counters and learned pairs.
    pub assessor: Arc<AssessorStats>,
    /// The bridge's counters.
    pub bridge: Arc<BridgeStats>,
    /// The sinks of the export.
    pub sinks: Vec<Arc<SinkStats>>,
    /// The embedded server; `None` without one.
    pub server: Option<ServerHealth>,
    /// CONS-1.
    pub ledger: Arc<Ledger>,
    /// Losses, followed over time.
    pub losses: LossMonitor,
    /// The limits of the process's rights; `None` where it has none.
    pub sandbox: Option<Arc<SandboxState>>,
    /// The CPUs of the threads.
    pub layout: Arc<ThreadLayout>,
    /// Removes secrets from the document.
    pub redactor: Arc<Redactor>,
    /// Access to the admin pages.
    pub access: Arc<Access>,
    /// The pages below `/debug`.
    pub debug: DebugState,
    /// Requested once the agent drains.
    pub shutdown: Shutdown,
}

fn account_json(account: &CollectorAccount) -> Json {
    let dropped: Map<String, Json> = account
        .dropped
        .iter()
        .map(|(stage, reason, n)| (format!("{}/{}", stage.as_str(), reason.as_str()), (*n).into()))
        .collect();
    json!({
        "received": account.received, "forwarded": account.forwarded, "dropped": dropped,
        "held": account.held, "residual": account.residual, "truncated": account.truncated,
        "redacted": account.redacted,
    })
}

/// CONS-1 as JSON.
#[must_use]
pub fn snapshot_json(snapshot: &Snapshot) -> Json {
    let rows: Map<String, Json> =
        snapshot.collectors.iter().map(|c| (c.name.clone(), account_json(c))).collect();
    json!({"holds": snapshot.holds(), "total": account_json(&snapshot.total), "collectors": rows})
}

fn collector_json(status: &CollectorStatus) -> Json {
    let notes: Map<String, Json> =
        status.notes.iter().map(|n| (n.subject.clone(), n.state.as_str().into())).collect();
    let counters: Map<String, Json> =
        status.counters.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    json!({
        "health": status.health.as_str(), "restarts": status.restarts,
        "last_error": status.last_error, "heartbeat_age_ms": status.heartbeat_age.as_millis() as u64,
        "notes": notes, "counters": counters,
    })
}

fn counters_json(readings: impl Iterator<Item = Reading>) -> Map<String, Json> {
    readings.map(|reading| (reading.name.to_owned(), reading.value.into())).collect()
}

fn failures_json(failures: &RuleFailures) -> Json {
    json!({
        "rule": failures.rule.map(Name::text), "origin": failures.origin, "cause": failures.cause,
        "failures": failures.failures, "last": rfc3339(failures.last_ns),
        "disabled": failures.disabled_ns.map(rfc3339),
    })
}

impl Status {
    /// The number of disabled rules.
    pub(super) fn disabled_rules(&self) -> u64 {
        self.rules.failures().iter().filter(|f| f.disabled_ns.is_some()).count() as u64
    }

    /// The state of each collector.
    pub(super) fn collectors(&self) -> Vec<CollectorStatus> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).status()
    }

    /// CONS-1 now; a violation is logged.
    pub(super) fn account(&self) -> Snapshot {
        let snapshot = self.ledger.snapshot();
        if !snapshot.holds() {
            tracing::error!(
                residual = snapshot.total.residual,
                "accounting identity CONS-1 violated (defect in tapio)"
            );
        }
        snapshot
    }

    /// The recovery log's counters.
    pub(super) fn recovery(&self) -> impl Iterator<Item = Reading> {
        self.recovery_log.iter().flat_map(|log| log.stats.readings())
    }

    /// The document of `/status`.
    #[must_use]
    pub fn json(&self) -> Json {
        let collectors: Map<String, Json> =
            self.collectors().iter().map(|c| (c.name.to_owned(), collector_json(c))).collect();
        let shards: Vec<_> = self.shards.iter().map(|s| counters_json(s.readings())).collect();
        let cons1 = snapshot_json(&self.account());
        let obstacles = self.ready().err().unwrap_or_default();
        let reductions = self.reductions();
        let [service_name, service_version, environment] = &self.service;
        let mut document = json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "service": {
                "name": service_name, "version": service_version, "environment": environment,
            },
            "state": self.state(&obstacles, &reductions),
            "unready": &obstacles,
            "degraded": &reductions,
            "uptime_seconds": clock::wall_ns().saturating_sub(self.started_ns) / 1_000_000_000,
            "rules": self.rules.current().rules.len(),
            "rules_digest": self.rules_digest(),
            "rule_failures": self.rules.failures().iter().map(failures_json).collect::<Json>(),
            "reloads": self.reloads(),
            "recovery_log": self.recovery_log(),
            "memory": self.memory(),
            "sandbox": self.sandbox(),
            "threads": layout_json(&self.layout),
            "collectors": collectors,
            "identity": counters_json(self.directory.readings()),
            "shards": shards,
            "assessor": counters_json(self.assessor.readings()),
            "bridge": self.bridge(),
            "admin": serde_json::to_value(AccessStats::of([&self.access])).unwrap_or_default(),
            "export": self.export(),
            "cons1": cons1,
        });
        self.redactor.redact_json(&mut document);
        document
    }

    /// The state, and why it isn't `ok`.
    pub(super) fn current_state(&self) -> (&'static str, Vec<String>) {
        let mut problems = self.ready().err().unwrap_or_default();
        let reductions = self.reductions();
        let state = self.state(&problems, &reductions);
        problems.extend(reductions);
        (state, problems)
    }

    /// Why the agent observes less than it is to: degraded collectors, and the losses within the
    /// last minute.
    fn reductions(&self) -> Vec<String> {
        let collectors = self.collectors();
        let degraded = collectors.iter().filter(|c| c.health == Health::Degraded);
        let degraded = degraded.map(|c| format!("collector {}: {}", c.name, c.last_error));
        degraded.chain(self.losses.current(clock::instant())).collect()
    }

    /// The memory in use; with a limit, that and its counters.
    fn memory(&self) -> Json {
        match &self.memory {
            Some(memory) => counters_json(memory.stats.readings()).into(),
            None => json!({"used_bytes": memory::used_bytes()}),
        }
    }

    fn rules_digest(&self) -> String {
        self.rules.current().digest().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn sandbox(&self) -> Json {
        self.sandbox.as_ref().map_or_else(|| json!({"enabled": false}), |state| state.json())
    }

    fn recovery_log(&self) -> Json {
        let mut log = counters_json(self.recovery());
        if let Some(state) = &self.recovery_log {
            log.insert("error".into(), state.error.as_str().into());
        }
        log.into()
    }

    fn reloads(&self) -> Json {
        let mut reloads = counters_json(self.reloads.outcomes());
        reloads.insert("last_error".into(), self.reloads.last_error().into());
        reloads.into()
    }

    fn bridge(&self) -> Json {
        let mut bridge = counters_json(self.bridge.readings());
        bridge.insert("connected".into(), self.bridge.is_connected().into());
        bridge.insert("disk_failing".into(), self.bridge.is_disk_failing().into());
        bridge.insert("endpoint".into(), self.bridge.endpoint().into());
        bridge.insert("circuit".into(), self.bridge.circuit().as_str().into());
        bridge.insert("last_error".into(), self.bridge.last_error().into());
        bridge.into()
    }

    fn export(&self) -> Json {
        let sinks = self.sinks.iter().map(|sink| {
            let mut json = counters_json(sink.readings());
            json.insert("endpoint".into(), sink.endpoint.as_str().into());
            json.insert("protocol".into(), sink.protocol.into());
            json.insert("last_error".into(), sink.last_error().into());
            (sink.name.clone(), Json::from(json))
        });
        sinks.collect::<Map<_, _>>().into()
    }

    /// Rules suggested by the learned pairs, as YAML documents.
    #[must_use]
    pub fn suggested_rules(&self) -> String {
        rule_documents(&self.assessor.suggestions())
    }

    /// Reads the counts of losses. To be called about once a second.
    pub(super) fn poll_losses(&self) {
        self.losses.poll(self.loss_counts(), clock::instant());
    }

    /// Adds a line to the history, if one is due. To be called about once a second.
    pub(super) fn poll_history(&self) {
        self.debug.history.poll(clock::instant(), || {
            let obstacles = self.ready().err().unwrap_or_default();
            let losses = self.losses.current(clock::instant());
            let mut line = json!({
                "time": rfc3339(clock::wall_ns()),
                "state": self.state(&obstacles, &losses),
                "unready": obstacles,
                "degraded": losses,
                "total": account_json(&self.ledger.snapshot().total),
                "connected": self.bridge.is_connected(),
                "memory": self.memory.as_ref().map(|memory| memory.stats.used_bytes()),
            });
            self.redactor.redact_json(&mut line);
            line.to_string()
        });
    }

    /// Events that were dropped, by collector, stage and reason, and those that arrived late or
    /// incomplete. An event that was only read again isn't lost.
    fn loss_counts(&self) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        for account in &self.account().collectors {
            for (stage, reason, n) in &account.dropped {
                if *reason != Reason::ReadAgain {
                    let (name, stage, reason) = (&account.name, stage.as_str(), reason.as_str());
                    counts.push((format!("{name} {stage}/{reason}"), *n));
                }
            }
        }
        let readings = self.shards.iter().flat_map(|shard| shard.readings());
        let late = readings.filter(|reading| reading.name == "events_late");
        counts.push(("late events".into(), late.map(|reading| reading.value).sum()));
        counts.push(("names without room".into(), Name::not_added()));
        counts
    }

    fn state(&self, obstacles: &[String], losses: &[String]) -> &'static str {
        match (obstacles.is_empty(), losses.is_empty()) {
            (false, _) if self.shutdown.is_requested() => "shutting_down",
            (true, true) => "ok",
            _ => "degraded",
        }
    }

    /// Checks that the agent does its work. It does so while the server is away, too: events wait
    /// in the spool, and a rollout of agents mustn't wait for the server. `/status` has the
    /// connection.
    ///
    /// # Errors
    /// The obstacles, one text each.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        if self.shutdown.is_requested() {
            return Err(vec!["shutting down".into()]);
        }
        let collectors = self.collectors();
        // A facility that the node lacks is in `/status`. It makes only an agent without any other
        // collector unready, or a node that lacks it would never become ready.
        let none_available = collectors.iter().all(|c| c.health == Health::Unavailable);
        let mut obstacles: Vec<String> = Vec::new();
        for c in &collectors {
            match c.health {
                Health::Backoff | Health::Hung => {
                    obstacles.push(format!("collector {} failed: {}", c.name, c.last_error));
                }
                Health::Unavailable if none_available => {
                    obstacles.push(format!("collector {} is unavailable: {}", c.name, c.last_error))
                }
                _ if !c.is_settled => {
                    obstacles.push(format!("collector {} is still opening its source", c.name));
                }
                _ => {}
            }
        }
        if self.bridge.is_disk_failing() {
            obstacles.push("spool: the disk refuses writes".into());
        }
        if let Some(cause) = self.server.as_ref().and_then(ServerHealth::obstacle) {
            obstacles.push(format!("embedded server: {cause}"));
        }
        if obstacles.is_empty() { Ok(()) } else { Err(obstacles) }
    }
}
