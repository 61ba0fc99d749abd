//! tapio's own logs, metrics and spans, exported as OTLP by the SDK of OpenTelemetry
//! (`telemetry.otlp`, off by default). The SDK batches them on threads of its own; requests leave
//! on the thread `telemetry`, through the same client as those of `export.otlp`.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`TelemetryConfig`] |
//! | `handle.rs` | [`Telemetry`]: start and stop |
//! | `uplink.rs` | delivers requests: retries, halves what is too large, counts |
//! | `exporters.rs` | the SDK's exporters over it |
//! | `logs.rs` | [`LogLayer`]: the log as records, without secrets |
//! | `metrics.rs` | the page of metrics as instruments |
//! | `spans.rs` | spans around work that is rare |

mod config;
mod exporters;
mod handle;
mod logs;
mod metrics;
mod spans;
mod uplink;

pub use config::TelemetryConfig;
pub use handle::{Identity, Telemetry};
pub use logs::LogLayer;
pub use metrics::MetricSource;
pub(crate) use spans::{in_span, span};
