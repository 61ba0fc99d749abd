//! Sigma documents as SigmaHQ writes them: which events each one matches.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rules::{Loaded, load};

/// The numbers of the events that matched, by rule, in order. Each event is its kind and its
/// attributes as JSON.
fn matches_of(loaded: Loaded, events: &[(&str, &str)]) -> Vec<(String, usize)> {
    assert_eq!(loaded.errors, []);
    let line = |(number, (kind, attributes)): (usize, &(&str, &str))| {
        let attributes: Json = serde_json::from_str(attributes).unwrap();
        let time_ns = 1_769_940_000_000_000_000 + number as u64 * 1_000_000_000;
        let message = attributes.get("message").cloned().unwrap_or_else(|| json!(""));
        let event = json!({
            "id": number.to_string(), "time": time_ns, "kind": kind, "source": "test",
            "message": message, "entity": {"node": "n1"}, "attributes": attributes,
        });
        format!("{event}\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.jsonl");
    let text: String = events.iter().enumerate().map(line).collect();
    std::fs::write(&file, text).unwrap();
    let replayed = replay(&[file], loaded.rules, "", 2, Emit::Matches).unwrap();
    assert!(replayed.account.holds());
    let mut found: Vec<(String, usize)> = replayed
        .lines
        .iter()
        .map(|line| {
            let event = match &line["events"] {
                Json::Array(events) => events.last().unwrap(),
                _ => &line["event"],
            };
            (line["rule"].as_str().unwrap().to_owned(), event.as_str().unwrap().parse().unwrap())
        })
        .collect();
    found.sort();
    found
}

fn matches(rules: &str, events: &[(&str, &str)]) -> Vec<(String, usize)> {
    let mut loaded = Loaded::default();
    loaded.text("r.yml", rules);
    matches_of(loaded, events)
}

/// The events that a rule with one selection matches.
fn selected(logsource: &str, selection: &str, events: &[(&str, &str)]) -> Vec<usize> {
    let rule =
        format!("title: T\nlogsource: {logsource}\ndetection:\n  s: {selection}\n  condition: s\n");
    matches(&rule, events).into_iter().map(|(_, event)| event).collect()
}

const LINUX: &str = "{ product: linux }";
const PROCESS: &str = "{ product: linux, category: process_creation }";
const CONNECTION: &str = "{ product: linux, category: network_connection }";
const EXEC: &str = "kernel.process.exec";

#[test]
fn process_fields_are_those_of_sysmon() {
    let exec = r#"{"process.executable.path":"/usr/bin/crontab","process.parent_pid":99,
        "process.owner.uid":1000,"process.owner":"joe","process.working_directory":"/tmp",
        "process.command_args":["crontab","-u","root","-l"],
        "tapio.process.parent.executable.path":"/usr/bin/bash",
        "tapio.process.parent.command_args":["bash","-c","crontab -u root -l"]}"#;
    let bare = r#"{"process.executable.path":"/usr/bin/crontab","process.owner.uid":0}"#;
    let events = [(EXEC, exec), (EXEC, bare)];
    for (selection, expected) in [
        ("{ Image|endswith: /crontab, CommandLine|contains: ' -l' }", &[0][..]),
        ("{ CommandLine: crontab -u root -l }", &[0]),
        ("{ CommandLine|startswith: 'crontab ' }", &[0]),
        ("{ CommandLine|endswith: root -l }", &[0]),
        ("{ CommandLine|re: '^crontab( -\\w|\\s\\w+)+$' }", &[0]),
        ("{ ParentImage|endswith: /bash }", &[0]),
        ("{ ParentCommandLine|contains: 'bash -c crontab' }", &[0]),
        ("{ User: root }", &[1]),
        ("{ User: Joe }", &[0]),
        ("{ User: 1000 }", &[0]),
        ("{ LogonId: 0 }", &[1]),
        ("{ CurrentDirectory: /tmp }", &[0]),
        ("{ ParentProcessId: 99 }", &[0]),
        ("{ CommandLine: null }", &[1]),
        ("{ Image|fieldref|endswith: CommandLine }", &[]),
    ] {
        assert_eq!(selected(PROCESS, selection, &events), expected, "{selection}");
    }
}

#[test]
fn connection_fields_follow_the_end_that_opened_it() {
    let ends = r#"{"network.local.address":"10.0.0.1","network.local.port":4444,
        "network.peer.address":"192.0.2.7","network.peer.port":50000}"#;
    let opened = r#"{"network.peer.port":4444}"#;
    let events =
        [("kernel.tcp.accept", ends), ("kernel.tcp.connect", opened), ("kernel.tcp.close", ends)];
    for (selection, expected) in [
        ("{ Initiated: 'true', DestinationPort: 4444 }", &[1][..]),
        ("{ Initiated: true }", &[1]),
        ("{ Initiated: 'false', DestinationPort: 4444, SourceIp: 192.0.2.7 }", &[0]),
        ("{ DestinationPort|contains: '44' }", &[0, 1]),
        ("{ DestinationIp|cidr: 10.0.0.0/8 }", &[0]),
    ] {
        assert_eq!(selected(CONNECTION, selection, &events), expected, "{selection}");
    }
}

#[test]
fn values_compare_by_their_text() {
    let events = [
        ("app.log", r#"{"status":404,"n":5.5,"on":true,"cmd":"prog /x /y"}"#),
        ("app.log", r#"{"status":"404","n":"5.5","on":"true","cmd":"prog -x -y"}"#),
        ("app.log", r#"{"status":22,"n":5,"on":false,"cmd":"prog –x /y"}"#),
    ];
    for (selection, expected) in [
        ("{ status: '4*' }", &[0, 1][..]),
        ("{ status: 404 }", &[0, 1]),
        ("{ status|startswith: 4 }", &[0, 1]),
        ("{ status|re: '^4..$' }", &[0, 1]),
        ("{ status: '2?' }", &[2]),
        ("{ n: 5.5 }", &[0, 1]),
        ("{ n: '5.5' }", &[0, 1]),
        ("{ n: '5*' }", &[0, 1, 2]),
        ("{ n|gte: 5.2 }", &[0]),
        ("{ on: true }", &[0, 1]),
        ("{ on: 't*' }", &[0, 1]),
        ("{ status: 'inf' }", &[]),
        ("{ cmd|windash|contains: 'prog -x -y' }", &[0, 1, 2]),
        ("{ cmd|windash: 'PROG /x -y' }", &[0, 1, 2]),
        ("{ cmd|contains|windash: ' -y' }", &[0, 1, 2]),
        ("{ cmd|contains: 'prog -x -y' }", &[1]),
    ] {
        assert_eq!(selected(LINUX, selection, &events), expected, "{selection}");
    }
}

#[test]
fn fields_compare_with_fields() {
    let events = [
        ("app.log", r#"{"src":"10.0.0.5","dst":"10.0.0.5","cmd":"prog 10.0.0.5 -x","n":5}"#),
        ("app.log", r#"{"src":"A","dst":"a","cmd":"a b","n":"5"}"#),
        ("app.log", r#"{"src":"b","dst":null,"cmd":"a B","n":5}"#),
    ];
    for (selection, expected) in [
        ("{ src|fieldref: dst }", &[0, 1][..]),
        ("{ src|fieldref|cased: dst }", &[0]),
        ("{ cmd|fieldref|contains: src }", &[0, 1, 2]),
        ("{ cmd|contains|fieldref: src }", &[0, 1, 2]),
        ("{ cmd|fieldref|startswith: src }", &[1]),
        ("{ cmd|fieldref|endswith: src }", &[2]),
        ("{ cmd|fieldref|endswith|cased: src }", &[]),
        ("{ src|fieldref|neq: dst }", &[2]),
    ] {
        assert_eq!(selected(LINUX, selection, &events), expected, "{selection}");
    }
}

#[test]
fn logsource_is_read_in_any_case_and_of_this_product_only() {
    let exec = r#"{"process.executable.path":"/bin/sh","Image":"/bin/sh","user":"alice"}"#;
    let events = [
        (EXEC, exec),
        ("app.log", r#"{"Image":"/bin/sh","user":"alice"}"#),
        ("otlp.log", r#"{"Image":"C:\\bin/sh","user":"alice","os.type":"windows"}"#),
    ];
    for (logsource, expected) in [
        ("{ product: Linux, category: Process_Creation }", &[0][..]),
        ("{ product: windows, category: process_creation }", &[2]),
        ("{ product: macos, category: process_creation }", &[]),
        ("{ product: Windows }", &[2]),
        ("{ product: aws, service: cloudtrail }", &[1, 2]),
        ("{ category: process_creation }", &[0]),
        ("{ product: linux, service: an-app }", &[0, 1, 2]),
    ] {
        assert_eq!(
            selected(logsource, "{ Image|endswith: /sh }", &events),
            expected,
            "{logsource}"
        );
    }
    let not = "title: T\nlogsource: { product: windows }\n\
               detection: { s: { user: bob }, condition: not s }\n";
    let of_windows: Vec<usize> = matches(not, &events).into_iter().map(|m| m.1).collect();
    assert_eq!(of_windows, [2]);
}

#[test]
fn services_are_the_programs_that_write_the_log() {
    let record = |identifier: &str| {
        format!(r#"{{"tapio.journal.identifier":"{identifier}","message":"Failed for root"}}"#)
    };
    let (sshd, cron) = (record("sshd"), record("CRON"));
    let events = [("journal.message", &*sshd), ("journal.message", &*cron)];
    for (service, expected) in [("sshd", &[0][..]), ("cron", &[1]), ("syslog", &[0, 1])] {
        let logsource = format!("{{ product: linux, service: {service} }}");
        assert_eq!(selected(&logsource, "[failed for]", &events), expected, "{service}");
    }
}

const ALICE: &[(&str, &str)] = &[
    ("app.log", r#"{"user":"Alice","host":"a"}"#),
    ("app.log", r#"{"user":"bob","host":"a"}"#),
    ("app.log", r#"{"user":"alice","host":"a"}"#),
    ("app.log", r#"{"message":"took 30s"}"#),
];

#[test]
fn timeframe_is_the_window_of_an_aggregation() {
    let rule = |condition: &str| {
        format!(
            "title: T\nlogsource: {{ product: linux }}\ndetection:\n  selection: {{ user: [alice, bob] }}\n  \
             timeframe: 30s\n  condition: {condition}\n"
        )
    };
    for (condition, expected) in [
        ("selection | count() by host >= 3", &[2][..]),
        ("selection | count(user) by host > 2", &[2]),
        ("selection | count() > 1", &[1, 2]),
        ("1 of them", &[0, 1, 2]),
    ] {
        let found = matches(&rule(condition), ALICE);
        let expected: Vec<_> = expected.iter().map(|event| ("T".to_owned(), *event)).collect();
        assert_eq!(found, expected, "{condition}");
    }
    let warned = {
        let mut loaded = Loaded::default();
        loaded.text("r.yml", &rule("1 of them"));
        loaded.warnings.first().map(ToString::to_string).unwrap()
    };
    assert!(warned.starts_with("r.yml:5:14: `timeframe` has no effect"), "{warned}");
    for (condition, expected) in [
        ("selection | near other", "write a correlation rule with `type: temporal`"),
        ("selection | count() by host", "expected `| count(FIELD) by FIELD > NUMBER`"),
        ("selection | max(n) > 5", "`max` is not supported"),
    ] {
        let mut loaded = Loaded::default();
        loaded.text("r.yml", &rule(condition));
        let error = loaded.errors[0].to_string();
        assert!(error.starts_with("r.yml:6:14: ") && error.contains(expected), "{error}");
    }
}

const RULE: &str = "title: T
id: 11111111-2222-4333-8444-555555555555
logsource: { product: linux, service: an-app }
detection: { s: { host: a }, condition: s }
---
";

#[test]
fn filters_narrow_the_rules_they_name() {
    let filter = |logsource: &str, rules: &str| {
        format!(
            "{RULE}title: F\nlogsource: {logsource}\nfilter:\n  rules: {rules}\n  \
             selection: {{ user: alice }}\n  condition: not selection\n"
        )
    };
    for (logsource, rules, expected) in [
        ("{ product: linux }", "[T]", &[1][..]),
        ("{ product: linux }", "[11111111-2222-4333-8444-555555555555]", &[1]),
        ("{ product: linux, service: an-app }", "any", &[1]),
        ("{ product: windows }", "any", &[0, 1, 2]),
        ("{ product: linux, service: other }", "[T]", &[0, 1, 2]),
    ] {
        let found: Vec<usize> =
            matches(&filter(logsource, rules), ALICE).into_iter().map(|m| m.1).collect();
        assert_eq!(found, expected, "{logsource} {rules}");
    }
    let mut loaded = Loaded::default();
    loaded.text("r.yml", &filter("{ product: linux }", "[U]"));
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["r.yml:9:11: filter `F`: no rule `U` is loaded"]);
}

#[test]
fn global_document_is_part_of_those_after_it() {
    let rules = "action: global
title: T
level: high
detection: { condition: s }
---
logsource: { product: linux, service: one }
detection: { s: { user: alice } }
---
logsource: { product: linux, service: two }
detection: { s: { user: bob } }
---
action: repeat
detection: { s: { user: carol, host: a } }
---
action: reset
---
title: U
logsource: { product: linux }
detection: { s: { host: a }, condition: s and not t, t: { user: bob } }
";
    let named = |name: &str, event| (name.to_owned(), event);
    assert_eq!(
        matches(rules, ALICE),
        [named("T", 0), named("T", 2), named("T (2)", 1), named("U", 0), named("U", 2)]
    );
}

#[test]
fn group_by_has_the_fields_of_the_logsource() {
    let rules = "title: A
name: a
logsource: { product: linux, category: process_creation }
detection: { s: { Image|endswith: /id }, condition: s }
---
title: C
correlation:
  type: event_count
  rules: [a]
  group-by: [User, host]
  timespan: 10s
  condition: { gte: 2 }
";
    let id = |uid| format!(r#"{{"process.executable.path":"/bin/id","process.owner.uid":{uid}}}"#);
    let (root, other) = (id(0), id(7));
    let events = [(EXEC, &*root), (EXEC, &*other), (EXEC, &*root)];
    assert_eq!(matches(rules, &events), [("C".to_owned(), 2)]);
}

#[test]
fn rules_may_share_a_title_but_not_be_the_same() {
    let other = RULE.replace("{ host: a }", "{ user: bob }").replace("1111-", "1112-");
    let mut loaded = Loaded::default();
    loaded.text("a.yml", RULE);
    loaded.text("b.yml", &other);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["b.yml:1:1: `T` is also the title in a.yml:1; called `T (2)`"]);
    let named = |name: &str, event| (name.to_owned(), event);
    let expected = [named("T", 0), named("T", 1), named("T", 2), named("T (2)", 1)];
    assert_eq!(matches_of(loaded, ALICE), expected);
    let mut twice = Loaded::default();
    twice.text("a.yml", RULE);
    twice.text("c.yml", RULE);
    let errors: Vec<String> = twice.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["c.yml:1:1: duplicate rule `T`: the first is in a.yml:1"]);
}

fn written(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder.to_owned()
}

#[test]
fn folders_are_searched_through() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [written(
        folder.path(),
        &[
            ("b/c/t.yml", RULE),
            (
                "b/filter.yaml",
                "\u{feff}title: F\nlogsource: { product: linux }\nfilter: { rules: [T], s: { user: alice }, condition: not s }\n",
            ),
            ("b/.git/no.yml", "title: ["),
            ("readme.md", "title: ["),
        ],
    )];
    // A link back to the folder isn't followed in circles.
    std::os::unix::fs::symlink(folder.path(), folder.path().join("b/loop")).unwrap();
    let loaded = load(&paths);
    assert_eq!((loaded.rules.len(), loaded.warnings.len()), (1, 0));
    assert_eq!(matches_of(loaded, ALICE), [("T".to_owned(), 1)]);
}

#[test]
fn path_without_a_rule_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    written(
        folder.path(),
        &[("empty/x/notes.txt", "a"), ("none.yml", "# nothing\n"), ("t.yml", RULE)],
    );
    for (name, expected) in [
        ("empty", "empty: no rule: no .yml or .yaml file in this folder or below it"),
        ("none.yml", "none.yml: no rule in this file"),
        ("missing.yml", "missing.yml: can't be read: No such file"),
    ] {
        let loaded = load(&[folder.path().join("t.yml"), folder.path().join(name)]);
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert_eq!((loaded.rules.len(), errors.len()), (1, 1), "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    }
}
