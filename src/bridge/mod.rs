//! The bridge: one pinned thread that takes what the shards let go, in place out of their rings,
//! and brings it to the server. What it took it keeps until the server has stored it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`BridgeConfig`] |
//! | `intake.rs` | rings → batches |
//! | `queue.rs` | batches that wait for an ack; the ledger's account of them |
//! | `drive.rs` | the thread: when to read, send, nap, sleep, reconnect and end |
//! | `backoff.rs` | pauses between attempts to connect |
//! | `stats.rs` | [`BridgeStats`] |

mod backoff;
mod config;
mod drive;
mod intake;
mod queue;
mod stats;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;

pub use config::BridgeConfig;
pub use stats::{BridgeStats, BridgeStatus};

use tapio_core::ring::{Bell, RecordReader, StageLedger};
use tapio_core::shutdown::Shutdown;

/// How often a join rings the bell of a bridge that may be asleep.
const JOIN_NAP: Duration = Duration::from_millis(2);

/// The bridge, to be started.
pub struct Bridge {
    /// How to send.
    pub config: BridgeConfig,
    /// The node's name, as batches carry it.
    pub node: String,
    /// Identifies this process: its start in nanoseconds since the Unix epoch.
    pub epoch: u64,
    /// One ring of each shard.
    pub readers: Vec<RecordReader>,
    /// Which shards ring after they wrote.
    pub bell: Arc<Bell>,
    /// The counters of stage `bridge`.
    pub ledger: Arc<StageLedger>,
    /// Once it is set, the bridge ends when its rings' writers are gone and everything is
    /// acknowledged, and `drain_timeout` later at the latest.
    pub shutdown: Shutdown,
    /// Where to run.
    pub core: Option<CoreId>,
}

/// The running bridge.
pub struct BridgeHandle {
    stats: Arc<BridgeStats>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts the thread. It ends when [`Bridge::stop`] is set, or when all rings' writers are gone
    /// and everything they wrote is acknowledged.
    ///
    /// # Errors
    /// When the configuration can't work or the system gives no thread, timer or reactor.
    pub fn spawn(self) -> io::Result<BridgeHandle> {
        self.config
            .check()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("bridge.{e}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stats = Arc::new(BridgeStats::default());
        let (bell, core) = (Arc::clone(&self.bell), self.core);
        let drive = {
            let _inside = runtime.enter();
            drive::Drive::new(self, Arc::clone(&stats))?
        };
        let thread = std::thread::Builder::new().name("bridge".into()).spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            runtime.block_on(drive.run());
        })?;
        Ok(BridgeHandle { stats, bell, thread: Some(thread) })
    }
}

impl BridgeHandle {
    /// How it goes.
    #[must_use]
    pub fn stats(&self) -> &Arc<BridgeStats> {
        &self.stats
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the thread's end, waking it if it sleeps.
    pub fn join(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() {
            self.bell.ring();
            std::thread::sleep(JOIN_NAP);
        }
        if thread.join().is_err() {
            tracing::error!("the bridge panicked; what it held is lost");
        }
    }
}
