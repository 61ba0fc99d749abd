//! A collector's environment for one run.

#[cfg(test)]
#[path = "../../../tests/support/router.rs"]
mod router;

use std::sync::Arc;

use tapio_core::ring::Sink;
#[cfg(test)]
use tapio_core::ring::{MAX_COLLECTORS, OnFull};
use tapio_core::shutdown::Shutdown;

use super::acceptance::{Acceptance, Ticket};
use super::needs::Rights;
use super::site::{Accepted, Site};
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
    acceptance: Acceptance,
    /// `None` in a process that isn't confined.
    rights: Option<Rights>,
}

impl Context {
    /// Whether this run may save cursors: not before all stages have started, and not after the
    /// run was abandoned and replaced.
    #[must_use]
    pub fn may_save_cursor(&self) -> bool {
        !self.shutdown.is_abandoned() && self.site.has_ledger()
    }

    /// The environment of a run.
    #[must_use]
    pub fn new(sink: Sink, shutdown: Shutdown, report: StatusReport, site: Site) -> Self {
        Self { sink, shutdown, report, site, acceptance: Acceptance::default(), rights: None }
    }

    /// The environment of a run in a confined process.
    pub(crate) fn with_rights(mut self, rights: Option<Rights>) -> Self {
        self.rights = rights;
        self
    }

    /// Called by the supervisor before each run: the capabilities that opening needs are effective.
    pub(crate) fn begin_run(&self) {
        if let Some(rights) = self.rights {
            rights.begin();
        }
    }

    /// Called by a collector once its source is open: the capabilities that only opening needs are
    /// no longer effective.
    pub(crate) fn opened(&self) {
        if let Some(rights) = self.rights {
            rights.opened();
        }
    }

    /// The ticket of the events offered so far.
    pub(crate) fn ticket(&self) -> Ticket {
        self.acceptance.ticket(&self.sink)
    }

    /// Whether the events of a ticket are accepted: in the spool, or dropped and counted. Not
    /// before all stages have started, and not after the run was abandoned and replaced.
    pub(crate) fn is_accepted(&mut self, ticket: Ticket) -> bool {
        self.may_save_cursor() && self.acceptance.is_accepted(ticket, &mut self.sink, &self.site)
    }

    /// Notified whenever events of this collector are accepted. Events that a shard drops notify
    /// nobody: who waits also has to look from time to time.
    pub(crate) fn accepted(&self) -> Arc<Accepted> {
        self.site.accepted(self.sink.collector())
    }

    /// A context whose sink discards its events. `unsettled`: events of this collector that aren't
    /// accepted yet; without it the site has no ledger.
    #[cfg(test)]
    pub(crate) fn for_test(unsettled: Option<u64>) -> Self {
        let mut ledger = tapio_core::ring::Ledger::new(vec!["test".into()]);
        let stage = ledger.stage(tapio_core::event::Stage::Collect);
        let bell = Arc::new(tapio_core::ring::Bell::new(Default::default()));
        let shards = vec![(tapio_core::ring::ring(64).0, bell)];
        let shutdown = Shutdown::default();
        let router = Arc::new(router::OneShard);
        let mut sink =
            Sink::new(0, OnFull::Wait, router, shards, Arc::clone(&stage), shutdown.clone());
        let site = Site::new("node-1", 7);
        if let Some(unsettled) = unsettled {
            // As if they had been offered in the generation that has just ended.
            sink.end_generation();
            stage.add_received(MAX_COLLECTORS as u8, unsettled);
            stage.add_forwarded(MAX_COLLECTORS as u8, unsettled);
            site.set_ledger(Arc::new(ledger));
        }
        Self::new(sink, shutdown, StatusReport::default(), site)
    }
}
