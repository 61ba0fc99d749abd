//! Shortens JSON: long texts, long lists, deep nesting.

use serde_json::{Map, Value};

/// Names of an object at least, whatever the level: a story itself has about thirty.
const MIN_NAMES: usize = 40;

/// Bounds of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Characters of a text.
    pub(super) chars: usize,
    /// Entries of a list.
    pub(super) entries: usize,
    /// Nesting.
    depth: usize,
}

/// Bounds, from wide to narrow: the first by which a document is small enough applies.
pub(super) const LEVELS: [Bounds; 4] = [
    Bounds { chars: 1000, entries: 100, depth: 12 },
    Bounds { chars: 300, entries: 25, depth: 8 },
    Bounds { chars: 100, entries: 8, depth: 6 },
    Bounds { chars: 40, entries: 3, depth: 4 },
];

impl Bounds {
    /// Shortens a value. Returns whether something was left out.
    pub(super) fn apply(self, value: &mut Value) -> bool {
        self.at(value, 0)
    }

    fn at(self, value: &mut Value, depth: usize) -> bool {
        if depth >= self.depth && (value.is_array() || value.is_object()) {
            *value = "…".into();
            return true;
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(values) => {
                let mut is_cut = false;
                let more = values.len().saturating_sub(self.entries);
                values.truncate(self.entries);
                for value in &mut *values {
                    is_cut |= self.at(value, depth + 1);
                }
                if more > 0 {
                    values.push(format!("… ({more} more)").into());
                }
                is_cut || more > 0
            }
            Value::Object(members) => self.object(members, depth),
            _ => false,
        }
    }

    fn object(self, members: &mut Map<String, Value>, depth: usize) -> bool {
        let names = self.entries.max(MIN_NAMES);
        let more = members.len().saturating_sub(names);
        let mut is_cut = more > 0;
        let kept = std::mem::take(members).into_iter().take(names);
        for (mut name, mut value) in kept {
            is_cut |= self.text(&mut name);
            is_cut |= self.at(&mut value, depth + 1);
            members.insert(name, value);
        }
        if more > 0 {
            members.insert("…".into(), format!("{more} more").into());
        }
        is_cut
    }

    fn text(self, text: &mut String) -> bool {
        let Some((end, _)) = text.char_indices().nth(self.chars) else { return false };
        let more = text[end..].chars().count();
        text.truncate(end);
        text.push_str(&format!("… ({more} more characters)"));
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_lists_and_names_are_cut() {
        let bounds = Bounds { chars: 3, entries: 2, depth: 3 };
        let mut value = json!({"äöüß": "äöüß", "list": [1, 2, 3], "deep": [[["x"]]], "n": null});
        assert!(bounds.apply(&mut value));
        let expected = json!({
            "äöü… (1 more characters)": "äöü… (1 more characters)",
            "lis… (1 more characters)": [1, 2, "… (1 more)"],
            "dee… (1 more characters)": [["…"]],
            "n": null,
        });
        assert_eq!(value, expected);
        let mut small = json!({"a": ["abc"]});
        assert!(!bounds.apply(&mut small));
        assert_eq!(small, json!({"a": ["abc"]}));
    }

    #[test]
    fn object_with_many_names_is_cut() {
        let mut value: Value = (0..100).map(|n| (n.to_string(), json!(n))).collect();
        assert!(LEVELS[3].apply(&mut value));
        assert_eq!(value.as_object().unwrap().len(), MIN_NAMES + 1);
        assert_eq!(value["…"], "60 more");
    }
}
