//! Acceptance of a collector's events. An event is accepted once it is in the bridge's spool, where
//! it survives a kill of the agent, or dropped and counted.
//!
//! Events reach the spool over several shards, out of order, so a collector counts its events in
//! generations: while those of one are on their way, new ones are counted in the next
//! ([`Sink::end_generation`]). A generation is accepted when all of its events are settled. At most
//! one is on its way, besides the current one.

use tapio_core::ring::Sink;

use super::site::Site;

/// The events that a collector has offered up to some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The generations of one run of a collector.
#[derive(Debug, Default)]
pub(crate) struct Acceptance {
    /// Every generation through this one is accepted.
    accepted: u64,
}

impl Acceptance {
    /// The ticket of the events offered so far.
    pub(crate) fn ticket(&self, sink: &Sink) -> Ticket {
        let current = sink.generation();
        Ticket(if sink.has_offered() { current } else { current - 1 })
    }

    /// Whether the events of a ticket are accepted.
    pub(crate) fn is_accepted(&mut self, ticket: Ticket, sink: &mut Sink, site: &Site) -> bool {
        self.advance(sink, site);
        ticket.0 <= self.accepted
    }

    /// Notices that the last ended generation is accepted, and then ends the current one.
    fn advance(&mut self, sink: &mut Sink, site: &Site) {
        let ended = sink.generation() - 1;
        if self.accepted < ended {
            if site.unsettled(sink.collector(), ended) != Some(0) {
                return;
            }
            self.accepted = ended;
        }
        if sink.has_offered() {
            sink.end_generation();
        }
    }
}
