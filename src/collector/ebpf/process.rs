//! The life of processes: exec, fork, exit, signals and the OOM killer.

use std::io;

use super::decode::Decoder;
use super::kinds::{is_crash, signal_name};
use super::processes::{ExecId, Processes};
use super::raw::{
    ARGS_BYTES, Bytes, COMM_BYTES, EXEC_TRUNCATED, HIERARCHY_SHIFT, PATH_BYTES, Record, SEED_BYTES,
    SIGNAL_BY_KERNEL, SIGNAL_FATAL, Task,
};
use super::scrub;
use super::words::{Size, Span};
use crate::events::event_builder::Lossy;
use tapio_core::event::{Severity, names};

fn id_of(record: &Record<'_>, task: &Task<'_>) -> ExecId {
    ExecId { pid: record.head.tgid, start_ns: task.start_ns }
}

impl Decoder {
    /// Who the record's process is; every process record starts so.
    fn identify_task(&mut self, record: &Record<'_>, task: &Task<'_>) {
        self.identify(&record.head, task.start_ns, task.comm);
        self.draft.int(names::PROCESS_PARENT_PID, task.parent);
        self.draft.int(names::PROCESS_OWNER_UID, task.uid);
    }

    pub(super) fn exec(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        let path = String::from_utf8_lossy(bytes.text(80, PATH_BYTES));
        let id = id_of(record, &task);
        let now_ns = record.head.time_ns;
        self.processes.exec(id, task.parent, task.session, &path, now_ns);
        self.identify_task(record, &task);
        let len = (bytes.u32(72) as usize).min(ARGS_BYTES);
        if len > 0 {
            let (lossy, clean) = (&mut self.lossy, &mut self.clean);
            self.draft.json(names::PROCESS_COMMAND_ARGS, |out| {
                scrub::command_line(bytes.slice(336, len), lossy, clean, out);
            });
            if record.head.flags & EXEC_TRUNCATED != 0 {
                self.draft.bool(names::TAPIO_PROCESS_ARGS_TRUNCATED, true);
            }
        }
        self.draft.message(format_args!("{} (pid {}) runs {path}", Lossy(task.comm), id.pid));
        Severity::INFO
    }

    pub(super) fn fork(&mut self, record: &Record<'_>) -> Severity {
        let task = record.task();
        let id = id_of(record, &task);
        self.processes.fork(id, task.parent, task.session, record.head.time_ns);
        self.identify_task(record, &task);
        self.draft.message(format_args!(
            "{} (pid {}) started pid {}",
            Lossy(task.comm),
            task.parent,
            id.pid
        ));
        Severity::INFO
    }

    pub(super) fn exit(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        let id = id_of(record, &task);
        self.identify_task(record, &task);
        let lived_ns = bytes.u64(72).saturating_sub(task.start_ns);
        self.draft.int(names::TAPIO_PROCESS_DURATION_NS, lived_ns);
        let status = bytes.u32(80);
        let (code, signal) = (status >> 8 & 0xff, status & 0x7f);
        let (who, pid, lived) = (Lossy(task.comm), id.pid, Span(lived_ns));
        let severity = if signal != 0 {
            let name = signal_name(signal);
            self.draft.int(names::TAPIO_SIGNAL_NUMBER, signal);
            self.draft.word(names::TAPIO_SIGNAL_NAME, name);
            self.draft.word(names::ERROR_TYPE, name);
            self.draft
                .message(format_args!("{who} (pid {pid}) was killed by {name} after {lived}"));
            match signal {
                9 => Severity::WARN,
                s if is_crash(s) => Severity::ERROR,
                _ => Severity::INFO,
            }
        } else {
            self.draft.int(names::PROCESS_EXIT_CODE, code);
            if code != 0 {
                self.draft.word(names::ERROR_TYPE, "exit_code");
            }
            self.draft
                .message(format_args!("{who} (pid {pid}) exited with code {code} after {lived}"));
            if code == 0 { Severity::INFO } else { Severity::WARN }
        };
        self.processes.exit(id, record.head.time_ns);
        severity
    }

    pub(super) fn signal(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        self.identify_task(record, &task);
        let (number, code) = (bytes.u32(72), bytes.i32(76));
        let name = signal_name(number);
        let fatal = record.head.flags & SIGNAL_FATAL != 0;
        self.draft.int(names::TAPIO_SIGNAL_NUMBER, number);
        self.draft.word(names::TAPIO_SIGNAL_NAME, name);
        self.draft.int(names::TAPIO_SIGNAL_CODE, code);
        self.draft.bool(names::TAPIO_SIGNAL_FATAL, fatal);
        let (who, pid) = (Lossy(task.comm), record.head.tgid);
        if record.head.flags & SIGNAL_BY_KERNEL != 0 {
            self.draft.word(names::TAPIO_SIGNAL_SENDER_NAME, "kernel");
            self.draft.message(format_args!("the kernel sent {name} to {who} (pid {pid})"));
        } else {
            let (sender, comm) = (bytes.u32(80), Lossy(bytes.text(88, COMM_BYTES)));
            self.draft.int(names::TAPIO_SIGNAL_SENDER_PID, sender);
            self.draft.text(names::TAPIO_SIGNAL_SENDER_NAME, &comm);
            self.draft
                .message(format_args!("{comm} (pid {sender}) sent {name} to {who} (pid {pid})"));
        }
        match number {
            _ if !fatal => Severity::INFO,
            9 => Severity::WARN,
            n if is_crash(n) => Severity::ERROR,
            _ => Severity::INFO,
        }
    }

    pub(super) fn oom_kill(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        self.is_victim = true;
        self.identify_task(record, &task);
        self.is_victim = false;
        let of_pages = |at| bytes.u64(at).saturating_mul(self.page_bytes);
        let (rss, limit, usage) = (of_pages(72), of_pages(80), of_pages(88));
        let draft = &mut self.draft;
        draft.int(names::TAPIO_OOM_RSS_BYTES, rss);
        draft.int(names::TAPIO_OOM_SCORE_ADJ, bytes.i32(108));
        draft.int(names::TAPIO_OOM_KILLER_PID, bytes.u32(104));
        draft.text(names::TAPIO_OOM_KILLER_NAME, Lossy(bytes.text(112, COMM_BYTES)));
        let (who, pid) = (Lossy(task.comm), record.head.tgid);
        if limit == 0 {
            draft.word(names::TAPIO_OOM_SCOPE, "node");
            draft.message(format_args!(
                "{who} (pid {pid}) was OOM-killed, the node ran out of memory: {} resident",
                Size(rss)
            ));
            return Severity::ERROR;
        }
        draft.word(names::TAPIO_OOM_SCOPE, "cgroup");
        draft.int(names::TAPIO_OOM_LIMIT_BYTES, limit);
        draft.int(names::TAPIO_OOM_USAGE_BYTES, usage);
        // The limited cgroup may be of another hierarchy than the victim's home, and above it.
        let number = bytes.u64(96);
        draft.int(names::TAPIO_OOM_CGROUP_ID, number & ((1 << HIERARCHY_SHIFT) - 1));
        let name = Lossy(bytes.text(128, 64));
        match self.cgroups.get(number) {
            Some(cgroup) => {
                draft.text(names::TAPIO_OOM_CGROUP, &cgroup.names.path);
                draft.message(format_args!(
                    "{who} (pid {pid}) was OOM-killed in {}: {} resident, limit {}",
                    cgroup.names.path,
                    Size(rss),
                    Size(limit)
                ));
            }
            None => {
                draft.text(names::TAPIO_OOM_CGROUP, &name);
                draft.message(format_args!(
                    "{who} (pid {pid}) was OOM-killed in {name}: {} resident, limit {}",
                    Size(rss),
                    Size(limit)
                ));
            }
        }
        Severity::ERROR
    }
}

/// Takes in the processes that exist already, as `process_seed` wrote them.
pub(super) fn seed(bytes: &[u8], processes: &mut Processes) {
    let mut all: Vec<_> = bytes
        .chunks_exact(SEED_BYTES)
        .map(|chunk| {
            let b = Bytes(chunk);
            let task = Task::read(b, 0);
            let id = ExecId { pid: b.u32(48), start_ns: task.start_ns };
            (id, task.parent, task.session)
        })
        .collect();
    // Parents are older than their children.
    all.sort_by_key(|(id, ..)| id.start_ns);
    for (id, parent, session) in all {
        let path = executable(id.pid).ok();
        processes.seed(id, parent, session, path.as_deref());
    }
}

fn executable(pid: u32) -> io::Result<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Takes in the processes that exist already from `/proc`, where the iterator can't be had. Start
/// times are as coarse as the system's tick there, so ids of these processes are their own.
pub(super) fn seed_from_proc(processes: &mut Processes) {
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let mut all: Vec<(ExecId, u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // The name stands in parentheses and may hold any byte: fields count from the last one.
        let rest = stat.rsplit_once(") ").map_or("", |parts| parts.1);
        let field = |n: usize| rest.split(' ').nth(n).and_then(|f| f.parse::<u64>().ok());
        let (Some(parent), Some(session), Some(start)) = (field(1), field(3), field(19)) else {
            continue;
        };
        let id = ExecId { pid, start_ns: start * tick_ns };
        all.push((id, parent as u32, session as u32));
    }
    all.sort_by_key(|(id, ..)| id.start_ns);
    for (id, parent, session) in all {
        let path = executable(id.pid).ok();
        processes.seed(id, parent, session, path.as_deref());
    }
}
