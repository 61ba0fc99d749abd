//! The cgroups of units and pods, and the files in them: those of the unified hierarchy, and on a
//! hybrid node those of the version 1 controllers (Documentation/admin-guide/cgroup-v2.rst and
//! cgroup-v1/).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tapio_core::identity::{CgroupNames, cgroups_in};

/// Depth to which a tree of cgroups is scanned.
const MAX_DEPTH: usize = 16;
/// Cgroups that are sampled; a node has some hundreds.
const MAX_CGROUPS: usize = 4_096;

/// The mount points of the hierarchies.
pub(super) struct CgroupMounts {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    blkio: Option<PathBuf>,
    /// The cgroup that contains the node, if the node is a container.
    base: Box<str>,
}

impl CgroupMounts {
    /// Finds the hierarchies in this process's mounts.
    pub(super) fn find(base: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self { base: base.into(), ..Self::parse(&mounts) }
    }

    fn parse(mounts: &str) -> Self {
        let mut found = Self { unified: None, memory: None, blkio: None, base: Box::default() };
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

    /// The status note if pressure can't be read: the cause, and the events that will be missing.
    pub(super) fn missing(&self) -> Option<String> {
        let cause = match &self.unified {
            None => "cgroup2 isn't mounted".to_owned(),
            Some(root) if !root.join("cgroup.controllers").exists() => {
                format!("{} can't be read", root.display())
            }
            Some(_) => return None,
        };
        Some(format!("pressure sampling disabled: {cause}; kernel.pressure events will be missing"))
    }

    /// The topmost cgroup of each unit and pod, with its folder's inode.
    pub(super) fn units_and_pods(&self) -> Vec<(u64, CgroupNames)> {
        let mut found = Vec::new();
        let Some(root) = &self.unified else { return found };
        let mut open = vec![(root.clone(), 0)];
        while let Some((folder, depth)) = open.pop() {
            if found.len() >= MAX_CGROUPS {
                break;
            }
            let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
            let names = CgroupNames::parse_below(&self.base, &format!("/{}", below.display()));
            if depth > 0 && is_unit_or_pod(&names) {
                if let Ok(metadata) = fs::metadata(&folder) {
                    found.push((metadata.ino(), names));
                }
                // The cgroups below it belong to it.
                continue;
            }
            if depth < MAX_DEPTH {
                open.extend(cgroups_in(&folder).map(|f| (f, depth + 1)));
            }
        }
        found
    }

    /// Reads a file of a cgroup in the unified hierarchy.
    pub(super) fn read(&self, names: &CgroupNames, file: &str) -> Option<String> {
        fs::read_to_string(self.unified.as_ref()?.join(names.path.get(1..)?).join(file)).ok()
    }

    /// Reads a file of a cgroup in a version 1 hierarchy.
    fn read_v1(root: Option<&PathBuf>, names: &CgroupNames, file: &str) -> Option<String> {
        fs::read_to_string(root?.join(names.path.get(1..)?).join(file)).ok()
    }

    /// CPU time that a cgroup used, in microseconds.
    pub(super) fn cpu_us(&self, names: &CgroupNames) -> Option<u64> {
        field(&self.read(names, "cpu.stat")?, "usage_usec")
    }

    /// Anonymous memory of a cgroup, in bytes.
    pub(super) fn memory_bytes(&self, names: &CgroupNames) -> Option<u64> {
        match self.read(names, "memory.stat") {
            Some(stat) => field(&stat, "anon"),
            None => field(&Self::read_v1(self.memory.as_ref(), names, "memory.stat")?, "total_rss"),
        }
    }

    /// Bytes that a cgroup read from and wrote to disks.
    pub(super) fn io_bytes(&self, names: &CgroupNames) -> Option<u64> {
        if let Some(stat) = self.read(names, "io.stat") {
            let transferred = |word: &str| {
                let (key, value) = word.split_once('=')?;
                ["rbytes", "wbytes"].contains(&key).then(|| value.parse::<u64>().ok())?
            };
            return Some(stat.split_whitespace().filter_map(transferred).sum());
        }
        let file = "blkio.throttle.io_service_bytes_recursive";
        let text = Self::read_v1(self.blkio.as_ref(), names, file)?;
        text.lines().find_map(|line| line.strip_prefix("Total ")?.trim().parse().ok())
    }
}

/// Whether a cgroup's path names a unit or a pod.
fn is_unit_or_pod(names: &CgroupNames) -> bool {
    names.unit.is_some() || names.pod_uid.is_some()
}

/// The number that follows a key at the start of a line.
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
    fn hierarchies_of_hybrid_layout_are_found() {
        let hybrid = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n";
        let mounts = CgroupMounts::parse(hybrid);
        assert_eq!(mounts.unified, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mounts.memory, Some("/sys/fs/cgroup/memory".into()));
        assert!(CgroupMounts::parse("proc /proc proc rw 0 0\n").missing().is_some());
    }

    #[test]
    fn field_is_found_by_whole_key() {
        let stat = "anon 4096\nfile 1\nanon_thp 7\n";
        assert_eq!((field(stat, "anon"), field(stat, "fil")), (Some(4096), None));
        assert_eq!(field("MemTotal:       16000 kB\n", "MemTotal"), Some(16000));
    }
}
