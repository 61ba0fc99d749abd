//! From a YAML document to a [`Rule`](super::rule::Rule), with a diagnostic for each error.
//!
//! | file | purpose |
//! | --- | --- |
//! | `rule.rs` | a document |
//! | `predicate.rs`, `scope.rs` | predicates, and the named events of a rule |
//! | `shape.rs`, `sequence.rs`, `aggregate.rs` | the shape of a rule |
//! | `story.rs`, `rule_tests.rs` | the sections `story` and `tests` |
//! | `check.rs` | fields and variables that can never have a value |
//! | `values.rs` | keys that several sections have |

pub(crate) mod aggregate;
mod check;
pub(crate) mod predicate;
pub(crate) mod rule;
pub(crate) mod rule_tests;
mod scope;
pub(crate) mod sequence;
pub(crate) mod shape;
pub(crate) mod story;
pub(crate) mod values;
