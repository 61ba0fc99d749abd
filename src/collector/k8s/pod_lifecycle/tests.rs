//! Recorded lifecycles, and arbitrary ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CREATED: &str = "2026-01-15T10:00:00Z";
const SECOND: u64 = 1_000_000_000;

fn ns(text: &str) -> u64 {
    serde_json::from_value::<Time>(json!(text)).unwrap().ns
}

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "uid": "u1", "name": "web-0", "namespace": "shop", "resourceVersion": "7",
            "creationTimestamp": CREATED,
            "annotations": {"secret": "s3cr3t"}, "managedFields": [{"manager": "kubelet"}]
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "env": [{"name": "A", "value": "s3cr3t"}]}]},
        "status": status
    }))
    .unwrap()
}

/// The keys and times of new facts.
fn keys_and_times(pod: &Pod, lifecycle: &mut PodLifecycle) -> Vec<(String, Option<u64>)> {
    let mut out = Vec::new();
    lifecycle.step(pod, &mut out);
    out.into_iter().map(|t| (t.natural_key, t.time_ns)).collect()
}

fn keys(pod: &Pod, lifecycle: &mut PodLifecycle) -> Vec<String> {
    keys_and_times(pod, lifecycle).into_iter().map(|t| t.0).collect()
}

fn conditions(ready: bool, since: &str) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED},
           {"type": "Ready", "status": ready, "lastTransitionTime": since}])
}

#[test]
fn lifecycle_from_scheduled_to_deleted() {
    let mut lifecycle = PodLifecycle::default();
    let waiting = json!({"phase": "Pending", "conditions": conditions(false, CREATED),
        "containerStatuses": [{"name": "app", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    assert_eq!(
        keys_and_times(&pod(waiting.clone()), &mut lifecycle),
        [("scheduled".into(), Some(ns(CREATED)))]
    );
    assert_eq!(keys(&pod(waiting), &mut lifecycle).len(), 0);
    let started = "2026-01-15T10:00:03Z";
    let running = json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:00:04Z"),
        "containerStatuses": [{"name": "app", "restartCount": 0, "containerID": "containerd://c1", "state": {"running": {"startedAt": started}}}]});
    let mut out = Vec::new();
    lifecycle.step(&pod(running), &mut out);
    assert_eq!((out[0].fact.clone(), out[0].time_ns), (PodFact::Running, Some(ns(started))));
    let ready =
        PodFact::Ready { startup_ns: Some(4 * SECOND), restarts: 0, last_reason: "".into() };
    assert_eq!((out[1].fact.clone(), out.len()), (ready, 2));
    let mut leaving =
        pod(json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:00:04Z")}));
    leaving.metadata.deletion_timestamp = Some(Time { ns: ns("2026-01-15T11:00:30Z") });
    leaving.metadata.deletion_grace_period_seconds = Some(30);
    leaving.metadata.finalizers = vec!["a/b".into(), "c".into()];
    let mut out = Vec::new();
    lifecycle.step(&leaving, &mut out);
    let fact = PodFact::Terminating { grace_s: Some(30), finalizers: "a/b,c".into() };
    assert_eq!((out[0].fact.clone(), out[0].time_ns), (fact, Some(ns("2026-01-15T11:00:00Z"))));
    assert_eq!((lifecycle.deleted().natural_key.as_str(), out.len()), ("deleted", 1));
}

#[test]
fn each_end_of_crash_looping_container_is_emitted_once() {
    let mut lifecycle = PodLifecycle::default();
    let end = |id: &str, reason: &str| {
        json!({"terminated": {"exitCode": 137, "reason": reason, "containerID": format!("containerd://{id}"),
            "startedAt": "2026-01-15T10:00:05Z", "finishedAt": "2026-01-15T10:00:09Z"}})
    };
    let step = |restarts: u32, state: Value, last: Value| {
        pod(json!({"phase": "Running", "conditions": conditions(false, CREATED),
            "containerStatuses": [{"name": "app", "restartCount": restarts, "state": state, "lastState": last}]}))
    };
    let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
    let running = json!({"running": {"startedAt": "2026-01-15T10:00:20Z"}});
    let joined_keys = |pod: Pod, l: &mut PodLifecycle| keys(&pod, l).join(" ");
    let first = step(0, end("c1", "OOMKilled"), json!({}));
    assert_eq!(joined_keys(first, &mut lifecycle), "scheduled running oom_killed/app/c1");
    assert_eq!(
        joined_keys(step(0, back_off.clone(), end("c1", "OOMKilled")), &mut lifecycle),
        "crash_loop/app/0/c1"
    );
    assert_eq!(joined_keys(step(1, running.clone(), end("c1", "OOMKilled")), &mut lifecycle), "");
    let both = step(1, end("c2", "OOMKilled"), end("c1", "OOMKilled"));
    assert_eq!(joined_keys(both.clone(), &mut lifecycle), "oom_killed/app/c2");
    assert_eq!(joined_keys(both, &mut lifecycle), "");
    assert_eq!(
        joined_keys(step(2, back_off.clone(), end("c2", "OOMKilled")), &mut lifecycle),
        "crash_loop/app/2/c2"
    );
    assert_eq!(
        joined_keys(step(3, back_off, end("c3", "Error")), &mut lifecycle),
        "crash_loop/app/3/c3"
    );
    assert_eq!(
        joined_keys(step(4, running, end("c4", "OOMKilled")), &mut lifecycle),
        "oom_killed/app/c4"
    );
}

#[test]
fn crash_loop_contains_last_end() {
    let mut lifecycle = PodLifecycle::default();
    let looping = pod(
        json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "lab/app:1", "restartCount": 4,
        "containerID": "containerd://c9", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "containerID": "containerd://c8", "finishedAt": "2026-01-15T10:09:00Z"}}}]}),
    );
    let mut out = Vec::new();
    lifecycle.step(&looping, &mut out);
    let found = out.iter().find(|t| matches!(t.fact, PodFact::CrashLoop { .. })).unwrap();
    let container = ContainerEnd {
        name: "app".into(),
        id: "c8".into(),
        image: "lab/app:1".into(),
        restarts: 4,
        last_reason: "Error".into(),
        exit_code: Some(3),
    };
    assert_eq!(found.fact, PodFact::CrashLoop { container, message: "back-off 40s".into() });
    assert_eq!(found.time_ns, Some(ns("2026-01-15T10:09:00Z")));
}

#[test]
fn repeated_ready_has_restarts_but_no_startup_time() {
    let mut lifecycle = PodLifecycle::default();
    keys(
        &pod(json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:00:04Z")})),
        &mut lifecycle,
    );
    keys(
        &pod(json!({"phase": "Running", "conditions": conditions(false, "2026-01-15T10:05:00Z")})),
        &mut lifecycle,
    );
    let back = pod(
        json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:06:00Z"), "containerStatuses": [
        {"name": "log", "restartCount": 0},
        {"name": "app", "restartCount": 2, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}]}),
    );
    let mut out = Vec::new();
    lifecycle.step(&back, &mut out);
    let ready = PodFact::Ready { startup_ns: None, restarts: 2, last_reason: "Error".into() };
    assert_eq!(out.into_iter().map(|t| t.fact).collect::<Vec<_>>(), [ready]);
}

#[test]
fn pending_pod_is_emitted_every_five_minutes_with_its_container() {
    let mut lifecycle = PodLifecycle::default();
    let waits = pod(json!({"phase": "Pending", "conditions": conditions(false, CREATED),
        "initContainerStatuses": [{"name": "init", "state": {"running": {}}}],
        "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "PodInitializing"}}}]}));
    keys(&waits, &mut lifecycle);
    let at = |minutes: u64| ns(CREATED) + minutes * 60 * SECOND;
    assert_eq!(lifecycle.tick(at(4)), None);
    let pending = lifecycle.tick(at(5)).unwrap();
    let fact = PodFact::Pending {
        for_ns: 300 * SECOND,
        container: "init".into(),
        reason: "PodInitializing".into(),
    };
    assert_eq!((pending.fact, pending.natural_key.as_str()), (fact, "pending/1"));
    assert_eq!(lifecycle.tick(at(9)), None);
    assert_eq!(
        lifecycle.tick(at(21)).unwrap().natural_key,
        "pending/4",
        "only one event after a gap"
    );
    keys(&pod(json!({"phase": "Running"})), &mut lifecycle);
    assert_eq!(lifecycle.tick(at(60)), None);
}

#[test]
fn eviction_and_job_that_ended_before_it_was_observed() {
    let mut lifecycle = PodLifecycle::default();
    let evicted = pod(
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
    );
    assert_eq!(keys(&evicted, &mut lifecycle), ["scheduled", "evicted"]);
    assert_eq!(keys(&evicted, &mut lifecycle).len(), 0);
    let done = pod(json!({"phase": "Succeeded", "containerStatuses": [{"name": "app", "state":
        {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-15T10:00:05Z", "finishedAt": "2026-01-15T10:00:06Z"}}}]}));
    let emitted = keys_and_times(&done, &mut PodLifecycle::default());
    assert_eq!(emitted[1], ("running".into(), Some(ns("2026-01-15T10:00:05Z"))));
}

/// A state of a pod as a kubelet may report it.
#[derive(Clone, Debug)]
struct Step {
    phase: usize,
    ready_since: Option<u8>,
    restarts: u8,
    state: usize,
    leaving: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3usize, any::<bool>(), 0..2u8, 0..3usize, 0..12u8);
    proptest::collection::vec(step, 1..24).prop_map(|raw| {
        let (mut restarts, mut phase, mut leaving) = (0, 0, false);
        let one = |(i, (p, ready, more, state, l)): (usize, (usize, bool, u8, usize, u8))| {
            restarts += more;
            phase = phase.max(p);
            leaving |= l == 0;
            Step { phase, ready_since: ready.then_some(i as u8), restarts, state, leaving }
        };
        raw.into_iter().enumerate().map(one).collect()
    })
}

fn object(step: &Step) -> Pod {
    let phase = ["Pending", "Running", "Succeeded"][step.phase];
    let end = |n: u8| {
        let reason = if n.is_multiple_of(3) { "OOMKilled" } else { "Error" };
        json!({"terminated": {"exitCode": 137, "reason": reason, "containerID": format!("containerd://c{n}"), "finishedAt": CREATED}})
    };
    let state = match step.state {
        0 => json!({"running": {"startedAt": CREATED}}),
        1 => json!({"waiting": {"reason": "CrashLoopBackOff", "message": ""}}),
        _ => end(step.restarts),
    };
    // While it waits, the last run is the one that the restart count includes.
    let last = match step.state {
        1 => end(step.restarts),
        _ if step.restarts > 0 => end(step.restarts - 1),
        _ => json!({}),
    };
    let since = format!("2026-01-15T10:01:{:02}Z", step.ready_since.unwrap_or(59));
    let mut pod = pod(
        json!({"phase": phase, "conditions": conditions(step.ready_since.is_some(), &since),
        "containerStatuses": [{"name": "app", "restartCount": step.restarts, "state": state, "lastState": last}]}),
    );
    pod.metadata.deletion_timestamp = step.leaving.then_some(Time { ns: ns(CREATED) });
    pod
}

proptest! {
    /// No fact is emitted twice. A restart from any checkpoint emits the same keys. An observation
    /// with gaps emits a subset of the complete one.
    #[test]
    fn facts_are_emitted_once_under_unique_keys(steps in steps(), saved_at in 0..24usize, seen in proptest::collection::vec(any::<bool>(), 24)) {
        let objects: Vec<Pod> = steps.iter().map(object).collect();
        let mut lifecycle = PodLifecycle::default();
        let mut all = Vec::new();
        let mut saved = (0, PodLifecycle::default(), 0);
        for (i, object) in objects.iter().enumerate() {
            if i == saved_at {
                saved = (i, lifecycle.clone(), all.len());
            }
            all.extend(keys(object, &mut lifecycle));
            prop_assert_eq!(keys(object, &mut lifecycle).len(), 0, "the same object yields no new fact");
        }
        let mut distinct = all.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), all.len(), "{:?}", all);
        // An agent that is killed after it saved a checkpoint, and processes the rest again.
        let text = serde_json::to_string(&saved.1).unwrap();
        let mut restored: PodLifecycle = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&restored, &saved.1);
        let rest: Vec<String> = objects[saved.0..].iter().flat_map(|o| keys(o, &mut restored)).collect();
        prop_assert_eq!(&rest[..], &all[saved.2..]);
        prop_assert_eq!(&restored, &lifecycle);
        // An agent that misses some of the states.
        let mut gaps = PodLifecycle::default();
        for (object, _) in objects.iter().zip(seen).filter(|(_, seen)| *seen) {
            for key in keys(object, &mut gaps) {
                prop_assert!(all.contains(&key), "{} isn't in {:?}", key, all);
            }
        }
    }

    /// Parsing and stepping never panic, whatever the server sends.
    #[test]
    fn arbitrary_json_never_panics(text in "\\PC*", number in any::<i64>()) {
        let _ = serde_json::from_str::<Pod>(&text);
        let odd = json!({"metadata": {"uid": text, "deletionTimestamp": "0001-01-01T00:00:00Z", "deletionGracePeriodSeconds": number.unsigned_abs()},
            "status": {"containerStatuses": [{"restartCount": 1, "state": {"terminated": {}}}], "conditions": [{"type": "Ready", "status": "True"}]}});
        if let Ok(pod) = serde_json::from_value::<Pod>(odd) {
            keys(&pod, &mut PodLifecycle::default());
        }
    }
}

#[test]
fn parsed_objects_contain_no_secrets() {
    let pod = pod(json!({"phase": "Running"}));
    assert!(!format!("{pod:?}").contains("s3cr3t"));
}
