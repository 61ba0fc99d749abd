//! The assessor: combines the evidence of all shards and completes pending stories with ranked root
//! causes and impact. It processes facts in any order. It is pure: no clock, socket or thread, so
//! replay and tests execute the agent's code.

use std::sync::Arc;

use super::bounds::Bounds;
use super::entity::Entity;
use super::incidents::Incidents;
use super::message::{EvidenceKind, EvidenceMessage};
use super::pairs::LearnedPair;
use super::pending_story::PendingStory;
use super::store::EvidenceStore;
use super::suggest::worth_a_rule;
use super::weights::LiveWeights;
use crate::guard::{Failures, guarded};
use crate::sampling::Sampling;
use crate::services::{ServiceBounds, ServiceCounts, ServiceFact, Services};
use tapio_core::event::{Candidate, Impact, Story};
use tapio_core::memory::MemoryLevel;

/// Counters of the assessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssessorCounts {
    /// Facts processed.
    pub facts: u64,
    /// Stories completed.
    pub stories: u64,
    /// Entities of the graph.
    pub entities: u64,
    /// Edges of the graph.
    pub relations: u64,
    /// Series of counts.
    pub series: u64,
    /// Pairs learned.
    pub pairs: u64,
    /// Entities and pairs evicted for lack of room, and edges refused.
    pub evicted: u64,
    /// Operations of services that are learned.
    pub operations: u64,
    /// Spans that await their callees.
    pub spans: u64,
    /// Pairs of instances whose connections are seen.
    pub connection_pairs: u64,
    /// Facts of services refused for lack of room.
    pub services_refused: u64,
    /// Spans, log records and connections that services aren't learned from, at high rates.
    pub services_sampled_out: u64,
    /// Panics: a fact was lost, or a story completed without root causes and impact.
    pub failures: u64,
}

/// The assessor.
pub struct Assessor {
    store: EvidenceStore,
    facts: u64,
    stories: u64,
    /// The usual behaviour of services; `None` in replay, which processes all facts at its end.
    services: Option<Services>,
    service_facts: Vec<ServiceFact>,
    incidents: Incidents,
    cluster: String,
    weights: LiveWeights,
    /// Stories that wait for all facts.
    waiting: Vec<PendingStory>,
    pub(super) failures: Failures,
    has_reported: bool,
}

/// Completes a story with what `assess` returns. Where that panics, the story is emitted without
/// root causes and impact.
fn completed(
    mut pending: PendingStory,
    failures: &mut Failures,
    assess: impl FnOnce(&PendingStory) -> (Vec<Candidate>, Impact),
) -> Story {
    match guarded(|| assess(&pending)) {
        Ok((root_cause, impact)) => {
            pending.story.root_cause = root_cause;
            pending.story.impact = impact;
        }
        Err(cause) => failures.add(None, cause),
    }
    pending.story
}

impl Assessor {
    /// An assessor without evidence.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            store: EvidenceStore::new(bounds),
            facts: 0,
            stories: 0,
            services: None,
            service_facts: Vec::new(),
            incidents: Incidents::default(),
            cluster: String::new(),
            weights: LiveWeights::default(),
            waiting: Vec::new(),
            failures: Failures::default(),
            has_reported: false,
        }
    }

    /// Sets the cluster, which ids of stories depend on.
    #[must_use]
    pub fn with_cluster(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self
    }

    /// Ranks by these weights, which may be replaced meanwhile.
    #[must_use]
    pub fn with_weights(mut self, weights: LiveWeights) -> Self {
        self.weights = weights;
        self
    }

    /// Learns what services usually do as facts arrive, rather than at the end. `sensitivity`: a
    /// deviation of an n-th of the usual strength opens a story; 0: none does.
    #[must_use]
    pub fn streaming(mut self, sensitivity: f64) -> Self {
        self.services = Some(Services::new(ServiceBounds::LIVE, &self.cluster, sensitivity));
        self
    }

    /// Publishes there which part of spans and log records services are learned from.
    pub(super) fn set_sampling(&mut self, sampling: &Arc<Sampling>) {
        let services = self.services.as_mut();
        services.into_iter().for_each(|services| services.set_sampling(Arc::clone(sampling)));
    }

    /// The usual behaviour of services in bytes; `None` before anything was learned.
    pub(super) fn save_services(&mut self) -> Option<Vec<u8>> {
        self.services.as_mut().and_then(Services::save)
    }

    /// Restores what services usually do; returns the number of operations.
    ///
    /// # Errors
    /// Why the bytes can't be used.
    pub(super) fn restore_services(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let Some(services) = &mut self.services else { return Ok(0) };
        services.restore(bytes).map_err(|error| error.to_string())?;
        Ok(services.counts().operations)
    }

    /// The open disturbances of services in bytes.
    pub(super) fn save_disturbances(&self) -> Option<Vec<u8>> {
        self.services.as_ref().and_then(Services::save_disturbances)
    }

    /// Restores open disturbances; returns their number.
    ///
    /// # Errors
    /// Why the bytes can't be used.
    pub(super) fn restore_disturbances(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let Some(services) = &mut self.services else { return Ok(0) };
        services.restore_disturbances(bytes).map_err(|error| error.to_string())
    }

    /// Advances time: returns the stories of services that deviate from what they usually do.
    pub fn advance(&mut self, now_ns: u64) -> Vec<Story> {
        let found = self.services.as_mut().map(|services| services.advance(now_ns));
        let mut stories = found.unwrap_or_default();
        stories.iter_mut().for_each(|story| self.relate(story, &[]));
        stories
    }

    /// Sets the incident of a story.
    fn relate(&mut self, story: &mut Story, observed: &[Entity]) {
        let (incidents, graph) = (&mut self.incidents, &self.store.graph);
        match guarded(|| incidents.of(graph, story, observed)) {
            Ok(incident) => story.incident = incident,
            Err(cause) => self.failures.add(None, cause),
        }
    }

    /// Follows the level of memory: sets the bounds, and evicts what is beyond them.
    pub fn limit(&mut self, bounds: Bounds, level: MemoryLevel) {
        self.store.limit(bounds.at(level));
        if let Some(services) = &mut self.services {
            services.limit(level);
        }
    }

    /// Adds a fact to the evidence, or returns the pending story of the message.
    fn add(&mut self, message: EvidenceMessage) -> Option<PendingStory> {
        let store = &mut self.store;
        self.facts += u64::from(message.is_fact());
        match message.0 {
            EvidenceKind::Count(entity, kind, count) => store.baselines.add(&entity, kind, count),
            EvidenceKind::Graph(fact, second) => store.add_graph_fact(&fact, second),
            EvidenceKind::Fault(entity, transition) => store.active_faults.add(&entity, transition),
            EvidenceKind::Lift(lift) => store.add_lift(*lift),
            EvidenceKind::Pair { key, octave, epoch, count } => {
                store.pairs.add(key, usize::from(octave), epoch, count);
            }
            EvidenceKind::Kind { home, kind, epoch, count } => {
                store.pairs.add_kind(home, kind, epoch, count);
            }
            EvidenceKind::ObservedTime { home, epoch, milliseconds } => {
                store.pairs.add_observed_time(home, epoch, milliseconds);
            }
            EvidenceKind::Services(facts) => match &mut self.services {
                Some(services) => facts.into_iter().for_each(|fact| services.add(fact)),
                None => self.service_facts.extend(facts),
            },
            EvidenceKind::Story(story) => return Some(*story),
        }
        None
    }

    /// Processes a message. A story is completed at once, by the facts known now.
    pub fn process(&mut self, message: EvidenceMessage) -> Option<Story> {
        let pending = self.add(message)?;
        let (mut story, observed) = self.complete(pending);
        self.relate(&mut story, &observed);
        Some(story)
    }

    /// Processes a message. A story waits until [`Assessor::finish`].
    pub fn collect(&mut self, message: EvidenceMessage) {
        if let Some(pending) = self.add(message) {
            self.waiting.push(pending);
        }
    }

    /// Completes the stories that wait; the caller has passed all facts.
    pub fn finish(&mut self) -> Vec<Story> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut found: Vec<(Story, Vec<Entity>)> =
            waiting.into_iter().map(|pending| self.complete(pending)).collect();
        let facts = std::mem::take(&mut self.service_facts);
        let disturbances = Services::new(ServiceBounds::REPLAY, &self.cluster, 1.0).replay(facts);
        found.extend(disturbances.into_iter().map(|story| (story, Vec::new())));
        // The order in which shards were read doesn't matter.
        let mut in_time: Vec<usize> = (0..found.len()).collect();
        in_time.sort_by_key(|at| (found[*at].0.first_ns, found[*at].0.id));
        for at in in_time {
            let (story, observed) = &mut found[at];
            self.relate(story, observed);
        }
        found.into_iter().map(|(story, _)| story).collect()
    }

    /// Completes a story; returns its members' entities with it.
    fn complete(&mut self, pending: PendingStory) -> (Story, Vec<Entity>) {
        self.stories += 1;
        let (store, weights) = (&self.store, self.weights.get());
        let observed = pending.observations.iter().map(|o| o.entity.clone()).collect();
        let story = completed(pending, &mut self.failures, |story| {
            (store.rank(story, &weights), store.impact(story))
        });
        (story, observed)
    }

    /// Logs the first failure; the others are counted.
    pub(crate) fn report_failures(&mut self) {
        let failures = self.failures.take();
        if let Some(first) = failures.first().filter(|_| !self.has_reported) {
            self.has_reported = true;
            tracing::error!(
                cause = first.cause,
                "assessor failed; a fact is missing, or a story has no root causes; further \
                 failures are counted"
            );
        }
    }

    /// The counters.
    #[must_use]
    pub fn counts(&self) -> AssessorCounts {
        let EvidenceStore { graph, baselines, pairs, .. } = &self.store;
        let services = self.services.as_ref().map_or_else(ServiceCounts::default, Services::counts);
        AssessorCounts {
            operations: services.operations,
            spans: services.spans,
            connection_pairs: services.pairs,
            services_refused: services.refused,
            services_sampled_out: services.sampled_out,
            facts: self.facts,
            stories: self.stories,
            entities: graph.len() as u64,
            relations: graph.edge_count() as u64,
            series: baselines.len(),
            pairs: pairs.len() as u64,
            evicted: self.store.evicted(),
            failures: self.failures.total,
        }
    }

    /// Pairs that are worth a rule, the strongest first.
    #[must_use]
    pub fn suggestions(&self) -> Vec<LearnedPair> {
        worth_a_rule(self.store.pairs.all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::pending_story::ImpactSpec;
    use crate::guard::report_instead_of_printing;
    use tapio_core::event::{Severity, StoryState, TraceId};

    #[test]
    fn story_whose_assessment_panics_is_emitted_without_it() {
        report_instead_of_printing();
        let story = Story {
            id: TraceId([7; 16]),
            trace_id: TraceId([7; 16]),
            rule: "r".into(),
            pattern: "p".into(),
            name: String::new(),
            intent: String::new(),
            state: StoryState::Opened,
            revision: 0,
            key: Vec::new(),
            members_total: 0,
            first_ns: 0,
            last_ns: 0,
            severity: Severity::ERROR,
            root_cause: Vec::new(),
            impact: Impact::default(),
            actions: Vec::new(),
            confidence: 1.0,
            continues: None,
            provisional: None,
            incident: None,
            members: Vec::new(),
        };
        let pending = PendingStory {
            story,
            affected: Vec::new(),
            observations: Vec::new(),
            named: Vec::new(),
            any_cause: true,
            within_ns: 1,
            impact_spec: ImpactSpec::AUTO,
            failed_connections: 0,
            failed_for_others: 0,
        };
        let mut failures = Failures::default();
        let emitted = completed(pending, &mut failures, |_| panic!("no term"));
        assert_eq!((emitted.id, emitted.root_cause.len()), (TraceId([7; 16]), 0));
        let waiting = failures.take();
        assert_eq!((failures.total, waiting.len()), (1, 1));
        assert!(waiting[0].cause.starts_with("no term (src/dataflow/evidence"), "{waiting:?}");
    }
}
