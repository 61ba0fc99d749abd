//! Active faults: those that events of an entity have started and not ended, as of any time
//! (`tapio_core::event::fault_lifecycle`).
//!
//! Each entity keeps the latest events that start or end a fault as a set, so their order of
//! arrival doesn't matter. A fault ends later than it starts, so as long as its start is kept, its
//! end is kept too.

use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::entity::Entity;
use crate::lru::Lru;
use tapio_core::event::fault_lifecycle::{FAULTS, FaultEnd};
use tapio_core::event::{Name, Severity};

/// An event that starts or ends a fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FaultTransition {
    pub(super) time_ns: u64,
    pub(super) kind: Name,
    pub(super) severity: Severity,
    /// Value of the field that distinguishes faults of this kind; empty for none.
    pub(super) instance: Box<str>,
}

/// Fault transitions of many entities.
pub(super) struct ActiveFaults {
    entities: Lru<Entity, Vec<FaultTransition>>,
    max_transitions: usize,
}

impl ActiveFaults {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { entities: Lru::new(bounds.entities), max_transitions: bounds.history }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.entities.evicted
    }

    /// Sets the number of entities; evicts those beyond it.
    pub(super) fn limit(&mut self, entities: usize) {
        self.entities.limit(entities);
    }

    /// Adds a transition of an entity.
    pub(super) fn add(&mut self, entity: &Entity, transition: FaultTransition) {
        if self.entities.get(entity).is_none() {
            self.entities.insert(entity.clone(), Vec::new());
        }
        let Some(transitions) = self.entities.get(entity) else {
            return;
        };
        if let Err(at) = transitions.binary_search(&transition) {
            transitions.insert(at, transition);
            if transitions.len() > self.max_transitions {
                transitions.remove(0);
            }
        }
    }

    /// The faults started between two times and not ended before the second one: kind, time and
    /// severity of each event that started one.
    pub(super) fn of(
        &self,
        entity: &Entity,
        from_ns: u64,
        before_ns: u64,
    ) -> Vec<(Name, u64, Severity)> {
        let transitions = self.entities.peek(entity).map_or(&[][..], Vec::as_slice);
        let from = transitions.partition_point(|t| t.time_ns < from_ns);
        let to = transitions.partition_point(|t| t.time_ns < before_ns).max(from);
        let mut active = ActiveSet::default();
        for simultaneous in transitions[from..to].chunk_by(|a, b| a.time_ns == b.time_ns) {
            // An end is later than its start: of two transitions at one time, neither is known to
            // end the other.
            simultaneous.iter().for_each(|transition| active.end(transition));
            simultaneous.iter().for_each(|transition| active.start(transition));
        }
        active.0.into_values().flatten().map(|t| (t.kind, t.time_ns, t.severity)).collect()
    }
}

/// Active faults by kind and instance, with the events that started them.
#[derive(Default)]
struct ActiveSet<'a>(BTreeMap<(Name, &'a str), Vec<&'a FaultTransition>>);

impl<'a> ActiveSet<'a> {
    fn start(&mut self, transition: &'a FaultTransition) {
        if FAULTS.iter().any(|f| f.is_started_by(transition.kind, transition.severity)) {
            self.0.entry((transition.kind, &transition.instance)).or_default().push(transition);
        }
    }

    fn end(&mut self, transition: &'a FaultTransition) {
        for fault in FAULTS {
            match fault.end(transition.kind, transition.severity) {
                None => {}
                Some(FaultEnd::SameInstance(_)) => {
                    self.0.remove(&(fault.kind, &*transition.instance));
                }
                Some(FaultEnd::AnyInstance(_)) => {
                    let of_kind = (fault.kind, "")..(Name(fault.kind.0.saturating_add(1)), "");
                    while let Some(key) = self.0.range(of_kind.clone()).next().map(|(key, _)| *key)
                    {
                        self.0.remove(&key);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entity::EntityKind;
    use super::*;
    use tapio_core::event::names;

    fn node() -> Entity {
        Entity::new(EntityKind::Node, "h")
    }

    fn transition(time_ns: u64, kind: Name, severity: Severity, instance: &str) -> FaultTransition {
        FaultTransition { time_ns, kind, severity, instance: instance.into() }
    }

    fn faults(transitions: &[FaultTransition], bounds: Bounds) -> ActiveFaults {
        let mut all = ActiveFaults::new(bounds);
        transitions.iter().for_each(|t| all.add(&node(), t.clone()));
        all
    }

    /// By the definition: started within the window, and nothing later within it ends it.
    fn by_definition(
        transitions: &[FaultTransition],
        from_ns: u64,
        before_ns: u64,
    ) -> Vec<(Name, u64, Severity)> {
        let within: Vec<&FaultTransition> =
            transitions.iter().filter(|m| (from_ns..before_ns).contains(&m.time_ns)).collect();
        let mut out = Vec::new();
        for start in &within {
            let Some(fault) = FAULTS.iter().find(|f| f.kind == start.kind) else { continue };
            let ended = within.iter().any(|end| {
                end.time_ns > start.time_ns
                    && match fault.end(end.kind, end.severity) {
                        None => false,
                        Some(FaultEnd::AnyInstance(_)) => true,
                        Some(FaultEnd::SameInstance(_)) => end.instance == start.instance,
                    }
            });
            if start.severity >= fault.min_severity && !ended {
                out.push((start.kind, start.time_ns, start.severity));
            }
        }
        out.sort();
        out.dedup();
        out
    }

    fn transitions() -> impl Strategy<Value = Vec<FaultTransition>> {
        let kinds: Vec<Name> = FAULTS
            .iter()
            .flat_map(|f| f.ended_by.iter().map(|e| e.kind()).chain([f.kind]))
            .collect();
        let severity = prop::sample::select(vec![Severity::INFO, Severity::WARN, Severity::ERROR]);
        let instance = prop::sample::select(vec!["", "Ready", "MemoryPressure"]);
        let one = (0u64..40, prop::sample::select(kinds), severity, instance)
            .prop_map(|(time_ns, kind, severity, of)| transition(time_ns, kind, severity, of));
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn active_faults_equal_the_definition(
            transitions in transitions(), from_ns in 0u64..40, length in 0u64..45, shuffle in any::<u64>(),
        ) {
            let before_ns = from_ns + length;
            let query = |all: &ActiveFaults| {
                let mut active = all.of(&node(), from_ns, before_ns);
                active.sort();
                active.dedup();
                active
            };
            prop_assert_eq!(
                query(&faults(&transitions, Bounds::REPLAY)), by_definition(&transitions, from_ns, before_ns)
            );
            // Shards send transitions in any order; the bound keeps the latest of all.
            let few = Bounds { history: 12, ..Bounds::LIVE };
            let mut reordered = transitions.clone();
            let by = shuffle as usize % transitions.len().max(1);
            reordered.rotate_left(by);
            reordered.reverse();
            let bounded = faults(&transitions, few);
            prop_assert_eq!(query(&faults(&reordered, few)), query(&bounded));
            prop_assert!(bounded.entities.peek(&node()).is_none_or(|m| m.len() <= 12));
            // Among the kept transitions the result is exact.
            let mut latest = transitions;
            latest.sort();
            latest.dedup();
            let kept = latest.split_off(latest.len().saturating_sub(12));
            prop_assert_eq!(query(&bounded), by_definition(&kept, from_ns, before_ns));
        }
    }

    #[test]
    fn node_conditions_end_independently() {
        let ready = |time, severity| transition(time, names::K8S_NODE_CONDITION, severity, "Ready");
        let memory = |time, severity| {
            transition(time, names::K8S_NODE_CONDITION, severity, "MemoryPressure")
        };
        let mut all =
            vec![ready(1, Severity::ERROR), memory(2, Severity::ERROR), memory(3, Severity::INFO)];
        let active = |all: &[FaultTransition], before_ns| {
            faults(all, Bounds::LIVE)
                .of(&node(), 0, before_ns)
                .iter()
                .map(|t| t.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(active(&all, 3), [2, 1], "as of time 3");
        assert_eq!(active(&all, 10), [1], "the pressure has ended, the node isn't ready");
        all.push(ready(4, Severity::INFO));
        assert_eq!(active(&all, 10), [0; 0]);
        all.push(ready(5, Severity::ERROR));
        assert_eq!(active(&all, 10), [5], "a new fault");
    }

    #[test]
    fn unit_start_ends_all_faults_of_the_unit() {
        let mut all = vec![
            transition(1, names::SYSTEMD_UNIT_RESTARTING, Severity::WARN, ""),
            transition(2, names::JOURNAL_COREDUMP, Severity::ERROR, ""),
            transition(3, names::SYSTEMD_UNIT_FAILED, Severity::ERROR, ""),
        ];
        assert_eq!(faults(&all, Bounds::LIVE).of(&node(), 0, 9).len(), 3);
        all.push(transition(4, names::SYSTEMD_UNIT_STARTED, Severity::INFO, ""));
        assert_eq!(faults(&all, Bounds::LIVE).of(&node(), 0, 9), []);
        assert_eq!(faults(&all, Bounds::LIVE).of(&node(), 0, 4).len(), 3, "as of time 3");
    }
}
