//! OTLP load and the sink that counts it: log requests are sent to a pipeline on an open-loop
//! schedule, each record with the time at which it was due and a sequence number, and what comes
//! out of the pipeline is counted.
//!
//! | file | purpose |
//! | --- | --- |
//! | `template.rs` | requests that are built once and patched for each send |
//! | `generator.rs` | [`OtlpLoad`]: the schedule, sending, answers |
//! | `sink.rs` | the receiver of a pipeline's output |
//! | `tally.rs` | [`Counts`]: lost and duplicate records, delays |
//! | `bitmap.rs` | a set of sequence numbers |
//! | `harness.rs` | [`OtlpHarness`]: generator and sink in one process |

mod bitmap;
mod generator;
mod harness;
mod sink;
mod tally;
mod template;

pub use generator::{GENERATOR_THREAD, OtlpLoad, RunTimes, Sent};
pub use harness::OtlpHarness;
pub use sink::SINK_THREAD;
pub use tally::{Counts, Latency, Progress};
pub use template::{KEY_ATTRIBUTE, STEP_ATTRIBUTE, STEPS};
