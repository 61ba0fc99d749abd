//! From a YAML document to a [`Rule`], refusing what can't be meant.

use super::field::FieldRef;
use super::predicate::Predicate;
use super::rule::{Bounds, Count, Given, NamedEvent, Repeat, Rule, Sequence, Shape, Step, Telling};
use super::template::{Hole, Template};
use super::tree::{Complaint, Node, Part, Place, Read, Table, complain, unknown};
use crate::event::{Name, Severity};

/// Repeats of a step that are written out as steps; more are counted.
const MAX_WRITTEN_OUT: u64 = 32;
/// Steps a sequence can have once repeats are written out: a shard marks them in 64 bits.
const MAX_STEPS: usize = 60;
/// A month: no rule needs to remember longer, and one that did would hold its state for ever.
const LONGEST_WITHIN_NS: u64 = 31 * 86_400 * 1_000_000_000;

const DEFAULT_IDLE_NS: u64 = 30_000_000_000;
const DEFAULT_MAX_AGE_NS: u64 = 30 * 60 * 1_000_000_000;

const RULE_KEYS: &[&str] =
    &["rule", "description", "severity", "events", "sequence", "count", "group", "tests"];
const SEQUENCE_KEYS: &[&str] = &["by", "within", "slack", "steps", "until", "select"];
const STEP_KEYS: &[&str] = &["event", "by", "role", "pattern", "keep", "optional", "count"];
const COUNT_KEYS: &[&str] = &["event", "events", "by", "within", "at_least", "condition"];
const GROUP_KEYS: &[&str] =
    &["pattern", "name", "intent", "root_cause", "impact", "actions", "close"];

struct Events {
    list: Vec<NamedEvent>,
    used: Vec<bool>,
}

impl Events {
    fn names(&self) -> Vec<&str> {
        self.list.iter().map(|e| e.name.as_str()).collect()
    }

    fn find(&mut self, node: &Node) -> Read<usize> {
        let name = node.text("the name of an event")?;
        match self.list.iter().position(|e| e.name == name) {
            Some(i) => {
                self.used[i] = true;
                Ok(i)
            }
            None => complain(node.place, unknown("event", name, &self.names())),
        }
    }

    /// An event by name, or a predicate written in its place.
    fn find_or_add(&mut self, node: &Node, name: &str) -> Read<usize> {
        if matches!(node.part, Part::Text(_)) {
            return self.find(node);
        }
        self.list.push(NamedEvent { name: name.to_owned(), predicate: Predicate::parse(node)? });
        self.used.push(true);
        Ok(self.list.len() - 1)
    }
}

/// Compiles one document.
pub(super) fn rule(node: &Node, origin: &str) -> Read<Rule> {
    let table = node.table("a rule", RULE_KEYS)?;
    let name_node = table.need("rule", "a rule")?;
    let name = name_node.text("the rule's name")?;
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return complain(name_node.place, format!("rule name {name:?}: use a-z, 0-9 and -"));
    }
    let mut events = named_events(table.need("events", "a rule")?)?;
    let group = table.need("group", "a rule")?;
    let pattern = group_pattern(group)?;
    let shape = match (table.get("sequence"), table.get("count")) {
        (Some(node), None) => Shape::Sequence(sequence(node, &mut events, pattern)?),
        (None, Some(node)) => Shape::Count(count(node, &mut events)?),
        (Some(_), Some(second)) => {
            return complain(
                second.place,
                "a rule looks for one thing: `sequence` or `count`, not both",
            );
        }
        (None, None) => return complain(node.place, "a rule needs `sequence` or `count`"),
    };
    let telling = telling(group, pattern, &events, &shape)?;
    unused_events(table, &events)?;
    Ok(Rule {
        name: intern(name, name_node.place)?,
        description: table
            .get("description")
            .map_or(Ok(""), |n| n.text("the description"))?
            .to_owned(),
        severity: match table.get("severity") {
            None => Severity::INFO,
            Some(n) => {
                let word = n.scalar_text("a severity")?;
                match Severity::parse(&word) {
                    Some(severity) => severity,
                    None => {
                        return complain(
                            n.place,
                            format!("{word:?} isn't a severity: trace … fatal, or 0 to 24"),
                        );
                    }
                }
            }
        },
        events: events.list,
        shape,
        counted_role: intern("symptom", node.place)?,
        telling,
        origin: format!("{origin}:{}", name_node.place.line),
    })
}

fn intern(text: &str, place: Place) -> Read<Name> {
    Name::intern(text).map_err(|e| Complaint { place, cause: e.to_string() })
}

fn named_events(node: &Node) -> Read<Events> {
    let mut list = Vec::new();
    for (key, value) in node.map("events")? {
        if ["key", "count", "duration"].contains(&key.text.as_str()) || key.text.contains('.') {
            return complain(key.place, format!("an event can't be called `{}`", key.text));
        }
        list.push(NamedEvent { name: key.text.clone(), predicate: Predicate::parse(value)? });
    }
    let used = vec![false; list.len()];
    Ok(Events { list, used })
}

fn unused_events(table: Table<'_>, events: &Events) -> Read<()> {
    let Some(Part::Map(entries)) = table.get("events").map(|n| &n.part) else {
        return Ok(());
    };
    match events.used.iter().zip(entries).find(|(used, _)| !**used) {
        Some((_, (key, _))) => complain(key.place, format!("event `{}` is never used", key.text)),
        None => Ok(()),
    }
}

fn fields(node: &Node) -> Read<Vec<FieldRef>> {
    let parse = |n: &Node| {
        let text = n.text("the name of a field")?;
        FieldRef::parse(text).or_else(|cause| complain(n.place, cause))
    };
    node.items().iter().map(parse).collect()
}

fn within(table: Table<'_>, what: &str) -> Read<u64> {
    let node = table.need("within", what)?;
    let within_ns = node.duration_ns("within")?;
    if within_ns > LONGEST_WITHIN_NS {
        return complain(node.place, "within: longer than 31 days; a rule must be bounded");
    }
    Ok(within_ns)
}

fn sequence(node: &Node, events: &mut Events, pattern: Name) -> Read<Sequence> {
    let table = node.table("a sequence", SEQUENCE_KEYS)?;
    let by = table.get("by").map_or(Ok(Vec::new()), fields)?;
    let within_ns = within(table, "a sequence")?;
    if let Some(slack) = table.get("slack") {
        slack.duration_ns("slack")?;
    }
    if let Some(select) = table.get("select")
        && select.text("`select`")? != "latest"
    {
        return complain(select.place, "select: this engine knows `latest`");
    }
    let steps_node = table.need("steps", "a sequence")?;
    let Part::List(items) = &steps_node.part else {
        return steps_node.expected("a list of steps");
    };
    let mut steps = Vec::new();
    for item in items {
        step(item, &by, events, pattern, &mut steps)?;
    }
    if steps.is_empty() || steps.iter().all(|s| s.optional) {
        return complain(steps_node.place, "a sequence needs a step that isn't optional");
    }
    if steps.len() > MAX_STEPS {
        return complain(steps_node.place, format!("more than {MAX_STEPS} steps, repeats counted"));
    }
    if steps.last().is_some_and(|s| s.optional) {
        return complain(
            steps_node.place,
            "the last step can't be optional: nothing could follow it",
        );
    }
    let until = table.get("until").map(|n| events.find_or_add(n, "until")).transpose()?;
    Ok(Sequence { steps, key_fields: by.len(), within_ns, until, until_by: by })
}

fn step(
    node: &Node,
    by: &[FieldRef],
    events: &mut Events,
    pattern: Name,
    steps: &mut Vec<Step>,
) -> Read<()> {
    let table = node.table("a step", STEP_KEYS)?;
    let own_by = table.get("by").map(fields).transpose()?;
    if let (Some(own), Some(n)) = (&own_by, table.get("by"))
        && own.len() < by.len()
    {
        return complain(
            n.place,
            format!("a step's key needs at least the sequence's {} fields", by.len()),
        );
    }
    let flag = |key: &str| {
        table.get(key).map_or(Ok(false), |n| n.bool(&format!("`{key}` to be true or false")))
    };
    let name = |key: &str, default: &str| match table.get(key) {
        Some(n) => intern(n.text(key)?, n.place),
        None => intern(default, node.place),
    };
    let refined = own_by.as_ref().is_some_and(|own| own.len() > by.len());
    let default_role = if steps.is_empty() { "cause" } else { "effect" };
    let mut step = Step {
        event: events.find(table.need("event", "a step")?)?,
        by: own_by.unwrap_or_else(|| by.to_vec()),
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
    steps.extend(std::iter::repeat_n(step, copies as usize));
    Ok(())
}

fn count(node: &Node, events: &mut Events) -> Read<Count> {
    let table = node.table("a count", COUNT_KEYS)?;
    let listed = match (table.get("event"), table.get("events")) {
        (Some(n), None) | (None, Some(n)) => n,
        _ => return complain(node.place, "a count needs `event` or `events`"),
    };
    let counted: Vec<usize> = listed.items().iter().map(|n| events.find(n)).collect::<Read<_>>()?;
    let bounds = match (table.get("at_least"), table.get("condition")) {
        (Some(n), None) => Bounds { low: n.positive("at_least")?, high: u64::MAX },
        (None, Some(n)) => condition(n)?,
        _ => return complain(node.place, "a count needs `at_least` or `condition`"),
    };
    Ok(Count {
        events: counted,
        by: table.get("by").map_or(Ok(Vec::new()), fields)?,
        within_ns: within(table, "a count")?,
        bounds,
    })
}

fn condition(node: &Node) -> Read<Bounds> {
    let mut bounds = Bounds { low: 1, high: u64::MAX };
    for (key, value) in node.map("a condition")? {
        let n = value.positive(&key.text)?;
        match key.text.as_str() {
            "gte" => bounds.low = n,
            "gt" => bounds.low = n + 1,
            "lte" => bounds.high = n,
            "lt" => bounds.high = n - 1,
            "eq" => bounds = Bounds { low: n, high: n },
            other => {
                return complain(
                    key.place,
                    unknown("condition", other, &["gte", "gt", "lte", "lt", "eq"]),
                );
            }
        }
    }
    if bounds.low > bounds.high {
        return complain(node.place, "a condition that no count meets");
    }
    Ok(bounds)
}

fn group_pattern(node: &Node) -> Read<Name> {
    let pattern = node.table("a group", GROUP_KEYS)?.need("pattern", "a group")?;
    intern(pattern.text("the pattern")?, pattern.place)
}

fn telling(node: &Node, pattern: Name, events: &Events, shape: &Shape) -> Read<Telling> {
    let table = node.table("a group", GROUP_KEYS)?;
    let names = events.names();
    let template = |n: &Node| {
        let template = Template::parse(n.text("a text")?, n.place, &names)?;
        check_holes(&template, n.place, events, shape)?;
        Ok(template)
    };
    let templates = |key: &str| match table.get(key) {
        Some(n) => n.items().iter().map(template).collect::<Read<Vec<_>>>(),
        None => Ok(Vec::new()),
    };
    let impact = table
        .get("impact")
        .map(|n| n.table("impact", &["business", "customer_facing", "slo_impact"]));
    let impact = impact.transpose()?;
    let close = table.get("close").map(|n| n.table("close", &["idle", "max_age"])).transpose()?;
    let closing = |key: &str, default| {
        close.and_then(|c| c.get(key)).map_or(Ok(default), |n| n.duration_ns(key))
    };
    Ok(Telling {
        pattern,
        name: table.get("name").map(template).transpose()?,
        intent: table.get("intent").map_or(Ok(""), |n| n.text("the intent"))?.to_owned(),
        root_cause: templates("root_cause")?,
        actions: templates("actions")?,
        business: match impact.and_then(|i| i.get("business")).filter(|n| !is_auto(n)) {
            None => Given::Auto,
            Some(n) => match n.number("a number or `auto`")? {
                b if (0.0..=1.0).contains(&b) => Given::Fixed(b),
                _ => return complain(n.place, "business: from 0 to 1, or auto"),
            },
        },
        customer_facing: given_bool(impact, "customer_facing")?,
        slo_impact: given_bool(impact, "slo_impact")?,
        idle_ns: closing("idle", DEFAULT_IDLE_NS)?,
        max_age_ns: closing("max_age", DEFAULT_MAX_AGE_NS)?,
    })
}

fn is_auto(node: &Node) -> bool {
    matches!(&node.part, Part::Text(s) if s == "auto")
}

fn given_bool(impact: Option<Table<'_>>, key: &str) -> Read<Given<bool>> {
    match impact.and_then(|i| i.get(key)).filter(|n| !is_auto(n)) {
        None => Ok(Given::Auto),
        Some(n) => n.bool("true, false or `auto`").map(Given::Fixed),
    }
}

/// A hole that could never have a value is a mistake of the rule's author.
fn check_holes(template: &Template, place: Place, events: &Events, shape: &Shape) -> Read<()> {
    let by = match shape {
        Shape::Sequence(s) => &s.until_by[..],
        Shape::Count(c) => &c.by[..],
    };
    for hole in template.holes() {
        match hole {
            Hole::Key(field) if !by.contains(field) => {
                return complain(place, format!("{{key.{}}}: not in the join key", field.text()));
            }
            Hole::Capture(event, group) if !events.list[*event].predicate.captures(group) => {
                let name = &events.list[*event].name;
                return complain(
                    place,
                    format!(
                        "{{{name}.match.{group}}}: no regex of `{name}` has a group (?<{group}>…)"
                    ),
                );
            }
            _ => {}
        }
    }
    Ok(())
}
