//! Entities, and those that an event names.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use crate::rules::field::value_text;
use tapio_core::event::{ArchivedEvent, CauseEntity, Name, Value, names};

tapio_core::closed_list! {
    /// Kind of an entity.
    pub EntityKind {
        /// A node, by host name.
        Node = "node",
        /// A systemd unit, as `host/unit`.
        Unit = "unit",
        /// A process, as `host/exec-id`, or `host/pid` where no exec id is known.
        Process = "process",
        /// A cgroup of no unit or pod, as `host/cgroup id`.
        Cgroup = "cgroup",
        /// A container, by id.
        Container = "container",
        /// A pod, by uid.
        Pod = "pod",
        /// An owner of pods, as `namespace/kind/name`.
        Workload = "workload",
        /// A service, as `namespace/name`, or by name alone outside a cluster.
        Service = "service",
        /// A volume or a claim, as `namespace/name`.
        Volume = "volume",
        /// A listening endpoint, as `address:port`; on loopback `host/address:port`.
        Endpoint = "endpoint",
        /// An IP address.
        Address = "address",
        /// A disk, as `host/name`.
        Device = "device",
    }
}

/// An entity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// Its kind.
    pub kind: EntityKind,
    /// Its name, unique among entities of its kind.
    pub name: Box<str>,
}

impl Entity {
    /// An entity.
    #[must_use]
    pub fn new(kind: EntityKind, name: &str) -> Self {
        Self { kind, name: name.into() }
    }

    /// The name without the host, for kinds whose names are unique on one host only.
    fn local_name(&self) -> &str {
        self.name.split_once('/').map_or(&*self.name, |(_, name)| name)
    }

    /// Describes the entity by its label. Many processes share a program's name, so a process has
    /// its pid too.
    pub(super) fn describe_as(&self, label: &str) -> String {
        match self.kind {
            EntityKind::Process => format!("process {label} (pid {})", pid(self.local_name())),
            kind => format!("{} {label}", kind.as_str()),
        }
    }

    /// The entity as the impact names it: by its label if it has one.
    pub(super) fn affected(&self, label: Option<&str>) -> AffectedEntity {
        let name = label.map_or_else(|| self.display_name(), Cow::Borrowed);
        AffectedEntity { kind: self.kind, name: name.into_owned() }
    }

    /// The entity in fields, by its label if it has one.
    pub(super) fn cause(&self, label: Option<&str>) -> CauseEntity {
        let is_local = match self.kind {
            EntityKind::Unit | EntityKind::Process | EntityKind::Cgroup | EntityKind::Device => {
                true
            }
            _ => self.is_loopback_endpoint(),
        };
        let node = self.name.split_once('/').map_or("", |(node, _)| node);
        let id = match self.kind {
            EntityKind::Process => pid(self.local_name()),
            _ if is_local => self.local_name(),
            _ => &*self.name,
        };
        let name = label.map_or_else(|| self.display_name(), Cow::Borrowed).into_owned();
        CauseEntity {
            kind: self.kind.as_str().into(),
            id: if id == name { String::new() } else { id.into() },
            name,
            node: if is_local { node.into() } else { String::new() },
        }
    }

    /// Whether it is an endpoint on loopback, which other hosts can't reach. See [`endpoint`].
    pub(super) fn is_loopback_endpoint(&self) -> bool {
        self.kind == EntityKind::Endpoint && self.name.contains('/')
    }

    /// The name in output: without the host, which a story's key already has.
    fn display_name(&self) -> Cow<'_, str> {
        match self.kind {
            EntityKind::Unit | EntityKind::Cgroup | EntityKind::Device => self.local_name().into(),
            EntityKind::Process => pid(self.local_name()).into(),
            EntityKind::Workload => {
                let (rest, name) = self.name.rsplit_once('/').unwrap_or(("", &self.name));
                let (namespace, sort) = rest.rsplit_once('/').map_or(("", rest), |(n, s)| (n, s));
                let slash = if namespace.is_empty() { "" } else { "/" };
                format!("{sort} {namespace}{slash}{name}").into()
            }
            _ => (&*self.name).into(),
        }
    }
}

/// The number of a process: an exec id begins with it.
fn pid(id: &str) -> &str {
    match id.split_once(':') {
        Some((pid, _)) if pid.bytes().all(|b| b.is_ascii_digit()) => pid,
        _ => id,
    }
}

/// Writes kind and name. A workload's name begins with its sort (deployment, job …), which is more
/// specific than the kind.
fn write_described(f: &mut fmt::Formatter<'_>, kind: EntityKind, name: &str) -> fmt::Result {
    match kind {
        EntityKind::Workload => f.write_str(name),
        kind => write!(f, "{} {name}", kind.as_str()),
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_described(f, self.kind, &self.display_name())
    }
}

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// An entity that a story affects, by its kind and its name in output. Its order is that of its
/// text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AffectedEntity {
    pub(crate) kind: EntityKind,
    pub(crate) name: String,
}

impl AffectedEntity {
    pub(crate) fn new(kind: EntityKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl Ord for AffectedEntity {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.kind.as_str(), &self.name).cmp(&(other.kind.as_str(), &other.name))
    }
}

impl PartialOrd for AffectedEntity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for AffectedEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_described(f, self.kind, &self.name)
    }
}

/// The entities that an event names, extracted in one pass over its entity keys.
#[derive(Default)]
pub(super) struct EventEntities<'a> {
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

impl<'a> EventEntities<'a> {
    pub(super) fn of(event: &'a ArchivedEvent<'_>) -> Self {
        let mut found = Self::default();
        for field in event.entity_fields() {
            let value = field.value.get();
            let text = match value {
                Value::Str(text) if !text.is_empty() => Some(text),
                _ => None,
            };
            match field.name() {
                names::HOST_NAME => found.host = text,
                names::K8S_NODE_NAME => found.host = found.host.or(text),
                names::K8S_POD_UID => found.pod = text,
                names::K8S_POD_NAME => found.pod_name = text,
                names::K8S_NAMESPACE_NAME => found.namespace = text,
                names::K8S_DEPLOYMENT_NAME => found.deployment = text,
                names::SERVICE_NAME => found.service = text,
                names::SYSTEMD_UNIT => found.unit = text,
                names::CONTAINER_ID => found.container = text,
                names::TAPIO_PROCESS_EXEC_ID => found.exec_id = text,
                names::HOST_IP => found.address = text,
                names::PROCESS_PID if value != Value::Null => found.pid = Some(value),
                names::CGROUP_ID if value != Value::Null => found.cgroup = Some(value),
                _ => {}
            }
        }
        found
    }

    /// An entity whose name is unique on this host only.
    pub(super) fn on_host(&self, kind: EntityKind, name: &str) -> Entity {
        Entity::new(kind, &format!("{}/{name}", self.host.unwrap_or("")))
    }

    /// An entity whose name is unique in its namespace only.
    pub(super) fn in_namespace(&self, kind: EntityKind, name: &str) -> Entity {
        match self.namespace {
            Some(namespace) => Entity::new(kind, &format!("{namespace}/{name}")),
            None => Entity::new(kind, name),
        }
    }

    /// Hash of [`EventEntities::subject`], without an allocation.
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

    /// The process.
    pub(super) fn process(&self) -> Option<Entity> {
        match (self.exec_id, self.pid) {
            (Some(id), _) => Some(self.on_host(EntityKind::Process, id)),
            (None, Some(pid)) => Some(self.on_host(EntityKind::Process, &value_text(pid))),
            (None, None) => None,
        }
    }

    /// The event's entity: the most durable one that it names. A process that crashes restarts as
    /// another process, but its pod, unit or container stays the same.
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

/// The event's entity; `None` if it names none.
pub(crate) fn subject(event: &ArchivedEvent<'_>) -> Option<Entity> {
    EventEntities::of(event).subject()
}

/// An endpoint from address and port. Loopback is a different endpoint on each host, so there the
/// name begins with the host.
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

/// Index of a kind in a dense table.
pub(super) fn kind_index(kind: Name) -> usize {
    usize::from(kind.0) % Name::CAPACITY
}
