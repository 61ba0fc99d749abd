//! The agent as a process: valid and invalid input, reload, restart and shutdown.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "agent/bench.rs"]
mod bench;
#[path = "agent/calibrate.rs"]
mod calibrate;
#[path = "agent/connections.rs"]
mod connections;
#[path = "agent/debug.rs"]
mod debug;
#[path = "agent/deviation.rs"]
mod deviation;
#[path = "agent/disabled_rule.rs"]
mod disabled_rule;
#[path = "support/failing_rule.rs"]
mod failing_rule;
#[path = "agent/help_examples.rs"]
mod help_examples;
#[path = "agent/incidents.rs"]
mod incidents;
#[path = "agent/mcp.rs"]
mod mcp;
#[path = "agent/progress.rs"]
mod progress;
#[path = "agent/query_commands.rs"]
mod query_commands;
#[path = "agent/readiness.rs"]
mod readiness;
#[path = "agent/refusals.rs"]
mod refusals;
#[path = "agent/rights.rs"]
mod rights;
#[path = "agent/secrets.rs"]
mod secrets;
#[path = "agent/secrets_of_node.rs"]
mod secrets_of_node;
#[path = "agent/server.rs"]
mod server;
#[path = "agent/services.rs"]
mod services;
#[path = "agent/shell.rs"]
mod shell;
#[path = "agent/sigma.rs"]
mod sigma;
#[path = "agent/status.rs"]
mod status;
#[path = "support/mod.rs"]
mod support;
#[path = "agent/threads.rs"]
mod threads;
#[path = "agent/top.rs"]
mod top;

use std::path::Path;

use serde_json::{Value as Json, json};
use support::agent::{TestAgent, run, start, story, terminate, utf8};
use support::eventually::eventually_ok;
use support::net::items;

#[test]
fn running_agent_emits_a_recorded_story() {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let output = run(&["run", "--standalone", "--until-finished", "--config", &config]);
    let (out, err) = (utf8(&output.stdout), utf8(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.contains("nginx configuration error"), "{out}\n{err}");
    assert!(err.contains(r#""holds":true"#), "{err}");
    assert!(err.contains(r#""received":6,"forwarded":6"#), "{err}");
}

/// The output of `tapio explain` for a file's story, once the server has it: live and replayed
/// stories have the same id.
fn explain_from(fixture: &TestAgent, file: &Path) -> String {
    let replayed = run(&["replay", &file.display().to_string()]);
    let story: Json = serde_json::from_slice(&replayed.stdout).unwrap();
    let server = format!("127.0.0.1:{}", fixture.grpc);
    eventually_ok("the server has the story", || {
        let output = run(&["explain", story["id"].as_str().unwrap(), "--server", &server]);
        let is_found = output.status.success();
        if is_found { Ok(utf8(&output.stdout)) } else { Err(utf8(&output.stderr)) }
    })
}

#[test]
fn sigterm_drains_and_a_second_agent_is_refused() {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("pod-startup.jsonl"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    let status = fixture.wait(|s| s["cons1"]["total"]["forwarded"] == json!(5));
    assert_eq!(status["cons1"]["holds"], json!(true));
    assert_eq!(fixture.page("/readyz").unwrap().0, "HTTP/1.0 200 OK");
    let metrics = fixture.page("/metrics").unwrap().1;
    assert!(metrics.contains(r#"tapio_events_forwarded_total{collector="jsonl"} 5"#), "{metrics}");
    assert!(metrics.contains(r#"tapio_cons1_residual{collector="jsonl"} 0"#), "{metrics}");
    let assessor = &fixture.wait(|s| s["assessor"]["relations"].as_u64() > Some(3))["assessor"];
    assert!(assessor["facts"].as_u64() > Some(10), "{assessor}");
    let (head, _) = fixture.page("/suggested-rules").unwrap();
    assert_eq!(head, "HTTP/1.0 200 OK");
    let explained = explain_from(&fixture, &story("pod-startup.jsonl"));
    assert!(explained.contains("1. scheduled deployment"), "{explained}");
    assert!(explained.contains("named by the rule"), "{explained}");
    let second = run(&["run", "--config", &config]);
    assert_eq!(second.status.code(), Some(1));
    let stderr = utf8(&second.stderr);
    assert!(stderr.contains(&format!("another tapio agent (pid {})", agent.id())), "{stderr}");
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}

#[test]
fn agent_without_a_server_is_ready_and_accounts_for_every_event() {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("pod-startup.jsonl"));
    let agent = start(&["run", "--config", &config]);
    let status = fixture.wait(|s| s["cons1"]["total"]["held"] == json!(5));
    assert_eq!(status["cons1"]["holds"], json!(true));
    let (head, why) = fixture.page("/readyz").unwrap();
    assert!(head.contains("200"), "a rollout doesn't wait for the server: {head} {why}");
    let status = fixture.wait(|s| s["bridge"]["last_error"] != json!(""));
    assert_eq!(status["bridge"]["connected"], json!(false));
    let last_error = status["bridge"]["last_error"].as_str().unwrap();
    assert!(last_error.contains(&format!("127.0.0.1:{}", fixture.grpc)), "{last_error}");
    let output = terminate(agent);
    let stderr = utf8(&output.stderr);
    assert!(stderr.contains(r#""dropped":{},"held":5"#), "{stderr}");
    assert!(stderr.contains("the next start sends them events=5"), "{stderr}");
    assert!(output.status.success(), "{stderr}");
    let server = start(&["server", "--config", &config]);
    let agent = start(&["run", "--config", &fixture.config("jsonl", Path::new("/dev/null"))]);
    let status = fixture.wait(|s| s["cons1"]["total"]["forwarded"] == json!(5));
    assert_eq!(status["cons1"]["collectors"]["spool"]["received"], json!(5));
    terminate(agent);
    terminate(server);
}

#[test]
fn invalid_configuration_is_refused_with_line_and_column() {
    let fixture = TestAgent::new();
    for (yaml, expected) in [
        ("dataflow:\n  shard: 2\n", "wrong.yaml:2:3: unknown field `shard`"),
        ("collectors:\n  ebpf:\n    enabled: maybe\n", "wrong.yaml:3:14: "),
        ("collectors:\n  netflow: {}\n", "wrong.yaml:2:3: unknown field `netflow`"),
        ("bridge: { batch_bytes: 1 }\n", "bridge.batch_bytes: 1 isn't between"),
        ("admin: [\n", "wrong.yaml:"),
        ("log: { level: \"inof\" }\n", "wrong.yaml:1:15: log.level: \"inof\" isn't a level"),
        ("log:\n  level: info,tapio=debgu\n", "wrong.yaml:2:10: log.level: \"debgu\" isn't"),
    ] {
        let file = fixture.file("wrong.yaml", yaml);
        for verb in ["check", "run"] {
            let output = run(&[verb, "--config", &file]);
            assert_eq!(output.status.code(), Some(2), "{yaml}");
            assert!(utf8(&output.stderr).contains(expected), "{yaml}: {}", utf8(&output.stderr));
        }
    }
    let missing = run(&["check", "--config", "/nowhere/tapio.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(utf8(&missing.stderr).contains("/nowhere/tapio.yaml"));
}

#[test]
fn errors_in_arguments_and_rules_exit_with_2() {
    let fixture = TestAgent::new();
    let rule = fixture.file("r.yaml", "rule: x\nevents: { a: { kind: t.a } }\nsequnce: {}\n");
    let events = story("pod-startup.jsonl").display().to_string();
    let output = run(&["replay", &events, "--rules", &rule]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = utf8(&output.stderr);
    assert!(
        stderr.contains("r.yaml:3:1:") && stderr.contains("did you mean `sequence`"),
        "{stderr}"
    );
    assert_eq!(run(&["replay"]).status.code(), Some(2));
    assert_eq!(run(&["repaly"]).status.code(), Some(2));
    assert_eq!(run(&["replay", "/nowhere.jsonl"]).status.code(), Some(1));
    assert_eq!(run(&["load", "--rate", "0"]).status.code(), Some(2));
}

const COUNT: &str = "rule: r\nevents: { e: { kind: t.e } }\n\
    count: { event: e, within: 10s, at_least: 3 }\nstory: { pattern: p }\n";

#[test]
fn rules_are_reloaded_on_file_change_and_on_sighup() {
    let fixture = TestAgent::new();
    let rules = fixture.file("r.yaml", COUNT);
    let config = fixture.config("jsonl", &story("pod-startup.jsonl"));
    let with_rules = format!("dataflow: {{ rules: [\"{rules}\"], builtin_rules: false }}\n");
    let yaml = std::fs::read_to_string(&config).unwrap() + &with_rules;
    fixture.file("tapio.yaml", &yaml);
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| s["rules"] == json!(1));
    fixture.file("r.yaml", &format!("{COUNT}---\n{}", COUNT.replace("rule: r", "rule: s")));
    fixture.wait(|s| s["rules"] == json!(2) && s["reloads"]["applied"] == json!(1));
    fixture.file("r.yaml", &COUNT.replace("count:", "cuont:"));
    let status = fixture.wait(|s| s["reloads"]["refused"] == json!(1));
    assert_eq!(status["rules"], json!(2), "the old rules stay in force");
    let errors = status["reloads"]["last_error"].as_str().unwrap();
    assert!(
        errors.contains("r.yaml:3:1: unknown key in a rule `cuont`: did you mean `count`?"),
        "{errors}"
    );
    fixture.file("tapio.yaml", &yaml.replace("builtin_rules: false", "builtin_rules: true"));
    fixture.file("r.yaml", COUNT);
    fixture.wait(|s| s["rules"] == json!(1) && s["reloads"]["last_error"] == json!(""));
    let pid = rustix::process::Pid::from_raw(agent.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    fixture.wait(|s| s["rules"].as_u64() > Some(50));
    let metrics = fixture.page("/metrics").unwrap().1;
    assert!(metrics.contains(r#"tapio_rule_reloads_total{outcome="refused"} 1"#), "{metrics}");
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}

#[test]
fn story_interrupted_by_a_kill_is_completed_after_restart() {
    let fixture = TestAgent::new();
    let whole = story("nginx-cascade.jsonl");
    let lines = std::fs::read_to_string(&whole).unwrap();
    let (first, second): (Vec<&str>, Vec<&str>) = {
        let lines: Vec<&str> = lines.lines().collect();
        (lines[..3].to_vec(), lines[3..].to_vec())
    };
    // One of these isn't relevant to any rule.
    let part = fixture.file("part.jsonl", &(first.join("\n") + "\n"));
    let config = fixture.config("jsonl", Path::new(&part));
    let server = start(&["server", "--config", &config]);
    let mut agent = start(&["run", "--config", &config]);
    fixture.wait(|s| {
        s["cons1"]["total"]["forwarded"] == json!(3) && s["recovery_log"]["recorded"] == json!(2)
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
    fixture.file("part.jsonl", &(second.join("\n") + "\n"));
    let agent = start(&["run", "--config", &config]);
    let status = fixture.wait(|s| s["cons1"]["collectors"]["jsonl"]["forwarded"] == json!(3));
    assert_eq!(status["recovery_log"]["restored"], json!(2));
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let replayed = run(&["replay", &whole.display().to_string()]);
    // The failed unit has a story of its own, too, in the same trace.
    let stories = utf8(&replayed.stdout);
    let stories = stories.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let expected = stories.max_by_key(|story| story["members_total"].as_u64()).unwrap();
    let listed = items(fixture.http, "/api/v1/stories").unwrap();
    let stored = listed.iter().find(|s| s["id"] == expected["id"]).unwrap();
    for key in ["rule", "members", "members_total", "first", "last", "root_causes", "pattern"] {
        assert_eq!(stored[key], expected[key], "{key}");
    }
    terminate(server);
}

#[test]
fn unusable_recovery_log_does_not_stop_the_agent() {
    let fixture = TestAgent::new();
    // Not a folder.
    let path = fixture.file("recovery", "");
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let server = start(&["server", "--config", &config]);
    let agent = start(&["run", "--config", &config]);
    let status = fixture.wait(|s| s["cons1"]["collectors"]["jsonl"]["forwarded"] == json!(6));
    let log = &status["recovery_log"];
    assert_eq!(log["unavailable"], json!(1));
    let error = log["error"].as_str().unwrap();
    assert!(error.starts_with(&path) && error.contains("running without it"), "{error}");
    let (_, metrics) = fixture.page("/metrics").unwrap();
    assert!(metrics.contains("\ntapio_recovery_log_unavailable 1\n"), "{metrics}");
    let output = terminate(agent);
    let stderr = utf8(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("recovery log: ").count(), 1, "{stderr}");
    terminate(server);
}

#[test]
fn unusable_spool_is_refused_with_path_and_remedy() {
    let fixture = TestAgent::new();
    let path = fixture.file("spool", "");
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let output = run(&["run", "--config", &config]);
    let stderr = utf8(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains(&path) && stderr.contains("bridge.spool_bytes: 0"), "{stderr}");
}
