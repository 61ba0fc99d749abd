//! Each collector killed, hung and flooded in turn, in a whole agent with a server: the others lose nothing, the status says
//! what is wrong, and the manager brings it back.
//!
//! A collector is killed by a panic on its own thread, while it runs; hung by holding that thread; and so is what it reads
//! from, where that is a process: the bus, journald and containerd are stopped and killed, clients hang in the middle
//! of a request. Meanwhile another source tells a counted number of events. Where a counterpart can't be had the test
//! says why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that a failure.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do, and measure with the clock themselves"
)]

#[path = "isolation/clients.rs"]
mod clients;
#[path = "agent/fixture.rs"]
mod fixture;
#[path = "isolation/kernel.rs"]
mod kernel;
#[path = "systemd/machine.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod machine;
#[path = "isolation/ordeal.rs"]
mod ordeal;
#[path = "container/runtime.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod runtime;
#[path = "isolation/services.rs"]
mod services;
