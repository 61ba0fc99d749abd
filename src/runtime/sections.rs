//! Sections of the configuration that concern the process as a whole, and the correlator.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::log_level::check_level;
use crate::bridge::RecorderLimits;
use tapio_dataflow::LaneOptions;
use tapio_dataflow::evidence::{MAX_WEIGHT, TERMS, Weights};
use tapio_wire::{AccessConfig, ListenAddress, TlsServerConfig};

/// Shortest time for which a story may be open.
const MIN_RETENTION: std::time::Duration = std::time::Duration::from_secs(1);

/// The least and the most time for which the flight recorder keeps events.
const MIN_KEEP: std::time::Duration = std::time::Duration::from_secs(1);
const MAX_KEEP: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// The correlator.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataflowConfig {
    /// Whether events are correlated; if not, they pass with the trace they arrived with.
    pub enable_semantic_grouping: bool,
    /// Longest time for which a story may be open, whatever its rule allows.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub group_retention_period: std::time::Duration,
    /// `service.name` of the agent's output.
    pub service_name: String,
    /// `service.version` of the agent's output.
    pub service_version: String,
    /// `deployment.environment.name` of the agent's output.
    pub environment: String,
    /// Capacity of each ring, in events of usual size.
    #[schemars(range(min = 100, max = 10_000_000))]
    pub buffer_size: usize,
    /// Longest time for which an event waits for its batch to fill.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub flush_interval: std::time::Duration,
    /// Number of shards; 0: one for every two cores.
    #[schemars(range(max = 64))]
    pub shards: usize,
    /// Rule files and folders, in addition to the built-in rules.
    pub rules: Vec<PathBuf>,
    /// Whether the built-in rules are in force.
    pub builtin_rules: bool,
    /// Join keys with a partial match or an open window, per shard.
    #[schemars(range(min = 1))]
    pub max_keys: usize,
    /// Open stories, per shard.
    #[schemars(range(min = 1))]
    pub max_stories: usize,
    /// How strong a deviation of a service opens a story: an n-th of the usual one; 0: none does.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub service_sensitivity: f64,
    /// Size of the recovery log on disk, from which a restart restores open stories; 0 disables it.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub recovery_log_bytes: u64,
}

impl DataflowConfig {
    /// `service.name`, `service.version` and `deployment.environment.name` of the output.
    #[must_use]
    pub fn service(&self) -> [String; 3] {
        [&self.service_name, &self.service_version, &self.environment].map(String::clone)
    }

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub(super) fn check(&self) -> Result<(), String> {
        let bad = |key: &str, cause: &str| Err(format!("{key}: {cause}"));
        if self.group_retention_period < MIN_RETENTION {
            return bad("group_retention_period", "must be at least 1s");
        }
        if self.shards > 64 {
            return bad("shards", "must be at most 64");
        }
        if !(100..=10_000_000).contains(&self.buffer_size) {
            return bad("buffer_size", "must be from 100 to 10000000 events");
        }
        for (key, value) in [("max_keys", self.max_keys), ("max_stories", self.max_stories)] {
            if value == 0 {
                return bad(key, "must be at least 1");
            }
        }
        if !(0.0..=100.0).contains(&self.service_sensitivity) {
            return bad("service_sensitivity", "must be from 0 to 100");
        }
        if !matches!(self.recovery_log_bytes, 0 | 1_048_576..=68_719_476_736) {
            return bad("recovery_log_bytes", "must be 0, or from 1 MiB to 64 GiB");
        }
        Ok(())
    }
}

impl Default for DataflowConfig {
    fn default() -> Self {
        let lane = LaneOptions::default();
        Self {
            enable_semantic_grouping: true,
            group_retention_period: std::time::Duration::from_secs(30 * 60),
            service_name: "tapio".into(),
            service_version: env!("CARGO_PKG_VERSION").into(),
            environment: String::new(),
            buffer_size: 10_000,
            flush_interval: std::time::Duration::from_secs(1),
            shards: 0,
            rules: Vec::new(),
            builtin_rules: true,
            max_keys: lane.max_keys,
            max_stories: lane.max_stories,
            service_sensitivity: 1.0,
            recovery_log_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The ranking of root causes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceConfig {
    /// How much each kind of evidence counts: log-odds for each unit of it, from 0 to 10.
    pub weights: WeightsConfig,
}

/// The weights of the terms of a root cause's score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WeightsConfig {
    /// More events of a kind than usual.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub deviation: f64,
    /// A message that is more frequent than usual.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub lift: f64,
    /// The delay to the next event.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub edge_gap: f64,
    /// The severity of the events.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub severity: f64,
    /// The delay after the story's first event.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub onset: f64,
    /// A kind that usually precedes kinds that followed.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub pairs: f64,
    /// Causes and effects that the rule names.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub rule: f64,
    /// An earlier fault of what the entity depends on.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub upstream: f64,
}

impl Default for WeightsConfig {
    fn default() -> Self {
        Weights::DEFAULT.into()
    }
}

impl From<Weights> for WeightsConfig {
    fn from(weights: Weights) -> Self {
        let Weights { deviation, lift, edge_gap, severity, onset, pairs, rule, upstream } = weights;
        Self { deviation, lift, edge_gap, severity, onset, pairs, rule, upstream }
    }
}

impl WeightsConfig {
    /// The weights.
    #[must_use]
    pub fn weights(&self) -> Weights {
        let Self { deviation, lift, edge_gap, severity, onset, pairs, rule, upstream } = *self;
        Weights { deviation, lift, edge_gap, severity, onset, pairs, rule, upstream }
    }

    /// Validates the values; the error is the key and the cause.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let Some(term) = self.weights().invalid() else { return Ok(()) };
        let key = format!("evidence.weights.{}", TERMS[term].replace(' ', "_"));
        Err((key, format!("must be from 0 to {MAX_WEIGHT}")))
    }
}

/// The admin pages: `/metrics`, `/healthz`, `/readyz`, `/status`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The address they are served on.
    pub listen: ListenAddress,
    /// TLS.
    pub tls: Option<TlsServerConfig>,
    /// The file of tokens: lines `read NAME TOKEN` and `operate NAME TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Names of client certificates that may read.
    pub readers: Vec<String>,
    /// Names of client certificates that may read, change the log level and use the flight
    /// recorder.
    pub operators: Vec<String>,
    /// Names that requests may be for, besides localhost and addresses.
    pub hosts: Vec<String>,
    /// Users that may connect to a unix socket, besides root and the own one.
    pub allow_uids: Vec<u32>,
    /// Whether an address beyond loopback may do without TLS and authentication.
    pub insecure: bool,
}

impl AdminConfig {
    /// Access to the pages.
    #[must_use]
    pub fn access(&self) -> AccessConfig {
        AccessConfig {
            tls: self.tls.clone(),
            token_file: self.token_file.clone(),
            readers: self.readers.clone(),
            operators: self.operators.clone(),
            hosts: self.hosts.clone(),
            allow_uids: self.allow_uids.clone(),
            insecure: self.insecure,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: (std::net::Ipv4Addr::LOCALHOST, 7603).into(),
            tls: None,
            token_file: None,
            readers: Vec::new(),
            operators: Vec::new(),
            hosts: Vec::new(),
            allow_uids: Vec::new(),
            insecure: false,
        }
    }
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text per entry.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// The agent's log, on standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`; or a filter such as
    /// `info,tapio::bridge=debug`.
    #[serde(deserialize_with = "level")]
    #[schemars(extend("examples" = ["info", "debug", "info,tapio::bridge=debug"]))]
    pub level: String,
}

/// A level that the log has.
fn level<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let level = String::deserialize(from)?;
    check_level(&level).map_err(|cause| D::Error::custom(format_args!("log.level: {cause}")))?;
    Ok(level)
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// The section `debug`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DebugConfig {
    /// The flight recorder: events of the last minutes in memory, for `tapio debug dump`.
    pub recorder: RecorderConfig,
}

/// The flight recorder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecorderConfig {
    /// Whether it runs from the start on; `tapio debug record` switches it on for a time.
    pub enabled: bool,
    /// The time for which events are kept.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub keep: std::time::Duration,
    /// The most memory for them, compressed. The oldest leave first.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub bytes: usize,
}

impl RecorderConfig {
    /// The limits of what is kept.
    #[must_use]
    pub fn limits(&self) -> RecorderLimits {
        RecorderLimits { keep: self.keep, bytes: self.bytes }
    }

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        if !(MIN_KEEP..=MAX_KEEP).contains(&self.keep) {
            return Err("recorder.keep: must be from 1s to 24h".into());
        }
        if !(1 << 20..=1 << 32).contains(&(self.bytes as u64)) {
            return Err("recorder.bytes: must be from 1 MiB to 4 GiB".into());
        }
        Ok(())
    }
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self { enabled: false, keep: std::time::Duration::from_secs(600), bytes: 64 << 20 }
    }
}

/// The section `sandbox`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// Whether the process limits its rights.
    pub enabled: bool,
    /// Further files and folders to read.
    pub read: Vec<PathBuf>,
    /// Further folders to write to.
    pub write: Vec<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { enabled: true, read: Vec::new(), write: Vec::new() }
    }
}
