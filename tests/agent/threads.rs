//! The CPUs of the agent's threads, as the kernel reports them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;

use tapio_core::cpu::{CpuSet, Machine};

use super::support::agent::{TestAgent, run, start, terminate, utf8};

/// The threads of a process, each with the CPUs that it may use.
fn threads(process: &Child) -> Vec<(String, CpuSet)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let read = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        Some((field("Name:").trim().to_owned(), field("Cpus_allowed_list:").parse().unwrap()))
    };
    tasks.filter_map(read).collect()
}

/// Starts an agent with this section `threads` and collectors that run everywhere.
fn start_with(fixture: &TestAgent, section: &str) -> Child {
    let config = fixture.config("jsonl, node, receiver", Path::new("/dev/null"));
    let text = std::fs::read_to_string(&config).unwrap();
    let text =
        text.replace("jsonl: {", "receiver: { enabled: true, listen: \"127.0.0.1:0\" }, jsonl: {");
    std::fs::write(&config, format!("{text}threads: {section}\n")).unwrap();
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|status| {
        status["collectors"].as_object().is_some_and(|all| all.len() == 3)
            && status["unready"].as_array().is_some_and(Vec::is_empty)
    });
    agent
}

#[test]
fn busy_threads_are_pinned_and_others_are_not() {
    let fixture = TestAgent::new();
    let all = Machine::of_process().cpus();
    let agent = start_with(&fixture, "{ pin: always, numa_node: any }");
    let status = fixture.status().unwrap();
    let found = threads(&agent);
    let log = utf8(&terminate(agent).stderr);
    let pinned = status["threads"]["pinned"].as_object().unwrap();
    if all.len() == 1 {
        assert!(pinned.is_empty());
        return;
    }
    assert!(pinned.contains_key("shard:0"), "{status:#}");
    for busy in ["bridge", "c:receiver"] {
        assert!(pinned.contains_key(busy), "{status:#}");
    }
    let cpus: BTreeSet<&str> = pinned.values().map(|cpu| cpu.as_str().unwrap()).collect();
    assert_eq!(cpus.len(), pinned.len().min(all.len()), "{pinned:?}");
    let shared: CpuSet = status["threads"]["shared_cpus"].as_str().unwrap().parse().unwrap();
    for (name, cpus) in &found {
        match pinned.get(name) {
            Some(cpu) => {
                assert_eq!((cpus.len(), &cpus.to_string()), (1, &cpu.as_str().unwrap().into()))
            }
            None => assert_eq!(*cpus, shared, "{name}"),
        }
    }
    for quiet in ["c:node", "assessor", "recorder", "admin"] {
        assert!(found.iter().any(|(name, _)| name == quiet), "{quiet}: {found:?}");
    }
    assert!(log.contains("threads: shard:0 on CPU "), "{log}");
}

#[test]
fn all_threads_stay_on_the_configured_cpus() {
    let fixture = TestAgent::new();
    let last = Machine::of_process().cpus().iter().last().unwrap();
    let agent = start_with(&fixture, &format!("{{ pin: never, cpus: {last} }}"));
    let status = fixture.status().unwrap();
    let found = threads(&agent);
    terminate(agent);
    assert_eq!(status["threads"]["shared_cpus"], last.to_string());
    assert_eq!(status["threads"]["not_pinned"], "threads.pin is never");
    assert!(found.len() > 10, "{found:?}");
    for (name, cpus) in found {
        assert_eq!(cpus.to_string(), last.to_string(), "{name}");
    }
}

#[test]
fn check_prints_the_layout_and_refuses_foreign_cpus() {
    let fixture = TestAgent::new();
    let file = fixture.file("t.yaml", "threads: { pin: never }\n");
    let output = run(&["check", "--config", &file, "--no-environment"]);
    assert!(output.status.success());
    let out = utf8(&output.stdout);
    assert!(out.contains("t.yaml: threads: not pinned: threads.pin is never\n"), "{out}");
    let allowed = Machine::of_process().cpus();
    let file = fixture.file("t.yaml", "threads:\n  cpus: \"1023\"\n");
    let output = run(&["check", "--config", &file]);
    assert_eq!(output.status.code(), Some(2));
    let expected =
        format!("t.yaml:2:3: threads.cpus: 1023: this process may use the CPUs {allowed}");
    let err = utf8(&output.stderr);
    assert!(err.contains(&expected), "{err}");
}
