//! Stages that read and write records: ring, OTLP, batches.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tapio::load::{TYPICAL_ENTITIES, TYPICAL_MESSAGE, typical_fields};
use tapio_collectors::otlp::Requests;
use tapio_collectors::{Context, Site, StatusReport};
use tapio_core::event::{Event, EventId, Stage as PipelineStage, names};
use tapio_core::ring::{
    Bell, Header, Ledger, OnFull, RecordReader, RecordWriter, Router, Sink, ring,
};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::rules::LiveRules;
use tapio_wire::{
    Appended, Batch, BatchEncoder, EncodedBatch, Item, OtlpEncoder, OtlpSelection, OtlpService,
    OtlpSignal, otlp_logs,
};

use crate::Round;
use crate::request::request;
use crate::rules::builtin_rules;

const RING_BLOCKS: usize = 64 * 1024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const TIME_NS: u64 = 1_700_000_000_000_000_000;

/// Writes events of about 200 bytes with 8 fields.
fn write_events(writer: &mut RecordWriter, events: u64) {
    let fields = typical_fields("worker-17", "0af76519-16cd-43dd-8448-eb211c80319c");
    for n in 0..events {
        let event = Event {
            entities: TYPICAL_ENTITIES,
            fields: &fields,
            message: TYPICAL_MESSAGE,
            ..Event::new(
                EventId::from_sequence(7, 1, n),
                TIME_NS + n,
                names::KERNEL_PROCESS_EXEC,
                names::EBPF,
            )
        };
        let header = Header::event(1, 0, event.time_ns);
        writer.write_event(&header, &event).unwrap();
    }
}

/// Writes events into a ring and reads the fields that a shard reads of each.
pub(crate) fn write_and_read() -> Round {
    let (mut writer, mut reader) = ring(RING_BLOCKS);
    Box::new(move |events, meter| {
        meter.measure(|| {
            write_events(&mut writer, events);
            reader.drain(usize::MAX, |record| {
                let event = record.event().unwrap();
                black_box((event.time(), event.kind_name(), event.text(names::K8S_POD_UID)));
                true
            });
        });
    })
}

/// Decodes the log records of a request.
pub(crate) fn decode_otlp() -> Round {
    let mut requests = Inputs::new(request);
    Box::new(move |records, meter| {
        let request = requests.of(records);
        meter.measure(|| {
            otlp_logs(request, |_, _, record| {
                black_box(record);
            })
            .unwrap();
        });
    })
}

/// A collector of OTLP with its ring.
pub(crate) struct Otlp {
    requests: Requests,
    context: Context,
    reader: RecordReader,
    inputs: Inputs,
    _ledger: Ledger,
}

impl Otlp {
    /// Each record becomes an event, which is routed by the built-in rules.
    pub(crate) fn new() -> Self {
        Self::with(builtin_rules())
    }

    /// Records that no built-in rule can match pass as they came.
    fn passing() -> Self {
        let live = LiveRules::new(builtin_rules());
        // Nothing is learned from the records.
        live.sampling().stop();
        Self::with(Arc::new(live))
    }

    fn with(router: Arc<dyn Router>) -> Self {
        let mut ledger = Ledger::new(vec!["otlp".into()]);
        let (writer, reader) = ring(RING_BLOCKS);
        let shutdown = Shutdown::default();
        let shards = vec![(writer, Arc::new(Bell::new(OnceLock::new())))];
        let stage = ledger.stage(PipelineStage::Collect);
        let sink = Sink::new(0, OnFull::Drop, router, shards, stage, shutdown.clone());
        let context = Context::new(sink, shutdown, StatusReport::default(), Site::new("node", 7));
        let inputs = Inputs::new(request);
        Self { requests: Requests::default(), context, reader, inputs, _ledger: ledger }
    }

    /// A request of this many records.
    fn request(&mut self, records: u64) -> Bytes {
        self.inputs.of(records).clone()
    }

    fn process(&mut self, request: &Bytes) {
        let refused = self.requests.process(OtlpSignal::Logs, request, &mut self.context);
        assert_eq!(refused, Some(0));
    }

    /// Writes the events of a request into the ring, and returns the ring.
    pub(crate) fn events(&mut self, records: u64) -> &mut RecordReader {
        let request = self.request(records);
        self.process(&request);
        &mut self.reader
    }
}

/// Builds the events of a request, removes secrets, routes them and writes them into a ring.
pub(crate) fn otlp_to_ring() -> Round {
    let mut otlp = Otlp::new();
    Box::new(move |records, meter| {
        let request = otlp.request(records);
        meter.measure(|| otlp.process(&request));
        assert_eq!(otlp.reader.drain(usize::MAX, |_| true) as u64, records);
    })
}

/// Finds that a request's records can pass as they came, and writes them into a ring.
pub(crate) fn otlp_passes() -> Round {
    let mut otlp = Otlp::passing();
    Box::new(move |records, meter| {
        let request = otlp.request(records);
        meter.measure(|| otlp.process(&request));
        // Hundreds of records are one of the ring's.
        let in_ring = otlp.reader.drain(usize::MAX, |_| true) as u64;
        assert!((1..records / 10).contains(&in_ring), "{in_ring} records in the ring");
    })
}

/// Batches of typical events, with consecutive sequence numbers.
pub(crate) struct Batches {
    writer: RecordWriter,
    reader: RecordReader,
    encoder: BatchEncoder,
}

impl Batches {
    pub(crate) fn new() -> Self {
        let (writer, reader) = ring(RING_BLOCKS);
        Self { writer, reader, encoder: BatchEncoder::new("worker-17", 1, BATCH_BYTES) }
    }

    fn encode(&mut self) -> EncodedBatch {
        let Self { reader, encoder, .. } = self;
        reader.drain(usize::MAX, |record| encoder.append(record) == Appended::Event);
        encoder.finish().unwrap()
    }

    /// The next batch, of this many events.
    pub(crate) fn next(&mut self, events: u64) -> Bytes {
        write_events(&mut self.writer, events);
        self.encode().message()
    }
}

/// Encodes the records of a ring into a batch.
pub(crate) fn encode_batch() -> Round {
    let mut batches = Batches::new();
    Box::new(move |events, meter| {
        write_events(&mut batches.writer, events);
        meter.measure(|| drop(black_box(batches.encode())));
    })
}

/// Decodes the events of a batch.
pub(crate) fn decode_batch() -> Round {
    let mut batches = Inputs::new(|events| Batches::new().next(events));
    Box::new(move |events, meter| {
        let message = batches.of(events);
        meter.measure(|| {
            let batch = Batch::parse(message).map_err(|(_, error)| error).unwrap();
            let mut decoder = batch.decoder();
            for item in batch.items() {
                let Item::Event(raw) = item else { unreachable!("the batch has events only") };
                black_box(decoder.event(raw).unwrap());
            }
        });
    })
}

/// A batch of log records that came by OTLP.
fn otlp_batch(records: u64) -> Bytes {
    batch_of(Otlp::new(), records)
}

fn batch_of(mut otlp: Otlp, records: u64) -> Bytes {
    let mut encoder = BatchEncoder::new("worker-17", 1, BATCH_BYTES);
    otlp.events(records).drain(usize::MAX, |record| encoder.append(record) == Appended::Event);
    encoder.finish().unwrap().message()
}

/// Encodes log records that came by OTLP as OTLP requests.
pub(crate) fn encode_otlp() -> Round {
    otlp_out(otlp_batch)
}

/// Copies log records that passed as they came into OTLP requests.
pub(crate) fn splice_otlp() -> Round {
    otlp_out(|records| batch_of(Otlp::passing(), records))
}

/// Encodes events of tapio's own collectors as OTLP requests.
pub(crate) fn encode_own() -> Round {
    otlp_out(|events| Batches::new().next(events))
}

fn otlp_out(build: fn(u64) -> Bytes) -> Round {
    let mut batches = Inputs::new(build);
    let mut encoder = OtlpEncoder::new(OtlpService::default(), OtlpSelection::default());
    Box::new(move |events, meter| {
        let message = batches.of(events);
        meter.measure(|| {
            let batch = Batch::parse(message).map_err(|(_, error)| error).unwrap();
            assert_eq!(encoder.add(&batch, TIME_NS).events, events);
            black_box(encoder.finish());
        });
    })
}

/// Inputs that are built once for each size.
struct Inputs {
    build: fn(u64) -> Bytes,
    built: Vec<(u64, Bytes)>,
}

impl Inputs {
    fn new(build: fn(u64) -> Bytes) -> Self {
        Self { build, built: Vec::new() }
    }

    fn of(&mut self, items: u64) -> &Bytes {
        let at = self.built.iter().position(|(n, _)| *n == items).unwrap_or_else(|| {
            self.built.push((items, (self.build)(items)));
            self.built.len() - 1
        });
        &self.built[at].1
    }
}
