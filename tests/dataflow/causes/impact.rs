//! Impact from facts: each fact changes the impact and is named in its evidence.

use serde_json::{Value as Json, json};

use crate::causes::{at, event, last_story, rules, with};

const RULE: &str = "rule: down
events:
  oom: { kind: kernel.process.oom_kill }
  pod: { kind: k8s.pod.oom_killed }
  failed: { kind: systemd.unit.failed }
  refused: { kind: kernel.tcp.refused }
sequence:
  by: [host.name]
  within: 60s
  steps: [{ event: oom }, { event: pod, optional: true }, { event: failed, optional: true }, { event: refused }]
story: { pattern: down }
";

/// A pod of the deployment and service `shop/web`.
fn pod(time: i64, kind: &str, name: &str, severity: &str) -> Json {
    json!({
        "id": format!("{kind}@{name}@{time}"), "time": time, "kind": kind, "source": "k8s",
        "severity": severity, "message": "",
        "entity": {
            "node": "h", "k8s.pod.uid": format!("uid-{name}"), "k8s.pod.name": name,
            "k8s.namespace.name": "shop", "k8s.deployment.name": "web",
        },
        "attributes": {"k8s.service.name": "web"},
    })
}

fn refused(time: i64, peer: &str) -> Json {
    with(
        event(time, "kernel.tcp.refused", "client.service", "warn"),
        &json!({"attributes": {"network.peer.address": peer, "network.peer.port": 8080}}),
    )
}

/// The pod is OOM-killed, and the connection of a client on the same node is refused.
fn story(pod_name: &str) -> Vec<Json> {
    vec![
        event(at(0.0), "kernel.process.oom_kill", "kubepods.slice", "error"),
        pod(at(500.0), "k8s.pod.oom_killed", pod_name, "error"),
        refused(at(900.0), "127.0.0.1"),
    ]
}

fn ready(name: &str) -> Json {
    pod(at(-60_000.0), "k8s.pod.ready", name, "info")
}

fn impact(events: &[Json]) -> Json {
    last_story(events, &rules(RULE))["impact"].clone()
}

fn has_evidence(impact: &Json, fact: &str) -> bool {
    crate::causes::texts(&impact["evidence"]).contains(&fact)
}

#[test]
fn service_is_lost_with_its_last_ready_pod() {
    let mut alone = story("a");
    alone.push(ready("a"));
    let lost = impact(&alone);
    assert!(has_evidence(&lost, "service shop/web lost: no provider left"), "{lost}");
    assert!(has_evidence(&lost, "deployment shop/web: 0 of 1 pods ready"), "{lost}");
    assert_eq!([&lost["customer_facing"], &lost["slo_impact"]], [true, true]);
    let mut two = alone.clone();
    two.push(ready("b"));
    let kept = impact(&two);
    assert!(!has_evidence(&kept, "service shop/web lost: no provider left"), "{kept}");
    assert!(has_evidence(&kept, "service shop/web: 1 of 2 pods ready"), "{kept}");
    assert_eq!(kept["slo_impact"], false, "the other pod serves");
    let business = |i: &Json| i["business"].as_f64().unwrap();
    assert!(business(&kept) < business(&lost));
    // A pod that ceased to be ready before is no replica.
    two.push(pod(at(-30_000.0), "k8s.pod.crash_loop", "b", "info"));
    assert!(has_evidence(&impact(&two), "service shop/web lost: no provider left"));
}

#[test]
fn endpoint_without_another_provider_is_lost() {
    let accepts = |unit: &str| {
        with(
            event(at(-5_000.0), "kernel.tcp.accept", unit, "info"),
            &json!({"attributes": {"network.local.address": "10.0.0.5", "network.local.port": 443}}),
        )
    };
    let connects = with(
        event(at(-4_000.0), "kernel.tcp.connect", "shop.service", "info"),
        &json!({"attributes": {"network.peer.address": "10.0.0.5", "network.peer.port": 443}}),
    );
    let failed = vec![
        event(at(0.0), "kernel.process.oom_kill", "web.service", "error"),
        event(at(500.0), "systemd.unit.failed", "web.service", "error"),
        refused(at(900.0), "127.0.0.1"),
    ];
    let none = impact(&failed);
    assert_eq!(none["customer_facing"], false, "loopback isn't customer-facing: {none}");
    let mut serving = failed.clone();
    serving.extend([accepts("web.service"), connects]);
    let lost = impact(&serving);
    assert!(has_evidence(&lost, "endpoint 10.0.0.5:443 lost: no provider left"), "{lost}");
    assert!(has_evidence(&lost, "dependents: unit shop.service, endpoint 10.0.0.5:443"), "{lost}");
    assert_eq!(lost["customer_facing"], true);
    assert!(crate::causes::texts(&lost["affected"]).contains(&"unit shop.service"), "{lost}");
    serving.push(accepts("other.service"));
    assert!(!has_evidence(&impact(&serving), "endpoint 10.0.0.5:443 lost: no provider left"));
}

#[test]
fn affected_names_enclosing_entities_and_programs() {
    let process = |event: Json, pid: u32, program: &str| {
        let exec = format!("{pid}:99887766");
        with(
            event,
            &json!({"entity": {"process.pid": pid, "tapio.process.exec_id": exec},
                    "attributes": {"process.executable.name": program}}),
        )
    };
    let served =
        json!({"attributes": {"network.local.address": "10.0.0.5", "network.local.port": 443}});
    let connects =
        json!({"attributes": {"network.peer.address": "10.0.0.5", "network.peer.port": 443}});
    // A process outside of any unit, pod and container.
    let standalone = |pid, ms| {
        let mut event = event(at(ms), "kernel.tcp.connect", "", "info");
        event["entity"].as_object_mut().unwrap().remove("systemd.unit");
        process(with(event, &connects), pid, "curl")
    };
    let of_web = |pid, ms| {
        let event = event(at(ms), "kernel.tcp.accept", "web.service", "info");
        process(with(event, &served), pid, "web")
    };
    let of_shop = |pid, ms| {
        let event = event(at(ms), "kernel.tcp.connect", "shop.service", "info");
        process(with(event, &connects), pid, "shop")
    };
    let impact = impact(&[
        event(at(0.0), "kernel.process.oom_kill", "web.service", "error"),
        event(at(500.0), "systemd.unit.failed", "web.service", "error"),
        refused(at(900.0), "127.0.0.1"),
        of_web(900, -9_000.0),
        of_web(901, -8_000.0),
        of_shop(20, -7_000.0),
        of_shop(21, -6_000.0),
        standalone(4711, -5_000.0),
        standalone(4712, -4_000.0),
    ]);
    let affected = crate::causes::texts(&impact["affected"]);
    let processes: Vec<_> = affected.iter().filter(|a| a.starts_with("process")).collect();
    assert_eq!(processes, [&"process curl"], "{affected:?}");
    assert!(affected.contains(&"unit shop.service") && affected.contains(&"unit web.service"));
    let dependents = "dependents: unit shop.service, process curl (pid 4711), \
                     process curl (pid 4712), endpoint 10.0.0.5:443";
    assert!(has_evidence(&impact, dependents), "{impact}");
}

#[test]
fn failed_connections_count_by_whether_they_leave_the_node() {
    let mut outside = story("a");
    outside[2] = refused(at(900.0), "10.0.0.9");
    let [inside, outside] = [impact(&story("a")), impact(&outside)];
    assert!(
        has_evidence(&inside, "1 failed connection")
            && has_evidence(&outside, "1 failed connection")
    );
    let business = |i: &Json| i["business"].as_f64().unwrap();
    assert_eq!(outside["customer_facing"], true);
    assert!(business(&outside) >= business(&inside));
}

#[test]
fn criticality_labels_count() {
    let business = |label: Option<&str>| {
        let mut events = story("a");
        events.push(ready("b"));
        if let Some(label) = label {
            let labelled = with(ready("a"), &json!({"attributes": {"tapio.criticality": label}}));
            events.push(labelled);
        }
        let impact = impact(&events);
        let expected = format!("criticality of pod shop/a: {}", label.unwrap_or(""));
        assert_eq!(has_evidence(&impact, &expected), label.is_some(), "{impact}");
        impact["business"].as_f64().unwrap()
    };
    let all = [business(None), business(Some("medium")), business(Some("critical"))];
    assert!(all[0] < all[1] && all[1] < all[2], "{all:?}");
    assert_eq!(business(Some("low")), all[0]);
}
