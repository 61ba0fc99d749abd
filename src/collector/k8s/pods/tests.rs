//! A pod's life, told from its object: recorded steps, and any steps at all.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NODE_AT: &str = "2026-01-15T10:00:00Z";
const SECOND: u64 = 1_000_000_000;

fn ns(text: &str) -> u64 {
    serde_json::from_value::<Time>(json!(text)).unwrap().ns
}

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "uid": "u1", "name": "web-0", "namespace": "shop", "resourceVersion": "7",
            "creationTimestamp": NODE_AT,
            "annotations": {"secret": "s3cr3t"}, "managedFields": [{"manager": "kubelet"}]
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "env": [{"name": "A", "value": "s3cr3t"}]}]},
        "status": status
    }))
    .unwrap()
}

/// The words of what is told, with the names that make ids.
fn told(pod: &Pod, by: &mut Told) -> Vec<(String, Option<u64>)> {
    let mut out = Vec::new();
    by.step(pod, &mut out);
    out.into_iter().map(|t| (t.natural, t.time_ns)).collect()
}

fn words(pod: &Pod, by: &mut Told) -> Vec<String> {
    told(pod, by).into_iter().map(|t| t.0).collect()
}

fn conditions(ready: bool, since: &str) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": NODE_AT},
           {"type": "Ready", "status": ready, "lastTransitionTime": since}])
}

#[test]
fn a_pod_comes_up_and_goes() {
    let mut by = Told::default();
    let waiting = json!({"phase": "Pending", "conditions": conditions(false, NODE_AT),
        "containerStatuses": [{"name": "app", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    assert_eq!(told(&pod(waiting.clone()), &mut by), [("scheduled".into(), Some(ns(NODE_AT)))]);
    assert_eq!(words(&pod(waiting), &mut by).len(), 0);
    let started = "2026-01-15T10:00:03Z";
    let running = json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:00:04Z"),
        "containerStatuses": [{"name": "app", "restartCount": 0, "containerID": "containerd://c1", "state": {"running": {"startedAt": started}}}]});
    let mut out = Vec::new();
    by.step(&pod(running), &mut out);
    assert_eq!((out[0].what.clone(), out[0].time_ns), (What::Running, Some(ns(started))));
    let ready = What::Ready { startup_ns: Some(4 * SECOND), restarts: 0, last_reason: "".into() };
    assert_eq!((out[1].what.clone(), out.len()), (ready, 2));
    let mut leaving =
        pod(json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:00:04Z")}));
    leaving.metadata.deletion_timestamp = Some(Time { ns: ns("2026-01-15T11:00:30Z") });
    leaving.metadata.deletion_grace_period_seconds = Some(30);
    leaving.metadata.finalizers = vec!["a/b".into(), "c".into()];
    let mut out = Vec::new();
    by.step(&leaving, &mut out);
    let what = What::Terminating { grace_s: Some(30), finalizers: "a/b,c".into() };
    assert_eq!((out[0].what.clone(), out[0].time_ns), (what, Some(ns("2026-01-15T11:00:00Z"))));
    assert_eq!((by.gone().natural.as_str(), out.len()), ("deleted", 1));
}

#[test]
fn each_end_of_a_looping_container_is_told_once() {
    let mut by = Told::default();
    let end = |id: &str, reason: &str| {
        json!({"terminated": {"exitCode": 137, "reason": reason, "containerID": format!("containerd://{id}"),
            "startedAt": "2026-01-15T10:00:05Z", "finishedAt": "2026-01-15T10:00:09Z"}})
    };
    let step = |restarts: u32, state: Value, last: Value| {
        pod(json!({"phase": "Running", "conditions": conditions(false, NODE_AT),
            "containerStatuses": [{"name": "app", "restartCount": restarts, "state": state, "lastState": last}]}))
    };
    let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
    let running = json!({"running": {"startedAt": "2026-01-15T10:00:20Z"}});
    let words = |pod: Pod, by: &mut Told| words(&pod, by).join(" ");
    let first = step(0, end("c1", "OOMKilled"), json!({}));
    assert_eq!(words(first, &mut by), "scheduled running oom_killed/app/c1");
    assert_eq!(
        words(step(0, back_off.clone(), end("c1", "OOMKilled")), &mut by),
        "crash_loop/app/0/c1"
    );
    assert_eq!(words(step(1, running.clone(), end("c1", "OOMKilled")), &mut by), "");
    let both = step(1, end("c2", "OOMKilled"), end("c1", "OOMKilled"));
    assert_eq!(words(both.clone(), &mut by), "oom_killed/app/c2");
    assert_eq!(words(both, &mut by), "");
    assert_eq!(
        words(step(2, back_off.clone(), end("c2", "OOMKilled")), &mut by),
        "crash_loop/app/2/c2"
    );
    assert_eq!(words(step(3, back_off, end("c3", "Error")), &mut by), "crash_loop/app/3/c3");
    assert_eq!(words(step(4, running, end("c4", "OOMKilled")), &mut by), "oom_killed/app/c4");
}

#[test]
fn a_crash_loop_says_how_it_ended() {
    let mut by = Told::default();
    let looping = pod(
        json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "lab/app:1", "restartCount": 4,
        "containerID": "containerd://c9", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "containerID": "containerd://c8", "finishedAt": "2026-01-15T10:09:00Z"}}}]}),
    );
    let mut out = Vec::new();
    by.step(&looping, &mut out);
    let found = out.iter().find(|t| matches!(t.what, What::CrashLoop { .. })).unwrap();
    let container = Container {
        name: "app".into(),
        id: "c8".into(),
        image: "lab/app:1".into(),
        restarts: 4,
        last_reason: "Error".into(),
        exit_code: Some(3),
    };
    assert_eq!(found.what, What::CrashLoop { container, message: "back-off 40s".into() });
    assert_eq!(found.time_ns, Some(ns("2026-01-15T10:09:00Z")));
}

#[test]
fn ready_again_tells_what_it_went_through_and_no_startup() {
    let mut by = Told::default();
    words(
        &pod(json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:00:04Z")})),
        &mut by,
    );
    words(
        &pod(json!({"phase": "Running", "conditions": conditions(false, "2026-01-15T10:05:00Z")})),
        &mut by,
    );
    let back = pod(
        json!({"phase": "Running", "conditions": conditions(true, "2026-01-15T10:06:00Z"), "containerStatuses": [
        {"name": "log", "restartCount": 0},
        {"name": "app", "restartCount": 2, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}]}),
    );
    let mut out = Vec::new();
    by.step(&back, &mut out);
    let ready = What::Ready { startup_ns: None, restarts: 2, last_reason: "Error".into() };
    assert_eq!(out.into_iter().map(|t| t.what).collect::<Vec<_>>(), [ready]);
}

#[test]
fn a_pod_that_waits_is_told_each_five_minutes_with_its_container() {
    let mut by = Told::default();
    let waits = pod(json!({"phase": "Pending", "conditions": conditions(false, NODE_AT),
        "initContainerStatuses": [{"name": "init", "state": {"running": {}}}],
        "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "PodInitializing"}}}]}));
    words(&waits, &mut by);
    let at = |minutes: u64| ns(NODE_AT) + minutes * 60 * SECOND;
    assert_eq!(by.tick(at(4)), None);
    let told = by.tick(at(5)).unwrap();
    let what = What::Pending {
        for_ns: 300 * SECOND,
        container: "init".into(),
        reason: "PodInitializing".into(),
    };
    assert_eq!((told.what, told.natural.as_str()), (what, "pending/1"));
    assert_eq!(by.tick(at(9)), None);
    assert_eq!(by.tick(at(21)).unwrap().natural, "pending/4", "once after a gap");
    words(&pod(json!({"phase": "Running"})), &mut by);
    assert_eq!(by.tick(at(60)), None);
}

#[test]
fn an_eviction_and_a_job_that_is_over_before_it_is_seen() {
    let mut by = Told::default();
    let evicted = pod(
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
    );
    assert_eq!(words(&evicted, &mut by), ["scheduled", "evicted"]);
    assert_eq!(words(&evicted, &mut by).len(), 0);
    let done = pod(json!({"phase": "Succeeded", "containerStatuses": [{"name": "app", "state":
        {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-15T10:00:05Z", "finishedAt": "2026-01-15T10:00:06Z"}}}]}));
    let told = told(&done, &mut Told::default());
    assert_eq!(told[1], ("running".into(), Some(ns("2026-01-15T10:00:05Z"))));
}

/// A pod's object as a kubelet may show it at some time of its life, and later ones.
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
        json!({"terminated": {"exitCode": 137, "reason": reason, "containerID": format!("containerd://c{n}"), "finishedAt": NODE_AT}})
    };
    let state = match step.state {
        0 => json!({"running": {"startedAt": NODE_AT}}),
        1 => json!({"waiting": {"reason": "CrashLoopBackOff", "message": ""}}),
        _ => end(step.restarts),
    };
    // While it waits, its last run is the one that is counted.
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
    pod.metadata.deletion_timestamp = step.leaving.then_some(Time { ns: ns(NODE_AT) });
    pod
}

proptest! {
    /// Nothing is told twice; what is told again after a restart from any point has the same names; what is seen with gaps is
    /// a part of what is seen without.
    #[test]
    fn facts_are_told_once_under_names_of_their_own(steps in steps(), kept_at in 0..24usize, seen in proptest::collection::vec(any::<bool>(), 24)) {
        let objects: Vec<Pod> = steps.iter().map(object).collect();
        let mut by = Told::default();
        let mut all = Vec::new();
        let mut kept = (0, Told::default(), 0);
        for (i, object) in objects.iter().enumerate() {
            if i == kept_at {
                kept = (i, by.clone(), all.len());
            }
            all.extend(words(object, &mut by));
            prop_assert_eq!(words(object, &mut by).len(), 0, "the same object says nothing new");
        }
        let mut once = all.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), all.len(), "{:?}", all);
        // An agent that is killed after it saved, and sees the rest again.
        let text = serde_json::to_string(&kept.1).unwrap();
        let mut again: Told = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&again, &kept.1);
        let rest: Vec<String> = objects[kept.0..].iter().flat_map(|o| words(o, &mut again)).collect();
        prop_assert_eq!(&rest[..], &all[kept.2..]);
        prop_assert_eq!(&again, &by);
        // An agent that was away for some of them.
        let mut gaps = Told::default();
        for (object, _) in objects.iter().zip(seen).filter(|(_, seen)| *seen) {
            for word in words(object, &mut gaps) {
                prop_assert!(all.contains(&word), "{} isn't in {:?}", word, all);
            }
        }
    }

    /// Whatever the server sends, parsing and stepping don't panic.
    #[test]
    fn any_json_is_an_object_or_an_error(text in "\\PC*", number in any::<i64>()) {
        let _ = serde_json::from_str::<Pod>(&text);
        let odd = json!({"metadata": {"uid": text, "deletionTimestamp": "0001-01-01T00:00:00Z", "deletionGracePeriodSeconds": number.unsigned_abs()},
            "status": {"containerStatuses": [{"restartCount": 1, "state": {"terminated": {}}}], "conditions": [{"type": "Ready", "status": "True"}]}});
        if let Ok(pod) = serde_json::from_value::<Pod>(odd) {
            words(&pod, &mut Told::default());
        }
    }
}

#[test]
fn what_is_secret_is_in_no_object() {
    let pod = pod(json!({"phase": "Running"}));
    assert!(!format!("{pod:?}").contains("s3cr3t"));
}
