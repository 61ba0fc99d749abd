//! The collector on a real API server: lifecycles, across restarts and gaps.

use serde_json::{Value as Json, json};
use tapio_collectors::k8s::Config;
use tapio_core::identity::AddressOwner;

use crate::cluster::Cluster;
use crate::collector_run::{CollectorRun, about, assert_emitted_once, kinds_and_names};

pub(crate) fn config(cluster: &Cluster, context: &str) -> Config {
    Config {
        kubeconfig: Some(cluster.kubeconfig()),
        context: Some(context.to_owned()),
        node: Some("node-a".to_owned()),
        ..Config::default()
    }
}

fn conditions(ready: bool, second: u32) -> Json {
    let at = |s: u32| format!("2026-01-15T10:00:{s:02}Z");
    let ready = if ready { "True" } else { "False" };
    json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(0)},
           {"type": "Ready", "status": ready, "lastTransitionTime": at(second)}])
}

fn container(ready: bool, restarts: u32, state: &Json, last: &Json) -> Json {
    json!([{"name": "app", "image": "lab/app:1", "imageID": "", "ready": ready, "restartCount": restarts,
        "containerID": format!("containerd://run-{restarts}"), "state": state, "lastState": last}])
}

fn ended(run: u32, reason: &str) -> Json {
    json!({"terminated": {"exitCode": 137, "reason": reason, "containerID": format!("containerd://run-{run}"),
        "startedAt": "2026-01-15T10:00:05Z", "finishedAt": "2026-01-15T10:00:09Z"}})
}

/// Writes the status that a kubelet writes when a pod starts.
pub(crate) fn start_pod(cluster: &Cluster, pod: &str, ip: &str) {
    let running = json!({"running": {"startedAt": "2026-01-15T10:00:03Z"}});
    cluster.pod_status(pod, &json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": conditions(true, 4), "containerStatuses": container(true, 0, &running, &json!({}))}));
}

/// Writes the status after the pod's container was OOM-killed and waits.
pub(crate) fn oom_kill_and_back_off(cluster: &Cluster, pod: &str, restarts: u32) {
    let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
    cluster.pod_status(
        pod,
        &json!({"conditions": conditions(false, 9),
        "containerStatuses": container(false, restarts, &back_off, &ended(restarts, "OOMKilled"))}),
    );
}

pub(crate) fn event(cluster: &Cluster, name: &str, count: u32, about: &Json) {
    let body = json!({"metadata": {"name": name}, "involvedObject": about, "reason": "BackOff", "type": "Warning",
        "message": "Back-off restarting failed container", "count": count,
        "firstTimestamp": "2026-01-15T10:00:10Z", "lastTimestamp": "2026-01-15T10:01:10Z",
        "source": {"component": "kubelet", "host": "node-a"}});
    cluster.create("/api/v1/namespaces/shop/events", &body);
}

fn node(cluster: &Cluster, name: &str) {
    cluster.create("/api/v1/nodes", &json!({"metadata": {"name": name}}));
}

fn set_node_ready(cluster: &Cluster, ready: &str, minute: u32) {
    let at = format!("2026-01-15T10:{minute:02}:00Z");
    cluster.patch("/api/v1/nodes/node-a/status", &json!({"status": {"conditions": [
        {"type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": "PLEG is not healthy",
         "lastHeartbeatTime": at, "lastTransitionTime": at}]}}));
}

#[test]
fn pod_lifecycle_is_emitted_as_documented() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    node(&cluster, "node-a");
    let run = CollectorRun::start(&config(&cluster, "admin"), state.path());
    run.wait_until_watching();
    let uid = cluster.pod("web-0", "node-a")["metadata"]["uid"].as_str().unwrap().to_owned();
    cluster.pod("elsewhere", "node-b");
    start_pod(&cluster, "web-0", "10.88.0.2");
    let scheduled = run.wait_for("k8s.pod.scheduled", "web-0");
    assert_eq!(
        scheduled["entity"],
        json!({"node": "host-a", "k8s.pod.uid": uid, "k8s.pod.name": "web-0", "k8s.namespace.name": "shop"})
    );
    let ready = run.wait_for("k8s.pod.ready", "web-0");
    // The API truncates to whole seconds: the event is placed at the end of that second.
    assert_eq!(ready["time"], "2026-01-15T10:00:04.999999999Z");
    assert_eq!(
        (&ready["source"], &ready["attributes"]["k8s.container.restart_count"]),
        (&json!("k8s"), &json!(0))
    );
    let address = "10.88.0.2".parse().unwrap();
    assert_eq!(
        run.site.directory.address_owner(address),
        Some(AddressOwner::Pod(uid.as_str().into()))
    );
    let known = run.site.directory.container("run-0").unwrap();
    assert_eq!((&*known.name, &*known.pod_uid), ("app", &*uid));

    oom_kill_and_back_off(&cluster, "web-0", 1);
    let oom = run.wait_for("k8s.pod.oom_killed", "web-0");
    assert_eq!(oom["entity"]["k8s.container.name"], "app");
    assert_eq!(oom["attributes"]["process.exit.code"], 137);
    let looping = run.wait_for("k8s.pod.crash_loop", "web-0");
    let attributes = &looping["attributes"];
    assert_eq!(attributes["k8s.container.status.last_terminated_reason"], "OOMKilled");
    assert_eq!(
        (&attributes["k8s.container.restart_count"], &looping["severity"]),
        (&json!(1), &json!("error"))
    );

    check_event_is_emitted_again_when_count_grows(&cluster, &run, &uid);
    set_node_ready(&cluster, "False", 5);
    let condition = run.wait_for("k8s.node.condition", "Ready");
    assert_eq!(condition["attributes"]["k8s.node.condition.status"], "false");
    assert_eq!(condition["entity"], json!({"node": "host-a", "k8s.node.name": "node-a"}));

    cluster.pod_status("web-0", &json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}));
    assert_eq!(
        run.wait_for("k8s.pod.evicted", "web-0")["message"],
        "The node was low on resource: memory. "
    );
    cluster.delete("/api/v1/namespaces/shop/pods/web-0");
    run.wait_for("k8s.pod.deleted", "web-0");
    let events = run.end();
    assert_emitted_once(&events);
    assert!(events.iter().all(|e| about(e) != "elsewhere"), "{:#?}", kinds_and_names(&events));
    assert!(!format!("{events:?}").contains("s3cr3t"));
}

fn check_event_is_emitted_again_when_count_grows(cluster: &Cluster, run: &CollectorRun, uid: &str) {
    let about_pod = json!({"kind": "Pod", "name": "web-0", "namespace": "shop", "uid": uid, "fieldPath": "spec.containers{app}"});
    event(cluster, "web-0.1", 1, &about_pod);
    let first = run.wait_for("k8s.event", "web-0");
    assert_eq!(
        (&first["entity"]["k8s.container.name"], &first["entity"]["node"]),
        (&json!("app"), &json!("host-a"))
    );
    assert_eq!(
        (&first["time"], &first["severity"]),
        (&json!("2026-01-15T10:01:10.999999999Z"), &json!("warn"))
    );
    let path = "/api/v1/namespaces/shop/events/web-0.1";
    cluster.patch(path, &json!({"metadata": {"labels": {"seen": "yes"}}}));
    cluster.patch(path, &json!({"count": 4}));
    let again = run.wait_for_nth("k8s.event", "web-0", 2);
    assert_eq!(again["attributes"]["k8s.event.count"], 4);
}

#[test]
fn pod_identity_has_workload_rollout_and_services() {
    let Some(cluster) = Cluster::start("") else { return };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "lab/app:1"}]}});
    let selector = json!({"matchLabels": {"app": "web"}});
    let deployment = cluster.create("/apis/apps/v1/namespaces/shop/deployments",
        &json!({"metadata": {"name": "web", "annotations": {"deployment.kubernetes.io/revision": "7"}}, "spec": {"selector": selector, "template": template}}));
    let owner = |kind: &str, of: &Json| json!([{"apiVersion": "apps/v1", "kind": kind, "name": of["metadata"]["name"], "uid": of["metadata"]["uid"], "controller": true}]);
    let replicaset = cluster.create("/apis/apps/v1/namespaces/shop/replicasets",
        &json!({"metadata": {"name": "web-7d9c5b", "ownerReferences": owner("Deployment", &deployment)}, "spec": {"selector": selector, "template": template}}));
    let run = CollectorRun::start(&config(&cluster, "admin"), state.path());
    run.wait_until_watching();
    let pod = cluster.create("/api/v1/namespaces/shop/pods", &json!({
        "metadata": {"name": "web-7d9c5b-x1", "labels": {"tapio.criticality": "high"}, "ownerReferences": owner("ReplicaSet", &replicaset)},
        "spec": {"nodeName": "node-a", "containers": [{"name": "app", "image": "lab/app:1"}]}}));
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let scheduled = run.wait_for("k8s.pod.scheduled", "web-7d9c5b-x1");
    assert_eq!(scheduled["entity"]["k8s.deployment.name"], "web");
    assert_eq!(scheduled["attributes"]["tapio.k8s.owner.kind"], "Deployment");
    assert_eq!(scheduled["attributes"]["tapio.criticality"], "high");

    let set_rollout = |status: &str, reason: &str| {
        let progress = json!({"type": "Progressing", "status": status, "reason": reason, "message": "ReplicaSet \"web-7d9c5b\" has timed out progressing.",
            "lastUpdateTime": "2026-01-15T10:00:00Z", "lastTransitionTime": "2026-01-15T10:00:00Z"});
        cluster.patch(
            "/apis/apps/v1/namespaces/shop/deployments/web/status",
            &json!({"status": {"observedGeneration": 1, "conditions": [progress]}}),
        );
    };
    set_rollout("True", "ReplicaSetUpdated");
    let rollout = run.wait_for("k8s.deployment.rollout", "web");
    assert_eq!(rollout["attributes"]["tapio.k8s.rollout.state"], "progressing");
    assert_eq!(rollout["attributes"]["tapio.k8s.revision"], 7);
    assert_eq!(
        rollout["entity"],
        json!({"k8s.namespace.name": "shop", "k8s.deployment.name": "web"})
    );
    oom_kill_and_back_off(&cluster, "web-7d9c5b-x1", 1);
    let looping = run.wait_for("k8s.pod.crash_loop", "web-7d9c5b-x1");
    assert_eq!(looping["attributes"]["tapio.k8s.rollout.state"], "progressing");
    assert!(run.site.directory.pod(uid).unwrap().rolling_out);
    set_rollout("False", "ProgressDeadlineExceeded");
    let failed = run.wait_for_nth("k8s.deployment.rollout", "web", 2);
    assert_eq!(
        (&failed["attributes"]["tapio.k8s.rollout.state"], &failed["severity"]),
        (&json!("failed"), &json!("error"))
    );

    check_service_selection(&cluster, &run, uid);
    assert_emitted_once(&run.end());
}

fn check_service_selection(cluster: &Cluster, run: &CollectorRun, uid: &str) {
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.7.7", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    cluster.create("/api/v1/namespaces/shop/services", &service);
    let target = |uid: &str, name: &str| json!({"kind": "Pod", "uid": uid, "name": name, "namespace": "shop"});
    let slice = json!({"metadata": {"name": "web-s1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4", "ports": [],
        "endpoints": [{"addresses": ["10.88.0.9"], "targetRef": target(uid, "web-7d9c5b-x1")},
                      {"addresses": ["10.88.1.9"], "targetRef": target("11111111-1111-4111-8111-111111111111", "web-far")}]});
    cluster.create("/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices", &slice);
    let selects = json!({"tapio.relation.from.type": "service", "tapio.relation.from.name": "shop/web", "tapio.relation.type": "selects",
        "tapio.relation.to.type": "pod", "tapio.relation.to.name": uid});
    run.wait("the service selects the pod", |c| c.relations().contains(&selects));
    assert_eq!(run.site.directory.pod(uid).unwrap().services, ["web".into()]);
    let far = run.site.directory.address_owner("10.88.1.9".parse().unwrap());
    assert_eq!(far, Some(AddressOwner::Pod("11111111-1111-4111-8111-111111111111".into())));
    let of_service = || run.site.directory.address_owner("10.96.7.7".parse().unwrap());
    run.wait("the service's address", |_| {
        of_service() == Some(AddressOwner::Service("shop".into(), "web".into()))
    });
    cluster.delete("/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices/web-s1");
    let ended = |r: &Json| {
        r["tapio.relation.ended"] == json!(true) && r["tapio.relation.to.name"] == json!(uid)
    };
    run.wait("the service no longer selects the pod", |c| c.relations().iter().any(ended));
}

#[test]
fn endpoints_are_read_without_endpoint_slices() {
    let Some(cluster) = Cluster::start("--runtime-config=discovery.k8s.io/v1beta1=false") else {
        return;
    };
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    let uid = "22222222-2222-4222-8222-222222222222";
    let target = json!({"kind": "Pod", "uid": uid, "name": "web-far", "namespace": "shop"});
    cluster.create("/api/v1/namespaces/shop/endpoints", &json!({"metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": "10.88.1.9", "targetRef": target}], "ports": [{"port": 80}]}]}));
    let run = CollectorRun::start(&config(&cluster, "admin"), state.path());
    run.wait_until_watching();
    let whose = |c: &CollectorRun| c.site.directory.address_owner("10.88.1.9".parse().unwrap());
    run.wait("the pod's address", |c| whose(c) == Some(AddressOwner::Pod(uid.into())));
    assert_eq!(run.site.directory.pod(uid).unwrap().services, ["web".into()]);
    cluster.delete("/api/v1/namespaces/shop/endpoints/web");
    run.wait("the pod is removed", |c| c.site.directory.live_pods().is_empty());
    run.end();
}

/// Changes while no agent runs: of a known pod, a new pod, and a pod that is created and deleted.
fn change_unobserved(cluster: &Cluster) {
    oom_kill_and_back_off(cluster, "old", 1);
    cluster.pod("new", "node-a");
    start_pod(cluster, "new", "10.88.0.4");
    cluster.pod("short", "node-a");
    cluster.delete("/api/v1/namespaces/shop/pods/short");
    oom_kill_and_back_off(cluster, "old", 2);
    cluster.delete("/api/v1/namespaces/shop/pods/gone");
    cluster.patch("/api/v1/namespaces/shop/events/old.1", &json!({"count": 5}));
    event(
        cluster,
        "new.1",
        1,
        &json!({"kind": "Pod", "name": "new", "namespace": "shop", "uid": "u-new"}),
    );
    set_node_ready(cluster, "False", 6);
}

/// Runs the collector twice, with changes in between. Returns the events of both runs, and how
/// often the second run listed again.
fn two_runs(cluster: &Cluster, between: impl Fn()) -> (Vec<Json>, Vec<Json>, u64) {
    let state = tempfile::tempdir().unwrap();
    cluster.namespace("shop");
    node(cluster, "node-a");
    set_node_ready(cluster, "True", 1);
    let run = CollectorRun::start(&config(cluster, "admin"), state.path());
    run.wait_until_watching();
    for (pod, ip) in [("old", "10.88.0.2"), ("gone", "10.88.0.3")] {
        cluster.pod(pod, "node-a");
        start_pod(cluster, pod, ip);
        run.wait_for("k8s.pod.ready", pod);
    }
    event(
        cluster,
        "old.1",
        1,
        &json!({"kind": "Pod", "name": "old", "namespace": "shop", "uid": "u-old"}),
    );
    run.wait_for("k8s.event", "old");
    run.wait_until_saved(state.path());
    let first = run.end();
    between();
    let run = CollectorRun::start(&config(cluster, "admin"), state.path());
    run.wait_for("k8s.pod.deleted", "gone");
    run.wait_for("k8s.pod.ready", "new");
    run.wait_for("k8s.event", "new");
    run.wait_for("k8s.node.condition", "Ready");
    // The run continues with new changes.
    cluster.pod("later", "node-a");
    run.wait_for("k8s.pod.scheduled", "later");
    run.wait("the counters are published", |c| c.counter("pods") >= 3);
    let expired = run.counter("watches_expired");
    (first, run.end(), expired)
}

#[test]
fn restart_duplicates_and_loses_nothing() {
    let Some(cluster) = Cluster::start("") else { return };
    let (first, second, expired) = two_runs(&cluster, || change_unobserved(&cluster));
    assert_eq!(expired, 0, "the second run continued from its position");
    assert_emitted_once(&[first, second.clone()].concat());
    let mut emitted = kinds_and_names(&second);
    emitted.sort();
    // Each change in between, also of the pod that was created and deleted.
    assert_eq!(
        emitted,
        [
            "k8s.event new BackOff",
            "k8s.event old BackOff",
            "k8s.node.condition Ready",
            "k8s.pod.crash_loop old",
            "k8s.pod.crash_loop old",
            "k8s.pod.deleted gone",
            "k8s.pod.deleted short",
            "k8s.pod.oom_killed old",
            "k8s.pod.oom_killed old",
            "k8s.pod.ready new",
            "k8s.pod.running new",
            "k8s.pod.scheduled later",
            "k8s.pod.scheduled new",
            "k8s.pod.scheduled short",
            "k8s.pod.terminating gone",
            "k8s.pod.terminating short",
        ]
    );
}

#[test]
fn difference_is_emitted_once_after_410_gone() {
    // Without a watch cache the server reads etcd, which is compacted.
    let Some(cluster) = Cluster::start("--watch-cache=false") else { return };
    let between = || {
        change_unobserved(&cluster);
        cluster.compact();
    };
    let (first, second, expired) = two_runs(&cluster, between);
    assert!(expired >= 3, "pods, Events and the node were listed again: {expired}");
    assert_emitted_once(&[first, second.clone()].concat());
    let mut emitted = kinds_and_names(&second);
    emitted.sort();
    // The current state and the deletions; not what was created and deleted in between.
    assert_eq!(
        emitted,
        [
            "k8s.event new BackOff",
            "k8s.event old BackOff",
            "k8s.node.condition Ready",
            "k8s.pod.crash_loop old",
            "k8s.pod.deleted gone",
            "k8s.pod.oom_killed old",
            "k8s.pod.ready new",
            "k8s.pod.running new",
            "k8s.pod.scheduled later",
            "k8s.pod.scheduled new",
        ]
    );
}
