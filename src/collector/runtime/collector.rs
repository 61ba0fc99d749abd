//! The interface between a collector and its supervisor.

use tapio_core::ring::OnFull;

use super::context::Context;

/// Why a collector's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// Its source has no more: a file that was read, a load that was sent.
    Finished,
}

/// Why a collector can't go on.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// It may pass: the manager reports it and starts the collector again later.
    #[error("{0}")]
    Failed(String),
    /// It stays as long as this process lives, such as a kernel that lacks what the collector
    /// needs: the manager reports it once and leaves the collector alone.
    #[error("{0}")]
    Unavailable(String),
}

impl CollectorError {
    /// A failure that may pass, with what was tried before its cause.
    pub fn new(what: &str, cause: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {cause}"))
    }
}

/// A source of events. A new value is made for each (re)start.
pub trait Collector: Send {
    /// Reads the source until it ends or [`Context::stop`] is set, blocking as it likes.
    ///
    /// # Errors
    /// When the source can't be read any more; the manager starts the collector again with backoff,
    /// unless the error says that there is no use.
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError>;
}

/// A configured collector: how the manager makes one for each start.
pub type Make = Box<dyn Fn() -> Box<dyn Collector> + Send>;

/// What a collector's configuration must say of itself.
pub trait CollectorConfig {
    /// Whether to run it.
    fn enabled(&self) -> bool;
    /// What to do when a ring is full.
    fn on_full(&self) -> OnFull;
    /// Makes the factory.
    fn make(&self) -> Make;
}
