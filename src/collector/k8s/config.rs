//! The section `collectors.k8s`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The section `collectors.k8s`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether to run it. Without a cluster it costs nothing.
    pub enabled: bool,
    /// A kubeconfig to use instead of the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one if unset.
    pub context: Option<String>,
    /// This node's name in the cluster. If unset: `$NODE_NAME`, else the agent's node name.
    pub node: Option<String>,
    /// Whether to watch the pods of all nodes for their addresses, and not only those behind
    /// services.
    pub cluster_pods: bool,
    /// Whether to emit what belongs to no node (rollouts, Jobs, pods without a node). All agents of
    /// a cluster emit it under the same ids; in a large cluster let one agent do so.
    pub objects_without_node: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            kubeconfig: None,
            context: None,
            node: None,
            cluster_pods: false,
            objects_without_node: true,
        }
    }
}
