//! Metrics of the agent and the server.
//!
//! | file | purpose |
//! | --- | --- |
//! | `page.rs` | [`Metric`] definitions and the [`Page`] of their values |
//! | `exposition.rs` | the page in Prometheus' text format |
//! | `process.rs` | the standard process metrics and the build information |
//! | `telemetry.rs` | counters of the export of these metrics, of logs and spans |

mod exposition;
mod page;
mod process;
mod telemetry;

pub(crate) use exposition::CONTENT_TYPE;
pub(crate) use page::{Distribution, Family, Kind, Metric, Page};
pub(crate) use process::process_metrics;
pub(crate) use telemetry::telemetry;
