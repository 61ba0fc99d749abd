//! Cost of learning what services usually do: `cargo bench --bench services`.
//!
//! A shard steps spans of OTLP with and without evidence, and the assessor processes what it sends;
//! prints the time of each per span and the memory held, as JSON. Two spans a request: a client's
//! and, on another service, a server's. Without `--bench` it runs a short round, to be checked.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark fails by panicking, prints, and measures wall-clock time"
)]

#[path = "../tests/support/counting.rs"]
mod counting;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use counting::HELD;
use tapio_core::event::{Event, EventId, Field, TraceId, Value, names};
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_dataflow::evidence::{Assessor, Bounds, EvidenceMessage};
use tapio_dataflow::rules::RuleSet;
use tapio_dataflow::{LaneOptions, Order, Shard, StepOutput};

const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
/// Spans a second of event time.
const RATE: u64 = 165_000;

struct World {
    shard: Shard,
    assessor: Assessor,
    writer: RecordWriter,
    reader: RecordReader,
    messages: Vec<EvidenceMessage>,
    stepping: Duration,
    assessing: Duration,
}

impl World {
    fn new(learns: bool) -> Self {
        let rules = Arc::new(RuleSet::new(Vec::new(), "", 1));
        let shard = Shard::new(rules, 0, Order::Arrival, LaneOptions::default());
        let (writer, reader) = ring(1 << 14);
        Self {
            shard: if learns { shard.with_evidence(Bounds::LIVE) } else { shard },
            assessor: Assessor::new(Bounds::LIVE).streaming(1.0),
            writer,
            reader,
            messages: Vec::new(),
            stepping: Duration::ZERO,
            assessing: Duration::ZERO,
        }
    }

    /// Writes a span.
    fn write(&mut self, number: u64, service: &str, operation: &str, parent: Option<&str>) {
        let time_ns = BEGIN_NS + number * 1_000_000_000 / RATE;
        let mut fields = vec![
            Field { key: names::SERVICE_NAME, value: Value::Str(service) },
            Field { key: names::TAPIO_SPAN_DURATION_NS, value: Value::Int(3_000_000) },
            Field {
                key: names::TAPIO_SPAN_KIND,
                value: Value::Str(if parent.is_some() { "server" } else { "client" }),
            },
        ];
        if let Some(parent) = parent {
            fields.push(Field { key: names::TAPIO_SPAN_PARENT_ID, value: Value::Str(parent) });
        }
        let id = EventId::from_sequence(1, 1, number);
        let event = Event::new(id, time_ns, names::OTLP_SPAN, names::OTLP);
        let mut trace = [0; 16];
        trace[8..].copy_from_slice(&(number / 2 + 1).to_be_bytes());
        let event = Event {
            fields: &fields,
            entities: 1,
            message: operation,
            trace_id: TraceId(trace),
            span_id: (number + 1).to_be_bytes(),
            ..event
        };
        self.writer.write_event(&Header::event(0, 1, time_ns), &event).unwrap();
    }

    /// Processes what was written; with `ticks`, as a worker does every 50 ms.
    fn process(&mut self, now_ns: u64, ticks: bool) {
        let mut output = StepOutput::default();
        let (shard, started) = (&mut self.shard, Instant::now());
        self.reader.drain(usize::MAX, |record| {
            shard.step(record, now_ns, &mut output);
            true
        });
        shard.take_messages(&mut self.messages, ticks);
        self.stepping += started.elapsed();
        let started = Instant::now();
        for message in self.messages.drain(..) {
            self.assessor.process(message);
        }
        self.assessor.advance(now_ns);
        self.assessing += started.elapsed();
    }

    fn run(&mut self, spans: u64, services: u64, operations: u64) {
        for number in (0..spans).step_by(2) {
            let request = number / 2;
            let service = request % services;
            let operation = format!("GET /{}", request / services % operations);
            let (caller, callee) =
                (format!("service-{service}"), format!("service-{}", (service + 1) % services));
            self.write(number, &caller, &operation, None);
            let parent = format!("{:016x}", number + 1);
            self.write(number + 1, &callee, &operation, Some(&parent));
            if number % 64 == 62 {
                let ticks = number % 8_192 == 8_190;
                self.process(BEGIN_NS + number * 1_000_000_000 / RATE, ticks);
            }
        }
    }
}

fn main() {
    let is_measured = std::env::args().any(|a| a == "--bench");
    let spans = if is_measured { 6_600_000 } else { 20_000 };
    for (services, operations) in [(30, 10), (1_000, 100)] {
        let mut plain = World::new(false);
        plain.run(spans, services, operations);
        let before = HELD.load(Ordering::Relaxed);
        let mut learning = World::new(true);
        learning.run(spans, services, operations);
        let held_mib = (HELD.load(Ordering::Relaxed) - before) as f64 / f64::from(1 << 20);
        let per_span = |time: Duration| time.as_nanos() as f64 / spans as f64;
        let counts = learning.assessor.counts();
        println!(
            "{{\"services\": {services}, \"operations\": {operations}, \"spans\": {spans}, \
             \"step_ns\": {:.0}, \"step_learning_ns\": {:.0}, \"assessor_ns\": {:.0}, \
             \"held_mib\": {held_mib:.1}, \"kept_operations\": {}, \"refused\": {}, \"sampled_out\": {}}}",
            per_span(plain.stepping),
            per_span(learning.stepping),
            per_span(learning.assessing),
            counts.operations,
            counts.services_refused,
            counts.services_sampled_out,
        );
    }
}
