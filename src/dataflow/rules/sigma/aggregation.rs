//! Aggregations of the first version of Sigma, behind a condition: `selection | count() by src >
//! 10`, with `timeframe`. They compile to the same measures as correlation rules.

use super::super::compile::aggregate::at_least;
use super::super::field::FieldRef;
use super::super::shape::{Aggregate, Comparison, Condition, Counted, Measure, Shape};
use super::super::yaml::{Node, Parsed, Part, Position, reject};
use super::logsource::Logsource;
use tapio_core::event::Name;

/// A measure over the events of a detection.
#[derive(Clone, Debug)]
pub(super) struct Aggregation {
    /// The condition in front of it.
    pub(super) search: String,
    measure: Measure,
    by: Vec<FieldRef>,
    condition: Condition,
    within_ns: u64,
}

const COMPARISONS: [(&str, Comparison); 7] = [
    (">=", Comparison::Gte),
    ("<=", Comparison::Lte),
    ("==", Comparison::Eq),
    ("!=", Comparison::Ne),
    (">", Comparison::Gt),
    ("<", Comparison::Lt),
    ("=", Comparison::Eq),
];

fn unsupported<T>(position: Position, word: &str) -> Parsed<T> {
    let instead = match word {
        "near" => "write a correlation rule with `type: temporal`",
        "min" | "max" => "write a correlation rule with `type: value_percentile`",
        _ => "expected `count`, `sum` or `avg`, as in `| count() by FIELD > 5`",
    };
    reject(position, format!("condition: the aggregation `{word}` is not supported; {instead}"))
}

/// Parses the aggregation of a condition; `None` if it has none.
pub(super) fn parse(
    condition: &Node,
    timeframe: Option<&Node>,
    logsource: &Logsource,
) -> Parsed<Option<Aggregation>> {
    let Part::Text(text) = &condition.part else { return Ok(None) };
    let Some((search, rest)) = text.split_once('|') else { return Ok(None) };
    let position = condition.position;
    let rest = rest.trim();
    let word_end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    let (word, rest) = rest.split_at(word_end);
    if !matches!(word, "count" | "sum" | "avg") {
        return unsupported(position, word);
    }
    let form = || format!("condition: expected `| {word}(FIELD) by FIELD > NUMBER`");
    let Some((measured, rest)) =
        rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'))
    else {
        return reject(position, form());
    };
    let found = COMPARISONS
        .iter()
        .filter_map(|(sign, comparison)| Some((rest.find(sign)?, *sign, *comparison)))
        // Of two signs at one place the longer one comes first in the table.
        .min_by_key(|(at, ..)| *at);
    let Some((at, sign, comparison)) = found else { return reject(position, form()) };
    let Ok(bound) = rest[at + sign.len()..].trim().parse() else {
        return reject(position, form());
    };
    let by = match rest[..at].trim() {
        "" => Vec::new(),
        by => match by.strip_prefix("by ") {
            Some(fields) => fields
                .split(',')
                .map(|name| logsource.field(name.trim(), position))
                .collect::<Parsed<_>>()?,
            None => return reject(position, form()),
        },
    };
    let measure = match (word, measured.trim()) {
        ("count", "") => Measure::Count,
        (_, "") => return reject(position, form()),
        ("count", name) => Measure::Distinct(logsource.field(name, position)?),
        ("sum", name) => Measure::Sum(logsource.field(name, position)?),
        (_, name) => Measure::Avg(logsource.field(name, position)?),
    };
    let Some(timeframe) = timeframe else {
        return reject(
            position,
            "condition: an aggregation needs a window: add `timeframe: 5m` to the detection",
        );
    };
    let within_ns = timeframe.duration_ns("timeframe")?;
    let condition = match comparison {
        Comparison::Gte => at_least(bound),
        comparison => Condition::Bounds(vec![(comparison, bound)]),
    };
    Ok(Some(Aggregation { search: search.trim().to_owned(), measure, by, condition, within_ns }))
}

impl Aggregation {
    /// The shape of a rule over its first event.
    pub(super) fn shape(&self, role: Name) -> Shape {
        let counted = Counted { event: 0, by: self.by.clone(), role, part: 0, through: None };
        let aggregate = Aggregate {
            measure: self.measure,
            events: vec![counted],
            within_ns: self.within_ns,
            condition: self.condition.clone(),
            deviation: None,
            parts: 1,
            inner: Vec::new(),
        };
        Shape::Aggregate(aggregate)
    }
}
