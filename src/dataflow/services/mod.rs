//! Disturbances of applications, without a rule: what each operation of each service usually does
//! is learned from spans and log records, what the connections between them do from the kernel's
//! TCP events, and what deviates from it becomes a story.
//!
//! Shards send compact facts of the events that they see. One component, of the assessor, joins
//! spans with their callers and callees, and connections with the instances at both ends, and every
//! ten seconds compares what it saw with what it has learned. docs/services.md describes the
//! method.
//!
//! | file | purpose |
//! | --- | --- |
//! | `fact.rs` | [`ServiceFact`]: a span, a log record, a connection, and their texts |
//! | `observer.rs` | [`ServiceObserver`]: a shard's part: facts from events |
//! | `connection_observer.rs` | facts from TCP events, and what joins them with spans |
//! | `template.rs` | log records that differ only in numbers and ids have one template |
//! | `span_join.rs` | spans with what happened in them: callees, log records |
//! | `connections.rs` | the instances at both ends of a connection, and what is open |
//! | `step.rs` | intervals of ten seconds, and counts in the latest of them |
//! | `share.rs` | how often something happens in an operation, as learned and lately |
//! | `duration.rs` | how long something takes, as learned and lately |
//! | `slow.rs` | which part of the runs is slow |
//! | `deviation.rs` | what is learned of a run, and deviations from it |
//! | `operation.rs` | an operation of a service: its shares and durations |
//! | `pairs.rs` | the connections of a pair of instances, as operations |
//! | `evidence.rs` | deviations, the graph of calls, suspects |
//! | `blame.rs` | which service a deviation starts from, by the calls between them |
//! | `misleading.rs` | callees that answer wrongly |
//! | `disturbance.rs` | open disturbances: what deviated, how much, since when |
//! | `wording.rs` | deviations and names in words |
//! | `report.rs` | a disturbance as a story |
//! | `elders.rs` | the past of a service's other instances, for a new one |
//! | `rates.rs` | the part of spans and log records that is learned from |
//! | `bounds.rs` | how much is kept |
//! | `forgetting.rs` | what is forgotten |
//! | `learner.rs` | [`Services`]: all of it |
//! | `saved.rs` | what is learned, in bytes |
//! | `saved_disturbances.rs` | disturbances that are open, in bytes |

mod blame;
mod bounds;
mod connection_observer;
#[cfg(test)]
mod connection_tests;
mod connections;
mod deviation;
mod disturbance;
mod duration;
mod elders;
mod evidence;
mod fact;
mod forgetting;
mod learner;
mod misleading;
mod observer;
mod operation;
mod pairs;
mod rates;
mod report;
#[cfg(test)]
mod restart_tests;
mod saved;
mod saved_disturbances;
mod share;
mod slow;
mod span_join;
mod step;
mod template;
#[cfg(test)]
mod tests;
mod wording;

pub(crate) use bounds::ServiceBounds;
pub(crate) use fact::ServiceFact;
pub(crate) use learner::{ServiceCounts, Services};
pub(crate) use observer::ServiceObserver;
