//! Sigma documents, taken verbatim: detection rules and correlation rules of the Sigma
//! specification 2 (SigmaHQ, "Sigma Specification", parts rules and correlation rules).
//!
//! | file | purpose |
//! | --- | --- |
//! | `document.rs` | [`Documents`]: the documents read so far |
//! | `collection.rs` | `action: global`: what documents of a file have in common |
//! | `filter.rs` | filters: further conditions of rules |
//! | `detection.rs`, `modifiers.rs`, `pattern.rs` | selections: fields, modifiers, values |
//! | `aggregation.rs` | aggregations behind a condition, with `timeframe` |
//! | `encoding.rs` | modifiers that encode a value |
//! | `condition.rs` | conditions: `and`, `or`, `not`, `1 of x*` |
//! | `correlation.rs` | correlation rules over detection rules and other correlation rules |
//! | `logsource.rs` | the kinds and fields that a logsource stands for |
//! | `resolve.rs` | from documents to rules |
//!
//! A rule to which no correlation refers emits stories itself. A field that is neither an entity
//! nor a built-in field means `attributes.<field>`. Text compares in any case, as Sigma defines it.

mod aggregation;
mod collection;
mod condition;
mod correlation;
mod detection;
mod document;
mod encoding;
mod filter;
mod logsource;
mod modifiers;
mod pattern;
mod resolve;

pub(super) use collection::expand;
pub(super) use document::{Documents, is_sigma};
pub(super) use resolve::Resolved;
