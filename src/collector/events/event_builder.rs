//! Builds one event at a time. Texts share one reused buffer, so building allocates nothing once
//! the buffers have grown.

use std::fmt::{self, Write as _};

use tapio_core::event::{
    ClockQuality, Event, EventId, Field, LogBlock, Name, Reason, Severity, TraceId, Value, names,
};
use tapio_core::ring::{LogPass, Sink};

/// Maximum number of fields. By default SDKs limit a span or a log record to 128 attributes of its
/// own.
const MAX_FIELDS: usize = 192;
/// Number of fields that fit on the stack when an event is read; few events have more.
const STACK_FIELDS: usize = 48;

#[derive(Clone, Copy)]
enum Slot {
    Int(i64),
    Float(f64),
    Bool(bool),
    Word(&'static str),
    Text(u32, u32),
    Json(u32, u32),
}

/// The parts of an event other than its fields and message.
pub(crate) struct EventHeader {
    pub(crate) id: EventId,
    pub(crate) time_ns: u64,
    pub(crate) observed_ns: u64,
    pub(crate) kind: Name,
    pub(crate) source: Name,
    pub(crate) clock: ClockQuality,
    pub(crate) severity: Severity,
}

/// Collects the fields and the message of one event.
#[derive(Clone, Default)]
pub(crate) struct EventBuilder {
    fields: Vec<(Name, Slot)>,
    /// Number of fields dropped because there were too many.
    pub(crate) dropped_fields: u32,
    /// The number of entity keys, which come first in `fields`.
    entities: usize,
    /// The attributes that describe the resource: the index of the first, and their number.
    resource: [u8; 2],
    /// The range of `fields` that the entity directory filled in.
    pub(crate) enriched: std::ops::Range<usize>,
    text: String,
    message: String,
    /// The trace and span that the source gave.
    trace: (TraceId, [u8; 8]),
}

/// The part that several events in a row share: entity keys, and attributes of their resource. The
/// builder keeps its texts.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    entities: usize,
    text_bytes: usize,
    attributes: Vec<(Name, Slot)>,
    dropped_fields: u32,
}

/// Displays bytes as text; invalid UTF-8 becomes U+FFFD.
pub(crate) struct Lossy<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

impl EventBuilder {
    /// Starts another event.
    pub(crate) fn clear(&mut self) {
        self.restart(&Shared::default());
        self.enriched = 0..0;
    }

    /// Takes the event so far as what the following events share: entity keys, then attributes of
    /// the resource. [`EventBuilder::restart`] begins each of them.
    pub(crate) fn share(&mut self, shared: &mut Shared) {
        shared.entities = self.entities;
        shared.text_bytes = self.text.len();
        shared.attributes.clear();
        shared.attributes.extend(self.fields.drain(self.entities..));
        shared.dropped_fields = std::mem::take(&mut self.dropped_fields);
    }

    /// Starts another event with what is shared; nothing else may have been built since
    /// [`EventBuilder::share`] but such events.
    pub(crate) fn restart(&mut self, shared: &Shared) {
        self.fields.truncate(shared.entities);
        self.text.truncate(shared.text_bytes);
        self.dropped_fields = 0;
        self.entities = shared.entities;
        self.resource = [0; 2];
        self.message.clear();
        self.trace = (TraceId::NONE, [0; 8]);
    }

    /// Adds the shared attributes, which are the resource's, behind the event's own.
    pub(crate) fn shared_attributes(&mut self, shared: &Shared) {
        let first = self.fields.len();
        let room = MAX_FIELDS.saturating_sub(first).min(shared.attributes.len());
        self.fields.extend_from_slice(&shared.attributes[..room]);
        self.dropped_fields += (shared.attributes.len() - room) as u32 + shared.dropped_fields;
        let (before, added) = (first - self.entities, self.fields.len() - first);
        self.resource = [before, added].map(|n| n.try_into().unwrap_or(u8::MAX));
    }

    fn push(&mut self, key: Name, slot: Slot) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.push((key, slot));
        } else {
            self.dropped_fields += 1;
        }
    }

    /// Appends to the text buffer; returns the range written.
    fn written(&mut self, write: impl FnOnce(&mut String)) -> (u32, u32) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        (start, self.text.len() as u32)
    }

    /// Number of fields so far.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Number of entity keys.
    #[cfg(test)]
    pub(crate) fn entities(&self) -> usize {
        self.entities
    }

    /// Replaces the fields that the entity directory filled in by those that `push` adds.
    pub(crate) fn replace_enriched<R>(&mut self, push: impl FnOnce(&mut Self) -> R) -> R {
        let std::ops::Range { start, end } = self.enriched.clone();
        self.fields.drain(start..end);
        let before = self.fields.len();
        let result = push(self);
        let added = self.fields.len() - before;
        if let Some(tail) = self.fields.get_mut(start..) {
            tail.rotate_right(added);
        }
        self.entities = self.entities + added - (end - start);
        self.enriched = start..start + added;
        result
    }

    /// Sets the trace and span that the source gave.
    pub(crate) fn trace_context(&mut self, trace: TraceId, span: [u8; 8]) {
        self.trace = (trace, span);
    }

    /// Marks all fields so far as entity keys.
    pub(crate) fn end_entities(&mut self) {
        self.entities = self.fields.len();
    }

    /// Adds an integer; values beyond the range become the maximum.
    pub(crate) fn int(&mut self, key: Name, value: impl TryInto<i64>) {
        self.push(key, Slot::Int(value.try_into().unwrap_or(i64::MAX)));
    }

    /// Adds the number of dropped fields, beyond the maximum number of fields if need be.
    pub(crate) fn dropped_count(&mut self, key: Name, count: u32) {
        self.fields.push((key, Slot::Int(count.into())));
    }

    /// Adds a boolean.
    pub(crate) fn bool(&mut self, key: Name, value: bool) {
        self.push(key, Slot::Bool(value));
    }

    /// Adds a text that is constant.
    pub(crate) fn word(&mut self, key: Name, value: &'static str) {
        self.push(key, Slot::Word(value));
    }

    /// Adds a text unless it is empty.
    pub(crate) fn text(&mut self, key: Name, value: impl fmt::Display) {
        let (start, end) = self.written(|text| {
            let _ = write!(text, "{value}");
        });
        if end > start {
            self.push(key, Slot::Text(start, end));
        }
    }

    /// Adds a text unless it is empty, as [`EventBuilder::text`] does, without formatting it.
    pub(crate) fn plain(&mut self, key: Name, value: &str) {
        if !value.is_empty() {
            let (start, end) = self.written(|text| text.push_str(value));
            self.push(key, Slot::Text(start, end));
        }
    }

    /// Adds compact JSON, which `write` appends.
    pub(crate) fn json(&mut self, key: Name, write: impl FnOnce(&mut String)) {
        let (start, end) = self.written(write);
        self.push(key, Slot::Json(start, end));
    }

    /// Appends to the message.
    pub(crate) fn message(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.message.write_fmt(text);
    }

    /// Appends a text to the message, without formatting it.
    pub(crate) fn plain_message(&mut self, text: &str) {
        self.message.push_str(text);
    }

    /// Adds a floating-point number.
    pub(crate) fn float(&mut self, key: Name, value: f64) {
        self.push(key, Slot::Float(value));
    }

    /// Calls `read` with the fields.
    pub(crate) fn fields<R>(&self, read: impl FnOnce(&[Field<'_>]) -> R) -> R {
        let empty = Field { key: names::HOST_NAME, value: Value::Null };
        let mut stack = [empty; STACK_FIELDS];
        let mut heap = Vec::new();
        let fields = match stack.get_mut(..self.fields.len()) {
            Some(fields) => fields,
            None => {
                heap.resize(self.fields.len(), empty);
                &mut heap[..]
            }
        };
        for (field, (key, slot)) in fields.iter_mut().zip(&self.fields) {
            let part = |start: u32, end: u32| {
                self.text.get(start as usize..end as usize).unwrap_or_default()
            };
            field.key = *key;
            field.value = match *slot {
                Slot::Int(n) => Value::Int(n),
                Slot::Float(n) => Value::Float(n),
                Slot::Bool(b) => Value::Bool(b),
                Slot::Word(w) => Value::Str(w),
                Slot::Text(start, end) => Value::Str(part(start, end)),
                Slot::Json(start, end) => Value::Json(part(start, end)),
            };
        }
        read(fields)
    }

    /// Offers the event to the output, which accounts for it whatever the outcome.
    pub(crate) fn offer(
        &self,
        header: &EventHeader,
        output: &mut impl EventOutput,
    ) -> Result<(), Reason> {
        self.read(header, |event| output.offer(event))
    }

    /// Calls `read` with the event.
    pub(crate) fn read<R>(&self, header: &EventHeader, read: impl FnOnce(&Event<'_>) -> R) -> R {
        self.fields(|fields| {
            read(&Event {
                observed_ns: header.observed_ns,
                severity: header.severity,
                clock: header.clock as u8,
                entities: self.entities as u8,
                resource: self.resource,
                fields,
                message: &self.message,
                trace_id: self.trace.0,
                span_id: self.trace.1,
                ..Event::new(header.id, header.time_ns, header.kind, header.source)
            })
        })
    }
}

/// Takes events.
pub(crate) trait EventOutput {
    /// Takes an event.
    ///
    /// # Errors
    /// Why it isn't accepted; it is counted.
    fn offer(&mut self, event: &Event<'_>) -> Result<(), Reason>;

    /// Counts events that can't be built.
    fn refuse(&mut self, reason: Reason, events: u64);

    /// Decides which log records may be offered as they came, of a resource with these entity
    /// keys and attributes; `None`: none of them.
    fn log_pass(&self, _shared: &Event<'_>) -> Option<LogPass> {
        None
    }

    /// Takes log records as they came, for which [`EventOutput::log_pass`] has decided.
    ///
    /// # Errors
    /// Why they aren't accepted; they are counted.
    fn offer_logs(&mut self, block: &LogBlock<'_>) -> Result<(), Reason> {
        self.refuse(Reason::BadInput, block.records.into());
        Err(Reason::BadInput)
    }
}

impl EventOutput for Sink {
    fn offer(&mut self, event: &Event<'_>) -> Result<(), Reason> {
        Self::offer(self, event)
    }

    fn refuse(&mut self, reason: Reason, events: u64) {
        Self::refuse(self, reason, events);
    }

    fn log_pass(&self, shared: &Event<'_>) -> Option<LogPass> {
        Self::log_pass(self, shared)
    }

    fn offer_logs(&mut self, block: &LogBlock<'_>) -> Result<(), Reason> {
        Self::offer_logs(self, block)
    }
}
