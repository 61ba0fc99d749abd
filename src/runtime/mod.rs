//! Joins the parts: rings and threads from collectors over shards to the bridge.
//!
//! | file | purpose |
//! | --- | --- |
//! | `correlator.rs` | [`Correlator`]: the shards' rings and threads |
//! | `replay.rs` | [`replay`]: events from files through the same shards, in total order |

mod correlator;
pub mod replay;

pub use correlator::{Correlator, CorrelatorPlan, Entrance};
