//! The usual behaviour of services survives a restart of the agent.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::support::agent::{TestAgent, start, terminate, utf8};

/// Spans of one operation as a line of OTLP JSON, ended a minute ago.
fn spans() -> String {
    let now_ns = tapio_core::clock::wall_ns();
    let spans: Vec<_> = (0..40u64)
        .map(|number| {
            let begin_ns = now_ns - 90_000_000_000 + number * 500_000_000;
            json!({
                "traceId": format!("{:032x}", number + 1),
                "spanId": format!("{:016x}", number + 1),
                "name": "GET /cart",
                "kind": 2,
                "startTimeUnixNano": begin_ns.to_string(),
                "endTimeUnixNano": (begin_ns + 20_000_000).to_string(),
            })
        })
        .collect();
    let name = json!({"key": "service.name", "value": {"stringValue": "cart"}});
    let line = json!({"resourceSpans": [{
        "resource": {"attributes": [name]}, "scopeSpans": [{"spans": spans}],
    }]});
    format!("{line}\n")
}

#[test]
fn what_services_usually_do_survives_a_restart() {
    let fixture = TestAgent::new();
    let file = fixture.file("spans.jsonl", &spans());
    let config = fixture.config("jsonl", Path::new(&file));
    let learned = "tapio_service_operations 1";
    let run = || {
        let agent = start(&["run", "--standalone", "--config", &config]);
        fixture.wait(|_| fixture.page("/metrics").is_some_and(|(_, page)| page.contains(learned)));
        let output = terminate(agent);
        assert!(output.status.success(), "{}", utf8(&output.stderr));
        utf8(&output.stderr)
    };
    let first = run();
    assert!(!first.contains("usually do is restored"), "{first}");
    let folder = Path::new(&file).parent().unwrap();
    let kept: Vec<_> = walk(folder).into_iter().filter(|p| p.ends_with("services")).collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(std::fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, "").unwrap();
    let second = run();
    assert!(second.contains("usually do is restored operations=1"), "{second}");
    // A damaged one is reported, and learned anew.
    std::fs::write(kept, "damaged").unwrap();
    fixture.file("spans.jsonl", &spans());
    let third = run();
    assert!(third.contains("can't be restored"), "{third}");
}

/// The files of a folder and of those in it.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}
