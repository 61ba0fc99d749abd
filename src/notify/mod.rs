//! Notifications about stories: to Alertmanager, to web hooks and to Slack.
//!
//! Each receiver has a task of its own on one thread, which reads the server's log at a position
//! of its own: a receiver that is slow or away holds up neither ingest nor other receivers, and
//! what it hasn't got yet stays in the log.
//!
//! ```text
//! log ─▶ feed ─▶ ledger ─▶ outbox ─▶ request ─▶ receiver
//!                  │ when, incidents, silences, digest    └─▶ dead letters
//! ```
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`ReceiverConfig`]: the section `server.notify` |
//! | `placed.rs` | values with their position in the configuration |
//! | `secret_text.rs` | texts that are never shown |
//! | `log.rs` | [`StoryLog`]: the server's log as receivers read it |
//! | `feed.rs` | the revisions of stories from a position on |
//! | `notified_story.rs` | what a receiver was notified about |
//! | `ledger.rs` | revisions of stories → notifications |
//! | `flood.rs` | floods of new stories, and their digest |
//! | `notification.rs` | one notification |
//! | `outbox.rs` | notifications that wait |
//! | `rate.rs` | the limit of requests |
//! | `checkpoint.rs` | the state of a receiver on disk |
//! | `dead_letters.rs` | notifications that were given up |
//! | `receiver.rs` | a receiver, of whatever kind |
//! | `kinds.rs` | the kinds: a row for each |
//! | `alertmanager.rs`, `webhook.rs`, `slack.rs` | one kind each |
//! | `task.rs` | the task of a receiver |
//! | `handle.rs` | [`Notifier`]: the thread |
//! | `stats.rs`, `metrics.rs` | counters and metrics |
//! | `trial.rs` | the story that `tapio notify test` sends |

mod alertmanager;
mod checkpoint;
mod config;
mod dead_letters;
mod feed;
mod flood;
mod handle;
mod kinds;
mod ledger;
mod log;
mod metrics;
mod notification;
mod notified_story;
mod outbox;
mod placed;
mod rate;
mod receiver;
mod secret_text;
mod slack;
mod stats;
mod task;
mod trial;
mod webhook;

pub use config::{
    AlertmanagerConfig, DigestConfig, RateLimit, ReceiverConfig, SlackConfig, WebhookConfig,
    check_receivers,
};
pub use dead_letters::dead_letters;
pub use handle::{Notifier, check_receiver_files};
pub use log::{LogPart, StoryBatch, StoryLog, StoryMarks};
pub(crate) use metrics::write_metrics;
pub use placed::{Place, Placed};
pub use secret_text::SecretText;
pub use stats::{NotifyStatus, ReceiverStats};
pub use trial::{Trial, try_receivers};
