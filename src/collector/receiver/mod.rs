//! Collector `receiver`: accepts `tapio.v1` batches from applications on the node, other agents and
//! `tapio load`. An acknowledgement confirms that the events are accepted: they survive a kill of
//! the agent.
//!
//! The gRPC server runs on the collector's thread: connections pass their streams to the collector,
//! which reads them itself, so the sink needs no lock. A batch for whose events a ring has no room
//! keeps its place and is continued later; nothing more of its stream is read, and HTTP/2 flow
//! control slows the sender down. Connections run meanwhile: pings are answered.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | the configuration, the run loop and the open streams |
//! | `stream.rs` | one sender's stream: reads batches, offers their events and answers |

mod collector;
mod stream;

pub use collector::ReceiverConfig;
