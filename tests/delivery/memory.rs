//! A flood that would take several times as much memory as the limit allows.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value as Json;
use tapio::load::{LoadConfig, run};

use super::support::agent;
use super::support::net::{free_port, get_json};

use super::*;

const LIMIT_BYTES: u64 = 112 << 20;

/// Each event is in a story of its pod.
const RULE: &str = "rule: any-process
events: { a: { kind: kernel.process.exec } }
count: { event: a, by: [k8s.pod.uid], within: 10m, at_least: 1 }
story: { pattern: p }
";

/// Anonymous and shared memory of a process (proc(5)).
fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (field("RssAnon:") + field("RssShmem:")) * 1024
}

/// The largest memory, and the smallest bounds, until the flood has ended.
fn watch(pid: u32, admin: u16, ended: &AtomicBool) -> (u64, u64) {
    let (mut most, mut divisor) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..10 {
            most = most.max(memory_bytes(pid));
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = get_json(admin, "/status");
        let now = status.and_then(|status| status["memory"]["bounds_divisor"].as_u64());
        divisor = divisor.max(now.unwrap_or(0));
    }
    (most, divisor)
}

#[test]
fn memory_limit_holds_under_a_flood_of_stories() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, server, admin) = (free_address(), free_address(), free_port());
    let rules = dir.path().join("rules.yaml");
    std::fs::write(&rules, RULE).unwrap();
    let path = dir.path().join("agent.yaml");
    let yaml = format!(
        "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{admin}\" }}\n\
         memory_limit: {LIMIT_BYTES}\ndataflow: {{ shards: 1, rules: [{}] }}\n\
         collectors: {{ only: [receiver], receiver: {{ enabled: true, listen: \"{listen}\" }} }}\n\
         bridge: {{ endpoint: \"{server}\", reconnect_max: 50ms }}\n",
        dir.path().join("state").display(),
        rules.display(),
    );
    std::fs::write(&path, yaml).unwrap();
    let server = start(&dir.path().join("store"), server);
    let agent = agent::start_quiet(&["run", "--config", &path.display().to_string()]);
    eventually("the agent listens", || std::net::TcpStream::connect(listen).is_ok());
    let ended = Arc::new(AtomicBool::new(false));
    let sender = std::thread::spawn({
        let ended = Arc::clone(&ended);
        let config = LoadConfig {
            target: listen.to_string(),
            duration: Duration::from_secs(8),
            kinds: vec!["kernel.process.exec".into()],
            match_share: 1.0,
            keys: 4_000,
            ack_timeout: Duration::from_secs(120),
            ..LoadConfig::default()
        };
        move || {
            let report = run(&config, &Shutdown::default());
            ended.store(true, Ordering::Relaxed);
            report
        }
    });
    let (most, divisor) = watch(agent.id(), admin, &ended);
    let report = sender.join().unwrap().unwrap();
    assert!(most <= LIMIT_BYTES, "{most} bytes");
    assert!(divisor >= 16, "the bounds were never smaller: {divisor}");
    let mut status = Json::Null;
    eventually("the server has all events", || {
        status = get_json(admin, "/status").unwrap();
        status["cons1"]["total"]["forwarded"] == report.acked
    });
    assert_eq!(status["cons1"]["holds"], true, "{status}");
    assert_eq!(status["cons1"]["total"]["dropped"], serde_json::json!({}), "{status}");
    assert!(status["shards"][0]["join_keys_evicted"].as_u64() > Some(0), "{status}");
    agent::terminate(agent);
    drop(server);
}
