//! Who tells what: the agents of the nodes, and the one that tells what belongs to no node (docs/kubernetes.md).

use serde_json::json;
use tapio_collectors::k8s::Config;

use crate::cluster::Cluster;
use crate::collected::{Collected, words};
use crate::kubernetes::config;

#[test]
fn what_belongs_to_no_node_is_told_by_one_agent() {
    let Some(cluster) = Cluster::start("") else { return };
    cluster.namespace("shop");
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let of_a_node = Config { objects_without_node: false, ..config(&cluster, "admin") };
    let of_no_node = Config { node: Some("-".into()), ..config(&cluster, "admin") };
    let of_a_node = Collected::start(&of_a_node, states[0].path());
    let of_no_node = Collected::start(&of_no_node, states[1].path());
    [&of_a_node, &of_no_node].iter().for_each(|c| c.wait_until_it_watches());
    cluster.pod("web-0", "node-a");
    let event = |name: &str, kind: &str, host: &str| {
        let body = json!({"metadata": {"name": format!("{name}.1")}, "reason": "Told", "type": "Warning",
            "involvedObject": {"kind": kind, "namespace": "shop", "name": name}, "message": "m", "count": 1,
            "firstTimestamp": "2026-01-15T10:00:10Z", "lastTimestamp": "2026-01-15T10:01:10Z",
            "source": {"component": "c", "host": host}});
        cluster.create("/api/v1/namespaces/shop/events", &body);
    };
    event("web-0", "Pod", "node-a");
    event("quota", "ReplicaSet", "");
    of_a_node.wait_for("k8s.event", "web-0");
    of_no_node.wait_for("k8s.event", "quota");
    // Long enough for what shouldn't come.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let told = words(&of_a_node.end());
    assert!(told.contains(&"k8s.pod.scheduled web-0".to_owned()), "{told:?}");
    assert!(!told.iter().any(|w| w.contains("quota")), "{told:?}");
    assert_eq!(words(&of_no_node.end()), ["k8s.event quota Told"]);
}
