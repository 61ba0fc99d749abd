//! `tapio server` and `tapio run --standalone` as processes: SIGHUP.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::support::agent::{TestAgent, start, terminate};
use super::support::eventually::eventually_ok;
use super::support::net::get;

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
        "server.retention_bytes: 1073741824 → 67108864",
        "server.retention_age: 0ns → 2592000s",
        "log.level: info → info,tapio=debug",
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
    for change in ["server.stories_kept: 10000 → 77", "log.level: info → info,tapio=debug"] {
        assert!(line.contains(change), "{line}");
    }
    server.reload("  retention_bytes: 5\n");
    let line = server.wait_for_line("reload refused");
    assert!(line.contains("server.yaml:7:3: server.retention_bytes: 5 is less than"), "{line}");
    let Server { child, .. } = server;
    assert!(terminate(child).status.success());
}
