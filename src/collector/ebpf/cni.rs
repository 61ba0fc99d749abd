//! Runs of CNI plugins, from their exec to their exit: failures and times where `tapio-cni` isn't in the network's list.
//!
//! A plugin's call is in its environment (`CNI_COMMAND` and others), which the kernel's record doesn't hold. It is read from
//! `/proc/PID/environ` right behind the exec: a plugin lives for milliseconds, a record waits for a fraction of one. Only
//! the CNI's own variables are looked at, and of `CNI_ARGS` only the pod's names. This collector does it because it
//! alone has both ends of a process; what a plugin printed, its error among it, went to the runtime and isn't seen.
//!
//! `tapio-cni` tells of itself and of a plugin it runs in its own name, so those are left out.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use super::decode::Decoder;
use super::kinds::{Kind, signal_name};
use super::processes::ExecId;
use super::raw::{PATH_BYTES, Record};
use super::words::Span;
use crate::cni::PodNames;
use crate::events::enrich::Subject;
use crate::events::event_builder::EventHeader;
use tapio_core::event::{Name, Severity, names};
use tapio_core::identity::{Container, Directory};
use tapio_core::ring::Sink;

/// Plugins that may run at a time.
const MAX_RUNNING: usize = 4096;
/// The most of an environment that is read.
const MAX_ENVIRON_BYTES: u64 = 256 * 1024;
/// The plugin that tells of itself.
const OURS: &str = "tapio-cni";

/// A call, as the plugin's environment has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    command: String,
    container_id: String,
    netns: String,
    ifname: String,
    pod: PodNames,
}

/// A plugin that runs.
struct Running {
    id: ExecId,
    plugin: String,
    began_ns: u64,
    call: Option<Call>,
    netns_inode: u64,
}

/// The plugins that run.
pub(super) struct CniCalls {
    folders: Vec<String>,
    running: HashMap<u32, Running, ahash::RandomState>,
    /// Runs whose environment couldn't be read any more.
    pub(super) unread: u64,
}

impl CniCalls {
    pub(super) fn new(folders: &[String]) -> Self {
        let folders = folders.iter().map(|f| f.trim_end_matches('/').to_owned()).collect();
        Self { folders, running: HashMap::default(), unread: 0 }
    }

    /// The plugin's name, where a program is one of somebody else's.
    fn plugin<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (folder, name) = path.rsplit_once('/')?;
        (name != OURS && self.folders.iter().any(|f| f == folder)).then_some(name)
    }
}

impl Call {
    /// Reads an environment: `NAME=VALUE`, each ended by a zero byte.
    fn from_environ(environ: &[u8]) -> Option<Self> {
        let mut call = Self::default();
        for variable in environ.split(|b| *b == 0) {
            let text = std::str::from_utf8(variable).unwrap_or_default();
            let Some((name, value)) = text.split_once('=') else {
                continue;
            };
            let place = match name {
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
            value.clone_into(place);
        }
        (!call.command.is_empty()).then_some(call)
    }

    fn of(pid: u32) -> Option<Self> {
        let mut environ = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        file.take(MAX_ENVIRON_BYTES).read_to_end(&mut environ).ok()?;
        Self::from_environ(&environ)
    }

    /// Tells the directory whose container it is: nobody knows it earlier.
    fn learn(&self, directory: &Directory, now_ns: u64) {
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

    /// The kind of event where it worked.
    fn kind(&self) -> Option<Name> {
        match self.command.as_str() {
            "ADD" => Some(names::CNI_ADD),
            "DEL" => Some(names::CNI_DEL),
            "CHECK" => Some(names::CNI_CHECK),
            // VERSION, STATUS and GC are about no container.
            _ => None,
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, pod, container_id, .. } = self;
        match pod.name.is_empty() {
            true => write!(f, "{command} of container {container_id}"),
            false => write!(f, "{command} of {}/{}", pod.namespace, pod.name),
        }
    }
}

impl Decoder {
    /// A program began to run: if it is a plugin, reads what it was called for.
    pub(super) fn plugin_began(&mut self, record: &Record<'_>) {
        let path = String::from_utf8_lossy(record.bytes.text(80, PATH_BYTES));
        let Some(plugin) = self.cni.plugin(&path) else {
            return;
        };
        let task = record.task();
        let parent = self.processes.get(task.parent, 0).and_then(|p| p.path.as_deref());
        if parent.and_then(|p| p.rsplit('/').next()) == Some(OURS) {
            return;
        }
        let pid = record.head.tgid;
        let call = Call::of(pid);
        let mut netns_inode = 0;
        match &call {
            Some(call) => {
                call.learn(&self.directory, self.observed_ns);
                // As the plugin sees it: the runtime may live in a mount namespace of its own.
                let netns = format!("/proc/{pid}/root{}", call.netns);
                netns_inode = fs::metadata(netns).map_or(0, |m| m.ino());
            }
            None => self.cni.unread += 1,
        }
        if self.cni.running.len() >= MAX_RUNNING {
            // Exits were lost; what runs for this long is none of a pod's start.
            self.cni.running.clear();
        }
        let id = ExecId { pid, start_ns: task.start_ns };
        let began_ns = record.head.time_ns;
        let running = Running { id, plugin: plugin.to_owned(), began_ns, call, netns_inode };
        self.cni.running.insert(pid, running);
    }

    /// A process ended: if it was a plugin, tells how.
    pub(super) fn plugin_ended(&mut self, record: &Record<'_>, sink: &mut Sink) {
        let Some(run) = self.cni.running.remove(&record.head.tgid) else {
            return;
        };
        if run.id.start_ns != record.task().start_ns {
            return;
        }
        let status = record.bytes.u32(80);
        let worked = status & 0xff7f == 0;
        let call = run.call.unwrap_or_default();
        let kind = match (worked, call.kind()) {
            (true, Some(kind)) => kind,
            // A failure is told although it isn't known of what.
            (false, Some(_)) => names::CNI_FAILED,
            (false, None) if call.command.is_empty() => names::CNI_FAILED,
            _ => return,
        };
        self.attach(&call, run.netns_inode, worked);
        let some = |text| Some(text).filter(|t: &&str| !t.is_empty());
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &self.node);
        draft.int(names::PROCESS_PID, record.head.tgid);
        let known =
            Subject { container_id: some(&call.container_id), pod_uid: some(&call.pod.uid) };
        draft.enrich(known, &self.directory);
        draft.end_entities();
        draft.text(names::TAPIO_CNI_PLUGIN, &run.plugin);
        draft.text(names::NETWORK_INTERFACE_NAME, &call.ifname);
        let took_ns = record.head.time_ns.saturating_sub(run.began_ns);
        draft.int(names::TAPIO_CNI_DURATION_NS, took_ns);
        let (plugin, took) = (&run.plugin, Span(took_ns));
        let severity = if worked {
            draft.message(format_args!("CNI plugin {plugin}: {call} took {took}"));
            Severity::INFO
        } else {
            let (code, signal) = (status >> 8 & 0xff, status & 0x7f);
            draft.text(names::TAPIO_CNI_COMMAND, &call.command);
            if signal != 0 {
                let name = signal_name(signal);
                draft.word(names::ERROR_TYPE, name);
                draft.message(format_args!(
                    "CNI plugin {plugin}: {call} was ended by {name} after {took}"
                ));
            } else {
                draft.word(names::ERROR_TYPE, "exit_code");
                draft.int(names::PROCESS_EXIT_CODE, code);
                draft.message(format_args!(
                    "CNI plugin {plugin}: {call} failed with exit code {code} after {took}"
                ));
            }
            Severity::ERROR
        };
        let head = &record.head;
        let meta = EventHeader { kind, ..self.meta(Kind::Exit, head.cpu, head.time_ns, severity) };
        // The sink has counted an event it couldn't take.
        let _ = self.draft.offer(&meta, sink);
    }

    /// Tells the directory whose a network namespace is.
    fn attach(&self, call: &Call, netns_inode: u64, worked: bool) {
        if !worked || netns_inode == 0 || call.pod.uid.is_empty() {
            return;
        }
        match call.command.as_str() {
            "ADD" => self.directory.network_seen(netns_inode, &call.pod.uid, self.observed_ns),
            "DEL" => self.directory.network_gone(netns_inode, self.observed_ns),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_environments_call_is_read_and_nothing_else() {
        let environ = b"PATH=/bin\0TOKEN=secret\0CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0CNI_IFNAME=eth0\0\
            CNI_NETNS=/run/netns/a\0CNI_ARGS=K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop;K8S_POD_UID=u1;X=secret\0";
        let call = Call::from_environ(environ).unwrap();
        assert_eq!(call.to_string(), "ADD of shop/web-0");
        assert_eq!(call.kind(), Some(names::CNI_ADD));
        assert_eq!((call.netns.as_str(), call.pod.uid.as_str()), ("/run/netns/a", "u1"));
        assert!(!format!("{call:?}").contains("secret"));
        assert_eq!(Call::from_environ(b"PATH=/bin\0"), None);
    }

    #[test]
    fn plugins_are_programs_of_their_folders_but_ours() {
        let calls = CniCalls::new(&["/opt/cni/bin/".into()]);
        assert_eq!(calls.plugin("/opt/cni/bin/bridge"), Some("bridge"));
        for other in ["/opt/cni/bin/tapio-cni", "/opt/cni/bin/sub/bridge", "/bin/bridge", "bridge"]
        {
            assert_eq!(calls.plugin(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_environment_is_read_without_a_panic(environ in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut with = environ.clone();
            with.extend(b"\0CNI_COMMAND=DEL\0");
            with.extend(environ);
            let call = Call::from_environ(&with);
            prop_assert!(call.is_some_and(|c| c.command == "DEL"), "what isn't text is no variable of ours");
        }
    }
}
