//! What the API server refuses: permissions, too many requests, connections; and what the collector makes of it.

use std::time::Duration;

use serde_json::json;
use tapio_collectors::k8s::Config;

use crate::cable::Cable;
use crate::cluster::Cluster;
use crate::collected::{Collected, assert_told_once};
use crate::kubernetes::{comes_up, config, event, oom_and_back_off};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

/// Gives the agent's service account permissions on resources.
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
fn a_missing_permission_is_named_and_costs_nothing_else() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    grant(&cluster, "tapio-pods", "", &["pods"]);
    let collected = Collected::start(&config(&cluster, "agent"), state.path());
    collected.wait("pods are watched, the rest is refused", |c| {
        c.counter("forbidden") >= 5 && c.counter("watches") >= 1
    });
    let notes = collected.notes();
    assert_eq!(notes["pods"], "ok");
    assert_eq!(
        notes["nodes"],
        "needs the permission to list and watch nodes: the node's conditions aren't told"
    );
    assert!(notes["deployments.apps"].contains("list and watch deployments.apps"), "{notes:#?}");
    cluster.create("/api/v1/namespaces/shop/pods", &json!({
        "metadata": {"name": "web-7d9c5b-x1", "labels": {"pod-template-hash": "7d9c5b"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9c5b", "uid": "u-rs", "controller": true}]},
        "spec": {"nodeName": "node-a", "containers": [{"name": "app", "image": "lab/app:1"}]}}));
    let scheduled = collected.wait_for("k8s.pod.scheduled", "web-7d9c5b-x1");
    assert_eq!(scheduled["entity"]["k8s.deployment.name"], "web", "taken from names");
    collected.wait("the missing one is named", |c| {
        c.notes().get("replicasets").is_some_and(|n| n.contains("to get them"))
    });
    // A permission that is given later is used, within half a minute, with no restart.
    grant(&cluster, "tapio-events", "", &["events"]);
    collected.wait("events are watched", |c| c.notes()["events"] == "ok");
    assert_told_once(&collected.end());
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let collected = Collected::start(&config(&cluster, "admin"), state.path());
    collected.wait_until_it_watches();
    cluster.pod("web-0", "node-a");
    comes_up(&cluster, "web-0", "10.88.0.2");
    collected.wait_for("k8s.pod.ready", "web-0");
    cluster.kill_apiserver();
    collected.wait("it sees that nobody is there", |c| c.counter("lost") >= 6);
    assert!(collected.notes()["pods"].contains("tried again"), "{:?}", collected.notes());
    cluster.start_apiserver("");
    oom_and_back_off(&cluster, "web-0", 1);
    collected.wait_for("k8s.pod.crash_loop", "web-0");
    collected
        .wait("all is well again", |c| c.notes()["pods"] == "ok" && c.notes()["events"] == "ok");
    assert_told_once(&collected.end());
}

#[test]
fn a_server_that_throttles_is_given_time() {
    // Two requests at a time for everybody, and one of one's own, with no queue: the rest is answered with 429.
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
    let collected = Collected::start(&config(&cluster, "agent"), state.path());
    collected.wait_until_it_watches();
    collected.wait("all pods are known", |c| c.counter("pods") == 60);
    let throttled = collected.counter("throttled");
    println!("refused with 429: {throttled} times");
    assert!(throttled > 0, "the server refused nothing");
    assert_told_once(&collected.end());
}

#[test]
fn a_token_that_is_renewed_is_read_again() {
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
    let collected = Collected::start(&config, state.path());
    collected.wait_until_it_watches();
    cluster.pod("web-0", "node-a");
    comes_up(&cluster, "web-0", "10.88.0.2");
    collected.wait_for("k8s.pod.ready", "web-0");
    collected.wait_until_saved(state.path());
    // The old token isn't valid any more; the new one comes a little later.
    let tokens = std::fs::read_to_string(cluster.path("tokens.csv")).unwrap();
    write("tokens.csv", &tokens.replace("testbed-agent", "testbed-renewed"));
    cluster.kill_apiserver();
    cluster.start_apiserver("");
    collected.wait("the old one is refused", |c| {
        c.last_error().contains("doesn't accept the credentials")
    });
    write("token", "testbed-renewed");
    oom_and_back_off(&cluster, "web-0", 1);
    collected.wait_for("k8s.pod.crash_loop", "web-0");
    assert!(
        !format!("{:?} {}", collected.notes(), collected.last_error()).contains("testbed-"),
        "a token is told"
    );
    assert_told_once(&collected.end());
}

#[test]
fn a_connection_that_died_is_noticed_by_its_silence() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let cable = Cable::to(cluster.port);
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let [direct, through] = [cluster.port, cable.port].map(|port| format!("127.0.0.1:{port}"));
    std::fs::write(cluster.path("through-cable"), text.replace(&direct, &through)).unwrap();
    let config =
        Config { kubeconfig: Some(cluster.path("through-cable")), ..config(&cluster, "admin") };
    let collected = Collected::start(&config, state.path());
    collected.wait_until_it_watches();
    let pod = cluster.pod("web-0", "node-a");
    comes_up(&cluster, "web-0", "10.88.0.2");
    collected.wait_for("k8s.pod.ready", "web-0");
    cable.cut();
    let about =
        json!({"kind": "Pod", "name": "web-0", "namespace": "shop", "uid": pod["metadata"]["uid"]});
    event(&cluster, "web-0.1", 1, &about);
    oom_and_back_off(&cluster, "web-0", 1);
    // Long before the watches would have ended by themselves, which is after four minutes.
    let told = |c: &Collected| c.events().iter().any(|e| e["kind"] == "k8s.pod.crash_loop");
    collected.wait_within(Duration::from_secs(150), "what was missed is told", told);
    // Where Events stand the server never says: they are watched anew with the others.
    collected.wait_for("k8s.event", "web-0");
    assert_told_once(&collected.end());
}
