//! Evaluates rules on events: sequences, aggregates, and their state by join key.
//!
//! | file | purpose |
//! | --- | --- |
//! | `event_time.rs` | times of the future |
//! | `order.rs` | [`Order`](order::Order): arrival or total |
//! | `lane.rs` | [`Lane`](lane::Lane): the rules evaluated in one order |
//! | `lane_failure.rs` | handling of a rule that panics |
//! | `lane_options.rs` | bounds of a lane |
//! | `key_state.rs` | the state of one rule for one key |
//! | `sequence.rs` | evaluates a sequence |
//! | `partial_match.rs`, `partial_matches.rs` | one partial match; those of one rule and key |
//! | `select_latest.rs` | `select: latest` |
//! | `select_combinations.rs` | `select: first` and `select: every` |
//! | `aggregate.rs`, `window.rs`, `measure.rs` | an aggregate, its window, what it measures |
//! | `baseline.rs`, `baselines.rs` | the usual value of a measure for a key; those of all keys |
//! | `membership.rs` | an event's memberships and their ranks |
//! | `match_line.rs` | matches as JSON |

pub(crate) mod aggregate;
pub(crate) mod baseline;
mod baselines;
pub(crate) mod event_time;
pub(crate) mod key_state;
pub(crate) mod lane;
mod lane_failure;
pub(crate) mod lane_options;
pub(crate) mod match_line;
pub(crate) mod measure;
pub(crate) mod membership;
pub(crate) mod order;
pub(crate) mod partial_match;
pub(crate) mod partial_matches;
pub(crate) mod select_combinations;
pub(crate) mod select_latest;
pub(crate) mod sequence;
pub(crate) mod window;
