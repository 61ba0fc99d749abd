//! The table of cgroups: number → path, and what the path says of container, pod and unit. Read
//! once from the cgroup file systems, then kept by control records; bounded. Removed cgroups stay
//! for a while, because events about them come late.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::departed::Departed;
use super::raw::HIERARCHY_SHIFT;

/// How long a removed cgroup's path is kept.
const KEPT_NS: u64 = 600_000_000_000;
/// A tree of cgroups deeper than this isn't walked to its end.
const MAX_DEPTH: usize = 32;

/// What a cgroup's path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroup {
    pub(super) path: Box<str>,
    pub(super) container_id: Option<Box<str>>,
    pub(super) pod_uid: Option<Box<str>>,
    pub(super) unit: Option<Box<str>>,
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A container's id in a path segment: 64 hex digits, bare (cgroupfs driver), or between a
/// runtime's name and `.scope` (systemd driver), or behind a colon (containerd told of a slice).
/// The monitors of CRI-O and Podman lie beside their containers and are none.
fn container_in(segment: &str) -> Option<&str> {
    if segment.contains("conmon") {
        return None;
    }
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = bare.rsplit(['-', ':']).next()?;
    is_hex(id, 64).then_some(id)
}

/// A pod's uid in a path segment: `pod<uid>` (cgroupfs driver) or `…-pod<uid>.slice` with
/// underscores for dashes (systemd driver). A static pod's uid is 32 hex digits without dashes.
fn pod_in(segment: &str) -> Option<String> {
    let segment = segment.split(':').next()?;
    let uid = match segment.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => segment.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let digits: String = uid.split('-').collect();
    (is_hex(&digits, 32) && matches!(uid.len(), 32 | 36)).then_some(uid)
}

/// Whether systemd made this segment as a unit that holds processes.
fn is_unit(segment: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|suffix| segment.ends_with(suffix))
}

impl Cgroup {
    pub(super) fn parse(path: &str) -> Self {
        let mut cgroup = Self { path: path.into(), ..Self::default() };
        for segment in path.split('/').filter(|s| !s.is_empty()) {
            if let Some(uid) = pod_in(segment) {
                cgroup.pod_uid = Some(uid.into());
            }
            if let Some(id) = container_in(segment) {
                // A container in a container: the outer one is the node's.
                cgroup.container_id.get_or_insert_with(|| id.into());
            } else if is_unit(segment) && cgroup.unit.is_none() && cgroup.container_id.is_none() {
                // Units inside a container or a user's session aren't the node's.
                cgroup.unit = Some(segment.into());
            }
        }
        cgroup
    }
}

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
struct Hierarchy {
    id: u64,
    mount: PathBuf,
}

/// Where the unified hierarchy and, on a hybrid system, the memory controller's are mounted.
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
            let mount = mount.into();
            found.push(Hierarchy { id, mount });
        }
    }
    found
}

pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    table: HashMap<u64, Cgroup, ahash::RandomState>,
    /// Removed cgroups.
    removed: Departed<u64>,
    max: usize,
    /// Cgroups that found no room.
    pub(super) untracked: u64,
}

impl Cgroups {
    pub(super) fn new(max: usize) -> Self {
        Self {
            hierarchies: hierarchies(),
            table: HashMap::default(),
            removed: Departed::new(KEPT_NS),
            max: max.max(16),
            untracked: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether a cgroup is of a hierarchy that events name: version 1 has one per controller.
    pub(super) fn follows(&self, number: u64) -> bool {
        let id = number >> HIERARCHY_SHIFT;
        self.hierarchies.is_empty() || self.hierarchies.iter().any(|h| h.id == id)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Cgroup> {
        self.table.get(&number)
    }

    /// The number of the cgroup with this path.
    pub(super) fn number_of(&self, path: &str) -> Option<u64> {
        let path = Path::new(path.trim_start_matches('/'));
        self.hierarchies.iter().find_map(|h| {
            let inode = fs::metadata(h.mount.join(path)).ok()?.ino();
            Some(h.id << HIERARCHY_SHIFT | inode)
        })
    }

    /// A cgroup was made. A path that starts anew after a removal is another cgroup with another
    /// number.
    pub(super) fn made(&mut self, number: u64, path: &str, now_ns: u64) {
        if self.table.len() >= self.max && !self.table.contains_key(&number) {
            self.expire(now_ns, true);
            if self.table.len() >= self.max {
                self.untracked += 1;
                return;
            }
        }
        self.table.insert(number, Cgroup::parse(path));
    }

    /// A cgroup was removed.
    pub(super) fn gone(&mut self, number: u64, now_ns: u64) {
        self.removed.add(number, now_ns);
        self.expire(now_ns, self.removed.len() > self.max / 2);
    }

    fn expire(&mut self, now_ns: u64, room: bool) {
        let Self { removed, table, .. } = self;
        removed.expire(now_ns, room, |number| {
            table.remove(&number);
        });
    }

    /// Reads the cgroup file systems. Cgroups that are known already keep their entry.
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
                    self.made(number, &format!("/{}", below.display()), now_ns);
                }
                if depth < MAX_DEPTH {
                    open.extend(folders(&folder).map(|f| (f, depth + 1)));
                }
            }
        }
    }
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8a4e1b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";
    const UID: &str = "0af76519-16cd-43dd-8448-eb211c80319c";

    fn parsed(path: &str) -> (Option<String>, Option<String>, Option<String>) {
        let c = Cgroup::parse(path);
        (c.container_id.map(Into::into), c.pod_uid.map(Into::into), c.unit.map(Into::into))
    }

    #[test]
    fn every_driver_and_runtime_is_understood() {
        let uid_ = UID.replace('-', "_");
        for path in [
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{uid_}.slice/crio-{ID}.scope"),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{uid_}.slice/docker-{ID}.scope"
            ),
            format!("/kubepods/besteffort/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/crio-{ID}"),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{ID}"
            ),
            format!(
                "/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{ID}.scope/system.slice/ssh.service"
            ),
        ] {
            let (container, pod, _) = parsed(&path);
            assert_eq!(container.as_deref(), Some(ID), "{path}");
            assert_eq!(pod.as_deref(), Some(UID), "{path}");
        }
    }

    #[test]
    fn static_pods_and_plain_containers() {
        let static_uid = "d2c8f0a1b2c3d4e5f60718293a4b5c6d";
        let (_, pod, _) = parsed(&format!("/kubepods.slice/kubepods-pod{static_uid}.slice"));
        assert_eq!(pod.as_deref(), Some(static_uid));
        let (container, pod, unit) = parsed(&format!("/system.slice/docker-{ID}.scope"));
        assert_eq!((container.as_deref(), pod, unit), (Some(ID), None, None));
        let (container, _, _) = parsed(&format!("/machine.slice/libpod-conmon-{ID}.scope"));
        assert_eq!(container, None);
    }

    #[test]
    fn units_are_the_nodes_own() {
        let unit = |path| parsed(path).2;
        assert_eq!(unit("/system.slice/ssh.service").as_deref(), Some("ssh.service"));
        assert_eq!(unit("/init.scope").as_deref(), Some("init.scope"));
        assert_eq!(
            unit("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service").as_deref(),
            Some("user@1000.service")
        );
        assert_eq!(unit("/user.slice"), None);
        assert_eq!(unit("/podcast/podium"), None);
    }

    #[test]
    fn removed_cgroups_keep_their_name_for_a_while() {
        let mut all = Cgroups { hierarchies: Vec::new(), ..Cgroups::new(16) };
        all.made(1, "/a.service", 0);
        all.gone(1, 0);
        assert!(all.get(1).is_some());
        all.gone(2, KEPT_NS + 1);
        assert!(all.get(1).is_none());
        for n in 0..20 {
            all.made(100 + n, "/x", 0);
        }
        assert_eq!((all.len(), all.untracked), (16, 4));
    }
}
