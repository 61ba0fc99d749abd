//! Configuration of the bridge.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::Durability;
use tapio_wire::{ClientAccess, Dialer, TlsClientConfig};

/// How batches are compressed on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With zstd.
    Zstd,
}

/// Delivery of events and stories to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// Address of the server: `host:port` or `http://host:port`, `https://host:port` with TLS, or
    /// `unix:/path`. Empty: none, the answers of exporters count; in a configuration without
    /// sinks, port 7600 of this host.
    #[schemars(extend("examples" = ["127.0.0.1:7600", "https://tapio.example:7600"]))]
    pub endpoint: String,
    /// Further servers, in the order in which they are tried when the one before fails. A
    /// connection that works is kept.
    pub failover: Vec<String>,
    /// TLS of endpoints that are `https://`.
    pub tls: Option<TlsClientConfig>,
    /// The file of the token that is sent to the servers.
    pub token_file: Option<PathBuf>,
    /// How batches are compressed on their way.
    pub compression: Compression,
    /// A batch closes when it has this many bytes …
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub batch_bytes: usize,
    /// … or this many events …
    #[schemars(range(min = 1))]
    pub batch_events: u32,
    /// … or, while few batches are in flight, when its oldest event has waited this long …
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub linger: Duration,
    /// … and after this time in any case. Configured as `dataflow.flush_interval`, the key of the
    /// specification.
    #[serde(skip)]
    pub flush_interval: Duration,
    /// Bytes of unacknowledged batches in memory. Beyond, they are on disk only; without a spool
    /// the bridge then reads nothing more from the rings, and collectors wait or drop events by
    /// their policies.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub queue_bytes: usize,
    /// Bytes of unacknowledged batches on disk (in `state_dir`). Beyond, the oldest are dropped and
    /// counted. 0: no spool.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub spool_bytes: u64,
    /// The faults that accepted events survive: `process`, a kill of the agent; `power`, a loss of
    /// power as well.
    pub durability: Durability,
    /// Bytes of batches that are sent and not acknowledged yet.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub in_flight_bytes: usize,
    /// How long a shutdown waits for acks; with a spool, only for a server that answers.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub drain_timeout: Duration,
    /// Time limit for a connection.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub connect_timeout: Duration,
    /// Longest pause between two attempts to connect. Each pause is random, up to a bound that
    /// doubles up to this one.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub reconnect_max: Duration,
    /// Time without traffic after which the connection is checked with a ping.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub keepalive: Duration,
    /// Time without an acknowledgement, while batches are in flight, after which the connection is
    /// given up.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub ack_timeout: Duration,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            failover: Vec::new(),
            tls: None,
            token_file: None,
            compression: Compression::None,
            batch_bytes: 256 * 1024,
            batch_events: 8_192,
            linger: Duration::from_micros(250),
            flush_interval: Duration::from_secs(1),
            queue_bytes: 16 * 1024 * 1024,
            spool_bytes: 2 * 1024 * 1024 * 1024,
            durability: Durability::Process,
            in_flight_bytes: 8 * 1024 * 1024,
            drain_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            reconnect_max: Duration::from_secs(2),
            keepalive: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(30),
        }
    }
}

/// Maximum of `batch_bytes`: with one more record, the batch must not exceed what a server accepts.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Minimum of `spool_bytes`.
const MIN_SPOOL_BYTES: u64 = 16 * 1024 * 1024;

impl BridgeConfig {
    pub(super) fn is_compressed(&self) -> bool {
        self.compression == Compression::Zstd
    }

    /// How the servers are authenticated, and the agent.
    #[must_use]
    pub fn access(&self) -> ClientAccess {
        ClientAccess { tls: self.tls.clone(), token_file: self.token_file.clone() }
    }

    /// Reads the files with which the agent connects.
    pub(super) fn dialer(&self) -> io::Result<Dialer> {
        Dialer::new(&self.access(), self.endpoints())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("bridge: {e}")))
    }

    /// The servers, in the order in which they are tried.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.endpoint).chain(&self.failover).map(String::as_str)
    }

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        let keys = std::iter::once("endpoint").chain(std::iter::repeat("failover"));
        let servers = keys.zip(self.endpoints()).filter(|(_, endpoint)| !endpoint.is_empty());
        self.access().check(servers)?;
        if !(4096..=MAX_BATCH_BYTES).contains(&self.batch_bytes) {
            return Err(format!(
                "batch_bytes: {} isn't between 4096 and {MAX_BATCH_BYTES}",
                self.batch_bytes
            ));
        }
        if self.batch_events == 0 {
            return Err("batch_events: must be at least 1".into());
        }
        if self.queue_bytes < self.batch_bytes {
            return Err(format!(
                "queue_bytes: {} is less than one batch ({})",
                self.queue_bytes, self.batch_bytes
            ));
        }
        if self.in_flight_bytes == 0 {
            return Err("in_flight_bytes: must be greater than zero".into());
        }
        if (1..MIN_SPOOL_BYTES).contains(&self.spool_bytes) {
            return Err(format!(
                "spool_bytes: {} is less than {MIN_SPOOL_BYTES}; 0 disables the spool",
                self.spool_bytes
            ));
        }
        for (key, value) in [
            ("flush_interval", self.flush_interval),
            ("connect_timeout", self.connect_timeout),
            ("reconnect_max", self.reconnect_max),
            ("keepalive", self.keepalive),
            ("ack_timeout", self.ack_timeout),
        ] {
            if value.is_zero() {
                return Err(format!("{key}: must be greater than zero"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_text_and_unknown_keys_are_errors() {
        let config: BridgeConfig = serde_json::from_str(r#"{"linger":"1ms"}"#).unwrap();
        assert_eq!(config.linger, Duration::from_millis(1));
        assert_eq!(config.queue_bytes, BridgeConfig::default().queue_bytes);
        let error = serde_json::from_str::<BridgeConfig>(r#"{"flush":"2s"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `flush`"));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<BridgeConfig>(&text).unwrap(), config);
    }

    #[test]
    fn invalid_value_is_reported_with_its_key() {
        let bad = BridgeConfig { queue_bytes: 1, ..BridgeConfig::default() };
        assert!(bad.check().unwrap_err().starts_with("queue_bytes:"));
        assert_eq!(BridgeConfig::default().check(), Ok(()));
    }
}
