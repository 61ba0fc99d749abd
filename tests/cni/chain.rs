//! What a container runtime does with a network's list of plugins (libcni), with Debian's real plugins and ours, in
//! namespaces of this test's own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Set in the copy of this test that runs inside.
pub(crate) const INSIDE: &str = "TAPIO_TEST_INSIDE";

fn required() -> bool {
    std::env::var_os("TAPIO_REQUIRE_KERNEL").is_some_and(|v| v == "1")
}

/// Debian's plugins, as `scripts/test-deps.sh` unpacks them, or as they are installed.
fn plugins() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/testbed/opt/cni/usr/lib/cni");
    [unpacked, "/usr/lib/cni".into(), "/opt/cni/bin".into()]
        .into_iter()
        .find(|folder| folder.join("host-local").is_file() && folder.join("bridge").is_file())
}

/// Whether this is the copy of the test that runs in a network and mount namespace of its own. The first copy starts
/// that one, and fails as it fails; without the privilege or the plugins it says what is missing.
pub(crate) fn inside(test: &str) -> bool {
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
        assert!(!required(), "{missing}");
        println!("skipped: {missing}");
        return false;
    }
    // /run is where `ip netns` keeps its names: a private one, so that nothing of the machine's is touched.
    let setup = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", setup])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "inside:\n{said}");
    false
}

/// A network: its plugins in their order.
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
    /// A pod with a network namespace of its own.
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

/// A plugin's answer.
struct Answer {
    success: bool,
    text: String,
}

/// Calls one plugin as a runtime does.
fn call(plugin: &str, command: &str, config: &str, pod: &Pod) -> Answer {
    let ours = Path::new(env!("CARGO_BIN_EXE_tapio-cni"));
    let folder = plugins().unwrap();
    let program = if plugin == "tapio-cni" { ours.to_owned() } else { folder.join(plugin) };
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={};\
         SECRET=opensesame",
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
        .env("CNI_PATH", format!("{}:{}", ours.parent().unwrap().display(), folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    Answer { success: status.success(), text: String::from_utf8(stdout).unwrap() }
}

impl Network {
    /// The configuration a plugin of the list gets: its own, the list's name and version, the result so far. That one
    /// is spliced in as text, so that it stays what it is to the last byte.
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

    /// ADD: each plugin in turn, each with the result of the one before. Gives the last result, or what failed.
    pub(crate) fn add(&self, pod: &Pod) -> Result<String, String> {
        let mut previous: Option<String> = None;
        for plugin in &self.plugins {
            let config = self.config(plugin, previous.as_deref());
            let answer = call(Self::kind(plugin), "ADD", &config, pod);
            if !answer.success {
                return Err(answer.text);
            }
            let text = answer.text.trim_end().to_owned();
            if Self::kind(plugin) == "tapio-cni" && plugin.get("delegate").is_none() {
                assert_eq!(Some(&text), previous.as_ref(), "the result is passed on unchanged");
            }
            previous = Some(text);
        }
        Ok(previous.unwrap())
    }

    /// DEL and CHECK: in reverse order, each with the cached result.
    pub(crate) fn each(&self, command: &str, pod: &Pod, result: Option<&str>) {
        for plugin in self.plugins.iter().rev() {
            let config = self.config(plugin, result);
            let answer = call(Self::kind(plugin), command, &config, pod);
            assert!(answer.success, "{command} {}: {}", Self::kind(plugin), answer.text);
        }
    }
}
