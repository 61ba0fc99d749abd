//! Builds events from log records and spans.

use bytes::Bytes;

use super::intake::{Answer, Rejected};
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Context;
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Name, Reason, Severity, TraceId, names};
use tapio_wire::{OtlpAttributes, OtlpRecord, OtlpSignal, OtlpValue, otlp_records};

/// The source part of event ids.
const SOURCE: u16 = 0x0200;

/// Builds events and writes them into the sink.
#[derive(Default)]
pub(super) struct EventWriter {
    event: EventBuilder,
    last_id_ns: u64,
    /// Attributes dropped because the event or the process-wide table of names was full.
    pub(super) dropped_attributes: u64,
    /// The records of the current request that weren't accepted.
    rejected: Rejected,
}

impl EventWriter {
    /// Emits an event for each record of a request.
    pub(super) fn request(
        &mut self,
        signal: OtlpSignal,
        bytes: &Bytes,
        context: &mut Context,
    ) -> Answer {
        let now_ns = clock::wall_ns();
        self.rejected = Rejected::default();
        let decoded = otlp_records(signal, bytes, |resource, record| {
            self.record(signal, resource, record, now_ns, context);
        });
        match decoded {
            Ok(dropped) => {
                if dropped > 0 {
                    context.sink.refuse(Reason::BadInput, dropped);
                }
                self.rejected.add(Reason::BadInput, dropped);
                // The sender keeps the whole request and sends it again.
                if self.rejected.count(Reason::Shutdown) > 0 {
                    return Answer::ShuttingDown;
                }
                Answer::Accepted(std::mem::take(&mut self.rejected))
            }
            Err(e) => {
                context.sink.refuse(Reason::BadInput, 1);
                Answer::Malformed(e.to_string())
            }
        }
    }

    fn record(
        &mut self,
        signal: OtlpSignal,
        resource: &OtlpAttributes<'_>,
        record: &OtlpRecord<'_>,
        now_ns: u64,
        context: &mut Context,
    ) {
        self.event.clear();
        let (own, of_resource) = (&record.attributes.list, &resource.list);
        let all = || of_resource.iter().chain(own);
        let has = |key: &str| all().any(|a| a.0 == key);
        if !has("host.name") {
            self.event.text(names::HOST_NAME, &context.site.node);
        }
        // The entity directory completes the identity of a pod without a name.
        let lacks_pod_name = !has("k8s.pod.name");
        if lacks_pod_name {
            let text_of =
                |key: &str| of_resource.iter().find(|a| a.0 == key).and_then(|a| as_text(&a.1));
            let subject =
                Subject { container_id: text_of("container.id"), pod_uid: text_of("k8s.pod.uid") };
            let _ = self.event.enrich(subject, &context.site.directory);
        }
        for (key, value) in all() {
            let is_added = lacks_pod_name && ["container.id", "k8s.pod.uid"].contains(key);
            if let Some(entity) = entity(key).filter(|_| !is_added) {
                self.push(entity, value);
            }
        }
        self.event.end_entities();
        if signal == OtlpSignal::Traces {
            let duration_ns = record.end_ns.saturating_sub(record.time_ns);
            self.event.int(names::TAPIO_SPAN_DURATION_NS, duration_ns);
        }
        let mut unnamed = 0;
        // The record's own attributes come first: they are the most specific.
        for (key, value) in own.iter().chain(of_resource).filter(|(key, _)| entity(key).is_none()) {
            match Name::intern(key) {
                Ok(name) => self.push(name, value),
                Err(_) => unnamed += 1,
            }
        }
        let dropped_here = unnamed + self.event.dropped_fields;
        self.dropped_attributes += u64::from(dropped_here);
        let dropped = [resource.dropped, record.attributes.dropped, dropped_here];
        let dropped = dropped.into_iter().fold(0, u32::saturating_add);
        if dropped > 0 {
            self.event.dropped_count(names::OTEL_DROPPED_ATTRIBUTES_COUNT, dropped);
        }
        self.send(signal, record, now_ns, context);
    }

    fn push(&mut self, key: Name, value: &OtlpValue<'_>) {
        match value {
            OtlpValue::Empty => {}
            OtlpValue::Text(text) => self.event.text(key, text),
            OtlpValue::Bool(b) => self.event.bool(key, *b),
            OtlpValue::Int(n) => self.event.int(key, *n),
            OtlpValue::Float(n) => self.event.float(key, *n),
            OtlpValue::Nested(_) => {
                self.event.json(key, |out| out.push_str(&value.json().to_string()));
            }
        }
    }

    fn send(
        &mut self,
        signal: OtlpSignal,
        record: &OtlpRecord<'_>,
        now_ns: u64,
        context: &mut Context,
    ) {
        let event = &mut self.event;
        event.trace_context(TraceId(record.trace_id), record.span_id);
        let is_span = signal == OtlpSignal::Traces;
        match (&record.body, is_span) {
            (_, true) => event.message(format_args!("{}", record.name)),
            (OtlpValue::Empty, false) => event.message(format_args!("{}", record.name)),
            (OtlpValue::Text(text), false) => event.message(format_args!("{text}")),
            (body, false) => event.message(format_args!("{}", body.json())),
        }
        // A span has an identity; the id of a log record is made from the time of its arrival.
        self.last_id_ns = clock::monotonic_ns().max(self.last_id_ns + 1);
        let id = if is_span {
            let natural = [&record.trace_id[..], &record.span_id].concat();
            EventId::from_natural("otlp", &hex(&natural))
        } else {
            EventId::from_sequence(context.site.origin, SOURCE, self.last_id_ns)
        };
        let times = [record.time_ns, record.observed_ns, now_ns];
        let severity = match (record.failed, record.severity) {
            (true, _) => Severity::ERROR,
            (false, n @ 1..=24) => Severity(n),
            (false, _) => Severity::INFO,
        };
        let meta = EventHeader {
            id,
            time_ns: times.into_iter().find(|t| *t > 0).unwrap_or(now_ns),
            observed_ns: now_ns,
            kind: if is_span { names::OTLP_SPAN } else { names::OTLP_LOG },
            source: names::OTLP,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink counts an event that it can't accept.
        if let Err(reason) = self.event.offer(&meta, &mut context.sink) {
            self.rejected.add(reason, 1);
        }
    }
}

fn entity(key: &str) -> Option<Name> {
    let key = names::canonical(key);
    names::ENTITY_KEYS.iter().copied().find(|e| e.text() == key)
}

fn as_text<'a>(value: &OtlpValue<'a>) -> Option<&'a str> {
    match value {
        OtlpValue::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
