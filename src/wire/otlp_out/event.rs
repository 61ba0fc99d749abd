//! An event's fields. Names stay indexes in its batch: an export interns nothing.

use crate::raw_event::{RawEvent, read_field};
use crate::reader::{FIXED64, LEN, Reader, VARINT, WireCause, WireError};
use tapio_core::event::Value;

/// The story of an event, as indexes in the batch's names.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoryRef<'a> {
    pub(super) id: &'a [u8],
    pub(super) rule: usize,
    pub(super) pattern: usize,
    pub(super) role: usize,
}

/// A field: the index of its name, and its value.
pub(super) type FieldView<'a> = (usize, Value<'a>);

/// An event.
#[derive(Debug, Default)]
pub(super) struct EventView<'a> {
    pub(super) time_ns: u64,
    pub(super) observed_ns: u64,
    pub(super) id: &'a [u8],
    pub(super) kind: usize,
    pub(super) source: usize,
    pub(super) severity: u8,
    /// The trace of its story, or the one that it arrived with.
    pub(super) trace: &'a [u8],
    /// The event's span in it.
    pub(super) span: &'a [u8],
    /// The context that it arrived with, where a story's trace replaced it.
    pub(super) incoming_trace: &'a [u8],
    pub(super) incoming_span: &'a [u8],
    pub(super) message: &'a str,
    pub(super) entities: Vec<FieldView<'a>>,
    pub(super) attributes: Vec<FieldView<'a>>,
    /// Which attributes are the resource's: the index of the first, and their number.
    resource: (usize, usize),
    /// Its first story.
    pub(super) story: Option<StoryRef<'a>>,
}

impl<'a> EventView<'a> {
    /// Reads an event into this one, whose lists are used again.
    ///
    /// # Errors
    /// When it is invalid.
    pub(super) fn read(&mut self, raw: RawEvent<'a>) -> Result<(), WireError> {
        let (mut entities, mut attributes) =
            (std::mem::take(&mut self.entities), std::mem::take(&mut self.attributes));
        entities.clear();
        attributes.clear();
        *self = Self { entities, attributes, ..Self::default() };
        let mut r = raw.reader();
        while !r.is_empty() {
            match r.tag()? {
                (12, LEN) => self.attributes.push(field(r.message()?)?),
                (11, LEN) => self.entities.push(field(r.message()?)?),
                (1, FIXED64) => self.time_ns = r.fixed64()?,
                (2, FIXED64) => self.observed_ns = r.fixed64()?,
                (3, LEN) => self.id = r.delimited()?,
                (4, VARINT) => self.kind = index(&mut r)?,
                (5, VARINT) => self.source = index(&mut r)?,
                (6, VARINT) => self.severity = u8::try_from(r.varint()?).unwrap_or(0).min(24),
                (8, LEN) => self.trace = r.delimited()?,
                (9, LEN) => self.span = r.delimited()?,
                (10, LEN) => self.message = r.text()?,
                (13, LEN) if self.story.is_none() => self.story = Some(story(r.message()?)?),
                (14, LEN) => self.incoming_trace = r.delimited()?,
                (15, LEN) => self.incoming_span = r.delimited()?,
                (16, VARINT) => {
                    let range = r.varint()?;
                    self.resource = ((range >> 8) as usize & 0xff, range as usize & 0xff);
                }
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(())
    }

    /// Whether the attribute at this index is the resource's.
    pub(super) fn is_of_resource(&self, index: usize) -> bool {
        let (first, attributes) = self.resource;
        (first..first + attributes).contains(&index)
    }

    /// The trace and span that the event arrived with; empty where it has none. `is_of_story`:
    /// whether the event's own trace is its story's.
    pub(super) fn incoming(&self) -> (&'a [u8], &'a [u8]) {
        match self.incoming_trace {
            [] if self.story.is_none() => (self.trace, self.span),
            trace => (trace, self.incoming_span),
        }
    }
}

fn index(r: &mut Reader<'_>) -> Result<usize, WireError> {
    let n = r.varint()?;
    usize::try_from(n).map_err(|_| r.error(WireCause::Truncated))
}

fn field(message: Reader<'_>) -> Result<FieldView<'_>, WireError> {
    let (key, value) = read_field(message)?;
    let key = usize::try_from(key).map_err(|_| message.error(WireCause::Truncated))?;
    Ok((key, value))
}

fn story(mut r: Reader<'_>) -> Result<StoryRef<'_>, WireError> {
    let mut story = StoryRef { id: &[], rule: 0, pattern: 0, role: 0 };
    while !r.is_empty() {
        match r.tag()? {
            (1, LEN) => story.id = r.delimited()?,
            (2, VARINT) => story.rule = index(&mut r)?,
            (3, VARINT) => story.pattern = index(&mut r)?,
            (4, VARINT) => story.role = index(&mut r)?,
            (_, wire_type) => r.skip(wire_type)?,
        }
    }
    Ok(story)
}
