//! The kernel, and the agent's process as `/proc` shows it. Neither command lines nor environments
//! are read: they have secrets.

use std::fmt::Write as _;
use std::path::Path;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Files with the limits and the use of a cgroup.
const CGROUP_FILES: &[&str] = &[
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.events",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "cpu.max",
    "cpu.stat",
    "cpu.cfs_quota_us",
    "pids.max",
    "pids.current",
    "io.max",
];

/// A file's text, or why it can't be read.
fn file(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"))
}

/// The kernel and what it offers.
pub(super) fn kernel() -> String {
    let uname = rustix::system::uname();
    let [system, release, version, machine] =
        [uname.sysname(), uname.release(), uname.version(), uname.machine()]
            .map(|text| text.to_string_lossy().into_owned());
    let mut out = format!("{system} {release} {version} {machine}\n");
    for path in [
        "/sys/kernel/security/lsm",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
        "/proc/sys/kernel/perf_event_paranoid",
        "/proc/sys/kernel/dmesg_restrict",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/proc/pressure/cpu",
        "/proc/pressure/memory",
        "/proc/pressure/io",
        "/proc/loadavg",
        "/proc/meminfo",
    ] {
        let _ = write!(out, "\n== {path}\n{}", file(Path::new(path)));
    }
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    let _ =
        writeln!(out, "\n== /sys/kernel/btf/vmlinux\n{}", if btf { "exists" } else { "missing" });
    out
}

/// The limits and the use of a process's cgroup and those above it.
pub(super) fn cgroups(pid: u32) -> String {
    let cgroups = file(Path::new(&format!("/proc/{pid}/cgroup")));
    let mut out = cgroups.clone();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let root = match controllers {
            "" => Path::new(CGROUP_ROOT).to_owned(),
            names => Path::new(CGROUP_ROOT).join(names),
        };
        for above in Path::new(path.trim_start_matches('/')).ancestors() {
            for name in CGROUP_FILES {
                let file = root.join(above).join(name);
                if let Ok(text) = std::fs::read_to_string(&file) {
                    let _ = write!(out, "\n== {}\n{text}", file.display());
                }
            }
        }
    }
    out
}

/// State and limits of a process.
pub(super) fn limits(pid: u32) -> String {
    let mut out = String::new();
    for name in ["status", "limits", "io", "schedstat", "oom_score", "oom_score_adj"] {
        let path = format!("/proc/{pid}/{name}");
        let _ = write!(out, "== {path}\n{}\n", file(Path::new(&path)));
    }
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    let files = files.map_or_else(|error| error.to_string(), |count| count.to_string());
    let _ = writeln!(out, "== open files\n{files}");
    out
}

/// The threads of a process: id, name, state, CPU time in ticks, last CPU.
pub(super) fn threads(pid: u32) -> String {
    let mut threads: Vec<(u32, String)> = Vec::new();
    let tasks = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks,
        Err(error) => return format!("{error}\n"),
    };
    for task in tasks.flatten() {
        let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // `TID (NAME) STATE …`: a name may have spaces and brackets.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((start, rest)) = stat.rsplit_once(')') else { continue };
        let name = start.split_once('(').map_or("", |(_, name)| name);
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or("?");
        let (state, user, system, cpu) = (field(0), field(11), field(12), field(36));
        threads.push((
            tid,
            format!("{tid:>8} {name:<16} {state} user {user} system {system} cpu {cpu}\n"),
        ));
    }
    threads.sort();
    threads.into_iter().map(|(_, line)| line).collect()
}
