//! Finds the log records that no rule can match, by a few of their parts: most of a node's log
//! records are such ones, and pass as they came.
//!
//! Each predicate that can hold for an `otlp.log` is reduced to conditions one of which a record
//! has to meet: a text in its message, or an attribute with a value for which a test holds.
//! What is known of all records in question is decided before: their kind and source, a severity
//! below that of a warning, and the entity keys and attributes of their resource. Whether the
//! conditions leave out a record that a predicate holds for is tested against the predicates
//! (`tests/collectors/passing.rs`).

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::field::{FieldRef, View};
use super::field_test::FieldTest;
use super::message_index::texts_of_test;
use super::predicate::{Clause, Predicate};
use super::value_tests::ValueTests;
use crate::sampling::Sampling;
use tapio_core::event::{Event, Field, Name, Severity, Value, names};
use tapio_core::grams::Grams;
use tapio_core::ring::{LogFilter, LogOutline};

/// A condition that a record has to meet for a predicate to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    /// A text in its message, in any case.
    Text(String),
    /// An attribute of its own with a value for which this holds.
    Attribute(Name, SharedTest),
}

/// A test of a predicate. Equals itself only.
#[derive(Clone, Debug)]
struct SharedTest(Arc<FieldTest>);

impl PartialEq for SharedTest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedTest {}

impl Hash for SharedTest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// When a predicate can hold.
#[derive(Clone, Debug, PartialEq)]
enum Need {
    Never,
    /// Where one of these is met.
    OneOf(Vec<Condition>),
    Always,
}

/// A clause, of which everything is decided but the tests of entity keys.
#[derive(Clone, Debug)]
enum Reduced {
    Decided(Need),
    Entity(FieldRef, FieldTest),
    All(Vec<Reduced>),
    Any(Vec<Reduced>),
}

impl Reduced {
    /// The need where each test of an entity key `holds` or not.
    fn need(&self, holds: &dyn Fn(FieldRef, &FieldTest) -> bool) -> Need {
        match self {
            Self::Decided(need) => need.clone(),
            Self::Entity(field, test) => decided(holds(*field, test)),
            Self::All(of) => all(of.iter().map(|reduced| reduced.need(holds))),
            Self::Any(of) => any(of.iter().map(|reduced| reduced.need(holds))),
        }
    }
}

/// The conditions of all rules on log records.
#[derive(Debug)]
pub(super) struct LogRules {
    /// Predicates that hold for all records of some entities.
    open: Vec<Reduced>,
    conditions: HashSet<Condition>,
    attributes: HashMap<Name, ValueTests, ahash::RandomState>,
    /// The search for the texts; `None` where there are none.
    texts: Option<(Grams, AhoCorasick)>,
}

impl LogRules {
    /// `predicates`: all that can hold for an `otlp.log`.
    pub(super) fn new(predicates: &[Arc<Predicate>]) -> Self {
        let (mut open, mut conditions) = (Vec::new(), HashSet::new());
        for reduced in predicates.iter().map(|predicate| reduce(&predicate.clause)) {
            // No negation is looked into, so what excludes a record where all tests of entity keys
            // hold excludes it in any case.
            match reduced.need(&|_, _| true) {
                Need::Never => {}
                Need::OneOf(more) => conditions.extend(more),
                Need::Always => {
                    if let Need::OneOf(more) = reduced.need(&|_, _| false) {
                        conditions.extend(more);
                    }
                    open.push(reduced);
                }
            }
        }
        let mut texts = Vec::new();
        let mut attributes: HashMap<_, ValueTests, _> = HashMap::default();
        for condition in &conditions {
            match condition {
                Condition::Text(text) => texts.push(text.clone()),
                Condition::Attribute(name, test) => {
                    attributes.entry(*name).or_default().add(&test.0)
                }
            }
        }
        texts.sort_unstable();
        let search = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&texts);
        let search = search.ok().filter(|_| !texts.is_empty());
        if search.is_none() && !texts.is_empty() {
            // Without a search for them, no text is known to be absent.
            open.push(Reduced::Decided(Need::Always));
        }
        let texts = search.map(|search| (Grams::new(&texts), search));
        Self { open, conditions, attributes, texts }
    }

    /// Whether every record of a resource may match a rule, whatever it contains.
    fn need_all(&self, shared: &Event<'_>) -> bool {
        let has_attribute = |field: &Field<'_>| self.may_hold(field.key, field.value);
        let may_hold = |reduced: &Reduced| match reduced
            .need(&|field, test| test.holds(shared.field(field)))
        {
            Need::Never => false,
            Need::OneOf(all) => all.iter().any(|one| !self.conditions.contains(one)),
            Need::Always => true,
        };
        shared.attributes().iter().any(has_attribute) || self.open.iter().any(may_hold)
    }

    /// Whether the value of an attribute meets a condition.
    #[inline]
    fn may_hold(&self, attribute: Name, value: Value<'_>) -> bool {
        self.attributes.get(&attribute).is_some_and(|tests| tests.may_hold(value))
    }

    fn may_match(&self, message: &str) -> bool {
        self.texts.as_ref().is_some_and(|(grams, search)| {
            grams.may_be_in(message.as_bytes()) && search.is_match(message)
        })
    }
}

/// Decides what is known of all records that can pass.
fn reduce(clause: &Clause) -> Reduced {
    let each = |clauses: &[Clause]| clauses.iter().map(reduce).collect();
    match clause {
        Clause::All(clauses) => Reduced::All(each(clauses)),
        Clause::Any(clauses) => Reduced::Any(each(clauses)),
        // What a negation excludes isn't known.
        Clause::Not(_) => Reduced::Decided(Need::Always),
        Clause::Field(field @ FieldRef::Entity(_), test) => Reduced::Entity(*field, test.clone()),
        Clause::Field(field, test) => Reduced::Decided(need_of_field(*field, test)),
        Clause::Relates(a, _, b) => {
            let exists = FieldTest::Exists(true);
            let fields = [*a, *b].into_iter();
            Reduced::All(
                fields
                    .map(|field| match field {
                        FieldRef::Entity(_) => Reduced::Entity(field, exists.clone()),
                        field => Reduced::Decided(need_of_field(field, &exists)),
                    })
                    .collect(),
            )
        }
    }
}

fn decided(holds: bool) -> Need {
    if holds { Need::Always } else { Need::Never }
}

/// The need of the clause that excludes the most records: all of them have to hold.
fn all(needs: impl Iterator<Item = Need>) -> Need {
    let worth = |need: &Need| match need {
        Need::Never => usize::MAX,
        Need::OneOf(conditions) => conditions.iter().map(worth_of).min().unwrap_or(0),
        Need::Always => 0,
    };
    needs.max_by_key(worth).unwrap_or(Need::Always)
}

fn worth_of(condition: &Condition) -> usize {
    match condition {
        Condition::Text(text) => text.len(),
        // It is looked for exactly.
        Condition::Attribute(_, test) => match test.0.index_values() {
            Some(_) => 1 << 9,
            None => 1 << 8,
        },
    }
}

fn any(needs: impl Iterator<Item = Need>) -> Need {
    let mut conditions = Vec::new();
    for need in needs {
        match need {
            Need::Never => {}
            Need::OneOf(more) => conditions.extend(more),
            Need::Always => return Need::Always,
        }
    }
    if conditions.is_empty() { Need::Never } else { Need::OneOf(conditions) }
}

/// The need of a test of a field other than an entity key.
fn need_of_field(field: FieldRef, test: &FieldTest) -> Need {
    let text = |name: Name| decided(test.holds(Some(Value::Str(name.text()))));
    match field {
        FieldRef::Kind => text(names::OTLP_LOG),
        FieldRef::Source => text(names::OTLP),
        FieldRef::Severity => {
            let mut below = 1..Severity::WARN.0;
            decided(below.any(|n| test.holds(Some(Value::Int(n.into())))))
        }
        FieldRef::Message => match test {
            FieldTest::Exists(expected) => decided(*expected),
            _ => match texts_of_test(test) {
                Some(texts) => Need::OneOf(texts.into_iter().map(Condition::Text).collect()),
                None => Need::Always,
            },
        },
        FieldRef::Entity(_) => Need::Always,
        FieldRef::Attribute(name) => need_of_attributes(&[name], test),
        FieldRef::Derived(derived) if test.holds(None) || derived.bases().is_empty() => {
            Need::Always
        }
        // It has a value only where one of these has.
        FieldRef::Derived(derived) => need_of_attributes(derived.bases(), &FieldTest::Exists(true)),
    }
}

/// The need of a test of one of these attributes.
fn need_of_attributes(attributes: &[Name], test: &FieldTest) -> Need {
    // tapio adds attributes of these namespaces to records.
    let is_added = |name: &Name| ["tapio.", "otel."].iter().any(|own| name.text().starts_with(own));
    if attributes.is_empty() || test.holds(None) || attributes.iter().any(is_added) {
        return Need::Always;
    }
    let test = SharedTest(Arc::new(test.clone()));
    Need::OneOf(attributes.iter().map(|name| Condition::Attribute(*name, test.clone())).collect())
}

/// The filter for the records of a resource.
pub(super) struct ResourceFilter {
    rules: Arc<LogRules>,
    /// `None`: nothing is learned from the resource's records.
    sampling: Option<Arc<Sampling>>,
}

impl ResourceFilter {
    /// `None`: every record has to be an event.
    pub(super) fn new(
        rules: Arc<LogRules>,
        sampling: Arc<Sampling>,
        shared: &Event<'_>,
    ) -> Option<Self> {
        if rules.need_all(shared) {
            return None;
        }
        let is_learned = shared.fields.iter().any(|field| field.key == names::SERVICE_NAME);
        Some(Self { rules, sampling: is_learned.then_some(sampling) })
    }
}

impl LogFilter for ResourceFilter {
    fn reads(&self, attribute: Name) -> bool {
        self.rules.attributes.contains_key(&attribute)
    }

    fn needs_value(&self, attribute: Name, value: Value<'_>) -> bool {
        self.rules.may_hold(attribute, value)
    }

    fn needs(&self, record: &LogOutline<'_>) -> bool {
        let is_learned =
            self.sampling.as_ref().is_some_and(|sampling| match record.trace.low_bits() {
                0 => sampling.takes_log(record.time_ns),
                trace => sampling.takes_trace(trace),
            });
        is_learned || self.rules.may_match(record.message)
    }
}
