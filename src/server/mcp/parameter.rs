//! The parameters of the tools: their schemas, and the check of arguments against them.

use serde_json::{Map, Value, json};

/// Items of a list where the arguments have no limit.
pub(super) const DEFAULT_LIMIT: u64 = 20;
/// Items of a list at most.
const MAX_LIMIT: u64 = 50;
/// Longest text of an argument, in characters.
const MAX_TEXT_CHARS: usize = 256;
/// Longest token of a page, in characters.
const MAX_TOKEN_CHARS: usize = 1024;
/// Texts of an argument that has several.
const MAX_TEXTS: usize = 8;

/// A parameter of a tool.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    description: &'static str,
    form: Form,
}

/// The values that a parameter takes.
enum Form {
    Text { max_chars: usize },
    Texts,
    OneOf(&'static [&'static str]),
    Limit,
}

/// An argument that is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {cause}")]
pub(super) struct InvalidArgument {
    pub(super) name: String,
    pub(super) cause: String,
}

const fn text(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, description, form: Form::Text { max_chars: MAX_TEXT_CHARS } }
}

pub(super) const ID: Parameter =
    text("id", "The story's id: 32 hexadecimal digits, or at least its first 4.");
pub(super) const SINCE: Parameter = text(
    "since",
    "From this time on: a duration before now such as \"15m\" or \"2h\", or RFC 3339.",
);
pub(super) const UNTIL: Parameter =
    text("until", "Before this time: a duration before now, or RFC 3339.");
pub(super) const SEVERITY: Parameter = Parameter {
    name: "severity",
    description: "At least this severity.",
    form: Form::OneOf(&["trace", "debug", "info", "warn", "error", "critical", "fatal"]),
};
pub(super) const STATE: Parameter = Parameter {
    name: "state",
    description: "Only stories in this state; open: the fault may still go on.",
    form: Form::OneOf(&["open", "closed", "retracted"]),
};
pub(super) const PATTERN: Parameter =
    text("pattern", "Only stories of this pattern, such as \"oom-kill\"; their events.");
pub(super) const TRACE_ID: Parameter =
    text("trace_id", "Only of this trace, 32 hexadecimal digits: a story and its events.");
pub(super) const NODE: Parameter = text("node", "Only of the node with this name.");
pub(super) const KIND: Parameter = text(
    "kind",
    "Only events of this kind, stories that have one; `*` matches any text: \"kernel.*\".",
);
pub(super) const ENTITY: Parameter = Parameter {
    name: "entity",
    description: "Only about these entities, all of them, each as key=value: \
                  \"k8s.pod.name=web-1\", \"systemd.unit=nginx.service\", \"container=app\".",
    form: Form::Texts,
};
pub(super) const TEXT: Parameter =
    text("text", "Only with this text in the message, or in a story's name or members.");
pub(super) const LIMIT: Parameter =
    Parameter { name: "limit", description: "Items at most.", form: Form::Limit };
pub(super) const PAGE_TOKEN: Parameter = Parameter {
    name: "page_token",
    description: "Goes on where an answer ended: the token that it has, with the same arguments.",
    form: Form::Text { max_chars: MAX_TOKEN_CHARS },
};

impl Parameter {
    /// The JSON Schema of its values.
    fn schema(&self) -> Value {
        let mut schema = match self.form {
            Form::Text { max_chars } => {
                json!({"type": "string", "minLength": 1, "maxLength": max_chars})
            }
            Form::Texts => json!({
                "type": "array",
                "items": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS},
                "maxItems": MAX_TEXTS,
            }),
            Form::OneOf(values) => json!({"type": "string", "enum": values}),
            Form::Limit => json!({
                "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT,
            }),
        };
        schema["description"] = self.description.into();
        schema
    }

    /// The texts of an argument.
    fn texts(&self, value: &Value) -> Result<Vec<String>, String> {
        match self.form {
            Form::Text { max_chars } => Ok(vec![checked(value, max_chars)?]),
            Form::Texts => {
                let values = value.as_array().ok_or("isn't a list of strings")?;
                if values.len() > MAX_TEXTS {
                    return Err(format!("{} values, at most {MAX_TEXTS}", values.len()));
                }
                values.iter().map(|value| checked(value, MAX_TEXT_CHARS)).collect()
            }
            Form::OneOf(values) => {
                let text = checked(value, MAX_TEXT_CHARS)?;
                let is_known = values.contains(&&*text);
                let unknown = || format!("{text:?} is none of {}", values.join(", "));
                is_known.then(|| vec![text.clone()]).ok_or_else(unknown)
            }
            Form::Limit => {
                let number = value.as_u64().filter(|n| (1..=MAX_LIMIT).contains(n));
                let number = number.ok_or_else(|| format!("isn't a number from 1 to {MAX_LIMIT}"));
                Ok(vec![number?.to_string()])
            }
        }
    }
}

fn checked(value: &Value, max_chars: usize) -> Result<String, String> {
    let text = value.as_str().ok_or("isn't a string")?;
    match text.chars().count() {
        0 => Err("is empty".into()),
        chars if chars > max_chars => Err(format!("{chars} characters, at most {max_chars}")),
        _ => Ok(text.to_owned()),
    }
}

/// The JSON Schema of a tool's arguments.
pub(super) fn schema(parameters: &[&Parameter], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        parameters.iter().map(|one| (one.name.to_owned(), one.schema())).collect();
    let mut schema = json!({
        "type": "object", "properties": properties, "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// Checks arguments; `null` is the same as none. Returns names and values, in the order of the
/// arguments.
///
/// # Errors
/// The first argument that is invalid, or one that is missing.
pub(super) fn arguments(
    given: &Map<String, Value>,
    parameters: &[&Parameter],
    required: &[&str],
) -> Result<Vec<(String, String)>, InvalidArgument> {
    let mut pairs = Vec::new();
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let invalid = |cause| InvalidArgument { name: name.clone(), cause };
        let Some(parameter) = parameters.iter().find(|one| one.name == name) else {
            let known: Vec<&str> = parameters.iter().map(|one| one.name).collect();
            let cause = format!("unknown argument; known: {}", known.join(", "));
            return Err(invalid(cause));
        };
        let texts = parameter.texts(value).map_err(invalid)?;
        pairs.extend(texts.into_iter().map(|text| (name.clone(), text)));
    }
    for name in required {
        if !pairs.iter().any(|(given, _)| given == name) {
            return Err(InvalidArgument { name: (*name).to_owned(), cause: "is missing".into() });
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(given: &Value) -> Result<Vec<(String, String)>, String> {
        let given = given.as_object().unwrap();
        arguments(given, &[&ID, &SEVERITY, &ENTITY, &LIMIT], &["id"]).map_err(|e| e.to_string())
    }

    #[test]
    fn arguments_become_pairs() {
        let given = json!({"id": "1b4f", "entity": ["a=b", "c=d"], "limit": 50, "severity": null});
        let pairs = parsed(&given).unwrap();
        let expected = [("id", "1b4f"), ("entity", "a=b"), ("entity", "c=d"), ("limit", "50")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn errors_name_the_argument() {
        let long = "x".repeat(MAX_TEXT_CHARS + 1);
        for (given, expected) in [
            (json!({}), "id: is missing"),
            (json!({"id": null}), "id: is missing"),
            (json!({"id": 7}), "id: isn't a string"),
            (json!({"id": ""}), "id: is empty"),
            (json!({"id": long}), "id: 257 characters, at most 256"),
            (json!({"id": "a", "limit": 51}), "limit: isn't a number from 1 to 50"),
            (json!({"id": "a", "limit": -1}), "limit: isn't a number"),
            (json!({"id": "a", "limit": "5"}), "limit: isn't a number"),
            (json!({"id": "a", "severity": "bad"}), "severity: \"bad\" is none of trace, "),
            (json!({"id": "a", "entity": "a=b"}), "entity: isn't a list of strings"),
            (json!({"id": "a", "entity": [[]]}), "entity: isn't a string"),
            (json!({"id": "a", "entity": vec!["a=b"; 9]}), "entity: 9 values, at most 8"),
            (json!({"id": "a", "ids": 1}), "ids: unknown argument; known: id, severity, "),
        ] {
            let error = parsed(&given).unwrap_err();
            assert!(error.starts_with(expected), "{given}: {error}");
        }
    }

    #[test]
    fn schema_has_the_bounds_that_are_checked() {
        let schema = schema(&[&ID, &LIMIT, &ENTITY], &["id"]);
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], json!(["id"]));
        assert_eq!(schema["properties"]["limit"]["maximum"], MAX_LIMIT);
        assert_eq!(schema["properties"]["entity"]["maxItems"], MAX_TEXTS);
        assert_eq!(schema["properties"]["id"]["maxLength"], MAX_TEXT_CHARS);
    }
}
