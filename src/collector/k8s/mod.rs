//! Collector `k8s`: emits the lifecycles of this node's pods, the node's conditions, rollouts and
//! Events from the API server, and fills the entity directory for all collectors.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | the section `collectors.k8s` |
//! | `collector.rs` | the run loop: feeds, checkpoints, status |
//! | `client.rs` | server address and credentials |
//! | `request.rs` | requests, responses and their errors |
//! | `messages.rs` | [`FeedMessage`](messages::FeedMessage): from the feeds to the session |
//! | `feed.rs` | [`Feed`](feed::Feed): lists and watches one resource without end |
//! | `owners.rs` | the Deployment behind a ReplicaSet, the CronJob behind a Job |
//! | `objects.rs` | Kubernetes objects, pruned while they are parsed |
//! | `pod_lifecycle.rs` | the state machine of one pod; pure |
//! | `conditions.rs` | the state machines of node conditions and rollouts; pure |
//! | `events.rs` | time, count and source of an Event; which Events are new |
//! | `addresses.rs` | services and the pods behind them |
//! | `pod_cache.rs` | pods as the entity directory has them |
//! | `checkpoint.rs` | persisted state |
//! | `lists.rs` | lists in progress |
//! | `session.rs` | applies feed messages to the directory and the state machines |
//! | `interner.rs` | shares equal texts |
//! | `to_event.rs` | builds events from transitions |
//! | `fuzz_entry.rs` | a watch without a server, for the fuzz target |
//!
//! Each resource has a feed, which is a task. The feeds send to the session through one bounded
//! channel: when the session waits (for a full ring, or to save its checkpoint), the feeds wait
//! too, and so does the server.

mod addresses;
mod checkpoint;
mod client;
mod collector;
mod conditions;
mod config;
mod events;
mod feed;
#[cfg(any(test, fuzzing))]
mod fuzz_entry;
mod interner;
mod lists;
mod messages;
mod objects;
mod owners;
mod pod_cache;
mod pod_lifecycle;
mod request;
mod session;
mod to_event;

pub use config::Config;
#[cfg(any(test, fuzzing))]
pub use fuzz_entry::check_watch;
