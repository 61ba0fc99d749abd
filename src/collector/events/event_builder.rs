//! An event while its fields are put together: texts lie in one reused buffer, so that building an
//! event allocates nothing once the buffers have grown.

use std::fmt::{self, Write as _};

use tapio_core::event::{
    ClockQuality, Event, EventId, Field, Name, Reason, Severity, TraceId, Value, names,
};
use tapio_core::ring::Sink;

/// Fields an event can have; SDKs give a span or a log record 128 attributes of its own at most by default.
const MAX_FIELDS: usize = 192;
/// Fields of almost all events: so many are shown without a list on the heap.
const USUAL_FIELDS: usize = 48;

#[derive(Clone, Copy)]
enum Slot {
    Int(i64),
    Float(f64),
    Bool(bool),
    Word(&'static str),
    Text(u32, u32),
    Json(u32, u32),
}

/// What an event is besides its fields.
pub(crate) struct Meta {
    pub(crate) id: EventId,
    pub(crate) time_ns: u64,
    pub(crate) observed_ns: u64,
    pub(crate) kind: Name,
    pub(crate) source: Name,
    pub(crate) clock: ClockQuality,
    pub(crate) severity: Severity,
}

/// The event's fields and message.
#[derive(Clone, Default)]
pub(crate) struct Draft {
    fields: Vec<(Name, Slot)>,
    /// Fields that had no room.
    pub(crate) left_out: u32,
    /// How many of `fields` are entity keys.
    entities: usize,
    /// Which of `fields` say whose it is.
    pub(crate) whose: std::ops::Range<usize>,
    text: String,
    message: String,
    /// The trace and the span the event came with.
    trace: (TraceId, [u8; 8]),
}

/// Bytes as text: what isn't UTF-8 becomes U+FFFD.
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

impl Draft {
    pub(crate) fn clear(&mut self) {
        self.fields.clear();
        self.left_out = 0;
        self.entities = 0;
        self.whose = 0..0;
        self.text.clear();
        self.message.clear();
        self.trace = (TraceId::NONE, [0; 8]);
    }

    fn push(&mut self, key: Name, slot: Slot) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.push((key, slot));
        } else {
            self.left_out += 1;
        }
    }

    fn written(&mut self, write: impl FnOnce(&mut String)) -> (u32, u32) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        (start, self.text.len() as u32)
    }

    /// Fields so far.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// How many of them are entity keys.
    #[cfg(test)]
    pub(crate) fn entities(&self) -> usize {
        self.entities
    }

    /// Puts what `again` pushes in the place of the entity keys that say whose the event is.
    pub(crate) fn replace_whose<R>(&mut self, again: impl FnOnce(&mut Self) -> R) -> R {
        let std::ops::Range { start, end } = self.whose.clone();
        self.fields.drain(start..end);
        let before = self.fields.len();
        let result = again(self);
        let added = self.fields.len() - before;
        if let Some(tail) = self.fields.get_mut(start..) {
            tail.rotate_right(added);
        }
        self.entities = self.entities + added - (end - start);
        self.whose = start..start + added;
        result
    }

    /// The trace and the span the event came with.
    pub(crate) fn came_with(&mut self, trace: TraceId, span: [u8; 8]) {
        self.trace = (trace, span);
    }

    /// Says that what was pushed so far are entity keys.
    pub(crate) fn entities_end(&mut self) {
        self.entities = self.fields.len();
    }

    pub(crate) fn int(&mut self, key: Name, value: impl TryInto<i64>) {
        self.push(key, Slot::Int(value.try_into().unwrap_or(i64::MAX)));
    }

    /// How many fields were left out, for which there is room in any case.
    pub(crate) fn dropped(&mut self, key: Name, fields: u32) {
        self.fields.push((key, Slot::Int(fields.into())));
    }

    pub(crate) fn bool(&mut self, key: Name, value: bool) {
        self.push(key, Slot::Bool(value));
    }

    pub(crate) fn word(&mut self, key: Name, value: &'static str) {
        self.push(key, Slot::Word(value));
    }

    /// Text, where there is any.
    pub(crate) fn text(&mut self, key: Name, value: impl fmt::Display) {
        let (start, end) = self.written(|text| {
            let _ = write!(text, "{value}");
        });
        if end > start {
            self.push(key, Slot::Text(start, end));
        }
    }

    /// Compact JSON that `write` appends.
    pub(crate) fn json(&mut self, key: Name, write: impl FnOnce(&mut String)) {
        let (start, end) = self.written(write);
        self.push(key, Slot::Json(start, end));
    }

    pub(crate) fn message(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.message.write_fmt(text);
    }

    /// A number that needn't be whole.
    pub(crate) fn float(&mut self, key: Name, value: f64) {
        self.push(key, Slot::Float(value));
    }

    /// Shows the fields as they stand to `see`.
    pub(crate) fn fields<R>(&self, see: impl FnOnce(&[Field<'_>]) -> R) -> R {
        let empty = Field { key: names::HOST_NAME, value: Value::Null };
        let mut usual = [empty; USUAL_FIELDS];
        let mut many = Vec::new();
        let fields = match usual.get_mut(..self.fields.len()) {
            Some(few) => few,
            None => {
                many.resize(self.fields.len(), empty);
                &mut many[..]
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
        see(fields)
    }

    /// Puts the event into the sink. The sink accounts for it, whatever becomes of it.
    pub(crate) fn offer(&self, meta: &Meta, sink: &mut Sink) -> Result<(), Reason> {
        self.fields(|fields| {
            sink.offer(&Event {
                observed_ns: meta.observed_ns,
                severity: meta.severity,
                clock: meta.clock as u8,
                entities: self.entities as u8,
                fields,
                message: &self.message,
                trace_id: self.trace.0,
                span_id: self.trace.1,
                ..Event::new(meta.id, meta.time_ns, meta.kind, meta.source)
            })
        })
    }
}
