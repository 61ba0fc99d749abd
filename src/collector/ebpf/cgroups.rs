//! The table of cgroups by number: path, and the container, pod and unit that the path names. It is
//! read once from the cgroup file systems, then updated by control records; its size is bounded.
//! Removed cgroups are kept for a while, because events about them arrive late.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::raw::HIERARCHY_SHIFT;
use super::tombstones::Tombstones;
use tapio_core::identity::{CgroupNames, cgroups_in};

/// Retention of a removed cgroup.
const RETENTION_NS: u64 = 600_000_000_000;
/// Depth to which a tree of cgroups is scanned.
const MAX_DEPTH: usize = 32;

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
struct Hierarchy {
    id: u64,
    mount: PathBuf,
    /// The path of the mount's root as the kernel reports it: empty for the hierarchy's own root.
    /// A cgroup namespace, as of a node that is a container, has another one, which isn't known
    /// before the kernel has reported a cgroup in it.
    prefix: Option<Box<str>>,
}

impl Hierarchy {
    fn new(id: u64, mount: PathBuf) -> Self {
        let is_root = inode(&mount) == Some(ROOT_INODE);
        Self { id, mount, prefix: is_root.then(Box::default) }
    }

    /// A path that the kernel reports, as it is below this mount. A path of another namespace
    /// stays as it is.
    fn visible<'p>(&mut self, inode_of_path: u64, path: &'p str) -> &'p str {
        if self.prefix.is_none() {
            let at = |at: &usize| inode(&self.folder(&path[*at..])) == Some(inode_of_path);
            self.prefix = starts(path).find(at).map(|at| path[..at].into());
        }
        let rest = match &self.prefix {
            Some(prefix) => path.strip_prefix(&**prefix),
            // It is removed already. The folder that it was in is unique by its name.
            None => {
                let is_in = |at: &usize| {
                    path[*at..].rsplit_once('/').is_some_and(|(parent, _)| {
                        !parent.is_empty() && self.folder(parent).is_dir()
                    })
                };
                starts(path).find(is_in).map(|at| &path[at..])
            }
        };
        rest.filter(|rest| rest.starts_with('/')).unwrap_or(path)
    }

    fn folder(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }
}

/// The inode of a hierarchy's own root (`kernfs_create_root` in fs/kernfs/dir.c).
const ROOT_INODE: u64 = 1;

fn inode(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.ino())
}

/// Where each segment of a path starts, with its slash.
fn starts(path: &str) -> impl Iterator<Item = usize> {
    path.match_indices('/').map(|(at, _)| at)
}

/// The mounts of the unified hierarchy and, on a hybrid system, of the memory controller's.
fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let memory_id = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let id: u64 = parts.next()?.parse().ok()?;
        parts.next()?.split(',').any(|c| c == "memory").then_some(id)
    });
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, mount, kind, options, ..] = words[..] else {
            continue;
        };
        let id = match kind {
            "cgroup2" => Some(0),
            "cgroup" if options.split(',').any(|o| o == "memory") => memory_id,
            _ => None,
        };
        if let Some(id) = id.filter(|id| !found.iter().any(|h| h.id == *id)) {
            found.push(Hierarchy::new(id, mount.into()));
        }
    }
    found
}

/// An entry of the table.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    /// The names in its path.
    pub(super) names: CgroupNames,
    /// The invocation of the unit it belongs to, from its extended attributes.
    pub(super) invocation_id: Option<Box<str>>,
    /// Whether the extended attributes have been read.
    invocation_read: bool,
}

impl Cgroup {
    fn new(base: &str, path: &str) -> Self {
        let names = CgroupNames::parse_below(base, path);
        // A cgroup without a unit has no invocation.
        let invocation_read = names.unit.is_none();
        Self { names, invocation_id: None, invocation_read }
    }
}

/// The InvocationID that systemd sets on a unit's cgroup (`cg_set_xattr` in systemd's
/// src/core/cgroup.c). A restarted unit has another cgroup, so a cgroup has one invocation only.
fn invocation_id(mount: &Path, names: &CgroupNames) -> Option<Box<str>> {
    let unit = names.unit.as_deref()?;
    let end = names.path.find(&format!("/{unit}"))? + 1 + unit.len();
    let folder = mount.join(names.path.get(1..end)?);
    let mut id = [0u8; 64];
    let mut read = |key: &str| rustix::fs::getxattr(&folder, key, &mut id).ok();
    let len = read("trusted.invocation_id").or_else(|| read("user.invocation_id"))?;
    let text = std::str::from_utf8(id.get(..len)?).ok()?;
    is_invocation_id(text).then(|| text.into())
}

fn is_invocation_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The cgroups by number: the hierarchy's id and the folder's inode.
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    table: HashMap<u64, Cgroup, ahash::RandomState>,
    /// Removed cgroups that are still in the table.
    removed: Tombstones<u64>,
    max: usize,
    /// The cgroup that contains the node, if the node is a container.
    base: Box<str>,
    /// Cgroups for which the table had no room.
    pub(super) untracked: u64,
}

impl Cgroups {
    pub(super) fn new(max: usize, base: &str) -> Self {
        Self {
            hierarchies: hierarchies(),
            table: HashMap::default(),
            removed: Tombstones::new(RETENTION_NS),
            max: max.max(16),
            base: base.into(),
            untracked: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether events refer to a cgroup's hierarchy: version 1 has one per controller.
    pub(super) fn is_tracked(&self, number: u64) -> bool {
        let id = number >> HIERARCHY_SHIFT;
        self.hierarchies.is_empty() || self.hierarchies.iter().any(|h| h.id == id)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Cgroup> {
        self.table.get(&number)
    }

    /// The cgroup with its unit's invocation, which is read at the cgroup's first event: systemd
    /// writes it after it created the cgroup and before it starts a process there.
    pub(super) fn with_invocation(&mut self, number: u64) -> Option<&Cgroup> {
        let cgroup = self.table.get_mut(&number)?;
        if !cgroup.invocation_read {
            cgroup.invocation_read = true;
            let of = self.hierarchies.iter().find(|h| h.id == number >> HIERARCHY_SHIFT);
            cgroup.invocation_id = of.and_then(|h| invocation_id(&h.mount, &cgroup.names));
        }
        Some(cgroup)
    }

    /// The number of the cgroup with this path.
    pub(super) fn number_of(&self, path: &str) -> Option<u64> {
        let path = Path::new(path.trim_start_matches('/'));
        self.hierarchies.iter().find_map(|h| {
            let inode = fs::metadata(h.mount.join(path)).ok()?.ino();
            Some(h.id << HIERARCHY_SHIFT | inode)
        })
    }

    /// Adds a created cgroup, with its path as the kernel reports it.
    pub(super) fn created(&mut self, number: u64, path: &str, now_ns: u64) {
        let of = self.hierarchies.iter_mut().find(|h| h.id == number >> HIERARCHY_SHIFT);
        let inode = number & ((1 << HIERARCHY_SHIFT) - 1);
        let path = of.map_or(path, |hierarchy| hierarchy.visible(inode, path));
        self.add(number, path, now_ns);
    }

    /// Adds a cgroup. A path created again after its removal has another number.
    fn add(&mut self, number: u64, path: &str, now_ns: u64) {
        if self.table.len() >= self.max && !self.table.contains_key(&number) {
            self.expire(now_ns, true);
            if self.table.len() >= self.max {
                self.untracked += 1;
                return;
            }
        }
        self.table.insert(number, Cgroup::new(&self.base, path));
    }

    /// Marks a cgroup as removed.
    pub(super) fn mark_removed(&mut self, number: u64, now_ns: u64) {
        self.removed.add(number, now_ns);
        self.expire(now_ns, self.removed.len() > self.max / 2);
    }

    fn expire(&mut self, now_ns: u64, make_room: bool) {
        let Self { removed, table, .. } = self;
        removed.expire(now_ns, make_room, |number| {
            table.remove(&number);
        });
    }

    /// Reads the cgroup file systems. Cgroups in the table keep their entry.
    pub(super) fn scan(&mut self, now_ns: u64) {
        for hierarchy in self.hierarchies.clone() {
            let mut open = vec![(hierarchy.mount.clone(), 0)];
            while let Some((folder, depth)) = open.pop() {
                let Ok(inode) = fs::metadata(&folder).map(|m| m.ino()) else {
                    continue;
                };
                let number = hierarchy.id << HIERARCHY_SHIFT | inode;
                if !self.table.contains_key(&number) {
                    let below = folder.strip_prefix(&hierarchy.mount).unwrap_or(Path::new(""));
                    self.add(number, &format!("/{}", below.display()), now_ns);
                }
                if depth < MAX_DEPTH {
                    open.extend(cgroups_in(&folder).map(|f| (f, depth + 1)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_cgroup_is_kept_until_retention() {
        let mut all = Cgroups { hierarchies: Vec::new(), ..Cgroups::new(16, "") };
        all.add(1, "/a.service", 0);
        all.mark_removed(1, 0);
        assert!(all.get(1).is_some());
        all.mark_removed(2, RETENTION_NS + 1);
        assert!(all.get(1).is_none());
        for n in 0..20 {
            all.add(100 + n, "/x", 0);
        }
        assert_eq!((all.len(), all.untracked), (16, 4));
    }

    #[test]
    fn paths_of_own_namespace_begin_at_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path();
        let (outer, id) = ("3".repeat(64), "b".repeat(64));
        let below = format!("/kubelet.slice/pod/cri-containerd-{id}.scope");
        fs::create_dir_all(mount.join(&below[1..])).unwrap();
        let mut hierarchy = Hierarchy::new(0, mount.to_owned());
        assert_eq!(hierarchy.prefix, None, "it isn't the hierarchy's root");
        let reported = format!("/docker/{outer}{below}");
        // One that is removed already is placed by its folder.
        let gone = format!("/docker/{outer}/kubelet.slice/pod/gone.scope");
        assert_eq!(hierarchy.visible(7, &gone), "/kubelet.slice/pod/gone.scope");
        assert_eq!(hierarchy.visible(7, "/elsewhere/x"), "/elsewhere/x");
        assert_eq!(hierarchy.prefix, None);
        let number = inode(&mount.join(&below[1..])).unwrap();
        assert_eq!(hierarchy.visible(number, &reported), below);
        assert_eq!(hierarchy.prefix.as_deref(), Some(&*format!("/docker/{outer}")));
        let other = format!("/docker/{}/x.scope", "4".repeat(64));
        assert_eq!(hierarchy.visible(9, &other), other, "another container's stays");
        let in_root = format!("/docker/{outer}/new.slice");
        assert_eq!(hierarchy.visible(9, &in_root), "/new.slice");
        assert_eq!(hierarchy.visible(9, &format!("/docker/{outer}")), format!("/docker/{outer}"));
    }
}
