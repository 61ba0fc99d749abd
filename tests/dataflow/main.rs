//! The correlator as a whole: rules in, events in, stories and matches out.
//!
//! | module | purpose |
//! | --- | --- |
//! | `engine` | random rules and events against naive oracles |
//! | `conformance` | cases of independent engines (EQL, Sigma), all agree |
//! | `lanes` | final stories are those of replay, however events arrive, over reloads and restarts |
//! | `causes` | root cause and impact follow from evidence, term by term |
//! | `builtin_rules` | each built-in rule finds what it should, and nothing twice |
//! | `stories` | golden stories, to the byte, for any number of shards |

mod builtin_rules;
mod causes;
mod conformance;
mod engine;
mod lanes;
mod stories;

/// The repository's root.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
