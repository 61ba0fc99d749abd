//! A collector's environment for one run.

#[cfg(test)]
#[path = "../../../tests/support/router.rs"]
mod router;

#[cfg(test)]
use std::sync::Arc;

#[cfg(test)]
use tapio_core::ring::OnFull;
use tapio_core::ring::Sink;
use tapio_core::shutdown::Shutdown;

use super::site::Site;
use super::status::StatusReport;

/// A collector's environment for one run. The supervisor owns it, so a run that panics loses only
/// the events that it hadn't offered yet.
pub struct Context {
    /// Receives the events.
    pub sink: Sink,
    /// Wakes a waiting collector, which then has 100 ms to end. Each check is a heartbeat, due
    /// every [`Shutdown::heartbeat_interval`]; a collector without heartbeats counts as hung.
    pub shutdown: Shutdown,
    /// The collector's part of `/status`.
    pub report: StatusReport,
    /// The node, its entity directory and the state folder.
    pub site: Site,
}

impl Context {
    /// Whether this run may save cursors: not before all stages have started, and not after the
    /// run was abandoned and replaced.
    #[must_use]
    pub fn may_save_cursor(&self) -> bool {
        !self.shutdown.is_abandoned() && self.site.has_ledger()
    }

    /// Number of this collector's events that are neither stored nor dropped yet. `None` if this
    /// run may not save cursors, and for a moment while an event is being counted.
    #[must_use]
    pub fn held(&self) -> Option<u64> {
        self.may_save_cursor().then(|| self.site.held(self.sink.collector())).flatten()
    }

    /// A context whose sink discards its events. `held`: the ledger's number of events held;
    /// without it the site has no ledger.
    #[cfg(test)]
    pub(crate) fn for_test(held: Option<u64>) -> Self {
        let mut ledger = tapio_core::ring::Ledger::new(vec!["test".into()]);
        let stage = ledger.stage(tapio_core::event::Stage::Collect);
        let bell = Arc::new(tapio_core::ring::Bell::new(Default::default()));
        let shards = vec![(tapio_core::ring::ring(64).0, bell)];
        let shutdown = Shutdown::default();
        let router = Arc::new(router::OneShard);
        let sink = Sink::new(0, OnFull::Wait, router, shards, Arc::clone(&stage), shutdown.clone());
        let site = Site::new("node-1", 7);
        if let Some(held) = held {
            stage.add_received(0, held);
            stage.add_held(0, held);
            site.set_ledger(Arc::new(ledger));
        }
        Self { sink, shutdown, report: StatusReport::default(), site }
    }
}
