//! Collector `otlp`: receives logs, spans and metrics of applications on this node, over OTLP/gRPC
//! and OTLP/HTTP (protobuf, JSON).
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | the section `collectors.otlp` and the run loop |
//! | `servers.rs` | the servers' thread |
//! | `grpc.rs`, `http.rs` | one server each |
//! | `encoding.rs` | media types and encodings of OTLP/HTTP |
//! | `intake.rs` | the bounded queue from the servers to the collector |
//! | `requests.rs` | requests without servers, for benchmarks and fuzz targets |
//!
//! The servers run on their own thread and pass requests through a bounded queue. A request is
//! answered when all its records are accepted: in the spool, where there is one. When the queue is
//! full, the server refuses the request at once and gives the time after which to retry, so
//! applications keep what the agent can't accept.

mod collector;
mod encoding;
mod grpc;
mod http;
mod intake;
mod requests;
mod servers;

pub use collector::Config;
pub use requests::Requests;
