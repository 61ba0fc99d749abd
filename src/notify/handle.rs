//! The thread of all receivers.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::checkpoint::{StateFile, folder};
use super::config::{ReceiverConfig, check_receivers};
use super::dead_letters::DeadLetters;
use super::kinds::receiver;
use super::log::StoryLog;
use super::placed::Placed;
use super::stats::ReceiverStats;
use super::task::{Parts, Task};
use tapio_core::clock;

/// The name of the thread.
const THREAD: &str = "notify";
/// The weight of the thread: ingest goes first.
const NICENESS: i32 = 5;

/// The receivers of notifications. Dropping it stops them; what they haven't got is kept.
pub struct Notifier {
    stats: Vec<Arc<ReceiverStats>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Opens the files of a receiver: tokens, keys, certificates.
///
/// # Errors
/// The key of the file that can't be used, and the cause.
pub fn check_receiver_files(config: &ReceiverConfig) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let _inside = runtime.enter();
    receiver(config).map(drop)
}

impl Notifier {
    /// Starts a task for each receiver. `data_dir`: where their state is kept.
    ///
    /// # Errors
    /// With the receiver and the key of an invalid value, or when a file can't be used.
    pub fn start(
        receivers: &[Placed<ReceiverConfig>],
        cluster: &str,
        data_dir: &Path,
        log: &Arc<dyn StoryLog>,
    ) -> io::Result<Self> {
        let invalid = |cause| io::Error::new(io::ErrorKind::InvalidInput, cause);
        check_receivers(receivers).map_err(|(_, cause)| invalid(cause))?;
        let (stop, stopped) = watch::channel(false);
        let mut notifier = Self { stats: Vec::new(), stop, thread: None };
        if receivers.is_empty() {
            return Ok(notifier);
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder(data_dir))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let mut tasks = Vec::new();
        for (number, Placed { value: config, .. }) in receivers.iter().enumerate() {
            let name = &config.name;
            let failed = |cause| invalid(format!("receiver {name:?}: {cause}"));
            let (kind, http) = config.kind().map_err(failed)?;
            let stats = Arc::new(ReceiverStats::new(name.clone(), kind, http.host()));
            notifier.stats.push(Arc::clone(&stats));
            tasks.push(Task::new(Parts {
                receiver: receiver(config).map_err(failed)?,
                config: config.clone(),
                cluster: cluster.to_owned(),
                stats,
                log: Arc::clone(log),
                file: StateFile::new(data_dir, name),
                dead_letters: DeadLetters::new(data_dir),
                seed: clock::wall_ns() ^ (number as u64) << 32,
            })?);
        }
        drop(inside);
        let run = move || {
            // It may be refused only to raise the weight.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            runtime.block_on(async {
                let run = |task: Task| tokio::spawn(task.run(stopped.clone()));
                let tasks: Vec<_> = tasks.into_iter().map(run).collect();
                for task in tasks {
                    if let Err(error) = task.await {
                        tracing::error!(%error, "notify: a receiver's task panicked");
                    }
                }
            });
        };
        notifier.thread = Some(std::thread::Builder::new().name(THREAD.into()).spawn(run)?);
        Ok(notifier)
    }

    /// The state of each receiver.
    #[must_use]
    pub fn stats(&self) -> &[Arc<ReceiverStats>] {
        &self.stats
    }

    /// Stops all receivers.
    pub fn stop(&mut self) {
        // Fails only where no task listens any more.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("notify: thread panicked");
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stop();
    }
}
