//! The whole agent on a real node: kubelet, containerd and CNI run real pods that fail in different
//! ways.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value as Json;

use crate::agent::Agent;
use crate::cluster::{Cluster, skipped};
use crate::collector_run::{assert_emitted_once, kinds_and_names};

/// A cluster with a node; ended on drop.
pub(crate) struct Lab(Cluster);

impl Lab {
    pub(crate) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("a node needs root");
            return None;
        }
        let lab = Self(Cluster::start("")?);
        lab.0.script("node-up.sh", &[&lab.0.port.to_string()], "");
        Some(lab)
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.0
    }

    pub(crate) fn collectors(&self) -> String {
        format!(
            "collectors: {{ ebpf: {{ kinds: [kernel.process.oom_kill] }}, k8s: {{ kubeconfig: {}, context: admin }} }}",
            self.0.kubeconfig().display()
        )
    }

    fn create_pods(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/k8s/pods.yaml");
        let kubectl = crate::cluster::testbed().unwrap().join("opt/kubectl/usr/bin/kubectl");
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(self.0.kubeconfig()).args(["create", "-f"]).arg(file);
        assert!(command.output().unwrap().status.success());
    }

    fn pod(&self, name: &str) -> Json {
        self.0.request("GET", &format!("/api/v1/namespaces/default/pods/{name}"), &Json::Null, &[])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.0.script("node-down.sh", &[], "");
    }
}

fn of<'a>(events: &'a [Json], kind: &'a str, pod: &'a str) -> impl Iterator<Item = &'a Json> {
    events.iter().filter(move |e| e["kind"] == kind && e["entity"]["k8s.pod.name"] == pod)
}

fn count(agent: &Agent, kind: &str, pod: &str) -> usize {
    of(&agent.events(), kind, pod).count()
}

/// Events without relations, which the agent emits again after each start.
fn facts(events: &[Json]) -> Vec<Json> {
    events.iter().filter(|e| e["kind"] != "entity.relation").cloned().collect()
}

fn shard_counter(agent: &Agent, counter: &str) -> u64 {
    let status = agent.status();
    status["shards"].as_array().unwrap().iter().filter_map(|s| s[counter].as_u64()).sum()
}

fn reasons(events: &[Json], pod: &str) -> BTreeSet<String> {
    let reason = |e: &Json| e["attributes"]["k8s.event.reason"].as_str().map(str::to_owned);
    of(events, "k8s.event", pod).filter_map(reason).collect()
}

fn assert_back_offs_are_of_a_watched_pod(events: &[Json]) {
    let crashed = of(events, "k8s.event", "crash");
    let back_offs: Vec<&Json> =
        crashed.filter(|e| e["attributes"]["k8s.event.reason"] == "BackOff").collect();
    let is_watched = |e: &&Json| e["attributes"]["tapio.k8s.pod.watched"] == true;
    assert!(!back_offs.is_empty() && back_offs.iter().all(is_watched), "{back_offs:#?}");
}

#[test]
fn real_pods_are_emitted_once_and_oom_kills_have_their_names() {
    let Some(lab) = Lab::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &lab.collectors());
    agent.wait("pods are watched", |a| a.status().to_string().contains("\"watches\""));
    lab.create_pods();
    agent.wait("two OOM kills", |a| count(a, "kernel.process.oom_kill", "oom") >= 2);
    agent.wait("a crash loop", |a| count(a, "k8s.pod.crash_loop", "crash") >= 1);
    // The container now waits for ten seconds: restart the agent in between.
    agent.end(Signal::TERM);
    let agent = Agent::start(folder.path(), &lab.collectors());
    agent.wait("the third OOM kill", |a| count(a, "kernel.process.oom_kill", "oom") >= 3);
    agent.wait("a continued crash loop", |a| count(a, "k8s.pod.crash_loop", "crash") >= 3);
    lab.0.delete("/api/v1/namespaces/default/pods/ok");
    agent.wait("a deleted pod", |a| count(a, "k8s.pod.deleted", "ok") >= 1);
    let events = facts(&agent.events());
    assert_emitted_once(&events);

    assert_back_offs_are_of_a_watched_pod(&events);
    let kills: Vec<&Json> = of(&events, "kernel.process.oom_kill", "oom").collect();
    for kill in &kills {
        let entity = &kill["entity"];
        assert_eq!(entity["k8s.container.name"], "app", "{kill:#}");
        assert_eq!(entity["k8s.namespace.name"], "default", "{kill:#}");
        assert_eq!(entity["k8s.pod.uid"], lab.pod("oom")["metadata"]["uid"], "{kill:#}");
    }
    let by_container: BTreeSet<&str> =
        kills.iter().filter_map(|k| k["entity"]["container.id"].as_str()).collect();
    assert_eq!(by_container.len(), kills.len(), "one kill for each run of the container");
    let api: Vec<&Json> = of(&events, "k8s.pod.oom_killed", "oom").collect();
    println!("OOM kills: {} reported by the kernel, {} by the API", kills.len(), api.len());
    let [late, retracted, all] =
        ["events_late", "stories_retracted", "events"].map(|c| shard_counter(&agent, c));
    println!("{late} of {all} events were late, {retracted} stories were retracted");

    for kind in [
        "k8s.pod.scheduled",
        "k8s.pod.running",
        "k8s.pod.ready",
        "k8s.pod.terminating",
        "k8s.pod.deleted",
    ] {
        assert_eq!(of(&events, kind, "ok").count(), 1, "{kind}: {:#?}", kinds_and_names(&events));
    }
    // Every back-off of the crashing container, across the restart of the agent.
    let loops: Vec<u64> = of(&events, "k8s.pod.crash_loop", "crash")
        .filter_map(|e| e["attributes"]["k8s.container.restart_count"].as_u64())
        .collect();
    let all: Vec<u64> = (loops[0]..loops[0] + loops.len() as u64).collect();
    assert_eq!(loops, all, "none is missing, none is duplicated");
    let code = of(&events, "k8s.pod.crash_loop", "crash").next().unwrap();
    assert_eq!(code["attributes"]["process.exit.code"], 3);
    assert!(
        reasons(&events, "noimage").contains("ErrImageNeverPull"),
        "{:?}",
        reasons(&events, "noimage")
    );
    let live = reasons(&events, "live");
    assert!(live.contains("Unhealthy") && live.contains("Killing"), "{live:?}");
    assert_eq!(of(&events, "k8s.pod.running", "noimage").count(), 0);
    for pattern in ["container-oom", "pod-crash-loop", "liveness-failure"] {
        let is_emitted = |a: &Agent| {
            a.stories().iter().any(|s| s["pattern"] == pattern && s["state"] != "retracted")
        };
        agent.wait(&format!("the story {pattern}"), is_emitted);
    }
    agent.end(Signal::TERM);
}

#[test]
fn agent_in_pod_uses_service_account() {
    let Some(cluster) = Cluster::start("") else { return };
    if !rustix::process::geteuid().is_root() {
        return skipped("a mount namespace needs root");
    }
    let folder = tempfile::tempdir().unwrap();
    let collectors = "collectors: { ebpf: { enabled: false } }";
    let agent = Agent::start_in_pod(folder.path(), collectors, &cluster);
    agent.wait("pods are watched", |a| a.status().to_string().contains("\"watches\""));
    cluster.namespace("shop");
    // Without configuration, the node is the agent's.
    cluster.pod("web-0", "lab-node");
    agent.wait("the pod", |a| count(a, "k8s.pod.scheduled", "web-0") == 1);
    agent.end(Signal::TERM);
}

#[test]
fn without_cluster_collector_is_unavailable_and_names_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), "collectors: { ebpf: { enabled: false } }");
    agent.wait("the collector is unavailable", |a| {
        a.status()["collectors"]["k8s"]["health"] == "unavailable"
    });
    let error = agent.status()["collectors"]["k8s"]["last_error"].to_string();
    assert!(error.contains("collectors.k8s.kubeconfig"), "{error}");
    agent.end(Signal::TERM);
}

#[test]
fn kill_loses_no_event_and_changes_no_id() {
    let Some(lab) = Lab::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &lab.collectors());
    agent.wait("pods are watched", |a| a.status().to_string().contains("\"watches\""));
    lab.create_pods();
    agent.wait("a crash loop", |a| count(a, "k8s.pod.crash_loop", "crash") >= 1);
    agent.end(Signal::KILL);
    // While no agent runs, a pod is deleted and the others continue.
    lab.0.delete("/api/v1/namespaces/default/pods/ok");
    std::thread::sleep(Duration::from_secs(8));
    let agent = Agent::start(folder.path(), &lab.collectors());
    agent.wait("a deleted pod", |a| count(a, "k8s.pod.deleted", "ok") >= 1);
    agent.wait("a continued crash loop", |a| count(a, "k8s.pod.crash_loop", "crash") >= 3);
    let events = facts(&agent.events());
    // Events that were held at the kill are emitted again under their ids, and stored once.
    let ids: BTreeSet<&str> = events.iter().filter_map(|e| e["id"].as_str()).collect();
    assert_eq!(ids.len(), events.len(), "an event is stored twice");
    let distinct = |kind, pod| {
        let ids = of(&events, kind, pod).filter_map(|e| e["id"].as_str());
        ids.collect::<BTreeSet<_>>().len()
    };
    for kind in [
        "k8s.pod.scheduled",
        "k8s.pod.running",
        "k8s.pod.ready",
        "k8s.pod.terminating",
        "k8s.pod.deleted",
    ] {
        assert_eq!(distinct(kind, "ok"), 1, "{kind}");
    }
    let loops: BTreeSet<u64> = of(&events, "k8s.pod.crash_loop", "crash")
        .filter_map(|e| e["attributes"]["k8s.container.restart_count"].as_u64())
        .collect();
    let (first, last) = (loops.first().unwrap(), loops.last().unwrap());
    assert_eq!(loops.len() as u64, last - first + 1, "no back-off is missing: {loops:?}");
    agent.end(Signal::TERM);
}
