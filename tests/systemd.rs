//! A real systemd, booted in namespaces of its own (tests/testbed/systemd). The events of the
//! collectors `systemd` and `journal` are compared with the units' transitions and with the output
//! of journalctl; the units of deploy/systemd run in it.
//!
//! If a systemd can't be booted (no root, no namespaces, no systemd or dbus-daemon installed),
//! every test is skipped and prints the reason; with `TAPIO_REQUIRE_KERNEL=1` it fails.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test support code panics, prints and reads the clock like tests"
)]

#[path = "systemd/gaps.rs"]
mod gaps;
#[path = "systemd/journal.rs"]
mod journal;
#[path = "systemd/machine.rs"]
mod machine;
#[path = "systemd/secrets.rs"]
mod secrets;
#[path = "systemd/service.rs"]
mod service;
#[path = "support/mod.rs"]
mod support;
#[path = "systemd/units.rs"]
mod units;
