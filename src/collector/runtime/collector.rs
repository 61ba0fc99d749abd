//! The interface between a collector and its supervisor.

use std::path::PathBuf;

use tapio_core::ring::OnFull;
use tapio_core::sandbox::FileRights;

use super::context::Context;

/// Why a collector's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Shutdown was requested.
    Stopped,
    /// The source is exhausted: a file read to its end, a load sent completely.
    Finished,
}

/// Why a collector's run failed.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// A failure that may pass: the supervisor reports it and restarts the collector with backoff.
    #[error("{0}")]
    Failed(String),
    /// A failure that lasts as long as this process, such as a kernel without a required feature:
    /// the supervisor reports it once and doesn't restart the collector.
    #[error("{0}")]
    Unavailable(String),
}

impl CollectorError {
    /// A failure that may pass: the operation that failed and its cause.
    pub fn new(operation: &str, cause: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{operation}: {cause}"))
    }
}

/// A source of events. Each run gets a new value.
pub trait Collector: Send {
    /// Reads the source until it ends or [`Context::shutdown`] is requested. May block.
    ///
    /// # Errors
    /// When the source can't be read any more; [`CollectorError`] decides about the restart.
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError>;
}

/// Creates a collector for each run.
pub type CollectorFactory = Box<dyn Fn() -> Box<dyn Collector> + Send>;

/// The configuration of a collector.
pub trait CollectorConfig {
    /// Whether to run the collector.
    fn enabled(&self) -> bool;

    /// The sink's policy for a full ring. By default the collector waits, for sources that keep
    /// what isn't read.
    fn on_full(&self) -> OnFull {
        OnFull::Wait
    }

    /// Whether events come again after a kill, under the same ids: those behind the saved position,
    /// or those that a sender got no answer for.
    fn reads_again(&self) -> bool {
        false
    }

    /// Whether its senders choose the times of its events: these say nothing about how far time is.
    fn has_given_times(&self) -> bool {
        false
    }

    /// The names of its threads that can be busy for long: each gets a CPU of its own where threads
    /// are pinned.
    fn busy_threads(&self) -> &'static [&'static str] {
        &[]
    }

    /// Files and folders that it opens, besides `/proc`, `/sys`, `/etc`, `/usr`, the state folder
    /// and the paths in the configuration file.
    fn files(&self) -> Vec<(PathBuf, FileRights)> {
        Vec::new()
    }

    /// Sockets that it connects to.
    fn sockets(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns the collector's [`factory`].
    fn factory(&self) -> CollectorFactory;
}

/// A tokio runtime on the collector's own thread.
///
/// # Errors
/// When its reactor can't be created.
pub(crate) fn tokio_runtime() -> Result<tokio::runtime::Runtime, CollectorError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CollectorError::new("tokio runtime", e))
}

/// Returns a factory that creates a collector from a clone of `state`: the configuration, and
/// whatever else the runs share.
pub(crate) fn factory<S, C>(state: S, create: impl Fn(S) -> C + Send + 'static) -> CollectorFactory
where
    S: Clone + Send + 'static,
    C: Collector + 'static,
{
    Box::new(move || Box::new(create(state.clone())))
}
