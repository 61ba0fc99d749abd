//! Whether a rule can fire on a node: whether a collector emits the kinds it needs, and these have
//! the fields that its conditions need (`tapio rules check`).

use super::field::FieldRef;
use super::field_test::FieldTest;
use super::kinds::Kinds;
use super::predicate::{Clause, Predicate};
use super::rule::{NamedEvent, Rule};
use super::shape::{Aggregate, Condition, Measure, PartCondition, Sequence, Shape};
use tapio_core::event::{Name, Value, attribute_schema};

/// Fields that a message names at most.
const MAX_NAMED: usize = 3;

/// The events that the collectors of a node emit.
pub struct Emitted<'a> {
    /// Whether a kind of the vocabulary is emitted; if not, the reason.
    pub kind: &'a dyn Fn(&str) -> Result<(), String>,
    /// Whether applications send events, of any kind and with any attribute (`otlp`, `receiver`).
    pub applications: bool,
    /// Whether files are read whose lines can have any kind and any attribute (`jsonl`).
    pub files: bool,
}

/// The reason why a rule can't fire on a node.
///
/// # Errors
/// The reason, as text.
pub fn can_fire(rule: &Rule, emitted: &Emitted<'_>) -> Result<(), String> {
    match &rule.shape {
        Shape::Sequence(sequence) => sequence_can_fire(rule, sequence, emitted),
        Shape::Aggregate(aggregate) => aggregate_can_fire(rule, aggregate, emitted),
    }
}

fn sequence_can_fire(rule: &Rule, of: &Sequence, emitted: &Emitted<'_>) -> Result<(), String> {
    for step in of.steps.iter().filter(|step| !step.optional) {
        let event = &rule.events[step.event];
        can_match(event, &step.by, emitted).map_err(|cause| named(rule, event, &cause))?;
    }
    Ok(())
}

fn aggregate_can_fire(rule: &Rule, of: &Aggregate, emitted: &Emitted<'_>) -> Result<(), String> {
    let measured = match of.measure {
        Measure::Distinct(field)
        | Measure::Sum(field)
        | Measure::Avg(field)
        | Measure::Percentile(field, _) => Some(field),
        Measure::Count | Measure::AnyOrder | Measure::InOrder => None,
    };
    let mut first = None;
    let mut possible = vec![false; usize::from(of.parts)];
    for counted in &of.events {
        let event = &rule.events[counted.event];
        let needed: Vec<FieldRef> = counted.by.iter().copied().chain(measured).collect();
        match can_match(event, &needed, emitted) {
            Ok(()) => possible[usize::from(counted.part)] = true,
            Err(cause) => {
                first.get_or_insert_with(|| named(rule, event, &cause));
            }
        }
    }
    let parts = possible.iter().filter(|p| **p).count();
    let is_met = match (of.measure, &of.condition) {
        (Measure::InOrder, _) => parts == possible.len(),
        (Measure::AnyOrder, Condition::Parts(condition)) => part_can(condition, &possible).0,
        (Measure::AnyOrder, condition) => (1..=parts).any(|n| condition.holds(n as f64, |_| false)),
        _ => parts > 0,
    };
    match (is_met, first) {
        (false, Some(cause)) => Err(cause),
        (false, None) => Err("its condition never holds".to_owned()),
        (true, _) => Ok(()),
    }
}

/// Whether a condition on parts can hold and can fail, given the parts that can occur.
fn part_can(condition: &PartCondition, possible: &[bool]) -> (bool, bool) {
    match condition {
        PartCondition::Part(part) => {
            (possible.get(usize::from(*part)).copied().unwrap_or(false), true)
        }
        PartCondition::Not(of) => {
            let (hold, fail) = part_can(of, possible);
            (fail, hold)
        }
        PartCondition::All(of) => both(of.iter().map(|c| part_can(c, possible))),
        PartCondition::Any(of) => either(of.iter().map(|c| part_can(c, possible))),
    }
}

/// Whether all of several conditions can hold, and whether one of them can fail.
fn both(of: impl Iterator<Item = (bool, bool)>) -> (bool, bool) {
    of.fold((true, false), |(hold, fail), (h, f)| (hold && h, fail || f))
}

/// Whether one of several conditions can hold, and whether all of them can fail.
fn either(of: impl Iterator<Item = (bool, bool)>) -> (bool, bool) {
    of.fold((false, true), |(hold, fail), (h, f)| (hold || h, fail && f))
}

/// The cause, with the event where the rule has several.
fn named(rule: &Rule, event: &NamedEvent, cause: &str) -> String {
    match rule.events.len() {
        1 => cause.to_owned(),
        _ => format!("event `{}`: {cause}", event.name),
    }
}

/// Whether an event can occur that matches and has the needed fields; if not, the reason.
fn can_match(event: &NamedEvent, needed: &[FieldRef], emitted: &Emitted<'_>) -> Result<(), String> {
    let predicate = &*event.predicate;
    let mut missing: Vec<FieldRef> = Vec::new();
    let mut off = None;
    for kind in attribute_schema::kinds() {
        if !Name::find(kind).is_some_and(|name| predicate.matches_kind(name)) {
            continue;
        }
        let has = Has::new(kind);
        if !needed.iter().all(|field| has.field(*field)) || !can(&predicate.clause, &has).0 {
            add_missing(predicate, needed, &has, &mut missing);
            continue;
        }
        match (emitted.kind)(kind) {
            Ok(()) => return Ok(()),
            Err(cause) => {
                off.get_or_insert(cause);
            }
        }
    }
    if let (Some(cause), Kinds::Some { .. }) = (&off, &predicate.kinds) {
        return Err(cause.clone());
    }
    let reads = match &event.unread {
        None => emitted.applications || emitted.files,
        Some(_) => emitted.files,
    };
    if predicate.kinds.has_foreign() && reads {
        return Ok(());
    }
    Err(reason(event, &missing, off))
}

fn reason(event: &NamedEvent, missing: &[FieldRef], off: Option<String>) -> String {
    let fields: Vec<String> =
        missing.iter().take(MAX_NAMED).map(|f| format!("`{}`", sigma_text(*f))).collect();
    let more = if missing.len() > MAX_NAMED { " …" } else { "" };
    let mut fields = match fields.is_empty() {
        true => String::new(),
        false => format!("no event of this node has {}{more}", fields.join(", ")),
    };
    if event.unread.is_none() && event.predicate.kinds.has_foreign() {
        let and = if fields.is_empty() { "" } else { ", and " };
        fields += and;
        fields += "no collector of applications' events is on (otlp, receiver, jsonl)";
    }
    match (&event.unread, off) {
        (Some(logsource), _) if fields.is_empty() => {
            format!("no collector reads the logsource {logsource}")
        }
        (Some(logsource), _) => {
            format!("no collector reads the logsource {logsource}; {fields}")
        }
        (None, Some(off)) if fields.is_empty() => off,
        (None, _) if fields.is_empty() => "no collector emits its kinds".to_owned(),
        (None, _) => fields,
    }
}

/// A field as a Sigma document names it.
fn sigma_text(field: FieldRef) -> String {
    match field {
        FieldRef::Attribute(name) => name.text().to_owned(),
        other => other.text(),
    }
}

/// The fields that events of a kind can have.
struct Has {
    kind: &'static str,
    attributes: Vec<&'static str>,
}

impl Has {
    fn new(kind: &'static str) -> Self {
        Self { kind, attributes: attribute_schema::attributes(kind).unwrap_or_default() }
    }

    fn attribute(&self, name: Name) -> bool {
        self.attributes.contains(&name.text())
    }

    fn field(&self, field: FieldRef) -> bool {
        match field {
            FieldRef::Attribute(name) => self.attribute(name),
            FieldRef::Derived(derived) => derived.bases().iter().any(|name| self.attribute(*name)),
            FieldRef::Kind
            | FieldRef::Source
            | FieldRef::Severity
            | FieldRef::Message
            | FieldRef::Entity(_) => true,
        }
    }
}

/// Whether a condition can hold and can fail for events with these fields.
fn can(clause: &Clause, has: &Has) -> (bool, bool) {
    match clause {
        Clause::All(of) => both(of.iter().map(|c| can(c, has))),
        Clause::Any(of) => either(of.iter().map(|c| can(c, has))),
        Clause::Not(of) => {
            let (hold, fail) = can(of, has);
            (fail, hold)
        }
        Clause::Field(FieldRef::Kind, test) => fixed(test, Some(Value::Str(has.kind))),
        Clause::Field(field, test) if !has.field(*field) => fixed(test, None),
        Clause::Relates(a, _, b) if !has.field(*a) || !has.field(*b) => (false, true),
        Clause::Field(..) | Clause::Relates(..) => (true, true),
    }
}

/// The same for a field with one value only.
fn fixed(test: &FieldTest, value: Option<Value<'_>>) -> (bool, bool) {
    let holds = test.holds(value);
    (holds, !holds)
}

/// Adds the fields without which no event of a kind matches.
fn add_missing(predicate: &Predicate, needed: &[FieldRef], has: &Has, missing: &mut Vec<FieldRef>) {
    let mut fields = needed.to_vec();
    required(&predicate.clause, has, &mut fields);
    for field in fields {
        if !has.field(field) && !missing.contains(&field) {
            missing.push(field);
        }
    }
}

/// Collects the fields of the conditions that must hold and can't.
fn required(clause: &Clause, has: &Has, into: &mut Vec<FieldRef>) {
    match clause {
        Clause::All(of) => {
            of.iter().filter(|c| !can(c, has).0).for_each(|c| required(c, has, into));
        }
        Clause::Any(of) => of.iter().for_each(|c| required(c, has, into)),
        Clause::Field(field, _) => into.push(*field),
        Clause::Relates(a, _, b) => into.extend([*a, *b]),
        Clause::Not(_) => {}
    }
}

impl Kinds {
    /// Whether there are kinds in the set that no collector of a node emits on its own.
    fn has_foreign(&self) -> bool {
        match self {
            Self::All | Self::Foreign => true,
            Self::Some { exact, globs } => {
                let is_foreign = |text: &str| !attribute_schema::kinds().any(|known| known == text);
                exact.iter().any(|name| is_foreign(name.text())) || !globs.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Loaded;
    use super::*;

    fn reasons(rules: &str, emitted: &Emitted<'_>) -> Vec<Result<(), String>> {
        let mut loaded = Loaded::default();
        loaded.text("r.yml", rules);
        assert_eq!(loaded.errors, []);
        loaded.rules.iter().map(|rule| can_fire(rule, emitted)).collect()
    }

    fn sigma(logsource: &str, selection: &str) -> String {
        format!("title: T\nlogsource: {logsource}\ndetection: {{ s: {selection}, condition: s }}\n")
    }

    const PROCESS: &str = "{ product: linux, category: process_creation }";

    fn all_on(_: &str) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn missing_field_or_logsource_is_named() {
        let emitted = Emitted { kind: &all_on, applications: true, files: false };
        for (logsource, selection, expected) in [
            (PROCESS, "{ ParentImage|endswith: /bash, User: root, CommandLine|contains: x }", ""),
            (
                PROCESS,
                "{ OriginalFileName: x, Image: y }",
                "no event of this node has `OriginalFileName`",
            ),
            (PROCESS, "[{ OriginalFileName: x }, { Image: y }]", ""),
            (PROCESS, "{ OriginalFileName: null }", ""),
            (
                "{ product: linux, category: network_connection }",
                "{ DestinationHostname: x }",
                "no event of this node has `DestinationHostname`",
            ),
            (
                "{ product: linux, service: auditd }",
                "{ type: EXECVE, a0: x, a1: y, a2: z }",
                "no collector reads the logsource product linux, service auditd; no event of this node has `type`, `a0`, `a1` …",
            ),
            (
                "{ product: windows, category: process_creation }",
                "{ Image: x }",
                "no collector reads the logsource product windows, category process_creation",
            ),
            ("{ product: linux, service: sshd }", "[failed]", ""),
            ("{ product: linux }", "{ user: x }", ""),
        ] {
            let found = reasons(&sigma(logsource, selection), &emitted);
            let expected = match expected {
                "" => Ok(()),
                cause => Err(cause.to_owned()),
            };
            assert_eq!(found, [expected], "{logsource} {selection}");
        }
        let files = Emitted { files: true, ..emitted };
        let audit = sigma("{ product: linux, service: auditd }", "{ type: EXECVE }");
        assert_eq!(reasons(&audit, &files), [Ok(())]);
    }

    #[test]
    fn collector_that_is_off_is_named() {
        let off = |kind: &str| match kind.starts_with("kernel.") {
            true => Err(format!("off: {kind}")),
            false => Ok(()),
        };
        let emitted = Emitted { kind: &off, applications: false, files: false };
        let process = reasons(&sigma(PROCESS, "{ Image: x }"), &emitted);
        assert_eq!(process, [Err("off: kernel.process.exec".to_owned())]);
        assert_eq!(
            reasons(&sigma("{ product: linux }", "{ user: x }"), &emitted),
            [Err(
                "no event of this node has `user`, and no collector of applications' events is on \
                  (otlp, receiver, jsonl)"
                    .to_owned()
            )]
        );
        let own = |steps: &str| {
            format!(
                "rule: r\nevents:\n  a: {{ kind: kernel.process.exec }}\n  b: {{ kind: journal.message }}\n\
                 sequence: {{ by: [host.name], within: 1s, steps: [{steps}] }}\nstory: {{ pattern: p }}\n"
            )
        };
        let both = reasons(&own("{ event: a }, { event: b }"), &emitted);
        assert_eq!(both, [Err("event `a`: off: kernel.process.exec".to_owned())]);
        let optional = reasons(&own("{ event: a, optional: true }, { event: b }"), &emitted);
        assert_eq!(optional, [Ok(())]);
        let any = |least: u8| {
            format!(
                "rule: r\nevents:\n  a: {{ kind: kernel.process.exec }}\n  b: {{ kind: journal.message }}\n\
                 any_order: {{ events: [a, b], by: [host.name], within: 1s, at_least: {least} }}\n\
                 story: {{ pattern: p }}\n"
            )
        };
        assert_eq!(reasons(&any(1), &emitted), [Ok(())]);
        assert!(reasons(&any(2), &emitted)[0].is_err());
    }

    #[test]
    fn builtin_rules_can_fire_with_all_collectors() {
        let emitted = Emitted { kind: &all_on, applications: true, files: false };
        for rule in super::super::builtin().rules {
            assert_eq!(can_fire(&rule, &emitted), Ok(()), "{}", rule.name);
        }
    }
}
