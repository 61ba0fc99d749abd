//! From a YAML document to a [`Rule`], refusing what can't be meant.

use std::sync::Arc;

use super::expect;
use super::field::FieldRef;
use super::known;
use super::predicate::Predicate;
use super::rule::{Given, NamedEvent, Rule, Shape, Telling};
use super::shape;
use super::template::{Hole, Template};
use super::tree::{Complaint, Node, Part, Place, Read, Table, complain, unknown};
use tapio_core::event::{Name, Severity};

const DEFAULT_IDLE_NS: u64 = 30_000_000_000;
const DEFAULT_MAX_AGE_NS: u64 = 30 * 60 * 1_000_000_000;

/// Keys of a rule beside its shape.
pub(super) const RULE_KEYS: &[&str] =
    &["rule", "description", "severity", "events", "story", "tests"];
pub(super) const STORY_KEYS: &[&str] =
    &["pattern", "name", "intent", "root_cause", "impact", "actions", "close"];

/// The named events of a rule that is being read.
pub(super) struct Events {
    pub(super) list: Vec<NamedEvent>,
    used: Vec<bool>,
    /// What is legal and hardly meant.
    pub(super) warnings: Vec<Complaint>,
}

impl Events {
    fn names(&self) -> Vec<&str> {
        self.list.iter().map(|e| e.name.as_str()).collect()
    }

    pub(super) fn find(&mut self, node: &Node) -> Read<usize> {
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
    pub(super) fn find_or_add(&mut self, node: &Node, name: &str) -> Read<usize> {
        if matches!(node.part, Part::Text(_)) {
            return self.find(node);
        }
        let predicate = Arc::new(Predicate::parse(node)?);
        let text = node.json().to_string();
        self.list.push(NamedEvent { name: name.to_owned(), text, predicate });
        self.used.push(true);
        Ok(self.list.len() - 1)
    }
}

/// Compiles one document. Returns the rule and what is legal in it but hardly meant.
pub(super) fn rule(node: &Node, origin: &str) -> Read<(Rule, Vec<Complaint>)> {
    let keys: Vec<&str> = RULE_KEYS.iter().chain(shape::WORDS).copied().collect();
    let table = node.table("a rule", &keys)?;
    let name_node = table.need("rule", "a rule")?;
    let name = name_node.text("the rule's name")?;
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return complain(name_node.place, format!("rule name {name:?}: use a-z, 0-9 and -"));
    }
    let mut events = named_events(table.need("events", "a rule")?)?;
    let story = table.need("story", "a rule")?;
    let pattern = story_pattern(story)?;
    let shape = shape::parse(node, table, &mut events, pattern)?;
    let word = shape::WORDS.iter().find_map(|word| table.get(word)).unwrap_or(node);
    let at = word.entry("by").unwrap_or(word).place;
    known::shape(&shape, &shape.routes(), &events, at)?;
    let telling = telling(story, pattern, &events, &shape)?;
    unused_events(table, &events)?;
    let warnings = std::mem::take(&mut events.warnings);
    let rule = Rule {
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
        telling,
        tests: table.get("tests").map_or(Ok(Vec::new()), expect::parse)?,
        origin: format!("{origin}:{}", name_node.place.line),
    };
    Ok((rule, warnings))
}

pub(super) fn intern(text: &str, place: Place) -> Read<Name> {
    Name::intern(text).map_err(|e| Complaint { place, cause: e.to_string() })
}

fn named_events(node: &Node) -> Read<Events> {
    let (mut list, mut warnings) = (Vec::new(), Vec::new());
    for (key, value) in node.map("events")? {
        if ["key", "count", "duration"].contains(&key.text.as_str()) || key.text.contains('.') {
            return complain(key.place, format!("an event can't be called `{}`", key.text));
        }
        let predicate = Arc::new(Predicate::parse(value)?);
        let mismatches = predicate.mismatches().into_iter();
        warnings.extend(mismatches.map(|cause| Complaint { place: value.place, cause }));
        known::misspelt(value, &mut warnings);
        let text = value.json().to_string();
        list.push(NamedEvent { name: key.text.clone(), text, predicate });
    }
    let used = vec![false; list.len()];
    Ok(Events { list, used, warnings })
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

pub(super) fn fields(node: &Node) -> Read<Vec<FieldRef>> {
    let parse = |n: &Node| {
        let text = n.text("the name of a field")?;
        FieldRef::parse(text).or_else(|cause| complain(n.place, cause))
    };
    node.items().iter().map(parse).collect()
}

fn story_pattern(node: &Node) -> Read<Name> {
    let pattern = node.table("a story", STORY_KEYS)?.need("pattern", "a story")?;
    intern(pattern.text("the pattern")?, pattern.place)
}

fn telling(node: &Node, pattern: Name, events: &Events, shape: &Shape) -> Read<Telling> {
    let table = node.table("a story", STORY_KEYS)?;
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
        Shape::Sequence(s) => &s.steps[0].by[..s.key_fields],
        Shape::Aggregate(a) => a.events.first().map_or(&[][..], |e| &e.by[..]),
    };
    known::holes(template, events, place)?;
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
                        "{{{name}.match.{group}}}: no regex of `{name}` has a story (?<{group}>…)"
                    ),
                );
            }
            _ => {}
        }
    }
    Ok(())
}
