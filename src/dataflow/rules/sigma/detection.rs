//! Detections: selections of fields with modifiers, lists of values, keywords.

use super::super::compile::predicate::{network, regex};
use super::super::field::FieldRef;
use super::super::field_test::{FieldTest, Literal, Order};
use super::super::kinds::Kinds;
use super::super::predicate::{Clause, Predicate};
use super::super::suggest::unknown;
use super::super::yaml::{Diagnostic, Key, Node, Parsed, Part, Position, reject};
use super::condition::{self, one_or};
use super::encoding::{self, Encoding};
use super::logsource::Logsource;
use tapio_core::event::Name;

const MODIFIERS: &[&str] = &[
    "contains",
    "startswith",
    "endswith",
    "all",
    "re",
    "i",
    "m",
    "s",
    "cidr",
    "gt",
    "gte",
    "lt",
    "lte",
    "neq",
    "exists",
    "cased",
    "windash",
    "fieldref",
    "wide",
    "utf16le",
    "utf16be",
    "utf16",
    "base64",
    "base64offset",
];

/// The field for a Sigma field name.
pub(super) fn field(name: &str, position: Position) -> Parsed<FieldRef> {
    if let Ok(field) = FieldRef::parse(name) {
        return Ok(field);
    }
    let attribute = Name::intern(name);
    Ok(FieldRef::Attribute(attribute.map_err(|e| Diagnostic { position, message: e.to_string() })?))
}

/// The predicate of a detection document.
pub(super) fn predicate(document: &Node) -> Parsed<Predicate> {
    let logsource = Logsource::parse(document)?;
    let Some(detection) = document.entry("detection") else {
        return reject(document.position, "a Sigma rule needs a detection");
    };
    let mut selections = Vec::new();
    let mut condition = None;
    for (key, value) in detection.map("a detection")? {
        if key.text == "condition" {
            condition = Some(value);
        } else {
            selections.push((key.text.clone(), selection(value, &logsource)?));
        }
    }
    let Some(condition) = condition else {
        return reject(detection.position, "a detection needs a condition");
    };
    // Several conditions: one of them must hold.
    let clauses = condition
        .items()
        .iter()
        .map(|n| condition::parse(n.text("a condition")?, n.position, "selection", &selections))
        .collect::<Parsed<Vec<_>>>()?;
    let kinds = match logsource.kinds() {
        [] => Kinds::All,
        kinds => Kinds::Some { exact: kinds.to_vec(), globs: Vec::new() },
    };
    Ok(Predicate::new(kinds, one_or(clauses, Clause::Any)))
}

fn selection(node: &Node, logsource: &Logsource) -> Parsed<Clause> {
    match &node.part {
        Part::Map(entries) => {
            let fields: Parsed<Vec<_>> =
                entries.iter().map(|(key, value)| entry(key, value, logsource)).collect();
            Ok(one_or(fields?, Clause::All))
        }
        Part::List(items) => {
            let clauses: Parsed<Vec<_>> = items.iter().map(|n| selection(n, logsource)).collect();
            Ok(one_or(clauses?, Clause::Any))
        }
        Part::Null => reject(node.position, "an empty selection"),
        // A keyword: any part of the message.
        _ => {
            let modifiers = Modifiers { contains: true, ..Modifiers::default() };
            value(FieldRef::Message, node, &modifiers)
        }
    }
}

/// The modifiers behind a field's name.
#[derive(Default)]
struct Modifiers {
    contains: bool,
    starts: bool,
    ends: bool,
    all: bool,
    cased: bool,
    windash: bool,
    regex: Option<String>,
    network: bool,
    exists: bool,
    negated: bool,
    fieldref: bool,
    order: Option<Order>,
    encodings: Vec<Encoding>,
}

impl Modifiers {
    fn parse<'a>(words: impl Iterator<Item = &'a str>, position: Position) -> Parsed<Self> {
        let mut of = Self::default();
        for word in words {
            match word {
                "contains" => of.contains = true,
                "startswith" => of.starts = true,
                "endswith" => of.ends = true,
                "all" => of.all = true,
                "cased" => of.cased = true,
                "windash" => of.windash = true,
                "re" => of.regex = Some(String::new()),
                "i" | "m" | "s" if of.regex.is_some() => {
                    of.regex.get_or_insert_default().push_str(word);
                }
                "cidr" => of.network = true,
                "exists" => of.exists = true,
                "neq" => of.negated = true,
                "fieldref" => of.fieldref = true,
                "gt" => of.order = Some(Order::Gt),
                "gte" => of.order = Some(Order::Gte),
                "lt" => of.order = Some(Order::Lt),
                "lte" => of.order = Some(Order::Lte),
                other => match Encoding::parse(other) {
                    Some(encoding) => of.encodings.push(encoding),
                    None => return reject(position, unknown("modifier", other, MODIFIERS)),
                },
            }
        }
        Ok(of)
    }
}

fn entry(key: &Key, node: &Node, logsource: &Logsource) -> Parsed<Clause> {
    let mut parts = key.text.split('|');
    let name = parts.next().unwrap_or_default();
    let modifiers = Modifiers::parse(parts, key.position)?;
    let field = match name {
        // `|all: [...]`: keywords, all of which must occur.
        "" => FieldRef::Message,
        _ => match logsource.field(name) {
            Some(field) => field,
            None => field(name, key.position)?,
        },
    };
    let modifiers = match name {
        "" => Modifiers { contains: true, ..modifiers },
        _ => modifiers,
    };
    let clauses =
        node.items().iter().map(|n| value(field, n, &modifiers)).collect::<Parsed<Vec<_>>>()?;
    if clauses.is_empty() {
        return reject(node.position, "an empty list of values");
    }
    let clause = one_or(clauses, if modifiers.all { Clause::All } else { Clause::Any });
    Ok(if modifiers.negated { Clause::Not(Box::new(clause)) } else { clause })
}

fn value(field: FieldRef, node: &Node, modifiers: &Modifiers) -> Parsed<Clause> {
    let test = |test| Ok(Clause::Field(field, test));
    if modifiers.exists {
        return test(FieldTest::Exists(node.bool("`exists` to be true or false")?));
    }
    if let Some(order) = modifiers.order {
        return test(FieldTest::Compare(order, node.number("a number")?));
    }
    if matches!(node.part, Part::Null) {
        return test(FieldTest::Exists(false));
    }
    let text = node.scalar_text("text, a number, true or false")?;
    if modifiers.network {
        return test(network(&text, node.position)?);
    }
    if modifiers.fieldref {
        return Ok(Clause::SameAs(field, self::field(&text, node.position)?));
    }
    if let Some(flags) = &modifiers.regex {
        let flags = if flags.is_empty() { String::new() } else { format!("(?{flags})") };
        return test(FieldTest::Regex(regex(&format!("{flags}{text}"), node.position)?));
    }
    let mut spellings = vec![text.clone()];
    if modifiers.windash {
        spellings.extend(dashes(&text));
    }
    if !modifiers.encodings.is_empty() {
        // Encodings apply to the text without its escapes; a wildcard can't be encoded.
        let encoded = spellings.iter().map(|t| match unescaped(t) {
            Some(plain) => Ok(encoding::spellings(&plain, &modifiers.encodings)),
            None => reject(node.position, "a value with wildcards can't be encoded"),
        });
        spellings = encoded.collect::<Parsed<Vec<_>>>()?.concat();
        spellings.iter_mut().for_each(|t| *t = escaped(t));
    }
    let clauses: Parsed<Vec<_>> =
        spellings.iter().map(|t| text_clause(field, node, t, modifiers)).collect();
    Ok(one_or(clauses?, Clause::Any))
}

/// The text with other signs in front of an option: Sigma's `windash`.
fn dashes(text: &str) -> Vec<String> {
    let signs = ['-', '/', '–', '—', '―'];
    let Some(sign) = text.trim_start().chars().next().filter(|c| signs.contains(c)) else {
        return Vec::new();
    };
    signs.iter().filter(|s| **s != sign).map(|s| text.replacen(sign, &s.to_string(), 1)).collect()
}

/// Compiles a Sigma pattern: `*` matches any text, `?` any character; a backslash escapes these and
/// itself.
fn text_clause(field: FieldRef, node: &Node, text: &str, modifiers: &Modifiers) -> Parsed<Clause> {
    let any_ends = modifiers.contains || modifiers.starts || modifiers.ends;
    let plain = unescaped(text);
    if let (Some(plain), false) = (&plain, any_ends) {
        let mut tests = vec![if modifiers.cased {
            FieldTest::Equals(vec![Literal::Text(plain.clone())])
        } else {
            FieldTest::EqualsFolded(plain.to_lowercase())
        }];
        // In Sigma, a number equals its text.
        match &node.part {
            Part::Bool(b) => tests.push(FieldTest::Equals(vec![Literal::Bool(*b)])),
            _ => tests.extend(plain.parse().ok().map(|n| FieldTest::Equals(vec![Literal::Int(n)]))),
        }
        let clauses = tests.into_iter().map(|t| Clause::Field(field, t)).collect();
        return Ok(one_or(clauses, Clause::Any));
    }
    let mut pattern = String::from(if modifiers.cased { "(?s)" } else { "(?si)" });
    if !(modifiers.contains || modifiers.ends) {
        pattern.push('^');
    }
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some('*' | '?' | '\\')) => {
                let literal = chars.next().unwrap_or('\\');
                pattern.push_str(&::regex::escape(literal.encode_utf8(&mut [0; 4])));
            }
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            other => pattern.push_str(&::regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    if !(modifiers.contains || modifiers.starts) {
        pattern.push('$');
    }
    Ok(Clause::Field(field, FieldTest::Regex(regex(&pattern, node.position)?)))
}

/// Escapes a text, so that the pattern matches it only.
fn escaped(text: &str) -> String {
    let escape = |c: char| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escape).collect()
}

/// The text without its escapes; `None` if it has wildcards.
fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => return None,
            '\\' if matches!(chars.peek(), Some('*' | '?' | '\\')) => plain.extend(chars.next()),
            other => plain.push(other),
        }
    }
    Some(plain)
}
