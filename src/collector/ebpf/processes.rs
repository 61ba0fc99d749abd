//! The table of processes, with the tree and the program of each. It is seeded once, then updated
//! by fork, exec and exit records; its size is bounded.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::sync::Arc;

use super::raw::ARGS_BYTES;
use super::tombstones::Tombstones;

/// Retention of an ended process: records about it may follow its exit (a socket's last states).
const RETENTION_NS: u64 = 5_000_000_000;
/// Paths that processes share; when there are more, the set of shared paths is cleared.
const MAX_PATHS: usize = 4096;

/// Identity of a process: its number and start time, nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct ExecId {
    pub(super) pid: u32,
    pub(super) start_ns: u64,
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.start_ns)
    }
}

/// An entry of the table.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) id: ExecId,
    /// The root of its tree.
    pub(super) tree: ExecId,
    pub(super) program: Program,
}

/// A process's program and command line. A child has its parent's until it runs another one.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    /// The path; `None` if unknown.
    pub(super) path: Option<Arc<str>>,
    /// The words of the command line, separated by zero bytes, at most [`ARGS_BYTES`]; `None` if
    /// unknown.
    pub(super) args: Option<Arc<[u8]>>,
}

impl Program {
    /// The program that a process runs now, from `/proc`.
    pub(super) fn of_running(pid: u32) -> Self {
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok();
        let mut args = Vec::new();
        let _ = File::open(format!("/proc/{pid}/cmdline"))
            .and_then(|f| f.take(ARGS_BYTES as u64).read_to_end(&mut args));
        Self {
            path: path.map(|p| p.to_string_lossy().into()),
            args: Some(args).filter(|a| !a.is_empty()).map(Into::into),
        }
    }
}

/// The processes by number.
pub(super) struct Processes {
    table: HashMap<u32, Process, ahash::RandomState>,
    /// Ended processes that are still in the table.
    ended: Tombstones<ExecId>,
    /// Paths that processes share.
    paths: HashMap<Arc<str>, (), ahash::RandomState>,
    max: usize,
    /// Processes for which the table had no room.
    pub(super) untracked: u64,
}

impl Processes {
    pub(super) fn new(max: usize) -> Self {
        Self {
            table: HashMap::default(),
            ended: Tombstones::new(RETENTION_NS),
            paths: HashMap::default(),
            max: max.max(16),
            untracked: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The process with this number, if it started at `start_ns` (0: whichever has the number).
    pub(super) fn get(&self, pid: u32, start_ns: u64) -> Option<&Process> {
        self.table.get(&pid).filter(|p| start_ns == 0 || p.id.start_ns == start_ns)
    }

    /// The shared copy of a path.
    fn shared(&mut self, path: &str) -> Arc<str> {
        if let Some((shared, ())) = self.paths.get_key_value(path) {
            return Arc::clone(shared);
        }
        if self.paths.len() >= MAX_PATHS {
            self.paths.clear();
        }
        let new: Arc<str> = path.into();
        self.paths.insert(Arc::clone(&new), ());
        new
    }

    fn insert(&mut self, process: Process, now_ns: u64) {
        if self.table.len() >= self.max && !self.table.contains_key(&process.id.pid) {
            self.expire(now_ns, true);
            if self.table.len() >= self.max {
                self.untracked += 1;
                return;
            }
        }
        self.table.insert(process.id.pid, process);
    }

    /// The root of a process's tree: the process itself if it leads a session or is a child of
    /// init, else the root of its parent.
    fn tree_of(&self, id: ExecId, parent: u32, session: u32) -> ExecId {
        if session == id.pid || parent <= 1 {
            return id;
        }
        self.table.get(&parent).map_or(id, |p| p.tree)
    }

    /// Adds a forked process.
    pub(super) fn fork(&mut self, id: ExecId, parent: u32, session: u32, now_ns: u64) {
        let program = self.table.get(&parent).map(|p| p.program.clone()).unwrap_or_default();
        let tree = self.tree_of(id, parent, session);
        self.insert(Process { id, tree, program }, now_ns);
    }

    /// Sets the program of a process. `args`: its command line, empty if unknown.
    pub(super) fn exec(
        &mut self,
        id: ExecId,
        parent: u32,
        session: u32,
        (path, args): (&str, &[u8]),
        now_ns: u64,
    ) {
        let args = (!args.is_empty()).then(|| args.into());
        let program = Program { path: Some(self.shared(path)), args };
        let tree = match self.get(id.pid, id.start_ns) {
            // Only here setsid(2) becomes visible; a daemon that init adopted keeps its tree.
            Some(process) if session != id.pid => process.tree,
            _ => self.tree_of(id, parent, session),
        };
        self.insert(Process { id, tree, program }, now_ns);
    }

    /// Adds a process that already existed. Parents must be added before their children.
    pub(super) fn seed(&mut self, id: ExecId, parent: u32, session: u32, program: Program) {
        let path = program.path.map(|p| self.shared(&p));
        let program = Program { path, ..program };
        let tree = self.tree_of(id, parent, session);
        self.insert(Process { id, tree, program }, 0);
    }

    /// Marks a process as ended.
    pub(super) fn exit(&mut self, id: ExecId, now_ns: u64) {
        self.ended.add(id, now_ns);
        self.expire(now_ns, self.ended.len() > self.max / 4);
    }

    /// Removes processes past their retention. `make_room`: at least the older half of the ended.
    fn expire(&mut self, now_ns: u64, make_room: bool) {
        let Self { ended, table, .. } = self;
        ended.expire(now_ns, make_room, |id| {
            // The number may belong to another process by now.
            let is_same = |p: &Process| id.start_ns == 0 || p.id.start_ns == id.start_ns;
            if table.get(&id.pid).is_some_and(is_same) {
                table.remove(&id.pid);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32) -> ExecId {
        ExecId { pid, start_ns: u64::from(pid) * 100 }
    }

    fn program(path: &str) -> Program {
        Program { path: Some(path.into()), args: None }
    }

    #[test]
    fn program_of_running_process_is_read() {
        let own = Program::of_running(std::process::id());
        assert!(own.path.unwrap().starts_with('/'));
        assert!(own.args.unwrap().contains(&0), "words are separated by zero bytes");
        let none = Program::of_running(u32::MAX);
        assert!(none.path.is_none() && none.args.is_none());
    }

    #[test]
    fn tree_is_inherited_until_process_leads_session() {
        let mut all = Processes::new(100);
        all.seed(id(1), 0, 1, program("/sbin/init"));
        all.seed(id(10), 1, 10, program("/bin/bash"));
        all.fork(id(11), 10, 10, 0);
        all.exec(id(11), 10, 10, ("/bin/make", b"make\0all\0"), 0);
        all.fork(id(12), 11, 10, 0);
        assert_eq!(all.get(12, 1200).unwrap().tree, id(10));
        let inherited = &all.get(12, 0).unwrap().program;
        assert_eq!(inherited.path.as_deref(), Some("/bin/make"));
        assert_eq!(inherited.args.as_deref(), Some(&b"make\0all\0"[..]));
        all.exec(id(12), 11, 12, ("/usr/bin/setsid", b""), 0);
        assert_eq!(all.get(12, 0).unwrap().tree, id(12));
        all.fork(id(13), 1, 10, 0);
        assert_eq!(all.get(13, 0).unwrap().tree, id(13));
        assert!(all.get(13, 7).is_none(), "another process had that number");
    }

    #[test]
    fn ended_process_is_kept_until_retention_or_lack_of_room() {
        let mut all = Processes::new(16);
        for pid in 100..116 {
            all.fork(id(pid), 1, 0, 0);
        }
        all.exit(id(100), 1_000);
        assert!(all.get(100, 0).is_some());
        all.fork(id(200), 1, 0, 2_000);
        assert!(all.get(200, 0).is_some() && all.get(100, 0).is_none());
        all.fork(id(201), 1, 0, 2_000);
        assert_eq!((all.untracked, all.len()), (1, 16));
        all.exit(id(101), 3_000);
        all.exit(id(102), 3_000 + RETENTION_NS);
        assert!(all.get(101, 0).is_none() && all.get(102, 0).is_some());
    }
}
