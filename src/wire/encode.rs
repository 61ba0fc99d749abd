//! Records from a ring → the bytes of an `EventBatch`, without anything in between.

use bytes::Bytes;

use super::buffer::{Buffer, Pen, Pool, varint_len};
use super::story::story_to_proto;
use tapio_core::event::{ArchivedEvent, ArchivedField, Name, Story, TraceId, Value};
use tapio_core::ring::{Header, MAX_COLLECTORS, Membership, Record, RecordType};

/// A gRPC message's prefix: a flag and a length.
pub(super) const GRPC_PREFIX_BYTES: usize = 5;
/// Varint bytes of an event's length: up to 2 MiB, far more than a record becomes.
const EVENT_LEN_BYTES: usize = 3;
/// What an event's own fields need at most, without what its record holds.
const EVENT_SLACK_BYTES: usize = 256;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the batch.
    Event,
    /// It is in the batch: a story.
    Story,
    /// Nothing to send: a watermark.
    Nothing,
    /// The batch has no room for it: finish the batch and append it again.
    Full,
}

/// Writes batches, one after the other.
pub struct BatchEncoder {
    node: String,
    epoch: u64,
    next_sequence: u64,
    batch_bytes: usize,
    pool: Pool,
    buffer: Buffer,
    names: Dictionary,
    open: Counts,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    items: u32,
    events: u32,
    stories: u32,
    collectors: [u32; MAX_COLLECTORS],
}

/// A finished batch.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    framed: Bytes,
    /// Items the sender has sent before this batch's first.
    pub first_sequence: u64,
    /// Items: events and stories.
    pub items: u32,
    /// Events.
    pub events: u32,
    /// Stories.
    pub stories: u32,
    /// Events of each collector, by its number.
    pub collectors: [u32; MAX_COLLECTORS],
}

impl EncodedBatch {
    /// The `EventBatch`.
    #[must_use]
    pub fn message(&self) -> Bytes {
        self.framed.slice(GRPC_PREFIX_BYTES..)
    }

    /// The `EventBatch` behind its gRPC prefix, as it stands in an HTTP/2 stream.
    #[must_use]
    pub fn framed(&self) -> Bytes {
        self.framed.clone()
    }

    /// Bytes it takes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.framed.len()
    }

    /// The sequence number behind its last item.
    #[must_use]
    pub fn end_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.items)
    }
}

/// Which place each name has in the batch being written. Dense, so that a name costs a load; a
/// new batch is a new generation, so that nothing is cleared.
struct Dictionary {
    places: Vec<(u32, u16)>,
    generation: u32,
    names: Vec<Name>,
    text_bytes: usize,
}

impl Dictionary {
    fn new() -> Self {
        Self {
            places: vec![(0, 0); usize::from(u16::MAX) + 1],
            generation: 1,
            names: Vec::with_capacity(256),
            text_bytes: 0,
        }
    }

    #[inline]
    fn place(&mut self, name: Name) -> u16 {
        let (generation, place) = self.places[usize::from(name.0)];
        if generation == self.generation { place } else { self.add(name) }
    }

    #[cold]
    fn add(&mut self, name: Name) -> u16 {
        let place = self.names.len() as u16;
        self.places[usize::from(name.0)] = (self.generation, place);
        self.names.push(name);
        self.text_bytes += name.text().len() + 1 + EVENT_LEN_BYTES;
        place
    }

    fn clear(&mut self) {
        self.names.clear();
        self.text_bytes = 0;
        self.generation = self.generation.checked_add(1).unwrap_or_else(|| {
            self.places.fill((0, 0));
            1
        });
    }
}

impl BatchEncoder {
    /// An encoder for batches of about `batch_bytes`. `epoch` identifies this process: its start
    /// in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(node: &str, epoch: u64, batch_bytes: usize) -> Self {
        let pool = Pool::default();
        let buffer = pool.buffer(batch_bytes);
        let mut encoder = Self {
            node: node.to_owned(),
            epoch,
            next_sequence: 0,
            batch_bytes,
            pool,
            buffer,
            names: Dictionary::new(),
            open: Counts::default(),
        };
        encoder.begin();
        encoder
    }

    /// Identifies the sending process.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether nothing was appended since the last batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.items == 0
    }

    /// Items in the batch being written.
    #[must_use]
    pub fn items(&self) -> u32 {
        self.open.items
    }

    /// Bytes of the batch being written.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.buffer.used
    }

    /// Events of each collector in the batch being written.
    #[must_use]
    pub fn collectors(&self) -> &[u32; MAX_COLLECTORS] {
        &self.open.collectors
    }

    fn head_bytes(&self) -> usize {
        GRPC_PREFIX_BYTES + 9 + 5 + 1 + varint_len(self.node.len() as u64) + self.node.len() + 9
    }

    fn begin(&mut self) {
        self.names.clear();
        self.open = Counts::default();
        let head = self.head_bytes();
        self.buffer.reserve(head);
        self.buffer.used = head;
    }

    /// Appends what a record holds.
    pub fn append(&mut self, record: &Record<'_>) -> Appended {
        // An archive holds every text and, for each field, at least half of what its numbers take
        // on the wire: so twice the record is more than it becomes.
        let bound = 2 * record.len_blocks() * tapio_core::ring::BLOCK_BYTES + EVENT_SLACK_BYTES;
        if !self.buffer.has_room(bound + self.names.text_bytes) && !self.is_empty() {
            return Appended::Full;
        }
        if let Some(event) = record.event() {
            self.buffer.reserve(bound);
            self.event(record.header(), event, record.memberships());
            return Appended::Event;
        }
        match record.story().map(rkyv::deserialize::<Story, rkyv::rancor::Failure>) {
            Some(Ok(story)) => {
                self.story(&story);
                Appended::Story
            }
            // A deserialisation into plain Strings and Vecs has no way to fail.
            Some(Err(_)) | None => {
                debug_assert_ne!(record.header().record, RecordType::Story);
                Appended::Nothing
            }
        }
    }

    fn event(
        &mut self,
        header: &Header,
        event: &ArchivedEvent<'_>,
        memberships: impl ExactSizeIterator<Item = Membership>,
    ) {
        let kind = self.names.place(event.kind_name());
        let source = self.names.place(event.source_name());
        let names = &mut self.names;
        let mut pen = self.buffer.pen();
        pen.byte(6 << 3 | 2);
        let start = pen.length_later(EVENT_LEN_BYTES);
        pen.fixed64(1 << 3 | 1, event.time());
        pen.fixed64(2 << 3 | 1, event.observed_ns.to_native());
        pen.delimited(3 << 3 | 2, &event.id.0);
        pen.byte(4 << 3);
        pen.varint(u64::from(kind));
        pen.byte(5 << 3);
        pen.varint(u64::from(source));
        pen.byte(6 << 3);
        pen.byte(event.severity.0 & 0x7f);
        if event.clock != 0 {
            pen.byte(7 << 3);
            pen.byte(event.clock & 0x7f);
        }
        let incoming = event.incoming_trace();
        let (trace, span) = if header.trace_id.is_some() {
            (header.trace_id, header.span_id)
        } else {
            (incoming.unwrap_or(TraceId::NONE), event.span_id)
        };
        if trace.is_some() {
            pen.delimited(8 << 3 | 2, &trace.0);
        }
        if span != [0; 8] {
            pen.delimited(9 << 3 | 2, &span);
        }
        let message = event.message.as_bytes();
        if !message.is_empty() {
            pen.delimited(10 << 3 | 2, message);
        }
        for field in event.entity_fields() {
            write_field(&mut pen, 11 << 3 | 2, field, names);
        }
        for field in event.attribute_fields() {
            write_field(&mut pen, 12 << 3 | 2, field, names);
        }
        for membership in memberships {
            write_membership(&mut pen, &membership, names);
        }
        if let Some(incoming) = incoming.filter(|t| *t != trace) {
            pen.delimited(14 << 3 | 2, &incoming.0);
            if event.span_id != [0; 8] {
                pen.delimited(15 << 3 | 2, &event.span_id);
            }
        }
        pen.length_now(start, EVENT_LEN_BYTES);
        self.buffer.used = pen.at;
        self.open.items += 1;
        self.open.events += 1;
        self.open.collectors[usize::from(header.collector) % MAX_COLLECTORS] += 1;
    }

    /// Appends a story.
    pub fn story(&mut self, story: &Story) {
        let bytes = prost::Message::encode_to_vec(&story_to_proto(story));
        self.buffer.reserve(bytes.len() + 16);
        let mut pen = self.buffer.pen();
        pen.delimited(7 << 3 | 2, &bytes);
        self.buffer.used = pen.at;
        self.open.items += 1;
        self.open.stories += 1;
    }

    /// Closes the batch: appends the names, fills in the head. `None` if nothing was appended.
    pub fn finish(&mut self) -> Option<EncodedBatch> {
        if self.is_empty() {
            return None;
        }
        self.buffer.reserve(self.names.text_bytes);
        let mut pen = self.buffer.pen();
        for name in &self.names.names {
            pen.delimited(5 << 3 | 2, name.text().as_bytes());
        }
        let len = pen.at;
        pen.at = 0;
        pen.byte(0);
        pen.raw(&((len - GRPC_PREFIX_BYTES) as u32).to_be_bytes());
        pen.fixed64(1 << 3 | 1, self.next_sequence);
        pen.byte(2 << 3 | 5);
        pen.raw(&self.open.items.to_le_bytes());
        pen.delimited(3 << 3 | 2, self.node.as_bytes());
        pen.fixed64(4 << 3 | 1, self.epoch);
        debug_assert_eq!(pen.at, self.head_bytes());
        self.buffer.used = len;
        let framed = self.pool.share(&mut self.buffer, self.batch_bytes);
        let counts = std::mem::take(&mut self.open);
        let batch = EncodedBatch {
            framed,
            first_sequence: self.next_sequence,
            items: counts.items,
            events: counts.events,
            stories: counts.stories,
            collectors: counts.collectors,
        };
        self.next_sequence += u64::from(batch.items);
        self.begin();
        Some(batch)
    }
}

/// `Field`: its length is known before it is written.
#[inline]
fn write_field(pen: &mut Pen<'_>, tag: u8, field: &ArchivedField<'_>, names: &mut Dictionary) {
    let place = u64::from(names.place(field.name()));
    let key_len = 1 + varint_len(place);
    let begin = |pen: &mut Pen<'_>, value_len: usize| {
        pen.byte(tag);
        pen.varint((key_len + value_len) as u64);
        pen.byte(1 << 3);
        pen.varint(place);
    };
    let text = |pen: &mut Pen<'_>, value_tag: u8, text: &str| {
        begin(pen, 1 + varint_len(text.len() as u64) + text.len());
        pen.delimited(value_tag, text.as_bytes());
    };
    match field.value.get() {
        Value::Str(s) => text(pen, 2 << 3 | 2, s),
        Value::Json(s) => text(pen, 6 << 3 | 2, s),
        Value::Int(n) => {
            let zigzag = ((n << 1) ^ (n >> 63)) as u64;
            begin(pen, 1 + varint_len(zigzag));
            pen.byte(3 << 3);
            pen.varint(zigzag);
        }
        Value::Float(n) => {
            begin(pen, 9);
            pen.fixed64(4 << 3 | 1, n.to_bits());
        }
        Value::Bool(b) => {
            begin(pen, 2);
            pen.byte(5 << 3);
            pen.byte(u8::from(b));
        }
        Value::Null => {
            begin(pen, 2);
            pen.byte(7 << 3);
            pen.byte(1);
        }
    }
}

fn write_membership(pen: &mut Pen<'_>, membership: &Membership, names: &mut Dictionary) {
    pen.byte(13 << 3 | 2);
    let start = pen.length_later(1);
    pen.delimited(1 << 3 | 2, &membership.story.0);
    for (tag, name) in
        [(2 << 3, membership.rule), (3 << 3, membership.pattern), (4 << 3, membership.role)]
    {
        pen.byte(tag);
        pen.varint(u64::from(names.place(name)));
    }
    for related in membership.related.iter().filter(|id| id.0 != [0; 16]) {
        pen.delimited(5 << 3 | 2, &related.0);
    }
    // 18 + 3 × 4 + 2 × 18 bytes at most: one length byte is enough.
    pen.length_now(start, 1);
}
