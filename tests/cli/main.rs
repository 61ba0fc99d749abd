//! The commands as they are run in a shell: output, and errors for invalid input.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "a test runs the program")]

mod bad_input;
mod check;
mod config;
mod connections;
mod explain;
mod otlp_lines;
mod rules_check;
mod state_folder;

use std::path::PathBuf;

use serde_json::{Value as Json, json};

/// Nanoseconds since the Unix epoch, some milliseconds after 2026-02-01T10:00:00Z.
fn at(milliseconds: f64) -> i64 {
    1_769_940_000_000_001_000 + (milliseconds * 1e6) as i64
}

/// An event of a unit of host `h`.
fn event(time: i64, kind: &str, unit: &str, severity: &str) -> Json {
    json!({
        "id": format!("{kind}@{unit}@{time}"), "time": time, "kind": kind, "source": "test",
        "severity": severity, "entity": {"node": "h", "systemd.unit": unit}, "message": "",
    })
}

fn write(events: &[Json]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    (dir, file)
}
