//! What has to be done with events of a kind. Equal predicates are one; a predicate that needs a
//! field to have a certain value is found by that value, so that an event is shown to the
//! predicates that can hold for it, however many rules there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::field::{FieldRef, View};
use super::predicate::Predicate;
use super::rule::{Rule, Shape};
use super::test::Wanted;
use tapio_core::event::{Name, Value};

/// A part of a rule that an event may play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It drops the pending runs of its key.
    Until,
    /// It fills this step of a sequence.
    Step(u8),
    /// It is what must not happen: this one of the sequence's `nots`.
    Not(u8),
    /// It is taken into a window, as this one of the counted events.
    Counted(u8),
}

/// A part of a rule, and the predicate that decides on it.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The part.
    pub what: What,
    /// The predicate, by its number in the plan.
    predicate: u16,
}

/// What a rule does with events of a kind.
#[derive(Clone, Debug)]
pub struct RuleUse {
    /// The rule, by number.
    pub rule: u16,
    /// Its parts, in the order in which they see an event: `until`, then from the last step to the
    /// first, each step before the `not` in front of it.
    pub ops: Vec<Op>,
}

type ByValue<K> = HashMap<K, Vec<u16>, ahash::RandomState>;

/// Predicates by the value they need a field to have.
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

    fn add(&mut self, wanted: Wanted, predicate: u16) {
        match wanted {
            Wanted::Bool(b) => self.bools[usize::from(b)].push(predicate),
            Wanted::Int(n) => self.ints.entry(n).or_default().push(predicate),
            Wanted::Text(s) => self.texts.entry(s.into()).or_default().push(predicate),
            Wanted::Folded(s) => self.folded.entry(s.into()).or_default().push(predicate),
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
            // JSON text compares as text where case doesn't matter.
            Some(Value::Json(s)) => all(self.folded.get(s.to_lowercase().as_str())),
            Some(Value::Null | Value::Float(_)) | None => {}
        }
    }
}

/// What has to be done with events of a kind.
#[derive(Debug, Default)]
pub struct KindPlan {
    /// The rules that may want them, by number.
    pub uses: Vec<RuleUse>,
    /// The distinct lists of fields they are routed by.
    pub keys: Vec<Vec<FieldRef>>,
    predicates: Vec<Arc<Predicate>>,
    /// The rules that each predicate matters to, by place in `uses`.
    uses_of: Vec<Vec<u16>>,
    /// Predicates that need no certain value.
    always: Vec<u16>,
    indexes: Vec<FieldIndex>,
}

/// Which predicates of a plan hold for the event at hand. Kept from event to event.
#[derive(Debug, Default)]
pub struct Truth {
    /// The number of the event each predicate held for last.
    held: Vec<u64>,
    event: u64,
    /// Places in `uses` of the rules that have something to do, in order.
    pub touched: Vec<u16>,
}

impl Truth {
    /// Whether the part's predicate holds.
    #[must_use]
    pub fn holds(&self, op: Op) -> bool {
        self.held[usize::from(op.predicate)] == self.event
    }
}

fn ops_of(rule: &Rule) -> Vec<(What, usize)> {
    match &rule.shape {
        Shape::Sequence(s) => {
            let mut ops: Vec<_> = s.until.map(|u| (What::Until, u)).into_iter().collect();
            for gap in (0..=s.steps.len()).rev() {
                if let Some(step) = s.steps.get(gap) {
                    ops.push((What::Step(gap as u8), step.event));
                }
                let nots = s.nots.iter().enumerate().filter(|(_, n)| n.gap == gap);
                ops.extend(nots.map(|(i, n)| (What::Not(i as u8), n.event)));
            }
            ops
        }
        Shape::Aggregate(a) => {
            (0u8..).zip(&a.events).map(|(i, e)| (What::Counted(i), e.event)).collect()
        }
    }
}

impl KindPlan {
    /// The plan for events of this kind.
    pub(super) fn new(rules: &[Rule], kind: Name) -> Self {
        let mut plan = Self::default();
        let mut numbers: HashMap<String, u16> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let wants = |event: usize| rule.events[event].predicate.wants(kind);
            let ops: Vec<Op> = ops_of(rule)
                .into_iter()
                .filter(|(_, event)| wants(*event))
                .map(|(what, event)| {
                    let predicate = &rule.events[event].predicate;
                    Op { what, predicate: plan.predicate(predicate, &mut numbers) }
                })
                .collect();
            if ops.is_empty() {
                continue;
            }
            for (event, by) in rule.routes() {
                if wants(event) && !plan.keys.iter().any(|k| k == by) {
                    plan.keys.push(by.to_vec());
                }
            }
            let place = plan.uses.len() as u16;
            for op in &ops {
                let uses = &mut plan.uses_of[usize::from(op.predicate)];
                if uses.last() != Some(&place) {
                    uses.push(place);
                }
            }
            plan.uses.push(RuleUse { rule: number as u16, ops });
        }
        plan
    }

    fn predicate(&mut self, predicate: &Arc<Predicate>, numbers: &mut HashMap<String, u16>) -> u16 {
        let text = predicate.text();
        if let Some(number) = numbers.get(&text) {
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
                for wanted in required.values {
                    self.indexes[at].add(wanted, number);
                }
            }
        }
        self.predicates.push(Arc::clone(predicate));
        self.uses_of.push(Vec::new());
        numbers.insert(text, number);
        number
    }

    /// Finds the predicates that hold for an event of this kind and the rules they matter to.
    pub fn evaluate(&self, event: &impl View, truth: &mut Truth) {
        truth.event += 1;
        truth.touched.clear();
        if truth.held.len() < self.predicates.len() {
            truth.held.resize(self.predicates.len(), 0);
        }
        let mut test = |number: u16| {
            let at = usize::from(number);
            if truth.held[at] != truth.event && self.predicates[at].holds(event) {
                truth.held[at] = truth.event;
                truth.touched.extend_from_slice(&self.uses_of[at]);
            }
        };
        self.always.iter().for_each(|number| test(*number));
        for index in &self.indexes {
            index.candidates(event, &mut test);
        }
        if truth.touched.len() > 1 {
            truth.touched.sort_unstable();
            truth.touched.dedup();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Loaded;
    use super::*;
    use tapio_core::event::JsonEvent;

    fn rules(text: &str) -> Vec<Rule> {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", text);
        assert_eq!(loaded.errors, []);
        loaded.rules
    }

    /// What the index finds is what holds, whatever the kind of value.
    #[test]
    fn the_index_finds_what_holds() {
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
        let mut truth = Truth::default();
        for v in ["7", "7.0", "7.5", "\"7\"", "\"x\"", "\"X\"", "true", "null", "{\"x\":1}"] {
            for w in ["1", "2"] {
                let line = format!(r#"{{"time":1,"kind":"t.a","attributes":{{"v":{v},"w":{w}}}}}"#);
                let parsed = JsonEvent::parse(&line, "t").unwrap();
                let mut fields = Vec::new();
                let event = parsed.event(0, &mut fields);
                plan.evaluate(&event, &mut truth);
                let found: Vec<u16> =
                    truth.touched.iter().map(|u| plan.uses[usize::from(*u)].rule).collect();
                let expected: Vec<u16> = (0u16..)
                    .zip(&rules)
                    .filter(|(_, r)| {
                        let p = &r.events[0].predicate;
                        p.wants(kind) && p.holds(&event)
                    })
                    .map(|(i, _)| i)
                    .collect();
                assert_eq!(found, expected, "{line}");
            }
        }
    }

    #[test]
    fn equal_predicates_are_one() {
        let text = "rule: NAME\nevents: { e: { kind: t.a, attributes.v: 7 } }\n\
                    count: { event: e, within: 1s, at_least: 1 }\nstory: { pattern: p }\n---\n";
        let rules = rules(&(text.replace("NAME", "a") + &text.replace("NAME", "b")));
        let plan = KindPlan::new(&rules, Name::intern("t.a").unwrap());
        assert_eq!((plan.predicates.len(), plan.uses.len()), (1, 2));
    }
}
