//! Compiles the predicates of a rule.

use std::net::IpAddr;

use super::super::field::FieldRef;
use super::super::field_test::{FieldTest, Literal, Order};
use super::super::kinds::{self, Kinds};
use super::super::lazy_regex::LazyRegex;
use super::super::predicate::{Clause, Predicate};
use super::super::suggest::unknown;
use super::super::yaml::{Diagnostic, Node, Parsed, Part, Position, reject};
use tapio_core::event::Severity;

/// Compiles `{ kind: …, field: …, any: […] }`.
pub(crate) fn parse(node: &Node) -> Parsed<Predicate> {
    check_fields(node, &Kinds::All)?;
    let (mut kinds, mut alternatives) = (None, None);
    let mut clauses = Vec::new();
    for (key, value) in node.map("an event")? {
        if key.text == "kind" {
            kinds = Some(Kinds::parse(value)?);
            continue;
        }
        clauses.push(entry(&key.text, key.position, value, FieldRef::parse)?);
        if key.text == "any" {
            alternatives = kinds_of_any(value)?;
        }
    }
    let kinds = kinds.or(alternatives).unwrap_or(Kinds::All);
    Ok(Predicate::new(kinds, Clause::All(clauses)))
}

/// Rejects fields that events of the named kinds never have.
fn check_fields(node: &Node, outer: &Kinds) -> Parsed<()> {
    let Part::Map(entries) = &node.part else { return Ok(()) };
    let own = node.entry("kind").map(Kinds::parse).transpose()?;
    let kinds = own.as_ref().unwrap_or(outer);
    for (key, value) in entries {
        match key.text.as_str() {
            "any" | "all" => value.items().iter().try_for_each(|n| check_fields(n, kinds))?,
            // A field that an event can't have does no harm in `not`, which only excludes.
            "kind" | "not" => {}
            text => {
                if let Ok(field) = FieldRef::parse(text)
                    && let Some(message) = kinds.lacks(field)
                {
                    return reject(key.position, message);
                }
            }
        }
    }
    Ok(())
}

/// Warns of kinds that are probably misspelt. They are legal, since a user's own source may emit
/// them.
pub(crate) fn misspelt_kinds(node: &Node, warnings: &mut Vec<Diagnostic>) {
    let Part::Map(entries) = &node.part else { return };
    for (key, value) in entries {
        match key.text.as_str() {
            "kind" => {
                for item in value.items() {
                    let Ok(text) = item.text("a kind") else { continue };
                    if let Some(near) = kinds::misspelt(text) {
                        let message =
                            format!("no collector emits `{text}`: did you mean `{near}`?");
                        warnings.push(Diagnostic { position: item.position, message });
                    }
                }
            }
            "any" | "all" => value.items().iter().for_each(|n| misspelt_kinds(n, warnings)),
            "not" => misspelt_kinds(value, warnings),
            _ => {}
        }
    }
}

/// The kinds of all alternatives together; `None` if one of them names no kind.
fn kinds_of_any(node: &Node) -> Parsed<Option<Kinds>> {
    let (mut exact, mut globs) = (Vec::new(), Vec::new());
    for alternative in node.items() {
        let Some(kinds) = alternative.entry("kind") else { return Ok(None) };
        if let Kinds::Some { exact: more, globs: more_globs } = Kinds::parse(kinds)? {
            exact.extend(more);
            globs.extend(more_globs);
        }
    }
    Ok(Some(Kinds::Some { exact, globs }))
}

/// Finds the field of a name, or explains that there is none.
pub(crate) type Resolve = fn(&str) -> Result<FieldRef, String>;

fn entry(key: &str, position: Position, value: &Node, resolve: Resolve) -> Parsed<Clause> {
    let clause = |node: &Node| clause(node, resolve);
    let list = |value: &Node| value.items().iter().map(clause).collect::<Parsed<Vec<_>>>();
    match key {
        "any" => Ok(Clause::Any(list(value)?)),
        "all" => Ok(Clause::All(list(value)?)),
        "not" => Ok(Clause::Not(Box::new(clause(value)?))),
        _ => {
            let field = resolve(key).map_err(|message| Diagnostic { position, message })?;
            tests(field, value)
        }
    }
}

/// Compiles a condition on the fields that `resolve` finds.
pub(crate) fn clause(node: &Node, resolve: Resolve) -> Parsed<Clause> {
    let has_kinds = resolve("kind").is_ok();
    let clauses: Parsed<Vec<_>> = node
        .map("a condition")?
        .iter()
        .map(|(key, value)| {
            if key.text != "kind" || !has_kinds {
                return entry(&key.text, key.position, value, resolve);
            }
            let kinds = value.items().iter().map(|item| {
                let pattern = item.text("a kind")?.to_owned();
                Ok(Clause::Field(FieldRef::Kind, FieldTest::Glob(pattern)))
            });
            Ok(Clause::Any(kinds.collect::<Parsed<_>>()?))
        })
        .collect();
    clauses.map(Clause::All)
}

/// The names of the tests.
pub(crate) const TESTS: &[&str] = &[
    "eq", "ne", "in", "prefix", "suffix", "contains", "glob", "regex", "cidr", "gt", "gte", "lt",
    "lte", "exists", "ieq",
];

fn tests(field: FieldRef, node: &Node) -> Parsed<Clause> {
    let clause = |test| Clause::Field(field, test);
    match &node.part {
        Part::Map(entries) => {
            let tests: Parsed<Vec<_>> = entries
                .iter()
                .map(|(key, value)| test(field, &key.text, key.position, value).map(clause))
                .collect();
            tests.map(Clause::All)
        }
        Part::Null => Ok(clause(FieldTest::Exists(false))),
        _ => Ok(clause(FieldTest::Equals(
            node.items().iter().map(|n| literal(field, n)).collect::<Parsed<_>>()?,
        ))),
    }
}

fn test(field: FieldRef, name: &str, position: Position, value: &Node) -> Parsed<FieldTest> {
    let text = || value.text(&format!("`{name}` to have text")).map(str::to_owned);
    Ok(match name {
        "eq" => FieldTest::Equals(vec![literal(field, value)?]),
        "ne" => FieldTest::Differs(literal(field, value)?),
        "in" => FieldTest::Equals(
            value.items().iter().map(|n| literal(field, n)).collect::<Parsed<_>>()?,
        ),
        "prefix" => FieldTest::Prefix(text()?),
        "suffix" => FieldTest::Suffix(text()?),
        "contains" => FieldTest::Contains(text()?),
        "ieq" => FieldTest::EqualsFolded(text()?.to_lowercase()),
        "glob" => FieldTest::Glob(text()?),
        "regex" => FieldTest::Regex(regex(&text()?, value.position)?),
        "cidr" => network(&text()?, value.position)?,
        "gt" => FieldTest::Compare(Order::Gt, bound(field, value)?),
        "gte" => FieldTest::Compare(Order::Gte, bound(field, value)?),
        "lt" => FieldTest::Compare(Order::Lt, bound(field, value)?),
        "lte" => FieldTest::Compare(Order::Lte, bound(field, value)?),
        "exists" => FieldTest::Exists(value.bool("`exists` to be true or false")?),
        _ => return reject(position, unknown("test", name, TESTS)),
    })
}

/// The number of a severity that is written as a word; `None` for any other value.
fn severity(field: FieldRef, node: &Node) -> Parsed<Option<i64>> {
    match (&node.part, field) {
        (Part::Text(word), FieldRef::Severity) => match Severity::parse(word) {
            Some(severity) => Ok(Some(i64::from(severity.0))),
            None => reject(node.position, format!("{word:?} isn't a severity")),
        },
        _ => Ok(None),
    }
}

fn literal(field: FieldRef, node: &Node) -> Parsed<Literal> {
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

fn bound(field: FieldRef, node: &Node) -> Parsed<f64> {
    match severity(field, node)? {
        Some(n) => Ok(n as f64),
        None => node.number("a number"),
    }
}

/// Parses a regular expression of bounded size.
pub(crate) fn regex(text: &str, position: Position) -> Parsed<LazyRegex> {
    LazyRegex::new(text).or_else(|e| {
        let text = e.to_string();
        reject(position, format!("regex: {}", text.lines().last().unwrap_or("invalid").trim()))
    })
}

/// Compiles an IP network such as `10.0.0.0/8`.
pub(crate) fn network(text: &str, position: Position) -> Parsed<FieldTest> {
    let parsed = text.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some(FieldTest::Network(ip, bits))
    });
    parsed.map_or_else(
        || reject(position, format!("{text:?} isn't a network such as 10.0.0.0/8")),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::yaml::documents;
    use super::*;
    use tapio_core::event::{JsonEvent, Name};

    fn holds(rule: &str, line: &str) -> bool {
        let predicate = super::parse(&documents(rule).unwrap()[0]).unwrap();
        let parsed = JsonEvent::parse(line, "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        predicate.matches_kind(event.kind) && predicate.holds(&event)
    }

    const LINE: &str = r#"{"time":1,"kind":"test.tcp.refused","severity":"warn","message":"Hello nginx","attributes":{"ip":"10.1.2.3","n":7,"f":7.5,"z":null}}"#;

    #[test]
    fn each_test_matches_as_documented() {
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
    fn kinds_of_alternatives_restrict_predicate() {
        let parse = |text| super::parse(&documents(text).unwrap()[0]).unwrap();
        let matches = |p: &Predicate, kind| p.matches_kind(Name::intern(kind).unwrap());
        let both = parse("{any: [{kind: t.a}, {kind: 't.b*', attributes.n: 1}]}");
        assert!(matches(&both, "t.a") && matches(&both, "t.bc") && !matches(&both, "t.c"));
        assert!(matches(&parse("{any: [{kind: t.a}, {attributes.n: 1}]}"), "t.c"));
    }

    #[test]
    fn named_group_is_captured() {
        let rule = documents("{message: {regex: 'Hello (?<who>\\w+)'}}").unwrap();
        let predicate = super::parse(&rule[0]).unwrap();
        let parsed = JsonEvent::parse(LINE, "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        assert_eq!(predicate.capture(&event, "who").as_deref(), Some("nginx"));
    }

    #[test]
    fn mistake_is_reported_with_its_position() {
        for (rule, message) in [
            ("{message: {prefx: a}}", "did you mean `prefix`"),
            ("{message: {regex: '('}}", "regex"),
            ("{attributes.ip: {cidr: 10/8}}", "network"),
            ("{k8s.pod.nam: a}", "k8s.pod.name"),
        ] {
            let diagnostic = super::parse(&documents(rule).unwrap()[0]).unwrap_err();
            assert!(diagnostic.message.contains(message), "{diagnostic:?}");
            assert_eq!(diagnostic.position.line, 1);
        }
    }
}
