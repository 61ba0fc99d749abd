//! What is known of containers, and what of an observation is news. Events and lists say the same things in any order
//! and more than once; everything is told once.

use std::collections::{HashMap, HashSet, VecDeque};

use super::api::containers::Container as Listed;

/// The most containers that are known, and image digests.
const MAX_KNOWN: usize = 16_384;

/// A container's namespace and id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) id: String,
}

/// What a container is called, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// When it was created, nanoseconds since the Unix epoch: with the id, what identifies it for ever.
    pub(super) created_ns: u64,
    /// Its name in its pod, or the one its user gave it.
    pub(super) name: String,
    pub(super) image: String,
    pub(super) pod_uid: String,
    pub(super) pod_name: String,
    pub(super) pod_namespace: String,
    /// It holds its pod's namespaces and runs nothing.
    pub(super) sandbox: bool,
    /// How often it was restarted in its pod.
    pub(super) restarts: Option<u32>,
}

/// Nanoseconds since the Unix epoch; 0 where there is no time.
pub(super) fn wall_ns(time: Option<&prost_types::Timestamp>) -> u64 {
    let ns = |t: &prost_types::Timestamp| {
        let seconds = u64::try_from(t.seconds).ok()?.checked_mul(1_000_000_000)?;
        seconds.checked_add(u64::try_from(t.nanos).ok()?)
    };
    time.and_then(ns).unwrap_or_default()
}

impl Facts {
    /// Reads what containerd keeps: the labels of the kubelet's containers, and of those of nerdctl and Docker's compose.
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

/// How far a container is.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) facts: Facts,
    /// The process that runs or ran; 0 before.
    pub(super) pid: u32,
    pub(super) started_ns: u64,
    pub(super) exited: bool,
    /// When it was seen last, by a counter of lists and events.
    seen: u64,
}

/// Something that happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Created,
    Started {
        pid: u32,
    },
    /// `code` is `None` where nobody was there to ask when it ended.
    Exited {
        pid: u32,
        code: Option<u32>,
    },
    OutOfMemory,
    Deleted,
}

/// What is known.
#[derive(Default)]
pub(super) struct Observed {
    containers: HashMap<Key, Known>,
    digests: HashSet<String>,
    digest_order: VecDeque<String>,
    counter: u64,
    /// Containers that found no room.
    pub(super) untracked: u64,
}

impl Observed {
    pub(super) fn len(&self) -> usize {
        self.containers.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Known> {
        self.containers.get(key)
    }

    /// A mark: what is seen from here on is newer.
    pub(super) fn mark(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A container is there. Returns whether that is new: one of the same name that was created at another time is
    /// another one.
    pub(super) fn exists(&mut self, key: &Key, facts: Facts) -> bool {
        let seen = self.mark();
        if let Some(known) = self.containers.get_mut(key)
            && (facts.created_ns == 0 || known.facts.created_ns == facts.created_ns)
        {
            known.seen = seen;
            if facts.created_ns != 0 {
                known.facts = Facts { restarts: facts.restarts.or(known.facts.restarts), ..facts };
            }
            return false;
        }
        if self.containers.len() >= MAX_KNOWN && !self.containers.contains_key(key) {
            self.untracked += 1;
            return true;
        }
        self.containers.insert(key.clone(), Known { facts, seen, ..Known::default() });
        true
    }

    /// Its first process runs. Returns whether that is new.
    pub(super) fn started(&mut self, key: &Key, pid: u32, time_ns: u64) -> bool {
        let seen = self.mark();
        let Some(known) = self.containers.get_mut(key) else {
            return true;
        };
        known.seen = seen;
        if known.pid == pid {
            return false;
        }
        (known.pid, known.started_ns, known.exited) = (pid, time_ns, false);
        true
    }

    /// Its first process ended. Returns whether that is new.
    pub(super) fn exited(&mut self, key: &Key, pid: u32) -> bool {
        let seen = self.mark();
        let Some(known) = self.containers.get_mut(key) else {
            return true;
        };
        known.seen = seen;
        if known.pid == pid && known.exited {
            return false;
        }
        (known.pid, known.exited) = (pid, true);
        true
    }

    /// It was removed. Gives what was known of it.
    pub(super) fn deleted(&mut self, key: &Key) -> Option<Known> {
        self.containers.remove(key)
    }

    /// Containers of a namespace that weren't seen since a mark: they are gone.
    pub(super) fn unseen_since(&self, mark: u64, namespace: &str) -> Vec<Key> {
        let gone = |(key, known): &(&Key, &Known)| key.namespace == namespace && known.seen < mark;
        self.containers.iter().filter(gone).map(|(key, _)| key.clone()).collect()
    }

    /// The namespaces that have known containers.
    pub(super) fn namespaces(&self) -> HashSet<String> {
        self.containers.keys().map(|k| k.namespace.clone()).collect()
    }

    /// An image with this content is there. Returns whether that is new.
    pub(super) fn image(&mut self, namespace: &str, digest: &str) -> bool {
        let key = format!("{namespace}|{digest}");
        if !self.digests.insert(key.clone()) {
            return false;
        }
        self.digest_order.push_back(key);
        if self.digest_order.len() > MAX_KNOWN
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
    fn everything_is_new_once_whoever_says_it_first() {
        let mut all = Observed::default();
        assert!(all.exists(&key("a"), facts(1)));
        assert!(!all.exists(&key("a"), facts(1)), "the list says so, too");
        assert!(all.started(&key("a"), 10, 5));
        assert!(!all.started(&key("a"), 10, 6));
        assert!(all.exited(&key("a"), 10));
        assert!(!all.exited(&key("a"), 10));
        assert!(all.started(&key("a"), 11, 7), "a task may be made anew");
        assert!(all.exists(&key("a"), facts(2)), "the name is used again");
        assert_eq!(all.get(&key("a")).unwrap().pid, 0);
        assert!(all.image("n", "sha256:1") && !all.image("n", "sha256:1"));
    }

    #[test]
    fn what_a_list_lacks_is_gone_unless_it_came_meanwhile() {
        let mut all = Observed::default();
        all.exists(&key("a"), facts(1));
        all.exists(&key("b"), facts(1));
        let mark = all.mark();
        all.exists(&key("b"), facts(1));
        all.exists(&key("c"), facts(2));
        assert_eq!(all.unseen_since(mark, "k8s.io"), [key("a")]);
        assert!(all.unseen_since(mark, "moby").is_empty());
        assert!(all.deleted(&key("a")).is_some() && all.deleted(&key("a")).is_none());
    }

    #[test]
    fn labels_name_a_pods_container() {
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
