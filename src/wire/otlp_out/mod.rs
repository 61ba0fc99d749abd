//! Batches as OTLP export requests (opentelemetry-proto 1.x: logs/v1, trace/v1, metrics/v1,
//! common/v1). Written by hand: an event of a batch becomes a record without anything between.
//!
//! | file | purpose |
//! | --- | --- |
//! | `encoder.rs` | [`OtlpEncoder`]: batches → requests, one for each signal |
//! | `request.rs` | [`OtlpRequest`] |
//! | `service.rs`, `selection.rs` | [`OtlpService`], [`OtlpSelection`] |
//! | `severity.rs` | severity of log records, status and kind of spans |
//! | `groups.rs` | records by resource and scope |
//! | `event.rs` | an event's fields, with the names of its batch |
//! | `keys.rs` | the place of an attribute in OTLP |
//! | `resource.rs` | resources and scopes |
//! | `log.rs` | log records |
//! | `span.rs` | spans that applications sent, and measured intervals |
//! | `metric.rs` | data points |
//! | `seen_stories.rs` | traces and contexts of the latest stories |
//! | `story.rs` | stories as spans and log records |

mod encoder;
mod event;
mod groups;
mod keys;
mod log;
mod metric;
mod request;
mod resource;
mod seen_stories;
mod selection;
mod service;
mod severity;
mod span;
mod story;
#[cfg(test)]
mod tests;

pub use encoder::{Encoded, OtlpEncoder};
pub use request::OtlpRequest;
pub use selection::OtlpSelection;
pub use service::OtlpService;
