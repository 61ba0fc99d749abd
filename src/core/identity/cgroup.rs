//! Container, pod and unit from the path of a cgroup: the layouts of the kubelet's two cgroup
//! drivers, of containerd, CRI-O, Docker and Podman, and of systemd.

use std::fs;
use std::path::{Path, PathBuf};

/// Identifiers in the path of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupNames {
    /// The path below the root of the hierarchy.
    pub path: Box<str>,
    /// The container on this node.
    pub container_id: Option<Box<str>>,
    /// The pod's uid.
    pub pod_uid: Option<Box<str>>,
    /// The unit of the node's own systemd.
    pub unit: Option<Box<str>>,
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The container id in a path segment: 64 hex digits, alone (cgroupfs driver), between a runtime's
/// name and `.scope` (systemd driver), or after a colon (containerd with a slice). The monitors of
/// CRI-O and Podman are beside their containers and aren't containers.
fn container_in(segment: &str) -> Option<&str> {
    if segment.contains("conmon") {
        return None;
    }
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = bare.rsplit(['-', ':']).next()?;
    is_hex(id, 64).then_some(id)
}

/// The pod uid in a path segment: `pod<uid>` (cgroupfs driver) or `…-pod<uid>.slice` with
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

/// Whether this segment is a systemd unit that contains processes.
fn is_unit(segment: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|suffix| segment.ends_with(suffix))
}

impl CgroupNames {
    /// Parses a path. Fields without an identifier in the path stay empty.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        let mut names = Self { path: path.into(), ..Self::default() };
        for segment in path.split('/').filter(|s| !s.is_empty()) {
            if let Some(uid) = pod_in(segment) {
                names.pod_uid = Some(uid.into());
            }
            if let Some(id) = container_in(segment) {
                // In nested containers, the outer one is the node's.
                names.container_id.get_or_insert_with(|| id.into());
            } else if is_unit(segment) && names.unit.is_none() && names.container_id.is_none() {
                // Units inside a container or a user session aren't the node's.
                names.unit = Some(segment.into());
            }
        }
        names
    }
}

/// The direct children of a cgroup: every folder of a cgroup file system is one. Empty if the
/// cgroup doesn't exist any more.
pub fn cgroups_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
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
        let c = CgroupNames::parse(path);
        (c.container_id.map(Into::into), c.pod_uid.map(Into::into), c.unit.map(Into::into))
    }

    #[test]
    fn paths_of_all_drivers_and_runtimes_are_parsed() {
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
    fn static_pods_and_containers_without_pod_are_parsed() {
        let static_uid = "d2c8f0a1b2c3d4e5f60718293a4b5c6d";
        let (_, pod, _) = parsed(&format!("/kubepods.slice/kubepods-pod{static_uid}.slice"));
        assert_eq!(pod.as_deref(), Some(static_uid));
        let (container, pod, unit) = parsed(&format!("/system.slice/docker-{ID}.scope"));
        assert_eq!((container.as_deref(), pod, unit), (Some(ID), None, None));
        let (container, _, _) = parsed(&format!("/machine.slice/libpod-conmon-{ID}.scope"));
        assert_eq!(container, None);
    }

    #[test]
    fn only_units_of_the_node_are_returned() {
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
}
