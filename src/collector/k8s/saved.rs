//! What is kept over restarts of the agent: where each watch is, and what was told of each object.
//!
//! One text, saved as a whole by the cursor, so that the positions and what was told up to them are always of one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Resource;
use super::conditions::{ToldConditions, ToldRollout};
use super::objects::Text;
use super::pods::Told;

/// The form of what is kept; another one is not read.
const VERSION: u32 = 1;

/// The kept state. Pods and Deployments are found by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Saved {
    version: u32,
    /// The API server's address: positions mean nothing to another one.
    server: String,
    /// The node the pods are of.
    node: String,
    positions: BTreeMap<Resource, String>,
    pub(super) pods: BTreeMap<Text, Told>,
    pub(super) conditions: ToldConditions,
    pub(super) rollouts: BTreeMap<Text, ToldRollout>,
}

impl Saved {
    /// Reads what was kept. What is of another server or node, or can't be read, is as if nothing had been kept: the second
    /// is said.
    pub(super) fn read(text: &str, server: &str, node: &str) -> Self {
        let fresh = || Self {
            version: VERSION,
            server: server.to_owned(),
            node: node.to_owned(),
            ..Self::default()
        };
        if text.is_empty() {
            return fresh();
        }
        match serde_json::from_str::<Self>(text) {
            Ok(saved)
                if saved.version == VERSION && saved.server == server && saved.node == node =>
            {
                saved
            }
            Ok(_) => fresh(),
            Err(error) => {
                tracing::warn!(
                    "what was kept of Kubernetes can't be read ({error}): starting anew"
                );
                fresh()
            }
        }
    }

    pub(super) fn text(&self) -> String {
        // Maps with text keys and plain values: there is nothing that JSON can't hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn position(&self, resource: Resource) -> Option<&str> {
        self.positions.get(&resource).map(String::as_str).filter(|p| !p.is_empty())
    }

    /// Moves a position on. Returns whether it did.
    pub(super) fn set_position(&mut self, resource: Resource, at: &str) -> bool {
        if at.is_empty() || self.position(resource) == Some(at) {
            return false;
        }
        self.positions.insert(resource, at.to_owned());
        true
    }
}

/// A resource version as a number, which versions of Kubernetes' own resources are (KEP-5504).
pub(super) fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_again_for_the_same_server_and_node() {
        let mut saved = Saved::read("", "https://a", "n1");
        assert!(saved.set_position(Resource::Pods, "17"));
        assert!(!saved.set_position(Resource::Pods, "17"));
        let told = serde_json::from_str(r#"{"name":"web","running":true}"#).unwrap();
        saved.pods.insert("u1".into(), told);
        let text = saved.text();
        assert_eq!(Saved::read(&text, "https://a", "n1"), saved);
        assert_eq!(Saved::read(&text, "https://b", "n1").position(Resource::Pods), None);
        assert_eq!(Saved::read(&text, "https://a", "n2").pods.len(), 0);
        assert_eq!(Saved::read("{", "https://a", "n1"), Saved::read("", "https://a", "n1"));
    }
}
