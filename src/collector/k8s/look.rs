//! The lines of a watch through the parsers and state machines, without a server: what the fuzz target looks at.

use std::sync::LazyLock;

use super::addresses::{Addresses, Place};
use super::conditions::{ToldConditions, ToldRollout};
use super::events::Counts;
use super::feed::Line;
use super::objects::{Deployment, Endpoints, Event, List, Node, Pod, Service};
use super::pods::Told;
use tapio_core::identity::Directory;

/// Takes lines as a watch sends them, each object as each kind of it. Returns how many objects were parsed.
///
/// # Errors
/// When the same object, seen a second time, tells something new: the object's number.
#[doc(hidden)]
pub fn look(lines: &[u8]) -> Result<usize, usize> {
    // Nothing here asks it, and making one takes longer than all the rest.
    static DIRECTORY: LazyLock<Directory> = LazyLock::new(Directory::default);
    let place = Place { directory: &DIRECTORY, now_ns: 1, is_watched: &|_| false };
    let (mut told, mut conditions) = (Told::default(), ToldConditions::default());
    let (mut rollout, mut counts) = (ToldRollout::default(), Counts::default());
    let mut addresses = Addresses::default();
    let mut parsed = 0;
    for line in lines.split(|b| *b == b'\n') {
        let _ = serde_json::from_slice::<List>(line);
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { continue };
        let text = line.object.get();
        // The API server takes no pod with two containers of one name.
        if let Ok(pod) = serde_json::from_str::<Pod>(text)
            && pod.containers().all(|c| pod.containers().filter(|d| d.name == c.name).count() == 1)
        {
            let (mut once, mut again) = (Vec::new(), Vec::new());
            told.step(&pod, &mut once);
            told.step(&pod, &mut again);
            told.tick(u64::MAX);
            parsed += 1;
            if !again.is_empty() {
                return Err(parsed);
            }
        }
        if let Ok(node) = serde_json::from_str::<Node>(text) {
            conditions.step(&node);
        }
        if let Ok(deployment) = serde_json::from_str::<Deployment>(text) {
            rollout.step(&deployment);
            if rollout.step(&deployment).is_some() {
                return Err(parsed);
            }
        }
        if let Ok(event) = serde_json::from_str::<Event>(text) {
            let _ = (event.time_ns(), event.assigned_to(), event.involved_object.container());
            counts.is_new(&event);
            if counts.is_new(&event) {
                return Err(parsed);
            }
        }
        if let Ok(service) = serde_json::from_str::<Service>(text) {
            addresses.service(&service, &DIRECTORY, 1);
        }
        if let Ok(slice) = serde_json::from_str::<Endpoints>(text) {
            addresses.slice(&slice, &place);
            if !addresses.slice(&slice, &place).is_empty() {
                return Err(parsed);
            }
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_watch_tells_nothing_twice() {
        let lines = include_bytes!("../../../tests/fuzz/watch.jsonl");
        // Each line with an object is a pod too, as far as parsing goes, but for those with another sort of status.
        assert!(look(lines).is_ok_and(|parsed| parsed >= 10), "{:?}", look(lines));
    }
}
