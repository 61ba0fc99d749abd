//! `tapio check` of what a configuration needs of this machine: ports, folders, logs on disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn tapio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tapio")).args(arguments).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A folder with a configuration on free ports.
struct Fixture {
    dir: tempfile::TempDir,
    ports: [u16; 3],
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), ports: std::array::from_fn(|_| free_port()) }
    }

    fn config(&self, more: &str) -> String {
        let [admin, grpc, http] = self.ports;
        let dir = self.dir.path().display();
        let text = format!(
            "state_dir: {dir}/state\ncollectors: {{ only: [jsonl] }}\n\
             admin: {{ listen: \"127.0.0.1:{admin}\" }}\nserver:\n  grpc_listen: \
             \"127.0.0.1:{grpc}\"\n  http_listen: \"127.0.0.1:{http}\"\n{more}"
        );
        let path = self.dir.path().join("tapio.yaml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn check(&self, more: &str) -> (Option<i32>, String, String) {
        let output = tapio(&["check", "--config", &self.config(more)]);
        let (out, err) = texts(&output);
        (output.status.code(), out, err)
    }
}

#[test]
fn ports_are_free_or_their_process_is_named() {
    let fixture = Fixture::new();
    let (code, out, err) = fixture.check("");
    assert_eq!(code, Some(0), "{err}");
    for (key, port) in
        ["admin.listen", "server.grpc_listen", "server.http_listen"].iter().zip(fixture.ports)
    {
        assert!(out.contains(&format!("{key}: 127.0.0.1:{port} is free")), "{out}");
    }
    let listener = TcpListener::bind(("127.0.0.1", fixture.ports[1])).unwrap();
    let (code, _, err) = fixture.check("");
    assert_eq!(code, Some(2));
    let (port, pid) = (fixture.ports[1], std::process::id());
    let expected =
        format!("tapio.yaml:5:3: server.grpc_listen: 127.0.0.1:{port} is in use by `cli-");
    assert!(err.contains(&expected) && err.contains(&format!("(pid {pid})")), "{err}");
    let config = fixture.config("");
    assert!(tapio(&["check", "--config", &config, "--no-environment"]).status.success());
    drop(listener);
    let admin = fixture.ports[0];
    let same = format!("  retention_age: 0s\ncluster: a\ncollectors2: {admin}\n");
    assert_eq!(fixture.check(&same).0, Some(2), "an unknown key");
}

#[test]
fn one_address_is_not_for_two_listeners() {
    let mut fixture = Fixture::new();
    fixture.ports[2] = fixture.ports[1];
    let (code, _, err) = fixture.check("");
    assert_eq!(code, Some(2));
    assert!(err.contains("is the address of server.grpc_listen, too"), "{err}");
}

#[test]
fn folders_and_disks_are_checked() {
    let fixture = Fixture::new();
    let dir = fixture.dir.path().display().to_string();
    let (_, out, _) = fixture.check("");
    assert!(out.contains(&format!("state_dir: {dir}/state can be created in {dir}")), "{out}");
    let large = "  retention_bytes: 1000000000000000\nbridge: { spool_bytes: 1000000000000000 }\n";
    let (code, _, err) = fixture.check(large);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("warning: bridge.spool_bytes: ") && err.contains("may grow to"), "{err}");
    assert!(err.contains("tapio.yaml:7:3: warning: server.retention_bytes: "), "{err}");
    std::fs::write(fixture.dir.path().join("state"), "").unwrap();
    let (code, _, err) = fixture.check("");
    assert_eq!(code, Some(2));
    assert!(
        err.contains(&format!("tapio.yaml:1:1: state_dir: {dir}/state isn't a folder")),
        "{err}"
    );
    std::fs::remove_file(fixture.dir.path().join("state")).unwrap();
    let state = fixture.dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, _, err) = fixture.check("");
    assert_eq!(code, Some(0));
    assert!(err.contains("warning: state_dir: others may write to"), "{err}");
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o777, "nothing is changed");
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0, "nothing is created");
}

#[test]
fn damaged_segments_are_reported() {
    let fixture = Fixture::new();
    let lane = fixture.dir.path().join("state/spool/ordinary");
    std::fs::create_dir_all(&lane).unwrap();
    std::fs::write(lane.join("segment-0000000000000001.tapio"), [b'x'; 300]).unwrap();
    let (code, out, err) = fixture.check("");
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("warning: bridge.spool_bytes: ") && err.contains("0001.tapio: "), "{err}");
    assert!(out.contains("1 segments"), "{out}");
}

fn start(config: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    command.args(["run", "--standalone", "--config", config]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn running_tapio_with_the_same_folders_is_no_error() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.dir.path().join("state")).unwrap();
    let config = fixture.config("");
    let mut child = start(&config);
    let pid = child.id();
    let expected = format!("an agent runs with {}/state (pid {pid})", fixture.dir.path().display());
    let mut last = (String::new(), String::new());
    // The agent needs a moment to start.
    for _ in 0..600 {
        last = texts(&tapio(&["check", "--config", &config]));
        let held = last.0.matches("which runs with this configuration's folders").count();
        if last.0.contains(&expected) && held == 3 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let (out, err) = last;
    assert!(out.contains(&expected), "{out}{err}");
    assert!(out.contains(&format!("open in a running tapio (pid {pid})")), "{out}");
    assert!(out.contains("tapio.yaml: valid;"), "{out}{err}");
    // Another agent with the same address and other folders can't start.
    let other = Fixture { dir: tempfile::tempdir().unwrap(), ports: fixture.ports };
    let (code, _, err) = other.check("");
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("is in use by `tapio` (pid {pid})")), "{err}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn changes_to_the_configuration_in_force_are_named() {
    let fixture = Fixture::new();
    let running = fixture.dir.path().join("running.yaml");
    std::fs::copy(fixture.config(""), &running).unwrap();
    let config = fixture.config("  retention_age: 30d\ncluster: b\n");
    let running = Path::new(&running).display().to_string();
    let output = tapio(&["check", "--config", &config, "--running", &running]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(out.contains("a reload takes server.retention_age: 0s → 720h"), "{out}");
    assert!(out.contains("a restart is needed for cluster: \"\" → b"), "{out}");
    let (_, out, _) = fixture.check("");
    assert!(out.contains("a reload (SIGHUP) takes memory_limit, "), "{out}");
}
