//! A running agent with several shards emits and stores the same as with one.
//!
//! Only results that don't depend on which shard is faster are compared. Events on different routes
//! may overtake each other, so all events of a sequence have the same keys here, and the members of
//! a count are compared as a set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value as Json, json};
use tapio::runtime::{Agent, Config};
use tapio_wire::batch_json;

use super::*;

const PROGRAMS: u64 = 200;
const PODS: u64 = 8;
const UNITS: u64 = 5;
/// Steps of a program between its begin and its end.
const STEPS: u64 = 50;
const EVENTS: u64 = PROGRAMS * (STEPS + 2);

/// A program belongs to a pod and to a unit. Its begin and its end are relevant under two keys, its
/// steps under two others; the home entity of all of them is its pod.
const RULES: &str = "
rule: program
severity: info
events: { began: { kind: t.began }, ended: { kind: t.ended } }
sequence:
  by: [process.pid]
  within: 10m
  steps: [{ event: began }, { event: ended }]
story: { pattern: program, close: { idle: 10m, max_age: 30m } }
---
rule: program-of-unit
severity: info
events: { began: { kind: t.began }, ended: { kind: t.ended } }
sequence:
  by: [systemd.unit, process.pid]
  within: 10m
  steps: [{ event: began }, { event: ended }]
story: { pattern: program-of-unit, close: { idle: 10m, max_age: 30m } }
---
rule: pod
severity: info
events: { step: { kind: t.step } }
count: { event: step, by: [k8s.pod.uid], within: 10m, at_least: 10 }
story: { pattern: pod, close: { idle: 10m, max_age: 30m } }
---
rule: unit
severity: info
events: { any: { kind: [t.step, t.lone] } }
count: { event: any, by: [systemd.unit], within: 10m, at_least: 10 }
story: { pattern: unit, close: { idle: 10m, max_age: 30m } }
";

fn events() -> String {
    let mut text = String::new();
    let mut line = |n: u64, kind: &str, program: u64| {
        let event = json!({
            "id": format!("e-{n}"), "time": 1_700_000_000_000_000_000 + n * 1_000, "kind": kind, "source": "test",
            "entity": {
                "process.pid": program, "k8s.pod.uid": format!("pod-{}", program % PODS),
                "systemd.unit": format!("unit-{}", program % UNITS),
            },
        });
        writeln!(text, "{event}").unwrap();
    };
    let mut n = 0;
    for round in 0..STEPS + 2 {
        for program in 0..PROGRAMS {
            let kind = match round {
                0 => "t.began",
                r if r == STEPS + 1 => "t.ended",
                r if r % 10 == 0 => "t.lone",
                _ => "t.step",
            };
            line(n, kind, program);
            n += 1;
        }
    }
    text
}

/// Stories by rule and key: state, number of members, and the events that name the story.
type Stories = BTreeMap<(String, String), (String, u64, BTreeSet<String>)>;

/// Result of a run.
struct RunResult {
    stories: Stories,
    ids: BTreeSet<String>,
    /// Visits of events to shards: more than events if some visited several.
    visits: u64,
}

fn agent_config(dir: &Path, shards: usize) -> Config {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut config = Config { state_dir: Some(dir.join("state")), ..Config::default() };
    config.collectors.only = Some(vec!["jsonl".into()]);
    config.collectors.jsonl.paths = vec![file("events.jsonl", &events())];
    config.dataflow.rules = vec![file("rules.yaml", RULES)];
    config.dataflow.builtin_rules = false;
    config.dataflow.shards = shards;
    // Minimal rings, so that shards wait for each other.
    config.dataflow.buffer_size = 100;
    config.server.data_dir = dir.join("data");
    for address in [&mut config.server.grpc_listen, &mut config.server.http_listen] {
        *address = any_port().into();
    }
    config.admin.listen = any_port().into();
    config
}

fn run_agent(shards: usize) -> RunResult {
    let dir = tempfile::tempdir().unwrap();
    let config = agent_config(dir.path(), shards);
    let server_config = config.server();
    let mut agent = Agent::start(config, true).unwrap();
    eventually("the sources are finished", || agent.sources_are_finished());
    let account = agent.drain();
    assert!(account.holds(), "CONS-1: {account:?}");
    let total = &account.total;
    assert_eq!((total.received, total.forwarded, total.held), (EVENTS, EVENTS, 0), "{total:?}");
    let status: Json = serde_json::from_str(&http(agent.admin_addr(), "/status").1).unwrap();
    let each = status["shards"].as_array().unwrap();
    assert_eq!(each.len(), shards);
    let visits = each.iter().map(|s| s["events"].as_u64().unwrap()).sum();
    let ingest = agent.server().unwrap().status().ingest;
    assert_eq!((ingest.events, ingest.duplicates), (EVENTS, 0));
    let _ = agent.finish();
    let storage = Storage::open(&server_config, Arc::new(OsFiles)).unwrap();
    let mut events = Vec::new();
    for found in all_events(&storage, &Filter::default()) {
        let (items, broken) = batch_json(&found.batch).unwrap();
        assert_eq!(broken, 0);
        events.extend(items.into_iter().filter(|(is_story, _)| !is_story).map(|(_, e)| e));
    }
    let ids: BTreeSet<String> = events.iter().map(|e| text(&e["id"])).collect();
    assert_eq!(events.len() as u64, EVENTS);
    assert_eq!(ids.len() as u64, EVENTS, "an event is stored twice");
    let selection = storage.select_stories(Filter::default(), Cursor::NEWEST);
    let linked = selection.read(&Budget::UNLIMITED).items;
    let stories: Vec<Story> = linked.into_iter().map(|one| one.story).collect();
    RunResult { stories: by_rule_and_key(&stories, &events), ids, visits }
}

fn text(json: &Json) -> String {
    json.as_str().unwrap().to_owned()
}

/// Joins emitted stories with the events that name them; checks that members carry the trace.
fn by_rule_and_key(stories: &[Story], events: &[Json]) -> Stories {
    let trace_of: HashMap<String, String> =
        stories.iter().map(|s| (s.id.to_string(), s.trace_id.to_string())).collect();
    // Where events overtook each other, a story was emitted first under another trace, which its
    // members carry. It was retracted, and the story that replaces it names it.
    let (confirmed, retracted): (Vec<&Story>, Vec<&Story>) =
        stories.iter().partition(|s| s.state != StoryState::Retracted);
    let mut by_id: HashMap<String, &Story> =
        confirmed.iter().map(|s| (s.id.to_string(), *s)).collect();
    by_id.extend(confirmed.iter().filter_map(|s| Some((s.provisional?.to_string(), *s))));
    assert!(retracted.iter().all(|s| by_id.contains_key(&s.id.to_string())));
    let name = |s: &Story| (s.rule.clone(), format!("{:?}", s.key));
    let mut stories: Stories = confirmed
        .iter()
        .map(|s| (name(s), (s.state.as_str().to_owned(), s.members_total, BTreeSet::new())))
        .collect();
    assert_eq!(stories.len(), confirmed.len(), "one story for each rule and key");
    for event in events {
        let ids: Vec<String> =
            event["correlation"].as_array().unwrap().iter().map(|c| text(&c["id"])).collect();
        let named: Vec<&Story> = ids.iter().map(|id| by_id[id]).collect();
        let trace = text(&event["trace_id"]);
        // A story that was retracted before it was emitted has only its id.
        let traces: Vec<&String> = ids.iter().filter_map(|id| trace_of.get(id)).collect();
        let all_emitted = traces.len() == ids.len();
        match event["kind"].as_str().unwrap() {
            // Two stories that begin with the same event have one trace.
            "t.began" | "t.ended" => {
                let differing = traces.iter().filter(|t| ***t != trace).count();
                let relinked = ids.iter().filter(|id| by_id[*id].id.to_string() != **id).count();
                assert_eq!(named.len(), 2, "{event}");
                assert!(differing <= relinked, "{event}: {traces:?}");
            }
            // The trace of the pod's or the unit's story, whichever was emitted when the step
            // arrived.
            "t.step" => {
                assert_eq!(named.len(), 2, "{event}");
                assert!(traces.contains(&&trace) || !all_emitted, "{event}");
            }
            _ => {
                assert_eq!(named.len(), 1, "{event}");
                assert!(traces == [&trace] || !all_emitted, "{event}");
            }
        }
        for story in named {
            stories.get_mut(&name(story)).unwrap().2.insert(text(&event["id"]));
        }
    }
    for (name, (_, total, members)) in &stories {
        // A pod's lifecycle counts its events; no event names it as its story.
        let expected = if name.0 == "pod-lifecycle" { 0 } else { *total };
        assert_eq!(members.len() as u64, expected, "{name:?}");
    }
    stories
}

#[test]
fn several_shards_emit_the_stories_of_one() {
    let one = run_agent(1);
    assert_eq!(one.visits, EVENTS);
    let of = |rule: &str| one.stories.keys().filter(|k| k.0 == rule).count() as u64;
    assert_eq!((of("program"), of("program-of-unit")), (PROGRAMS, PROGRAMS));
    assert_eq!((of("pod"), of("unit")), (PODS, UNITS));
    for shards in [2, 4] {
        let several = run_agent(shards);
        assert!(several.visits > EVENTS, "no event visited a second shard");
        assert_eq!(several.ids, one.ids, "{shards} shards");
        assert_eq!(several.stories, one.stories, "{shards} shards");
    }
}
