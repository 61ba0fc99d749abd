//! `/metrics` of a running agent and its server: documented, by Prometheus' conventions, and
//! complete.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::agent::{TestAgent, start, story, terminate, utf8};
use support::eventually::eventually;
use support::net::response;

/// Help, type and label names of each metric.
type Definitions = BTreeMap<String, (String, String, BTreeSet<String>)>;

/// Runs a standalone agent over a recorded story; returns the pages of agent and server.
fn pages() -> [String; 2] {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let text = std::fs::read_to_string(&config).unwrap();
    let config = fixture.file("agent.yaml", &format!("memory_limit: 1GiB\nexport: {{ otlp: [{{ name: away, endpoint: \"http://127.0.0.1:9\" }}] }}\n{text}"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| s["cons1"]["total"]["forwarded"] == json!(6));
    // The story may be emitted after its events are stored.
    eventually("a story is counted", || {
        fixture.page("/metrics").unwrap().1.contains("tapio_stories_total{")
    });
    let pages =
        [fixture.response("/metrics"), response(fixture.http, "/metrics")].map(Option::unwrap);
    for (head, _) in &pages {
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    }
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    pages.map(|(_, body)| body)
}

fn definitions(page: &str) -> Definitions {
    let mut all = Definitions::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            let before =
                all.insert(name.to_owned(), (help.to_owned(), String::new(), BTreeSet::new()));
            assert!(before.is_none(), "{name} is defined twice");
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            all.get_mut(name).unwrap().1 = kind.to_owned();
        }
    }
    all
}

/// The rows of all tables in docs/metrics.md.
fn documented() -> Definitions {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, help] = cells[..] else { panic!("{row}") };
        let labels = labels.split(", ").filter(|l| !l.is_empty());
        let labels = labels.map(|l| l.trim_matches('`').to_owned()).collect();
        (name.trim_matches('`').to_owned(), (help.to_owned(), kind.to_owned(), labels))
    })
    .collect()
}

/// Checks that each sample of a page has the documented labels.
fn check_labels(page: &str, documented: &Definitions) {
    for line in page.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let names: BTreeSet<String> = labels
            .split("\",")
            .filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()))
            .filter(|name| name != "le")
            .collect();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
        let definition = documented.get(name).or_else(|| documented.get(base?)).unwrap();
        assert_eq!(names, definition.2, "{line}");
    }
}

/// Debian's promtool, installed or unpacked by scripts/test-deps.sh.
fn promtool() -> Option<PathBuf> {
    let unpacked = "target/testbed/opt/prometheus/usr/bin/promtool";
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(unpacked);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("promtool"));
    installed.chain([unpacked]).find(|file| file.exists())
}

fn check_with_promtool(promtool: &Path, page: &str) {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let findings = utf8(&output.stdout) + &utf8(&output.stderr);
    assert!(output.status.success() && findings.trim().is_empty(), "{findings}");
}

#[test]
fn exported_metrics_are_documented_and_pass_promtool() {
    let pages = pages();
    let documented = documented();
    let mut exported = Definitions::new();
    for page in &pages {
        check_labels(page, &documented);
        exported.extend(definitions(page));
    }
    for (name, (help, kind, _)) in &documented {
        let exported = exported.get(name).unwrap_or_else(|| panic!("{name} isn't exported"));
        assert_eq!((&exported.0, &exported.1), (help, kind), "{name}");
    }
    for name in exported.keys() {
        assert!(documented.contains_key(name), "docs/metrics.md lacks {name}");
    }
    assert!(pages[0].contains("tapio_stories_total{pattern=\"cascade-failure\""), "{}", pages[0]);
    assert!(pages[1].contains("tapio_server_events_total 6\n"), "{}", pages[1]);
    match promtool() {
        Some(promtool) => pages.iter().for_each(|page| check_with_promtool(&promtool, page)),
        None => println!("skipped: no promtool (Debian's package prometheus)"),
    }
}

/// Rust files below a folder.
fn sources(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            out.push((path, text));
        }
    }
}

/// A counter that a collector reports without a metric would be in `/status` only.
#[test]
fn every_counter_of_a_collector_has_a_metric() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = root.join("src/runtime/metrics/collectors.rs");
    let table = std::fs::read_to_string(table).unwrap();
    let mut files = Vec::new();
    sources(&root.join("src/collector"), &mut files);
    let mut checked = 0;
    for (path, text) in files {
        for (_, rest) in
            text.match_indices("report.count(\"").map(|(at, m)| text.split_at(at + m.len()))
        {
            let counter = rest.split('"').next().unwrap();
            let is_defined = table.contains(&format!("\"{counter}\""));
            assert!(is_defined, "{}: {counter} has no metric", path.display());
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}
