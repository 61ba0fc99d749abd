//! Errors of the API server: missing permissions, throttling, lost connections, expired
//! credentials.

use std::time::Duration;

use serde_json::json;
use tapio_collectors::k8s::Config;

use crate::cluster::Cluster;
use crate::collector_run::{CollectorRun, assert_emitted_once};
use crate::kubernetes::{config, event, oom_kill_and_back_off, start_pod};
use crate::proxy::Proxy;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

/// Grants the agent's service account permissions on resources.
fn grant(cluster: &Cluster, name: &str, group: &str, resources: &[&str]) {
    cluster.create(
        ROLES,
        &json!({"metadata": {"name": name}, "rules": [
        {"apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch"]}]}),
    );
    cluster.create(
        BINDINGS,
        &json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "tapio", "namespace": "kube-system"}]}),
    );
}

fn grant_all(cluster: &Cluster) {
    grant(cluster, "tapio-all", "", &["pods", "nodes", "events", "services", "endpoints"]);
    grant(cluster, "tapio-apps", "apps", &["deployments", "replicasets"]);
    grant(cluster, "tapio-slices", "discovery.k8s.io", &["endpointslices"]);
}

#[test]
fn missing_permission_is_named_and_affects_nothing_else() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    grant(&cluster, "tapio-pods", "", &["pods"]);
    let run = CollectorRun::start(&config(&cluster, "agent"), state.path());
    run.wait("pods are watched, the other resources are forbidden", |c| {
        c.counter("requests_forbidden") >= 5 && c.counter("watches") >= 1
    });
    let notes = run.notes();
    assert_eq!(notes["pods"], "ok");
    assert_eq!(
        notes["nodes"],
        "missing permission to list and watch nodes; node condition events will be missing"
    );
    assert!(notes["deployments.apps"].contains("list and watch deployments.apps"), "{notes:#?}");
    cluster.create("/api/v1/namespaces/shop/pods", &json!({
        "metadata": {"name": "web-7d9c5b-x1", "labels": {"pod-template-hash": "7d9c5b"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9c5b", "uid": "u-rs", "controller": true}]},
        "spec": {"nodeName": "node-a", "containers": [{"name": "app", "image": "lab/app:1"}]}}));
    let scheduled = run.wait_for("k8s.pod.scheduled", "web-7d9c5b-x1");
    assert_eq!(scheduled["entity"]["k8s.deployment.name"], "web", "derived from the pod's labels");
    run.wait("the missing permission is named", |c| {
        c.notes().get("replicasets").is_some_and(|n| n.contains("permission to get replicasets"))
    });
    // A permission that is granted later is used within half a minute, without a restart.
    grant(&cluster, "tapio-events", "", &["events"]);
    let limit = Duration::from_secs(40);
    run.wait_within(limit, "events are watched", |c| c.notes()["events"] == "ok");
    assert_emitted_once(&run.end());
}

#[test]
fn unreachable_server_is_retried() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let run = CollectorRun::start(&config(&cluster, "admin"), state.path());
    run.wait_until_watching();
    cluster.pod("web-0", "node-a");
    start_pod(&cluster, "web-0", "10.88.0.2");
    run.wait_for("k8s.pod.ready", "web-0");
    cluster.kill_apiserver();
    run.wait("all connections are lost", |c| c.counter("connections_lost") >= 6);
    assert!(run.notes()["pods"].contains("retrying"), "{:?}", run.notes());
    cluster.start_apiserver("");
    oom_kill_and_back_off(&cluster, "web-0", 1);
    run.wait_for("k8s.pod.crash_loop", "web-0");
    run.wait("all feeds watch again", |c| c.notes()["pods"] == "ok" && c.notes()["events"] == "ok");
    assert_emitted_once(&run.end());
}

#[test]
fn throttled_requests_are_retried() {
    // Two requests at a time for all clients, one for the agent, and no queue: the server answers
    // further ones with 429.
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    grant_all(&cluster);
    const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1beta1";
    cluster.create(&format!("{FLOW}/prioritylevelconfigurations"), &json!({"metadata": {"name": "slow"}, "spec": {
        "type": "Limited", "limited": {"assuredConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}}));
    cluster.create(&format!("{FLOW}/flowschemas"), &json!({"metadata": {"name": "slow"}, "spec": {
        "priorityLevelConfiguration": {"name": "slow"}, "matchingPrecedence": 2,
        "rules": [{"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "tapio", "namespace": "kube-system"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}}));
    cluster.kill_apiserver();
    cluster.start_apiserver("--max-requests-inflight=1 --max-mutating-requests-inflight=1");
    for n in 0..60 {
        cluster.pod(&format!("web-{n}"), "node-a");
    }
    let run = CollectorRun::start(&config(&cluster, "agent"), state.path());
    run.wait_until_watching();
    run.wait("all pods are cached", |c| c.counter("pods") == 60);
    let throttled = run.counter("requests_throttled");
    println!("{throttled} requests were answered with 429");
    assert!(throttled > 0, "no request was throttled");
    assert_emitted_once(&run.end());
}

#[test]
fn renewed_token_is_read_again() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let write = |file: &str, text: &str| std::fs::write(cluster.path(file), text).unwrap();
    grant_all(&cluster);
    write("token", "testbed-agent");
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let file = format!("{{tokenFile: {}}}", cluster.path("token").display());
    write("with-file", &text.replace("{token: testbed-agent}", &file));
    let config =
        Config { kubeconfig: Some(cluster.path("with-file")), ..config(&cluster, "agent") };
    let run = CollectorRun::start(&config, state.path());
    run.wait_until_watching();
    cluster.pod("web-0", "node-a");
    start_pod(&cluster, "web-0", "10.88.0.2");
    run.wait_for("k8s.pod.ready", "web-0");
    run.wait_until_saved(state.path());
    // The old token is no longer valid; the new one is written a little later.
    let tokens = std::fs::read_to_string(cluster.path("tokens.csv")).unwrap();
    write("tokens.csv", &tokens.replace("testbed-agent", "testbed-renewed"));
    cluster.kill_apiserver();
    cluster.start_apiserver("");
    run.wait("the old token is rejected", |c| c.last_error().contains("rejects the credentials"));
    write("token", "testbed-renewed");
    oom_kill_and_back_off(&cluster, "web-0", 1);
    run.wait_for("k8s.pod.crash_loop", "web-0");
    assert!(
        !format!("{:?} {}", run.notes(), run.last_error()).contains("testbed-"),
        "a token is exposed"
    );
    assert_emitted_once(&run.end());
}

#[test]
fn dead_connection_is_detected_by_silence() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let proxy = Proxy::to(cluster.port);
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let [direct, proxied] = [cluster.port, proxy.port].map(|port| format!("127.0.0.1:{port}"));
    std::fs::write(cluster.path("through-proxy"), text.replace(&direct, &proxied)).unwrap();
    let config =
        Config { kubeconfig: Some(cluster.path("through-proxy")), ..config(&cluster, "admin") };
    let run = CollectorRun::start(&config, state.path());
    run.wait_until_watching();
    let pod = cluster.pod("web-0", "node-a");
    start_pod(&cluster, "web-0", "10.88.0.2");
    run.wait_for("k8s.pod.ready", "web-0");
    proxy.cut();
    let about =
        json!({"kind": "Pod", "name": "web-0", "namespace": "shop", "uid": pod["metadata"]["uid"]});
    event(&cluster, "web-0.1", 1, &about);
    oom_kill_and_back_off(&cluster, "web-0", 1);
    // Long before the watches end by themselves, which takes four minutes.
    let is_emitted =
        |c: &CollectorRun| c.events().iter().any(|e| e["kind"] == "k8s.pod.crash_loop");
    run.wait_within(Duration::from_secs(150), "the missed event is emitted", is_emitted);
    // The server sends no bookmarks for Events: their feed reconnects with the others.
    run.wait_for("k8s.event", "web-0");
    assert_emitted_once(&run.end());
}
