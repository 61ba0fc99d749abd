//! What a collector gets for one run.

#[cfg(test)]
use std::sync::Arc;

#[cfg(test)]
use tapio_core::ring::OnFull;
use tapio_core::ring::Sink;
use tapio_core::shutdown::Shutdown;

use super::site::Site;
use super::status::Report;

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
    pub(crate) fn for_test(held: Option<u64>) -> Self {
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
            stage.add_received(0, held);
            stage.set_held(0, held);
            site.account_in(Arc::new(ledger));
        }
        Self { sink, shutdown, report: Report::default(), site }
    }
}
