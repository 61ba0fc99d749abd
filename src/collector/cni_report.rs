//! The report that the plugin `tapio-cni` sends to the agent: one JSON object for each call. The
//! plugin uses this module as well, so both ends share one definition.

use serde::{Deserialize, Serialize};

/// Size limit of a report; longer packets are rejected.
pub const MAX_REPORT_BYTES: usize = 16 * 1024;

/// Default path of the agent's socket.
pub const DEFAULT_SOCKET: &str = "/run/tapio/cni.sock";

/// One call of the plugin. Unknown values are empty; unknown fields, as of a newer plugin, are
/// ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `ADD`, `DEL` or `CHECK`.
    pub command: String,
    /// Name of the network.
    pub network: String,
    /// The plugin of the call: `tapio-cni` itself, or the delegate that it runs.
    pub plugin: String,
    /// CNI_CONTAINERID; for a pod, its sandbox.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_NETNS.
    pub netns: String,
    /// Inode of the network namespace; 0 if unknown.
    pub netns_inode: u64,
    /// The host end of the pod's link.
    pub host_interface: String,
    /// Addresses of the result, without prefix lengths.
    pub addresses: Vec<String>,
    /// The pod, from CNI_ARGS.
    pub pod: PodNames,
    /// Time of the call, ns since the Unix epoch.
    pub time_ns: u64,
    /// Duration of the delegate's run; 0 without a delegate.
    pub duration_ns: u64,
    /// The delegate's error.
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

/// A plugin's error, as defined by the CNI specification.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginError {
    /// The code.
    pub code: u64,
    /// The message, followed by the details.
    pub message: String,
}

impl PodNames {
    /// Parses CNI_ARGS: `KEY=VALUE` pairs separated by semicolons, in any order. Reads only the
    /// names of the pod.
    pub fn from_args(args: &str) -> Self {
        let mut pod = Self::default();
        for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')) {
            let field = match key {
                "K8S_POD_UID" => &mut pod.uid,
                "K8S_POD_NAME" => &mut pod.name,
                "K8S_POD_NAMESPACE" => &mut pod.namespace,
                _ => continue,
            };
            value.clone_into(field);
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pod_names_are_read_from_cni_args_in_any_order() {
        let pod = PodNames::from_args(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;TOKEN=secret;K8S_POD_UID=u-1;\
             K8S_POD_NAME=web=0",
        );
        let expected =
            PodNames { uid: "u-1".into(), name: "web=0".into(), namespace: "shop".into() };
        assert_eq!(pod, expected);
        assert_eq!(PodNames::from_args(";;=;K8S_POD_UID"), PodNames::default());
    }
}
