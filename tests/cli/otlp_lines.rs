//! `tapio replay` on files of the OpenTelemetry Collector's file exporter.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

/// A record of `checkout` with a severity and a body, `ms` milliseconds after a time.
fn record(ms: u64, severity: u32, body: &str) -> String {
    format!(
        r#"{{"timeUnixNano":"{}","severityNumber":{severity},"body":{{"stringValue":"{body}"}}}}"#,
        1_769_940_000_000_000_000 + ms * 1_000_000
    )
}

fn line(records: &[String]) -> String {
    format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"checkout"}}}},{{"key":"host.name","value":{{"stringValue":"node-7"}}}}]}},"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#,
        records.join(",")
    )
}

#[test]
fn requests_of_otlp_are_replayed_plain_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let text = [
        line(&[record(0, 9, "start"), record(5, 17, "out of memory")]),
        line(&[record(7, 9, "end")]),
        r#"{"resourceSpans": "none"}"#.to_owned(),
    ]
    .join("\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let packed = [
        ("logs.json", text.clone().into_bytes()),
        ("logs.json.gz", gzip.finish().unwrap()),
        ("logs.json.zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
    ];
    for (name, contents) in packed {
        std::fs::write(folder.path().join(name), contents).unwrap();
        let first = replay(folder.path(), name);
        // The first record's time is of a whole second: its id is that of its place.
        assert_eq!(replay(folder.path(), name), first, "{name}");
        let events: Vec<Json> =
            first.lines().map(|event| serde_json::from_str(event).unwrap()).collect();
        let messages: Vec<_> =
            events.iter().map(|event| event["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["start", "out of memory", "end"], "{name}");
        assert!(events.iter().all(|event| event["kind"] == "otlp.log"));
        assert!(events.iter().all(|event| event["entity"]["service.name"] == "checkout"));
        assert_eq!(events[1]["severity"], "error");
    }
}

/// The events of a file; its third line is refused.
fn replay(folder: &Path, name: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    let command = command.current_dir(folder).args(["replay", name, "--emit", "events"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(&format!("{name}:3:1: ")), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}
