//! A cgroup with a small memory limit, version 1 or 2, depending on the node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REMOVE_ATTEMPTS: u32 = 200;
const REMOVE_INTERVAL: Duration = Duration::from_millis(10);

/// The cgroup. Removed when the value is dropped.
#[derive(Debug)]
pub(super) struct SmallCgroup {
    folder: PathBuf,
    /// The parent's `cgroup.subtree_control`, if the memory controller was enabled for this cgroup.
    enabled: Option<PathBuf>,
}

/// The parent of memory cgroups, and whether it is of version 2.
fn memory_root() -> io::Result<(PathBuf, bool)> {
    let base = Path::new("/sys/fs/cgroup");
    let v1 = base.join("memory");
    if v1.join("memory.limit_in_bytes").exists() {
        return Ok((v1, false));
    }
    let has = |dir: &Path| {
        fs::read_to_string(dir.join("cgroup.controllers"))
            .is_ok_and(|list| list.split_whitespace().any(|c| c == "memory"))
    };
    [base.to_path_buf(), base.join("unified")]
        .into_iter()
        .find(|dir| has(dir))
        .map(|dir| (dir, true))
        .ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "no memory controller in /sys/fs/cgroup")
        })
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::write(file, text).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}

impl SmallCgroup {
    /// Creates a cgroup with this memory limit and no swap.
    ///
    /// # Errors
    /// With the file: no controller, or no permission to write.
    pub(super) fn create(name: &str, limit_bytes: u64) -> io::Result<Self> {
        let (root, is_v2) = memory_root()?;
        let control = root.join("cgroup.subtree_control");
        let mut enabled = None;
        let is_enabled = || fs::read_to_string(&control).is_ok_and(|l| l.contains("memory"));
        if is_v2 && !is_enabled() {
            write(&control, "+memory")?;
            enabled = Some(control);
        }
        let folder = root.join(name);
        let created = fs::create_dir(&folder)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())));
        let cgroup = Self { folder, enabled };
        created?;
        let limit = limit_bytes.to_string();
        // A kernel without swap accounting lacks the files for swap, and needs none.
        let (main, optional) = if is_v2 {
            ("memory.max", vec![("memory.swap.max", "0")])
        } else {
            let memory_and_swap = ("memory.memsw.limit_in_bytes", limit.as_str());
            ("memory.limit_in_bytes", vec![("memory.swappiness", "0"), memory_and_swap])
        };
        write(&cgroup.folder.join(main), &limit)?;
        for (file, value) in optional {
            let _ = fs::write(cgroup.folder.join(file), value);
        }
        Ok(cgroup)
    }

    /// The file into which a process writes its pid to enter the cgroup.
    pub(super) fn procs_file(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The cgroup's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SmallCgroup {
    fn drop(&mut self) {
        // A process that was just reaped may still be leaving.
        for _ in 0..REMOVE_ATTEMPTS {
            match fs::remove_dir(&self.folder) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVE_INTERVAL)
                }
                _ => break,
            }
        }
        if let Some(control) = &self.enabled {
            // Fails, as intended, if another cgroup uses the controller.
            let _ = fs::write(control, "-memory");
        }
    }
}
