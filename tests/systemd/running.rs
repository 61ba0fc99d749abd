//! Runs a collector under the manager and keeps its events.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tapio_collectors::{CollectorConfig, CollectorManager, CollectorSpec, CollectorStatus, Site};
use tapio_core::event::{Event, Stage, event_json};
use tapio_core::identity::Directory;
use tapio_core::ring::{
    Bell, Ledger, RecordReader, Route, Router, Sink, Snapshot, StageLedger, ring,
};
use tapio_core::shutdown::Shutdown;

struct OneShard;

impl Router for OneShard {
    fn route(&self, _: &Event<'_>) -> Route {
        Route { visits: 1 }
    }
}

type Got = Arc<Mutex<Vec<Value>>>;

/// A running collector.
pub(crate) struct Running {
    manager: CollectorManager,
    got: Got,
    shutdown: Shutdown,
    ledger: Arc<Ledger>,
    consumer: Option<JoinHandle<()>>,
    pub(crate) directory: Arc<Directory>,
}

impl Running {
    /// Starts the collector. With a folder its cursor is persisted.
    pub(crate) fn start(
        name: &'static str,
        config: &impl CollectorConfig,
        state_dir: Option<&Path>,
    ) -> Self {
        let shutdown = Shutdown::default();
        let bell = Arc::new(Bell::new(OnceLock::new()));
        let mut ledger = Ledger::new(vec![name.to_owned()]);
        let mut site = Site::new("node-1", 7);
        if let Some(dir) = state_dir {
            site = site.with_state_dir(dir.to_owned());
        }
        let directory = Arc::clone(&site.directory);
        let (writer, reader) = ring(0);
        let sink = Sink::new(
            0,
            config.on_full(),
            Arc::new(OneShard),
            vec![(writer, bell)],
            ledger.stage(Stage::Collect),
            shutdown.clone(),
        );
        let stored = ledger.stage(Stage::Bridge);
        let ledger = Arc::new(ledger);
        site.set_ledger(Arc::clone(&ledger));
        let got = Got::default();
        let consumer = {
            let got = Arc::clone(&got);
            std::thread::spawn(move || consume(reader, &stored, &got))
        };
        let mut manager = CollectorManager::new(site, shutdown.clone());
        manager.start(CollectorSpec { name, factory: config.factory(), sink }, None).unwrap();
        Self { manager, got, shutdown, ledger, consumer: Some(consumer), directory }
    }

    pub(crate) fn status(&self) -> CollectorStatus {
        self.manager.status().remove(0)
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().counters.iter().find(|c| c.0 == name).map_or(0, |c| c.1)
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until the condition holds for the events, or fails after a minute.
    pub(crate) fn wait_for(&self, what: &str, mut holds: impl FnMut(&[Value]) -> bool) {
        self.wait_until(what, |running| holds(&running.events()));
    }

    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            let status = self.status();
            let events = self.events();
            let last = &events[events.len().saturating_sub(20)..];
            assert!(Instant::now() < until, "timed out: {what}: {status:?} {last:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the collector; returns its events and the ledger's snapshot.
    pub(crate) fn end(mut self) -> (Vec<Value>, Snapshot) {
        self.shutdown.request();
        let requested = Instant::now();
        self.manager.join();
        assert!(requested.elapsed() < Duration::from_secs(5), "the collector hangs");
        self.consumer.take().unwrap().join().unwrap();
        let snapshot = self.ledger.snapshot();
        assert!(snapshot.holds() && snapshot.total.held == 0, "CONS-1: {snapshot:?}");
        (self.events(), snapshot)
    }
}

fn consume(mut reader: RecordReader, stored: &StageLedger, got: &Got) {
    loop {
        let n = reader.drain(usize::MAX, |record| {
            let mut fields = Vec::new();
            let json = event_json(&record.event().unwrap().borrowed(&mut fields));
            got.lock().unwrap().push(json);
            true
        });
        stored.add_received(0, n as u64);
        stored.add_forwarded(0, n as u64);
        if n == 0 {
            if reader.is_finished() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The value of an event's entity key, attribute or member, as text.
pub(crate) fn text(event: &Value, key: &str) -> String {
    let value = event["entity"].get(key).or_else(|| event["attributes"].get(key));
    let value = value.or_else(|| event.get(key));
    value.map_or_else(String::new, |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
}
