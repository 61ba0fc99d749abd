//! The table of collectors. A new collector is a row here, its file or folder, and its name in
//! `tests/architecture/layers.rs`. A counter of its own also needs a row in
//! `src/runtime/metrics/collectors.rs` and a line in `docs/metrics.md`.

use std::time::Duration;

use crate::runtime::health::HUNG_AFTER;
use crate::runtime::{CollectorConfig, CollectorFactory, Needs, Rights};
use crate::{
    cni, container, ebpf, journal, jsonl, k8s, kmsg, node, otlp, receiver, synthetic, systemd,
};
use tapio_core::ring::OnFull;
use tapio_core::sandbox::CapabilitySet;

/// A collector with its configuration.
pub struct Row {
    /// Its name in the configuration, in metrics, and of its thread.
    pub name: &'static str,
    /// Its description, one sentence.
    pub about: &'static str,
    /// Whether to run it.
    pub enabled: bool,
    /// The sink's policy for a full ring.
    pub on_full: OnFull,
    /// Whether events come again after a kill of the agent, under the same ids.
    pub reads_again: bool,
    /// Whether its senders choose the times of its events.
    pub has_given_times: bool,
    /// The names of its threads that can be busy for long.
    pub busy_threads: &'static [&'static str],
    /// Creates the collector for each run.
    pub factory: CollectorFactory,
    /// The rights that it needs.
    pub needs: Needs,
}

/// Minimum of `hung_after`: the manager checks heartbeats once a second, and a collector gives
/// several in that time.
const MIN_HUNG_AFTER: Duration = Duration::from_secs(1);

/// Time without a heartbeat after which a collector counts as hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct HungAfter(#[serde(with = "tapio_core::durations")] pub Duration);

impl Default for HungAfter {
    fn default() -> Self {
        Self(HUNG_AFTER)
    }
}

macro_rules! collectors {
    ($($name:ident: $config:ty, $about:literal, opening $opening:expr, running $running:expr;)*) => {
        /// The configuration of every collector: the section `collectors`.
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct CollectorsConfig {
            /// If set, only these collectors run.
            pub only: Option<Vec<String>>,
            /// Time without a heartbeat after which a collector counts as hung and another run
            /// replaces it.
            #[schemars(with = "tapio_core::durations::DurationText")]
            pub hung_after: HungAfter,
            $(#[doc = $about] pub $name: $config,)*
        }

        impl CollectorsConfig {
            fn may_run(&self, name: &str) -> bool {
                self.only.as_ref().is_none_or(|only| only.iter().any(|n| n == name))
            }

            /// Checks that `only` has names of collectors, that `hung_after` isn't too short, and
            /// the values of the collectors that run.
            ///
            /// # Errors
            /// The key and its fault.
            pub fn check(&self) -> Result<(), String> {
                if self.hung_after.0 < MIN_HUNG_AFTER {
                    return Err(format!("hung_after: at least {MIN_HUNG_AFTER:?}"));
                }
                let names = [$(stringify!($name)),*];
                let unknown = self.only.iter().flatten().find(|n| !names.contains(&n.as_str()));
                if let Some(name) = unknown {
                    let names = names.join(", ");
                    return Err(format!("only: unknown collector `{name}`; available: {names}"));
                }
                $(if self.$name.enabled() && self.may_run(stringify!($name)) {
                    let invalid = |e| format!("{}.{e}", stringify!($name));
                    self.$name.check().map_err(invalid)?;
                })*
                Ok(())
            }

            /// All collectors in the table's order. A collector's number in the ledger is its index
            /// among those that run.
            #[must_use]
            pub fn rows(&self) -> Vec<Row> {
                vec![$(Row {
                    name: stringify!($name),
                    about: $about,
                    enabled: self.$name.enabled() && self.may_run(stringify!($name)),
                    on_full: self.$name.on_full(),
                    reads_again: self.$name.reads_again(),
                    has_given_times: self.$name.has_given_times(),
                    busy_threads: self.$name.busy_threads(),
                    factory: self.$name.factory(),
                    needs: Needs::new(
                        Rights { opening: $opening, running: $running },
                        self.$name.files(),
                        &self.$name.sockets(),
                    ),
                },)*]
            }
        }
    };
}

const NONE: CapabilitySet = CapabilitySet::empty();
/// Load and attach eBPF programs. Reading their ring buffer and maps needs no capability.
const ATTACH: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
/// Read `/proc/PID/exe`, `environ` and `root` of other users' processes: names of processes that
/// started before the agent, and the calls of CNI plugins.
const SYS_PTRACE: CapabilitySet = CapabilitySet::SYS_PTRACE;
/// Open the kernel's log where `kernel.dmesg_restrict` is set.
const SYSLOG: CapabilitySet = CapabilitySet::SYSLOG;
/// Read the files of other users, which root can't without it.
const DAC_READ_SEARCH: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

// The capabilities to open the source are effective until it is open, those to run for as long as
// the collector runs. A row without capabilities has a thread without any: root's files and
// sockets, the system bus and ports from 1024 on are open to root without a capability.
collectors! {
    ebpf: ebpf::Config, "Kernel events: processes, signals, OOM kills, TCP, block devices, failing system calls.",
        opening ATTACH, running SYS_PTRACE;
    kmsg: kmsg::Config, "The kernel's log.",
        opening SYSLOG, running NONE;
    node: node::Config, "Pressure and usage of units and pods, zombies, clock steps.",
        opening NONE, running NONE;
    cni: cni::Config, "Pod networks: calls of CNI plugins, addresses allocated and released, the node's links and routes.",
        opening NONE, running NONE;
    container: container::Config, "The container runtime: containers created, started, exited, out of memory, deleted; images pulled.",
        opening NONE, running NONE;
    jsonl: jsonl::Config, "Events as JSON lines from files, fifos and standard input.",
        opening NONE, running DAC_READ_SEARCH;
    k8s: k8s::Config, "Pods, Events, conditions and rollouts from the Kubernetes API; names for all collectors.",
        opening NONE, running NONE;
    systemd: systemd::Config, "Lifecycle of systemd's units: starts, failures, restarts, jobs.",
        opening NONE, running NONE;
    journal: journal::Config, "Records of systemd's journal, read from its files.",
        opening NONE, running NONE;
    otlp: otlp::Config, "Logs and spans of applications, over OTLP.",
        opening NONE, running NONE;
    receiver: receiver::ReceiverConfig, "Events from local applications and other agents over tapio's own protocol.",
        opening NONE, running NONE;
    synthetic: synthetic::Config, "Generated load, for tests and benchmarks.",
        opening NONE, running NONE;
}

/// The collectors that emit a kind, by the start of its name. The first that fits applies.
const EMITTED_BY: &[(&str, &[&str])] = &[
    ("kernel.log", &["kmsg"]),
    ("kernel.pressure", &["node"]),
    ("kernel.process.zombies", &["node"]),
    ("kernel.clock.", &["node"]),
    ("kernel.", &["ebpf"]),
    ("tapio.kernel.", &["ebpf"]),
    ("systemd.", &["systemd"]),
    ("journal.", &["journal"]),
    ("k8s.", &["k8s"]),
    ("cni.ip.", &["cni"]),
    ("cni.", &["cni", "ebpf"]),
    ("network.", &["cni"]),
    ("container.", &["container"]),
    ("entity.", &["k8s", "cni", "container", "ebpf"]),
];

impl CollectorsConfig {
    /// Whether a collector that runs emits events of a kind.
    ///
    /// # Errors
    /// The reason why none does.
    pub fn emits(&self, kind: &str) -> Result<(), String> {
        let row = EMITTED_BY.iter().find(|(start, _)| kind.starts_with(start));
        let Some((_, collectors)) = row else {
            return Err(format!("no collector emits `{kind}`"));
        };
        let rows = self.rows();
        let runs = |name: &&str| rows.iter().any(|row| row.name == *name && row.enabled);
        if !collectors.iter().any(runs) {
            return Err(format!("`{kind}` needs the collector {}, which is off", collectors[0]));
        }
        let own = ebpf::Kind::ALL.iter().find(|k| k.name().text() == kind);
        match own {
            Some(ebpf::Kind::FileCreate) if !self.ebpf.has_kind(ebpf::Kind::FileCreate) => {
                Err(format!("`{kind}` needs collectors.ebpf.file_create: true"))
            }
            Some(own) if !self.ebpf.has_kind(*own) => {
                Err(format!("`{kind}` isn't among collectors.ebpf.kinds"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_collector() {
        let mut config = CollectorsConfig::default();
        for kind in tapio_core::event::attribute_schema::kinds() {
            let expected = match kind {
                "kernel.syscall.enter" => {
                    Err("`kernel.syscall.enter` isn't among collectors.ebpf.kinds".to_owned())
                }
                "kernel.file.create" => {
                    let cause = "`kernel.file.create` needs collectors.ebpf.file_create: true";
                    Err(cause.to_owned())
                }
                _ => Ok(()),
            };
            assert_eq!(config.emits(kind), expected, "{kind}");
        }
        let names: Vec<&str> = config.rows().iter().map(|row| row.name).collect();
        let mut emitting = EMITTED_BY.iter().flat_map(|(_, collectors)| collectors.iter());
        assert!(emitting.all(|name| names.contains(name)));
        config.only = Some(vec!["journal".to_owned()]);
        assert_eq!(config.emits("journal.message"), Ok(()));
        let off = config.emits("kernel.process.exec").unwrap_err();
        assert_eq!(off, "`kernel.process.exec` needs the collector ebpf, which is off");
    }
    use tapio_core::ring::MAX_COLLECTORS;

    #[test]
    fn every_row_fits_ledger_and_thread_name() {
        let rows = CollectorsConfig::default().rows();
        assert!(rows.len() <= MAX_COLLECTORS);
        for row in rows {
            // Linux keeps 15 bytes of a thread's name, two of which are "c:".
            assert!(row.name.len() <= 13, "{}", row.name);
            assert!(row.about.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn collectors_without_default_source_are_disabled_by_default() {
        for row in CollectorsConfig::default().rows() {
            let is_optional = matches!(row.name, "jsonl" | "synthetic");
            assert!(!(is_optional && row.enabled), "{}", row.name);
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
