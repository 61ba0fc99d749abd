//! `tapio stories`, `tapio events` and `tapio tail` against a server: filters, formats, and what
//! is stored while they follow.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value as Json;

use super::support::agent::{TAPIO, TestAgent, story, terminate, utf8};
use super::support::eventually::eventually;
use super::support::net::get_json;

/// A server as a process, on free ports.
pub(super) struct TestServer {
    fixture: TestAgent,
    config: String,
    process: Option<Child>,
}

impl TestServer {
    /// Starts a server without anything stored.
    pub(super) fn start() -> Self {
        let fixture = TestAgent::new();
        let config = fixture.config("jsonl", Path::new("/dev/null"));
        let mut server = Self { fixture, config, process: None };
        server.start_again();
        server
    }

    /// Starts the server on what it has stored.
    pub(super) fn start_again(&mut self) {
        let mut command = Command::new(TAPIO);
        command.args(["server", "--config", &self.config]).stdin(Stdio::null());
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let port = self.fixture.http;
        eventually("the server answers", || get_json(port, "/api/v1/stats").is_some());
    }

    /// Starts a server, and has an agent send what these recordings have.
    pub(super) fn with_recordings(names: &[&str]) -> Self {
        let server = Self::start();
        names.iter().for_each(|name| server.receive(name));
        server
    }

    /// Has an agent send what a recording has.
    pub(super) fn receive(&self, name: &str) {
        let config = self.fixture.config("jsonl", &story(name));
        let output = Command::new(TAPIO)
            .args(["run", "--until-finished", "--config", &config])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", utf8(&output.stderr));
    }

    /// The path of the configuration.
    pub(super) fn config(&self) -> &str {
        &self.config
    }

    /// The address for gRPC.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.fixture.grpc)
    }

    /// The port for HTTP.
    pub(super) fn http_port(&self) -> u16 {
        self.fixture.http
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TAPIO);
        command.args(arguments).env("TAPIO_SERVER", self.address());
        command.env("TZ", "UTC").env_remove("NO_COLOR").env_remove("LC_ALL").env("LANG", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The items of a list as JSON.
    pub(super) fn items(&self, arguments: &[&str]) -> Vec<Json> {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", utf8(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Ends the server without a chance to write anything.
    pub(super) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            terminate(process);
        }
    }
}

fn texts(items: &[Json], name: &str) -> Vec<String> {
    items.iter().map(|item| item[name].as_str().unwrap_or_default().to_owned()).collect()
}

/// Every filter selects what it names, and nothing else; the unfiltered list is the reference.
#[test]
fn each_filter_selects_events_and_stories() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl", "pod-startup.jsonl"]);
    let events = server.items(&["events", "-n", "all"]);
    assert_eq!(events.len(), 11);
    let trace = events.iter().find_map(|event| event["trace_id"].as_str()).unwrap().to_owned();
    let has = |event: &Json, key: &str, value: &str| event["entity"][key] == value;
    type Is<'a> = &'a dyn Fn(&Json) -> bool;
    let cases: &[(&[&str], Is<'_>)] = &[
        (&["--unit", "nginx"], &|e| has(e, "systemd.unit", "nginx.service")),
        (&["--kind", "journal.*"], &|e| e["kind"].as_str().unwrap().starts_with("journal.")),
        (&["-p", "error"], &|e| {
            matches!(e["severity"].as_str(), Some("error" | "critical" | "fatal"))
        }),
        (&["--pod", "shop/checkout-6f7d9c5b8-abcde"], &|e| {
            has(e, "k8s.pod.name", "checkout-6f7d9c5b8-abcde")
                && has(e, "k8s.namespace.name", "shop")
        }),
        (&["--trace-id", &trace], &|e| e["trace_id"] == *trace),
        (&["--grep", "NGINX"], &|e| {
            e["message"].as_str().unwrap_or_default().to_lowercase().contains("nginx")
        }),
        (&["--entity", "systemd.unit=ansible.service"], &|e| {
            has(e, "systemd.unit", "ansible.service")
        }),
        (&["--until", "2026-01-15T11:30:00Z"], &|e| {
            e["time"].as_str().unwrap()[..19] < *"2026-01-15T11:30:00"
        }),
        (&["--since", "2026-01-15 11:30"], &|e| {
            e["time"].as_str().unwrap()[..19] >= *"2026-01-15T11:30:00"
        }),
        (&["--node", "absent"], &|_| false),
        (&["--container", "absent"], &|_| false),
    ];
    for (filter, is) in cases {
        let found = server.items(&[&["events", "-n", "all"], *filter].concat());
        let expected: Vec<&Json> = events.iter().filter(|event| is(event)).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let stories = server.items(&["stories"]);
    let patterns = texts(&stories, "pattern");
    assert!(patterns.contains(&"cascade-failure".to_owned()), "{patterns:?}");
    for (filter, expected) in [
        (&["--pattern", "cascade-failure"][..], 1),
        (&["--pattern", "absent"], 0),
        (&["--state", "closed"], stories.len()),
        (&["--state", "open"], 0),
        (&["--unit", "nginx.service", "--pattern", "cascade-failure"], 1),
        (&["-n", "1"], 1),
        (&["-n", "0"], 0),
    ] {
        assert_eq!(server.items(&[&["stories"], filter].concat()).len(), expected, "{filter:?}");
    }
    let mut reversed = server.items(&["stories", "-r"]);
    reversed.reverse();
    assert_eq!(reversed, stories);
    let last = server.items(&["events", "-n", "3"]);
    assert_eq!(last, events[events.len() - 3..]);
    let mut newest_first = server.items(&["events", "-n", "3", "-r"]);
    newest_first.reverse();
    assert_eq!(newest_first, last);
}

/// The list of the API has the same items as that of the command.
#[test]
fn json_is_that_of_the_api() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let of_api = |path: &str| {
        let page = get_json(server.fixture.http, path).unwrap();
        page["items"].as_array().unwrap().clone()
    };
    // The command leaves lifecycles out, unless a pattern selects them.
    let is_of_rule = |story: &Json| !story["rule"].as_str().unwrap().ends_with("-lifecycle");
    let (of_rules, lifecycles): (Vec<Json>, Vec<Json>) =
        of_api("/api/v1/stories").into_iter().partition(is_of_rule);
    assert_eq!(server.items(&["stories", "-r"]), of_rules);
    let pattern = lifecycles[0]["pattern"].as_str().unwrap();
    let found = server.items(&["stories", "--pattern", pattern]);
    assert!(!found.is_empty() && found.iter().all(|story| !is_of_rule(story)), "{found:?}");
    assert_eq!(server.items(&["events", "-r"]), of_api("/api/v1/events"));
    let stories = server.items(&["stories"]);
    let id = stories[0]["id"].as_str().unwrap();
    let one: Json =
        serde_json::from_slice(&server.run(&["stories", id, "-o", "json"]).stdout).unwrap();
    assert_eq!(one, get_json(server.fixture.http, &format!("/api/v1/stories/{id}")).unwrap());
    let text = utf8(&server.run(&["stories", &id[..8]]).stdout);
    for expected in ["Root cause\n", "Actions\n  1. ", "Impact\n", "Events\nTIME", id] {
        assert!(text.contains(expected), "{expected:?} isn't in\n{text}");
    }
    let markdown = utf8(&server.run(&["stories", id, "-o", "markdown"]).stdout);
    assert!(markdown.starts_with("## ") && markdown.contains("\n| time | source |"), "{markdown}");
}

#[test]
fn senseless_arguments_are_usage_errors() {
    let server = TestServer::start();
    for (arguments, cause) in [
        (&["events", "--state", "open"][..], "--state is a filter of stories"),
        (&["tail", "--state", "open"], "--state is a filter of stories"),
        (&["tail", "--since", "1h"], "unexpected argument '--since'"),
        (&["stories", "--since", "soon"], "--since: \"soon\" isn't a time"),
        (&["stories", "--since", "1h", "--until", "2h"], "--until is not after --since"),
        (&["stories", "-f", "-r"], "cannot be used with"),
        (&["stories", "abcd", "--state", "open"], "filters are for the list"),
        (&["stories", "xyz"], "isn't a story id"),
        (&["stories", "--pod", "/a"], "--pod: \"/a\" isn't NAMESPACE/NAME"),
        (&["events", "--node", ""], "--node is empty"),
        (&["events", "-p", "loud"], "expected trace, debug"),
        (&["events", "-n", "few"], "expected a number, or all"),
    ] {
        let output = server.run(arguments);
        let error = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(cause), "{arguments:?}: {error}");
    }
    let absent = server.run(&["stories", "abcd"]);
    assert_eq!(absent.status.code(), Some(1), "{}", utf8(&absent.stderr));
    let output = server.run(&["stories", "-o", "json"]);
    assert_eq!((utf8(&output.stdout), utf8(&output.stderr)), ("[]\n".into(), String::new()));
}

/// Ids of the lines that a process prints, until `enough` of them are there.
fn ids(process: Child, enough: usize) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut process = process;
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let id = |line: std::io::Result<String>| {
            let event: Json = serde_json::from_str(&line.unwrap()).unwrap();
            event["id"].as_str().unwrap().to_owned()
        };
        let ids = lines.take(enough).map(id).collect();
        process.kill().unwrap();
        process.wait().unwrap();
        ids
    })
}

/// The list and the stream behind it have each event once, although events are stored all the
/// time, and the server is killed twice and started again.
#[test]
fn follow_has_each_event_once_over_a_killed_server() {
    let mut server = TestServer::start();
    let target = format!("127.0.0.1:{}", server.fixture.grpc);
    let load = |seconds: &str, node: &str| {
        let rate = ["--rate", "2000", "--duration", seconds, "--batch-events", "50"];
        let arguments = [&["load", "--target", &target, "--node", node][..], &rate].concat();
        let mut command = Command::new(TAPIO);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut first = load("3", "a");
    let stored = |server: &TestServer| {
        let stats = get_json(server.fixture.http, "/api/v1/stats");
        stats.and_then(|stats| stats["ingest"]["events"].as_u64()).unwrap_or(0)
    };
    eventually("events are stored", || stored(&server) > 500);
    let followed: Vec<_> = (0..3)
        .map(|_| {
            let mut command = server.command(&["events", "-f", "-n", "all", "-o", "jsonl"]);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    first.wait().unwrap();
    for node in ["b", "c"] {
        server.kill();
        server.start_again();
        load("1", node).wait().unwrap();
    }
    let all = texts(&server.items(&["events", "-n", "all"]), "id");
    assert!(all.len() > 8_000, "{}", all.len());
    for process in followed {
        let followed = ids(process, all.len()).join().unwrap();
        assert_eq!(followed.iter().collect::<BTreeSet<_>>().len(), all.len(), "twice or missing");
        assert!(followed == all, "another order");
    }
}

/// A story that opens while it is followed is printed, and so is its end.
#[test]
fn follow_prints_stories_that_are_stored_later() {
    let server = TestServer::start();
    let mut command = server.command(&["stories", "-f", "-o", "jsonl"]);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = ids(process, 2);
    let config = server.fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    while !lines.is_finished() {
        let output = Command::new(TAPIO)
            .args(["run", "--until-finished", "--config", &config])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", utf8(&output.stderr));
    }
    assert_eq!(lines.join().unwrap().len(), 2);
}

/// A reader that leaves, closed standard streams, no home, a folder that can't be written to.
#[test]
fn surroundings_do_not_matter() {
    let server = TestServer::with_recordings(&["error-rate.jsonl"]);
    let shell = |script: &str| {
        let command = server.command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", script, TAPIO]).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        shell.env_remove("HOME").current_dir("/proc").output().unwrap()
    };
    let head = shell("\"$0\" events -n all | head -n 1");
    let (lines, error) = (utf8(&head.stdout).lines().count(), utf8(&head.stderr));
    assert_eq!((lines, head.status.code(), &*error), (1, Some(0), ""));
    for script in [
        "(\"$0\" events -n all; echo \"code $?\" >&2) | true",
        "\"$0\" events >&-; echo \"code $?\" >&2",
        "\"$0\" stories 2>&- <&-; echo \"code $?\" >&2",
    ] {
        let output = shell(script);
        assert!(utf8(&output.stderr).ends_with("code 0\n"), "{script}: {}", utf8(&output.stderr));
    }
    let full = shell("\"$0\" events > /dev/full; echo \"code $?\" >&2");
    let error = utf8(&full.stderr);
    assert!(
        error.contains("can't write to standard output") && error.ends_with("code 1\n"),
        "{error}"
    );
    let ascii = shell(
        "LC_ALL=C \"$0\" stories; LC_ALL=C \"$0\" events; LC_ALL=C \"$0\" stories $(\"$0\" stories -n 1 -o json | grep -o '\"id\":\"[0-9a-f]*' | head -n 1 | cut -c 7-)",
    );
    let text = utf8(&ascii.stdout);
    assert!(text.lines().count() > 100 && text.is_ascii(), "{text}");
}

/// An event is found by the pattern of a story that has it, and by its own pattern in the story.
#[test]
fn events_are_found_by_the_pattern_of_their_stories() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let count = |pattern: &str| server.items(&["events", "--pattern", pattern, "-n", "all"]).len();
    let story = &server.items(&["stories", "--pattern", "cascade-failure"])[0];
    let members = story["members"].as_array().unwrap().len();
    assert_eq!(count("cascade-failure"), members, "{story:#}");
    assert_eq!((count("configuration-error"), count("no-such-pattern")), (1, 0));
}

/// On a terminal of 40 columns, no line is wider.
#[test]
fn lines_fit_a_narrow_terminal() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    for list in ["stories", "events"] {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command"]);
        script.arg(format!("stty cols 40; '{TAPIO}' {list} --no-pager --color never"));
        script.arg("/dev/null").stdin(Stdio::null()).stdout(Stdio::piped());
        script.env("TAPIO_SERVER", format!("127.0.0.1:{}", server.fixture.grpc));
        script.env("TZ", "UTC").env("LANG", "C.UTF-8").env_remove("COLUMNS").env_remove("LC_ALL");
        let Ok(mut process) = script.spawn() else {
            return;
        };
        let mut text = String::new();
        process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(process.wait().unwrap().success(), "{text}");
        assert!(text.contains("2026-01-15 11:"), "{text}");
        for line in text.lines() {
            assert!(line.trim_end().chars().count() <= 40, "{line:?}");
        }
    }
}

/// A note is printed, is part of the story everywhere, and is removed again.
#[test]
fn story_is_annotated_and_its_rule_is_silenced() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let stories = server.items(&["stories", "--pattern", "cascade-failure"]);
    let (id, rule) = (stories[0]["id"].as_str().unwrap(), stories[0]["rule"].as_str().unwrap());
    let json = |arguments: &[&str]| -> Json {
        let output = server.run(&[arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", utf8(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let note = "restarted \u{1b}[2J it";
    let marks = json(&[
        "annotate",
        &id[..8],
        "--ack",
        "--note",
        note,
        "--wrong-cause",
        "the disk",
        "--by",
        "ann",
    ]);
    assert_eq!(marks["acknowledged"]["by"], "ann");
    assert_eq!(marks["notes"][0]["text"], *note);
    assert_eq!(marks["wrong_cause"]["cause"], "the disk");
    let silence = json(&["silence", "add", rule, "--for", "2h", "--reason", "known"]);
    assert_eq!(json(&["silence", "list"]), Json::Array(vec![silence.clone()]));
    let story = json(&["stories", id]);
    assert_eq!((&story["annotations"], &story["silence"]), (&marks, &silence));
    let path = format!("/api/v1/stories/{id}");
    assert_eq!(story, get_json(server.fixture.http, &path).unwrap());
    for format in ["text", "markdown"] {
        let text = utf8(&server.run(&["stories", id, "-o", format]).stdout);
        for expected in ["acknowledged by ann", "wrong cause by ann: the disk", "silenced until "] {
            assert!(text.contains(expected), "{expected:?} isn't in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    let unacked = json(&["annotate", id, "--unack", "--right-cause"]);
    assert!(unacked["acknowledged"].is_null() && unacked["wrong_cause"].is_null(), "{unacked}");
    assert!(unacked["right_cause"].is_object(), "{unacked}");
    let noted = json(&["annotations", &id[..8]]);
    let actions: Vec<&Json> = noted.as_array().unwrap().iter().map(|one| &one["action"]).collect();
    assert_eq!(actions, ["note", "right_cause"]);
    let over_http = get_json(server.fixture.http, "/api/v1/annotations").unwrap();
    assert_eq!(json(&["annotations"]), over_http["items"]);
    assert_eq!(json(&["annotations", "--action", "silence"])[0]["rule"], rule);
    let text = utf8(&server.run(&["annotations"]).stdout);
    assert!(text.contains("restarted") && !text.contains('\u{1b}'), "{text}");
    let unmarked = json(&["annotate", id, "--unmark-cause"]);
    assert!(unmarked["right_cause"].is_null(), "{unmarked}");
    let silence = silence["id"].as_str().unwrap();
    assert!(server.run(&["silence", "remove", silence]).status.success());
    assert_eq!(json(&["silence", "list"]), Json::Array(Vec::new()));
    errors_of_annotations(&server, id, silence);
}

fn errors_of_annotations(server: &TestServer, id: &str, silence: &str) {
    for (arguments, code, cause) in [
        (&["annotate", id][..], 2, "required"),
        (&["annotate", id, "--ack", "--unack"], 2, "cannot be used with"),
        (&["annotate", id, "--note", " "], 2, "--note: is empty"),
        (&["annotate", "abcd", "--ack"], 1, "no story abcd"),
        (&["silence", "remove", silence], 1, "no silence"),
        (&["silence", "add", "a", "--for", "0"], 2, "--for: must be greater than zero"),
        (&["silence", "add", "a", "--for", "1h", "--key", "x"], 2, "expected NAME=VALUE"),
        (&["annotations", "--action", "gone"], 2, "invalid value"),
        (&["annotations", "--since", "1h", "--until", "2h"], 2, "--until is not after --since"),
        (&["annotations", "abcd"], 1, "no story abcd"),
    ] {
        let output = server.run(arguments);
        let error = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(cause), "{arguments:?}: {error}");
    }
}
