//! Followed files over rotations, truncations and restarts: every line once, under one id.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tapio_collectors::jsonl::Config;
use tapio_core::event::{EventId, stable_hash};

use crate::support::eventually::within;
use crate::support::json::text;
use crate::support::pipeline::{Pipeline, site};

fn line(n: u64) -> String {
    format!(r#"{{"attributes":{{"n":"{n}"}},"time":1,"kind":"test.line"}}"#) + "\n"
}

/// A folder with a log and its rotated contents, and what was emitted of it.
struct Log {
    folder: tempfile::TempDir,
    /// Lines written so far.
    written: u64,
    /// The start of a line without its end.
    partial: String,
    pipeline: Option<Pipeline>,
    /// Ids by line, with how often each was emitted in runs that have ended.
    emitted: HashMap<String, Vec<String>>,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Self {
            folder,
            written: 0,
            partial: String::new(),
            pipeline: None,
            emitted: HashMap::new(),
        };
        log.write("");
        log
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn cursor(&self) -> PathBuf {
        self.folder.path().join("state/cursors/jsonl")
    }

    fn write(&self, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn append(&mut self, lines: u64) {
        let mut text = std::mem::take(&mut self.partial);
        for _ in 0..lines {
            text += &line(self.written);
            self.written += 1;
        }
        self.write(&text);
    }

    /// Writes the start of a line; the next append writes its end.
    fn append_partial(&mut self) {
        self.append(0);
        let line = line(self.written);
        self.written += 1;
        // With the number: contents are distinguished by their first bytes.
        let (start, end) = line.split_at(30);
        self.write(start);
        self.partial = end.to_owned();
    }

    fn rotated(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("log.{n}"))
    }

    fn shift(&mut self) {
        self.append(0);
        let last = (1..).find(|n| !self.rotated(*n).exists()).unwrap();
        for n in (1..last).rev() {
            fs::rename(self.rotated(n), self.rotated(n + 1)).unwrap();
        }
    }

    fn rename(&mut self) {
        self.shift();
        fs::rename(self.path(), self.rotated(1)).unwrap();
        self.write("");
    }

    fn copy_and_truncate(&mut self) {
        self.shift();
        self.wait_until_read();
        fs::copy(self.path(), self.rotated(1)).unwrap();
        File::options().write(true).open(self.path()).unwrap().set_len(0).unwrap();
    }

    /// Of a content that is truncated before its first byte was read, no copy can be recognised.
    fn wait_until_read(&self) {
        let Some(pipeline) = &self.pipeline else { return };
        within(Duration::from_secs(20), "the content is read", || {
            let emitted: HashSet<_> = pipeline.texts("n").into_iter().collect();
            let is_read = |n: &String| emitted.contains(n) || self.emitted.contains_key(n);
            let missing = (0..self.written).map(|n| n.to_string()).find(|n| !is_read(n));
            missing.map_or(Ok(()), |n| Err(format!("line {n} is missing")))
        });
    }

    fn start(&mut self) {
        if self.pipeline.is_none() {
            let config = Config { paths: vec![self.path()], follow: true };
            let site = site(Some(&self.folder.path().join("state")));
            self.pipeline = Some(Pipeline::start_at(site, "jsonl", &config));
        }
    }

    fn stop(&mut self) {
        let Some(pipeline) = self.pipeline.take() else { return };
        let outcome = pipeline.end();
        assert_eq!(outcome.snapshot.total.dropped, [], "no line is refused");
        for event in outcome.events {
            self.emitted.entry(text(&event, "n")).or_default().push(text(&event, "id"));
        }
    }

    /// As after a kill that came before the cursor was saved: it is as it was some time before.
    fn kill(&mut self, saved: &[u8]) {
        self.stop();
        fs::write(self.cursor(), saved).unwrap();
    }

    /// Reads everything and checks it.
    fn check(mut self, once: bool) {
        self.append(0);
        self.start();
        let before: Vec<String> = self.emitted.keys().cloned().collect();
        let pipeline = self.pipeline.as_ref().unwrap();
        within(Duration::from_secs(20), "every line is emitted", || {
            let emitted: HashSet<_> =
                pipeline.texts("n").into_iter().chain(before.clone()).collect();
            let missing = (0..self.written).filter(|n| !emitted.contains(&n.to_string()));
            match missing.collect::<Vec<_>>() {
                missing if missing.is_empty() => Ok(()),
                missing => Err(format!("missing: {missing:?}")),
            }
        });
        self.stop();
        let mut ids = HashSet::new();
        for (n, emitted) in &self.emitted {
            assert!(emitted.iter().all(|id| *id == emitted[0]), "line {n} has several ids");
            assert!(ids.insert(emitted[0].clone()), "the id of line {n} is another one's, too");
            assert!(!once || emitted.len() == 1, "line {n} was emitted {} times", emitted.len());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    AppendPartial,
    Rename,
    CopyAndTruncate,
    Sleep(u64),
    Start,
    Stop,
    Save,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40u64).prop_map(Step::Append),
        1 => Just(Step::AppendPartial),
        2 => Just(Step::Rename),
        2 => Just(Step::CopyAndTruncate),
        3 => (0..70u64).prop_map(Step::Sleep),
        3 => Just(Step::Start),
        2 => Just(Step::Stop),
        2 => Just(Step::Save),
        1 => Just(Step::Kill),
    ]
}

fn run(steps: &[Step]) {
    let mut log = Log::new();
    // Of a content that is truncated before its first byte was read, no copy can be recognised.
    log.append(1);
    log.start();
    log.pipeline.as_ref().unwrap().wait_until("a line is read", |p| p.count() == 1);
    log.stop();
    let mut saved = fs::read(log.cursor()).unwrap();
    let mut once = true;
    for step in steps {
        match step {
            Step::Append(lines) => log.append(*lines),
            Step::AppendPartial => log.append_partial(),
            Step::Rename => log.rename(),
            Step::CopyAndTruncate => log.copy_and_truncate(),
            Step::Sleep(ms) => std::thread::sleep(Duration::from_millis(*ms)),
            Step::Start => log.start(),
            Step::Stop => log.stop(),
            Step::Save => saved = fs::read(log.cursor()).unwrap(),
            Step::Kill => {
                log.kill(&saved);
                once = false;
            }
        }
    }
    log.check(once);
}

#[test]
fn every_line_is_emitted_once_under_one_id() {
    let cases = std::env::var("PROPTEST_CASES").map_or(40, |n| n.parse().unwrap());
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        // A case that fails may wait for a line for long: it is reported as it is.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec(step(), 1..24);
    let outcome = runner.run(&steps, |steps| {
        run(&steps);
        Ok(())
    });
    outcome.unwrap();
}

/// The id of the line with this number in a content: of its path, generation, number and text.
fn id(log: &Log, generation: &str, number: u64, n: u64) -> String {
    let text = line(n);
    let hash = u128::from_be_bytes(stable_hash(&[text.trim_end().as_bytes()]));
    let natural = format!("{}{generation}:{number}:{hash:032x}", log.path().display());
    EventId::from_natural("jsonl", &natural).to_string()
}

#[test]
fn restart_continues_within_the_file() {
    let mut log = Log::new();
    for _ in 0..4 {
        log.append(1_000);
        log.start();
        let read = log.written - log.emitted.len() as u64;
        log.pipeline.as_ref().unwrap().wait_until("the file is read", |p| p.count() as u64 == read);
        log.stop();
    }
    // The ids are those of a file that is read at once.
    assert_eq!(log.emitted["3999"], [id(&log, "", 4_000, 3_999)]);
    log.check(true);
}

#[test]
fn contents_rotated_while_away_are_read_in_order() {
    for rotate in [Log::rename, Log::copy_and_truncate] {
        let mut log = Log::new();
        log.append(10);
        log.start();
        log.pipeline.as_ref().unwrap().wait_until("the file is read", |p| p.count() == 10);
        log.stop();
        for _ in 0..3 {
            log.append(10);
            rotate(&mut log);
        }
        log.append(10);
        log.start();
        let pipeline = log.pipeline.as_ref().unwrap();
        pipeline.wait_until("the rest is read", |p| p.count() == 40 - 10 + 10);
        let expected: Vec<_> = (10..50).map(|n: u64| n.to_string()).collect();
        assert_eq!(pipeline.texts("n"), expected);
        log.check(true);
    }
}

#[test]
fn content_is_read_once_while_it_is_being_copied() {
    let mut log = Log::new();
    log.append(10);
    log.start();
    log.pipeline.as_ref().unwrap().wait_until("the file is read", |p| p.count() == 10);
    log.stop();
    log.rename();
    log.append(20);
    log.shift();
    let content = fs::read(log.path()).unwrap();
    fs::write(log.rotated(1), &content[..content.len() / 3]).unwrap();
    log.start();
    log.pipeline.as_ref().unwrap().wait_until("the content is read", |p| p.count() == 20);
    fs::write(log.rotated(1), &content).unwrap();
    File::options().write(true).open(log.path()).unwrap().set_len(0).unwrap();
    log.append(5);
    log.check(true);
}

#[test]
fn truncation_without_copy_starts_the_next_generation() {
    let mut log = Log::new();
    log.append(30);
    log.start();
    log.pipeline.as_ref().unwrap().wait_until("the file is read", |p| p.count() == 30);
    log.stop();
    // Longer than before: only its head differs.
    File::options().write(true).open(log.path()).unwrap().set_len(0).unwrap();
    log.append(40);
    log.start();
    log.pipeline.as_ref().unwrap().wait_until("the new content is read", |p| p.count() == 40);
    log.stop();
    assert_eq!(log.emitted["30"], [id(&log, "~1", 1, 30)]);
    log.check(true);
}

#[test]
fn damaged_cursor_is_reported_and_the_file_read_again_under_new_ids() {
    for damage in [&b"\xff\xfe"[..], b"{\"version\":7,\"files\":{}}", b"garbage"] {
        let mut log = Log::new();
        log.append(5);
        log.start();
        log.pipeline.as_ref().unwrap().wait_until("the file is read", |p| p.count() == 5);
        log.stop();
        fs::write(log.cursor(), damage).unwrap();
        log.start();
        let pipeline = log.pipeline.as_ref().unwrap();
        pipeline.wait_until("the file is read again", |p| p.count() == 5);
        let note = &pipeline.notes()["cursor"];
        assert!(note.contains("jsonl is damaged: ") && note.contains("jsonl.damaged"), "{note}");
        log.stop();
        assert_eq!(fs::read(log.cursor().with_extension("damaged")).unwrap(), damage);
        assert!(log.emitted.values().all(|ids| ids.len() == 2 && ids[0] != ids[1]));
        log.emitted.clear();
        log.written = 0;
        log.check(true);
    }
}

#[test]
fn one_cursor_holds_many_files() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let paths: Vec<_> = (0..200).map(|n| folder.path().join(n.to_string())).collect();
    let write = |path: &Path, n| {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line(n).as_bytes()).unwrap();
    };
    for round in 0..3 {
        paths.iter().for_each(|path| write(path, round));
        let config = Config { paths: paths.clone(), follow: true };
        let pipeline = Pipeline::start_at(site(Some(&state)), "jsonl", &config);
        pipeline.wait_until("the files are read", |p| p.count() == paths.len());
        let outcome = pipeline.end();
        assert!(outcome.events.iter().all(|event| text(event, "n") == round.to_string()));
    }
    let names = fs::read_dir(state.join("cursors")).unwrap().count();
    assert_eq!(names, 1, "one file for all positions");
}
