//! Facts that the kernel's log and another source can both report.

use super::kernel::Facts;

/// A fact of the kernel. Two sources that report the same fact give equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KernelFact {
    /// A task was OOM-killed.
    OomKill {
        /// The task's number, in the node's own pid namespace.
        task: u32,
    },
    /// A task was killed by a memory access or CPU fault.
    Crash {
        /// The task's number, in the node's own pid namespace.
        task: u32,
    },
    /// A block device failed a request.
    BlockError {
        /// The disk's name.
        device: String,
        /// The first sector, of 512 bytes.
        sector: u64,
    },
    /// A block device failed requests, at a place that isn't named.
    DeviceError {
        /// The disk's name.
        device: String,
    },
}

/// The signals of a memory access or CPU fault.
const FAULTS: [&str; 4] = ["SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"];
/// Beginnings of a SCSI disk's sense data: lines about the failure that the block layer reports.
const SENSE: [&str; 2] = ["Sense Key : ", "Add. Sense: "];

impl KernelFact {
    /// The fact that a line of the kernel's log reports.
    #[must_use]
    pub fn in_line(message: &str) -> Option<Self> {
        let facts = Facts::of(message);
        let task = facts.pid.and_then(|pid| u32::try_from(pid).ok());
        match (task, facts.signal) {
            (Some(task), Some(signal)) => FAULTS.contains(&signal).then_some(Self::Crash { task }),
            (Some(task), None) => Some(Self::OomKill { task }),
            (None, _) => {
                let device = facts.device?.to_owned();
                if SENSE.iter().any(|words| message.contains(words)) {
                    return Some(Self::DeviceError { device });
                }
                Some(Self::BlockError { device, sector: sector(message)? })
            }
        }
    }
}

/// The sector in `… error, dev NAME, sector N[ op …]`.
fn sector(message: &str) -> Option<u64> {
    let (before, rest) = message.split_once(", sector ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    before.contains(" error, dev ").then(|| rest[..digits].parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_kernel_report_the_same_fact() {
        let block = || KernelFact::BlockError { device: "sdb".into(), sector: 2_064 };
        let sense = || KernelFact::DeviceError { device: "sdb".into() };
        for (message, fact) in [
            (
                "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
                 oom_memcg=/a,task_memcg=/a/b,task=sort,pid=966,uid=0",
                KernelFact::OomKill { task: 966 },
            ),
            (
                "Memory cgroup out of memory: Killed process 966 (sort) total-vm:3kB, anon-rss:5kB",
                KernelFact::OomKill { task: 966 },
            ),
            ("p[7]: segfault at 0 ip 0 sp 0 error 6", KernelFact::Crash { task: 7 }),
            (
                "traps: p[9] trap divide error ip:1 sp:2 error:0 in p[4+5]",
                KernelFact::Crash { task: 9 },
            ),
            ("blk_update_request: I/O error, dev sdb, sector 2064", block()),
            (
                "I/O error, dev sdb, sector 2064 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
                block(),
            ),
            ("critical medium error, dev sdb, sector 2064 op 0x0:(READ) flags 0x0", block()),
            ("sd 2:0:0:0: [sdb] tag#0 Sense Key : Medium Error [current]", sense()),
            ("sd 2:0:0:0: [sdb] tag#0 Add. Sense: Unrecovered read error", sense()),
        ] {
            assert_eq!(KernelFact::in_line(message), Some(fact), "{message}");
        }
    }

    #[test]
    fn other_lines_report_none() {
        for message in [
            "usb 1-1: new device",
            "Tasks in /batch are going to be killed due to memory.oom.group set",
            // The kernel collector's event of it is no fault.
            "traps: containerd[1322] trap int3 ip:55f4 sp:7ffe error:0",
            "Buffer I/O error on dev sdb, logical block 258, async page read",
            "EXT4-fs (sdb): mounted filesystem",
            "I/O error, dev sdb, sector ",
        ] {
            assert_eq!(KernelFact::in_line(message), None, "{message}");
        }
    }
}
