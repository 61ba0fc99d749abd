//! One event for one fact: what the kernel collector and the kernel's log both report counts once.

use serde_json::Value as Json;

use super::losses::LoopDevice;
use super::support::agent::{TAPIO, TestAgent, start_quiet, terminate};
use super::support::eventually::eventually_ok;
use super::support::net::items;
use super::*;

/// An agent that observes the kernel by both ways.
struct Observer {
    fixture: TestAgent,
    agent: std::process::Child,
}

impl Observer {
    fn start() -> Self {
        let fixture = TestAgent::new();
        let config = fixture.config("ebpf, kmsg", std::path::Path::new("/dev/null"));
        let agent = start_quiet(&["run", "--standalone", "--config", &config]);
        fixture.wait(|_| fixture.page("/readyz").is_some_and(|(head, _)| head.contains("200")));
        Self { fixture, agent }
    }

    fn list(&self, query: &str) -> Vec<Json> {
        items(self.fixture.http, &format!("/api/v1/{query}")).unwrap_or_default()
    }

    /// The lines of the kernel's log that have these words, once there are so many.
    fn lines(&self, words: &str, count: usize) -> Vec<Json> {
        eventually_ok("the lines of the kernel's log", || {
            let mut lines = self.list("events?kind=kernel.log&limit=1000");
            lines.retain(|line| line["message"].as_str().is_some_and(|m| m.contains(words)));
            if lines.len() >= count { Ok(lines) } else { Err(Json::from(lines)) }
        })
    }

    /// The only story of this pattern with these words in its first root cause, once it has so many
    /// members.
    fn story(&self, pattern: &str, words: &str, members: u64) -> Json {
        let found = || {
            let mut stories = self.list("stories?limit=1000");
            let is_named = |s: &Json| s["root_causes"][0]["cause"].to_string().contains(words);
            stories.retain(|s| s["pattern"] == pattern && is_named(s));
            stories
        };
        eventually_ok("the story", || {
            let stories = found();
            let is_complete = |s: &Json| s["members_total"].as_u64() >= Some(members);
            if stories.iter().any(is_complete) { Ok(()) } else { Err(Json::from(stories)) }
        });
        // What comes late, such as the log's line, may not add to it.
        std::thread::sleep(Duration::from_secs(2));
        let stories = found();
        assert_eq!(stories.len(), 1, "{stories:#?}");
        stories[0].clone()
    }

    fn event(&self, id: &str) -> Json {
        let kernel = ["process.signal", "process.oom_kill", "block.error"];
        let of = |kind| self.list(&format!("events?limit=1000&kind=kernel.{kind}"));
        let events = kernel.into_iter().flat_map(of);
        events.into_iter().find(|e| e["id"] == id).unwrap_or_default()
    }
}

#[test]
fn crash_that_the_kernel_logs_counts_once() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = format!("crash{}", std::process::id());
    let program = folder.path().join(&name);
    std::os::unix::fs::symlink(TAPIO, &program).unwrap();
    let observer = Observer::start();
    const CRASHES: u64 = 3;
    for _ in 0..CRASHES {
        let mut command = Command::new(&program);
        let status = command.args(["demo-fault", "segfault"]).stderr(Stdio::null()).status();
        assert_eq!(status.unwrap().signal(), Some(11));
    }
    // The kernel logs a few crashes in five seconds, and perhaps others' instead of these.
    let lines = observer.lines(&format!("{name}["), 1);
    let story = observer.story("segfault", &name, CRASHES);
    assert_eq!(story["members_total"], CRASHES, "{story:#}");
    for line in &lines {
        let first = line["attributes"]["tapio.repeats"].as_str().unwrap_or_default();
        let event = observer.event(first);
        assert_eq!(event["kind"], "kernel.process.signal", "{line}");
        assert_eq!(event["entity"]["process.pid"], line["entity"]["process.pid"], "{line}");
    }
    assert!(terminate(observer.agent).status.success());
}

#[test]
fn oom_kill_that_the_kernel_logs_counts_once() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let Some(cgroup) = TestCgroup::limited("fact", 16 << 20) else { return };
    let observer = Observer::start();
    let mut child = cgroup.shell("exec tail /dev/zero").spawn().unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let lines = observer.lines(&format!("Killed process {pid} "), 1);
    let lines = [lines, observer.lines(&format!(",pid={pid},"), 1)].concat();
    // The kill and the exit.
    let story = observer.story("oom-kill", &format!("pid {pid}"), 2);
    assert_eq!(story["members_total"], 2, "{story:#}");
    for line in lines {
        let first = line["attributes"]["tapio.repeats"].as_str().unwrap_or_default();
        assert_eq!(observer.event(first)["kind"], "kernel.process.oom_kill", "{line}");
    }
    assert!(terminate(observer.agent).status.success());
}

#[test]
fn failed_request_that_the_kernel_logs_counts_once() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let Some(disk) = LoopDevice::new("4m") else { return };
    let name = disk.device.trim_start_matches("/dev/").to_owned();
    let observer = Observer::start();
    assert!(!disk.write(8), "the write exceeds the capacity");
    for line in observer.lines(&format!("error, dev {name}, sector "), 1) {
        let first = line["attributes"]["tapio.repeats"].as_str().unwrap_or_default();
        let event = observer.event(first);
        assert_eq!(event["kind"], "kernel.block.error", "{line}");
        assert_eq!(event["attributes"]["tapio.block.device"], name.as_str(), "{line}");
        let sector = format!("sector {} ", event["attributes"]["tapio.block.sector"]);
        assert!(line["message"].as_str().unwrap().contains(&sector), "{line}\n{event}");
    }
    assert!(terminate(observer.agent).status.success());
}
