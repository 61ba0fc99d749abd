//! The parts that a bridge is started with.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::BridgeConfig;
use super::feed::SpoolFeed;
use super::outbox::SpoolConfig;
use super::report::LatestReport;
use tapio_core::cpu::Placement;
use tapio_core::ring::{Bell, RecordReader, StageLedger};
use tapio_core::shutdown::Shutdown;

/// A bridge to be started.
pub struct Bridge {
    /// Configuration.
    pub config: BridgeConfig,
    /// The name of the node.
    pub node: String,
    /// Identifies this process: its start, nanoseconds since the Unix epoch.
    pub epoch: u64,
    /// One ring of each shard.
    pub readers: Vec<RecordReader>,
    /// The bell that shards ring after a write.
    pub bell: Arc<Bell>,
    /// The counters of stage `bridge`.
    pub ledger: Arc<StageLedger>,
    /// Once requested, the bridge ends when the writers of its rings are gone and everything is
    /// acknowledged, at the latest `drain_timeout` later.
    pub shutdown: Shutdown,
    /// Where batches wait on disk; `None`: in memory only.
    pub spool: Option<BridgeSpool>,
    /// Exporters that read the spool; `None`: there are none.
    pub exports: Option<Arc<SpoolFeed>>,
    /// The agent's reports of its own state.
    pub reports: Arc<LatestReport>,
    /// The file for items that the server refuses; `None`: they are counted only.
    pub quarantine: Option<PathBuf>,
    /// The CPUs to run on.
    pub placement: Placement,
}

/// The bridge's spool.
pub struct BridgeSpool {
    /// Its configuration.
    pub config: SpoolConfig,
    /// Counts the events that earlier processes left in it as received.
    pub ledger: Arc<StageLedger>,
    /// Bit n: events of the collector with this number come again after a kill, under the same ids.
    pub reads_again: u32,
}
