//! The eBPF collector against the running kernel: what it tells is counted against what the test
//! itself did. Other processes of the machine go on meanwhile, so each test counts only what its
//! own children, ports and cgroups did.
//!
//! Without the privileges every test says why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that a
//! failure.
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure with the clock themselves"
)]

#[path = "kernel/harness.rs"]
mod harness;

use std::collections::{HashMap, HashSet};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use harness::{Running, Seen, TestCgroup, kernel_is_here, start, start_with_ring, turn};
use tapio::collector::ebpf::{Config, Kind};
use tapio::event::Reason;

fn only(kinds: &[Kind]) -> Config {
    Config {
        kinds: kinds.to_vec(),
        rate_per_cgroup: 0,
        include_self: true,
        ..Config::default()
    }
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

#[test]
fn ten_thousand_execs_are_counted_exactly() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let running = start(&only(&[Kind::Exec, Kind::Fork, Kind::Exit]), is_childs);
    let mut truth: HashMap<u32, usize> = HashMap::new();
    for _ in 0..10_000 {
        *truth.entry(run_true()).or_default() += 1;
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    for kind in [
        "kernel.process.exec",
        "kernel.process.fork",
        "kernel.process.exit",
    ] {
        let mut told: HashMap<u32, usize> = HashMap::new();
        for event in outcome.of_kind(kind) {
            *told.entry(event.pid()).or_default() += 1;
        }
        assert!(
            told == truth,
            "{kind}: {} told, {} true",
            told.len(),
            truth.len()
        );
    }
    let ids: HashSet<&str> = outcome.events.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(
        ids.len(),
        outcome.events.len(),
        "every event has an id of its own"
    );
    let exec = outcome.of_kind("kernel.process.exec").next().unwrap();
    assert_eq!(exec.get("process.executable.path"), "/bin/true");
    assert_eq!(exec.get("process.command_args"), r#"["/bin/true"]"#);
    assert_eq!(exec.get("host.name"), "testnode");
    assert!(!exec.get("tapio.cgroup.path").is_empty(), "{exec:?}");
    let exit = outcome.of_kind("kernel.process.exit").next().unwrap();
    assert_eq!(exit.get("process.exit.code"), "0");
    assert_eq!(exit.get("process.executable.path"), "/bin/true");
    // The tree is the one the test itself belongs to, so all have the same.
    let trees: HashSet<&str> = outcome
        .events
        .iter()
        .map(|e| e.get("tapio.process.tree"))
        .collect();
    assert_eq!(trees.len(), 1, "{trees:?}");
    let now = tapio::clock::wall_ns();
    assert!(
        now.abs_diff(exit.time_ns) < 120_000_000_000,
        "the time is the day's"
    );
}

#[test]
fn a_thousand_refused_connections_are_counted_exactly() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let running = start(
        &only(&[Kind::Refused, Kind::Connect, Kind::Close]),
        move |e| e.number("network.peer.port") == u64::from(port),
    );
    for _ in 0..1_000 {
        let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    assert_eq!(outcome.of_kind("kernel.tcp.refused").count(), 1_000);
    assert_eq!(
        outcome.events.len(),
        1_000,
        "and nothing else is told of them"
    );
    for event in &outcome.events {
        assert_eq!(event.get("network.peer.address"), "127.0.0.1");
        assert_eq!(event.get("network.local.address"), "127.0.0.1");
        assert_ne!(event.number("network.local.port"), 0);
        assert_eq!(event.get("error.type"), "ECONNREFUSED");
        assert_eq!(event.pid(), std::process::id());
        assert!(event.number("tapio.tcp.duration_ns") > 0);
    }
}

#[test]
fn connections_are_told_from_both_sides() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let running = start(
        &only(&[Kind::Connect, Kind::Accept, Kind::Close, Kind::Reset]),
        |e| e.pid() == std::process::id(),
    );
    let listener = TcpListener::bind("[::1]:0")
        .or_else(|_| TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..100 {
        let near = TcpStream::connect(address).unwrap();
        drop((listener.accept().unwrap(), near));
    }
    // Both sides' last states pass within a few milliseconds on loopback.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let outcome = running.finish();
    outcome.assert_accounted();
    let of_port = |kind, field: &'static str| {
        let port = u64::from(address.port());
        outcome
            .of_kind(kind)
            .filter(move |e| e.number(field) == port)
    };
    assert_eq!(
        of_port("kernel.tcp.connect", "network.peer.port").count(),
        100
    );
    assert_eq!(
        of_port("kernel.tcp.accept", "network.local.port").count(),
        100
    );
    assert_eq!(
        of_port("kernel.tcp.close", "network.peer.port").count(),
        100
    );
    assert_eq!(
        of_port("kernel.tcp.close", "network.local.port").count(),
        100
    );
    let accept = of_port("kernel.tcp.accept", "network.local.port")
        .next()
        .unwrap();
    assert_eq!(
        accept.get("network.local.address"),
        address.ip().to_string()
    );
}

#[test]
fn twenty_oom_kills_are_counted_exactly() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    const LIMIT: u64 = 16 << 20;
    let Some(group) = TestCgroup::limited("oom", LIMIT) else {
        return;
    };
    let path = group.path.clone();
    let kinds = [
        Kind::OomKill,
        Kind::Exit,
        Kind::Exec,
        Kind::Fork,
        Kind::Signal,
    ];
    let running = start(&only(&kinds), move |e| {
        e.get("tapio.oom.cgroup") == path || e.get("tapio.cgroup.path") == path
    });
    let mut truth = Vec::new();
    for _ in 0..20 {
        let mut child = group.shell("exec tail /dev/zero").spawn().unwrap();
        truth.push(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    assert_eq!(group.oom_kills(), 20, "the kernel's own count");
    let outcome = running.finish();
    outcome.assert_accounted();
    let told: Vec<u32> = outcome
        .of_kind("kernel.process.oom_kill")
        .map(Seen::pid)
        .collect();
    assert_eq!(told, truth);
    for event in outcome.of_kind("kernel.process.oom_kill") {
        assert_eq!(event.get("tapio.oom.scope"), "cgroup");
        assert_eq!(event.number("tapio.oom.limit_bytes"), LIMIT);
        assert_eq!(event.get("tapio.oom.cgroup"), group.path);
        assert!(event.number("tapio.oom.usage_bytes") <= LIMIT);
        let resident = event.number("tapio.oom.rss_bytes");
        assert!((LIMIT / 2..=LIMIT * 2).contains(&resident), "{resident}");
        assert_eq!(event.get("process.executable.name"), "tail");
        assert!(event.message.starts_with("tail (pid "), "{}", event.message);
        assert_eq!(event.severity, 17);
    }
    let killed: Vec<u32> = outcome
        .of_kind("kernel.process.exit")
        .filter(|e| e.get("tapio.signal.name") == "SIGKILL")
        .map(Seen::pid)
        .collect();
    assert_eq!(killed, truth, "each victim's end is told too");
}

#[test]
fn a_crash_is_told_as_signal_and_exit() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let running = start(
        &only(&[Kind::Signal, Kind::Exit, Kind::Exec, Kind::Fork]),
        is_childs,
    );
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -c 0; kill -SEGV $$"])
        .spawn()
        .unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().signal(), Some(11));
    let mut failing = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    let failed = failing.id();
    failing.wait().unwrap();
    let outcome = running.finish();
    outcome.assert_accounted();
    let one = |kind, pid| {
        let mut all = outcome.of_kind(kind).filter(|e| e.pid() == pid);
        let first = all.next().unwrap();
        assert!(all.next().is_none(), "{kind} is told once");
        first
    };
    let signal = one("kernel.process.signal", pid);
    assert_eq!(signal.get("tapio.signal.name"), "SIGSEGV");
    assert_eq!(signal.number("tapio.signal.sender.pid"), u64::from(pid));
    assert_eq!(signal.get("tapio.signal.fatal"), "true");
    let exit = one("kernel.process.exit", pid);
    assert_eq!(exit.get("error.type"), "SIGSEGV");
    assert_eq!((exit.get("tapio.signal.number"), exit.severity), ("11", 17));
    assert!(exit.number("tapio.process.duration_ns") > 0);
    assert_eq!(
        exit.get("tapio.process.exec_id"),
        signal.get("tapio.process.exec_id")
    );
    let exit = one("kernel.process.exit", failed);
    assert_eq!(
        (exit.get("process.exit.code"), exit.get("error.type")),
        ("7", "exit_code")
    );
    assert_eq!(exit.severity, 13);
}

#[test]
fn secrets_never_reach_an_event() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let running = start(&only(&[Kind::Exec]), is_childs);
    let status = Command::new("/bin/true")
        .args([
            "--password",
            "hunter2-a",
            "--token=hunter2-b",
            "postgres://u:hunter2-c@h/d",
            "plain",
        ])
        .status();
    assert!(status.unwrap().success());
    let outcome = running.finish();
    outcome.assert_accounted();
    let exec = outcome.of_kind("kernel.process.exec").next().unwrap();
    assert_eq!(
        exec.get("process.command_args"),
        r#"["/bin/true","--password","***","--token=***","postgres://u:***@h/d","plain"]"#
    );
    assert!(!format!("{exec:?}").contains("hunter2"));
}

#[test]
fn a_cgroup_that_lives_for_milliseconds_keeps_its_path() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let running = start(&only(&[Kind::Exec, Kind::Fork, Kind::Exit]), is_childs);
    let id = "ab".repeat(32);
    let uid = "0af76519-16cd-43dd-8448-eb211c80319c";
    let mut truth = Vec::new();
    for round in 0..20 {
        let Some(pod) = TestCgroup::unified(&format!("brief{round}")) else {
            return;
        };
        let folder = pod.folder.join(format!("pod{uid}")).join(&id);
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!("echo $$ >{}/cgroup.procs; exec /bin/true", folder.display());
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        truth.push((child.id(), format!("{}/pod{uid}/{id}", pod.path)));
        child.wait().unwrap();
        std::fs::remove_dir(&folder).unwrap();
        std::fs::remove_dir(folder.parent().unwrap()).unwrap();
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    for (pid, path) in truth {
        for kind in ["kernel.process.exec", "kernel.process.exit"] {
            let last = outcome
                .of_kind(kind)
                .filter(|e| e.pid() == pid)
                .last()
                .unwrap();
            assert_eq!(last.get("tapio.cgroup.path"), path, "{kind}");
            assert_eq!(last.get("container.id"), id);
            assert_eq!(last.get("k8s.pod.uid"), uid);
        }
    }
}

/// Runs dd in a cgroup of its own and tells how many system calls were entered there: those that
/// arrived and those that were lost.
fn flood(bytes: u64, ring_buffer_bytes: u32, ring_blocks: usize) -> Option<(u64, u64, u64)> {
    let group = TestCgroup::unified("flood")?;
    let config = Config {
        ring_buffer_bytes,
        syscall_enter_cgroup: Some(group.path.clone()),
        ..only(&[Kind::SyscallEnter])
    };
    let running = start_with_ring(&config, ring_blocks, |_| false);
    let cpu = Running::cpu();
    let mut child = group
        .shell(&format!(
            "exec dd if=/dev/zero of=/dev/null bs=1 count={bytes}"
        ))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let from = std::time::Instant::now();
    assert!(child.wait().unwrap().success());
    let took = from.elapsed();
    let outcome = running.finish();
    outcome.assert_accounted();
    let arrived = outcome
        .counters
        .get("emitted.kernel.syscall.enter")
        .copied();
    let lost = outcome.lost_in_kernel(Reason::KernelRingFull);
    let dropped: u64 = outcome.snapshot.total.dropped.iter().map(|d| d.2).sum();
    let arrived = arrived.unwrap_or_default();
    println!(
        "{arrived} arrived, {lost} lost in the kernel, {} behind it, in {took:?}, CPU {:?}",
        dropped - lost,
        Running::cpu() - cpu,
    );
    Some((arrived, lost, dropped - lost))
}

#[test]
fn a_flood_is_accounted_to_the_last_system_call() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    const BYTES: u64 = 300_000;
    // What the shell and dd call besides one read and one write for each byte.
    let Some((around, 0, 0)) = flood(0, 16 << 20, 1 << 20) else {
        return;
    };
    let (arrived, lost, _) = flood(BYTES, 16 << 20, 1 << 20).unwrap();
    assert_eq!(arrived + lost, around + 2 * BYTES);
    // A ring buffer too small for the flood, and a ring behind it too small as well.
    let (arrived, lost, _) = flood(BYTES, 64 << 10, 4096).unwrap();
    assert_eq!(arrived + lost, around + 2 * BYTES);
}

#[test]
fn a_noisy_cgroup_is_throttled_and_counted() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let Some(group) = TestCgroup::unified("noisy") else {
        return;
    };
    let config = Config {
        rate_per_cgroup: 10,
        burst_per_cgroup: 50,
        ..only(&[Kind::Fork, Kind::Exec, Kind::Exit])
    };
    let path = group.path.clone();
    let running = start(&config, move |e| {
        e.get("tapio.cgroup.path") == path || e.kind == "tapio.kernel.lost"
    });
    let from = std::time::Instant::now();
    let loops = "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done";
    assert!(group.shell(loops).status().unwrap().success());
    let seconds = from.elapsed().as_secs_f64();
    let outcome = running.finish();
    outcome.assert_accounted();
    let told = outcome
        .events
        .iter()
        .filter(|e| e.kind != "tapio.kernel.lost")
        .count();
    let allowed = 50.0 + 10.0 * (seconds + 1.0) + 2.0;
    assert!(
        (50..=allowed as usize).contains(&told),
        "{told} of at most {allowed}"
    );
    // 300 forks, execs and exits, and the shell's own.
    let throttled = outcome.lost_in_kernel(Reason::KernelThrottled);
    assert!(throttled >= 900 - told as u64, "{throttled}");
    let lost = outcome.of_kind("tapio.kernel.lost");
    let sum: u64 = lost.map(|e| e.number("tapio.lost.count")).sum();
    assert_eq!(sum, throttled, "each loss is told in the stream as well");
}

#[test]
fn failing_system_calls_are_summed_up_in_the_kernel() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let Some(group) = TestCgroup::unified("errors") else {
        return;
    };
    let path = group.path.clone();
    let mut config = only(&[Kind::SyscallErrorRate]);
    config.syscall_errors.interval_ms = 1_000;
    let running = start(&config, move |e| e.get("tapio.cgroup.path") == path);
    let script = "i=0; while [ $i -lt 5000 ]; do cd /proc/version; i=$((i+1)); done 2>/dev/null";
    let status = group.shell(script).stderr(Stdio::null()).status();
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
