//! The `tapio` program: what joins the libraries of the workspace into an agent, a server and a command line.
//!
//! | module | purpose |
//! | --- | --- |
//! | `store` | the segmented log of server and recovery log |
//! | `bridge` | batches on their way from the shards to a server |
//! | `server` | the receiving end: ingest, store, queries |
//! | `load` | the load generator |
//! | `runtime` | the agent: configuration, start, status, drain |
//! | `cli` | the commands |
//!
//! Dependencies point one way: `tapio-core ← tapio-wire ← {tapio-collectors, tapio-dataflow} ← store ← bridge ←
//! {server, load} ← runtime ← cli`. `ARCHITECTURE.md` follows one event through the files.

pub mod bridge;
pub mod cli;
pub mod load;
pub mod runtime;
pub mod server;
pub mod store;
mod timer;
