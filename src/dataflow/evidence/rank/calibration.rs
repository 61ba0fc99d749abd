//! Calibration of the default weights: a generator of stories with a known cause, to which the
//! weights are fitted by the regression in `calibrate.rs`.
//!
//! The weights reflect the generator's assumptions. Effects follow a cause after delays of any
//! order of magnitude. Effects are as severe as causes and burst almost as much, so severity and
//! bursts distinguish a cause from bystanders rather than from its effects. An effect depends on
//! its cause in 60 % of the cases, a cause on a bystander in 40 %. 30 % of the clocks tick once a
//! second. Authors name the cause in half of their rules and something else in 10 %. Operators fit
//! the weights to their own stories by the same regression (`tapio evidence calibrate`).

use super::super::assessor::Assessor;
use super::super::baseline::{BUCKET_NS, BucketCount, bucket};
use super::super::bounds::Bounds;
use super::super::calibrate::{Comparison, Label, LabelledStory, fit};
use super::super::entity::{Entity, EntityKind};
use super::super::message::{EvidenceKind, EvidenceMessage, TemplateLift};
use super::super::pairs::{HomeKind, PairKey, epoch};
use super::super::pending_story::{ImpactSpec, NamedCause, Observation, PendingStory};
use super::super::random::Random;
use super::super::relation::{Edge, Relation};
use super::super::second_set::second;
use super::super::store::EvidenceStore;
use super::super::weights::{LiveWeights, TERMS, Weights};
use tapio_core::event::{Candidate, EventId, Name, Severity, Story, StoryState, TraceId};

const S: u64 = 1_000_000_000;
const BEGIN_NS: u64 = 1_700_000_000 * S;
const WITHIN_NS: u64 = 120 * S;
const KINDS: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Cause,
    Effect,
    Bystander,
}

fn kind(n: usize) -> Name {
    Name::intern(&format!("calibration.k{}", n % KINDS)).unwrap()
}

struct GeneratedStory {
    store: EvidenceStore,
    pending: PendingStory,
    cause: EventId,
}

/// Generates one story.
fn story(seed: u64) -> GeneratedStory {
    let mut random = Random::new(seed);
    let mut store = EvidenceStore::new(Bounds::REPLAY);
    let mut parts = vec![Part::Cause];
    parts.extend((0..2 + (random.next() * 3.0) as usize).map(|_| Part::Effect));
    parts.extend((0..(random.next() * 3.0) as usize).map(|_| Part::Bystander));
    let mut observations: Vec<Observation> = Vec::new();
    let mut at_ns = BEGIN_NS + 40 * S;
    let first_kind = (random.next() * KINDS as f64) as usize;
    for (n, part) in parts.iter().enumerate() {
        let time_ns = match part {
            Part::Cause => at_ns,
            Part::Effect => {
                at_ns += random.between(2e6f64.ln(), 40e9f64.ln()).exp() as u64;
                at_ns
            }
            Part::Bystander => BEGIN_NS + (random.between(10.0, 100.0) * 1e9) as u64,
        };
        observations.push(observation(&mut random, n, *part, time_ns, kind(first_kind + n)));
    }
    for (n, part) in parts.iter().enumerate() {
        observe(&mut random, &mut store, &observations[n], *part);
    }
    relate(&mut random, &mut store, &observations, &parts);
    let named = named(&mut random, &observations, &parts);
    let cause = observations[0].evidence[0];
    observations.sort_by_key(|s| s.first_ns);
    // The indexes of the author's causes follow the sort.
    let named = named.into_iter().map(|(id, mut named): (EventId, NamedCause)| {
        named.observation = observations.iter().position(|s| s.evidence[0] == id);
        named
    });
    GeneratedStory { pending: pending_story(observations.clone(), named.collect()), store, cause }
}

fn observation(random: &mut Random, n: usize, part: Part, time_ns: u64, kind: Name) -> Observation {
    let tick_ns = if random.chance(0.3) { S } else { 1_000 };
    let time_ns = time_ns / tick_ns * tick_ns;
    let worst = random.pick(match part {
        Part::Cause => &[
            (0.10, Severity::INFO),
            (0.25, Severity::WARN),
            (0.45, Severity::ERROR),
            (0.2, Severity::FATAL),
        ],
        Part::Effect => &[
            (0.05, Severity::INFO),
            (0.25, Severity::WARN),
            (0.5, Severity::ERROR),
            (0.2, Severity::FATAL),
        ],
        Part::Bystander => {
            &[(0.5, Severity::INFO), (0.35, Severity::WARN), (0.15, Severity::ERROR)]
        }
    });
    let effect_probability = match part {
        Part::Cause => 0.05,
        Part::Effect => 0.6,
        Part::Bystander => 0.1,
    };
    Observation {
        entity: Entity::new(EntityKind::Unit, &format!("h/{n}.service")),
        kind,
        first_ns: time_ns,
        last_ns: time_ns,
        tick_ns,
        worst,
        is_effect: random.chance(effect_probability),
        summary: String::new(),
        evidence: vec![EventId([n as u8 + 1; 16])],
        labels: vec![String::new()],
    }
}

/// Adds the usual counts before, and the unusual ones now.
fn observe(random: &mut Random, store: &mut EvidenceStore, observation: &Observation, part: Part) {
    let usual = [0.0, 0.0, 1.0, 3.0][(random.next() * 4.0) as usize];
    let now = bucket(observation.first_ns);
    let tally = |bucket: u32, count: f64| BucketCount {
        bucket,
        count: count.round().max(1.0) as u32,
        worst: Severity::INFO,
        first_ns: u64::from(bucket) * BUCKET_NS,
    };
    let other = Name::intern("calibration.other").unwrap();
    store.baselines.add(&observation.entity, other, tally(now - 30, 1.0));
    for before in 1..30 {
        let count = random.normal(usual, usual.sqrt());
        if count >= 0.5 {
            store.baselines.add(&observation.entity, observation.kind, tally(now - before, count));
        }
    }
    let (bursts, max, lifts, mean) = match part {
        Part::Cause => (0.6, 30.0, 0.5, 2.5),
        Part::Effect => (0.5, 20.0, 0.4, 1.5),
        Part::Bystander => (0.1, 5.0, 0.4, 0.0),
    };
    let burst = if random.chance(bursts) { random.between(2.0, max) } else { 0.0 };
    let mut now = tally(now, usual + burst);
    (now.first_ns, now.worst) = (observation.first_ns, observation.worst);
    store.baselines.add(&observation.entity, observation.kind, now);
    if random.chance(lifts) {
        store.add_lift(TemplateLift {
            entity: observation.entity.clone(),
            kind: observation.kind,
            time_ns: observation.first_ns,
            template: "t".into(),
            recent: 1,
            log_lift: random.normal(mean, 1.0),
        });
    }
}

/// Adds dependencies and learned pairs.
fn relate(
    random: &mut Random,
    store: &mut EvidenceStore,
    observations: &[Observation],
    parts: &[Part],
) {
    let hour = epoch(BEGIN_NS);
    store.pairs.add_observed_time(HomeKind::Unit, hour, 60_000_000);
    for (a, first) in observations.iter().enumerate() {
        store.pairs.add_kind(HomeKind::Unit, first.kind, hour, 30);
        for (b, then) in
            observations.iter().enumerate().filter(|(_, s)| s.first_ns > first.first_ns)
        {
            let (probability, max) = match (parts[a], parts[b]) {
                (Part::Cause, Part::Effect) => (0.5, 30.0),
                (Part::Effect, Part::Effect) => (0.4, 15.0),
                _ => (0.3, 5.0),
            };
            if random.chance(probability) {
                let key = PairKey { home: HomeKind::Unit, before: first.kind, after: then.kind };
                let octave = (random.between(0.0, 16.0)) as usize;
                store.pairs.add(key, octave, hour, random.between(2.0, max) as u32);
            }
        }
    }
    let mut depend = |from: usize, to: usize| {
        let edge = Edge {
            from: observations[from].entity.clone(),
            relation: Relation::TalksTo,
            to: observations[to].entity.clone(),
        };
        store.graph.add_edge(&edge, second(BEGIN_NS) - 10);
    };
    for (n, part) in parts.iter().enumerate().skip(1) {
        if *part == Part::Effect && random.chance(0.6) {
            depend(n, 0);
        }
        // A bystander that the cause depends on, with or without a fault of its own.
        if *part == Part::Bystander && random.chance(0.4) {
            depend(0, n);
        }
    }
}

fn named(
    random: &mut Random,
    observations: &[Observation],
    parts: &[Part],
) -> Vec<(EventId, NamedCause)> {
    let mut out = Vec::new();
    let one = |n: usize| {
        let observation: &Observation = &observations[n];
        let named = NamedCause {
            text: format!("named {n}"),
            observation: None,
            evidence: observation.evidence.clone(),
            labels: observation.labels.clone(),
            behind: 0,
        };
        (observation.evidence[0], named)
    };
    if random.chance(0.5) {
        out.push(one(0));
    }
    if random.chance(0.1) {
        out.push(one(1 + (random.next() * (parts.len() - 1) as f64) as usize));
    }
    out
}

fn pending_story(observations: Vec<Observation>, named: Vec<NamedCause>) -> PendingStory {
    let first_ns = observations.iter().map(|s| s.first_ns).min().unwrap_or(0);
    let last_ns = observations.iter().map(|s| s.last_ns).max().unwrap_or(0);
    let story = Story {
        id: TraceId([1; 16]),
        trace_id: TraceId([1; 16]),
        state: StoryState::Closed,
        members_total: observations.len() as u64,
        first_ns,
        last_ns,
        severity: Severity::ERROR,
        confidence: 1.0,
        ..Story::default()
    };
    PendingStory {
        story,
        affected: Vec::new(),
        observations,
        named,
        any_cause: true,
        within_ns: WITHIN_NS,
        impact_spec: ImpactSpec::AUTO,
        failed_connections: 0,
        failed_for_others: 0,
    }
}

/// Strength of the pull to zero in the fit, for each comparison.
const PULL: f64 = 1e-3;

/// A generated story with the evidence of its candidates; `None` if its cause isn't one of them.
fn labelled(seed: u64) -> Option<LabelledStory> {
    let generated = story(seed);
    let ranked = generated.store.rank(&generated.pending, &Weights::DEFAULT);
    let cause = ranked.iter().position(|c| c.evidence[0] == generated.cause)?;
    let value = |candidate: &Candidate, name: &str| {
        let term = candidate.terms.iter().find(|term| term.name == name);
        term.map_or(0.0, |term| term.value)
    };
    let candidates = ranked.iter().map(|candidate| TERMS.map(|name| value(candidate, name)));
    Some(LabelledStory { candidates: candidates.collect(), label: Label::Cause(cause) })
}

#[test]
fn weights_equal_the_fit_to_generated_stories() {
    let stories: Vec<LabelledStory> = (0..600).filter_map(labelled).collect();
    let comparisons: Vec<Comparison> =
        stories.iter().flat_map(LabelledStory::comparisons).collect();
    let pull = [PULL * comparisons.len() as f64; TERMS.len()];
    let fitted = fit(&comparisons, &Weights::from_values([0.0; TERMS.len()]), pull);
    let in_use = Weights::DEFAULT.values().into_iter().zip(fitted.values());
    let comparison: Vec<String> = TERMS
        .iter()
        .zip(in_use.clone())
        .map(|(name, (weight, fitted))| format!("{name}: {weight} in use, {fitted:.3} fitted"))
        .collect();
    let all = comparison.join("\n");
    for (name, (weight, fitted)) in TERMS.iter().zip(in_use) {
        assert!((weight - fitted).abs() <= 0.15, "{name} of\n{all}");
    }
}

#[test]
fn causes_of_other_stories_are_ranked_first() {
    let is_first = |seed| labelled(seed).is_some_and(|story| story.label == Label::Cause(0));
    let first = (10_000..10_300).filter(|seed| is_first(*seed)).count();
    // By chance it would be 75 to 100: a story has three to seven candidates.
    assert!(first >= 225, "{first} of 300");
}

#[test]
fn replaced_weights_rank_the_next_story() {
    let weights = LiveWeights::default();
    let mut assessor = Assessor::new(Bounds::REPLAY).with_weights(weights.clone());
    let mut severity = || {
        let message = EvidenceMessage(EvidenceKind::Story(Box::new(story(1).pending)));
        let story = assessor.process(message).unwrap();
        let terms = story.root_cause.into_iter().flat_map(|cause| cause.terms);
        let terms = terms.filter(|term| term.name == "severity" && term.value > 0.0);
        terms.map(|term| term.weight / term.value).next().unwrap()
    };
    assert_eq!(severity(), Weights::DEFAULT.severity);
    weights.set(Weights { severity: 3.0, ..Weights::DEFAULT });
    assert_eq!(severity(), 3.0);
}
