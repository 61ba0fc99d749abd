//! The server: receives batches from agents, stores them and answers queries. It runs on a thread
//! of its own, in a process of its own or inside an agent's.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`ServerConfig`] |
//! | `handle.rs` | [`Server`] and [`ServerHandle`]: start and stop |
//! | `health.rs` | `grpc.health.v1`: whether the server takes batches and answers queries |
//! | `ingest.rs` | gRPC ingest: batches → storage, acknowledgements |
//! | `story_log.rs` | the log, as receivers of notifications read it |
//! | `sync.rs` | writes stored batches to the disk before they are acknowledged |
//! | `scrub.rs` | reads the store again, so that damage is found |
//! | `sync_gate.rs` | where acknowledgements wait for the disk |
//! | `storage/` | [`Storage`]: the log of batches and its indexes |
//! | `operate.rs`, `operate_rpc.rs` | actions of operators, and their gRPC service |
//! | `query.rs`, `query_rpc.rs` | queries, and their gRPC service |
//! | `tail_filter.rs` | selects the items of a stream |
//! | `follow.rs` | follows the log: what is stored after a position |
//! | `agent_query.rs` | queries for the agents |
//! | `annotation_query.rs` | queries for annotations |
//! | `query_line.rs` | bounds the queries that run and wait |
//! | `reflection.rs` | describes the services of gRPC to clients that ask |
//! | `http.rs` | the listener for HTTP: the API, health checks, metrics |
//! | `api/` | JSON over HTTP |
//! | `mcp/` | the Model Context Protocol, for assistants |
//! | `agents/` | what the server has received of each node, and its agent's last status |
//! | `rule_text.rs` | [`RuleText`]: rules in words |
//! | `page/` | the web page |
//! | `annotations/` | what operators note about stories |
//! | `metrics.rs` | `/metrics` |
//! | `status.rs` | [`ServerStatus`]: the counters |
//! | `senders.rs` | the sender processes that have a stream open |
//! | `shared.rs` | state that ingest and queries share |

mod agent_query;
mod agents;
mod annotation_query;
mod annotations;
mod api;
mod config;
mod follow;
mod handle;
mod health;
mod http;
mod ingest;
mod mcp;
mod metrics;
mod operate;
mod operate_rpc;
mod page;
mod query;
mod query_line;
mod query_rpc;
mod reflection;
mod rule_text;
mod scrub;
mod senders;
mod shared;
mod status;
mod storage;
mod story_log;
mod sync;
mod sync_gate;
mod tail_filter;

pub use config::ServerConfig;
pub use handle::{Server, ServerHandle};
pub use health::ServerHealth;
pub use ingest::{Ingest, IngestStream};
pub(crate) use mcp::{MAX_MESSAGE_BYTES, Source, SourceError, reply, too_long};
pub use rule_text::RuleText;
pub use status::{AccessStats, LatencyStats, ServerCounts, ServerStatus};
pub(crate) use storage::LIFECYCLE;
pub use storage::{
    Budget, Cursor, EventSelection, Filter, InvalidParameter, List, MatchingBatch, Page,
    StateFilter, Storage, StorageStats, StorySelection,
};
