//! Encodes records from a ring directly into the bytes of an `EventBatch`.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::buffer::{Buffer, Pool, ProtoWriter, varint_len};
use super::story::story_to_proto;
use tapio_core::event::{ArchivedEvent, ArchivedField, Name, Story, TraceId, Value};
use tapio_core::ring::{
    BLOCK_BYTES, Header, MAX_ACCOUNTS, MAX_COLLECTORS, Membership, Record, RecordType,
};

/// A gRPC message's prefix: a flag and a length.
pub const GRPC_PREFIX_BYTES: usize = 5;
/// A message after its gRPC prefix, uncompressed (PROTOCOL-HTTP2.md of gRPC).
#[must_use]
pub fn grpc_framed(message: &[u8]) -> Bytes {
    framed_as(0, message)
}

/// A message that was compressed with zstd, after its gRPC prefix.
#[must_use]
pub fn grpc_framed_zstd(compressed: &[u8]) -> Bytes {
    framed_as(1, compressed)
}

fn framed_as(flag: u8, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(GRPC_PREFIX_BYTES + message.len());
    framed.put_u8(flag);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// Varint bytes of an event's length: up to 2 MiB, far more than a record takes on the wire.
const EVENT_LEN_BYTES: usize = 3;
/// Upper bound for an event's own fields, besides the content of its record.
pub(crate) const EVENT_SLACK_BYTES: usize = 256;

/// Result of appending a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// An event was appended.
    Event,
    /// A story was appended.
    Story,
    /// Nothing was appended: the record is a watermark.
    Nothing,
    /// The batch has no room: finish it and append the record again.
    Full,
}

/// Encodes one batch after the other.
pub struct BatchEncoder {
    node: String,
    epoch: u64,
    next_sequence: u64,
    batch_bytes: usize,
    pool: Pool,
    pub(crate) buffer: Buffer,
    pub(crate) names: Dictionary,
    open: Counts,
    /// Upper bound of the events that a receiver makes of the log records so far.
    pub(crate) expanded_bytes: usize,
}

#[derive(Clone, Debug)]
struct Counts {
    items: u32,
    events: u32,
    stories: u32,
    accounts: [u32; MAX_ACCOUNTS],
}

impl Default for Counts {
    fn default() -> Self {
        Self { items: 0, events: 0, stories: 0, accounts: [0; MAX_ACCOUNTS] }
    }
}

/// A finished batch.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    framed: Bytes,
    /// Sequence number of the first item: the items sent before.
    pub first_sequence: u64,
    /// Items: events and stories.
    pub items: u32,
    /// Events.
    pub events: u32,
    /// Stories.
    pub stories: u32,
    /// Events of each account ([`Header::account`]).
    pub accounts: [u32; MAX_ACCOUNTS],
}

impl EncodedBatch {
    /// The `EventBatch`.
    #[must_use]
    pub fn message(&self) -> Bytes {
        self.framed.slice(GRPC_PREFIX_BYTES..)
    }

    /// The `EventBatch` after its gRPC prefix, as an HTTP/2 stream carries it.
    #[must_use]
    pub fn framed(&self) -> Bytes {
        self.framed.clone()
    }

    /// Size with the gRPC prefix.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.framed.len()
    }

    /// One past the sequence number of the last item.
    #[must_use]
    pub fn end_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.items)
    }
}

/// The index of each name in the batch being written. Dense, so that a lookup is one load; each
/// batch is a generation, so that nothing has to be cleared.
pub(crate) struct Dictionary {
    /// Generation and index, by name; as long as the largest number of a name so far needs.
    indexes: Vec<(u32, u16)>,
    generation: u32,
    names: Vec<Name>,
    pub(crate) text_bytes: usize,
}

impl Dictionary {
    fn new() -> Self {
        Self { indexes: Vec::new(), generation: 1, names: Vec::with_capacity(256), text_bytes: 0 }
    }

    #[inline]
    fn index(&mut self, name: Name) -> u16 {
        match self.indexes.get(usize::from(name.0)) {
            Some((generation, index)) if *generation == self.generation => *index,
            _ => self.add(name),
        }
    }

    #[cold]
    fn add(&mut self, name: Name) -> u16 {
        let index = self.names.len() as u16;
        let number = usize::from(name.0);
        if number >= self.indexes.len() {
            self.indexes.resize(number + 1, (0, 0));
        }
        self.indexes[number] = (self.generation, index);
        self.names.push(name);
        self.text_bytes += name.text().len() + 1 + EVENT_LEN_BYTES;
        index
    }

    fn clear(&mut self) {
        self.names.clear();
        self.text_bytes = 0;
        self.generation = self.generation.checked_add(1).unwrap_or_else(|| {
            self.indexes.fill((0, 0));
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
            expanded_bytes: 0,
        };
        encoder.begin();
        encoder
    }

    /// Identifies the sending process.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether the batch being written is empty.
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

    /// Events of each account in the batch being written.
    #[must_use]
    pub fn accounts(&self) -> &[u32; MAX_ACCOUNTS] {
        &self.open.accounts
    }

    fn head_bytes(&self) -> usize {
        GRPC_PREFIX_BYTES + 9 + 5 + 1 + varint_len(self.node.len() as u64) + self.node.len() + 9
    }

    fn begin(&mut self) {
        self.names.clear();
        self.open = Counts::default();
        self.expanded_bytes = 0;
        let head = self.head_bytes();
        self.buffer.reserve(head);
        self.buffer.used = head;
    }

    /// Appends the event or story of a record.
    pub fn append(&mut self, record: &Record<'_>) -> Appended {
        if let Some(block) = record.log_block() {
            return self.append_logs(record, (&block.encoded, block.records.to_native()));
        }
        // An archive contains every text and, for each field, at least half of the bytes that its
        // numbers take on the wire: twice the record's size is an upper bound.
        let bound = 2 * record.len_blocks() * BLOCK_BYTES + EVENT_SLACK_BYTES;
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
            // Deserialisation into plain Strings and Vecs can't fail.
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
        memberships: impl ExactSizeIterator<Item = Membership> + Clone,
    ) {
        let kind = self.names.index(event.kind_name());
        let source = self.names.index(event.source_name());
        let names = &mut self.names;
        let mut out = self.buffer.writer();
        out.byte(6 << 3 | 2);
        let start = out.reserve_length(EVENT_LEN_BYTES);
        out.fixed64(1 << 3 | 1, event.time());
        out.fixed64(2 << 3 | 1, event.observed_ns.to_native());
        out.delimited(3 << 3 | 2, &event.id.0);
        out.byte(4 << 3);
        out.varint(u64::from(kind));
        out.byte(5 << 3);
        out.varint(u64::from(source));
        out.byte(6 << 3);
        out.byte(event.severity.0 & 0x7f);
        if event.clock != 0 {
            out.byte(7 << 3);
            out.byte(event.clock & 0x7f);
        }
        let incoming = event.incoming_trace();
        let (trace, span) = if header.trace_id.is_some() {
            (header.trace_id, header.span_id)
        } else {
            (incoming.unwrap_or(TraceId::NONE), event.span_id)
        };
        if trace.is_some() {
            out.delimited(8 << 3 | 2, &trace.0);
        }
        if span != [0; 8] {
            out.delimited(9 << 3 | 2, &span);
        }
        let message = event.message.as_bytes();
        if !message.is_empty() {
            out.delimited(10 << 3 | 2, message);
        }
        for field in event.entity_fields() {
            write_field(&mut out, 11 << 3 | 2, field, names);
        }
        for field in event.attribute_fields() {
            write_field(&mut out, 12 << 3 | 2, field, names);
        }
        write_memberships(&mut out, memberships, names);
        if let Some(incoming) = incoming.filter(|t| *t != trace) {
            out.delimited(14 << 3 | 2, &incoming.0);
            if event.span_id != [0; 8] {
                out.delimited(15 << 3 | 2, &event.span_id);
            }
        }
        let resource = u16::from_be_bytes(event.resource);
        if resource & 0xff != 0 {
            // The tag of field 16 has two bytes.
            out.varint(16 << 3);
            out.varint(u64::from(resource));
        }
        out.fill_length(start, EVENT_LEN_BYTES);
        self.buffer.used = out.at;
        self.count_events(header.account(), 1);
    }

    /// Counts events that were appended.
    pub(crate) fn count_events(&mut self, account: u8, events: u32) {
        self.open.items += events;
        self.open.events += events;
        self.open.accounts[usize::from(account) % MAX_ACCOUNTS] += events;
    }

    /// Appends a story.
    pub fn story(&mut self, story: &Story) {
        let bytes = prost::Message::encode_to_vec(&story_to_proto(story));
        self.buffer.reserve(bytes.len() + 16);
        let mut out = self.buffer.writer();
        out.delimited(7 << 3 | 2, &bytes);
        self.buffer.used = out.at;
        self.open.items += 1;
        self.open.stories += 1;
    }

    /// Finishes the batch: appends the names and fills in the head. `None` if it is empty.
    pub fn finish(&mut self) -> Option<EncodedBatch> {
        if self.is_empty() {
            return None;
        }
        let collectors = collector_events(&self.open.accounts);
        self.buffer.reserve(self.names.text_bytes + collectors.len() + 4);
        let mut out = self.buffer.writer();
        out.delimited(9 << 3 | 2, &collectors);
        for name in &self.names.names {
            out.delimited(5 << 3 | 2, name.text().as_bytes());
        }
        let len = out.at;
        out.at = 0;
        out.byte(0);
        out.raw(&((len - GRPC_PREFIX_BYTES) as u32).to_be_bytes());
        out.fixed64(1 << 3 | 1, self.next_sequence);
        out.byte(2 << 3 | 5);
        out.raw(&self.open.items.to_le_bytes());
        out.delimited(3 << 3 | 2, self.node.as_bytes());
        out.fixed64(4 << 3 | 1, self.epoch);
        debug_assert_eq!(out.at, self.head_bytes());
        self.buffer.used = len;
        let framed = self.pool.share(&mut self.buffer, self.batch_bytes);
        let counts = std::mem::take(&mut self.open);
        let batch = EncodedBatch {
            framed,
            first_sequence: self.next_sequence,
            items: counts.items,
            events: counts.events,
            stories: counts.stories,
            accounts: counts.accounts,
        };
        self.next_sequence += u64::from(batch.items);
        self.begin();
        Some(batch)
    }
}

/// The packed `collector_events`: generations don't matter outside this process.
fn collector_events(accounts: &[u32; MAX_ACCOUNTS]) -> Vec<u8> {
    let (first, second) = accounts.split_at(MAX_COLLECTORS);
    let events: Vec<u64> =
        first.iter().zip(second).map(|(a, b)| u64::from(*a) + u64::from(*b)).collect();
    let used = events.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
    let mut packed = Vec::with_capacity(used * 2);
    events[..used].iter().for_each(|n| prost::encoding::encode_varint(*n, &mut packed));
    packed
}

/// Writes a `Field`. Its length is known in advance.
#[inline]
pub(crate) fn write_field(
    out: &mut ProtoWriter<'_>,
    tag: u8,
    field: &ArchivedField<'_>,
    names: &mut Dictionary,
) {
    let index = u64::from(names.index(field.name()));
    let key_len = 1 + varint_len(index);
    let begin = |out: &mut ProtoWriter<'_>, value_len: usize| {
        out.byte(tag);
        out.varint((key_len + value_len) as u64);
        out.byte(1 << 3);
        out.varint(index);
    };
    let text = |out: &mut ProtoWriter<'_>, value_tag: u8, text: &str| {
        begin(out, 1 + varint_len(text.len() as u64) + text.len());
        out.delimited(value_tag, text.as_bytes());
    };
    match field.value.get() {
        Value::Str(s) => text(out, 2 << 3 | 2, s),
        Value::Json(s) => text(out, 6 << 3 | 2, s),
        Value::Int(n) => {
            let zigzag = ((n << 1) ^ (n >> 63)) as u64;
            begin(out, 1 + varint_len(zigzag));
            out.byte(3 << 3);
            out.varint(zigzag);
        }
        Value::Float(n) => {
            begin(out, 9);
            out.fixed64(4 << 3 | 1, n.to_bits());
        }
        Value::Bool(b) => {
            begin(out, 2);
            out.byte(5 << 3);
            out.byte(u8::from(b));
        }
        Value::Null => {
            begin(out, 2);
            out.byte(7 << 3);
            out.byte(1);
        }
    }
}

/// Writes a `Correlation`.
/// Writes the memberships: first the one in the story whose trace the event has.
fn write_memberships(
    out: &mut ProtoWriter<'_>,
    memberships: impl Iterator<Item = Membership> + Clone,
    names: &mut Dictionary,
) {
    let first = memberships.clone().enumerate().min_by_key(|(_, m)| (m.rank, m.story));
    let first_at = first.as_ref().map(|(at, _)| *at);
    let others = memberships.enumerate().filter(|(at, _)| Some(*at) != first_at);
    for (_, membership) in first.into_iter().chain(others) {
        write_membership(out, &membership, names);
    }
}

fn write_membership(out: &mut ProtoWriter<'_>, membership: &Membership, names: &mut Dictionary) {
    out.byte(13 << 3 | 2);
    let start = out.reserve_length(1);
    out.delimited(1 << 3 | 2, &membership.story.0);
    for (tag, name) in
        [(2 << 3, membership.rule), (3 << 3, membership.pattern), (4 << 3, membership.role)]
    {
        out.byte(tag);
        out.varint(u64::from(names.index(name)));
    }
    for related in membership.related.iter().filter(|id| id.0 != [0; 16]) {
        out.delimited(5 << 3 | 2, &related.0);
    }
    // At most 18 + 3 × 4 + 2 × 18 bytes: one length byte is enough.
    out.fill_length(start, 1);
}
