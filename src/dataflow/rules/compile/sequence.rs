//! Compiles `sequence` and `absence`.

use super::super::field::FieldRef;
use super::super::shape::{Negation, Repeat, Select, Sequence, Step};
use super::super::yaml::{Diagnostic, Node, Parsed, Part, Position, Table, reject};
use super::scope::EventScope;
use super::values::{intern, join_key, step_key, within, word};
use tapio_core::event::Name;

/// Repeats of a step that are written out as steps; more are counted.
const MAX_WRITTEN_OUT: u64 = 32;
/// Steps of a sequence, with repeats written out.
const MAX_STEPS: usize = 60;
/// Default of `max_runs`: partial matches of one key at once.
const DEFAULT_MAX_RUNS: usize = 256;
/// Largest `max_runs`.
const MAX_RUNS_LIMIT: u64 = 65_536;

/// Keys of `sequence`.
pub(crate) const SEQUENCE_KEYS: &[&str] =
    &["by", "within", "slack", "steps", "until", "select", "max_runs"];
/// Keys of a step.
pub(crate) const STEP_KEYS: &[&str] =
    &["event", "not", "by", "role", "pattern", "keep", "keep_first", "optional", "count"];
/// Keys of `absence`.
pub(crate) const ABSENCE_KEYS: &[&str] = &["event", "followed_by", "by", "within"];

/// Compiles `sequence`.
pub(super) fn sequence(node: &Node, events: &mut EventScope, pattern: Name) -> Parsed<Sequence> {
    let table = node.table("a sequence", SEQUENCE_KEYS)?;
    let by = join_key(table)?;
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
    let mut positions = Vec::new();
    for item in items {
        step(item, events, pattern, &mut sequence)?;
        positions.resize(sequence.steps.len(), item.position);
    }
    check_steps(&sequence, steps_node.position, &positions)?;
    sequence.until = table.get("until").map(|n| events.find_or_add(n, "until")).transpose()?;
    warn_of_unreachable_steps(&sequence, events, &positions);
    Ok(sequence)
}

fn max_runs(table: Table<'_>) -> Parsed<usize> {
    match table.get("max_runs") {
        None => Ok(DEFAULT_MAX_RUNS),
        Some(n) => match n.positive("max_runs")? {
            runs @ 1..=MAX_RUNS_LIMIT => Ok(runs as usize),
            _ => reject(n.position, format!("max_runs: at most {MAX_RUNS_LIMIT}")),
        },
    }
}

fn check_steps(sequence: &Sequence, position: Position, positions: &[Position]) -> Parsed<()> {
    let steps = &sequence.steps;
    if steps.is_empty() || steps.iter().all(|s| s.optional) {
        return reject(position, "steps: at least one step must be neither optional nor a `not`");
    }
    if steps.len() > MAX_STEPS {
        return reject(position, format!("steps: at most {MAX_STEPS}, counting repeats"));
    }
    if steps.last().is_some_and(|s| s.optional) {
        return reject(position, "the last step can't be optional");
    }
    for (i, (step, position)) in steps.iter().zip(positions).enumerate() {
        let has_not = |gap: usize| sequence.nots.iter().any(|n| n.gap == gap);
        if step.optional && (has_not(i) || has_not(i + 1)) {
            return reject(*position, "an optional step can't be next to a `not`");
        }
        if sequence.select != Select::Latest
            && (step.keep || step.optional || step.repeat.is_some() || step.keep_first_ns > 0)
        {
            return reject(
                *position,
                "`keep`, `keep_first`, `optional` and counted repeats need `select: latest`",
            );
        }
        let begins = steps[..i].iter().all(|s| s.optional);
        if step.keep_first_ns > 0 && (!begins || step.repeat.is_some()) {
            return reject(
                *position,
                "`keep_first` needs a step that begins the sequence, without `count`",
            );
        }
    }
    Ok(())
}

/// Warns of a step after the first with the same event as `until`. `until` drops the partial
/// matches of the key before a step can match the event, so the step never matches. Legal, but
/// probably unintended.
fn warn_of_unreachable_steps(sequence: &Sequence, events: &mut EventScope, positions: &[Position]) {
    let Some(until) = sequence.until else { return };
    let later = sequence.steps.iter().zip(positions).skip(1);
    for (step, position) in later {
        if step.by[..sequence.key_fields] == sequence.until_by
            && events.list[step.event].predicate.canonical()
                == events.list[until].predicate.canonical()
        {
            events.warnings.push(Diagnostic {
                position: *position,
                message: "this step can't be reached: `until` has the same event and drops the \
                          partial match first"
                    .into(),
            });
        }
    }
}

fn step(
    node: &Node,
    events: &mut EventScope,
    pattern: Name,
    sequence: &mut Sequence,
) -> Parsed<()> {
    let table = node.table("a step", STEP_KEYS)?;
    let by = step_key(table, &sequence.until_by)?;
    if let Some(not) = table.get("not") {
        node.table("a step with `not`", &["not", "by"])?;
        if by.len() != sequence.key_fields {
            return reject(node.position, "by: a `not` needs as many key fields as the sequence");
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
        Some(n) => intern(n.text(key)?, n.position),
        None => intern(default, node.position),
    };
    let refined = by.len() > sequence.key_fields;
    let default_role = if sequence.steps.is_empty() { "cause" } else { "effect" };
    let mut step = Step {
        event: events.find(table.need("event", "a step")?)?,
        by,
        role: name("role", default_role)?,
        pattern: name("pattern", pattern.text())?,
        keep: flag("keep")?,
        keep_first_ns: match table.get("keep_first") {
            Some(n) => n.duration_ns("keep_first")?,
            None => 0,
        },
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

/// Compiles `absence`: a step with a `not` behind it.
pub(super) fn absence(node: &Node, events: &mut EventScope, pattern: Name) -> Parsed<Sequence> {
    let table = node.table("an absence", ABSENCE_KEYS)?;
    let by = join_key(table)?;
    let event = events.find(table.need("event", "an absence")?)?;
    let missing = events.find_or_add(table.need("followed_by", "an absence")?, "followed_by")?;
    let step = Step {
        event,
        by: by.clone(),
        role: intern("cause", node.position)?,
        pattern,
        keep: false,
        keep_first_ns: 0,
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
        max_runs: DEFAULT_MAX_RUNS,
    })
}

/// A sequence of one step: each event is a match.
pub(crate) fn single(event: usize, by: Vec<FieldRef>, role: Name, pattern: Name) -> Sequence {
    let step = Step {
        event,
        by: by.clone(),
        role,
        pattern,
        keep: false,
        keep_first_ns: 0,
        optional: false,
        repeat: None,
    };
    Sequence {
        steps: vec![step],
        nots: Vec::new(),
        key_fields: by.len(),
        within_ns: 0,
        slack_ns: None,
        until: None,
        until_by: by,
        select: Select::Latest,
        max_runs: DEFAULT_MAX_RUNS,
    }
}
