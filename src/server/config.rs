//! The server's configuration.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notify::{Placed, ReceiverConfig, check_receivers};
use crate::store::Durability;
use tapio_wire::{AccessConfig, ListenAddress, TlsServerConfig};

/// Longest `sync_interval`: agents keep what isn't acknowledged in memory.
const MAX_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest `retention_age`: it is checked about once a second.
const MIN_RETENTION_AGE: Duration = Duration::from_secs(1);

/// Configuration of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address for agents and gRPC queries.
    pub grpc_listen: ListenAddress,
    /// Whether gRPC clients can ask for the services and types (`grpc.reflection.v1`, `v1alpha`),
    /// with the right to read.
    pub grpc_reflection: bool,
    /// Address for HTTP queries, `/metrics` and health checks.
    pub http_listen: ListenAddress,
    /// TLS of both listeners.
    pub tls: Option<TlsServerConfig>,
    /// The file of tokens: lines `write NODE TOKEN`, `read NAME TOKEN` and
    /// `operate NAME TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Names of client certificates that may read.
    pub readers: Vec<String>,
    /// Names of client certificates that may read, annotate and silence.
    pub operators: Vec<String>,
    /// Names that requests over HTTP may be for, besides localhost and addresses.
    pub hosts: Vec<String>,
    /// Users that may connect to unix sockets, besides root and the own one.
    pub allow_uids: Vec<u32>,
    /// Whether addresses beyond loopback may do without TLS and authentication.
    pub insecure: bool,
    /// Folder of the storage; created if missing.
    pub data_dir: PathBuf,
    /// Size of a segment.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub segment_bytes: u64,
    /// About the size of all segments; beyond it, the oldest is retired.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub retention_bytes: u64,
    /// Segments whose batches were all received longer ago are retired; 0 for no limit.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub retention_age: Duration,
    /// The faults that an acknowledged batch survives: `power`, a loss of power; `process`, a kill
    /// of the server.
    pub durability: Durability,
    /// The least time between two syncs of the disk, which acknowledgements wait for with
    /// `durability: power`.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub sync_interval: Duration,
    /// Stories whose last revision can be listed; beyond, the least recently updated is evicted.
    #[schemars(range(min = 1))]
    pub stories_kept: usize,
    /// Receivers of notifications about stories.
    pub notify: Vec<Placed<ReceiverConfig>>,
    /// The cluster's name, for notifications.
    #[serde(skip)]
    pub cluster: String,
    /// Where the page opens a trace, with `{trace_id}` in the place of its id:
    /// `https://tempo.example/trace/{trace_id}`. Empty: nowhere.
    pub trace_url: String,
    /// The folder of the page's files, for work on them; `None`: those in the program.
    #[serde(skip)]
    pub web_dir: Option<PathBuf>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            grpc_listen: (Ipv4Addr::LOCALHOST, 7600).into(),
            grpc_reflection: false,
            http_listen: (Ipv4Addr::LOCALHOST, 7601).into(),
            tls: None,
            token_file: None,
            readers: Vec::new(),
            operators: Vec::new(),
            hosts: Vec::new(),
            allow_uids: Vec::new(),
            insecure: false,
            data_dir: PathBuf::from("/var/lib/tapio"),
            segment_bytes: 16 * 1024 * 1024,
            retention_bytes: 1024 * 1024 * 1024,
            retention_age: Duration::ZERO,
            durability: Durability::Power,
            sync_interval: Duration::from_millis(10),
            stories_kept: 10_000,
            notify: Vec::new(),
            cluster: String::new(),
            trace_url: String::new(),
            web_dir: None,
        }
    }
}

impl ServerConfig {
    /// Access to the listeners.
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

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        self.access()
            .check(&[("grpc_listen", &self.grpc_listen), ("http_listen", &self.http_listen)])?;
        if !(64 * 1024..=1024 * 1024 * 1024).contains(&self.segment_bytes) {
            return Err(format!(
                "segment_bytes: {} isn't between 64 KiB and 1 GiB",
                self.segment_bytes
            ));
        }
        if self.retention_bytes < 2 * self.segment_bytes {
            return Err(format!(
                "retention_bytes: {} is less than two segments ({})",
                self.retention_bytes, self.segment_bytes
            ));
        }
        if !self.retention_age.is_zero() && self.retention_age < MIN_RETENTION_AGE {
            return Err(format!("retention_age: neither 0s nor at least {MIN_RETENTION_AGE:?}"));
        }
        if self.sync_interval > MAX_SYNC_INTERVAL {
            return Err(format!("sync_interval: longer than {MAX_SYNC_INTERVAL:?}"));
        }
        if self.stories_kept == 0 {
            return Err("stories_kept: must be at least 1".into());
        }
        let is_web =
            ["http://", "https://"].iter().any(|scheme| self.trace_url.starts_with(scheme));
        let is_fine = is_web && self.trace_url.contains("{trace_id}");
        if !self.trace_url.is_empty() && !is_fine {
            return Err("trace_url: not an http:// or https:// address with {trace_id}".into());
        }
        check_receivers(&self.notify).map_err(|(_, cause)| format!("notify: {cause}"))
    }
}
