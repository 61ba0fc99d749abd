//! The specification's two stories, each in one run of one agent on real components: a real systemd
//! in its own namespaces with the units containerd.service and nginx.service of Debian and
//! kubelet.service; a real API server; the CNI plugins, with `tapio-cni` last in the chain;
//! containers of runc; the host's kernel. The rules are the built-in ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::agent::Agent;
use crate::machine::{ADDRESS, Machine};

fn text<'a>(event: &'a Json, key: &str) -> &'a str {
    let of = |part: &str| event[part].get(key).and_then(Json::as_str);
    of("entity").or_else(|| of("attributes")).or_else(|| event[key].as_str()).unwrap_or_default()
}

/// The members of a story in its order: role and event.
fn members(agent: &Agent, story: &Json) -> Vec<(String, Json)> {
    let members = story["members"].as_array().unwrap();
    let kinds: BTreeSet<&str> = members.iter().map(|m| text(m, "kind")).collect();
    let events = kinds.into_iter().flat_map(|kind| agent.events_of(kind));
    let events: BTreeMap<String, Json> = events.map(|e| (text(&e, "id").to_owned(), e)).collect();
    let member = |m: &Json| (text(m, "role").to_owned(), events[text(m, "id")].clone());
    members.iter().map(member).collect()
}

/// The time as text that sorts by time.
fn sortable_time(event: &Json) -> String {
    let time = text(event, "time").trim_end_matches('Z');
    let (second, part) = time.split_once('.').unwrap_or((time, ""));
    format!("{second}.{part:0<9}")
}

/// One readable line for each member.
fn lines(members: &[(String, Json)]) -> Vec<String> {
    let line = |(role, e): &(String, Json)| {
        let entity = ["k8s.pod.name", "systemd.unit"].map(|key| text(e, key)).concat();
        let description =
            [text(e, "source"), text(e, "kind"), &entity, text(e, "message")].join(" ");
        format!("{} {role} {description}", text(e, "time"))
    };
    members.iter().map(line).collect()
}

/// The stories of a rule that aren't retracted.
fn stories(agent: &Agent, rule: &str) -> Vec<Json> {
    let of_rule = |s: &Json| s["rule"] == rule && s["state"] != "retracted";
    agent.stories().into_iter().filter(of_rule).collect()
}

fn ended(story: &Json) -> bool {
    story["state"] == "closed"
}

fn has(members: &[(String, Json)], role: &str, kind: &str, is: impl Fn(&Json) -> bool) -> bool {
    members.iter().any(|(r, e)| r == role && e["kind"] == kind && is(e))
}

fn wait_until_watching(agent: &Agent) {
    agent.wait("the collectors watch the API and the bus", |a| {
        let status = a.status();
        let connected = status["collectors"]["systemd"]["counters"]["units"].as_u64() > Some(0);
        connected && status["collectors"]["k8s"].to_string().contains("\"watches\"")
    });
}

#[test]
fn runtime_start_address_allocation_and_pod_start_are_one_trace() {
    let Some(machine) = Machine::boot() else { return };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &machine.collectors());
    wait_until_watching(&agent);
    machine.start("containerd.service");
    machine.import_images();
    machine.start("kubelet.service");
    agent.wait("the node accepts pods", |_| machine.is_ready());
    // Two at once: the events of each pod must keep their pod.
    let uids = ["shop-0", "shop-1"].map(|name| machine.pod(name, "exec sleep 1000"));
    agent.wait("the story is closed", |a| stories(a, "pod-startup").iter().any(ended));

    let found = stories(&agent, "pod-startup");
    let story = &found[0];
    println!("{}\n{:#?}", agent.explain(text(story, "id")), lines(&members(&agent, story)));
    assert_eq!(found.len(), 1, "{found:#?}");
    let members = members(&agent, story);
    let sources: BTreeSet<&str> = members.iter().map(|(_, e)| text(e, "source")).collect();
    assert_eq!(sources, BTreeSet::from(["cni", "container", "ebpf", "k8s", "systemd"]));
    let unit = |name: &'static str| move |e: &Json| text(e, "systemd.unit") == name;
    assert!(has(&members, "cause", "systemd.unit.started", unit("containerd.service")));
    assert!(has(&members, "cause", "systemd.unit.started", unit("kubelet.service")));
    for uid in &uids {
        let of_pod = |e: &Json| text(e, "k8s.pod.uid") == uid;
        let call = |e: &Json| of_pod(e) && text(e, "source") == "cni";
        let app = |e: &Json| of_pod(e) && text(e, "k8s.container.name") == "app";
        assert!(has(&members, "cause", "k8s.pod.scheduled", of_pod), "{:#?}", lines(&members));
        assert!(has(&members, "effect", "cni.ip.allocated", of_pod), "{:#?}", lines(&members));
        assert!(has(&members, "effect", "cni.add", call), "{:#?}", lines(&members));
        assert!(has(&members, "effect", "container.started", app), "{:#?}", lines(&members));
        assert!(has(&members, "effect", "k8s.pod.running", of_pod), "{:#?}", lines(&members));
    }
    // Kubernetes truncates times to the second; the pod still runs no earlier than its container.
    for uid in &uids {
        let when = |kind: &str| {
            let of = |(_, e): &&(String, Json)| e["kind"] == kind && text(e, "k8s.pod.uid") == uid;
            sortable_time(&members.iter().find(of).unwrap().1)
        };
        assert!(when("container.started") <= when("k8s.pod.running"), "{:#?}", lines(&members));
    }
    // A plugin that ended before its environment was read has no pod (docs/ebpf.md), so at least
    // one plugin call has one.
    let plugin = |e: &Json| text(e, "source") == "ebpf" && !text(e, "k8s.pod.uid").is_empty();
    assert!(has(&members, "effect", "cni.add", plugin), "{:#?}", lines(&members));
    for (_, event) in &members {
        assert_eq!(event["trace_id"], story["trace_id"], "one trace: {event:#}");
        assert_eq!(event["entity"]["node"], "lab-node", "one node in all sources: {event:#}");
    }
    assert_eq!(story["root_causes"][0]["cause"], "containerd.service started");
    assert_eq!(story["impact"]["business"], 0.3);
    agent.end_and_check_cons1();
}

/// The shop's script: it needs nginx, and ends when nginx doesn't accept connections.
fn shop_script() -> String {
    format!(
        "while /bin/busybox nc -w 2 {ADDRESS} 80 </dev/null; do sleep 1; done; echo 'no nginx' >&2; exit 1"
    )
}

fn has_event(agent: &Agent, kind: &str, is: impl FnMut(&Json) -> bool) -> bool {
    agent.events_of(kind).iter().any(is)
}

/// Waits until a pod connects to nginx.
fn wait_until_connected(agent: &Agent, uid: &str) {
    let is_connect = |e: &Json| {
        text(e, "k8s.pod.uid") == uid && text(e, "tapio.peer.systemd.unit") == "nginx.service"
    };
    agent.wait("the pod connects to nginx", |a| has_event(a, "kernel.tcp.connect", is_connect));
}

#[test]
fn broken_configuration_and_its_dependent_pods_are_one_trace() {
    let Some(machine) = Machine::boot() else { return };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &machine.collectors());
    wait_until_watching(&agent);
    for unit in ["containerd.service", "nginx.service", "kubelet.service"] {
        machine.start(unit);
    }
    machine.import_images();
    agent.wait("the node accepts pods", |_| machine.is_ready());
    let uids = ["shop-0", "shop-1"].map(|name| machine.pod(name, &shop_script()));
    machine.pod("steady", "exec sleep 1000");
    uids.iter().for_each(|uid| wait_until_connected(&agent, uid));
    machine.write("/etc/nginx/conf.d/shop.conf", "\n\nsrever { listen 8080; }\n");
    assert!(!machine.run(&["systemctl", "restart", "nginx.service"]).0, "nginx fails to start");
    assert!(
        !machine.run(&["systemctl", "start", "unrelated.service"]).0,
        "unrelated.service always fails"
    );
    let rule = "unit-failure-pod-crashes";
    let loops = |a: &Agent| {
        let story = stories(a, rule).into_iter().next()?;
        let members = members(a, &story);
        let of = |uid: &String| {
            has(&members, "effect", "k8s.pod.crash_loop", |e| text(e, "k8s.pod.uid") == uid)
        };
        uids.iter().all(of).then_some(story)
    };
    agent.wait("the story contains the crash loops of both pods", |a| loops(a).is_some());
    // Repaired: the story closes, after the event-time lane has confirmed it.
    machine.write("/etc/nginx/conf.d/shop.conf", "server { listen 8080; }\n");
    machine.start("nginx.service");
    agent.wait("the story is closed", |a| stories(a, rule).iter().any(ended));

    let found = stories(&agent, rule);
    let story = &found[0];
    let members = members(&agent, story);
    let explained = agent.explain(text(story, "id"));
    println!("{explained}\n{:#?}", lines(&members));
    assert_eq!(found.len(), 1, "{found:#?}");
    let sources: BTreeSet<&str> = members.iter().map(|(_, e)| text(e, "source")).collect();
    assert_eq!(sources, BTreeSet::from(["ebpf", "journal", "k8s", "systemd"]));
    let of_nginx = |e: &Json| text(e, "systemd.unit") == "nginx.service";
    let emerg = |e: &Json| of_nginx(e) && text(e, "message").contains("[emerg]");
    assert!(has(&members, "evidence", "journal.message", emerg), "{:#?}", lines(&members));
    assert!(has(&members, "cause", "systemd.unit.failed", of_nginx), "{:#?}", lines(&members));
    for uid in &uids {
        let of_pod = |e: &Json| {
            text(e, "k8s.pod.uid") == uid && text(e, "tapio.peer.systemd.unit") == "nginx.service"
        };
        assert!(has(&members, "symptom", "kernel.tcp.refused", of_pod), "{:#?}", lines(&members));
        assert!(has(&members, "effect", "k8s.pod.crash_loop", of_pod), "{:#?}", lines(&members));
    }
    for (_, event) in &members {
        let of_story = |c: &Json| c["id"] == story["id"];
        let correlation = event["correlation"].as_array().unwrap();
        assert!(correlation.iter().any(of_story), "{event:#}");
        assert_eq!(event["trace_id"], story["trace_id"], "one trace: {event:#}");
        assert_eq!(event["entity"]["node"], "lab-node", "one node in all sources: {event:#}");
    }
    check_assessment(story, &explained);
    check_unrelated_unit(&agent);
    agent.end_and_check_cons1();
}

/// Checks the cause (nginx and its configuration, with file and line), impact and actions.
fn check_assessment(story: &Json, explained: &str) {
    let cause = "nginx.service: nginx configuration error: unknown directive \"srever\" in /etc/nginx/conf.d/shop.conf:3";
    assert_eq!(story["root_causes"][0]["cause"], cause, "{:#}", story["root_causes"]);
    let odds = |n: usize| story["root_causes"][n]["score"].as_f64().unwrap();
    assert!(odds(0) > odds(1), "{:#}", story["root_causes"]);
    assert_eq!(
        (&story["pattern"], &story["severity"]),
        (&"cascade-failure".into(), &"critical".into())
    );
    assert_eq!(story["impact"]["business"], 0.9);
    let affected = story["impact"]["affected"].to_string();
    for one in ["unit nginx.service", "pod default/shop-0", "pod default/shop-1"] {
        assert!(affected.contains(one), "{affected}");
    }
    // The ports of its clients belong to no entity any more: no endpoint was lost there.
    let endpoint = |e: &Json| e.as_str().is_some_and(|e| e.starts_with("endpoint "));
    let of_clients = |e: &Json| e.as_str().is_some_and(|e| !e.contains(ADDRESS));
    let lost = story["impact"]["affected"].as_array().unwrap();
    assert!(!lost.iter().any(|e| endpoint(e) && of_clients(e)), "{affected}");
    assert!(!affected.contains("steady") && !affected.contains("unrelated"), "{affected}");
    let actions = story["actions"].to_string();
    assert!(actions.contains("check config /etc/nginx/conf.d/shop.conf:3"), "{actions}");
    for part in [cause, "named by the rule", "\n    2. ", "other candidates: "] {
        assert!(explained.contains(part), "{explained}");
    }
}

/// Checks that the unrelated failed unit has its event, and is in no cascade story.
fn check_unrelated_unit(agent: &Agent) {
    let unrelated = "unrelated.service";
    let failed = |e: &Json| text(e, "systemd.unit") == unrelated;
    assert!(has_event(agent, "systemd.unit.failed", failed), "its failure is stored");
    for story in agent.stories().iter().filter(|s| s["pattern"] == "cascade-failure") {
        assert!(!story.to_string().contains(unrelated), "{story:#}");
    }
}
