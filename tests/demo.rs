//! `tapio demo`, `doctor` and `tail` as commands: the built program, run as root and as an
//! unprivileged user. Parts that need privileges are skipped without them, with the reason;
//! `TAPIO_REQUIRE_KERNEL=1` makes that a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's parts fail, and report why they skip, as the test does"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;
use tapio::runtime::{Agent, Config as AgentConfig};
use tapio_collectors::ebpf::{Config, findings};

const TAPIO: &str = env!("CARGO_BIN_EXE_tapio");

/// Why the kernel can't be observed; empty when it can.
fn missing() -> String {
    let missing: Vec<String> = findings(&Config::default())
        .into_iter()
        .filter(|f| f.is_fatal())
        .map(|f| format!("{}: {}", f.subject, f.state))
        .collect();
    let why = missing.join("; ");
    let required = std::env::var_os("TAPIO_REQUIRE_KERNEL").is_some_and(|v| v == "1");
    assert!(why.is_empty() || !required, "TAPIO_REQUIRE_KERNEL=1, but {why}");
    why
}

fn is_root() -> bool {
    // The folder belongs to the owner of the process.
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// Runs the program as an unprivileged user with a home folder of its own, or as the user who runs
/// the tests, unless that is root.
fn as_nobody(home: &Path, args: &[&str]) -> Option<Output> {
    let mut command = if is_root() {
        // Other users may have no access to the build folder.
        let copy = home.join("tapio");
        std::fs::copy(TAPIO, &copy).unwrap();
        for path in [home, &copy] {
            std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(copy);
        command
    } else {
        Command::new(TAPIO)
    };
    command.args(args).env("HOME", home).current_dir("/");
    command.env_remove("XDG_STATE_HOME");
    match command.output() {
        Ok(output) => Some(output),
        Err(e) => {
            println!("skipped: setpriv: {e}");
            None
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn lines(output: &Output) -> Vec<Json> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text(&output.stdout).lines().map(parse).collect()
}

fn array(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Every member of a story is an event the server has, and that event names the story.
fn check_members(story: &Json, events: &HashMap<&str, &Json>) {
    let members = array(&story["members"]);
    assert_eq!(story["members_total"], members.len());
    for member in members {
        let event = events[member["id"].as_str().unwrap()];
        let named = array(&event["correlation"]).iter().any(|c| c["id"] == story["id"]);
        assert!(named, "{event} doesn't name {}", story["id"]);
        assert_eq!(event["trace_id"], story["trace_id"], "{event}");
    }
}

#[test]
fn every_fault_is_emitted_as_a_story() {
    let why = missing();
    if !why.is_empty() {
        println!("skipped: {why}");
        return;
    }
    let output = Command::new(TAPIO).args(["demo", "--output", "json"]).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let lines = lines(&output);
    let mut patterns: HashMap<&str, usize> = HashMap::new();
    for line in &lines {
        let events: HashMap<&str, &Json> =
            array(&line["events"]).iter().map(|e| (e["id"].as_str().unwrap(), e)).collect();
        for story in array(&line["stories"]) {
            assert!(matches!(story["state"].as_str(), Some("closed" | "expired")), "{story}");
            assert_ne!(array(&story["root_causes"]).len(), 0, "{story}");
            assert_ne!(array(&story["actions"]).len(), 0, "{story}");
            check_members(story, &events);
            *patterns.entry(story["pattern"].as_str().unwrap()).or_default() += 1;
        }
    }
    assert_eq!(patterns["segfault"], 1, "{patterns:?}");
    assert_eq!(patterns["connection-refused"], 1, "{patterns:?}");
    if stderr.contains("1. Skipped: no cgroup") {
        println!("skipped: {stderr}");
    } else {
        assert_eq!(patterns["oom-kill"], 1, "{patterns:?}");
        let story = lines
            .iter()
            .flat_map(|l| array(&l["stories"]))
            .find(|s| s["pattern"] == "oom-kill")
            .unwrap();
        assert_eq!(
            array(&story["root_causes"]).len(),
            1,
            "the cgroup was full, not the node: {story}"
        );
    }
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!(summary["faults"], summary["found"]);
    let total = &summary["cons1"]["total"];
    let dropped: u64 =
        total["dropped"].as_object().unwrap().values().filter_map(Json::as_u64).sum();
    assert_eq!(summary["cons1"]["holds"], true);
    assert_eq!(total["held"], 0);
    assert_eq!(total["received"].as_u64().unwrap(), total["forwarded"].as_u64().unwrap() + dropped);
}

#[test]
fn unprivileged_user_gets_recordings_marked_as_such() {
    let home = tempfile::tempdir().unwrap();
    if !is_root() && missing().is_empty() {
        println!("skipped: this user may observe the kernel");
        return;
    }
    let Some(output) = as_nobody(home.path(), &["demo"]) else {
        return;
    };
    let (out, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    for expected in ["RECORDINGS", "CAP_BPF", "sudo", "setcap"] {
        assert!(stderr.contains(expected), "{expected} isn't in {stderr}");
    }
    assert!(out.contains("Recording nginx-cascade.jsonl"), "{out}");
    assert!(out.contains("nginx configuration error"), "{out}");
    assert!(!out.contains("demo-hog"), "{out}");
}

#[test]
fn doctor_reports_missing_facilities_with_cost_and_remedy() {
    let home = tempfile::tempdir().unwrap();
    let Some(output) = as_nobody(home.path(), &["doctor", "--output", "json"]) else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = &lines(&output)[0];
    assert_eq!(report["can_run"], true);
    let capabilities =
        array(&report["findings"]).iter().find(|f| f["subject"] == "capabilities").unwrap();
    if is_root() {
        assert_eq!(capabilities["ok"], false);
        assert_eq!(capabilities["cost"], "no kernel events at all");
    }
    for finding in array(&report["findings"]) {
        let is_empty = |key: &str| finding[key].as_str().unwrap().is_empty();
        assert_eq!(finding["ok"], is_empty("cost"), "{finding}");
        assert_eq!(finding["ok"], is_empty("remedy"), "{finding}");
    }
}

#[test]
fn doctor_checks_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let config = dir.path().join("tapio.yaml");
    let doctor = |state_dir: &Path| {
        let yaml = format!("state_dir: {}\nadmin:\n  listen: {address}\n", state_dir.display());
        std::fs::write(&config, yaml).unwrap();
        Command::new(TAPIO)
            .args(["doctor", "--output", "json", "--config"])
            .arg(&config)
            .output()
            .unwrap()
    };
    let fine = doctor(&dir.path().join("state"));
    assert_eq!(fine.status.code(), Some(0), "{}", text(&fine.stderr));
    let report = &lines(&fine)[0];
    let of = |subject: &str| {
        let found = array(&report["findings"]).iter().find(|f| f["subject"] == subject);
        found.unwrap().clone()
    };
    assert_eq!(of("state_dir")["ok"], true);
    assert_eq!(of("admin.listen")["ok"], false);
    assert!(of("admin.listen")["state"].as_str().unwrap().contains("in use"));
    assert!(!dir.path().join("state").exists(), "the check changes nothing");
    let no_folder = doctor(&file);
    assert_eq!(no_folder.status.code(), Some(1));
    std::fs::write(&config, "nodee: a\n").unwrap();
    let broken = Command::new(TAPIO).args(["doctor", "--config"]).arg(&config).output().unwrap();
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken.stderr).contains("tapio.yaml:1:1: unknown field `nodee`"));
}

#[test]
fn tail_without_a_server_fails_with_the_address() {
    let output = Command::new(TAPIO).args(["tail", "--server", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("can't reach a server at 127.0.0.1:1"), "{stderr}");
}

#[test]
fn tail_prints_selected_events_as_they_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut config =
        AgentConfig { state_dir: Some(dir.path().join("state")), ..AgentConfig::default() };
    config.collectors.only = Some(vec!["jsonl".into()]);
    config.collectors.jsonl.paths = vec![path];
    config.collectors.jsonl.follow = true;
    config.server.data_dir = dir.path().join("data");
    config.server.grpc_listen.set_port(0);
    config.server.http_listen.set_port(0);
    config.admin.listen.set_port(0);
    let agent = Agent::start(config, true).unwrap();
    let server = agent.server().unwrap().grpc_addr.to_string();
    let mut tail = Command::new(TAPIO)
        .args(["tail", "--server", &server, "--kind", "*.b", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    let reader = std::thread::spawn(move || stdout.lines().next());
    let mut round = 0;
    while !reader.is_finished() && round < 400 {
        round += 1;
        for kind in ["test.a", "test.b"] {
            let line = serde_json::json!({
                "id": format!("{kind}-{round}"), "time": tapio_core::clock::wall_ns(), "kind": kind,
                "source": "test", "message": "hello",
            });
            writeln!(file, "{line}").unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Killed, so that the test also ends when tail prints nothing.
    tail.kill().unwrap();
    tail.wait().unwrap();
    let line = reader.join().unwrap().expect("tail prints an event").unwrap();
    let event: Json = serde_json::from_str(&line).unwrap();
    assert_eq!(event["kind"], "test.b");
    assert_eq!(event["message"], "hello");
    let account = agent.finish().account;
    assert!(account.holds() && account.total.held == 0, "{account:?}");
    assert_eq!(account.total.received, account.total.forwarded);
}
