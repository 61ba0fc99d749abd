//! Decoded events and stories as JSON.

use serde_json::{Map, Value as Json, json};

use super::decode::{Batch, Decoded, Item};
use super::log_block::expanded;
use super::proto;
use super::reader::{WireCause, WireError};
use super::story::story_from_proto;
use tapio_core::event::{LinkedStory, TraceId, event_json_with, rfc3339};
use tapio_core::ring::correlations_json;

fn hex(bytes: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(bytes))
}

/// An event of a batch's [`Batch::display_decoder`] as JSON, with the results of correlation:
/// `trace_id`, `span_id`, `correlation` and, where the event arrived with another context,
/// `incoming_trace_id` and `incoming_span_id`.
#[must_use]
pub fn decoded_json(batch: &Batch<'_>, decoded: &Decoded<'_>) -> Json {
    let text = |name| batch.name_text(name);
    let event = &decoded.event;
    let mut more = Map::new();
    if event.trace_id.is_some() {
        more.insert("trace_id".into(), event.trace_id.to_string().into());
        if event.span_id != [0; 8] {
            more.insert("span_id".into(), hex(event.span_id).into());
        }
    }
    if !decoded.correlations.is_empty() {
        let correlations = correlations_json(decoded.correlations, text);
        more.insert("correlation".into(), correlations);
    }
    if decoded.incoming_trace_id != TraceId::NONE {
        let id = decoded.incoming_trace_id.to_string();
        more.insert("incoming_trace_id".into(), id.into());
        if decoded.incoming_span_id != [0; 8] {
            more.insert("incoming_span_id".into(), hex(decoded.incoming_span_id).into());
        }
    }
    event_json_with(event, more, text)
}

/// A story as a query's result: with its links and parts, its annotations, and the silence that it
/// falls under.
#[must_use]
pub fn annotated_json(
    linked: &LinkedStory,
    annotations: Option<&proto::Annotations>,
    silence: Option<&proto::Silence>,
) -> Json {
    let mut json = linked.json();
    if let Some(annotations) = annotations {
        json["annotations"] = annotations_json(annotations);
    }
    if let Some(silence) = silence {
        json["silence"] = silence_json(silence);
    }
    json
}

/// Annotations of a story as JSON.
#[must_use]
pub fn annotations_json(annotations: &proto::Annotations) -> Json {
    let stamp = |annotation: &proto::Annotation, text: &str| {
        let mut json = json!({"time": rfc3339(annotation.time_unix_nano), "by": annotation.by});
        if !annotation.text.is_empty() {
            json[text] = annotation.text.as_str().into();
        }
        if !annotation.first_cause.is_empty() {
            json["first_cause"] = annotation.first_cause.as_str().into();
        }
        json
    };
    let mut json = json!({});
    if let Some(acknowledged) = &annotations.acknowledged {
        json["acknowledged"] = stamp(acknowledged, "text");
    }
    if let Some(wrong_cause) = &annotations.wrong_cause {
        json["wrong_cause"] = stamp(wrong_cause, "cause");
    }
    if let Some(right_cause) = &annotations.right_cause {
        json["right_cause"] = stamp(right_cause, "text");
    }
    if !annotations.notes.is_empty() {
        json["notes"] = annotations.notes.iter().map(|note| stamp(note, "text")).collect();
    }
    json
}

/// An entry of the list of annotations as JSON, as the file of annotations has it.
#[must_use]
pub fn annotation_entry_json(entry: &proto::AnnotationEntry) -> Json {
    use proto::annotation_entry::Action;
    let mut json = json!({"time_ns": entry.time_unix_nano, "by": entry.by});
    let mut set = |name: &str, value: Json| json[name] = value;
    match &entry.action {
        Some(Action::Acknowledged(_)) => set("action", "acknowledge".into()),
        Some(Action::Note(text)) => {
            set("action", "note".into());
            set("text", text.as_str().into());
        }
        Some(Action::WrongCause(cause)) => {
            set("action", "wrong_cause".into());
            if !cause.is_empty() {
                set("cause", cause.as_str().into());
            }
        }
        Some(Action::RightCause(_)) => set("action", "right_cause".into()),
        Some(Action::Silence(silence)) => {
            let pair = |pair: &proto::KeyValue| (pair.key.clone(), Json::from(&*pair.value));
            set("action", "silence".into());
            set("id", silence.id.as_str().into());
            set("rule", silence.rule.as_str().into());
            set("key", silence.key.iter().map(pair).collect::<Map<_, _>>().into());
            set("until_ns", silence.until_unix_nano.into());
            set("reason", silence.reason.as_str().into());
        }
        None => {}
    }
    if !entry.first_cause.is_empty() {
        json["first_cause"] = entry.first_cause.as_str().into();
    }
    if let Ok(id) = entry.story_id.as_slice().try_into() {
        json["story"] = TraceId(id).to_string().into();
    }
    json
}

/// A silence as JSON.
#[must_use]
pub fn silence_json(silence: &proto::Silence) -> Json {
    let pair = |pair: &proto::KeyValue| (pair.key.clone(), Json::from(pair.value.as_str()));
    json!({
        "id": silence.id,
        "rule": silence.rule,
        "key": silence.key.iter().map(pair).collect::<Map<_, _>>(),
        "until": rfc3339(silence.until_unix_nano),
        "reason": silence.reason,
        "by": silence.by,
        "time": rfc3339(silence.time_unix_nano),
    })
}

/// The items of a batch as JSON, in order; `true` marks a story. The second result counts the items
/// that can't be decoded.
///
/// # Errors
/// When the batch's outline is invalid.
pub fn batch_json(bytes: &[u8]) -> Result<(Vec<(bool, Json)>, u32), WireError> {
    let batch = Batch::parse(bytes).map_err(|(_, error)| error)?;
    if let Some(events) = expanded(&batch)? {
        return batch_json(&events);
    }
    let mut decoder = batch.display_decoder();
    let (mut out, mut invalid) = (Vec::new(), 0);
    for item in batch.items() {
        let json = match item {
            Item::Event(raw) => decoder.event(raw).map(|d| (false, decoded_json(&batch, &d))),
            Item::Story(story) => <proto::Story as prost::Message>::decode(story)
                .ok()
                .and_then(story_from_proto)
                .map(|s| (true, s.json()))
                .ok_or(WireError { at: 0, cause: WireCause::BadStory }),
            // They were taken apart.
            Item::LogBlock(_) => continue,
        };
        match json {
            Ok(json) => out.push(json),
            Err(_) => invalid += 1,
        }
    }
    Ok((out, invalid))
}
