//! What can be configured, and how it reaches the programs.

use serde::Deserialize;

use super::kinds::{ErrorSet, Kind, SignalSet};
use super::raw::{ARGS_BYTES, ConfigWords};
use crate::runtime::{CollectorConfig, CollectorFactory, factory};
use tapio_core::ring::OnFull;

/// The eBPF collector's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether to read the kernel at all.
    pub enabled: bool,
    /// The kinds of event to tell. A program whose kinds are all missing isn't loaded.
    pub kinds: Vec<Kind>,
    /// The ring buffer's size; rounded up to a power of two of at least a page.
    pub ring_buffer_bytes: u32,
    /// The signals that become `kernel.process.signal`.
    pub signals: SignalSet,
    /// From this latency on a block request is `kernel.block.slow`, in milliseconds.
    pub block_slow_ms: u64,
    /// Events a second that one cgroup may cause; what is more is dropped in the kernel and
    /// counted. 0: no limit.
    pub rate_per_cgroup: u64,
    /// How many events a quiet cgroup may cause at once.
    pub burst_per_cgroup: u64,
    /// How much of a command line is read, at most 512.
    pub args_bytes: u64,
    /// `kernel.syscall.error_rate`.
    pub syscall_errors: SyscallErrors,
    /// `kernel.syscall.enter` tells of this cgroup only, a path as in `/proc/PID/cgroup`; of all
    /// where it is missing.
    pub syscall_enter_cgroup: Option<String>,
    /// Folders whose programs are CNI plugins: their runs become `cni.add`, `cni.del`, `cni.check` and `cni.failed`, as
    /// long as `kernel.process.exec` and `kernel.process.exit` are told.
    pub cni_bin_dirs: Vec<String>,
    /// Whether to tell of the agent's own connections and system calls.
    pub include_self: bool,
    /// Processes to remember.
    pub max_processes: usize,
    /// Cgroups to remember.
    pub max_cgroups: usize,
}

/// How failed system calls are summed up.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyscallErrors {
    /// The time over which they are counted, in milliseconds.
    pub interval_ms: u64,
    /// Fewer than this many in an interval are no event.
    pub min_count: u64,
    /// Errors that say nothing: programs run into them all the time on purpose.
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
            kinds: Kind::ALL.iter().copied().filter(|k| *k != Kind::SyscallEnter).collect(),
            ring_buffer_bytes: 16 << 20,
            signals: SignalSet::default(),
            block_slow_ms: 200,
            rate_per_cgroup: 100_000,
            burst_per_cgroup: 200_000,
            args_bytes: ARGS_BYTES as u64,
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
    /// Whether a kind is wanted.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The ring buffer's size as the kernel wants it.
    #[must_use]
    pub fn ring_bytes(&self) -> u32 {
        self.ring_buffer_bytes.clamp(64 << 10, 1 << 30).next_power_of_two()
    }

    /// The words of `struct tp_config`. `enter_cgroup` is the number of
    /// [`Config::syscall_enter_cgroup`].
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

impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn on_full(&self) -> OnFull {
        OnFull::Drop
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), super::Ebpf::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_kinds_are_refused_by_name() {
        let read = serde_saphyr::from_str::<Config>;
        let config = read("kinds: [kernel.process.exec]\nsignals: [SIGSEGV]\n").unwrap();
        assert_eq!((config.kinds, config.signals.0), (vec![Kind::Exec], 1 << 11));
        let unknown = read("rate: 5\n").unwrap_err().to_string();
        assert!(unknown.contains("rate"), "{unknown}");
        let kind = read("kinds: [kernel.process.exce]\n").unwrap_err().to_string();
        assert!(kind.contains("kernel.process.exce"), "{kind}");
    }

    #[test]
    fn a_rate_becomes_time_per_event() {
        let config = Config { rate_per_cgroup: 1_000, burst_per_cgroup: 50, ..Config::default() };
        let words = config.words(1, 0);
        assert_eq!((words[3], words[4]), (1_000_000, 50_000_000));
        let unlimited = Config { rate_per_cgroup: 0, ..config };
        assert_eq!(unlimited.words(1, 0)[3], 0);
    }
}
