//! Cost of an event in the ring: `cargo bench --bench ring`.
//!
//! criterion prints the time per event as `time` for the single-event benchmarks, and events per
//! second as `thrpt` for the batches.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and prints"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tapio_core::event::{Event, EventId, Field, TraceId, Value, names};
use tapio_core::ring::{Header, Membership, RecordReader, RecordWriter, ring};

/// Events that a benchmark writes before it reads: the usual size of a drain.
const BATCH: u64 = 256;

/// The reference load of DESIGN.md: about 200 bytes with 8 attributes.
fn fields() -> [Field<'static>; 8] {
    let field = |key, value| Field { key, value };
    [
        field(names::HOST_NAME, Value::Str("node-17")),
        field(names::K8S_POD_UID, Value::Str("6f1c2a52-7f0b-4c57-9d0e-2b1f3a4c5d6e")),
        field(names::K8S_POD_NAME, Value::Str("checkout-7d9f8b6c5-x2x7k")),
        field(names::PROCESS_PID, Value::Int(4_711)),
        field(names::PROCESS_EXECUTABLE_NAME, Value::Str("checkout")),
        field(names::PROCESS_EXIT_CODE, Value::Int(137)),
        field(names::TAPIO_SIGNAL_NAME, Value::Str("SIGKILL")),
        field(names::TAPIO_SIGNAL_FATAL, Value::Bool(true)),
    ]
}

fn event<'a>(fields: &'a [Field<'a>], n: u64) -> Event<'a> {
    Event {
        fields,
        entities: 4,
        message: "process exited: killed by signal 9 (SIGKILL) after 3.2 s",
        ..Event::new(EventId::from_sequence(1, 1, n), n, names::KERNEL_PROCESS_EXIT, names::EBPF)
    }
}

fn fill(writer: &mut RecordWriter, fields: &[Field<'_>]) {
    for n in 0..BATCH {
        let event = event(fields, n);
        writer.write_event(&Header::event(0, 1, n), &event).unwrap();
    }
}

/// Reads the fields that a shard reads of every event: kind, time and the first join key.
fn drain(reader: &mut RecordReader) -> u64 {
    let mut sum = 0;
    reader.drain(usize::MAX, |record| {
        let event = record.event().unwrap();
        sum += event.time() + u64::from(event.kind_name().0);
        sum += event.text(names::K8S_POD_UID).map_or(0, |uid| uid.len() as u64);
        true
    });
    sum
}

fn benches(c: &mut Criterion) {
    let fields = fields();
    let (mut writer, mut reader) = ring(16 * 1024);
    fill(&mut writer, &fields);
    let mut blocks = 0;
    reader.drain(1, |record| {
        blocks = record.len_blocks();
        true
    });
    reader.drain(usize::MAX, |_| true);
    println!(
        "an event of {} archived bytes at most, {blocks} blocks",
        event(&fields, 0).archive_bound_bytes()
    );

    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("write", |b| {
        b.iter_batched(
            || reader.drain(usize::MAX, |_| true),
            |_| fill(&mut writer, black_box(&fields)),
            BatchSize::PerIteration,
        );
    });
    reader.drain(usize::MAX, |_| true);
    group.bench_function("write+read", |b| {
        b.iter(|| {
            fill(&mut writer, black_box(&fields));
            black_box(drain(&mut reader))
        });
    });

    let (mut to, mut from) = ring(16 * 1024);
    let member = Membership {
        story: TraceId([1; 16]),
        rule: names::K8S,
        pattern: names::K8S,
        role: names::K8S,
        rank: 1,
        related: [EventId([2; 16]); 2],
    };
    group.bench_function("write+forward with a membership+read", |b| {
        b.iter(|| {
            fill(&mut writer, black_box(&fields));
            reader
                .drain(usize::MAX, |record| to.forward(record, record.header(), &[member]).is_ok());
            black_box(drain(&mut from))
        });
    });
    group.finish();
}

criterion_group!(ring_benches, benches);
criterion_main!(ring_benches);
