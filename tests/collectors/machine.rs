//! The kernel's log and the pressure of cgroups, from the real kernel. If it can't be read, a test
//! is skipped and prints the reason; with `TAPIO_REQUIRE_KERNEL=1` it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tapio_collectors::{kmsg, node};

use crate::support::cgroup::remove_cgroup;
use crate::support::json::text;
use crate::support::pipeline::Pipeline;
use crate::support::skip::skipped;

#[test]
fn kernel_log_records_are_emitted() {
    if let Err(e) = fs::File::open("/dev/kmsg") {
        return skipped(&format!("/dev/kmsg: {e}"));
    }
    let config = kmsg::Config::default();
    let pipeline = Pipeline::start("kmsg", &config);
    pipeline.wait_until("the collector runs", |p| p.status().health.as_str() == "running");
    // A program's record in the kernel log isn't emitted.
    let mark = format!("tapio-test-{}", std::process::id());
    let _ = fs::write("/dev/kmsg", format!("<3>{mark}"));
    // A read through a null pointer. The kernel logs only a few of these in five seconds.
    let has_segfault =
        |p: &Pipeline| p.texts("message").iter().any(|m| m.contains("]: segfault at "));
    pipeline.wait_until("a segfault in the kernel's log", |p| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
        let _ = command.args(["demo-fault", "segfault"]).stderr(Stdio::null()).status();
        std::thread::sleep(Duration::from_millis(100));
        has_segfault(p)
    });
    let messages = pipeline.texts("message");
    assert!(!messages.iter().any(|m| m.contains(&mark)), "{messages:?}");
    let kinds = pipeline.texts("kind");
    assert!(kinds.iter().all(|k| k == "kernel.log"), "{kinds:?}");
    pipeline.end();
}

/// A unit's cgroup with processes that use the CPU all the time; removed on drop.
struct Busy {
    folder: PathBuf,
    children: Vec<Child>,
}

impl Busy {
    fn new(unit: &str, processes: usize) -> Result<Self, String> {
        let v2 = Path::new("/sys/fs/cgroup");
        let root =
            if v2.join("cgroup.controllers").exists() { v2.into() } else { v2.join("unified") };
        let folder = root.join(unit);
        fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut busy = Self { folder, children: Vec::new() };
        for _ in 0..processes {
            let script =
                format!("echo $$ >{}/cgroup.procs; while :; do :; done", busy.folder.display());
            let child = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn();
            busy.children.push(child.map_err(|e| e.to_string())?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_cgroup(&self.folder);
    }
}

#[test]
fn cpu_pressure_of_unit_is_emitted() {
    let unit = format!("tapio-test-{}.service", std::process::id());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = match Busy::new(&unit, 2 * cpus) {
        Ok(busy) => busy,
        Err(why) => return skipped(&why),
    };
    if !busy.folder.join("cpu.pressure").exists() {
        return skipped("this kernel has no pressure files");
    }
    let config = node::Config { interval: Duration::from_millis(500), ..node::Config::default() };
    let pipeline = Pipeline::start("node", &config);
    let of_unit = |p: &Pipeline| -> Vec<serde_json::Value> {
        p.select(|e| text(e, "systemd.unit") == unit && text(e, "tapio.pressure.resource") == "cpu")
    };
    // Twice as many processes as CPUs: some always wait.
    pipeline.wait_until("the unit has CPU pressure", |p| {
        of_unit(p).iter().any(|e| {
            e["kind"] == "kernel.pressure"
                && e["attributes"]["tapio.pressure.some_percent"].as_f64() > Some(50.0)
                && e["attributes"]["tapio.pressure.usage_share"].as_f64() > Some(0.0)
        })
    });
    pipeline.end();
}
