//! `tapio explain` and `tapio rules suggest` as commands.
#![allow(clippy::disallowed_methods, reason = "a test runs the program")]

use std::process::{Command, Output};

use serde_json::Value as Json;

use crate::{at, event, write};

fn tapio(arguments: &[&str]) -> (Output, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tapio")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

fn nginx() -> String {
    format!("{}/tests/stories/nginx-cascade.jsonl", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn replayed_story_is_explained_with_every_term() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stories.jsonl");
    let (_, stories, _) = tapio(&["replay", &nginx()]);
    let from = file.display().to_string();
    let story: Json = stories
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .find(|story| story["rule"] == "service-failure-cascade")
        .unwrap();
    std::fs::write(&file, story.to_string()).unwrap();
    let id = story["id"].as_str().unwrap();
    let (done, out, _) = tapio(&["explain", &id[..8], "--from", &from]);
    assert!(done.status.success());
    for expected in [
        "nginx configuration error",
        "evidence nginx_emerg",
        "1. nginx configuration error",
        "times as likely as the next",
        "2. nginx.service: exit-code",
        "3. pod shop/checkout",
        "severity  error",
        "edge gap  0.021 s to systemd.unit.failed",
        "named by the rule",
        "an effect according to the rule",
    ] {
        assert!(out.contains(expected), "{expected:?} isn't in\n{out}");
    }
    let (_, json, _) = tapio(&["explain", id, "--from", &from, "--output", "json"]);
    let mut explained: Json = serde_json::from_str(&json).unwrap();
    assert_eq!(explained.as_object_mut().unwrap().remove("links"), Some(Json::Array(Vec::new())));
    assert_eq!(explained, story);
}

/// Stories of several rules about one incident are linked by their shared events.
#[test]
fn story_is_explained_with_its_linked_stories() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stories.jsonl");
    let events = format!("{}/tests/rules/nginx-all-sources.jsonl", env!("CARGO_MANIFEST_DIR"));
    let (_, stories, _) = tapio(&["replay", &events]);
    std::fs::write(&file, &stories).unwrap();
    let from = file.display().to_string();
    let stories = stories.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let cascade = stories.into_iter().find(|s| s["pattern"] == "cascade-failure").unwrap();
    let (_, out, _) = tapio(&["explain", cascade["id"].as_str().unwrap(), "--from", &from]);
    for expected in [
        "linked stories",
        "nginx.service failed: 3 shared events",
        "connections to 10.0.0.5:80 are refused: 2 shared events",
    ] {
        assert!(out.contains(expected), "{expected:?} isn't in\n{out}");
    }
}

#[test]
fn unknown_and_invalid_ids_are_refused() {
    let (_dir, file) = write(&[]);
    let from = file.display().to_string();
    let (none, _, err) = tapio(&["explain", "abcd", "--from", &from]);
    assert_eq!(none.status.code(), Some(1));
    assert!(err.contains("no story abcd"), "{err}");
    let (usage, _, err) = tapio(&["explain", "story", "--from", &from]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(err.contains("isn't a story id"), "{err}");
}

#[test]
fn suggested_rules_are_valid_and_find_their_pair() {
    let mut events = Vec::new();
    for n in 0..20 {
        let begin_ms = 600_000.0 * f64::from(n);
        events.push(event(at(begin_ms), "disk.slow", "db.service", "warn"));
        events.push(event(at(begin_ms + 5_000.0), "query.timeout", "db.service", "error"));
        events.push(event(at(begin_ms + 300_000.0), "chatter", "db.service", "warn"));
    }
    let (dir, file) = write(&events);
    let input = file.display().to_string();
    let (done, rules, _) = tapio(&["rules", "suggest", &input]);
    assert!(done.status.success());
    assert!(rules.contains("# disk.slow preceded query.timeout "), "{rules}");
    assert!(rules.contains("median delay at most 8.2 s"), "{rules}");
    assert!(!rules.contains("chatter"), "{rules}");
    let path = dir.path().join("suggested.yaml");
    std::fs::write(&path, &rules).unwrap();
    let path = path.display().to_string();
    let (checked, out, _) = tapio(&["rules", "check", &path]);
    assert!(checked.status.success(), "{out}");
    let (_, stories, _) = tapio(&["replay", &input, "--rules", &path]);
    assert_eq!(stories.lines().count(), 20, "{stories}");
}

#[test]
fn too_few_events_suggest_no_rule() {
    let (done, rules, err) = tapio(&["rules", "suggest", &nginx()]);
    assert!(done.status.success());
    assert_eq!(rules, "");
    assert!(err.contains("no pair of kinds was seen often enough"), "{err}");
}
