//! Disturbances of applications, without a rule: what each operation of each service usually does
//! is learned from spans and log records, and what deviates from it becomes a story.
//!
//! Shards send compact facts of the spans and log records that they see. One component, of the
//! assessor, joins spans with their callers and callees, and every ten seconds compares what it saw
//! with what it has learned. docs/services.md describes the method.
//!
//! | file | purpose |
//! | --- | --- |
//! | `fact.rs` | [`ServiceFact`]: a span, a log record, or a text that they refer to |
//! | `observer.rs` | [`ServiceObserver`]: a shard's part: facts from events |
//! | `template.rs` | log records that differ only in numbers and ids have one template |
//! | `span_join.rs` | spans with what happened in them: callees, log records |
//! | `step.rs` | intervals of ten seconds, and counts in the latest of them |
//! | `share.rs` | how often something happens in an operation, as learned and lately |
//! | `duration.rs` | how long something takes, as learned and lately |
//! | `operation.rs` | an operation of a service: its shares and durations |
//! | `blame.rs` | which service a deviation starts from, by the calls between them |
//! | `disturbance.rs` | open disturbances: what deviated, how much, since when |
//! | `report.rs` | a disturbance as a story |
//! | `learner.rs` | [`Services`]: all of it |
//! | `saved.rs` | what is learned, in bytes |

mod blame;
mod disturbance;
mod duration;
mod fact;
mod learner;
mod observer;
mod operation;
mod report;
mod saved;
mod share;
mod span_join;
mod step;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use fact::ServiceFact;
pub(crate) use learner::{ServiceBounds, ServiceCounts, Services};
pub(crate) use observer::ServiceObserver;
