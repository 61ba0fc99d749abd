//! Facts of spans and log records, as shards send them.

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

/// The names of an instance of a service; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub(crate) struct InstanceNames {
    pub(super) service: String,
    pub(super) pod: String,
    pub(super) namespace: String,
}

impl InstanceNames {
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
    /// The names of an instance.
    Instance { key: Key, names: Box<InstanceNames> },
    /// The text of an operation or a template.
    Text { key: Key, text: Box<str> },
}

impl ServiceFact {
    /// The order of facts in replay, which doesn't depend on the number of shards.
    pub(super) fn order(&self) -> (u64, EventId) {
        match self {
            Self::Span(span) => (span.start_ns, span.event),
            Self::Log(log) => (log.time_ns, log.event),
            // Before all that refer to them.
            Self::Instance { .. } | Self::Text { .. } => (0, EventId::default()),
        }
    }
}
