//! Correlation rules: an aggregate over the events that detection rules match, or over those by
//! which other correlation rules fire.

use std::sync::Arc;

use super::super::compile::aggregate::{self, MAX_COUNTED};
use super::super::compile::values::intern;
use super::super::field::FieldRef;
use super::super::rule::{NamedEvent, Rule};
use super::super::shape::{Aggregate, Condition, Counted, Measure, PartCondition, Shape};
use super::super::suggest::unknown;
use super::super::yaml::{Node, Parsed, Part, Position, reject};
use super::condition;
use super::document::{self, Correlation, Documents, Head};
use super::logsource::{self, Logsource};
use tapio_core::event::Name;

const KEYS: &[&str] =
    &["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
const TYPES: &[&str] = &[
    "event_count",
    "value_count",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
    "temporal",
    "temporal_ordered",
];
/// Deepest nesting of correlations.
const MAX_DEPTH: usize = 8;

/// A rule that a correlation refers to, by number.
#[derive(Clone, Copy, PartialEq)]
enum Referred {
    Detection(usize),
    Correlation(usize),
}

/// The rules that emit stories only through a correlation.
pub(super) struct Used {
    pub(super) detections: Vec<bool>,
    pub(super) correlations: Vec<bool>,
}

/// Compiles a correlation, by number; marks the rules that emit stories only through it.
pub(super) fn rule(number: usize, documents: &Documents, used: &mut Used) -> Parsed<Rule> {
    let correlation = &documents.correlations[number];
    let head = &correlation.head;
    for referred in references(documents, correlation)? {
        let generate = correlation.entry("generate");
        if generate.map_or(Ok(false), |n| n.bool("`generate`"))? {
            break;
        }
        match referred {
            Referred::Detection(i) => used.detections[i] = true,
            Referred::Correlation(i) => used.correlations[i] = true,
        }
    }
    let role = intern("symptom", head.position)?;
    let mut builder = Builder { documents, events: Vec::new(), numbers: Vec::new(), role };
    let (aggregate, _) = builder.aggregate(&mut vec![number])?;
    document::rule(head, builder.events, Shape::Aggregate(aggregate), document::pattern(head)?)
}

/// The rules that a correlation lists; if it lists none, those in its condition.
fn references(documents: &Documents, correlation: &Correlation) -> Parsed<Vec<Referred>> {
    let Some(node) = correlation.node.entry("correlation") else {
        return reject(correlation.head.position, "a correlation rule needs `correlation`");
    };
    let table = node.table("a correlation", KEYS)?;
    if let (None, Some(Node { part: Part::Text(text), position, .. })) =
        (table.get("rules"), table.get("condition"))
    {
        let names = condition::words(text).into_iter();
        let names = names.filter(|w| !["and", "or", "not", "(", ")"].contains(w));
        return names.map(|name| find(name, *position, documents)).collect();
    }
    let rules = table.need("rules", "a correlation")?.items();
    rules.iter().map(|n| find(n.text("the name or id of a rule")?, n.position, documents)).collect()
}

fn find(name: &str, position: Position, documents: &Documents) -> Parsed<Referred> {
    let has_name = |head: &Head| head.names.iter().any(|n| n == name);
    let detection = documents.detections.iter().position(|d| has_name(&d.head));
    let correlation = documents.correlations.iter().position(|c| has_name(&c.head));
    match (detection, correlation) {
        (Some(i), _) => Ok(Referred::Detection(i)),
        (None, Some(i)) => Ok(Referred::Correlation(i)),
        (None, None) => {
            let detections = documents.detections.iter().map(|d| &d.head);
            let heads = detections.chain(documents.correlations.iter().map(|c| &c.head));
            let names: Vec<&str> = heads.map(|h| h.names[0].as_str()).collect();
            reject(position, unknown("rule", name, &names))
        }
    }
}

/// The rules below a correlation, down to a detection.
type Path = Vec<Referred>;

/// Builds the rule of a correlation.
struct Builder<'a> {
    documents: &'a Documents,
    events: Vec<NamedEvent>,
    /// For each event its detection, by number.
    numbers: Vec<usize>,
    role: Name,
}

impl Builder<'_> {
    /// The number in the rule of a detection's event.
    fn event(&mut self, detection: usize) -> usize {
        if let Some(at) = self.numbers.iter().position(|d| *d == detection) {
            return at;
        }
        let Self { documents, events, numbers, .. } = self;
        let found = &documents.detections[detection];
        events.push(NamedEvent {
            name: found.head.names[0].clone(),
            text: found.text.clone(),
            predicate: Arc::clone(&found.predicate),
            unread: found.logsource.unread(),
        });
        numbers.push(detection);
        events.len() - 1
    }

    /// The aggregate of the last correlation in `above`, and for each event it counts the path down
    /// to its detection.
    fn aggregate(&mut self, above: &mut Vec<usize>) -> Parsed<(Aggregate, Vec<Path>)> {
        let number = above.last().copied().unwrap_or_default();
        let correlation = &self.documents.correlations[number];
        let referred = references(self.documents, correlation)?;
        let position = correlation.head.position;
        let (mut events, mut paths, mut inner) = (Vec::new(), Vec::new(), Vec::new());
        for (part, referred) in (0u8..).zip(&referred) {
            match *referred {
                Referred::Detection(detection) => {
                    if self.documents.detections[detection].aggregation.is_some() {
                        let message = "a correlation can't refer to a rule with an aggregation \
                                       (`| count() …`); write that one as a correlation, too";
                        return reject(position, message);
                    }
                    let path = vec![*referred];
                    let by = self.group_by(number, &path)?;
                    let event = self.event(detection);
                    events.push(Counted { event, by, role: self.role, part, through: None });
                    paths.push(path);
                }
                Referred::Correlation(below) => {
                    if above.contains(&below) {
                        return reject(position, "the correlation refers to itself");
                    }
                    if above.len() >= MAX_DEPTH {
                        let message = format!("correlations nested deeper than {MAX_DEPTH}");
                        return reject(position, message);
                    }
                    above.push(below);
                    let (aggregate, leaves) = self.aggregate(above)?;
                    above.pop();
                    for (leaf, (counted, rest)) in (0u8..).zip(aggregate.events.iter().zip(leaves))
                    {
                        let path: Path = std::iter::once(*referred).chain(rest).collect();
                        let by = self.group_by(number, &path)?;
                        let (event, through) = (counted.event, Some((inner.len() as u8, leaf)));
                        events.push(Counted { event, by, role: self.role, part, through });
                        paths.push(path);
                    }
                    inner.push(aggregate);
                }
            }
            if events.len() > MAX_COUNTED {
                return reject(
                    position,
                    format!("more than {MAX_COUNTED} rules, including nested ones"),
                );
            }
        }
        let aggregate = self.build(correlation, &referred, events, inner)?;
        Ok((aggregate, paths))
    }

    fn build(
        &self,
        correlation: &Correlation,
        referred: &[Referred],
        events: Vec<Counted>,
        inner: Vec<Aggregate>,
    ) -> Parsed<Aggregate> {
        let position = correlation.head.position;
        // The measured field is the same one in all rules.
        let detection = self.numbers.first().map(|number| &self.documents.detections[*number]);
        let measure = measure(correlation, detection.map(|d| &d.logsource))?;
        let ordered = matches!(measure, Measure::AnyOrder | Measure::InOrder);
        let condition = match correlation.entry("condition") {
            Some(Node { part: Part::Text(text), position, .. }) if measure == Measure::AnyOrder => {
                let named: Vec<(String, PartCondition)> = (0u8..)
                    .zip(referred)
                    .flat_map(|(part, r)| {
                        self.names(*r)
                            .iter()
                            .map(move |name| (name.clone(), PartCondition::Part(part)))
                    })
                    .collect();
                Condition::Parts(condition::parse(text, *position, "rule", &named)?)
            }
            Some(Node { part: Part::Text(_), position, .. }) => {
                return reject(*position, "a condition over rules needs `type: temporal`");
            }
            Some(node) => aggregate::condition(node, &["field", "percentile"])?,
            None if ordered => aggregate::at_least(referred.len() as f64),
            None => return reject(position, format!("{} needs a condition", measure.word())),
        };
        let Some(timespan) = correlation.entry("timespan") else {
            return reject(position, "a correlation needs `timespan`");
        };
        let within_ns = timespan.duration_ns("timespan")?;
        let parts = referred.len() as u8;
        Ok(Aggregate { measure, events, within_ns, condition, deviation: None, parts, inner })
    }

    fn names(&self, referred: Referred) -> &[String] {
        match referred {
            Referred::Detection(i) => &self.documents.detections[i].head.names,
            Referred::Correlation(i) => &self.documents.correlations[i].head.names,
        }
    }

    /// The join key of a correlation in the events of a detection.
    fn group_by(&self, correlation: usize, path: &[Referred]) -> Parsed<Vec<FieldRef>> {
        let fields = self.documents.correlations[correlation].entry("group-by");
        let fields = fields.map_or(&[][..], Node::items);
        fields
            .iter()
            .map(|n| self.field(correlation, n.text("the name of a field")?, n.position, path))
            .collect()
    }

    /// The field that a correlation calls `name`, in the events of the detection at the end of the
    /// path. An alias stands for another field in each rule; a nested correlation has the fields
    /// that it groups by.
    fn field(
        &self,
        correlation: usize,
        name: &str,
        position: Position,
        path: &[Referred],
    ) -> Parsed<FieldRef> {
        let correlation = &self.documents.correlations[correlation];
        let Some((next, rest)) = path.split_first() else {
            return logsource::field(name, position);
        };
        let names = self.names(*next);
        let alias = correlation.entry("aliases").and_then(|a| a.entry(name));
        let (name, position) = match alias {
            None => (name, position),
            Some(alias) => match names.iter().find_map(|rule| alias.entry(rule)) {
                Some(field) => (field.text("the name of a field")?, field.position),
                None => {
                    let message = format!("the alias `{name}` has no field for `{}`", names[0]);
                    return reject(alias.position, message);
                }
            },
        };
        let inner = match *next {
            Referred::Correlation(inner) => inner,
            Referred::Detection(i) => {
                return self.documents.detections[i].logsource.field(name, position);
            }
        };
        let grouped = self.documents.correlations[inner].entry("group-by");
        let mut grouped = grouped.map_or(&[][..], Node::items).iter();
        if grouped.any(|n| matches!(&n.part, Part::Text(text) if text == name)) {
            return self.field(inner, name, position, rest);
        }
        let message = format!(
            "`{}` doesn't group by `{name}`, so its matches have no value for it",
            names[0]
        );
        reject(position, message)
    }
}

fn measure(correlation: &Correlation, logsource: Option<&Logsource>) -> Parsed<Measure> {
    let position = correlation.head.position;
    let Some(kind) = correlation.entry("type") else {
        return reject(position, "a correlation needs `type`");
    };
    let condition = correlation.entry("condition");
    let word = kind.text("the correlation's type")?;
    let measured = || {
        let Some(at) = condition.and_then(|c| c.entry("field")) else {
            return reject(position, format!("{word}: the condition needs `field`"));
        };
        let (name, position) = (at.text("the name of a field")?, at.position);
        match logsource {
            Some(logsource) => logsource.field(name, position),
            None => logsource::field(name, position),
        }
    };
    Ok(match word {
        "event_count" => Measure::Count,
        "value_count" => Measure::Distinct(measured()?),
        "value_sum" => Measure::Sum(measured()?),
        "value_avg" => Measure::Avg(measured()?),
        "value_median" => Measure::Percentile(measured()?, 50.0),
        "value_percentile" => {
            let at = condition.and_then(|c| c.entry("percentile"));
            let percent = at.map_or(Ok(50.0), |n| n.number("a number from 0 to 100"))?;
            if !(0.0..=100.0).contains(&percent) {
                return reject(position, "percentile: from 0 to 100");
            }
            Measure::Percentile(measured()?, percent)
        }
        "temporal" => Measure::AnyOrder,
        "temporal_ordered" => Measure::InOrder,
        other => return reject(kind.position, unknown("correlation type", other, TYPES)),
    })
}
