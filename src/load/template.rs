//! Batches that are built once and patched for each send, so that the generator's cost is
//! negligible compared to the measured load.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::config::LoadConfig;
use tapio_core::event::{Event, EventId, Field, Name, NameError, Severity, Value, names};
use tapio_core::ring::{Header, ring};
use tapio_wire::{Batch, BatchEncoder, EncodedBatch, Item};

/// The pod uid of every event; the key replaces its first eight digits.
const POD_UID: &str = "00000000-16cd-43dd-8448-eb211c80319c";
const KEY_DIGITS: usize = 8;
/// Offset of `first_sequence`: after the gRPC prefix and the tag.
const SEQUENCE_OFFSET: usize = 5 + 1;
/// How many of [`typical_fields`] are entity keys; the rest are attributes.
pub const TYPICAL_ENTITIES: u8 = 4;
/// The message of a typical event.
pub const TYPICAL_MESSAGE: &str = "upstream connect error";
/// Templates, sent in turn: over all of them the share of matching events is exact.
const TEMPLATES: usize = 16;
/// The kind of events that are relevant to no rule.
const FILLER_KIND: &str = "load.event";

/// The fields of a typical event: eight, with the message about 200 bytes on the wire. The
/// generator sends them and the benchmark of the codec measures them.
#[must_use]
pub fn typical_fields<'a>(node: &'a str, pod_uid: &'a str) -> [Field<'a>; 8] {
    [
        (names::HOST_NAME, Value::Str(node)),
        (names::K8S_POD_UID, Value::Str(pod_uid)),
        (names::PROCESS_PID, Value::Int(4711)),
        (names::SERVICE_NAME, Value::Str("checkout")),
        (names::NETWORK_TRANSPORT, Value::Str("tcp")),
        (names::NETWORK_PEER_ADDRESS, Value::Str("10.42.0.17")),
        (names::NETWORK_PEER_PORT, Value::Int(8443)),
        (names::ERROR_TYPE, Value::Str("ECONNREFUSED")),
    ]
    .map(|(key, value)| Field { key, value })
}

/// Offsets of an event's patched fields in the framed batch.
#[derive(Clone, Copy)]
struct Offsets {
    time: usize,
    observed: usize,
    sequence: usize,
    key: usize,
}

/// A batch to patch.
pub(super) struct Template {
    framed: Bytes,
    events: Arc<[Offsets]>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A patched batch in flight. Its buffer returns to its template.
struct PooledBatch {
    bytes: Vec<u8>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for PooledBatch {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PooledBatch {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < 4 {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Template {
    /// Events in the batch.
    pub(super) fn events(&self) -> u64 {
        self.events.len() as u64
    }

    /// Size of the batch.
    pub(super) fn len_bytes(&self) -> usize {
        self.framed.len()
    }

    /// The batch of events from `sequence` on, all due at `time_ns`, with `keys` distinct keys.
    pub(super) fn batch(&self, sequence: u64, time_ns: u64, keys: u64) -> Bytes {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = spare.unwrap_or_else(|| self.framed.to_vec());
        let put = |bytes: &mut [u8], at: usize, value: [u8; 8]| {
            bytes[at..at + 8].copy_from_slice(&value);
        };
        put(&mut bytes, SEQUENCE_OFFSET, sequence.to_le_bytes());
        for (n, event) in (sequence..).zip(self.events.iter()) {
            put(&mut bytes, event.time, time_ns.to_le_bytes());
            put(&mut bytes, event.observed, time_ns.to_le_bytes());
            put(&mut bytes, event.sequence, n.to_be_bytes());
            put(&mut bytes, event.key, hex(key(n, keys)));
        }
        Bytes::from_owner(PooledBatch { bytes, spare: Arc::clone(&self.spare) })
    }
}

/// The key of the `n`-th event: evenly distributed, and the same in every run.
fn key(n: u64, keys: u64) -> u32 {
    // SplitMix64's finaliser.
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((u128::from(x ^ x >> 31) * u128::from(keys)) >> 64) as u32
}

fn hex(n: u32) -> [u8; KEY_DIGITS] {
    std::array::from_fn(|i| b"0123456789abcdef"[(n >> (28 - 4 * i)) as usize & 15])
}

/// Builds templates of `batch_events` events each, and one of `last_events` for the last batch.
pub(super) fn templates(
    config: &LoadConfig,
    epoch: u64,
    batch_events: u64,
    last_events: u64,
) -> Result<(Vec<Template>, Option<Template>), NameError> {
    let mut builder = TemplateBuilder::new(config, epoch)?;
    let full = (0..TEMPLATES).map(|_| builder.template(batch_events)).collect();
    let last = (last_events > 0).then(|| builder.template(last_events));
    Ok((full, last))
}

/// Builds templates.
struct TemplateBuilder {
    kinds: Vec<Name>,
    filler: Name,
    source: Name,
    share: f64,
    due: f64,
    built: usize,
    origin: u64,
    node: String,
    epoch: u64,
}

impl TemplateBuilder {
    fn new(config: &LoadConfig, epoch: u64) -> Result<Self, NameError> {
        let kinds: Result<Vec<_>, _> = config.kinds.iter().map(|k| Name::intern(k)).collect();
        Ok(Self {
            kinds: kinds?,
            filler: Name::intern(FILLER_KIND)?,
            source: Name::intern("load")?,
            share: if config.kinds.is_empty() { 0.0 } else { config.match_share.clamp(0.0, 1.0) },
            due: 0.0,
            built: 0,
            origin: epoch,
            node: config.node.clone(),
            epoch,
        })
    }

    /// The kind of the next event: relevant kinds in their share, evenly distributed.
    fn kind(&mut self) -> Name {
        self.due += self.share;
        if self.due < 1.0 - 1e-9 {
            return self.filler;
        }
        self.due -= 1.0;
        self.built += 1;
        self.kinds[(self.built - 1) % self.kinds.len()]
    }

    fn template(&mut self, events: u64) -> Template {
        let mut encoder = BatchEncoder::new(&self.node, self.epoch, events as usize * 512 + 4096);
        let (mut writer, mut reader) = ring(1);
        let node = self.node.clone();
        let fields = typical_fields(&node, POD_UID);
        for _ in 0..events {
            let kind = self.kind();
            let event = Event {
                severity: Severity::INFO,
                clock: 0,
                entities: TYPICAL_ENTITIES,
                fields: &fields,
                message: TYPICAL_MESSAGE,
                ..Event::new(EventId::from_sequence(self.origin, 0, 0), 1, kind, self.source)
            };
            // The ring is emptied after each event, which is smaller than the ring.
            let written = writer.write_event(&Header::event(0, 0, 1), &event);
            debug_assert!(written.is_ok());
            reader.drain(usize::MAX, |record| {
                encoder.append(record);
                true
            });
        }
        let batch = encoder.finish();
        Template {
            events: batch.as_ref().map(event_offsets).unwrap_or_default(),
            framed: batch.map(|b| b.framed()).unwrap_or_default(),
            spare: Arc::default(),
        }
    }
}

/// Finds the offsets by the encoder's layout: an event starts with time, observed time and id.
fn event_offsets(encoded: &EncodedBatch) -> Arc<[Offsets]> {
    let message = encoded.message();
    let prefix = encoded.framed().len() - message.len();
    let Ok(batch) = Batch::parse(&message) else {
        return Arc::default();
    };
    let raw = batch.items().filter_map(|item| match item {
        Item::Event(raw) => Some(raw.range()),
        Item::Story(_) | Item::LogBlock(_) => None,
    });
    raw.map(|range| {
        let event = &message[range.clone()];
        let uid = POD_UID.as_bytes();
        let key = event.windows(uid.len()).position(|w| w == uid).unwrap_or(0);
        let at = prefix + range.start;
        Offsets {
            time: at + 1,
            observed: at + 9 + 1,
            // Tag and length of the id, and its half that identifies the source.
            sequence: at + 18 + 2 + 8,
            key: at + key,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patched_batch_decodes_to_the_patched_values() {
        let config = LoadConfig {
            kinds: vec!["kernel.process.exec".into(), "kernel.process.exit".into()],
            match_share: 0.1,
            keys: 5,
            ..LoadConfig::default()
        };
        let (full, last) = templates(&config, 77, 30, 7).unwrap();
        assert_eq!(last.unwrap().events(), 7);
        let (mut matching, mut keys) = (0, std::collections::BTreeSet::new());
        for (i, template) in full.iter().enumerate() {
            let first = 1_000 + 30 * i as u64;
            let framed = template.batch(first, 123_456_789, config.keys);
            let batch = Batch::parse(&framed[5..]).unwrap();
            assert_eq!((batch.head.first_sequence, batch.head.epoch), (first, 77));
            let mut decoder = batch.decoder();
            for (n, item) in (first..).zip(batch.items()) {
                let Item::Event(raw) = item else { panic!("a story") };
                let event = decoder.event(raw).unwrap().event;
                assert_eq!((event.time_ns, event.observed_ns), (123_456_789, 123_456_789));
                assert_eq!(event.id, EventId::from_sequence(77, 0, n));
                matching += u32::from(event.kind.text().starts_with("kernel."));
                let Some(Value::Str(uid)) = event.entity(names::K8S_POD_UID) else {
                    panic!("no uid")
                };
                assert_eq!(uid[8..], POD_UID[8..]);
                keys.insert(uid.to_owned());
            }
        }
        assert_eq!(matching, 48, "a tenth of 16 × 30");
        assert_eq!(keys.len(), 5);
    }
}
