//! Resolves the topmost owner of a pod: the Deployment behind its ReplicaSet, the CronJob behind
//! its Job.
//!
//! Each owner is requested once, when its first pod appears, and cached: owners never change, and a
//! node has few. Watching every ReplicaSet of a cluster instead would send the old revisions of all
//! workloads to each node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::client::Client;

use super::objects::{ObjectMeta, Owned, Pod, Text};
use super::request::{RequestError, Response};
use tapio_core::clock;

/// Only an object's metadata, which every server supports.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// Most cached owners; when there are more, all are removed at once.
const MAX_OWNERS: usize = 8_192;
/// Time limit for a request, during which its pod waits.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed request.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Kind and name.
pub(super) type Workload = (Text, Text);

/// Resources whose permission is missing, for the status.
pub(super) type MissingPermissions = Arc<Mutex<Vec<&'static str>>>;

/// Resolves and caches owners.
pub(super) struct OwnerResolver {
    client: Client,
    /// Only owners of this node's pods are requested.
    node: String,
    cache: HashMap<Text, Workload>,
    /// Until when a resource isn't requested, after a failure.
    paused: HashMap<&'static str, Instant>,
    missing: MissingPermissions,
}

/// Kinds that are owned themselves: kind, API group and version, resource.
const INTERMEDIATE: &[(&str, &str, &str)] =
    &[("ReplicaSet", "apps/v1", "replicasets"), ("Job", "batch/v1", "jobs")];

impl OwnerResolver {
    pub(super) fn new(client: Client, node: &str, missing: MissingPermissions) -> Self {
        Self {
            client,
            node: node.to_owned(),
            cache: HashMap::new(),
            paused: HashMap::new(),
            missing,
        }
    }

    /// Resolves the topmost owner of a pod that can be found.
    pub(super) async fn workload_of(&mut self, pod: &Pod) -> Option<Workload> {
        let (node, pod) = (&pod.spec.node_name, &pod.metadata);
        let owner = pod.controller()?;
        let direct = (owner.kind.clone(), owner.name.clone());
        let Some((_, api, resource)) = INTERMEDIATE.iter().find(|(kind, ..)| **kind == *owner.kind)
        else {
            return Some(direct);
        };
        if **node != *self.node {
            return Some(deployment_from_hash(pod, &owner.name).unwrap_or(direct));
        }
        if let Some(cached) = self.cache.get(&owner.uid) {
            return Some(cached.clone());
        }
        let path = format!("/apis/{api}/namespaces/{}/{resource}/{}", pod.namespace, owner.name);
        match self.request(resource, &path).await {
            // Another object of the same name isn't the owner.
            Some(Ok(found)) if found.metadata.uid == owner.uid => {
                let above = found.metadata.controller();
                let workload = above.map_or(direct, |o| (o.kind.clone(), o.name.clone()));
                if self.cache.len() >= MAX_OWNERS {
                    self.cache.clear();
                }
                self.cache.insert(owner.uid.clone(), workload.clone());
                Some(workload)
            }
            _ => Some(deployment_from_hash(pod, &owner.name).unwrap_or(direct)),
        }
    }

    async fn request(
        &mut self,
        resource: &'static str,
        path: &str,
    ) -> Option<Result<Owned, RequestError>> {
        if self.paused.get(resource).is_some_and(|until| clock::instant() < *until) {
            return None;
        }
        let request = async {
            let body = Response::get(&self.client, path, METADATA).await?.into_bytes().await?;
            serde_json::from_slice(&body).map_err(|e| RequestError::Failed(e.to_string()))
        };
        let response = tokio::time::timeout(REQUEST_TIMEOUT, request).await;
        let response = response.unwrap_or_else(|_| Err(RequestError::Failed("no response".into())));
        match &response {
            Ok(_) | Err(RequestError::NotFound) => {}
            Err(error) => {
                self.paused.insert(resource, clock::instant() + RETRY_AFTER);
                let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
                if matches!(error, RequestError::Forbidden(_)) && !missing.contains(&resource) {
                    missing.push(resource);
                }
            }
        }
        Some(response)
    }
}

/// Derives the Deployment from the ReplicaSet's name: the Deployment's name and the hash that its
/// pods have as a label.
fn deployment_from_hash(pod: &ObjectMeta, replicaset: &str) -> Option<Workload> {
    let hash = pod.labels.get("pod-template-hash")?;
    let name = replicaset.strip_suffix(hash)?.strip_suffix('-')?;
    (!name.is_empty()).then(|| ("Deployment".into(), name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_is_derived_without_request() {
        let pod = |labels: &str| -> ObjectMeta {
            serde_json::from_str(&format!(r#"{{"labels":{labels}}}"#)).unwrap()
        };
        let hash = pod(r#"{"pod-template-hash":"7d9c5b","app":"web"}"#);
        let found = Some(("Deployment".into(), "web-shop".into()));
        assert_eq!(deployment_from_hash(&hash, "web-shop-7d9c5b"), found);
        assert_eq!(deployment_from_hash(&hash, "web-shop"), None);
        assert_eq!(deployment_from_hash(&hash, "-7d9c5b"), None);
        assert_eq!(deployment_from_hash(&pod("{}"), "web-7d9c5b"), None);
        assert_eq!(deployment_from_hash(&pod("null"), "web-7d9c5b"), None);
    }
}
