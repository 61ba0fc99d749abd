//! A place for an agent that runs as a process: a folder, free ports, a configuration, its pages.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

pub(crate) const TAPIO: &str = env!("CARGO_BIN_EXE_tapio");

pub(crate) fn story(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories").join(name)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) struct Place {
    dir: tempfile::TempDir,
    admin: u16,
    pub(crate) server: u16,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), admin: free_port(), server: free_port() }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A configuration that reads one JSONL file, and the kernel if asked to.
    pub(crate) fn config(&self, ebpf: bool, jsonl: &Path) -> String {
        let text = format!(
            "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
             collectors: {{ ebpf: {{ enabled: {ebpf} }}, systemd: {{ enabled: false }},\x20\
             journal: {{ enabled: false }}, jsonl: {{ paths: [\"{}\"] }} }}\n\
             bridge: {{ endpoint: \"127.0.0.1:{}\", drain_timeout: 300ms }}\n\
             server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n",
            self.dir.path().display(),
            self.admin,
            jsonl.display(),
            self.server,
            self.server,
            free_port(),
        );
        self.file("tapio.yaml", &text)
    }

    pub(crate) fn page(&self, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.lines().next()?.to_owned(), body.to_owned()))
    }

    pub(crate) fn status(&self) -> Option<Json> {
        serde_json::from_str(&self.page("/status")?.1).ok()
    }

    /// Waits until the status is as wanted.
    pub(crate) fn wait(&self, wanted: impl Fn(&Json) -> bool) -> Json {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.status() {
                Some(status) if wanted(&status) => return status,
                last => assert!(Instant::now() < until, "the agent never got there: {last:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ends a process by its id, as a service manager does.
pub(crate) fn terminate(child: Child) -> Output {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
