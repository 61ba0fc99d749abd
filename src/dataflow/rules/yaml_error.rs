//! Errors of YAML documents, in the words of those who write them: the key, and the value that it
//! takes, instead of the parser's types and options.

use serde_saphyr::Error;

/// The cause of an error in a document, without its position. `text` is the document.
#[must_use]
pub fn yaml_cause(error: &Error, text: &str) -> String {
    let error = error.without_snippet();
    let expected = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("duplicate key `{key}`: a mapping has each key once");
        }
        Error::DuplicateMappingKey { .. } => {
            return "duplicate key: a mapping has each key once".to_owned();
        }
        Error::MultipleDocuments { .. } => {
            return "a second document begins here (`---`); the file must hold one".to_owned();
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            return "too large or nested too deep, with its aliases (`*name`) written out"
                .to_owned();
        }
        Error::AliasError { error, .. } => return yaml_cause(error, text),
        Error::UnknownAnchor { .. } => {
            return "an alias (`*name`) without its anchor (`&name`)".to_owned();
        }
        Error::Unexpected { expected, .. } => match *expected {
            "mapping start" => "a mapping (`key: value`)",
            "sequence start" => "a list (`[a, b]`, or lines that begin with `- `)",
            "string scalar" => "text",
            other => other,
        },
        Error::InvalidScalar { ty, .. } => match ty.as_bytes() {
            b"boolean" => "true or false",
            b"floating point" => "a number",
            [b'u', b'0'..=b'9', ..] | b"usize" => "a whole number, not negative",
            [b'i', b'0'..=b'9', ..] | b"isize" => "a whole number",
            _ => ty,
        },
        Error::InvalidBooleanStrict { .. } => "true or false",
        Error::NullIntoString { .. } => "text, found nothing",
        other => {
            let full = other.to_string();
            let cause = full.split(" at line ").next().unwrap_or(&full);
            let cause = cause.lines().next().unwrap_or("invalid YAML");
            return cause.replacen("unknown variant", "unknown value", 1);
        }
    };
    let position = error.location().map(|at| (at.line(), at.column()));
    match position.and_then(|(line, column)| key_before(text, line, column)) {
        Some(key) => format!("`{key}`: expected {expected}"),
        None => format!("expected {expected}"),
    }
}

/// The last key before a position, on its line or on one above it. Line and column from 1.
fn key_before(text: &str, line: u64, column: u64) -> Option<&str> {
    let at = usize::try_from(line).ok()?;
    let lines: Vec<&str> = text.lines().take(at).collect();
    let (last, above) = lines.split_last()?;
    let end = last.char_indices().nth(usize::try_from(column).ok()?.saturating_sub(1));
    let before = end.map_or(*last, |(end, _)| &last[..end]);
    std::iter::once(before).chain(above.iter().rev().copied()).find_map(last_key)
}

/// The last `key:` of a line.
fn last_key(line: &str) -> Option<&str> {
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    // A colon that ends a key stands before a blank or at the end.
    let mut colons = line.char_indices().rev().filter(|(at, c)| {
        *c == ':' && line[at + 1..].chars().next().is_none_or(char::is_whitespace)
    });
    colons.find_map(|(at, _)| {
        let start = line[..at]
            .rfind(|c| !is_key(c))
            .map_or(0, |before| before + line[before..].chars().next().map_or(1, char::len_utf8));
        let key = line[start..at].trim_start_matches('-');
        (!key.is_empty()).then_some(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only read from documents")]
    struct Section {
        list: Option<Vec<String>>,
        number: Option<u64>,
        flag: Option<bool>,
        choice: Option<Choice>,
        map: Option<HashMap<String, String>>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        Text,
        Json,
    }

    #[test]
    fn message_names_the_key_and_its_value() {
        for (text, expected) in [
            ("list: a\n", "`list`: expected a list (`[a, b]`, or lines that begin with `- `)"),
            ("{ list: [x], map: [a] }\n", "`map`: expected a mapping (`key: value`)"),
            ("map:\n  # a: comment\n  k: [b]\n", "`k`: expected text"),
            ("map:\n  - b\n", "`map`: expected a mapping (`key: value`)"),
            ("number: -1\n", "`number`: expected a whole number, not negative"),
            ("number: two\n", "`number`: expected a whole number, not negative"),
            ("flag: 7\n", "`flag`: expected true or false"),
            ("- a\n", "expected a mapping (`key: value`)"),
            ("number: 1\nnumber: 2\n", "duplicate key `number`: a mapping has each key once"),
            (
                "number: 1\n---\nnumber: 2\n",
                "a second document begins here (`---`); the file must hold one",
            ),
            ("map: *a\n", "an alias (`*name`) without its anchor (`&name`)"),
            ("map: \"a\n", "unclosed quote"),
            ("choice: xml\n", "unknown value `xml`, expected one of text, json"),
        ] {
            let error = serde_saphyr::from_str::<Section>(text).unwrap_err();
            assert_eq!(yaml_cause(&error, text), expected, "{text}");
        }
    }

    #[test]
    fn document_that_grows_without_end_is_rejected() {
        let lists = "bcdefgh".chars().zip("abcdefg".chars());
        let lines = lists.map(|(name, of)| {
            format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 9].join(","))
        });
        let text = format!("a: &a [x]\n{}", lines.collect::<String>());
        let error = serde_saphyr::from_str::<serde_json::Value>(&text).unwrap_err();
        assert!(yaml_cause(&error, &text).starts_with("too large"), "{error}");
    }
}
