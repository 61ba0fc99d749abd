//! Resources and scopes.

use super::event::EventView;
use super::keys::{Key, Special};
use super::service::OtlpService;
use crate::proto_vec::{ProtoVec, hex_digits};
use crate::raw_log_block::LogBlockView;
use tapio_core::event::Value;

/// The names of a batch, and the places of fields with these names.
pub(super) struct Names<'a> {
    pub(super) texts: &'a [&'a str],
    keys: Vec<Key>,
}

impl<'a> Names<'a> {
    pub(super) fn new(texts: &'a [&'a str]) -> Self {
        Self { texts, keys: texts.iter().map(|text| Key::of(text)).collect() }
    }

    /// The name at an index; empty for a wrong one.
    pub(super) fn text(&self, index: usize) -> &'a str {
        self.texts.get(index).copied().unwrap_or_default()
    }

    pub(super) fn key(&self, index: usize) -> Key {
        self.keys.get(index).copied().unwrap_or(Key::Record)
    }

    /// The value of a field that has a place of its own.
    pub(super) fn special<'v>(&self, event: &EventView<'v>, special: Special) -> Option<Value<'v>> {
        let is_it = |key: usize| self.key(key) == Key::Special(special);
        event.attributes.iter().find(|(key, _)| is_it(*key)).map(|(_, value)| *value)
    }

    /// The text of such a field; empty without it.
    pub(super) fn special_text<'v>(&self, event: &EventView<'v>, special: Special) -> &'v str {
        match self.special(event, special) {
            Some(Value::Str(text) | Value::Json(text)) => text,
            _ => "",
        }
    }

    /// The number of such a field; 0 without it.
    pub(super) fn special_number(&self, event: &EventView<'_>, special: Special) -> u64 {
        match self.special(event, special) {
            Some(Value::Int(n)) => n.try_into().unwrap_or(0),
            _ => 0,
        }
    }
}

/// Writes the resource of an event that tapio collected: the node, and the pod, container or
/// service that it is about.
pub(super) fn own_resource(
    out: &mut ProtoVec,
    event: &EventView<'_>,
    names: &Names<'_>,
    service: &OtlpService,
) {
    let mut has_service = false;
    for (key, value) in event.entities.iter().chain(&event.attributes) {
        if names.key(*key) == Key::Resource {
            has_service |= names.text(*key) == "service.name";
            out.attribute(1, names.text(*key), value);
        }
    }
    match has_service {
        true => service.write_place(out),
        false => service.write(out),
    }
}

/// Writes the resource of the node.
pub(super) fn node_resource(out: &mut ProtoVec, node: &str, service: &OtlpService) {
    out.text_attribute(1, "host.name", node);
    service.write(out);
}

/// Writes the resource that an application sent, with what tapio knows of it.
pub(super) fn sent_resource(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    for (key, value) in &event.entities {
        out.attribute(1, names.text(*key), value);
    }
    for (index, (key, value)) in event.attributes.iter().enumerate() {
        if event.is_of_resource(index) {
            out.attribute(1, names.text(*key), value);
        }
    }
}

/// The same for log records that pass as they came.
pub(super) fn block_resource(out: &mut ProtoVec, block: &LogBlockView<'_>, names: &Names<'_>) {
    for (key, value) in block.entities.iter().chain(&block.attributes) {
        let key = usize::try_from(*key).unwrap_or(usize::MAX);
        out.attribute(1, names.text(key), value);
    }
    out.number(2, block.dropped_attributes);
}

/// Writes the scope that an application sent.
pub(super) fn sent_scope(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    out.bytes(1, names.special_text(event, Special::ScopeName).as_bytes());
    out.bytes(2, names.special_text(event, Special::ScopeVersion).as_bytes());
}

/// Writes tapio's scope.
pub(super) fn own_scope(out: &mut ProtoVec) {
    out.delimited(1, b"tapio");
    out.delimited(2, env!("CARGO_PKG_VERSION").as_bytes());
}

/// Writes the attributes of an event that tapio collected, into the field with this number.
pub(super) fn own_attributes(
    out: &mut ProtoVec,
    field: u32,
    event: &EventView<'_>,
    names: &Names<'_>,
) {
    for (key, value) in event.entities.iter().chain(&event.attributes) {
        match names.key(*key) {
            Key::Resource => {}
            Key::Special(Special::GivenId) => {
                out.attribute(field, "tapio.event.source_id", value);
            }
            Key::Special(Special::Unnamed) => {}
            _ => out.attribute(field, names.text(*key), value),
        }
    }
    unnamed_attributes(out, field, event, names);
    story_attributes(out, field, event, names);
}

/// Writes the attributes of a record that an application sent, except for those that `is_added`:
/// tapio has added them. The entities are the resource's.
pub(super) fn sent_attributes(
    out: &mut ProtoVec,
    field: u32,
    event: &EventView<'_>,
    names: &Names<'_>,
    is_added: impl Fn(&str, &Value<'_>) -> bool,
) {
    for (index, (key, value)) in event.attributes.iter().enumerate() {
        let text = names.text(*key);
        let is_elsewhere =
            matches!(names.key(*key), Key::Special(_)) || event.is_of_resource(index);
        if !is_elsewhere && !is_added(text, value) {
            out.attribute(field, text, value);
        }
    }
    unnamed_attributes(out, field, event, names);
    story_attributes(out, field, event, names);
}

fn unnamed_attributes(out: &mut ProtoVec, field: u32, event: &EventView<'_>, names: &Names<'_>) {
    let unnamed = names.special_text(event, Special::Unnamed);
    if !unnamed.is_empty()
        && let Ok(serde_json::Value::Object(all)) = serde_json::from_str(unnamed)
    {
        all.iter().for_each(|(key, value)| out.json_attribute(field, key, value));
    }
}

fn story_attributes(out: &mut ProtoVec, field: u32, event: &EventView<'_>, names: &Names<'_>) {
    if let Some(story) = &event.story {
        out.hex_attribute(field, "tapio.story.id", story.id);
        out.text_attribute(field, "tapio.story.rule", names.text(story.rule));
        out.text_attribute(field, "tapio.story.pattern", names.text(story.pattern));
        out.text_attribute(field, "tapio.story.role", names.text(story.role));
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    hex_digits(bytes).map(char::from).collect()
}

/// The bytes of hexadecimal digits; empty for others.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect::<Option<_>>().unwrap_or_default()
}
