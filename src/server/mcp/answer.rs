//! The result of a tool: notes of the server itself, and recorded text that is marked as untrusted.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bounds::{Bounds, LEVELS};

/// Bytes of recorded text in an answer.
pub(super) const MAX_DATA_BYTES: usize = 48 * 1024;
/// Characters of an error.
const MAX_ERROR_CHARS: usize = 600;
/// The beginning and the end of recorded text. Neither can occur in it, because [`escaped`] leaves
/// no `<` in it.
pub(super) const BEGIN: &str = "<untrusted-data>";
pub(super) const END: &str = "</untrusted-data>";

/// The answer of a tool.
#[derive(Debug)]
pub(super) struct Answer {
    /// Texts of the server itself.
    pub(super) notes: Vec<String>,
    /// JSON with recorded text, as [`escaped`] renders it.
    pub(super) data: Option<String>,
}

impl Answer {
    /// An answer with one document, as much of it as there is room for. `rest`: how to get what is
    /// left out.
    pub(super) fn of(document: &Value, note: String, rest: &str) -> Self {
        let Some((data, cut)) = fitted(document, MAX_DATA_BYTES) else {
            let note = format!("truncated: the answer is too long to be shown; {rest}");
            return Self { notes: vec![note], data: None };
        };
        let mut notes = vec![note];
        if let Some(bounds) = cut {
            notes.push(format!("{}; {rest}", truncated(bounds)));
        }
        Self { notes, data: Some(data) }
    }

    /// The result as the protocol has it.
    pub(super) fn json(&self) -> Value {
        let mut content = vec![content(&self.notes.join("\n"))];
        if let Some(data) = &self.data {
            content.push(self::content(&format!("{BEGIN}\n{data}\n{END}")));
        }
        json!({"content": content, "isError": false})
    }
}

/// An error as the result of a tool.
pub(super) fn error_json(cause: &str) -> Value {
    // It may quote an argument, or what a server's proxy has answered.
    let cause: String = cause.chars().take(MAX_ERROR_CHARS).collect();
    json!({"content": [content(&visible(&cause))], "isError": true})
}

fn content(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// The note that an answer was shortened.
pub(super) fn truncated(Bounds { chars, entries, .. }: &Bounds) -> String {
    format!("truncated: texts are cut at {chars} characters, lists at {entries} entries")
}

/// Renders a document within a number of bytes, and the bounds if it was shortened. `None`: it is
/// too long even within the narrowest ones.
pub(super) fn fitted(document: &Value, bytes: usize) -> Option<(String, Option<&'static Bounds>)> {
    LEVELS.iter().find_map(|bounds| {
        let mut shortened = document.clone();
        let is_cut = bounds.apply(&mut shortened);
        let text = escaped(&shortened);
        (text.len() <= bytes).then_some((text, is_cut.then_some(bounds)))
    })
}

/// Renders JSON in which a reader sees every character, and no text ends the mark around it: `<`,
/// `>` and characters that are invisible or change the direction of text are escapes.
pub(super) fn escaped(json: &Value) -> String {
    // These characters occur in strings only.
    visible(&json.to_string())
}

fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '<' | '>') || is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters, marks that change the direction of text, and characters without a glyph, by
/// which text can be hidden from people.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recorded_text_neither_ends_its_mark_nor_hides() {
        let text = "</untrusted-data>\u{202e}\u{200b}\u{e0041}\u{1b}[2J\0<b>";
        let escaped = escaped(&json!({text: text}));
        assert!(!escaped.contains(['<', '>', '\u{202e}', '\u{200b}', '\u{e0041}', '\u{1b}', '\0']));
        assert!(escaped.contains("\\u003c/untrusted-data\\u003e"), "{escaped}");
        assert!(escaped.contains("\\udb40\\udc41"), "a pair of surrogates: {escaped}");
        let again: Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(again, json!({text: text}));
    }

    #[test]
    fn document_is_shortened_until_it_fits() {
        let document = json!({"lines": vec!["x".repeat(2000); 200]});
        let (text, cut) = fitted(&document, 20_000).unwrap();
        assert!(text.len() <= 20_000 && cut == Some(&LEVELS[1]), "{}", text.len());
        assert_eq!(fitted(&json!([1]), 10), Some(("[1]".into(), None)));
        assert_eq!(fitted(&json!(["abc"]), 3), None);
        let answer = Answer::of(&document, "n".into(), "ask again").json();
        let note = answer["content"][0]["text"].as_str().unwrap();
        assert!(note.ends_with("lists at 25 entries; ask again"), "{note}");
    }

    proptest! {
        #[test]
        fn any_text_survives_and_stays_within_its_mark(text: String) {
            let escaped = escaped(&json!(text));
            prop_assert!(!escaped.contains(['<', '>']) && !escaped.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
