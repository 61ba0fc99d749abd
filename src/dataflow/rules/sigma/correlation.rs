//! Correlation rules: a measure over the events that detection rules find.

use std::sync::Arc;

use super::super::field::FieldRef;
use super::super::parse::intern;
use super::super::rule::{Aggregate, Condition, Counted, Measure, NamedEvent, Rule, Shape};
use super::super::shape;
use super::super::tree::{Node, Part, Read, complain, unknown};
use super::{Correlation, Detection, detection};

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

/// Compiles a correlation; marks the detections that are told through it alone.
pub(super) fn rule(
    correlation: &Correlation,
    detections: &[Detection],
    used: &mut [bool],
) -> Read<Rule> {
    let head = &correlation.head;
    let Some(node) = correlation.node.entry("correlation") else {
        return complain(head.place, "a correlation rule needs `correlation`");
    };
    let table = node.table("a correlation", KEYS)?;
    let rules = table.need("rules", "a correlation")?;
    let referred: Vec<usize> =
        rules.items().iter().map(|n| find(n, detections)).collect::<Read<_>>()?;
    let generate = table.get("generate").map_or(Ok(false), |n| n.bool("`generate`"))?;
    if !generate {
        referred.iter().for_each(|i| used[*i] = true);
    }
    let role = intern("symptom", head.place)?;
    let events = referred.iter().map(|i| NamedEvent {
        name: detections[*i].head.names[0].clone(),
        text: detections[*i].text.clone(),
        predicate: Arc::clone(&detections[*i].predicate),
    });
    let counted = referred.iter().enumerate().map(|(event, i)| {
        let by = group_by(node, &detections[*i])?;
        Ok(Counted { event, by, role })
    });
    let counted = counted.collect::<Read<Vec<_>>>()?;
    let (measure, condition) = measure(node, counted.len())?;
    let timespan = table.need("timespan", "a correlation")?;
    let within_ns = timespan.duration_ns("timespan")?;
    let shape = Shape::Aggregate(Aggregate { measure, events: counted, within_ns, condition });
    super::rule(head, events.collect(), shape, super::pattern(head)?)
}

fn find(node: &Node, detections: &[Detection]) -> Read<usize> {
    let name = node.text("the name or id of a rule")?;
    let found = detections.iter().position(|d| d.head.names.iter().any(|n| n == name));
    found.map_or_else(
        || {
            let names: Vec<&str> = detections.iter().map(|d| d.head.names[0].as_str()).collect();
            complain(node.place, unknown("detection rule", name, &names))
        },
        Ok,
    )
}

/// The join key for events of one detection: an alias means another field in each.
fn group_by(node: &Node, detection: &Detection) -> Read<Vec<FieldRef>> {
    let Some(list) = node.entry("group-by") else { return Ok(Vec::new()) };
    let aliases = node.entry("aliases");
    list.items()
        .iter()
        .map(|n| {
            let name = n.text("the name of a field")?;
            let Some(alias) = aliases.and_then(|a| a.entry(name)) else {
                return detection::field(name, n.place);
            };
            let names = &detection.head.names;
            match names.iter().find_map(|rule| alias.entry(rule)) {
                Some(field) => detection::field(field.text("the name of a field")?, field.place),
                None => complain(
                    alias.place,
                    format!("the alias `{name}` doesn't say what it is in `{}`", names[0]),
                ),
            }
        })
        .collect()
}

fn measure(node: &Node, rules: usize) -> Read<(Measure, Condition)> {
    let Some(kind) = node.entry("type") else {
        return complain(node.place, "a correlation needs `type`");
    };
    let condition_node = node.entry("condition");
    let word = kind.text("the correlation's type")?;
    let measured = || {
        let Some(at) = condition_node.and_then(|c| c.entry("field")) else {
            return complain(node.place, format!("{word}: the condition needs `field`"));
        };
        detection::field(at.text("the name of a field")?, at.place)
    };
    let measure = match word {
        "event_count" => Measure::Count,
        "value_count" => Measure::Distinct(measured()?),
        "value_sum" => Measure::Sum(measured()?),
        "value_avg" => Measure::Avg(measured()?),
        "value_median" => Measure::Percentile(measured()?, 50.0),
        "value_percentile" => {
            let at = condition_node.and_then(|c| c.entry("percentile"));
            let percent = at.map_or(Ok(50.0), |n| n.number("a number from 0 to 100"))?;
            if !(0.0..=100.0).contains(&percent) {
                return complain(node.place, "percentile: from 0 to 100");
            }
            Measure::Percentile(measured()?, percent)
        }
        "temporal" => Measure::AnyOrder,
        "temporal_ordered" => Measure::InOrder,
        other => return complain(kind.place, unknown("correlation type", other, TYPES)),
    };
    let all = shape::at_least(rules as f64);
    let condition = match (condition_node, measure) {
        (Some(node), _) => condition(node)?,
        (None, Measure::AnyOrder | Measure::InOrder) => all,
        (None, _) => return complain(node.place, format!("{word} needs a condition")),
    };
    Ok((measure, condition))
}

fn condition(node: &Node) -> Read<Condition> {
    if let Part::Text(_) = node.part {
        return complain(
            node.place,
            "a condition in words isn't known here: use gte, gt, lte, lt or eq",
        );
    }
    shape::condition(node, &["field", "percentile"])
}
