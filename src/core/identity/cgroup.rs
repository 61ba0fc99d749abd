//! Container, pod and unit from the path of a cgroup: the layouts of the kubelet's two cgroup
//! drivers, of containerd, CRI-O, Docker and Podman, and of systemd.

use std::fs;
use std::path::{Path, PathBuf};

/// A container in the path of a cgroup, with the pod that the same runtime put it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// The container's id; `None` for a pod's own cgroup.
    pub container_id: Option<Box<str>>,
    /// The pod's uid.
    pub pod_uid: Option<Box<str>>,
}

/// Identifiers in the path of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupNames {
    /// The path below the root of the hierarchy.
    pub path: Box<str>,
    /// The outermost container.
    pub container_id: Option<Box<str>>,
    /// The uid of its pod.
    pub pod_uid: Option<Box<str>>,
    /// The unit of the node's own systemd.
    pub unit: Option<Box<str>>,
    /// Containers and pods inside that container, from outside to inside: a node that is a
    /// container (kind, k3d) has a runtime of its own.
    pub inner: Box<[ContainerNames]>,
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

/// The containers and pods that the segments of a path name, from outside to inside. A pod and a
/// container belong together only if no other container is between them.
fn levels(path: &str) -> Vec<ContainerNames> {
    let mut levels = Vec::new();
    let mut pod_uid = None;
    for segment in path.split('/') {
        if let Some(uid) = pod_in(segment) {
            pod_uid = Some(uid.into());
        }
        if let Some(id) = container_in(segment) {
            levels.push(ContainerNames { container_id: Some(id.into()), pod_uid: pod_uid.take() });
        }
    }
    if pod_uid.is_some() {
        levels.push(ContainerNames { container_id: None, pod_uid });
    }
    levels
}

impl CgroupNames {
    /// Parses a path. Fields without an identifier in the path stay empty.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        Self::parse_below("", path)
    }

    /// Parses a path on a node whose own cgroup is `base` (see [`node_base`]): what `base` names
    /// contains the node, and is no part of it. Paths that aren't below it are parsed whole.
    #[must_use]
    pub fn parse_below(base: &str, path: &str) -> Self {
        let below = path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let below = below.unwrap_or(path);
        let mut levels = levels(below).into_iter();
        let first = levels.next().unwrap_or_default();
        // Units inside a container or a user session aren't the node's.
        let outside = below.split('/').take_while(|segment| container_in(segment).is_none());
        let unit = outside.into_iter().find(|segment| is_unit(segment)).map(Into::into);
        Self {
            path: path.into(),
            container_id: first.container_id,
            pod_uid: first.pod_uid,
            unit,
            inner: levels.collect(),
        }
    }
}

/// The cgroup that contains this node, if the node itself is a container whose processes see the
/// paths of its host: the part of the agent's own path, `own`, that isn't the node's. Empty on any
/// other node.
///
/// A unit of the node's systemd inside a container, or a container inside another one, shows where
/// the node begins. An agent that is alone in a container is one of its node's containers.
#[must_use]
pub fn node_base(own: &str) -> &str {
    // Where each container's segment ends.
    let mut ends = Vec::new();
    let mut at = 0;
    for segment in own.split('/') {
        at += segment.len();
        if container_in(segment).is_some() {
            ends.push(at);
        }
        at += 1;
    }
    let Some(last) = ends.pop() else { return "" };
    let has_unit = own[last..].split('/').any(is_unit);
    let end = if has_unit { last } else { ends.pop().unwrap_or_default() };
    &own[..end]
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

    #[test]
    fn levels_of_nested_containers_are_not_mixed() {
        let (outer, inner) = ("3".repeat(64), "a".repeat(64));
        let pod = format!("kubelet-kubepods-pod{}.slice", UID.replace('-', "_"));
        let path = format!("/docker/{outer}/kubelet.slice/{pod}/cri-containerd-{inner}.scope");
        let names = CgroupNames::parse(&path);
        assert_eq!(names.container_id.as_deref(), Some(&*outer));
        assert_eq!(names.pod_uid, None, "the pod is inside");
        let level = |id: Option<&str>| ContainerNames {
            container_id: id.map(Into::into),
            pod_uid: Some(UID.into()),
        };
        assert_eq!(*names.inner, [level(Some(&inner))]);
        let of_pod = CgroupNames::parse(&format!("/docker/{outer}/kubelet.slice/{pod}"));
        assert_eq!((of_pod.pod_uid, &*of_pod.inner), (None, &[level(None)][..]));
        // The same on the node that the outer container is.
        let names = CgroupNames::parse_below(&format!("/docker/{outer}"), &path);
        assert_eq!(names.container_id.as_deref(), Some(&*inner));
        assert_eq!((names.pod_uid.as_deref(), &*names.inner), (Some(UID), &[][..]));
        let unit = format!("/docker/{outer}/system.slice/kubelet.service");
        assert_eq!(CgroupNames::parse(&unit).unit, None);
        let names = CgroupNames::parse_below(&format!("/docker/{outer}"), &unit);
        assert_eq!((names.unit.as_deref(), &*names.path), (Some("kubelet.service"), &*unit));
        // A cgroup beside the node isn't in it.
        let beside = CgroupNames::parse_below(&format!("/docker/{outer}"), "/docker/x.service");
        assert_eq!(beside.unit.as_deref(), Some("x.service"));
    }

    #[test]
    fn node_inside_a_container_begins_below_it() {
        let (outer, inner) = ("3".repeat(64), "a".repeat(64));
        for (own, base) in [
            ("/".to_owned(), String::new()),
            ("/system.slice/tapio.service".into(), String::new()),
            (format!("/docker/{outer}"), String::new()),
            (format!("/docker/{outer}/kubepods/pod{UID}/{inner}"), format!("/docker/{outer}")),
            (format!("/docker/{outer}/system.slice/tapio.service"), format!("/docker/{outer}")),
            (
                format!("/system.slice/docker-{outer}.scope/system.slice/tapio.service"),
                format!("/system.slice/docker-{outer}.scope"),
            ),
        ] {
            assert_eq!(node_base(&own), base, "{own}");
        }
    }
}
