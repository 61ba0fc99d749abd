//! `tapio server` and `tapio run --standalone` as processes: SIGHUP.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::support::agent::{TestAgent, start, terminate};
use super::support::eventually::eventually_ok;
use super::support::net::{get, get_json};

struct Server {
    fixture: TestAgent,
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(command: &[&str], more: &str) -> Self {
        let fixture = TestAgent::new();
        let path = write_config(&fixture, more);
        let mut child = start(&[command, &["--config", &path]].concat());
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { fixture, child, log };
        server.wait_for_line("server: listening");
        server
    }

    /// Reads the log until a line has this part; returns the line.
    fn wait_for_line(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ends without {part:?}");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Writes another configuration and sends SIGHUP.
    fn reload(&self, more: &str) {
        write_config(&self.fixture, more);
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }
}

fn write_config(fixture: &TestAgent, more: &str) -> String {
    let path = fixture.file("unused", "");
    let dir = path.trim_end_matches("/unused");
    let text = format!(
        "state_dir: {dir}\nadmin: {{ listen: \"127.0.0.1:{}\" }}\ncollectors: {{ only: [kmsg] }}\n\
         server:\n  grpc_listen: \"127.0.0.1:{}\"\n  http_listen: \
         \"127.0.0.1:{}\"\n{more}",
        fixture.admin, fixture.grpc, fixture.http
    );
    fixture.file("server.yaml", &text)
}

#[test]
fn sighup_reloads_the_server() {
    let mut server = Server::start(&["server"], "");
    server.reload(
        "  retention_bytes: 67108864\n  retention_age: 30d\n  segment_bytes: 65536\nlog: { level: \
         \"info,tapio=debug\" }\n",
    );
    let line = server.wait_for_line("configuration reloaded");
    for change in [
        "server.retention_bytes: 1GiB → 64MiB",
        "server.retention_age: 0s → 720h",
        "log.level: info → \"info,tapio=debug\"",
    ] {
        assert!(line.contains(change), "{line}");
    }
    let line = server.wait_for_line("take effect at the next start");
    assert!(line.contains("changes of server.segment_bytes take"), "{line}");

    server.reload("  retention_bytes: 5\n");
    let line = server.wait_for_line("reload refused");
    assert!(line.contains("server.yaml:7:3: server.retention_bytes: 5 is less than"), "{line}");
    server.reload("  retenton_bytes: 5\n");
    let line = server.wait_for_line("reload refused");
    assert!(line.contains("server.yaml:7:3: unknown field"), "{line}");

    let http = server.fixture.http;
    let ready = eventually_ok("the server answers", || get(http, "/readyz").ok_or("none"));
    assert!(ready.0.contains("200"), "{ready:?}");
    let Server { child, .. } = server;
    assert!(terminate(child).status.success());
}

#[test]
fn sighup_reloads_the_server_in_an_agent() {
    let mut server = Server::start(&["run", "--standalone"], "");
    server.reload("  stories_kept: 77\nlog: { level: \"info,tapio=debug\" }\n");
    let line = server.wait_for_line("configuration reloaded");
    for change in ["server.stories_kept: 10000 → 77", "log.level: info → \"info,tapio=debug\""]
    {
        assert!(line.contains(change), "{line}");
    }
    server.reload("  retention_bytes: 5\n");
    let line = server.wait_for_line("reload refused");
    assert!(line.contains("server.yaml:7:3: server.retention_bytes: 5 is less than"), "{line}");
    let Server { child, .. } = server;
    assert!(terminate(child).status.success());
}

#[test]
fn sighup_reloads_the_agent() {
    let mut server = Server::start(&["run", "--standalone"], "memory_limit: 1GiB\n");
    let rule = server.fixture.file("bad.yaml", "rule: [\n");
    let recorder = "debug: { recorder: { enabled: true, keep: 1m } }\n";
    server
        .reload(&format!("memory_limit: 512MiB\nlog: {{ format: json }}\nnode: other\n{recorder}"));
    let line = server.wait_for_line("configuration reloaded: ");
    assert!(line.starts_with('{'), "the log is JSON from here on: {line}");
    for change in [
        "memory_limit: 1GiB → 512MiB",
        "log.format: text → json",
        "debug.recorder.enabled: false → true",
        "debug.recorder.keep: 10m → 1m",
    ] {
        assert!(line.contains(change), "{change}: {line}");
    }
    let line = server.wait_for_line("take effect at the next start");
    assert!(line.contains("changes of node take"), "{line}");
    server.fixture.wait(|status| status["memory"]["limit_bytes"] == 512 << 20);
    let debug = get_json(server.fixture.admin, "/debug/status").unwrap();
    assert_eq!(
        (&debug["recorder"]["on"], &debug["recorder"]["keep_seconds"]),
        (&true.into(), &60.into())
    );
    assert_eq!(
        server.fixture.status().unwrap()["node"].as_str().map(|n| n == "other"),
        Some(false)
    );

    // Rules with an error: the others are taken, and the rules in force stay.
    server.reload(&format!("memory_limit: 512MiB\ndataflow: {{ rules: [\"{rule}\"] }}\n"));
    server.wait_for_line("rule reload refused");
    let line = server.wait_for_line("configuration reloaded: ");
    assert!(
        line.contains("log.format: json → text") && !line.contains("dataflow.rules:"),
        "{line}"
    );
    let debug = get_json(server.fixture.admin, "/debug/status").unwrap();
    assert_eq!(debug["recorder"]["on"], false);
    let Server { child, .. } = server;
    assert!(terminate(child).status.success());
}
