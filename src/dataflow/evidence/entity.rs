//! Things that events are about, and which of them an event names.

use std::fmt;

use crate::rules::field::value_text;
use tapio_core::event::{ArchivedEvent, Name, Value, names};

/// What sort of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntityKind {
    /// A machine, by host name.
    Node,
    /// A systemd unit, as `host/unit`.
    Unit,
    /// A process, as `host/exec-id`, or `host/pid` where no exec id is known.
    Process,
    /// A cgroup that is neither a unit's nor a pod's, as `host/cgroup id`.
    Cgroup,
    /// A container, by id.
    Container,
    /// A pod, by uid.
    Pod,
    /// What owns pods, as `namespace/kind/name`.
    Workload,
    /// A service, as `namespace/name`, or by name alone outside of a cluster.
    Service,
    /// A volume or a claim, as `namespace/name`.
    Volume,
    /// Where somebody listens, as `address:port`; on loopback `host/address:port`.
    Endpoint,
    /// An IP address.
    Address,
}

impl EntityKind {
    /// All of them, with the words used in output and in `entity.relation` events.
    pub const WORDS: [(Self, &'static str); 11] = [
        (Self::Node, "node"),
        (Self::Unit, "unit"),
        (Self::Process, "process"),
        (Self::Cgroup, "cgroup"),
        (Self::Container, "container"),
        (Self::Pod, "pod"),
        (Self::Workload, "workload"),
        (Self::Service, "service"),
        (Self::Volume, "volume"),
        (Self::Endpoint, "endpoint"),
        (Self::Address, "address"),
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    /// From its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, w)| *w == word).map(|(kind, _)| *kind)
    }
}

/// One thing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// What sort of thing.
    pub kind: EntityKind,
    /// Its name, unique among its kind.
    pub name: Box<str>,
}

impl Entity {
    /// An entity.
    #[must_use]
    pub fn new(kind: EntityKind, name: &str) -> Self {
        Self { kind, name: name.into() }
    }

    /// What is unique on one host only, without the host.
    fn local_name(&self) -> &str {
        self.name.split_once('/').map_or(&*self.name, |(_, name)| name)
    }

    /// For people, where they call it something: a process's name alone is many processes'.
    pub(super) fn called(&self, label: &str) -> String {
        match self.kind {
            EntityKind::Process => format!("process {label} (pid {})", pid(self.local_name())),
            kind => format!("{} {label}", kind.word()),
        }
    }
}

/// A process's number: an exec id begins with it.
fn pid(id: &str) -> &str {
    match id.split_once(':') {
        Some((pid, _)) if pid.bytes().all(|b| b.is_ascii_digit()) => pid,
        _ => id,
    }
}

impl fmt::Display for Entity {
    /// For people: without the host in front, which a story's key already names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            EntityKind::Unit | EntityKind::Cgroup => self.local_name(),
            EntityKind::Process => pid(self.local_name()),
            EntityKind::Workload => {
                // The sort of workload says more than the word.
                let (rest, name) = self.name.rsplit_once('/').unwrap_or(("", &self.name));
                let (namespace, sort) = rest.rsplit_once('/').map_or(("", rest), |(n, s)| (n, s));
                let slash = if namespace.is_empty() { "" } else { "/" };
                return write!(f, "{sort} {namespace}{slash}{name}");
            }
            _ => &*self.name,
        };
        write!(f, "{} {name}", self.kind.word())
    }
}

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

/// The entities an event names, found in one pass over its entity keys.
#[derive(Default)]
pub(super) struct Named<'a> {
    pub(super) host: Option<&'a str>,
    pub(super) pod: Option<&'a str>,
    pub(super) pod_name: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) deployment: Option<&'a str>,
    pub(super) service: Option<&'a str>,
    pub(super) unit: Option<&'a str>,
    pub(super) container: Option<&'a str>,
    pub(super) exec_id: Option<&'a str>,
    pub(super) address: Option<&'a str>,
    pub(super) pid: Option<Value<'a>>,
    pub(super) cgroup: Option<Value<'a>>,
}

impl<'a> Named<'a> {
    pub(super) fn of(event: &'a ArchivedEvent<'_>) -> Self {
        let mut named = Self::default();
        for field in event.entity_fields() {
            let value = field.value.get();
            let text = match value {
                Value::Str(text) if !text.is_empty() => Some(text),
                _ => None,
            };
            match field.name() {
                names::HOST_NAME => named.host = text,
                names::K8S_NODE_NAME => named.host = named.host.or(text),
                names::K8S_POD_UID => named.pod = text,
                names::K8S_POD_NAME => named.pod_name = text,
                names::K8S_NAMESPACE_NAME => named.namespace = text,
                names::K8S_DEPLOYMENT_NAME => named.deployment = text,
                names::SERVICE_NAME => named.service = text,
                names::SYSTEMD_UNIT => named.unit = text,
                names::CONTAINER_ID => named.container = text,
                names::TAPIO_PROCESS_EXEC_ID => named.exec_id = text,
                names::HOST_IP => named.address = text,
                names::PROCESS_PID if value != Value::Null => named.pid = Some(value),
                names::CGROUP_ID if value != Value::Null => named.cgroup = Some(value),
                _ => {}
            }
        }
        named
    }

    /// A name that is unique on this host only.
    pub(super) fn on_host(&self, kind: EntityKind, name: &str) -> Entity {
        Entity::new(kind, &format!("{}/{name}", self.host.unwrap_or("")))
    }

    /// A name that is unique in its namespace only.
    pub(super) fn in_namespace(&self, kind: EntityKind, name: &str) -> Entity {
        match self.namespace {
            Some(namespace) => Entity::new(kind, &format!("{namespace}/{name}")),
            None => Entity::new(kind, name),
        }
    }

    /// What [`Named::subject`] is, as a number: nothing is allocated for it.
    pub(super) fn subject_hash(&self, hasher: &ahash::RandomState) -> Option<u64> {
        let hash = |kind: EntityKind, scope: Option<&str>, name: &str| {
            Some(hasher.hash_one((kind, scope, name)))
        };
        let number = |kind, value: Value<'_>| match value {
            Value::Int(n) => Some(hasher.hash_one((kind, self.host, n))),
            other => hash(kind, self.host, &value_text(other)),
        };
        if let Some(uid) = self.pod {
            return hash(EntityKind::Pod, None, uid);
        }
        if let Some(unit) = self.unit {
            return hash(EntityKind::Unit, self.host, unit);
        }
        if let Some(id) = self.container {
            return hash(EntityKind::Container, None, id);
        }
        if let Some(name) = self.service {
            return hash(EntityKind::Service, self.namespace, name);
        }
        if let Some(id) = self.cgroup {
            return number(EntityKind::Cgroup, id);
        }
        match (self.exec_id, self.pid) {
            (Some(id), _) => hash(EntityKind::Process, self.host, id),
            (None, Some(pid)) => number(EntityKind::Process, pid),
            (None, None) => self.host.and_then(|h| hash(EntityKind::Node, None, h)),
        }
    }

    pub(super) fn process(&self) -> Option<Entity> {
        match (self.exec_id, self.pid) {
            (Some(id), _) => Some(self.on_host(EntityKind::Process, id)),
            (None, Some(pid)) => Some(self.on_host(EntityKind::Process, &value_text(pid))),
            (None, None) => None,
        }
    }

    /// What the event is about: the most lasting thing it names, since a process that crashes comes
    /// back as another one, but its pod, unit or container is the same.
    pub(super) fn subject(&self) -> Option<Entity> {
        if let Some(uid) = self.pod {
            return Some(Entity::new(EntityKind::Pod, uid));
        }
        if let Some(unit) = self.unit {
            return Some(self.on_host(EntityKind::Unit, unit));
        }
        if let Some(id) = self.container {
            return Some(Entity::new(EntityKind::Container, id));
        }
        if let Some(name) = self.service {
            return Some(self.in_namespace(EntityKind::Service, name));
        }
        if let Some(id) = self.cgroup {
            return Some(self.on_host(EntityKind::Cgroup, &value_text(id)));
        }
        self.process().or_else(|| self.host.map(|h| Entity::new(EntityKind::Node, h)))
    }
}

/// What an event is about; `None` where it names nothing.
pub(crate) fn subject(event: &ArchivedEvent<'_>) -> Option<Entity> {
    Named::of(event).subject()
}

/// An address with its port. Loopback is another place on each host.
pub(super) fn endpoint(host: Option<&str>, address: &str, port: &str) -> Entity {
    let loopback = address.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
    let text = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    match host.filter(|_| loopback) {
        Some(host) => Entity::new(EntityKind::Endpoint, &format!("{host}/{text}")),
        None => Entity::new(EntityKind::Endpoint, &text),
    }
}

/// A kind's place in a dense table.
pub(super) fn place(kind: Name) -> usize {
    usize::from(kind.0) % Name::CAPACITY
}
