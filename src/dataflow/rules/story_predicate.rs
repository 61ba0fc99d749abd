//! Conditions on the fields of a story, in the language of the rules' predicates: which stories
//! somebody is notified about.

use serde::de::{Deserialize, Deserializer};

use super::compile::predicate::clause;
use super::field::{FieldRef, View};
use super::field_test::{FieldTest, Literal};
use super::predicate::Clause;
use super::suggest::unknown;
use super::yaml::{Diagnostic, Node, Parsed, reject};
use tapio_core::event::{Name, Story, StoryState, Value};

/// A field of a story: the value that it has in a story of a node.
type Read = for<'a> fn(&'a Story, &'a str) -> Option<Value<'a>>;

/// The fields besides `severity` and those of the join key.
const FIELDS: &[(&str, Read)] = &[
    ("rule", |story, _| text(&story.rule)),
    ("pattern", |story, _| text(&story.pattern)),
    ("name", |story, _| text(&story.name)),
    ("intent", |story, _| text(&story.intent)),
    ("state", |story, _| Some(Value::Str(state(story.state)))),
    ("node", |_, node| text(node)),
    ("confidence", |story, _| Some(Value::Float(story.confidence))),
    ("members", |story, _| Some(Value::Int(story.members_total as i64))),
    ("business", |story, _| Some(Value::Float(story.impact.business))),
    ("customer_facing", |story, _| Some(Value::Bool(story.impact.customer_facing))),
    ("slo_impact", |story, _| Some(Value::Bool(story.impact.slo_impact))),
    ("cause", |story, _| story.root_cause.first().and_then(|c| text(&c.cause))),
    ("cause.kind", |story, _| text(&story.root_cause.first()?.entity.as_ref()?.kind)),
    ("cause.entity", |story, _| text(&story.root_cause.first()?.entity.as_ref()?.name)),
    ("incident.role", |story, _| Some(Value::Str(story.incident.as_ref()?.role.as_str()))),
];

/// Before the names of the fields above, so that they aren't attributes of events.
const PREFIX: &str = "story.";

/// The values of `state`.
const STATES: [&str; 3] = ["open", "closed", "retracted"];

fn text(value: &str) -> Option<Value<'_>> {
    Some(value).filter(|value| !value.is_empty()).map(Value::Str)
}

fn state(state: StoryState) -> &'static str {
    match state {
        StoryState::Opened | StoryState::Updated => STATES[0],
        StoryState::Closed | StoryState::Expired => STATES[1],
        StoryState::Retracted => STATES[2],
    }
}

/// The field of a story with this name: one of [`FIELDS`], or a field that rules join by.
fn resolve(name: &str) -> Result<FieldRef, String> {
    if FIELDS.iter().any(|(known, _)| *known == name) {
        let interned = Name::intern(&format!("{PREFIX}{name}")).map_err(|e| e.to_string())?;
        return Ok(FieldRef::Attribute(interned));
    }
    match FieldRef::parse(name) {
        Ok(field @ (FieldRef::Severity | FieldRef::Entity(_) | FieldRef::Attribute(_))) => {
            Ok(field)
        }
        _ => {
            let mut known: Vec<&str> = FIELDS.iter().map(|(known, _)| *known).collect();
            known.extend(["severity", "k8s.pod.uid", "systemd.unit", "service.name"]);
            Err(format!("{}, or another field of join keys", unknown("field", name, &known)))
        }
    }
}

/// A story of a node, as a predicate reads it.
struct StoryView<'a> {
    story: &'a Story,
    node: &'a str,
}

impl View for StoryView<'_> {
    fn field(&self, field: FieldRef) -> Option<Value<'_>> {
        let of_key = |name: &str| {
            let (_, value) = self.story.key.iter().find(|(key, _)| key == name)?;
            text(value)
        };
        match field {
            FieldRef::Severity => Some(Value::Int(i64::from(self.story.severity.0))),
            FieldRef::Entity(name) => of_key(name.text()),
            FieldRef::Attribute(name) => match name.text().strip_prefix(PREFIX) {
                Some(own) => {
                    let (_, read) = FIELDS.iter().find(|(known, _)| *known == own)?;
                    read(self.story, self.node)
                }
                None => of_key(&field.text()),
            },
            _ => None,
        }
    }
}

/// A condition on the fields of a story.
#[derive(Clone, Debug)]
pub struct StoryPredicate {
    clause: Clause,
    /// The condition as it was written.
    written: serde_json::Value,
}

impl StoryPredicate {
    fn compile(node: &Node) -> Parsed<Self> {
        let clause = clause(node, resolve)?;
        check_literals(&clause).or_else(|message| reject(node.position, message))?;
        Ok(Self { clause, written: node.json() })
    }

    /// Whether the condition holds for a story of this node.
    #[must_use]
    pub fn holds(&self, story: &Story, node: &str) -> bool {
        self.clause.holds(&StoryView { story, node })
    }
}

/// Two conditions are equal if they are written in the same way.
impl PartialEq for StoryPredicate {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for StoryPredicate {}

impl serde::Serialize for StoryPredicate {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(to)
    }
}

/// A condition in a document, whose mistake has a position of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryPredicateResult(Result<StoryPredicate, Diagnostic>);

impl StoryPredicateResult {
    /// The condition.
    ///
    /// # Errors
    /// Its mistake, with the position in the document.
    pub fn predicate(&self) -> Result<&StoryPredicate, &Diagnostic> {
        self.0.as_ref()
    }
}

impl<'de> Deserialize<'de> for StoryPredicateResult {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Node::deserialize(from).map(|node| Self(StoryPredicate::compile(&node)))
    }
}

impl serde::Serialize for StoryPredicateResult {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().ok().serialize(to)
    }
}

/// Refuses values that no story has in a field.
fn check_literals(clause: &Clause) -> Result<(), String> {
    let (field, literals) = match clause {
        Clause::All(clauses) | Clause::Any(clauses) => {
            return clauses.iter().try_for_each(check_literals);
        }
        Clause::Not(clause) => return check_literals(clause),
        Clause::Field(field, FieldTest::Equals(literals)) => (*field, literals.as_slice()),
        Clause::Field(field, FieldTest::Differs(literal)) => {
            (*field, std::slice::from_ref(literal))
        }
        Clause::Field(..) | Clause::Relates(..) => return Ok(()),
    };
    let name = field.text();
    let name = name.strip_prefix("attributes.story.").unwrap_or(&name);
    literals.iter().try_for_each(|literal| match (name, literal) {
        ("state", Literal::Text(word)) if STATES.contains(&word.as_str()) => Ok(()),
        ("state", Literal::Text(word)) => Err(unknown("state", word, &STATES)),
        ("state", _) => Err(format!("state: expected one of {}", STATES.join(", "))),
        ("customer_facing" | "slo_impact", _) => Ok(()),
        // In a configuration, `n` and `yes` are booleans.
        (_, Literal::Bool(is)) => Err(format!("`{name}`: is text, not {is}: quote the value")),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::yaml::documents;
    use super::*;
    use tapio_core::event::{Candidate, CauseEntity, Impact, Incident, IncidentRole, Severity};

    fn compile(text: &str) -> Parsed<StoryPredicate> {
        StoryPredicate::compile(&documents(text).unwrap()[0])
    }

    fn story() -> Story {
        let entity =
            CauseEntity { kind: "pod".into(), name: "shop/web-0".into(), ..CauseEntity::default() };
        Story {
            rule: "oom-kill".into(),
            pattern: "memory".into(),
            severity: Severity::ERROR,
            state: StoryState::Updated,
            key: vec![("k8s.pod.uid".into(), "u-1".into()), ("attributes.zone".into(), "a".into())],
            confidence: 0.75,
            members_total: 7,
            impact: Impact { business: 0.5, customer_facing: true, ..Impact::default() },
            root_cause: vec![Candidate {
                cause: "web-0 leaks".into(),
                entity: Some(entity),
                evidence: Vec::new(),
                labels: Vec::new(),
                score: 1.0,
                terms: Vec::new(),
            }],
            incident: Some(Incident {
                id: tapio_core::event::TraceId([1; 16]),
                role: IncidentRole::Effect,
                because: String::new(),
            }),
            ..Story::default()
        }
    }

    #[test]
    fn every_field_is_read() {
        for (condition, expected) in [
            ("{}", true),
            ("{rule: oom-kill}", true),
            ("{rule: {prefix: node-}}", false),
            ("{pattern: [memory, disk]}", true),
            ("{severity: {gte: error}}", true),
            ("{severity: {gte: fatal}}", false),
            ("{state: open}", true),
            ("{state: {ne: open}}", false),
            ("{node: n1}", true),
            ("{node: {regex: '^db'}}", false),
            ("{confidence: {gt: 0.7}}", true),
            ("{members: {gte: 8}}", false),
            ("{business: {gte: 0.5}, customer_facing: true}", true),
            ("{slo_impact: true}", false),
            ("{cause: {contains: leaks}, cause.kind: pod}", true),
            ("{cause.entity: {prefix: shop/}}", true),
            ("{incident.role: effect}", true),
            ("{k8s.pod.uid: u-1, attributes.zone: a}", true),
            ("{systemd.unit: {exists: true}}", false),
            ("{not: {k8s.pod.uid: u-1}}", false),
            ("{any: [{rule: none}, {all: [{name: {exists: false}}, {members: 7}]}]}", true),
        ] {
            let predicate = compile(condition).unwrap_or_else(|e| panic!("{condition}: {e:?}"));
            assert_eq!(predicate.holds(&story(), "n1"), expected, "{condition}");
        }
    }

    #[test]
    fn mistake_has_its_position() {
        for (text, message, column) in [
            ("{rule: a, serverity: error}", "did you mean `severity`?", 11),
            ("{kind: a}", "unknown field `kind`", 2),
            ("{state: opened}", "unknown state `opened`: did you mean `open`?", 1),
            ("{state: 7}", "expected one of open, closed, retracted", 1),
            ("{any: [{node: [a, true]}]}", "`node`: is text, not true: quote the value", 1),
            ("{rule: {prefx: a}}", "did you mean `prefix`?", 9),
            ("{severity: loud}", "\"loud\" isn't a severity", 12),
            ("[a]", "expected a condition to be a mapping", 1),
        ] {
            let diagnostic = compile(text).unwrap_err();
            assert!(diagnostic.message.contains(message), "{text}: {diagnostic:?}");
            assert_eq!(
                (diagnostic.position.line, diagnostic.position.column),
                (1, column),
                "{text}"
            );
        }
    }
}
