//! The table of collectors: adding one is adding its row here (and its file).

use std::time::Duration;

use crate::runtime::health::HUNG_AFTER;
use crate::runtime::{CollectorConfig, CollectorFactory};
use crate::{
    cni, container, ebpf, journal, jsonl, k8s, kmsg, node, otlp, receiver, synthetic, systemd,
};
use tapio_core::ring::OnFull;

/// A collector as the configuration wants it.
pub struct Row {
    /// Its name: in the configuration, in metrics, and of its thread.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Whether to run it.
    pub enabled: bool,
    /// What it does when a ring is full.
    pub on_full: OnFull,
    /// Makes it anew for each start.
    pub factory: CollectorFactory,
}

/// Collectors give a sign of life several times in that time, and the manager looks for one once a second.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

/// How long a collector may be silent before it counts as hanging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct HungAfter(#[serde(with = "tapio_core::durations")] pub Duration);

impl Default for HungAfter {
    fn default() -> Self {
        Self(HUNG_AFTER)
    }
}

macro_rules! collectors {
    ($($name:ident: $config:ty, $about:literal;)*) => {
        /// The configuration of every collector: the section `collectors`.
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct CollectorsConfig {
            /// Where it is given, no other collectors run than these.
            pub only: Option<Vec<String>>,
            /// A collector without a sign of life for so long hangs: another run takes its place.
            pub hung_after: HungAfter,
            $(#[doc = $about] pub $name: $config,)*
        }

        impl CollectorsConfig {
            fn may_run(&self, name: &str) -> bool {
                self.only.as_ref().is_none_or(|only| only.iter().any(|n| n == name))
            }

            /// Finds names in `only` that no collector has, and a patience nobody could meet.
            ///
            /// # Errors
            /// The key and what is wrong with it.
            pub fn check(&self) -> Result<(), String> {
                if self.hung_after.0 < LEAST_SILENCE {
                    return Err(format!("hung_after: at least {LEAST_SILENCE:?}"));
                }
                let known = [$(stringify!($name)),*];
                let unknown = self.only.iter().flatten().find(|n| !known.contains(&n.as_str()));
                match unknown {
                    None => Ok(()),
                    Some(name) => {
                        Err(format!("only: no collector `{name}`: there are {}", known.join(", ")))
                    }
                }
            }

            /// Every collector there is, in the table's order; its number in the ledger is its
            /// place among those that run.
            #[must_use]
            pub fn rows(&self) -> Vec<Row> {
                vec![$(Row {
                    name: stringify!($name),
                    about: $about,
                    enabled: self.$name.enabled() && self.may_run(stringify!($name)),
                    on_full: self.$name.on_full(),
                    factory: self.$name.factory(),
                },)*]
            }
        }
    };
}

collectors! {
    ebpf: ebpf::Config, "What the kernel does: processes, signals, OOM kills, TCP, block devices, failing system calls.";
    kmsg: kmsg::Config, "The kernel's log.";
    node: node::Config, "Pressure and use of units and pods, zombies, a clock that was set.";
    cni: cni::Config, "Pod networks: calls of CNI plugins, addresses given and taken back, the node's links and routes.";
    container: container::Config, "The container runtime: containers created, started, exited, out of memory, deleted; images pulled.";
    jsonl: jsonl::Config, "Events as JSON lines from files, fifos and standard input.";
    k8s: k8s::Config, "Pods, Events, conditions and rollouts from the Kubernetes API; names for all collectors.";
    systemd: systemd::Config, "What happens to systemd's units: starts, failures, restarts, jobs.";
    journal: journal::Config, "Records of systemd's journal, read from its files.";
    otlp: otlp::Config, "Logs and spans of applications, over OTLP.";
    receiver: receiver::ReceiverConfig, "Events from local applications and other agents over tapio's own protocol.";
    synthetic: synthetic::Config, "Load made inside the agent, for tests and benchmarks.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::ring::MAX_COLLECTORS;

    #[test]
    fn every_row_fits_a_ledger_and_a_threads_name() {
        let rows = CollectorsConfig::default().rows();
        assert!(rows.len() <= MAX_COLLECTORS);
        for row in rows {
            // Linux keeps 15 bytes of a thread's name, two of which are "c:".
            assert!(row.name.len() <= 13, "{}", row.name);
            assert!(row.about.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn nothing_that_needs_a_choice_runs_by_default() {
        for row in CollectorsConfig::default().rows() {
            let chosen = matches!(row.name, "jsonl" | "synthetic");
            assert!(!(chosen && row.enabled), "{}", row.name);
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let bad = serde_json::from_str::<CollectorsConfig>(r#"{"synthetic":{"rat":1}}"#);
        assert!(bad.unwrap_err().to_string().contains("unknown field `rat`"));
        let good: CollectorsConfig =
            serde_json::from_str(r#"{"synthetic":{"enabled":true,"rate":"max"}}"#).unwrap();
        assert!(good.rows().iter().any(|r| r.name == "synthetic" && r.enabled));
    }
}
