//! Collectors whose source is the kernel.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fault_injection::FaultTest;
use crate::support::agent::TAPIO;
use crate::support::cgroup::remove_cgroup;
use crate::support::skip::skipped;

/// The mount point of cgroup2.
fn cgroup2_root() -> PathBuf {
    let plain = Path::new("/sys/fs/cgroup");
    if plain.join("cgroup.controllers").exists() { plain.into() } else { plain.join("unified") }
}

/// A cgroup; removed on drop.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let folder = cgroup2_root().join(format!("tapio-test-{}-{name}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self(folder)),
            Err(e) => {
                skipped(&format!("{}: {e}", folder.display()));
                None
            }
        }
    }

    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
    }
}

#[test]
fn ebpf() {
    let Some(group) = Cgroup::new("flood") else { return };
    let kinds = "kernel.process.exec, kernel.process.exit, kernel.syscall.enter";
    let config = format!("kinds: [{kinds}], syscall_enter_cgroup: {:?}", group.path());
    let Some(mut test) = FaultTest::begin("ebpf", &config) else { return };
    let trigger = &mut || drop(Command::new("true").status());
    test.panics_and_hangs(trigger);
    // 400,000 system calls, each an event: those without room are counted, by the kernel program or
    // by the collector.
    let procs = group.0.join("cgroup.procs");
    let flood = format!(
        "echo $$ >{}; exec dd if=/dev/zero of=/dev/null bs=1 count=200000",
        procs.display()
    );
    let dd = Command::new("sh").args(["-c", &flood]).stderr(Stdio::null()).status().unwrap();
    assert!(dd.success());
    test.emits(trigger);
    let account = test.end();
    assert!(account.received > 400_000, "{account:?}");
}

#[test]
fn kmsg() {
    let segfault = || drop(Command::new(TAPIO).args(["demo-fault", "segfault"]).output());
    let Some(mut test) = FaultTest::begin("kmsg", "") else { return };
    let mut last: Option<Instant> = None;
    // The kernel logs only a few of them in five seconds.
    let trigger = &mut || {
        if last.is_none_or(|last| last.elapsed() > Duration::from_millis(700)) {
            last = Some(Instant::now());
            segfault();
        }
    };
    test.panics_and_hangs(trigger);
    // Records of programs: by default the kernel accepts a few and drops the rest.
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        for n in 0..2_000 {
            let _ = log.write_all(format!("<7>tapio test {n}").as_bytes());
        }
    }
    test.wait_until("records of programs are read", |o| o.counter("user_records") > 0);
    test.emits(trigger);
    test.end();
}

#[test]
fn node() {
    let config = "interval: 200ms, some_percent: 0, usage_share: 0";
    // A host without systemd may have no unit.
    let Some(_unit) = Cgroup::new("there.service") else { return };
    let Some(mut test) = FaultTest::begin("node", config) else { return };
    test.panics_and_hangs(&mut || {});
    // As many units as on a large node, all at once.
    let units: Option<Vec<_>> = (0..300).map(|n| Cgroup::new(&format!("{n}.service"))).collect();
    let Some(units) = units else { return };
    let before = test.forwarded();
    test.wait_until("all units are scanned", |o| o.counter("cgroups") >= 300);
    test.wait_until("their events are stored", |o| o.forwarded() >= before + 300);
    drop(units);
    test.emits(&mut || {});
    test.end();
}
