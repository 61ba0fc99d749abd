//! OpenTelemetry's Python SDK as a client of the OTLP door, and a receiver in Python that checks
//! the export against the conventions. `scripts/test-deps.sh` installs both.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use support::agent::{TestAgent, start, story, terminate, utf8};
use support::eventually::eventually;
use support::net::free_address;

/// A machine without access to packages of Python can run all other tests.
const SKIPPED: &str = "skipped: OpenTelemetry's Python SDK isn't installed (scripts/test-deps.sh)";
/// Records of each signal that a sender sends.
const RECORDS: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Python with the SDK; `None` where it couldn't be installed.
fn python() -> Option<PathBuf> {
    let python = root().join("target/testbed/opt/sdk/bin/python");
    python.exists().then_some(python)
}

/// A receiver in Python.
struct Receiver {
    process: Child,
    output: PathBuf,
    address: String,
}

impl Receiver {
    fn start(python: &Path, fixture: &TestAgent) -> Self {
        let address = free_address().to_string();
        let output = PathBuf::from(fixture.file("received.jsonl", ""));
        let process = Command::new(python)
            .arg(root().join("tests/sdk/receive.py"))
            .arg(&address)
            .stdout(std::fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        eventually("the receiver listens", || std::net::TcpStream::connect(&address).is_ok());
        Self { process, output, address }
    }

    /// The records so far. A line that isn't complete yet is left out.
    fn records(&self) -> Vec<Json> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The sender's records of a signal, by their numbers.
fn numbers<'a>(records: &'a [Json], signal: &str) -> BTreeSet<&'a str> {
    let of_signal = records.iter().filter(|record| record["signal"] == signal);
    of_signal.filter_map(|record| record["attributes"]["test.n"].as_str()).collect()
}

fn send(python: &Path, protocol: &str, port: u16) -> Child {
    Command::new(python)
        .arg(root().join("tests/sdk/send.py"))
        .args([protocol, &format!("http://127.0.0.1:{port}"), &RECORDS.to_string(), protocol])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_sdks_records_pass_over_a_restart() {
    let Some(python) = python() else {
        println!("{SKIPPED}");
        return;
    };
    let fixture = TestAgent::new();
    let receiver = Receiver::start(&python, &fixture);
    let (grpc, http) = (free_address().port(), free_address().port());
    let config = format!(
        "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         collectors:\n  only: [otlp]\n  otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{grpc}\", \
         http_listen: \"127.0.0.1:{http}\" }}\n\
         export:\n  otlp: [{{ name: out, endpoint: \"http://{}\", forward: all }}]\n",
        fixture.file("x", "").replace("/x", "/state"),
        fixture.admin,
        receiver.address,
    );
    let config = fixture.file("tapio.yaml", &config);
    let running = |status: &Json| status["collectors"]["otlp"]["health"] == json!("running");
    let mut agent = start(&["run", "--config", &config]);
    fixture.wait(running);
    let senders = [send(&python, "grpc", grpc), send(&python, "http", http)];
    eventually("some records have come", || numbers(&receiver.records(), "logs").len() > 20);
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    agent = start(&["run", "--config", &config]);
    for sender in senders {
        let output = sender.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", utf8(&output.stderr));
    }
    let expected: BTreeSet<String> = ["grpc", "http"]
        .iter()
        .flat_map(|protocol| (0..RECORDS).map(move |n| format!("{protocol}-{n}")))
        .collect();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    fixture.wait(|s| s["cons1"]["holds"] == true && s["cons1"]["total"]["held"] == 0);
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));

    assert_complete(&receiver.records(), &expected);
}

/// Checks that the records are all there, as the sender made them.
fn assert_complete(records: &[Json], expected: &BTreeSet<&str>) {
    for signal in ["logs", "traces", "metrics"] {
        assert_eq!(numbers(records, signal), *expected, "{signal}");
    }
    for record in records {
        assert_eq!(record["problems"], json!([]), "{record}");
        assert_eq!(record["resource"]["service.name"], "sdk-test", "{record}");
        assert_eq!(record["scope"], json!(["tests.sdk", "1.0"]), "{record}");
    }
    let of = |signal: &str, n: &str, name: &str| {
        let found = records.iter().find(|record| {
            let is_named = name.is_empty() || record["name"] == name;
            record["signal"] == signal && record["attributes"]["test.n"] == n && is_named
        });
        found.unwrap().clone()
    };
    let log = of("logs", "http-3", "");
    assert_eq!(
        (&log["severity"], &log["body"]),
        (&json!(13), &json!({"text": "record 3", "n": 3}))
    );
    assert_eq!(log["attributes"]["http.response.status_code"], 203);
    assert_eq!(log["attributes"]["list"], json!(["a", "b"]));
    let (parent, child) = (of("traces", "grpc-5", "parent"), of("traces", "grpc-5", "child"));
    assert_eq!((&child["trace"], &child["parent"]), (&parent["trace"], &parent["span"]));
    assert_eq!((&parent["kind"], &child["status"]), (&json!(2), &json!(2)));
    assert_eq!(child["links"], json!([[parent["trace"], parent["span"], {"why": "test"}]]));
    assert_eq!(child["events"][0], json!(["step", {"number": 5}]));
    assert_eq!(child["events"][1][1]["exception.type"], "ValueError");
    assert_eq!(of("metrics", "grpc-7", "test.gauge")["value"], 3.5);
    let histogram = records.iter().find(|record| record["name"] == "test.histogram").unwrap();
    assert_eq!((&histogram["kind"], &histogram["unit"]), (&json!("histogram"), &json!("s")));
}

#[test]
fn stories_and_their_events_keep_the_conventions() {
    let Some(python) = python() else {
        println!("{SKIPPED}");
        return;
    };
    for name in ["nginx-cascade", "pod-startup", "fork-bomb", "tcp-storms"] {
        let fixture = TestAgent::new();
        let receiver = Receiver::start(&python, &fixture);
        let input = story(&format!("{name}.jsonl"));
        let events = std::fs::read_to_string(&input).unwrap().lines().count();
        let config = format!(
            "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
             collectors: {{ only: [jsonl], jsonl: {{ paths: [\"{}\"] }} }}\n\
             export:\n  otlp: [{{ name: out, endpoint: \"http://{}\", forward: all }}]\n",
            fixture.file("x", "").replace("/x", "/state"),
            fixture.admin,
            input.display(),
            receiver.address,
        );
        let agent = start(&["run", "--config", &fixture.file("tapio.yaml", &config)]);
        fixture.wait(|s| s["export"]["out"]["events"] == json!(events));
        let output = terminate(agent);
        assert!(output.status.success(), "{}", utf8(&output.stderr));
        let records = receiver.records();
        for record in &records {
            assert_eq!(record["problems"], json!([]), "{name}: {record}");
        }
        let logs = records.iter().filter(|record| record["signal"] == "logs");
        let (stories, own): (Vec<_>, Vec<_>) = logs
            .partition(|record| record["event_name"].as_str().unwrap().starts_with("tapio.story."));
        assert_eq!(own.len(), events, "{name}");
        assert!(own.iter().all(|record| record["event_name"] != ""), "{name}");
        // A story's span has its trace and the id that its log records name.
        let spans: BTreeSet<_> = records
            .iter()
            .filter(|record| record["signal"] == "traces" && record["parent"] == "")
            .map(|record| (record["trace"].to_string(), record["span"].to_string()))
            .collect();
        assert!(!spans.is_empty(), "{name}");
        for record in stories.iter().filter(|record| record["event_name"] == "tapio.story.closed") {
            let ids = (record["trace"].to_string(), record["span"].to_string());
            assert!(spans.contains(&ids), "{name}: {record}");
        }
    }
}
