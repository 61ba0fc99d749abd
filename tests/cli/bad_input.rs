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
fn time_in_another_unit_is_refused_and_a_byte_order_mark_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let times = ["1", "1700000000", "1700000000000", "1700000000000000", "1700000000000000000"];
    let line = |time: &str| format!("{{\"time\":{time},\"kind\":\"a\"}}\n");
    let text: String = times.into_iter().map(line).collect();
    std::fs::write(folder.path().join("events.jsonl"), format!("\u{feff}{text}")).unwrap();
    let (out, err) = texts(&replay(folder.path(), &["events.jsonl", "--emit", "events"]));
    assert_eq!(out.lines().count(), 2, "the first and the last: {out}");
    for (line, unit) in [(2, "seconds"), (3, "milliseconds"), (4, "microseconds")] {
        let refused = format!("events.jsonl:{line}:1: time: {} are {unit}", times[line - 1]);
        assert!(err.contains(&refused), "{err}");
    }
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
