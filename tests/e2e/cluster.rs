//! A cluster for one test: tests/testbed/k8s started with a folder and ports of its own, ended with the value.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

/// Whether `make test-e2e` runs: a real cluster for each test is too much for every run of the others.
fn asked_for() -> bool {
    std::env::var_os("TAPIO_REQUIRE_TESTBED").is_some_and(|v| v == "1")
}

/// Where scripts/e2e.sh put the programs, if it did.
pub(crate) fn testbed() -> Option<PathBuf> {
    let folder = std::env::var_os("TAPIO_TESTBED").map(PathBuf::from).or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".cache/tapio-testbed"))
    })?;
    folder.join("bin/kube-apiserver").exists().then_some(folder)
}

/// Says why a test is skipped; fails instead where the programs must be there.
pub(crate) fn skipped(why: &str) {
    assert!(!asked_for(), "TAPIO_REQUIRE_TESTBED=1, but {why}");
    println!("skipped: {why}; `make test-e2e` gets what is needed");
}

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    testbed: PathBuf,
    pub(crate) port: u16,
}

/// Three ports in a row that nobody listens on.
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
    /// Starts one, with these flags more for the API server. `None` where the programs aren't there.
    pub(crate) fn start(flags: &str) -> Option<Self> {
        let Some(testbed) = testbed().filter(|_| asked_for()) else {
            skipped(if asked_for() { "there is no kube-apiserver" } else { "not asked for" });
            return None;
        };
        let cluster = Self { folder: tempfile::tempdir().unwrap(), testbed, port: free_ports() };
        cluster.script("up.sh", &[&cluster.port.to_string()], flags);
        Some(cluster)
    }

    /// Runs a script of tests/testbed/k8s, or of a folder beside it. Returns what it printed.
    pub(crate) fn script(&self, name: &str, arguments: &[&str], flags: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/k8s").join(name);
        // A file, not a pipe: what the script leaves running would hold a pipe open.
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
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(status.success(), "{name}: {said}");
        said
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// Ends the API server; its etcd goes on.
    pub(crate) fn kill_apiserver(&self) {
        self.signal_apiserver(rustix::process::Signal::KILL);
    }

    /// Sends the API server a signal, by its id.
    pub(crate) fn signal_apiserver(&self, signal: rustix::process::Signal) {
        let pid = std::fs::read_to_string(self.path("apiserver.pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn start_apiserver(&self, flags: &str) {
        self.script("apiserver.sh", &[&self.port.to_string()], flags);
    }

    /// Makes etcd forget all versions but the latest.
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

    /// Asks the API server as its administrator. Fails on any refusal but those in `allowed`.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Json, allowed: &[&str]) -> Json {
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
        let (answer, code) = output.rsplit_once('\n').unwrap();
        let fine = code.starts_with('2') || allowed.contains(&code);
        assert!(fine, "{method} {path}: {code} {answer}");
        serde_json::from_str(answer).unwrap_or(Json::Null)
    }

    pub(crate) fn create(&self, path: &str, body: &Json) -> Json {
        self.ask("POST", path, body, &[])
    }

    pub(crate) fn patch(&self, path: &str, body: &Json) -> Json {
        self.ask("PATCH", path, body, &[])
    }

    pub(crate) fn delete(&self, path: &str) {
        self.ask("DELETE", path, &json!({"gracePeriodSeconds": 0}), &[]);
    }

    pub(crate) fn namespace(&self, name: &str) {
        self.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}));
    }

    /// A pod that somebody bound to a node; its statuses are the test's to write.
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
            println!("the API server's last words: {last:#?}");
        }
        self.script("down.sh", &[], "");
    }
}
