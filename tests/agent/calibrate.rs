//! Calibration of the evidence by what operators marked, and weights of the configuration.

use std::process::Command;

use serde_json::Value as Json;

use super::query_commands::TestServer;
use super::support::agent::{TAPIO, TestAgent, story, utf8};

const RECORDINGS: [&str; 2] = ["nginx-cascade.jsonl", "other-words.jsonl"];

/// The stories with several candidates, of which the ranker has terms.
fn candidates(server: &TestServer) -> Vec<Json> {
    let mut stories = server.items(&["stories", "-n", "all"]);
    stories.retain(|story| story["root_causes"].as_array().unwrap().len() > 1);
    stories
}

fn calibrated(server: &TestServer, arguments: &[&str]) -> Json {
    let output = server.run(&[&["evidence", "calibrate", "-o", "json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", utf8(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn marked_stories_are_labels() {
    let server = TestServer::with_recordings(&RECORDINGS);
    assert!(utf8(&server.run(&["evidence", "calibrate"]).stdout).contains("nothing to fit"));
    let stories = candidates(&server);
    assert!(stories.len() >= 3, "{}", stories.len());
    let id = |at: usize| stories[at]["id"].as_str().unwrap();
    let second = stories[1]["root_causes"][1]["cause"].as_str().unwrap();
    for arguments in [
        &["annotate", id(0), "--right-cause"][..],
        &["annotate", id(1), "--wrong-cause", second],
        &["annotate", id(2), "--wrong-cause", "somebody pulled the plug"],
    ] {
        let output = server.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", utf8(&output.stderr));
    }
    let found = calibrated(&server, &[]);
    assert_eq!(found["labelled"]["right"], 1, "{found}");
    assert_eq!(found["labelled"]["wrong_named"], 1, "{found}");
    assert_eq!(found["labelled"]["wrong_unnamed"], 1, "{found}");
    assert_eq!(found["causes_first"]["of"], 2, "{found}");
    assert_eq!(found["causes_first"]["in_use"], 1, "the wrong one was first: {found}");
    assert_eq!(found["is_enough"], false);
    assert_eq!(found["terms"][0]["in_use"], 0.4);
    let text = utf8(&server.run(&["evidence", "calibrate"]).stdout);
    assert!(text.contains("too few") && text.contains("edge gap"), "{text}");

    // The same offline, from what `tapio stories` exports.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stories.jsonl");
    let exported = server.run(&["stories", "-n", "all", "-o", "jsonl"]);
    std::fs::write(&file, exported.stdout).unwrap();
    let offline = calibrated(&server, &["--file", file.to_str().unwrap()]);
    assert_eq!(offline["terms"].as_array().unwrap().len(), 8);
    for part in ["labelled", "causes_first", "wrong_not_first"] {
        assert_eq!(offline[part], found[part], "{part}");
    }
    // Nothing was marked before.
    let before = calibrated(&server, &["--until", "2020-01-01"]);
    assert_eq!(before["labelled"]["right"], 0, "{before}");
    std::fs::write(&file, "{\"id\": 1}").unwrap();
    let refused = server.run(&["evidence", "calibrate", "--file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(utf8(&refused.stderr).contains("item 1 isn't a story"), "{}", utf8(&refused.stderr));
}

/// Has an agent with these weights send a recording; returns the story of a unit's failure.
fn ranked(weights: &str) -> Json {
    let server = TestServer::start();
    let text = std::fs::read_to_string(server.config()).unwrap();
    let text = text.replace("/dev/null", &story("other-words.jsonl").display().to_string());
    let fixture = TestAgent::new();
    let config =
        fixture.file("weights.yaml", &format!("{text}evidence: {{ weights: {weights} }}\n"));
    let output = Command::new(TAPIO)
        .args(["run", "--until-finished", "--config", &config])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let in_use = calibrated(&server, &["--config", &config]);
    let stories = server.items(&["stories", "-n", "all", "--pattern", "unit-failure"]);
    let of_unit = |story: &&Json| story["name"].as_str().unwrap().contains("old.service");
    let found = stories.iter().find(of_unit).unwrap();
    // Each term is its evidence, multiplied by the weight in use; the score is their sum.
    for candidate in found["root_causes"].as_array().unwrap() {
        let terms = candidate["terms"].as_array().unwrap();
        let sum: f64 = terms.iter().map(|term| term["weight"].as_f64().unwrap()).sum();
        assert!((candidate["score"].as_f64().unwrap() - sum).abs() < 1e-3, "{candidate}");
        for term in terms {
            let all = in_use["terms"].as_array().unwrap();
            let weight = all.iter().find(|one| one["term"] == term["name"]).unwrap();
            let product =
                weight["in_use"].as_f64().unwrap() * term["value"].as_f64().unwrap_or(0.0);
            assert!((product - term["weight"].as_f64().unwrap()).abs() < 1e-2, "{term}");
        }
    }
    let id = found["id"].as_str().unwrap();
    let explained = utf8(&server.run(&["explain", id]).stdout);
    let first = found["root_causes"][0]["cause"].as_str().unwrap();
    assert!(explained.contains(&format!("1. {first}")), "{explained}");
    found.clone()
}

#[test]
fn weights_of_the_configuration_order_the_causes() {
    let causes = |weights: &str| -> Vec<String> {
        let story = ranked(weights);
        let causes = story["root_causes"].as_array().unwrap().iter();
        causes.map(|one| one["cause"].as_str().unwrap().to_owned()).collect()
    };
    let (usual, other) = (causes("{}"), causes("{ rule: 0, edge_gap: 5 }"));
    assert!(usual.len() > 1);
    assert_eq!(usual[0], other[1], "{usual:?} {other:?}");
    assert_ne!(usual[0], other[0], "{usual:?} {other:?}");
}

#[test]
fn invalid_weights_are_refused_with_their_place() {
    let fixture = TestAgent::new();
    for (weights, cause) in [
        ("{ deviation: -0.1 }", "evidence.weights.deviation: must be from 0 to 10"),
        ("{ edge_gap: 10.5 }", "evidence.weights.edge_gap: must be from 0 to 10"),
        ("{ onset: .nan }", "evidence.weights.onset: must be from 0 to 10"),
        ("{ luck: 1 }", "luck"),
        ("{ rule: much }", "1:"),
    ] {
        let config = fixture.file("bad.yaml", &format!("evidence: {{ weights: {weights} }}\n"));
        let output = Command::new(TAPIO)
            .args(["check", "--no-environment", "--config", &config])
            .output()
            .unwrap();
        let error = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{weights}: {error}");
        assert!(error.contains("bad.yaml:1:") && error.contains(cause), "{weights}: {error}");
    }
}
