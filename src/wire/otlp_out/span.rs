//! Spans (trace/v1 `Span`): those that applications sent, and the intervals that collectors
//! measured, as children of their story's span.

use serde_json::Value as Json;

use super::event::EventView;
use super::keys::{Key, Special};
use super::resource::{Names, own_attributes, sent_attributes, unhex};
use super::severity::{INTERNAL, status};
use super::story::span_of_story;
use crate::proto_vec::ProtoVec;
use tapio_core::event::{Value, parse_rfc3339};

const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

/// Writes a span that an application sent.
pub(super) fn sent(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    let (trace, span) = event.incoming();
    out.bytes(1, trace);
    out.bytes(2, span);
    out.bytes(4, &unhex(names.special_text(event, Special::SpanParent)));
    out.bytes(5, event.message.as_bytes());
    let kind = names.special_text(event, Special::SpanKind);
    let kind = KINDS.iter().position(|k| *k == kind).unwrap_or(0);
    out.number(6, kind as u64);
    let duration_ns = names.special_number(event, Special::SpanDuration);
    out.fixed64(7, event.time_ns);
    out.fixed64(8, event.time_ns.saturating_add(duration_ns));
    let events = list(names.special_text(event, Special::SpanEvents));
    sent_attributes(out, 9, event, names, |key, value| is_of_exception(&events, key, value));
    out.number(10, names.special_number(event, Special::DroppedAttributes));
    for one in events {
        out.message(11, |out| {
            out.fixed64(1, one["time"].as_str().and_then(parse_rfc3339).unwrap_or(0));
            out.bytes(2, one["name"].as_str().unwrap_or_default().as_bytes());
            attributes(out, 3, &one["attributes"]);
        });
    }
    out.number(12, names.special_number(event, Special::DroppedEvents));
    for one in list(names.special_text(event, Special::SpanLinks)) {
        out.message(13, |out| {
            let id = |key: &str| unhex(one[key].as_str().unwrap_or_default());
            out.bytes(1, &id("trace_id"));
            out.bytes(2, &id("span_id"));
            attributes(out, 4, &one["attributes"]);
        });
    }
    out.number(14, names.special_number(event, Special::DroppedLinks));
    status(out, event.severity, names.special_text(event, Special::StatusDescription));
}

/// Whether an attribute is that of an exception among the span's events, which the collector has
/// given to the span as well.
fn is_of_exception(events: &[Json], key: &str, value: &Value<'_>) -> bool {
    key.starts_with("exception.")
        && events.iter().any(|event| match (&event["attributes"][key], value) {
            (Json::String(text), Value::Str(value)) => text == value,
            _ => false,
        })
}

/// Events or links as the collector has written them.
fn list(json: &str) -> Vec<Json> {
    if json.is_empty() { Vec::new() } else { serde_json::from_str(json).unwrap_or_default() }
}

fn attributes(out: &mut ProtoVec, field: u32, json: &Json) {
    for (key, value) in json.as_object().into_iter().flatten() {
        out.json_attribute(field, key, value);
    }
}

/// The length of the interval that ended with the event; `None` if it has none, or no story.
pub(super) fn interval_ns(event: &EventView<'_>, names: &Names<'_>) -> Option<u64> {
    event.story.as_ref()?;
    let is_interval = |key: usize| names.key(key) == Key::Interval;
    let interval = event.attributes.iter().find(|(key, _)| is_interval(*key));
    match interval?.1 {
        Value::Int(n) if n > 0 => n.try_into().ok(),
        _ => None,
    }
}

/// Writes the interval that ended with an event of a story.
pub(super) fn interval(
    out: &mut ProtoVec,
    event: &EventView<'_>,
    names: &Names<'_>,
    interval_ns: u64,
) {
    out.bytes(1, event.trace);
    out.bytes(2, event.span);
    if let Some(story) = &event.story {
        out.delimited(4, &span_of_story(story.id));
    }
    out.delimited(5, names.text(event.kind).as_bytes());
    out.number(6, INTERNAL);
    out.fixed64(7, event.time_ns.saturating_sub(interval_ns));
    out.fixed64(8, event.time_ns);
    own_attributes(out, 9, event, names);
    status(out, event.severity, event.message);
}
