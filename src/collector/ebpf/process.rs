//! Process lifecycles: exec, fork, exit, signals and OOM kills.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::decode::Decoder;
use super::display::{ByteSize, Elapsed};
use super::fatal_signals::FatalSignal;
use super::kinds::is_crash;
use super::processes::{ExecId, Processes, Program};
use super::raw::{
    ARGS_BYTES, Bytes, COMM_BYTES, EXEC_TRUNCATED, HIERARCHY_SHIFT, PATH_BYTES, Record, SEED_BYTES,
    SIGNAL_BY_KERNEL, SIGNAL_FATAL, Task,
};
use crate::events::event_builder::Lossy;
use crate::events::signals::signal_name;
use tapio_core::event::{Severity, names};

fn id_of(record: &Record<'_>, task: &Task<'_>) -> ExecId {
    ExecId { pid: record.head.tgid, start_ns: task.start_ns }
}

/// The path of a program from the root, its links unresolved. One that was started by a relative
/// path is below the working directory, unless the kernel gave only the end of that.
fn full_path<'a>(folder: &[u8], path: &'a [u8]) -> Cow<'a, str> {
    let text = String::from_utf8_lossy(path);
    if text.is_empty() || text.starts_with('/') || !folder.starts_with(b"/") {
        return text;
    }
    let mut full = String::from_utf8_lossy(folder).trim_end_matches('/').to_owned();
    // `..` stays: the folder above a link's target is another one than that above the link.
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        full.push('/');
        full += part;
    }
    full.into()
}

/// Appends the words of a command line, which the kernel separates by zero bytes, as a JSON list.
/// `lossy`: a buffer for reuse. The sink removes secrets.
fn push_command_line(args: &[u8], lossy: &mut String, out: &mut String) {
    lossy.clear();
    let _ = write!(lossy, "{}", Lossy(args));
    out.push('[');
    // Each word ends with a zero byte; a word without text is an argument too.
    for (i, word) in lossy.strip_suffix('\0').unwrap_or(lossy).split('\0').enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_json(word, out);
    }
    out.push(']');
}

/// Appends a JSON string.
fn push_json(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Decoder {
    /// Starts the event of a process record with its process, parent and user.
    fn identify_task(&mut self, record: &Record<'_>, task: &Task<'_>) {
        self.identify(&record.head, task.start_ns, task.comm);
        self.event.int(names::PROCESS_PARENT_PID, task.parent);
        self.add_owner(task.uid, record.head.time_ns);
    }

    /// Adds the user, by number and, if known, by name.
    pub(super) fn add_owner(&mut self, uid: u32, now_ns: u64) {
        self.event.int(names::PROCESS_OWNER_UID, uid);
        if let Some(name) = self.users.name(uid, now_ns) {
            self.event.text(names::PROCESS_OWNER, name);
        }
    }

    /// Adds the program and command line of a process's parent.
    fn add_parent(&mut self, pid: u32) {
        if pid == 0 {
            return;
        }
        // Without `kernel.process.fork`, or if the table is full, it may be missing.
        let known = self.processes.get(pid, 0).map(|p| p.program.clone());
        let Program { path, args } = known.unwrap_or_else(|| Program::of_running(pid));
        if let Some(path) = path {
            self.event.text(names::TAPIO_PROCESS_PARENT_PATH, path);
        }
        if let Some(args) = args {
            let lossy = &mut self.lossy;
            self.event.json(names::TAPIO_PROCESS_PARENT_ARGS, |out| {
                push_command_line(&args, lossy, out);
            });
        }
    }

    /// Decodes `kernel.process.exec`.
    pub(super) fn exec(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        let folder = bytes.path(848, bytes.u32(76));
        let path = full_path(folder, bytes.text(80, PATH_BYTES));
        let id = id_of(record, &task);
        let now_ns = record.head.time_ns;
        let args = bytes.slice(336, (bytes.u32(72) as usize).min(ARGS_BYTES));
        self.processes.exec(id, task.parent, task.session, (&path, args), now_ns);
        self.identify_task(record, &task);
        if !args.is_empty() {
            let lossy = &mut self.lossy;
            self.event.json(names::PROCESS_COMMAND_ARGS, |out| {
                push_command_line(args, lossy, out);
            });
            if record.head.flags & EXEC_TRUNCATED != 0 {
                self.event.bool(names::TAPIO_PROCESS_ARGS_TRUNCATED, true);
            }
        }
        self.event.text(names::PROCESS_WORKING_DIRECTORY, Lossy(folder));
        self.add_parent(task.parent);
        self.event.message(format_args!("{} (pid {}) runs {path}", Lossy(task.comm), id.pid));
        Severity::INFO
    }

    /// Decodes `kernel.file.create`.
    pub(super) fn file_create(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        self.identify_task(record, &task);
        let path = Lossy(bytes.path(80, bytes.u32(72)));
        self.event.text(names::FILE_PATH, &path);
        let (comm, pid) = (Lossy(task.comm), record.head.tgid);
        self.event.message(format_args!("{comm} (pid {pid}) created {path}"));
        Severity::INFO
    }

    /// Decodes `kernel.process.fork`.
    pub(super) fn fork(&mut self, record: &Record<'_>) -> Severity {
        let task = record.task();
        let id = id_of(record, &task);
        self.processes.fork(id, task.parent, task.session, record.head.time_ns);
        self.identify_task(record, &task);
        self.event.message(format_args!(
            "{} (pid {}) started pid {}",
            Lossy(task.comm),
            task.parent,
            id.pid
        ));
        Severity::INFO
    }

    /// Decodes `kernel.process.exit`.
    pub(super) fn exit(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        let id = id_of(record, &task);
        self.identify_task(record, &task);
        let duration_ns = bytes.u64(72).saturating_sub(task.start_ns);
        self.event.int(names::TAPIO_PROCESS_DURATION_NS, duration_ns);
        let status = bytes.u32(80);
        let (code, signal) = (status >> 8 & 0xff, status & 0x7f);
        let (comm, pid, duration) = (Lossy(task.comm), id.pid, Elapsed(duration_ns));
        let sent = self.fatal_signals.take(pid, signal);
        let severity = if signal != 0 {
            let name = signal_name(signal);
            self.event.int(names::TAPIO_SIGNAL_NUMBER, signal);
            self.event.word(names::TAPIO_SIGNAL_NAME, name);
            self.event.word(names::ERROR_TYPE, name);
            if let Some(FatalSignal { sender, sender_name, .. }) = &sent {
                let by = Lossy(sender_name);
                self.event.int(names::TAPIO_SIGNAL_SENDER_PID, *sender);
                self.event.text(names::TAPIO_SIGNAL_SENDER_NAME, &by);
                self.event.message(format_args!(
                    "{comm} (pid {pid}) was killed by {name} from {by} (pid {sender}) after \
                     {duration}"
                ));
            } else {
                self.event.message(format_args!(
                    "{comm} (pid {pid}) was killed by {name} after {duration}"
                ));
            }
            match signal {
                9 => Severity::WARN,
                s if is_crash(s) => Severity::ERROR,
                _ => Severity::INFO,
            }
        } else {
            self.event.int(names::PROCESS_EXIT_CODE, code);
            if code != 0 {
                self.event.word(names::ERROR_TYPE, "exit_code");
            }
            self.event.message(format_args!(
                "{comm} (pid {pid}) exited with code {code} after {duration}"
            ));
            if code == 0 { Severity::INFO } else { Severity::WARN }
        };
        self.processes.exit(id, record.head.time_ns);
        severity
    }

    /// Decodes `kernel.process.signal`.
    pub(super) fn signal(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        self.identify_task(record, &task);
        let (number, code) = (bytes.u32(72), bytes.i32(76));
        let name = signal_name(number);
        let fatal = record.head.flags & SIGNAL_FATAL != 0;
        self.event.int(names::TAPIO_SIGNAL_NUMBER, number);
        self.event.word(names::TAPIO_SIGNAL_NAME, name);
        self.event.int(names::TAPIO_SIGNAL_CODE, code);
        self.event.bool(names::TAPIO_SIGNAL_FATAL, fatal);
        let (comm, pid) = (Lossy(task.comm), record.head.tgid);
        if record.head.flags & SIGNAL_BY_KERNEL != 0 {
            self.event.word(names::TAPIO_SIGNAL_SENDER_NAME, "kernel");
            self.event.message(format_args!("the kernel sent {name} to {comm} (pid {pid})"));
        } else {
            let (sender, sender_name) = (bytes.u32(80), bytes.text(88, COMM_BYTES));
            if fatal {
                let sender_name = sender_name.into();
                self.fatal_signals.add(FatalSignal { pid, number, sender, sender_name });
            }
            let by = Lossy(sender_name);
            self.event.int(names::TAPIO_SIGNAL_SENDER_PID, sender);
            self.event.text(names::TAPIO_SIGNAL_SENDER_NAME, &by);
            self.event
                .message(format_args!("{by} (pid {sender}) sent {name} to {comm} (pid {pid})"));
        }
        match number {
            _ if !fatal => Severity::INFO,
            9 => Severity::WARN,
            n if is_crash(n) => Severity::ERROR,
            _ => Severity::INFO,
        }
    }

    /// Decodes `kernel.process.oom_kill`.
    pub(super) fn oom_kill(&mut self, record: &Record<'_>) -> Severity {
        let (task, bytes) = (record.task(), record.bytes);
        self.is_victim = true;
        self.identify_task(record, &task);
        self.is_victim = false;
        let pages = |at| bytes.u64(at).saturating_mul(self.page_bytes);
        let (rss, limit, usage) = (pages(72), pages(80), pages(88));
        let event = &mut self.event;
        event.int(names::TAPIO_OOM_RSS_BYTES, rss);
        event.int(names::TAPIO_OOM_SCORE_ADJ, bytes.i32(108));
        event.int(names::TAPIO_OOM_KILLER_PID, bytes.u32(104));
        event.text(names::TAPIO_OOM_KILLER_NAME, Lossy(bytes.text(112, COMM_BYTES)));
        let (comm, pid) = (Lossy(task.comm), record.head.tgid);
        if limit == 0 {
            event.word(names::TAPIO_OOM_SCOPE, "node");
            event.message(format_args!(
                "{comm} (pid {pid}) was OOM-killed, the node ran out of memory: {} resident",
                ByteSize(rss)
            ));
            return Severity::ERROR;
        }
        event.word(names::TAPIO_OOM_SCOPE, "cgroup");
        event.int(names::TAPIO_OOM_LIMIT_BYTES, limit);
        event.int(names::TAPIO_OOM_USAGE_BYTES, usage);
        // The limited cgroup may be in another hierarchy than the victim's home, and above it.
        let number = bytes.u64(96);
        event.int(names::TAPIO_OOM_CGROUP_ID, number & ((1 << HIERARCHY_SHIFT) - 1));
        let name = String::from_utf8_lossy(bytes.text(128, 64));
        let cgroup = self.cgroups.get(number).map_or(&*name, |cgroup| &cgroup.names.path);
        event.text(names::TAPIO_OOM_CGROUP, cgroup);
        event.message(format_args!(
            "{comm} (pid {pid}) was OOM-killed in {cgroup}: {} resident, limit {}",
            ByteSize(rss),
            ByteSize(limit)
        ));
        Severity::ERROR
    }
}

/// Adds the processes that exist already, from the output of the iterator `process_seed`.
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
        processes.seed(id, parent, session, Program::of_running(id.pid));
    }
}

/// Adds the processes that exist already from `/proc`, if the iterator isn't available. Start times
/// there have the resolution of the clock tick, so these processes have other ids than in records.
pub(super) fn seed_from_proc(processes: &mut Processes) {
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let mut all: Vec<(ExecId, u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else {
            continue;
        };
        // The name is in parentheses and may have any byte, also such that aren't UTF-8: fields
        // follow the last parenthesis.
        let stat = String::from_utf8_lossy(&stat);
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
        processes.seed(id, parent, session, Program::of_running(id.pid));
    }
}

#[cfg(test)]
mod tests {
    use tapio_core::event::{Event, EventId, Name, Value};
    use tapio_core::redact::Redactor;

    use super::*;
    use crate::events::event_builder::EventBuilder;

    /// A command line as the kernel has it, decoded and as the sink writes it.
    fn written(args: &[u8]) -> Vec<String> {
        let own = written_as(names::PROCESS_COMMAND_ARGS, args);
        assert_eq!(written_as(names::TAPIO_PROCESS_PARENT_ARGS, args), own);
        own
    }

    fn written_as(name: Name, args: &[u8]) -> Vec<String> {
        let mut builder = EventBuilder::default();
        builder.json(name, |out| {
            push_command_line(args, &mut String::new(), out);
        });
        builder.fields(|fields| {
            let event = Event::new(EventId([1; 16]), 1, names::OTLP_LOG, names::EBPF);
            Redactor::builtin().event(&Event { fields, ..event }, |event, _| {
                let Value::Json(json) = event.fields[0].value else { panic!("no JSON") };
                serde_json::from_str(json).unwrap()
            })
        })
    }

    #[test]
    fn secrets_of_command_lines_are_removed() {
        for words in [
            &["app", "--password=s3cr3t"][..],
            &["app", "--password", "s3cr3t"],
            &["app", "--db-pass", "s3cr3t", "--verbose"],
            &["app", "--dbPassword=s3cr3t"],
            &["/usr/bin/mysql", "-uroot", "-ps3cr3t", "db"],
            &["env", "TOKEN=s3cr3t", "AWS_SECRET_ACCESS_KEY=s3cr3t", "app"],
            &["curl", "-H", "Authorization: Bearer s3cr3t", "http://x"],
            &["curl", "-H", "authorization: s3cr3t"],
            &["curl", "-HX-Api-Key: s3cr3t"],
            &["curl", "-u", "joe:s3cr3t", "http://x"],
            &["curl", "http://joe:s3cr3t@host/path?q=1"],
            &["curl", "https://x/y?access_token=s3cr3t&z=1"],
            &["psql", "host=h password=s3cr3t user=u"],
            &["psql", "postgres://u:s3cr3t@h/db"],
            &["curl", "-d", r#"{"user":"u","password":"s3cr3t"}"#],
            &["curl", "-d", r#"{"password": "s3cr3t with spaces"}"#],
            &["sh", "-c", "mysql -u root -ps3cr3t < x"],
            &["sh", "-c", "export API_KEY=s3cr3t; app --token s3cr3t"],
            &["bash", "-c", "cd / && sshpass -p s3cr3t ssh h"],
            &["sshpass", "-p", "s3cr3t", "ssh", "h"],
            &["sudo", "sshpass", "-p", "s3cr3t", "ssh", "h"],
            &["redis-cli", "-a", "s3cr3t", "ping"],
            &["docker", "login", "-u", "joe", "-p", "s3cr3t"],
            &["openssl", "enc", "-pass", "pass:s3cr3t"],
            &["timeout", "5", "/usr/bin/mysql", "-ps3cr3t"],
            &["kubectl", "exec", "web-0", "--", "redis-cli", "-a", "s3cr3t"],
            &["nice", "docker", "login", "-p", "s3cr3t"],
            &["git", "clone", "https://ghp_s3cr3ts3cr3ts3cr3t@github.com/a/b"],
            &["app", "ghp_s3cr3ts3cr3ts3cr3t"],
            &["app", "--jwt", "eyJhbGciOiJIUzI1NiJ9.s3cr3t"],
        ] {
            let line = written(words.join("\0").as_bytes()).join(" ");
            assert!(!line.contains("s3cr3t"), "{words:?} became {line}");
            assert!(line.contains("[redacted]"), "{words:?} became {line}");
        }
    }

    #[test]
    fn other_command_lines_are_unchanged() {
        for line in [
            "/usr/sbin/sshd -D -p 22",
            "python3 -m http.server 8080",
            "app --token-file=/run/secret --password-file /x",
            "git clone https://git@github.com/a/b",
            "nginx -g daemon off;",
            "tar -xzf a.tgz key=value x:y",
            "kubectl get secret my-secret -o yaml",
            "docker run -p 80:80 nginx",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(written(words.join("\0").as_bytes()), words);
        }
        assert_eq!(written(b"sh\0-c\0echo  'a b'"), ["sh", "-c", "echo  'a b'"]);
    }

    #[test]
    fn any_bytes_are_valid_json() {
        for bytes in [&b""[..], b"\xff\xfe\0a\"\\\n\x01", b"\0\0", "ä=ö\0://@:".as_bytes()] {
            let expected = String::from_utf8_lossy(bytes);
            let expected = expected.strip_suffix('\0').unwrap_or(&expected);
            assert_eq!(written(bytes), expected.split('\0').collect::<Vec<_>>());
        }
    }

    #[test]
    fn relative_paths_are_below_the_working_directory() {
        for (folder, path, full) in [
            ("/home/u", "./run.sh", "/home/u/run.sh"),
            ("/", "bin//x", "/bin/x"),
            ("/a/b", "../c", "/a/b/../c"),
            ("/a", "/usr/bin/../bin/x", "/usr/bin/../bin/x"),
            ("end/of/a/long/one", "./x", "./x"),
            ("", "x", "x"),
            ("/a", "", ""),
        ] {
            assert_eq!(full_path(folder.as_bytes(), path.as_bytes()), full, "{folder} {path}");
        }
    }

    #[test]
    fn empty_last_argument_is_kept() {
        assert_eq!(written(b"a\0x\0\0"), ["a", "x", ""]);
        assert_eq!(written(b"a\0\0\0"), ["a", "", ""]);
        assert_eq!(written(b"a\0"), ["a"]);
        assert_eq!(written(b"a\0trunc"), ["a", "trunc"]);
    }
}
