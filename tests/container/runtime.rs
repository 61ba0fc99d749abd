//! A containerd of the test's own, with runc, from Debian's packages. All its files are in a
//! temporary folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::eventually::eventually_ok;
use crate::support::skip::skipped;

fn unpacked(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/testbed/opt").join(path)
}

/// Whether a runtime can be started here. Prints what is missing if it can't.
pub(crate) fn is_runtime_available() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if !unpacked("containerd/usr/bin/containerd").is_file() {
        Some("no containerd; scripts/test-deps.sh gets it")
    } else if !unpacked("busybox/bin/busybox").is_file() {
        Some("no busybox; scripts/test-deps.sh gets it")
    } else {
        None
    };
    if let Some(missing) = missing {
        skipped(missing);
    }
    missing.is_none()
}

/// The runtime. It ends with its containers on drop.
pub(crate) struct Containerd {
    folder: tempfile::TempDir,
    process: Option<Child>,
    path: String,
    /// Namespaces whose containers are removed on drop.
    namespaces: Vec<&'static str>,
    /// Whether it serves the CRI.
    cri: bool,
}

/// The image of pods' sandboxes, and of their containers.
pub(crate) const IMAGE: &str = "docker.io/lab/app:1";

impl Containerd {
    /// Creates the folder and a root file system with busybox; `start` starts the runtime.
    pub(crate) fn new(namespaces: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["root/bin", "root/tmp", "root/proc"] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        let busybox = folder.path().join("root/bin/busybox");
        fs::copy(unpacked("busybox/bin/busybox"), &busybox).unwrap();
        for applet in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", busybox.with_file_name(applet)).unwrap();
        }
        let bin = unpacked("containerd/usr");
        let path = std::env::var("PATH").unwrap();
        let path = format!("{0}/bin:{0}/sbin:{path}", bin.display());
        Self { folder, process: None, path, namespaces: namespaces.to_vec(), cri: false }
    }

    /// Like `new`, with the CRI enabled.
    pub(crate) fn with_cri() -> Self {
        let mut containerd = Self::new(&["k8s.io"]);
        containerd.cri = true;
        containerd
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// Starts the runtime and waits until it responds.
    pub(crate) fn start(&mut self) {
        let folder = self.folder.path();
        let (root, state, socket) = (folder.join("lib"), folder.join("run"), self.socket());
        let disabled = if self.cri { "" } else { "\"io.containerd.grpc.v1.cri\"" };
        let ttrpc = folder.join("containerd.sock.ttrpc");
        let cni = folder.join("cni");
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [{disabled}]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{IMAGE}\"\n\
             restrict_oom_score_adj = true\ndisable_apparmor = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = {cni:?}\nbin_dir = {cni:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n",
        );
        fs::write(folder.join("config.toml"), config).unwrap();
        let log = fs::File::options().append(true).create(true).open(folder.join("log")).unwrap();
        let process = Command::new(unpacked("containerd/usr/bin/containerd"))
            .arg("--config")
            .arg(folder.join("config.toml"))
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        eventually_ok("containerd responds", || {
            let is_up = self.ctr("default", &["version"]).status.success();
            let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            is_up.then_some(()).ok_or_else(log)
        });
    }

    /// Stops the runtime as an upgrade does: containers keep running.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            process.wait().unwrap();
        }
    }

    /// The runtime's process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Kills the runtime. Containers keep running.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Runs containerd's client `ctr`.
    pub(crate) fn ctr(&self, namespace: &str, args: &[&str]) -> Output {
        Command::new(unpacked("containerd/usr/bin/ctr"))
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .args(args)
            .env("PATH", &self.path)
            .output()
            .unwrap()
    }

    /// Runs a container with busybox to its end, or in the background with the option `--detach`.
    pub(crate) fn run(&self, namespace: &str, options: &[&str], id: &str, script: &str) -> Output {
        let root = self.folder.path().join("root");
        let root = root.to_str().unwrap();
        let mut args = vec!["run"];
        args.extend(options);
        args.extend(["--rootfs", root, id, "/bin/sh", "-c", script]);
        self.ctr(namespace, &args)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.process.is_none() && self.socket().exists() {
            self.start();
        }
        for namespace in self.namespaces.clone() {
            let list = self.ctr(namespace, &["containers", "list", "--quiet"]);
            for id in String::from_utf8_lossy(&list.stdout).lines() {
                self.ctr(namespace, &["tasks", "delete", "--force", id]);
                self.ctr(namespace, &["containers", "delete", id]);
            }
        }
        self.stop();
    }
}
