//! The agent: rings and threads from the collectors through the shards to the bridge.
//!
//! | file | purpose |
//! | --- | --- |
//! | `agent.rs` | [`Agent`]: starts everything, drains and ends it |
//! | `start.rs` | how each component is started |
//! | `config.rs` | [`Config`]: the YAML file |
//! | `sections.rs` | sections of it |
//! | `comments.rs` | long comments in it |
//! | `config_paths.rs` | the files and folders that the YAML file names |
//! | `sandbox.rs` | [`Sandbox`]: the rights of the process |
//! | `variables.rs` | environment variables in the YAML file |
//! | `start_error.rs` | [`StartError`] |
//! | `threads.rs` | the CPUs of the threads |
//! | `status.rs` | [`Status`]: `/status` and `/readyz` |
//! | `metrics/` | `/metrics` |
//! | `admin.rs` | the HTTP server of these pages |
//! | `debug_pages.rs` | its pages below `/debug` |
//! | `debug_state.rs` | [`DebugState`]: the parts of the agent that they show and change |
//! | `operator.rs` | the secret with which a user of this node changes a running agent |
//! | `log_level.rs` | [`LogLevel`]: the level of the log, which can change for a time |
//! | `history.rs` | the status of the last hour |
//! | `memory/` | keeps the memory below [`MemoryLimit`] |
//! | `losses.rs` | what is lost, for the log and `/status` |
//! | `lock.rs` | [`AgentLock`]: one agent per state folder |
//! | `service_state.rs` | what services usually do, over restarts |
//! | `recovery_log.rs` | the recovery log: relevant events on disk, from which a restart restores |
//! | `rows.rs` | properties of the collectors by number |
//! | `rule_texts.rs` | the built-in rules in words |
//! | `settings/` | the schema of the configuration, its keys, the values in force, differences |
//! | `reload.rs` | reloads the rule set when its files change |

mod admin;
mod agent;
mod comments;
mod config;
mod config_paths;
mod debug_pages;
mod debug_state;
mod history;
mod lock;
mod log_level;
mod losses;
mod memory;
mod metrics;
mod operator;
mod recovery_log;
mod reload;
mod report;
mod rows;
mod rule_texts;
mod sandbox;
mod sections;
mod service_state;
mod settings;
mod start;
mod start_error;
mod status;
mod threads;
mod variables;

pub use agent::{Agent, Exit};
pub use config::{Config, ConfigError};
pub use debug_state::DebugState;
pub use history::StatusHistory;
pub use lock::{AgentLock, LockError};
pub use log_level::{LogLevel, check_level};
pub use losses::LossMonitor;
pub(crate) use memory::release_start_memory;
pub use memory::{LimitedMemory, MemoryLimit, MemoryStats};
pub use operator::{OPERATOR_HEADER, OperatorSecret};
pub use recovery_log::{RecoveryLogState, RecoveryLogStats};
pub use reload::ReloadStats;
pub use rule_texts::builtin_rule_texts;
pub use sandbox::{Sandbox, SandboxError, SandboxState};
pub use sections::{
    AdminConfig, DataflowConfig, DebugConfig, EvidenceConfig, LogConfig, LogFormat, RecorderConfig,
    SandboxConfig, WeightsConfig,
};
pub use settings::{Change, Key, yaml_text};
pub use start_error::StartError;
pub use status::{Status, snapshot_json};
pub use threads::AgentProcess;
