//! What the plugin `tapio-cni` tells the agent: one JSON object for each call. The plugin's binary holds this file, too,
//! so that both ends read the same definition.

use serde::{Deserialize, Serialize};

/// The longest report; what is longer is none.
pub const MAX_REPORT_BYTES: usize = 16 * 1024;

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tapio/cni.sock";

/// One call of the plugin. What isn't known is empty; fields a newer plugin may add are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `ADD`, `DEL` or `CHECK`.
    pub command: String,
    /// The network's name.
    pub network: String,
    /// The plugin the report is about: `tapio-cni` itself, or the one it runs on behalf of.
    pub plugin: String,
    /// CNI_CONTAINERID: of a pod the sandbox's.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_NETNS.
    pub netns: String,
    /// The network namespace's inode; 0 where it can't be had.
    pub netns_inode: u64,
    /// The host's end of the pod's link.
    pub host_interface: String,
    /// Addresses of the result, without their prefix lengths.
    pub addresses: Vec<String>,
    /// The pod, as CNI_ARGS names it.
    pub pod: PodNames,
    /// When the call came: nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// How long the plugin took that this one runs; 0 where it runs none.
    pub duration_ns: u64,
    /// What the plugin that this one runs says went wrong.
    pub error: Option<PluginError>,
}

/// A pod's names, from CNI_ARGS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodNames {
    /// `K8S_POD_UID`.
    pub uid: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
}

/// A plugin's error, as the CNI specification has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginError {
    /// Its code.
    pub code: u64,
    /// Its message, with the details behind it.
    pub message: String,
}

impl PodNames {
    /// Reads CNI_ARGS: `KEY=VALUE` pairs between semicolons, in any order. Nothing but a pod's names is taken.
    pub fn from_args(args: &str) -> Self {
        let mut pod = Self::default();
        for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')) {
            let place = match key {
                "K8S_POD_UID" => &mut pod.uid,
                "K8S_POD_NAME" => &mut pod.name,
                "K8S_POD_NAMESPACE" => &mut pod.namespace,
                _ => continue,
            };
            value.clone_into(place);
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_names_are_taken_in_any_order_and_nothing_else_is() {
        let pod = PodNames::from_args(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;TOKEN=secret;K8S_POD_UID=u-1;K8S_POD_NAME=web=0",
        );
        let expected =
            PodNames { uid: "u-1".into(), name: "web=0".into(), namespace: "shop".into() };
        assert_eq!(pod, expected);
        assert_eq!(PodNames::from_args(";;=;K8S_POD_UID"), PodNames::default());
    }
}
