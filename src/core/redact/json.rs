//! Secrets in JSON values.

use std::borrow::Cow;

use serde_json::Value;

use super::command::Words;
use super::names::{self, NameClass};
use super::redactor::Redactor;
use super::value::{REDACTED, is_reference_or_mark};

/// How the value of a name is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueClass {
    /// Its texts are searched.
    Ordinary,
    /// Its texts are secrets.
    Secret,
    /// A list of texts is a command line.
    Command,
}

impl Redactor {
    /// How the value of an attribute or key is treated.
    pub(super) fn value_class(&self, name: &str) -> ValueClass {
        match self.names().class(name, false).0 {
            NameClass::Ordinary | NameClass::Doubtful if names::is_command(name) => {
                ValueClass::Command
            }
            NameClass::Ordinary | NameClass::Doubtful => ValueClass::Ordinary,
            _ => ValueClass::Secret,
        }
    }

    /// A value of JSON, by its name's class, without secrets. `None` where it has none.
    pub(super) fn json(&self, text: &str, class: ValueClass) -> Option<String> {
        if class != ValueClass::Secret && !self.has_trigger(text) {
            return None;
        }
        let Ok(mut value) = serde_json::from_str::<Value>(text) else {
            let Cow::Owned(redacted) = self.text(text) else { return None };
            return Some(redacted);
        };
        self.redact_json_as(&mut value, class).then(|| value.to_string())
    }

    /// Redacts the texts of a JSON value; returns whether it had secrets.
    pub fn redact_json(&self, value: &mut Value) -> bool {
        self.redact_json_as(value, ValueClass::Ordinary)
    }

    fn redact_json_as(&self, value: &mut Value, class: ValueClass) -> bool {
        match value {
            Value::String(text) => self.redact_value(text, class),
            Value::Array(items) if class == ValueClass::Command => self.redact_command(items),
            Value::Array(items) => {
                let each = items.iter_mut().map(|item| self.redact_json_as(item, class));
                each.fold(false, |any, found| any | found)
            }
            Value::Object(map) => {
                // `{"name": "PASSWORD", "value": "x"}`.
                let named = ["name", "key"].iter().find_map(|key| map.get(*key)?.as_str());
                let value_class = named.map(|name| self.value_class(name));
                let mut any = false;
                for (key, item) in map.iter_mut() {
                    let class = match value_class {
                        Some(class) if key == "value" => class,
                        // The list of a secret's parts, such as cookies.
                        _ if class == ValueClass::Secret && item.is_string() => class,
                        _ => self.value_class(key),
                    };
                    any |= self.redact_json_as(item, class);
                }
                any
            }
            _ => false,
        }
    }

    /// Redacts a text by its class; returns whether it was one.
    pub(super) fn redact_value(&self, text: &mut String, class: ValueClass) -> bool {
        if class == ValueClass::Secret {
            if is_reference_or_mark(text) {
                return false;
            }
            REDACTED.clone_into(text);
            return true;
        }
        let Cow::Owned(redacted) = self.text(text) else { return false };
        *text = redacted;
        true
    }

    /// Redacts the words of a command line.
    fn redact_command(&self, items: &mut [Value]) -> bool {
        let words: Vec<String> =
            items.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect();
        let mut state = Words::new(true);
        let mut any = false;
        for (word, item) in words.iter().zip(items) {
            let found = state.word(word);
            let Value::String(text) = item else {
                any |= self.redact_json(item);
                continue;
            };
            if let Some((start, end)) = found {
                text.replace_range(start..end, REDACTED);
                any = true;
            }
            any |= self.redact_value(text, ValueClass::Ordinary);
        }
        any
    }
}
