//! Impact of a story, computed from facts: lost endpoints and services, ready replicas, failed
//! connections, criticality labels, and dependents.

use std::collections::BTreeSet;

use super::entity::{AffectedEntity, Entity, EntityKind};
use super::pending_story::{Observation, PendingStory};
use super::relation::{Criticality, Relation};
use super::second_set::second;
use super::store::EvidenceStore;
use crate::rules::AutoOr;
use tapio_core::event::{Impact, Name, Severity, names};

/// Affected entities that a story names.
pub(crate) const MAX_AFFECTED: usize = 32;
/// Steps within which dependents of a failed entity are affected.
const DOWNSTREAM_STEPS: u32 = 3;
/// Dependents that the evidence names; the others are counted.
const MAX_NAMED: usize = 4;

/// Probability that the business notices, given each hint alone. They are priors: they are combined
/// as independent hints, and a rule with better knowledge gives its own value.
struct Priors {
    /// The highest severity.
    severity: f64,
    /// Each further entity.
    each_entity: f64,
    /// One failed connection of another entity; more count by their logarithm.
    failed_connection: f64,
    /// An endpoint or service without a provider.
    lost: f64,
    /// All replicas of a workload down; a part of them counts proportionally.
    replicas: f64,
    /// By criticality, from low to critical.
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

/// Kinds of affected entities that the evidence counts, with singular and plural.
const COUNTED: [(EntityKind, &str, &str); 5] = [
    (EntityKind::Unit, "unit", "units"),
    (EntityKind::Pod, "pod", "pods"),
    (EntityKind::Service, "service", "services"),
    (EntityKind::Endpoint, "endpoint", "endpoints"),
    (EntityKind::Process, "program", "programs"),
];

/// Kinds after which an entity serves no requests.
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

/// Ready pods of a workload or service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Headroom {
    owner: Entity,
    ready: usize,
    all: usize,
}

/// The entities that depend on what is down, and how critical they are.
#[derive(Default)]
struct BlastRadius {
    /// Services and endpoints without a provider.
    lost: BTreeSet<Entity>,
    /// Workloads and services of affected pods.
    headroom: Vec<Headroom>,
    /// Dependents of what is down.
    downstream: BTreeSet<Entity>,
    /// The highest criticality, and an entity that has it.
    criticality: Option<(Criticality, Entity)>,
}

impl BlastRadius {
    /// The largest share of a workload's pods that is down.
    fn max_share_down(&self) -> f64 {
        let shares = self.headroom.iter().map(|h| 1.0 - h.ready as f64 / h.all as f64);
        shares.fold(0.0, f64::max)
    }
}

fn is_down(observation: &Observation) -> bool {
    DOWN.contains(&observation.kind)
}

impl EvidenceStore {
    /// Computes a story's impact.
    pub(super) fn impact(&self, pending: &PendingStory) -> Impact {
        let radius = self.blast_radius(pending);
        let customer_facing = match pending.impact_spec.customer_facing {
            AutoOr::Fixed(given) => given,
            AutoOr::Auto => is_customer_facing(pending, &radius),
        };
        let slo_impact = match pending.impact_spec.slo_impact {
            AutoOr::Fixed(given) => given,
            AutoOr::Auto => {
                // Ready replicas continue to serve. Without known replicas, requests wait.
                let serves_on = !radius.headroom.is_empty()
                    && radius.headroom.iter().all(|h| h.ready > 0)
                    && radius.lost.is_empty()
                    && pending.failed_for_others == 0;
                customer_facing && pending.story.severity >= Severity::ERROR && !serves_on
            }
        };
        let business = match pending.impact_spec.business {
            AutoOr::Fixed(given) => given,
            AutoOr::Auto => business(pending, &radius, customer_facing),
        };
        let mut affected = pending.affected.clone();
        for entity in radius.lost.iter().chain(&radius.downstream) {
            let entity = self.graph.affected(entity);
            if affected.len() < MAX_AFFECTED && !affected.contains(&entity) {
                affected.push(entity);
            }
        }
        let affected = affected.iter().map(AffectedEntity::to_string).collect();
        let evidence = self.impact_evidence(pending, &radius);
        Impact { business, customer_facing, slo_impact, affected, evidence }
    }

    fn blast_radius(&self, pending: &PendingStory) -> BlastRadius {
        let mut radius = BlastRadius::default();
        let down: Vec<&Observation> = pending.observations.iter().filter(|o| is_down(o)).collect();
        let is_down_entity = |e: &Entity| down.iter().any(|o| o.entity == *e);
        let end = second(pending.story.last_ns);
        for observation in &down {
            let at = second(observation.first_ns);
            for endpoint in self.provided_endpoints(&observation.entity, at) {
                let providers = self.graph.related(endpoint, Relation::Provides, false, end);
                if providers.into_iter().all(is_down_entity) {
                    radius.lost.insert(endpoint.clone());
                }
            }
            for (relation, is_first) in [(Relation::Selects, false), (Relation::OwnedBy, true)] {
                for owner in self.graph.related(&observation.entity, relation, is_first, at) {
                    if !radius.headroom.iter().any(|h| h.owner == *owner) {
                        let seconds = [second(pending.story.first_ns), at, end];
                        let (ready, all) = self.replicas(owner, relation, seconds, &is_down_entity);
                        radius.headroom.push(Headroom { owner: owner.clone(), ready, all });
                        if ready == 0 && owner.kind == EntityKind::Service {
                            radius.lost.insert(owner.clone());
                        }
                    }
                }
            }
            let reached = self.graph.reachable(&observation.entity, false, DOWNSTREAM_STEPS, at);
            // A pod is reported instead of its processes, which users don't know.
            let wholes = reached.into_iter().map(|(_, e)| self.graph.enclosing(e, at));
            radius.downstream.extend(wholes.filter(|e| !is_down_entity(e)).cloned());
        }
        radius.headroom.sort();
        radius.criticality = self.most_critical(pending, &radius, end);
        radius
    }

    /// The endpoints that an entity provides.
    fn provided_endpoints(&self, entity: &Entity, at: u32) -> BTreeSet<&Entity> {
        let mut out = BTreeSet::new();
        for provided in self.graph.related(entity, Relation::Provides, true, at) {
            match provided.kind {
                EntityKind::Address => {
                    out.extend(self.graph.related(provided, Relation::RunsIn, false, at));
                }
                _ => {
                    out.insert(provided);
                }
            }
        }
        out
    }

    /// The pods of a workload or service: how many are ready at the last of `seconds`, and how many
    /// it had at any of them.
    fn replicas(
        &self,
        owner: &Entity,
        relation: Relation,
        seconds: [u32; 3],
        is_down: &impl Fn(&Entity) -> bool,
    ) -> (usize, usize) {
        let is_first = relation == Relation::Selects;
        let pods: BTreeSet<&Entity> = seconds
            .iter()
            .flat_map(|at| self.graph.related(owner, relation, is_first, *at))
            .collect();
        let ready =
            pods.iter().filter(|p| !is_down(p) && self.graph.is_ready(p, seconds[2]) == Some(true));
        (ready.count(), pods.len())
    }

    fn most_critical(
        &self,
        pending: &PendingStory,
        radius: &BlastRadius,
        at: u32,
    ) -> Option<(Criticality, Entity)> {
        let faulty = pending.observations.iter().filter(|o| o.worst >= Severity::WARN);
        let of_members = faulty.map(|o| &o.entity);
        let owners = radius.headroom.iter().map(|h| &h.owner);
        let all = of_members.chain(owners).chain(&radius.downstream).chain(&radius.lost);
        let labelled = all.filter_map(|e| Some((self.graph.criticality(e, at)?, e)));
        // Of the most critical ones, the first by name.
        let most = labelled.max_by_key(|(c, e)| (*c, std::cmp::Reverse(*e)));
        most.map(|(criticality, entity)| (criticality, entity.clone()))
    }

    /// Renders the facts that count.
    fn impact_evidence(&self, pending: &PendingStory, radius: &BlastRadius) -> Vec<String> {
        let mut out = Vec::new();
        for entity in &radius.lost {
            out.push(format!("{} lost: no provider left", self.graph.describe(entity)));
        }
        for Headroom { owner, ready, all } in &radius.headroom {
            out.push(format!("{}: {ready} of {all} pods ready", self.graph.describe(owner)));
        }
        match pending.failed_connections {
            0 => {}
            1 => out.push("1 failed connection".to_owned()),
            n => out.push(format!("{n} failed connections")),
        }
        if let Some((criticality, entity)) = &radius.criticality {
            let text = self.graph.describe(entity);
            out.push(format!("criticality of {text}: {}", criticality.as_str()));
        }
        if !radius.downstream.is_empty() {
            let named = radius.downstream.iter().take(MAX_NAMED);
            let named: Vec<String> = named.map(|e| self.graph.describe(e)).collect();
            let more = radius.downstream.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            out.push(format!("dependents: {}{more}", named.join(", ")));
        }
        for (kind, singular, plural) in COUNTED {
            match pending.affected.iter().filter(|a| a.kind == kind).count() {
                0 => {}
                1 => out.push(format!("1 {singular}")),
                n => out.push(format!("{n} {plural}")),
            }
        }
        out
    }
}

fn is_customer_facing(pending: &PendingStory, radius: &BlastRadius) -> bool {
    let matters = |c: &(Criticality, Entity)| c.0 >= Criticality::High;
    pending.story.severity >= Severity::WARN
        && (pending.failed_for_others > 0
            || pending.affected.iter().any(|a| a.kind == EntityKind::Service)
            || radius.lost.iter().any(|e| !e.is_loopback_endpoint())
            || radius.downstream.iter().any(|e| e.kind == EntityKind::Service)
            || radius.criticality.as_ref().is_some_and(matters))
}

/// Combines independent hints that the business notices, as noisy-or: 1 − Π(1 − pᵢ).
fn business(pending: &PendingStory, radius: &BlastRadius, customer_facing: bool) -> f64 {
    let severe = (f64::from(pending.story.severity.0) / 24.0).powi(2) * PRIORS.severity;
    let further = pending.affected.len().saturating_sub(1) + radius.downstream.len();
    let spread = 1.0 - (1.0 - PRIORS.each_entity).powi(further.min(MAX_AFFECTED) as i32);
    let connections = if customer_facing {
        let failed = (pending.failed_connections as f64).ln_1p();
        1.0 - (1.0 - PRIORS.failed_connection).powf(1.0 + failed)
    } else {
        0.0
    };
    let lost = 1.0 - (1.0 - PRIORS.lost).powi(radius.lost.len().min(MAX_AFFECTED) as i32);
    let replicas = PRIORS.replicas * radius.max_share_down();
    let critical =
        radius.criticality.as_ref().map_or(0.0, |(c, _)| PRIORS.criticality[*c as usize]);
    let hints = [severe, spread, connections, lost, replicas, critical];
    1.0 - hints.iter().map(|p| 1.0 - p).product::<f64>()
}
