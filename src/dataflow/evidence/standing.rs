//! Which troubles of an entity have been told and not been ended yet, as of any time
//! (`src/event/troubles.rs`).
//!
//! What is kept are the latest events that tell or end a trouble, as a set: the order in which they arrive doesn't
//! matter. What ends a trouble is later than it, so as long as the trouble is known its end is, too.

use std::collections::BTreeMap;

use super::super::lru::Lru;
use super::entity::Entity;
use super::observer::Bounds;
use tapio_core::event::troubles::{End, TROUBLES};
use tapio_core::event::{Name, Severity};

/// An event that tells or ends a trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) time_ns: u64,
    pub(super) kind: Name,
    pub(super) severity: Severity,
    /// What tells it apart from others of its kind; empty where nothing does.
    pub(super) of: Box<str>,
}

/// What was told of many entities.
pub(super) struct Standing {
    entities: Lru<Entity, Vec<Mark>>,
    most: usize,
}

impl Standing {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { entities: Lru::new(bounds.entities), most: bounds.history }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.entities.evicted
    }

    pub(super) fn add(&mut self, entity: &Entity, mark: Mark) {
        if self.entities.get(entity).is_none() {
            self.entities.insert(entity.clone(), Vec::new());
        }
        let Some(marks) = self.entities.get(entity) else {
            return;
        };
        if let Err(at) = marks.binary_search(&mark) {
            marks.insert(at, mark);
            if marks.len() > self.most {
                marks.remove(0);
            }
        }
    }

    /// The troubles told between two times that nothing has ended before the second one: kind, time
    /// and severity of each event that tells one.
    pub(super) fn of(
        &self,
        entity: &Entity,
        from_ns: u64,
        before_ns: u64,
    ) -> Vec<(Name, u64, Severity)> {
        let marks = self.entities.peek(entity).map_or(&[][..], Vec::as_slice);
        let from = marks.partition_point(|m| m.time_ns < from_ns);
        let to = marks.partition_point(|m| m.time_ns < before_ns).max(from);
        let mut standing = Troubles::default();
        for together in marks[from..to].chunk_by(|a, b| a.time_ns == b.time_ns) {
            // What ends a trouble is later: of two at one time neither is known to be.
            together.iter().for_each(|mark| standing.end(mark));
            together.iter().for_each(|mark| standing.tell(mark));
        }
        standing.0.into_values().flatten().map(|m| (m.kind, m.time_ns, m.severity)).collect()
    }
}

/// Troubles by kind and what tells them apart.
#[derive(Default)]
struct Troubles<'a>(BTreeMap<(Name, &'a str), Vec<&'a Mark>>);

impl<'a> Troubles<'a> {
    fn tell(&mut self, mark: &'a Mark) {
        if TROUBLES.iter().any(|t| t.is_told_by(mark.kind, mark.severity)) {
            self.0.entry((mark.kind, &mark.of)).or_default().push(mark);
        }
    }

    fn end(&mut self, mark: &'a Mark) {
        for trouble in TROUBLES {
            match trouble.end(mark.kind, mark.severity) {
                None => {}
                Some(End::Same(_)) => {
                    self.0.remove(&(trouble.kind, &*mark.of));
                }
                Some(End::Any(_)) => {
                    let of_kind = (trouble.kind, "")..(Name(trouble.kind.0.saturating_add(1)), "");
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

    fn mark(time_ns: u64, kind: Name, severity: Severity, of: &str) -> Mark {
        Mark { time_ns, kind, severity, of: of.into() }
    }

    fn standing(marks: &[Mark], bounds: Bounds) -> Standing {
        let mut all = Standing::new(bounds);
        marks.iter().for_each(|m| all.add(&node(), m.clone()));
        all
    }

    /// By the words of the table: told within the window, and nothing later within it ends it.
    fn by_definition(marks: &[Mark], from_ns: u64, before_ns: u64) -> Vec<(Name, u64, Severity)> {
        let within: Vec<&Mark> =
            marks.iter().filter(|m| (from_ns..before_ns).contains(&m.time_ns)).collect();
        let mut out = Vec::new();
        for told in &within {
            let Some(trouble) = TROUBLES.iter().find(|t| t.kind == told.kind) else { continue };
            let ended = within.iter().any(|end| {
                end.time_ns > told.time_ns
                    && match trouble.end(end.kind, end.severity) {
                        None => false,
                        Some(End::Any(_)) => true,
                        Some(End::Same(_)) => end.of == told.of,
                    }
            });
            if told.severity >= trouble.least && !ended {
                out.push((told.kind, told.time_ns, told.severity));
            }
        }
        out.sort();
        out.dedup();
        out
    }

    fn marks() -> impl Strategy<Value = Vec<Mark>> {
        let kinds: Vec<Name> = TROUBLES
            .iter()
            .flat_map(|t| t.ended_by.iter().map(|e| e.kind()).chain([t.kind]))
            .collect();
        let severity = prop::sample::select(vec![Severity::INFO, Severity::WARN, Severity::ERROR]);
        let of = prop::sample::select(vec!["", "Ready", "MemoryPressure"]);
        let one = (0u64..40, prop::sample::select(kinds), severity, of)
            .prop_map(|(time_ns, kind, severity, of)| mark(time_ns, kind, severity, of));
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn what_stands_is_what_nothing_ended(
            marks in marks(), from_ns in 0u64..40, length in 0u64..45, shuffle in any::<u64>(),
        ) {
            let before_ns = from_ns + length;
            let ask = |all: &Standing| {
                let mut told = all.of(&node(), from_ns, before_ns);
                told.sort();
                told.dedup();
                told
            };
            prop_assert_eq!(
                ask(&standing(&marks, Bounds::REPLAY)), by_definition(&marks, from_ns, before_ns)
            );
            // Shards send what they saw in any order; the bound keeps the latest of all.
            let few = Bounds { history: 12, ..Bounds::LIVE };
            let mut turned = marks.clone();
            let by = shuffle as usize % marks.len().max(1);
            turned.rotate_left(by);
            turned.reverse();
            let bounded = standing(&marks, few);
            prop_assert_eq!(ask(&standing(&turned, few)), ask(&bounded));
            prop_assert!(bounded.entities.peek(&node()).is_none_or(|m| m.len() <= 12));
            // What is still known is known exactly.
            let mut latest = marks;
            latest.sort();
            latest.dedup();
            let kept = latest.split_off(latest.len().saturating_sub(12));
            prop_assert_eq!(ask(&bounded), by_definition(&kept, from_ns, before_ns));
        }
    }

    #[test]
    fn each_condition_is_ended_by_its_own() {
        let ready = |time, severity| mark(time, names::K8S_NODE_CONDITION, severity, "Ready");
        let memory =
            |time, severity| mark(time, names::K8S_NODE_CONDITION, severity, "MemoryPressure");
        let mut all =
            vec![ready(1, Severity::ERROR), memory(2, Severity::ERROR), memory(3, Severity::INFO)];
        let told = |all: &[Mark], before_ns| {
            standing(all, Bounds::LIVE)
                .of(&node(), 0, before_ns)
                .iter()
                .map(|t| t.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&all, 3), [2, 1], "as of then");
        assert_eq!(told(&all, 10), [1], "the pressure is over, the node isn't ready");
        all.push(ready(4, Severity::INFO));
        assert_eq!(told(&all, 10), [0; 0]);
        all.push(ready(5, Severity::ERROR));
        assert_eq!(told(&all, 10), [5], "and again");
    }

    #[test]
    fn a_start_ends_all_that_was_wrong_with_a_unit() {
        let mut all = vec![
            mark(1, names::SYSTEMD_UNIT_RESTARTING, Severity::WARN, ""),
            mark(2, names::JOURNAL_COREDUMP, Severity::ERROR, ""),
            mark(3, names::SYSTEMD_UNIT_FAILED, Severity::ERROR, ""),
        ];
        assert_eq!(standing(&all, Bounds::LIVE).of(&node(), 0, 9).len(), 3);
        all.push(mark(4, names::SYSTEMD_UNIT_STARTED, Severity::INFO, ""));
        assert_eq!(standing(&all, Bounds::LIVE).of(&node(), 0, 9), []);
        assert_eq!(standing(&all, Bounds::LIVE).of(&node(), 0, 4).len(), 3, "as of then");
    }
}
