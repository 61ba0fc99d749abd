//! A node as a machine of its own (tests/testbed/machine): a real systemd in its own namespaces,
//! whose units are Debian's containerd and nginx and a kubelet, joined to a real API server. All
//! its processes belong to those units.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value as Json, json};

use crate::cluster::{Cluster, skipped};

/// The node's address in the machine's network.
pub(crate) const ADDRESS: &str = "10.200.0.2";

/// The machine and its cluster; ended on drop.
pub(crate) struct Machine {
    pub(crate) cluster: Cluster,
    name: String,
    pid: u32,
}

impl Machine {
    /// Boots a machine. Its containerd, kubelet and nginx are installed but not started.
    pub(crate) fn boot() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skipped("a machine needs root");
            return None;
        }
        if !std::path::Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists() {
            skipped("the host has no cgroup v1, which the kubelet needs");
            return None;
        }
        let cluster = Cluster::start("")?;
        // Differs from the node's name: events of the machine and of the node must join through the
        // agent's identity data.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vm-{}-{number}", std::process::id());
        let mut machine = Self { cluster, name, pid: 0 };
        let arguments =
            [&machine.name, &machine.cluster.port.to_string(), env!("CARGO_BIN_EXE_tapio-cni")];
        let output = machine.cluster.script("../machine/up.sh", &arguments, "");
        machine.pid = output.lines().last().unwrap().trim().parse().unwrap();
        Some(machine)
    }

    /// A path inside the machine.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// The `collectors` section of an agent of this node. The agent runs outside, like one in a
    /// DaemonSet that sees its host's processes, and its files where they are mounted.
    pub(crate) fn collectors(&self) -> String {
        format!(
            "collectors:\n  only: [ebpf, cni, container, k8s, systemd, journal]\n  \
             k8s: {{ kubeconfig: {}, context: admin }}\n  \
             cni: {{ socket: {}, networks: {}, links: false }}\n  \
             container: {{ sockets: [{}] }}\n  \
             systemd: {{ address: \"unix:path={}\" }}\n  \
             journal: {{ directories: [{}] }}",
            self.cluster.kubeconfig().display(),
            self.path("/run/tapio/cni.sock").display(),
            self.path("/var/lib/cni/networks").display(),
            self.path("/run/containerd/containerd.sock").display(),
            self.path("/run/dbus/system_bus_socket").display(),
            self.path("/var/log/journal").display(),
        )
    }

    /// Runs a program inside. Returns whether it succeeded, and its output.
    pub(crate) fn run(&self, command: &[&str]) -> (bool, String) {
        let out = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-p", "-u", "-i", "-n", "-C", "--"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let output = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&output).into_owned())
    }

    pub(crate) fn start(&self, unit: &str) {
        let (ok, output) = self.run(&["systemctl", "start", unit]);
        assert!(ok, "{unit}: {output}");
    }

    /// Imports the images of the pods into the runtime.
    pub(crate) fn import_images(&self) {
        for image in ["pause", "app"] {
            let file = format!("/opt/testbed/{image}.tar");
            let import = ["ctr", "-n", "k8s.io", "images", "import", "--snapshotter", "native"];
            let (ok, output) = self.run(&[&import[..], &[&file]].concat());
            assert!(ok, "{output}");
        }
    }

    /// Whether the node accepts pods.
    pub(crate) fn is_ready(&self) -> bool {
        let node = self.cluster.request("GET", "/api/v1/nodes/lab-node", &Json::Null, &["404"]);
        let conditions = node["status"]["conditions"].as_array();
        let ready = |c: &Json| c["type"] == "Ready" && c["status"] == "True";
        conditions.is_some_and(|c| c.iter().any(ready))
    }

    /// Creates a pod of this node that runs a script. Returns its uid.
    pub(crate) fn pod(&self, name: &str, script: &str) -> String {
        let body = json!({"metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": "lab-node", "terminationGracePeriodSeconds": 1, "containers": [{"name": "app",
                "image": "docker.io/lab/app:1", "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script]}]}});
        let pod = self.cluster.create("/api/v1/namespaces/default/pods", &body);
        pod["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Writes a file inside.
    pub(crate) fn write(&self, path: &str, content: &str) {
        std::fs::write(self.path(path), content).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = [
                "journalctl",
                "--no-pager",
                "-n",
                "40",
                "-u",
                "kubelet",
                "-u",
                "containerd",
                "-u",
                "nginx",
            ];
            println!("end of the machine's journal: {}", self.run(&last).1);
        }
        self.cluster.script("../machine/down.sh", &[&self.name], "");
    }
}
