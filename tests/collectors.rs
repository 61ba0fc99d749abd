//! Collectors under the manager, with a consumer that takes what they offer: everything is
//! accounted for (CONS-1), whatever fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "collectors/jsonl.rs"]
mod jsonl;
#[path = "collectors/manager.rs"]
mod manager;
#[path = "collectors/pipeline.rs"]
mod pipeline;
#[path = "collectors/synthetic.rs"]
mod synthetic;
