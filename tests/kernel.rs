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

#[path = "kernel/harness.rs"]
mod harness;

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harness::{Running, Seen, TestCgroup, kernel_is_here, start, start_with_ring, turn};
use tapio::collector::ebpf::{Config, Kind};
use tapio::collector::{CollectorConfig as _, CollectorManager, CollectorSpec};
use tapio::event::{Event, Reason, Stage, Value, names};
use tapio::ring::{Bell, Ledger, OnFull, Route, Router, Sink, Stop};

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
    std::thread::sleep(Duration::from_millis(300));
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
    let mut child = group
        .shell(&format!(
            "exec dd if=/dev/zero of=/dev/null bs=1 count={bytes}"
        ))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let from = Instant::now();
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
        "{arrived} arrived, {lost} lost in the kernel, {} behind it, in {took:?}",
        dropped - lost,
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
    let from = Instant::now();
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

#[test]
fn a_daemon_that_was_there_before_has_a_name() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = TcpStream::connect(address).unwrap();
    let accepted = listener.accept().unwrap();
    let running = start(&only(&[Kind::Accept, Kind::Close]), move |e| {
        e.number("network.local.port") == u64::from(address.port())
    });
    drop((open, accepted));
    let near = TcpStream::connect(address).unwrap();
    drop((listener.accept().unwrap(), near));
    std::thread::sleep(Duration::from_millis(200));
    let outcome = running.finish();
    outcome.assert_accounted();
    assert_eq!(outcome.of_kind("kernel.tcp.accept").count(), 1);
    assert_eq!(outcome.of_kind("kernel.tcp.close").count(), 2);
    for event in &outcome.events {
        assert_eq!(event.pid(), std::process::id(), "{event:?}");
        assert!(
            !event.get("process.executable.path").is_empty(),
            "{event:?}"
        );
        assert!(!event.get("tapio.process.tree").is_empty(), "{event:?}");
    }
}

#[test]
fn resets_are_told_from_both_sides() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let running = start(&only(&[Kind::Reset]), |e| e.pid() == std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = u64::from(listener.local_addr().unwrap().port());
    for _ in 0..50 {
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.write_all(b"unread").unwrap();
        // Give the bytes time to arrive: a close with unread bytes is a reset.
        std::thread::sleep(Duration::from_millis(2));
        drop(far);
        assert!(near.read(&mut [0; 8]).is_err());
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    let of = |direction: &'static str, field: &'static str| {
        outcome
            .of_kind("kernel.tcp.reset")
            .filter(move |e| e.get("network.io.direction") == direction && e.number(field) == port)
            .count()
    };
    assert_eq!(of("transmit", "network.local.port"), 50);
    assert_eq!(of("receive", "network.peer.port"), 50);
}

#[test]
fn a_peer_that_doesnt_answer_is_told() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    // Nobody accepts, so once the queue is full the kernel drops what comes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let second = Duration::from_millis(1_200);
    let mut queue = Vec::new();
    let kinds = [Kind::Retransmit, Kind::Timeout, Kind::Close, Kind::Connect];
    let running = start(&only(&kinds), move |e| {
        e.number("network.peer.port") == u64::from(address.port())
    });
    while let Ok(stream) = TcpStream::connect_timeout(&address, second) {
        queue.push(stream);
        assert!(queue.len() < 100, "the queue never fills");
    }
    let patient = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::sockopt::set_tcp_user_timeout(&patient, 500).unwrap();
    let gave_up = rustix::net::connect(&patient, &address).unwrap_err();
    assert_eq!(gave_up, rustix::io::Errno::TIMEDOUT);
    let outcome = running.finish();
    outcome.assert_accounted();
    let timeouts: Vec<&Seen> = outcome.of_kind("kernel.tcp.timeout").collect();
    assert_eq!(timeouts.len(), 1, "{:?}", outcome.events);
    assert_eq!(timeouts[0].get("error.type"), "ETIMEDOUT");
    assert_eq!(timeouts[0].pid(), std::process::id());
    let abandoned = outcome
        .of_kind("kernel.tcp.close")
        .filter(|e| e.get("error.type") == "connect_abandoned");
    assert_eq!(abandoned.count(), 1);
    let again = outcome.of_kind("kernel.tcp.retransmit").next().unwrap();
    assert_eq!(again.get("tapio.tcp.state"), "SYN_SENT");
    assert_eq!(again.pid(), std::process::id());
}

/// A loop device over a file on a file system of its own, which goes with the value.
struct LoopDevice {
    device: String,
    folder: tempfile::TempDir,
}

impl LoopDevice {
    /// A device of 64 MiB of which only `room` can be written.
    fn new(room: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={room} tmpfs {0} && truncate -s 64M {0}/image && \
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

    fn write(&self, megabytes: u32) -> bool {
        let to = format!("of={}", self.device);
        Command::new("dd")
            .args([
                "if=/dev/zero",
                &to,
                "bs=1M",
                "oflag=direct",
                &format!("count={megabytes}"),
            ])
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
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let Some(disk) = LoopDevice::new("4m") else {
        return;
    };
    let name = disk.device.trim_start_matches("/dev/").to_owned();
    let config = Config {
        block_slow_ms: 0,
        ..only(&[Kind::BlockError, Kind::BlockSlow])
    };
    let running = start(&config, move |e| e.get("tapio.block.device") == name);
    assert!(!disk.write(8), "there is no room for it");
    let outcome = running.finish();
    outcome.assert_accounted();
    let error = outcome.of_kind("kernel.block.error").next().unwrap();
    assert_eq!(error.get("tapio.block.operation"), "write");
    assert!(
        matches!(error.get("error.type"), "ENOSPC" | "EIO"),
        "{error:?}"
    );
    assert!(error.number("tapio.block.bytes") > 0);
    let written: u64 = outcome
        .of_kind("kernel.block.slow")
        .filter(|e| e.get("tapio.block.operation") == "write")
        .map(|e| e.number("tapio.block.bytes"))
        .sum();
    assert!(
        written >= 4 << 20,
        "every request took at least no time: {written}"
    );
}

/// What `the_two_capabilities_suffice` runs as an ordinary user.
#[test]
#[ignore = "run by the_two_capabilities_suffice"]
fn as_an_ordinary_user() {
    assert_ne!(rustix::process::geteuid().as_raw(), 0);
    assert!(kernel_is_here());
    let running = start(
        &Config {
            rate_per_cgroup: 0,
            ..Config::default()
        },
        is_childs,
    );
    for note in running.report.notes() {
        assert!(matches!(note.state.as_str(), "ok" | "off"), "{note:?}");
    }
    let truth: Vec<u32> = (0..50).map(|_| run_true()).collect();
    let outcome = running.finish();
    outcome.assert_accounted();
    let told: Vec<u32> = outcome
        .of_kind("kernel.process.exit")
        .map(Seen::pid)
        .collect();
    assert_eq!(told, truth);
}

#[test]
fn the_two_capabilities_suffice() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become somebody with two capabilities");
    }
    // Where anybody may run it.
    let folder = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let program = folder.path().join("kernel");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let caps = "-all,+bpf,+perfmon";
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([
            format!("--inh-caps={caps}"),
            format!("--ambient-caps={caps}"),
        ])
        .args([format!("--bounding-set={caps}")])
        .arg(&program)
        .args(["--ignored", "--exact", "as_an_ordinary_user", "--nocapture"])
        .env("TAPIO_REQUIRE_KERNEL", "1")
        .current_dir("/")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(e) => return println!("skipped: setpriv: {e}"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Panics at one event, as a defect in the middle of a run would.
struct Fragile(std::sync::atomic::AtomicU64);

impl Router for Fragile {
    fn route(&self, _: &Event<'_>) -> Route {
        let before = self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        assert_ne!(before, 1, "the test's own panic");
        Route { visits: 1 }
    }
}

#[test]
fn a_panic_in_the_middle_is_accounted_and_survived() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let mut ledger = Ledger::new(vec!["ebpf".into()]);
    let (collect, kernel) = (ledger.stage(Stage::Collect), ledger.stage(Stage::Kernel));
    let end = ledger.stage(Stage::Bridge);
    let (writer, mut reader) = tapio::ring::ring(1 << 16);
    let shards = vec![(writer, Arc::new(Bell::new(OnceLock::new())))];
    let stop = Stop::default();
    let router = Arc::new(Fragile(100.into()));
    let sink = Sink::new(0, OnFull::Drop, router, shards, collect, stop.clone())
        .with_kernel_ledger(kernel);
    let config = only(&[Kind::Exec, Kind::Fork, Kind::Exit]);
    let mut manager = CollectorManager::new("testnode", 7, stop.clone());
    let spec = CollectorSpec {
        name: "ebpf",
        make: config.make(),
        sink,
    };
    manager.start(spec, None).unwrap();
    // Children until it has died of one, and then until one is told again.
    let deadline = Instant::now() + Duration::from_secs(20);
    while manager.statistics()[0].restarts == 0 && Instant::now() < deadline {
        run_true();
    }
    assert_eq!(manager.statistics()[0].restarts, 1);
    let died = manager.statistics()[0].last_error.clone();
    assert!(died.contains("the test's own panic"), "{died}");
    let mut last = Vec::new();
    let mut told = false;
    while !told && Instant::now() < deadline {
        last.push(run_true());
        let n = reader.drain(usize::MAX, |record| {
            let pid = record.event().and_then(|e| e.entity(names::PROCESS_PID));
            told |= last.iter().any(|p| pid == Some(Value::from(*p)));
            true
        });
        end.take(0, n as u64);
        end.pass(0, n as u64);
    }
    assert!(told, "it goes on after the restart");
    stop.set();
    manager.join();
    let n = reader.drain(usize::MAX, |_| true) as u64;
    end.take(0, n);
    end.pass(0, n);
    let snapshot = ledger.snapshot();
    let total = &snapshot.total;
    assert!(snapshot.holds() && total.held == 0, "CONS-1: {total:?}");
    let with_it = total.dropped.iter().find(|d| d.1 == Reason::CollectorPanic);
    assert!(with_it.is_some_and(|d| d.2 >= 1), "{total:?}");
}

/// What the collector costs and how late it is. Prints; asserts nothing about speed.
#[test]
#[ignore = "a measurement: run it alone, with --nocapture, on a quiet machine"]
fn measure_idle_and_latency() {
    let _turn = turn();
    if !kernel_is_here() {
        return;
    }
    let wait = Duration::from_secs(5);
    let running = start(&Config::default(), |_| false);
    let before = Running::collector_cpu();
    std::thread::sleep(wait);
    let spent = Running::collector_cpu() - before;
    println!(
        "idle: {:.3} % of a core",
        spent.as_secs_f64() / wait.as_secs_f64() * 100.0
    );
    running.finish().assert_accounted();

    let Some(group) = TestCgroup::unified("rate") else {
        return;
    };
    let config = Config {
        rate_per_cgroup: 165_000,
        burst_per_cgroup: 1,
        syscall_enter_cgroup: Some(group.path.clone()),
        ..only(&[Kind::SyscallEnter])
    };
    let running = start(&config, |e| e.kind == "kernel.syscall.enter");
    let before = Running::collector_cpu();
    let from = Instant::now();
    let flood = "exec timeout 3 dd if=/dev/zero of=/dev/null bs=1";
    let _ = group.shell(flood).stderr(Stdio::null()).status();
    let (took, spent) = (from.elapsed(), Running::collector_cpu() - before);
    let outcome = running.finish();
    outcome.assert_accounted();
    let mut late: Vec<u64> = outcome
        .events
        .iter()
        .map(|e| e.observed_ns.saturating_sub(e.time_ns))
        .collect();
    late.sort_unstable();
    let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize] / 1_000;
    println!(
        "{} events in {took:?} ({:.0}/s), lag in µs: p50 {} p99 {} p99.9 {} max {}; {:.2} CPU s per million",
        late.len(),
        late.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        spent.as_secs_f64() / late.len() as f64 * 1e6,
    );
}
