//! Every key with its default, as a commented file that is valid and changes nothing.

use serde_json::Value as Json;

use super::super::config::Config;
use super::schema::{items, properties};
use super::yaml::{entry, flow};

/// Longest line of a comment.
const LINE: usize = 96;

const HEADER: &str = "\
# The configuration of tapio: every key with its default. A key in a comment has none; its value is
# an example. `A reload takes it` marks keys that SIGHUP changes; the others take effect at the next
# start. `${NAME}`, `${NAME:-default}` and `${file:PATH}` are replaced by variables of the
# environment and contents of files; `$$` is a dollar sign.
";

impl Config {
    /// Every key with its default, as commented YAML.
    #[must_use]
    pub fn defaults_text() -> String {
        let default = serde_json::to_value(Self::default()).unwrap_or_default();
        let schema = Self::schema();
        let mut out = HEADER.to_owned();
        for (name, schema) in properties(&schema).into_iter().flatten() {
            out.push('\n');
            key(name, schema, default.get(name), 0, &mut out);
        }
        out
    }
}

/// Writes a key with its description. `value`: its default, unless it is of a section without one.
fn key(name: &str, schema: &Json, value: Option<&Json>, indent: usize, out: &mut String) {
    let about = schema.get("description").and_then(Json::as_str).unwrap_or_default();
    comment(about, indent, out);
    let below = properties(schema);
    match (value, below) {
        (Some(value @ Json::Object(_)), Some(keys)) => {
            let mut below = String::new();
            for (name, schema) in keys {
                key(name, schema, value.get(name), indent + 2, &mut below);
            }
            // A section without any value would be null, which is no section.
            if below.lines().all(|line| line.trim_start().starts_with('#')) {
                out.push_str(&format!("{:indent$}# {name}:\n", ""));
                examples(schema, indent, "  ", out);
            } else {
                out.push_str(&format!("{:indent$}{name}:\n{below}", ""));
            }
        }
        (None | Some(Json::Null), Some(_)) => {
            out.push_str(&format!("{:indent$}# {name}:\n", ""));
            examples(schema, indent, "  ", out);
        }
        (Some(value), None) if !value.is_null() => {
            entry(name, value, indent, out);
            if let Some(element) = items(schema).filter(|items| properties(items).is_some()) {
                out.push_str(&format!("{:indent$}# An element:\n", ""));
                examples(element, indent, "  ", out);
            }
        }
        _ => out.push_str(&format!("{:indent$}# {name}: {}\n", "", example(schema))),
    }
}

/// Writes the keys of a section that isn't there, in comments.
fn examples(schema: &Json, indent: usize, nested: &str, out: &mut String) {
    for (name, schema) in properties(schema).into_iter().flatten() {
        let about = schema.get("description").and_then(Json::as_str).unwrap_or_default();
        for line in wrapped(about, LINE.saturating_sub(indent + nested.len() + 4)) {
            out.push_str(&format!("{:indent$}# {nested}# {line}\n", ""));
        }
        if properties(schema).is_some() {
            out.push_str(&format!("{:indent$}# {nested}{name}:\n", ""));
            examples(schema, indent, &format!("{nested}  "), out);
        } else {
            out.push_str(&format!("{:indent$}# {nested}{name}: {}\n", "", example(schema)));
        }
    }
}

/// A value that a key can have: its default, its first example, or nothing.
fn example(schema: &Json) -> String {
    let default = schema.get("default").filter(|default| !default.is_null());
    let example = || schema.get("examples").and_then(|examples| examples.get(0));
    default.or_else(example).map(flow).unwrap_or_default()
}

fn comment(text: &str, indent: usize, out: &mut String) {
    for line in wrapped(text, LINE.saturating_sub(indent + 2)) {
        out.push_str(&format!("{:indent$}# {line}\n", ""));
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_defaults_is_complete_and_changes_nothing() {
        let text = Config::defaults_text();
        let config = Config::parse("defaults.yaml", &text, |_| None);
        let config = config.unwrap_or_else(|e| panic!("{e}\n{text}"));
        let value = |config: &Config| serde_json::to_value(config).unwrap();
        assert_eq!(value(&config), value(&Config::default()));
        for key in Config::keys() {
            let name = key.path.rsplit('.').next().unwrap();
            assert!(text.contains(&format!("{name}:")), "{}", key.path);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
