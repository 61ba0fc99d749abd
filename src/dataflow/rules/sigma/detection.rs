//! Detections: selections of fields with modifiers, lists of values, keywords.

use super::super::compile::predicate::{network, regex};
use super::super::field::FieldRef;
use super::super::field_test::{FieldTest, Literal};
use super::super::predicate::{Clause, Predicate, Relation};
use super::super::yaml::{Key, Node, Parsed, Part, reject};
use super::aggregation::{self, Aggregation};
use super::condition::{self, one_or};
use super::encoding;
use super::logsource::Logsource;
use super::modifiers::Modifiers;
use super::pattern::Pattern;

/// A detection's predicate, and the aggregation behind its condition.
pub(super) struct Compiled {
    pub(super) predicate: Predicate,
    pub(super) aggregation: Option<Aggregation>,
}

/// Compiles the detection of a document.
pub(super) fn compile(document: &Node, logsource: &Logsource) -> Parsed<Compiled> {
    let Some(detection) = document.entry("detection") else {
        return reject(document.position, "a Sigma rule needs a detection");
    };
    let Some(condition) = detection.entry("condition") else {
        return reject(detection.position, "a detection needs a condition");
    };
    let aggregation = aggregation::parse(condition, detection.entry("timeframe"), logsource)?;
    let clause = match &aggregation {
        Some(aggregation) => {
            let selections = selections(detection, &["condition", "timeframe"], logsource)?;
            let search = aggregation.search.as_str();
            condition::parse(search, condition.position, "selection", &selections)?
        }
        None => clause(detection, &["condition", "timeframe"], logsource)?,
    };
    let clauses: Vec<Clause> = logsource.clause().into_iter().chain([clause]).collect();
    let predicate = Predicate::new(logsource.kinds(), one_or(clauses, Clause::All));
    Ok(Compiled { predicate, aggregation })
}

/// Compiles selections and the conditions over them, one of which must hold. `others`: the keys
/// that aren't selections.
pub(super) fn clause(node: &Node, others: &[&str], logsource: &Logsource) -> Parsed<Clause> {
    let selections = selections(node, others, logsource)?;
    let Some(condition) = node.entry("condition") else {
        return reject(node.position, "needs a condition");
    };
    let clauses = condition
        .items()
        .iter()
        .map(|n| condition::parse(n.text("a condition")?, n.position, "selection", &selections))
        .collect::<Parsed<Vec<_>>>()?;
    Ok(one_or(clauses, Clause::Any))
}

fn selections(
    node: &Node,
    others: &[&str],
    logsource: &Logsource,
) -> Parsed<Vec<(String, Clause)>> {
    let entries = node.map("a detection")?.iter();
    entries
        .filter(|(key, _)| !others.contains(&key.text.as_str()))
        .map(|(key, value)| Ok((key.text.clone(), selection(value, logsource)?)))
        .collect()
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
            value(FieldRef::Message, node, &modifiers, logsource)
        }
    }
}

fn entry(key: &Key, node: &Node, logsource: &Logsource) -> Parsed<Clause> {
    let mut parts = key.text.split('|');
    let name = parts.next().unwrap_or_default();
    let mut modifiers = Modifiers::parse(parts, key.position)?;
    let field = match name {
        // `|all: [...]`: keywords, all of which must occur.
        "" => {
            modifiers.contains = true;
            FieldRef::Message
        }
        _ => logsource.field(name, key.position)?,
    };
    let clauses = node
        .items()
        .iter()
        .map(|n| value(field, n, &modifiers, logsource))
        .collect::<Parsed<Vec<_>>>()?;
    if clauses.is_empty() {
        return reject(node.position, "an empty list of values");
    }
    let clause = one_or(clauses, if modifiers.all { Clause::All } else { Clause::Any });
    Ok(if modifiers.negated { Clause::Not(Box::new(clause)) } else { clause })
}

fn value(
    field: FieldRef,
    node: &Node,
    modifiers: &Modifiers,
    logsource: &Logsource,
) -> Parsed<Clause> {
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
        let relation = Relation { part: modifiers.part(), is_cased: modifiers.cased };
        return Ok(Clause::Relates(field, relation, logsource.field(&text, node.position)?));
    }
    if let Some(flags) = &modifiers.regex {
        let flags = if flags.is_empty() { String::new() } else { format!("(?{flags})") };
        return test(FieldTest::Pattern(regex(&format!("{flags}{text}"), node.position)?));
    }
    let mut pattern = Pattern::parse(&text);
    if modifiers.windash {
        pattern = pattern.with_any_dash();
    }
    let clauses: Parsed<Vec<_>> = encoded(pattern, node, modifiers)?
        .iter()
        .map(|pattern| pattern_clause(field, node, pattern, modifiers, logsource))
        .collect();
    Ok(one_or(clauses?, Clause::Any))
}

/// The patterns for a value's encodings, which apply to its text without escapes.
fn encoded(pattern: Pattern, node: &Node, modifiers: &Modifiers) -> Parsed<Vec<Pattern>> {
    if modifiers.encodings.is_empty() {
        return Ok(vec![pattern]);
    }
    let Some(texts) = pattern.texts() else {
        let message = "a value with wildcards or more than four dashes can't be encoded";
        return reject(node.position, message);
    };
    let spellings = texts.iter().flat_map(|t| encoding::spellings(t, &modifiers.encodings));
    Ok(spellings.map(|text| Pattern::verbatim(&text)).collect())
}

fn pattern_clause(
    field: FieldRef,
    node: &Node,
    pattern: &Pattern,
    modifiers: &Modifiers,
    logsource: &Logsource,
) -> Parsed<Clause> {
    let part = modifiers.part();
    let plain = pattern.plain();
    if let (Some(plain), false) = (&plain, modifiers.has_part()) {
        let mut clauses = vec![Clause::Field(
            field,
            if modifiers.cased {
                FieldTest::Equals(vec![Literal::Text(plain.clone())])
            } else {
                FieldTest::EqualsFolded(plain.to_lowercase())
            },
        )];
        if let Some(literal) = other_literal(node, plain) {
            let field = logsource.field_of_value(field, &literal);
            clauses.push(Clause::Field(field, FieldTest::Equals(vec![literal])));
        }
        return Ok(one_or(clauses, Clause::Any));
    }
    let pattern = pattern.regex(part, modifiers.cased);
    Ok(Clause::Field(field, FieldTest::Pattern(regex(&pattern, node.position)?)))
}

/// The number or boolean that a value also stands for: in Sigma, a number equals its text.
fn other_literal(node: &Node, plain: &str) -> Option<Literal> {
    if let Part::Bool(b) = node.part {
        return Some(Literal::Bool(b));
    }
    if let Ok(n) = plain.parse() {
        return Some(Literal::Int(n));
    }
    // "inf" and "nan" are words.
    let is_number = plain.ends_with(|c: char| c.is_ascii_digit());
    plain.parse().ok().filter(|_| is_number).map(Literal::Number)
}
