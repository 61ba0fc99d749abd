//! Messages from the feeds to the session.

use serde::{Deserialize, Serialize};

use super::objects::{Deployment, Endpoints, Event, Node, Pod, Service};
use super::request::RequestError;

/// A watched resource. The names of the variants are keys of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Resource {
    Pods,
    Nodes,
    Events,
    Deployments,
    Services,
    Endpoints,
}

impl Resource {
    /// The name in RBAC rules.
    pub(super) fn rbac_name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Events => "events",
            Self::Deployments => "deployments.apps",
            Self::Services => "services",
            Self::Endpoints => "endpointslices.discovery.k8s.io",
        }
    }

    /// The effect of a missing permission.
    pub(super) fn missing_without(self) -> &'static str {
        match self {
            Self::Pods => "pod lifecycle events and the names of containers will be missing",
            Self::Nodes => "node condition events will be missing",
            Self::Events => "Kubernetes Events will be missing",
            Self::Deployments => "rollout events will be missing",
            Self::Services => "service names behind addresses will be missing",
            Self::Endpoints => {
                "names of pods on other nodes, and the pods behind services, will be missing"
            }
        }
    }
}

/// A change that a feed reports. The order of a list is `ListBegin`, any number of `Apply`,
/// `ListEnd`.
#[derive(Debug)]
pub(super) enum WatchEvent<T> {
    /// A list begins.
    ListBegin,
    /// The object's state: at the version of the list, or after the last change of the watch.
    Apply(T),
    /// Identifies an object whose changes follow in their order.
    Identify(T),
    /// The object was deleted.
    Delete(T),
    /// The list of this version is complete: an object that it doesn't contain doesn't exist.
    ListEnd(String),
    /// Nothing else changed up to this version.
    Bookmark(String),
}

/// The state of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FeedStatus {
    Watching,
    /// The watched version is too old; the feed lists again.
    Expired,
    Failed(RequestError),
}

/// A message from a feed to the session.
pub(super) enum FeedMessage {
    Pod(Box<WatchEvent<Pod>>),
    Node(WatchEvent<Node>),
    Event(Box<WatchEvent<Event>>),
    Deployment(WatchEvent<Deployment>),
    Service(WatchEvent<Service>),
    Endpoints(WatchEvent<Endpoints>),
    Status(Resource, FeedStatus),
    /// An object that can't be parsed, and why.
    BadObject(Resource, String),
}
