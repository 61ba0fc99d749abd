//! Plans: the rules relevant to a kind of events, and an index of their predicates. Equal
//! predicates are evaluated once. A predicate that needs a field to have a certain value is found
//! by that value, so the cost of an event doesn't grow with the number of rules that can't match
//! it.

use std::collections::HashMap;
use std::sync::Arc;

use super::command_line::WithCommandLines;
use super::field::{FieldRef, View};
use super::field_test::IndexValue;
use super::message_index::{MessageIndex, needed_texts};
use super::predicate::Predicate;
use super::rule::Rule;
use super::shape::{RulePart, Shape};
use crate::guard::guarded;
use tapio_core::event::{Name, Value};

/// A part of a rule, with its predicate.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The part.
    pub part: RulePart,
    /// Number of the predicate in the plan.
    predicate: u16,
}

/// The parts of a rule that events of a kind can match.
#[derive(Clone, Debug)]
pub struct RuleUse {
    /// Number of the rule.
    pub rule: u16,
    /// The parts, in the order of evaluation: `until`, then from the last step to the first, each
    /// step before the `not` in front of it.
    pub ops: Vec<Op>,
}

type ByValue<K> = HashMap<K, Vec<u16>, ahash::RandomState>;

/// Predicates by the value that they need a field to have.
#[derive(Debug)]
struct FieldIndex {
    field: FieldRef,
    texts: ByValue<Box<str>>,
    folded: ByValue<Box<str>>,
    ints: ByValue<i64>,
    bools: [Vec<u16>; 2],
}

impl FieldIndex {
    fn new(field: FieldRef) -> Self {
        Self {
            field,
            texts: HashMap::default(),
            folded: HashMap::default(),
            ints: HashMap::default(),
            bools: [Vec::new(), Vec::new()],
        }
    }

    fn add(&mut self, value: IndexValue, predicate: u16) {
        match value {
            IndexValue::Bool(b) => self.bools[usize::from(b)].push(predicate),
            IndexValue::Int(n) => self.ints.entry(n).or_default().push(predicate),
            IndexValue::Text(s) => self.texts.entry(s.into()).or_default().push(predicate),
            IndexValue::Folded(s) => self.folded.entry(s.into()).or_default().push(predicate),
        }
    }

    fn candidates(&self, event: &impl View, mut each: impl FnMut(u16)) {
        let mut all = |found: Option<&Vec<u16>>| {
            found.into_iter().flatten().for_each(|predicate| each(*predicate));
        };
        match event.field(self.field) {
            Some(Value::Str(s)) => {
                all(self.texts.get(s));
                if !self.folded.is_empty() {
                    all(self.folded.get(s.to_lowercase().as_str()));
                }
            }
            Some(Value::Int(n)) => all(self.ints.get(&n)),
            Some(Value::Float(n)) if n.fract() == 0.0 && n.abs() < 9e15 => {
                all(self.ints.get(&(n as i64)));
            }
            Some(Value::Bool(b)) => all(Some(&self.bools[usize::from(b)])),
            // JSON compares as text in tests that ignore case.
            Some(Value::Json(s)) => all(self.folded.get(s.to_lowercase().as_str())),
            Some(Value::Null | Value::Float(_)) | None => {}
        }
    }
}

/// The plan for events of a kind.
#[derive(Debug, Default)]
pub struct KindPlan {
    /// The rules that events of the kind can match, by number.
    pub uses: Vec<RuleUse>,
    /// The distinct lists of fields by which events are routed.
    pub keys: Vec<Vec<FieldRef>>,
    predicates: Vec<Arc<Predicate>>,
    /// For each predicate the rules that have it, as positions in `uses`.
    uses_of: Vec<Vec<u16>>,
    /// Predicates that no index finds; all of them are evaluated.
    always: Vec<u16>,
    indexes: Vec<FieldIndex>,
    by_message: Option<MessageIndex>,
}

/// The predicates of a plan that hold for an event. Reused from event to event.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// For each predicate the number of the last event for which it held.
    held: Vec<u64>,
    event: u64,
    /// Positions in `uses` of the rules that have a predicate that holds, ascending.
    pub relevant: Vec<u16>,
}

impl Outcomes {
    /// Whether the predicate of a part holds.
    #[must_use]
    pub fn holds(&self, op: Op) -> bool {
        self.held[usize::from(op.predicate)] == self.event
    }
}

fn ops_of(rule: &Rule) -> Vec<(RulePart, usize)> {
    match &rule.shape {
        Shape::Sequence(s) => {
            let mut ops: Vec<_> = s.until.map(|u| (RulePart::Until, u)).into_iter().collect();
            for gap in (0..=s.steps.len()).rev() {
                if let Some(step) = s.steps.get(gap) {
                    ops.push((RulePart::Step(gap as u8), step.event));
                }
                let nots = s.nots.iter().enumerate().filter(|(_, n)| n.gap == gap);
                ops.extend(nots.map(|(i, n)| (RulePart::Not(i as u8), n.event)));
            }
            ops
        }
        Shape::Aggregate(a) => {
            (0u8..).zip(&a.events).map(|(i, e)| (RulePart::Counted(i), e.event)).collect()
        }
    }
}

impl KindPlan {
    /// Plans for events of a kind.
    pub(super) fn new(rules: &[Rule], kind: Name) -> Self {
        let mut plan = Self::default();
        let mut numbers: HashMap<Vec<u8>, u16> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let matches_kind = |event: usize| rule.events[event].predicate.matches_kind(kind);
            let ops: Vec<Op> = ops_of(rule)
                .into_iter()
                .filter(|(_, event)| matches_kind(*event))
                .map(|(part, event)| {
                    let predicate = &rule.events[event].predicate;
                    Op { part, predicate: plan.predicate(predicate, &mut numbers) }
                })
                .collect();
            if ops.is_empty() {
                continue;
            }
            for (event, by) in rule.routes() {
                if matches_kind(event) && !plan.keys.iter().any(|k| k == by) {
                    plan.keys.push(by.to_vec());
                }
            }
            let position = plan.uses.len() as u16;
            for op in &ops {
                let uses = &mut plan.uses_of[usize::from(op.predicate)];
                if uses.last() != Some(&position) {
                    uses.push(position);
                }
            }
            plan.uses.push(RuleUse { rule: number as u16, ops });
        }
        plan.index_messages();
        plan
    }

    /// The distinct predicates.
    pub(super) fn predicates(&self) -> &[Arc<Predicate>] {
        &self.predicates
    }

    /// Moves the predicates that an index of messages finds from those that are always evaluated.
    fn index_messages(&mut self) {
        let needs = |number: &u16| {
            Some((*number, needed_texts(&self.predicates[usize::from(*number)].clause)?))
        };
        let needs: Vec<_> = self.always.iter().filter_map(needs).collect();
        self.by_message = MessageIndex::new(&needs);
        if self.by_message.is_some() {
            self.always.retain(|number| needs.iter().all(|(indexed, _)| indexed != number));
        }
    }

    fn predicate(
        &mut self,
        predicate: &Arc<Predicate>,
        numbers: &mut HashMap<Vec<u8>, u16>,
    ) -> u16 {
        let canonical = predicate.canonical();
        if let Some(number) = numbers.get(&canonical) {
            return *number;
        }
        let number = self.predicates.len() as u16;
        match predicate.required() {
            None => self.always.push(number),
            Some(required) => {
                let at = self.indexes.iter().position(|i| i.field == required.field);
                let at = at.unwrap_or_else(|| {
                    self.indexes.push(FieldIndex::new(required.field));
                    self.indexes.len() - 1
                });
                for value in required.values {
                    self.indexes[at].add(value, number);
                }
            }
        }
        self.predicates.push(Arc::clone(predicate));
        self.uses_of.push(Vec::new());
        numbers.insert(canonical, number);
        number
    }

    /// Evaluates the predicates for an event of the plan's kind.
    pub fn evaluate(&self, event: &impl View, outcomes: &mut Outcomes) {
        let event = &WithCommandLines::new(event);
        outcomes.event += 1;
        outcomes.relevant.clear();
        if outcomes.held.len() < self.predicates.len() {
            outcomes.held.resize(self.predicates.len(), 0);
        }
        let mut test = |number: u16| {
            let at = usize::from(number);
            if outcomes.held[at] != outcomes.event && self.predicates[at].holds(event) {
                outcomes.held[at] = outcomes.event;
                outcomes.relevant.extend_from_slice(&self.uses_of[at]);
            }
        };
        self.always.iter().for_each(|number| test(*number));
        for index in &self.indexes {
            index.candidates(event, &mut test);
        }
        if let Some(index) = &self.by_message
            && let Some(Value::Str(message)) = event.field(FieldRef::Message)
        {
            index.candidates(message, &mut test);
        }
        if outcomes.relevant.len() > 1 {
            outcomes.relevant.sort_unstable();
            outcomes.relevant.dedup();
        }
    }

    /// The numbers of the rules with a predicate that panics on an event, after
    /// [`KindPlan::evaluate`] did.
    pub(crate) fn failing(&self, event: &impl View) -> Vec<u16> {
        let event = &WithCommandLines::new(event);
        let fails = |predicate: &Predicate| guarded(|| predicate.holds(event)).is_err();
        let failing = self.predicates.iter().zip(&self.uses_of).filter(|(p, _)| fails(p));
        let uses = failing.flat_map(|(_, uses)| uses);
        let mut rules: Vec<u16> = uses.map(|used| self.uses[usize::from(*used)].rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Loaded;
    use super::*;
    use tapio_core::event::JsonEvent;

    fn rules(text: &str) -> Vec<Rule> {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", text);
        assert_eq!(loaded.errors, []);
        loaded.rules
    }

    /// For every type of value.
    #[test]
    fn index_finds_all_predicates_that_hold() {
        let events = [
            "{ kind: t.a, attributes.v: 7 }",
            "{ kind: t.a, attributes.v: '7' }",
            "{ kind: t.a, attributes.v: [x, y] }",
            "{ kind: t.a, attributes.v: true }",
            "{ kind: t.a, attributes.v: { ieq: X } }",
            "{ kind: t.a, attributes.v: 7.5 }",
            "{ kind: t.*, all: [{ attributes.v: x }, { attributes.w: 1 }] }",
            "{ kind: t.a, any: [{ attributes.v: x }, { attributes.w: 1 }] }",
            "{ kind: t.a, not: { attributes.v: x } }",
            "{ kind: t.a }",
            "{ kind: t.b, attributes.v: 7 }",
            "{ kind: t.a, message: { contains: Disk Full } }",
            "{ kind: t.a, message: { regex: '(?i)Disk Full' } }",
            "{ kind: t.a, message: { regex: '(?i)disk (?:full|error) on [a-z]+' }, attributes.w: { gt: 1 } }",
            "{ kind: t.a, any: [{ message: { prefix: disk } }, { message: { regex: 'error.*sda' } }] }",
            "{ kind: t.a, not: { message: { contains: disk } } }",
        ];
        let text: String = events
            .iter()
            .enumerate()
            .map(|(i, e)| {
                format!(
                    "rule: r{i}\nevents: {{ e: {e} }}\ncount: {{ event: e, within: 1s, at_least: 1 }}\n\
                     story: {{ pattern: p }}\n---\n"
                )
            })
            .collect();
        let rules = rules(&text);
        let kind = Name::intern("t.a").unwrap();
        let plan = KindPlan::new(&rules, kind);
        let mut outcomes = Outcomes::default();
        for v in ["7", "7.0", "7.5", "\"7\"", "\"x\"", "\"X\"", "true", "null", "{\"x\":1}"] {
            for (w, message) in [
                ("1", ""),
                ("2", "Disk Full on sda"),
                ("3", "a dis\u{212a} full on sda"),
                ("1", "disk error: sda"),
            ] {
                let line = format!(
                    r#"{{"time":1,"kind":"t.a","message":"{message}","attributes":{{"v":{v},"w":{w}}}}}"#
                );
                let parsed = JsonEvent::parse(&line, "t").unwrap();
                let mut fields = Vec::new();
                let event = parsed.event(0, &mut fields);
                plan.evaluate(&event, &mut outcomes);
                let found: Vec<u16> =
                    outcomes.relevant.iter().map(|u| plan.uses[usize::from(*u)].rule).collect();
                let expected: Vec<u16> = (0u16..)
                    .zip(&rules)
                    .filter(|(_, r)| {
                        let p = &r.events[0].predicate;
                        p.matches_kind(kind) && p.holds(&WithCommandLines::new(&event))
                    })
                    .map(|(i, _)| i)
                    .collect();
                assert_eq!(found, expected, "{line}");
            }
        }
    }

    #[test]
    fn kinds_within_a_condition_count() {
        let text = "rule: r\nevents: { e: { any: [{ kind: t.a }, { kind: t.b, attributes.v: 7 }] } }\n\
                    count: { event: e, within: 1s, at_least: 1 }\nstory: { pattern: p }\n";
        let rules = rules(text);
        for (kind, uses) in [("t.a", 1), ("t.b", 1), ("t.c", 0)] {
            let plan = KindPlan::new(&rules, Name::intern(kind).unwrap());
            assert_eq!(plan.uses.len(), uses, "{kind}");
        }
    }

    #[test]
    fn equal_predicates_are_shared() {
        let text = "rule: NAME\nevents: { e: { kind: t.a, attributes.v: 7 } }\n\
                    count: { event: e, within: 1s, at_least: 1 }\nstory: { pattern: p }\n---\n";
        let rules = rules(&(text.replace("NAME", "a") + &text.replace("NAME", "b")));
        let plan = KindPlan::new(&rules, Name::intern("t.a").unwrap());
        assert_eq!((plan.predicates.len(), plan.uses.len()), (1, 2));
    }
}
