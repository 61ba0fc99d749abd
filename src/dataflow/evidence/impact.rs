//! What a story means for those who use the node, from facts: endpoints and services lost, replicas
//! left, connections that failed, how much the owners say it matters, and what depends on it.

use std::collections::BTreeSet;

use super::assessor::Evidence;
use super::draft::{Draft, Source};
use super::entity::{Entity, EntityKind};
use super::graph::{Criticality, Relation};
use super::observer::second;
use crate::rules::AutoOr;
use tapio_core::event::{Impact, Name, Severity, names};

/// Affected entities a story names.
pub(crate) const MAX_AFFECTED: usize = 32;
/// Steps along which what depends on something lost is affected, too.
const DOWNSTREAM_STEPS: u32 = 3;
/// Entities of one list that are named; the rest is counted.
const MAX_NAMED: usize = 4;

/// How probable it is that the business notices, by each hint alone. They are priors, to be read as
/// such: they are combined as independent hints, and a rule that knows better gives its own figure.
struct Priors {
    /// The worst severity there is.
    severity: f64,
    /// Each further entity.
    each_entity: f64,
    /// One failed connection of somebody else; more count by their logarithm.
    failed_connection: f64,
    /// An endpoint or a service without anybody left.
    lost: f64,
    /// All replicas of a workload down; a part of them counts as that part.
    replicas: f64,
    /// By the owners' label, from low to critical.
    criticality: [f64; 4],
}

const PRIORS: Priors = Priors {
    severity: 0.6,
    each_entity: 0.07,
    failed_connection: 0.1,
    lost: 0.5,
    replicas: 0.4,
    criticality: [0.0, 0.1, 0.4, 0.8],
};

/// How entities are counted in words, by the prefix they have in `affected`.
const COUNTED: [(&str, &str, &str); 5] = [
    ("unit ", "unit", "units"),
    ("pod ", "pod", "pods"),
    ("service ", "service", "services"),
    ("endpoint ", "endpoint", "endpoints"),
    ("process ", "program", "programs"),
];

/// Kinds that say that what they are about serves nobody any more.
const DOWN: [Name; 9] = [
    names::SYSTEMD_UNIT_FAILED,
    names::SYSTEMD_UNIT_STOPPED,
    names::SYSTEMD_UNIT_OOM,
    names::K8S_POD_CRASH_LOOP,
    names::K8S_POD_OOM_KILLED,
    names::K8S_POD_EVICTED,
    names::K8S_POD_DELETED,
    names::CONTAINER_EXITED,
    names::CONTAINER_OOM,
];

/// What was found out about a story.
#[derive(Default)]
struct Toll {
    /// Services and endpoints nobody serves any more.
    lost: BTreeSet<Entity>,
    /// What owns or selects affected pods: how many of its pods are ready, of how many.
    headroom: Vec<(Entity, usize, usize)>,
    /// What depends on what is down.
    downstream: BTreeSet<Entity>,
    /// The most that anybody says it matters, and about whom.
    criticality: Option<(Criticality, Entity)>,
}

impl Toll {
    /// The largest part of a workload's pods that is down.
    fn worst_part(&self) -> f64 {
        let parts = self.headroom.iter().map(|(_, ready, all)| 1.0 - *ready as f64 / *all as f64);
        parts.fold(0.0, f64::max)
    }
}

fn is_down(source: &Source) -> bool {
    DOWN.contains(&source.kind)
}

/// Whether others than the host itself can reach an endpoint.
fn is_for_others(entity: &Entity) -> bool {
    // A loopback endpoint has its host in front.
    entity.kind != EntityKind::Endpoint || !entity.name.contains('/')
}

impl Evidence {
    /// A story's impact.
    pub(super) fn impact(&self, draft: &Draft) -> Impact {
        let toll = self.toll(draft);
        let severity = draft.story.severity;
        let faulty = severity >= Severity::WARN;
        let told = &draft.story.impact.affected;
        let serves = |e: &&Entity| e.kind == EntityKind::Service;
        let customer_facing = match draft.asked.customer_facing {
            AutoOr::Fixed(b) => b,
            AutoOr::Auto => {
                let matters = |c: &(Criticality, Entity)| c.0 >= Criticality::High;
                faulty
                    && (draft.failed_for_others > 0
                        || told.iter().any(|a| a.starts_with("service "))
                        || toll.lost.iter().any(is_for_others)
                        || toll.downstream.iter().any(|e| serves(&e))
                        || toll.criticality.as_ref().is_some_and(matters))
            }
        };
        let slo_impact = match draft.asked.slo_impact {
            AutoOr::Fixed(b) => b,
            AutoOr::Auto => {
                // Replicas that are left serve on; without any that are known, somebody waits.
                let serves_on = !toll.headroom.is_empty()
                    && toll.headroom.iter().all(|(_, ready, _)| *ready > 0)
                    && toll.lost.is_empty()
                    && draft.failed_for_others == 0;
                customer_facing && severity >= Severity::ERROR && !serves_on
            }
        };
        let business = match draft.asked.business {
            AutoOr::Fixed(b) => b,
            AutoOr::Auto => business(draft, &toll, customer_facing),
        };
        let mut affected = told.clone();
        for entity in toll.lost.iter().chain(&toll.downstream) {
            let text = self.graph.thing(entity);
            if affected.len() < MAX_AFFECTED && !affected.contains(&text) {
                affected.push(text);
            }
        }
        let evidence = self.words(draft, &toll);
        Impact { business, customer_facing, slo_impact, affected, evidence }
    }

    fn toll(&self, draft: &Draft) -> Toll {
        let mut toll = Toll::default();
        let down: Vec<&Source> = draft.sources.iter().filter(|s| is_down(s)).collect();
        let is_one = |e: &Entity| down.iter().any(|s| s.entity == *e);
        let end = second(draft.story.last_ns);
        for source in &down {
            let at = second(source.first_ns);
            for thing in self.provided(&source.entity, at) {
                let others = self.graph.joined(thing, Relation::Provides, false, end);
                if others.into_iter().all(is_one) {
                    toll.lost.insert(thing.clone());
                }
            }
            for (relation, is_first) in [(Relation::Selects, false), (Relation::OwnedBy, true)] {
                for whole in self.graph.joined(&source.entity, relation, is_first, at) {
                    if !toll.headroom.iter().any(|(known, _, _)| known == whole) {
                        let spans = [second(draft.story.first_ns), at, end];
                        let (ready, all) = self.replicas(whole, relation, spans, &is_one);
                        toll.headroom.push((whole.clone(), ready, all));
                        if ready == 0 && whole.kind == EntityKind::Service {
                            toll.lost.insert(whole.clone());
                        }
                    }
                }
            }
            let reached = self.graph.reach(&source.entity, false, DOWNSTREAM_STEPS, at);
            // What is a part of something is said as that: nobody looks for a pod's processes.
            let wholes = reached.into_iter().map(|(_, e)| self.graph.whole(e, at));
            toll.downstream.extend(wholes.filter(|e| !is_one(e)).cloned());
        }
        toll.headroom.sort();
        toll.criticality = self.most_critical(draft, &toll, end);
        toll
    }

    /// The endpoints an entity serves.
    fn provided(&self, entity: &Entity, at: u32) -> BTreeSet<&Entity> {
        let mut out = BTreeSet::new();
        for thing in self.graph.joined(entity, Relation::Provides, true, at) {
            match thing.kind {
                EntityKind::Address => {
                    out.extend(self.graph.joined(thing, Relation::RunsIn, false, at));
                }
                _ => {
                    out.insert(thing);
                }
            }
        }
        out
    }

    /// How many pods of a workload or service are ready at the last of some seconds, of those it had
    /// at any of them.
    fn replicas(
        &self,
        whole: &Entity,
        relation: Relation,
        seconds: [u32; 3],
        is_down: &impl Fn(&Entity) -> bool,
    ) -> (usize, usize) {
        let is_first = relation == Relation::Selects;
        let pods: BTreeSet<&Entity> = seconds
            .iter()
            .flat_map(|at| self.graph.joined(whole, relation, is_first, *at))
            .collect();
        let ready =
            pods.iter().filter(|p| !is_down(p) && self.graph.is_ready(p, seconds[2]) == Some(true));
        (ready.count(), pods.len())
    }

    fn most_critical(&self, draft: &Draft, toll: &Toll, at: u32) -> Option<(Criticality, Entity)> {
        let faulty = draft.sources.iter().filter(|s| s.worst >= Severity::WARN);
        let of_members = faulty.map(|s| &s.entity);
        let wholes = toll.headroom.iter().map(|(whole, _, _)| whole);
        let all = of_members.chain(wholes).chain(&toll.downstream).chain(&toll.lost);
        let labelled = all.filter_map(|e| Some((self.graph.criticality(e, at)?, e)));
        // The most critical, and of those the first by name.
        let most = labelled.max_by_key(|(c, e)| (*c, std::cmp::Reverse(*e)));
        most.map(|(criticality, entity)| (criticality, entity.clone()))
    }

    /// The facts in words.
    fn words(&self, draft: &Draft, toll: &Toll) -> Vec<String> {
        let mut out = Vec::new();
        for entity in &toll.lost {
            out.push(format!("{} lost: nobody serves it", self.graph.text(entity)));
        }
        for (whole, ready, all) in &toll.headroom {
            out.push(format!("{}: {ready} of {all} pods ready", self.graph.text(whole)));
        }
        if draft.failed_connections > 0 {
            out.push(format!("{} failed connections", draft.failed_connections));
        }
        if let Some((criticality, entity)) = &toll.criticality {
            let text = self.graph.text(entity);
            out.push(format!("criticality of {text}: {}", criticality.word()));
        }
        if !toll.downstream.is_empty() {
            let named: Vec<String> =
                toll.downstream.iter().take(MAX_NAMED).map(|e| self.graph.text(e)).collect();
            let more = toll.downstream.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            out.push(format!("depending on it: {}{more}", named.join(", ")));
        }
        for (prefix, one, many) in COUNTED {
            match draft.story.impact.affected.iter().filter(|a| a.starts_with(prefix)).count() {
                0 => {}
                1 => out.push(format!("1 {one}")),
                n => out.push(format!("{n} {many}")),
            }
        }
        out
    }
}

/// Independent hints that the business notices, combined as noisy-or: 1 − Π(1 − pᵢ).
fn business(draft: &Draft, toll: &Toll, customer_facing: bool) -> f64 {
    let severe = (f64::from(draft.story.severity.0) / 24.0).powi(2) * PRIORS.severity;
    let further = draft.story.impact.affected.len().saturating_sub(1) + toll.downstream.len();
    let spread = 1.0 - (1.0 - PRIORS.each_entity).powi(further.min(MAX_AFFECTED) as i32);
    let connections = if customer_facing {
        let failed = (draft.failed_connections as f64).ln_1p();
        1.0 - (1.0 - PRIORS.failed_connection).powf(1.0 + failed)
    } else {
        0.0
    };
    let lost = 1.0 - (1.0 - PRIORS.lost).powi(toll.lost.len().min(MAX_AFFECTED) as i32);
    let replicas = PRIORS.replicas * toll.worst_part();
    let critical = toll.criticality.as_ref().map_or(0.0, |(c, _)| PRIORS.criticality[*c as usize]);
    let none = [severe, spread, connections, lost, replicas, critical];
    1.0 - none.iter().map(|p| 1.0 - p).product::<f64>()
}
