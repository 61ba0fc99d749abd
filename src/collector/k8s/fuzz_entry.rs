//! Runs the lines of a watch through the parsers and state machines, without a server.

use std::sync::LazyLock;

use super::addresses::{DirectoryWriter, ServiceAddresses};
use super::conditions::{NodeConditions, RolloutState};
use super::events::EventCounts;
use super::feed::WatchLine;
use super::objects::{Deployment, Endpoints, Event, List, Node, Pod, Service};
use super::pod_lifecycle::PodLifecycle;
use tapio_core::identity::Directory;

/// Processes lines as a watch sends them, each object as every type. Returns how many pods were
/// parsed.
///
/// # Errors
/// When an object that is processed a second time yields a new fact: the number of pods until then.
pub fn check_watch(lines: &[u8]) -> Result<usize, usize> {
    let mut state = State::default();
    let mut parsed = 0;
    for line in lines.split(|b| *b == b'\n') {
        let _ = serde_json::from_slice::<List>(line);
        let Ok(line) = serde_json::from_slice::<WatchLine<'_>>(line) else { continue };
        let text = line.object.get();
        let (is_pod, is_idempotent) = state.apply(text);
        parsed += usize::from(is_pod);
        if !is_idempotent {
            return Err(parsed);
        }
    }
    Ok(parsed)
}

#[derive(Default)]
struct State {
    pod: PodLifecycle,
    conditions: NodeConditions,
    rollout: RolloutState,
    counts: EventCounts,
    addresses: ServiceAddresses,
}

impl State {
    /// Applies an object twice as every type. Returns whether it is a pod, and whether the second
    /// time yielded nothing new.
    fn apply(&mut self, text: &str) -> (bool, bool) {
        let mut is_pod = false;
        // The API server accepts no pod with two containers of one name.
        if let Ok(pod) = serde_json::from_str::<Pod>(text)
            && pod.containers().all(|c| pod.containers().filter(|d| d.name == c.name).count() == 1)
        {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            self.pod.step(&pod, &mut first);
            self.pod.step(&pod, &mut second);
            self.pod.tick(u64::MAX);
            is_pod = true;
            if !second.is_empty() {
                return (is_pod, false);
            }
        }
        if let Ok(node) = serde_json::from_str::<Node>(text) {
            self.conditions.step(&node);
        }
        if let Ok(deployment) = serde_json::from_str::<Deployment>(text) {
            self.rollout.step(&deployment);
            if self.rollout.step(&deployment).is_some() {
                return (is_pod, false);
            }
        }
        if let Ok(event) = serde_json::from_str::<Event>(text) {
            let _ = (event.time_ns(), event.assigned_node(), event.involved_object.container());
            self.counts.record(&event);
            if self.counts.record(&event) {
                return (is_pod, false);
            }
        }
        (is_pod, self.apply_addresses(text))
    }

    fn apply_addresses(&mut self, text: &str) -> bool {
        // Never queried here; making one takes longer than all the rest.
        static DIRECTORY: LazyLock<Directory> = LazyLock::new(Directory::default);
        if let Ok(service) = serde_json::from_str::<Service>(text) {
            self.addresses.apply_service(&service, &DIRECTORY, 1);
        }
        let Ok(slice) = serde_json::from_str::<Endpoints>(text) else { return true };
        let out = DirectoryWriter { directory: &DIRECTORY, now_ns: 1, is_watched: &|_| false };
        self.addresses.apply_slice(&slice, &out);
        self.addresses.apply_slice(&slice, &out).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_watch_yields_each_fact_once() {
        let lines = include_bytes!("../../../tests/fuzz/watch.jsonl");
        // Each line with an object parses as a pod too, except those with another form of status.
        let checked = check_watch(lines);
        assert!(checked.is_ok_and(|parsed| parsed >= 10), "{checked:?}");
    }
}
