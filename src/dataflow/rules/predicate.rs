//! Predicates: conditions on an event's fields.

use super::field::{FieldRef, View, value_text};
use super::field_test::{FieldTest, IndexValue, ValueType};
use super::kinds::Kinds;
use tapio_core::event::{Name, Value};

/// A condition, as a tree.
#[derive(Clone, Debug)]
pub(super) enum Clause {
    All(Vec<Clause>),
    Any(Vec<Clause>),
    Not(Box<Clause>),
    Field(FieldRef, FieldTest),
    /// The first field's value has this relation to the second one's.
    Relates(FieldRef, Relation, FieldRef),
}

/// How the texts of two values relate (Sigma's `fieldref`). A number equals its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) part: TextPart,
    /// Upper and lower case differ.
    pub(super) is_cased: bool,
}

/// The part of one text that another text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextPart {
    Whole,
    Start,
    End,
    Any,
}

impl Relation {
    fn holds(self, a: Value<'_>, b: Value<'_>) -> bool {
        if a == Value::Null || b == Value::Null {
            return false;
        }
        let (mut a, mut b) = (value_text(a), value_text(b));
        if !self.is_cased {
            (a, b) = (a.to_lowercase(), b.to_lowercase());
        }
        match self.part {
            TextPart::Whole => a == b,
            TextPart::Start => a.starts_with(&b),
            TextPart::End => a.ends_with(&b),
            TextPart::Any => a.contains(&b),
        }
    }
}

impl Clause {
    pub(super) fn holds(&self, event: &impl View) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().all(|c| c.holds(event)),
            Self::Any(clauses) => clauses.iter().any(|c| c.holds(event)),
            Self::Not(clause) => !clause.holds(event),
            Self::Field(field, test) => test.holds(event.field(*field)),
            Self::Relates(a, relation, b) => {
                let values = event.field(*a).zip(event.field(*b));
                values.is_some_and(|(a, b)| relation.holds(a, b))
            }
        }
    }

    /// Whether the clause may hold for an event of this kind.
    fn may_hold_for(&self, kind: &str) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().all(|c| c.may_hold_for(kind)),
            Self::Any(clauses) => clauses.iter().any(|c| c.may_hold_for(kind)),
            Self::Field(FieldRef::Kind, test) => test.holds(Some(Value::Str(kind))),
            Self::Not(_) | Self::Field(..) | Self::Relates(..) => true,
        }
    }

    /// Collects the fields that must have one of a few values for the clause to hold.
    fn required(&self, into: &mut Vec<RequiredField>) {
        match self {
            Self::All(clauses) => clauses.iter().for_each(|c| c.required(into)),
            Self::Any(clauses) if clauses.len() == 1 => clauses[0].required(into),
            Self::Field(field, test) => {
                let values = test.index_values();
                into.extend(values.map(|values| RequiredField { field: *field, values }));
            }
            Self::Any(_) | Self::Not(_) | Self::Relates(..) => {}
        }
    }

    /// Collects warnings about fields that are compared with a type of value they never have.
    pub(super) fn type_mismatches(&self, into: &mut Vec<String>) {
        match self {
            Self::All(clauses) | Self::Any(clauses) => {
                clauses.iter().for_each(|c| c.type_mismatches(into));
            }
            Self::Not(clause) => clause.type_mismatches(into),
            Self::Field(field, test) => {
                let name = field.text();
                match (field.is_number(), test.value_type()) {
                    (Some(true), Some(ValueType::Text)) => into
                        .push(format!("`{name}`: numeric field compared with text; never matches")),
                    (Some(false), Some(ValueType::Number)) => into.push(format!(
                        "`{name}`: text field compared with a number; never matches"
                    )),
                    _ => {}
                }
            }
            Self::Relates(..) => {}
        }
    }
}

/// A field, and the values one of which it must have.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RequiredField {
    pub(super) field: FieldRef,
    pub(super) values: Vec<IndexValue>,
}

/// A condition on an event: its kind, and its fields.
#[derive(Clone, Debug)]
pub struct Predicate {
    pub(super) kinds: Kinds,
    pub(super) clause: Clause,
}

impl Predicate {
    pub(super) fn new(kinds: Kinds, clause: Clause) -> Self {
        Self { kinds, clause }
    }

    /// Whether events of this kind can match at all. Evaluated once per kind.
    #[must_use]
    pub fn matches_kind(&self, kind: Name) -> bool {
        self.kinds.contains(kind) && self.clause.may_hold_for(kind.text())
    }

    /// Whether an event matches; its kind is one for which `matches_kind` is true.
    #[must_use]
    pub fn holds(&self, event: &impl View) -> bool {
        self.clause.holds(event)
    }

    /// Warnings about fields that are compared with a type of value they never have.
    pub(super) fn type_mismatches(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.clause.type_mismatches(&mut found);
        found
    }

    /// The reason why no matching event has a field; `None` if one can have it.
    pub(super) fn lacks(&self, field: FieldRef) -> Option<String> {
        self.kinds.lacks(field)
    }

    /// The field by whose value an index finds the predicate.
    #[must_use]
    pub(super) fn required(&self) -> Option<RequiredField> {
        let mut found = Vec::new();
        self.clause.required(&mut found);
        // Few values are more selective than many; a severity is hardly selective.
        found.into_iter().min_by_key(|r| (r.field == FieldRef::Severity, r.values.len()))
    }

    /// The text that a named group of one of the regular expressions captured.
    #[must_use]
    pub fn capture(&self, event: &impl View, group: &str) -> Option<String> {
        fn find(clause: &Clause, event: &impl View, group: &str) -> Option<String> {
            match clause {
                Clause::All(clauses) | Clause::Any(clauses) => {
                    clauses.iter().find_map(|c| find(c, event, group))
                }
                Clause::Field(field, FieldTest::Regex(regex)) => {
                    let text = value_text(event.field(*field)?);
                    Some(regex.captures(&text)?.name(group)?.as_str().to_owned())
                }
                Clause::Not(_) | Clause::Field(..) | Clause::Relates(..) => None,
            }
        }
        find(&self.clause, event, group)
    }

    /// Whether one of the regular expressions has this named group.
    #[must_use]
    pub fn captures(&self, group: &str) -> bool {
        fn has(clause: &Clause, group: &str) -> bool {
            match clause {
                Clause::All(clauses) | Clause::Any(clauses) => {
                    clauses.iter().any(|c| has(c, group))
                }
                Clause::Field(_, FieldTest::Regex(regex)) => regex.groups().any(|n| n == group),
                Clause::Not(_) | Clause::Field(..) | Clause::Relates(..) => false,
            }
        }
        has(&self.clause, group)
    }
}
