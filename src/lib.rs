//! The root package of the workspace: joins the libraries into an agent, a server and a command
//! line.
//!
//! | module | purpose |
//! | --- | --- |
//! | `metrics` | Prometheus' text format and the process metrics |
//! | `timer` | timers finer than a millisecond, for tokio |
//! | `store` | the segmented log of server and recovery log |
//! | `bridge` | batches on their way from the shards to a server |
//! | `export` | the stream as OTLP to other receivers |
//! | `notify` | notifications about stories |
//! | `server` | ingest, store, queries |
//! | `load` | the load generator |
//! | `runtime` | the agent: configuration, start, status, drain |
//! | `cli` | the commands |
//!
//! Dependencies point one way: `tapio-core ← tapio-wire ← tapio-collectors` and
//! `tapio-core ← tapio-dataflow`; in this package
//! `{store, metrics} ← bridge ← {export, load} ← telemetry ← notify ← server ← runtime ← cli`.
//! `ARCHITECTURE.md` follows one event through the files.

pub mod bridge;
pub mod cli;
pub mod export;
pub mod load;
mod metrics;
pub mod notify;
pub mod runtime;
pub mod server;
pub mod store;
pub mod telemetry;
mod timer;
