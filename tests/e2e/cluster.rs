//! A cluster for one test: tests/testbed/k8s with its own folder and ports; ended on drop.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

/// Whether `make test-e2e` runs: a real cluster for each test takes too long for other test runs.
pub(crate) fn is_enabled() -> bool {
    std::env::var_os("TAPIO_REQUIRE_TESTBED").is_some_and(|v| v == "1")
}

/// The folder with the programs of scripts/e2e.sh, if it ran.
pub(crate) fn testbed() -> Option<PathBuf> {
    let folder = std::env::var_os("TAPIO_TESTBED").map(PathBuf::from).or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".cache/tapio-testbed"))
    })?;
    folder.join("bin/kube-apiserver").exists().then_some(folder)
}

/// Prints why a test is skipped; fails instead where the programs are required.
pub(crate) fn skipped(why: &str) {
    assert!(!is_enabled(), "TAPIO_REQUIRE_TESTBED=1, but {why}");
    println!("skipped: {why}; run `make test-e2e`");
}

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    testbed: PathBuf,
    pub(crate) port: u16,
}

/// The first of three consecutive free ports.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let free = |more: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port.saturating_add(more)));
        if port < 65_000 && free(1).is_ok() && free(2).is_ok() {
            return port;
        }
    }
}

impl Cluster {
    /// Starts a cluster. `flags`: further flags of the API server. `None` where the programs are
    /// missing.
    pub(crate) fn start(flags: &str) -> Option<Self> {
        let Some(testbed) = testbed().filter(|_| is_enabled()) else {
            skipped(if is_enabled() {
                "kube-apiserver is missing"
            } else {
                "TAPIO_REQUIRE_TESTBED isn't 1"
            });
            return None;
        };
        let cluster = Self { folder: tempfile::tempdir().unwrap(), testbed, port: free_ports() };
        cluster.script("up.sh", &[&cluster.port.to_string()], flags);
        Some(cluster)
    }

    /// Runs a script of tests/testbed/k8s, or of a folder beside it. Returns its output.
    pub(crate) fn script(&self, name: &str, arguments: &[&str], flags: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/k8s").join(name);
        // A file, not a pipe: processes that the script leaves running would keep a pipe open.
        let log = self.folder.path().join(format!("{}.out", name.replace('/', "_")));
        let status = Command::new(path)
            .args(arguments)
            .env("TAPIO_TESTBED", &self.testbed)
            .env("TAPIO_TESTBED_STATE", self.folder.path())
            .env("APISERVER_EXTRA", flags)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(std::fs::File::options().append(true).open(&log).unwrap())
            .status()
            .unwrap();
        let output = std::fs::read_to_string(&log).unwrap();
        assert!(status.success(), "{name}: {output}");
        output
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// Kills the API server; its etcd continues.
    pub(crate) fn kill_apiserver(&self) {
        self.signal_apiserver(rustix::process::Signal::KILL);
    }

    /// Sends the API server a signal, by its pid.
    pub(crate) fn signal_apiserver(&self, signal: rustix::process::Signal) {
        let pid = std::fs::read_to_string(self.path("apiserver.pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn start_apiserver(&self, flags: &str) {
        self.script("apiserver.sh", &[&self.port.to_string()], flags);
    }

    /// Compacts etcd: only the latest version of each object stays.
    pub(crate) fn compact(&self) {
        let etcdctl = self.testbed.join("opt/etcd-client/usr/bin/etcdctl");
        let run = |arguments: &[&str]| {
            let endpoint = format!("--endpoints=http://127.0.0.1:{}", self.port + 1);
            let mut command = Command::new(&etcdctl);
            let output =
                command.env("ETCDCTL_API", "3").arg(endpoint).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let status: Json =
            serde_json::from_slice(&run(&["endpoint", "status", "-w", "json"])).unwrap();
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        run(&["compact", &revision]);
    }

    /// Sends a request to the API server as its administrator. Fails on error codes other than
    /// `allowed`.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Json, allowed: &[&str]) -> Json {
        let kind = if method == "PATCH" {
            "application/strategic-merge-patch+json"
        } else {
            "application/json"
        };
        let mut curl = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", "-X", method, "--data-binary", "@-", "--cacert"])
            .arg(self.path("pki/ca.crt"))
            .args([
                "-H",
                "Authorization: Bearer testbed-admin",
                "-H",
                &format!("Content-Type: {kind}"),
            ])
            .arg(format!("https://127.0.0.1:{}{path}", self.port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let text = if body.is_null() { String::new() } else { body.to_string() };
        curl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
        let (response, code) = output.rsplit_once('\n').unwrap();
        let ok = code.starts_with('2') || allowed.contains(&code);
        assert!(ok, "{method} {path}: {code} {response}");
        serde_json::from_str(response).unwrap_or(Json::Null)
    }

    pub(crate) fn create(&self, path: &str, body: &Json) -> Json {
        self.request("POST", path, body, &[])
    }

    pub(crate) fn patch(&self, path: &str, body: &Json) -> Json {
        self.request("PATCH", path, body, &[])
    }

    pub(crate) fn delete(&self, path: &str) {
        self.request("DELETE", path, &json!({"gracePeriodSeconds": 0}), &[]);
    }

    pub(crate) fn namespace(&self, name: &str) {
        self.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}));
    }

    /// Creates a pod bound to a node; the test writes its status.
    pub(crate) fn pod(&self, name: &str, node: &str) -> Json {
        let body = json!({"metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "app", "image": "lab/app:1", "env": [{"name": "TOKEN", "value": "s3cr3t"}]}]}});
        self.create("/api/v1/namespaces/shop/pods", &body)
    }

    pub(crate) fn pod_status(&self, name: &str, status: &Json) {
        self.patch(
            &format!("/api/v1/namespaces/shop/pods/{name}/status"),
            &json!({"status": status}),
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("apiserver.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            println!("end of the API server's log: {last:#?}");
        }
        self.script("down.sh", &[], "");
    }
}
