//! The two stories of the specification and the golden stories, through the production correlator:
//! the output is the same byte for byte for any number of shards, and its texts follow from events.
//!
//! `tests/stories/*.golden.json` has the output of `tapio replay` for the events beside it, by the
//! built-in rules or those of the `*.rules.yaml` beside it. After
//! an intended change of output, renew the files and review the diff: `TAPIO_RENEW_GOLDEN=1 cargo
//! test -p tapio-dataflow --test dataflow golden`.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rules::{Rule, builtin, load};

fn story_file(name: &str) -> PathBuf {
    PathBuf::from(crate::ROOT).join("tests/stories").join(name)
}

fn run(files: &[PathBuf], shards: usize, emit: Emit) -> Vec<Json> {
    run_with(builtin().rules, files, shards, emit)
}

fn run_with(rules: Vec<Rule>, files: &[PathBuf], shards: usize, emit: Emit) -> Vec<Json> {
    let replayed = replay(files, rules, "", shards, emit).unwrap();
    assert!(replayed.account.holds(), "CONS-1: {:?}", replayed.account.total);
    assert_eq!(replayed.account.total.held, 0);
    assert_eq!(replayed.account.total.received, replayed.account.total.forwarded);
    replayed.lines
}

fn is_failed_unit(story: &Json) -> bool {
    story["rule"].as_str().unwrap().starts_with("unit-failure-")
}

/// The only story of a file, besides that about a failed unit alone.
fn only_story(file: &PathBuf) -> Json {
    let stories = run(std::slice::from_ref(file), 2, Emit::Stories);
    let is_lifecycle = |s: &&Json| s["rule"].as_str().unwrap().ends_with("-lifecycle");
    let (of_units, stories): (Vec<&Json>, Vec<&Json>) =
        stories.iter().filter(|s| !is_lifecycle(s)).partition(|s| is_failed_unit(s));
    assert_eq!(stories.len(), 1, "{stories:?}");
    // The unit's own story is emitted before its effects are known, in the same trace.
    assert!(of_units.iter().all(|s| s["trace_id"] == stories[0]["trace_id"]), "{of_units:?}");
    stories[0].clone()
}

/// A copy of a story's events with lines removed or changed.
fn edited(name: &str, edit: impl Fn(&str) -> Option<String>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(story_file(name)).unwrap();
    let lines: Vec<String> = text.lines().filter_map(edit).collect();
    let file = dir.path().join(name);
    std::fs::write(&file, lines.join("\n")).unwrap();
    (dir, file)
}

fn texts<'a>(story: &'a Json, list: &str, key: &str) -> Vec<&'a str> {
    story[list].as_array().unwrap().iter().map(|m| m[key].as_str().unwrap_or("")).collect()
}

fn traces_of(file: &str, story: &Json) -> Vec<String> {
    let members = texts(story, "members", "id");
    let events = run(&[story_file(file)], 2, Emit::Events);
    let ours = events.iter().filter(|e| members.contains(&e["id"].as_str().unwrap()));
    ours.map(|e| e["trace_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pod_startup_is_one_trace() {
    let story = only_story(&story_file("pod-startup.jsonl"));
    assert_eq!(story["pattern"], "pod-deployment-success");
    assert_eq!(story["duration_ns"], 2_300_000_000u64);
    assert_eq!(story["impact"]["business"], 0.3);
    assert_eq!(story["impact"]["slo_impact"], false);
    assert_eq!(story["root_causes"][0]["cause"], "scheduled deployment");
    assert_eq!(
        texts(&story, "members", "pattern"),
        ["container-runtime-start", "scheduling", "network-setup", "workload-ready"]
    );
    let traces = traces_of("pod-startup.jsonl", &story);
    assert_eq!(traces, vec![story["trace_id"].as_str().unwrap(); 4]);
}

#[test]
fn failed_service_and_its_effects_are_one_trace() {
    let story = only_story(&story_file("nginx-cascade.jsonl"));
    assert_eq!(story["pattern"], "cascade-failure");
    assert_eq!(story["severity"], "critical");
    assert_eq!(story["impact"]["business"], 0.9);
    assert_eq!(story["impact"]["customer_facing"], true);
    assert_eq!(story["root_causes"][0]["cause"], "nginx configuration error");
    assert_eq!(story["root_causes"][0]["evidence"][0], "nginx_emerg");
    let actions: Vec<&str> =
        story["actions"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    assert_eq!(actions[..2], ["restart nginx", "check config /etc/nginx/nginx.conf:12"]);
    assert_eq!(
        texts(&story, "members", "pattern"),
        [
            "configuration-error",
            "service-failure",
            "workload-degradation",
            "performance-degradation"
        ]
    );
    let traces = traces_of("nginx-cascade.jsonl", &story);
    assert_eq!(traces, vec![story["trace_id"].as_str().unwrap(); 4]);
}

#[test]
fn root_cause_follows_from_the_journal_line() {
    let (_dir, file) =
        edited("nginx-cascade.jsonl", |l| (!l.contains("nginx_emerg")).then(|| l.to_owned()));
    let story = only_story(&file);
    assert_eq!(story["root_causes"][0]["cause"], "nginx.service: exit-code");
    assert!(!story.to_string().contains("check config"), "{story}");
}

#[test]
fn texts_name_the_program_of_the_event() {
    let (_dir, file) = edited("nginx-cascade.jsonl", |l| {
        Some(l.replace(
            "\"process.executable.name\": \"nginx\"",
            "\"process.executable.name\": \"haproxy\"",
        ))
    });
    let story = only_story(&file);
    assert_eq!(story["root_causes"][0]["cause"], "haproxy configuration error");
    assert!(story["actions"].to_string().contains("restart haproxy"));
}

#[test]
fn output_is_identical_for_any_number_of_shards() {
    let files = [story_file("pod-startup.jsonl"), story_file("nginx-cascade.jsonl")];
    for emit in [Emit::Stories, Emit::Matches, Emit::Events] {
        let text =
            |shards| run(&files, shards, emit).iter().map(ToString::to_string).collect::<Vec<_>>();
        let first = text(1);
        assert!(!first.is_empty());
        for _ in 0..10 {
            for shards in [1, 2, 8] {
                assert_eq!(text(shards), first, "{shards} shards, {emit:?}");
            }
        }
    }
}

/// The files of `tests/stories` with this ending, sorted.
fn files(ending: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(story_file("")).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = all.filter(|p| p.to_str().unwrap().ends_with(ending)).collect();
    files.sort();
    files
}

/// The rules for a file: those beside it, else the built-in ones.
fn rules_for(file: &Path) -> Vec<Rule> {
    let own = file.with_extension("rules.yaml");
    if !own.exists() {
        return builtin().rules;
    }
    let loaded = load(&[own]);
    assert_eq!(loaded.errors, []);
    loaded.rules
}

/// The output of `tapio replay` for a file: stories without lifecycles.
fn printed(file: &Path, shards: usize) -> String {
    let lines = run_with(rules_for(file), &[file.to_path_buf()], shards, Emit::Stories);
    let is_lifecycle = |line: &Json| line["rule"].as_str().unwrap().ends_with("-lifecycle");
    lines.iter().filter(|line| !is_lifecycle(line)).map(|line| format!("{line}\n")).collect()
}

/// The first difference of two texts, with context.
fn difference(one: &str, other: &str) -> String {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        let bytes = &text.as_bytes()[same.saturating_sub(80)..text.len().min(same + 80)];
        String::from_utf8_lossy(bytes).into_owned()
    };
    format!("byte {same}:\n  held:    …{}…\n  printed: …{}…", around(one), around(other))
}

#[test]
fn replay_prints_the_golden_files() {
    let stories = files(".jsonl");
    let golden: Vec<_> = stories.iter().map(|s| s.with_extension("golden.json")).collect();
    if std::env::var_os("TAPIO_RENEW_GOLDEN").is_some_and(|v| v == "1") {
        for (story, golden) in stories.iter().zip(&golden) {
            std::fs::write(golden, printed(story, 1)).unwrap();
        }
    }
    assert!(!stories.is_empty());
    assert_eq!(files(".golden.json"), golden, "one golden file per story");
    for (story, golden) in stories.iter().zip(&golden) {
        let held = std::fs::read_to_string(golden).unwrap();
        assert!(!held.is_empty(), "{} has no story", story.display());
        for shards in [1, 2, 8] {
            let printed = printed(story, shards);
            assert!(
                printed == held,
                "{} with {shards} shards differs from its golden file: {}\n(intended? \
                 TAPIO_RENEW_GOLDEN=1 cargo test -p tapio-dataflow --test dataflow golden, and review the diff)",
                story.display(),
                difference(&held, &printed)
            );
        }
    }
}
