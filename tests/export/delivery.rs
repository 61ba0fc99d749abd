//! Receivers that are away, refuse records, or take small requests only; agents that are restarted
//! or killed. Every event is exported, left out, lost or held, by count.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use serde_json::{Value as Json, json};
use tonic::Status;

use crate::receiver::{Answer, Receiver};
use crate::support::agent::{TestAgent, start, start_quiet, terminate, utf8};
use crate::support::net::free_address;

/// An agent that reads a file of JSON lines and has no server.
struct Exporting {
    fixture: TestAgent,
    config: String,
    lines: usize,
    /// Part of each event's message.
    padding: String,
}

impl Exporting {
    /// `more`: further parts of the configuration. `sinks`: the list of them.
    fn new(more: &str, sinks: &str) -> Self {
        let fixture = TestAgent::new();
        let input = fixture.file("input.jsonl", "");
        let config = format!(
            "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
             collectors:\n  only: [jsonl]\n  jsonl: {{ paths: [\"{input}\"], follow: true }}\n\
             {more}export:\n  otlp:\n{sinks}",
            input.replace("input.jsonl", "state"),
            fixture.admin,
        );
        let config = fixture.file("tapio.yaml", &config);
        Self { fixture, config, lines: 0, padding: String::new() }
    }

    /// Appends events to the file. Every tenth is an error, for the other lane.
    fn add(&mut self, events: usize) {
        let mut text = String::new();
        for n in self.lines..self.lines + events {
            let severity = if n % 10 == 0 { "error" } else { "info" };
            let time =
                format!("2026-01-15T11:{:02}:{:02}.{:03}Z", n / 60_000, n / 1_000 % 60, n % 1_000);
            writeln!(
                text,
                "{}",
                json!({"time": time, "kind": "app.test", "source": "app", "severity": severity,
                    "message": format!("event {n}{}", self.padding), "attributes": {"n": n}})
            )
            .unwrap();
        }
        self.lines += events;
        let path = self.config.replace("tapio.yaml", "input.jsonl");
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn wait(&self, condition: impl Fn(&Json) -> bool) -> Json {
        self.fixture.wait(|status| {
            assert_eq!(status["cons1"]["holds"], true, "{status}");
            condition(status)
        })
    }
}

/// How often a receiver has each event.
fn numbers(receiver: &Receiver) -> BTreeMap<i64, usize> {
    let mut seen = BTreeMap::new();
    for record in receiver.log_records() {
        let number = record.attributes.iter().find(|attribute| attribute.key == "n").unwrap();
        match number.value.as_ref().unwrap().value {
            Some(Value::IntValue(n)) => *seen.entry(n).or_default() += 1,
            ref other => panic!("{other:?}"),
        }
    }
    seen
}

#[track_caller]
fn assert_each_once(receiver: &Receiver, events: usize) {
    let seen = numbers(receiver);
    let missing: Vec<_> = (0..events as i64).filter(|n| !seen.contains_key(n)).take(5).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert!(seen.values().all(|times| *times == 1));
}

#[test]
fn sinks_have_their_own_pace_and_survive_a_restart() {
    let fast = Receiver::start();
    let away = free_address();
    let sinks = format!(
        "    - {{ name: fast, endpoint: \"http://{}\", forward: all }}\n    \
         - {{ name: slow, endpoint: \"http://{away}\", forward: all }}\n",
        fast.grpc
    );
    let mut agent = Exporting::new("", &sinks);
    agent.add(3_000);
    let process = start(&["run", "--config", &agent.config]);
    let status = agent.wait(|s| {
        let error = s["export"]["slow"]["last_error"].as_str().unwrap();
        s["export"]["fast"]["events"] == json!(3_000)
            && s["export"]["slow"]["events_held"] == json!(3_000)
            && error.contains("refused")
    });
    // Nobody has an event until all sinks have it.
    assert_eq!(status["cons1"]["total"]["held"], 3_000);
    let output = terminate(process);
    assert!(output.status.success(), "{}", utf8(&output.stderr));

    agent.add(500);
    let slow = Receiver::start_on(away);
    let process = start(&["run", "--config", &agent.config]);
    let status = agent.wait(|s| {
        let of = |sink: &str, counter: &str| s["export"][sink][counter].as_u64();
        // A sink publishes its counters after its events are forwarded.
        s["cons1"]["total"]["forwarded"] == json!(3_500)
            && (of("fast", "events"), of("slow", "events")) == (Some(500), Some(3_500))
            && (of("fast", "events_held"), of("slow", "events_held")) == (Some(0), Some(0))
    });
    for sink in ["fast", "slow"] {
        assert_eq!(status["export"][sink]["events_lost"], 0);
    }
    let output = terminate(process);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    assert_each_once(&fast, 3_500);
    assert_each_once(&slow, 3_500);
}

#[test]
fn a_kill_loses_nothing() {
    let receiver = Receiver::start();
    let sinks =
        format!("    - {{ name: a, endpoint: \"http://{}\", forward: all }}\n", receiver.grpc);
    let mut agent = Exporting::new("", &sinks);
    for _ in 0..4 {
        agent.add(2_000);
        let mut process = start_quiet(&["run", "--config", &agent.config]);
        agent.wait(|s| s["cons1"]["total"]["received"].as_u64() > Some(0));
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let process = start(&["run", "--config", &agent.config]);
    agent.wait(|s| s["cons1"]["total"]["held"] == 0 && numbers(&receiver).len() == 8_000);
    assert!(terminate(process).status.success());
}

#[test]
fn refusals_are_counted_and_failures_retried() {
    let receiver = Receiver::start();
    let busy = || Answer::Status(Status::unavailable("busy"));
    receiver.answer([busy(), Answer::Status(Status::unauthenticated("who?")), busy()]);
    let sinks =
        format!("    - {{ name: a, endpoint: \"http://{}\", forward: all }}\n", receiver.grpc);
    let mut agent = Exporting::new("", &sinks);
    let process = start(&["run", "--config", &agent.config]);
    agent.add(100);
    let status = agent.wait(|s| s["export"]["a"]["log_records"] == 100);
    assert!(status["export"]["a"]["requests_failed"].as_u64() >= Some(3));
    assert_eq!(status["export"]["a"]["last_error"], "");
    assert_each_once(&receiver, 100);

    receiver.answer([Answer::Rejected(7)]);
    agent.add(20);
    let status = agent.wait(|s| s["export"]["a"]["records_rejected"] == 7);
    assert!(status["export"]["a"]["events"].as_u64() >= Some(101));
    agent.wait(|s| s["cons1"]["total"]["forwarded"] == 120);

    // The same request would fail again: it isn't sent again.
    receiver.answer([Answer::Status(Status::invalid_argument("no"))]);
    agent.add(10);
    let status = agent.wait(|s| s["cons1"]["total"]["forwarded"] == 130);
    let sink = &status["export"]["a"];
    let taken = sink["log_records"].as_u64().unwrap();
    let rejected = sink["records_rejected"].as_u64().unwrap();
    assert_eq!(taken + rejected, 130, "{sink}");
    assert!(rejected > 7, "{sink}");
    assert!(terminate(process).status.success());
}

#[test]
fn requests_that_are_too_large_are_halved() {
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::start();
        receiver.limit(64);
        let address = if protocol == "grpc" { receiver.grpc } else { receiver.http };
        let sinks = format!(
            "    - {{ name: a, endpoint: \"http://{address}\", protocol: {protocol}, forward: all }}\n"
        );
        let mut agent = Exporting::new("", &sinks);
        agent.add(2_000);
        let process = start(&["run", "--config", &agent.config]);
        let status = agent.wait(|s| s["export"]["a"]["log_records"] == 2_000);
        assert_eq!(status["export"]["a"]["records_rejected"], 0);
        assert!(terminate(process).status.success());
        assert_each_once(&receiver, 2_000);
    }
}

#[test]
fn a_full_spool_drops_and_every_sink_counts_its_losses() {
    let fast = Receiver::start();
    let sinks = format!(
        "    - {{ name: fast, endpoint: \"http://{}\", forward: all }}\n    \
         - {{ name: away, endpoint: \"http://{}\", forward: all }}\n",
        fast.grpc,
        free_address(),
    );
    let more = "bridge: { spool_bytes: 16777216, queue_bytes: 524288 }\n";
    let mut agent = Exporting::new(more, &sinks);
    let process = start(&["run", "--config", &agent.config]);
    agent.padding = ".".repeat(600);
    let events = 60_000;
    for _ in 0..6 {
        agent.add(events / 6);
    }
    let status = agent.wait(|s| {
        let sum = |sink: &str, counters: [&str; 2]| {
            let each = counters.map(|key| s["export"][sink][key].as_u64().unwrap());
            each.iter().sum::<u64>()
        };
        // Each sink publishes its counters by itself.
        sum("fast", ["events", "events_lost"]) == events as u64
            && sum("away", ["events_held", "events_lost"]) == events as u64
    });
    let total = &status["cons1"]["total"];
    let dropped: u64 =
        total["dropped"].as_object().unwrap().values().filter_map(Json::as_u64).sum();
    assert!(dropped > 0, "the spool was to be too small: {status}");
    let away = &status["export"]["away"];
    assert_eq!(away["events"], 0);
    let [held, lost] = ["events_held", "events_lost"].map(|key| away[key].as_u64().unwrap());
    assert!(lost > 0 && held > 0, "{away}");
    let fast_lost = status["export"]["fast"]["events_lost"].as_u64().unwrap();
    assert_eq!(numbers(&fast).len() as u64, events as u64 - fast_lost);
    assert!(terminate(process).status.success());
}
