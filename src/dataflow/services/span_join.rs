//! Spans with what happened in them. Callees and log records arrive before the span that they
//! belong to, or after it, and from other processes.

use std::collections::{BTreeMap, HashMap};

use super::fact::{Key, LogFact, SpanFact};

/// Time after a span's end for which its callees and log records are awaited: SDKs export every
/// five seconds, collectors between them every few hundred milliseconds.
pub(super) const HOLD_NS: u64 = 7_000_000_000;
/// Callees and templates kept of a span.
const MAX_PARTS: usize = 24;
/// How often something counts in one run: one run that does it thousands of times isn't all runs.
const MAX_TIMES: u16 = 64;

/// A span, complete.
#[derive(Clone, Debug, Default)]
pub(super) struct Joined {
    /// `None`: only its callees or log records arrived.
    pub(super) span: Option<SpanFact>,
    /// The sum of its callees' durations.
    pub(super) callees_ns: u64,
    /// Instances and operations of its callees, and how often each was called.
    pub(super) callees: Vec<((Key, Key), u16)>,
    /// Its log records, one of each template, and how many there were of it.
    pub(super) templates: Vec<(LogFact, u16)>,
    due_ns: u64,
}

/// Spans that await their parts.
pub(super) struct SpanJoin {
    open: HashMap<u64, Joined, ahash::RandomState>,
    /// Spans by the second in which they are due.
    due: BTreeMap<u64, Vec<u64>>,
    capacity: usize,
}

impl SpanJoin {
    pub(super) fn new(capacity: usize) -> Self {
        Self { open: HashMap::default(), due: BTreeMap::new(), capacity }
    }

    /// Sets how many spans wait at most; those beyond it wait to their end.
    pub(super) fn limit(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Whether there is no room for another span.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.capacity
    }

    /// The number of spans that wait.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn entry(&mut self, span: u64, due_ns: u64) -> &mut Joined {
        let joined = self.open.entry(span).or_default();
        if due_ns > joined.due_ns {
            let second = due_ns / 1_000_000_000;
            if joined.due_ns / 1_000_000_000 != second {
                self.due.entry(second).or_default().push(span);
            }
            joined.due_ns = due_ns;
        }
        joined
    }

    /// Adds a span.
    pub(super) fn span(&mut self, fact: SpanFact) {
        let due_ns = fact.start_ns.saturating_add(fact.duration_ns).saturating_add(HOLD_NS);
        self.entry(fact.span, due_ns).span = Some(fact);
        if fact.parent == 0 {
            return;
        }
        let caller = self.entry(fact.parent, due_ns);
        caller.callees_ns = caller.callees_ns.saturating_add(fact.duration_ns);
        let callee = (fact.instance, fact.operation);
        if let Some((_, times)) = caller.callees.iter_mut().find(|(known, _)| *known == callee) {
            *times = (*times + 1).min(MAX_TIMES);
        } else if caller.callees.len() < MAX_PARTS {
            caller.callees.push((callee, 1));
        }
    }

    /// Adds a log record that belongs to a span.
    pub(super) fn log(&mut self, fact: &LogFact) {
        let joined = self.entry(fact.span, fact.time_ns.saturating_add(HOLD_NS));
        let mut known = joined.templates.iter_mut();
        if let Some((_, times)) = known.find(|(log, _)| log.template == fact.template) {
            *times = (*times + 1).min(MAX_TIMES);
        } else if joined.templates.len() < MAX_PARTS {
            joined.templates.push((*fact, 1));
        }
    }

    /// Takes the spans that are due.
    pub(super) fn take_due(&mut self, now_ns: u64, mut take: impl FnMut(Joined)) {
        let now = now_ns / 1_000_000_000;
        while let Some(entry) = self.due.first_entry().filter(|entry| *entry.key() < now) {
            for span in entry.remove() {
                let is_due = |joined: &Joined| joined.due_ns / 1_000_000_000 < now;
                if self.open.get(&span).is_some_and(is_due)
                    && let Some(joined) = self.open.remove(&span)
                {
                    take(joined);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tapio_core::event::{EventId, Severity};

    fn span(span: u64, parent: u64, start_ns: u64, duration_ns: u64) -> SpanFact {
        SpanFact {
            event: EventId([span as u8; 16]),
            start_ns,
            duration_ns,
            instance: span / 10,
            operation: span,
            span,
            parent,
            trace: 0,
            is_work: false,
            has_failed: false,
        }
    }

    proptest! {
        /// A span has its callees and log records whatever their order.
        #[test]
        fn order_of_arrival_does_not_matter(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut join = SpanJoin::new(100);
            for step in order {
                match step {
                    0 => join.span(span(10, 0, 0, 1_000)),
                    1 => join.span(span(20, 10, 100, 300)),
                    2 => join.span(span(21, 10, 500, 400)),
                    n => join.log(&LogFact {
                        event: EventId::default(), time_ns: 50, instance: 1, template: n as u64 / 5,
                        span: 10, trace: 0, severity: Severity::INFO,
                    }),
                }
            }
            let mut found = Vec::new();
            join.take_due(HOLD_NS, |joined| found.push(joined));
            prop_assert!(found.is_empty());
            join.take_due(HOLD_NS + 1_000_000_000, |joined| found.push(joined));
            prop_assert_eq!((found.len(), join.len()), (3, 0));
            let caller = found.iter().find(|joined| joined.callees_ns > 0).unwrap();
            prop_assert_eq!(caller.span.unwrap().span, 10);
            prop_assert_eq!(caller.callees_ns, 700);
            let mut callees: Vec<_> = caller.callees.iter().map(|(callee, _)| *callee).collect();
            callees.sort_unstable();
            prop_assert_eq!(callees, [(2, 20), (2, 21)]);
            prop_assert_eq!(caller.templates.len(), 2);
            prop_assert!(caller.templates.iter().all(|(log, times)| *times == 2 - log.template as u16));
        }
    }
}
