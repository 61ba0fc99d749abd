//! A shard's part: facts from the kernel's TCP events, and what joins them with spans.
//!
//! The program at an end of a connection has its pod, container or unit and its process; a span's
//! service has what its SDK's resource contains, or the agent added. Both ends have the same
//! addresses and ports. An address on loopback is one of its pod's, its container's or its host's:
//! nothing distinguishes two network namespaces of a host outside of these.

use super::fact::{
    ConnectionChange, ConnectionFact, InstanceKind, InstanceNames, Key, ListenerFact, Party,
    ServiceFact,
};
use super::observer::ServiceObserver;
use tapio_core::event::{ArchivedEvent, Name, Value, names};

/// The first port that Linux gives to the ends that open connections (`ip_local_port_range`). Where
/// one is listened at, it differs from run to run.
const FIRST_DYNAMIC_PORT: i64 = 32_768;
/// Digits of a container's id by which it is known: as its host name has.
const CONTAINER_DIGITS: usize = 12;
/// Names of programs that others are run by: a process has its script's name.
const INTERPRETERS: [&str; 7] = ["bash", "dash", "perl", "php", "python", "ruby", "sh"];
/// The time after which a listener is sent again.
const LISTENER_INTERVAL_NS: u64 = 60_000_000_000;

/// Distinguishes keys of different things.
#[derive(Hash)]
enum Of {
    Container,
    PodUid,
    PodName,
    Process,
    Unit,
    Program,
    Endpoint,
    Address,
    Service,
    Socket,
}

/// The fields of a TCP event, in one pass.
#[derive(Default)]
struct Fields<'a> {
    host: &'a str,
    pod_uid: &'a str,
    pod: &'a str,
    namespace: &'a str,
    container: &'a str,
    container_name: &'a str,
    unit: &'a str,
    pid: i64,
    program: &'a str,
    path: &'a str,
    local: (&'a str, i64),
    peer: (&'a str, i64),
    state: &'a str,
    error: &'a str,
    direction: &'a str,
    is_incoming: Option<bool>,
    duration_ns: u64,
    peer_pod_uid: &'a str,
    peer_pod: &'a str,
    peer_namespace: &'a str,
    peer_service: &'a str,
    peer_unit: &'a str,
}

impl<'a> Fields<'a> {
    fn of(event: &'a ArchivedEvent<'_>) -> Self {
        let mut found = Self::default();
        for field in event.entity_fields().iter().chain(event.attribute_fields()) {
            match field.value.get() {
                Value::Str(text) => found.text(field.name(), text),
                Value::Int(number) => found.number(field.name(), number),
                Value::Bool(is_true) if field.name() == names::TAPIO_TCP_INCOMING => {
                    found.is_incoming = Some(is_true);
                }
                _ => {}
            }
        }
        found
    }

    fn text(&mut self, name: Name, text: &'a str) {
        let place = match name {
            names::HOST_NAME => &mut self.host,
            names::K8S_POD_UID => &mut self.pod_uid,
            names::K8S_POD_NAME => &mut self.pod,
            names::K8S_NAMESPACE_NAME => &mut self.namespace,
            names::CONTAINER_ID => &mut self.container,
            names::K8S_CONTAINER_NAME | names::CONTAINER_NAME => &mut self.container_name,
            names::SYSTEMD_UNIT => &mut self.unit,
            names::PROCESS_EXECUTABLE_NAME => &mut self.program,
            names::PROCESS_EXECUTABLE_PATH => &mut self.path,
            names::NETWORK_LOCAL_ADDRESS => &mut self.local.0,
            names::NETWORK_PEER_ADDRESS => &mut self.peer.0,
            names::TAPIO_TCP_STATE => &mut self.state,
            names::ERROR_TYPE => &mut self.error,
            names::NETWORK_IO_DIRECTION => &mut self.direction,
            names::TAPIO_PEER_POD_UID => &mut self.peer_pod_uid,
            names::TAPIO_PEER_POD_NAME => &mut self.peer_pod,
            names::TAPIO_PEER_NAMESPACE_NAME => &mut self.peer_namespace,
            names::TAPIO_PEER_SERVICE_NAME => &mut self.peer_service,
            names::TAPIO_PEER_SYSTEMD_UNIT => &mut self.peer_unit,
            _ => return,
        };
        *place = text;
    }

    fn number(&mut self, name: Name, number: i64) {
        match name {
            names::PROCESS_PID => self.pid = number,
            names::NETWORK_LOCAL_PORT => self.local.1 = number,
            names::NETWORK_PEER_PORT => self.peer.1 = number,
            names::TAPIO_TCP_DURATION_NS => self.duration_ns = number.unsigned_abs(),
            _ => {}
        }
    }

    /// The change of its connection that the event reports; `None` where it isn't known which end
    /// that is, or the other end reports it, too.
    fn change(&self, kind: Name) -> Option<ConnectionChange> {
        let is_attempt = self.state == "SYN_SENT";
        Some(match kind {
            names::KERNEL_TCP_CONNECT => ConnectionChange::Opened,
            names::KERNEL_TCP_REFUSED => ConnectionChange::Refused,
            names::KERNEL_TCP_TIMEOUT if is_attempt => ConnectionChange::TimedOut,
            names::KERNEL_TCP_TIMEOUT => ConnectionChange::Lost,
            names::KERNEL_TCP_CLOSE if self.error == "connect_abandoned" => {
                ConnectionChange::Abandoned
            }
            names::KERNEL_TCP_CLOSE if self.is_incoming == Some(false) => ConnectionChange::Closed,
            // A reset that is sent is a program that closes with unread data.
            names::KERNEL_TCP_RESET
                if self.is_incoming == Some(false) && self.direction == "receive" =>
            {
                ConnectionChange::Reset
            }
            names::KERNEL_TCP_RETRANSMIT if self.is_incoming.is_none() => return None,
            names::KERNEL_TCP_RETRANSMIT if is_attempt => ConnectionChange::AttemptRepeated,
            names::KERNEL_TCP_RETRANSMIT => ConnectionChange::Retransmitted,
            _ => return None,
        })
    }

    /// The part of a host in which an address on loopback is unique; empty for other addresses.
    fn scope(&self, address: &str) -> [&'a str; 2] {
        let is_local = is_loopback(address);
        let within = if self.pod_uid.is_empty() { self.container } else { self.pod_uid };
        if is_local { [self.host, within] } else { [""; 2] }
    }

    /// The program's name: its file's, but that of a script, which runs in an interpreter. A thread
    /// may have a name of its own.
    fn program_name(&self) -> &'a str {
        let file = self.path.rsplit('/').next().unwrap_or("");
        let stem = file.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        let is_script = file.is_empty() || INTERPRETERS.contains(&stem);
        if is_script && !self.program.is_empty() { self.program } else { file }
    }
}

fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn container_part(id: &str) -> &str {
    id.get(..CONTAINER_DIGITS).unwrap_or(id)
}

impl ServiceObserver {
    /// Adds the facts of a TCP event.
    pub(super) fn connection(&mut self, event: &ArchivedEvent<'_>) {
        let (kind, fields) = (event.kind_name(), Fields::of(event));
        if kind == names::KERNEL_TCP_ACCEPT {
            return self.listener(event, &fields);
        }
        let Some(change) = fields.change(kind) else { return };
        let is_of_server = fields.is_incoming == Some(true);
        let (caller, callee) =
            if is_of_server { (fields.peer, fields.local) } else { (fields.local, fields.peer) };
        let scope = fields.scope(callee.0);
        let socket = self.hasher.hash_one((Of::Socket, scope, caller, callee));
        let endpoint = self.hasher.hash_one((Of::Endpoint, scope, callee));
        let mut fact = ConnectionFact {
            event: event.event_id(),
            time_ns: event.time(),
            change,
            caller: Party::default(),
            socket,
            endpoint,
            callee: 0,
            duration_ns: fields.duration_ns,
        };
        if change.is_attempt() {
            let Some(party) = self.party(&fields) else { return };
            fact.caller = party;
            fact.callee = self.callee(&fields, endpoint);
        }
        self.facts.push(ServiceFact::Connection(fact));
    }

    fn listener(&mut self, event: &ArchivedEvent<'_>, fields: &Fields<'_>) {
        let Some(party) = self.party(fields) else { return };
        let endpoint =
            self.hasher.hash_one((Of::Endpoint, fields.scope(fields.local.0), fields.local));
        let time_ns = event.time();
        let interval = time_ns / LISTENER_INTERVAL_NS;
        let sent = self.hasher.hash_one((endpoint, party.owner, party.part, interval));
        if self.is_new(sent) {
            let event = event.event_id();
            let fact = ListenerFact { event, time_ns, endpoint, party };
            self.facts.push(ServiceFact::Listener(fact));
        }
    }

    /// The process of an event; `None` if none is known.
    fn party(&mut self, fields: &Fields<'_>) -> Option<Party> {
        let host = fields.host;
        let (mut part, mut of_unit) = (0, 0);
        if !fields.container.is_empty() {
            part = self.hasher.hash_one((Of::Container, container_part(fields.container)));
        } else if fields.pid > 0 {
            part = self.hasher.hash_one((Of::Process, host, fields.pid));
        }
        let names = |kind, service: &str| InstanceNames {
            kind,
            service: service.into(),
            node: host.into(),
            ..InstanceNames::default()
        };
        let program = fields.program_name();
        let owner = if !fields.pod_uid.is_empty() {
            self.pod([fields.pod_uid, fields.namespace, fields.pod])
        } else if !fields.container.is_empty() {
            let id = container_part(fields.container);
            let name = Some(fields.container_name).filter(|name| !name.is_empty());
            self.owner(part, [0; 2], || names(InstanceKind::Container, name.unwrap_or(id)))
        } else if is_lasting(fields.unit) {
            let key = self.hasher.hash_one((Of::Unit, host, fields.unit));
            of_unit = self.hasher.hash_one((Of::Program, key, program));
            self.owner(key, [key, 0], || names(InstanceKind::Unit, fields.unit))
        } else if !program.is_empty() {
            let key = self.hasher.hash_one((Of::Program, host, program));
            self.owner(key, [0; 2], || names(InstanceKind::Program, program))
        } else {
            return None;
        };
        Some(Party { owner, part, program: of_unit })
    }

    /// The pod with this uid, namespace and name.
    fn pod(&mut self, [uid, namespace, name]: [&str; 3]) -> Key {
        let key = self.hasher.hash_one((Of::PodUid, uid));
        let by_name = match name {
            "" => 0,
            name => self.hasher.hash_one((Of::PodName, namespace, name)),
        };
        self.owner(key, [key, by_name], || InstanceNames {
            service: if name.is_empty() { uid } else { name }.into(),
            pod: name.into(),
            namespace: namespace.into(),
            ..InstanceNames::default()
        })
    }

    /// The callee by what the event has of it: its pod, Kubernetes service or unit, else the
    /// address.
    fn callee(&mut self, fields: &Fields<'_>, endpoint: Key) -> Key {
        let (address, port) = fields.peer;
        let [host, _] = fields.scope(address);
        let of_address = |kind, service| InstanceNames {
            kind,
            service,
            node: host.into(),
            ..InstanceNames::default()
        };
        let text = if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        };
        self.owner(endpoint, [0; 2], || of_address(InstanceKind::Endpoint, text));
        if !fields.peer_pod_uid.is_empty() {
            self.pod([fields.peer_pod_uid, fields.peer_namespace, fields.peer_pod])
        } else if !fields.peer_service.is_empty() {
            let (namespace, service) = (fields.peer_namespace, fields.peer_service);
            let key = self.hasher.hash_one((Of::Service, namespace, service));
            self.owner(key, [0; 2], || InstanceNames {
                service: service.into(),
                namespace: namespace.into(),
                ..InstanceNames::default()
            })
        } else if is_lasting(fields.peer_unit) {
            let key = self.hasher.hash_one((Of::Unit, fields.host, fields.peer_unit));
            self.owner(key, [key, 0], || InstanceNames {
                node: fields.host.into(),
                ..of_address(InstanceKind::Unit, fields.peer_unit.into())
            })
        } else if port < FIRST_DYNAMIC_PORT {
            endpoint
        } else {
            let key = self.hasher.hash_one((Of::Address, fields.scope(address), address));
            self.owner(key, [0; 2], || of_address(InstanceKind::Address, address.into()))
        }
    }

    /// Sends the names of an owner once, and again when its names change.
    fn owner(
        &mut self,
        key: Key,
        identities: [Key; 2],
        names: impl FnOnce() -> InstanceNames,
    ) -> Key {
        let sent = self.hasher.hash_one((key, identities));
        if self.is_new(sent) {
            self.facts.push(ServiceFact::Owner { key, names: Box::new(names()), identities });
        }
        key
    }

    /// Sends what identifies an instance by its resource: its pod, its container, or its process
    /// where it is in none. A process in a container has another number there.
    pub(super) fn claim(&mut self, event: &ArchivedEvent<'_>, instance: Key) {
        let mut fields = Fields::default();
        for field in event.entity_fields() {
            match field.value.get() {
                Value::Str(text) => fields.text(field.name(), text),
                Value::Int(number) => fields.number(field.name(), number),
                _ => {}
            }
        }
        let Fields { host, pod_uid, pod, namespace, container, pid, .. } = fields;
        let is_inside = !(pod_uid.is_empty() && pod.is_empty() && container.is_empty());
        // Of most spans nothing is new: as little as possible is hashed.
        let sent = match container.is_empty() {
            false => self.hasher.hash_one((instance, container, pod_uid.len(), pod.len())),
            true if is_inside => self.hasher.hash_one((instance, pod_uid, pod, namespace)),
            true => self.hasher.hash_one((instance, host, pid)),
        };
        if !self.is_new(sent) {
            return;
        }
        let is_container_host = !is_inside
            && host.len() == CONTAINER_DIGITS
            && host.bytes().all(|b| b.is_ascii_hexdigit());
        let container = if is_container_host { host } else { container };
        let identities = [
            (!container.is_empty())
                .then(|| self.hasher.hash_one((Of::Container, container_part(container)))),
            (!pod_uid.is_empty()).then(|| self.hasher.hash_one((Of::PodUid, pod_uid))),
            (!pod.is_empty()).then(|| self.hasher.hash_one((Of::PodName, namespace, pod))),
        ];
        let process =
            (!is_inside && pid > 0).then(|| self.hasher.hash_one((Of::Process, host, pid)));
        let claims = identities.into_iter().flatten().map(|identity| (identity, false));
        let claims = claims.chain(process.map(|identity| (identity, true)));
        self.facts.extend(claims.map(|(identity, is_process)| ServiceFact::Claim {
            identity,
            instance,
            is_process,
        }));
    }
}

/// Whether a unit exists under its name for long: sessions and transient scopes are numbered.
fn is_lasting(unit: &str) -> bool {
    unit.ends_with(".service") && !unit.starts_with("run-") && !unit.starts_with("user@")
}
