//! An event in its two forms: [`Event`], which a collector builds and which borrows its texts, and
//! [`ArchivedEvent`], the rkyv archive in a record, which is read in place.

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::id::{EventId, TraceId};
use super::name::Name;
use super::severity::Severity;

/// Resolution of a source's clock, by which correlation decides how precisely the times of two
/// sources compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum ClockQuality {
    /// Nanoseconds of the kernel's monotonic clock.
    Kernel = 0,
    /// Microseconds, as the journal and most applications have.
    #[default]
    Micros = 1,
    /// Whole seconds, as the Kubernetes API has.
    Seconds = 2,
}

impl ClockQuality {
    /// The length of one tick.
    #[must_use]
    pub fn tick_ns(self) -> u64 {
        match self {
            Self::Kernel => 1,
            Self::Micros => 1_000,
            Self::Seconds => 1_000_000_000,
        }
    }
}

/// A typed value of an entity key or attribute.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize)]
pub enum Value<'a> {
    /// JSON's null: present, and not equal to any value.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Str(#[rkyv(with = InlineAsBox)] &'a str),
    /// A list, or an empty object, as compact JSON text.
    Json(#[rkyv(with = InlineAsBox)] &'a str),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text)
    }
}

macro_rules! from_int {
    ($($type:ty),*) => {$(
        impl From<$type> for Value<'_> {
            fn from(n: $type) -> Self { Self::Int(i64::from(n)) }
        }
    )*};
}
from_int!(i64, i32, u32, u16, u8);

impl From<u64> for Value<'_> {
    /// Values above `i64::MAX` become a float: no id that tapio handles is that large.
    fn from(n: u64) -> Self {
        i64::try_from(n).map_or(Self::Float(n as f64), Self::Int)
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

/// One entity key or attribute.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize)]
pub struct Field<'a> {
    /// Its name.
    pub key: Name,
    /// Its value.
    pub value: Value<'a>,
}

/// An event as its collector builds it: it borrows its parts, so that building one allocates
/// nothing.
///
/// `fields` holds the entity keys first (`entities` of them), then the attributes.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct Event<'a> {
    /// Permanent id of the event.
    pub id: EventId,
    /// Event time, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Time at which tapio collected it, nanoseconds since the Unix epoch.
    pub observed_ns: u64,
    /// The type of the event.
    pub kind: Name,
    /// The collector that emitted it.
    pub source: Name,
    /// Severity of the event by itself.
    pub severity: Severity,
    /// The [`ClockQuality`] of `time_ns`.
    pub clock: u8,
    /// Number of `fields` that are entity keys.
    pub entities: u8,
    /// Which of the attributes describe the resource that sent the event, as OTLP has it: the index
    /// of the first, and their number.
    pub resource: [u8; 2],
    /// The trace with which the event arrived; [`TraceId::NONE`] for none.
    pub trace_id: TraceId,
    /// The span with which the event arrived; zero for none.
    pub span_id: [u8; 8],
    /// Entity keys, then attributes.
    #[rkyv(with = InlineAsBox)]
    pub fields: &'a [Field<'a>],
    /// Text for people; empty for none.
    #[rkyv(with = InlineAsBox)]
    pub message: &'a str,
}

impl<'a> Event<'a> {
    /// An event without fields or message, to be completed with struct update syntax.
    #[must_use]
    pub fn new(id: EventId, time_ns: u64, kind: Name, source: Name) -> Self {
        Self {
            id,
            time_ns,
            observed_ns: time_ns,
            kind,
            source,
            severity: Severity::INFO,
            clock: ClockQuality::Micros as u8,
            entities: 0,
            resource: [0; 2],
            trace_id: TraceId::NONE,
            span_id: [0; 8],
            fields: &[],
            message: "",
        }
    }

    /// The entity keys.
    #[must_use]
    pub fn entity_fields(&self) -> &'a [Field<'a>] {
        &self.fields[..usize::from(self.entities).min(self.fields.len())]
    }

    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> &'a [Field<'a>] {
        &self.fields[usize::from(self.entities).min(self.fields.len())..]
    }

    /// The value of an entity key.
    #[must_use]
    pub fn entity(&self, key: Name) -> Option<Value<'a>> {
        self.entity_fields().iter().find(|f| f.key == key).map(|f| f.value)
    }

    /// Upper bound of the archive's size in bytes. A record is written only where this much room is
    /// left before the ring's end.
    #[must_use]
    pub fn archive_bound_bytes(&self) -> usize {
        let texts: usize = self
            .fields
            .iter()
            .map(|f| match f.value {
                Value::Str(s) | Value::Json(s) => s.len(),
                _ => 0,
            })
            .sum();
        std::mem::size_of::<ArchivedEvent<'_>>()
            + self.fields.len() * std::mem::size_of::<ArchivedField<'_>>()
            + texts
            + self.message.len()
    }
}
