//! The server's configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The receiving end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where agents deliver and gRPC queries are answered.
    pub grpc_listen: SocketAddr,
    /// Where HTTP queries, `/metrics` and health checks are answered.
    pub http_listen: SocketAddr,
    /// Where the store lives. Made if it isn't there.
    pub data_dir: PathBuf,
    /// A file of the store has this many bytes.
    pub segment_bytes: u64,
    /// The store has about this many bytes; the oldest file goes first.
    pub retention_bytes: u64,
    /// Stories whose last revision can be listed.
    pub stories_kept: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            grpc_listen: (Ipv4Addr::LOCALHOST, 7600).into(),
            http_listen: (Ipv4Addr::LOCALHOST, 7601).into(),
            data_dir: PathBuf::from("/var/lib/tapio"),
            segment_bytes: 16 * 1024 * 1024,
            retention_bytes: 1024 * 1024 * 1024,
            stories_kept: 10_000,
        }
    }
}

impl ServerConfig {
    /// Finds values that can't work.
    ///
    /// # Errors
    /// The key and what is wrong with its value.
    pub fn check(&self) -> Result<(), String> {
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
        if self.stories_kept == 0 {
            return Err("stories_kept: 0 stories can't be listed".into());
        }
        Ok(())
    }
}
