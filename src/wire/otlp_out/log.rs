//! Log records (logs/v1 `LogRecord`; "Events" of the logs data model: `event_name` is the type of
//! the event).

use super::event::EventView;
use super::keys::Special;
use super::proto_vec::ProtoVec;
use super::resource::{Names, hex, own_attributes, sent_attributes};
use super::severity::severity;
use super::story::span_of_story;

/// Writes an event that tapio collected.
pub(super) fn own(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    head(out, event);
    if !event.message.is_empty() {
        out.message(5, |out| out.delimited(1, event.message.as_bytes()));
    }
    own_attributes(out, 6, event, names);
    out.text_attribute(6, "tapio.event.id", &hex(event.id));
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
