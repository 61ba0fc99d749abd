//! The export: an agent's stream as OTLP, taken by receivers.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "export/delivery.rs"]
mod delivery;
#[path = "export/passed.rs"]
mod passed;
#[path = "export/receiver.rs"]
mod receiver;
#[path = "export/sent.rs"]
mod sent;
#[path = "export/stories.rs"]
mod stories;
#[path = "support/mod.rs"]
mod support;
#[path = "export/telemetry.rs"]
mod telemetry;
