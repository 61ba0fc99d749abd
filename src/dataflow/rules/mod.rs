//! Rules: loaded from YAML, compiled to tables by kind of event.
//!
//! | file | purpose |
//! | --- | --- |
//! | `load.rs` | [`Loaded`]: rules from documents, with errors and warnings |
//! | `yaml.rs`, `yaml_error.rs`, `suggest.rs` | YAML with positions, its errors; misspelt words |
//! | `field.rs`, `derived.rs`, `command_line.rs` | fields of events, computed ones; join keys |
//! | `kinds.rs`, `field_test.rs`, `predicate.rs` | predicates: conditions on kind and fields |
//! | `story_predicate.rs` | [`StoryPredicate`]: conditions on the fields of stories |
//! | `lazy_regex.rs` | regular expressions, compiled when they are first used |
//! | `template.rs` | texts with variables that a story's events fill |
//! | `shape.rs`, `rule.rs` | the shape of a rule; a compiled rule |
//! | `identity/` | identity of rules and predicates by their structure |
//! | `compile/` | from a YAML document to a rule |
//! | `sigma/` | from Sigma documents to rules |
//! | `plan.rs` | the rules relevant to a kind, indexed by the values their predicates need |
//! | `message_index.rs` | predicates on messages, indexed by texts that they need |
//! | `log_filter.rs` | log records that no rule can match, without decoding them |
//! | `value_tests.rs` | many tests of one attribute |
//! | `set.rs`, `live.rs` | [`RuleSet`]: rules and routing; [`LiveRules`]: the set in force |
//! | `reach.rs` | whether a rule can fire, given the kinds that collectors emit |
//! | `schema.rs`, `explain.rs` | the JSON Schema of a rule document; a rule as text |

mod command_line;
mod compile;
mod derived;
mod explain;
pub(crate) mod field;
mod field_test;
mod identity;
mod kinds;
mod kubelet_event;
mod lazy_regex;
mod live;
mod load;
mod log_filter;
mod message_index;
mod plan;
mod predicate;
mod reach;
mod rule;
mod schema;
mod set;
mod shape;
mod sigma;
mod story_predicate;
mod suggest;
mod template;
mod value_tests;
mod yaml;
mod yaml_error;

pub use derived::Derived;
pub use explain::explain;
pub use field::{FieldRef, View};
pub use identity::RuleId;
pub(crate) use live::Reported;
pub use live::{LiveRules, RuleFailures};
pub use load::{Loaded, RuleError, builtin, load, rule_files};
pub use plan::{KindPlan, Op, Outcomes, RuleUse};
pub use predicate::Predicate;
pub use reach::{Emitted, can_fire};
pub use rule::{AutoOr, NamedEvent, Rule, RuleTest, StorySpec, TestEvents};
pub use schema::schema;
pub use set::{Home, RuleSet, home};
pub use shape::{
    Aggregate, Comparison, Condition, Counted, DeviationCondition, Measure, Negation,
    PartCondition, Repeat, RulePart, Select, Sequence, Shape, Step,
};
pub use story_predicate::{StoryPredicate, StoryPredicateResult};
pub use suggest::unknown;
pub use template::{Measured, Template, Variable, bytes_text, duration_text};
pub use yaml::{Diagnostic, Position};
pub use yaml_error::yaml_cause;
