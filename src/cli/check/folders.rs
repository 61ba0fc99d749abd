//! The folders of a configuration, and the logs in them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::report::Report;
use crate::runtime::Config;
use crate::store::{InspectedLog, inspect, lock_holder};
use tapio_core::sizes;

/// Checks `state_dir` and `server.data_dir` with what is in them. Returns the processes that have
/// them open.
pub(super) fn check(config: &Config, report: &mut Report) -> Vec<u32> {
    let (state_dir, data_dir) = (config.state_dir(), config.server().data_dir);
    let mut running = Vec::new();
    folder("state_dir", &state_dir, report);
    if let Some(pid) = lock_holder(&state_dir.join("agent.lock")) {
        report.fine("state_dir", format!("an agent runs with {} (pid {pid})", state_dir.display()));
        running.push(pid);
    }
    folder("server.data_dir", &data_dir, report);
    let recovery_bytes = config.dataflow.recovery_log_bytes;
    let spool = (state_dir.join("spool"), config.bridge.spool_bytes);
    for (key, dir, bytes) in [
        ("bridge.spool_bytes", spool.0, spool.1),
        ("dataflow.recovery_log_bytes", state_dir.join("recovery"), recovery_bytes),
        ("server.retention_bytes", data_dir, config.server.retention_bytes),
    ] {
        let used_bytes = logs(key, &dir, &mut running, report);
        room(key, &dir, bytes, used_bytes, report);
    }
    running.sort_unstable();
    running.dedup();
    running
}

/// The nearest of a path and the folders above it that exists.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Whether a folder can be used, or created; its owner and mode.
fn folder(key: &str, path: &Path, report: &mut Report) {
    let existing = existing(path);
    let (name, found) = (path.display(), existing.display());
    let user = rustix::process::geteuid().as_raw();
    let metadata = match std::fs::metadata(&existing) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return report.error(key, format!("{found} isn't a folder")),
        Err(error) => return report.error(key, format!("{found}: {error}")),
    };
    let access = accessat(CWD, &existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    match access {
        Ok(()) if existing != std::path::absolute(path).unwrap_or_default() => {
            return report.fine(key, format!("{name} can be created in {found}"));
        }
        Ok(()) => {}
        Err(error) if existing == *path => {
            let cause = format!("{name} belongs to user {owner} (mode {mode:04o})");
            let remedy = "check as the user that runs tapio";
            return report.warning(key, format!("{cause}; {error} for user {user}: {remedy}"));
        }
        Err(error) => {
            return report
                .error(key, format!("{name} can't be created in {found} by user {user}: {error}"));
        }
    }
    if owner != user && owner != 0 {
        let cause = format!("{name} belongs to user {owner}, tapio would run as user {user}");
        return report.warning(key, format!("{cause}: it refuses folders of other users"));
    }
    if mode & 0o022 != 0 {
        let cause = format!("others may write to {name} (mode {mode:04o})");
        return report.warning(key, format!("{cause}: chmod go-w {name}"));
    }
    report.fine(key, format!("{name} is writable (user {owner}, mode {mode:04o})"));
}

/// Checks the logs below a folder. Returns their size.
fn logs(key: &str, dir: &Path, running: &mut Vec<u32>, report: &mut Report) -> u64 {
    let logs = match inspect(dir) {
        Ok(logs) => logs,
        Err(error) => {
            report.warning(key, format!("{}: {error}", dir.display()));
            return 0;
        }
    };
    for log in &logs {
        running.extend(log.holder);
        describe(key, log, report);
    }
    logs.iter().flat_map(|log| &log.segments).map(|segment| segment.bytes).sum()
}

fn describe(key: &str, log: &InspectedLog, report: &mut Report) {
    let dir = log.dir.display();
    for segment in &log.segments {
        if let Err(cause) = &segment.head {
            // A segment is created before its head is written.
            let is_new = log.holder.is_some() && segment.bytes == 0;
            if !is_new {
                report.warning(key, format!("{dir}/{}: {cause}", segment.name));
            }
        }
    }
    let (segments, bytes) = (log.segments.len(), log.segments.iter().map(|s| s.bytes).sum());
    let state = match log.holder {
        Some(0) => "; open in a tapio of another PID namespace".to_owned(),
        Some(pid) => format!("; open in a running tapio (pid {pid})"),
        None => String::new(),
    };
    let (number, size) = (segments, sizes::rounded(bytes));
    report.fine(key, format!("{dir}: {number} segments of format 1, {size}{state}"));
}

/// Whether the file system has room for what may still come.
fn room(key: &str, dir: &Path, bytes: u64, used_bytes: u64, report: &mut Report) {
    let Ok(disk) = statvfs(existing(dir)) else { return };
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let more_bytes = bytes.saturating_sub(used_bytes);
    if more_bytes > free_bytes {
        let [bytes, free] = [bytes, free_bytes].map(sizes::rounded);
        let dir = dir.display();
        report.warning(key, format!("{dir} may grow to {bytes}, its file system has {free} free"));
    }
}
