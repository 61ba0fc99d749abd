//! Memory of the caches: 500 pods on the node, 20,000 in the cluster, each behind a service. Prints
//! JSON. Takes minutes, so it runs only on request:
//! `scripts/e2e.sh memory -- --ignored --nocapture`.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::agent::Agent;
use crate::cluster::Cluster;

const NODE_PODS: usize = 500;
const CLUSTER_PODS: usize = 20_000;
/// Pods behind each service, and endpoints of each slice: the most that the controller puts into
/// one.
const SERVICE_PODS: usize = 100;
const LONG: Duration = Duration::from_secs(600);

/// Creates objects, 1,000 per curl process, 40 at a time.
fn create_all(cluster: &Cluster, objects: impl Iterator<Item = (String, Json)>) {
    let mut objects = objects.peekable();
    while objects.peek().is_some() {
        let mut config = String::new();
        for (path, body) in objects.by_ref().take(1_000) {
            let body = body.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(
                config,
                "next\nurl = \"https://127.0.0.1:{}{path}\"\nrequest = POST\nfail\nsilent\nshow-error\noutput = /dev/null\ncacert = {}\n\
                 header = \"Authorization: Bearer testbed-admin\"\nheader = \"Content-Type: application/json\"\ndata-binary = \"{body}\"\n",
                cluster.port,
                cluster.path("pki/ca.crt").display(),
            );
        }
        let file = cluster.path("curl");
        std::fs::write(&file, config.trim_start_matches("next\n")).unwrap();
        let mut curl = Command::new("curl");
        let output =
            curl.args(["--parallel", "--parallel-max", "40", "-K"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A pod of usual size, with annotations and environment; the server adds its own fields.
fn pod(n: usize) -> (String, Json) {
    let node = if n < NODE_PODS { "node-a".to_owned() } else { format!("node-{}", n % 100) };
    let env: Vec<Json> =
        (0..10).map(|i| json!({"name": format!("SETTING_{i}"), "value": "x".repeat(40)})).collect();
    let body = json!({
        "metadata": {"name": format!("web-{n}"), "labels": {"app": "web", "pod-template-hash": "7d9c5b"}, "annotations": {"notes": "y".repeat(800)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{}-7d9c5b", n / 10), "uid": format!("rs-{}", n / 10), "controller": true}]},
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "registry.example.com/team/app:1.2.3", "env": env}]}});
    ("/api/v1/namespaces/shop/pods".to_owned(), body)
}

fn uid(n: usize) -> String {
    format!("{n:08x}-16cd-43dd-8448-eb211c80319c")
}

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", 100 + n / 65_536, n / 256 % 256, n % 256)
}

fn slice(service: usize) -> (String, Json) {
    let endpoints: Vec<Json> = (service * SERVICE_PODS..(service + 1) * SERVICE_PODS)
        .map(|n| json!({"addresses": [address(n)], "nodeName": format!("node-{}", n % 100),
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("web-{n}"), "uid": uid(n)}}))
        .collect();
    let body = json!({"metadata": {"name": format!("web-{service}-s"), "labels": {"kubernetes.io/service-name": format!("web-{service}")}},
        "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints});
    ("/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices".to_owned(), body)
}

fn service(n: usize) -> (String, Json) {
    let body = json!({"metadata": {"name": format!("web-{n}")}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    ("/api/v1/namespaces/shop/services".to_owned(), body)
}

/// Runs an agent with this collector only, and measures its memory once the caches are full.
fn measure(cluster: &Cluster, what: &str, cluster_pods: bool, pods: u64, behind: u64) -> Json {
    let folder = tempfile::tempdir().unwrap();
    let collectors = format!(
        "collectors: {{ ebpf: {{ enabled: false }}, k8s: {{ kubeconfig: {}, context: admin, node: node-a, cluster_pods: {cluster_pods} }} }}",
        cluster.kubeconfig().display()
    );
    let agent = Agent::start(folder.path(), &collectors);
    let counters = |a: &Agent| a.status()["collectors"]["k8s"]["counters"].clone();
    agent.wait_within(LONG, what, |a| {
        let c = counters(a);
        c["pods"] == json!(pods)
            && c["pods_behind_services"] == json!(behind)
            && c["watches"].as_u64() >= Some(6)
    });
    std::thread::sleep(Duration::from_secs(5));
    let of = |field: &str| agent.memory_kib(field);
    let row = json!({"what": what, "rss_anon_kib": of("RssAnon"), "peak_rss_kib": of("VmHWM"), "counters": counters(&agent)});
    agent.end(Signal::TERM);
    row
}

#[test]
#[ignore = "minutes long"]
fn memory_of_the_caches() {
    let Some(cluster) = Cluster::start("") else { return };
    cluster.namespace("shop");
    let mut rows = vec![measure(&cluster, "an empty cluster", false, 0, 0)];
    create_all(&cluster, (0..NODE_PODS).map(pod));
    rows.push(measure(&cluster, "500 pods on the node", false, NODE_PODS as u64, 0));
    create_all(&cluster, (0..CLUSTER_PODS / SERVICE_PODS).map(service));
    create_all(&cluster, (0..CLUSTER_PODS / SERVICE_PODS).map(slice));
    create_all(&cluster, (NODE_PODS..CLUSTER_PODS).map(pod));
    rows.push(measure(
        &cluster,
        "and 20,000 in the cluster, behind 200 services",
        false,
        NODE_PODS as u64,
        CLUSTER_PODS as u64,
    ));
    rows.push(measure(
        &cluster,
        "with cluster_pods",
        true,
        CLUSTER_PODS as u64,
        CLUSTER_PODS as u64,
    ));
    println!("{:#}", Json::from(rows));
}
