//! Start and end of the bridge's thread.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::flight_recorder::FlightRecorder;
use super::parts::Bridge;
use super::stats::BridgeStats;
use super::worker::Worker;
use tapio_core::ring::Bell;

/// Interval at which a join rings the bell of a bridge that may be asleep.
const JOIN_INTERVAL: Duration = Duration::from_millis(2);

/// The name of the bridge's thread.
pub(crate) const THREAD: &str = "bridge";

/// The running bridge.
pub struct BridgeHandle {
    stats: Arc<BridgeStats>,
    recorder: Arc<FlightRecorder>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts the thread. It ends as [`Bridge::shutdown`] describes.
    ///
    /// # Errors
    /// When the configuration is invalid, or the thread, its timer or its reactor can't be created.
    pub fn spawn(self) -> io::Result<BridgeHandle> {
        self.config
            .check()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("bridge.{e}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stats = Arc::new(BridgeStats::default());
        let recorder = Arc::new(FlightRecorder::default());
        let (bell, placement) = (Arc::clone(&self.bell), self.placement.clone());
        let worker = {
            let _inside = runtime.enter();
            Worker::new(self, Arc::clone(&stats), Arc::clone(&recorder))?
        };
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            placement.begin(THREAD);
            runtime.block_on(worker.run());
        })?;
        Ok(BridgeHandle { stats, recorder, bell, thread: Some(thread) })
    }
}

impl BridgeHandle {
    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<BridgeStats> {
        &self.stats
    }

    /// The recorder of the last minutes, which is off.
    #[must_use]
    pub fn recorder(&self) -> &Arc<FlightRecorder> {
        &self.recorder
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the thread has ended, and wakes it if it sleeps.
    pub fn join(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() {
            self.bell.ring();
            std::thread::sleep(JOIN_INTERVAL);
        }
        if thread.join().is_err() {
            tracing::error!("bridge: thread panicked; unacknowledged events are lost");
        }
    }
}
