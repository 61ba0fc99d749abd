//! The fields of a span.

use serde_json::{Value as Json, json};

use super::{EventWriter, hex, push};
use tapio_core::event::{names, rfc3339};
use tapio_wire::{OtlpAttributes, OtlpRecord, OtlpValue};

/// The names of `SpanKind`.
const SPAN_KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

impl EventWriter {
    /// Adds the fields of a span.
    pub(super) fn span(&mut self, record: &OtlpRecord<'_>) {
        let event = &mut self.event;
        event.int(names::TAPIO_SPAN_DURATION_NS, record.end_ns.saturating_sub(record.time_ns));
        if record.parent_span_id != [0; 8] {
            event.text(names::TAPIO_SPAN_PARENT_ID, hex(&record.parent_span_id));
        }
        if let Some(kind) = SPAN_KINDS.get(usize::from(record.span_kind)).filter(|k| !k.is_empty())
        {
            event.word(names::TAPIO_SPAN_KIND, kind);
        }
        if let OtlpValue::Text(text) = record.body {
            event.text(names::OTEL_STATUS_DESCRIPTION, text);
        }
        // The last exception is the one that left the span (semantic conventions, "Exceptions").
        if let Some(exception) = record.events.events().filter(|e| e.name == "exception").last() {
            let own = &record.attributes.list;
            for (key, value) in exception.attributes.list {
                let name =
                    [names::EXCEPTION_TYPE, names::EXCEPTION_MESSAGE, names::EXCEPTION_STACKTRACE];
                let name = name.into_iter().find(|name| name.text() == key);
                if let Some(name) = name.filter(|_| own.iter().all(|a| a.0 != key)) {
                    push(&mut self.event, name, &value);
                }
            }
        }
        if !record.events.is_empty() {
            let events = record.events.events().map(|event| {
                json!({
                    "name": event.name, "time": rfc3339(event.time_ns),
                    "attributes": attributes_json(&event.attributes),
                })
            });
            let events = Json::from_iter(events).to_string();
            self.event.json(names::TAPIO_SPAN_EVENTS, |out| out.push_str(&events));
        }
        if !record.links.is_empty() {
            let links = record.links.links().map(|link| {
                json!({
                    "trace_id": hex(&link.trace_id), "span_id": hex(&link.span_id),
                    "attributes": attributes_json(&link.attributes),
                })
            });
            let links = Json::from_iter(links).to_string();
            self.event.json(names::TAPIO_SPAN_LINKS, |out| out.push_str(&links));
        }
        for (name, dropped) in [
            (names::OTEL_DROPPED_EVENTS_COUNT, record.events.dropped),
            (names::OTEL_DROPPED_LINKS_COUNT, record.links.dropped),
        ] {
            if dropped > 0 {
                self.event.dropped_count(name, dropped);
            }
        }
    }
}

fn attributes_json(attributes: &OtlpAttributes<'_>) -> Json {
    attributes.list.iter().map(|(key, value)| ((*key).to_owned(), value.json())).collect()
}
