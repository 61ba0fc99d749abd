//! Runs the collector into one ring, as the agent does, and keeps the events that a test selects.
//!
//! Not a `Pipeline`: tests compare the kernel's own counts with the accounts of a single run that
//! is never restarted, keep few of many events, and choose the size of the ring.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tapio_collectors::ebpf::{Config, findings};
use tapio_collectors::{CollectorConfig, Context, StatusReport};
use tapio_core::event::{ArchivedEvent, Name, Reason, Stage, Value};
use tapio_core::ring::{self, Bell, Ledger, OnFull, Sink, Snapshot};
use tapio_core::shutdown::Shutdown;

use super::support::cgroup::remove_cgroup;
use super::support::eventually::eventually;
use super::support::router::OneShard;
use super::support::skip::skipped;

/// Blocks of the ring between the collector and the test: 64 MiB, so that a slow debug build on a
/// busy host doesn't drop events that the test counts.
const RING_BLOCKS: usize = 1 << 20;

/// Name of the collector's thread.
const COLLECTOR: &str = "c:ebpf";

/// Reserves the kernel for one test, so that the flood of one test causes no loss in another.
pub(super) fn exclusive_kernel() -> MutexGuard<'static, ()> {
    static KERNEL: Mutex<()> = Mutex::new(());
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether eBPF is available. Prints the cause if it isn't, or fails with
/// `TAPIO_REQUIRE_KERNEL=1`.
pub(super) fn is_ebpf_available() -> bool {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        findings(&Config::default())
            .into_iter()
            .filter(|f| !f.ok && (f.subject.starts_with("program ") || f.subject == "eBPF object"))
            .map(|f| format!("{}: {}", f.subject, f.state))
            .collect()
    });
    if missing.is_empty() {
        return true;
    }
    skipped(&missing.join("; "));
    false
}

/// An event as text, by field name.
#[derive(Clone, Debug)]
pub(super) struct SeenEvent {
    pub(super) kind: &'static str,
    pub(super) fields: HashMap<&'static str, String>,
    pub(super) message: String,
    pub(super) severity: u8,
    pub(super) time_ns: u64,
    pub(super) observed_ns: u64,
    pub(super) id: String,
}

impl SeenEvent {
    fn of(event: &ArchivedEvent<'_>) -> Self {
        let text = |value: Value<'_>| match value {
            Value::Str(s) | Value::Json(s) => s.to_owned(),
            Value::Int(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            other => format!("{other:?}"),
        };
        let all = event.entity_fields().iter().chain(event.attribute_fields());
        Self {
            kind: event.kind_name().text(),
            fields: all.map(|f| (Name::text(f.name()), text(f.value.get()))).collect(),
            message: event.message.to_string(),
            severity: event.severity().0,
            time_ns: event.time(),
            observed_ns: event.observed_ns.to_native(),
            id: event.event_id().to_string(),
        }
    }

    pub(super) fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    pub(super) fn number(&self, field: &str) -> u64 {
        self.get(field).parse().unwrap_or_default()
    }

    pub(super) fn pid(&self) -> u32 {
        self.number("process.pid") as u32
    }
}

/// A running collector.
pub(super) struct RunningCollector {
    shutdown: Shutdown,
    drained: Arc<AtomicBool>,
    collector: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<Vec<SeenEvent>>>,
    pub(super) report: StatusReport,
    ledger: Arc<Ledger>,
}

/// The result of a run.
pub(super) struct Outcome {
    pub(super) events: Vec<SeenEvent>,
    pub(super) snapshot: Snapshot,
    pub(super) counters: HashMap<String, u64>,
}

impl Outcome {
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &SeenEvent> {
        self.events.iter().filter(move |e| e.kind == kind)
    }

    /// Number of events lost in the kernel for this reason.
    pub(super) fn lost_in_kernel(&self, reason: Reason) -> u64 {
        let dropped = &self.snapshot.total.dropped;
        dropped.iter().filter(|d| d.0 == Stage::Kernel && d.1 == reason).map(|d| d.2).sum()
    }

    /// Asserts CONS-1: nothing is held at the end, and every record that the kernel emitted
    /// arrived.
    pub(super) fn assert_accounted(&self) {
        let total = &self.snapshot.total;
        assert!(self.snapshot.holds(), "CONS-1: {total:?}");
        assert_eq!(total.held, 0, "{total:?}");
        let dropped: u64 = total.dropped.iter().map(|d| d.2).sum();
        assert_eq!(total.received, total.forwarded + dropped, "{total:?}");
        let emitted: u64 =
            self.counters.iter().filter(|c| c.0.starts_with("records_emitted.")).map(|c| c.1).sum();
        assert_eq!(emitted, self.counters["records_drained"], "records were lost after the kernel");
        let bad = total.dropped.iter().any(|d| d.1 == Reason::BadInput);
        assert!(!bad, "a record couldn't be parsed: {total:?}");
    }
}

/// Starts the collector; `keep` selects the events of the outcome. Returns when the programs are
/// attached and enabled.
pub(super) fn start(
    config: &Config,
    keep: impl Fn(&SeenEvent) -> bool + Send + 'static,
) -> RunningCollector {
    start_with_ring(config, RING_BLOCKS, keep)
}

pub(super) fn start_with_ring(
    config: &Config,
    blocks: usize,
    keep: impl Fn(&SeenEvent) -> bool + Send + 'static,
) -> RunningCollector {
    let mut ledger = Ledger::new(vec!["ebpf".into()]);
    let collect = ledger.stage(Stage::Collect);
    let kernel = ledger.stage(Stage::Kernel);
    let end = ledger.stage(Stage::Bridge);
    let (writer, mut reader) = ring::ring(blocks);
    let bell = Arc::new(Bell::new(OnceLock::new()));
    let shutdown = Shutdown::default();
    let shards = vec![(writer, bell)];
    let sink = Sink::new(0, OnFull::Drop, Arc::new(OneShard), shards, collect, shutdown.clone())
        .with_kernel_ledger(kernel);
    let report = StatusReport::default();
    let mut context = Context::new(
        sink,
        shutdown.clone(),
        report.clone(),
        tapio_collectors::Site::new("testnode", 7),
    );
    let make = config.factory();
    let collector = std::thread::Builder::new()
        .name(COLLECTOR.into())
        .spawn(move || {
            let ended = make().run(&mut context);
            assert!(ended.is_ok(), "the collector failed: {ended:?}");
        })
        .unwrap();
    let drained = Arc::new(AtomicBool::new(false));
    let finished = Arc::clone(&drained);
    let reader = std::thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            let last = finished.load(Ordering::Acquire);
            let n = reader.drain(usize::MAX, |record| {
                if let Some(event) = record.event() {
                    let seen = SeenEvent::of(event);
                    if keep(&seen) {
                        kept.push(seen);
                    }
                }
                true
            });
            end.add_received(0, n as u64);
            end.add_forwarded(0, n as u64);
            if n == 0 {
                if last {
                    return kept;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let running = RunningCollector {
        shutdown,
        drained,
        collector: Some(collector),
        reader: Some(reader),
        report,
        ledger: Arc::new(ledger),
    };
    running.wait_until_enabled();
    running
}

impl RunningCollector {
    fn wait_until_enabled(&self) {
        // The collector publishes its counters once the programs are attached and enabled.
        let collector = self.collector.as_ref().unwrap();
        eventually("the programs are enabled", || {
            !self.report.counters().is_empty() || collector.is_finished()
        });
        assert!(!collector.is_finished(), "the collector ended at once");
    }

    /// CPU time the collector's thread has used so far.
    pub(super) fn collector_cpu() -> Duration {
        let of = |task: PathBuf| {
            let name = fs::read_to_string(task.join("comm")).ok()?;
            let spent = fs::read_to_string(task.join("schedstat")).ok()?;
            let ns = spent.split_whitespace().next()?.parse().ok()?;
            (name.trim() == COLLECTOR).then(|| Duration::from_nanos(ns))
        };
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        tasks.flatten().filter_map(|t| of(t.path())).sum()
    }

    /// Ends the collector. Returns the result of the run.
    pub(super) fn finish(mut self) -> Outcome {
        self.shutdown.request();
        self.collector.take().unwrap().join().unwrap();
        self.drained.store(true, Ordering::Release);
        let events = self.reader.take().unwrap().join().unwrap();
        Outcome {
            events,
            snapshot: self.ledger.snapshot(),
            counters: self.report.counters().into_iter().collect(),
        }
    }
}

/// A cgroup that is removed with the value.
pub(super) struct TestCgroup {
    pub(super) folder: PathBuf,
    /// Its path below its hierarchy's root.
    pub(super) path: String,
}

fn unified_root() -> PathBuf {
    let plain = Path::new("/sys/fs/cgroup");
    if plain.join("cgroup.controllers").exists() { plain.into() } else { plain.join("unified") }
}

impl TestCgroup {
    fn in_root(root: &Path, name: &str) -> Option<Self> {
        let name = format!("tapio-test-{}-{name}", std::process::id());
        let folder = root.join(&name);
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self { folder, path: format!("/{name}") }),
            Err(e) => {
                println!("skipped: {}: {e}", folder.display());
                None
            }
        }
    }

    /// A cgroup of the unified hierarchy.
    pub(super) fn unified(name: &str) -> Option<Self> {
        Self::in_root(&unified_root(), name)
    }

    /// A cgroup with a memory limit, version 1 or 2, whichever the host has.
    pub(super) fn limited(name: &str, bytes: u64) -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (cgroup, file) = if v1.join("memory.limit_in_bytes").exists() {
            (Self::in_root(v1, name)?, "memory.limit_in_bytes")
        } else {
            let _ = fs::write(unified_root().join("cgroup.subtree_control"), "+memory");
            let cgroup = Self::in_root(&unified_root(), name)?;
            let _ = fs::write(cgroup.folder.join("memory.swap.max"), "0");
            (cgroup, "memory.max")
        };
        match fs::write(cgroup.folder.join(file), bytes.to_string()) {
            Ok(()) => Some(cgroup),
            Err(e) => {
                println!("skipped: {}/{file}: {e}", cgroup.folder.display());
                None
            }
        }
    }

    /// A shell script that runs in the cgroup.
    pub(super) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        let procs = self.folder.join("cgroup.procs");
        command.args(["-c", &format!("echo $$ >{}; {script}", procs.display())]);
        command
    }

    /// Number of OOM kills in the cgroup, by its own counter.
    pub(super) fn oom_kills(&self) -> u64 {
        ["memory.oom_control", "memory.events"]
            .iter()
            .filter_map(|file| fs::read_to_string(self.folder.join(file)).ok())
            .find_map(|text| {
                let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "))?;
                line.trim().parse().ok()
            })
            .unwrap_or_default()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.folder);
    }
}
