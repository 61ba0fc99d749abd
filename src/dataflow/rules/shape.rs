//! The shape of a rule, compiled: a sequence of events, or an aggregate over a window.

use super::field::FieldRef;
use tapio_core::event::Name;

/// The part of a rule that an event can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulePart {
    /// The `until` of a sequence: it drops the partial matches of its key.
    Until,
    /// This step of a sequence.
    Step(u8),
    /// This negation of a sequence.
    Not(u8),
    /// This event of an aggregate.
    Counted(u8),
}

/// How many events fill a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Number of events.
    pub at_least: u64,
    /// The time within which they come; `None`: that of the whole sequence.
    pub within_ns: Option<u64>,
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// The event, by its number in the rule.
    pub event: usize,
    /// The join key; starts with the sequence's.
    pub by: Vec<FieldRef>,
    /// The event's role in the story.
    pub role: Name,
    /// The pattern that the event shows; the story's if the step names none.
    pub pattern: Name,
    /// The partial match also stays at this step when it advances.
    pub keep: bool,
    /// For how long further events of the step join the partial match that the first one began,
    /// instead of replacing it; zero: they replace it.
    pub keep_first_ns: u64,
    /// The sequence can skip the step.
    pub optional: bool,
    /// How many events fill the step, if more than one.
    pub repeat: Option<Repeat>,
}

/// An event that must not occur between two steps, before the first or after the last (RULES.md,
/// `not`).
#[derive(Clone, Debug)]
pub struct Negation {
    /// The step before which it stands; the number of steps if it is behind the last one.
    pub gap: usize,
    /// The event, by its number in the rule.
    pub event: usize,
    /// Its join key.
    pub by: Vec<FieldRef>,
}

/// Which of the possible matches count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// One partial match per key and step: the latest.
    Latest,
    /// The first match that completes; its events start nothing else.
    First,
    /// Every combination.
    Every,
}

impl Select {
    /// The values of `select`.
    pub const WORDS: [(&'static str, Self); 3] =
        [("latest", Self::Latest), ("first", Self::First), ("every", Self::Every)];
}

/// A sequence (RULES.md, "Sequences").
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The negations.
    pub nots: Vec<Negation>,
    /// How many leading key fields all steps share.
    pub key_fields: usize,
    /// From the first event to the last, at most; inclusive.
    pub within_ns: u64,
    /// How far sources may be out of order among each other; `None`: derived from their clocks.
    pub slack_ns: Option<u64>,
    /// The event that drops the partial matches of its key.
    pub until: Option<usize>,
    /// The key of `until`.
    pub until_by: Vec<FieldRef>,
    /// Which of the possible matches count.
    pub select: Select,
    /// Partial matches of one key at once; beyond that, the oldest is evicted.
    pub max_runs: usize,
}

impl Sequence {
    /// How many steps a match must have.
    pub(crate) fn required_steps(&self) -> usize {
        self.steps.iter().filter(|step| !step.optional).count()
    }

    /// How many fields a step's key has beyond those that all steps share.
    #[must_use]
    pub fn refining_fields(&self, step: usize) -> usize {
        self.steps[step].by.len().saturating_sub(self.key_fields)
    }

    /// Whether there is a negation before the first step.
    #[must_use]
    pub fn has_leading_not(&self) -> bool {
        self.nots.iter().any(|n| n.gap == 0)
    }

    /// Whether there is a negation after the last step.
    #[must_use]
    pub fn has_trailing_not(&self) -> bool {
        self.nots.iter().any(|n| n.gap == self.steps.len())
    }
}

/// A comparison with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// equal
    Eq,
    /// not equal
    Ne,
    /// greater
    Gt,
    /// greater or equal
    Gte,
    /// less
    Lt,
    /// less or equal
    Lte,
}

impl Comparison {
    /// The keys of `condition`.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("neq", Self::Ne),
        ("gt", Self::Gt),
        ("gte", Self::Gte),
        ("lt", Self::Lt),
        ("lte", Self::Lte),
    ];

    /// Whether the comparison holds.
    #[must_use]
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Eq => value == bound,
            Self::Ne => value != bound,
            Self::Gt => value > bound,
            Self::Gte => value >= bound,
            Self::Lt => value < bound,
            Self::Lte => value <= bound,
        }
    }
}

/// When an aggregate fires.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The measure meets all of these bounds.
    Bounds(Vec<(Comparison, f64)>),
    /// Parts are and aren't in the window; goes with `AnyOrder`.
    Parts(PartCondition),
}

impl Condition {
    /// Whether the condition holds. `seen`: whether a part is in the window.
    #[must_use]
    pub fn holds(&self, value: f64, seen: impl Fn(u8) -> bool) -> bool {
        match self {
            Self::Bounds(bounds) => bounds.iter().all(|(c, bound)| c.holds(value, *bound)),
            Self::Parts(condition) => condition.holds(&seen),
        }
    }
}

/// A condition on how far a measure is from what is usual for its key (docs/rules.md,
/// "Deviations").
#[derive(Clone, Debug, PartialEq)]
pub struct DeviationCondition {
    /// The deviation, in standard deviations, meets all of these bounds.
    pub bounds: Vec<(Comparison, f64)>,
    /// The number of windows to be learned before anything deviates.
    pub learn: u8,
}

impl DeviationCondition {
    /// The latest windows that are remembered of a key.
    pub const WINDOWS: usize = 120;
    /// The values that `learn` can have: quartiles of fewer windows are meaningless, and all of
    /// them have to be remembered.
    pub const LEARN: std::ops::RangeInclusive<u8> = 6..=60;

    /// Whether the condition holds for a deviation.
    #[must_use]
    pub fn holds(&self, deviation: f64) -> bool {
        self.bounds.iter().all(|(comparison, bound)| comparison.holds(deviation, *bound))
    }
}

/// A condition on the parts of an aggregate that are in its window, by number.
#[derive(Clone, Debug, PartialEq)]
pub enum PartCondition {
    /// This part is in the window.
    Part(u8),
    /// The condition doesn't hold.
    Not(Box<Self>),
    /// All conditions hold.
    All(Vec<Self>),
    /// At least one condition holds.
    Any(Vec<Self>),
}

impl PartCondition {
    fn holds(&self, seen: &impl Fn(u8) -> bool) -> bool {
        match self {
            Self::Part(part) => seen(*part),
            Self::Not(of) => !of.holds(seen),
            Self::All(of) => of.iter().all(|of| of.holds(seen)),
            Self::Any(of) => of.iter().any(|of| of.holds(seen)),
        }
    }
}

/// A measure over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The number of events.
    Count,
    /// The number of different values of a field.
    Distinct(FieldRef),
    /// The sum of a field.
    Sum(FieldRef),
    /// The mean of a field.
    Avg(FieldRef),
    /// A percentile of a field's values, by nearest rank.
    Percentile(FieldRef, f64),
    /// How many of the parts are in the window, in any order.
    AnyOrder,
    /// Whether the parts came one after the other by event time; events of the same time count in
    /// any order (Sigma's `temporal_ordered`).
    InOrder,
}

impl Measure {
    /// The name of the measure.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Distinct(_) => "distinct",
            Self::Sum(_) => "sum",
            Self::Avg(_) => "avg",
            Self::Percentile(..) => "percentile",
            Self::AnyOrder => "any_order",
            Self::InOrder => "in_order",
        }
    }

    /// The field whose values are measured.
    #[must_use]
    pub fn field(self) -> Option<FieldRef> {
        match self {
            Self::Distinct(f) | Self::Sum(f) | Self::Avg(f) | Self::Percentile(f, _) => Some(f),
            Self::Count | Self::AnyOrder | Self::InOrder => None,
        }
    }
}

/// An event that an aggregate counts.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The event, by its number in the rule.
    pub event: usize,
    /// Its join key; has as many fields as those of the others.
    pub by: Vec<FieldRef>,
    /// The event's role in the story.
    pub role: Name,
    /// The part of the aggregate that the event stands for.
    pub part: u8,
    /// The event counts only if an inner aggregate counts it and fires by it: the number of that
    /// aggregate, and the event's number there.
    pub through: Option<(u8, u8)>,
}

/// An aggregate: a measure over a trailing window (RULES.md: `any_order`, `count`, `distinct`,
/// `sum`, `avg`, `percentile`).
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The measure.
    pub measure: Measure,
    /// The events.
    pub events: Vec<Counted>,
    /// The window's length, inclusive.
    pub within_ns: u64,
    /// When it fires.
    pub condition: Condition,
    /// When it fires, beside the condition: for rules that compare with what is usual.
    pub deviation: Option<DeviationCondition>,
    /// Number of parts.
    pub parts: u8,
    /// Aggregates whose firing counts here (Sigma's correlations of correlations). Their keys
    /// contain this one's, so the shard that owns this key has all of theirs.
    pub inner: Vec<Self>,
}

impl Aggregate {
    /// The longest time between two events that make it fire.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        let inner = self.inner.iter().map(Self::span_ns).max().unwrap_or(0);
        self.within_ns.saturating_add(inner)
    }

    /// How long its past matters: what it fires on depends on the windows learned before.
    #[must_use]
    pub fn learned_ns(&self) -> u64 {
        let windows = self.deviation.as_ref().map_or(0, |_| DeviationCondition::WINDOWS as u64);
        self.within_ns.saturating_mul(windows)
    }
}

/// The shape that a rule matches.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Events in order; also a single event, and an absence (a step and a trailing `not`).
    Sequence(Sequence),
    /// A measure over a window.
    Aggregate(Aggregate),
}

impl Shape {
    /// The events of the shape, each with the fields by which it is routed to a shard.
    #[must_use]
    pub fn routes(&self) -> Vec<(usize, &[FieldRef])> {
        match self {
            Self::Sequence(s) => {
                let steps = s.steps.iter().map(|step| (step.event, &step.by[..s.key_fields]));
                let nots = s.nots.iter().map(|n| (n.event, &n.by[..]));
                steps.chain(nots).chain(s.until.map(|u| (u, &s.until_by[..]))).collect()
            }
            Self::Aggregate(a) => a.events.iter().map(|e| (e.event, &e.by[..])).collect(),
        }
    }

    /// For a part that makes an event a member: its step or position, the event's number in the
    /// rule, and its join key.
    #[must_use]
    pub fn member_part(&self, part: RulePart) -> Option<(u8, u16, &[FieldRef])> {
        match (part, self) {
            (RulePart::Step(i), Self::Sequence(s)) => {
                let step = s.steps.get(usize::from(i))?;
                Some((i, step.event as u16, &step.by[..s.key_fields]))
            }
            (RulePart::Counted(i), Self::Aggregate(a)) => {
                let counted = a.events.get(usize::from(i))?;
                Some((i, counted.event as u16, &counted.by))
            }
            _ => None,
        }
    }
    /// The fields that all members of a match share.
    #[must_use]
    pub fn join_fields(&self) -> &[FieldRef] {
        match self {
            Self::Sequence(s) => &s.steps[0].by[..s.key_fields],
            Self::Aggregate(a) => a.events.first().map_or(&[], |e| &e.by[..]),
        }
    }

    /// The longest time a match can span.
    #[must_use]
    pub fn within_ns(&self) -> u64 {
        match self {
            Self::Sequence(s) => s.within_ns,
            Self::Aggregate(a) => a.span_ns(),
        }
    }

    /// The name of the shape.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Sequence(s) if s.steps.len() == 1 && s.has_trailing_not() => "absence",
            Self::Sequence(s) if s.steps.len() == 1 => "event",
            Self::Sequence(_) => "sequence",
            Self::Aggregate(a) => a.measure.word(),
        }
    }
}
