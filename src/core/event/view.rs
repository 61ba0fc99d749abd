//! In-place access to an archived event.

use super::id::{EventId, TraceId};
use super::name::Name;
use super::record::{
    ArchivedEvent, ArchivedField, ArchivedValue, ClockQuality, Event, Field, Value,
};
use super::severity::Severity;

impl<'x> ArchivedValue<'x> {
    /// The value, borrowing its text from the archive.
    #[must_use]
    pub fn get(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(n.to_native()),
            Self::Float(n) => Value::Float(n.to_native()),
            Self::Str(s) => Value::Str(s),
            Self::Json(s) => Value::Json(s),
        }
    }
}

impl<'x> ArchivedField<'x> {
    /// The name of the field.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::from(&self.key)
    }

    /// The field, borrowing from the archive.
    #[must_use]
    pub fn get(&self) -> Field<'_> {
        Field { key: self.name(), value: self.value.get() }
    }
}

impl<'x> ArchivedEvent<'x> {
    /// Permanent id of the event.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        EventId(self.id.0)
    }

    /// Event time, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time_ns.to_native()
    }

    /// The type of the event.
    #[must_use]
    pub fn kind_name(&self) -> Name {
        Name::from(&self.kind)
    }

    /// The collector that emitted it.
    #[must_use]
    pub fn source_name(&self) -> Name {
        Name::from(&self.source)
    }

    /// Severity of the event by itself.
    #[must_use]
    pub fn severity(&self) -> Severity {
        Severity(self.severity.0)
    }

    /// Resolution of the source's clock.
    #[must_use]
    pub fn clock_quality(&self) -> ClockQuality {
        match self.clock {
            0 => ClockQuality::Kernel,
            2 => ClockQuality::Seconds,
            _ => ClockQuality::Micros,
        }
    }

    /// The trace with which the event arrived, if any.
    #[must_use]
    pub fn incoming_trace(&self) -> Option<TraceId> {
        Some(TraceId(self.trace_id.0)).filter(|t| t.is_some())
    }

    /// The entity keys.
    #[must_use]
    pub fn entity_fields(&self) -> &[ArchivedField<'x>] {
        &self.fields[..usize::from(self.entities).min(self.fields.len())]
    }

    /// The attributes.
    #[must_use]
    pub fn attribute_fields(&self) -> &[ArchivedField<'x>] {
        &self.fields[usize::from(self.entities).min(self.fields.len())..]
    }

    /// The value of an entity key.
    #[must_use]
    pub fn entity(&self, key: Name) -> Option<Value<'_>> {
        self.entity_fields().iter().find(|f| f.key.0 == key.0).map(|f| f.value.get())
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, key: Name) -> Option<Value<'_>> {
        self.attribute_fields().iter().find(|f| f.key.0 == key.0).map(|f| f.value.get())
    }

    /// The text of an entity key, or else of an attribute.
    #[must_use]
    pub fn text(&self, key: Name) -> Option<&str> {
        match self.entity(key).or_else(|| self.attribute(key)) {
            Some(Value::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// Returns the event in its borrowed form, for code that handles both forms. `fields` holds its
    /// fields.
    #[must_use]
    pub fn borrowed<'a>(&'a self, fields: &'a mut Vec<Field<'a>>) -> Event<'a> {
        fields.clear();
        fields.extend(self.fields.iter().map(ArchivedField::get));
        Event {
            id: self.event_id(),
            time_ns: self.time(),
            observed_ns: self.observed_ns.to_native(),
            kind: self.kind_name(),
            source: self.source_name(),
            severity: self.severity(),
            clock: self.clock,
            entities: self.entities,
            resource: self.resource,
            trace_id: TraceId(self.trace_id.0),
            span_id: self.span_id,
            fields,
            message: &self.message,
        }
    }
}
