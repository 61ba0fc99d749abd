//! Collectors under the manager, with one consumer: all events are accounted for (CONS-1), whatever
//! fails.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints the reason when it is skipped"
)]

#[path = "collectors/jsonl.rs"]
mod jsonl;
#[path = "collectors/machine.rs"]
mod machine;
#[path = "collectors/manager.rs"]
mod manager;
#[path = "collectors/otlp.rs"]
mod otlp;
#[path = "collectors/pipeline.rs"]
mod pipeline;
#[path = "collectors/positions.rs"]
mod positions;
#[path = "collectors/synthetic.rs"]
mod synthetic;
