//! Secrets in events.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use super::json::ValueClass;
use super::redactor::Redactor;
use super::value::{REDACTED, is_reference_or_mark};
use crate::event::{Event, Field, Name, Value};

impl Redactor {
    /// Calls `read` with the event without secrets, in its message and in the texts of its entity
    /// keys and attributes, and with whether it had any. Numbers and ids stay.
    pub fn event<R>(&self, event: &Event<'_>, read: impl FnOnce(&Event<'_>, bool) -> R) -> R {
        let mut found: Vec<(usize, String)> = Vec::new();
        for (at, field) in event.fields.iter().enumerate() {
            if let Some(text) = self.field(field) {
                found.push((at, text));
            }
        }
        let message = self.text(event.message);
        if found.is_empty() && matches!(message, Cow::Borrowed(_)) {
            return read(event, false);
        }
        let mut fields = event.fields.to_vec();
        for (at, text) in &found {
            fields[*at].value = match fields[*at].value {
                Value::Json(_) => Value::Json(text),
                _ => Value::Str(text),
            };
        }
        read(&Event { fields: &fields, message: &message, ..*event }, true)
    }

    /// The text of a field without secrets; `None` where it has none.
    fn field(&self, field: &Field<'_>) -> Option<String> {
        match field.value {
            Value::Str(text) => match self.field_class(field.key) {
                ValueClass::Secret => (!is_reference_or_mark(text)).then(|| REDACTED.to_owned()),
                _ => match self.text(text) {
                    Cow::Owned(text) => Some(text),
                    Cow::Borrowed(_) => None,
                },
            },
            Value::Json(text) => self.json(text, self.field_class(field.key)),
            _ => None,
        }
    }

    /// Whether a field with this name may have any value: neither its name nor the name's usual
    /// content, such as a command line, makes it a secret.
    #[must_use]
    pub fn is_ordinary(&self, name: &str) -> bool {
        self.value_class(name) == ValueClass::Ordinary
    }

    /// The class of a name, computed once for each name of the process.
    fn field_class(&self, name: Name) -> ValueClass {
        const CLASSES: [ValueClass; 3] =
            [ValueClass::Ordinary, ValueClass::Secret, ValueClass::Command];
        let Some(cached) = self.classes.get(usize::from(name.0)) else {
            return self.value_class(name.text());
        };
        // Relaxed: every thread computes the same value, and nothing else depends on it.
        if let Some(class) = usize::from(cached.load(Ordering::Relaxed)).checked_sub(1) {
            return CLASSES[class.min(2)];
        }
        let class = self.value_class(name.text());
        cached.store(class as u8 + 1, Ordering::Relaxed);
        class
    }
}
