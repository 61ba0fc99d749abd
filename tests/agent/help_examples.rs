//! The examples in the help of every command, run as they stand in a shell.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::query_commands::TestServer;
use super::support::agent::{TAPIO, story, utf8};

/// Beginnings of examples that aren't run, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("#", "a comment"),
    ("sudo ", "root, for seconds"),
    ("tapio demo", "root, for seconds"),
    ("tapio bench ", "minutes; tests/agent/bench.rs runs short ones"),
    ("tapio load ", "an agent at the default port"),
    ("tapio status", "an agent at the default port"),
    ("tapio run --standalone", "the default ports"),
    ("tapio rules suggest > ", "an agent at the default port"),
    ("tapio debug log-level ", "an agent at the default port; tests/agent/debug.rs runs it"),
    ("tapio debug record ", "likewise"),
    ("tapio debug dump > ", "likewise"),
    ("tapio notify ", "receivers of notifications; tests/notify runs both verbs"),
    ("tapio top --view", "a terminal; tests/agent/top.rs has one"),
    ("tapio server --config", "the server of this test has the folder and the ports"),
];

/// Parts of examples that follow or serve until they are ended.
const ENDLESS: &[&str] = &["tapio run ", "tapio tail", " -f "];

/// Time after which an endless command has read its arguments and reached its server.
const STARTED: Duration = Duration::from_millis(1500);

fn help(path: &[String]) -> String {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    // Wide enough for every example.
    let output = Command::new(TAPIO).args(&arguments).env("COLUMNS", "1000").output().unwrap();
    assert!(output.status.success(), "{path:?}");
    utf8(&output.stdout)
}

/// The lines of a section of a help text, without their indent.
fn section<'h>(help: &'h str, titles: &[&str]) -> Vec<&'h str> {
    let lines = help.lines().skip_while(|line| !titles.contains(line)).skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

/// The examples of all commands without subcommands.
fn examples(path: &[String]) -> Vec<String> {
    let text = help(path);
    let names =
        section(&text, &["Commands:"]).into_iter().filter_map(|line| line.split(' ').next());
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    if names.is_empty() {
        let found = section(&text, &["Example:", "Examples:"]);
        assert!(!found.is_empty(), "{path:?} has no example:\n{text}");
        return found.into_iter().map(str::to_owned).collect();
    }
    names.iter().flat_map(|name| examples(&[path, &[(*name).to_owned()]].concat())).collect()
}

/// A folder with the files that examples name.
fn folder(server: &TestServer) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at = |name: &str| dir.path().join(name);
    for name in ["bin", "my-rules", "tests", "home"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    std::os::unix::fs::symlink(TAPIO, at("bin/tapio")).unwrap();
    // The tests of built-in rules name recordings of the repository.
    std::os::unix::fs::symlink(root.join("tests/stories"), at("tests/stories")).unwrap();
    let recorded = story("nginx-cascade.jsonl");
    for name in ["events.jsonl", "yesterday.jsonl"] {
        std::fs::copy(&recorded, at(name)).unwrap();
    }
    std::fs::copy(root.join("rules/oom-kill.yaml"), at("my-rules/oom-kill.yaml")).unwrap();
    for name in ["tapio.yaml", "old.yaml", "new.yaml"] {
        std::fs::copy(server.config(), at(name)).unwrap();
    }
    dir
}

/// Starts an example in the folder.
fn start(server: &TestServer, dir: &Path, example: &str) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    // In place of the shell, where it is one command: it is ended by its id.
    let script = if example.contains([';', '>', '|']) {
        example.to_owned()
    } else {
        format!("exec {example}")
    };
    shell.args(["-c", &script]).current_dir(dir).stdin(Stdio::null());
    shell.env("PATH", format!("{}:{path}", dir.join("bin").display()));
    shell.env("HOME", dir.join("home")).env_remove("XDG_STATE_HOME").env_remove("STATE_DIRECTORY");
    shell.env("TAPIO_SERVER", server.address());
    shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn every_example_of_the_help_works() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let dir = folder(&server);
    let stories = server.items(&["stories", "--pattern", "cascade-failure"]);
    let id = stories[0]["id"].as_str().unwrap();
    let silence = server.run(&["silence", "add", "a", "--for", "1h", "-o", "json"]);
    let silence: serde_json::Value = serde_json::from_slice(&silence.stdout).unwrap();
    let all = examples(&[]);
    assert!(all.len() > 30, "{all:?}");
    let mut failed = Vec::new();
    let mut used = vec![false; NOT_RUN.len()];
    for example in &all {
        if let Some(place) = NOT_RUN.iter().position(|(begin, _)| example.starts_with(begin)) {
            used[place] = true;
            continue;
        }
        let etc = format!("{}/", dir.path().display());
        let mut command = example.replace("/etc/tapio/", &etc);
        for digits in ["1b4f6f2a", "1b4f…", "1b4f"] {
            command = command.replace(digits, &id[..8]);
        }
        command = command.replace("3fa4b2c1d0e9", silence["id"].as_str().unwrap());
        // The node of the recordings.
        command = command.replace("worker-1", "test");
        let mut process = start(&server, dir.path(), &command);
        if ENDLESS.iter().any(|part| command.contains(part)) {
            std::thread::sleep(STARTED);
            if process.try_wait().unwrap().is_none() {
                process.kill().unwrap();
                process.wait().unwrap();
                continue;
            }
        }
        let output = process.wait_with_output().unwrap();
        if !output.status.success() || ENDLESS.iter().any(|part| command.contains(part)) {
            failed.push(format!("{example}: {}: {}", output.status, utf8(&output.stderr)));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    let unused = NOT_RUN.iter().zip(used).filter(|(_, used)| !used).map(|((begin, _), _)| begin);
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&&str>::new(), "no example begins with these");
}
