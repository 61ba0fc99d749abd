//! One agent for a state folder: a second one says who is there and leaves.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held while the agent runs; the kernel lets go of it however the agent ends.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

/// Why the lock can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent runs.
    #[error(
        "another tapio agent (pid {pid}) uses {dir}: stop it, or give this one a state_dir of its own"
    )]
    Held {
        /// Its process id as it wrote it; `?` where it wrote none.
        pid: String,
        /// The folder.
        dir: String,
    },
    /// The folder can't be used.
    #[error("{dir}: {cause} (set state_dir to a folder this user may write)")]
    Folder {
        /// The folder.
        dir: String,
        /// What the system says.
        cause: std::io::Error,
    },
}

impl AgentLock {
    /// Takes the lock of a folder, making the folder if it isn't there.
    ///
    /// # Errors
    /// When another agent holds it or the folder can't be used.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let folder = |cause| LockError::Folder { dir: dir.display().to_string(), cause };
        std::fs::create_dir_all(dir).map_err(folder)?;
        let path = dir.join("agent.lock");
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(folder)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?".into() } else { pid.trim().to_owned() };
            return Err(LockError::Held { pid, dir: dir.display().to_string() });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(folder)?;
        writeln!(file, "{}", std::process::id()).map_err(folder)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = AgentLock::take(dir.path()).unwrap();
        let error = AgentLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        assert!(AgentLock::take(dir.path()).is_ok());
    }
}
