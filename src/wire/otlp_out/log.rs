//! Log records (logs/v1 `LogRecord`; "Events" of the logs data model: `event_name` is the type of
//! the event).

use super::event::EventView;
use super::keys::Special;
use super::resource::{Names, own_attributes, sent_attributes};
use super::severity::severity;
use super::story::span_of_story;
use crate::proto_vec::ProtoVec;
use crate::reader::{LEN, Reader, VARINT};
use tapio_core::event::{EventId, Severity};

/// Writes an event that tapio collected.
pub(super) fn own(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    head(out, event);
    if !event.message.is_empty() {
        out.message(5, |out| out.delimited(1, event.message.as_bytes()));
    }
    own_attributes(out, 6, event, names);
    out.hex_attribute(6, "tapio.event.id", event.id);
    out.text_attribute(6, "tapio.source", names.text(event.source));
    out.bytes(9, event.trace);
    match &event.story {
        Some(story) => out.delimited(10, &span_of_story(story.id)),
        None => out.bytes(10, event.span),
    }
    out.fixed64(11, event.observed_ns);
    out.delimited(12, names.text(event.kind).as_bytes());
}

/// Writes a log record that an application sent. It keeps the trace context that it came with.
pub(super) fn sent(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    head(out, event);
    let event_name = names.special_text(event, Special::EventName);
    body(out, event, names, event_name);
    sent_attributes(out, 6, event, names, |_, _| false);
    out.number(7, names.special_number(event, Special::DroppedAttributes));
    match (event.incoming(), &event.story) {
        // The lifecycle's trace isn't the application's.
        ((_, span), None) if is_derived(event, span) => {}
        ((trace @ [_, ..], span), _) => {
            out.delimited(9, trace);
            out.bytes(10, span);
        }
        (_, Some(story)) => {
            out.bytes(9, event.trace);
            out.delimited(10, &span_of_story(story.id));
        }
        (_, None) => {}
    }
    // One that came without was observed here first.
    let observed_ns = names.special_number(event, Special::ObservedTime);
    out.fixed64(11, if observed_ns > 0 { observed_ns } else { event.observed_ns });
    out.bytes(12, event_name.as_bytes());
}

/// Whether a span is that of the event, in the trace of its entity's lifecycle.
fn is_derived(event: &EventView<'_>, span: &[u8]) -> bool {
    event.incoming_trace.is_empty()
        && event.id.try_into().is_ok_and(|id| EventId(id).span() == span)
}

/// The records, each as field 2 of the bytes, of this severity at least.
pub(super) fn severe_records(encoded: &[u8], min_severity: u8) -> impl Iterator<Item = &[u8]> {
    let mut r = Reader::new(encoded);
    let records = std::iter::from_fn(move || {
        while !r.is_empty() {
            if let (2, LEN) = r.tag_or_skip(2).ok()? {
                return r.delimited().ok();
            }
        }
        None
    });
    records.filter(move |record| severity_of(record) >= u64::from(min_severity))
}

/// The severity's number of an encoded record; one without is information.
fn severity_of(record: &[u8]) -> u64 {
    let mut r = Reader::new(record);
    while !r.is_empty() {
        match r.tag() {
            Ok((2, VARINT)) => return r.varint().unwrap_or(0),
            Ok((_, wire_type)) if r.skip(wire_type).is_ok() => {}
            _ => break,
        }
    }
    Severity::INFO.0.into()
}

fn head(out: &mut ProtoVec, event: &EventView<'_>) {
    out.fixed64(1, event.time_ns);
    severity(out, event.severity);
}

fn body(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>, event_name: &str) {
    let is_structured = names.special(event, Special::StructuredBody).is_some();
    let json = is_structured.then(|| serde_json::from_str(event.message).ok()).flatten();
    match json {
        Some(json) => out.message(5, |out| out.any_json(&json)),
        // A record without a body shows its name as message.
        None if event.message.is_empty() || event.message == event_name => {}
        None => out.message(5, |out| out.delimited(1, event.message.as_bytes())),
    }
}
