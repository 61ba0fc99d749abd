//! The rules that come with tapio: each does what its own tests say, each has a story that must be
//! found and one that must not, and no incident is told twice unless that is meant.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tapio_core::event::{EventId, Severity, Story};
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rule_runner::run_rule_tests;
use tapio_dataflow::rules::{Rule, TestEvents, builtin};

/// Incidents as all sources together tell them (`tests/rules/*.jsonl`), and the rules that may tell
/// a story of them, in order of their names.
const INCIDENTS: &[(&str, &[&str])] = &[
    ("an-ordinary-day", &[]),
    // Not as oom-kill, pod-crash-loop or liveness-probe-failure, whatever else is seen of it.
    ("container-out-of-memory", &["container-oom"]),
    // Those who ask, and the one who doesn't answer.
    ("dns-server-away", &["dns-resolution-failures", "dns-upstream-failure"]),
    // The disk, not how slow it is; what it did to a file system; who hangs two minutes later.
    ("dying-disk", &["disk-io-errors", "hung-task", "read-only-remount"]),
    ("hanging-pod", &["liveness-probe-failure"]),
    // The unit at once, its clients, and that they are one when the pods have followed.
    (
        "nginx-as-all-sources-tell-it",
        &["connection-refused-storm", "service-failure-cascade", "unit-failure"],
    ),
    // Who can't write, and who is ended for it.
    ("node-fills-up", &["disk-full", "node-disk-pressure"]),
    // What is wrong, and which change brought it.
    ("rollout-of-a-missing-image", &["image-pull-failure", "rollout-failure"]),
    // The unit at once, the node when the cluster notices, and that it is back.
    ("runtime-dies", &["container-runtime-restart", "node-not-ready", "unit-failure"]),
    // Not as unit-failure or unit-restart-loop.
    ("service-gives-up", &["unit-start-limit"]),
    // The process, and the service that isn't there any more; not as coredump.
    ("service-segfaults", &["segfault", "unit-failure"]),
];

/// The stories told of these events, all built-in rules at work.
fn told(inputs: Inputs) -> Vec<Story> {
    let replayed = run(inputs, builtin().rules, "", 2, Emit::Stories).unwrap();
    assert_eq!(replayed.refused, []);
    assert!(replayed.account.holds());
    let stories = replayed.stories.into_iter();
    stories.filter(|g| !g.rule.ends_with("-lifecycle")).collect()
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
fn every_rule_does_what_its_author_says() {
    // Rules name the files of their tests from the repository's root; all other tests use full paths.
    std::env::set_current_dir(crate::ROOT).unwrap();
    let rules = builtin().rules;
    assert!(rules.len() >= 40, "{}", rules.len());
    let tried = rules.iter().flat_map(|rule| run_rule_tests(rule).unwrap());
    let wrong: Vec<String> = tried
        .filter(|t| !t.differences.is_empty())
        .map(|t| format!("{}:{}: {}", t.file, t.position.line, t.differences.join("; ")))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_story_it_finds_and_one_it_does_not() {
    for rule in builtin().rules {
        let finds = rule.tests.iter().filter(|t| !t.expect.is_empty());
        let says = |key: &str| finds.clone().any(|t| t.expect.iter().any(|g| g.contains_key(key)));
        for key in ["pattern", "members", "root_cause"] {
            assert!(says(key), "{}: no test looks at {key}", rule.name);
        }
        // What went well needs no action.
        let advised = rule.severity < Severity::WARN || says("actions");
        assert!(advised, "{}: no test looks at the actions", rule.name);
        assert!(rule.tests.iter().any(|t| t.expect.is_empty()), "{}: no near miss", rule.name);
        assert!(!rule.story.intent.is_empty() && rule.story.name.is_some(), "{}", rule.name);
    }
}

/// Rules that make a story of an event which is in one of this rule's own stories.
fn also_told_by(rule: &Rule) -> BTreeSet<String> {
    let mut also = BTreeSet::new();
    for test in rule.tests.iter().filter(|t| !t.expect.is_empty()) {
        let (own, other): (Vec<_>, Vec<_>) =
            told(inputs(&test.events)).into_iter().partition(|g| rule.name.text() == g.rule);
        assert!(!own.is_empty(), "{} isn't told when all rules are at work", rule.name);
        let shared: BTreeSet<EventId> = own.iter().flat_map(members).collect();
        let twice = other.into_iter().filter(|g| members(g).any(|id| shared.contains(&id)));
        also.extend(twice.map(|g| g.rule));
    }
    also
}

#[test]
fn the_stories_of_a_rule_are_its_own() {
    for rule in builtin().rules {
        assert_eq!(also_told_by(&rule), BTreeSet::new(), "tell the stories of {}, too", rule.name);
    }
}

#[test]
fn no_incident_is_told_twice_unless_it_is_meant() {
    let folder = PathBuf::from(crate::ROOT).join("tests/rules");
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, INCIDENTS.len(), "each recorded incident has its row");
    for (incident, expected) in INCIDENTS {
        let file = folder.join(incident).with_extension("jsonl");
        let rules: BTreeSet<String> =
            told(Inputs::files(&[file]).unwrap()).into_iter().map(|g| g.rule).collect();
        println!("{incident}: {}", rules.iter().cloned().collect::<Vec<_>>().join(", "));
        let expected: BTreeSet<String> = expected.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(rules, expected, "{incident}");
    }
}

/// The first example of all: not three alerts, but one trace, whichever rules look at the same events.
#[test]
fn what_a_failed_unit_takes_with_it_is_one_trace() {
    for (incident, rule) in [("nginx-as-all-sources-tell-it", "service-failure-cascade")] {
        let file = Path::new(crate::ROOT).join(format!("tests/rules/{incident}.jsonl"));
        for shards in [1, 3] {
            let inputs = || Inputs::files(std::slice::from_ref(&file)).unwrap();
            let replayed = run(inputs(), builtin().rules, "", shards, Emit::Stories).unwrap();
            let story = replayed.stories.iter().find(|g| g.rule == rule).unwrap();
            let events = run(inputs(), builtin().rules, "", shards, Emit::Events).unwrap().lines;
            let trace = story.trace_id.to_string();
            assert!(story.members.len() > 5);
            // The same of the unit alone, which is told at once.
            let alone = replayed.stories.iter().find(|g| g.rule == "unit-failure").unwrap();
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
