//! Open-loop load generator, safe from coordinated omission: a schedule determines when events are
//! due, not the progress of the target, and each event carries the time at which it was *due*. A
//! target that stalls for a second therefore shows a second of delay in all events of that second.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`LoadConfig`] |
//! | `generator.rs` | [`run`]: the schedule, sending, acks |
//! | `template.rs` | batches that are built once and patched for each send |
//! | `otlp/` | the same for OTLP, with the sink that counts what comes out |

mod config;
mod generator;
pub mod otlp;
mod template;

pub use config::LoadConfig;
pub use generator::{LoadError, LoadReport, run};
pub use template::{TYPICAL_ENTITIES, TYPICAL_MESSAGE, typical_fields};
