//! The usual behaviour of the services of a node, and deviations from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::blame::{add_hints, connected, suspects};
use super::bounds::{FORGET_INTERVAL_STEPS, ServiceBounds};
use super::connections::Connections;
use super::deviation::Feature;
use super::disturbance::Disturbance;
use super::duration::Durations;
use super::evidence::{CallGraph, Calls, Evidence, FailingCalls};
use super::fact::{Key, LogFact, ServiceFact};
use super::operation::Operation;
use super::rates::Rates;
use super::report::story;
use super::span_join::{HOLD_NS, Joined, SpanJoin};
use super::step::{AHEAD_STEPS, Learning, SLOTS, STEP_NS, step};
use super::wording::Names;
use crate::sampling::Sampling;
use tapio_core::event::{Story, StoryState, TraceId, stable_hash};

/// The least deviation that counts, in standard deviations.
const MIN_Z: f64 = 3.0;
/// The least deviation that is a hint, beside others that count.
const MIN_HINT_Z: f64 = 2.0;
/// The strength of a deviation with which a disturbance opens, at sensitivity 1: that of an error
/// at five standard deviations.
const OPENING_STRENGTH: f64 = 1.6;
/// The strength of a deviation that keeps a disturbance open.
const KEEPING_STRENGTH: f64 = 1.1;
/// The longest span that awaits its parts; with longer ones a sender would keep the room for good.
const MAX_SPAN_NS: u64 = 600 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// The usual time of a request before any was seen.
const REQUEST_NS: f64 = 1e8;

/// Counts of what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceCounts {
    pub(crate) operations: u64,
    pub(crate) spans: u64,
    pub(crate) pairs: u64,
    pub(crate) refused: u64,
    pub(crate) sampled_out: u64,
}

/// The usual behaviour of services, and the disturbances that are open.
pub(crate) struct Services {
    /// Those of the configuration, and those that memory allows.
    pub(super) configured: ServiceBounds,
    pub(super) bounds: ServiceBounds,
    cluster: String,
    sensitivity: f64,
    pub(super) names: Names,
    /// One key for all instances of a service.
    pub(super) service_keys: HashMap<String, Key>,
    pub(super) join: SpanJoin,
    pub(super) connections: Connections,
    pub(super) operations: BTreeMap<(Key, Key), Operation>,
    /// Of each operation of a service (keys of both), the instance with the longest past.
    pub(super) elders: HashMap<(Key, Key), Key>,
    /// Features that may be added until the next step.
    pub(super) room: usize,
    pub(super) calls: Calls,
    /// The number of its callees, of all callers.
    pub(super) call_count: usize,
    /// The time of requests: spans without a caller.
    pub(super) requests: Durations,
    /// The first step that wasn't evaluated yet; 0 before the first fact.
    pub(super) next_step: u32,
    pub(super) disturbances: Vec<Disturbance>,
    refused: u64,
    /// Decides which spans and log records are learned from.
    rates: Rates,
    sampled_out: u64,
}

impl Services {
    /// `sensitivity`: a deviation of an n-th of the usual strength opens a disturbance; 0: none.
    pub(crate) fn new(bounds: ServiceBounds, cluster: &str, sensitivity: f64) -> Self {
        Self {
            configured: bounds,
            bounds,
            cluster: cluster.to_owned(),
            sensitivity,
            names: Names::default(),
            service_keys: HashMap::new(),
            join: SpanJoin::new(bounds.spans),
            connections: Connections::new(bounds.connections()),
            operations: BTreeMap::new(),
            elders: HashMap::new(),
            room: bounds.features,
            calls: Calls::new(),
            call_count: 0,
            requests: Durations::default(),
            next_step: 0,
            disturbances: Vec::new(),
            refused: 0,
            rates: Rates::default(),
            sampled_out: 0,
        }
    }

    /// Publishes there which part of the spans and log records is learned from.
    pub(crate) fn set_sampling(&mut self, sampling: Arc<Sampling>) {
        self.rates.sampling = sampling;
    }

    /// Counts of what is kept, and of facts refused for lack of room.
    pub(crate) fn counts(&self) -> ServiceCounts {
        ServiceCounts {
            operations: self.operations.len() as u64,
            spans: self.join.len() as u64,
            pairs: self.connections.len() as u64,
            refused: self.refused + self.connections.refused,
            sampled_out: self.sampled_out + self.connections.sampled_out,
        }
    }

    /// Adds a fact.
    pub(crate) fn add(&mut self, fact: ServiceFact) {
        if !self.rates.takes(&fact) {
            self.sampled_out += 1;
            return;
        }
        match fact {
            ServiceFact::Span(span) if self.join.is_full() || span.duration_ns > MAX_SPAN_NS => {
                self.refused += 1;
            }
            ServiceFact::Span(span) => self.join.span(span),
            ServiceFact::Log(log) if log.span != 0 && !self.join.is_full() => self.join.log(&log),
            ServiceFact::Log(log) => {
                self.log_without_span(&log);
            }
            ServiceFact::Connection(connection) => self.connections.hold(connection),
            ServiceFact::Listener(listener) => self.connections.listen(&listener),
            ServiceFact::Owner { key, names, identities } => {
                self.connections.identify(key, identities);
                self.refused += u64::from(!self.names.add_owner(key, *names, self.bounds.names));
            }
            ServiceFact::Claim { identity, instance, is_process } => {
                self.connections.claim(identity, instance, is_process);
            }
            ServiceFact::Instance { key, names } => {
                // Those in use come again: shards send names every ten minutes.
                if self.names.instances.len() >= self.bounds.names {
                    self.names.instances.clear();
                    self.service_keys.clear();
                }
                self.service_keys.entry(names.service.clone()).or_insert(key);
                self.names.instances.insert(key, *names);
            }
            ServiceFact::Text { key, text } => {
                if self.names.texts.len() >= self.bounds.names {
                    self.names.texts.clear();
                }
                self.names.texts.insert(key, text);
            }
        }
    }

    fn log_without_span(&mut self, log: &LogFact) {
        self.begin(log.instance, 0);
        if let Some(operation) = self.operations.get_mut(&(log.instance, 0)) {
            operation.add_log(log, &mut self.room);
        }
    }

    pub(super) fn operation(&mut self, instance: Key, operation: Key) -> Option<&mut Operation> {
        let key = (instance, operation);
        if self.operations.len() >= self.bounds.operations && !self.operations.contains_key(&key) {
            self.refused += 1;
            return None;
        }
        Some(self.operations.entry(key).or_default())
    }

    /// Adds an operation with the past of an elder, if it is new and there is room.
    fn begin(&mut self, instance: Key, operation: Key) {
        if self.operations.contains_key(&(instance, operation)) {
            return;
        }
        if self.operations.len() >= self.bounds.operations {
            self.refused += 1;
            return;
        }
        let begun = self.beginning(instance, operation);
        self.room -= begun.features().min(self.room);
        self.operations.insert((instance, operation), begun);
    }

    fn joined(&mut self, joined: &Joined) {
        let Some(span) = &joined.span else {
            return joined.templates.iter().for_each(|(log, _)| self.log_without_span(log));
        };
        if span.parent == 0 {
            self.requests
                .add(step(span.start_ns.saturating_add(span.duration_ns)), span.duration_ns);
        }
        self.begin(span.instance, span.operation);
        let (names, service_keys) = (&self.names, &self.service_keys);
        if let Some(operation) = self.operations.get_mut(&(span.instance, span.operation)) {
            operation.add(joined, &mut self.room, |of| service_of(names, service_keys, of));
        }
        self.note_calls(span.instance, joined);
    }

    /// Notes which instances an instance calls.
    fn note_calls(&mut self, caller: Key, joined: &Joined) {
        let callees = joined.callees.iter().map(|((callee, _), _)| *callee);
        for callee in callees.filter(|callee| *callee != caller) {
            let is_known = self.calls.get(&caller).is_some_and(|all| all.contains(&callee));
            if !is_known && self.call_count < self.bounds.operations {
                self.calls.entry(caller).or_default().insert(callee);
                self.call_count += 1;
            }
        }
    }

    /// Advances time: joins the spans that are due, evaluates the steps that are complete, and
    /// returns what became of the disturbances.
    pub(crate) fn advance(&mut self, now_ns: u64) -> Vec<Story> {
        self.rates.adapt(now_ns, self.bounds.spans);
        let mut due = Vec::new();
        self.join.take_due(now_ns, |joined| due.push(joined));
        let complete = step(now_ns.saturating_sub(HOLD_NS + SECOND_NS));
        if self.next_step == 0 {
            self.next_step = complete;
        }
        due.iter().for_each(|joined| self.joined(joined));
        self.add_connections(now_ns);
        let mut stories = Vec::new();
        // After a pause, all that is recent has been learned by this number of steps.
        let behind = complete.saturating_sub(self.next_step);
        // A clock that was set back is waited for.
        self.next_step = self.next_step.max(complete - behind.min(2 * SLOTS as u32));
        while self.next_step < complete {
            self.evaluate(self.next_step, &mut stories);
            self.next_step += 1;
            let ahead = self.next_step + AHEAD_STEPS;
            self.operations.values_mut().for_each(|operation| operation.learn(ahead));
            self.requests.learn(ahead, Learning::Usual);
            self.count_open(self.next_step);
            self.find_elders(self.next_step);
            if self.next_step.is_multiple_of(FORGET_INTERVAL_STEPS) {
                self.forget(self.next_step);
            }
            self.room = self.bounds.features.saturating_sub(self.features());
        }
        stories
    }

    /// The deviations in the step `at`, and those of them that are weak or over.
    fn deviations(&mut self, at: u32) -> (Vec<Evidence>, Vec<Evidence>) {
        let (mut found, mut hints) = (Vec::new(), Vec::new());
        let min_z = if self.disturbances.is_empty() { MIN_Z } else { MIN_HINT_Z };
        let request_ns = self.requests.usual_ns().unwrap_or(REQUEST_NS);
        for ((instance, operation), learned) in &self.operations {
            learned.deviations(at, min_z, |deviation| {
                let strength = deviation.strength(request_ns);
                let (instance, operation) = (*instance, *operation);
                let is_untried = match deviation.feature {
                    Feature::Calls(callee, _) => self.no_longer_connects(instance, callee, at),
                    _ => false,
                };
                let evidence = Evidence { instance, operation, deviation, strength, is_untried };
                if deviation.z < MIN_Z || !deviation.lasts {
                    hints.push(evidence);
                }
                if deviation.z >= MIN_Z {
                    found.push(evidence);
                }
            });
        }
        for evidence in found.iter().filter(|evidence| evidence.deviation.is_fault()) {
            let key = (evidence.instance, evidence.operation);
            self.operations.get_mut(&key).into_iter().for_each(|operation| operation.suspect(at));
        }
        (found, hints)
    }

    /// The instances that the failing operations in this and all earlier evidence call.
    fn failing_calls(&self, found: &[Evidence]) -> FailingCalls {
        let earlier = self.disturbances.iter().flat_map(Disturbance::all_evidence);
        let failing = found.iter().copied().chain(earlier);
        let failing = failing.filter(|evidence| evidence.deviation.feature == Feature::Failed);
        let keys: BTreeSet<(Key, Key)> = failing.map(|e| (e.instance, e.operation)).collect();
        let no_calls = BTreeSet::new();
        keys.into_iter()
            .map(|(instance, operation)| {
                let reached = self.services_called(instance, operation);
                let callees = self.calls.get(&instance).unwrap_or(&no_calls).iter().copied();
                let called = callees.filter(|callee| reached.contains(&self.service_of(*callee)));
                ((instance, operation), called.collect())
            })
            .collect()
    }

    /// The services that an operation calls, itself or by other operations of its instance.
    fn services_called(&self, instance: Key, operation: Key) -> BTreeSet<Key> {
        let (mut services, mut seen) = (BTreeSet::new(), BTreeSet::from([operation]));
        let mut open = vec![operation];
        while let Some(operation) = open.pop() {
            let learned = self.operations.get(&(instance, operation));
            for (service, callee) in learned.into_iter().flat_map(Operation::callees) {
                if service != 0 {
                    services.insert(service);
                } else if seen.insert(callee) {
                    open.push(callee);
                }
            }
        }
        services
    }

    /// The key that all instances of a service have.
    pub(super) fn service_of(&self, instance: Key) -> Key {
        service_of(&self.names, &self.service_keys, instance)
    }

    fn evaluate(&mut self, at: u32, stories: &mut Vec<Story>) {
        let (found, hints) = self.deviations(at);
        let mut is_open = vec![false; self.disturbances.len()];
        let end_ns = u64::from(at + 1) * STEP_NS;
        let failing = self.failing_calls(&found);
        let (calls, connections) = (&self.calls, self.connections.edges());
        let graph = CallGraph { calls, connections, failing: &failing };
        for part in connected(&found, graph) {
            let is_of_part = |e: &&Evidence| e.deviation.lasts && part.contains(&e.instance);
            let of_part: Vec<Evidence> = found.iter().filter(is_of_part).copied().collect();
            let opening = of_part.iter().filter(|e| e.deviation.opens());
            let strongest = opening.map(|e| e.strength).fold(0.0, f64::max);
            let open = self.disturbances.iter().position(|open| open.concerns(&part));
            let position = match open {
                Some(position) => position,
                None if strongest >= OPENING_STRENGTH / self.sensitivity => {
                    let key = part.first().copied().unwrap_or_default();
                    let id = stable_hash(&[
                        b"disturbance",
                        self.cluster.as_bytes(),
                        &key.to_le_bytes(),
                        &end_ns.to_le_bytes(),
                    ]);
                    self.disturbances.push(Disturbance::new(TraceId(id), end_ns));
                    is_open.push(false);
                    self.disturbances.len() - 1
                }
                None => continue,
            };
            if strongest < KEEPING_STRENGTH / self.sensitivity {
                continue;
            }
            for evidence in &of_part {
                let key = (evidence.instance, evidence.operation);
                self.operations
                    .get_mut(&key)
                    .into_iter()
                    .for_each(|operation| operation.disturb(at));
            }
            self.disturbances[position].add(&of_part, at);
            is_open[position] = true;
        }
        for disturbance in &mut self.disturbances {
            let near = |hint: &&Evidence| disturbance.is_near(hint.instance, &self.calls);
            let hints: Vec<Evidence> = hints.iter().filter(near).copied().collect();
            disturbance.add_hints(&hints, at);
        }
        let mut position = 0;
        let (names, operations) = (&self.names, &mut self.operations);
        self.disturbances.retain_mut(|disturbance| {
            let deviates = is_open.get(position).copied().unwrap_or(false);
            position += 1;
            let ends = !deviates && disturbance.is_over();
            if deviates || ends {
                stories.extend(emit(disturbance, ends, graph, names));
            }
            for evidence in disturbance.evidence().iter().filter(|_| ends) {
                let key = (evidence.instance, evidence.operation);
                operations.get_mut(&key).into_iter().for_each(|operation| operation.settle(at));
            }
            !ends
        });
    }

    /// Processes the facts of a replay, in any order, and ends all disturbances.
    pub(crate) fn replay(&mut self, mut facts: Vec<ServiceFact>) -> Vec<Story> {
        facts.sort_by_key(ServiceFact::order);
        let (mut stories, mut now_ns) = (Vec::new(), 0);
        for fact in facts {
            let (time_ns, _) = fact.order();
            if time_ns >= now_ns + 1_000_000_000 {
                now_ns = time_ns;
                stories.extend(self.advance(now_ns));
            }
            self.add(fact);
        }
        let last_ns = now_ns + 2 * HOLD_NS + 2 * STEP_NS;
        stories.extend(self.finish(last_ns));
        stories.retain(|story| story.state.is_end());
        stories
    }

    /// Ends all disturbances.
    pub(crate) fn finish(&mut self, now_ns: u64) -> Vec<Story> {
        let mut stories = self.advance(now_ns);
        let failing = self.failing_calls(&[]);
        let (calls, connections) = (&self.calls, self.connections.edges());
        let graph = CallGraph { calls, connections, failing: &failing };
        let names = &self.names;
        for mut disturbance in std::mem::take(&mut self.disturbances) {
            stories.extend(emit(&mut disturbance, true, graph, names));
        }
        stories
    }
}

/// The key that all instances of a service have.
fn service_of(names: &Names, service_keys: &HashMap<String, Key>, instance: Key) -> Key {
    let names = names.instances.get(&instance);
    names.and_then(|names| service_keys.get(&names.service)).copied().unwrap_or(instance)
}

/// The story of a disturbance, if it differs from what was emitted, or ends.
fn emit(
    disturbance: &mut Disturbance,
    ends: bool,
    graph: CallGraph<'_>,
    names: &Names,
) -> Option<Story> {
    let mut suspects = suspects(&disturbance.evidence(), graph);
    let ranking: Vec<Key> = suspects.iter().map(|suspect| suspect.instance).collect();
    if !ends && ranking == disturbance.emitted {
        return None;
    }
    let state = match (ends, disturbance.emitted.is_empty()) {
        (true, _) => StoryState::Closed,
        (false, true) => StoryState::Opened,
        (false, false) => StoryState::Updated,
    };
    add_hints(&mut suspects, disturbance.hints());
    let story = story(disturbance, state, &suspects, graph.calls, names);
    disturbance.revision += 1;
    disturbance.emitted = ranking;
    Some(story)
}
