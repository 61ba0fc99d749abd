//! Which of a story's events caused the others: candidates ranked by a sum of log-odds terms, each of
//! them in the output. A term without evidence is left out.

use super::assessor::Evidence;
use super::baseline::Deviation;
use super::draft::{Draft, NamedCause, Source};
use super::entity::Entity;
use super::observer::second;
use tapio_core::event::{Candidate, EventId, Name, Severity, Term, troubles};

/// What a unit of evidence adds to the log-odds of being the cause.
///
/// The signs and the shapes of the terms are models (see each term). The weights are fitted by pairwise
/// logistic regression of the cause against each other candidate, over stories whose cause is known:
/// `calibration.rs` draws them at random, says by which assumptions, and fits again in a test that
/// fails when these lie away from what it finds.
pub(super) struct Weights {
    pub(super) deviation: f64,
    pub(super) lift: f64,
    pub(super) edge_gap: f64,
    pub(super) severity: f64,
    pub(super) onset: f64,
    pub(super) pairs: f64,
    pub(super) rule: f64,
    pub(super) upstream: f64,
}

pub(super) const WEIGHTS: Weights = Weights {
    deviation: 0.4,
    lift: 0.5,
    edge_gap: 0.2,
    severity: 0.2,
    onset: 0.4,
    pairs: 1.05,
    rule: 2.0,
    upstream: 0.55,
};

/// Candidates that are told.
const MAX_CANDIDATES: usize = 8;
/// Steps along which a dependency's trouble excuses its dependents.
const UPSTREAM_STEPS: u32 = 3;
/// How long before a story a dependency's trouble may have begun.
const UPSTREAM_LOOK_BACK_NS: u64 = 300_000_000_000;
/// Times of two sources aren't compared more finely than programs are scheduled.
const LEAST_SLACK_NS: u64 = 1_000_000;
/// Pairs seen more rarely say nothing.
const LEAST_SUPPORT: f64 = 3.0;
/// The odds of one place in the author's list against the next.
const ODDS_OF_A_PLACE: f64 = 4.0;
/// The largest logarithm of a lift that counts: what is a hundred times as frequent as usual isn't
/// less of a cause than what is a thousand times.
const MAX_LOG_LIFT: f64 = 5.0;

struct Terms(Vec<Term>);

impl Terms {
    fn add(&mut self, name: &str, weight: f64, because: String) {
        self.0.push(Term { name: name.into(), weight, because });
    }

    fn sum(&self) -> f64 {
        self.0.iter().map(|t| t.weight).sum()
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / 1e9)
}

/// How unusual a count is: the logarithm keeps one burst from outweighing the rest.
fn unusual(deviation: &Deviation) -> f64 {
    deviation.robust_z.max(0.0).ln_1p()
}

fn bounded(log_lift: f64) -> f64 {
    log_lift.clamp(-MAX_LOG_LIFT, MAX_LOG_LIFT)
}

/// One unit for each severity range (four numbers) above info.
fn severe(severity: Severity) -> f64 {
    (f64::from(severity.0) - f64::from(Severity::INFO.0)) / 4.0
}

/// The octave of a delay in milliseconds, and its width.
fn delay_octave(delay_ns: u64) -> (usize, f64) {
    let octave = (delay_ns / 1_000_000).max(1).ilog2();
    // The lowest one also holds what is below a millisecond.
    (octave as usize, if octave == 0 { 2.0 } else { f64::from(octave).exp2() })
}

impl Evidence {
    /// The candidates, most likely first.
    pub(super) fn rank(&self, draft: &Draft) -> Vec<Candidate> {
        let mut scored: Vec<Scored> = Vec::new();
        let mut told: Vec<usize> = Vec::new();
        for named in &draft.named {
            let source = named.source.and_then(|at| draft.sources.get(at));
            // Several of the author's words may rest on the same events: each is its own candidate.
            told.extend(named.source);
            let terms = self.terms(draft, source, Some(named));
            let words = (named.text.clone(), &named.evidence, &named.labels);
            scored.push(Scored::new(words, terms, true));
        }
        let mut unnamed: Vec<(usize, &Source)> = draft.sources.iter().enumerate().collect();
        unnamed.sort_by_key(|(_, source)| source.first_ns);
        for (at, source) in unnamed {
            if told.contains(&at) || !draft.any_cause || !could_cause(draft, source) {
                continue;
            }
            let terms = self.terms(draft, Some(source), None);
            let words = (self.cause_text(source), &source.evidence, &source.labels);
            scored.push(Scored::new(words, terms, false));
        }
        // Stable: what stands first among equals is the author's favourite, then the earliest. Equal
        // are scores that read the same.
        scored.sort_by_key(|s| std::cmp::Reverse((s.candidate.score * 10_000.0).round() as i64));
        let mut out: Vec<Scored> = Vec::new();
        for scored in scored {
            if out.len() < MAX_CANDIDATES && !scored.repeats(&out) {
                out.push(scored);
            }
        }
        out.into_iter().map(|s| s.candidate).collect()
    }

    fn cause_text(&self, source: &Source) -> String {
        let who = self.graph.text(&source.entity);
        if source.summary.is_empty() {
            format!("{who}: {}", source.kind)
        } else {
            format!("{who}: {}", source.summary)
        }
    }

    fn terms(&self, draft: &Draft, source: Option<&Source>, named: Option<&NamedCause>) -> Terms {
        let mut terms = Terms(Vec::new());
        if let Some(source) = source {
            self.own_terms(draft, source, &mut terms);
            self.gap_term(draft, source, &mut terms);
            self.pairs_term(draft, source, &mut terms);
        }
        let place = match (named, source) {
            // The author names it: better than what nobody names, by one place and one for each
            // cause behind it.
            (Some(named), _) => named.behind as f64 + 1.0,
            (None, Some(source)) if source.is_effect => -1.0,
            _ => 0.0,
        };
        if place != 0.0 {
            let because =
                if place > 0.0 { "named by the rule" } else { "an effect, says the rule" };
            terms.add("rule", WEIGHTS.rule * place * ODDS_OF_A_PLACE.ln(), because.into());
        }
        if let Some(source) = source {
            self.upstream_term(draft, source, &mut terms);
        }
        terms
    }

    /// What the candidate's own events show.
    fn own_terms(&self, draft: &Draft, source: &Source, terms: &mut Terms) {
        let (entity, kind) = (&source.entity, source.kind);
        if let Some(d) = self.baselines.deviation(entity, kind, source.first_ns, source.last_ns) {
            let because = format!(
                "{} in 10 s, usually {} (interquartile range {}, {} buckets)",
                d.now, d.median, d.iqr, d.buckets
            );
            terms.add("deviation", WEIGHTS.deviation * unusual(&d), because);
        }
        if let Some(lift) = self.lift_of(entity, kind, source.first_ns, source.last_ns) {
            let times = lift.log_lift.exp();
            let because = format!(
                "\"{}\" {} times in a minute, {times:.1} times its usual rate",
                lift.template, lift.recent
            );
            terms.add("lift", WEIGHTS.lift * bounded(lift.log_lift), because);
        }
        let severity = WEIGHTS.severity * severe(source.worst);
        terms.add("severity", severity, source.worst.to_string());
        let slack_ns = source.tick_ns.max(LEAST_SLACK_NS);
        let after_ns =
            source.first_ns.saturating_sub(draft.story.first_ns).saturating_sub(slack_ns);
        // Causes come first: the odds fall as the seconds that passed before it.
        let weight = -WEIGHTS.onset * (after_ns as f64 / 1e9).ln_1p();
        let because = match after_ns {
            0 => "the first, within the clocks' slack".to_owned(),
            ns => format!("{} after the first", seconds(ns)),
        };
        // Negative zero would print as such.
        terms.add("onset", if after_ns == 0 { 0.0 } else { weight }, because);
    }

    /// How much better the delay to what followed fits "it followed from this" than "it happened
    /// anywhere in the rule's window". Delays that follow spread evenly over their orders of magnitude,
    /// until something else was learned of these two kinds.
    fn gap_term(&self, draft: &Draft, source: &Source, terms: &mut Terms) {
        let Some(next) = next_of(draft, source) else {
            return;
        };
        let slack_ns = source.tick_ns.max(next.tick_ns).max(LEAST_SLACK_NS);
        let delay_ns = (next.first_ns - source.first_ns).max(slack_ns);
        let window_ms = (draft.within_ns / 1_000_000).max(2) as f64;
        let (octave, width_ms) = delay_octave(delay_ns);
        let learned = self.pairs.delays(source.kind, next.kind);
        let seen: u32 = learned.iter().sum();
        let here = f64::from(learned.get(octave).copied().unwrap_or(0));
        let share = (here + 1.0 / window_ms.log2().max(1.0)) / (f64::from(seen) + 1.0);
        let weight = WEIGHTS.edge_gap * (share * window_ms / width_ms).ln();
        let from = if seen > 0 { format!(", {seen} learned") } else { String::new() };
        let because = format!(
            "{} to {} (window {}{from})",
            seconds(next.first_ns - source.first_ns),
            next.kind,
            seconds(draft.within_ns)
        );
        terms.add("edge gap", weight, because);
    }

    /// How much more often than by chance its kind comes before a kind that followed.
    fn pairs_term(&self, draft: &Draft, source: &Source, terms: &mut Terms) {
        let later =
            draft.sources.iter().filter(|s| s.first_ns >= source.first_ns && s.kind != source.kind);
        let known = later.filter_map(|s| self.pairs.best(source.kind, s.kind));
        let best = known
            .filter(|l| l.support >= LEAST_SUPPORT)
            .max_by(|a, b| a.log_lift().total_cmp(&b.log_lift()));
        if let Some(learned) = best {
            let log_lift = bounded(learned.log_lift());
            let because = format!(
                "{} came before {} {:.0} times, {:.1} by chance",
                source.kind, learned.key.after, learned.support, learned.chance
            );
            terms.add("pairs", WEIGHTS.pairs * log_lift, because);
        }
    }

    /// Something it depends on was in trouble before: then that is the better cause, by as much as
    /// its trouble says, less with each step in between.
    fn upstream_term(&self, draft: &Draft, source: &Source, terms: &mut Terms) {
        let slack_ns = source.tick_ns.max(LEAST_SLACK_NS);
        let from_ns = draft.story.first_ns.saturating_sub(UPSTREAM_LOOK_BACK_NS);
        let before_ns = source.first_ns.saturating_sub(slack_ns);
        let as_of = second(source.first_ns);
        let mut worst: Option<(f64, u32, &Entity, Name)> = None;
        for (steps, entity) in self.graph.reach(&source.entity, true, UPSTREAM_STEPS, as_of) {
            for (kind, first_ns, severity) in self.seen(entity, from_ns, before_ns) {
                let strength =
                    self.trouble(entity, kind, [first_ns, before_ns], severity) / f64::from(steps);
                if strength > worst.map_or(0.0, |w| w.0) {
                    worst = Some((strength, steps, entity, kind));
                }
            }
        }
        if let Some((strength, steps, entity, kind)) = worst {
            let steps = if steps == 1 { "1 step".into() } else { format!("{steps} steps") };
            let because = format!("{kind} of {} before, {steps} upstream", self.graph.text(entity));
            terms.add("upstream", -WEIGHTS.upstream * strength, because);
        }
    }

    /// What an entity's events told between two times that was wrong, as far as nothing has ended it by the
    /// second one.
    fn seen(&self, entity: &Entity, from_ns: u64, before_ns: u64) -> Vec<(Name, u64, Severity)> {
        let mut seen = self.baselines.seen(entity, from_ns, before_ns);
        seen.retain(|(kind, _, _)| !troubles::concerns(*kind));
        seen.extend(self.standing.of(entity, from_ns, before_ns));
        seen.sort_unstable_by_key(|(kind, first_ns, _)| (kind.text(), *first_ns));
        seen
    }

    /// How much an entity's own events say that it was in trouble, in the unweighted units of the terms
    /// they would give a candidate.
    fn trouble(&self, entity: &Entity, kind: Name, span_ns: [u64; 2], severity: Severity) -> f64 {
        let [first_ns, before_ns] = span_ns;
        let deviation = self.baselines.deviation(entity, kind, first_ns, first_ns);
        let lift = self.lift_of(entity, kind, first_ns, before_ns);
        deviation.map_or(0.0, |d| unusual(&d))
            + lift.map_or(0.0, |l| bounded(l.log_lift))
            + severe(severity)
    }
}

/// A candidate, and whether the rule's author names it.
struct Scored {
    candidate: Candidate,
    named: bool,
}

impl Scored {
    fn new(
        (cause, evidence, labels): (String, &Vec<EventId>, &Vec<String>),
        terms: Terms,
        named: bool,
    ) -> Self {
        let score = terms.sum();
        let (evidence, labels) = (evidence.clone(), labels.clone());
        Self { candidate: Candidate { cause, evidence, labels, score, terms: terms.0 }, named }
    }

    /// Whether it says what better ones say: the author's other words for the same events, or, where the
    /// author doesn't name it, nothing but events that the author's words rest on. What rests on
    /// any other event is another cause.
    fn repeats(&self, better: &[Self]) -> bool {
        if better.iter().any(|b| b.candidate.cause == self.candidate.cause) {
            return true;
        }
        let evidence = &self.candidate.evidence;
        let named = || better.iter().filter(|b| b.named).map(|b| &b.candidate.evidence);
        let within = |all: &[EventId], of: &[EventId]| all.iter().all(|id| of.contains(id));
        if evidence.is_empty() {
            // It rests on no event: there is nothing to compare.
            false
        } else if self.named {
            named().any(|other| within(evidence, other) && within(other, evidence))
        } else {
            evidence.iter().all(|id| named().any(|other| other.contains(id)))
        }
    }
}

/// Something must have come of it: what came last, by more than its clock's slack, caused nothing here.
fn could_cause(draft: &Draft, source: &Source) -> bool {
    let slack_ns = source.tick_ns.max(LEAST_SLACK_NS);
    let others = draft.sources.iter().filter(|s| !std::ptr::eq(*s, source));
    let mut others = others.peekable();
    others.peek().is_none() || others.any(|s| s.last_ns.saturating_add(slack_ns) >= source.first_ns)
}

/// What followed first.
fn next_of<'a>(draft: &'a Draft, source: &Source) -> Option<&'a Source> {
    let later = draft.sources.iter().filter(|s| {
        !std::ptr::eq(*s, source) && s.first_ns >= source.first_ns && s.kind != source.kind
    });
    later.min_by_key(|s| s.first_ns)
}
