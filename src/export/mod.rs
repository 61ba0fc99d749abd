//! Exporters: what the spool has, as OTLP to any number of receivers beside the server. Each sink
//! reads the spool at a position of its own, which survives a restart.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`ExportConfig`]: the sinks |
//! | `variables.rs` | the variables `OTEL_EXPORTER_OTLP_*` |
//! | `cursor.rs` | how far a sink is, in a file of the spool's folder |
//! | `reader.rs` | spool → chunks of requests, with the accounts of the events in them |
//! | `delivery.rs` | delivers a chunk: retries, halves what is too large |
//! | `sink.rs` | a sink: reads, sends and notes how far it is |
//! | `stats.rs` | [`SinkStats`] |
//! | `handle.rs` | [`Exporters`]: the thread |

mod config;
mod cursor;
mod delivery;
mod handle;
mod reader;
mod sink;
mod stats;
mod variables;

pub use config::{ExportConfig, ExportSignal, Forward, OtlpSinkConfig};
pub use handle::Exporters;
pub(crate) use handle::THREAD;
pub use stats::SinkStats;
pub use variables::complete_from_env;
