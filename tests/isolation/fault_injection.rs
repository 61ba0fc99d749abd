//! Injects faults into one collector of a whole agent.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tapio::runtime::{Agent, AgentProcess, Config, Sandbox};
use tapio_collectors::{CollectorConfig as _, Needs, Row, jsonl};
use tapio_core::event::Event;
use tapio_core::ring::{CollectorAccount, Route, Router};

use crate::support::eventually::eventually_ok;
use crate::support::net::get;
use crate::support::skip::skipped;

/// The source that must not be affected.
const STEADY: &str = "steady";
/// Lines that it writes at a time, with a pause after them.
const LINES: u64 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// `collectors.hung_after`: longer than a busy host delays a thread.
const HUNG_AFTER: &str = "3s";
/// Added to the pause between two checks of a condition, which may trigger an event each time.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);

const PANIC: u8 = 1;
const HANG: u8 = 2;

/// A router that lets one collector's thread panic or hang while it emits an event. It wraps the
/// agent's own router, the rules.
struct FaultyRouter {
    inner: Arc<dyn Router>,
    fault: Arc<Fault>,
}

/// The fault for the thread's next event.
struct Fault {
    thread: String,
    armed: AtomicU8,
    injected: AtomicU64,
    is_hanging: AtomicBool,
}

impl Router for FaultyRouter {
    fn route(&self, event: &Event<'_>) -> Route {
        let fault = &self.fault;
        if fault.armed.load(Ordering::SeqCst) != 0
            && std::thread::current().name() == Some(&fault.thread)
        {
            match fault.armed.swap(0, Ordering::SeqCst) {
                PANIC => {
                    fault.injected.fetch_add(1, Ordering::SeqCst);
                    panic!("injected");
                }
                HANG => {
                    fault.is_hanging.store(true, Ordering::SeqCst);
                    fault.injected.fetch_add(1, Ordering::SeqCst);
                    while fault.is_hanging.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                _ => {}
            }
        }
        self.inner.route(event)
    }
}

/// Writes lines into a fifo until it is dropped, and counts them.
struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Steady {
    fn start(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stop_in_thread = Arc::clone(&stop);
        // Opens both ends, so that opening doesn't block until the collector reads.
        let mut fifo = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let write = move || {
            let mut lines = 0;
            while !stop_in_thread.load(Ordering::SeqCst) {
                let text: String = (lines..lines + LINES)
                    .map(|n| format!("{{\"time\":{},\"kind\":\"test.steady\"}}\n", n + 1))
                    .collect();
                fifo.write_all(text.as_bytes()).unwrap();
                lines += LINES;
                std::thread::sleep(PAUSE);
            }
            lines
        };
        Self { stop, thread: Some(std::thread::spawn(write)) }
    }

    /// Stops it. Returns the number of lines.
    fn stop(&mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// An agent with faults in one collector.
pub(crate) struct FaultTest {
    name: &'static str,
    agent: Agent,
    fault: Arc<Fault>,
    steady: Steady,
    ticked: Instant,
    _folder: tempfile::TempDir,
}

impl FaultTest {
    /// Starts the agent. `collector`: the collector's section in `collectors`. `None` where the
    /// host lacks what the collector needs.
    pub(crate) fn begin(name: &'static str, collector: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("steady");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let yaml = format!(
            "state_dir: {0}/state\nnode: test\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
             dataflow: {{ shards: 2, flush_interval: 50ms }}\n\
             server: {{ grpc_listen: \"127.0.0.1:0\", http_listen: \"127.0.0.1:0\", data_dir: \"{0}/data\" }}\n\
             collectors: {{ only: [{name}], hung_after: {HUNG_AFTER}, {name}: {{ {collector} }} }}\n",
            folder.path().display(),
        );
        let path = folder.path().join("tapio.yaml");
        std::fs::write(&path, yaml).unwrap();
        let config = Config::read(&path).unwrap();
        let lines = jsonl::Config { paths: vec![fifo.clone()], follow: false };
        let mut rows = config.collectors.rows();
        rows.push(Row {
            has_given_times: false,
            busy_threads: &[],
            name: STEADY,
            about: "Counted lines.",
            enabled: true,
            reads_again: false,
            on_full: lines.on_full(),
            factory: lines.factory(),
            needs: Needs { files: lines.files(), ..Needs::default() },
        });
        let fault = Arc::new(Fault {
            thread: format!("c:{name}"),
            armed: AtomicU8::new(0),
            injected: AtomicU64::new(0),
            is_hanging: AtomicBool::new(false),
        });
        let for_router = Arc::clone(&fault);
        // Limits the rights of this thread and of those that it starts: a restarted collector has
        // the same ones as in a process of its own.
        let start = move || {
            let sandbox = Sandbox::of_agent(&config, true, &rows).unwrap();
            let process = AgentProcess { sandbox, ..AgentProcess::default() };
            Agent::start_in(process, config, true, rows, |inner, _| {
                Arc::new(FaultyRouter { inner, fault: for_router })
            })
        };
        let agent = std::thread::spawn(start).join().unwrap().unwrap();
        let steady = Steady::start(&fifo);
        let ticked = Instant::now();
        let mut test = Self { name, agent, fault, steady, ticked, _folder: folder };
        test.wait_until("the collector runs or is unavailable", |o| o.health() != "starting");
        std::thread::sleep(Duration::from_millis(200));
        if test.health() != "unavailable" {
            return Some(test);
        }
        let why = test.status()["last_error"].to_string();
        skipped(&why);
        test.steady.stop();
        None
    }

    fn page(&self, path: &str) -> (String, String) {
        get(self.agent.admin_addr().port(), path).unwrap()
    }

    /// The collector's part of `/status`.
    pub(crate) fn status(&self) -> Json {
        let status: Json = serde_json::from_str(&self.page("/status").1).unwrap();
        assert_eq!(status["cons1"]["holds"], true, "CONS-1: {status:#}");
        let steady = &status["collectors"][STEADY];
        assert!(steady["health"] == "running" || steady["health"] == "starting", "{steady}");
        assert_eq!(steady["restarts"], 0, "{steady}");
        status["collectors"][self.name].clone()
    }

    pub(crate) fn health(&self) -> String {
        self.status()["health"].as_str().unwrap().to_owned()
    }

    /// The collector's status note on a subject.
    #[allow(dead_code, reason = "shared with tests that use less of it")]
    pub(crate) fn note(&self, subject: &str) -> String {
        self.status()["notes"][subject].as_str().unwrap_or_default().to_owned()
    }

    fn restarts(&self) -> u64 {
        self.status()["restarts"].as_u64().unwrap()
    }

    /// A counter of the collector.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().unwrap_or_default()
    }

    fn account(&self, name: &str) -> CollectorAccount {
        let account = self.agent.account();
        account.collectors.into_iter().find(|c| c.name == name).unwrap()
    }

    /// The number of the collector's events that the server has stored.
    pub(crate) fn forwarded(&self) -> u64 {
        self.account(self.name).forwarded
    }

    /// The same, once the collector has no held events.
    pub(crate) fn forwarded_when_idle(&mut self) -> u64 {
        self.wait_until("no event is held", |o| o.account(o.name).held == 0);
        self.forwarded()
    }

    /// Waits for a condition. Each check verifies CONS-1 and the steady source.
    pub(crate) fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        eventually_ok(what, || {
            if holds(self) {
                return Ok(());
            }
            let status = self.status();
            if self.ticked.elapsed() > Duration::from_secs(1) {
                self.ticked = Instant::now();
                self.agent.poll();
            }
            std::thread::sleep(CHECK_INTERVAL);
            Err(status)
        });
    }

    /// Waits until the collector runs and a new event reaches the server.
    pub(crate) fn emits(&mut self, trigger: &mut dyn FnMut()) {
        self.wait_until("the collector runs", |o| o.health() == "running");
        let before = self.forwarded();
        self.wait_until("a new event is stored", |o| {
            trigger();
            o.forwarded() > before
        });
    }

    /// Its thread panics, and the collector is restarted.
    pub(crate) fn panics(&mut self, trigger: &mut dyn FnMut()) {
        let restarts = self.restarts();
        self.fault.armed.store(PANIC, Ordering::SeqCst);
        self.wait_until("the collector is restarted", |o| {
            trigger();
            o.restarts() > restarts
        });
        let error = self.status()["last_error"].to_string();
        assert!(error.contains("panicked: injected"), "{error}");
        self.emits(trigger);
        let dropped = self.account(self.name).dropped;
        let panics = dropped.iter().filter(|d| d.1 == tapio_core::event::Reason::CollectorPanic);
        assert!(
            panics.map(|d| d.2).sum::<u64>() >= 1,
            "the event of the panic is counted: {dropped:?}"
        );
    }

    /// Its thread hangs, and another one replaces it. Returns while the first one still hangs.
    pub(crate) fn hangs(&mut self, trigger: &mut dyn FnMut()) {
        let (restarts, injected) = (self.restarts(), self.fault.injected.load(Ordering::SeqCst));
        self.fault.armed.store(HANG, Ordering::SeqCst);
        self.wait_until("the fault is injected", |o| {
            trigger();
            o.fault.injected.load(Ordering::SeqCst) > injected
        });
        self.wait_until("the status is hung", |o| o.health() == "hung");
        let status = self.status();
        assert!(status["last_error"].to_string().contains("no heartbeat"), "{status}");
        assert!(status["heartbeat_age_ms"].as_u64() > Some(2_000), "{status}");
        let (head, why) = self.page("/readyz");
        assert!(head.contains("503") && why.contains(self.name), "{head} {why}");
        self.wait_until("another run replaces it", |o| o.restarts() > restarts);
        self.emits(trigger);
    }

    /// The replacing thread hangs as well. There is no third one, so that hung threads don't pile
    /// up; the status stays `hung`.
    pub(crate) fn successor_hangs(&mut self) {
        let restarts = self.restarts();
        self.fault.armed.store(HANG, Ordering::SeqCst);
        self.wait_until("the status is hung", |o| o.health() == "hung");
        let since = Instant::now();
        self.wait_until("a third thread would have started", |_| {
            since.elapsed() > Duration::from_secs(6)
        });
        assert_eq!((self.health().as_str(), self.restarts()), ("hung", restarts));
    }

    /// The hung thread resumes: it ends, and the run that replaced it isn't affected.
    pub(crate) fn resumes(&mut self, trigger: &mut dyn FnMut()) {
        self.fault.is_hanging.store(false, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        self.emits(trigger);
    }

    /// A panic, then a hang.
    pub(crate) fn panics_and_hangs(&mut self, trigger: &mut dyn FnMut()) {
        self.emits(trigger);
        self.panics(trigger);
        self.hangs(trigger);
        self.resumes(trigger);
    }

    /// Ends the agent. All events of the other source are stored, each once, and CONS-1 is exact.
    /// Returns the collector's account.
    pub(crate) fn end(mut self) -> CollectorAccount {
        let lines = self.steady.stop();
        self.wait_until("all lines are stored", |o| o.account(STEADY).forwarded >= lines);
        let account = self.agent.drain();
        let is_hanging = self.fault.is_hanging.swap(false, Ordering::SeqCst);
        assert!(account.holds(), "CONS-1: {account:?}");
        // A flood may be left in the spool, for the next start.
        let held = account.total.held;
        assert!(is_hanging || held == 0 || self.agent.has_spool(), "{account:?}");
        let of = |name: &str| account.collectors.iter().find(|c| c.name == name).unwrap().clone();
        let steady = of(STEADY);
        assert_eq!((steady.received, steady.forwarded), (lines, lines), "{steady:?}");
        assert_eq!(steady.dropped, []);
        let stored = self.agent.server().unwrap().status().ingest;
        let forwarded = account.total.forwarded;
        assert!((forwarded..=forwarded + held).contains(&stored.events), "{stored:?}, {account:?}");
        assert_eq!(stored.duplicates, 0);
        println!("{}: {:?}; {lines} lines of the steady source", self.name, of(self.name));
        of(self.name)
    }
}
