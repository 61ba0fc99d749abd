//! The specification's two stories, each by one run of one agent over real parts: a real systemd runs Debian's containerd.service and
//! nginx.service and a kubelet.service as units, in namespaces of its own; a real API server; CNI's own plugins with `tapio-cni`
//! behind them; runc's containers; the machine's own kernel. Rules are the built-in ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;

use crate::agent::Agent;
use crate::machine::{ADDRESS, Machine};

const LONG: Duration = Duration::from_secs(150);

fn text<'a>(event: &'a Json, key: &str) -> &'a str {
    let of = |part: &str| event[part].get(key).and_then(Json::as_str);
    of("entity").or_else(|| of("attributes")).or_else(|| event[key].as_str()).unwrap_or_default()
}

/// The members of a story as the server has them, in the story's order: role, and the event.
fn members(agent: &Agent, story: &Json) -> Vec<(String, Json)> {
    let members = story["members"].as_array().unwrap();
    let kinds: BTreeSet<&str> = members.iter().map(|m| text(m, "kind")).collect();
    let events = kinds.into_iter().flat_map(|kind| agent.events_of(kind));
    let events: BTreeMap<String, Json> = events.map(|e| (text(&e, "id").to_owned(), e)).collect();
    let member = |m: &Json| (text(m, "role").to_owned(), events[text(m, "id")].clone());
    members.iter().map(member).collect()
}

/// When it was, so that texts compare as times do.
fn moment(event: &Json) -> String {
    let time = text(event, "time").trim_end_matches('Z');
    let (second, part) = time.split_once('.').unwrap_or((time, ""));
    format!("{second}.{part:0<9}")
}

/// One line of each member, for people.
fn lines(members: &[(String, Json)]) -> Vec<String> {
    let line = |(role, e): &(String, Json)| {
        let whose = ["k8s.pod.name", "systemd.unit"].map(|key| text(e, key)).concat();
        let told = [text(e, "source"), text(e, "kind"), &whose, text(e, "message")].join(" ");
        format!("{} {role} {told}", text(e, "time"))
    };
    members.iter().map(line).collect()
}

/// The stories of a rule as they stand.
fn stories(agent: &Agent, rule: &str) -> Vec<Json> {
    let of_rule = |g: &Json| g["rule"] == rule && g["state"] != "retracted";
    agent.stories().into_iter().filter(of_rule).collect()
}

fn ended(story: &Json) -> bool {
    story["state"] == "closed"
}

fn has(members: &[(String, Json)], role: &str, kind: &str, is: impl Fn(&Json) -> bool) -> bool {
    members.iter().any(|(r, e)| r == role && e["kind"] == kind && is(e))
}

fn watches(agent: &Agent) {
    agent.wait("it watches the API and the bus", LONG, |a| {
        let status = a.status();
        let connected = status["collectors"]["systemd"]["counters"]["units"].as_u64() > Some(0);
        connected && status["collectors"]["k8s"].to_string().contains("\"watches\"")
    });
}

#[test]
fn a_runtime_starts_an_address_is_given_and_the_pod_runs_in_one_trace() {
    let Some(machine) = Machine::boot() else { return };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &machine.collectors());
    watches(&agent);
    machine.start("containerd.service");
    machine.import_images();
    machine.start("kubelet.service");
    agent.wait("the node takes pods", LONG, |_| machine.is_ready());
    // Two at once: each pod's steps have to stay its own.
    let uids = ["shop-0", "shop-1"].map(|name| machine.pod(name, "exec sleep 1000"));
    agent.wait("its end", LONG, |a| stories(a, "pod-startup").iter().any(ended));

    let told = stories(&agent, "pod-startup");
    let story = &told[0];
    println!("{}\n{:#?}", agent.explain(text(story, "id")), lines(&members(&agent, story)));
    assert_eq!(told.len(), 1, "{told:#?}");
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
    // Kubernetes cuts times off to the second: the pod runs when its container does, all the same.
    for uid in &uids {
        let when = |kind: &str| {
            let of = |(_, e): &&(String, Json)| e["kind"] == kind && text(e, "k8s.pod.uid") == uid;
            moment(&members.iter().find(of).unwrap().1)
        };
        assert!(when("container.started") <= when("k8s.pod.running"), "{:#?}", lines(&members));
    }
    // A plugin that ended before its environment could be read has no pod (docs/ebpf.md), so of one pod at the least.
    let plugin = |e: &Json| text(e, "source") == "ebpf" && !text(e, "k8s.pod.uid").is_empty();
    assert!(has(&members, "effect", "cni.add", plugin), "{:#?}", lines(&members));
    for (_, event) in &members {
        assert_eq!(event["trace_id"], story["trace_id"], "one trace: {event:#}");
        assert_eq!(event["entity"]["node"], "lab-node", "one node, whoever tells: {event:#}");
    }
    assert_eq!(story["root_cause"][0]["cause"], "containerd.service started");
    assert_eq!(story["impact"]["business"], 0.3);
    agent.end_accounted();
}

/// What the shop does: it needs nginx, and ends when it isn't there.
fn shop() -> String {
    format!(
        "while /bin/busybox nc -w 2 {ADDRESS} 80 </dev/null; do sleep 1; done; echo 'no nginx' >&2; exit 1"
    )
}

fn told(agent: &Agent, kind: &str, is: impl FnMut(&Json) -> bool) -> bool {
    agent.events_of(kind).iter().any(is)
}

#[test]
fn a_broken_configuration_and_the_pods_it_takes_with_it_are_one_trace() {
    let Some(machine) = Machine::boot() else { return };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &machine.collectors());
    watches(&agent);
    for unit in ["containerd.service", "nginx.service", "kubelet.service"] {
        machine.start(unit);
    }
    machine.import_images();
    agent.wait("the node takes pods", LONG, |_| machine.is_ready());
    let uids = ["shop-0", "shop-1"].map(|name| machine.pod(name, &shop()));
    machine.pod("steady", "exec sleep 1000");
    for uid in &uids {
        let reaches = |e: &Json| {
            text(e, "k8s.pod.uid") == uid && text(e, "tapio.peer.systemd.unit") == "nginx.service"
        };
        agent.wait("it reaches nginx", LONG, |a| told(a, "kernel.tcp.connect", reaches));
    }
    machine.write("/etc/nginx/conf.d/shop.conf", "\n\nsrever { listen 8080; }\n");
    assert!(!machine.run(&["systemctl", "restart", "nginx.service"]).0, "it can't start");
    assert!(!machine.run(&["systemctl", "start", "unrelated.service"]).0, "it always fails");
    let rule = "unit-takes-dependants";
    let loops = |a: &Agent| {
        let story = stories(a, rule).into_iter().next()?;
        let members = members(a, &story);
        let of = |uid: &String| {
            has(&members, "effect", "k8s.pod.crash_loop", |e| text(e, "k8s.pod.uid") == uid)
        };
        uids.iter().all(of).then_some(story)
    };
    agent.wait("both pods loop, says the story", LONG, |a| loops(a).is_some());
    // Mended: whatever is told in the end was borne out by the order of times, too.
    machine.write("/etc/nginx/conf.d/shop.conf", "server { listen 8080; }\n");
    machine.start("nginx.service");
    agent.wait("its end", LONG, |a| stories(a, rule).iter().any(ended));

    let told = stories(&agent, rule);
    let story = &told[0];
    let members = members(&agent, story);
    let explained = agent.explain(text(story, "id"));
    println!("{explained}\n{:#?}", lines(&members));
    assert_eq!(told.len(), 1, "{told:#?}");
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
        assert_eq!(event["entity"]["node"], "lab-node", "one node, whoever tells: {event:#}");
    }
    what_it_says(story, &explained);
    nothing_unrelated(&agent);
    agent.end_accounted();
}

/// The cause is nginx and its configuration, with the place; impact and actions are there.
fn what_it_says(story: &Json, explained: &str) {
    let cause = "nginx.service: nginx configuration error: unknown directive \"srever\" in /etc/nginx/conf.d/shop.conf:3";
    assert_eq!(story["root_cause"][0]["cause"], cause, "{:#}", story["root_cause"]);
    let odds = |n: usize| story["root_cause"][n]["score"].as_f64().unwrap();
    assert!(odds(0) > odds(1), "{:#}", story["root_cause"]);
    assert_eq!(
        (&story["pattern"], &story["severity"]),
        (&"cascade-failure".into(), &"critical".into())
    );
    assert_eq!(story["impact"]["business"], 0.9);
    let affected = story["impact"]["affected"].to_string();
    for one in ["unit nginx.service", "pod default/shop-0", "pod default/shop-1"] {
        assert!(affected.contains(one), "{affected}");
    }
    // Those that connected to it left from ports that are nobody's any more: no endpoint was lost there.
    let endpoint = |e: &Json| e.as_str().is_some_and(|e| e.starts_with("endpoint "));
    let of_clients = |e: &Json| e.as_str().is_some_and(|e| !e.contains(ADDRESS));
    let lost = story["impact"]["affected"].as_array().unwrap();
    assert!(!lost.iter().any(|e| endpoint(e) && of_clients(e)), "{affected}");
    assert!(!affected.contains("steady") && !affected.contains("unrelated"), "{affected}");
    let actions = story["actions"].to_string();
    assert!(actions.contains("check config /etc/nginx/conf.d/shop.conf:3"), "{actions}");
    for part in [cause, "named by the rule", "\n    2. ", "less likely: "] {
        assert!(explained.contains(part), "{explained}");
    }
}

/// The unit that failed at the same time is told of, and nowhere as what took the pods down.
fn nothing_unrelated(agent: &Agent) {
    let unrelated = "unrelated.service";
    let failed = |e: &Json| text(e, "systemd.unit") == unrelated;
    assert!(told(agent, "systemd.unit.failed", failed), "it did fail");
    for story in agent.stories().iter().filter(|g| g["pattern"] == "cascade-failure") {
        assert!(!story.to_string().contains(unrelated), "{story:#}");
    }
}
