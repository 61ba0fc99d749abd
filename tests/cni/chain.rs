//! Executes a network's list of plugins as a container runtime does (libcni), with Debian's plugins
//! and `tapio-cni`, in namespaces of the test's own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::skip::skipped;

/// Environment variable that is set in the copy of a test that runs in its own namespaces.
pub(crate) const INSIDE: &str = "TAPIO_TEST_INSIDE";

/// The folder of Debian's plugins, as unpacked by `scripts/test-deps.sh` or installed on the host.
fn plugins() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/testbed/opt/cni/usr/lib/cni");
    [unpacked, "/usr/lib/cni".into(), "/opt/cni/bin".into()]
        .into_iter()
        .find(|folder| folder.join("host-local").is_file() && folder.join("bridge").is_file())
}

/// Whether this is the copy of the test that runs in its own network and mount namespaces. The
/// first copy starts the second one, and fails if that one fails. Without privilege or plugins it
/// prints what is missing.
pub(crate) fn is_in_namespaces(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let missing = if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if plugins().is_none() {
        Some("no CNI plugins; scripts/test-deps.sh gets them")
    } else {
        None
    };
    if let Some(missing) = missing {
        skipped(missing);
        return false;
    }
    // `ip netns` keeps its names in /run: a private one, so that the host's isn't changed.
    let setup = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up && \
                 exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", setup])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output_text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let passed = output.status.success() && output_text.contains("1 passed");
    assert!(passed, "in its namespaces:\n{output_text}");
    false
}

/// A network with its plugins, in order.
pub(crate) struct Network {
    pub(crate) name: &'static str,
    pub(crate) plugins: Vec<Value>,
}

/// One container's interface.
pub(crate) struct Pod {
    pub(crate) container: String,
    pub(crate) netns: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Pod {
    /// A pod with its own network namespace.
    pub(crate) fn new(n: usize) -> Self {
        let name = format!("pod{n}");
        let made = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(made.success());
        Self {
            container: format!("{n:064x}"),
            netns: format!("/run/netns/{name}"),
            name,
            uid: format!("00000000-0000-4000-8000-{n:012}"),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// The result of a plugin.
struct PluginResult {
    success: bool,
    text: String,
}

/// Calls one plugin as a runtime does.
fn call(plugin: &str, command: &str, config: &str, pod: &Pod) -> PluginResult {
    let tapio_cni = Path::new(env!("CARGO_BIN_EXE_tapio-cni"));
    let folder = plugins().unwrap();
    let program = if plugin == "tapio-cni" { tapio_cni.to_owned() } else { folder.join(plugin) };
    let path = format!("{}:{}", tapio_cni.parent().unwrap().display(), folder.display());
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};\
         K8S_POD_UID={};SECRET=opensesame",
        pod.name, pod.container, pod.uid
    );
    let mut child = Command::new(program)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.container)
        .env("CNI_NETNS", &pod.netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    PluginResult { success: status.success(), text: String::from_utf8(stdout).unwrap() }
}

impl Network {
    /// The configuration of a plugin of the list: its own, the list's name and version, and the
    /// previous result. The result is inserted as text, so that it stays unchanged byte for byte.
    fn config(&self, plugin: &Value, previous: Option<&str>) -> String {
        let mut config = plugin.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!(self.name);
        let text = config.to_string();
        match previous {
            Some(previous) => {
                format!("{},\"prevResult\":{previous}}}", text.strip_suffix('}').unwrap())
            }
            None => text,
        }
    }

    fn kind(plugin: &Value) -> &str {
        plugin["type"].as_str().unwrap()
    }

    /// ADD: each plugin in order, with the result of the previous one. Returns the last result, or
    /// the first error.
    pub(crate) fn add(&self, pod: &Pod) -> Result<String, String> {
        let mut previous: Option<String> = None;
        for plugin in &self.plugins {
            let config = self.config(plugin, previous.as_deref());
            let result = call(Self::kind(plugin), "ADD", &config, pod);
            if !result.success {
                return Err(result.text);
            }
            let text = result.text.trim_end().to_owned();
            if Self::kind(plugin) == "tapio-cni" && plugin.get("delegate").is_none() {
                assert_eq!(Some(&text), previous.as_ref(), "the result is passed on unchanged");
            }
            previous = Some(text);
        }
        Ok(previous.unwrap())
    }

    /// DEL and CHECK: in reverse order, each with the cached result.
    pub(crate) fn call_each(&self, command: &str, pod: &Pod, result: Option<&str>) {
        for plugin in self.plugins.iter().rev() {
            let config = self.config(plugin, result);
            let called = call(Self::kind(plugin), command, &config, pod);
            assert!(called.success, "{command} {}: {}", Self::kind(plugin), called.text);
        }
    }
}
