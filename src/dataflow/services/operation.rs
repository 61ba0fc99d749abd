//! An operation of an instance: what happens in its runs, and how long they take. The connections
//! to another instance are operations, too (`pairs.rs`).

use std::collections::BTreeMap;

use rkyv::{Archive, Deserialize, Serialize};

use super::deviation::{Deviation, Fault, Feature};
use super::duration::{DurationDeviation, Durations, MIN_RECENT};
use super::fact::{Key, LogFact};
use super::share::{Runs, Share, ShareDeviation};
use super::span_join::Joined;
use super::step::{Learning, SLOTS, SPANS, step};
use tapio_core::event::{EventId, Severity};

/// Shares of an operation; further ones are left out.
const MAX_SHARES: usize = 96;
/// Callees of an operation whose durations are kept.
const MAX_PEERS: usize = 16;
/// The deviation of a short span of time in which a stronger one goes on.
const LASTING_Z: f64 = 1.0;
/// Steps of a disturbance after which a change is taken for a new way of working: as many as were
/// learned before, within these bounds (3 and 30 minutes).
const MIN_PATIENCE_STEPS: u32 = 18;
const MAX_PATIENCE_STEPS: u32 = 180;
/// Steps after which the past counts half, while a new way of working is learned: ten minutes.
const RENEWAL_STEPS: u32 = 60;
/// Runs that are expected of an operation that has stopped, and the part of them that remain.
const MIN_STOPPED_RUNS: f64 = 5.0;
const STOPPED_PART: f64 = 0.25;
/// The least change of a share of runs, where no error is involved.
const MIN_CHANGE: f64 = 0.15;
/// The least change of a share of connections, and of how often segments are sent again in one.
const MIN_FAULT_CHANGE: f64 = 0.05;
const MIN_RETRANSMITS_CHANGE: f64 = 0.2;
/// Steps that have a fault of connections which lasts, at least: those of the short span that have
/// runs. A restart of the callee takes a moment.
const MIN_FAULT_STEPS: usize = 2;
/// The least factor by which the number of times in a run changes.
const MIN_TIMES_CHANGE: f64 = 1.5;

#[derive(Clone, Debug, Default, Archive, Serialize, Deserialize)]
struct Learned<T> {
    value: T,
    /// How often it happened in the spans of time that are being learned, each of [`SPANS`].
    spans: [f64; SPANS.len()],
    /// The worst severity of its log records.
    severity: Severity,
    example: (u64, EventId),
}

impl Learned<Share> {
    /// Whether it is an error by itself, in whatever release and however long the instance runs.
    fn is_failure(&self, feature: Feature) -> bool {
        let is_log = matches!(feature, Feature::Logs(_));
        feature == Feature::Failed || (is_log && self.severity >= Severity::ERROR)
    }

    /// Whether a deviation matters: fewer errors than usual are no disturbance, and of what is
    /// neither an error nor a warning a small change isn't.
    fn matters(&self, feature: Feature, found: &ShareDeviation) -> bool {
        let is_error = feature == Feature::Failed || self.severity >= Severity::WARN;
        let change = found.now - found.usual;
        match feature {
            Feature::Connection(Fault::Retransmitted, _) => {
                return change >= MIN_RETRANSMITS_CHANGE;
            }
            Feature::Connection(..) => return change >= MIN_FAULT_CHANGE,
            _ => {}
        }
        if is_error {
            return change > 0.0;
        }
        let (least, most) = (found.now.min(found.usual), found.now.max(found.usual));
        change.abs() >= MIN_CHANGE && (most <= 1.0 || most >= MIN_TIMES_CHANGE * least)
    }
}

/// An operation. Its features are boxed, since a node of a map has room for eleven.
#[derive(Debug, Default, Archive, Serialize, Deserialize)]
pub(super) struct Operation {
    runs: Runs,
    runs_spans: [f64; SPANS.len()],
    shares: BTreeMap<Feature, Box<Learned<Share>>>,
    durations: BTreeMap<Feature, Box<Learned<Durations>>>,
    first_step: u32,
    last_step: u32,
    /// The first and the last step of the latest disturbance.
    disturbed_from: u32,
    disturbed_until: u32,
    /// The step in which the latest disturbance was over: what was before isn't seen again.
    settled: u32,
    /// The first and the last step that deviated lately, whether that is a disturbance or not.
    deviates_from: u32,
    deviates_until: u32,
    /// The first step of its own, while its past is an elder's.
    heir_since: Option<u32>,
    example: (u64, EventId),
}

impl Operation {
    /// Adds a complete span. `service_of`: the instances of one service have one key as callees.
    /// `room`: features that may be added; it is reduced by those that are.
    pub(super) fn add(
        &mut self,
        joined: &Joined,
        room: &mut usize,
        service_of: impl Fn(Key) -> Key,
    ) {
        let Some(span) = &joined.span else { return };
        let end_ns = span.start_ns.saturating_add(span.duration_ns);
        let at = step(end_ns);
        self.run(at);
        let example = (end_ns, span.event);
        self.example = self.example.max(example);
        for ((instance, operation), times) in &joined.callees {
            let service = if *instance == span.instance { 0 } else { service_of(*instance) };
            let calls = Feature::Calls(service, *operation);
            self.share(calls, *times, (at, example), Severity(0), room);
        }
        for (log, times) in &joined.templates {
            let example = (end_ns, log.event);
            self.share(Feature::Logs(log.template), *times, (at, example), log.severity, room);
        }
        if span.has_failed {
            self.share(Feature::Failed, 1, (at, example), Severity(0), room);
        }
        let own_ns = span.duration_ns.saturating_sub(joined.callees_ns);
        let peer = joined.callees.iter().find(|((instance, _), _)| *instance != span.instance);
        let feature = match peer {
            Some(((instance, _), _)) if !span.is_work => Feature::CallTime(*instance),
            _ => Feature::OwnTime,
        };
        self.add_duration(feature, own_ns, (at, example), room);
    }

    /// Adds how long something took, in ns.
    pub(super) fn add_duration(
        &mut self,
        feature: Feature,
        duration_ns: u64,
        (at, example): (u32, (u64, EventId)),
        room: &mut usize,
    ) {
        let is_known = self.durations.contains_key(&feature);
        if is_known || (self.durations.len() < MAX_PEERS && *room > 0) {
            *room -= usize::from(!is_known);
            let learned = self.durations.entry(feature).or_default();
            // A slow run is the better example, unless that was a while ago.
            let is_slow = learned.value.add(at, duration_ns);
            if is_slow || at > step(learned.example.0) + 1 {
                learned.example = learned.example.max(example);
            }
        }
    }

    /// Adds a fault of a connection; its run is counted by [`Operation::add_runs`].
    pub(super) fn add_fault(
        &mut self,
        feature: Feature,
        at: (u32, (u64, EventId)),
        room: &mut usize,
    ) {
        self.share(feature, 1, at, Severity::WARN, room);
    }

    /// Adds a log record that belongs to no span: its run.
    pub(super) fn add_log(&mut self, log: &LogFact, room: &mut usize) {
        let at = step(log.time_ns);
        self.run(at);
        let example = (log.time_ns, log.event);
        self.share(Feature::Logs(log.template), 1, (at, example), log.severity, room);
    }

    fn run(&mut self, at: u32) {
        self.add_runs(at, 1);
    }

    /// Counts runs of a step.
    pub(super) fn add_runs(&mut self, at: u32, runs: u16) {
        if self.first_step == 0 {
            self.first_step = at;
        }
        self.last_step = self.last_step.max(at);
        self.runs.recent.add(at, runs);
    }

    fn share(
        &mut self,
        feature: Feature,
        times: u16,
        (at, example): (u32, (u64, EventId)),
        severity: Severity,
        room: &mut usize,
    ) {
        let is_known = self.shares.contains_key(&feature);
        if is_known || (self.shares.len() < MAX_SHARES && *room > 0) {
            *room -= usize::from(!is_known);
            let learned = self.shares.entry(feature).or_default();
            learned.value.recent.add(at, times);
            learned.severity = learned.severity.max(severity);
            learned.example = learned.example.max(example);
        }
    }

    /// How a step is learned.
    fn learning(&self, step: u32) -> Learning {
        if step < self.disturbed_from || step > self.disturbed_until {
            return Learning::Usual;
        }
        let past = self.disturbed_from.saturating_sub(self.first_step);
        let patience = past.clamp(MIN_PATIENCE_STEPS, MAX_PATIENCE_STEPS);
        if step - self.disturbed_from < patience { Learning::None } else { Learning::Renewal }
    }

    /// Learns the oldest step, whose slot the step `next` takes.
    pub(super) fn learn(&mut self, next: u32) {
        let oldest = next.saturating_sub(SLOTS as u32);
        let learning = self.learning(oldest);
        if learning != Learning::None {
            self.come_of_age(oldest);
        }
        let runs = f64::from(self.runs.recent.take(next));
        self.runs_spans.iter_mut().for_each(|span| *span += runs);
        for learned in self.shares.values_mut() {
            let happened = f64::from(learned.value.recent.take(next));
            learned.spans.iter_mut().for_each(|span| *span += happened);
            for (number, steps) in SPANS.into_iter().enumerate() {
                if next.is_multiple_of(steps as u32) {
                    let happened = std::mem::take(&mut learned.spans[number]);
                    let counts = (happened, self.runs_spans[number]);
                    learned.value.span(number, counts, self.runs.past, learning);
                }
            }
            if learning != Learning::None {
                learned.value.learn(happened);
            }
        }
        let renews = learning == Learning::Renewal && oldest.is_multiple_of(RENEWAL_STEPS);
        for learned in self.durations.values_mut() {
            learned.value.learn(next, learning);
            if renews {
                learned.value.halve();
            }
        }
        for (number, steps) in SPANS.into_iter().enumerate() {
            if next.is_multiple_of(steps as u32) {
                self.runs_spans[number] = 0.0;
            }
        }
        let is_heavy = learning != Learning::None && self.runs.learn(runs);
        if is_heavy || renews {
            self.runs.halve();
            self.shares.values_mut().for_each(|learned| learned.value.halve());
        }
        self.shares.retain(|_, learned| !learned.value.is_forgotten());
        self.durations.retain(|_, learned| !learned.value.is_forgotten());
    }

    /// Learns all recent steps, from the step `next` on: what follows comes after a pause.
    pub(super) fn learn_recent(&mut self, next: u32) {
        (next..next + SLOTS as u32).for_each(|step| self.learn(step));
    }

    /// The runs that were learned.
    pub(super) fn past_runs(&self) -> f64 {
        if self.heir_since.is_some() { 0.0 } else { self.runs.past }
    }

    /// The number of its features that an heir has.
    pub(super) fn failures(&self) -> usize {
        self.shares.iter().filter(|(feature, learned)| learned.is_failure(**feature)).count()
    }

    /// An operation that has run elsewhere until now, as of the step `since`: it has the past of
    /// this one's failures, until it has one of its own.
    pub(super) fn heir(&self, since: u32) -> Self {
        let failures = self.shares.iter().filter(|(of, learned)| learned.is_failure(**of));
        let shares = failures.map(|(feature, learned)| {
            let (value, severity) = (learned.value.past_only(), learned.severity);
            (*feature, Box::new(Learned { value, severity, ..Learned::default() }))
        });
        Self {
            runs: self.runs.past_only(),
            shares: shares.collect(),
            first_step: self.first_step,
            heir_since: Some(since),
            ..Self::default()
        }
    }

    /// Leaves an elder's past, once a step of its own is learned.
    fn come_of_age(&mut self, learned: u32) {
        if self.heir_since.is_some_and(|since| learned >= since) {
            self.heir_since = None;
            self.first_step = learned;
            self.runs.forget_past();
            self.shares.values_mut().for_each(|share| share.value.forget_past());
        }
    }

    /// The number of its features.
    pub(super) fn features(&self) -> usize {
        self.shares.len() + self.durations.len()
    }

    /// The operations that it calls: services' keys, 0 for its own instance, and operations.
    pub(super) fn callees(&self) -> impl Iterator<Item = (Key, Key)> {
        self.shares.keys().filter_map(|feature| match feature {
            Feature::Calls(service, operation) => Some((*service, *operation)),
            _ => None,
        })
    }

    /// Steps since its last run.
    pub(super) fn idle_steps(&self, now: u32) -> u32 {
        now.saturating_sub(self.last_step)
    }

    /// Whether it had several runs in each span of time until lately, and hardly any in the last.
    pub(super) fn has_stopped(&self, last: u32) -> bool {
        let [short, long] = SPANS;
        let before = self.runs.recent.sum(last.saturating_sub(short as u32), long - short);
        let expected = before * short as f64 / (long - short) as f64;
        let runs = self.runs.recent.sum(last, short);
        expected >= MIN_STOPPED_RUNS && runs <= STOPPED_PART * expected
    }

    /// The features that deviate in the steps up to `last`, by at least `min_z`.
    pub(super) fn deviations(&self, last: u32, min_z: f64, mut take: impl FnMut(Deviation)) {
        if last.saturating_sub(self.last_step) >= SPANS[1] as u32 {
            return;
        }
        let since = last.saturating_sub(self.settled) as usize;
        let steps = SPANS.map(|steps| steps.min(since));
        let deviates = last.saturating_sub(self.deviates_until) <= SPANS[0] as u32;
        let before = if deviates { self.deviates_from } else { u32::MAX };
        for (feature, learned) in &self.shares {
            let [short, long] = [0, 1]
                .map(|span| learned.value.deviation(&self.runs, last, (span, steps[span]), before));
            let of = |found: &Option<ShareDeviation>| found.map_or(0.0, |found| found.z.abs());
            let strongest = if of(&short) > of(&long) { short } else { long };
            let counts = self.heir_since.is_none() || learned.is_failure(*feature);
            let matters = |found: &ShareDeviation| {
                counts && found.z.abs() >= min_z && learned.matters(*feature, found)
            };
            if let Some(found) = strongest.filter(matters) {
                // What is missing has no example of its own.
                let example = if found.z > 0.0 { learned.example } else { self.example };
                let lasts = short.is_none_or(|short| short.z * found.z.signum() >= LASTING_Z);
                let (z, usual, now) = (found.z.abs(), found.usual, found.now);
                let least = self.runs.recent.steps(last, SPANS[0]).max(MIN_FAULT_STEPS);
                let is_moment = matches!(feature, Feature::Connection(..))
                    && learned.value.recent.steps(last, SPANS[0]) < least;
                let lasts = lasts
                    && !is_moment
                    && is_fresh(example, last)
                    && !learned.value.is_over(&self.runs, last, &found);
                let severity = learned.severity;
                let (feature, slowness) = (*feature, None);
                take(Deviation { feature, z, usual, now, severity, lasts, example, slowness });
            }
        }
        for (feature, learned) in &self.durations {
            let [short, long] =
                [0, 1].map(|span| learned.value.deviation(last, (span, steps[span]), before));
            // That a call is quicker says nothing.
            let matters = |found: &DurationDeviation| {
                *feature == Feature::OwnTime || found.now_ns > found.usual_ns
            };
            let [short, long] = [short, long].map(|found| found.filter(matters));
            let of = |found: &Option<DurationDeviation>| found.map_or(0.0, |found| found.z);
            let strongest = if of(&short) > of(&long) { short } else { long };
            if let Some(found) = strongest.filter(|found| found.z >= min_z) {
                let (z, usual, now) = (found.z, found.usual_ns, found.now_ns);
                let (severity, example) = (learned.severity, learned.example);
                let has_few = learned.value.samples(last, SPANS[0]) < MIN_RECENT;
                let lasts = (has_few || of(&short) >= LASTING_Z)
                    && is_fresh(example, last)
                    && !learned.value.is_over(last, &found);
                let (feature, slowness) = (*feature, found.slowness);
                take(Deviation { feature, z, usual, now, severity, lasts, example, slowness });
            }
        }
    }

    /// Notes that the steps up to `last` deviate: a short past doesn't grow by them.
    pub(super) fn suspect(&mut self, last: u32) {
        if last.saturating_sub(self.deviates_until) > SPANS[0] as u32 {
            self.deviates_from = (last + 1).saturating_sub(SPANS[0] as u32);
        }
        self.deviates_until = last;
    }

    /// Notes that the steps up to `last` belong to a disturbance: they aren't learned, so that the
    /// end of a fault isn't another deviation. One that lasts becomes the usual way of working.
    pub(super) fn disturb(&mut self, last: u32) {
        if last.saturating_sub(self.disturbed_until) > SPANS[1] as u32 {
            self.disturbed_from = (last + 1).saturating_sub(SPANS[0] as u32);
        }
        self.disturbed_until = last;
    }

    /// Notes that its disturbance is over.
    pub(super) fn settle(&mut self, at: u32) {
        self.settled = at;
    }
}

/// Whether an example is of the last steps.
fn is_fresh((example_ns, _): (u64, EventId), last: u32) -> bool {
    last.saturating_sub(step(example_ns)) <= SPANS[0] as u32
}
