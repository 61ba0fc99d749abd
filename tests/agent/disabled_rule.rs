//! An agent in which a rule panics: every event reaches the server, the rule is disabled and
//! reported, and a reload enables it again.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tapio::runtime::{Agent, Config};
use tapio_core::ring::Router;
use tapio_dataflow::rules::{LiveRules, Rule};

use crate::failing_rule::good_and_failing_rule;
use crate::support::agent::TestAgent;

const EVENTS: usize = 2_000;

/// Every other event makes the rule fail.
fn lines() -> String {
    let line = |n: usize| {
        let attributes = json!({ "k": format!("k{}", n % 50), "fails": n % 2 == 1 });
        json!({ "kind": "t.e", "time": 1_700_000_000_000_000_000 + n as u64, "attributes": attributes })
            .to_string()
            + "\n"
    };
    (0..EVENTS).map(line).collect()
}

/// Starts an agent in which these rules have replaced those of the configuration.
fn start(fixture: &TestAgent, shards: usize, rules: Vec<Rule>) -> Agent {
    let file = fixture.file("events.jsonl", &lines());
    let yaml = std::fs::read_to_string(fixture.config("jsonl", Path::new(&file))).unwrap();
    let own = fixture.file("own.yaml", super::COUNT);
    let dataflow = format!("{{ rules: [\"{own}\"], builtin_rules: false, shards: {shards} }}");
    let config = fixture.file("tapio.yaml", &format!("{yaml}dataflow: {dataflow}\n"));
    let config = Config::read(Path::new(&config)).unwrap();
    let rows = config.collectors.rows();
    let replace = |live: Arc<LiveRules>, _: Option<&_>| -> Arc<dyn Router> {
        live.replace(rules);
        live
    };
    Agent::start_with(config, true, rows, replace).unwrap()
}

/// The status once all events are stored: none is lost, and CONS-1 holds.
fn stored(fixture: &TestAgent) -> Json {
    let status = fixture.wait(|s| s["cons1"]["total"]["forwarded"] == json!(EVENTS));
    assert_eq!(status["cons1"]["holds"], json!(true));
    assert_eq!(status["cons1"]["total"]["dropped"], json!({}));
    status
}

/// The sum of a counter over the shards.
fn sum(status: &Json, name: &str) -> u64 {
    let shards = status["shards"].as_array().unwrap();
    shards.iter().filter_map(|shard| shard[name].as_u64()).sum()
}

#[test]
fn failing_rule_is_disabled_and_every_event_is_forwarded() {
    let fixture = TestAgent::new();
    let mut agent = start(&fixture, 2, good_and_failing_rule());
    stored(&fixture);
    let status = fixture.wait(|s| s["rule_failures"][0]["disabled"] != Json::Null);
    let failure = &status["rule_failures"][0];
    assert_eq!((&failure["rule"], &failure["origin"]), (&json!("bad"), &json!("r.yaml:1")));
    let cause = failure["cause"].as_str().unwrap();
    assert!(cause.contains("index is 7") && cause.contains("measure.rs:"), "{cause}");
    assert_eq!((&status["rules"], &status["rule_failures"][1]), (&json!(1), &Json::Null));
    assert!(sum(&status, "correlation_failures") >= 3, "{status:#}");
    assert!(sum(&status, "rule_matches") >= EVENTS as u64, "the other rule goes on: {status:#}");
    let metrics = fixture.page("/metrics").unwrap().1;
    assert!(metrics.contains("\ntapio_rules_disabled 1\n"), "{metrics}");
    let config = fixture.file("unused", "").replace("unused", "tapio.yaml");
    let config = Config::read(Path::new(&config)).unwrap();
    assert!(agent.reload(&config, &mut config.clone()).is_empty());
    let status = fixture.wait(|s| s["reloads"]["applied"] == json!(1));
    assert_eq!(status["rule_failures"], json!([]));
    assert!(agent.finish().account.holds());
}

/// No event can be planned for, so all evaluations panic outside of the rules' shapes.
#[test]
fn events_are_forwarded_raw_where_nothing_can_be_evaluated() {
    let fixture = TestAgent::new();
    let mut rules = good_and_failing_rule();
    for rule in &mut rules {
        rule.events.clear();
    }
    let agent = start(&fixture, 1, rules);
    stored(&fixture);
    let status = fixture.wait(|s| sum(s, "correlation_failures") == EVENTS as u64);
    let failure = &status["rule_failures"][0];
    assert_eq!((&failure["rule"], &failure["disabled"]), (&Json::Null, &Json::Null));
    assert!(failure["cause"].as_str().unwrap().contains("plan.rs:"), "{failure}");
    let server = agent.server().unwrap().status().ingest;
    assert_eq!((server.events, server.duplicates), (EVENTS as u64, 0));
    assert!(agent.finish().account.holds());
}
