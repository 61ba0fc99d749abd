//! The bytes of an event, of which single parts are read without decoding it.

use super::reader::{FIXED64, LEN, Reader, VARINT, WireError};
use tapio_core::event::{ClockQuality, EventId, Value};

/// The bytes of an event.
#[derive(Clone, Copy)]
pub struct RawEvent<'a>(Reader<'a>);

/// The parts of an event by which it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventKeys<'a> {
    /// Its time, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Its kind, as an index in the batch's names.
    pub kind: usize,
    /// Its severity's number.
    pub severity: u8,
    /// The bytes of its trace id; empty for none.
    pub trace: &'a [u8],
    /// The bytes of its message.
    pub message: &'a [u8],
}

impl<'a> RawEvent<'a> {
    pub(super) fn new(message: Reader<'a>) -> Self {
        Self(message)
    }

    pub(super) fn reader(self) -> Reader<'a> {
        self.0
    }

    /// The range of its bytes in the batch.
    #[must_use]
    pub fn range(self) -> std::ops::Range<usize> {
        self.0.range()
    }

    /// The event's id; `None` if the event is invalid.
    #[must_use]
    pub fn event_id(self) -> Option<EventId> {
        let mut r = self.0;
        while !r.is_empty() {
            match r.tag().ok()? {
                (3, LEN) => return Some(EventId(r.id().ok()?)),
                (_, wire_type) => r.skip(wire_type).ok()?,
            }
        }
        None
    }

    /// The parts of the event by which it is found; passes each entity's key, as an index in the
    /// batch's names, and its value to `entity`. `None` if the event is invalid.
    #[must_use]
    pub fn keys(self, mut entity: impl FnMut(usize, Value<'a>)) -> Option<EventKeys<'a>> {
        let mut keys = EventKeys { time_ns: 0, kind: 0, severity: 0, trace: &[], message: &[] };
        let mut r = self.0;
        while !r.is_empty() {
            match r.tag().ok()? {
                (1, FIXED64) => keys.time_ns = r.fixed64().ok()?,
                (4, VARINT) => keys.kind = r.varint().ok()?.try_into().ok()?,
                (6, VARINT) => keys.severity = r.varint().ok()?.try_into().ok()?,
                (8, LEN) => keys.trace = r.delimited().ok()?,
                (10, LEN) => keys.message = r.delimited().ok()?,
                (11, LEN) => {
                    let (key, value) = read_field(r.message().ok()?).ok()?;
                    entity(key.try_into().ok()?, value);
                }
                (_, wire_type) => r.skip(wire_type).ok()?,
            }
        }
        Some(keys)
    }

    /// The index of the kind's name; `None` if the event is invalid.
    #[must_use]
    pub fn kind_index(self) -> Option<usize> {
        let mut r = self.0;
        while !r.is_empty() {
            match r.tag().ok()? {
                (4, VARINT) => return r.varint().ok()?.try_into().ok(),
                (_, wire_type) => r.skip(wire_type).ok()?,
            }
        }
        Some(0)
    }

    /// The event's parts in its stories. Ends early if the event is invalid.
    pub fn roles(self) -> impl Iterator<Item = RoleInStory> + use<'a> {
        let mut r = self.0;
        std::iter::from_fn(move || {
            while !r.is_empty() {
                match r.tag().ok()? {
                    (13, LEN) => return read_role(r.message().ok()?),
                    (_, wire_type) => r.skip(wire_type).ok()?,
                }
            }
            None
        })
    }
}

/// An event's part in a story, as indexes in the batch's names.
#[derive(Clone, Copy, Debug)]
pub struct RoleInStory {
    /// The rule of the story.
    pub rule: usize,
    /// The event's pattern in it.
    pub pattern: usize,
}

/// Reads a `Correlation` message; `None` if it is invalid.
fn read_role(mut r: Reader<'_>) -> Option<RoleInStory> {
    let (mut rule, mut pattern) = (0, 0);
    while !r.is_empty() {
        match r.tag().ok()? {
            (2, VARINT) => rule = r.varint().ok()?,
            (3, VARINT) => pattern = r.varint().ok()?,
            (_, wire_type) => r.skip(wire_type).ok()?,
        }
    }
    Some(RoleInStory { rule: rule.try_into().ok()?, pattern: pattern.try_into().ok()? })
}

/// The event's time, if it is from the kernel's clock; delays are measured from it. Reads only the
/// event's first fields, in the order of [`super::BatchEncoder`].
#[must_use]
#[inline]
pub fn kernel_time(event: RawEvent<'_>) -> Option<u64> {
    let mut r = event.0;
    let mut time = 0;
    while !r.is_empty() {
        match r.tag().ok()? {
            (1, FIXED64) => time = r.fixed64().ok()?,
            (7, VARINT) if r.varint().ok()? != ClockQuality::Kernel as u64 => return None,
            (number, _) if number >= 7 => break,
            (_, wire_type) => r.skip(wire_type).ok()?,
        }
    }
    (time != 0).then_some(time)
}

/// Reads the key, as an index in the batch's names, and the value of a `Field` message.
#[inline]
pub(super) fn read_field(mut r: Reader<'_>) -> Result<(u64, Value<'_>), WireError> {
    let (mut key, mut value) = (0, Value::Null);
    while !r.is_empty() {
        match r.tag()? {
            (1, VARINT) => key = r.varint()?,
            (2, LEN) => value = Value::Str(r.text()?),
            (3, VARINT) => {
                let zigzag = r.varint()?;
                value = Value::Int((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
            (4, FIXED64) => value = Value::Float(f64::from_bits(r.fixed64()?)),
            (5, VARINT) => value = Value::Bool(r.varint()? != 0),
            (6, LEN) => value = Value::Json(r.text()?),
            (7, VARINT) => {
                r.varint()?;
                value = Value::Null;
            }
            (number, wire_type) => r.skip_unknown(number, 8, wire_type)?,
        }
    }
    Ok((key, value))
}
