//! Predicates: what an event must look like.

use std::net::IpAddr;

use regex::Regex;

use super::field::{FieldRef, View, value_text};
use super::known;
use super::test::{Literal, Order, Takes, Test, Wanted};
use super::tree::{Complaint, Node, Part, Place, Read, complain, unknown};
use tapio_core::event::{Name, Severity, Value};

/// Longest compiled regular expression, in bytes: a rule can't take a shard's memory.
const REGEX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) enum Clause {
    All(Vec<Clause>),
    Any(Vec<Clause>),
    Not(Box<Clause>),
    Field(FieldRef, Test),
    /// Two fields have the same value.
    SameAs(FieldRef, FieldRef),
}

impl Clause {
    fn holds(&self, event: &impl View) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().all(|c| c.holds(event)),
            Self::Any(clauses) => clauses.iter().any(|c| c.holds(event)),
            Self::Not(clause) => !clause.holds(event),
            Self::Field(field, test) => test.holds(event.field(*field)),
            Self::SameAs(a, b) => {
                event.field(*a).is_some_and(|v| v != Value::Null && event.field(*b) == Some(v))
            }
        }
    }
}

/// A field, and the values one of which it must have.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Required {
    pub(super) field: FieldRef,
    pub(super) values: Vec<Wanted>,
}

impl Clause {
    fn required(&self, into: &mut Vec<Required>) {
        match self {
            Self::All(clauses) => clauses.iter().for_each(|c| c.required(into)),
            Self::Any(clauses) if clauses.len() == 1 => clauses[0].required(into),
            Self::Field(field, test) => {
                into.extend(test.wanted().map(|values| Required { field: *field, values }));
            }
            Self::Any(_) | Self::Not(_) | Self::SameAs(..) => {}
        }
    }
}

/// Which kinds a predicate can hold for.
#[derive(Clone, Debug)]
pub(super) enum Kinds {
    All,
    Some { exact: Vec<Name>, globs: Vec<Regex> },
}

/// What an event must look like.
#[derive(Clone, Debug)]
pub struct Predicate {
    kinds: Kinds,
    clause: Clause,
}

impl Predicate {
    pub(super) fn new(kinds: Kinds, clause: Clause) -> Self {
        Self { kinds, clause }
    }

    /// Whether events of this kind can match at all; decided once per kind.
    #[must_use]
    pub fn wants(&self, kind: Name) -> bool {
        match &self.kinds {
            Kinds::All => true,
            Kinds::Some { exact, globs } => {
                exact.contains(&kind) || globs.iter().any(|g| g.is_match(kind.text()))
            }
        }
    }

    /// Whether an event of a wanted kind matches.
    #[must_use]
    pub fn holds(&self, event: &impl View) -> bool {
        self.clause.holds(event)
    }

    /// Fields that are compared with a kind of value they never have, in words.
    pub(super) fn mismatches(&self) -> Vec<String> {
        fn look(clause: &Clause, found: &mut Vec<String>) {
            match clause {
                Clause::All(clauses) | Clause::Any(clauses) => {
                    clauses.iter().for_each(|c| look(c, found));
                }
                Clause::Not(clause) => look(clause, found),
                Clause::Field(field, test) => {
                    let field_text = field.text();
                    match (field.is_number(), test.takes()) {
                        (Some(true), Some(Takes::Text)) => found.push(format!(
                            "`{field_text}` is a number and is compared with text: that never matches"
                        )),
                        (Some(false), Some(Takes::Number)) => found.push(format!(
                            "`{field_text}` is text and is compared with a number: that never matches"
                        )),
                        _ => {}
                    }
                }
                Clause::SameAs(..) => {}
            }
        }
        let mut found = Vec::new();
        look(&self.clause, &mut found);
        found
    }

    /// What is wrong with asking events that match for a field, where they can never have it.
    pub(super) fn lacks(&self, field: FieldRef) -> Option<String> {
        known::lacks(&self.kinds, field)
    }

    /// Whether two predicates ask the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.text() == other.text()
    }

    /// The predicate as text: equal for predicates that ask the same in the same way.
    #[must_use]
    pub(super) fn text(&self) -> String {
        format!("{self:?}")
    }

    /// A field that must have one of a few values for the predicate to hold: what it is found by
    /// among many.
    #[must_use]
    pub(super) fn required(&self) -> Option<Required> {
        let mut found = Vec::new();
        self.clause.required(&mut found);
        // Few values narrow more than many; a severity narrows little.
        found.into_iter().min_by_key(|r| (r.field == FieldRef::Severity, r.values.len()))
    }

    /// What the named group of one of the predicate's regular expressions captured.
    #[must_use]
    pub fn capture(&self, event: &impl View, group: &str) -> Option<String> {
        fn find(clause: &Clause, event: &impl View, group: &str) -> Option<String> {
            match clause {
                Clause::All(clauses) | Clause::Any(clauses) => {
                    clauses.iter().find_map(|c| find(c, event, group))
                }
                Clause::Field(field, Test::Matches(regex)) => {
                    let text = value_text(event.field(*field)?);
                    Some(regex.captures(&text)?.name(group)?.as_str().to_owned())
                }
                Clause::Not(_) | Clause::Field(..) | Clause::SameAs(..) => None,
            }
        }
        find(&self.clause, event, group)
    }

    /// Whether one of the predicate's regular expressions has this named group.
    #[must_use]
    pub fn captures(&self, group: &str) -> bool {
        fn has(clause: &Clause, group: &str) -> bool {
            match clause {
                Clause::All(clauses) | Clause::Any(clauses) => {
                    clauses.iter().any(|c| has(c, group))
                }
                Clause::Field(_, Test::Matches(regex)) => {
                    regex.capture_names().flatten().any(|n| n == group)
                }
                Clause::Not(_) | Clause::Field(..) | Clause::SameAs(..) => false,
            }
        }
        has(&self.clause, group)
    }

    /// From `{ kind: …, field: …, any: […] }`.
    pub(super) fn parse(node: &Node) -> Read<Self> {
        known::predicate(node)?;
        let (mut kinds, mut alternatives) = (None, None);
        let mut clauses = Vec::new();
        for (key, value) in node.map("an event")? {
            if key.text == "kind" {
                kinds = Some(parse_kinds(value)?);
                continue;
            }
            clauses.push(parse_entry(&key.text, key.place, value)?);
            if key.text == "any" {
                alternatives = kinds_of_any(value)?;
            }
        }
        let kinds = kinds.or(alternatives).unwrap_or(Kinds::All);
        Ok(Self { kinds, clause: Clause::All(clauses) })
    }
}

/// The kinds that one of several alternatives names, where each names some: events of other kinds
/// needn't be looked at.
fn kinds_of_any(node: &Node) -> Read<Option<Kinds>> {
    let (mut exact, mut globs) = (Vec::new(), Vec::new());
    for alternative in node.items() {
        let Some(kinds) = alternative.entry("kind") else { return Ok(None) };
        if let Kinds::Some { exact: more, globs: more_globs } = parse_kinds(kinds)? {
            exact.extend(more);
            globs.extend(more_globs);
        }
    }
    Ok(Some(Kinds::Some { exact, globs }))
}

pub(super) fn parse_kinds(node: &Node) -> Read<Kinds> {
    let (mut exact, mut globs) = (Vec::new(), Vec::new());
    for item in node.items() {
        let text = item.text("a kind")?;
        if text.is_empty() {
            return complain(item.place, "a kind can't be empty");
        }
        if text.contains(['*', '?']) {
            globs.push(glob(text, item.place)?);
        } else {
            let name = Name::intern(text);
            exact.push(name.map_err(|e| Complaint { place: item.place, cause: e.to_string() })?);
        }
    }
    Ok(Kinds::Some { exact, globs })
}

fn parse_entry(key: &str, place: Place, value: &Node) -> Read<Clause> {
    let list = |value: &Node| value.items().iter().map(parse_clause).collect::<Read<Vec<_>>>();
    match key {
        "any" => Ok(Clause::Any(list(value)?)),
        "all" => Ok(Clause::All(list(value)?)),
        "not" => Ok(Clause::Not(Box::new(parse_clause(value)?))),
        _ => {
            let field = FieldRef::parse(key).map_err(|cause| Complaint { place, cause })?;
            parse_tests(field, value)
        }
    }
}

fn parse_clause(node: &Node) -> Read<Clause> {
    let clauses: Read<Vec<_>> = node
        .map("a condition")?
        .iter()
        .map(|(key, value)| {
            if key.text != "kind" {
                return parse_entry(&key.text, key.place, value);
            }
            let mut kinds = Vec::new();
            for item in value.items() {
                let text = item.text("a kind")?;
                kinds.push(Clause::Field(FieldRef::Kind, Test::Matches(glob(text, item.place)?)));
            }
            Ok(Clause::Any(kinds))
        })
        .collect();
    clauses.map(Clause::All)
}

pub(super) const TESTS: &[&str] = &[
    "eq", "ne", "in", "prefix", "suffix", "contains", "glob", "regex", "cidr", "gt", "gte", "lt",
    "lte", "exists", "ieq",
];

fn parse_tests(field: FieldRef, node: &Node) -> Read<Clause> {
    let test = |test| Clause::Field(field, test);
    match &node.part {
        Part::Map(entries) => {
            let tests: Read<Vec<_>> = entries
                .iter()
                .map(|(key, value)| parse_test(field, &key.text, key.place, value).map(test))
                .collect();
            tests.map(Clause::All)
        }
        Part::Null => Ok(test(Test::Exists(false))),
        _ => Ok(test(Test::Equals(
            node.items().iter().map(|n| literal(field, n)).collect::<Read<_>>()?,
        ))),
    }
}

fn parse_test(field: FieldRef, name: &str, place: Place, value: &Node) -> Read<Test> {
    let text = || value.text(&format!("`{name}` to have text")).map(str::to_owned);
    Ok(match name {
        "eq" => Test::Equals(vec![literal(field, value)?]),
        "ne" => Test::Differs(literal(field, value)?),
        "in" => Test::Equals(value.items().iter().map(|n| literal(field, n)).collect::<Read<_>>()?),
        "prefix" => Test::Prefix(text()?),
        "suffix" => Test::Suffix(text()?),
        "contains" => Test::Contains(text()?),
        "ieq" => Test::Same(text()?.to_lowercase()),
        "glob" => Test::Matches(glob(&text()?, value.place)?),
        "regex" => Test::Matches(regex(&text()?, value.place)?),
        "cidr" => network(&text()?, value.place)?,
        "gt" => Test::Compare(Order::Gt, bound(field, value)?),
        "gte" => Test::Compare(Order::Gte, bound(field, value)?),
        "lt" => Test::Compare(Order::Lt, bound(field, value)?),
        "lte" => Test::Compare(Order::Lte, bound(field, value)?),
        "exists" => Test::Exists(value.bool("`exists` to be true or false")?),
        _ => return complain(place, unknown("test", name, TESTS)),
    })
}

/// Severities may be written as words wherever a severity is compared.
fn severity(field: FieldRef, node: &Node) -> Read<Option<i64>> {
    match (&node.part, field) {
        (Part::Text(word), FieldRef::Severity) => match Severity::parse(word) {
            Some(severity) => Ok(Some(i64::from(severity.0))),
            None => complain(node.place, format!("{word:?} isn't a severity")),
        },
        _ => Ok(None),
    }
}

fn literal(field: FieldRef, node: &Node) -> Read<Literal> {
    if let Some(n) = severity(field, node)? {
        return Ok(Literal::Int(n));
    }
    match &node.part {
        Part::Bool(b) => Ok(Literal::Bool(*b)),
        Part::Int(n) => Ok(Literal::Int(*n)),
        Part::Float(n) => Ok(Literal::Number(*n)),
        Part::Text(s) => Ok(Literal::Text(s.clone())),
        _ => node.expected("text, a number, true or false"),
    }
}

fn bound(field: FieldRef, node: &Node) -> Read<f64> {
    match severity(field, node)? {
        Some(n) => Ok(n as f64),
        None => node.number("a number"),
    }
}

pub(super) fn regex(text: &str, place: Place) -> Read<Regex> {
    regex::RegexBuilder::new(text).size_limit(REGEX_BYTES).build().or_else(|e| {
        let text = e.to_string();
        complain(place, format!("regex: {}", text.lines().last().unwrap_or("broken").trim()))
    })
}

/// `*` any text, `?` any character, the rest as it stands.
fn glob(text: &str, place: Place) -> Read<Regex> {
    let mut pattern = String::from("(?s)^");
    for c in text.chars() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push('$');
    regex(&pattern, place)
}

pub(super) fn network(text: &str, place: Place) -> Read<Test> {
    let parsed = text.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some(Test::Network(ip, bits))
    });
    parsed
        .map_or_else(|| complain(place, format!("{text:?} isn't a network such as 10.0.0.0/8")), Ok)
}

#[cfg(test)]
mod tests {
    use super::super::tree::documents;
    use super::*;
    use tapio_core::event::JsonEvent;

    fn holds(rule: &str, line: &str) -> bool {
        let predicate = Predicate::parse(&documents(rule).unwrap()[0]).unwrap();
        let parsed = JsonEvent::parse(line, "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        predicate.wants(event.kind) && predicate.holds(&event)
    }

    const LINE: &str = r#"{"time":1,"kind":"test.tcp.refused","severity":"warn","message":"Hello nginx","attributes":{"ip":"10.1.2.3","n":7,"f":7.5,"z":null}}"#;

    #[test]
    fn each_test() {
        for (rule, expected) in [
            ("{kind: 'test.tcp.*'}", true),
            ("{kind: [a, test.tcp.refused]}", true),
            ("{kind: test.tcp}", false),
            ("{message: {prefix: Hello, suffix: nginx, contains: ' '}}", true),
            ("{message: {ieq: HELLO NGINX}}", true),
            ("{message: HELLO NGINX}", false),
            ("{message: {glob: 'He?lo*'}}", true),
            ("{message: {regex: 'n(gi)nx$'}}", true),
            ("{attributes.ip: {cidr: 10.0.0.0/8}}", true),
            ("{attributes.ip: {cidr: 10.2.0.0/16}}", false),
            ("{attributes.n: {gte: 7, lt: 8}}", true),
            ("{attributes.n: '7'}", false),
            ("{attributes.f: {in: [1, 7.5]}}", true),
            ("{attributes.z: {exists: false}}", true),
            ("{attributes.missing: {ne: 1}}", false),
            ("{severity: {gte: warn}}", true),
            ("{severity: {gte: error}}", false),
            ("{any: [{attributes.n: 1}, {attributes.n: 7}]}", true),
            ("{not: {attributes.n: 7}}", false),
            ("{any: [{kind: test.tcp.refused, attributes.n: 7}, {kind: other}]}", true),
            ("{any: [{kind: other}, {kind: 'test.tcp.*', attributes.n: 8}]}", false),
            ("{any: [{kind: other}, {attributes.n: 7}]}", true),
        ] {
            assert_eq!(holds(rule, LINE), expected, "{rule}");
        }
    }

    #[test]
    fn alternatives_name_the_kinds_to_look_at() {
        let parse = |text| Predicate::parse(&documents(text).unwrap()[0]).unwrap();
        let wants = |p: &Predicate, kind| p.wants(Name::intern(kind).unwrap());
        let both = parse("{any: [{kind: t.a}, {kind: 't.b*', attributes.n: 1}]}");
        assert!(wants(&both, "t.a") && wants(&both, "t.bc") && !wants(&both, "t.c"));
        assert!(wants(&parse("{any: [{kind: t.a}, {attributes.n: 1}]}"), "t.c"));
    }

    #[test]
    fn a_capture_is_found() {
        let rule = documents("{message: {regex: 'Hello (?<who>\\w+)'}}").unwrap();
        let predicate = Predicate::parse(&rule[0]).unwrap();
        let parsed = JsonEvent::parse(LINE, "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        assert_eq!(predicate.capture(&event, "who").as_deref(), Some("nginx"));
    }

    #[test]
    fn mistakes_have_places() {
        for (rule, cause) in [
            ("{message: {prefx: a}}", "did you mean `prefix`"),
            ("{message: {regex: '('}}", "regex"),
            ("{attributes.ip: {cidr: 10/8}}", "network"),
            ("{k8s.pod.nam: a}", "k8s.pod.name"),
        ] {
            let complaint = Predicate::parse(&documents(rule).unwrap()[0]).unwrap_err();
            assert!(complaint.cause.contains(cause), "{complaint:?}");
            assert_eq!(complaint.place.line, 1);
        }
    }
}
