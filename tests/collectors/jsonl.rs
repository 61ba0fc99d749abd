//! Files, fifos and broken lines.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tapio_collectors::jsonl::Config;
use tapio_collectors::{CollectorConfig, Health};
use tapio_core::event::{EventId, Reason, Stage};

use crate::support::pipeline::Pipeline;

fn start(paths: &[PathBuf], follow: bool) -> Pipeline {
    let config = Config { paths: paths.to_vec(), follow };
    assert!(config.enabled());
    Pipeline::start("jsonl", &config)
}

fn line(n: impl std::fmt::Display) -> String {
    format!(r#"{{"time":1,"kind":"test.line","attributes":{{"n":"{n}"}}}}"#)
}

fn lines(range: std::ops::Range<u64>) -> String {
    range.map(|n| line(n) + "\n").collect()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn numbers(pipeline: &Pipeline) -> Vec<String> {
    pipeline.texts("n")
}

fn wait_for(pipeline: &Pipeline, expected: &[&str]) {
    pipeline.wait_until(&format!("{expected:?}"), |p| p.count() >= expected.len());
    assert_eq!(numbers(pipeline), expected);
}

#[test]
fn bad_lines_are_refused_and_others_emitted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut file = File::create(&path).unwrap();
    file.write_all(lines(0..1).as_bytes()).unwrap();
    file.write_all(b"{\"time\":1,\"kind\":\"a\",\"oops\":1}\n\n  \r\nnot json\n").unwrap();
    file.write_all(b"{\"time\":1,\"kind\":\"\xff\xfe\"}\n").unwrap();
    file.write_all(&vec![b'x'; 3 << 20]).unwrap();
    file.write_all(b"\n").unwrap();
    // The message of an oversized event is cut, and the last line has no line feed.
    let large = format!(
        r#"{{"time":1,"kind":"a","message":"{}","attributes":{{"n":"large"}}}}"#,
        "m".repeat(70_000)
    );
    file.write_all(large.as_bytes()).unwrap();
    file.write_all(format!("\n{}", line("last")).as_bytes()).unwrap();
    drop(file);
    let pipeline = start(std::slice::from_ref(&path), false);
    wait_for(&pipeline, &["0", "large", "last"]);
    let message = pipeline.events()[1]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with(" bytes cut]"), "{}", message.len());
    // The id of a line without one derives from file and line number: a second read repeats it.
    let natural = format!("{}:9", path.display());
    assert_eq!(pipeline.texts("id")[2], EventId::from_natural("jsonl", &natural).to_string());
    let notes = pipeline.status().notes;
    pipeline.wait_until("the collector finishes", |p| p.status().health == Health::Finished);
    assert_eq!(pipeline.status().notes.len(), 1, "{notes:?}");
    let snapshot = pipeline.finish().snapshot;
    assert_eq!(snapshot.total.received, 7);
    assert_eq!(snapshot.total.dropped, [(Stage::Collect, Reason::BadInput, 4)]);
    assert_eq!(snapshot.total.truncated, 1);
}

#[test]
fn files_are_read_completely_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = ["b", "a"].iter().map(|n| folder.path().join(n)).collect();
    fs::write(&paths[0], lines(0..3_000)).unwrap();
    fs::write(&paths[1], lines(3_000..6_000)).unwrap();
    let pipeline = start(&paths, false);
    let expected: Vec<_> = (0..6_000).map(|n: u64| n.to_string()).collect();
    wait_for(&pipeline, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(pipeline.finish().snapshot.total.forwarded, 6_000);
}

#[test]
fn file_that_is_listed_twice_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("events"), folder.path().join("link"));
    fs::write(&path, lines(0..3)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for follow in [false, true] {
        let pipeline = start(&[path.clone(), folder.path().join("./events"), link.clone()], follow);
        wait_for(&pipeline, &["0", "1", "2"]);
        assert_eq!(pipeline.end().snapshot.total.received, 3);
    }
}

/// Lines as the Collector's file exporter writes them: two log records and a span.
const OTLP_LINES: &str = concat!(
    r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"#,
    r#""shop"}}]},"scopeLogs":[{"scope":{},"logRecords":[{"timeUnixNano":"1700000000000000001","#,
    r#""severityNumber":17,"body":{"stringValue":"down"},"attributes":[{"key":"n","value":"#,
    r#"{"stringValue":"0"}}]},{"timeUnixNano":"1700000000000000002","attributes":[{"key":"n","#,
    r#""value":{"stringValue":"1"}}]}]}]}]}"#,
    "\n",
    r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"spans":[{"traceId":"#,
    r#""5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"get","#,
    r#""startTimeUnixNano":"1700000000000000003","endTimeUnixNano":"1700000000000000004","#,
    r#""attributes":[{"key":"n","value":{"stringValue":"2"}}]}]}]}]}"#,
    "\n",
    r#"{"resourceLogs":[{"scopeLogs":7}]}"#,
    "\n",
);

#[test]
fn lines_of_otlp_are_events_also_from_compressed_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs.json");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(OTLP_LINES.as_bytes()).unwrap();
    let packed = [gzip.finish().unwrap(), zstd::encode_all(OTLP_LINES.as_bytes(), 1).unwrap()];
    let plain = OTLP_LINES.as_bytes().to_vec();
    let mut ids = Vec::new();
    for (contents, follow) in packed.into_iter().chain([plain]).zip([false, true, true]) {
        fs::write(&path, contents).unwrap();
        let pipeline = start(std::slice::from_ref(&path), follow);
        wait_for(&pipeline, &["0", "1", "2"]);
        let kinds = ["otlp.log", "otlp.log", "otlp.span"];
        let events = pipeline.events();
        assert!(events.iter().zip(kinds).all(|(event, kind)| event["kind"] == kind), "{events:?}");
        assert_eq!(
            (&events[0]["message"], &events[0]["severity"]),
            (&"down".into(), &"error".into())
        );
        assert_eq!(events[0]["entity"]["service.name"], "shop");
        ids.push(pipeline.texts("id"));
        pipeline.wait_until("the bad line is refused", |p| p.status().notes.len() == 1 || follow);
        let snapshot = pipeline.end().snapshot;
        assert_eq!(snapshot.total.dropped, [(Stage::Collect, Reason::BadInput, 1)]);
    }
    assert!(ids.iter().all(|of_run| *of_run == ids[0]), "a line read again has the same ids");
}

#[test]
fn missing_file_stops_only_itself_and_is_read_once_it_exists() {
    for follow in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (existing, missing) = (folder.path().join("existing"), folder.path().join("missing"));
        fs::write(&existing, lines(0..2)).unwrap();
        let pipeline = start(&[existing, missing.clone()], follow);
        wait_for(&pipeline, &["0", "1"]);
        let note = |p: &Pipeline| {
            let status = p.status();
            let of_missing = status.notes.iter().find(|n| n.subject.ends_with("missing"));
            of_missing.map(|note| note.state.clone()).unwrap_or_default()
        };
        assert!(note(&pipeline).contains("No such file"), "{}", note(&pipeline));
        fs::write(&missing, lines(2..3)).unwrap();
        wait_for(&pipeline, &["0", "1", "2"]);
        assert_eq!(note(&pipeline), "ok");
        assert_eq!(pipeline.end().snapshot.total.forwarded, 3);
    }
}

#[test]
fn pattern_stands_for_new_files_and_not_for_rotated_ones_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    append(&path("a.jsonl"), &lines(0..1));
    append(&path("other.log"), &lines(9..10));
    let pipeline = start(&[path("*.jsonl")], true);
    wait_for(&pipeline, &["0"]);
    append(&path("b.jsonl"), &lines(1..2));
    wait_for(&pipeline, &["0", "1"]);
    // A rotated file matches, too.
    fs::rename(path("a.jsonl"), path("a-1.jsonl")).unwrap();
    append(&path("a.jsonl"), &lines(2..3));
    append(&path("c.jsonl"), &lines(3..4));
    pipeline.wait_until("the new lines", |p| p.texts("id").len() == 4);
    append(&path("d.jsonl"), &lines(4..5));
    pipeline.wait_until("a later search", |p| p.texts("id").len() >= 5);
    assert_eq!(pipeline.end().snapshot.total.forwarded, 5);
}

#[test]
fn followed_file_survives_growth_truncation_and_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, &lines(0..2));
    let pipeline = start(std::slice::from_ref(&path), true);
    wait_for(&pipeline, &["0", "1"]);
    // A line written in two pieces is one line.
    let (first, second) = (line(2), line(3) + "\n");
    append(&path, &first[..10]);
    std::thread::sleep(std::time::Duration::from_millis(120));
    append(&path, &format!("{}\n{second}", &first[10..]));
    wait_for(&pipeline, &["0", "1", "2", "3"]);

    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, &lines(4..5));
    wait_for(&pipeline, &["0", "1", "2", "3", "4"]);

    // Rotated: a last line is appended to the renamed file, and a new file replaces it.
    let old = folder.path().join("log.1");
    fs::rename(&path, &old).unwrap();
    append(&old, &lines(5..6));
    append(&path, &lines(6..7));
    wait_for(&pipeline, &["0", "1", "2", "3", "4", "5", "6"]);
    let ids: std::collections::HashSet<_> = pipeline.texts("id").into_iter().collect();
    assert_eq!(ids.len(), 7, "lines with the same number and other text are different events");
    assert_eq!(pipeline.end().snapshot.total.forwarded, 7);
}

#[test]
fn fifo_is_reopened_after_its_writers_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    let pipeline = start(std::slice::from_ref(&path), false);
    let mut expected = Vec::new();
    for n in ["a", "b", "c"] {
        // Opening waits for the collector; a writer's last line may lack its line feed.
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(line(n).as_bytes()).unwrap();
        drop(writer);
        expected.push(n);
        wait_for(&pipeline, &expected);
    }
    assert_eq!(pipeline.end().snapshot.total.forwarded, 3);
}
