//! Checks what the eBPF collector needs from kernel, privileges and node, and what each missing
//! prerequisite costs. `tapio doctor` prints the result.

use super::cgroups::Cgroups;
use super::config::Config;
use super::loader::{BTF_PATH, LoadError, Loader, PROGRAMS, Verdict};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The subject of the check.
    pub subject: String,
    /// Whether the check passed.
    pub ok: bool,
    /// The state found.
    pub state: String,
    /// The functions that are missing because of it; empty if `ok`.
    pub cost: String,
    /// The remedy; empty if `ok`.
    pub remedy: String,
}

impl Finding {
    /// Whether all kernel events are missing because of it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.cost == NOTHING
    }
}

fn finding(subject: &str, ok: bool, state: String, cost: &str, remedy: &str) -> Finding {
    let unless_ok = |text: &str| if ok { String::new() } else { text.to_owned() };
    Finding {
        subject: subject.to_owned(),
        ok,
        state,
        cost: unless_ok(cost),
        remedy: unless_ok(remedy),
    }
}

/// The cost if no program can be loaded.
const NOTHING: &str = "no kernel events at all";

/// Capabilities by their bit (`include/uapi/linux/capability.h`).
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

fn effective_capabilities() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}

/// Major and minor version of a release such as `6.18.2-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let ok = version(&release).is_some_and(|v| v >= (5, 12));
    finding(
        "kernel",
        ok,
        format!("Linux {release}"),
        NOTHING,
        "upgrade to Linux 5.12 or later; 5.18 adds block errors, 6.8 OOM kills",
    )
}

fn type_information() -> Finding {
    let read = std::fs::File::open(BTF_PATH);
    finding(
        "type information (BTF)",
        read.is_ok(),
        read.map_or_else(|e| format!("{BTF_PATH}: {e}"), |_| format!("{BTF_PATH} is readable")),
        NOTHING,
        LoadError::NoBtf.remedy(),
    )
}

fn capabilities() -> Finding {
    let has = effective_capabilities();
    let bit = |n: u32| has >> n & 1 == 1;
    let ok = bit(SYS_ADMIN) || (bit(BPF) && bit(PERFMON));
    let names = [(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON"), (SYS_ADMIN, "CAP_SYS_ADMIN")];
    let held: Vec<&str> = names.iter().filter(|(n, _)| bit(*n)).map(|n| n.1).collect();
    finding(
        "capabilities",
        ok,
        if held.is_empty() { "neither CAP_BPF nor CAP_PERFMON".into() } else { held.join(", ") },
        NOTHING,
        "run as root, or grant the two: `setcap cap_bpf,cap_perfmon+ep tapio`, or \
         AmbientCapabilities=CAP_BPF CAP_PERFMON in the unit",
    )
}

fn own_pid_namespace() -> Finding {
    // The initial PID namespace has this inode number in every kernel (include/linux/proc_ns.h).
    let link = std::fs::read_link("/proc/self/ns/pid");
    let state = link.map_or_else(|e| e.to_string(), |l| l.display().to_string());
    finding(
        "process namespace",
        state == "pid:[4026531836]",
        state,
        "process numbers in events are the node's, not this container's: processes that started \
         before the agent have no names, and the agent's own connections aren't recognised",
        "run with hostPID: true",
    )
}

fn cgroup_file_system() -> Finding {
    let mut cgroups = Cgroups::new(1 << 20, "");
    cgroups.scan(0);
    let n = cgroups.len();
    finding(
        "cgroup file system",
        n > 0,
        format!("{n} cgroups"),
        "cgroups created before the agent's start have no path: no pod, container or unit names",
        "mount the node's /sys/fs/cgroup",
    )
}

/// Checks everything that the eBPF collector needs. Loads each program of `config` into the kernel
/// and removes it again; none is attached, so nothing is traced.
#[must_use]
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut all = vec![
        kernel(),
        type_information(),
        capabilities(),
        own_pid_namespace(),
        cgroup_file_system(),
    ];
    let loaded =
        Loader::new(64 << 10).map(|(mut loader, btf)| loader.load(&btf, PROGRAMS, config, false));
    match loaded {
        Ok(programs) => all.extend(programs.iter().map(|one| {
            finding(
                &format!("program {}", one.program.name),
                !matches!(one.verdict, Verdict::Failed(_)),
                match &one.verdict {
                    Verdict::Ok => "loads".into(),
                    Verdict::Off => "not needed".into(),
                    Verdict::Failed(cause) => cause.clone(),
                },
                one.program.cost,
                "see the capabilities and the kernel version above",
            )
        })),
        Err(cause) => {
            let remedy = cause.remedy();
            all.push(finding("eBPF object", false, cause.to_string(), NOTHING, remedy));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_release_is_parsed() {
        assert_eq!(version("6.18.2-amd64"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn passed_check_has_no_cost_and_no_remedy() {
        for f in findings(&Config::default()) {
            assert_eq!(f.ok, f.cost.is_empty(), "{f:?}");
            assert_eq!(f.ok, f.remedy.is_empty(), "{f:?}");
        }
    }
}
