//! The trailing window of a measure for one key, and the members of the story it may become.

use crate::matcher::measure::{Added, Gauge};
use crate::rules::Aggregate;
use crate::story::members::{Hand, Members};
use tapio_core::event::{ArchivedEvent, EventId, TraceId};

/// The trailing window of a measure for one key.
pub(crate) struct Window {
    gauge: Gauge,
    pub(crate) trace: TraceId,
    pub(crate) members: Members,
}

impl Window {
    pub(crate) fn new(aggregate: &Aggregate) -> Self {
        Self {
            gauge: Gauge::new(aggregate),
            trace: TraceId::default(),
            members: Members::default(),
        }
    }

    /// Adds an event that is `counted` (numbers of the rule's counted events). Returns the measure where
    /// it fires, the event included, and the ends of the members before it; `None` where the event hasn't
    /// what is measured. `open` gives the trace when the window was empty; while `told`, members stay
    /// even when their time has left the window.
    pub(crate) fn add(
        &mut self,
        aggregate: &Aggregate,
        counted: &[u8],
        event: &ArchivedEvent<'_>,
        hand: &mut Hand<'_>,
        told: bool,
        open: impl FnOnce() -> TraceId,
    ) -> Option<(Option<f64>, [EventId; 2])> {
        let was_empty = self.members.total == 0 || hand.time_ns > self.gauge.empty_ns(aggregate);
        let value = match self.gauge.add(aggregate, counted, event, hand.time_ns) {
            Added::Nothing => return None,
            Added::Inner => None,
            Added::Value(value) => self.gauge.fires(aggregate, value).then_some(value),
        };
        if was_empty && !told {
            self.members = Members::default();
            self.trace = open();
        } else if !told {
            self.forget(aggregate, hand.time_ns);
        }
        let before = self.members.ends;
        let first = counted.first().copied().unwrap_or(0);
        let number = aggregate.events[usize::from(first)].event;
        self.members.add(hand, first, number as u16);
        if value.is_some() && !told {
            self.count(aggregate);
        }
        Some((value, before))
    }

    /// Members whose time has left the window are none of an untold story.
    fn forget(&mut self, aggregate: &Aggregate, time_ns: u64) {
        let oldest_ns = time_ns.saturating_sub(aggregate.span_ns());
        self.members.kept.retain(|k| k.record.record().header().time_ns >= oldest_ns);
        self.members.beyond.clear();
        let first = self.members.kept.first().map(|k| k.record.record().header().time_ns);
        self.members.first_ns = first.unwrap_or(time_ns);
    }

    /// What was in the window beside the members that are kept, as a story is told.
    fn count(&mut self, aggregate: &Aggregate) {
        let members = &mut self.members;
        members.total = members.kept.len() as u64;
        members.beyond.clear();
        let events = self.gauge.events();
        // Members of inner measures aren't in the outer window: those that are kept are counted.
        if events.len() <= members.kept.len() || !aggregate.inner.is_empty() {
            return;
        }
        let mut counts = vec![0u64; aggregate.events.len()];
        events.iter().for_each(|(_, counted)| counts[usize::from(*counted)] += 1);
        for kept in &members.kept {
            if let Some(count) = counts.get_mut(usize::from(kept.step)) {
                *count = count.saturating_sub(1);
            }
        }
        for (counted, count) in aggregate.events.iter().zip(counts).filter(|(_, n)| *n > 0) {
            members.pass(counted.event as u16, count);
        }
        members.first_ns = events.front().map_or(members.first_ns, |(t, _)| *t);
    }

    /// When the window will be empty.
    pub(crate) fn deadline_ns(&self, aggregate: &Aggregate) -> Option<u64> {
        (self.members.total > 0).then(|| self.gauge.empty_ns(aggregate))
    }
}
