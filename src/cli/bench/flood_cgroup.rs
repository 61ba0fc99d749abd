//! A cgroup of version 2 for the processes whose system calls are events.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REMOVE_ATTEMPTS: u32 = 200;
const REMOVE_INTERVAL: Duration = Duration::from_millis(10);

/// The cgroup. Removed when the value is dropped.
#[derive(Debug)]
pub(super) struct FloodCgroup {
    folder: PathBuf,
    name: String,
}

impl FloodCgroup {
    /// Creates it below the root of version 2.
    ///
    /// # Errors
    /// With the folder: no such hierarchy, or no permission.
    pub(super) fn create() -> io::Result<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        // Relaxed: pairs with itself; only distinct numbers matter.
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("tapio-bench-{}-{number}", std::process::id());
        let base = Path::new("/sys/fs/cgroup");
        let roots = [base.to_path_buf(), base.join("unified")];
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
        let root = root.ok_or_else(|| io::Error::other("no cgroup2 in /sys/fs/cgroup"))?;
        let folder = root.join(&name);
        fs::create_dir(&folder)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?;
        Ok(Self { folder, name })
    }

    /// Its path below the root, as the collector's configuration names it.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// The file into which a process writes its pid to enter the cgroup.
    pub(super) fn procs_file(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for FloodCgroup {
    fn drop(&mut self) {
        // A process that was just reaped may still be leaving.
        for _ in 0..REMOVE_ATTEMPTS {
            match fs::remove_dir(&self.folder) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVE_INTERVAL);
                }
                _ => return,
            }
        }
    }
}
