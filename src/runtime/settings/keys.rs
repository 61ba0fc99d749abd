//! Every key of the configuration.

use serde_json::Value as Json;

use super::super::config::Config;
use super::reloaded;
use super::schema::{items, properties};

/// A key of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its path, such as `bridge.tls.ca`; `[]` stands for any element of a list.
    pub path: String,
    /// The form of its values, in a word or two.
    pub form: String,
    /// Its default; `null` where it has none.
    pub default: Json,
    /// Its meaning.
    pub about: String,
    /// Whether a reload takes it.
    pub is_reloaded: bool,
}

impl Config {
    /// Every key, in the order of the sections.
    #[must_use]
    pub fn keys() -> Vec<Key> {
        let default = serde_json::to_value(Self::default()).unwrap_or_default();
        let mut keys = Vec::new();
        collect(&Self::schema(), &default, "", &mut keys);
        keys
    }
}

fn collect(schema: &Json, default: &Json, path: &str, keys: &mut Vec<Key>) {
    for (name, schema) in properties(schema).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let own_default = schema.get("default").unwrap_or(&Json::Null);
        let default = default.get(name).unwrap_or(own_default);
        if properties(schema).is_some() {
            collect(schema, default, &path, keys);
            continue;
        }
        let about = schema.get("description").and_then(Json::as_str).unwrap_or_default();
        keys.push(Key {
            form: form(schema),
            default: default.clone(),
            about: about.trim_end_matches(" A reload takes it.").to_owned(),
            is_reloaded: reloaded::is_reloaded(&path),
            path: path.clone(),
        });
        if let Some(items) = items(schema) {
            collect(items, &Json::Null, &format!("{path}[]"), keys);
        }
    }
}

/// The form of a value in a word or two.
fn form(schema: &Json) -> String {
    let text = |key: &str| schema.get(key).and_then(Json::as_str);
    if let Some(format) = text("format").filter(|format| format.contains('-')) {
        return format.replace('-', " ");
    }
    if let Some(items) = items(schema) {
        let of = if properties(items).is_some() { "sections".into() } else { form(items) };
        return format!("list of {of}");
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        let values: Vec<&str> = values.iter().filter_map(Json::as_str).collect();
        return if values.len() > 8 { "name".into() } else { values.join(", ") };
    }
    if let Some(value) = text("const") {
        return value.to_owned();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(all) = schema.get(key).and_then(Json::as_array) {
            let is_null = |s: &&Json| s.get("type").is_some_and(|kind| kind == "null");
            let is_variable = |s: &&Json| s.to_string().contains(r"\\$\\{");
            let own = all.iter().filter(|s| !is_null(s) && !is_variable(s));
            let forms: Vec<String> = own.map(form).collect();
            return if forms.len() > 8 { "name".into() } else { forms.join(", ") };
        }
    }
    let kind = match schema.get("type") {
        Some(Json::Array(kinds)) => kinds.first().and_then(Json::as_str),
        kind => kind.and_then(Json::as_str),
    };
    match kind {
        Some("boolean") => "true, false".into(),
        Some("integer") => "whole number".into(),
        Some("string") => "text".into(),
        Some("object") => "names with texts".into(),
        other => other.unwrap_or("any").to_owned(),
    }
}
