//! A compiled rule: named predicates, a shape over them, and the story it emits.

use std::sync::Arc;

use super::field::FieldRef;
use super::predicate::Predicate;
use super::shape::Shape;
use super::template::Template;
use super::yaml::Position;
use tapio_core::event::{Name, Severity};

/// A named predicate of a rule.
#[derive(Clone, Debug)]
pub struct NamedEvent {
    /// Its name in the rule.
    pub name: String,
    /// Its source in the document, as JSON.
    pub text: String,
    /// The predicate. Plans share equal predicates of a rule set.
    pub predicate: Arc<Predicate>,
    /// The logsource of its Sigma document, if no collector reads it.
    pub unread: Option<String>,
}

/// A value that the rule fixes or the engine computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoOr<T> {
    /// Computed from the story's facts.
    Auto,
    /// Fixed by the rule.
    Fixed(T),
}

/// The story that a rule emits: the `story` section.
#[derive(Clone, Debug)]
pub struct StorySpec {
    /// The type of the story.
    pub pattern: Name,
    /// A title; the rule's description if `None`.
    pub name: Option<Template>,
    /// The subject of the story.
    pub intent: String,
    /// Candidate root causes, the likeliest first.
    pub root_cause: Vec<Template>,
    /// Recommended steps.
    pub actions: Vec<Template>,
    /// Business impact, 0 to 1.
    pub business: AutoOr<f64>,
    /// Whether customers notice.
    pub customer_facing: AutoOr<bool>,
    /// Whether a service level objective is at risk.
    pub slo_impact: AutoOr<bool>,
    /// The story closes after this time without a new member.
    pub idle_ns: u64,
    /// The story closes at this age.
    pub max_age_ns: u64,
}

/// The events of a rule's test.
#[derive(Clone, Debug)]
pub enum TestEvents {
    /// A file of JSON lines, as the rule names it.
    File(String),
    /// JSON lines from the rule itself.
    Lines(String),
}

/// A test that a rule carries (`tapio rules test`).
#[derive(Clone, Debug)]
pub struct RuleTest {
    /// Its position in the rule's file.
    pub position: Position,
    /// The input.
    pub events: TestEvents,
    /// The expected stories, in order: the relevant keys of a story as `tapio replay` prints it,
    /// with `members` for their number and `root_cause` for the likeliest one.
    pub expect: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its unique name.
    pub name: Name,
    /// One line about it.
    pub description: String,
    /// The least severity of its stories.
    pub severity: Severity,
    /// Its named predicates.
    pub events: Vec<NamedEvent>,
    /// Its shape.
    pub shape: Shape,
    /// The story it emits.
    pub story: StorySpec,
    /// Its tests.
    pub tests: Vec<RuleTest>,
    /// File and line, for messages.
    pub origin: String,
}

impl Rule {
    /// The events of the shape, each with the fields by which it is routed to a shard.
    #[must_use]
    pub fn routes(&self) -> Vec<(usize, &[FieldRef])> {
        self.shape.routes()
    }

    /// The fields that all members of a match share.
    #[must_use]
    pub fn join_fields(&self) -> &[FieldRef] {
        self.shape.join_fields()
    }

    /// The longest time a match can span.
    #[must_use]
    pub fn within_ns(&self) -> u64 {
        self.shape.within_ns()
    }
}
