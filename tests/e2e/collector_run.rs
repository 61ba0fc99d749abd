//! The Kubernetes collector in a pipeline, with its events by kind and object.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tapio_collectors::Site;
use tapio_collectors::k8s::Config;

use crate::support::eventually::{TIME_LIMIT, within};
use crate::support::pipeline::Pipeline;

pub(crate) struct CollectorRun(Pipeline);

impl Deref for CollectorRun {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        &self.0
    }
}

impl CollectorRun {
    /// Starts it. `state`: the folder of persisted state.
    pub(crate) fn start(config: &Config, state: &Path) -> Self {
        let site = Site::new("host-a", 7).with_state_dir(state.to_owned());
        Self(Pipeline::start_at(site, "k8s", config))
    }

    /// The events so far, without relations.
    pub(crate) fn events(&self) -> Vec<Json> {
        self.select(|e| e["kind"] != "entity.relation")
    }

    pub(crate) fn relations(&self) -> Vec<Json> {
        self.of_kind("entity.relation").iter().map(|e| e["attributes"].clone()).collect()
    }

    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.wait_within(TIME_LIMIT, what, holds);
    }

    pub(crate) fn wait_within(&self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        within(limit, what, || if holds(self) { Ok(()) } else { Err(&self.0) });
    }

    /// Waits for an event of a kind about an object of a name.
    pub(crate) fn wait_for(&self, kind: &str, name: &str) -> Json {
        self.wait_for_nth(kind, name, 1)
    }

    pub(crate) fn wait_for_nth(&self, kind: &str, name: &str, n: usize) -> Json {
        let what = format!("{kind} of {name}, {n} times");
        self.0.wait_for_nth(&what, n, |e| e["kind"] == kind && about(e) == name)
    }

    /// Waits until all feeds watch.
    pub(crate) fn wait_until_watching(&self) {
        self.wait("all feeds watch", |c| c.counter("watches") >= 6);
    }

    /// Waits until a checkpoint of all events so far is saved.
    pub(crate) fn wait_until_saved(&self, state: &Path) {
        // A checkpoint is taken every 250 ms, and saved at one of the next attempts. The present
        // one may have all events: then no other follows, and the time limit is the end.
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

    /// Ends it and checks CONS-1. Returns the events without relations.
    pub(crate) fn end(self) -> Vec<Json> {
        let begin = Instant::now();
        let outcome = self.0.end();
        assert!(begin.elapsed() < Duration::from_secs(2), "the collector ends at once");
        let total = &outcome.snapshot.total;
        assert_eq!(total.received, outcome.events.len() as u64, "{total:?}");
        outcome.events.into_iter().filter(|e| e["kind"] != "entity.relation").collect()
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
