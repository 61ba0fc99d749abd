//! Accounting under floods, throttling, errors, reduced privileges and panics: every loss is
//! counted.

use super::support::eventually::eventually;
use super::*;

/// Runs dd in a new cgroup. Returns the numbers of its system calls: those that arrived, those lost
/// in the kernel, and those dropped after it.
fn flood(bytes: u64, ring_buffer_bytes: u32, ring_blocks: usize) -> Option<(u64, u64, u64)> {
    let cgroup = TestCgroup::unified("flood")?;
    let config = Config {
        ring_buffer_bytes,
        syscall_enter_cgroup: Some(cgroup.path.clone()),
        ..only(&[Kind::SyscallEnter])
    };
    let running = start_with_ring(&config, ring_blocks, |_| false);
    let mut child = cgroup
        .shell(&format!("exec dd if=/dev/zero of=/dev/null bs=1 count={bytes}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let from = Instant::now();
    assert!(child.wait().unwrap().success());
    let took = from.elapsed();
    let outcome = running.finish();
    outcome.assert_accounted();
    let arrived = outcome.counters.get("records_emitted.kernel.syscall.enter").copied();
    let lost = outcome.lost_in_kernel(Reason::KernelRingFull);
    let dropped: u64 = outcome.snapshot.total.dropped.iter().map(|d| d.2).sum();
    let arrived = arrived.unwrap_or_default();
    println!(
        "{arrived} arrived, {lost} lost in the kernel, {} dropped after it, in {took:?}",
        dropped - lost,
    );
    Some((arrived, lost, dropped - lost))
}

#[test]
fn flood_is_accounted_for_exactly() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    const BYTES: u64 = 300_000;
    // System calls of the shell and dd, besides one read and one write for each byte.
    let Some((overhead, 0, 0)) = flood(0, 16 << 20, 1 << 20) else {
        return;
    };
    let (arrived, lost, _) = flood(BYTES, 16 << 20, 1 << 20).unwrap();
    assert_eq!(arrived + lost, overhead + 2 * BYTES);
    // Both the ring buffer and the ring after it are too small for the flood.
    let (arrived, lost, _) = flood(BYTES, 64 << 10, 4096).unwrap();
    assert_eq!(arrived + lost, overhead + 2 * BYTES);
}

#[test]
fn noisy_cgroup_is_throttled_and_counted() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let Some(cgroup) = TestCgroup::unified("noisy") else {
        return;
    };
    let config = Config {
        rate_per_cgroup: 10,
        burst_per_cgroup: 50,
        ..only(&[Kind::Fork, Kind::Exec, Kind::Exit])
    };
    let path = cgroup.path.clone();
    let running = start(&config, move |e| {
        e.get("tapio.cgroup.path") == path || e.kind == "tapio.kernel.lost"
    });
    let from = Instant::now();
    let loops = "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done";
    assert!(cgroup.shell(loops).status().unwrap().success());
    let seconds = from.elapsed().as_secs_f64();
    let outcome = running.finish();
    outcome.assert_accounted();
    let emitted = outcome.events.iter().filter(|e| e.kind != "tapio.kernel.lost").count();
    let allowed = 50.0 + 10.0 * (seconds + 1.0) + 2.0;
    assert!((50..=allowed as usize).contains(&emitted), "{emitted} of at most {allowed}");
    // 300 forks, execs and exits, and the shell's own.
    let throttled = outcome.lost_in_kernel(Reason::KernelThrottled);
    assert!(throttled >= 900 - emitted as u64, "{throttled}");
    let lost = outcome.of_kind("tapio.kernel.lost");
    let sum: u64 = lost.map(|e| e.number("tapio.lost.count")).sum();
    assert_eq!(sum, throttled, "each loss is emitted as an event as well");
}

#[test]
fn failed_system_calls_are_counted_in_the_kernel() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let Some(cgroup) = TestCgroup::unified("errors") else {
        return;
    };
    let path = cgroup.path.clone();
    let mut config = only(&[Kind::SyscallErrorRate]);
    config.syscall_errors.interval_ms = 1_000;
    let running = start(&config, move |e| e.get("tapio.cgroup.path") == path);
    let script = "i=0; while [ $i -lt 5000 ]; do cd /proc/version; i=$((i+1)); done 2>/dev/null";
    let status = cgroup.shell(script).stderr(Stdio::null()).status();
    status.unwrap();
    let outcome = running.finish();
    outcome.assert_accounted();
    let sum: u64 = outcome
        .of_kind("kernel.syscall.error_rate")
        .filter(|e| e.get("tapio.syscall.name") == "chdir" && e.get("error.type") == "ENOTDIR")
        .map(|e| e.number("tapio.count"))
        .sum();
    assert_eq!(sum, 5_000, "{:?}", outcome.events);
}

/// A loop device over a file on its own file system; both are removed on drop.
pub(super) struct LoopDevice {
    pub(super) device: String,
    folder: tempfile::TempDir,
}

impl LoopDevice {
    /// A device of 64 MiB of which only `capacity` can be written.
    pub(super) fn new(capacity: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={capacity} tmpfs {0} && truncate -s 64M {0}/image && \
             losetup -f --show {0}/image",
            folder.path().display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let made = Self { device, folder };
        if made.device.is_empty() {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(made)
    }

    pub(super) fn write(&self, megabytes: u32) -> bool {
        let to = format!("of={}", self.device);
        Command::new("dd")
            .args(["if=/dev/zero", &to, "bs=1M", "oflag=direct", &format!("count={megabytes}")])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if !self.device.is_empty() {
            let _ = Command::new("losetup").args(["-d", &self.device]).status();
        }
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

#[test]
fn block_errors_and_slow_requests_name_their_device() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let Some(disk) = LoopDevice::new("4m") else {
        return;
    };
    let name = disk.device.trim_start_matches("/dev/").to_owned();
    let config = Config { block_slow_ms: 0, ..only(&[Kind::BlockError, Kind::BlockSlow]) };
    let running = start(&config, move |e| e.get("tapio.block.device") == name);
    assert!(!disk.write(8), "the write exceeds the capacity");
    let outcome = running.finish();
    outcome.assert_accounted();
    let error = outcome.of_kind("kernel.block.error").next().unwrap();
    assert_eq!(error.get("tapio.block.operation"), "write");
    assert!(matches!(error.get("error.type"), "ENOSPC" | "EIO"), "{error:?}");
    assert!(error.number("tapio.block.bytes") > 0);
    let written: u64 = outcome
        .of_kind("kernel.block.slow")
        .filter(|e| e.get("tapio.block.operation") == "write")
        .map(|e| e.number("tapio.block.bytes"))
        .sum();
    assert!(written >= 4 << 20, "with a limit of 0 every request is slow: {written}");
}

/// Run by `cap_bpf_and_cap_perfmon_suffice` as an unprivileged user.
#[test]
#[ignore = "run by cap_bpf_and_cap_perfmon_suffice"]
fn collector_runs_as_unprivileged_user() {
    assert_ne!(rustix::process::geteuid().as_raw(), 0);
    assert!(is_ebpf_available());
    let running = start(&Config { rate_per_cgroup: 0, ..Config::default() }, is_of_child);
    for note in running.report.notes() {
        assert!(matches!(note.state.as_str(), "ok" | "off"), "{note:?}");
    }
    let expected: Vec<u32> = (0..50).map(|_| run_true()).collect();
    let outcome = running.finish();
    outcome.assert_accounted();
    let emitted: Vec<u32> = outcome.of_kind("kernel.process.exit").map(SeenEvent::pid).collect();
    assert_eq!(emitted, expected);
}

#[test]
fn cap_bpf_and_cap_perfmon_suffice() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can switch to a user with two capabilities");
    }
    // A folder from which every user may run the program.
    let folder = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let program = folder.path().join("kernel");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let caps = "-all,+bpf,+perfmon";
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([format!("--inh-caps={caps}"), format!("--ambient-caps={caps}")])
        .args([format!("--bounding-set={caps}")])
        .arg(&program)
        .args([
            "--ignored",
            "--exact",
            "losses::collector_runs_as_unprivileged_user",
            "--nocapture",
        ])
        .env("TAPIO_REQUIRE_KERNEL", "1")
        .current_dir("/")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(e) => return println!("skipped: setpriv: {e}"),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "{stdout}");
}

/// Panics at one event, as a defect in the collector would: not a router of tests/support, which
/// have no faults.
struct PanickingRouter(std::sync::atomic::AtomicU64);

impl Router for PanickingRouter {
    fn route(&self, _: &Event<'_>) -> Route {
        let before = self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        assert_ne!(before, 1, "the test's own panic");
        Route { visits: 1 }
    }
}

#[test]
fn collector_panic_is_accounted_for_and_recovered_from() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let mut ledger = Ledger::new(vec!["ebpf".into()]);
    let (collect, kernel) = (ledger.stage(Stage::Collect), ledger.stage(Stage::Kernel));
    let end = ledger.stage(Stage::Bridge);
    let (writer, mut reader) = tapio_core::ring::ring(1 << 16);
    let shards = vec![(writer, Arc::new(Bell::new(OnceLock::new())))];
    let shutdown = Shutdown::default();
    let router = Arc::new(PanickingRouter(100.into()));
    let sink = Sink::new(0, OnFull::Drop, router, shards, collect, shutdown.clone())
        .with_kernel_ledger(kernel);
    let config = only(&[Kind::Exec, Kind::Fork, Kind::Exit]);
    let mut manager =
        CollectorManager::new(tapio_collectors::Site::new("testnode", 7), shutdown.clone());
    let spec = CollectorSpec { name: "ebpf", factory: config.factory(), sink };
    manager.start(spec).unwrap();
    // Starts children until one causes the panic, and then until one is emitted again.
    eventually("the collector is restarted", || {
        run_true();
        manager.status()[0].restarts > 0
    });
    assert_eq!(manager.status()[0].restarts, 1);
    let error = manager.status()[0].last_error.clone();
    assert!(error.contains("the test's own panic"), "{error}");
    let mut last = Vec::new();
    let mut is_emitted = false;
    eventually("events are emitted after the restart", || {
        last.push(run_true());
        let n = reader.drain(usize::MAX, |record| {
            let pid = record.event().and_then(|e| e.entity(names::PROCESS_PID));
            is_emitted |= last.iter().any(|p| pid == Some(Value::from(*p)));
            true
        });
        end.add_received(0, n as u64);
        end.add_forwarded(0, n as u64);
        is_emitted
    });
    shutdown.request();
    manager.join();
    let n = reader.drain(usize::MAX, |_| true) as u64;
    end.add_received(0, n);
    end.add_forwarded(0, n);
    let snapshot = ledger.snapshot();
    let total = &snapshot.total;
    assert!(snapshot.holds() && total.held == 0, "CONS-1: {total:?}");
    let panicked = total.dropped.iter().find(|d| d.1 == Reason::CollectorPanic);
    assert!(panicked.is_some_and(|d| d.2 >= 1), "{total:?}");
}

/// Measures the collector's CPU time and latency. Prints the result; asserts nothing about speed.
#[test]
#[ignore = "a measurement: run it alone, with --nocapture, on an idle host"]
fn measure_idle_and_latency() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let wait = Duration::from_secs(5);
    let running = start(&Config::default(), |_| false);
    let before = RunningCollector::collector_cpu();
    std::thread::sleep(wait);
    let spent = RunningCollector::collector_cpu() - before;
    println!("idle: {:.3} % of a core", spent.as_secs_f64() / wait.as_secs_f64() * 100.0);
    running.finish().assert_accounted();

    let Some(cgroup) = TestCgroup::unified("rate") else {
        return;
    };
    let config = Config {
        rate_per_cgroup: 165_000,
        burst_per_cgroup: 1,
        syscall_enter_cgroup: Some(cgroup.path.clone()),
        ..only(&[Kind::SyscallEnter])
    };
    let running = start(&config, |e| e.kind == "kernel.syscall.enter");
    let before = RunningCollector::collector_cpu();
    let from = Instant::now();
    let flood = "exec timeout 3 dd if=/dev/zero of=/dev/null bs=1";
    let _ = cgroup.shell(flood).stderr(Stdio::null()).status();
    let (took, spent) = (from.elapsed(), RunningCollector::collector_cpu() - before);
    let outcome = running.finish();
    outcome.assert_accounted();
    let mut late: Vec<u64> =
        outcome.events.iter().map(|e| e.observed_ns.saturating_sub(e.time_ns)).collect();
    late.sort_unstable();
    let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize] / 1_000;
    println!(
        "{} events in {took:?} ({:.0}/s), latency in µs: p50 {} p99 {} p99.9 {} max {}; \
         {:.2} CPU s per million",
        late.len(),
        late.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        spent.as_secs_f64() / late.len() as f64 * 1e6,
    );
}
