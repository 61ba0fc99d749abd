//! Where the weights of `rank.rs` come from: stories drawn at random from a generator that knows the
//! cause, and a pairwise logistic regression over their candidates' terms.
//!
//! What the generator assumes is what the weights know: a cause is followed by its effects after delays
//! of any order of magnitude; effects are as severe as causes and burst almost as much, so that
//! severity and bursts tell a cause from bystanders rather than from its effects; effects depend on
//! their cause six times in ten, and a cause on a bystander four times in ten; three clocks in ten tick once a second; authors name the cause in half
//! of their rules and something else in one of ten. Stories of real incidents will replace it as far as
//! they exist: the fit takes any.

use super::assessor::Evidence;
use super::baseline::{BUCKET_NS, Tally, bucket};
use super::draft::{Asked, Draft, Lift, NamedCause, Source};
use super::entity::{Entity, EntityKind};
use super::graph::{Edge, Relation};
use super::observer::{Bounds, second};
use super::pairs::{HomeKind, PairKey, epoch};
use super::rank::WEIGHTS;
use crate::rules::AutoOr;
use tapio_core::event::{EventId, Impact, Name, Severity, Story, StoryState, TraceId};

const S: u64 = 1_000_000_000;
const BEGIN_NS: u64 = 1_700_000_000 * S;
const WITHIN_NS: u64 = 120 * S;
const KINDS: usize = 8;

/// Terms in the order of the fit, with the weight each has in the table.
fn table() -> [(&'static str, f64); 8] {
    [
        ("deviation", WEIGHTS.deviation),
        ("lift", WEIGHTS.lift),
        ("edge gap", WEIGHTS.edge_gap),
        ("severity", WEIGHTS.severity),
        ("onset", WEIGHTS.onset),
        ("pairs", WEIGHTS.pairs),
        ("rule", WEIGHTS.rule),
        ("upstream", WEIGHTS.upstream),
    ]
}

/// SplitMix64: the same stories on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn is(&mut self, chance: f64) -> bool {
        self.next() < chance
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    /// A normal deviate, near enough: the sum of twelve.
    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        mean + deviation * ((0..12).map(|_| self.next()).sum::<f64>() - 6.0)
    }

    fn pick(&mut self, shares: &[(f64, Severity)]) -> Severity {
        let mut at = self.next();
        for (share, severity) in shares {
            at -= share;
            if at < 0.0 {
                return *severity;
            }
        }
        Severity::ERROR
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Cause,
    Effect,
    Bystander,
}

fn kind(n: usize) -> Name {
    Name::intern(&format!("calibration.k{}", n % KINDS)).unwrap()
}

struct Made {
    evidence: Evidence,
    draft: Draft,
    cause: EventId,
}

/// One story.
fn story(seed: u64) -> Made {
    let mut dice = Dice(seed);
    let mut evidence = Evidence::new(Bounds::REPLAY);
    let mut parts = vec![Part::Cause];
    parts.extend((0..2 + (dice.next() * 3.0) as usize).map(|_| Part::Effect));
    parts.extend((0..(dice.next() * 3.0) as usize).map(|_| Part::Bystander));
    let mut sources: Vec<Source> = Vec::new();
    let mut at_ns = BEGIN_NS + 40 * S;
    let first_kind = (dice.next() * KINDS as f64) as usize;
    for (n, part) in parts.iter().enumerate() {
        let time_ns = match part {
            Part::Cause => at_ns,
            Part::Effect => {
                at_ns += dice.between(2e6f64.ln(), 40e9f64.ln()).exp() as u64;
                at_ns
            }
            Part::Bystander => BEGIN_NS + (dice.between(10.0, 100.0) * 1e9) as u64,
        };
        sources.push(source(&mut dice, n, *part, time_ns, kind(first_kind + n)));
    }
    for (n, part) in parts.iter().enumerate() {
        observe(&mut dice, &mut evidence, &sources[n], *part);
    }
    join(&mut dice, &mut evidence, &sources, &parts);
    let named = named(&mut dice, &sources, &parts);
    let cause = sources[0].evidence[0];
    sources.sort_by_key(|s| s.first_ns);
    // The places of the author's causes move with the sources.
    let named = named.into_iter().map(|(id, mut named): (EventId, NamedCause)| {
        named.source = sources.iter().position(|s| s.evidence[0] == id);
        named
    });
    Made { draft: draft(sources.clone(), named.collect()), evidence, cause }
}

fn source(dice: &mut Dice, n: usize, part: Part, time_ns: u64, kind: Name) -> Source {
    let tick_ns = if dice.is(0.3) { S } else { 1_000 };
    let time_ns = time_ns / tick_ns * tick_ns;
    let worst = dice.pick(match part {
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
    let says_effect = match part {
        Part::Cause => 0.05,
        Part::Effect => 0.6,
        Part::Bystander => 0.1,
    };
    Source {
        entity: Entity::new(EntityKind::Unit, &format!("h/{n}.service")),
        kind,
        first_ns: time_ns,
        last_ns: time_ns,
        tick_ns,
        worst,
        is_effect: dice.is(says_effect),
        summary: String::new(),
        evidence: vec![EventId([n as u8 + 1; 16])],
        labels: vec![String::new()],
    }
}

/// What was usual before, and what is unusual now.
fn observe(dice: &mut Dice, evidence: &mut Evidence, source: &Source, part: Part) {
    let usual = [0.0, 0.0, 1.0, 3.0][(dice.next() * 4.0) as usize];
    let now = bucket(source.first_ns);
    let tally = |bucket: u32, count: f64| Tally {
        bucket,
        count: count.round().max(1.0) as u32,
        worst: Severity::INFO,
        first_ns: u64::from(bucket) * BUCKET_NS,
    };
    let other = Name::intern("calibration.other").unwrap();
    evidence.baselines.add(&source.entity, other, tally(now - 30, 1.0));
    for before in 1..30 {
        let count = dice.normal(usual, usual.sqrt());
        if count >= 0.5 {
            evidence.baselines.add(&source.entity, source.kind, tally(now - before, count));
        }
    }
    let (bursts, most, lifts, mean) = match part {
        Part::Cause => (0.6, 30.0, 0.5, 2.5),
        Part::Effect => (0.5, 20.0, 0.4, 1.5),
        Part::Bystander => (0.1, 5.0, 0.4, 0.0),
    };
    let burst = if dice.is(bursts) { dice.between(2.0, most) } else { 0.0 };
    let mut now = tally(now, usual + burst);
    (now.first_ns, now.worst) = (source.first_ns, source.worst);
    evidence.baselines.add(&source.entity, source.kind, now);
    if dice.is(lifts) {
        evidence.lift(Lift {
            entity: source.entity.clone(),
            kind: source.kind,
            time_ns: source.first_ns,
            template: "t".into(),
            recent: 1,
            log_lift: dice.normal(mean, 1.0),
        });
    }
}

/// What depends on what, and what was learned of pairs.
fn join(dice: &mut Dice, evidence: &mut Evidence, sources: &[Source], parts: &[Part]) {
    let hour = epoch(BEGIN_NS);
    evidence.pairs.add_watched(HomeKind::Unit, hour, 60_000_000);
    for (a, first) in sources.iter().enumerate() {
        evidence.pairs.add_kind(HomeKind::Unit, first.kind, hour, 30);
        for (b, then) in sources.iter().enumerate().filter(|(_, s)| s.first_ns > first.first_ns) {
            let (known, most) = match (parts[a], parts[b]) {
                (Part::Cause, Part::Effect) => (0.5, 30.0),
                (Part::Effect, Part::Effect) => (0.4, 15.0),
                _ => (0.3, 5.0),
            };
            if dice.is(known) {
                let key = PairKey { home: HomeKind::Unit, before: first.kind, after: then.kind };
                let octave = (dice.between(0.0, 16.0)) as usize;
                evidence.pairs.add(key, octave, hour, dice.between(2.0, most) as u32);
            }
        }
    }
    let mut depend = |from: usize, to: usize| {
        let edge = Edge {
            from: sources[from].entity.clone(),
            relation: Relation::TalksTo,
            to: sources[to].entity.clone(),
        };
        evidence.graph.see(&edge, second(BEGIN_NS) - 10);
    };
    for (n, part) in parts.iter().enumerate().skip(1) {
        if *part == Part::Effect && dice.is(0.6) {
            depend(n, 0);
        }
        // A bystander that the cause depends on, in trouble of its own or not.
        if *part == Part::Bystander && dice.is(0.4) {
            depend(0, n);
        }
    }
}

fn named(dice: &mut Dice, sources: &[Source], parts: &[Part]) -> Vec<(EventId, NamedCause)> {
    let mut out = Vec::new();
    let one = |n: usize| {
        let source: &Source = &sources[n];
        let named = NamedCause {
            text: format!("named {n}"),
            source: None,
            evidence: source.evidence.clone(),
            labels: source.labels.clone(),
            behind: 0,
        };
        (source.evidence[0], named)
    };
    if dice.is(0.5) {
        out.push(one(0));
    }
    if dice.is(0.1) {
        out.push(one(1 + (dice.next() * (parts.len() - 1) as f64) as usize));
    }
    out
}

fn draft(sources: Vec<Source>, named: Vec<NamedCause>) -> Draft {
    let first_ns = sources.iter().map(|s| s.first_ns).min().unwrap_or(0);
    let last_ns = sources.iter().map(|s| s.last_ns).max().unwrap_or(0);
    let story = Story {
        id: TraceId([1; 16]),
        trace_id: TraceId([1; 16]),
        rule: String::new(),
        pattern: String::new(),
        name: String::new(),
        intent: String::new(),
        state: StoryState::Closed,
        revision: 0,
        key: Vec::new(),
        members: Vec::new(),
        members_total: sources.len() as u64,
        first_ns,
        last_ns,
        severity: Severity::ERROR,
        root_cause: Vec::new(),
        impact: Impact::default(),
        actions: Vec::new(),
        confidence: 1.0,
        continues: None,
        provisional: None,
    };
    let asked =
        Asked { business: AutoOr::Auto, customer_facing: AutoOr::Auto, slo_impact: AutoOr::Auto };
    Draft {
        story,
        sources,
        named,
        any_cause: true,
        within_ns: WITHIN_NS,
        asked,
        failed_connections: 0,
        failed_for_others: 0,
    }
}

/// The cause's terms less each other candidate's, unweighted; and whether the cause came first.
fn differences(seed: u64, into: &mut Vec<[f64; 8]>) -> bool {
    let made = story(seed);
    let ranked = made.evidence.rank(&made.draft);
    let raw = |n: usize| {
        table().map(|(name, weight)| {
            let term = ranked[n].terms.iter().find(|t| t.name == name);
            term.map_or(0.0, |t| t.weight / weight)
        })
    };
    let Some(cause) = ranked.iter().position(|c| c.evidence[0] == made.cause) else {
        return false;
    };
    for other in (0..ranked.len()).filter(|n| *n != cause) {
        let (a, b) = (raw(cause), raw(other));
        into.push(std::array::from_fn(|i| a[i] - b[i]));
    }
    cause == 0
}

/// Pairwise logistic regression by gradient descent, with a little ridge: the weights under which
/// causes most likely outrank what they are compared with.
fn fit(pairs: &[[f64; 8]]) -> [f64; 8] {
    let mut weights = [0.5; 8];
    for _ in 0..1_500 {
        let mut gradient = weights.map(|w| 1e-3 * w);
        for x in pairs {
            let score: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
            let wrong = 1.0 / (1.0 + score.exp());
            gradient.iter_mut().zip(x).for_each(|(g, x)| *g -= wrong * x / pairs.len() as f64);
        }
        weights.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.25 * g);
    }
    weights
}

#[test]
fn the_table_is_what_the_stories_say() {
    let mut pairs = Vec::new();
    let first = (0..600).filter(|seed| differences(*seed, &mut pairs)).count();
    let fitted = fit(&pairs);
    let told: Vec<String> = table()
        .iter()
        .zip(fitted)
        .map(|((name, weight), fitted)| {
            format!("{name}: {weight} in the table, {fitted:.3} fitted")
        })
        .collect();
    let all = told.join("\n");
    for ((name, weight), fitted) in table().into_iter().zip(fitted) {
        assert!((weight - fitted).abs() <= 0.15, "{name} of\n{all}\n{first} of 600 right");
    }
}

#[test]
fn causes_of_stories_not_fitted_to_come_first() {
    let mut pairs = Vec::new();
    let first = (10_000..10_300).filter(|seed| differences(*seed, &mut pairs)).count();
    // Chance would give 75 to 100: a story has three to seven candidates.
    assert!(first >= 225, "{first} of 300");
}
