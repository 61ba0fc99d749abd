//! The built-in rules: each passes its own tests, has a positive and a negative test, and no
//! incident gives two stories unless that is intended.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tapio_core::event::{EventId, Severity, Story};
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rule_runner::run_rule_tests;
use tapio_dataflow::rules::{Rule, TestEvents, builtin};

/// Incidents with the events of all sources (`tests/rules/*.jsonl`), and the rules that emit a
/// story for them, in order of names.
const INCIDENTS: &[(&str, &[&str])] = &[
    ("normal-operation", &[]),
    // Not oom-kill, pod-crash-loop or liveness-probe-failure, which its events suggest, too.
    ("container-oom", &["container-oom"]),
    // The clients, and the server.
    ("dns-server-down", &["dns-resolution-failures", "dns-upstream-failure"]),
    // The disk, not its slowness; the file system; the tasks that hang two minutes later.
    ("failing-disk", &["disk-io-errors", "hung-task", "read-only-remount"]),
    ("pod-hang", &["liveness-probe-failure"]),
    // The unit at once, its clients, and the cascade once pods are affected.
    ("nginx-all-sources", &["connection-refused-storm", "service-failure-cascade", "unit-failure"]),
    // The unit at once, the pods that need it, and each pod's loop.
    ("unit-and-pods-in-loops", &["pod-crash-loop", "unit-failure", "unit-failure-pod-crashes"]),
    // The failed writes, and the evictions.
    ("node-disk-full", &["disk-full", "node-disk-pressure"]),
    // The error, and the change that caused it.
    ("rollout-missing-image", &["image-pull-failure", "rollout-failure"]),
    // The unit at once, the node once the cluster notices, and the recovery.
    ("container-runtime-crash", &["container-runtime-restart", "node-not-ready", "unit-failure"]),
    // Not unit-failure or unit-restart-loop.
    ("service-start-limit", &["unit-start-limit"]),
    // The process, and its service; not coredump.
    ("service-segfault", &["segfault", "unit-failure"]),
    // One image that doesn't exist, and one registry that doesn't answer; each for several pods.
    ("image-and-registry", &["image-pull-failure", "registry-failure"]),
    // Not volume-wait or volume-mount-failure.
    ("volume-server-away", &["volume-server-failure"]),
    ("volume-claim-attached", &["volume-mount-failure"]),
    // Each pod that waits, and the server, which is the cause: one incident.
    ("nfs-mounts-hang", &["nfs-not-responding", "volume-wait"]),
    // The condition, and the node controller's Events in its incident.
    ("node-not-ready-events", &["node-lost", "node-not-ready"]),
    (
        "runtime-blocked-in-kernel",
        &["hung-task", "node-lost", "node-not-ready", "runtime-unresponsive"],
    ),
];

/// The stories of all built-in rules for these events.
fn stories(inputs: Inputs) -> Vec<Story> {
    let replayed = run(inputs, builtin().rules, "", 2, Emit::Stories).unwrap();
    assert_eq!(replayed.refused, []);
    assert!(replayed.account.holds());
    replayed.stories.into_iter().filter(|s| !s.rule.ends_with("-lifecycle")).collect()
}

fn inputs(events: &TestEvents) -> Inputs {
    match events {
        TestEvents::Lines(lines) => Inputs::text("test", lines),
        TestEvents::File(file) => Inputs::files(&[Path::new(crate::ROOT).join(file)]).unwrap(),
    }
}

fn members(story: &Story) -> impl Iterator<Item = EventId> {
    story.members.iter().map(|m| m.id)
}

#[test]
fn rules_pass_their_own_tests() {
    // Rules name test files relative to the repository; all other tests use full paths.
    std::env::set_current_dir(crate::ROOT).unwrap();
    let rules = builtin().rules;
    assert!(rules.len() >= 40, "{}", rules.len());
    let outcomes = rules.iter().flat_map(|rule| run_rule_tests(rule).unwrap());
    let failed: Vec<String> = outcomes
        .filter(|o| !o.differences.is_empty())
        .map(|o| format!("{}:{}: {}", o.file, o.position.line, o.differences.join("; ")))
        .collect();
    assert!(failed.is_empty(), "\n{}\n", failed.join("\n"));
}

#[test]
fn rules_have_positive_and_negative_tests() {
    for rule in builtin().rules {
        let positive = rule.tests.iter().filter(|t| !t.expect.is_empty());
        let checked =
            |key: &str| positive.clone().any(|t| t.expect.iter().any(|s| s.contains_key(key)));
        for key in ["pattern", "members", "root_cause"] {
            assert!(checked(key), "{}: no test checks {key}", rule.name);
        }
        // A success needs no action.
        let actions = rule.severity < Severity::WARN || checked("actions");
        assert!(actions, "{}: no test checks the actions", rule.name);
        assert!(rule.tests.iter().any(|t| t.expect.is_empty()), "{}: no negative test", rule.name);
        assert!(!rule.story.intent.is_empty() && rule.story.name.is_some(), "{}", rule.name);
    }
}

/// Other rules that have an event of one of this rule's stories in theirs.
fn overlapping_rules(rule: &Rule) -> BTreeSet<String> {
    let mut overlapping = BTreeSet::new();
    for test in rule.tests.iter().filter(|t| !t.expect.is_empty()) {
        let (own, other): (Vec<_>, Vec<_>) =
            stories(inputs(&test.events)).into_iter().partition(|s| rule.name.text() == s.rule);
        assert!(!own.is_empty(), "{} emits no story among all rules", rule.name);
        let shared: BTreeSet<EventId> = own.iter().flat_map(members).collect();
        // A unit's failure is a story at once; those of its effects are in the same trace.
        let other = other.into_iter().filter(|s| !s.rule.starts_with("unit-failure-"));
        let overlaps = other.filter(|s| members(s).any(|id| shared.contains(&id)));
        overlapping.extend(overlaps.map(|s| s.rule));
    }
    overlapping
}

#[test]
fn stories_of_a_rule_share_no_events_with_other_rules() {
    for rule in builtin().rules {
        assert_eq!(overlapping_rules(&rule), BTreeSet::new(), "overlap with {}", rule.name);
    }
}

#[test]
fn incidents_give_the_intended_stories_only() {
    let folder = PathBuf::from(crate::ROOT).join("tests/rules");
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, INCIDENTS.len(), "each recorded incident has a row");
    for (incident, expected) in INCIDENTS {
        let file = folder.join(incident).with_extension("jsonl");
        let rules: BTreeSet<String> =
            stories(Inputs::files(&[file]).unwrap()).into_iter().map(|s| s.rule).collect();
        println!("{incident}: {}", rules.iter().cloned().collect::<Vec<_>>().join(", "));
        let expected: BTreeSet<String> = expected.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(rules, expected, "{incident}");
    }
}

/// The stories without a parent, by rule and number of affected entities, and those with one.
fn parents(incident: &str) -> (Vec<(String, usize)>, usize) {
    let file = Path::new(crate::ROOT).join(format!("tests/rules/{incident}.jsonl"));
    let (children, alone): (Vec<_>, Vec<_>) =
        stories(Inputs::files(&[file]).unwrap()).into_iter().partition(|s| s.incident.is_some());
    for child in &children {
        let parent = &child.incident.as_ref().unwrap().id;
        assert!(
            alone.iter().any(|s| s.id == *parent),
            "{incident}: {} names no parent",
            child.rule
        );
    }
    let mut parents: Vec<_> =
        alone.into_iter().map(|s| (s.rule, s.impact.affected.len())).collect();
    parents.sort();
    (parents, children.len())
}

/// Whoever is notified about stories without a parent has one notification for each cause.
#[test]
fn one_cause_of_several_pods_is_one_story_or_one_incident() {
    let one = |rule: &str, affected| (rule.to_owned(), affected);
    for (incident, expected, children) in [
        ("image-and-registry", vec![one("image-pull-failure", 3), one("registry-failure", 3)], 0),
        ("volume-server-away", vec![one("volume-server-failure", 4)], 0),
        (
            "volume-claim-attached",
            vec![one("volume-mount-failure", 2), one("volume-mount-failure", 3)],
            0,
        ),
        ("nfs-mounts-hang", vec![one("volume-wait", 1)], 3),
        ("node-not-ready-events", vec![one("node-not-ready", 0)], 1),
        ("runtime-blocked-in-kernel", vec![one("hung-task", 0)], 3),
    ] {
        assert_eq!(parents(incident), (expected, children), "{incident}");
    }
}

/// One trace instead of three alerts, also if several rules match the same events.
#[test]
fn failed_unit_and_its_effects_share_a_trace() {
    for (incident, rule) in [
        ("nginx-all-sources", "service-failure-cascade"),
        ("unit-and-pods-in-loops", "unit-failure-pod-crashes"),
    ] {
        let file = Path::new(crate::ROOT).join(format!("tests/rules/{incident}.jsonl"));
        for shards in [1, 3] {
            let inputs = || Inputs::files(std::slice::from_ref(&file)).unwrap();
            let replayed = run(inputs(), builtin().rules, "", shards, Emit::Stories).unwrap();
            let story = replayed.stories.iter().find(|s| s.rule == rule).unwrap();
            let events = run(inputs(), builtin().rules, "", shards, Emit::Events).unwrap().lines;
            let trace = story.trace_id.to_string();
            assert!(story.members.len() > 5);
            // The story about the unit alone, which is emitted at once, has the same trace.
            let alone = replayed.stories.iter().find(|s| s.rule == "unit-failure").unwrap();
            assert_eq!(alone.trace_id, story.trace_id);
            assert_ne!(alone.id, story.id);
            for member in &story.members {
                let id = member.id.to_string();
                let event =
                    events.iter().find(|e| e["id"] == member.label || e["id"] == id).unwrap();
                assert_eq!(event["trace_id"], trace.as_str(), "{event}");
            }
        }
    }
}
