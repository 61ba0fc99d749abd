//! `tapio debug` with a running agent: log level, flight recorder, bundle.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value as Json, json};

use super::support::agent::{TAPIO, TestAgent, story, terminate, utf8};
use super::support::eventually::eventually_ok;
use super::support::net::get_json;

/// An agent with an embedded server that reads a recorded story, its log in a file.
struct Debugged {
    fixture: TestAgent,
    config: String,
    log: String,
    child: Child,
}

impl Debugged {
    fn start(more: &str, environment: &[(&str, &str)], jsonl: &Path) -> Self {
        let fixture = TestAgent::new();
        let config = fixture.config("jsonl", jsonl);
        let text = std::fs::read_to_string(&config).unwrap() + more;
        let (config, log) = (fixture.file("tapio.yaml", &text), fixture.file("log", ""));
        let mut command = Command::new(TAPIO);
        command.args(["run", "--standalone", "--config", &config]);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let agent = Self { fixture, config, log, child };
        agent.fixture.wait(|status| status["state"] == "ok");
        agent
    }

    fn debug(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(TAPIO);
        command.arg("debug").args(arguments).args(["--config", &self.config]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn status(&self) -> Json {
        get_json(self.fixture.admin, "/debug/status").unwrap()
    }

    /// Sends a request as another program of this node; returns the answer's status line.
    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.fixture.admin)).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    utf8(&output.stdout)
}

#[test]
fn log_level_changes_for_a_time() {
    let agent = Debugged::start("", &[], &story("nginx-cascade.jsonl"));
    let out = ok(&agent.debug(&["log-level", "info,tapio=debug", "--for", "1h"]));
    assert!(out.starts_with("log level: info,tapio=debug, for "), "{out}");
    assert_eq!(agent.status()["log"]["configured"], "info");
    let out = ok(&agent.debug(&["log-level", "--reset"]));
    assert_eq!(out, "log level: info\n");
    ok(&agent.debug(&["log-level", "debug", "--for", "1ms"]));
    eventually_ok("the configured level is restored", || match agent.status() {
        status if status["log"]["level"] == "info" => Ok(()),
        status => Err(status),
    });
    let log = std::fs::read_to_string(&agent.log).unwrap();
    assert!(log.contains("log level changed at run time"), "{log}");
    assert!(log.contains("configured log level is in force again"), "{log}");
    let out = ok(&agent.debug(&["log-level", "warn", "--for", "3s"]));
    assert_eq!(out, "log level: warn, for 3s; then info\n");
    for level in ["tapio=loud", "inof", "foo,bar=baz"] {
        let bad = agent.debug(&["log-level", level]);
        assert_eq!(bad.status.code(), Some(1), "{level}");
        let error = utf8(&bad.stderr);
        assert!(error.contains("400 Bad Request: log.level: "), "{level}: {error}");
    }
    assert!(terminate(agent.child).status.success());
}

#[test]
fn changes_need_the_secret_and_come_from_no_other_site() {
    let agent = Debugged::start("", &[], &story("nginx-cascade.jsonl"));
    let folder = Path::new(&agent.config).parent().unwrap();
    let secret = std::fs::read_to_string(folder.join("operator.secret")).unwrap();
    let header = format!("x-tapio-operator: {secret}\r\n");
    let body = r#"{"level":"debug"}"#;
    let path = "/debug/log-level";
    for (headers, body, expected) in [
        ("", body, "HTTP/1.1 403"),
        ("x-tapio-operator: 0000\r\n", body, "HTTP/1.1 403"),
        (&format!("{header}Origin: http://attacker.example\r\n"), body, "HTTP/1.1 403"),
        (&header, r#"{"level":"debug","fro":"1m"}"#, "HTTP/1.1 422"),
        (&header, "{", "HTTP/1.1 400"),
        (&header, r#"{"level":"debug","for":"0s"}"#, "HTTP/1.1 400"),
        (&header, r#"{"level":"debug","for":"366d"}"#, "HTTP/1.1 400"),
        (&header, r#"{"level":"debug","for":"soon"}"#, "HTTP/1.1 422"),
    ] {
        let answer = agent.post(path, headers, body);
        assert!(answer.starts_with(expected), "{headers:?} {body}: {answer}");
        assert_eq!(agent.status()["log"]["level"], "info", "{headers:?} {body}");
    }
    assert!(agent.post(path, &header, body).starts_with("HTTP/1.1 200"));
    assert_eq!(agent.status()["log"]["level"], "debug");
    let (status, _) = agent.fixture.page("/debug/recorder/events").unwrap();
    assert!(status.contains("403"), "{status}");
    let answer = agent.post("/debug/recorder", "", r#"{"on":true}"#);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = agent.post("/debug/recorder", &header, r#"{"on":true,"bytes":"1KiB"}"#);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(agent.status()["recorder"]["on"], false);
    assert!(terminate(agent.child).status.success());
}

/// The stories in lines of `tapio replay`, by id, without the times of the replay.
fn stories(lines: &str) -> BTreeMap<String, Json> {
    let values = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let story = |value: Json| {
        let part = |key: &str| value[key].clone();
        let parts = ["pattern", "name", "trace_id", "root_cause", "members"].map(part);
        (value["id"].as_str().unwrap().to_owned(), json!(parts))
    };
    values.map(story).collect()
}

#[test]
fn replay_of_the_flight_recorder_gives_the_same_stories() {
    let fixture = TestAgent::new();
    // Followed: the events come after the recorder is switched on.
    let events = fixture.file("events.jsonl", "");
    let config = fixture.config("jsonl", Path::new(&events));
    let text = std::fs::read_to_string(&config).unwrap().replace("paths:", "follow: true, paths:");
    let config = fixture.file("tapio.yaml", &text);
    let mut command = Command::new(TAPIO);
    command.args(["run", "--standalone", "--config", &config]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    fixture.wait(|status| status["state"] == "ok");
    let debug = |arguments: &[&str]| {
        let mut command = Command::new(TAPIO);
        command.arg("debug").args(arguments).args(["--config", &config]).output().unwrap()
    };
    let out = ok(&debug(&["record", "--for", "10m", "--keep", "5m", "--bytes", "8MiB"]));
    assert!(out.starts_with("flight recorder: on for "), "{out}");
    let recorded = std::fs::read_to_string(story("nginx-cascade.jsonl")).unwrap();
    std::fs::write(&events, &recorded).unwrap();
    let number = recorded.lines().filter(|line| !line.trim().is_empty()).count();
    let dump = eventually_ok("all events are in the recorder", || {
        let out = utf8(&debug(&["dump"]).stdout);
        if out.lines().count() == number { Ok(out) } else { Err(out) }
    });
    let file = fixture.file("dump.jsonl", &dump);
    let replay = |file: &str| {
        let mut command = Command::new(TAPIO);
        stories(&ok(&command.args(["replay", file]).output().unwrap()))
    };
    let source = story("nginx-cascade.jsonl").display().to_string();
    let expected = replay(&source);
    assert!(!expected.is_empty());
    assert_eq!(replay(&file), expected);
    assert_eq!(ok(&debug(&["record", "--off"])), "flight recorder: off\n");
    let empty = debug(&["dump"]);
    assert_eq!(ok(&empty), "");
    assert!(utf8(&empty.stderr).contains("the flight recorder has no events"));
    assert!(terminate(child).status.success());
    let gone = debug(&["dump"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(utf8(&gone.stderr).contains("no agent answers at http://127.0.0.1:"));
}

/// Unpacks a bundle with tar; returns its files by name.
fn unpacked(bundle: &Path) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(bundle).arg("-C").arg(folder.path());
    assert!(tar.status().unwrap().success());
    let top = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    let files = std::fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap());
    let text = |path: &Path| utf8(&std::fs::read(path).unwrap());
    files.map(|f| (f.file_name().display().to_string(), text(&f.path()))).collect()
}

/// Twenty secrets, each with another form.
fn planted() -> Vec<String> {
    (0..20).map(|n| format!("zq{n:02}Kf8vTr3mWp9xLd5{n:02}")).collect()
}

/// Events with the first eleven secrets.
fn leaking_events(s: &[String]) -> String {
    let messages = [
        format!("login failed: password={}", s[0]),
        format!("GET https://user:{}@db.example/x", s[1]),
        format!("Authorization: Bearer {}", s[2]),
        format!("exec mysql -p{} -u root", s[3]),
        format!("api_key: {}", s[4]),
        format!("https://example.org/cb?access_token={}&a=1", s[5]),
        format!("PGPASSWORD={} psql", s[6]),
        format!("curl -u admin:{} http://h/", s[7]),
        format!("{{\"client_secret\": \"{}\"}}", s[8]),
    ];
    let command_line = format!("tool --token {}", s[10]);
    let line = |(n, message): (usize, &String)| {
        let event = json!({
            "time": 1_769_940_000_000_000_000u64 + n as u64, "kind": "t.leak", "source": "test",
            "severity": "error", "message": message,
            "attributes": {"db.password": s[9], "process.command_line": command_line},
        });
        format!("{event}\n")
    };
    messages.iter().enumerate().map(line).collect()
}

/// A configuration with the other secrets; that of the environment is `TAPIO_TEST_SECRET`.
fn leaking_config(s: &[String], header_file: &str) -> String {
    let [bearer, plain, cookie, query, telemetry] = [&s[14], &s[15], &s[16], &s[17], &s[18]];
    let headers = format!(
        "{{ authorization: \"Bearer {bearer}\", x-plain: \"{plain}\", cookie: \"id={cookie}\" }}"
    );
    format!(
        "cluster: \"${{TAPIO_TEST_SECRET}}\"\nredact: {{ names: [x-pin] }}\n\
         dataflow: {{ environment: \"x-pin={pin}\", service_name: \"${{file:{header_file}}}\" }}\n\
         export: {{ otlp: [{{ name: a, endpoint: \"http://127.0.0.1:1\", headers: {headers} }}] }}\n\
         telemetry: {{ otlp: {{ endpoint: \"http://127.0.0.1:1/?token={query}\", headers: {{ \
         k: \"{telemetry}\", proxy-authorization: \"Basic {basic}\" }} }} }}\n",
        pin = s[13],
        basic = s[11],
    )
}

/// The entries of every bundle, and those of a running agent.
const ALWAYS: &[&str] = &[
    "version.txt",
    "config.yaml",
    "config-changes.txt",
    "doctor.json",
    "kernel.txt",
    "cgroup.txt",
    "spool.json",
    "recovery.json",
    "store.json",
    "state-dir.txt",
    "missing.txt",
];
const RUNNING: &[&str] = &[
    "status.json",
    "readyz.txt",
    "metrics.txt",
    "debug.json",
    "history.jsonl",
    "process.txt",
    "threads.txt",
];

#[test]
fn bundle_has_the_state_and_none_of_twenty_secrets() {
    let (s, files) = (planted(), TestAgent::new());
    let events = files.file("events.jsonl", &leaking_events(&s));
    let config = leaking_config(&s, &files.file("header", &s[12]));
    let environment = [("TAPIO_TEST_SECRET", s[19].as_str())];
    let agent = Debugged::start(&config, &environment, Path::new(&events));
    agent.fixture.wait(|status| status["cons1"]["total"]["received"].as_u64() >= Some(9));
    ok_with_secret(&agent, &environment, &["record", "--for", "1m"]);
    eventually_ok("the first line of the history", || match agent.fixture.page("/debug/history") {
        Some((_, body)) if !body.is_empty() => Ok(()),
        page => Err(format!("{page:?}")),
    });
    let bundle = |output: &str| {
        let mut command = Command::new(TAPIO);
        command.args(["debug", "bundle", "--config", &agent.config, "--output", output]);
        command.envs(environment).output().unwrap()
    };
    let running = agent.config.replace("tapio.yaml", "running.tar.gz");
    assert_eq!(ok(&bundle(&running)), format!("{running}\n"));
    let found = unpacked(Path::new(&running));
    for name in ALWAYS.iter().chain(RUNNING) {
        assert!(found.contains_key(*name), "{name}: {:?}", found.keys());
    }
    for (name, part) in [
        ("threads.txt", "bridge"),
        ("history.jsonl", "\"state\""),
        ("spool.json", "segment-"),
        ("metrics.txt", "tapio_"),
        ("config-changes.txt", "export.otlp"),
    ] {
        assert!(found[name].contains(part), "{name}: {}", found[name]);
    }
    assert_no_secret(&found);
    let again = bundle(&running);
    assert!(!again.status.success(), "an existing file is kept");
    assert!(utf8(&again.stderr).contains("File exists"), "{}", utf8(&again.stderr));

    let pid = rustix::process::Pid::from_raw(agent.child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let stopped = running.replace("running", "stopped");
    let found = eventually_ok("the agent has ended", || {
        let _ = std::fs::remove_file(&stopped);
        ok(&bundle(&stopped));
        let found = unpacked(Path::new(&stopped));
        if found.contains_key("status.json") { Err("its pages answer") } else { Ok(found) }
    });
    assert!(ALWAYS.iter().all(|name| found.contains_key(*name)), "{:?}", found.keys());
    assert!(found["missing.txt"].contains("the agent's pages (http://127.0.0.1:"));
    assert!(found["spool.json"].contains("segment-"));
    assert_no_secret(&found);
    let Debugged { mut child, .. } = agent;
    child.wait().unwrap();
}

fn ok_with_secret(agent: &Debugged, environment: &[(&str, &str)], arguments: &[&str]) {
    let mut command = Command::new(TAPIO);
    command.arg("debug").args(arguments).args(["--config", &agent.config]);
    ok(&command.envs(environment.iter().copied()).output().unwrap());
}

fn assert_no_secret(files: &BTreeMap<String, String>) {
    for secret in planted() {
        for (name, text) in files {
            assert!(!text.contains(&secret), "{name} has {secret}");
        }
    }
}
