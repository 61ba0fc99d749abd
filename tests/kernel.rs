//! The eBPF collector against the running kernel: its events are compared with what the test did.
//! Other processes keep running meanwhile, so each test counts only events of its own children,
//! ports and cgroups.
//!
//! Without the privileges each test prints why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that
//! a failure.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do, and measure with the clock themselves"
)]

#[path = "kernel/cni.rs"]
mod cni;
#[path = "kernel/facts.rs"]
mod facts;
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
#[path = "support/mod.rs"]
mod support;

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harness::{
    RunningCollector, SeenEvent, TestCgroup, exclusive_kernel, is_ebpf_available, start,
    start_with_ring,
};
use tapio_collectors::ebpf::{Config, Kind};
use tapio_collectors::{CollectorConfig as _, CollectorManager, CollectorSpec};
use tapio_core::event::{Event, Reason, Stage, Value, names};
use tapio_core::ring::{Bell, Ledger, OnFull, Route, Router, Sink};
use tapio_core::shutdown::Shutdown;

/// A configuration with these kinds only, and without a rate limit.
fn only(kinds: &[Kind]) -> Config {
    Config { kinds: kinds.to_vec(), rate_per_cgroup: 0, include_self: true, ..Config::default() }
}

/// Whether an event is about a child of the test process.
fn is_of_child(event: &SeenEvent) -> bool {
    event.number("process.parent_pid") == u64::from(std::process::id())
}

/// Starts `/bin/true` and waits for it. Returns its number.
fn run_true() -> u32 {
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());
    pid
}
