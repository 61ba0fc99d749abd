//! Collectors that read the kernel.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::TAPIO;
use crate::ordeal::Ordeal;

/// cgroup2's root.
fn unified() -> PathBuf {
    let plain = Path::new("/sys/fs/cgroup");
    if plain.join("cgroup.controllers").exists() { plain.into() } else { plain.join("unified") }
}

/// A cgroup that is removed with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let folder = unified().join(format!("tapio-test-{}-{name}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self(folder)),
            Err(e) => {
                let required = std::env::var_os("TAPIO_REQUIRE_KERNEL").is_some_and(|v| v == "1");
                assert!(!required, "{}: {e}", folder.display());
                println!("skipped: {}: {e}", folder.display());
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
        let until = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn ebpf() {
    let Some(group) = Cgroup::new("flood") else { return };
    let kinds = "kernel.process.exec, kernel.process.exit, kernel.syscall.enter";
    let config = format!("kinds: [{kinds}], syscall_enter_cgroup: {:?}", group.path());
    let Some(mut ordeal) = Ordeal::begin("ebpf", &config) else { return };
    let provoke = &mut || drop(Command::new("true").status());
    ordeal.suffers(provoke);
    // 400,000 system calls, each an event: what there is no room for is counted, by the kernel or here.
    let procs = group.0.join("cgroup.procs");
    let flood = format!(
        "echo $$ >{}; exec dd if=/dev/zero of=/dev/null bs=1 count=200000",
        procs.display()
    );
    let dd = Command::new("sh").args(["-c", &flood]).stderr(Stdio::null()).status().unwrap();
    assert!(dd.success());
    ordeal.tells(provoke);
    let account = ordeal.end();
    assert!(account.received > 400_000, "{account:?}");
}

#[test]
fn kmsg() {
    let segfault = || drop(Command::new(TAPIO).args(["demo-fault", "segfault"]).output());
    let Some(mut ordeal) = Ordeal::begin("kmsg", "") else { return };
    let mut last: Option<Instant> = None;
    // The kernel logs a few of them in five seconds, not more.
    let provoke = &mut || {
        if last.is_none_or(|last| last.elapsed() > Duration::from_millis(700)) {
            last = Some(Instant::now());
            segfault();
        }
    };
    ordeal.suffers(provoke);
    // What programs write there: the kernel takes a few and leaves out the rest, where it isn't told otherwise.
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        for n in 0..2_000 {
            let _ = log.write_all(format!("<7>tapio test {n}").as_bytes());
        }
    }
    ordeal.until("the programs' records are read", |o| o.counter("of_programs") > 0);
    ordeal.tells(provoke);
    ordeal.end();
}

#[test]
fn node() {
    let config = "interval: 200ms, some_percent: 0, usage_share: 0";
    // There may be none on a machine without systemd.
    let Some(_unit) = Cgroup::new("there.service") else { return };
    let Some(mut ordeal) = Ordeal::begin("node", config) else { return };
    ordeal.suffers(&mut || {});
    // As many units as a large node has, all at once.
    let units: Option<Vec<_>> = (0..300).map(|n| Cgroup::new(&format!("{n}.service"))).collect();
    let Some(units) = units else { return };
    let before = ordeal.told();
    ordeal.until("all units are looked at", |o| o.counter("cgroups") >= 300);
    ordeal.until("they are told of", |o| o.told() >= before + 300);
    drop(units);
    ordeal.tells(&mut || {});
    ordeal.end();
}
