//! The cgroups of units and pods, and the files in them: of the unified hierarchy, and on a hybrid node of
//! the version 1 controllers beside it (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tapio_core::identity::{CgroupNames, cgroups_in};

/// A tree of cgroups deeper than this isn't walked to its end.
const MAX_DEPTH: usize = 16;
/// Cgroups that are looked at; a node has some hundreds.
const MOST: usize = 4_096;

/// Where the hierarchies are mounted.
pub(super) struct Trees {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    blkio: Option<PathBuf>,
}

impl Trees {
    pub(super) fn find() -> Self {
        Self::of(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
    }

    fn of(mounts: &str) -> Self {
        let mut found = Self { unified: None, memory: None, blkio: None };
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, mount, kind, options, ..] = words[..] else { continue };
            let has = |controller| options.split(',').any(|o| o == controller);
            let slot = match kind {
                "cgroup2" => &mut found.unified,
                "cgroup" if has("memory") => &mut found.memory,
                "cgroup" if has("blkio") => &mut found.blkio,
                _ => continue,
            };
            slot.get_or_insert_with(|| mount.into());
        }
        found
    }

    /// What can't be read here, and what it costs.
    pub(super) fn missing(&self) -> Option<String> {
        match &self.unified {
            None => Some("no cgroup2 is mounted: pressure of units and pods isn't told".into()),
            Some(root) if !root.join("cgroup.controllers").exists() => {
                Some(format!("{} can't be read: pressure isn't told", root.display()))
            }
            Some(_) => None,
        }
    }

    /// The cgroups that are a unit's or a pod's own, with the numbers of their folders.
    pub(super) fn units_and_pods(&self) -> Vec<(u64, CgroupNames)> {
        let mut found = Vec::new();
        let Some(root) = &self.unified else { return found };
        let mut open = vec![(root.clone(), 0)];
        while let Some((folder, depth)) = open.pop() {
            if found.len() >= MOST {
                break;
            }
            let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
            let names = CgroupNames::parse(&format!("/{}", below.display()));
            if depth > 0 && is_own(&names) {
                if let Ok(metadata) = fs::metadata(&folder) {
                    found.push((metadata.ino(), names));
                }
                // What is below belongs to it.
                continue;
            }
            if depth < MAX_DEPTH {
                open.extend(cgroups_in(&folder).map(|f| (f, depth + 1)));
            }
        }
        found
    }

    /// A file of a cgroup in the unified hierarchy.
    pub(super) fn read(&self, names: &CgroupNames, file: &str) -> Option<String> {
        fs::read_to_string(self.unified.as_ref()?.join(names.path.get(1..)?).join(file)).ok()
    }

    /// A file of a cgroup in a version 1 hierarchy.
    fn read_v1(root: Option<&PathBuf>, names: &CgroupNames, file: &str) -> Option<String> {
        fs::read_to_string(root?.join(names.path.get(1..)?).join(file)).ok()
    }

    /// CPU time a cgroup used, in microseconds.
    pub(super) fn cpu_us(&self, names: &CgroupNames) -> Option<u64> {
        field(&self.read(names, "cpu.stat")?, "usage_usec")
    }

    /// Memory of its processes that no file backs, in bytes.
    pub(super) fn memory_bytes(&self, names: &CgroupNames) -> Option<u64> {
        match self.read(names, "memory.stat") {
            Some(stat) => field(&stat, "anon"),
            None => field(&Self::read_v1(self.memory.as_ref(), names, "memory.stat")?, "total_rss"),
        }
    }

    /// Bytes it read from and wrote to disks.
    pub(super) fn io_bytes(&self, names: &CgroupNames) -> Option<u64> {
        if let Some(stat) = self.read(names, "io.stat") {
            let moved = |word: &str| {
                let (key, value) = word.split_once('=')?;
                ["rbytes", "wbytes"].contains(&key).then(|| value.parse::<u64>().ok())?
            };
            return Some(stat.split_whitespace().filter_map(moved).sum());
        }
        let file = "blkio.throttle.io_service_bytes_recursive";
        let text = Self::read_v1(self.blkio.as_ref(), names, file)?;
        text.lines().find_map(|line| line.strip_prefix("Total ")?.trim().parse().ok())
    }
}

/// Whether the cgroup is a unit's or a pod's itself, not one inside it.
fn is_own(names: &CgroupNames) -> bool {
    names.unit.is_some() || names.pod_uid.is_some()
}

/// The number behind a word at the beginning of a line.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?.strip_prefix([' ', ':'])?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_whatever_the_layout() {
        let hybrid = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n";
        let trees = Trees::of(hybrid);
        assert_eq!(trees.unified, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(trees.memory, Some("/sys/fs/cgroup/memory".into()));
        assert!(Trees::of("proc /proc proc rw 0 0\n").missing().is_some());
    }

    #[test]
    fn numbers_are_read() {
        let stat = "anon 4096\nfile 1\nanon_thp 7\n";
        assert_eq!((field(stat, "anon"), field(stat, "fil")), (Some(4096), None));
        assert_eq!(field("MemTotal:       16000 kB\n", "MemTotal"), Some(16000));
    }
}
