//! Sections of the configuration that concern the process as a whole, and the correlator.

use std::path::PathBuf;

use serde::Deserialize;

use tapio_dataflow::LaneOptions;
use tapio_wire::{AccessConfig, ListenAddress, TlsServerConfig};

/// The correlator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataflowConfig {
    /// Whether events are correlated; if not, they pass with the trace they arrived with.
    pub enable_semantic_grouping: bool,
    /// Longest time for which a story may be open, whatever its rule allows.
    #[serde(with = "tapio_core::durations")]
    pub group_retention_period: std::time::Duration,
    /// `service.name` of the agent's output.
    pub service_name: String,
    /// `service.version` of the agent's output.
    pub service_version: String,
    /// `deployment.environment.name` of the agent's output.
    pub environment: String,
    /// Capacity of each ring, in events of usual size.
    pub buffer_size: usize,
    /// Longest time for which an event waits for its batch to fill.
    #[serde(with = "tapio_core::durations")]
    pub flush_interval: std::time::Duration,
    /// Number of shards; 0: one for every two cores.
    pub shards: usize,
    /// Rule files and folders, in addition to the built-in rules.
    pub rules: Vec<PathBuf>,
    /// Whether the built-in rules are in force.
    pub builtin_rules: bool,
    /// Join keys with a partial match or an open window, per shard.
    pub max_keys: usize,
    /// Open stories, per shard.
    pub max_stories: usize,
    /// How strong a deviation of a service opens a story: an n-th of the usual one; 0: none does.
    pub service_sensitivity: f64,
    /// Size of the recovery log on disk, from which a restart restores open stories; 0 disables it.
    pub recovery_log_bytes: u64,
}

impl DataflowConfig {
    /// `service.name`, `service.version` and `deployment.environment.name` of the output.
    #[must_use]
    pub fn service(&self) -> [String; 3] {
        [&self.service_name, &self.service_version, &self.environment].map(String::clone)
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

/// The admin pages: `/metrics`, `/healthz`, `/readyz`, `/status`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The address they are served on.
    pub listen: ListenAddress,
    /// TLS.
    pub tls: Option<TlsServerConfig>,
    /// The file of tokens: lines `read NAME TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Names of client certificates that may read.
    pub readers: Vec<String>,
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
            hosts: self.hosts.clone(),
            allow_uids: self.allow_uids.clone(),
            insecure: self.insecure,
            ..AccessConfig::default()
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
            hosts: Vec::new(),
            allow_uids: Vec::new(),
            insecure: false,
        }
    }
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text per entry.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// The agent's log, on standard error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`; or a filter such as `info,tapio::bridge=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// The section `sandbox`.
#[derive(Clone, Debug, Deserialize)]
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
