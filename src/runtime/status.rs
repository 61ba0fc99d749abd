//! What the agent says of itself: `/status` as JSON, `/metrics` for Prometheus. CONS-1 is checked
//! each time somebody looks.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value as Json, json};

use super::recall::RecallStats;
use super::reload::ReloadStats;
use crate::bridge::BridgeStats;
use tapio_collectors::{CollectorManager, CollectorStatus, Health};
use tapio_core::clock;
use tapio_core::identity::Directory;
use tapio_core::ring::{CollectorAccount, Ledger, Snapshot};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::WorkerStats;
use tapio_dataflow::evidence::{AssessorStats, rule_documents};

/// Where everything the agent can say comes from.
pub struct Status {
    /// The node's name.
    pub node: String,
    /// `service.name`, `service.version` and `deployment.environment.name`, as configured.
    pub service: [String; 3],
    /// When the agent started, nanoseconds since the Unix epoch.
    pub started_ns: u64,
    /// The rules in force, and how reloading them went.
    pub rules: Arc<ReloadStats>,
    /// What is kept for a restart; `None`: nothing is.
    pub recalled: Option<Arc<RecallStats>>,
    /// The collectors.
    pub manager: Arc<Mutex<CollectorManager>>,
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Each shard's counters.
    pub shards: Vec<Arc<WorkerStats>>,
    /// The assessor's counters and what it learned.
    pub assessor: Arc<AssessorStats>,
    /// The bridge.
    pub bridge: Arc<BridgeStats>,
    /// CONS-1.
    pub ledger: Arc<Ledger>,
    /// Whether the agent is ending.
    pub shutdown: Shutdown,
}

type Labels = Vec<(&'static str, String)>;

fn account_json(account: &CollectorAccount) -> Json {
    let dropped: Map<String, Json> = account
        .dropped
        .iter()
        .map(|(stage, reason, n)| (format!("{}/{}", stage.as_str(), reason.as_str()), (*n).into()))
        .collect();
    json!({
        "received": account.received, "forwarded": account.forwarded, "dropped": dropped,
        "held": account.held, "residual": account.residual,
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
        status.counters.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
    json!({
        "health": status.health.word(), "restarts": status.restarts, "last_error": status.last_error,
        "silence_ms": status.silence.as_millis() as u64, "notes": notes, "counters": counters,
    })
}

impl Status {
    fn collectors(&self) -> Vec<CollectorStatus> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).statistics()
    }

    fn account(&self) -> Snapshot {
        let snapshot = self.ledger.snapshot();
        if !snapshot.holds() {
            tracing::error!(
                residual = snapshot.total.residual,
                "CONS-1 doesn't hold: a defect of tapio"
            );
        }
        snapshot
    }

    /// Everything, for people and programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let collectors: Map<String, Json> =
            self.collectors().iter().map(|c| (c.name.to_owned(), collector_json(c))).collect();
        let shards: Vec<Json> = self
            .shards
            .iter()
            .map(|s| s.get().map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>().into())
            .collect();
        let cons1 = snapshot_json(&self.account());
        json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "service": {
                "name": self.service[0], "version": self.service[1], "environment": self.service[2],
            },
            "uptime_seconds": clock::wall_ns().saturating_sub(self.started_ns) / 1_000_000_000,
            "rules": self.rules.rules(),
            "reloads": self.reloads(),
            "recall": self.recall().map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>(),
            "collectors": collectors,
            "identity": self.directory.counters().into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>(),
            "shards": shards,
            "assessor": self.assessor.get().map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>(),
            "bridge": serde_json::to_value(self.bridge.status()).unwrap_or(Json::Null),
            "cons1": cons1,
        })
    }

    fn recall(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.recalled.iter().flat_map(|stats| stats.get())
    }

    fn reloads(&self) -> Json {
        let (done, refused) = self.rules.reloads();
        json!({"done": done, "refused": refused, "last_error": self.rules.last_error()})
    }

    /// Rules that what was learned suggests, as YAML documents.
    #[must_use]
    pub fn suggested_rules(&self) -> String {
        rule_documents(&self.assessor.suggestions())
    }

    /// Whether events can flow.
    ///
    /// # Errors
    /// What is in the way.
    pub fn ready(&self) -> Result<(), String> {
        if self.shutdown.is_requested() {
            return Err("ending".into());
        }
        if !self.bridge.is_connected() {
            return Err(format!("the server isn't connected: {}", self.bridge.status().last_error));
        }
        let collectors = self.collectors();
        let ill = [Health::Backoff, Health::Hung];
        if let Some(c) = collectors.iter().find(|c| ill.contains(&c.health)) {
            return Err(format!("collector {} failed: {}", c.name, c.last_error));
        }
        // What this machine can't give stands in `/status`; it is in the way only of an agent that
        // has nothing else, or a node without it would never become ready.
        match collectors.first() {
            Some(c) if collectors.iter().all(|c| c.health == Health::Unavailable) => {
                Err(format!("collector {} is unavailable: {}", c.name, c.last_error))
            }
            _ => Ok(()),
        }
    }

    /// The Prometheus text.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("tapio");
        let info = Family::<Labels, Gauge>::default();
        let labels = ["service_name", "service_version", "environment"]
            .into_iter()
            .zip(self.service.clone());
        info.get_or_create(&labels.collect()).set(1);
        registry.register("info", "What the agent calls itself", info);
        self.account_metrics(&mut registry);
        self.collector_metrics(&mut registry);
        let shards = Family::<Labels, Gauge>::default();
        for (number, shard) in self.shards.iter().enumerate() {
            for (name, value) in shard.get() {
                let labels = vec![("shard", number.to_string()), ("what", name.to_owned())];
                shards.get_or_create(&labels).set(value as i64);
            }
        }
        registry.register("shard", "Counters of each correlator shard", shards);
        let assessor = Family::<Labels, Gauge>::default();
        for (name, value) in self.assessor.get() {
            assessor.get_or_create(&vec![("what", name.to_owned())]).set(value as i64);
        }
        registry.register("assessor", "Counters of what causes are found by", assessor);
        self.other_metrics(&mut registry);
        self.bridge_metrics(&mut registry);
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn account_metrics(&self, registry: &mut Registry) {
        let (received, forwarded, dropped, held, residual) = (
            Family::<Labels, Counter>::default(),
            Family::<Labels, Counter>::default(),
            Family::<Labels, Counter>::default(),
            Family::<Labels, Gauge>::default(),
            Family::<Labels, Gauge>::default(),
        );
        for account in &self.account().collectors {
            let labels: Labels = vec![("collector", account.name.clone())];
            received.get_or_create(&labels).inc_by(account.received);
            forwarded.get_or_create(&labels).inc_by(account.forwarded);
            held.get_or_create(&labels).set(account.held as i64);
            residual.get_or_create(&labels).set(account.residual);
            for (stage, reason, n) in &account.dropped {
                let mut labels = labels.clone();
                labels.push(("stage", stage.as_str().into()));
                labels.push(("reason", reason.as_str().into()));
                dropped.get_or_create(&labels).inc_by(*n);
            }
        }
        registry.register(
            "events_received",
            "Events taken in, those lost in the kernel included",
            received,
        );
        registry.register("events_forwarded", "Events the server has stored", forwarded);
        registry.register("events_dropped", "Events lost, by stage and reason", dropped);
        registry.register("events_held", "Events in rings and queues", held);
        registry.register(
            "cons1_residual",
            "received - forwarded - dropped - held; anything but 0 is a defect",
            residual,
        );
    }

    fn collector_metrics(&self, registry: &mut Registry) {
        let (up, restarts, detail) = (
            Family::<Labels, Gauge>::default(),
            Family::<Labels, Counter>::default(),
            Family::<Labels, Gauge>::default(),
        );
        for status in self.collectors() {
            let labels: Labels = vec![("collector", status.name.into())];
            up.get_or_create(&labels).set(i64::from(status.health == Health::Running));
            restarts.get_or_create(&labels).inc_by(status.restarts);
            for (name, value) in status.counters {
                let labels = vec![("collector", status.name.into()), ("what", name)];
                detail.get_or_create(&labels).set(value as i64);
            }
        }
        registry.register("collector_up", "Whether the collector runs", up);
        registry.register("collector_restarts", "How often it was started again", restarts);
        registry.register("collector_detail", "The collector's own counters", detail);
    }

    fn other_metrics(&self, registry: &mut Registry) {
        let identity = Family::<Labels, Gauge>::default();
        for (name, value) in self.directory.counters() {
            identity.get_or_create(&vec![("what", name.to_owned())]).set(value as i64);
        }
        registry.register("identity", "Sizes and losses of the tables of who is who", identity);
        let recall = Family::<Labels, Gauge>::default();
        for (name, value) in self.recall() {
            recall.get_or_create(&vec![("what", name.to_owned())]).set(value as i64);
        }
        registry.register("recall", "Events kept on disk for stories that are open", recall);
        let rules = Gauge::<i64>::default();
        rules.set(self.rules.rules() as i64);
        registry.register("rules", "Rules in force", rules);
        let reloads = Family::<Labels, Counter>::default();
        let (done, refused) = self.rules.reloads();
        for (outcome, n) in [("done", done), ("refused", refused)] {
            reloads.get_or_create(&vec![("outcome", outcome.to_owned())]).inc_by(n);
        }
        registry.register("rule_reloads", "Reloads of the rules, by outcome", reloads);
    }

    fn bridge_metrics(&self, registry: &mut Registry) {
        let bridge = Family::<Labels, Gauge>::default();
        let status = serde_json::to_value(self.bridge.status()).unwrap_or(Json::Null);
        for (name, value) in status.as_object().into_iter().flatten() {
            let number = value.as_i64().or_else(|| value.as_bool().map(i64::from));
            if let Some(number) = number {
                bridge.get_or_create(&vec![("what", name.clone())]).set(number);
            }
        }
        registry.register("bridge", "Counters of the way to the server", bridge);
    }
}
