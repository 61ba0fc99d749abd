//! The collector, run by the manager as the agent runs it, with its events kept for the test.

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

pub(crate) struct Collected {
    manager: CollectorManager,
    got: Arc<Mutex<Vec<Json>>>,
    shutdown: Shutdown,
    ledger: Arc<Ledger>,
    consumer: Option<JoinHandle<()>>,
    pub(crate) directory: Arc<Directory>,
}

impl Collected {
    /// Starts it; what survives a restart lies in `state`.
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
        let got = Arc::default();
        let keep = Arc::clone(&got);
        let consumer = std::thread::spawn(move || consume(reader, &bell, &taken, &keep));
        manager
            .start(CollectorSpec { name: "k8s", factory: config.factory(), sink }, None)
            .unwrap();
        Self { manager, got, shutdown, ledger, consumer: Some(consumer), directory }
    }

    /// What was told so far, relations of the graph left out.
    pub(crate) fn events(&self) -> Vec<Json> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|e| e["kind"] != "entity.relation").cloned().collect()
    }

    pub(crate) fn relations(&self) -> Vec<Json> {
        let got = self.got.lock().unwrap();
        got.iter()
            .filter(|e| e["kind"] == "entity.relation")
            .map(|e| e["attributes"].clone())
            .collect()
    }

    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.wait_within(Duration::from_secs(40), what, holds);
    }

    pub(crate) fn wait_within(&self, time: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + time;
        while !holds(self) {
            let last = &self.manager.status()[0];
            assert!(
                Instant::now() < until,
                "never: {what}; {:#?}\n{last:#?}",
                words(&self.events())
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for an event of this kind about an object of this name.
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
    pub(crate) fn wait_until_it_watches(&self) {
        self.wait("all feeds watch", |c| c.counter("watches") >= 6);
    }

    /// Waits until what was offered is settled and the position saved.
    pub(crate) fn wait_until_saved(&self, state: &Path) {
        // A position is taken each second, and saved at the next tick after it.
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

    /// Ends it. Everything is accounted for.
    pub(crate) fn end(mut self) -> Vec<Json> {
        let begin = Instant::now();
        self.shutdown.request();
        self.manager.join();
        assert!(begin.elapsed() < Duration::from_secs(2), "it has to end at once");
        self.consumer.take().unwrap().join().unwrap();
        let snapshot = self.ledger.snapshot();
        assert!(snapshot.holds() && snapshot.total.held == 0, "CONS-1: {snapshot:?}");
        assert_eq!(snapshot.total.received, self.got.lock().unwrap().len() as u64);
        self.events()
    }
}

fn consume(mut reader: RecordReader, bell: &Bell, taken: &StageLedger, keep: &Mutex<Vec<Json>>) {
    assert!(bell.target().set(thread_waker()).is_ok());
    loop {
        reader.drain(usize::MAX, |record| {
            taken.take(0, 1);
            let mut fields = Vec::new();
            keep.lock().unwrap().push(event_json(&record.event().unwrap().borrowed(&mut fields)));
            taken.pass(0, 1);
            true
        });
        bell.doze();
        if reader.is_finished() {
            return;
        }
        if reader.is_empty() {
            std::thread::park();
        }
        bell.rouse();
    }
}

/// The name of what an event is about.
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

/// Kind and name of each event.
pub(crate) fn words(events: &[Json]) -> Vec<String> {
    let word = |e: &Json| {
        let reason = e["attributes"]["k8s.event.reason"].as_str().unwrap_or("");
        format!("{} {} {reason}", e["kind"].as_str().unwrap(), about(e)).trim_end().to_owned()
    };
    events.iter().map(word).collect()
}

/// The ids, each of which must be there once.
pub(crate) fn assert_told_once(events: &[Json]) {
    let mut seen: HashMap<&str, &Json> = HashMap::new();
    for event in events {
        let before = seen.insert(event["id"].as_str().unwrap(), event);
        assert!(before.is_none(), "told twice: {event:#}\n{before:#?}");
    }
}
