//! The JSON Schema of a rule document, for editors (`tapio rules schema`): draft 2020-12. It says
//! what may stand where; what it can't say, `tapio rules check` says.

use serde_json::{Map, Value as Json, json};

use super::parse::{RULE_KEYS, STORY_KEYS};
use super::rule::{Comparison, Select};
use super::shape::{ABSENCE_KEYS, AGGREGATE_KEYS, SEQUENCE_KEYS, STEP_KEYS, WORDS};
use super::{expect, predicate};

/// An object with these keys and no other, each as `of` says.
fn object(keys: &[&str], of: impl Fn(&str) -> Json, required: &[&str]) -> Json {
    let properties: Map<String, Json> = keys.iter().map(|k| ((*k).to_owned(), of(k))).collect();
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn text(description: &str) -> Json {
    json!({"type": "string", "description": description})
}

fn texts(description: &str) -> Json {
    json!({
        "description": description,
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    })
}

fn duration(description: &str) -> Json {
    json!({
        "type": "string", "description": description,
        "pattern": "^[0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h|d)$",
    })
}

fn flag(description: &str) -> Json {
    json!({"type": "boolean", "description": description})
}

fn condition() -> Json {
    let keys: Vec<&str> = Comparison::WORDS.iter().map(|(word, _)| *word).collect();
    object(&keys, |_| json!({"type": "number"}), &[])
}

fn predicate() -> Json {
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    let tests = object(
        predicate::TESTS,
        |test| match test {
            "in" => json!({"type": "array", "items": scalar}),
            "exists" => json!({"type": "boolean"}),
            "eq" | "ne" | "gt" | "gte" | "lt" | "lte" => scalar.clone(),
            _ => json!({"type": "string"}),
        },
        &[],
    );
    let many = json!({"type": "array", "items": {"$ref": "#/$defs/predicate"}});
    json!({
        "type": "object",
        "description": "What an event must look like: fields, all of which must agree.",
        "properties": {
            "kind": texts("The kind or kinds, with * and ?."),
            "any": many, "all": many, "not": {"$ref": "#/$defs/predicate"},
        },
        "additionalProperties": {
            "oneOf": [scalar, {"type": "array", "items": scalar}, tests],
        },
    })
}

fn step() -> Json {
    let of = |key: &str| match key {
        "event" => text("The event that fills the step."),
        "not" => json!({
            "description": "What must not happen between the steps beside it.",
            "oneOf": [{"type": "string"}, {"$ref": "#/$defs/predicate"}],
        }),
        "by" => texts("The step's key, where its fields have other names or are more."),
        "role" => text("The part the event plays: cause, effect, symptom, evidence."),
        "pattern" => text("What the event shows."),
        "keep" => flag("The run stays for further matches."),
        "optional" => flag("The sequence may go on without this step."),
        "count" => json!({
            "description": "How often.",
            "oneOf": [
                {"type": "integer", "minimum": 1},
                object(&["at_least", "within"], |k| match k {
                    "within" => duration("Within so long."),
                    _ => json!({"type": "integer", "minimum": 1}),
                }, &["at_least"]),
            ],
        }),
        _ => json!({}),
    };
    let mut step = object(STEP_KEYS, of, &[]);
    step["oneOf"] = json!([{"required": ["event"]}, {"required": ["not"]}]);
    step
}

fn shape(word: &str) -> Json {
    let named_or_written = json!({"oneOf": [{"type": "string"}, {"$ref": "#/$defs/predicate"}]});
    let of = |key: &str| match key {
        "by" => texts("The join key: entities or attributes that all events share."),
        "within" => duration("From the first event to the last, at most; inclusive."),
        "slack" => duration("Tolerated disorder between sources."),
        "steps" => json!({"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}),
        "until" => {
            let mut until = named_or_written.clone();
            until["description"] = json!("Drops the pending runs of the key.");
            until
        }
        "followed_by" => named_or_written.clone(),
        "select" => {
            let words: Vec<&str> = Select::WORDS.iter().map(|(word, _)| *word).collect();
            json!({"enum": words, "description": "Which matches are told."})
        }
        "max_runs" => json!({"type": "integer", "minimum": 1}),
        "event" => text("The event."),
        "events" => texts("The events."),
        "at_least" => json!({"type": "number", "description": "It fires at this or more."}),
        "condition" => condition(),
        "field" => text("The field that is measured."),
        "percentile" => json!({"type": "number", "minimum": 0, "maximum": 100}),
        _ => json!({}),
    };
    match word {
        "sequence" => object(SEQUENCE_KEYS, of, &["within", "steps"]),
        "absence" => object(ABSENCE_KEYS, of, &["event", "followed_by", "within"]),
        _ => {
            let mut keys = AGGREGATE_KEYS.to_vec();
            keys.extend(super::shape::own_keys(word));
            object(&keys, of, &["within"])
        }
    }
}

fn story() -> Json {
    let of = |key: &str| match key {
        "pattern" => text("What kind of story it is."),
        "name" => text("A title, with holes such as {event.field}."),
        "intent" => text("What the story is about."),
        "root_cause" => {
            texts("Possible causes, the likelier first; one with an empty hole is left out.")
        }
        "actions" => texts("What to do; one with an empty hole is left out."),
        "impact" => object(
            &["business", "customer_facing", "slo_impact"],
            |key| match key {
                "business" => {
                    json!({"oneOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"const": "auto"}]})
                }
                _ => json!({"oneOf": [{"type": "boolean"}, {"const": "auto"}]}),
            },
            &[],
        ),
        "close" => object(&["idle", "max_age"], |_| duration("How long."), &[]),
        _ => json!({}),
    };
    object(STORY_KEYS, of, &["pattern"])
}

fn test() -> Json {
    let of = |key: &str| match key {
        "events" => json!({
            "description": "A file of JSON lines, or events written here.",
            "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
        }),
        _ => json!({
            "type": "array", "description": "What each story must say, in order.",
            "items": object(expect::EXPECTED, |_| json!({}), &[]),
        }),
    };
    object(&["events", "expect"], of, &["events", "expect"])
}

/// The JSON Schema of a rule document.
#[must_use]
pub fn schema() -> Json {
    let keys: Vec<&str> = RULE_KEYS.iter().chain(WORDS).copied().collect();
    let of = |key: &str| match key {
        "rule" => {
            json!({"type": "string", "pattern": "^[a-z0-9-]+$", "description": "Its unique name."})
        }
        "description" => text("One line about it."),
        "severity" => json!({
            "description": "How bad its stories are at least.",
            "oneOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 24}],
        }),
        "events" => json!({
            "type": "object", "description": "Named predicates.",
            "additionalProperties": {"$ref": "#/$defs/predicate"},
        }),
        "story" => story(),
        "tests" => json!({"type": "array", "items": {"$ref": "#/$defs/test"}}),
        word => shape(word),
    };
    let mut schema = object(&keys, of, &["rule", "events", "story"]);
    let shapes: Vec<Json> = WORDS.iter().map(|word| json!({"required": [word]})).collect();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "tapio rule".into();
    schema["oneOf"] = shapes.into();
    schema["$defs"] = json!({"predicate": predicate(), "step": step(), "test": test()});
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key has a schema of its own, and every reference leads somewhere.
    #[test]
    fn no_key_is_forgotten() {
        fn look(json: &Json, defs: &Json, path: &str) {
            if let Some(reference) = json.get("$ref").and_then(Json::as_str) {
                let name = reference.strip_prefix("#/$defs/").unwrap_or("");
                assert!(defs.get(name).is_some(), "{path}: {reference}");
            }
            if let Some(Json::Object(properties)) = json.get("properties") {
                for (key, value) in properties {
                    let tells = value.as_object().is_some_and(|v| !v.is_empty());
                    // What a test expects may be anything.
                    assert!(tells || path.contains("expect"), "{path}/{key} has no schema");
                }
            }
            match json {
                Json::Object(entries) => {
                    entries.iter().for_each(|(k, v)| look(v, defs, &format!("{path}/{k}")));
                }
                Json::Array(items) => items.iter().for_each(|v| look(v, defs, path)),
                _ => {}
            }
        }
        let schema = schema();
        look(&schema, &schema["$defs"], "");
    }
}
