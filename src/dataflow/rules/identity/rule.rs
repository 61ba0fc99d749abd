//! Canonical encoding of rules, and their identity.

use super::super::rule::{AutoOr, NamedEvent, Rule, StorySpec};
use super::super::shape::{
    Aggregate, Comparison, Condition, Counted, DeviationCondition, Measure, Negation,
    PartCondition, Repeat, Select, Sequence, Shape, Step,
};
use super::super::template::{Filter, Piece, Template, Variable};
use super::encode::{Encode, encode_fields, encode_unordered};
use tapio_core::event::stable_hash;

/// The identity of a rule: equal for rules that match the same and emit the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId([u8; 16]);

impl RuleId {
    /// The identity as bytes, the same in each process.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl Rule {
    /// The rule's identity.
    #[must_use]
    pub fn id(&self) -> RuleId {
        let mut out = Vec::new();
        self.name.encode(&mut out);
        self.description.as_str().encode(&mut out);
        out.push(self.severity.0);
        self.events.encode(&mut out);
        self.shape.encode(&mut out);
        self.story.encode(&mut out);
        RuleId(stable_hash(&[b"rule", &out]))
    }
}

impl Encode for NamedEvent {
    fn encode(&self, out: &mut Vec<u8>) {
        self.predicate.encode(out);
    }
}

encode_fields!(Repeat { at_least, within_ns });

encode_fields!(Step { event, by, role, pattern, keep, keep_first_ns, optional, repeat });

encode_fields!(Negation { gap, event, by });

encode_fields!(Sequence {
    steps,
    nots,
    key_fields,
    within_ns,
    slack_ns,
    until,
    until_by,
    select,
    max_runs
});

impl Encode for Select {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Latest => 0,
            Self::First => 1,
            Self::Every => 2,
        });
    }
}

impl Encode for Measure {
    fn encode(&self, out: &mut Vec<u8>) {
        self.word().encode(out);
        self.field().encode(out);
        if let Self::Percentile(_, percent) = self {
            percent.encode(out);
        }
    }
}

impl Encode for PartCondition {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Part(part) => out.extend_from_slice(&[0, *part]),
            Self::Not(of) => {
                out.push(1);
                of.encode(out);
            }
            Self::All(of) => {
                out.push(2);
                encode_unordered(of, Self::encode, out);
            }
            Self::Any(of) => {
                out.push(3);
                encode_unordered(of, Self::encode, out);
            }
        }
    }
}

/// Encodes bounds, all of which hold, in any order.
fn encode_bounds(bounds: &[(Comparison, f64)], out: &mut Vec<u8>) {
    let bound = |(comparison, bound): &(Comparison, f64), out: &mut Vec<u8>| {
        out.push(match comparison {
            Comparison::Eq => 0,
            Comparison::Ne => 1,
            Comparison::Gt => 2,
            Comparison::Gte => 3,
            Comparison::Lt => 4,
            Comparison::Lte => 5,
        });
        bound.encode(out);
    };
    encode_unordered(bounds, bound, out);
}

impl Encode for DeviationCondition {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bounds(&self.bounds, out);
        self.learn.encode(out);
    }
}

impl Encode for Condition {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bounds(bounds) => {
                out.push(0);
                encode_bounds(bounds, out);
            }
            Self::Parts(condition) => {
                out.push(1);
                condition.encode(out);
            }
        }
    }
}

encode_fields!(Counted { event, by, role, part, through });

encode_fields!(Aggregate { measure, events, within_ns, condition, deviation, parts, inner });

impl Encode for Shape {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sequence(sequence) => {
                out.push(0);
                sequence.encode(out);
            }
            Self::Aggregate(aggregate) => {
                out.push(1);
                aggregate.encode(out);
            }
        }
    }
}

impl Encode for Variable {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Field(event, field) => {
                out.push(0);
                event.encode(out);
                field.encode(out);
            }
            Self::Capture(event, group) => {
                out.push(1);
                event.encode(out);
                group.encode(out);
            }
            Self::Key(field) => {
                out.push(2);
                field.encode(out);
            }
            Self::Count(event) => {
                out.push(3);
                event.encode(out);
            }
            Self::Duration => out.push(4),
            Self::Measured(measured) => out.push(5 + *measured as u8),
        }
    }
}

impl Encode for Piece {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.push(0);
                text.encode(out);
            }
            Self::Variable(variable, filter) => {
                out.push(1);
                variable.encode(out);
                out.push(match filter {
                    Filter::None => 0,
                    Filter::Lower => 1,
                    Filter::Upper => 2,
                    Filter::Base => 3,
                    Filter::Bytes => 4,
                    Filter::Duration => 5,
                });
            }
        }
    }
}

encode_fields!(Template { parts });

impl<T: Encode> Encode for AutoOr<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Auto => out.push(0),
            Self::Fixed(value) => {
                out.push(1);
                value.encode(out);
            }
        }
    }
}

encode_fields!(StorySpec {
    pattern,
    name,
    intent,
    root_cause,
    actions,
    business,
    customer_facing,
    slo_impact,
    idle_ns,
    max_age_ns
});
