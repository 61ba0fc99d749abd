//! Loads the object and attaches its programs one by one. The programs share the maps, so all maps
//! must be created. A program that the kernel rejects costs only its own events.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuHashMap};
use aya::programs::{BtfTracePoint, Iter, ProgramError};
use aya::{Btf, BtfError, Ebpf, EbpfLoader};

use super::config::Config;
use super::kinds::Kind;
use super::raw::{ConfigWords, KIND_CGROUP, OUTCOMES};
use super::ring_reader::RingReader;

/// The object that build.rs compiled from `ebpf/`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tapio.bpf.o"));

/// A program of the object.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The kernel tracepoint it attaches to, or `iter/` and the type it iterates over.
    pub(super) hook: &'static str,
    /// It is loaded if one of these kinds is enabled; always if there are none.
    pub(super) kinds: &'static [Kind],
    /// The events that are missing without it.
    pub(super) cost: &'static str,
    /// It is loaded only if this program can't be.
    pub(super) instead_of: &'static str,
}

const TCP: &[Kind] = &[
    Kind::Connect,
    Kind::Accept,
    Kind::Close,
    Kind::Refused,
    Kind::Timeout,
    Kind::Reset,
    Kind::Retransmit,
];

const fn program(
    name: &'static str,
    hook: &'static str,
    kinds: &'static [Kind],
    cost: &'static str,
) -> Program {
    Program { name, hook, kinds, cost, instead_of: "" }
}

/// The table of programs. Those of cgroups and of process lifecycles come first: later records get
/// their names from these.
#[rustfmt::skip]
pub(super) const PROGRAMS: &[Program] = &[
    program("cgroup_mkdir", "cgroup_mkdir", &[], "containers that live less than a second have no path"),
    program("cgroup_rmdir", "cgroup_rmdir", &[], "paths of removed cgroups are kept until the table is full"),
    program("process_fork", "sched_process_fork", &[Kind::Fork], "no kernel.process.fork; process trees are derived at exec"),
    program("exec_folder", "sched_process_exec", &[Kind::Exec], "no working directories"),
    program("process_exec", "sched_process_exec", &[Kind::Exec], "no kernel.process.exec, no command lines"),
    program("process_exit", "sched_process_exit", &[Kind::Exit], "no kernel.process.exit"),
    Program { instead_of: "process_exit", ..program("process_exit_live", "sched_process_exit", &[Kind::Exit], "no kernel.process.exit") },
    program("process_signal", "signal_generate", &[Kind::Signal], "no kernel.process.signal: the sender of a fatal signal isn't known"),
    program("process_oom_kill", "mark_victim", &[Kind::OomKill], "no kernel.process.oom_kill (before Linux 6.8 the kernel doesn't name the victim's task)"),
    program("tcp_state", "inet_sock_set_state", TCP, "no kernel.tcp.connect, accept, close, refused, timeout; other TCP events have no process"),
    program("tcp_destroy", "tcp_destroy_sock", TCP, "ended connections stay in the table and may evict the process of a long-lived one"),
    program("tcp_reset_received", "tcp_receive_reset", &[Kind::Reset], "no kernel.tcp.reset for received resets"),
    program("tcp_reset_sent", "tcp_send_reset", &[Kind::Reset], "no kernel.tcp.reset for sent resets"),
    program("tcp_retransmit", "tcp_retransmit_skb", &[Kind::Retransmit], "no kernel.tcp.retransmit"),
    program("block_issue", "block_rq_issue", &[Kind::BlockError, Kind::BlockSlow], "no kernel.block.slow; block errors have no process"),
    program("block_complete", "block_rq_complete", &[Kind::BlockError, Kind::BlockSlow], "no kernel.block.slow"),
    program("block_error", "block_rq_error", &[Kind::BlockError], "no kernel.block.error (needs Linux 5.18)"),
    program("syscall_exit", "sys_exit", &[Kind::SyscallErrorRate], "no kernel.syscall.error_rate"),
    program("file_create", "sys_exit", &[Kind::FileCreate], "no kernel.file.create"),
    program("syscall_enter", "sys_enter", &[Kind::SyscallEnter], "no kernel.syscall.enter"),
    program("tcp_seed", "iter/task_file", TCP, "connections and listeners opened before the agent's start have no process"),
    program("process_seed", "iter/task", &[], "processes started before the agent have names from /proc only"),
];

/// The result of loading a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs.
    Ok,
    /// Its kinds aren't enabled, or another program does its work.
    Off,
    /// The kernel rejects it, with the cause.
    Failed(String),
}

/// A program and the result of loading it.
pub(super) struct Loaded {
    pub(super) program: &'static Program,
    pub(super) verdict: Verdict,
}

impl Loaded {
    /// The status note of the program.
    pub(super) fn status(&self) -> String {
        match &self.verdict {
            Verdict::Ok => "ok".into(),
            Verdict::Off => "off".into(),
            Verdict::Failed(cause) => format!("{cause}; cost: {}", self.program.cost),
        }
    }
}

/// The file with the kernel's type information, which aya reads.
pub(super) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Why no program can be loaded at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("kernel type information (BTF) missing: {BTF_PATH} doesn't exist")]
    NoBtf,
    #[error("kernel type information (BTF) unreadable: {BTF_PATH}: {0}")]
    Btf(String),
    #[error("permission to use eBPF missing: {0}")]
    Denied(String),
    #[error("the eBPF maps can't be created: {0}")]
    Object(String),
    #[error("the eBPF object has no usable map {0:?}")]
    Map(&'static str),
}

impl LoadError {
    /// The remedy.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::NoBtf | Self::Btf(_) => {
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount the \
                 node's /sys"
            }
            Self::Denied(_) => "run as root or with CAP_BPF and CAP_PERFMON",
            Self::Object(_) | Self::Map(_) => "check the kernel version and the free memory",
        }
    }

    /// Whether a retry can't help: neither the kernel nor the process's privileges change.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::NoBtf | Self::Denied(_))
    }
}

/// The programs and maps in the kernel. Dropping it removes them.
pub(super) struct Loader {
    object: Ebpf,
    ring_bytes: u32,
    /// Open until the programs are loaded: they name their maps by descriptor.
    ring: Option<MapData>,
}

/// The maps that user space uses.
pub(super) struct Maps {
    pub(super) events: RingReader,
    pub(super) config: Array<MapData, ConfigWords>,
    pub(super) control: Array<MapData, u32>,
    pub(super) counters: PerCpuArray<MapData, [u64; OUTCOMES]>,
    pub(super) errors: PerCpuHashMap<MapData, [u64; 2], u64>,
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// Whether a lack of permission is among the causes of an error.
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |e| e.source())
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == ErrorKind::PermissionDenied)
}

/// A load error as one line: the system's error and the last line of the verifier's log.
fn reason(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return chain(error);
    };
    let log = verifier_log.to_string();
    let last = log
        .lines()
        .rev()
        .map(str::trim)
        .find(|l| {
            !l.is_empty() && !l.starts_with("processed ") && !l.starts_with("verification time")
        })
        .unwrap_or("");
    let last: String = last.chars().take(200).collect();
    if last.is_empty() {
        format!("the kernel rejected the program: {io_error}")
    } else {
        format!("the kernel rejected the program: {io_error} ({last})")
    }
}

impl Loader {
    /// Creates the maps. Returns the kernel's type information as well, which [`Loader::load`]
    /// needs; it takes up some 20 MiB.
    ///
    /// # Errors
    /// If type information is missing, or the kernel doesn't create a map.
    pub(super) fn new(ring_bytes: u32) -> Result<(Self, Btf), LoadError> {
        let btf = Btf::from_sys_fs().map_err(|e| match e {
            BtfError::FileError { error, .. } if error.kind() == ErrorKind::NotFound => {
                LoadError::NoBtf
            }
            BtfError::FileError { error, .. } => LoadError::Btf(error.to_string()),
            other => LoadError::Btf(chain(&other)),
        })?;
        let object = EbpfLoader::new()
            .btf(Some(&btf))
            .map_max_entries("events", ring_bytes)
            .load(OBJECT)
            .map_err(
                |e| if is_denied(&e) { LoadError::Denied } else { LoadError::Object }(chain(&e)),
            )?;
        Ok((Self { object, ring_bytes, ring: None }, btf))
    }

    /// Takes the maps; works once.
    ///
    /// # Errors
    /// If a map is missing or of another type: the object isn't the one this code was built for. If
    /// the ring buffer can't be mapped.
    pub(super) fn maps(&mut self) -> Result<Maps, LoadError> {
        fn take<M: TryFrom<aya::maps::Map>>(
            object: &mut Ebpf,
            name: &'static str,
        ) -> Result<M, LoadError> {
            object.take_map(name).and_then(|map| M::try_from(map).ok()).ok_or(LoadError::Map(name))
        }
        let (object, ring_bytes) = (&mut self.object, self.ring_bytes as usize);
        let Some(Map::RingBuf(ring)) = object.take_map("events") else {
            return Err(LoadError::Map("events"));
        };
        let descriptor = self.ring.insert(ring).fd().as_fd().try_clone_to_owned();
        let events = descriptor.and_then(|ring| RingReader::new(ring, ring_bytes));
        Ok(Maps {
            events: events.map_err(|e| LoadError::Object(e.to_string()))?,
            config: take(object, "config")?,
            control: take(object, "control")?,
            counters: take(object, "counters")?,
            errors: take(object, "error_counts")?,
        })
    }

    /// Loads the programs of `table` that `config` enables, and attaches them if `attach` is set.
    pub(super) fn load(
        &mut self,
        btf: &Btf,
        table: &'static [Program],
        config: &Config,
        attach: bool,
    ) -> Vec<Loaded> {
        let mut all: Vec<Loaded> = Vec::with_capacity(table.len());
        for program in table {
            let is_enabled =
                program.kinds.is_empty() || program.kinds.iter().any(|k| config.has_kind(*k));
            let is_spare = !program.instead_of.is_empty()
                && all
                    .iter()
                    .any(|l| l.program.name == program.instead_of && l.verdict == Verdict::Ok);
            let verdict = if is_enabled && !is_spare {
                match self.load_one(btf, program, attach) {
                    Ok(()) => Verdict::Ok,
                    Err(e) => Verdict::Failed(reason(&e)),
                }
            } else {
                Verdict::Off
            };
            all.push(Loaded { program, verdict });
        }
        // A program that failed costs nothing when its spare runs.
        for i in 0..all.len() {
            let spare_runs = all
                .iter()
                .any(|l| l.program.instead_of == all[i].program.name && l.verdict == Verdict::Ok);
            if spare_runs {
                all[i].verdict = Verdict::Off;
            }
        }
        all
    }

    fn load_one(&mut self, btf: &Btf, program: &Program, attach: bool) -> Result<(), ProgramError> {
        let found = self.object.program_mut(program.name).ok_or(ProgramError::NotLoaded)?;
        if let Some(over) = program.hook.strip_prefix("iter/") {
            let iter: &mut Iter = found.try_into()?;
            return iter.load(over, btf);
        }
        let tracepoint: &mut BtfTracePoint = found.try_into()?;
        tracepoint.load(program.hook, btf)?;
        if attach {
            tracepoint.attach()?;
        }
        Ok(())
    }

    /// Runs an iterator to its end. Returns its output.
    ///
    /// # Errors
    /// If the iterator can't be attached or read, as text.
    pub(super) fn iterate(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let program = self.object.program_mut(name).ok_or("no such program")?;
        let iter: &mut Iter = program.try_into().map_err(|e: ProgramError| e.to_string())?;
        let link = iter.attach().map_err(|e| chain(&e))?;
        let link = iter.take_link(link).map_err(|e| chain(&e))?;
        let mut bytes = Vec::new();
        link.into_file()
            .map_err(|e| chain(&e))?
            .read_to_end(&mut bytes)
            .map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// Number of program runs that the kernel skipped because the program was already running on
    /// that CPU, interrupted. Such a run may have been an event; its kind can't be known.
    pub(super) fn missed_runs(&self) -> u64 {
        use std::os::fd::AsRawFd;
        let missed = |fd: i32| {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = info.lines().find(|l| l.starts_with("recursion_misses:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.object
            .programs()
            .filter_map(|(_, program)| program.fd().ok())
            .filter_map(|fd| missed(fd.as_fd().as_raw_fd()))
            .sum()
    }
}

/// The bits of the enabled kinds, control records included.
pub(super) fn kind_bits(config: &Config) -> u64 {
    let enabled = Kind::ALL.iter().filter(|kind| config.has_kind(**kind));
    enabled.fold(1 << KIND_CGROUP, |bits, kind| bits | kind.bit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program whose loop the verifier follows through all its states takes it a minute to load,
    /// within its limit of a million instructions.
    #[test]
    fn verifier_processes_few_instructions_of_each_program() {
        use std::os::fd::AsRawFd;
        let (mut loader, btf) = match Loader::new(64 << 10) {
            Ok(loaded) => loaded,
            Err(cause) => return println!("skipped: {cause}"),
        };
        let config = Config { kinds: Kind::ALL.to_vec(), ..Config::default() };
        loader.load(&btf, PROGRAMS, &config, false);
        for (name, program) in loader.object.programs() {
            let Ok(fd) = program.fd() else { continue };
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let info = std::fs::read_to_string(path).unwrap();
            // Since Linux 5.16.
            let Some(line) = info.lines().find(|l| l.starts_with("verified_insns:")) else { break };
            let processed: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(processed < 50_000, "{name}: {processed} instructions");
        }
    }

    /// Programs that are loaded later name their maps by descriptor.
    #[test]
    fn taking_the_maps_changes_no_verdict() {
        let config = Config::default();
        let mut verdicts = [true, false].into_iter().map(|takes| {
            let (mut loader, btf) = Loader::new(64 << 10).map_err(|cause| cause.to_string())?;
            let maps = takes.then(|| loader.maps().unwrap());
            let loaded = loader.load(&btf, PROGRAMS, &config, false);
            drop(maps);
            Ok::<_, String>(loaded.iter().map(Loaded::status).collect::<Vec<_>>())
        });
        match verdicts.next().unwrap() {
            Err(cause) => println!("skipped: {cause}"),
            Ok(taken) => assert_eq!(taken, verdicts.next().unwrap().unwrap()),
        }
    }

    #[test]
    fn failed_program_does_not_affect_others() {
        let (mut loader, btf) = match Loader::new(64 << 10) {
            Ok(loaded) => loaded,
            Err(cause) => return println!("skipped: {cause}"),
        };
        // As on a kernel without the tracepoint, and on one whose tracepoint has fewer arguments
        // than the program reads.
        static TABLE: &[Program] = &[
            program("process_oom_kill", "no_such_tracepoint", &[], "no OOM kills"),
            program("tcp_state", "cgroup_mkdir", &[], "no connections"),
            Program {
                instead_of: "tcp_state",
                ..program("process_exit_live", "sched_process_exit", &[], "nothing")
            },
            program("process_fork", "sched_process_fork", &[], "no forks"),
            program("process_exec", "sched_process_exec", &[Kind::Exec], "no execs"),
        ];
        let config = Config { kinds: Vec::new(), ..Config::default() };
        let loaded = loader.load(&btf, TABLE, &config, true);
        let fork = &loaded[3].verdict;
        if let Verdict::Failed(cause) = fork {
            return println!("skipped: {cause}");
        }
        let Verdict::Failed(cause) = &loaded[0].verdict else {
            panic!("it loaded: {}", loaded[0].status());
        };
        assert!(cause.contains("no_such_tracepoint"), "{cause}");
        assert!(loaded[0].status().ends_with("cost: no OOM kills"));
        assert_eq!(loaded[1].verdict, Verdict::Off, "its spare runs");
        assert_eq!(loaded[2].verdict, Verdict::Ok);
        assert_eq!(*fork, Verdict::Ok);
        assert_eq!(loaded[4].verdict, Verdict::Off, "its kind isn't enabled");
    }
}
