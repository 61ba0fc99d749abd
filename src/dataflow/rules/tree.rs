//! A YAML document as a tree that remembers where each part stands, so that every complaint about
//! a rule has a line and a column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// What is wrong with a rule document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where.
    pub place: Place,
    /// What.
    pub cause: String,
}

/// A part of a document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
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
    pub(super) place: Place,
    pub(super) text: String,
}

struct Bare(Part);

struct PartVisitor;

fn place_of<T>(spanned: &Spanned<T>) -> Place {
    Place { line: spanned.referenced.line(), column: spanned.referenced.column() }
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
            entries.push((Key { place: place_of(&key), text: key.value }, node));
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
        Ok(Self { place: place_of(&spanned), part: spanned.value.0 })
    }
}

/// The documents of a text.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Complaint> {
    // YAML 1.2: `n` and `yes` are text, only `true` and `false` aren't.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|e| {
        let place =
            e.location().map_or(Place::default(), |l| Place { line: l.line(), column: l.column() });
        let full = e.without_snippet().to_string();
        let cause = full.split(" at line ").next().unwrap_or(&full);
        Complaint { place, cause: cause.lines().next().unwrap_or("broken YAML").to_owned() }
    })
}

pub(super) type Read<T> = Result<T, Complaint>;

pub(super) fn complain<T>(place: Place, cause: impl Into<String>) -> Read<T> {
    Err(Complaint { place, cause: cause.into() })
}

impl Part {
    fn word(&self) -> &'static str {
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
    pub(super) fn expected<T>(&self, what: &str) -> Read<T> {
        complain(self.place, format!("expected {what}, found {}", self.part.word()))
    }

    pub(super) fn text(&self, what: &str) -> Read<&str> {
        match &self.part {
            Part::Text(s) => Ok(s),
            _ => self.expected(what),
        }
    }

    /// Text, or anything scalar as its text.
    pub(super) fn scalar_text(&self, what: &str) -> Read<String> {
        match &self.part {
            Part::Text(s) => Ok(s.clone()),
            Part::Int(n) => Ok(n.to_string()),
            Part::Float(n) => Ok(n.to_string()),
            Part::Bool(b) => Ok(b.to_string()),
            _ => self.expected(what),
        }
    }

    pub(super) fn bool(&self, what: &str) -> Read<bool> {
        match self.part {
            Part::Bool(b) => Ok(b),
            _ => self.expected(what),
        }
    }

    pub(super) fn number(&self, what: &str) -> Read<f64> {
        match self.part {
            Part::Int(n) => Ok(n as f64),
            Part::Float(n) => Ok(n),
            _ => self.expected(what),
        }
    }

    /// A whole number of at least 1.
    pub(super) fn positive(&self, what: &str) -> Read<u64> {
        match self.part {
            Part::Int(n) if n >= 1 => Ok(n as u64),
            Part::Int(_) => complain(self.place, format!("{what}: must be at least 1")),
            _ => self.expected("a whole number"),
        }
    }

    /// A duration such as `60s`, in nanoseconds.
    pub(super) fn duration_ns(&self, what: &str) -> Read<u64> {
        let text = self.text(&format!("{what} to be a duration such as 60s"))?;
        match tapio_core::durations::parse(text) {
            Ok(duration) => Ok(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
            Err(e) => complain(self.place, format!("{what}: {e}")),
        }
    }

    /// A list, or one item as a list of itself.
    pub(super) fn items(&self) -> &[Node] {
        match &self.part {
            Part::List(list) => list,
            _ => std::slice::from_ref(self),
        }
    }

    pub(super) fn map(&self, what: &str) -> Read<&[(Key, Node)]> {
        match &self.part {
            Part::Map(entries) => Ok(entries),
            _ => self.expected(&format!("{what} to be a mapping")),
        }
    }

    /// The same as JSON.
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

    /// The value of a key, where the node is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Node> {
        match &self.part {
            Part::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, n)| n),
            _ => None,
        }
    }

    /// A mapping whose keys are all among `known`.
    pub(super) fn table(&self, what: &str, known: &[&str]) -> Read<Table<'_>> {
        let entries = self.map(what)?;
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                return complain(key.place, unknown(&format!("key in {what}"), &key.text, known));
            }
        }
        Ok(Table { place: self.place, entries })
    }
}

/// A mapping whose keys were checked.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) place: Place,
    entries: &'a [(Key, Node)],
}

impl<'a> Table<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    pub(super) fn need(&self, key: &str, what: &str) -> Read<&'a Node> {
        self.get(key).map_or_else(|| complain(self.place, format!("{what} needs `{key}`")), Ok)
    }
}

/// "unknown … `x`: did you mean `y`?"
#[must_use]
pub fn unknown(what: &str, text: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (distance(text, k), *k)).min();
    match nearest {
        Some((d, near)) if d <= 2.max(text.len() / 3) => {
            format!("unknown {what} `{text}`: did you mean `{near}`?")
        }
        _ => format!("unknown {what} `{text}`: expected one of {}", known.join(", ")),
    }
}

/// The known word that a text is a slip of the pen away from, if it isn't one itself.
pub(super) fn slip<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|k| (distance(text, k), k)).min()?;
    (1..=2).contains(&near.0).then_some(near.1)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept() {
        let docs = documents("a: 1\nb:\n  - x\n  - {c: true}\n").unwrap();
        let map = docs[0].map("doc").unwrap();
        assert_eq!(map[1].0.place, Place { line: 2, column: 1 });
        assert_eq!(map[1].1.items()[1].place.line, 4);
    }

    #[test]
    fn broken_yaml_has_a_place() {
        let complaint = documents("a: [1\nb: 2").unwrap_err();
        assert!(complaint.place.line >= 1, "{complaint:?}");
    }

    #[test]
    fn a_near_miss_is_suggested() {
        assert!(unknown("key", "withn", &["within", "by"]).contains("`within`"));
    }
}
