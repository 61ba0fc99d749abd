//! The codec on one core: event → ring, records → batch, batch → outline and delays,
//! batch → events. An event has 8 fields and takes about 200 bytes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tapio::load::{TYPICAL_ENTITIES, TYPICAL_MESSAGE, typical_fields};
use tapio_core::event::{Event, EventId, names};
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_wire::{Appended, Batch, BatchEncoder, EncodedBatch, Item, kernel_time};

const EVENTS: u64 = 1_000;

fn write_events(writer: &mut RecordWriter) {
    let fields = typical_fields("worker-17", "0af76519-16cd-43dd-8448-eb211c80319c");
    for n in 0..EVENTS {
        let event = Event {
            clock: 0,
            entities: TYPICAL_ENTITIES,
            fields: &fields,
            message: TYPICAL_MESSAGE,
            ..Event::new(
                EventId::from_sequence(7, 1, n),
                1_700_000_000_000_000_000 + n,
                names::KERNEL_PROCESS_EXEC,
                names::KERNEL_PROCESS_FORK,
            )
        };
        let header = Header::event(1, 0, event.time_ns);
        assert_eq!(writer.write_event(&header, &event), Ok(()));
    }
}

fn encode(reader: &mut RecordReader, encoder: &mut BatchEncoder) -> EncodedBatch {
    reader.drain(usize::MAX, |record| encoder.append(record) == Appended::Event);
    encoder.finish().unwrap_or_else(|| unreachable!("events were appended"))
}

fn wire(c: &mut Criterion) {
    let (mut writer, mut reader) = ring(64 * 1024);
    let mut encoder = BatchEncoder::new("worker-17", 1, 1024 * 1024);
    write_events(&mut writer);
    let message = encode(&mut reader, &mut encoder).message();
    let name = format!("wire, {} bytes an event", message.len() as u64 / EVENTS);

    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("ring_write", |b| {
        b.iter(|| {
            write_events(&mut writer);
            reader.drain(usize::MAX, |_| true)
        });
    });
    group.bench_function("encode", |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                write_events(&mut writer);
                let start = tapio_core::clock::instant();
                black_box(encode(&mut reader, &mut encoder));
                spent += start.elapsed();
            }
            spent
        });
    });
    group.bench_function("outline_and_times", |b| {
        b.iter(|| {
            let mut sum = 0u64;
            let parsed = Batch::parse_with(&message, |item| {
                if let Item::Event(raw) = item {
                    sum = sum.wrapping_add(kernel_time(raw).unwrap_or(0));
                }
            });
            (sum, parsed.is_ok())
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let Ok(batch) = Batch::parse(&message) else {
                return;
            };
            let mut decoder = batch.decoder();
            for item in batch.items() {
                if let Item::Event(raw) = item {
                    let _ = black_box(decoder.event(raw));
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
