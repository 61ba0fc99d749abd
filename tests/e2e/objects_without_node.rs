//! Division of work: the agents of the nodes, and the one that emits what belongs to no node
//! (docs/kubernetes.md).

use serde_json::json;
use tapio_collectors::k8s::Config;

use crate::cluster::Cluster;
use crate::collector_run::{CollectorRun, kinds_and_names};
use crate::kubernetes::config;

#[test]
fn objects_without_node_are_emitted_by_one_agent() {
    let Some(cluster) = Cluster::start("") else { return };
    cluster.namespace("shop");
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let node_config = Config { objects_without_node: false, ..config(&cluster, "admin") };
    let cluster_config = Config { node: Some("-".into()), ..config(&cluster, "admin") };
    let of_node = CollectorRun::start(&node_config, states[0].path());
    let of_cluster = CollectorRun::start(&cluster_config, states[1].path());
    [&of_node, &of_cluster].iter().for_each(|c| c.wait_until_watching());
    cluster.pod("web-0", "node-a");
    let event = |name: &str, kind: &str, host: &str| {
        let body = json!({"metadata": {"name": format!("{name}.1")}, "reason": "Reported", "type": "Warning",
            "involvedObject": {"kind": kind, "namespace": "shop", "name": name}, "message": "m", "count": 1,
            "firstTimestamp": "2026-01-15T10:00:10Z", "lastTimestamp": "2026-01-15T10:01:10Z",
            "source": {"component": "c", "host": host}});
        cluster.create("/api/v1/namespaces/shop/events", &body);
    };
    event("web-0", "Pod", "node-a");
    event("quota", "ReplicaSet", "");
    of_node.wait_for("k8s.event", "web-0");
    of_cluster.wait_for("k8s.event", "quota");
    // Time for events that must not arrive.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let emitted = kinds_and_names(&of_node.end());
    assert!(emitted.contains(&"k8s.pod.scheduled web-0".to_owned()), "{emitted:?}");
    assert!(!emitted.iter().any(|w| w.contains("quota")), "{emitted:?}");
    assert_eq!(kinds_and_names(&of_cluster.end()), ["k8s.event quota Reported"]);
}
