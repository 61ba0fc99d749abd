//! A rule, compiled: what the engine runs.

use std::sync::Arc;

use super::field::FieldRef;
use super::plan::What;
use super::predicate::Predicate;
use super::template::Template;
use super::tree::Place;
use tapio_core::event::{Name, Severity};

/// A named predicate of a rule.
#[derive(Clone, Debug)]
pub struct NamedEvent {
    /// Its name in the rule.
    pub name: String,
    /// As it is written, in JSON.
    pub text: String,
    /// What it looks like; equal predicates of a rule set are one.
    pub predicate: Arc<Predicate>,
}

/// How often a step must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// So many events …
    pub at_least: u64,
    /// … within so long; `None`: within the whole sequence.
    pub within_ns: Option<u64>,
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// The event, by its number in the rule.
    pub event: usize,
    /// The join key; starts with the sequence's.
    pub by: Vec<FieldRef>,
    /// The part the event plays.
    pub role: Name,
    /// What the event shows; the rule's pattern where the step names none.
    pub pattern: Name,
    /// The run stays where it was when the next step takes it on.
    pub keep: bool,
    /// The sequence may go on without it.
    pub optional: bool,
    /// How often, where once isn't enough.
    pub repeat: Option<Repeat>,
}

/// What must not happen between two steps, before the first or after the last (RULES.md, `not`).
#[derive(Clone, Debug)]
pub struct Negation {
    /// The step it stands before; the number of steps where it stands behind the last one.
    pub gap: usize,
    /// The event, by its number in the rule.
    pub event: usize,
    /// Its join key.
    pub by: Vec<FieldRef>,
}

/// Which of the matches that are possible are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// One pending run per key and step: the latest.
    Latest,
    /// The first match that completes; its events start nothing else.
    First,
    /// Every combination.
    Every,
}

impl Select {
    /// The words a rule uses.
    pub const WORDS: [(&'static str, Self); 3] =
        [("latest", Self::Latest), ("first", Self::First), ("every", Self::Every)];
}

/// A sequence (RULES.md, "Sequences").
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What must not happen, by gap.
    pub nots: Vec<Negation>,
    /// How many leading key fields all steps share.
    pub key_fields: usize,
    /// From the first event to the last, at most; inclusive.
    pub within_ns: u64,
    /// How far sources may be out of order among each other; `None`: as their clocks say.
    pub slack_ns: Option<u64>,
    /// The event that drops pending runs of the key.
    pub until: Option<usize>,
    /// The key of `until`.
    pub until_by: Vec<FieldRef>,
    /// Which matches are told.
    pub select: Select,
    /// Runs of one key that are pending at once; past it, the oldest is given up.
    pub max_runs: usize,
}

impl Sequence {
    /// How many fields a step's key has beyond the one that all steps share.
    #[must_use]
    pub fn refining_fields(&self, step: usize) -> usize {
        self.steps[step].by.len().saturating_sub(self.key_fields)
    }

    /// Whether something must not happen before the first step.
    #[must_use]
    pub fn has_leading_not(&self) -> bool {
        self.nots.iter().any(|n| n.gap == 0)
    }

    /// Whether something must not happen after the last step.
    #[must_use]
    pub fn has_trailing_not(&self) -> bool {
        self.nots.iter().any(|n| n.gap == self.steps.len())
    }
}

/// How a value is compared with a bound.
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
    /// The words a rule uses.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("neq", Self::Ne),
        ("gt", Self::Gt),
        ("gte", Self::Gte),
        ("lt", Self::Lt),
        ("lte", Self::Lte),
    ];

    /// Whether `value` stands so to `bound`.
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
    /// The measure lies within all of these.
    Bounds(Vec<(Comparison, f64)>),
    /// What is and what isn't in the window, of a measure in any order.
    Seen(Seen),
}

impl Condition {
    /// Whether the measure meets the condition; `seen` says whether a part is in the window.
    #[must_use]
    pub fn holds(&self, value: f64, seen: impl Fn(u8) -> bool) -> bool {
        match self {
            Self::Bounds(bounds) => bounds.iter().all(|(c, bound)| c.holds(value, *bound)),
            Self::Seen(words) => words.holds(&seen),
        }
    }
}

/// Which parts of a measure must be in its window, by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// This one.
    Part(u8),
    /// None of this.
    Not(Box<Self>),
    /// All of these.
    All(Vec<Self>),
    /// At least one of these.
    Any(Vec<Self>),
}

impl Seen {
    fn holds(&self, seen: &impl Fn(u8) -> bool) -> bool {
        match self {
            Self::Part(part) => seen(*part),
            Self::Not(of) => !of.holds(seen),
            Self::All(of) => of.iter().all(|of| of.holds(seen)),
            Self::Any(of) => of.iter().any(|of| of.holds(seen)),
        }
    }
}

/// What is measured over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// How many events.
    Count,
    /// How many values of a field.
    Distinct(FieldRef),
    /// The sum of a field.
    Sum(FieldRef),
    /// The mean of a field.
    Avg(FieldRef),
    /// The smallest value of a field that so many per cent of the values don't exceed (nearest
    /// rank).
    Percentile(FieldRef, f64),
    /// How many of the named events, in any order.
    AnyOrder,
    /// Whether the named events came one after the other by their times; those of one time in any
    /// order (Sigma's `temporal_ordered`).
    InOrder,
}

impl Measure {
    /// The word for it in lists.
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

/// An event that an aggregate takes in.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The event, by its number in the rule.
    pub event: usize,
    /// Its join key: as long as that of the others.
    pub by: Vec<FieldRef>,
    /// The part the event plays.
    pub role: Name,
    /// Which of the parts it is that the measure tells apart.
    pub part: u8,
    /// It counts only where an inner measure takes it in and fires by it: the number of that
    /// measure, and the event's number there.
    pub through: Option<(u8, u8)>,
}

/// A measure over a trailing window (RULES.md: `any_order`, `count`, `distinct`, `sum`, `avg`,
/// `percentile`).
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// What is measured.
    pub measure: Measure,
    /// The events.
    pub events: Vec<Counted>,
    /// The window's length, inclusive.
    pub within_ns: u64,
    /// When it fires.
    pub condition: Condition,
    /// How many parts there are.
    pub parts: u8,
    /// Measures whose firing counts here (Sigma's correlations of correlations). Their keys contain this
    /// one's, so that who owns this key sees all of theirs.
    pub inner: Vec<Self>,
}

impl Aggregate {
    /// The longest time between two events that make it fire.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        let inner = self.inner.iter().map(Self::span_ns).max().unwrap_or(0);
        self.within_ns.saturating_add(inner)
    }
}

/// What a rule looks for.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One after the other; also a single event, and an absence (a step and a trailing `not`).
    Sequence(Sequence),
    /// A measure over a window.
    Aggregate(Aggregate),
}

impl Shape {
    /// The events the shape uses, each with the fields events of it are routed by.
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

    /// The part an event plays, where it is one that makes a member: its step or place, its event's
    /// number in the rule, and its join key.
    #[must_use]
    pub fn part(&self, what: What) -> Option<(u8, u16, &[FieldRef])> {
        match (what, self) {
            (What::Step(i), Self::Sequence(s)) => {
                let step = s.steps.get(usize::from(i))?;
                Some((i, step.event as u16, &step.by[..s.key_fields]))
            }
            (What::Counted(i), Self::Aggregate(a)) => {
                let counted = a.events.get(usize::from(i))?;
                Some((i, counted.event as u16, &counted.by))
            }
            _ => None,
        }
    }
}

/// A number the rule gives or the engine computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Given<T> {
    /// Computed from the story's facts.
    Auto,
    /// As the rule says.
    Fixed(T),
}

/// What is said of a story.
#[derive(Clone, Debug)]
pub struct Telling {
    /// The kind of story.
    pub pattern: Name,
    /// A title; the rule's description where it has none.
    pub name: Option<Template>,
    /// What the story is about.
    pub intent: String,
    /// Possible causes, the rule's favourite first.
    pub root_cause: Vec<Template>,
    /// What to do.
    pub actions: Vec<Template>,
    /// 0 to 1.
    pub business: Given<f64>,
    /// Whether customers notice.
    pub customer_facing: Given<bool>,
    /// Whether a service level objective burns.
    pub slo_impact: Given<bool>,
    /// A story is complete when nothing came for this long.
    pub idle_ns: u64,
    /// A story ends at this age.
    pub max_age_ns: u64,
}

/// The events a rule is tried with.
#[derive(Clone, Debug)]
pub enum TestEvents {
    /// A file, as the rule names it.
    File(String),
    /// JSON lines that stand in the rule itself.
    Lines(String),
}

/// What a rule's author says it does with some events (`tapio rules test`).
#[derive(Clone, Debug)]
pub struct RuleTest {
    /// Where it stands.
    pub place: Place,
    /// The events.
    pub events: TestEvents,
    /// What each story must say, in order: the keys of a story as `tapio replay` prints it that
    /// matter, with `members` for their number and `root_cause` for the likeliest one.
    pub expect: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its unique name.
    pub name: Name,
    /// One line about it.
    pub description: String,
    /// How bad its stories are at least.
    pub severity: Severity,
    /// Its named predicates.
    pub events: Vec<NamedEvent>,
    /// What it looks for.
    pub shape: Shape,
    /// What is said of a story.
    pub telling: Telling,
    /// What its author says it does.
    pub tests: Vec<RuleTest>,
    /// File and line, for messages.
    pub origin: String,
}

impl Rule {
    /// Whether it finds and tells the same as another one, wherever the two are written.
    #[must_use]
    pub fn means_the_same(&self, other: &Self) -> bool {
        let meaning = |r: &Self| {
            format!("{:?}", (r.name, &r.description, r.severity, &r.events, &r.shape, &r.telling))
        };
        meaning(self) == meaning(other)
    }

    /// The events the shape uses, each with the fields events of it are routed by.
    #[must_use]
    pub fn routes(&self) -> Vec<(usize, &[FieldRef])> {
        self.shape.routes()
    }

    /// The fields all members of a match share.
    #[must_use]
    pub fn join_fields(&self) -> &[FieldRef] {
        match &self.shape {
            Shape::Sequence(s) => &s.steps[0].by[..s.key_fields],
            Shape::Aggregate(a) => a.events.first().map_or(&[], |e| &e.by[..]),
        }
    }

    /// The longest time a match can span.
    #[must_use]
    pub fn within_ns(&self) -> u64 {
        match &self.shape {
            Shape::Sequence(s) => s.within_ns,
            Shape::Aggregate(a) => a.span_ns(),
        }
    }

    /// What it looks for, in a word.
    #[must_use]
    pub fn shape_word(&self) -> &'static str {
        match &self.shape {
            Shape::Sequence(s) if s.steps.len() == 1 && s.has_trailing_not() => "absence",
            Shape::Sequence(s) if s.steps.len() == 1 => "event",
            Shape::Sequence(_) => "sequence",
            Shape::Aggregate(a) => a.measure.word(),
        }
    }
}
