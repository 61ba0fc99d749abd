//! Sources of events. Each collector is one file (or folder) and one row in `table.rs`; it runs on
//! a thread of its own, supervised by the [`CollectorManager`].
//!
//! A collector knows the [`Sink`](tapio_core::ring::Sink) it puts its events into and nothing of what
//! happens to them there.

mod alarm;
pub mod cni;
pub mod container;
mod cursor;
mod draft;
pub mod ebpf;
mod filter;
mod identify;
pub mod journal;
pub mod jsonl;
pub mod k8s;
mod kept;
pub mod kmsg;
mod manager;
pub mod node;
pub mod otlp;
pub mod receiver;
mod site;
mod supervise;
pub mod synthetic;
pub mod systemd;
mod table;
mod turns;

use std::sync::{Arc, Mutex};

pub use filter::Filter;
pub use manager::{CollectorManager, CollectorSpec, CollectorStatus, Health};
pub use site::Site;
pub use table::{CollectorsConfig, Row};

use tapio_core::ring::{OnFull, Sink};
use tapio_core::shutdown::Shutdown;

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

/// A fact a collector reports about itself: a program that couldn't load, a bad line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What the note is about: a program, a file, a permission.
    pub subject: String,
    /// `ok`, or what is wrong and what it costs.
    pub state: String,
}

/// A collector's own page in `/status`: the latest note of each subject, and named counters.
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<Mutex<ReportInner>>);

#[derive(Debug, Default)]
struct ReportInner {
    notes: Vec<Note>,
    counters: Vec<(String, u64)>,
}

/// Subjects a report keeps; the oldest go first.
const MAX_NOTES: usize = 64;

impl Report {
    fn lock(&self) -> std::sync::MutexGuard<'_, ReportInner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Says how a subject is, replacing what was said of it before.
    pub fn note(&self, subject: &str, state: impl Into<String>) {
        let mut inner = self.lock();
        let state = state.into();
        if let Some(note) = inner.notes.iter_mut().find(|n| n.subject == subject) {
            note.state = state;
            return;
        }
        if inner.notes.len() >= MAX_NOTES {
            inner.notes.remove(0);
        }
        inner.notes.push(Note { subject: subject.to_owned(), state });
    }

    /// Sets a named counter (`tapio_collector_detail` in `/metrics`).
    pub fn count(&self, name: &str, value: u64) {
        let mut inner = self.lock();
        match inner.counters.iter_mut().find(|c| c.0 == name) {
            Some(counter) => counter.1 = value,
            None => inner.counters.push((name.to_owned(), value)),
        }
    }

    /// The notes, oldest subject first.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.lock().notes.clone()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        self.lock().counters.clone()
    }
}

/// What a collector is given for one run. The manager keeps it, so that a run that panics loses
/// nothing but what it had in its hands.
pub struct Context {
    /// Where events go.
    pub sink: Sink,
    /// Watch it: it wakes a collector that waits, which then ends within 100 ms. Looking is its sign of life, and due every
    /// [`Shutdown::heartbeat_interval`]: one that doesn't look hangs.
    pub shutdown: Shutdown,
    /// What to say in `/status`.
    pub report: Report,
    /// Where it works: the node, who is who on it, what survives a restart.
    pub site: Site,
}

impl Context {
    /// Whether positions are this run's to keep: not before the agent has started whole, and not once it was given up and
    /// another one has its place.
    #[must_use]
    pub fn keeps_positions(&self) -> bool {
        !self.shutdown.is_abandoned() && self.site.is_accounted()
    }

    /// Events of this collector that are neither stored nor dropped yet; `None` where positions aren't this run's to keep, and
    /// for a moment while one is being counted.
    #[must_use]
    pub fn held(&self) -> Option<u64> {
        self.keeps_positions().then(|| self.site.held(self.sink.collector())).flatten()
    }

    /// A context whose sink leads nowhere and whose ledger says that `held` events are under way.
    #[cfg(test)]
    fn for_test(held: Option<u64>) -> Self {
        struct ToTheFirst;
        impl tapio_core::ring::Router for ToTheFirst {
            fn route(&self, _: &tapio_core::event::Event<'_>) -> tapio_core::ring::Route {
                tapio_core::ring::Route { visits: 1 }
            }
        }
        let mut ledger = tapio_core::ring::Ledger::new(vec!["test".into()]);
        let stage = ledger.stage(tapio_core::event::Stage::Collect);
        let bell = Arc::new(tapio_core::ring::Bell::new(Default::default()));
        let shards = vec![(tapio_core::ring::ring(64).0, bell)];
        let shutdown = Shutdown::default();
        let router = Arc::new(ToTheFirst);
        let sink = Sink::new(0, OnFull::Wait, router, shards, Arc::clone(&stage), shutdown.clone());
        let site = Site::new("node-1", 7);
        if let Some(held) = held {
            stage.take(0, held);
            stage.hold(0, held);
            site.account_in(Arc::new(ledger));
        }
        Self { sink, shutdown, report: Report::default(), site }
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
