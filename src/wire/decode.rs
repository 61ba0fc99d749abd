//! Decodes the bytes of an `EventBatch` into events that borrow from them. Hostile bytes give an
//! error with its position; everything that takes memory is bounded.

use super::raw_event::{RawEvent, read_field};
use super::raw_log_block::RawLogBlock;
use super::reader::{FIXED32, FIXED64, LEN, Reader, VARINT, WireCause, WireError};
use tapio_core::event::{ClockQuality, Event, EventId, Field, Name, NameSource, Severity, TraceId};
use tapio_core::ring::Membership;

/// The largest batch accepted: 16 MiB.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Longest name of a node, in bytes: that of a DNS name (RFC 1035, section 2.3.4).
pub const MAX_NODE_BYTES: usize = 255;
/// Names in a batch: as many as in a process.
const MAX_NAMES: usize = 32_768;
/// Longest name.
const MAX_NAME_BYTES: usize = 512;
/// Entity keys and attributes of an event.
const MAX_FIELDS: usize = 1024;
/// Entity keys of an event.
const MAX_ENTITIES: usize = 255;
/// Stories of an event.
const MAX_CORRELATIONS: usize = 255;

/// The field number of the sender's own counts.
const COLLECTOR_EVENTS_FIELD: u32 = 9;
const DROPPED_FROM_FIELD: u32 = 10;
/// The last field.
const LOG_BLOCKS_FIELD: u32 = 11;

/// The head of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchHead<'a> {
    /// Sequence number of the first item: the items that the sender has sent before.
    pub first_sequence: u64,
    /// Items in the batch.
    pub count: u32,
    /// The sender's node.
    pub node: &'a str,
    /// Identifies the sender's process: its start, nanoseconds since the Unix epoch.
    pub epoch: u64,
}

/// An item of a batch, undecoded.
#[derive(Clone, Copy)]
pub enum Item<'a> {
    /// An event, for [`EventDecoder::event`] and [`RawEvent`]'s methods.
    Event(RawEvent<'a>),
    /// A `Story` message's bytes.
    Story(&'a [u8]),
    /// Log records, each of which is an event. [`crate::expanded`] takes them apart.
    LogBlock(RawLogBlock<'a>),
}

/// A batch with a valid outline: head, number of items, names.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The head.
    pub head: BatchHead<'a>,
    /// Events among its items, with those in blocks.
    pub events: u32,
    /// Stories among its items.
    pub stories: u32,
    /// Blocks of log records.
    pub log_blocks: u32,
    bytes: &'a [u8],
    names: Vec<&'a str>,
    /// The packed `collector_events`.
    collector_events: &'a [u8],
    /// The first of the items before this empty batch that the sender has dropped.
    pub dropped_from: Option<u64>,
}

impl<'a> Batch<'a> {
    /// Reads the head and the names and skips the items.
    ///
    /// # Errors
    /// When the outline is invalid or `count` is wrong. The error has as much of the head as was
    /// read, to identify the batch in a refusal.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, (BatchHead<'a>, WireError)> {
        Self::parse_with(bytes, |_| {})
    }

    /// As [`Batch::parse`]; passes each item to `visit` when it is skipped.
    ///
    /// # Errors
    /// As [`Batch::parse`]; some items may have been visited.
    pub fn parse_with(
        bytes: &'a [u8],
        mut visit: impl FnMut(Item<'a>),
    ) -> Result<Self, (BatchHead<'a>, WireError)> {
        let mut batch = Self {
            head: BatchHead::default(),
            events: 0,
            stories: 0,
            log_blocks: 0,
            bytes,
            names: Vec::with_capacity(64),
            collector_events: &[],
            dropped_from: None,
        };
        match batch.outline(&mut visit) {
            Ok(()) => Ok(batch),
            Err(error) => Err((batch.head, error)),
        }
    }

    fn outline(&mut self, visit: &mut impl FnMut(Item<'a>)) -> Result<(), WireError> {
        let mut r = Reader::new(self.bytes);
        while !r.is_empty() {
            match r.tag()? {
                (6, LEN) => {
                    self.events += 1;
                    visit(Item::Event(RawEvent::new(r.message()?)));
                }
                (5, LEN) => {
                    let name = r.text()?;
                    if name.len() > MAX_NAME_BYTES {
                        return Err(r.error(WireCause::BadName));
                    }
                    if self.names.len() >= MAX_NAMES {
                        return Err(r.error(WireCause::TooMany("names")));
                    }
                    self.names.push(name);
                }
                (7, LEN) => {
                    self.stories += 1;
                    visit(Item::Story(r.delimited()?));
                }
                (LOG_BLOCKS_FIELD, LEN) => {
                    let block = RawLogBlock::new(r.message()?);
                    self.log_blocks += 1;
                    self.events = self.events.saturating_add(block.records()?);
                    visit(Item::LogBlock(block));
                }
                (DROPPED_FROM_FIELD, FIXED64) => self.dropped_from = Some(r.fixed64()?),
                (COLLECTOR_EVENTS_FIELD, LEN) => self.collector_events = r.delimited()?,
                (1, FIXED64) => self.head.first_sequence = r.fixed64()?,
                (2, FIXED32) => self.head.count = r.fixed32()?,
                (3, LEN) => {
                    let node = r.text()?;
                    if node.len() > MAX_NODE_BYTES {
                        return Err(r.error(WireCause::LongNode));
                    }
                    self.head.node = node;
                }
                (4, FIXED64) => self.head.epoch = r.fixed64()?,
                (number, wire_type) => r.skip_unknown(number, LOG_BLOCKS_FIELD, wire_type)?,
            }
        }
        let found = self.events.saturating_add(self.stories);
        if self.dropped_from.is_some_and(|from| found > 0 || from > self.head.first_sequence) {
            return Err(r.error(WireCause::OutOfRange(DROPPED_FROM_FIELD)));
        }
        if self.head.count != found {
            let count = self.head.count;
            return Err(r.error(WireCause::Count { count, found }));
        }
        Ok(())
    }

    /// The names that the events refer to by index.
    #[must_use]
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// Events of each of the sender's collectors, by the collector's number in that process.
    pub fn collector_events(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut r = Reader::new(self.collector_events);
        std::iter::from_fn(move || if r.is_empty() { None } else { r.varint().ok() })
            .map(|n| n.try_into().unwrap_or(u32::MAX))
    }

    /// The items, in the order in which they were sent.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let mut r = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            // `parse` has validated the outline, so nothing here fails.
            while !r.is_empty() {
                match r.tag().ok()? {
                    (6, LEN) => return Some(Item::Event(RawEvent::new(r.message().ok()?))),
                    (7, LEN) => return Some(Item::Story(r.delimited().ok()?)),
                    (LOG_BLOCKS_FIELD, LEN) => {
                        return Some(Item::LogBlock(RawLogBlock::new(r.message().ok()?)));
                    }
                    (_, wire_type) => r.skip(wire_type).ok()?,
                }
            }
            None
        })
    }

    /// A decoder for the batch's events. Interns the batch's names; attributes with a name for
    /// which the table of this process has no room are left out, events with such a kind are
    /// invalid.
    #[must_use]
    pub fn decoder(&self) -> EventDecoder<'a> {
        let name = |text: &&str| Name::intern_from(text, NameSource::Batches).ok();
        self.decoder_with(self.names.iter().map(name).collect())
    }

    /// A decoder that interns nothing, to show events: names that this process doesn't have are
    /// [`Name::local`], and [`Batch::name_text`] returns their texts.
    #[must_use]
    pub fn display_decoder(&self) -> EventDecoder<'a> {
        let names = self.names.iter().enumerate();
        let name = |(at, text): (usize, &&str)| Name::find(text).or_else(|| Name::local(at));
        self.decoder_with(names.map(name).collect())
    }

    /// The text of a name in an event of [`Batch::display_decoder`].
    #[must_use]
    pub fn name_text(&self, name: Name) -> &'a str {
        match name.local_index() {
            Some(at) => self.names.get(at).copied().unwrap_or_default(),
            None => name.text(),
        }
    }

    fn decoder_with(&self, names: Vec<Option<Name>>) -> EventDecoder<'a> {
        EventDecoder {
            names,
            fields: Vec::with_capacity(32),
            correlations: Vec::with_capacity(4),
            is_incomplete: false,
        }
    }
}

/// Decodes the events of a batch, one after the other, without allocating.
pub struct EventDecoder<'a> {
    /// `None` for those that can't be interned.
    names: Vec<Option<Name>>,
    fields: Vec<Field<'a>>,
    correlations: Vec<Membership>,
    /// Whether an attribute of the event was left out.
    is_incomplete: bool,
}

/// A decoded event.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// The event, with the trace context that the batch has for it.
    pub event: Event<'a>,
    /// Its memberships in stories.
    pub correlations: &'a [Membership],
    /// The trace that the event arrived with, where a story's trace replaced it.
    pub incoming_trace_id: TraceId,
    /// The span that the event arrived with, where a story's trace replaced its trace.
    pub incoming_span_id: [u8; 8],
}

impl<'a> Decoded<'a> {
    /// The event with the trace context that it arrived with.
    #[must_use]
    pub fn as_received(&self) -> Event<'a> {
        if !self.incoming_trace_id.is_some() {
            return self.event;
        }
        Event { trace_id: self.incoming_trace_id, span_id: self.incoming_span_id, ..self.event }
    }
}

impl<'a> EventDecoder<'a> {
    /// Decodes an event.
    ///
    /// # Errors
    /// When its bytes are no valid event, with the position in the batch.
    pub fn event<'s>(&'s mut self, raw: RawEvent<'a>) -> Result<Decoded<'s>, WireError> {
        self.fields.clear();
        self.correlations.clear();
        self.is_incomplete = false;
        let none = Name(0);
        let mut event = Event {
            severity: Severity(0),
            observed_ns: 0,
            clock: ClockQuality::Kernel as u8,
            ..Event::new(EventId::default(), 0, none, none)
        };
        let (mut kind, mut source, mut entities) = (0, 0, 0);
        let (mut incoming_trace, mut incoming_span) = ([0; 16], [0; 8]);
        let mut r = raw.reader();
        while !r.is_empty() {
            match r.tag()? {
                (12, LEN) => {
                    if let Some(field) = self.attribute(r.message()?)? {
                        self.push(&r, self.fields.len(), field)?;
                    }
                }
                (11, LEN) => {
                    let field = self.field(r.message()?)?;
                    if entities >= MAX_ENTITIES {
                        return Err(r.error(WireCause::TooMany("entity keys")));
                    }
                    self.push(&r, entities, field)?;
                    entities += 1;
                }
                (1, FIXED64) => event.time_ns = r.fixed64()?,
                (2, FIXED64) => event.observed_ns = r.fixed64()?,
                (3, LEN) => event.id = EventId(r.id()?),
                (4, VARINT) => kind = r.varint()?,
                (5, VARINT) => source = r.varint()?,
                (6, VARINT) => event.severity = Severity(ranged(&mut r, 6, 24)?),
                (7, VARINT) => event.clock = ranged(&mut r, 7, 2)?,
                (8, LEN) => event.trace_id = TraceId(r.id()?),
                (9, LEN) => event.span_id = r.id()?,
                (10, LEN) => event.message = r.text()?,
                (13, LEN) => {
                    let correlation = self.correlation(r.message()?)?;
                    if self.correlations.len() >= MAX_CORRELATIONS {
                        return Err(r.error(WireCause::TooMany("correlations")));
                    }
                    self.correlations.push(correlation);
                }
                (14, LEN) => incoming_trace = r.id()?,
                (15, LEN) => incoming_span = r.id()?,
                (16, VARINT) => {
                    let range = u16::try_from(r.varint()?);
                    event.resource =
                        range.map_err(|_| r.error(WireCause::OutOfRange(16)))?.to_be_bytes();
                }
                (number, wire_type) => r.skip_unknown(number, 16, wire_type)?,
            }
        }
        event.kind = self.name(&r, kind)?;
        event.source = self.name(&r, source)?;
        event.entities = entities as u8;
        if self.is_incomplete {
            // The range of the resource's attributes isn't known any more.
            event.resource = [0; 2];
        }
        Ok(Decoded {
            event: Event { fields: &self.fields, ..event },
            correlations: &self.correlations,
            incoming_trace_id: TraceId(incoming_trace),
            incoming_span_id: incoming_span,
        })
    }

    #[inline]
    fn name(&self, r: &Reader<'_>, index: u64) -> Result<Name, WireError> {
        match usize::try_from(index).ok().and_then(|i| self.names.get(i)) {
            Some(Some(name)) => Ok(*name),
            Some(None) => Err(r.error(WireCause::BadName)),
            None => {
                let names = self.names.len();
                Err(r.error(WireCause::NoSuchName { index, names }))
            }
        }
    }

    /// Inserts a field. Entity keys precede attributes, in whatever order they were sent.
    #[inline]
    fn push(&mut self, r: &Reader<'_>, at: usize, field: Field<'a>) -> Result<(), WireError> {
        if self.fields.len() >= MAX_FIELDS {
            return Err(r.error(WireCause::TooMany("fields")));
        }
        self.fields.insert(at, field);
        Ok(())
    }

    #[inline]
    /// Reads an attribute; `None` for one whose name has no room.
    fn attribute(&mut self, message: Reader<'a>) -> Result<Option<Field<'a>>, WireError> {
        let (key, value) = read_field(message)?;
        let index = usize::try_from(key).ok();
        if index.is_some_and(|index| matches!(self.names.get(index), Some(None))) {
            self.is_incomplete = true;
            return Ok(None);
        }
        Ok(Some(Field { key: self.name(&message, key)?, value }))
    }

    fn field(&self, message: Reader<'a>) -> Result<Field<'a>, WireError> {
        let (key, value) = read_field(message)?;
        Ok(Field { key: self.name(&message, key)?, value })
    }

    fn correlation(&self, mut r: Reader<'a>) -> Result<Membership, WireError> {
        let (mut story, mut related, mut seen) = ([0; 16], [EventId::default(); 2], 0);
        let mut indexes = [0; 3];
        while !r.is_empty() {
            match r.tag()? {
                (1, LEN) => story = r.id()?,
                (number @ 2..=4, VARINT) => indexes[number as usize - 2] = r.varint()?,
                (5, LEN) => {
                    let id = EventId(r.id()?);
                    // The first and the latest of the earlier members.
                    related[usize::from(seen > 0)] = id;
                    seen += 1;
                }
                (number, wire_type) => r.skip_unknown(number, 5, wire_type)?,
            }
        }
        Ok(Membership {
            // Ranks aren't sent; on the wire the first membership is the best.
            rank: 0,
            story: TraceId(story),
            rule: self.name(&r, indexes[0])?,
            pattern: self.name(&r, indexes[1])?,
            role: self.name(&r, indexes[2])?,
            related,
        })
    }
}

/// Reads the number of a field that may be at most `max`.
fn ranged(r: &mut Reader<'_>, field: u32, max: u8) -> Result<u8, WireError> {
    let value = r.varint()?;
    if value > u64::from(max) {
        return Err(r.error(WireCause::OutOfRange(field)));
    }
    Ok(value as u8)
}
