//! A fixture for an agent that runs as a process: a folder, free ports, a configuration, and access
//! to its pages.
#![allow(dead_code, reason = "shared by tests of which each needs a part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

pub(crate) const TAPIO: &str = env!("CARGO_BIN_EXE_tapio");

/// A recorded story.
pub(crate) fn story(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories").join(name)
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(TAPIO).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Starts the program with piped output.
pub(crate) fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(TAPIO);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) struct AgentFixture {
    dir: tempfile::TempDir,
    admin: u16,
    /// The server's gRPC port.
    pub(crate) grpc: u16,
    /// The server's HTTP port.
    pub(crate) http: u16,
}

impl AgentFixture {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            admin: free_port(),
            grpc: free_port(),
            http: free_port(),
        }
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Writes a configuration with these collectors, of which `jsonl` reads one file; returns its
    /// path.
    pub(crate) fn config(&self, collectors: &str, jsonl: &Path) -> String {
        let text = format!(
            "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
             collectors: {{ only: [{}], jsonl: {{ paths: [\"{}\"] }} }}\n\
             bridge: {{ endpoint: \"127.0.0.1:{}\", drain_timeout: 300ms }}\n\
             server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n",
            self.dir.path().display(),
            self.admin,
            collectors,
            jsonl.display(),
            self.grpc,
            self.grpc,
            self.http,
        );
        self.file("tapio.yaml", &text)
    }

    /// Status line and body of one of the agent's pages.
    pub(crate) fn page(&self, path: &str) -> Option<(String, String)> {
        get(self.admin, path)
    }

    /// Head and body of one of the agent's pages.
    pub(crate) fn response(&self, path: &str) -> Option<(String, String)> {
        response(self.admin, path)
    }

    pub(crate) fn status(&self) -> Option<Json> {
        serde_json::from_str(&self.page("/status")?.1).ok()
    }

    /// Waits until `/status` satisfies a condition.
    pub(crate) fn wait(&self, condition: impl Fn(&Json) -> bool) -> Json {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.status() {
                Some(status) if condition(&status) => return status,
                last => assert!(Instant::now() < deadline, "condition not met: {last:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Status line and body of a page on a port of this host.
pub(crate) fn get(port: u16, path: &str) -> Option<(String, String)> {
    let (head, body) = response(port, path)?;
    Some((head.lines().next()?.to_owned(), body))
}

/// Head and body of a page on a port of this host.
pub(crate) fn response(port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// Ends a process with SIGTERM, as a service manager does.
pub(crate) fn terminate(child: Child) -> Output {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
