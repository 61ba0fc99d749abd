//! Each collector is killed, hung and flooded in turn, in a whole agent with a server: the others
//! lose nothing, `/status` names the failure, and the manager restarts the collector.
//!
//! A panic on its thread kills a collector; a blocked thread hangs it. The process that it reads
//! from is stopped and killed too (the bus, journald, containerd), and clients hang in the middle
//! of a request. Meanwhile another source emits a counted number of events. Where such a process
//! isn't available, the test prints why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that a
//! failure.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test helpers may panic, print and read the clock"
)]

#[path = "isolation/clients.rs"]
mod clients;
#[path = "isolation/fault_injection.rs"]
mod fault_injection;
#[path = "isolation/kernel.rs"]
mod kernel;
#[path = "systemd/machine.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod machine;
#[path = "container/runtime.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod runtime;
#[path = "isolation/services.rs"]
mod services;
#[path = "support/mod.rs"]
mod support;
