//! The container collector with a real containerd and runc.
//!
//! Without root or the runtime (`scripts/test-deps.sh`) a test prints why it is skipped;
//! `TAPIO_REQUIRE_KERNEL=1` makes that a failure.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "container/kubelet.rs"]
mod kubelet;
#[path = "container/registry.rs"]
mod registry;
#[path = "container/runtime.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod runtime;
#[path = "container/secrets.rs"]
mod secrets;
#[path = "support/mod.rs"]
mod support;

use kubelet::Kubelet;
use runtime::{Containerd, IMAGE, is_runtime_available};
use serde_json::Value;
use support::json::text;
use support::pipeline::{Pipeline, site};
use tapio_collectors::{Health, Site, container};

fn start_at(site: Site, containerd: &Containerd, namespaces: &[&str]) -> Pipeline {
    let namespaces = namespaces.iter().map(|n| (*n).to_owned()).collect();
    start_with(site, containerd, container::Config { namespaces, ..Default::default() })
}

fn start_with(site: Site, containerd: &Containerd, config: container::Config) -> Pipeline {
    let config = container::Config { sockets: vec![containerd.socket()], ..config };
    Pipeline::start_at(site, "container", &config)
}

/// Starts the collector and waits until it has compared the lists.
fn start(containerd: &Containerd) -> Pipeline {
    let pipeline = start_at(site(None), containerd, &[]);
    wait_until_connected(&pipeline, 1);
    pipeline
}

fn wait_until_connected(pipeline: &Pipeline, times: u64) {
    // The counters are published after the first comparison of the lists.
    pipeline.wait_until("the collector is connected", |p| p.counter("connections") >= times);
}

fn of(pipeline: &Pipeline, kind: &str, id: &str) -> Vec<Value> {
    pipeline.select(|e| e["kind"] == kind && e["entity"]["container.id"] == id)
}

fn wait_for(pipeline: &Pipeline, kind: &str, id: &str) -> Value {
    let is_it = |e: &Value| e["kind"] == kind && e["entity"]["container.id"] == id;
    pipeline.wait_for_nth(&format!("{kind} of {id}"), 1, is_it)
}

/// The kinds of a container's events, in order.
fn kinds(pipeline: &Pipeline, id: &str) -> Vec<String> {
    let events = pipeline.select(|e| e["entity"]["container.id"] == id);
    events.iter().map(|e| text(e, "kind")).collect()
}

/// The events of a complete container lifecycle.
const LIFECYCLE: [&str; 4] =
    ["container.created", "container.started", "container.exited", "container.deleted"];

#[test]
fn container_lifecycle_is_emitted_with_pod_names() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["k8s.io", "default"]);
    containerd.start();
    let pipeline = start(&containerd);
    let labels = [
        "io.kubernetes.pod.uid=0af76519-16cd-43dd-8448-eb211c80319c",
        "io.kubernetes.pod.name=web-0",
        "io.kubernetes.pod.namespace=shop",
        "io.kubernetes.container.name=app",
        "io.cri-containerd.kind=container",
    ];
    let options: Vec<_> = labels.iter().flat_map(|l| ["--label", l]).chain(["--rm"]).collect();
    let id = "5".repeat(64);
    let output = containerd.run("k8s.io", &options, &id, "exit 7");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    wait_for(&pipeline, "container.deleted", &id);
    assert_eq!(kinds(&pipeline, &id), LIFECYCLE);
    let exited = wait_for(&pipeline, "container.exited", &id);
    assert_eq!(exited["attributes"]["process.exit.code"], 7);
    assert_eq!(exited["severity"], "warn");
    assert_eq!(exited["message"], "container app of shop/web-0 exited with code 7");
    for kind in LIFECYCLE {
        let event = wait_for(&pipeline, kind, &id);
        assert_eq!(event["entity"]["node"], "node-1");
        assert_eq!(event["entity"]["k8s.pod.uid"], "0af76519-16cd-43dd-8448-eb211c80319c");
        assert_eq!(event["entity"]["k8s.pod.name"], "web-0", "{event:#}");
        assert_eq!(event["entity"]["k8s.namespace.name"], "shop");
        assert_eq!(event["entity"]["k8s.container.name"], "app");
        assert_eq!(event["entity"]["container.name"], "app");
    }
    let known = pipeline.site.directory.container(&id).unwrap();
    assert_eq!((known.name.as_ref(), known.pod_name.as_ref()), ("app", "web-0"));

    // A container without a pod, and without a kubelet.
    let output = containerd.run("default", &["--rm"], "plain", "exit 0");
    assert!(output.status.success(), "{output:?}");
    wait_for(&pipeline, "container.deleted", "plain");
    assert_eq!(kinds(&pipeline, "plain"), LIFECYCLE);
    let exited = wait_for(&pipeline, "container.exited", "plain");
    assert_eq!(exited["severity"], "info");
    assert!(exited["entity"].get("k8s.container.name").is_none());
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn oom_kill_reported_by_runtime_is_emitted() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let pipeline = start(&containerd);
    let hungry = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
    let options = ["--memory-limit", "16777216"];
    let output = containerd.run("default", &options, "hungry", hungry);
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    let exited = wait_for(&pipeline, "container.exited", "hungry");
    assert_eq!(exited["attributes"]["process.exit.code"], 137);
    let oom = wait_for(&pipeline, "container.oom", "hungry");
    assert_eq!(oom["severity"], "error");
    assert!(oom["message"].as_str().unwrap().contains("OOM kill in container hungry"));
    // The exit of an executed process isn't the container's exit.
    let output = containerd.run("default", &["--detach"], "calm", "sleep 600");
    assert!(output.status.success(), "{output:?}");
    let exec = ["tasks", "exec", "--exec-id", "e1", "calm", "/bin/sh", "-c", "exit 3"];
    assert_eq!(containerd.ctr("default", &exec).status.code(), Some(3));
    let output = containerd.ctr("default", &["tasks", "kill", "--signal", "SIGKILL", "calm"]);
    assert!(output.status.success(), "{output:?}");
    let exited = wait_for(&pipeline, "container.exited", "calm");
    assert_eq!(exited["attributes"]["process.exit.code"], 137);
    assert_eq!(of(&pipeline, "container.exited", "calm").len(), 1);
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn transitions_during_runtime_downtime_are_emitted_once() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default"]);
    // A missing runtime is reported in a status note and isn't a failure.
    let pipeline = start_at(site(None), &containerd, &[]);
    pipeline.wait_until("the status note is set", |p| {
        let notes = p.status().notes.clone();
        notes.iter().any(|n| n.state.contains("no socket of a container runtime found"))
    });
    containerd.start();
    wait_until_connected(&pipeline, 1);
    for id in ["stays", "ends", "goes"] {
        let output = containerd.run("default", &["--detach"], id, "sleep 600");
        assert!(output.status.success(), "{output:?}");
        wait_for(&pipeline, "container.started", id);
    }
    let started = wait_for(&pipeline, "container.started", "ends");
    let pid = started["entity"]["process.pid"].as_i64().unwrap() as i32;
    containerd.stop();
    // It ends while the runtime isn't running.
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    containerd.start();
    wait_until_connected(&pipeline, 2);
    let exited = wait_for(&pipeline, "container.exited", "ends");
    assert_eq!(exited["attributes"]["process.exit.code"], 137, "{exited:#}");
    containerd.ctr("default", &["tasks", "delete", "--force", "goes"]);
    containerd.ctr("default", &["containers", "delete", "goes"]);
    wait_for(&pipeline, "container.deleted", "goes");
    assert_eq!(kinds(&pipeline, "stays"), &LIFECYCLE[..2]);
    assert_eq!(kinds(&pipeline, "ends"), &LIFECYCLE[..3]);
    assert_eq!(kinds(&pipeline, "goes"), LIFECYCLE);
    let status = pipeline.status();
    assert_eq!((status.health, status.restarts), (Health::Running, 0));
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn restarted_agent_emits_missed_transitions_once() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default", "other"]);
    containerd.start();
    let before = containerd.run("default", &["--detach"], "before", "sleep 600");
    assert!(before.status.success(), "{before:?}");
    let state = containerd.folder().join("state");
    let run = || {
        let pipeline = start_at(site(Some(&state)), &containerd, &["default"]);
        wait_until_connected(&pipeline, 1);
        pipeline
    };
    let first = run();
    let output = containerd.run("default", &["--detach"], "between", "sleep 600");
    assert!(output.status.success(), "{output:?}");
    let started = wait_for(&first, "container.started", "between");
    let saved = || std::fs::read_to_string(state.join("cursors/container")).unwrap_or_default();
    let newest = first.texts("time").len();
    assert_eq!(
        (newest, kinds(&first, "before").len()),
        (2, 0),
        "existing containers emit no events"
    );
    first.wait_until("the cursor is saved", |_| !saved().is_empty());
    first.end();

    let output = containerd.run("default", &["--detach"], "meanwhile", "exit 4");
    assert!(output.status.success(), "{output:?}");
    let output = containerd.run("other", &["--rm"], "elsewhere", "exit 4");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let second = run();
    let exited = wait_for(&second, "container.exited", "meanwhile");
    assert_eq!(exited["attributes"]["process.exit.code"], 4);
    assert_eq!(kinds(&second, "meanwhile"), &LIFECYCLE[..3]);
    // An event that both runs emit has the same id.
    for event in of(&second, "container.started", "between") {
        assert_eq!(event["id"], started["id"]);
    }
    assert!(kinds(&second, "before").is_empty() && kinds(&second, "elsewhere").is_empty());
    assert!(second.end().snapshot.total.dropped.is_empty());
}

/// Pulls an image with busybox from the test's own registry. Returns its name.
fn pull(containerd: &Containerd, namespace: &str, delay: std::time::Duration) -> String {
    let image = registry::Image::of(&containerd.folder().join("root"), containerd.folder());
    let name = format!("{}/lab/app:1", registry::serve(image, delay));
    let args = ["images", "pull", "--plain-http", "--snapshotter", "native", &name];
    let output = containerd.ctr(namespace, &args);
    assert!(output.status.success(), "{output:?}");
    name
}

#[test]
fn pulled_image_is_emitted_with_its_duration() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let pipeline = start(&containerd);
    let name = pull(&containerd, "default", std::time::Duration::from_millis(300));
    let is_pull = |e: &Value| e["kind"] == "container.image.pulled";
    pipeline.wait_until("the pull is emitted", |p| !p.select(is_pull).is_empty());
    // Another name for the same content isn't a pull.
    let again = format!("{name}-again");
    assert!(containerd.ctr("default", &["images", "tag", &name, &again]).status.success());
    let output = containerd.run("default", &["--rm"], "after", "exit 0");
    assert!(output.status.success(), "{output:?}");
    wait_for(&pipeline, "container.deleted", "after");
    let pulls = pipeline.select(is_pull);
    assert_eq!(pulls.len(), 1, "{pulls:#?}");
    assert_eq!(pulls[0]["entity"]["container.image.name"], name);
    // The registry delays the layer, which comes after the manifest.
    let pull_ns = pulls[0]["attributes"]["tapio.image.pull_ns"].as_u64().unwrap();
    assert!(pull_ns >= 300_000_000, "{pull_ns}");
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

/// A containerd with the CRI and an image for pods.
fn with_pods() -> Containerd {
    let mut containerd = Containerd::with_cri();
    containerd.start();
    let name = pull(&containerd, "k8s.io", std::time::Duration::ZERO);
    let tag = containerd.ctr("k8s.io", &["images", "tag", &name, IMAGE]);
    assert!(tag.status.success(), "{tag:?}");
    containerd
}

const UID: &str = "0af76519-16cd-43dd-8448-eb211c80319c";

#[test]
fn containers_of_a_pod_have_names_and_restart_counts_of_the_cri() {
    if !is_runtime_available() {
        return;
    }
    let containerd = with_pods();
    let pipeline = start(&containerd);
    let mut kubelet = Kubelet::new(&containerd.socket());
    let pod = kubelet.pod("web-0", UID);
    let hungry = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
    // The first container exits, the second one runs out of memory.
    let first = kubelet.container(&pod, 0, 0, "exit 3");
    let exited = wait_for(&pipeline, "container.exited", &first);
    assert_eq!(exited["attributes"]["process.exit.code"], 3);
    assert_eq!(exited["attributes"]["k8s.container.restart_count"], 0);
    let second = kubelet.container(&pod, 1, 16 << 20, hungry);
    let exited = wait_for(&pipeline, "container.exited", &second);
    assert_eq!(exited["attributes"]["process.exit.code"], 137);
    assert_eq!(exited["attributes"]["k8s.container.restart_count"], 1);
    assert_eq!(exited["message"], "container app of shop/web-0 exited with code 137");
    let oom_of = |e: &Value| {
        let id = &e["entity"]["container.id"];
        e["kind"] == "container.oom" && (*id == *second || *id == *pod.sandbox)
    };
    pipeline.wait_until("the OOM kill", |p| !p.select(oom_of).is_empty());
    let sandbox = wait_for(&pipeline, "container.created", &pod.sandbox);
    assert_eq!(sandbox["attributes"]["tapio.container.sandbox"], true);
    assert!(sandbox["entity"].get("k8s.container.name").is_none());
    assert_eq!(pipeline.site.directory.live_pods().len(), 1);
    kubelet.remove_container(&first);
    kubelet.remove(&pod);
    wait_for(&pipeline, "container.deleted", &pod.sandbox);
    wait_for(&pipeline, "container.deleted", &second);
    assert_eq!(kinds(&pipeline, &first), LIFECYCLE);
    for event in &pipeline.events() {
        let kind = event["kind"].as_str().unwrap();
        if kind.starts_with("container.image.") {
            continue;
        }
        assert_eq!(event["entity"]["k8s.pod.uid"], UID, "{event:#}");
        assert_eq!(event["entity"]["k8s.pod.name"], "web-0");
        assert_eq!(event["entity"]["k8s.namespace.name"], "shop");
    }
    assert!(pipeline.site.directory.live_pods().is_empty(), "no other source has the pod");
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn runtime_with_cri_only_is_polled() {
    if !is_runtime_available() {
        return;
    }
    let containerd = with_pods();
    let mut kubelet = Kubelet::new(&containerd.socket());
    let old = kubelet.pod("old-0", "00000000-0000-4000-8000-000000000001");
    let config = container::Config { cri_only: true, ..Default::default() };
    let pipeline = start_with(site(None), &containerd, config);
    pipeline.wait_until("the lists are compared", |p| {
        p.status().counters.contains(&("containers".into(), 1))
    });
    let pod = kubelet.pod("web-0", UID);
    let id = kubelet.container(&pod, 2, 0, "sleep 1; exit 5");
    let exited = wait_for(&pipeline, "container.exited", &id);
    assert_eq!(exited["attributes"]["process.exit.code"], 5);
    assert_eq!(exited["attributes"]["k8s.container.restart_count"], 2);
    assert_eq!(exited["entity"]["k8s.pod.name"], "web-0");
    assert!(exited["attributes"]["tapio.container.duration_ns"].as_u64() > Some(0));
    kubelet.remove(&pod);
    wait_for(&pipeline, "container.deleted", &id);
    assert_eq!(kinds(&pipeline, &id), LIFECYCLE);
    wait_for(&pipeline, "container.deleted", &pod.sandbox);
    assert_eq!(
        kinds(&pipeline, &pod.sandbox),
        [LIFECYCLE[0], LIFECYCLE[3]],
        "a sandbox of the CRI has no process"
    );
    assert!(kinds(&pipeline, &old.sandbox).is_empty(), "existing pods emit no events");
    kubelet.remove(&old);
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}
