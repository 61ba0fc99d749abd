//! A YAML document as a tree of nodes with positions, so that every diagnostic about a rule has a
//! line and a column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::suggest::unknown;
use super::yaml_error::yaml_cause;

/// Line and column, from 1; zeros stand for the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// As it follows the name of a file: `:LINE:COLUMN`, or nothing for the whole file.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}:{}", self.column),
        }
    }
}

/// A problem in a rule document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Position of the problem in its file.
    pub position: Position,
    /// Cause, and remedy where there is one.
    pub message: String,
}

/// A value in a document, with its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) part: Part,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) position: Position,
    pub(super) text: String,
}

struct Bare(Part);

struct PartVisitor;

fn position_of<T>(spanned: &Spanned<T>) -> Position {
    Position { line: spanned.referenced.line(), column: spanned.referenced.column() }
}

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Part, E> {
        Ok(Part::Null)
    }
    fn visit_none<E>(self) -> Result<Part, E> {
        Ok(Part::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Part, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Part, E> {
        Ok(Part::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Part, E> {
        Ok(Part::Int(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Part, E> {
        Ok(i64::try_from(n).map_or(Part::Float(n as f64), Part::Int))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Part, E> {
        Ok(Part::Float(n))
    }
    fn visit_str<E>(self, s: &str) -> Result<Part, E> {
        Ok(Part::Text(s.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Part, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element::<Node>()? {
            list.push(node);
        }
        Ok(Part::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Node>()? {
            entries.push((Key { position: position_of(&key), text: key.value }, node));
        }
        Ok(Part::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(PartVisitor).map(Bare)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Bare>::deserialize(d)?;
        Ok(Self { position: position_of(&spanned), part: spanned.value.0 })
    }
}

/// Parses the documents of a text.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Diagnostic> {
    // YAML 1.2: `n` and `yes` are text; only `true` and `false` are booleans.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|e| {
        let position = e
            .location()
            .map_or(Position::default(), |l| Position { line: l.line(), column: l.column() });
        Diagnostic { position, message: yaml_cause(&e, text) }
    })
}

/// A value that was read from a document, or the reason why it can't be.
pub(super) type Parsed<T> = Result<T, Diagnostic>;

/// Fails with a diagnostic.
pub(super) fn reject<T>(position: Position, message: impl Into<String>) -> Parsed<T> {
    Err(Diagnostic { position, message: message.into() })
}

impl Part {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// Fails because the value has another type.
    pub(super) fn expected<T>(&self, expected: &str) -> Parsed<T> {
        reject(self.position, format!("expected {expected}, found {}", self.part.type_name()))
    }

    pub(super) fn text(&self, expected: &str) -> Parsed<&str> {
        match &self.part {
            Part::Text(s) => Ok(s),
            _ => self.expected(expected),
        }
    }

    /// Text, or another scalar in its text form.
    pub(super) fn scalar_text(&self, expected: &str) -> Parsed<String> {
        match &self.part {
            Part::Text(s) => Ok(s.clone()),
            Part::Int(n) => Ok(n.to_string()),
            Part::Float(n) => Ok(n.to_string()),
            Part::Bool(b) => Ok(b.to_string()),
            _ => self.expected(expected),
        }
    }

    pub(super) fn bool(&self, expected: &str) -> Parsed<bool> {
        match self.part {
            Part::Bool(b) => Ok(b),
            _ => self.expected(expected),
        }
    }

    pub(super) fn number(&self, expected: &str) -> Parsed<f64> {
        match self.part {
            Part::Int(n) => Ok(n as f64),
            Part::Float(n) => Ok(n),
            _ => self.expected(expected),
        }
    }

    /// A whole number of at least 1.
    pub(super) fn positive(&self, context: &str) -> Parsed<u64> {
        match self.part {
            Part::Int(n) if n >= 1 => Ok(n as u64),
            Part::Int(_) => reject(self.position, format!("{context}: must be at least 1")),
            _ => self.expected("a whole number"),
        }
    }

    /// A duration such as `60s`, in nanoseconds.
    pub(super) fn duration_ns(&self, context: &str) -> Parsed<u64> {
        let text = self.text(&format!("{context} to be a duration such as 60s"))?;
        match tapio_core::durations::parse(text) {
            Ok(duration) => Ok(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
            Err(e) => reject(self.position, format!("{context}: {e}")),
        }
    }

    /// The items of a list; any other value is one item.
    pub(super) fn items(&self) -> &[Node] {
        match &self.part {
            Part::List(list) => list,
            _ => std::slice::from_ref(self),
        }
    }

    pub(super) fn map(&self, context: &str) -> Parsed<&[(Key, Node)]> {
        match &self.part {
            Part::Map(entries) => Ok(entries),
            _ => self.expected(&format!("{context} to be a mapping")),
        }
    }

    /// The value as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        match &self.part {
            Part::Null => serde_json::Value::Null,
            Part::Bool(b) => (*b).into(),
            Part::Int(n) => (*n).into(),
            Part::Float(n) => (*n).into(),
            Part::Text(s) => s.as_str().into(),
            Part::List(items) => items.iter().map(Self::json).collect(),
            Part::Map(entries) => {
                entries.iter().map(|(key, value)| (key.text.clone(), value.json())).collect()
            }
        }
    }

    /// The value of a key; `None` if the node is no mapping or lacks the key.
    pub(super) fn entry(&self, key: &str) -> Option<&Node> {
        match &self.part {
            Part::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, n)| n),
            _ => None,
        }
    }

    /// The node as a mapping. Fails on a key that isn't among `known`.
    pub(super) fn table(&self, context: &str, known: &[&str]) -> Parsed<Table<'_>> {
        let entries = self.map(context)?;
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                return reject(
                    key.position,
                    unknown(&format!("key in {context}"), &key.text, known),
                );
            }
        }
        Ok(Table { position: self.position, entries })
    }
}

/// A mapping with known keys only.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) position: Position,
    entries: &'a [(Key, Node)],
}

impl<'a> Table<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    pub(super) fn need(&self, key: &str, context: &str) -> Parsed<&'a Node> {
        self.get(key).map_or_else(|| reject(self.position, format!("{context} needs `{key}`")), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_keep_their_positions() {
        let docs = documents("a: 1\nb:\n  - x\n  - {c: true}\n").unwrap();
        let map = docs[0].map("doc").unwrap();
        assert_eq!(map[1].0.position, Position { line: 2, column: 1 });
        assert_eq!(map[1].1.items()[1].position.line, 4);
    }

    #[test]
    fn broken_yaml_is_reported_with_its_position() {
        let diagnostic = documents("a: [1\nb: 2").unwrap_err();
        assert!(diagnostic.position.line >= 1, "{diagnostic:?}");
    }
}
