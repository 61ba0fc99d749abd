//! Runs the collector under the `CollectorManager`, as the agent does, and records its events.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tapio_collectors::k8s::Config;
use tapio_collectors::{CollectorConfig as _, CollectorManager, CollectorSpec, Site};
use tapio_core::event::{Event, Stage, event_json};
use tapio_core::identity::Directory;
use tapio_core::ring::{Bell, Ledger, RecordReader, Route, Router, Sink, StageLedger, ring};
use tapio_core::shutdown::{Shutdown, thread_waker};

struct OneShard;

impl Router for OneShard {
    fn route(&self, _: &Event<'_>) -> Route {
        Route { visits: 1 }
    }
}

pub(crate) struct CollectorRun {
    manager: CollectorManager,
    recorded: Arc<Mutex<Vec<Json>>>,
    shutdown: Shutdown,
    ledger: Arc<Ledger>,
    consumer: Option<JoinHandle<()>>,
    pub(crate) directory: Arc<Directory>,
}

impl CollectorRun {
    /// Starts it. `state`: the folder of persisted state.
    pub(crate) fn start(config: &Config, state: &Path) -> Self {
        let shutdown = Shutdown::default();
        let site = Site::new("host-a", 7).with_state_dir(state.to_owned());
        let directory = Arc::clone(&site.directory);
        let mut manager = CollectorManager::new(site.clone(), shutdown.clone());
        let mut ledger = Ledger::new(vec!["k8s".into()]);
        let bell = Arc::new(Bell::new(OnceLock::new()));
        let (writer, reader) = ring(0);
        let shards = vec![(writer, Arc::clone(&bell))];
        let stage = ledger.stage(Stage::Collect);
        let sink =
            Sink::new(0, config.on_full(), Arc::new(OneShard), shards, stage, shutdown.clone());
        let taken = ledger.stage(Stage::Bridge);
        let ledger = Arc::new(ledger);
        site.set_ledger(Arc::clone(&ledger));
        let recorded = Arc::default();
        let record_into = Arc::clone(&recorded);
        let consumer = std::thread::spawn(move || consume(reader, &bell, &taken, &record_into));
        manager
            .start(CollectorSpec { name: "k8s", factory: config.factory(), sink }, None)
            .unwrap();
        Self { manager, recorded, shutdown, ledger, consumer: Some(consumer), directory }
    }

    /// The events so far, without relations.
    pub(crate) fn events(&self) -> Vec<Json> {
        let recorded = self.recorded.lock().unwrap();
        recorded.iter().filter(|e| e["kind"] != "entity.relation").cloned().collect()
    }

    pub(crate) fn relations(&self) -> Vec<Json> {
        let recorded = self.recorded.lock().unwrap();
        recorded
            .iter()
            .filter(|e| e["kind"] == "entity.relation")
            .map(|e| e["attributes"].clone())
            .collect()
    }

    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.wait_within(Duration::from_secs(40), what, holds);
    }

    pub(crate) fn wait_within(&self, timeout: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + timeout;
        while !holds(self) {
            let last = &self.manager.status()[0];
            assert!(
                Instant::now() < deadline,
                "timed out: {what}; {:#?}\n{last:#?}",
                kinds_and_names(&self.events())
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for an event of a kind about an object of a name.
    pub(crate) fn wait_for(&self, kind: &str, name: &str) -> Json {
        self.wait_for_nth(kind, name, 1)
    }

    pub(crate) fn wait_for_nth(&self, kind: &str, name: &str, n: usize) -> Json {
        let find = |c: &Self| {
            c.events().into_iter().filter(|e| e["kind"] == kind && about(e) == name).nth(n - 1)
        };
        self.wait(&format!("{kind} of {name}, {n} times"), |c| find(c).is_some());
        find(self).unwrap()
    }

    pub(crate) fn notes(&self) -> HashMap<String, String> {
        let notes = self.manager.status().remove(0).notes;
        notes.into_iter().map(|n| (n.subject, n.state)).collect()
    }

    pub(crate) fn last_error(&self) -> String {
        self.manager.status().remove(0).last_error
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.manager.status().remove(0).counters;
        counters.into_iter().find(|c| c.0 == name).map_or(0, |c| c.1)
    }

    /// Waits until all feeds watch.
    pub(crate) fn wait_until_watching(&self) {
        self.wait("all feeds watch", |c| c.counter("watches") >= 6);
    }

    /// Waits until a checkpoint of all events so far is saved.
    pub(crate) fn wait_until_saved(&self, state: &Path) {
        // A checkpoint is taken every 250 ms, and saved at one of the next attempts.
        let before = std::fs::read(state.join("cursors/k8s")).unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            if std::fs::read(state.join("cursors/k8s")).unwrap_or_default() != before {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(1_200));
    }

    /// Ends it and checks CONS-1. Returns the events.
    pub(crate) fn end(mut self) -> Vec<Json> {
        let begin = Instant::now();
        self.shutdown.request();
        self.manager.join();
        assert!(begin.elapsed() < Duration::from_secs(2), "the collector ends at once");
        self.consumer.take().unwrap().join().unwrap();
        let snapshot = self.ledger.snapshot();
        assert!(snapshot.holds() && snapshot.total.held == 0, "CONS-1: {snapshot:?}");
        assert_eq!(snapshot.total.received, self.recorded.lock().unwrap().len() as u64);
        self.events()
    }
}

fn consume(
    mut reader: RecordReader,
    bell: &Bell,
    taken: &StageLedger,
    recorded: &Mutex<Vec<Json>>,
) {
    assert!(bell.target().set(thread_waker()).is_ok());
    loop {
        reader.drain(usize::MAX, |record| {
            taken.add_received(0, 1);
            let mut fields = Vec::new();
            recorded
                .lock()
                .unwrap()
                .push(event_json(&record.event().unwrap().borrowed(&mut fields)));
            taken.add_forwarded(0, 1);
            true
        });
        bell.prepare_sleep();
        if reader.is_finished() {
            return;
        }
        if reader.is_empty() {
            std::thread::park();
        }
        bell.cancel_sleep();
    }
}

/// The name of the object that an event is about.
pub(crate) fn about(event: &Json) -> &str {
    let (entity, attributes) = (&event["entity"], &event["attributes"]);
    let names = [
        &attributes["tapio.k8s.object.name"],
        &entity["k8s.pod.name"],
        &entity["k8s.deployment.name"],
        &attributes["k8s.node.condition.type"],
    ];
    names.into_iter().find_map(Json::as_str).unwrap_or("")
}

/// Kind, name and reason of each event.
pub(crate) fn kinds_and_names(events: &[Json]) -> Vec<String> {
    let text = |e: &Json| {
        let reason = e["attributes"]["k8s.event.reason"].as_str().unwrap_or("");
        format!("{} {} {reason}", e["kind"].as_str().unwrap(), about(e)).trim_end().to_owned()
    };
    events.iter().map(text).collect()
}

/// Checks that all event ids are distinct.
pub(crate) fn assert_emitted_once(events: &[Json]) {
    let mut seen: HashMap<&str, &Json> = HashMap::new();
    for event in events {
        let before = seen.insert(event["id"].as_str().unwrap(), event);
        assert!(before.is_none(), "emitted twice: {event:#}\n{before:#?}");
    }
}
