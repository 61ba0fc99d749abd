//! `tapio replay` with invalid input: each error has its line and column, and affects nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

const GOOD: &str = r#"{"id":"1","time":1700000000000000000,"kind":"t.A","source":"test"}"#;

fn replay(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    command.current_dir(folder).arg("replay").args(more).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn invalid_lines_are_refused_and_the_rest_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = format!("{GOOD}\n{{\"id\": nonsense}}\n\n").into_bytes();
    bytes.extend(b"{\"message\":\"\xff\"}\n");
    bytes.extend(format!("{{\"message\":\"{}\"}}\n", "m".repeat(16 << 20)).into_bytes());
    bytes.extend(b"[1, 2]\n");
    bytes.extend(GOOD.replace("\"1\"", "\"2\"").into_bytes());
    std::fs::write(folder.path().join("events.jsonl"), bytes).unwrap();
    let output = replay(folder.path(), &["events.jsonl", "--emit", "events"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(out.lines().count(), 2, "{out}");
    for line in [2, 4, 5, 6] {
        assert!(err.contains(&format!("events.jsonl:{line}:")), "line {line}: {err}");
    }
    assert!(err.contains("events.jsonl:2:9: "), "{err}");
    assert!(err.contains("events.jsonl:4:13: not UTF-8"), "{err}");
    assert!(err.contains("lines refused: 4"), "{err}");
}

#[test]
fn unit_of_a_time_is_recognised_and_a_byte_order_mark_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let times = ["1", "1700000000", "1700000000000", "1700000000000000", "1700000000000000000"];
    let line = |time: &str| format!("{{\"time\":{time},\"kind\":\"a\"}}\n");
    let text: String = times.into_iter().map(line).collect();
    std::fs::write(folder.path().join("events.jsonl"), format!("\u{feff}{text}")).unwrap();
    let (out, err) = texts(&replay(folder.path(), &["events.jsonl", "--emit", "events"]));
    assert_eq!(out.lines().count(), 5, "{out}{err}");
    let of_2023 = out.lines().filter(|line| line.contains("2023-11-14T22:13:20")).count();
    assert_eq!(of_2023, 4, "{out}");
    std::fs::write(folder.path().join("odd.jsonl"), line("17000000000000")).unwrap();
    let (_, err) = texts(&replay(folder.path(), &["odd.jsonl", "--emit", "events"]));
    assert!(err.contains("odd.jsonl:1:1: time: 17000000000000 ns is 1970-01-01"), "{err}");
}

#[test]
fn replay_of_no_event_fails() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.log"), "one\ntwo\n").unwrap();
    let output = replay(folder.path(), &["bad.log"]);
    let (out, err) = texts(&output);
    assert_eq!((output.status.code(), &*out), (Some(1), ""), "{err}");
    let expected =
        "no line is an event, refused: 2; the first: bad.log:1:1: expected a JSON object";
    assert!(err.contains(expected), "{err}");
    std::fs::write(folder.path().join("empty.jsonl"), "").unwrap();
    assert_eq!(replay(folder.path(), &["empty.jsonl"]).status.code(), Some(0), "nothing is wrong");
}

#[test]
fn missing_file_fails() {
    let folder = tempfile::tempdir().unwrap();
    let output = replay(folder.path(), &["nowhere.jsonl"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(out.is_empty() && err.contains("nowhere.jsonl"), "{err}");
}

#[test]
fn invalid_rule_file_is_refused_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), GOOD).unwrap();
    let rule = "rule: a\nevents: { e: { kind: t.A } }\ncount: { event: f, within: 1s, at_least: 1 }\n\
                story: { pattern: p }\n";
    std::fs::write(folder.path().join("bad.yaml"), rule).unwrap();
    let output = replay(folder.path(), &["events.jsonl", "--rules", "bad.yaml"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(out.is_empty() && err.contains("bad.yaml:3:17: "), "{err}");
}
