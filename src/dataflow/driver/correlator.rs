//! The running threads of a topology.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::shard::shard::Shard;
use crate::shard::worker_stats::WorkerStats;
use tapio_core::ring::Bell;

/// The running shards, with the assessor's thread and the recorder's, where there are any.
pub struct Correlator {
    pub(crate) shards: Vec<JoinHandle<Shard>>,
    pub(crate) bells: Vec<Arc<Bell>>,
    pub(crate) assessor: Option<JoinHandle<()>>,
    pub(crate) recorder: Option<JoinHandle<()>>,
    /// The counters of each shard.
    pub stats: Vec<Arc<WorkerStats>>,
}

impl Correlator {
    /// Waits until all threads have ended. Shutdown must have been requested and the collectors
    /// gone.
    pub fn join(self) -> Vec<Shard> {
        self.bells.iter().for_each(|bell| bell.ring());
        let shards = self.shards.into_iter().filter_map(|thread| thread.join().ok()).collect();
        if self.recorder.is_some_and(|recorder| recorder.join().is_err()) {
            tracing::error!(
                "recovery log: thread panicked; open stories won't continue after a restart"
            );
        }
        if self.assessor.is_some_and(|assessor| assessor.join().is_err()) {
            tracing::error!(
                "assessor: thread panicked (defect in tapio); the stories it held are lost"
            );
        }
        shards
    }
}
