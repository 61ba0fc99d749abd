//! Compiles aggregates: `any_order`, `count`, `distinct`, `sum`, `avg`, `percentile`.

use super::super::field::FieldRef;
use super::super::shape::{Aggregate, Comparison, Condition, Counted, DeviationCondition, Measure};
use super::super::suggest::unknown;
use super::super::yaml::{Node, Parsed, Position, Table, reject};
use super::scope::EventScope;
use super::values::{intern, join_key, step_key, within};
use tapio_core::event::Name;

/// Events of an aggregate.
pub(crate) const MAX_COUNTED: usize = 64;

/// Windows that are learned before anything deviates, unless the rule says otherwise.
const DEFAULT_LEARN: u8 = 12;

/// Keys that all aggregates have.
pub(crate) const AGGREGATE_KEYS: &[&str] =
    &["event", "events", "by", "within", "at_least", "condition"];

/// Keys that only this aggregate has.
pub(crate) fn own_keys(word: &str) -> &'static [&'static str] {
    match word {
        "distinct" | "sum" | "avg" => &["field"],
        "percentile" => &["field", "percentile"],
        "any_order" => &["steps"],
        _ => &[],
    }
}

/// Compiles the aggregate of this name.
pub(super) fn aggregate(word: &str, node: &Node, events: &mut EventScope) -> Parsed<Aggregate> {
    let mut keys = AGGREGATE_KEYS.to_vec();
    keys.extend(own_keys(word));
    let context = format!("`{word}`");
    let table = node.table(&context, &keys)?;
    let measure = measure(word, table, &context)?;
    let by = join_key(table)?;
    let counted = counted(node, table, &by, events)?;
    let (condition, deviation) = match (table.get("at_least"), table.get("condition")) {
        (Some(n), None) => (at_least(n.number("a number")?), None),
        (None, Some(n)) => conditions(n, measure)?,
        (None, None) if measure == Measure::AnyOrder => (at_least(counted.len() as f64), None),
        _ => return reject(node.position, format!("{context} needs `at_least` or `condition`")),
    };
    check_condition(measure, &condition, counted.len(), node.position)?;
    let within_ns = within(table, &context)?;
    let parts = counted.len() as u8;
    let events = counted;
    Ok(Aggregate { measure, events, within_ns, condition, deviation, parts, inner: Vec::new() })
}

fn measure(word: &str, table: Table<'_>, context: &str) -> Parsed<Measure> {
    let field = || {
        let node = table.need("field", context)?;
        let text = node.text("the name of a field")?;
        FieldRef::parse(text).or_else(|message| reject(node.position, message))
    };
    Ok(match word {
        "distinct" => Measure::Distinct(field()?),
        "sum" => Measure::Sum(field()?),
        "avg" => Measure::Avg(field()?),
        "percentile" => {
            let node = table.need("percentile", context)?;
            let percent = node.number("a number from 0 to 100")?;
            if !(0.0..=100.0).contains(&percent) {
                return reject(node.position, "percentile: from 0 to 100");
            }
            Measure::Percentile(field()?, percent)
        }
        "any_order" => Measure::AnyOrder,
        _ => Measure::Count,
    })
}

fn counted(
    node: &Node,
    table: Table<'_>,
    by: &[FieldRef],
    events: &mut EventScope,
) -> Parsed<Vec<Counted>> {
    let symptom = intern("symptom", node.position)?;
    let plain = |n: &Node, events: &mut EventScope| {
        let event = events.find(n)?;
        Ok(Counted { event, by: by.to_vec(), role: symptom, part: 0, through: None })
    };
    let mut list: Vec<Counted> = match (table.get("event"), table.get("events"), table.get("steps"))
    {
        (Some(n), None, None) => vec![plain(n, events)?],
        (None, Some(n), None) => {
            n.items().iter().map(|n| plain(n, events)).collect::<Parsed<_>>()?
        }
        (None, None, Some(n)) => {
            n.items().iter().map(|n| counted_step(n, by, symptom, events)).collect::<Parsed<_>>()?
        }
        _ => return reject(node.position, "needs one of `event`, `events`"),
    };
    (0u8..).zip(&mut list).for_each(|(part, counted)| counted.part = part);
    match list.len() {
        0 => reject(node.position, "events: at least one"),
        1..=MAX_COUNTED => Ok(list),
        _ => reject(node.position, format!("events: at most {MAX_COUNTED}")),
    }
}

fn counted_step(
    node: &Node,
    by: &[FieldRef],
    symptom: Name,
    events: &mut EventScope,
) -> Parsed<Counted> {
    let table = node.table("a step of `any_order`", &["event", "by", "role"])?;
    let own = step_key(table, by)?;
    if own.len() != by.len() {
        return reject(
            node.position,
            "by: a step of `any_order` needs as many key fields as the others",
        );
    }
    let role = table.get("role").map_or(Ok(symptom), |n| intern(n.text("role")?, n.position))?;
    let event = events.find(table.need("event", "a step")?)?;
    Ok(Counted { event, by: own, role, part: 0, through: None })
}

/// Compiles a `condition`: bounds of the value, of its deviation from what is usual, or of both.
fn conditions(node: &Node, measure: Measure) -> Parsed<(Condition, Option<DeviationCondition>)> {
    let Some(of_usual) = node.entry("deviation") else {
        return Ok((condition(node, &["deviation"])?, None));
    };
    if matches!(measure, Measure::AnyOrder | Measure::InOrder) {
        let message = format!("`{}` has no `deviation`: it measures no amount", measure.word());
        return reject(of_usual.position, message);
    }
    let absolute = match node.map("a condition")? {
        [_] => Condition::Bounds(Vec::new()),
        _ => condition(node, &["deviation"])?,
    };
    Ok((absolute, Some(deviation(of_usual)?)))
}

/// Compiles `deviation`.
fn deviation(node: &Node) -> Parsed<DeviationCondition> {
    let learn = match node.entry("learn") {
        None => DEFAULT_LEARN,
        Some(n) => match u8::try_from(n.positive("learn")?) {
            Ok(learn) if DeviationCondition::LEARN.contains(&learn) => learn,
            _ => {
                let (least, most) = DeviationCondition::LEARN.into_inner();
                return reject(n.position, format!("learn: from {least} to {most} windows"));
            }
        },
    };
    if node.map("a deviation")?.iter().all(|(key, _)| key.text == "learn") {
        return reject(node.position, "deviation: needs at least one comparison, such as `gt: 6`");
    }
    let Condition::Bounds(bounds) = condition(node, &["learn"])? else {
        return reject(node.position, "deviation: needs comparisons");
    };
    let met = DeviationCondition { bounds, learn };
    // A deviation is any number: bounds that exclude each other do so at, next to and between them.
    let mut ends: Vec<f64> = met.bounds.iter().map(|(_, bound)| *bound).collect();
    ends.sort_unstable_by(f64::total_cmp);
    let between = ends.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let beyond = [f64::MIN, f64::MAX].into_iter();
    match ends.iter().copied().chain(between).chain(beyond).any(|z| met.holds(z)) {
        true => Ok(met),
        false => reject(node.position, "deviation: can never hold"),
    }
}

/// Compiles the bounds of a `condition`. Keys in `ignored` belong to another section.
pub(crate) fn condition(node: &Node, ignored: &[&str]) -> Parsed<Condition> {
    let mut tests = Vec::new();
    let entries = node.map("a condition")?.iter();
    for (key, value) in entries.filter(|(key, _)| !ignored.contains(&key.text.as_str())) {
        match Comparison::WORDS.iter().find(|(word, _)| *word == key.text) {
            Some((_, comparison)) => tests.push((*comparison, value.number("a number")?)),
            None => {
                let words = Comparison::WORDS.iter().map(|(w, _)| *w);
                let known: Vec<&str> = words.chain(ignored.iter().copied()).collect();
                return reject(key.position, unknown("condition", &key.text, &known));
            }
        }
    }
    match tests.is_empty() {
        true => reject(node.position, "condition: needs at least one comparison"),
        false => Ok(Condition::Bounds(tests)),
    }
}

/// Rejects a condition that no value meets. One that even the smallest value meets is legal: the
/// rule then fires for every event.
fn check_condition(
    measure: Measure,
    condition: &Condition,
    events: usize,
    position: Position,
) -> Parsed<()> {
    let most = match measure {
        Measure::AnyOrder | Measure::InOrder => events as f64,
        Measure::Count | Measure::Distinct(_) => f64::MAX,
        _ => return Ok(()),
    };
    let Condition::Bounds(bounds) = condition else { return Ok(()) };
    // Only whole numbers occur, so checking next to the bounds is enough.
    let near = |bound: f64| [bound - 1.0, bound, bound + 1.0, bound.ceil(), bound.floor()];
    let mut candidates = bounds.iter().flat_map(|(_, bound)| near(*bound)).chain([1.0]);
    let holds = |v| condition.holds(v, |_| false);
    let met = candidates.any(|v| v >= 1.0 && v.fract() == 0.0 && v <= most && holds(v));
    if met { Ok(()) } else { reject(position, "condition: can never hold") }
}

/// A lower bound.
pub(crate) fn at_least(bound: f64) -> Condition {
    Condition::Bounds(vec![(Comparison::Gte, bound)])
}

#[cfg(test)]
mod tests {
    use super::super::super::load::Loaded;
    use super::super::super::schema::schema;
    use super::super::super::set::RuleSet;
    use super::super::super::shape::{Comparison, Condition, Shape};

    const RULE: &str = "rule: unusual
events:
  a: { kind: t.a }
count:
  event: a
  by: [attributes.k]
  within: 1m
  condition: { gte: 10, deviation: { gt: 6 } }
story: { pattern: p, name: '{value} {usual} {deviation}' }
";

    fn loaded(from: &str, to: &str) -> Loaded {
        assert!(RULE.contains(from), "{from}");
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", &RULE.replace(from, to));
        loaded
    }

    #[test]
    fn deviation_combines_with_absolute_bounds() {
        let both = Condition::Bounds(vec![(Comparison::Gte, 10.0)]);
        for (from, to, absolute, learn) in [
            ("gt: 6", "gt: 6", &both, 12),
            ("gt: 6", "gt: 6, learn: 20", &both, 20),
            ("gte: 10, ", "", &Condition::Bounds(Vec::new()), 12),
        ] {
            let loaded = loaded(from, to);
            assert_eq!(loaded.errors, []);
            let Shape::Aggregate(a) = &loaded.rules[0].shape else { unreachable!() };
            let deviation = a.deviation.as_ref().unwrap();
            assert_eq!((&a.condition, deviation.learn), (absolute, learn));
            assert_eq!(deviation.bounds, [(Comparison::Gt, 6.0)]);
            assert_eq!(a.learned_ns(), 120 * 60_000_000_000);
        }
    }

    #[test]
    fn mistake_in_deviation_is_reported_with_its_place() {
        for (from, to, expected) in [
            ("{ gt: 6 }", "6", "r.yaml:8:36: expected a deviation to be a mapping"),
            ("{ gt: 6 }", "{ learn: 9 }", "r.yaml:8:36: deviation: needs at least one comparison"),
            ("{ gt: 6 }", "{ gt: x }", "r.yaml:8:42: expected a number"),
            ("{ gt: 6 }", "{ gtt: 6 }", "unknown condition `gtt`: did you mean `gt`?"),
            ("{ gt: 6 }", "{ gt: 6, lean: 9 }", "did you mean `learn`?"),
            ("{ gt: 6 }", "{ gt: 6, learn: 5 }", "r.yaml:8:52: learn: from 6 to 60 windows"),
            ("{ gt: 6 }", "{ gt: 6, learn: 61 }", "learn: from 6 to 60 windows"),
            ("{ gt: 6 }", "{ gt: 6, lt: 5 }", "r.yaml:8:36: deviation: can never hold"),
            ("deviation", "deviaton", "did you mean `deviation`?"),
            ("gte: 10", "gt: x", "r.yaml:8:20: expected a number"),
            ("count:", "any_order:", "`any_order` has no `deviation`: it measures no amount"),
            (", deviation: { gt: 6 }", "", "need a condition with `deviation`"),
        ] {
            let errors = loaded(from, to).errors;
            let text = errors.first().map(ToString::to_string).unwrap_or_default();
            assert!(text.contains(expected), "{to}: {text:?}");
        }
    }

    #[test]
    fn bounds_that_some_deviation_meets_are_accepted() {
        for bounds in ["gt: -6, lt: 6", "lt: -4", "ne: 0", "gte: 3, lte: 3", "eq: 2, gt: 1"] {
            assert_eq!(loaded("gt: 6", bounds).errors, [], "{bounds}");
        }
    }

    #[test]
    fn explanation_has_the_deviation_in_words() {
        for (from, to, expected) in [
            (
                "gt: 6",
                "gt: 6",
                "at least 10 events within 1 min, for each attributes.k, more than 6 standard deviations above usual: a",
            ),
            (
                "gte: 10, ",
                "",
                "matches: any number of events within 1 min, for each attributes.k, more than 6",
            ),
            ("gt: 6", "lte: -4", "at least 4 standard deviations below usual"),
            ("gt: 6", "lt: -4", "more than 4 standard deviations below usual"),
            ("gt: 6", "gt: 6, learn: 20", "learned from 20 windows of 1 min on"),
        ] {
            let text = super::super::super::explain(&loaded(from, to).rules[0]);
            assert!(text.contains(expected), "{to}: {text}");
        }
    }

    #[test]
    fn events_matter_for_as_long_as_they_are_learned() {
        let minutes = |loaded: Loaded| {
            RuleSet::new(loaded.rules, "", 1).longest_relevance_ns() / 60_000_000_000
        };
        assert_eq!(minutes(loaded("gt: 6", "gt: 6")), 121);
        let without = RULE
            .replace(", deviation: { gt: 6 }", "")
            .replace("'{value} {usual} {deviation}'", "x");
        let mut plain = Loaded::default();
        plain.text("r.yaml", &without);
        assert_eq!(minutes(plain), 31, "its window, and the age of its story");
    }

    #[test]
    fn schema_has_the_deviation() {
        let schema = schema();
        let of = &schema["properties"]["count"]["properties"]["condition"]["properties"];
        let deviation = &of["deviation"]["properties"];
        assert_eq!(deviation["gt"]["type"], "number");
        assert_eq!(deviation["learn"]["maximum"], 60);
        assert!(deviation["deviation"].is_null());
    }
}
