//! Selections of a detection: fields with modifiers, lists of values, keywords.

use super::super::field::FieldRef;
use super::super::predicate::{Clause, Kinds, Predicate, network, regex};
use super::super::test::{Literal, Order, Test};
use super::super::tree::{Complaint, Key, Node, Part, Place, Read, complain, unknown};
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

/// The field a Sigma field name means.
pub(super) fn field(name: &str, place: Place) -> Read<FieldRef> {
    if let Ok(field) = FieldRef::parse(name) {
        return Ok(field);
    }
    let attribute = Name::intern(name);
    Ok(FieldRef::Attribute(attribute.map_err(|e| Complaint { place, cause: e.to_string() })?))
}

/// The predicate of a detection document.
pub(super) fn predicate(document: &Node) -> Read<Predicate> {
    let logsource = Logsource::parse(document)?;
    let Some(detection) = document.entry("detection") else {
        return complain(document.place, "a Sigma rule needs a detection");
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
        return complain(detection.place, "a detection needs a condition");
    };
    // More than one condition: each is a way to match.
    let clauses = condition
        .items()
        .iter()
        .map(|n| condition::parse(n.text("a condition")?, n.place, "selection", &selections))
        .collect::<Read<Vec<_>>>()?;
    let kinds = match logsource.kinds() {
        [] => Kinds::All,
        kinds => Kinds::Some { exact: kinds.to_vec(), globs: Vec::new() },
    };
    Ok(Predicate::new(kinds, one_or(clauses, Clause::Any)))
}

fn selection(node: &Node, logsource: &Logsource) -> Read<Clause> {
    match &node.part {
        Part::Map(entries) => {
            let fields: Read<Vec<_>> =
                entries.iter().map(|(key, value)| entry(key, value, logsource)).collect();
            Ok(one_or(fields?, Clause::All))
        }
        Part::List(items) => {
            let clauses: Read<Vec<_>> = items.iter().map(|n| selection(n, logsource)).collect();
            Ok(one_or(clauses?, Clause::Any))
        }
        Part::Null => complain(node.place, "an empty selection"),
        // A keyword: text anywhere in the message.
        _ => {
            let how = How { contains: true, ..How::default() };
            value(FieldRef::Message, node, &how)
        }
    }
}

/// The modifiers behind a field's name.
#[derive(Default)]
struct How {
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

impl How {
    fn parse<'a>(modifiers: impl Iterator<Item = &'a str>, place: Place) -> Read<Self> {
        let mut how = Self::default();
        for modifier in modifiers {
            match modifier {
                "contains" => how.contains = true,
                "startswith" => how.starts = true,
                "endswith" => how.ends = true,
                "all" => how.all = true,
                "cased" => how.cased = true,
                "windash" => how.windash = true,
                "re" => how.regex = Some(String::new()),
                "i" | "m" | "s" if how.regex.is_some() => {
                    how.regex.get_or_insert_default().push_str(modifier);
                }
                "cidr" => how.network = true,
                "exists" => how.exists = true,
                "neq" => how.negated = true,
                "fieldref" => how.fieldref = true,
                "gt" => how.order = Some(Order::Gt),
                "gte" => how.order = Some(Order::Gte),
                "lt" => how.order = Some(Order::Lt),
                "lte" => how.order = Some(Order::Lte),
                other => match Encoding::parse(other) {
                    Some(encoding) => how.encodings.push(encoding),
                    None => return complain(place, unknown("modifier", other, MODIFIERS)),
                },
            }
        }
        Ok(how)
    }
}

fn entry(key: &Key, node: &Node, logsource: &Logsource) -> Read<Clause> {
    let mut parts = key.text.split('|');
    let name = parts.next().unwrap_or_default();
    let how = How::parse(parts, key.place)?;
    let field = match name {
        // `|all: [...]`: keywords that must all be there.
        "" => FieldRef::Message,
        _ => match logsource.field(name) {
            Some(field) => field,
            None => field(name, key.place)?,
        },
    };
    let how = if name.is_empty() { How { contains: true, ..how } } else { how };
    let clauses = node.items().iter().map(|n| value(field, n, &how)).collect::<Read<Vec<_>>>()?;
    if clauses.is_empty() {
        return complain(node.place, "an empty list of values");
    }
    let clause = one_or(clauses, if how.all { Clause::All } else { Clause::Any });
    Ok(if how.negated { Clause::Not(Box::new(clause)) } else { clause })
}

fn value(field: FieldRef, node: &Node, how: &How) -> Read<Clause> {
    let test = |test| Ok(Clause::Field(field, test));
    if how.exists {
        return test(Test::Exists(node.bool("`exists` to be true or false")?));
    }
    if let Some(order) = how.order {
        return test(Test::Compare(order, node.number("a number")?));
    }
    if matches!(node.part, Part::Null) {
        return test(Test::Exists(false));
    }
    let text = node.scalar_text("text, a number, true or false")?;
    if how.network {
        return test(network(&text, node.place)?);
    }
    if how.fieldref {
        return Ok(Clause::SameAs(field, self::field(&text, node.place)?));
    }
    if let Some(flags) = &how.regex {
        let flags = if flags.is_empty() { String::new() } else { format!("(?{flags})") };
        return test(Test::Matches(regex(&format!("{flags}{text}"), node.place)?));
    }
    let mut spellings = vec![text.clone()];
    if how.windash {
        spellings.extend(dashes(&text));
    }
    if !how.encodings.is_empty() {
        // What is encoded is the text without its escapes; a wildcard can't be encoded.
        let encoded = spellings.iter().map(|t| match unescaped(t) {
            Some(plain) => Ok(encoding::spellings(&plain, &how.encodings)),
            None => complain(node.place, "a value with wildcards can't be encoded"),
        });
        spellings = encoded.collect::<Read<Vec<_>>>()?.concat();
        spellings.iter_mut().for_each(|t| *t = escaped(t));
    }
    let clauses: Read<Vec<_>> =
        spellings.iter().map(|t| text_clause(field, node, t, how)).collect();
    Ok(one_or(clauses?, Clause::Any))
}

/// The same with another sign in front of an option: Sigma's `windash`.
fn dashes(text: &str) -> Vec<String> {
    let signs = ['-', '/', '–', '—', '―'];
    let Some(sign) = text.trim_start().chars().next().filter(|c| signs.contains(c)) else {
        return Vec::new();
    };
    signs.iter().filter(|s| **s != sign).map(|s| text.replacen(sign, &s.to_string(), 1)).collect()
}

/// A text as a Sigma pattern: `*` any text, `?` any character, a backslash in front of one of these
/// or of itself takes it as it stands.
fn text_clause(field: FieldRef, node: &Node, text: &str, how: &How) -> Read<Clause> {
    let any_ends = how.contains || how.starts || how.ends;
    let plain = unescaped(text);
    if let (Some(plain), false) = (&plain, any_ends) {
        let mut ways = vec![if how.cased {
            Test::Equals(vec![Literal::Text(plain.clone())])
        } else {
            Test::Same(plain.to_lowercase())
        }];
        // A number that an event has as a number, and its text, are the same to Sigma.
        match &node.part {
            Part::Bool(b) => ways.push(Test::Equals(vec![Literal::Bool(*b)])),
            _ => ways.extend(plain.parse().ok().map(|n| Test::Equals(vec![Literal::Int(n)]))),
        }
        let clauses = ways.into_iter().map(|t| Clause::Field(field, t)).collect();
        return Ok(one_or(clauses, Clause::Any));
    }
    let mut pattern = String::from(if how.cased { "(?s)" } else { "(?si)" });
    if !(how.contains || how.ends) {
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
    if !(how.contains || how.starts) {
        pattern.push('$');
    }
    Ok(Clause::Field(field, Test::Matches(regex(&pattern, node.place)?)))
}

/// A text that means itself as a Sigma pattern.
fn escaped(text: &str) -> String {
    let escape = |c: char| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escape).collect()
}

/// The text without its escapes; `None` where it has wildcards.
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
