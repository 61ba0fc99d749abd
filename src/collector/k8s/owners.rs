//! What owns a pod in the end: the Deployment behind its ReplicaSet, the CronJob behind its Job.
//!
//! Asked one by one, as pods come, and kept: owners never change, and a node has few. Watching every ReplicaSet of a cluster
//! for it would cost each node the old revisions of everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::client::Client;

use super::objects::{Meta, Owned, Pod, Text};
use super::wire::{Answer, Trouble};
use tapio_core::clock;

/// Only an object's metadata, which every server can give.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// Owners that are kept; all are forgotten at once when there are more.
const MOST: usize = 8_192;
/// How long a server that doesn't answer may hold up the pod that asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it isn't asked again after a refusal.
const REFUSED: Duration = Duration::from_secs(60);

/// Kind and name.
pub(super) type Workload = (Text, Text);

/// The permissions that were refused, for the report.
pub(super) type Refusals = Arc<Mutex<Vec<&'static str>>>;

/// Looks owners up.
pub(super) struct Owners {
    client: Client,
    /// Pods of other nodes aren't worth a request each.
    node: String,
    known: HashMap<Text, Workload>,
    /// Until when a kind isn't asked for.
    refused: HashMap<&'static str, Instant>,
    refusals: Refusals,
}

/// Kinds that are owned themselves, and where they are found.
const BETWEEN: &[(&str, &str, &str)] =
    &[("ReplicaSet", "apps/v1", "replicasets"), ("Job", "batch/v1", "jobs")];

impl Owners {
    pub(super) fn new(client: Client, node: &str, refusals: Refusals) -> Self {
        Self {
            client,
            node: node.to_owned(),
            known: HashMap::new(),
            refused: HashMap::new(),
            refusals,
        }
    }

    /// The topmost owner of a pod that can be found.
    pub(super) async fn of(&mut self, pod: &Pod) -> Option<Workload> {
        let (node, pod) = (&pod.spec.node_name, &pod.metadata);
        let owner = pod.controller()?;
        let direct = (owner.kind.clone(), owner.name.clone());
        let Some((_, api, resource)) = BETWEEN.iter().find(|(kind, ..)| **kind == *owner.kind)
        else {
            return Some(direct);
        };
        if **node != *self.node {
            return Some(by_hash(pod, &owner.name).unwrap_or(direct));
        }
        if let Some(known) = self.known.get(&owner.uid) {
            return Some(known.clone());
        }
        let path = format!("/apis/{api}/namespaces/{}/{resource}/{}", pod.namespace, owner.name);
        match self.ask(resource, &path).await {
            // Another one of the same name isn't the owner.
            Some(Ok(found)) if found.metadata.uid == owner.uid => {
                let above = found.metadata.controller();
                let workload = above.map_or(direct, |o| (o.kind.clone(), o.name.clone()));
                if self.known.len() >= MOST {
                    self.known.clear();
                }
                self.known.insert(owner.uid.clone(), workload.clone());
                Some(workload)
            }
            _ => Some(by_hash(pod, &owner.name).unwrap_or(direct)),
        }
    }

    async fn ask(&mut self, resource: &'static str, path: &str) -> Option<Result<Owned, Trouble>> {
        if self.refused.get(resource).is_some_and(|until| clock::instant() < *until) {
            return None;
        }
        let ask = async {
            let body = Answer::get(&self.client, path, METADATA).await?.whole().await?;
            serde_json::from_slice(&body).map_err(|e| Trouble::Failed(e.to_string()))
        };
        let answer = tokio::time::timeout(PATIENCE, ask).await;
        let answer = answer.unwrap_or_else(|_| Err(Trouble::Failed("no answer".into())));
        match &answer {
            Ok(_) | Err(Trouble::Missing) => {}
            Err(trouble) => {
                self.refused.insert(resource, clock::instant() + REFUSED);
                let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                if matches!(trouble, Trouble::Forbidden(_)) && !refusals.contains(&resource) {
                    refusals.push(resource);
                }
            }
        }
        Some(answer)
    }
}

/// A Deployment's ReplicaSet is called like it, with the hash that its pods have as a label.
fn by_hash(pod: &Meta, replicaset: &str) -> Option<Workload> {
    let hash = pod.labels.get("pod-template-hash")?;
    let name = replicaset.strip_suffix(hash)?.strip_suffix('-')?;
    (!name.is_empty()).then(|| ("Deployment".into(), name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_found_without_asking() {
        let pod = |labels: &str| -> Meta {
            serde_json::from_str(&format!(r#"{{"labels":{labels}}}"#)).unwrap()
        };
        let hash = pod(r#"{"pod-template-hash":"7d9c5b","app":"web"}"#);
        let found = Some(("Deployment".into(), "web-shop".into()));
        assert_eq!(by_hash(&hash, "web-shop-7d9c5b"), found);
        assert_eq!(by_hash(&hash, "web-shop"), None);
        assert_eq!(by_hash(&hash, "-7d9c5b"), None);
        assert_eq!(by_hash(&pod("{}"), "web-7d9c5b"), None);
        assert_eq!(by_hash(&pod("null"), "web-7d9c5b"), None);
    }
}
