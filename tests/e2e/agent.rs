//! The whole agent as a process, with its embedded server.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value as Json;

use crate::cluster::Cluster;
use crate::support::agent::TAPIO;
use crate::support::eventually::{TIME_LIMIT, within};
use crate::support::net::{free_port, get_json, items};

pub(crate) struct Agent {
    process: Child,
    grpc: u16,
    http: u16,
    admin: u16,
    log: std::path::PathBuf,
}

impl Agent {
    /// Starts an agent in a folder; it continues from the state that an earlier agent left there.
    pub(crate) fn start(folder: &Path, collectors: &str) -> Self {
        Self::start_with(Command::new(TAPIO), folder, collectors)
    }

    /// The same with the cluster's service account, mounted as in a pod: in its own mount
    /// namespace.
    pub(crate) fn start_in_pod(folder: &Path, collectors: &str, cluster: &Cluster) -> Self {
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p $0 && echo -n testbed-admin >$0/token && cp {} $0/ca.crt && echo -n default >$0/namespace \
             && exec {} \"$@\"",
            cluster.path("pki/ca.crt").display(),
            TAPIO,
        );
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .arg("/var/run/secrets/kubernetes.io/serviceaccount")
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", cluster.port.to_string());
        Self::start_with(command, folder, collectors)
    }

    fn start_with(mut command: Command, folder: &Path, collectors: &str) -> Self {
        let (http, grpc, admin) = (free_port(), free_port(), free_port());
        let config = format!(
            "state_dir: {0}/state\nnode: lab-node\nadmin: {{ listen: \"127.0.0.1:{admin}\" }}\n{collectors}\n\
             server: {{ grpc_listen: \"127.0.0.1:{grpc}\", http_listen: \"127.0.0.1:{http}\", data_dir: {0}/data }}\n",
            folder.display(),
        );
        let file = folder.join("tapio.yaml");
        std::fs::write(&file, config).unwrap();
        let log = folder.join("agent.log");
        let output = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let process = command
            .args(["run", "--standalone", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap();
        let agent = Self { process, grpc, http, admin, log };
        agent.wait("the agent is ready", |a| a.status()["collectors"].is_object());
        agent
    }

    pub(crate) fn status(&self) -> Json {
        get_json(self.admin, "/status").unwrap_or_default()
    }

    /// All events of the server, the oldest first.
    pub(crate) fn events(&self) -> Vec<Json> {
        self.events_of("*")
    }

    /// All events of a kind, the oldest first. The server returns at most ten thousand.
    pub(crate) fn events_of(&self, kind: &str) -> Vec<Json> {
        let path = format!("/api/v1/events?limit=10000&kind={kind}");
        let mut events = items(self.http, &path).unwrap_or_default();
        events.reverse();
        events
    }

    /// The stories of the server.
    pub(crate) fn stories(&self) -> Vec<Json> {
        items(self.http, "/api/v1/stories?limit=1000").unwrap_or_default()
    }

    /// The output of `tapio explain` for a story.
    pub(crate) fn explain(&self, id: &str) -> String {
        let server = format!("127.0.0.1:{}", self.grpc);
        let mut command = Command::new(TAPIO);
        let output = command.args(["explain", id, "--server", &server]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.wait_within(TIME_LIMIT, what, holds);
    }

    pub(crate) fn wait_within(&self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        within(limit, what, || {
            if holds(self) {
                return Ok(());
            }
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            Err(format!(
                "{}
{log}",
                self.status()
            ))
        });
    }

    /// A field of its `/proc/PID/status`, in KiB.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Ends it and checks CONS-1 of each collector and of the total. Returns the accounts.
    pub(crate) fn end_and_check_cons1(self) -> Json {
        let log = self.log.clone();
        self.end(Signal::TERM);
        let log = std::fs::read_to_string(log).unwrap();
        let last = log.lines().rev().find_map(|l| l.split_once("cons1="));
        let cons1: Json = serde_json::from_str(last.unwrap().1).unwrap();
        let counts = |account: &Json| {
            let count = |name: &str| account[name].as_u64().unwrap();
            let dropped = account["dropped"].as_object().unwrap().values();
            let dropped: u64 = dropped.map(|n| n.as_u64().unwrap()).sum();
            (count("received"), count("forwarded") + dropped + count("held"))
        };
        let collectors = cons1["collectors"].as_object().unwrap();
        for (name, account) in collectors.iter().chain([(&"all".to_owned(), &cons1["total"])]) {
            let (received, accounted) = counts(account);
            assert_eq!(received, accounted, "CONS-1 of {name}: {account}");
        }
        assert!(counts(&cons1["total"]).0 > 0, "{cons1}");
        cons1
    }

    /// Ends it by its pid.
    pub(crate) fn end(mut self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = self.process.wait().unwrap();
        assert!(signal == Signal::KILL || status.success(), "{status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
