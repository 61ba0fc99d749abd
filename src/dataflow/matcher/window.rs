//! The trailing window of an aggregate for one key, and the members of the story it may become.

use crate::matcher::baseline::Baseline;
use crate::matcher::measure::{Added, WindowMeasure};
use crate::rules::Aggregate;
use crate::story::deviation::Deviation;
use crate::story::members::{EventRef, Members};
use tapio_core::event::{EventId, TraceId};

/// The value for which the condition of an aggregate holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fired {
    pub(crate) value: f64,
    /// Its deviation, where the condition asks for one.
    pub(crate) deviation: Option<Deviation>,
}

/// The trailing window of an aggregate for one key.
pub(crate) struct Window {
    measure: WindowMeasure,
    pub(crate) trace: TraceId,
    pub(crate) members: Members,
}

impl Window {
    pub(crate) fn new(aggregate: &Aggregate) -> Self {
        Self {
            measure: WindowMeasure::new(aggregate),
            trace: TraceId::default(),
            members: Members::default(),
        }
    }

    /// Adds an event that is `counted` (indexes of the rule's counted events). Returns the measured
    /// value if the condition holds, the event included, and the first and latest member before it;
    /// `None` if the event lacks the measured field. `baseline`: what is usual, for a condition
    /// that asks for it. `trace` gives the trace if the window was empty, or if it begins to
    /// deviate. While the story `is_open`, members stay after they have left the window.
    pub(crate) fn add(
        &mut self,
        aggregate: &Aggregate,
        counted: &[u8],
        current: &mut EventRef<'_>,
        baseline: Option<&Baseline>,
        is_open: bool,
        trace: impl Fn() -> TraceId,
    ) -> Option<(Option<Fired>, [EventId; 2])> {
        let event = current.record.event()?;
        let was_empty =
            self.members.total == 0 || current.time_ns > self.measure.empty_ns(aggregate);
        let value = match self.measure.add(aggregate, counted, event, current.time_ns) {
            Added::Nothing => return None,
            Added::Inner => None,
            Added::Value(value) => self.fired(aggregate, value, baseline),
        };
        if was_empty && !is_open {
            self.members = Members::default();
            self.trace = trace();
        } else if !is_open {
            self.remove_expired(aggregate, current.time_ns);
        }
        let before = self.members.ends;
        let first = counted.first().copied().unwrap_or(0);
        let number = aggregate.events[usize::from(first)].event;
        self.members.add(current, first, number as u16);
        let opens = value.is_some() && !is_open;
        if opens {
            self.count_members(aggregate);
        }
        if opens && aggregate.deviation.is_some() {
            // The window of a busy key is never empty: its story begins where it deviates.
            self.trace = trace();
            self.members.begin_with_kept();
        }
        Some((value, before))
    }

    /// The value, if the condition holds for it.
    fn fired(
        &self,
        aggregate: &Aggregate,
        value: f64,
        baseline: Option<&Baseline>,
    ) -> Option<Fired> {
        if !self.measure.fires(aggregate, value) {
            return None;
        }
        let Some(condition) = &aggregate.deviation else {
            return Some(Fired { value, deviation: None });
        };
        let deviation = baseline?.deviation(value)?;
        let fired = Fired { value, deviation: Some(deviation) };
        condition.holds(deviation.deviation).then_some(fired)
    }

    /// Closes a window of the baseline that ends here: the measure over its events, which are all
    /// in.
    pub(crate) fn close(&mut self, aggregate: &Aggregate, baseline: &mut Baseline, end_ns: u64) {
        baseline.close(aggregate, self.measure.until(aggregate, end_ns));
    }

    /// Removes the members that have left the window, before the story opens.
    fn remove_expired(&mut self, aggregate: &Aggregate, time_ns: u64) {
        let oldest_ns = time_ns.saturating_sub(aggregate.span_ns());
        self.members.kept.retain(|k| k.record.record().header().time_ns >= oldest_ns);
        self.members.beyond.clear();
        let first = self.members.kept.first().map(|k| k.record.record().header().time_ns);
        self.members.first_ns = first.unwrap_or(time_ns);
    }

    /// Counts the events in the window beyond the kept members, when the story opens.
    fn count_members(&mut self, aggregate: &Aggregate) {
        let members = &mut self.members;
        members.total = members.kept.len() as u64;
        members.beyond.clear();
        let events = self.measure.events();
        // Events of inner measures aren't in the outer window: only the kept members count.
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
            members.add_count(counted.event as u16, count);
        }
        members.first_ns = events.front().map_or(members.first_ns, |(t, _)| *t);
    }

    /// When the window will be empty; `None` if it is.
    pub(crate) fn deadline_ns(&self, aggregate: &Aggregate) -> Option<u64> {
        (self.members.total > 0).then(|| self.measure.empty_ns(aggregate))
    }
}
