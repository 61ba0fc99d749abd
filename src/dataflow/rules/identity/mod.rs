//! Identity of rules and predicates by their structure: a canonical encoding of everything that
//! decides which events a rule matches and which stories it emits.
//!
//! | file | purpose |
//! | --- | --- |
//! | `encode.rs` | plain values |
//! | `predicate.rs` | predicates: plans share those with equal encodings |
//! | `rule.rs` | rules: [`RuleId`], by which a reload finds the unchanged ones |
//!
//! Not encoded: the position in a file, comments, the names and the source text of events, the
//! rule's tests, and the order of conditions of which all or any must hold. Names are encoded as
//! text, so an identity is the same in every process.

mod encode;
mod predicate;
mod rule;
#[cfg(test)]
mod tests;

pub use rule::RuleId;
