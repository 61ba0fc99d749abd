//! Metrics in Prometheus' text format, for the agent and the server.
//!
//! | file | purpose |
//! | --- | --- |
//! | `exposition.rs` | [`Metric`] definitions and the [`Page`] that renders samples |
//! | `process.rs` | the standard process metrics and the build information |

mod exposition;
mod process;

pub(crate) use exposition::{CONTENT_TYPE, Kind, Metric, Page};
pub(crate) use process::process_metrics;
