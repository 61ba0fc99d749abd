//! What a rule looks for: `sequence`, `absence`, and the measures over a window.

use super::field::FieldRef;
use super::parse::{Events, fields, intern};
use super::rule::{
    Aggregate, Comparison, Condition, Counted, Measure, Negation, Repeat, Select, Sequence, Shape,
    Step,
};
use super::tree::{Complaint, Node, Part, Place, Read, Table, complain, unknown};
use tapio_core::event::Name;

/// Repeats of a step that are written out as steps; more are counted.
const MAX_WRITTEN_OUT: u64 = 32;
/// Steps a sequence can have once repeats are written out.
const MAX_STEPS: usize = 60;
/// Events a measure can take in.
pub(super) const MAX_COUNTED: usize = 64;
/// A month: no rule needs to remember longer, and one that did would hold its state for ever.
const LONGEST_WITHIN_NS: u64 = 31 * 86_400 * 1_000_000_000;
/// Runs of one key that are pending at once where a rule doesn't say.
pub(super) const MAX_RUNS: usize = 256;
/// The most a rule may ask for.
const MOST_RUNS: u64 = 65_536;

/// The keys a rule names its shape by.
pub(super) const WORDS: &[&str] =
    &["sequence", "any_order", "count", "distinct", "sum", "avg", "percentile", "absence"];

pub(super) const SEQUENCE_KEYS: &[&str] =
    &["by", "within", "slack", "steps", "until", "select", "max_runs"];
pub(super) const STEP_KEYS: &[&str] =
    &["event", "not", "by", "role", "pattern", "keep", "optional", "count"];
pub(super) const AGGREGATE_KEYS: &[&str] =
    &["event", "events", "by", "within", "at_least", "condition"];
pub(super) const ABSENCE_KEYS: &[&str] = &["event", "followed_by", "by", "within"];

/// Reads the one shape a rule has.
pub(super) fn parse(
    rule: &Node,
    table: Table<'_>,
    events: &mut Events,
    pattern: Name,
) -> Read<Shape> {
    let mut found = WORDS.iter().filter_map(|word| Some((*word, table.get(word)?)));
    let Some((word, node)) = found.next() else {
        return complain(rule.place, format!("a rule needs one of: {}", WORDS.join(", ")));
    };
    if let Some((second, at)) = found.next() {
        return complain(
            at.place,
            format!("a rule looks for one thing: `{word}` or `{second}`, not both"),
        );
    }
    Ok(match word {
        "sequence" => Shape::Sequence(sequence(node, events, pattern)?),
        "absence" => Shape::Sequence(absence(node, events, pattern)?),
        _ => Shape::Aggregate(aggregate(word, node, events)?),
    })
}

fn within(table: Table<'_>, what: &str) -> Read<u64> {
    let node = table.need("within", what)?;
    let within_ns = node.duration_ns("within")?;
    if within_ns > LONGEST_WITHIN_NS {
        return complain(node.place, "within: longer than 31 days; a rule must be bounded");
    }
    Ok(within_ns)
}

fn key(table: Table<'_>) -> Read<Vec<FieldRef>> {
    table.get("by").map_or(Ok(Vec::new()), fields)
}

/// One of a few words.
fn word<T: Copy>(node: &Node, what: &str, words: &[(&str, T)]) -> Read<T> {
    let text = node.text(what)?;
    match words.iter().find(|(w, _)| *w == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            complain(node.place, unknown(what, text, &known))
        }
    }
}

fn sequence(node: &Node, events: &mut Events, pattern: Name) -> Read<Sequence> {
    let table = node.table("a sequence", SEQUENCE_KEYS)?;
    let by = key(table)?;
    let select =
        table.get("select").map_or(Ok(Select::Latest), |n| word(n, "select", &Select::WORDS))?;
    let mut sequence = Sequence {
        steps: Vec::new(),
        nots: Vec::new(),
        key_fields: by.len(),
        within_ns: within(table, "a sequence")?,
        slack_ns: table.get("slack").map(|n| n.duration_ns("slack")).transpose()?,
        until: None,
        until_by: by,
        select,
        max_runs: max_runs(table)?,
    };
    let steps_node = table.need("steps", "a sequence")?;
    let Part::List(items) = &steps_node.part else {
        return steps_node.expected("a list of steps");
    };
    let mut places = Vec::new();
    for item in items {
        step(item, events, pattern, &mut sequence)?;
        places.resize(sequence.steps.len(), item.place);
    }
    check_steps(&sequence, steps_node.place, &places)?;
    sequence.until = table.get("until").map(|n| events.find_or_add(n, "until")).transpose()?;
    warn_of_until(&sequence, events, &places);
    Ok(sequence)
}

fn max_runs(table: Table<'_>) -> Read<usize> {
    match table.get("max_runs") {
        None => Ok(MAX_RUNS),
        Some(n) => match n.positive("max_runs")? {
            runs @ 1..=MOST_RUNS => Ok(runs as usize),
            _ => complain(n.place, format!("max_runs: at most {MOST_RUNS}")),
        },
    }
}

fn check_steps(sequence: &Sequence, place: Place, places: &[Place]) -> Read<()> {
    let steps = &sequence.steps;
    if steps.is_empty() || steps.iter().all(|s| s.optional) {
        return complain(place, "a sequence needs a step that isn't optional or a `not`");
    }
    if steps.len() > MAX_STEPS {
        return complain(place, format!("more than {MAX_STEPS} steps, repeats counted"));
    }
    if steps.last().is_some_and(|s| s.optional) {
        return complain(place, "the last step can't be optional: nothing could follow it");
    }
    for (i, (step, place)) in steps.iter().zip(places).enumerate() {
        let beside = |gap: usize| sequence.nots.iter().any(|n| n.gap == gap);
        if step.optional && (beside(i) || beside(i + 1)) {
            return complain(*place, "an optional step can't stand beside a `not`");
        }
        if sequence.select != Select::Latest
            && (step.keep || step.optional || step.repeat.is_some())
        {
            return complain(
                *place,
                "keep, optional and counted repeats go with `select: latest` only",
            );
        }
    }
    Ok(())
}

/// `until` drops the runs of the key before a step sees the event: a later step that waits for the
/// same event waits for ever. Legal, since engines agree on what it means, but hardly meant.
fn warn_of_until(sequence: &Sequence, events: &mut Events, places: &[Place]) {
    let Some(until) = sequence.until else { return };
    let later = sequence.steps.iter().zip(places).skip(1);
    for (step, place) in later {
        if step.by[..sequence.key_fields] == sequence.until_by
            && events.list[step.event].predicate.same_as(&events.list[until].predicate)
        {
            events.warnings.push(Complaint {
                place: *place,
                cause: "this step can't be reached: `until` is the same event and drops the run \
                        first"
                    .into(),
            });
        }
    }
}

fn step(node: &Node, events: &mut Events, pattern: Name, sequence: &mut Sequence) -> Read<()> {
    let table = node.table("a step", STEP_KEYS)?;
    let by = step_key(table, &sequence.until_by)?;
    if let Some(not) = table.get("not") {
        node.table("a step with `not`", &["not", "by"])?;
        if by.len() != sequence.key_fields {
            return complain(node.place, "a `not` has as many key fields as the sequence");
        }
        let name = format!("not {}", sequence.nots.len() + 1);
        let event = events.find_or_add(not, &name)?;
        sequence.nots.push(Negation { gap: sequence.steps.len(), event, by });
        return Ok(());
    }
    let flag = |key: &str| {
        table.get(key).map_or(Ok(false), |n| n.bool(&format!("`{key}` to be true or false")))
    };
    let name = |key: &str, default: &str| match table.get(key) {
        Some(n) => intern(n.text(key)?, n.place),
        None => intern(default, node.place),
    };
    let refined = by.len() > sequence.key_fields;
    let default_role = if sequence.steps.is_empty() { "cause" } else { "effect" };
    let mut step = Step {
        event: events.find(table.need("event", "a step")?)?,
        by,
        role: name("role", default_role)?,
        pattern: name("pattern", pattern.text())?,
        keep: flag("keep")?,
        optional: flag("optional")?,
        repeat: None,
    };
    let mut copies = 1;
    match table.get("count") {
        None => {}
        Some(n @ Node { part: Part::Int(_), .. }) => {
            let times = n.positive("count")?;
            if refined || times > MAX_WRITTEN_OUT {
                step.repeat = (times > 1).then_some(Repeat { at_least: times, within_ns: None });
            } else {
                copies = times;
            }
        }
        Some(n) => {
            let count = n.table("count", &["at_least", "within"])?;
            let within_ns = count.get("within").map(|w| w.duration_ns("within")).transpose()?;
            let at_least = count.need("at_least", "count")?.positive("at_least")?;
            step.repeat = Some(Repeat { at_least, within_ns });
        }
    }
    sequence.steps.extend(std::iter::repeat_n(step, copies as usize));
    Ok(())
}

fn step_key(table: Table<'_>, by: &[FieldRef]) -> Read<Vec<FieldRef>> {
    let Some(node) = table.get("by") else { return Ok(by.to_vec()) };
    let own = fields(node)?;
    if own.len() < by.len() {
        let cause = format!("a step's key needs at least the sequence's {} fields", by.len());
        return complain(node.place, cause);
    }
    Ok(own)
}

/// An absence is a step and a `not` behind it.
fn absence(node: &Node, events: &mut Events, pattern: Name) -> Read<Sequence> {
    let table = node.table("an absence", ABSENCE_KEYS)?;
    let by = key(table)?;
    let event = events.find(table.need("event", "an absence")?)?;
    let missing = events.find_or_add(table.need("followed_by", "an absence")?, "followed_by")?;
    let step = Step {
        event,
        by: by.clone(),
        role: intern("cause", node.place)?,
        pattern,
        keep: false,
        optional: false,
        repeat: None,
    };
    Ok(Sequence {
        steps: vec![step],
        nots: vec![Negation { gap: 1, event: missing, by: by.clone() }],
        key_fields: by.len(),
        within_ns: within(table, "an absence")?,
        slack_ns: None,
        until: None,
        until_by: by,
        select: Select::Latest,
        max_runs: MAX_RUNS,
    })
}

/// Keys that only this measure has.
pub(super) fn own_keys(word: &str) -> &'static [&'static str] {
    match word {
        "distinct" | "sum" | "avg" => &["field"],
        "percentile" => &["field", "percentile"],
        "any_order" => &["steps"],
        _ => &[],
    }
}

fn aggregate(word: &str, node: &Node, events: &mut Events) -> Read<Aggregate> {
    let mut keys = AGGREGATE_KEYS.to_vec();
    keys.extend(own_keys(word));
    let what = format!("`{word}`");
    let table = node.table(&what, &keys)?;
    let measure = measure(word, table, &what)?;
    let by = key(table)?;
    let counted = counted(node, table, &by, events)?;
    let condition = match (table.get("at_least"), table.get("condition")) {
        (Some(n), None) => at_least(n.number("a number")?),
        (None, Some(n)) => condition(n, &[])?,
        (None, None) if measure == Measure::AnyOrder => at_least(counted.len() as f64),
        _ => return complain(node.place, format!("{what} needs `at_least` or `condition`")),
    };
    check_condition(measure, &condition, counted.len(), node.place)?;
    let within_ns = within(table, &what)?;
    let parts = counted.len() as u8;
    Ok(Aggregate { measure, events: counted, within_ns, condition, parts, inner: Vec::new() })
}

fn measure(word: &str, table: Table<'_>, what: &str) -> Read<Measure> {
    let field = || {
        let node = table.need("field", what)?;
        let text = node.text("the name of a field")?;
        FieldRef::parse(text).or_else(|cause| complain(node.place, cause))
    };
    Ok(match word {
        "distinct" => Measure::Distinct(field()?),
        "sum" => Measure::Sum(field()?),
        "avg" => Measure::Avg(field()?),
        "percentile" => {
            let node = table.need("percentile", what)?;
            let percent = node.number("a number from 0 to 100")?;
            if !(0.0..=100.0).contains(&percent) {
                return complain(node.place, "percentile: from 0 to 100");
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
    events: &mut Events,
) -> Read<Vec<Counted>> {
    let symptom = intern("symptom", node.place)?;
    let plain = |n: &Node, events: &mut Events| {
        let event = events.find(n)?;
        Ok(Counted { event, by: by.to_vec(), role: symptom, part: 0, through: None })
    };
    let mut list: Vec<Counted> = match (table.get("event"), table.get("events"), table.get("steps"))
    {
        (Some(n), None, None) => vec![plain(n, events)?],
        (None, Some(n), None) => n.items().iter().map(|n| plain(n, events)).collect::<Read<_>>()?,
        (None, None, Some(n)) => {
            n.items().iter().map(|n| counted_step(n, by, symptom, events)).collect::<Read<_>>()?
        }
        _ => return complain(node.place, "needs its events once: `event` or `events`"),
    };
    (0u8..).zip(&mut list).for_each(|(part, counted)| counted.part = part);
    match list.len() {
        0 => complain(node.place, "needs at least one event"),
        1..=MAX_COUNTED => Ok(list),
        _ => complain(node.place, format!("more than {MAX_COUNTED} events")),
    }
}

fn counted_step(node: &Node, by: &[FieldRef], symptom: Name, events: &mut Events) -> Read<Counted> {
    let table = node.table("a step without order", &["event", "by", "role"])?;
    let own = step_key(table, by)?;
    if own.len() != by.len() {
        return complain(node.place, "a step without order has as many key fields as the others");
    }
    let role = table.get("role").map_or(Ok(symptom), |n| intern(n.text("role")?, n.place))?;
    let event = events.find(table.need("event", "a step")?)?;
    Ok(Counted { event, by: own, role, part: 0, through: None })
}

/// Bounds on a measure; keys of `beside` stand there for somebody else.
pub(super) fn condition(node: &Node, beside: &[&str]) -> Read<Condition> {
    let mut tests = Vec::new();
    let entries = node.map("a condition")?.iter();
    for (key, value) in entries.filter(|(key, _)| !beside.contains(&key.text.as_str())) {
        match Comparison::WORDS.iter().find(|(word, _)| *word == key.text) {
            Some((_, comparison)) => tests.push((*comparison, value.number("a number")?)),
            None => {
                let known: Vec<&str> = Comparison::WORDS.iter().map(|(w, _)| *w).collect();
                return complain(key.place, unknown("condition", &key.text, &known));
            }
        }
    }
    match tests.is_empty() {
        true => complain(node.place, "an empty condition"),
        false => Ok(Condition::Bounds(tests)),
    }
}

/// A condition that no value meets is a mistake of the rule's author; one that the smallest value
/// meets as well would fire for every event, which `count: 1` may mean.
fn check_condition(
    measure: Measure,
    condition: &Condition,
    events: usize,
    place: Place,
) -> Read<()> {
    let most = match measure {
        Measure::AnyOrder | Measure::InOrder => events as f64,
        Measure::Count | Measure::Distinct(_) => f64::MAX,
        _ => return Ok(()),
    };
    let Condition::Bounds(bounds) = condition else { return Ok(()) };
    // Only whole numbers occur, so it is enough to look next to the bounds.
    let near = |bound: f64| [bound - 1.0, bound, bound + 1.0, bound.ceil(), bound.floor()];
    let mut candidates = bounds.iter().flat_map(|(_, bound)| near(*bound)).chain([1.0]);
    let holds = |v| condition.holds(v, |_| false);
    let met = candidates.any(|v| v >= 1.0 && v.fract() == 0.0 && v <= most && holds(v));
    if met { Ok(()) } else { complain(place, "a condition that no number of events meets") }
}

/// The condition "at least this".
pub(super) fn at_least(bound: f64) -> Condition {
    Condition::Bounds(vec![(Comparison::Gte, bound)])
}

/// A sequence of one step: every event of this kind is a match by itself.
pub(super) fn single(event: usize, by: Vec<FieldRef>, role: Name, pattern: Name) -> Sequence {
    let step =
        Step { event, by: by.clone(), role, pattern, keep: false, optional: false, repeat: None };
    Sequence {
        steps: vec![step],
        nots: Vec::new(),
        key_fields: by.len(),
        within_ns: 0,
        slack_ns: None,
        until: None,
        until_by: by,
        select: Select::Latest,
        max_runs: MAX_RUNS,
    }
}
