//! Joins the parts: rings and threads from collectors over shards to the bridge.
//!
//! | file | purpose |
//! | --- | --- |
//! | `agent.rs` | [`Agent`]: everything together, from start to drained end |
//! | `config.rs` | [`Config`]: the YAML file |
//! | `correlator.rs` | [`Correlator`]: the shards' and the assessor's rings and threads |
//! | `status.rs`, `admin.rs` | what the agent says of itself, and where |
//! | `lock.rs` | one agent for a state folder |
//! | `recall.rs` | what open stories are made of, kept over a restart |
//! | `reload.rs` | the rules' files, read again when they change |
//! | `replay.rs` | events from files through the same shards, in total order |
//! | `rule_tests.rs` | rules' own tests |

mod admin;
mod agent;
mod config;
mod correlator;
mod lock;
mod recall;
mod reload;
pub mod replay;
pub mod rule_tests;
mod status;

pub use agent::{Agent, Ended, StartError};
pub use config::{AdminConfig, Config, ConfigError, DataflowConfig, LogConfig, LogFormat};
pub use correlator::{Correlator, CorrelatorPlan, Entrance, Started};
pub use lock::{AgentLock, LockError};
pub use recall::RecallStats;
pub use reload::ReloadStats;
pub use status::{Status, snapshot_json};
