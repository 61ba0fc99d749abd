//! Facts of spans, log records and connections, as shards send them.

use rkyv::{Archive, Deserialize, Serialize};
use tapio_core::event::{EventId, Severity};

/// A hash of a text: of a service and its instance, of an operation's name, of a template. The text
/// itself is sent once.
pub(super) type Key = u64;

/// The hash of all keys. Shards have to agree on them, and so do a process and the one before it.
pub(super) fn key_hasher() -> ahash::RandomState {
    ahash::RandomState::with_seeds(0x7461_7069, 0x6f20, 0x7365_7276, 0x6963_6573)
}

/// A span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SpanFact {
    pub(super) event: EventId,
    pub(super) start_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) instance: Key,
    pub(super) operation: Key,
    /// Its id and the caller's, each with the trace's mixed in; 0: no caller.
    pub(super) span: u64,
    pub(super) parent: u64,
    /// Bits of the trace's id.
    pub(super) trace: u64,
    /// Whether it is known to be no call of another service: its kind is server, internal or
    /// consumer.
    pub(super) is_work: bool,
    /// Whether its status is an error.
    pub(super) has_failed: bool,
}

/// A log record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LogFact {
    pub(super) event: EventId,
    pub(super) time_ns: u64,
    pub(super) instance: Key,
    pub(super) template: Key,
    /// The span that it belongs to; 0 for none.
    pub(super) span: u64,
    /// Bits of the trace's id.
    pub(super) trace: u64,
    pub(super) severity: Severity,
}

/// A change of a connection, at the end that opened it unless stated otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionChange {
    Opened,
    Refused,
    /// Nobody answered until the kernel gave up.
    TimedOut,
    /// The program stopped waiting for an answer.
    Abandoned,
    /// A segment of an attempt was sent again.
    AttemptRepeated,
    /// A segment was sent again, by either end.
    Retransmitted,
    /// The other end reset it.
    Reset,
    /// The other end didn't answer any more. It is unknown which end reports it.
    Lost,
    Closed,
}

impl ConnectionChange {
    /// Whether it is about an attempt to open a connection: it names both ends.
    pub(super) fn is_attempt(self) -> bool {
        !matches!(self, Self::Retransmitted | Self::Reset | Self::Lost | Self::Closed)
    }
}

/// A TCP connection, or an attempt to open one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ConnectionFact {
    pub(super) event: EventId,
    pub(super) time_ns: u64,
    pub(super) change: ConnectionChange,
    /// The end that opened it, of attempts and what was opened; of others `socket` names the pair.
    pub(super) caller: Party,
    /// Addresses and ports of both ends.
    pub(super) socket: Key,
    /// The address and port that it was opened to.
    pub(super) endpoint: Key,
    /// The callee, where no listener is known there.
    pub(super) callee: Key,
    /// From the attempt until it was answered.
    pub(super) duration_ns: u64,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct Party {
    /// Its pod, container, unit or program.
    pub(super) owner: Key,
    /// Its container, or its process where it is in none.
    pub(super) part: Key,
    /// Its program in its unit; 0 outside of units.
    pub(super) program: Key,
}

/// A process that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenerFact {
    pub(super) event: EventId,
    pub(super) time_ns: u64,
    pub(super) endpoint: Key,
    pub(super) party: Party,
}

/// The kind of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) enum InstanceKind {
    /// A service, or its pod, or a pod of which no service is known.
    #[default]
    Service,
    Container,
    Unit,
    /// A program outside of units.
    Program,
    /// An address with a port.
    Endpoint,
    /// An address at which ports are dynamic.
    Address,
}

/// The names of an instance of a service, or of what is known by its connections alone; empty where
/// there is none.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub(crate) struct InstanceNames {
    pub(super) kind: InstanceKind,
    /// The service, else the pod, container, unit, program or address.
    pub(super) service: String,
    pub(super) pod: String,
    pub(super) namespace: String,
    /// The host of what has its name on one host only.
    pub(super) node: String,
}

impl InstanceNames {
    /// The kind and name in a list of what is affected.
    pub(super) fn affected(&self) -> String {
        let kind = match self.kind {
            InstanceKind::Service => "service",
            InstanceKind::Container => "container",
            InstanceKind::Unit => "unit",
            InstanceKind::Program => "process",
            InstanceKind::Endpoint => "endpoint",
            InstanceKind::Address => "address",
        };
        format!("{kind} {}", self.service)
    }

    /// The most specific name.
    pub(super) fn text(&self) -> &str {
        if self.pod.is_empty() { &self.service } else { &self.pod }
    }
}

/// A fact from a shard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServiceFact {
    /// A span.
    Span(SpanFact),
    /// A log record.
    Log(LogFact),
    /// A connection.
    Connection(ConnectionFact),
    /// A process that listens.
    Listener(ListenerFact),
    /// The names of an instance.
    Instance { key: Key, names: Box<InstanceNames> },
    /// The names of an owner of connections, or of an address, and what else identifies it.
    Owner { key: Key, names: Box<InstanceNames>, identities: [Key; 2] },
    /// An identity of an instance: a pod, a container, or a process of a host.
    Claim { identity: Key, instance: Key, is_process: bool },
    /// The text of an operation or a template.
    Text { key: Key, text: Box<str> },
}

impl ServiceFact {
    /// The order of facts in replay, which doesn't depend on the number of shards.
    pub(super) fn order(&self) -> (u64, EventId) {
        match self {
            Self::Span(span) => (span.start_ns, span.event),
            Self::Log(log) => (log.time_ns, log.event),
            Self::Connection(connection) => (connection.time_ns, connection.event),
            Self::Listener(listener) => (listener.time_ns, listener.event),
            // Before all that refer to them.
            Self::Instance { .. } | Self::Text { .. } | Self::Owner { .. } | Self::Claim { .. } => {
                (0, EventId::default())
            }
        }
    }
}
