//! Collectors under the manager, with one consumer: all events are accounted for (CONS-1), whatever
//! fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "collectors/followed.rs"]
mod followed;
#[path = "collectors/jsonl.rs"]
mod jsonl;
#[path = "collectors/machine.rs"]
mod machine;
#[path = "collectors/manager.rs"]
mod manager;
#[path = "collectors/otlp.rs"]
mod otlp;
#[path = "collectors/passing.rs"]
mod passing;
#[path = "collectors/positions.rs"]
mod positions;
#[path = "support/mod.rs"]
mod support;
#[path = "collectors/synthetic.rs"]
mod synthetic;
