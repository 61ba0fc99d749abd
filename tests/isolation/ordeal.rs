//! One collector's ordeal, in a whole agent.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tapio::runtime::{Agent, Config};
use tapio_collectors::{CollectorConfig as _, Row, jsonl};
use tapio_core::event::Event;
use tapio_core::ring::{CollectorAccount, Route, Router};

use crate::place;

/// The source that must not notice anything.
const STEADY: &str = "steady";
/// Its lines: so many at a time, with this pause.
const LINES: u64 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// What hangs for so long is taken to hang. Longer than what a busy machine makes a thread wait.
const HUNG_AFTER: &str = "3s";

const PANIC: u8 = 1;
const HANG: u8 = 2;

/// Between the collectors and the rules: lets one collector's thread panic, or hang, with an event in its hands.
struct Trap {
    inner: Arc<dyn Router>,
    spring: Arc<Spring>,
}

/// What the trap does to the next event of the thread.
struct Spring {
    thread: String,
    armed: AtomicU8,
    sprung: AtomicU64,
    held: AtomicBool,
}

impl Router for Trap {
    fn route(&self, event: &Event<'_>) -> Route {
        let spring = &self.spring;
        if spring.armed.load(Ordering::SeqCst) != 0
            && std::thread::current().name() == Some(&spring.thread)
        {
            match spring.armed.swap(0, Ordering::SeqCst) {
                PANIC => {
                    spring.sprung.fetch_add(1, Ordering::SeqCst);
                    panic!("the trap");
                }
                HANG => {
                    spring.held.store(true, Ordering::SeqCst);
                    spring.sprung.fetch_add(1, Ordering::SeqCst);
                    while spring.held.load(Ordering::SeqCst) {
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
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Steady {
    fn start(path: &Path) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        // For both ends, so that opening doesn't wait for the collector.
        let mut fifo = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let write = move || {
            let mut lines = 0;
            while !theirs.load(Ordering::SeqCst) {
                let text: String = (lines..lines + LINES)
                    .map(|n| format!("{{\"time\":{},\"kind\":\"test.steady\"}}\n", n + 1))
                    .collect();
                fifo.write_all(text.as_bytes()).unwrap();
                lines += LINES;
                std::thread::sleep(PAUSE);
            }
            lines
        };
        Self { over, thread: Some(std::thread::spawn(write)) }
    }

    /// Ends it. How many lines there were.
    fn end(&mut self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// An agent in which one collector is to suffer.
pub(crate) struct Ordeal {
    name: &'static str,
    agent: Agent,
    spring: Arc<Spring>,
    steady: Steady,
    looked: Instant,
    _folder: tempfile::TempDir,
}

impl Ordeal {
    /// Starts the agent with the collector as these lines of `collectors` configure it. `None` where this machine can't
    /// give what it needs.
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
            name: STEADY,
            about: "Lines that are counted.",
            enabled: true,
            on_full: lines.on_full(),
            factory: lines.factory(),
        });
        let spring = Arc::new(Spring {
            thread: format!("c:{name}"),
            armed: AtomicU8::new(0),
            sprung: AtomicU64::new(0),
            held: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&spring);
        let agent =
            Agent::start_with(config, true, rows, |inner| Arc::new(Trap { inner, spring: theirs }))
                .unwrap();
        let steady = Steady::start(&fifo);
        let looked = Instant::now();
        let mut ordeal = Self { name, agent, spring, steady, looked, _folder: folder };
        ordeal.until("it runs or can't", |o| o.health() != "starting");
        std::thread::sleep(Duration::from_millis(200));
        if ordeal.health() != "unavailable" {
            return Some(ordeal);
        }
        let why = ordeal.status()["last_error"].to_string();
        assert!(std::env::var_os("TAPIO_REQUIRE_KERNEL").is_none_or(|v| v != "1"), "{why}");
        println!("skipped: {why}");
        ordeal.steady.end();
        None
    }

    fn page(&self, path: &str) -> (String, String) {
        place::get(self.agent.admin_addr().port(), path).unwrap()
    }

    /// What `/status` says of the collector.
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

    /// What the collector says of this.
    #[allow(dead_code, reason = "shared with tests that need less of it")]
    pub(crate) fn note(&self, subject: &str) -> String {
        self.status()["notes"][subject].as_str().unwrap_or_default().to_owned()
    }

    fn restarts(&self) -> u64 {
        self.status()["restarts"].as_u64().unwrap()
    }

    /// A counter the collector publishes.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().unwrap_or_default()
    }

    fn account(&self, name: &str) -> CollectorAccount {
        let account = self.agent.account();
        account.collectors.into_iter().find(|c| c.name == name).unwrap()
    }

    /// Events of the collector that the server has stored.
    pub(crate) fn told(&self) -> u64 {
        self.account(self.name).forwarded
    }

    /// The same, once nothing of the collector is under way.
    pub(crate) fn settled(&mut self) -> u64 {
        self.until("nothing is under way", |o| o.account(o.name).held == 0);
        self.told()
    }

    /// Waits until it is so, or fails after two minutes.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !so(self) {
            let status = self.status();
            assert!(begin.elapsed() < Duration::from_secs(120), "never: {what}: {status:#}");
            if self.looked.elapsed() > Duration::from_secs(1) {
                self.looked = Instant::now();
                self.agent.look();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The collector runs, and what is new in its source arrives at the server.
    pub(crate) fn tells(&mut self, provoke: &mut dyn FnMut()) {
        self.until("it runs", |o| o.health() == "running");
        let before = self.told();
        self.until("it tells what is new", |o| {
            provoke();
            o.told() > before
        });
    }

    /// Its thread panics, and it comes back.
    pub(crate) fn dies(&mut self, provoke: &mut dyn FnMut()) {
        let restarts = self.restarts();
        self.spring.armed.store(PANIC, Ordering::SeqCst);
        self.until("it is started again", |o| {
            provoke();
            o.restarts() > restarts
        });
        let said = self.status()["last_error"].to_string();
        assert!(said.contains("panicked: the trap"), "{said}");
        self.tells(provoke);
        let lost = self.account(self.name).dropped;
        let panics = lost.iter().filter(|d| d.1 == tapio_core::event::Reason::CollectorPanic);
        assert!(
            panics.map(|d| d.2).sum::<u64>() >= 1,
            "the event in its hands is counted: {lost:?}"
        );
    }

    /// Its thread hangs, and another one takes its place. Returns while the first one still hangs.
    pub(crate) fn hangs(&mut self, provoke: &mut dyn FnMut()) {
        let (restarts, sprung) = (self.restarts(), self.spring.sprung.load(Ordering::SeqCst));
        self.spring.armed.store(HANG, Ordering::SeqCst);
        self.until("the trap has it", |o| {
            provoke();
            o.spring.sprung.load(Ordering::SeqCst) > sprung
        });
        self.until("the status says that it hangs", |o| o.health() == "hung");
        let status = self.status();
        assert!(status["last_error"].to_string().contains("no heartbeat"), "{status}");
        assert!(status["silence_ms"].as_u64() > Some(2_000), "{status}");
        let (head, why) = self.page("/readyz");
        assert!(head.contains("503") && why.contains(self.name), "{head} {why}");
        self.until("another run takes its place", |o| o.restarts() > restarts);
        self.tells(provoke);
    }

    /// The thread that took over hangs as well: there is no third one, so that threads that hang don't pile up. The status
    /// says so for as long as it lasts.
    pub(crate) fn hangs_for_good(&mut self) {
        let restarts = self.restarts();
        self.spring.armed.store(HANG, Ordering::SeqCst);
        self.until("the status says that it hangs", |o| o.health() == "hung");
        let since = Instant::now();
        self.until("a third one would have come", |_| since.elapsed() > Duration::from_secs(6));
        assert_eq!((self.health().as_str(), self.restarts()), ("hung", restarts));
    }

    /// What hung goes on: it ends, and the run that took its place doesn't notice.
    pub(crate) fn goes_on(&mut self, provoke: &mut dyn FnMut()) {
        self.spring.held.store(false, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        self.tells(provoke);
    }

    /// Killed and hung, one after the other.
    pub(crate) fn suffers(&mut self, provoke: &mut dyn FnMut()) {
        self.tells(provoke);
        self.dies(provoke);
        self.hangs(provoke);
        self.goes_on(provoke);
    }

    /// Ends the agent: the other source's events are all in the store, each once, and CONS-1 is exact. Returns the
    /// collector's own account.
    pub(crate) fn end(mut self) -> CollectorAccount {
        let lines = self.steady.end();
        self.until("all lines are stored", |o| o.account(STEADY).forwarded >= lines);
        let account = self.agent.drain();
        let hangs = self.spring.held.swap(false, Ordering::SeqCst);
        assert!(account.holds(), "CONS-1: {account:?}");
        assert!(hangs || account.total.held == 0, "{account:?}");
        let of = |name: &str| account.collectors.iter().find(|c| c.name == name).unwrap().clone();
        let steady = of(STEADY);
        assert_eq!((steady.received, steady.forwarded), (lines, lines), "{steady:?}");
        assert_eq!(steady.dropped, []);
        let stored = self.agent.server().unwrap().status().ingest;
        assert_eq!((stored.events, stored.duplicates), (account.total.forwarded, 0));
        println!("{}: {:?}; {lines} lines beside it", self.name, of(self.name));
        of(self.name)
    }
}
