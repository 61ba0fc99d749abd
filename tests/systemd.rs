//! The collectors `systemd` and `journal` against a real systemd, booted in namespaces of its own
//! (tests/testbed/systemd): what they tell is held against what the units did and what journalctl
//! prints.
//!
//! Where a systemd can't be booted (no root, no namespaces, no systemd or dbus-daemon installed) every
//! test says why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that a failure.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do, and measure with the clock themselves"
)]

#[path = "systemd/gaps.rs"]
mod gaps;
#[path = "systemd/journal.rs"]
mod journal;
#[path = "systemd/machine.rs"]
mod machine;
#[path = "systemd/running.rs"]
mod running;
#[path = "systemd/units.rs"]
mod units;
