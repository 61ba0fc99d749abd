//! The CPUs of the agent's threads: the layout of a configuration, and its part of `/status`.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::config::Config;
use super::log_level::LogLevel;
use super::sandbox::Sandbox;
use crate::{bridge, export};
use tapio_collectors::Row;
use tapio_core::cpu::{Machine, ThreadLayout, cpus_of_threads};

/// A process that is prepared to run an agent. The default has its rights without limits, and moves
/// no thread.
#[derive(Default)]
pub struct AgentProcess {
    /// The limits of its rights.
    pub sandbox: Option<Sandbox>,
    /// The CPUs of its threads.
    pub layout: ThreadLayout,
    /// The level of its log; `None` where it can't be changed.
    pub log: Option<Arc<LogLevel>>,
}

impl AgentProcess {
    /// Gives the configuration the number of shards that the layout has, unless it sets another.
    pub(super) fn adjust(self, config: &mut Config) -> Self {
        if config.dataflow.shards == 0 {
            config.dataflow.shards = self.layout.shards();
        }
        self
    }
}

impl Config {
    /// The CPUs of the threads of an agent with these collectors, on this machine.
    ///
    /// # Errors
    /// The dotted key of a value that the machine doesn't allow, and the cause.
    pub fn thread_layout(&self, rows: &[Row]) -> Result<ThreadLayout, (String, String)> {
        let collectors = rows.iter().filter(|row| row.enabled);
        let mut busy = vec![bridge::THREAD];
        busy.extend(collectors.flat_map(|row| row.busy_threads));
        busy.extend((!self.export.otlp.is_empty()).then_some(export::THREAD));
        let layout = self.threads.layout(Machine::of_process(), self.dataflow.shards, &busy);
        layout.map_err(|error| {
            let (key, cause) = error.split_once(": ").unwrap_or(("", &error));
            (format!("threads.{key}"), cause.to_owned())
        })
    }
}

/// The section `threads` of `/status`. The CPUs are those that the kernel reports now.
pub(super) fn layout_json(layout: &ThreadLayout) -> Json {
    let now = if layout.pinned().is_empty() { Vec::new() } else { cpus_of_threads() };
    let pinned: Map<String, Json> = now
        .into_iter()
        .filter(|(name, _)| layout.pinned().iter().any(|(pinned, _)| pinned == name))
        .map(|(name, cpus)| (name, cpus.to_string().into()))
        .collect();
    json!({
        "pinned": pinned,
        "not_pinned": layout.unpinned(),
        "shared_cpus": layout.shared().map(ToString::to_string),
        "numa_node": layout.node(),
    })
}
