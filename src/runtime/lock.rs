//! One agent per state folder: a second one exits with an error that names the first.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::store::{Files as _, OsFiles, lock_soon, open_own};

/// Held while the agent runs; the kernel releases it however the process ends.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

/// Why the lock can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent runs.
    #[error(
        "another tapio agent (pid {pid}) uses {dir}: stop it, or set another state_dir for this one"
    )]
    Held {
        /// The process id in the lock file; `?` where the file is empty.
        pid: String,
        /// The state folder.
        dir: String,
    },
    /// The folder can't be used.
    #[error("{dir}: {cause} (set state_dir to a folder that this user can write to)")]
    Folder {
        /// The folder.
        dir: String,
        /// The system's error.
        cause: std::io::Error,
    },
}

impl AgentLock {
    /// Creates a state folder if it is missing.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub(super) fn create_folder(dir: &Path) -> Result<(), LockError> {
        let folder = |cause| LockError::Folder { dir: dir.display().to_string(), cause };
        OsFiles.create_dir(dir).map_err(folder)
    }

    /// Takes the lock of a state folder; creates the folder if it is missing.
    ///
    /// # Errors
    /// When another agent holds the lock or the folder can't be used.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let folder = |cause| LockError::Folder { dir: dir.display().to_string(), cause };
        Self::create_folder(dir)?;
        let path = dir.join("agent.lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = open_own(&mut options, &path).map_err(folder)?;
        if !lock_soon(&file).map_err(folder)? {
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
    fn second_lock_fails_with_the_pid_of_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = AgentLock::take(dir.path()).unwrap();
        let error = AgentLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        assert!(AgentLock::take(dir.path()).is_ok());
    }
}
