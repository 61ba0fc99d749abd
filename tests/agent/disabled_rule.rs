//! An agent in which a rule panics: every event reaches the server, the rule is disabled and
//! reported, and a reload enables it again.

use std::path::Path;

use serde_json::{Value as Json, json};
use tapio::runtime::{Agent, Config};

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

#[test]
fn failing_rule_is_disabled_and_every_event_is_forwarded() {
    let fixture = TestAgent::new();
    let file = fixture.file("events.jsonl", &lines());
    let yaml = std::fs::read_to_string(fixture.config("jsonl", Path::new(&file))).unwrap();
    let own = fixture.file("own.yaml", super::COUNT);
    let yaml =
        format!("{yaml}dataflow: {{ rules: [\"{own}\"], builtin_rules: false, shards: 2 }}\n");
    let config = fixture.file("tapio.yaml", &yaml);
    let config = Config::read(Path::new(&config)).unwrap();
    let rows = config.collectors.rows();
    let mut agent = Agent::start_with(config, true, rows, |live, _| {
        live.replace(good_and_failing_rule());
        live
    })
    .unwrap();
    let status = fixture.wait(|s| s["cons1"]["total"]["forwarded"] == json!(EVENTS));
    assert_eq!(status["cons1"]["holds"], json!(true));
    assert_eq!(status["cons1"]["total"]["dropped"], json!({}));
    let status = fixture.wait(|s| s["rule_failures"][0]["disabled"] != Json::Null);
    let failure = &status["rule_failures"][0];
    assert_eq!((&failure["rule"], &failure["origin"]), (&json!("bad"), &json!("r.yaml:1")));
    let cause = failure["cause"].as_str().unwrap();
    assert!(cause.contains("index is 7") && cause.contains("measure.rs:"), "{cause}");
    assert_eq!((&status["rules"], &status["rule_failures"][1]), (&json!(1), &Json::Null));
    let shards = status["shards"].as_array().unwrap();
    let sum = |name: &str| shards.iter().filter_map(|s| s[name].as_u64()).sum::<u64>();
    assert!(sum("correlation_failures") >= 3, "{status:#}");
    assert!(sum("rule_matches") >= EVENTS as u64, "the other rule goes on: {status:#}");
    let metrics = fixture.page("/metrics").unwrap().1;
    assert!(metrics.contains("\ntapio_rules_disabled 1\n"), "{metrics}");
    agent.reload_rules(None);
    let status = fixture.wait(|s| s["reloads"]["applied"] == json!(1));
    assert_eq!(status["rule_failures"], json!([]));
    assert!(agent.finish().account.holds());
}
