//! An agent that runs as a process: a folder, free ports, a configuration, and access to its pages.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value as Json;

use super::eventually::eventually_ok;
use super::net::{free_port, get, get_json, response};

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

/// Starts the program without its output, which nobody would read.
pub(crate) fn start_quiet(arguments: &[&str]) -> Child {
    let mut command = Command::new(TAPIO);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Folder, ports and pages of an agent. [`start`] starts the process.
pub(crate) struct TestAgent {
    dir: tempfile::TempDir,
    pub(crate) admin: u16,
    /// The server's gRPC port.
    pub(crate) grpc: u16,
    /// The server's HTTP port.
    pub(crate) http: u16,
}

impl TestAgent {
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
        get_json(self.admin, "/status")
    }

    /// Waits until `/status` satisfies a condition.
    #[track_caller]
    pub(crate) fn wait(&self, condition: impl Fn(&Json) -> bool) -> Json {
        eventually_ok("the condition on /status", || match self.status() {
            Some(status) if condition(&status) => Ok(status),
            other => Err(other.unwrap_or_default()),
        })
    }
}

/// Ends a process with SIGTERM, as a service manager does.
pub(crate) fn terminate(child: Child) -> Output {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait_with_output().unwrap()
}

/// A process's output as text.
pub(crate) fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
