//! The correlator as a whole: from rules and events to stories and matches.
//!
//! | module | purpose |
//! | --- | --- |
//! | `engine` | random rules and events against naive oracles |
//! | `conformance` | cases of independent engines (EQL, Sigma) |
//! | `lanes` | final stories equal those of replay, for any order of arrival, reloads, restarts |
//! | `connections` | disturbances from TCP events alone, and with OTLP |
//! | `causes` | effect of each piece of evidence on root cause and impact |
//! | `builtin_rules` | each built-in rule emits the intended stories, and no incident gives two |
//! | `failures` | a rule that panics costs its own state of one key |
//! | `repeated` | an event that comes again counts once |
//! | `sigma` | which events Sigma documents match, as SigmaHQ writes them |
//! | `stories` | golden stories, byte for byte, for any number of shards |

mod builtin_rules;
mod causes;
mod conformance;
mod connections;
mod engine;
#[path = "../support/failing_rule.rs"]
mod failing_rule;
mod failures;
mod lanes;
mod repeated;
mod sigma;
mod stories;

/// The repository's root.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
