//! Ranks the candidates for a story's root cause by a sum of log-odds terms. The output has each
//! term; a term without evidence is omitted.

use super::baseline::Deviation;
use super::entity::Entity;
use super::pending_story::{NamedCause, Observation, PendingStory};
use super::second_set::second;
use super::store::EvidenceStore;
use super::weights::Weights;
use tapio_core::event::{Candidate, CauseEntity, EventId, Name, Severity, Term, fault_lifecycle};

/// Maximum number of candidates in a story.
const MAX_CANDIDATES: usize = 8;
/// Steps within which a fault of a dependency lowers the score of its dependents.
const UPSTREAM_STEPS: u32 = 3;
/// Maximum age of a dependency's fault when the story begins.
const UPSTREAM_LOOK_BACK_NS: u64 = 300_000_000_000;
/// Minimum slack between times of two sources: the precision of scheduling.
const MIN_SLACK_NS: u64 = 1_000_000;
/// Minimum support of a pair that counts.
const MIN_SUPPORT: f64 = 3.0;
/// Odds between neighbours in the author's list.
const ODDS_PER_RANK: f64 = 4.0;
/// Maximum logarithm of a lift: a kind with a hundred times its usual rate isn't a less likely
/// cause than one with a thousand times.
const MAX_LOG_LIFT: f64 = 5.0;

/// The terms of a candidate, and the weights in use.
struct Terms<'a> {
    weights: &'a Weights,
    all: Vec<Term>,
}

impl Terms<'_> {
    /// Adds a term. `value`: the evidence in its unit.
    fn add(&mut self, name: &str, weight: f64, value: f64, because: String) {
        // Avoids negative zero in output.
        let weight = weight * value + 0.0;
        self.all.push(Term { name: name.into(), weight, value: value + 0.0, because });
    }

    fn sum(&self) -> f64 {
        self.all.iter().map(|t| t.weight).sum()
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / 1e9)
}

/// Evidence of a deviation. The logarithm keeps one burst from outweighing all other terms.
fn deviation_evidence(deviation: &Deviation) -> f64 {
    deviation.robust_z.max(0.0).ln_1p()
}

fn bounded_lift(log_lift: f64) -> f64 {
    log_lift.clamp(-MAX_LOG_LIFT, MAX_LOG_LIFT)
}

/// Evidence of a severity: one unit for each severity range (four numbers) above info.
fn severity_evidence(severity: Severity) -> f64 {
    (f64::from(severity.0) - f64::from(Severity::INFO.0)) / 4.0
}

/// The octave of a delay in milliseconds, and its width in milliseconds.
fn delay_octave(delay_ns: u64) -> (usize, f64) {
    let octave = (delay_ns / 1_000_000).max(1).ilog2();
    // The lowest octave includes delays below a millisecond.
    (octave as usize, if octave == 0 { 2.0 } else { f64::from(octave).exp2() })
}

impl EvidenceStore {
    /// Ranks the candidates by these weights, the most likely first.
    pub(super) fn rank(&self, pending: &PendingStory, weights: &Weights) -> Vec<Candidate> {
        let mut scored: Vec<Scored> = Vec::new();
        let mut named_observations: Vec<usize> = Vec::new();
        for named in &pending.named {
            let observation = named.observation.and_then(|at| pending.observations.get(at));
            // Several of the author's causes may have the same evidence: each is a candidate.
            named_observations.extend(named.observation);
            let terms = self.terms(weights, pending, observation, Some(named));
            let described = (named.text.clone(), &named.evidence, &named.labels);
            let entity = observation.map(|o| self.graph.cause_entity(&o.entity));
            scored.push(Scored::new(described, entity, terms, true));
        }
        let mut unnamed: Vec<(usize, &Observation)> =
            pending.observations.iter().enumerate().collect();
        unnamed.sort_by_key(|(_, observation)| observation.first_ns);
        for (at, observation) in unnamed {
            if named_observations.contains(&at)
                || !pending.any_cause
                || !could_cause(pending, observation)
            {
                continue;
            }
            let terms = self.terms(weights, pending, Some(observation), None);
            let described =
                (self.cause_text(observation), &observation.evidence, &observation.labels);
            let entity = Some(self.graph.cause_entity(&observation.entity));
            scored.push(Scored::new(described, entity, terms, false));
        }
        // The sort is stable: among equals the author's preferred cause is first, then the earliest
        // observation. Scores are equal if their four decimals in output are.
        scored.sort_by_key(|s| std::cmp::Reverse((s.candidate.score * 10_000.0).round() as i64));
        let mut out: Vec<Scored> = Vec::new();
        for scored in scored {
            if out.len() < MAX_CANDIDATES && !scored.is_redundant(&out) {
                out.push(scored);
            }
        }
        out.into_iter().map(|s| s.candidate).collect()
    }

    fn cause_text(&self, observation: &Observation) -> String {
        let entity = self.graph.describe(&observation.entity);
        if observation.summary.is_empty() {
            format!("{entity}: {}", observation.kind)
        } else {
            format!("{entity}: {}", observation.summary)
        }
    }

    fn terms<'a>(
        &self,
        weights: &'a Weights,
        pending: &PendingStory,
        observation: Option<&Observation>,
        named: Option<&NamedCause>,
    ) -> Terms<'a> {
        let mut terms = Terms { weights, all: Vec::new() };
        if let Some(observation) = observation {
            self.own_terms(pending, observation, &mut terms);
            self.gap_term(pending, observation, &mut terms);
            self.pairs_term(pending, observation, &mut terms);
        }
        let rank = match (named, observation) {
            // A cause that the author names is one rank above those not named, and one more for
            // each cause after it in the list.
            (Some(named), _) => named.behind as f64 + 1.0,
            (None, Some(observation)) if observation.is_effect => -1.0,
            _ => 0.0,
        };
        if rank != 0.0 {
            let because =
                if rank > 0.0 { "named by the rule" } else { "an effect according to the rule" };
            terms.add("rule", weights.rule, rank * ODDS_PER_RANK.ln(), because.into());
        }
        if let Some(observation) = observation {
            self.upstream_term(pending, observation, &mut terms);
        }
        terms
    }

    /// Terms from the candidate's own events: deviation, lift, severity, onset.
    fn own_terms(&self, pending: &PendingStory, observation: &Observation, terms: &mut Terms<'_>) {
        let (entity, kind) = (&observation.entity, observation.kind);
        if let Some(d) =
            self.baselines.deviation(entity, kind, observation.first_ns, observation.last_ns)
        {
            let because = format!(
                "{} in 10 s, median {} (interquartile range {}, {} buckets)",
                d.now, d.median, d.iqr, d.buckets
            );
            terms.add("deviation", terms.weights.deviation, deviation_evidence(&d), because);
        }
        if let Some(lift) =
            self.strongest_lift(entity, kind, observation.first_ns, observation.last_ns)
        {
            let ratio = lift.log_lift.exp();
            let because = format!(
                "\"{}\": {} in the last minute, {ratio:.1} times its usual rate",
                lift.template, lift.recent
            );
            terms.add("lift", terms.weights.lift, bounded_lift(lift.log_lift), because);
        }
        let severity = severity_evidence(observation.worst);
        terms.add("severity", terms.weights.severity, severity, observation.worst.to_string());
        let slack_ns = observation.tick_ns.max(MIN_SLACK_NS);
        let after_ns =
            observation.first_ns.saturating_sub(pending.story.first_ns).saturating_sub(slack_ns);
        // Causes precede effects: the odds fall with the seconds since the first event.
        let value = -(after_ns as f64 / 1e9).ln_1p();
        let because = match after_ns {
            0 => "within the clock slack of the first event".to_owned(),
            ns => format!("{} after the first event", seconds(ns)),
        };
        terms.add("onset", terms.weights.onset, value, because);
    }

    /// Term `edge gap`: how much better the delay to the next observation fits an effect of this
    /// one than an event anywhere in the rule's window. Delays of effects have a uniform prior over
    /// their orders of magnitude, which learned delays of the two kinds update.
    fn gap_term(&self, pending: &PendingStory, observation: &Observation, terms: &mut Terms<'_>) {
        let Some(next) = next_of(pending, observation) else {
            return;
        };
        let slack_ns = observation.tick_ns.max(next.tick_ns).max(MIN_SLACK_NS);
        let delay_ns = (next.first_ns - observation.first_ns).max(slack_ns);
        let window_ms = (pending.within_ns / 1_000_000).max(2) as f64;
        let (octave, width_ms) = delay_octave(delay_ns);
        let learned = self.pairs.delays(observation.kind, next.kind);
        let total: u32 = learned.iter().sum();
        let in_octave = f64::from(learned.get(octave).copied().unwrap_or(0));
        let share = (in_octave + 1.0 / window_ms.log2().max(1.0)) / (f64::from(total) + 1.0);
        let value = (share * window_ms / width_ms).ln();
        let from = if total > 0 { format!(", {total} learned") } else { String::new() };
        let because = format!(
            "{} to {} (window {}{from})",
            seconds(next.first_ns - observation.first_ns),
            next.kind,
            seconds(pending.within_ns)
        );
        terms.add("edge gap", terms.weights.edge_gap, value, because);
    }

    /// Term `pairs`: how much more often than by chance its kind precedes a kind that followed.
    fn pairs_term(&self, pending: &PendingStory, observation: &Observation, terms: &mut Terms<'_>) {
        let later = pending
            .observations
            .iter()
            .filter(|o| o.first_ns >= observation.first_ns && o.kind != observation.kind);
        let pairs = later.filter_map(|o| self.pairs.best(observation.kind, o.kind));
        let best = pairs
            .filter(|l| l.support >= MIN_SUPPORT)
            .max_by(|a, b| a.log_lift().total_cmp(&b.log_lift()));
        if let Some(learned) = best {
            let log_lift = bounded_lift(learned.log_lift());
            let because = format!(
                "{} preceded {} {:.0} times, {:.1} expected by chance",
                observation.kind, learned.key.after, learned.support, learned.chance
            );
            terms.add("pairs", terms.weights.pairs, log_lift, because);
        }
    }

    /// Term `upstream`: a dependency had a fault before. Then that is the better cause, by the
    /// fault's evidence, divided by the number of steps.
    fn upstream_term(
        &self,
        pending: &PendingStory,
        observation: &Observation,
        terms: &mut Terms<'_>,
    ) {
        let slack_ns = observation.tick_ns.max(MIN_SLACK_NS);
        let from_ns = pending.story.first_ns.saturating_sub(UPSTREAM_LOOK_BACK_NS);
        let before_ns = observation.first_ns.saturating_sub(slack_ns);
        let as_of = second(observation.first_ns);
        let mut worst: Option<(f64, u32, &Entity, Name)> = None;
        for (steps, entity) in
            self.graph.reachable(&observation.entity, true, UPSTREAM_STEPS, as_of)
        {
            for (kind, first_ns, severity) in self.faults_between(entity, from_ns, before_ns) {
                let strength = self.fault_evidence(entity, kind, [first_ns, before_ns], severity)
                    / f64::from(steps);
                if strength > worst.map_or(0.0, |w| w.0) {
                    worst = Some((strength, steps, entity, kind));
                }
            }
        }
        if let Some((strength, steps, entity, kind)) = worst {
            let steps = if steps == 1 { "1 step".into() } else { format!("{steps} steps") };
            let because =
                format!("earlier {kind} of {}, {steps} upstream", self.graph.describe(entity));
            terms.add("upstream", terms.weights.upstream, -strength, because);
        }
    }

    /// The entity's events between two times that are evidence of a fault: those without a state,
    /// and those that started a fault which hadn't ended by the second time.
    fn faults_between(
        &self,
        entity: &Entity,
        from_ns: u64,
        before_ns: u64,
    ) -> Vec<(Name, u64, Severity)> {
        let mut faults = self.baselines.between(entity, from_ns, before_ns);
        faults.retain(|(kind, _, _)| !fault_lifecycle::is_fault_transition(*kind));
        faults.extend(self.active_faults.of(entity, from_ns, before_ns));
        faults.sort_unstable_by_key(|(kind, first_ns, _)| (kind.text(), *first_ns));
        faults
    }

    /// Evidence that an entity had a fault: the unweighted sum of the terms that its events would
    /// give a candidate.
    fn fault_evidence(
        &self,
        entity: &Entity,
        kind: Name,
        span_ns: [u64; 2],
        severity: Severity,
    ) -> f64 {
        let [first_ns, before_ns] = span_ns;
        let deviation = self.baselines.deviation(entity, kind, first_ns, first_ns);
        let lift = self.strongest_lift(entity, kind, first_ns, before_ns);
        deviation.map_or(0.0, |d| deviation_evidence(&d))
            + lift.map_or(0.0, |l| bounded_lift(l.log_lift))
            + severity_evidence(severity)
    }
}

/// A candidate with its score, and whether the rule's author names it.
struct Scored {
    candidate: Candidate,
    named: bool,
}

impl Scored {
    fn new(
        (cause, evidence, labels): (String, &Vec<EventId>, &Vec<String>),
        entity: Option<CauseEntity>,
        terms: Terms<'_>,
        named: bool,
    ) -> Self {
        let score = terms.sum();
        let (evidence, labels) = (evidence.clone(), labels.clone());
        let terms = terms.all;
        Self { candidate: Candidate { cause, entity, evidence, labels, score, terms }, named }
    }

    /// Whether better candidates cover it: another cause of the author with the same evidence, or,
    /// for a candidate that the author doesn't name, causes of the author that have all its
    /// evidence. A candidate with any other evidence is a cause of its own.
    fn is_redundant(&self, better: &[Self]) -> bool {
        if better.iter().any(|b| b.candidate.cause == self.candidate.cause) {
            return true;
        }
        let evidence = &self.candidate.evidence;
        let named = || better.iter().filter(|b| b.named).map(|b| &b.candidate.evidence);
        let within = |all: &[EventId], of: &[EventId]| all.iter().all(|id| of.contains(id));
        if evidence.is_empty() {
            // Without evidence there is nothing to compare.
            false
        } else if self.named {
            named().any(|other| within(evidence, other) && within(other, evidence))
        } else {
            evidence.iter().all(|id| named().any(|other| other.contains(id)))
        }
    }
}

/// Whether another observation followed it. The last one, by more than the slack of its clock,
/// caused none of the others.
fn could_cause(pending: &PendingStory, observation: &Observation) -> bool {
    let slack_ns = observation.tick_ns.max(MIN_SLACK_NS);
    let others = pending.observations.iter().filter(|s| !std::ptr::eq(*s, observation));
    let mut others = others.peekable();
    others.peek().is_none()
        || others.any(|s| s.last_ns.saturating_add(slack_ns) >= observation.first_ns)
}

/// The first observation that followed.
fn next_of<'a>(pending: &'a PendingStory, observation: &Observation) -> Option<&'a Observation> {
    let later = pending.observations.iter().filter(|s| {
        !std::ptr::eq(*s, observation)
            && s.first_ns >= observation.first_ns
            && s.kind != observation.kind
    });
    later.min_by_key(|s| s.first_ns)
}

#[cfg(test)]
mod calibration;
