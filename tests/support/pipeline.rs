//! The smallest complete pipeline: collectors under a `CollectorManager`, a ring each, and one
//! consumer thread that keeps the events.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value as Json;
use tapio_collectors::{
    CollectorConfig, CollectorFactory, CollectorManager, CollectorSpec, CollectorStatus, Site,
};
use tapio_core::clock;
use tapio_core::event::{Stage, event_json};
use tapio_core::ring::{
    Bell, Ledger, OnFull, RecordReader, Router, Sink, Snapshot, StageLedger, ring,
};
use tapio_core::shutdown::{Shutdown, thread_waker};

use super::eventually::eventually_ok;
use super::json::text;
use super::router::OneShard;

/// Time that collectors have to end after the request.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// The site `node-1`. With a folder, cursors are saved in it.
pub(crate) fn site(state_dir: Option<&Path>) -> Site {
    let site = Site::new("node-1", 7);
    match state_dir {
        Some(dir) => site.with_state_dir(dir.to_owned()),
        None => site,
    }
}

/// The parts of a pipeline.
pub(crate) struct Setup {
    pub(crate) site: Site,
    pub(crate) router: Arc<dyn Router>,
    /// Whether events are kept. Otherwise they are only counted, which is much faster.
    pub(crate) keeps_events: bool,
    pub(crate) collectors: Vec<(&'static str, OnFull, CollectorFactory)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            site: site(None),
            router: Arc::new(OneShard),
            keeps_events: true,
            collectors: Vec::new(),
        }
    }
}

type Events = Arc<Mutex<Vec<Json>>>;

/// A running pipeline.
pub(crate) struct Pipeline {
    pub(crate) manager: CollectorManager,
    pub(crate) shutdown: Shutdown,
    /// The site with the entity directory.
    pub(crate) site: Site,
    events: Events,
    keeps_events: bool,
    ledger: Arc<Ledger>,
    consumer: Option<JoinHandle<()>>,
}

/// The result of a pipeline: nothing is held, and CONS-1 holds.
pub(crate) struct Outcome {
    pub(crate) events: Vec<Json>,
    pub(crate) snapshot: Snapshot,
}

impl Pipeline {
    /// Starts one collector.
    pub(crate) fn start(name: &'static str, config: &impl CollectorConfig) -> Self {
        Self::start_at(site(None), name, config)
    }

    /// Starts one collector at a site.
    pub(crate) fn start_at(site: Site, name: &'static str, config: &impl CollectorConfig) -> Self {
        let collectors = vec![(name, config.on_full(), config.factory())];
        Self::start_with(Setup { site, collectors, ..Setup::default() })
    }

    pub(crate) fn start_with(setup: Setup) -> Self {
        let Setup { site, router, keeps_events, collectors } = setup;
        let shutdown = Shutdown::default();
        let bell = Arc::new(Bell::new(OnceLock::new()));
        let names = collectors.iter().map(|c| c.0.to_owned()).collect();
        let mut ledger = Ledger::new(names);
        let mut manager = CollectorManager::new(site.clone(), shutdown.clone());
        let mut readers = Vec::new();
        let mut specs = Vec::new();
        for (number, (name, on_full, factory)) in collectors.into_iter().enumerate() {
            let (writer, reader) = ring(0);
            readers.push(reader);
            let sink = Sink::new(
                number as u8,
                on_full,
                Arc::clone(&router),
                vec![(writer, Arc::clone(&bell))],
                ledger.stage(Stage::Collect),
                shutdown.clone(),
            );
            specs.push(CollectorSpec { name, factory, sink });
        }
        let taken = ledger.stage(Stage::Bridge);
        let ledger = Arc::new(ledger);
        site.set_ledger(Arc::clone(&ledger));
        let events = Events::default();
        let consumer = {
            let events = keeps_events.then(|| Arc::clone(&events));
            thread::spawn(move || consume(readers, &bell, &taken, events.as_deref()))
        };
        for spec in specs {
            manager.start(spec).unwrap();
        }
        Self { manager, shutdown, site, events, keeps_events, ledger, consumer: Some(consumer) }
    }

    /// The status of the first collector.
    pub(crate) fn status(&self) -> CollectorStatus {
        self.manager.status().remove(0)
    }

    /// A counter of the first collector.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().counters.iter().find(|c| c.0 == name).map_or(0, |c| c.1)
    }

    /// The status notes of the first collector, by subject.
    pub(crate) fn notes(&self) -> HashMap<String, String> {
        self.status().notes.into_iter().map(|n| (n.subject, n.state)).collect()
    }

    pub(crate) fn last_error(&self) -> String {
        self.status().last_error
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Json> {
        self.events.lock().unwrap().clone()
    }

    /// The number of events so far.
    pub(crate) fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// The events so far that satisfy a condition.
    pub(crate) fn select(&self, mut is_selected: impl FnMut(&Json) -> bool) -> Vec<Json> {
        self.events.lock().unwrap().iter().filter(|e| is_selected(e)).cloned().collect()
    }

    /// The events of a kind so far.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Json> {
        self.select(|e| e["kind"] == kind)
    }

    /// The value of an entity key, attribute or member of every event so far, in order.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|event| text(event, key)).collect()
    }

    /// Waits until the condition holds.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        eventually_ok(what, || if holds(self) { Ok(()) } else { Err(self) });
    }

    /// Waits until the condition holds for the events.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, mut holds: impl FnMut(&[Json]) -> bool) {
        self.wait_until(what, |p| holds(&p.events.lock().unwrap()));
    }

    /// Waits until there are `n` events that satisfy the condition. Returns the last of them.
    #[track_caller]
    pub(crate) fn wait_for_nth(
        &self,
        what: &str,
        n: usize,
        mut is_it: impl FnMut(&Json) -> bool,
    ) -> Json {
        eventually_ok(what, || {
            let events = self.events.lock().unwrap();
            events.iter().filter(|e| is_it(e)).nth(n - 1).cloned().ok_or(self)
        })
    }

    /// The accounts. Verifies CONS-1.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let snapshot = self.ledger.snapshot();
        assert!(snapshot.holds(), "CONS-1: {snapshot:?}");
        snapshot
    }

    /// Requests the shutdown, waits for the collectors and checks the accounts.
    pub(crate) fn end(self) -> Outcome {
        let begin = clock::instant();
        self.shutdown.request();
        let outcome = self.finish();
        let took = begin.elapsed();
        assert!(took < SHUTDOWN_LIMIT, "the collectors took {took:?} to end");
        outcome
    }

    /// Waits until all collectors have finished by themselves. Verifies that no event is held and
    /// that all forwarded ones were kept.
    pub(crate) fn finish(mut self) -> Outcome {
        self.manager.join();
        self.consumer.take().unwrap().join().unwrap();
        let snapshot = self.snapshot();
        assert_eq!(snapshot.total.held, 0, "CONS-1: {snapshot:?}");
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        if self.keeps_events {
            assert_eq!(snapshot.total.forwarded, events.len() as u64);
        }
        Outcome { events, snapshot }
    }
}

/// Status of the collectors and the last events, for the message of a failed wait.
impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events();
        let last = &events[events.len().saturating_sub(20)..];
        write!(f, "{:?}\n{} events; the last: {last:#?}", self.manager.status(), events.len())
    }
}

fn consume(
    mut readers: Vec<RecordReader>,
    bell: &Bell,
    taken: &StageLedger,
    events: Option<&Mutex<Vec<Json>>>,
) {
    assert!(bell.target().set(thread_waker()).is_ok());
    loop {
        for reader in &mut readers {
            reader.drain(usize::MAX, |record| {
                let collector = record.header().collector;
                taken.add_received(collector, 1);
                if let Some(events) = events {
                    let mut fields = Vec::new();
                    let json = event_json(&record.event().unwrap().borrowed(&mut fields));
                    events.lock().unwrap().push(json);
                }
                taken.add_forwarded(collector, 1);
                taken.add_settled(record.header().account(), 1);
                true
            });
        }
        bell.prepare_sleep();
        if readers.iter().all(RecordReader::is_finished) {
            return;
        }
        if readers.iter().all(RecordReader::is_empty) {
            // No timeout: only the sinks' bells wake it, also at the end.
            thread::park();
        }
        bell.cancel_sleep();
    }
}
