//! Events of CNI plugins, from their exec and exit: failures and durations where `tapio-cni` isn't
//! in the network's list.
//!
//! This collector emits them because it alone has both ends of a process. The output of a plugin,
//! its error included, goes to the runtime and isn't visible here.
//!
//! `tapio-cni` reports itself and the plugin that it runs on behalf of, so both are skipped.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::decode::Decoder;
use super::display::Elapsed;
use super::kinds::Kind;
use super::plugin_runs::{OWN_PLUGIN, PluginCall, PluginRun};
use super::processes::ExecId;
use super::raw::{PATH_BYTES, Record};
use crate::events::enrich::Subject;
use crate::events::event_builder::EventHeader;
use crate::events::signals::signal_name;
use tapio_core::event::{Name, Severity, names};
use tapio_core::ring::Sink;

/// The kind of event of a call; `None` for calls without a container.
fn kind_of(call: &PluginCall, is_success: bool) -> Option<Name> {
    match (is_success, call.kind()) {
        (true, kind) => kind,
        (false, Some(_)) => Some(names::CNI_FAILED),
        // A failure is reported even if its call isn't known.
        (false, None) => call.command.is_empty().then_some(names::CNI_FAILED),
    }
}

impl Decoder {
    /// Processes an exec: if the program is a plugin, reads its call.
    pub(super) fn plugin_started(&mut self, record: &Record<'_>) {
        let path = String::from_utf8_lossy(record.bytes.text(80, PATH_BYTES));
        let Some(plugin) = self.plugins.plugin_name(&path) else {
            return;
        };
        let task = record.task();
        let parent = self.processes.get(task.parent, 0).and_then(|p| p.program.path.as_deref());
        if parent.and_then(|p| p.rsplit('/').next()) == Some(OWN_PLUGIN) {
            return;
        }
        let pid = record.head.tgid;
        let call = PluginCall::of_process(pid);
        let mut netns_inode = 0;
        match &call {
            Some(call) => {
                call.update_directory(&self.directory, self.observed_ns);
                // The path as the plugin sees it: the runtime may have its own mount namespace.
                let netns = format!("/proc/{pid}/root{}", call.netns);
                netns_inode = fs::metadata(netns).map_or(0, |m| m.ino());
            }
            None => self.plugins.unread += 1,
        }
        let id = ExecId { pid, start_ns: task.start_ns };
        let started_ns = record.head.time_ns;
        let plugin = plugin.to_owned();
        self.plugins.insert(PluginRun { id, plugin, started_ns, call, netns_inode });
    }

    /// Processes an exit: if the process ran a plugin, emits its result.
    pub(super) fn plugin_exited(&mut self, record: &Record<'_>, sink: &mut Sink) {
        let Some(run) = self.plugins.remove(record.head.tgid) else {
            return;
        };
        if run.id.start_ns != record.task().start_ns {
            return;
        }
        let status = record.bytes.u32(80);
        let is_success = status & 0xff7f == 0;
        let call = run.call.unwrap_or_default();
        let Some(kind) = kind_of(&call, is_success) else {
            return;
        };
        if is_success {
            self.update_network(&call, run.netns_inode);
        }
        let non_empty = |text| Some(text).filter(|t: &&str| !t.is_empty());
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &self.node);
        event.int(names::PROCESS_PID, record.head.tgid);
        let subject = Subject {
            container_id: non_empty(&call.container_id),
            pod_uid: non_empty(&call.pod.uid),
        };
        event.enrich(subject, &self.directory);
        event.end_entities();
        event.text(names::TAPIO_CNI_PLUGIN, &run.plugin);
        event.text(names::NETWORK_INTERFACE_NAME, &call.ifname);
        let duration_ns = record.head.time_ns.saturating_sub(run.started_ns);
        event.int(names::TAPIO_CNI_DURATION_NS, duration_ns);
        let severity = self.plugin_result(&run.plugin, &call, status, duration_ns);
        let head = &record.head;
        let meta = EventHeader { kind, ..self.meta(Kind::Exit, head.cpu, head.time_ns, severity) };
        // The sink counts an event that it rejects.
        let _ = self.event.offer(&meta, sink);
    }

    /// Adds the result of a call: exit code or signal, and the message.
    fn plugin_result(
        &mut self,
        plugin: &str,
        call: &PluginCall,
        status: u32,
        duration_ns: u64,
    ) -> Severity {
        let event = &mut self.event;
        let duration = Elapsed(duration_ns);
        let (code, signal) = (status >> 8 & 0xff, status & 0x7f);
        if (code, signal) == (0, 0) {
            event.message(format_args!("CNI plugin {plugin}: {call} took {duration}"));
            return Severity::INFO;
        }
        event.text(names::TAPIO_CNI_COMMAND, &call.command);
        if signal != 0 {
            let name = signal_name(signal);
            event.word(names::ERROR_TYPE, name);
            event.message(format_args!(
                "CNI plugin {plugin}: {call} was killed by {name} after {duration}"
            ));
        } else {
            event.word(names::ERROR_TYPE, "exit_code");
            event.int(names::PROCESS_EXIT_CODE, code);
            event.message(format_args!(
                "CNI plugin {plugin}: {call} failed with exit code {code} after {duration}"
            ));
        }
        Severity::ERROR
    }

    /// Updates the directory's network namespaces after a successful call.
    fn update_network(&self, call: &PluginCall, netns_inode: u64) {
        if netns_inode == 0 || call.pod.uid.is_empty() {
            return;
        }
        match call.command.as_str() {
            "ADD" => self.directory.network_seen(netns_inode, &call.pod.uid, self.observed_ns),
            "DEL" => self.directory.network_gone(netns_inode, self.observed_ns),
            _ => {}
        }
    }
}
