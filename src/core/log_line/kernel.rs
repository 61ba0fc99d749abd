//! Lines of the kernel that name a process or a cgroup. The forms are those of the kernel's source
//! from 3.10 on: `show_signal_msg` (arch/*/mm/fault.c), `do_trap` (arch/x86/kernel/traps.c),
//! `oom_kill_process` and `dump_oom_summary` (mm/oom_kill.c), `mem_cgroup_print_oom_info`
//! (mm/memcontrol.c).

use super::device::block_device;

/// The facts that a line names. Default: none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts<'a> {
    pub(super) pid: Option<i64>,
    /// The process's name (`comm`), up to 15 bytes of any text.
    pub(super) program: Option<&'a str>,
    /// The signal that the process got.
    pub(super) signal: Option<&'static str>,
    /// Path of the process's cgroup.
    pub(super) cgroup: Option<&'a str>,
    /// `cgroup` or `node`, of an OOM kill.
    pub(super) oom_scope: Option<&'static str>,
    /// Path of the cgroup whose limit was reached.
    pub(super) oom_cgroup: Option<&'a str>,
    /// Resident memory of the killed process.
    pub(super) rss_bytes: Option<i64>,
    pub(super) device: Option<&'a str>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(message: &'a str) -> Self {
        oom_summary(message)
            .or_else(|| oom_limit(message))
            .or_else(|| oom_kill(message))
            .or_else(|| crash(message))
            .unwrap_or_else(|| Self { device: block_device(message), ..Self::default() })
    }
}

/// `oom-kill:constraint=…,oom_memcg=PATH,task_memcg=PATH,task=NAME,pid=N,uid=N` (since 4.19).
fn oom_summary(message: &str) -> Option<Facts<'_>> {
    let rest = message.strip_prefix("oom-kill:constraint=")?;
    // A name may hold a comma, so pid and uid are read from the end.
    let (rest, _uid) = rest.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (rest, program) = rest.split_once(",task=")?;
    let (rest, cgroup) = match rest.split_once(",task_memcg=") {
        Some((rest, cgroup)) => (rest, Some(cgroup)),
        None => (rest, None),
    };
    let oom_cgroup = rest.split_once(",oom_memcg=").map(|(_, path)| path);
    let is_cgroup = rest.starts_with("CONSTRAINT_MEMCG") || oom_cgroup.is_some();
    Some(Facts {
        pid: pid.parse().ok(),
        program: Some(program),
        cgroup,
        oom_scope: Some(if is_cgroup { "cgroup" } else { "node" }),
        oom_cgroup,
        ..Facts::default()
    })
}

/// `Task in PATH killed as a result of limit of PATH` (until 4.18), `Tasks in PATH are going to be
/// killed due to memory.oom.group set` (since 4.19).
fn oom_limit(message: &str) -> Option<Facts<'_>> {
    let (cgroup, limit) = match message.strip_prefix("Task in ") {
        Some(rest) => rest.split_once(" killed as a result of limit of ")?,
        None => {
            let rest = message.strip_prefix("Tasks in ")?;
            let (cgroup, _) = rest.split_once(" are going to be killed due to memory.oom.group")?;
            (cgroup, cgroup)
        }
    };
    Some(Facts {
        cgroup: Some(cgroup),
        oom_scope: Some("cgroup"),
        oom_cgroup: Some(limit.trim_end()),
        ..Facts::default()
    })
}

/// `[REASON: ]Killed process N (NAME) …`, `Kill process N (NAME) score …` (until 5.0), and those
/// of el7 with a uid, before or after the name; `oom_reaper: reaped process N (NAME), …`.
fn oom_kill(message: &str) -> Option<Facts<'_>> {
    let at = ["Killed process ", "Kill process ", "oom_reaper: reaped process "]
        .into_iter()
        .find_map(|word| Some(message.find(word)? + word.len()))?;
    let (before, rest) = message.split_at(at);
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let pid = rest[..digits].parse().ok()?;
    let (_, named) = rest.split_once('(')?;
    // A name may hold parentheses: it ends at the last one before the figures.
    let figures = [" total-vm:", ", UID", " score ", ", now anon-rss", " or sacrifice"];
    let end = figures.iter().filter_map(|word| named.find(word)).min().unwrap_or(named.len());
    let program = &named[..named[..end].rfind(')')?];
    let kib = |key: &str| -> Option<i64> {
        let value = rest.split_once(key)?.1;
        value[..value.find("kB")?].parse().ok()
    };
    let rss_kib: Option<i64> = kib(", anon-rss:").map(|anon| {
        [", file-rss:", ", shmem-rss:"]
            .iter()
            .filter_map(|key| kib(key))
            .fold(anon, i64::saturating_add)
    });
    let oom_scope = if before.starts_with("Memory cgroup out of memory") {
        Some("cgroup")
    } else {
        before.starts_with("Out of memory").then_some("node")
    };
    Some(Facts {
        pid: Some(pid),
        program: Some(program),
        oom_scope,
        rss_bytes: rss_kib.map(|kib| kib.saturating_mul(1_024)),
        ..Facts::default()
    })
}

/// Texts behind `NAME[PID]`, and the signal that the process gets.
const CRASHES: [(&str, &str); 18] = [
    (": segfault at ", "SIGSEGV"),
    (": segfault (", "SIGSEGV"),
    (" general protection", "SIGSEGV"),
    (" trap invalid opcode", "SIGILL"),
    (" trap divide error", "SIGFPE"),
    (" trap int3", "SIGTRAP"),
    (" trap stack segment", "SIGBUS"),
    (" trap alignment check", "SIGBUS"),
    (" trap segment not present", "SIGBUS"),
    (" trap bounds", "SIGSEGV"),
    (" trap overflow", "SIGSEGV"),
    (" trap ", "SIGSEGV"),
    (": bus error (", "SIGBUS"),
    (": illegal instruction (", "SIGILL"),
    (": bad frame in ", "SIGSEGV"),
    (": unhandled exception: ", "SIGSEGV"),
    (": unhandled ", "SIGSEGV"),
    (": User process fault:", "SIGSEGV"),
];

/// The signal of `: unhandled level 2 translation fault (11) at …` (arm64 until 4.20),
/// `: unhandled signal 11 …` (powerpc, riscv).
fn unhandled_signal(rest: &str) -> Option<&'static str> {
    let rest = rest.strip_prefix(": unhandled ")?;
    let number = match rest.strip_prefix("signal ") {
        Some(number) => number,
        None => rest.split_once(" (")?.1,
    };
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    match &number[..digits] {
        "4" => Some("SIGILL"),
        "5" => Some("SIGTRAP"),
        "7" => Some("SIGBUS"),
        "8" => Some("SIGFPE"),
        "11" => Some("SIGSEGV"),
        _ => None,
    }
}

/// `NAME[PID]: segfault at …`, `traps: NAME[PID] trap invalid opcode …`,
/// `traps: NAME[PID] general protection [fault ]ip:…`.
fn crash(message: &str) -> Option<Facts<'_>> {
    let text = message.strip_prefix("traps: ").unwrap_or(message);
    let (end, rest) = text
        .match_indices(']')
        .map(|(at, _)| (at, &text[at + 1..]))
        .find(|(_, rest)| CRASHES.iter().any(|(words, _)| rest.starts_with(words)))?;
    let (_, signal) = CRASHES.iter().find(|(words, _)| rest.starts_with(words))?;
    let signal = unhandled_signal(rest).unwrap_or(signal);
    let (program, pid) = text[..end].rsplit_once('[')?;
    let pid = pid.parse().ok()?;
    Some(Facts { pid: Some(pid), program: Some(program), signal: Some(signal), ..Facts::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn crashes_of_programs() {
        for (message, program, pid, signal) in [
            (
                "dp[38]: segfault at 7f93 ip 0 sp 0 error 4 in dp[400000+3e000] likely on CPU 8",
                "dp",
                38,
                "SIGSEGV",
            ),
            (
                "traps: containerd[1322] trap int3 ip:55f4 sp:7ffe error:0",
                "containerd",
                1322,
                "SIGTRAP",
            ),
            ("traps: a b[9] general protection ip:1 sp:2 error:0 in x[4+5]", "a b", 9, "SIGSEGV"),
            ("traps: p[9] general protection fault ip:1 sp:2 error:0", "p", 9, "SIGSEGV"),
            ("p[9] trap divide error ip:1 sp:2 error:0 in p[4+5]", "p", 9, "SIGFPE"),
            ("traps: p[9] trap invalid opcode ip:1 sp:2 error:0", "p", 9, "SIGILL"),
            (
                "runc:[1:CHILD][185]: segfault at 0 ip 0 sp 0 error 6",
                "runc:[1:CHILD]",
                185,
                "SIGSEGV",
            ),
            ("p[7]: segfault (11) at 0 nip 1 lr 2 code 1 in p[3+4]", "p", 7, "SIGSEGV"),
            (
                "p[7]: unhandled level 2 translation fault (11) at 0x18, esr 0x92000006, in p[a+1]",
                "p",
                7,
                "SIGSEGV",
            ),
            ("p[7]: unhandled alignment fault (7) at 0x1, esr 0x92000061", "p", 7, "SIGBUS"),
            ("p[7]: unhandled signal 4 code 0x1 at 0x0 in p[1+2]", "p", 7, "SIGILL"),
        ] {
            let facts = Facts::of(message);
            assert_eq!(facts.program, Some(program), "{message}");
            assert_eq!((facts.pid, facts.signal), (Some(pid), Some(signal)), "{message}");
        }
        for message in ["systemd[1]: trap handling", "x: segfault at 0", "[drm] general protection"]
        {
            assert_eq!(Facts::of(message).signal, None, "{message}");
        }
    }

    #[test]
    fn oom_kills_of_each_kernel() {
        for (message, program, pid, scope, rss_kib) in [
            (
                "Memory cgroup out of memory: Kill process 24 (java) score 0 or sacrifice child",
                "java",
                24,
                Some("cgroup"),
                None,
            ),
            (
                "Killed process 28 (java) total-vm:20kB, anon-rss:466kB, file-rss:14kB",
                "java",
                28,
                None,
                Some(480),
            ),
            (
                "Killed process 28 (java), UID 0, total-vm:2kB, anon-rss:466kB, file-rss:1kB, \
                 shmem-rss:3kB",
                "java",
                28,
                None,
                Some(470),
            ),
            (
                "Killed process 28, UID 99, (my (x)) total-vm:20kB, anon-rss:4kB, file-rss:1kB",
                "my (x)",
                28,
                None,
                Some(5),
            ),
            (
                "Out of memory: Kill process 4015 (python) score 923 or sacrifice child",
                "python",
                4015,
                Some("node"),
                None,
            ),
            (
                "Out of memory (oom_kill_allocating_task): Killed process 7 (a) total-vm:1kB, \
                 anon-rss:2kB",
                "a",
                7,
                Some("node"),
                Some(2),
            ),
            (
                "Memory cgroup out of memory: Killed process 4249 (my worker:2) total-vm:3kB, \
              anon-rss:5kB, file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:112kB oom_score_adj:994",
                "my worker:2",
                4249,
                Some("cgroup"),
                Some(6),
            ),
            (
                "oom_reaper: reaped process 966 (java), now anon-rss:0kB, file-rss:0kB",
                "java",
                966,
                None,
                None,
            ),
        ] {
            let facts = Facts::of(message);
            assert_eq!(facts.program, Some(program), "{message}");
            assert_eq!((facts.pid, facts.oom_scope), (Some(pid), scope), "{message}");
            if scope.is_some() || rss_kib.is_some() {
                assert_eq!(facts.rss_bytes, rss_kib.map(|n: i64| n * 1_024), "{message}");
            }
        }
    }

    #[test]
    fn oom_limits_name_the_cgroup() {
        let facts =
            Facts::of("Task in /kubepods/podx/6895 killed as a result of limit of /kubepods/podx");
        assert_eq!(
            (facts.cgroup, facts.oom_cgroup),
            (Some("/kubepods/podx/6895"), Some("/kubepods/podx"))
        );
        let group =
            Facts::of("Tasks in /a.slice/b are going to be killed due to memory.oom.group set");
        assert_eq!((group.oom_scope, group.oom_cgroup), (Some("cgroup"), Some("/a.slice/b")));
        let summary = Facts::of(
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
             global_oom,task_memcg=/user.slice,task=a,b,pid=5,uid=0",
        );
        assert_eq!((summary.oom_scope, summary.program), (Some("node"), Some("a,b")));
        assert_eq!((summary.cgroup, summary.oom_cgroup), (Some("/user.slice"), None));
    }

    proptest! {
        #[test]
        fn any_text_is_read(
            text in "(oom-kill:constraint=|Killed process |x\\[1\\]|Task in )?[ -~ä,:()=]{0,80}"
        ) {
            let facts = Facts::of(&text);
            prop_assert!(facts.program.is_none_or(|name| text.contains(name)));
        }
    }
}
