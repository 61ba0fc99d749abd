//! The bridge's part of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How events leave the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// The server: `host:port`.
    pub endpoint: String,
    /// A batch is sent when it has this many bytes …
    pub batch_bytes: usize,
    /// … or this many events …
    pub batch_events: u32,
    /// … or, while the line has little to do, when its oldest event has waited this long …
    #[serde(with = "tapio_core::durations")]
    pub linger: Duration,
    /// … and at the latest after this time, however busy the line is. Configured as
    /// `dataflow.flush_interval`, where the specification has it.
    #[serde(skip)]
    pub flush_interval: Duration,
    /// What may wait for the server's ack. When it is full, the bridge takes nothing more out of
    /// the rings, and collectors wait or drop as their policies say.
    pub queue_bytes: usize,
    /// How long the end of the process may wait for acks.
    #[serde(with = "tapio_core::durations")]
    pub drain_timeout: Duration,
    /// How long a connection may take to come about.
    #[serde(with = "tapio_core::durations")]
    pub connect_timeout: Duration,
    /// The longest pause between two attempts to connect; each pause is a random part of a span
    /// that doubles up to this one.
    #[serde(with = "tapio_core::durations")]
    pub reconnect_max: Duration,
    /// After how long a silence the server is asked whether it lives.
    #[serde(with = "tapio_core::durations")]
    pub keepalive: Duration,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            endpoint: "127.0.0.1:7600".into(),
            batch_bytes: 256 * 1024,
            batch_events: 8_192,
            linger: Duration::from_micros(250),
            flush_interval: Duration::from_secs(1),
            queue_bytes: 64 * 1024 * 1024,
            drain_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            reconnect_max: Duration::from_secs(2),
            keepalive: Duration::from_secs(20),
        }
    }
}

/// The largest `batch_bytes`: a record that is encoded on top must still fit into what a server
/// takes.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

impl BridgeConfig {
    /// Finds values that can't work.
    ///
    /// # Errors
    /// The key and what is wrong with its value.
    pub fn check(&self) -> Result<(), String> {
        if !(4096..=MAX_BATCH_BYTES).contains(&self.batch_bytes) {
            return Err(format!(
                "batch_bytes: {} isn't between 4096 and {MAX_BATCH_BYTES}",
                self.batch_bytes
            ));
        }
        if self.batch_events == 0 {
            return Err("batch_events: 0 events make no batch".into());
        }
        if self.queue_bytes < self.batch_bytes {
            return Err(format!(
                "queue_bytes: {} is less than one batch ({})",
                self.queue_bytes, self.batch_bytes
            ));
        }
        for (key, value) in [
            ("flush_interval", self.flush_interval),
            ("connect_timeout", self.connect_timeout),
            ("reconnect_max", self.reconnect_max),
            ("keepalive", self.keepalive),
        ] {
            if value.is_zero() {
                return Err(format!("{key}: must be longer than nothing"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_text_and_unknown_keys_are_refused() {
        let config: BridgeConfig = serde_json::from_str(r#"{"linger":"1ms"}"#).unwrap();
        assert_eq!(config.linger, Duration::from_millis(1));
        assert_eq!(config.queue_bytes, BridgeConfig::default().queue_bytes);
        let error = serde_json::from_str::<BridgeConfig>(r#"{"flush":"2s"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `flush`"));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<BridgeConfig>(&text).unwrap(), config);
    }

    #[test]
    fn values_that_can_not_work_are_named() {
        let bad = BridgeConfig { queue_bytes: 1, ..BridgeConfig::default() };
        assert!(bad.check().unwrap_err().starts_with("queue_bytes:"));
        assert_eq!(BridgeConfig::default().check(), Ok(()));
    }
}
