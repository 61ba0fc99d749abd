//! The JSON Schema of a rule document, for editors (`tapio rules schema`), draft 2020-12. It covers
//! keys and types; `tapio rules check` covers the rest.

use serde_json::{Map, Value as Json, json};

use super::compile::aggregate::{AGGREGATE_KEYS, own_keys};
use super::compile::predicate::TESTS;
use super::compile::rule::RULE_KEYS;
use super::compile::rule_tests::EXPECTED_KEYS;
use super::compile::sequence::{ABSENCE_KEYS, SEQUENCE_KEYS, STEP_KEYS};
use super::compile::shape::SHAPE_KEYS;
use super::compile::story::STORY_KEYS;
use super::shape::{Comparison, DeviationCondition, Select};

/// An object with these keys only; `of` gives the schema of each.
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
    let bounds: Vec<&str> = Comparison::WORDS.iter().map(|(word, _)| *word).collect();
    let number = json!({"type": "number"});
    let (least, most) = DeviationCondition::LEARN.into_inner();
    let mut of_usual = object(
        &[&bounds[..], &["learn"]].concat(),
        |key| match key {
            "learn" => json!({
                "type": "integer", "minimum": least, "maximum": most,
                "description": "Windows to be learned before anything deviates.",
            }),
            _ => number.clone(),
        },
        &[],
    );
    of_usual["description"] =
        json!("The distance from the key's usual value, in standard deviations.");
    let keys = [&bounds[..], &["deviation"]].concat();
    object(&keys, |key| if key == "deviation" { of_usual.clone() } else { number.clone() }, &[])
}

fn predicate() -> Json {
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    let tests = object(
        TESTS,
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
        "description": "A condition on an event: all fields must match.",
        "properties": {
            "kind": texts("The kind or kinds; * matches any text, ? one character."),
            "any": many, "all": many, "not": {"$ref": "#/$defs/predicate"},
        },
        "additionalProperties": {
            "oneOf": [scalar, {"type": "array", "items": scalar}, tests],
        },
    })
}

fn step() -> Json {
    let of = |key: &str| match key {
        "event" => text("The event that matches the step."),
        "not" => json!({
            "description": "An event that must not occur between the neighbouring steps.",
            "oneOf": [{"type": "string"}, {"$ref": "#/$defs/predicate"}],
        }),
        "by" => texts("The step's join key, if its fields have other names or are more."),
        "role" => text("The event's role: cause, effect, symptom, evidence."),
        "pattern" => text("The pattern that the event shows."),
        "keep" => flag("The partial match also stays at this step for further matches."),
        "keep_first" => duration("For how long later events of this first step don't replace it."),
        "optional" => flag("The sequence can skip this step."),
        "count" => json!({
            "description": "Number of events that fill the step.",
            "oneOf": [
                {"type": "integer", "minimum": 1},
                object(&["at_least", "within"], |k| match k {
                    "within" => duration("The time within which they come."),
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
        "within" => duration("Longest time from the first event to the last; inclusive."),
        "slack" => duration("How far sources may be out of order among each other."),
        "steps" => json!({"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}),
        "until" => {
            let mut until = named_or_written.clone();
            until["description"] = json!("An event that drops the partial matches of its key.");
            until
        }
        "followed_by" => named_or_written.clone(),
        "select" => {
            let words: Vec<&str> = Select::WORDS.iter().map(|(word, _)| *word).collect();
            json!({"enum": words, "description": "Which of the possible matches count."})
        }
        "max_runs" => json!({"type": "integer", "minimum": 1}),
        "event" => text("The event that is counted."),
        "events" => texts("The events that are counted."),
        "at_least" => {
            json!({"type": "number", "description": "The rule fires at this value or more."})
        }
        "condition" => condition(),
        "field" => text("The measured field."),
        "percentile" => json!({"type": "number", "minimum": 0, "maximum": 100}),
        _ => json!({}),
    };
    match word {
        "sequence" => object(SEQUENCE_KEYS, of, &["within", "steps"]),
        "absence" => object(ABSENCE_KEYS, of, &["event", "followed_by", "within"]),
        _ => {
            let mut keys = AGGREGATE_KEYS.to_vec();
            keys.extend(own_keys(word));
            object(&keys, of, &["within"])
        }
    }
}

fn story() -> Json {
    let of = |key: &str| match key {
        "pattern" => text("The type of the story."),
        "name" => text("A title, with variables such as {event.field}."),
        "intent" => text("What the story is about."),
        "root_cause" => {
            texts("Candidate root causes, likeliest first; one with an empty variable is omitted.")
        }
        "actions" => texts("Recommended steps; one with an empty variable is omitted."),
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
        "close" => object(&["idle", "max_age"], |_| duration("A duration such as 60s."), &[]),
        _ => json!({}),
    };
    object(STORY_KEYS, of, &["pattern"])
}

fn test() -> Json {
    let of = |key: &str| match key {
        "events" => json!({
            "description": "A file of JSON lines, or events.",
            "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
        }),
        _ => json!({
            "type": "array", "description": "The expected stories, in order.",
            "items": object(EXPECTED_KEYS, |_| json!({}), &[]),
        }),
    };
    object(&["events", "expect"], of, &["events", "expect"])
}

/// The JSON Schema of a rule document.
#[must_use]
pub fn schema() -> Json {
    let keys: Vec<&str> = RULE_KEYS.iter().chain(SHAPE_KEYS).copied().collect();
    let of = |key: &str| match key {
        "rule" => {
            json!({"type": "string", "pattern": "^[a-z0-9-]+$", "description": "Its unique name."})
        }
        "description" => text("One line about it."),
        "severity" => json!({
            "description": "The least severity of its stories.",
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
    let shapes: Vec<Json> = SHAPE_KEYS.iter().map(|key| json!({"required": [key]})).collect();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "tapio rule".into();
    schema["oneOf"] = shapes.into();
    schema["$defs"] = json!({"predicate": predicate(), "step": step(), "test": test()});
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_every_reference_has_a_schema() {
        fn check(json: &Json, defs: &Json, path: &str) {
            if let Some(reference) = json.get("$ref").and_then(Json::as_str) {
                let name = reference.strip_prefix("#/$defs/").unwrap_or("");
                assert!(defs.get(name).is_some(), "{path}: {reference}");
            }
            if let Some(Json::Object(properties)) = json.get("properties") {
                for (key, value) in properties {
                    let has_schema = value.as_object().is_some_and(|v| !v.is_empty());
                    // An expected value can be anything.
                    assert!(has_schema || path.contains("expect"), "{path}/{key} has no schema");
                }
            }
            match json {
                Json::Object(entries) => {
                    entries.iter().for_each(|(k, v)| check(v, defs, &format!("{path}/{k}")));
                }
                Json::Array(items) => items.iter().for_each(|v| check(v, defs, path)),
                _ => {}
            }
        }
        let schema = schema();
        check(&schema, &schema["$defs"], "");
    }
}
