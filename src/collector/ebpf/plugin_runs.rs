//! Runs of CNI plugins in progress, and the call that each of them serves.
//!
//! The call of a plugin is in its environment (`CNI_COMMAND` and others), which the kernel's record
//! doesn't contain. It is read from `/proc/PID/environ` right after the exec: a plugin lives for
//! milliseconds, a record waits for a fraction of one. Only the CNI's own variables are read, and
//! of `CNI_ARGS` only the names of the pod.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;

use super::processes::ExecId;
use crate::cni_report::PodNames;
use tapio_core::event::{Name, names};
use tapio_core::identity::{Container, Directory};

/// Capacity of the table of running plugins.
const MAX_RUNNING: usize = 4096;
/// Bytes read of an environment.
const MAX_ENVIRON_BYTES: u64 = 256 * 1024;
/// The plugin that reports its own calls.
pub(super) const OWN_PLUGIN: &str = "tapio-cni";

/// A call of a plugin, from its environment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PluginCall {
    pub(super) command: String,
    pub(super) container_id: String,
    pub(super) netns: String,
    pub(super) ifname: String,
    pub(super) pod: PodNames,
}

/// A run of a plugin.
pub(super) struct PluginRun {
    pub(super) id: ExecId,
    pub(super) plugin: String,
    pub(super) started_ns: u64,
    /// `None` if the environment couldn't be read.
    pub(super) call: Option<PluginCall>,
    /// Inode of the call's network namespace; 0 if unknown.
    pub(super) netns_inode: u64,
}

/// The runs in progress, by process number.
pub(super) struct PluginRuns {
    folders: Vec<String>,
    running: HashMap<u32, PluginRun, ahash::RandomState>,
    /// Runs that ended before their environment could be read.
    pub(super) unread: u64,
}

impl PluginRuns {
    pub(super) fn new(folders: &[String]) -> Self {
        let folders = folders.iter().map(|f| f.trim_end_matches('/').to_owned()).collect();
        Self { folders, running: HashMap::default(), unread: 0 }
    }

    /// The plugin's name, if the program at `path` is a plugin other than `tapio-cni`.
    pub(super) fn plugin_name<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (folder, name) = path.rsplit_once('/')?;
        (name != OWN_PLUGIN && self.folders.iter().any(|f| f == folder)).then_some(name)
    }

    /// Adds a run that started.
    pub(super) fn insert(&mut self, run: PluginRun) {
        if self.running.len() >= MAX_RUNNING {
            // Exits were lost. A run this long isn't part of a pod's start.
            self.running.clear();
        }
        self.running.insert(run.id.pid, run);
    }

    /// Removes the run of a process that ended.
    pub(super) fn remove(&mut self, pid: u32) -> Option<PluginRun> {
        self.running.remove(&pid)
    }
}

impl PluginCall {
    /// Parses an environment: `NAME=VALUE`, each ended by a zero byte.
    fn from_environ(environ: &[u8]) -> Option<Self> {
        let mut call = Self::default();
        for variable in environ.split(|b| *b == 0) {
            let text = std::str::from_utf8(variable).unwrap_or_default();
            let Some((name, value)) = text.split_once('=') else {
                continue;
            };
            let field = match name {
                "CNI_COMMAND" => &mut call.command,
                "CNI_CONTAINERID" => &mut call.container_id,
                "CNI_NETNS" => &mut call.netns,
                "CNI_IFNAME" => &mut call.ifname,
                "CNI_ARGS" => {
                    call.pod = PodNames::from_args(value);
                    continue;
                }
                _ => continue,
            };
            value.clone_into(field);
        }
        (!call.command.is_empty()).then_some(call)
    }

    /// Reads the call from the environment of a process.
    pub(super) fn of_process(pid: u32) -> Option<Self> {
        let mut environ = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        file.take(MAX_ENVIRON_BYTES).read_to_end(&mut environ).ok()?;
        Self::from_environ(&environ)
    }

    /// Adds the container and its pod to the directory; no other source has them earlier.
    pub(super) fn update_directory(&self, directory: &Directory, now_ns: u64) {
        let pod = &self.pod;
        if pod.uid.is_empty() || self.container_id.is_empty() || self.command == "DEL" {
            return;
        }
        directory.pod_named(&pod.uid, &pod.namespace, &pod.name, now_ns);
        let sandbox = Container {
            id: self.container_id.as_str().into(),
            pod_uid: pod.uid.as_str().into(),
            pod_name: pod.name.as_str().into(),
            pod_namespace: pod.namespace.as_str().into(),
            ..Container::default()
        };
        directory.container_seen(sandbox, now_ns);
    }

    /// The kind of event of a successful call.
    pub(super) fn kind(&self) -> Option<Name> {
        match self.command.as_str() {
            "ADD" => Some(names::CNI_ADD),
            "DEL" => Some(names::CNI_DEL),
            "CHECK" => Some(names::CNI_CHECK),
            // VERSION, STATUS and GC don't refer to a container.
            _ => None,
        }
    }
}

impl std::fmt::Display for PluginCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, pod, container_id, .. } = self;
        match pod.name.is_empty() {
            true => write!(f, "{command} of container {container_id}"),
            false => write!(f, "{command} of {}/{}", pod.namespace, pod.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_cni_variables_are_read_from_environment() {
        let environ = b"PATH=/bin\0TOKEN=secret\0CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0\
            CNI_IFNAME=eth0\0\
            CNI_NETNS=/run/netns/a\0CNI_ARGS=K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop;\
            K8S_POD_UID=u1;X=secret\0";
        let call = PluginCall::from_environ(environ).unwrap();
        assert_eq!(call.to_string(), "ADD of shop/web-0");
        assert_eq!(call.kind(), Some(names::CNI_ADD));
        assert_eq!((call.netns.as_str(), call.pod.uid.as_str()), ("/run/netns/a", "u1"));
        assert!(!format!("{call:?}").contains("secret"));
        assert_eq!(PluginCall::from_environ(b"PATH=/bin\0"), None);
    }

    #[test]
    fn plugin_is_program_in_plugin_folder_except_tapio_cni() {
        let runs = PluginRuns::new(&["/opt/cni/bin/".into()]);
        assert_eq!(runs.plugin_name("/opt/cni/bin/bridge"), Some("bridge"));
        for other in ["/opt/cni/bin/tapio-cni", "/opt/cni/bin/sub/bridge", "/bin/bridge", "bridge"]
        {
            assert_eq!(runs.plugin_name(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_environment_is_parsed_without_panic(
            environ in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut with = environ.clone();
            with.extend(b"\0CNI_COMMAND=DEL\0");
            with.extend(environ);
            let call = PluginCall::from_environ(&with);
            // Variables that aren't text are skipped.
            prop_assert!(call.is_some_and(|c| c.command == "DEL"));
        }
    }
}
