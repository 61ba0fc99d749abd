//! Joins the parts: rings and threads from collectors over shards to the bridge.
//!
//! | file | purpose |
//! | --- | --- |
//! | `agent.rs` | [`Agent`]: everything together, from start to drained end |
//! | `config.rs` | [`Config`]: the YAML file |
//! | `status.rs`, `admin.rs` | what the agent says of itself, and where |
//! | `lock.rs` | one agent for a state folder |
//! | `recovery_log.rs` | the relevant events on disk, from which a restarted agent restores its shards |
//! | `reload.rs` | the rules' files, read again when they change |

mod admin;
mod agent;
mod config;
mod lock;
mod recovery_log;
mod reload;
mod status;

pub use agent::{Agent, Ended, StartError};
pub use config::{AdminConfig, Config, ConfigError, DataflowConfig, LogConfig, LogFormat};
pub use lock::{AgentLock, LockError};
pub use recovery_log::RecoveryLogStats;
pub use reload::ReloadStats;
pub use status::{Status, snapshot_json};
