//! Usual values, for a condition with a deviation, survive a restart of the agent: they are learned
//! from the recovery log again.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::support::agent::{TestAgent, start, terminate, utf8};
use super::support::eventually::eventually_ok;
use super::support::net::items;

const RULE: &str = "rule: unusual
events: { a: { kind: t.a } }
count: { event: a, by: [attributes.k], within: 1s, condition: { deviation: { gt: 6 } } }
story: { pattern: unusual, name: '{value} instead of {usual}' }
";
const SECOND_NS: u64 = 1_000_000_000;

/// Events at these times.
fn lines(times_ns: impl Iterator<Item = u64>) -> String {
    let line = |(n, time_ns)| {
        json!({ "id": format!("{time_ns}-{n}"), "time": time_ns, "kind": "t.a", "attributes": { "k": "x" } })
            .to_string()
            + "\n"
    };
    times_ns.enumerate().map(line).collect()
}

/// Runs an agent over a file until it has forwarded all of it and `is_done`.
fn run(fixture: &TestAgent, file: &str, events: usize, is_done: impl Fn() -> Result<(), Json>) {
    let own = fixture.file("own.yaml", RULE);
    let yaml = std::fs::read_to_string(fixture.config("jsonl", Path::new(file))).unwrap();
    let dataflow = format!("{{ rules: [\"{own}\"], builtin_rules: false, shards: 2 }}");
    let config = fixture.file("tapio.yaml", &format!("{yaml}dataflow: {dataflow}\n"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| s["cons1"]["total"]["forwarded"] == json!(events));
    eventually_ok("the story", is_done);
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}

#[test]
fn burst_after_a_restart_deviates_from_what_was_learned_before() {
    let fixture = TestAgent::new();
    let begin_ns = (tapio_core::clock::wall_ns() / SECOND_NS - 60) * SECOND_NS;
    // Two events in each of 20 windows, then forty in one.
    let usual = (0..40).map(|n| begin_ns + n * SECOND_NS / 2);
    let usual = fixture.file("usual.jsonl", &lines(usual));
    let burst = (0..40).map(|n| begin_ns + 20 * SECOND_NS + n * 1_000_000);
    let burst = fixture.file("burst.jsonl", &lines(burst));
    run(&fixture, &usual, 40, || Ok(()));
    run(&fixture, &burst, 40, || {
        let stories = items(fixture.http, "/api/v1/stories").unwrap_or_default();
        match stories.first().and_then(|story| story["name"].as_str()) {
            // The window that trails the last event has the last two of the usual ones.
            Some("41 instead of 2") | Some("42 instead of 2") => Ok(()),
            _ => Err(Json::Array(stories)),
        }
    });
}
