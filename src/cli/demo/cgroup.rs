//! A cgroup with little memory, version 1 or 2, whichever the machine has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(10);

/// The cgroup. Removed with the value.
#[derive(Debug)]
pub(super) struct SmallCgroup {
    folder: PathBuf,
    /// A parent's `cgroup.subtree_control` that got the memory controller for this.
    lent: Option<PathBuf>,
}

/// Where memory cgroups are made, and whether that is version 2.
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
    /// Makes a cgroup whose processes may have `limit_bytes` together, and no swap.
    ///
    /// # Errors
    /// With the file: no controller, no right to write.
    pub(super) fn make(name: &str, limit_bytes: u64) -> io::Result<Self> {
        let (root, is_v2) = memory_root()?;
        let control = root.join("cgroup.subtree_control");
        let mut lent = None;
        let is_given = || fs::read_to_string(&control).is_ok_and(|l| l.contains("memory"));
        if is_v2 && !is_given() {
            write(&control, "+memory")?;
            lent = Some(control);
        }
        let folder = root.join(name);
        let made = fs::create_dir(&folder)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())));
        let cgroup = Self { folder, lent };
        made?;
        let limit = limit_bytes.to_string();
        // A kernel without swap accounting has no files for swap, and needs none.
        let (main, more) = if is_v2 {
            ("memory.max", vec![("memory.swap.max", "0")])
        } else {
            let memory_and_swap = ("memory.memsw.limit_in_bytes", limit.as_str());
            ("memory.limit_in_bytes", vec![("memory.swappiness", "0"), memory_and_swap])
        };
        write(&cgroup.folder.join(main), &limit)?;
        for (file, value) in more {
            let _ = fs::write(cgroup.folder.join(file), value);
        }
        Ok(cgroup)
    }

    /// The file a process writes its number into to go inside.
    pub(super) fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SmallCgroup {
    fn drop(&mut self) {
        // A process that was just reaped may still be leaving.
        for _ in 0..LOOKS {
            match fs::remove_dir(&self.folder) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(LOOK),
                _ => break,
            }
        }
        if let Some(control) = &self.lent {
            // Somebody may rely on it by now; then it stays.
            let _ = fs::write(control, "-memory");
        }
    }
}
