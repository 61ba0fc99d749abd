//! The configuration, and its layout in the programs' configuration map.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kinds::{ErrorSet, Kind, SignalSet};
use super::raw::{ARGS_BYTES, ConfigWords};

/// Kinds that aren't enabled by default: each is many events, or costs every system call.
const ON_REQUEST: [Kind; 2] = [Kind::SyscallEnter, Kind::FileCreate];

/// The eBPF collector's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether to run the collector.
    pub enabled: bool,
    /// The kinds of event to emit. A program without any of its kinds in this list isn't loaded.
    pub kinds: Vec<Kind>,
    /// Whether to emit `kernel.file.create` besides `kinds`.
    pub file_create: bool,
    /// The ring buffer's size; rounded up to a power of two of at least a page.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub ring_buffer_bytes: u32,
    /// The signals that become `kernel.process.signal`.
    pub signals: SignalSet,
    /// Latency in milliseconds from which a block request becomes a `kernel.block.slow`.
    pub block_slow_ms: u64,
    /// Events per second and cgroup; the kernel drops and counts those above. 0: no limit.
    pub rate_per_cgroup: u64,
    /// Events that a quiet cgroup may cause in a burst.
    pub burst_per_cgroup: u64,
    /// Bytes read of a command line, at most 512.
    #[serde(with = "tapio_core::sizes")]
    #[schemars(with = "tapio_core::sizes::SizeText")]
    pub args_bytes: u64,
    /// File with the users' names, in the format of `passwd(5)`. In a container, the node's.
    pub passwd_file: PathBuf,
    /// Settings of `kernel.syscall.error_rate`.
    pub syscall_errors: SyscallErrors,
    /// The only cgroup whose system calls become `kernel.syscall.enter`, a path as in
    /// `/proc/PID/cgroup`; all cgroups if missing.
    pub syscall_enter_cgroup: Option<String>,
    /// Folders of CNI plugins: runs of their programs become `cni.add`, `cni.del`, `cni.check` and
    /// `cni.failed`, as long as `kinds` has `kernel.process.exec` and `kernel.process.exit`.
    pub cni_bin_dirs: Vec<String>,
    /// Whether to emit events about the agent's own connections and system calls.
    pub include_self: bool,
    /// Capacity of the table of processes.
    pub max_processes: usize,
    /// Capacity of the table of cgroups.
    pub max_cgroups: usize,
}

/// How failed system calls are aggregated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyscallErrors {
    /// Length of the counting interval, in milliseconds.
    pub interval_ms: u64,
    /// Count in an interval from which an event is emitted.
    pub min_count: u64,
    /// Errors that aren't counted: programs provoke them on purpose all the time.
    pub ignore: ErrorSet,
}

impl Default for SyscallErrors {
    fn default() -> Self {
        Self {
            interval_ms: 10_000,
            min_count: 10,
            ignore: ErrorSet::of(&[
                "EAGAIN",
                "EALREADY",
                "EINPROGRESS",
                "EINTR",
                "ENOENT",
                "ENOTTY",
                "ETIMEDOUT",
            ]),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            kinds: Kind::ALL.iter().copied().filter(|k| !ON_REQUEST.contains(k)).collect(),
            file_create: false,
            ring_buffer_bytes: 16 << 20,
            signals: SignalSet::default(),
            block_slow_ms: 200,
            rate_per_cgroup: 100_000,
            burst_per_cgroup: 200_000,
            args_bytes: ARGS_BYTES as u64,
            passwd_file: "/etc/passwd".into(),
            syscall_errors: SyscallErrors::default(),
            syscall_enter_cgroup: None,
            cni_bin_dirs: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
                .map(str::to_owned)
                .to_vec(),
            include_self: false,
            max_processes: 65_536,
            max_cgroups: 16_384,
        }
    }
}

impl Config {
    /// Whether events of this kind are enabled.
    #[must_use]
    pub fn has_kind(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind) || (self.file_create && kind == Kind::FileCreate)
    }

    /// The ring buffer's size as the kernel requires it: a power of two.
    #[must_use]
    pub fn ring_bytes(&self) -> u32 {
        self.ring_buffer_bytes.clamp(64 << 10, 1 << 30).next_power_of_two()
    }

    /// The words of `struct tp_config`. `kinds`: the bits of the enabled kinds; none disables the
    /// programs. `enter_cgroup`: the number of [`Config::syscall_enter_cgroup`].
    pub(super) fn words(&self, kinds: u64, enter_cgroup: u64) -> ConfigWords {
        let interval_ns = match self.rate_per_cgroup {
            0 => 0,
            rate => (1_000_000_000 / rate).max(1),
        };
        let ignored = self.syscall_errors.ignore.0;
        let own = if self.include_self { 0 } else { u64::from(std::process::id()) };
        [
            kinds,
            self.signals.0,
            self.block_slow_ms.saturating_mul(1_000_000),
            interval_ns,
            self.burst_per_cgroup.max(1).saturating_mul(interval_ns),
            ignored as u64,
            (ignored >> 64) as u64,
            0,
            own,
            enter_cgroup,
            self.args_bytes.min(ARGS_BYTES as u64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_key_or_kind_is_rejected_by_name() {
        let read = serde_saphyr::from_str::<Config>;
        let config = read("kinds: [kernel.process.exec]\nsignals: [SIGSEGV]\n").unwrap();
        assert_eq!((config.kinds, config.signals.0), (vec![Kind::Exec], 1 << 11));
        let unknown = read("rate: 5\n").unwrap_err().to_string();
        assert!(unknown.contains("rate"), "{unknown}");
        let kind = read("kinds: [kernel.process.exce]\n").unwrap_err().to_string();
        assert!(kind.contains("kernel.process.exce"), "{kind}");
    }

    #[test]
    fn rate_is_converted_to_time_per_event() {
        let config = Config { rate_per_cgroup: 1_000, burst_per_cgroup: 50, ..Config::default() };
        let words = config.words(1, 0);
        assert_eq!((words[3], words[4]), (1_000_000, 50_000_000));
        let unlimited = Config { rate_per_cgroup: 0, ..config };
        assert_eq!(unlimited.words(1, 0)[3], 0);
    }
}
