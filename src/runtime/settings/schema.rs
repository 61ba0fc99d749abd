//! The JSON Schema of the configuration, draft 2020-12. It covers keys, types, formats and bounds;
//! `tapio check` covers the rest.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::super::config::Config;
use super::reloaded;

/// A text in which a variable stands for a value of any type.
const VARIABLE: &str = r"\$\{.+\}";

impl Config {
    /// The JSON Schema of a configuration file, for editors.
    #[must_use]
    pub fn schema() -> Json {
        let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Self>().to_value();
        describe(&mut schema, "");
        schema["title"] = "Configuration of tapio".into();
        if let Some(keys) = schema.get_mut("properties").and_then(Json::as_object_mut) {
            keys.values_mut().for_each(allow_variables);
        }
        schema
    }
}

/// The keys of a section; `None` for a value that is none. A section that may be missing has them
/// in one of its alternatives.
pub(super) fn properties(schema: &Json) -> Option<&Map<String, Json>> {
    if let Some(keys) = schema.get("properties") {
        return keys.as_object();
    }
    schema.get("anyOf")?.as_array()?.iter().find_map(properties)
}

/// The elements of a list.
pub(super) fn items(schema: &Json) -> Option<&Json> {
    let of = |schema: &Json| schema.get("items").is_some_and(Json::is_object);
    let alternatives = schema.get("anyOf").and_then(Json::as_array).into_iter().flatten();
    let list = std::iter::once(schema).chain(alternatives).find(|schema| of(schema))?;
    list.get("items")
}

/// Makes descriptions single paragraphs of plain text, and adds which keys a reload takes.
fn describe(schema: &mut Json, path: &str) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Json::String(text)) = map.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(['[', ']'], "");
        if reloaded::is_reloaded(path) {
            text.push_str(" A reload takes it.");
        }
    }
    if let Some(keys) = map.get_mut("properties").and_then(Json::as_object_mut) {
        for (key, schema) in keys {
            describe(schema, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") });
        }
    }
    if let Some(items) = map.get_mut("items") {
        describe(items, &format!("{path}[]"));
    }
    for alternative in map.get_mut("anyOf").and_then(Json::as_array_mut).into_iter().flatten() {
        describe(alternative, path);
    }
}

/// Allows `${NAME}` where a number, a flag or a text of a certain form is expected.
fn allow_variables(schema: &mut Json) {
    let Some(map) = schema.as_object_mut() else { return };
    let mut is_section = false;
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key).filter(|below| below.is_object()) {
            is_section = true;
            allow_variables(below);
        }
    }
    if let Some(keys) = map.get_mut("properties").and_then(Json::as_object_mut) {
        is_section = true;
        keys.values_mut().for_each(allow_variables);
    }
    let sections = map.get_mut("anyOf").and_then(Json::as_array_mut).into_iter().flatten();
    for alternative in sections.filter(|alternative| properties(alternative).is_some()) {
        is_section = true;
        allow_variables(alternative);
    }
    let is_free =
        ["pattern", "enum", "const", "anyOf", "oneOf"].iter().all(|k| !map.contains_key(*k))
            && map.get("type").is_some_and(|kind| kind.to_string().contains("string"));
    if is_section || is_free {
        return;
    }
    let mut value = std::mem::take(map);
    for key in ["description", "default", "examples"] {
        value.remove(key).and_then(|kept| map.insert(key.to_owned(), kept));
    }
    let variable = json!({"type": "string", "pattern": VARIABLE});
    map.insert("anyOf".into(), json!([value, variable]));
}
