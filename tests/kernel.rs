//! The eBPF collector against the running kernel: what it tells is counted against what the test
//! itself did. Other processes of the machine go on meanwhile, so each test counts only what its
//! own children, ports and cgroups did.
//!
//! Without the privileges every test says why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that a
//! failure.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do, and measure with the clock themselves"
)]

#[path = "kernel/cni.rs"]
mod cni;
#[path = "agent/fixture.rs"]
mod fixture;
#[path = "kernel/harness.rs"]
mod harness;
#[path = "kernel/losses.rs"]
mod losses;
#[path = "kernel/missing.rs"]
mod missing;
#[path = "kernel/network.rs"]
mod network;
#[path = "kernel/process.rs"]
mod process;

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harness::{Running, Seen, TestCgroup, kernel_is_here, start, start_with_ring, turn};
use tapio_collectors::ebpf::{Config, Kind};
use tapio_collectors::{CollectorConfig as _, CollectorManager, CollectorSpec};
use tapio_core::event::{Event, Reason, Stage, Value, names};
use tapio_core::ring::{Bell, Ledger, OnFull, Route, Router, Sink};
use tapio_core::shutdown::Shutdown;

fn only(kinds: &[Kind]) -> Config {
    Config { kinds: kinds.to_vec(), rate_per_cgroup: 0, include_self: true, ..Config::default() }
}

fn is_childs(event: &Seen) -> bool {
    event.number("process.parent_pid") == u64::from(std::process::id())
}

/// Starts `/bin/true` and waits for it. Returns its number.
fn run_true() -> u32 {
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());
    pid
}
