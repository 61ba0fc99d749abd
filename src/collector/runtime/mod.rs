//! Runs collectors: threads, supervision, health, cursors and waiting.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | [`Collector`]: the interface of a source; [`CollectorConfig`] |
//! | `context.rs` | [`Context`]: a collector's environment for one run |
//! | `site.rs` | [`Site`]: node, entity directory and state folder, shared by all collectors |
//! | `live_rate.rs` | [`LiveRate`]: a rate limit that a reload changes |
//! | `kernel_facts.rs` | [`KernelFacts`]: facts that two sources report |
//! | `status.rs` | [`StatusReport`]: a collector's part of `/status` |
//! | `health.rs` | [`Health`] |
//! | `manager.rs` | [`CollectorManager`]: starts, monitors and replaces runs |
//! | `supervise.rs` | a collector's thread: panic isolation, restart with backoff |
//! | `cursor.rs` | positions of sources that can be read again |
//! | `alarm.rs` | poll(2) that a shutdown interrupts |
//! | `poll_timer.rs` | timed work of collectors that wait for messages |
//! | `needs.rs` | [`Needs`]: a collector's rights; [`Confinement`]: the threads with them |
//! | `access.rs` | what listeners have refused |
//! | `listener.rs` | sockets that outlive a run |

pub(crate) mod acceptance;
mod access;
pub(crate) mod alarm;
mod collector;
mod context;
pub(crate) mod cursor;
pub(crate) mod health;
pub(crate) mod kernel_facts;
pub(crate) mod listener;
mod live_rate;
mod manager;
mod needs;
pub(crate) mod poll_timer;
mod site;
mod status;
mod supervise;

pub(crate) use access::report_access;
pub use collector::{Collector, CollectorConfig, CollectorError, CollectorFactory, Ended};
pub(crate) use collector::{factory, tokio_runtime};
pub use context::Context;
pub use health::Health;
pub use kernel_facts::KernelFacts;
pub use live_rate::LiveRate;
pub use manager::{CollectorManager, CollectorSpec, CollectorStatus};
pub use needs::{Confinement, Needs, Rights};
pub use site::Site;
pub(crate) use site::cgroup_of_process;
pub use status::{StatusNote, StatusReport};
