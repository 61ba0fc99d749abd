//! Persisted state: the position of each watch, and the facts already emitted of each object.
//!
//! The cursor saves it as one text, so positions and emitted facts always belong to the same
//! moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::conditions::{NodeConditions, RolloutState};
use super::messages::Resource;
use super::objects::Text;
use super::pod_lifecycle::PodLifecycle;

/// Version of the format; a checkpoint of another version is ignored.
const VERSION: u32 = 1;

/// The persisted state. Pods and Deployments are keyed by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Checkpoint {
    version: u32,
    /// The API server's address: positions are meaningless to another server.
    server: String,
    /// The node that the pods belong to.
    node: String,
    positions: BTreeMap<Resource, String>,
    pub(super) pods: BTreeMap<Text, PodLifecycle>,
    pub(super) conditions: NodeConditions,
    pub(super) rollouts: BTreeMap<Text, RolloutState>,
}

impl Checkpoint {
    /// Checks a saved checkpoint. One of another server or node is intact.
    ///
    /// # Errors
    /// The cause, when it can't be parsed or has another version.
    pub(super) fn check(text: &str) -> Result<(), String> {
        match serde_json::from_str::<Self>(text) {
            Ok(read) if read.version == VERSION => Ok(()),
            Ok(read) => Err(format!("version {} instead of {VERSION}", read.version)),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Parses a checkpoint. Starts empty where it belongs to another server or node, or can't be
    /// parsed.
    pub(super) fn read(text: &str, server: &str, node: &str) -> Self {
        let empty = || Self {
            version: VERSION,
            server: server.to_owned(),
            node: node.to_owned(),
            ..Self::default()
        };
        if text.is_empty() {
            return empty();
        }
        match serde_json::from_str::<Self>(text) {
            Ok(read) if read.version == VERSION && read.server == server && read.node == node => {
                read
            }
            _ => empty(),
        }
    }

    pub(super) fn to_text(&self) -> String {
        // Maps with text keys and plain values always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn position(&self, resource: Resource) -> Option<&str> {
        self.positions.get(&resource).map(String::as_str).filter(|p| !p.is_empty())
    }

    /// Sets a position. Returns whether it changed.
    pub(super) fn set_position(&mut self, resource: Resource, version: &str) -> bool {
        if version.is_empty() || self.position(resource) == Some(version) {
            return false;
        }
        self.positions.insert(resource, version.to_owned());
        true
    }
}

/// A resource version as a number, which versions of Kubernetes' own resources are (KEP-5504).
pub(super) fn version_number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_and_other_versions_are_damage() {
        let checkpoint = Checkpoint::read("", "https://a", "n1");
        assert_eq!(Checkpoint::check(&checkpoint.to_text()), Ok(()));
        let other = checkpoint.to_text().replace("\"version\":1", "\"version\":9");
        for bad in ["{", "\0\u{1}", "some words", "17", "{}", &other] {
            assert!(Checkpoint::check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn checkpoint_is_restored_for_same_server_and_node() {
        let mut checkpoint = Checkpoint::read("", "https://a", "n1");
        assert!(checkpoint.set_position(Resource::Pods, "17"));
        assert!(!checkpoint.set_position(Resource::Pods, "17"));
        let pod = serde_json::from_str(r#"{"name":"web","running":true}"#).unwrap();
        checkpoint.pods.insert("u1".into(), pod);
        let text = checkpoint.to_text();
        assert_eq!(Checkpoint::read(&text, "https://a", "n1"), checkpoint);
        assert_eq!(Checkpoint::read(&text, "https://b", "n1").position(Resource::Pods), None);
        assert_eq!(Checkpoint::read(&text, "https://a", "n2").pods.len(), 0);
        let empty = Checkpoint::read("", "https://a", "n1");
        assert_eq!(Checkpoint::read("{", "https://a", "n1"), empty);
    }

    #[test]
    fn checkpoint_of_earlier_releases_is_read() {
        let text = r#"{"version":1,"server":"https://a","node":"n1","positions":{"Pods":"17"},"pods":{"u1":{"name":"web","namespace":"shop","workload":null,"scheduled_ns":5,"running":true,"ended":false,"evicted":false,"terminating":false,"was_ready":true,"ready_ns":7,"pending":2,"waits":["app","ErrImagePull"],"containers":[{"name":"app","recent":["crash_loop/app/1/c1"]}]}},"conditions":{"Ready":["True",9]},"rollouts":{"d1":{"revision":3,"states":1,"progressing":"web-1"}}}"#;
        assert_eq!(Checkpoint::read(text, "https://a", "n1").to_text(), text);
    }
}
