//! Correlation rules: a measure over the events that detection rules find, or over those by which other
//! correlation rules fire.

use std::sync::Arc;

use super::super::field::FieldRef;
use super::super::parse::intern;
use super::super::rule::{Aggregate, Condition, Counted, Measure, NamedEvent, Rule, Seen, Shape};
use super::super::shape::{self, MAX_COUNTED};
use super::super::tree::{Node, Part, Place, Read, complain, unknown};
use super::{Correlation, Documents, Head, condition, detection};
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
/// How many correlations may stand above each other.
const MAX_DEPTH: usize = 8;

/// What a correlation refers to, by its number among its like.
#[derive(Clone, Copy, PartialEq)]
enum Referred {
    Detection(usize),
    Correlation(usize),
}

/// Which rules are told through a correlation alone.
pub(super) struct Used {
    pub(super) detections: Vec<bool>,
    pub(super) correlations: Vec<bool>,
}

/// Compiles the correlation of this number; marks the rules that are told through it alone.
pub(super) fn rule(number: usize, documents: &Documents, used: &mut Used) -> Read<Rule> {
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
    let role = intern("symptom", head.place)?;
    let mut builder = Builder { documents, events: Vec::new(), numbers: Vec::new(), role };
    let (aggregate, _) = builder.aggregate(&mut vec![number])?;
    super::rule(head, builder.events, Shape::Aggregate(aggregate), super::pattern(head)?)
}

/// The rules a correlation is about. Where it lists none, those its condition names.
fn references(documents: &Documents, correlation: &Correlation) -> Read<Vec<Referred>> {
    let Some(node) = correlation.node.entry("correlation") else {
        return complain(correlation.head.place, "a correlation rule needs `correlation`");
    };
    let table = node.table("a correlation", KEYS)?;
    if let (None, Some(Node { part: Part::Text(text), place, .. })) =
        (table.get("rules"), table.get("condition"))
    {
        let names = condition::words(text).into_iter();
        let names = names.filter(|w| !["and", "or", "not", "(", ")"].contains(w));
        return names.map(|name| find(name, *place, documents)).collect();
    }
    let rules = table.need("rules", "a correlation")?.items();
    rules.iter().map(|n| find(n.text("the name or id of a rule")?, n.place, documents)).collect()
}

fn find(name: &str, place: Place, documents: &Documents) -> Read<Referred> {
    let is_it = |head: &Head| head.names.iter().any(|n| n == name);
    let detection = documents.detections.iter().position(|d| is_it(&d.head));
    let correlation = documents.correlations.iter().position(|c| is_it(&c.head));
    match (detection, correlation) {
        (Some(i), _) => Ok(Referred::Detection(i)),
        (None, Some(i)) => Ok(Referred::Correlation(i)),
        (None, None) => {
            let detections = documents.detections.iter().map(|d| &d.head);
            let heads = detections.chain(documents.correlations.iter().map(|c| &c.head));
            let names: Vec<&str> = heads.map(|h| h.names[0].as_str()).collect();
            complain(place, unknown("rule", name, &names))
        }
    }
}

/// The rules from a correlation, that one left out, down to a detection.
type Path = Vec<Referred>;

/// A rule in the making.
struct Builder<'a> {
    documents: &'a Documents,
    events: Vec<NamedEvent>,
    /// The detection that each event is.
    numbers: Vec<usize>,
    role: Name,
}

impl Builder<'_> {
    /// The rule's number for a detection's events.
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
        });
        numbers.push(detection);
        events.len() - 1
    }

    /// The measure of the last correlation in `above`, and for each event it counts the way down to its
    /// detection.
    fn aggregate(&mut self, above: &mut Vec<usize>) -> Read<(Aggregate, Vec<Path>)> {
        let number = above.last().copied().unwrap_or_default();
        let correlation = &self.documents.correlations[number];
        let referred = references(self.documents, correlation)?;
        let place = correlation.head.place;
        let (mut events, mut paths, mut inner) = (Vec::new(), Vec::new(), Vec::new());
        for (part, referred) in (0u8..).zip(&referred) {
            match *referred {
                Referred::Detection(detection) => {
                    let path = vec![*referred];
                    let by = self.group_by(number, &path)?;
                    let event = self.event(detection);
                    events.push(Counted { event, by, role: self.role, part, through: None });
                    paths.push(path);
                }
                Referred::Correlation(below) => {
                    if above.contains(&below) {
                        return complain(place, "it refers to itself");
                    }
                    if above.len() >= MAX_DEPTH {
                        let cause = format!("more than {MAX_DEPTH} correlations above each other");
                        return complain(place, cause);
                    }
                    above.push(below);
                    let (measure, leaves) = self.aggregate(above)?;
                    above.pop();
                    for (leaf, (counted, rest)) in (0u8..).zip(measure.events.iter().zip(leaves)) {
                        let path: Path = std::iter::once(*referred).chain(rest).collect();
                        let by = self.group_by(number, &path)?;
                        let (event, through) = (counted.event, Some((inner.len() as u8, leaf)));
                        events.push(Counted { event, by, role: self.role, part, through });
                        paths.push(path);
                    }
                    inner.push(measure);
                }
            }
            if events.len() > MAX_COUNTED {
                return complain(
                    place,
                    format!("more than {MAX_COUNTED} rules, inner ones counted"),
                );
            }
        }
        let aggregate = self.measured(correlation, &referred, events, inner)?;
        Ok((aggregate, paths))
    }

    fn measured(
        &self,
        correlation: &Correlation,
        referred: &[Referred],
        events: Vec<Counted>,
        inner: Vec<Aggregate>,
    ) -> Read<Aggregate> {
        let place = correlation.head.place;
        let measure = measure(correlation)?;
        let ordered = matches!(measure, Measure::AnyOrder | Measure::InOrder);
        let condition = match correlation.entry("condition") {
            Some(Node { part: Part::Text(text), place, .. }) if measure == Measure::AnyOrder => {
                let named: Vec<(String, Seen)> = (0u8..)
                    .zip(referred)
                    .flat_map(|(part, r)| {
                        self.names(*r).iter().map(move |name| (name.clone(), Seen::Part(part)))
                    })
                    .collect();
                Condition::Seen(condition::parse(text, *place, "rule", &named)?)
            }
            Some(Node { part: Part::Text(_), place, .. }) => {
                return complain(*place, "a condition in words goes with `type: temporal` only");
            }
            Some(node) => shape::condition(node, &["field", "percentile"])?,
            None if ordered => shape::at_least(referred.len() as f64),
            None => return complain(place, format!("{} needs a condition", measure.word())),
        };
        let Some(timespan) = correlation.entry("timespan") else {
            return complain(place, "a correlation needs `timespan`");
        };
        let within_ns = timespan.duration_ns("timespan")?;
        let parts = referred.len() as u8;
        Ok(Aggregate { measure, events, within_ns, condition, parts, inner })
    }

    fn names(&self, referred: Referred) -> &[String] {
        match referred {
            Referred::Detection(i) => &self.documents.detections[i].head.names,
            Referred::Correlation(i) => &self.documents.correlations[i].head.names,
        }
    }

    /// The join key of a correlation in the events of a detection.
    fn group_by(&self, correlation: usize, path: &[Referred]) -> Read<Vec<FieldRef>> {
        let fields = self.documents.correlations[correlation].entry("group-by");
        let fields = fields.map_or(&[][..], Node::items);
        fields
            .iter()
            .map(|n| self.field(correlation, n.text("the name of a field")?, n.place, path))
            .collect()
    }

    /// What a correlation calls `name`, in the events of the detection at the end of the path: an alias
    /// means another field in each rule, and an inner correlation has the fields it groups by.
    fn field(
        &self,
        correlation: usize,
        name: &str,
        place: Place,
        path: &[Referred],
    ) -> Read<FieldRef> {
        let correlation = &self.documents.correlations[correlation];
        let Some((next, rest)) = path.split_first() else { return detection::field(name, place) };
        let names = self.names(*next);
        let alias = correlation.entry("aliases").and_then(|a| a.entry(name));
        let (name, place) = match alias {
            None => (name, place),
            Some(alias) => match names.iter().find_map(|rule| alias.entry(rule)) {
                Some(field) => (field.text("the name of a field")?, field.place),
                None => {
                    let cause =
                        format!("the alias `{name}` doesn't say what it is in `{}`", names[0]);
                    return complain(alias.place, cause);
                }
            },
        };
        let Referred::Correlation(inner) = *next else { return detection::field(name, place) };
        let grouped = self.documents.correlations[inner].entry("group-by");
        let mut grouped = grouped.map_or(&[][..], Node::items).iter();
        if grouped.any(|n| matches!(&n.part, Part::Text(text) if text == name)) {
            return self.field(inner, name, place, rest);
        }
        let cause = format!("`{}` doesn't group by `{name}`, so it has no value there", names[0]);
        complain(place, cause)
    }
}

fn measure(correlation: &Correlation) -> Read<Measure> {
    let place = correlation.head.place;
    let Some(kind) = correlation.entry("type") else {
        return complain(place, "a correlation needs `type`");
    };
    let condition = correlation.entry("condition");
    let word = kind.text("the correlation's type")?;
    let measured = || {
        let Some(at) = condition.and_then(|c| c.entry("field")) else {
            return complain(place, format!("{word}: the condition needs `field`"));
        };
        detection::field(at.text("the name of a field")?, at.place)
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
                return complain(place, "percentile: from 0 to 100");
            }
            Measure::Percentile(measured()?, percent)
        }
        "temporal" => Measure::AnyOrder,
        "temporal_ordered" => Measure::InOrder,
        other => return complain(kind.place, unknown("correlation type", other, TYPES)),
    })
}
