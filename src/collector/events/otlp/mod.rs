//! Events from requests of OTLP: logs, spans and points of metrics.
//!
//! | file | purpose |
//! | --- | --- |
//! | `writer.rs` | builds events from records |
//! | `writer/pass.rs`, `passing.rs` | log records that pass as they came, and with which keys |
//! | `writer/span.rs` | the fields of a span |
//! | `keys.rs` | what the keys of attributes are, looked up once |
//! | `series.rs` | series of metrics: increases of cumulative points |
//! | `answer.rs` | the outcome of a request |
//! | `lines.rs` | requests as lines of JSON, as the Collector's file exporter writes them |

mod answer;
mod keys;
mod lines;
mod passing;
mod series;
mod writer;

pub(crate) use answer::{Answer, Rejected};
pub use lines::OtlpLines;
pub(crate) use lines::{request_of, signal_of};
pub(crate) use writer::EventWriter;
