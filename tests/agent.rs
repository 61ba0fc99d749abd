//! The agent as a process: what it does with good and with bad input, and how it ends.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

#[path = "agent/place.rs"]
mod place;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use place::{Place, TAPIO, get, story, terminate, text};
use serde_json::{Value as Json, json};

fn run(arguments: &[&str]) -> Output {
    Command::new(TAPIO).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(TAPIO);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_recorded_story_comes_out_of_the_running_agent() {
    let place = Place::new();
    let config = place.config(false, &story("nginx-cascade.jsonl"));
    let output = run(&["run", "--standalone", "--until-finished", "--config", &config]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.contains("nginx configuration error"), "{out}\n{err}");
    assert!(err.contains(r#""holds":true"#), "{err}");
    assert!(err.contains(r#""received":6,"forwarded":6"#), "{err}");
}

/// What `tapio explain` says of a file's story once the server has it: its id is the one of replay.
fn explain_from(place: &Place, file: &Path) -> String {
    let replayed = run(&["replay", &file.display().to_string()]);
    let story: Json = serde_json::from_slice(&replayed.stdout).unwrap();
    let server = format!("127.0.0.1:{}", place.server);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let output = run(&["explain", story["id"].as_str().unwrap(), "--server", &server]);
        if output.status.success() {
            return text(&output.stdout);
        }
        assert!(Instant::now() < until, "{}", text(&output.stderr));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn sigterm_drains_and_a_second_agent_is_sent_away() {
    let place = Place::new();
    let config = place.config(false, &story("pod-startup.jsonl"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    let status = place.wait(|s| s["cons1"]["total"]["forwarded"] == json!(5));
    assert_eq!(status["cons1"]["holds"], json!(true));
    assert_eq!(place.page("/readyz").unwrap().0, "HTTP/1.0 200 OK");
    let metrics = place.page("/metrics").unwrap().1;
    assert!(metrics.contains(r#"tapio_events_forwarded_total{collector="jsonl"} 5"#), "{metrics}");
    assert!(metrics.contains(r#"tapio_cons1_residual{collector="jsonl"} 0"#), "{metrics}");
    let assessor = &place.wait(|s| s["assessor"]["edges"].as_u64() > Some(3))["assessor"];
    assert!(assessor["facts"].as_u64() > Some(10), "{assessor}");
    let (head, _) = place.page("/suggested-rules").unwrap();
    assert_eq!(head, "HTTP/1.0 200 OK");
    let explained = explain_from(&place, &story("pod-startup.jsonl"));
    assert!(explained.contains("1. scheduled deployment"), "{explained}");
    assert!(explained.contains("named by the rule"), "{explained}");
    let second = run(&["run", "--config", &config]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains(&format!("another tapio agent (pid {})", agent.id())), "{said}");
    let output = terminate(agent);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn without_a_server_the_agent_says_so_and_accounts_for_everything() {
    let place = Place::new();
    let config = place.config(false, &story("pod-startup.jsonl"));
    let agent = start(&["run", "--config", &config]);
    let status = place.wait(|s| s["cons1"]["total"]["held"] == json!(5));
    assert_eq!(status["cons1"]["holds"], json!(true));
    let (head, why) = place.page("/readyz").unwrap();
    assert!(head.contains("503") && why.contains("isn't connected"), "{head} {why}");
    let output = terminate(agent);
    let said = text(&output.stderr);
    assert!(said.contains(r#""dropped":{"bridge/shutdown":5}"#), "{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let place = Place::new();
    for (yaml, expected) in [
        ("dataflow:\n  shard: 2\n", "wrong.yaml:2:3: unknown field `shard`"),
        ("collectors:\n  ebpf:\n    enabled: maybe\n", "wrong.yaml:3:14: "),
        ("collectors:\n  netflow: {}\n", "wrong.yaml:2:3: unknown field `netflow`"),
        ("bridge: { batch_bytes: 1 }\n", "bridge.batch_bytes: 1 isn't between"),
        ("admin: [\n", "wrong.yaml:"),
    ] {
        let file = place.file("wrong.yaml", yaml);
        for verb in ["check", "run"] {
            let output = run(&[verb, "--config", &file]);
            assert_eq!(output.status.code(), Some(2), "{yaml}");
            assert!(text(&output.stderr).contains(expected), "{yaml}: {}", text(&output.stderr));
        }
    }
    let missing = run(&["check", "--config", "/nowhere/tapio.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/nowhere/tapio.yaml"));
}

#[test]
fn mistakes_on_the_command_line_and_in_rules_exit_with_2() {
    let place = Place::new();
    let rule = place.file("r.yaml", "rule: x\nevents: { a: { kind: t.a } }\nsequnce: {}\n");
    let events = story("pod-startup.jsonl").display().to_string();
    let output = run(&["replay", &events, "--rules", &rule]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("r.yaml:3:1:") && said.contains("did you mean `sequence`"), "{said}");
    assert_eq!(run(&["replay"]).status.code(), Some(2));
    assert_eq!(run(&["repaly"]).status.code(), Some(2));
    assert_eq!(run(&["replay", "/nowhere.jsonl"]).status.code(), Some(1));
    assert_eq!(run(&["load", "--rate", "0"]).status.code(), Some(2));
}

const COUNT: &str = "rule: r\nevents: { e: { kind: t.e } }\n\
    count: { event: e, within: 10s, at_least: 3 }\nstory: { pattern: p }\n";

#[test]
fn rules_are_reloaded_when_their_files_change_and_when_asked_to() {
    let place = Place::new();
    let rules = place.file("r.yaml", COUNT);
    let config = place.config(false, &story("pod-startup.jsonl"));
    let with_rules = format!("dataflow: {{ rules: [\"{rules}\"], builtin_rules: false }}\n");
    let yaml = std::fs::read_to_string(&config).unwrap() + &with_rules;
    place.file("tapio.yaml", &yaml);
    let agent = start(&["run", "--standalone", "--config", &config]);
    place.wait(|s| s["rules"] == json!(1));
    place.file("r.yaml", &format!("{COUNT}---\n{}", COUNT.replace("rule: r", "rule: s")));
    place.wait(|s| s["rules"] == json!(2) && s["reloads"]["done"] == json!(1));
    place.file("r.yaml", &COUNT.replace("count:", "cuont:"));
    let status = place.wait(|s| s["reloads"]["refused"] == json!(1));
    assert_eq!(status["rules"], json!(2), "the old rules stay in force");
    let said = status["reloads"]["last_error"].as_str().unwrap();
    assert!(
        said.contains("r.yaml:3:1: unknown key in a rule `cuont`: did you mean `count`?"),
        "{said}"
    );
    place.file("tapio.yaml", &yaml.replace("builtin_rules: false", "builtin_rules: true"));
    place.file("r.yaml", COUNT);
    place.wait(|s| s["rules"] == json!(1) && s["reloads"]["last_error"] == json!(""));
    let pid = rustix::process::Pid::from_raw(agent.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    place.wait(|s| s["rules"].as_u64() > Some(50));
    let metrics = place.page("/metrics").unwrap().1;
    assert!(metrics.contains(r#"tapio_rule_reloads_total{outcome="refused"} 1"#), "{metrics}");
    let output = terminate(agent);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_story_that_an_agent_was_killed_in_is_told_to_its_end_by_the_next_one() {
    let place = Place::new();
    let whole = story("nginx-cascade.jsonl");
    let lines = std::fs::read_to_string(&whole).unwrap();
    let (first, second): (Vec<&str>, Vec<&str>) = {
        let lines: Vec<&str> = lines.lines().collect();
        (lines[..3].to_vec(), lines[3..].to_vec())
    };
    // Of these, one is of no use to any rule.
    let part = place.file("part.jsonl", &(first.join("\n") + "\n"));
    let config = place.config(false, Path::new(&part));
    let server = start(&["server", "--config", &config]);
    let mut agent = start(&["run", "--config", &config]);
    place.wait(|s| {
        s["cons1"]["total"]["forwarded"] == json!(3) && s["recovery_log"]["recorded"] == json!(2)
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
    place.file("part.jsonl", &(second.join("\n") + "\n"));
    let agent = start(&["run", "--config", &config]);
    let status = place.wait(|s| s["cons1"]["total"]["forwarded"] == json!(3));
    assert_eq!(status["recovery_log"]["restored"], json!(2));
    let output = terminate(agent);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let replayed = run(&["replay", &whole.display().to_string()]);
    let expected: Json = serde_json::from_slice(&replayed.stdout).unwrap();
    let (_, body) = get(place.pages, "/api/v1/stories").unwrap();
    let listed: Json = serde_json::from_str(&body).unwrap();
    let listed = listed.as_array().or_else(|| listed["stories"].as_array()).unwrap();
    let told = listed.iter().find(|g| g["id"] == expected["id"]).unwrap();
    for key in ["rule", "members", "members_total", "first", "last", "root_cause", "pattern"] {
        assert_eq!(told[key], expected[key], "{key}");
    }
    terminate(server);
}
