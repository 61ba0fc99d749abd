//! Reports of the agent about itself: sources that are open, losses, a full disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;

use super::support::agent::{TestAgent, start, story, terminate, utf8};
use super::support::eventually::{eventually, eventually_ok};
use super::support::net::items;
use super::support::skip::skipped;

/// Waits until the agent is ready or says that it never will be.
fn wait_until_ready(fixture: &TestAgent) {
    eventually_ok("the agent is ready", || match fixture.page("/readyz") {
        Some((head, _)) if head.contains("200") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn crash_right_after_the_agent_is_ready_is_seen() {
    let fixture = TestAgent::new();
    let config = fixture.config("ebpf", Path::new("/dev/null"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    let status = fixture.wait(|s| s["collectors"]["ebpf"]["health"] != "starting");
    if status["collectors"]["ebpf"]["health"] == "unavailable" {
        terminate(agent);
        return skipped("eBPF isn't available");
    }
    wait_until_ready(&fixture);
    let mut child = Command::new("/bin/sh").args(["-c", "kill -SEGV $$"]).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    // Other tests start thousands of processes meanwhile.
    let path = format!("/api/v1/events?kind=kernel.process.exit&entity=process.pid={pid}");
    eventually_ok("the crash is stored", || {
        let events = items(fixture.http, &path).unwrap_or_default();
        let is_crash = |event: &Json| event["attributes"]["tapio.signal.name"] == "SIGSEGV";
        if events.iter().any(is_crash) { Ok(()) } else { Err(events.len()) }
    });
    // The main thread looks whether the sources are open, and writes the line, a little later.
    std::thread::sleep(Duration::from_secs(1));
    let log = utf8(&terminate(agent).stderr);
    assert!(log.contains("watching: the sources of these collectors are open"), "{log}");
}

#[test]
fn losses_are_logged_and_make_the_state_degraded() {
    let fixture = TestAgent::new();
    let lines = fixture.file("events.jsonl", "no event\nnor this\n");
    let config = fixture.config("jsonl", Path::new(&lines));
    let agent = start(&["run", "--standalone", "--config", &config]);
    // Until its source is open, the state is degraded as well.
    let status = fixture.wait(|s| s["state"] == "degraded" && s["degraded"][0].is_string());
    assert_eq!(status["degraded"][0], "jsonl collect/bad_input: 2 since the start");
    assert_eq!(status["unready"], Json::Array(Vec::new()), "it does its work");
    let log = utf8(&terminate(agent).stderr);
    assert!(log.contains("jsonl collect/bad_input: 2"), "{log}");
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("pod-startup.jsonl"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| s["state"] == "ok" && s["cons1"]["total"]["forwarded"] == 5);
    terminate(agent);
}

/// A file system of 256 KiB, unmounted with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where that needs rights which the test doesn't have.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(folder.path());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            skipped("mounting a file system needs root");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// The configuration of an agent that reads so many events of 8 KB: its file and its text.
fn large_events(fixture: &TestAgent, number: u64) -> (String, String) {
    let message = "m".repeat(8_000);
    let line =
        |n: u64| format!("{{\"time\":{},\"kind\":\"a.b\",\"message\":\"{n}{message}\"}}\n", n + 1);
    let lines = fixture.file("events.jsonl", &(0..number).map(line).collect::<String>());
    let config = fixture.config("jsonl", Path::new(&lines));
    let text = std::fs::read_to_string(&config).unwrap();
    (config, text)
}

/// With nowhere to put its events a shard waits; it doesn't poll without a pause.
#[test]
fn blocked_shard_rests() {
    let fixture = TestAgent::new();
    let Some(disk) = SmallDisk::mount() else { return };
    let (config, text) = large_events(&fixture, 4_000);
    let (_, rest) = text.split_once('\n').unwrap();
    let own = format!("state_dir: {}\ndataflow: {{ buffer_size: 100 }}\n", disk.0.path().display());
    std::fs::write(&config, own + rest).unwrap();
    // No server: the spool fills up.
    let agent = start(&["run", "--config", &config]);
    let unready = |s: &Json| s["unready"].to_string().contains("refuses writes");
    let rounds = |s: &Json| s["shards"][0]["rounds"].as_u64().unwrap();
    let forwarded = |s: &Json| s["cons1"]["total"]["forwarded"].as_u64().unwrap();
    let mut before = fixture.wait(unready);
    eventually("events are blocked", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = fixture.status().unwrap();
        let is_blocked = forwarded(&now) == forwarded(&before);
        let polled = rounds(&now) - rounds(&before);
        before = now;
        is_blocked && polled < 20_000
    });
    assert!(forwarded(&before) < 4_000, "{before}");
    terminate(agent);
}

/// More stories wait for room than the assessor holds; the agent ends all the same.
#[test]
fn agent_without_room_for_stories_ends() {
    let fixture = TestAgent::new();
    let Some(disk) = SmallDisk::mount() else { return };
    let line = |n: u64| {
        format!(
            "{{\"time\":{},\"kind\":\"k8s.pod.oom_killed\",\"entity\":\
             {{\"k8s.pod.uid\":\"u{n}\",\"k8s.pod.name\":\"p{n}\"}}}}\n",
            1_768_471_200_000_000_000 + n * 1_000
        )
    };
    let lines = fixture.file("events.jsonl", &(0..60_000).map(line).collect::<String>());
    let config = fixture.config("jsonl", Path::new(&lines));
    let text = std::fs::read_to_string(&config).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&config, format!("state_dir: {}\n{rest}", disk.0.path().display())).unwrap();
    let mut agent = start(&["run", "--config", &config]);
    let forwarded = |s: &Json| s["cons1"]["total"]["forwarded"].as_u64();
    let mut before = fixture.wait(|s| s["unready"].to_string().contains("refuses writes"));
    eventually("events are blocked", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = fixture.status().unwrap();
        let is_blocked = forwarded(&now) == forwarded(&before);
        before = now;
        is_blocked
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&agent),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    eventually("the agent ends", || agent.try_wait().unwrap().is_some());
}

#[test]
fn full_store_of_a_standalone_agent_is_reported() {
    let fixture = TestAgent::new();
    let Some(disk) = SmallDisk::mount() else { return };
    let (config, text) = large_events(&fixture, 400);
    let folder = format!("server: {{ data_dir: {}, ", disk.0.path().display());
    std::fs::write(&config, text.replace("server: {", &folder)).unwrap();
    let agent = start(&["run", "--standalone", "--config", &config]);
    let is_reported = |s: &Json| {
        let unready = s["unready"].as_array().cloned().unwrap_or_default();
        s["state"] == "degraded" && unready.iter().any(|t| t.to_string().contains("refuses writes"))
    };
    fixture.wait(is_reported);
    let (head, body) = fixture.page("/readyz").unwrap();
    assert!(head.contains("503"), "{head}");
    assert!(body.contains("embedded server: storage: the disk refuses writes"), "{body}");
    let log = utf8(&terminate(agent).stderr);
    assert!(log.contains("can't store a batch"), "{log}");
}
