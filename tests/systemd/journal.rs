//! The journal collector's events, compared with journalctl's output.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tapio_collectors::journal::Config;
use tapio_core::event::{EventId, Reason};

use crate::machine::Machine;
use crate::support::json::text;
use crate::support::pipeline::{Outcome, Pipeline, site};

/// The cursor before all entries.
const BEGINNING: &str =
    "s=00000000000000000000000000000000;i=0;b=00000000000000000000000000000000;m=0;t=0;x=0";

fn config(machine: &Machine) -> Config {
    Config {
        directories: vec![machine.path("var/log/journal"), machine.path("run/log/journal")],
        rate_per_unit: 0,
        ..Config::default()
    }
}

fn cursor_file(state: &Path) -> PathBuf {
    state.join("cursors/journal")
}

fn set_cursor(state: &Path, cursor: &str) {
    std::fs::create_dir_all(state.join("cursors")).unwrap();
    std::fs::write(cursor_file(state), cursor).unwrap();
}

/// Runs journalctl; returns its records without the kernel's.
fn journalctl(machine: &Machine, args: &[&str]) -> Vec<Value> {
    let command = ["journalctl", "-o", "json", "--no-pager", "-q", "--all"];
    let (ok, out) = machine.run(&[&command[..], args].concat());
    assert!(ok, "{out}");
    let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|r| r["_TRANSPORT"] != "kernel").collect()
}

fn id(record: &Value) -> String {
    EventId::from_natural("journal", record["__CURSOR"].as_str().unwrap()).to_string()
}

fn log(machine: &Machine, tag: &str, lines: std::ops::Range<u32>) {
    let script = format!(
        "for i in $(seq {} {}); do echo \"{tag} $i\"; done | systemd-cat -t {tag}",
        lines.start,
        lines.end - 1
    );
    assert!(machine.run(&["sh", "-c", &script]).0);
}

/// The messages of this tag, each with the ids of its events.
fn ids_by_message(events: &[Value], tag: &str) -> HashMap<String, HashSet<String>> {
    let mut out: HashMap<String, HashSet<String>> = HashMap::new();
    for event in events.iter().filter(|e| text(e, "tapio.journal.identifier") == tag) {
        out.entry(text(event, "message")).or_default().insert(text(event, "id"));
    }
    out
}

#[test]
fn events_match_output_of_journalctl() {
    let Some(machine) = Machine::boot("unified") else { return };
    let state = tempfile::tempdir().unwrap();
    set_cursor(state.path(), BEGINNING);
    machine.systemctl(&["start", "exit7.service"]);
    log(&machine, "before", 0..300);
    assert!(machine.run(&["journalctl", "--rotate"]).0);
    log(&machine, "after", 0..300);
    let running = Pipeline::start_at(site(Some(state.path())), "journal", &config(&machine));
    running.wait_for("the last line", |e| ids_by_message(e, "after").contains_key("after 299"));
    // journald's messages about itself come late.
    std::thread::sleep(Duration::from_millis(300));
    let expected = journalctl(&machine, &[]);
    running.wait_for("all records", |events| events.len() >= expected.len());
    let Outcome { events, snapshot } = running.end();
    assert!(snapshot.total.dropped.is_empty(), "{:?}", snapshot.total.dropped);
    let ids: Vec<_> = events.iter().map(|e| text(e, "id")).collect();
    let expected_ids: Vec<_> = expected.iter().map(id).collect();
    assert_eq!(ids[..expected_ids.len()], expected_ids, "the same records in the same order");
    for (event, record) in events.iter().zip(&expected) {
        assert_eq!(text(event, "message"), record["MESSAGE"].as_str().unwrap_or_default());
        let time = record["_SOURCE_REALTIME_TIMESTAMP"].as_str();
        let time = time.or(record["__REALTIME_TIMESTAMP"].as_str()).unwrap();
        assert!(text(event, "time").contains('T') && !time.is_empty());
        assert_eq!(
            text(event, "process.executable.name"),
            record["_COMM"].as_str().unwrap_or_default()
        );
    }
    let by_systemd =
        events.iter().find(|e| text(e, "message").contains("Failed with result")).unwrap();
    assert_eq!(
        text(by_systemd, "systemd.unit"),
        "exit7.service",
        "systemd's message about the unit: {by_systemd}"
    );
    assert_eq!(text(by_systemd, "tapio.journal.identifier"), "systemd");
    assert_eq!(text(by_systemd, "severity"), "warn", "{by_systemd}");
    let unit_output = events.iter().find(|e| text(e, "message") == "about to fail").unwrap();
    assert_eq!(text(unit_output, "systemd.unit"), "exit7.service");
    // journald looks the invocation up on arrival of the line: a process that has ended has none.
    let record = expected.iter().find(|r| r["MESSAGE"] == "about to fail").unwrap();
    let invocation = record["_SYSTEMD_INVOCATION_ID"].as_str().unwrap_or_default();
    assert_eq!(text(unit_output, "systemd.invocation_id"), invocation);
    assert!(expected.iter().any(|r| r["_SYSTEMD_INVOCATION_ID"].is_string()));
    for (event, record) in events.iter().zip(&expected).filter(|(_, r)| r["UNIT"].is_null()) {
        let invocation = record["_SYSTEMD_INVOCATION_ID"].as_str().unwrap_or_default();
        let unit = record["_SYSTEMD_UNIT"].as_str().unwrap_or_default();
        if text(event, "systemd.unit") == unit {
            assert_eq!(text(event, "systemd.invocation_id"), invocation, "{record}");
        }
    }
}

#[test]
fn journalctl_reader_emits_the_same_events() {
    let Some(machine) = Machine::boot("unified") else { return };
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    states.iter().for_each(|state| set_cursor(state.path(), BEGINNING));
    log(&machine, "before", 0..100);
    let native = Pipeline::start_at(site(Some(states[0].path())), "journal", &config(&machine));
    let through = Config { journalctl: true, ..config(&machine) };
    let through = Pipeline::start_at(site(Some(states[1].path())), "journal", &through);
    log(&machine, "after", 0..100);
    for running in [&native, &through] {
        running.wait_for("the last line", |e| ids_by_message(e, "after").contains_key("after 99"));
    }
    let (native, through) = (native.end().events, through.end().events);
    let of = |events: &[Value], tag| {
        let of = events.iter().filter(|e| text(e, "tapio.journal.identifier") == tag);
        of.map(|e| (text(e, "id"), e["entity"].clone(), text(e, "message"))).collect::<Vec<_>>()
    };
    for tag in ["before", "after"] {
        assert_eq!(of(&native, tag), of(&through, tag));
        assert_eq!(of(&native, tag).len(), 100);
    }
}

/// Sets a flag on drop.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        // Relaxed, paired with the load of the loop: no other data depends on the flag.
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn rotation_vacuum_and_restart_under_load_lose_and_duplicate_nothing() {
    const BATCH: u32 = 250;
    const ROTATIONS: u32 = 6;
    let Some(machine) = Machine::boot("unified") else { return };
    let state = tempfile::tempdir().unwrap();
    let config = config(&machine);
    let running = Pipeline::start_at(site(Some(state.path())), "journal", &config);
    running.wait_until("the collector reads", |r| r.counter("files") > 0);
    let mut all = Vec::new();
    let mut running = Some(running);
    let enough = AtomicBool::new(false);
    let lines_logged = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut lines = 0;
            while !enough.load(Ordering::Relaxed) {
                log(&machine, "load", lines..lines + BATCH);
                lines += BATCH;
                // The file must not fill up between two rotations: journald would rotate by itself,
                // and the vacuum could delete that file unread.
                std::thread::sleep(Duration::from_millis(50));
            }
            lines
        });
        // Ends the load, also if an assertion fails: a scope waits for its threads.
        let end_of_load = SetOnDrop(&enough);
        for rotation in 0..ROTATIONS {
            assert!(machine.run(&["journalctl", "--rotate"]).0);
            // journald empties the files that it deletes, so unread records are lost.
            let reads = running.as_ref().unwrap();
            log(&machine, "mark", rotation..rotation + 1);
            let mark = format!("mark {rotation}");
            reads.wait_for("the archived file is read", |e| {
                ids_by_message(e, "mark").contains_key(&mark)
            });
            assert!(machine.run(&["journalctl", "--vacuum-files=1"]).0);
            if rotation == ROTATIONS / 2 {
                // The agent restarts in between.
                let Outcome { events, snapshot } = running.take().unwrap().end();
                let lost = snapshot.total.dropped.iter().any(|d| d.1 != Reason::Shutdown);
                assert!(!lost, "{:?}", snapshot.total.dropped);
                all.extend(events);
                running = Some(Pipeline::start_at(site(Some(state.path())), "journal", &config));
            }
        }
        drop(end_of_load);
        load.join().unwrap()
    });
    let running = running.unwrap();
    let count_of =
        |events: &[Value]| ids_by_message(&[all.clone(), events.to_vec()].concat(), "load").len();
    running.wait_until("all lines", |r| count_of(&r.events()) >= lines_logged as usize);
    let last = format!("load {}", lines_logged - 1);
    running.wait_for("the last line", |events| ids_by_message(events, "load").contains_key(&last));
    // journalctl accepts the cursor.
    let saved = || std::fs::read_to_string(cursor_file(state.path())).unwrap_or_default();
    running.wait_until("the cursor is saved", |_| {
        journalctl(&machine, &["--after-cursor", &saved()]).is_empty()
    });
    log(&machine, "later", 0..3);
    let later = journalctl(&machine, &["--after-cursor", &saved(), "-t", "later"]);
    assert!(later.len() <= 3);
    running.wait_for("the later lines", |e| ids_by_message(e, "later").len() == 3);
    let Outcome { events, snapshot } = running.end();
    assert!(snapshot.total.dropped.is_empty(), "{:?}", snapshot.total.dropped);
    all.extend(events);
    let lines = ids_by_message(&all, "load");
    assert_eq!(lines.len(), lines_logged as usize);
    let duplicates: Vec<_> = lines.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(duplicates.is_empty(), "emitted under two ids: {duplicates:?}");
}

#[test]
fn damaged_file_loses_only_damaged_entries() {
    let Some(machine) = Machine::boot("unified") else { return };
    log(&machine, "damaged", 0..2_000);
    // All lines are in the file that is archived.
    assert!(machine.run(&["journalctl", "--sync"]).0);
    assert!(machine.run(&["journalctl", "--rotate"]).0);
    let folder =
        std::fs::read_dir(machine.path("var/log/journal")).unwrap().next().unwrap().unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path());
    let archived: Vec<_> =
        files.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("system@")).collect();
    let largest = archived.iter().max_by_key(|p| p.metadata().unwrap().len()).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(largest).unwrap();
    // Overwrites the data object of one message, and the entries and data of a few that follow it.
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).unwrap();
    let text = b"MESSAGE=damaged 700";
    let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
    file.write_all_at(&[0xff; 4_096], at as u64 - 64).unwrap();
    let state = tempfile::tempdir().unwrap();
    set_cursor(state.path(), BEGINNING);
    let running = Pipeline::start_at(site(Some(state.path())), "journal", &config(&machine));
    log(&machine, "healthy", 0..10);
    running.wait_for("the lines after the damage", |e| ids_by_message(e, "healthy").len() == 10);
    running.wait_until("the damage is counted", |r| {
        r.counter("entries_corrupt") + r.counter("fields_corrupt") > 0
    });
    let bad = running.counter("entries_corrupt");
    let Outcome { events, snapshot } = running.end();
    assert!(
        ids_by_message(&events, "damaged").len() > 500,
        "{}",
        ids_by_message(&events, "damaged").len()
    );
    let refused: u64 =
        snapshot.total.dropped.iter().filter(|d| d.1 == Reason::BadInput).map(|d| d.2).sum();
    assert_eq!(refused, bad);
}

#[test]
fn core_dumps_long_messages_and_rate_limits() {
    let Some(machine) = Machine::boot("unified") else { return };
    let limited = Config { rate_per_unit: 1, burst_per_unit: 50, ..config(&machine) };
    let running = Pipeline::start("journal", &limited);
    running.wait_until("the collector reads", |r| r.counter("files") > 0);
    let mut script = tempfile::NamedTempFile::new_in(machine.path("run")).unwrap();
    let record = "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1\nPRIORITY=2\nSYSLOG_IDENTIFIER=systemd-coredump\n\
        MESSAGE=Process 4711 (nginx) of user 33 dumped core.\nCOREDUMP_PID=4711\nCOREDUMP_COMM=nginx\n\
        COREDUMP_EXE=/usr/sbin/nginx\nCOREDUMP_SIGNAL=11\nCOREDUMP_UNIT=nginx.service\n\
        COREDUMP_FILENAME=/var/lib/systemd/coredump/core.nginx\nCOREDUMP_CMDLINE=nginx -g secret\n";
    script.write_all(record.as_bytes()).unwrap();
    let inside = format!("/run/{}", script.path().file_name().unwrap().to_string_lossy());
    assert!(
        machine.run(&["logger", "--journald", "--file", &inside]).0 || {
            // An older logger takes the file as an argument of --journald.
            machine.run(&["sh", "-c", &format!("logger --journald={inside}")]).0
        }
    );
    let long = "head -c 40000 /dev/zero | tr '\\0' x | systemd-cat -t long";
    assert!(machine.run(&["sh", "-c", long]).0);
    log(&machine, "flood", 0..500);
    running.wait_for("the core dump", |e| e.iter().any(|e| text(e, "kind") == "journal.coredump"));
    running.wait_until("the flood is throttled", |r| r.counter("records_throttled") >= 400);
    let Outcome { events, snapshot } = running.end();
    let dump = events.iter().find(|e| text(e, "kind") == "journal.coredump").unwrap();
    for (key, value) in [
        ("process.pid", "4711"),
        ("process.executable.name", "nginx"),
        ("process.executable.path", "/usr/sbin/nginx"),
        ("tapio.signal.name", "SIGSEGV"),
        ("systemd.unit", "nginx.service"),
        ("tapio.coredump.file", "/var/lib/systemd/coredump/core.nginx"),
        ("severity", "critical"),
    ] {
        assert_eq!(text(dump, key), value, "{key}");
    }
    assert!(!dump.to_string().contains("secret"));
    let long = ids_by_message(&events, "long");
    assert!(long.keys().all(|m| m.len() <= 16 << 10) && long.keys().any(|m| m.len() == 16 << 10));
    assert!(
        ids_by_message(&events, "flood").len() <= 60,
        "{}",
        ids_by_message(&events, "flood").len()
    );
    assert!(snapshot.total.dropped.iter().any(|d| d.1 == Reason::Throttled && d.2 >= 400));
}
