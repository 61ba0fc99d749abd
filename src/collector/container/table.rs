//! The known containers and their states. Events and lists report the same transitions in any order
//! and repeatedly; the table detects which of them are new, so that each is emitted once.

use std::collections::{HashMap, HashSet, VecDeque};

use super::api::containers::Container as Listed;

/// Capacity of the table, and of the set of image digests.
const MAX_ENTRIES: usize = 16_384;
/// Removed containers that are remembered.
const MAX_GONE: usize = 256;

/// A container's namespace and id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) id: String,
}

/// Names of a container and of its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Time of creation, ns since the Unix epoch. Together with the id it identifies the container.
    pub(super) created_ns: u64,
    /// Its name in its pod, or the one that its user chose.
    pub(super) name: String,
    pub(super) image: String,
    pub(super) pod_uid: String,
    pub(super) pod_name: String,
    pub(super) pod_namespace: String,
    /// It holds its pod's namespaces and runs no program of the pod.
    pub(super) sandbox: bool,
    /// Restart count within its pod.
    pub(super) restarts: Option<u32>,
}

/// Nanoseconds since the Unix epoch; 0 if there is no time or it is out of range.
pub(super) fn wall_ns(time: Option<&prost_types::Timestamp>) -> u64 {
    let ns = |t: &prost_types::Timestamp| {
        let seconds = u64::try_from(t.seconds).ok()?.checked_mul(1_000_000_000)?;
        seconds.checked_add(u64::try_from(t.nanos).ok()?)
    };
    time.and_then(ns).unwrap_or_default()
}

impl Facts {
    /// Reads the names from containerd's labels, as the kubelet, nerdctl and Docker Compose set
    /// them.
    pub(super) fn of(container: &Listed) -> Self {
        let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        let names = ["io.kubernetes.container.name", "nerdctl/name", "com.docker.compose.service"];
        Self {
            created_ns: wall_ns(container.created_at.as_ref()),
            name: names.iter().map(|k| label(k)).find(|n| !n.is_empty()).unwrap_or_default(),
            image: container.image.clone(),
            pod_uid: label("io.kubernetes.pod.uid"),
            pod_name: label("io.kubernetes.pod.name"),
            pod_namespace: label("io.kubernetes.pod.namespace"),
            sandbox: label("io.cri-containerd.kind") == "sandbox",
            restarts: None,
        }
    }
}

/// An entry of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct TrackedContainer {
    pub(super) facts: Facts,
    /// The first process, running or ended; 0 before its start.
    pub(super) pid: u32,
    pub(super) started_ns: u64,
    pub(super) exited: bool,
    /// The observation that included it last.
    last_seen: u64,
}

/// A transition in the lifecycle of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Created,
    Started {
        pid: u32,
    },
    /// `code` is `None` if the runtime didn't respond when it ended.
    Exited {
        pid: u32,
        code: Option<u32>,
    },
    OutOfMemory,
    Deleted,
}

/// The known containers and images.
#[derive(Default)]
pub(super) struct ContainerTable {
    containers: HashMap<Key, TrackedContainer>,
    digests: HashSet<String>,
    digest_order: VecDeque<String>,
    /// The latest containers that were removed.
    gone: VecDeque<Key>,
    /// Counts observations.
    observations: u64,
    /// Containers for which the table had no room.
    pub(super) untracked: u64,
}

impl ContainerTable {
    pub(super) fn len(&self) -> usize {
        self.containers.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&TrackedContainer> {
        self.containers.get(key)
    }

    /// Starts an observation; later ones have higher numbers.
    pub(super) fn next_observation(&mut self) -> u64 {
        self.observations += 1;
        self.observations
    }

    /// Inserts a container, or updates it. Returns whether it is new. One with the same key but
    /// another time of creation is another container.
    pub(super) fn insert(&mut self, key: &Key, facts: Facts) -> bool {
        let observation = self.next_observation();
        if let Some(entry) = self.containers.get_mut(key)
            && (facts.created_ns == 0 || entry.facts.created_ns == facts.created_ns)
        {
            entry.last_seen = observation;
            if facts.created_ns != 0 {
                entry.facts = Facts { restarts: facts.restarts.or(entry.facts.restarts), ..facts };
            }
            return false;
        }
        if self.containers.len() >= MAX_ENTRIES && !self.containers.contains_key(key) {
            self.untracked += 1;
            return true;
        }
        let entry =
            TrackedContainer { facts, last_seen: observation, ..TrackedContainer::default() };
        self.containers.insert(key.clone(), entry);
        self.gone.retain(|gone| gone != key);
        true
    }

    /// Records that a container's first process runs. Returns whether that is new.
    pub(super) fn started(&mut self, key: &Key, pid: u32, time_ns: u64) -> bool {
        let observation = self.next_observation();
        let Some(entry) = self.containers.get_mut(key) else {
            return true;
        };
        entry.last_seen = observation;
        if entry.pid == pid {
            return false;
        }
        (entry.pid, entry.started_ns, entry.exited) = (pid, time_ns, false);
        true
    }

    /// Records that a container's first process ended. Returns whether that is new.
    pub(super) fn exited(&mut self, key: &Key, pid: u32) -> bool {
        let observation = self.next_observation();
        let Some(entry) = self.containers.get_mut(key) else {
            return true;
        };
        entry.last_seen = observation;
        if entry.pid == pid && entry.exited {
            return false;
        }
        (entry.pid, entry.exited) = (pid, true);
        true
    }

    /// Removes a container. Returns its entry.
    pub(super) fn deleted(&mut self, key: &Key) -> Option<TrackedContainer> {
        let removed = self.containers.remove(key)?;
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(key.clone());
        Some(removed)
    }

    /// Whether a container was removed lately and isn't back: a list and the runtime's event both
    /// report its end.
    pub(super) fn is_gone(&self, key: &Key) -> bool {
        self.gone.contains(key)
    }

    /// The containers of a namespace that no observation since `observation` included: they don't
    /// exist any more.
    pub(super) fn unseen_since(&self, observation: u64, namespace: &str) -> Vec<Key> {
        let is_unseen = |(key, entry): &(&Key, &TrackedContainer)| {
            key.namespace == namespace && entry.last_seen < observation
        };
        self.containers.iter().filter(is_unseen).map(|(key, _)| key.clone()).collect()
    }

    /// The namespaces of the containers in the table.
    pub(super) fn namespaces(&self) -> HashSet<String> {
        self.containers.keys().map(|k| k.namespace.clone()).collect()
    }

    /// Records that an image with this content exists. Returns whether that is new.
    pub(super) fn image(&mut self, namespace: &str, digest: &str) -> bool {
        let key = format!("{namespace}|{digest}");
        if !self.digests.insert(key.clone()) {
            return false;
        }
        self.digest_order.push_back(key);
        if self.digest_order.len() > MAX_ENTRIES
            && let Some(oldest) = self.digest_order.pop_front()
        {
            self.digests.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key { namespace: "k8s.io".into(), id: id.into() }
    }

    fn facts(created_ns: u64) -> Facts {
        Facts { created_ns, ..Facts::default() }
    }

    #[test]
    fn each_transition_is_new_once() {
        let mut all = ContainerTable::default();
        assert!(all.insert(&key("a"), facts(1)));
        assert!(!all.insert(&key("a"), facts(1)), "the list has it as well");
        assert!(all.started(&key("a"), 10, 5));
        assert!(!all.started(&key("a"), 10, 6));
        assert!(all.exited(&key("a"), 10));
        assert!(!all.exited(&key("a"), 10));
        assert!(all.started(&key("a"), 11, 7), "a task may be created again");
        assert!(all.insert(&key("a"), facts(2)), "another container with the same key");
        assert_eq!(all.get(&key("a")).unwrap().pid, 0);
        assert!(all.image("n", "sha256:1") && !all.image("n", "sha256:1"));
    }

    #[test]
    fn container_missing_in_list_is_unseen_unless_observed_meanwhile() {
        let mut all = ContainerTable::default();
        all.insert(&key("a"), facts(1));
        all.insert(&key("b"), facts(1));
        let observation = all.next_observation();
        all.insert(&key("b"), facts(1));
        all.insert(&key("c"), facts(2));
        assert_eq!(all.unseen_since(observation, "k8s.io"), [key("a")]);
        assert!(all.unseen_since(observation, "moby").is_empty());
        assert!(all.deleted(&key("a")).is_some() && all.deleted(&key("a")).is_none());
        assert!(all.is_gone(&key("a")) && !all.is_gone(&key("never")));
    }

    #[test]
    fn names_are_read_from_kubelet_labels() {
        let labels = [
            ("io.kubernetes.pod.uid", "u1"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.container.name", "app"),
            ("io.cri-containerd.kind", "container"),
        ];
        let listed = Listed {
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            created_at: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            ..Listed::default()
        };
        let facts = Facts::of(&listed);
        assert_eq!((facts.name.as_str(), facts.pod_name.as_str()), ("app", "web-0"));
        assert_eq!((facts.created_ns, facts.sandbox), (2_000_000_005, false));
        assert_eq!(wall_ns(Some(&prost_types::Timestamp { seconds: -1, nanos: 0 })), 0);
        assert_eq!(wall_ns(Some(&prost_types::Timestamp { seconds: i64::MAX, nanos: -3 })), 0);
    }
}
