//! A rule, compiled: what the engine runs.

use super::field::FieldRef;
use super::predicate::Predicate;
use super::template::Template;
use crate::event::{Name, Severity};

/// A named predicate of a rule.
#[derive(Clone, Debug)]
pub struct NamedEvent {
    /// Its name in the rule.
    pub name: String,
    /// What it looks like.
    pub predicate: Predicate,
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

/// A sequence (RULES.md, "Sequences").
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// How many leading key fields all steps share.
    pub key_fields: usize,
    /// From the first event to the last, at most; inclusive.
    pub within_ns: u64,
    /// The event that drops pending runs of the key.
    pub until: Option<usize>,
    /// The key of `until`.
    pub until_by: Vec<FieldRef>,
}

/// A bound on a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// At least this.
    pub low: u64,
    /// At most this.
    pub high: u64,
}

impl Bounds {
    /// Whether a count is within the bounds.
    #[must_use]
    pub fn hold(self, n: u64) -> bool {
        (self.low..=self.high).contains(&n)
    }
}

/// A count over a trailing window (RULES.md, `count`).
#[derive(Clone, Debug)]
pub struct Count {
    /// The events counted, by their numbers in the rule.
    pub events: Vec<usize>,
    /// The join key.
    pub by: Vec<FieldRef>,
    /// The window's length, inclusive.
    pub within_ns: u64,
    /// When it fires.
    pub bounds: Bounds,
}

/// What a rule looks for.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One after the other.
    Sequence(Sequence),
    /// Many of one.
    Count(Count),
}

/// A number the rule gives or the engine computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Given<T> {
    /// Computed from the story's facts.
    Auto,
    /// As the rule says.
    Fixed(T),
}

/// What is said of a group.
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
    /// A group is complete when nothing came for this long.
    pub idle_ns: u64,
    /// A group ends at this age.
    pub max_age_ns: u64,
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
    /// The part each counted event plays.
    pub counted_role: Name,
    /// What is said of a group.
    pub telling: Telling,
    /// File and line, for messages.
    pub origin: String,
}

impl Rule {
    /// The events the shape uses, each with the fields events of it are routed by.
    #[must_use]
    pub fn routes(&self) -> Vec<(usize, &[FieldRef])> {
        match &self.shape {
            Shape::Sequence(s) => {
                let steps = s.steps.iter().map(|step| (step.event, &step.by[..s.key_fields]));
                steps.chain(s.until.map(|u| (u, &s.until_by[..]))).collect()
            }
            Shape::Count(c) => c.events.iter().map(|e| (*e, &c.by[..])).collect(),
        }
    }

    /// The fields all members of a match share.
    #[must_use]
    pub fn join_fields(&self) -> &[FieldRef] {
        match &self.shape {
            Shape::Sequence(s) => &s.steps[0].by[..s.key_fields],
            Shape::Count(c) => &c.by,
        }
    }

    /// The longest time a match can span.
    #[must_use]
    pub fn within_ns(&self) -> u64 {
        match &self.shape {
            Shape::Sequence(s) => s.within_ns,
            Shape::Count(c) => c.within_ns,
        }
    }
}
