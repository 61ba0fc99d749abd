//! Cost of learning what services usually do: `cargo bench --bench services`.
//!
//! A shard steps spans of OTLP with and without evidence, and the assessor processes what it sends;
//! prints the time of each per span and the memory held, as JSON. Two spans a request: a client's
//! and, on another service, a server's. Then the same for TCP events of units that connect to each
//! other, and for events that nothing is learned from. Without `--bench` it runs a short round, to
//! be checked.

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
use tapio_core::event::{Event, EventId, Field, Name, TraceId, Value, names};
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_dataflow::evidence::{Assessor, Bounds, EvidenceMessage};
use tapio_dataflow::rules::RuleSet;
use tapio_dataflow::{LaneOptions, Order, Shard, StepOutput};

const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
/// Spans a second of event time.
const RATE: u64 = 165_000;
/// TCP events a second.
const TCP_RATE: u64 = 20_000;

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

    /// Writes an event of a process with a connection to the address with this number.
    fn write_kernel(&mut self, number: u64, kind: Name, callee: u64) {
        let time_ns = BEGIN_NS + number * 1_000_000_000 / TCP_RATE;
        let unit = format!("unit-{}.service", number / 2 % 30);
        let (peer, port) = (format!("10.0.0.{callee}"), 30_000 + (number / 2 % 20_000) as i64);
        let text = |key, text| Field { key, value: Value::Str(text) };
        let int = |key, number| Field { key, value: Value::Int(number) };
        let fields = [
            text(names::HOST_NAME, "node"),
            int(names::PROCESS_PID, 4_711),
            int(names::CGROUP_ID, 7_123),
            text(names::SYSTEMD_UNIT, &unit),
            text(names::TAPIO_CGROUP_PATH, "/system.slice/unit.service"),
            text(names::PROCESS_EXECUTABLE_NAME, "program"),
            text(names::PROCESS_EXECUTABLE_PATH, "/usr/bin/program"),
            text(names::NETWORK_TRANSPORT, "tcp"),
            text(names::NETWORK_LOCAL_ADDRESS, "10.0.0.200"),
            int(names::NETWORK_LOCAL_PORT, port),
            text(names::NETWORK_PEER_ADDRESS, &peer),
            int(names::NETWORK_PEER_PORT, 5_432),
            text(names::TAPIO_TCP_STATE, "SYN_SENT"),
            int(names::TAPIO_TCP_DURATION_NS, 300_000),
            Field { key: names::TAPIO_TCP_INCOMING, value: Value::Bool(false) },
        ];
        let id = EventId::from_sequence(1, 2, number);
        let event = Event::new(id, time_ns, kind, names::EBPF);
        let event = Event { fields: &fields, entities: 4, message: "program", ..event };
        self.writer.write_event(&Header::event(0, 1, time_ns), &event).unwrap();
    }

    /// Processes events of two kinds, one after the other of each connection.
    fn run_kernel(&mut self, events: u64, kinds: [Name; 2]) {
        for number in 0..events {
            self.write_kernel(number, kinds[number as usize % 2], number / 2 % 10 + 1);
            if number % 64 == 63 {
                let ticks = number % 1_024 == 1_023;
                self.process(BEGIN_NS + number * 1_000_000_000 / TCP_RATE, ticks);
            }
        }
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

fn kernel_events(name: &str, events: u64, kinds: [Name; 2]) {
    let (mut plain, mut learning) = (World::new(false), World::new(true));
    plain.run_kernel(events, kinds);
    learning.run_kernel(events, kinds);
    let per_event = |time: Duration| time.as_nanos() as f64 / events as f64;
    println!(
        "{{\"events\": \"{name}\", \"step_ns\": {:.1}, \"step_learning_ns\": {:.1}, \
         \"assessor_ns\": {:.1}}}",
        per_event(plain.stepping),
        per_event(learning.stepping),
        per_event(learning.assessing),
    );
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
    let events = if is_measured { 2_000_000 } else { 4_000 };
    let tcp = [names::KERNEL_TCP_CONNECT, names::KERNEL_TCP_CLOSE];
    kernel_events("tcp", events, tcp);
    let others = [names::KERNEL_PROCESS_FORK, names::KERNEL_PROCESS_EXIT];
    kernel_events("others", events, others);
}
