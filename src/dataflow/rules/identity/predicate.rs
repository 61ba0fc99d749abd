//! Canonical encoding of predicates.

use std::net::IpAddr;

use super::super::field::FieldRef;
use super::super::field_test::{FieldTest, Literal, Order};
use super::super::kinds::Kinds;
use super::super::predicate::{Clause, Predicate, TextPart};
use super::encode::{Encode, encode_unordered};
use tapio_core::event::Name;

impl Predicate {
    /// The canonical encoding: equal for predicates that match the same events and capture the
    /// same text.
    #[must_use]
    pub(crate) fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

impl Encode for FieldRef {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Kind => out.push(0),
            Self::Source => out.push(1),
            Self::Severity => out.push(2),
            Self::Message => out.push(3),
            Self::Entity(name) => {
                out.push(4);
                name.encode(out);
            }
            Self::Attribute(name) => {
                out.push(5);
                name.encode(out);
            }
            Self::Derived(derived) => {
                out.push(6);
                derived.text().encode(out);
            }
        }
    }
}

impl Encode for Literal {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(b) => {
                out.push(0);
                b.encode(out);
            }
            Self::Number(n) => {
                out.push(1);
                n.encode(out);
            }
            Self::Int(n) => {
                out.push(2);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Text(s) => {
                out.push(3);
                s.encode(out);
            }
        }
    }
}

impl Encode for IpAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            Self::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
    }
}

impl Encode for FieldTest {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut text = |tag: u8, text: &str| {
            out.push(tag);
            text.encode(out);
        };
        match self {
            Self::EqualsFolded(folded) => text(0, folded),
            Self::Prefix(prefix) => text(1, prefix),
            Self::Suffix(suffix) => text(2, suffix),
            Self::Contains(part) => text(3, part),
            Self::Glob(pattern) => text(4, pattern),
            Self::Regex(regex) => text(5, regex.as_str()),
            Self::Pattern(regex) => text(14, regex.as_str()),
            Self::Exists(expected) => {
                out.push(6);
                expected.encode(out);
            }
            Self::Equals(literals) => {
                out.push(7);
                encode_unordered(literals, Literal::encode, out);
            }
            Self::Differs(literal) => {
                out.push(8);
                literal.encode(out);
            }
            Self::Network(network, prefix_bits) => {
                out.push(9);
                network.encode(out);
                out.push(*prefix_bits);
            }
            Self::Compare(order, bound) => {
                out.push(match order {
                    Order::Gt => 10,
                    Order::Gte => 11,
                    Order::Lt => 12,
                    Order::Lte => 13,
                });
                bound.encode(out);
            }
        }
    }
}

/// Whether a clause has a regular expression with named groups.
fn captures(clause: &Clause) -> bool {
    match clause {
        Clause::All(clauses) | Clause::Any(clauses) => clauses.iter().any(captures),
        Clause::Field(_, FieldTest::Regex(regex)) => regex.groups().next().is_some(),
        Clause::Not(_) | Clause::Field(..) | Clause::Relates(..) => false,
    }
}

/// Encodes clauses without their order, unless it decides which of them captures a text.
fn encode_clauses(clauses: &[Clause], out: &mut Vec<u8>) {
    let ordered = clauses.iter().filter(|c| captures(c)).count() > 1;
    ordered.encode(out);
    if ordered {
        clauses.len().encode(out);
        clauses.iter().for_each(|clause| clause.encode(out));
    } else {
        encode_unordered(clauses, Clause::encode, out);
    }
}

impl Encode for Clause {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            // One clause means the same with and without the list around it.
            Self::All(clauses) | Self::Any(clauses) if clauses.len() == 1 => clauses[0].encode(out),
            Self::All(clauses) => {
                out.push(0);
                encode_clauses(clauses, out);
            }
            Self::Any(clauses) => {
                out.push(1);
                encode_clauses(clauses, out);
            }
            Self::Not(clause) => {
                out.push(2);
                clause.encode(out);
            }
            Self::Field(field, test) => {
                out.push(3);
                field.encode(out);
                test.encode(out);
            }
            Self::Relates(a, relation, b) => {
                out.push(4);
                out.push(match relation.part {
                    TextPart::Whole => 0,
                    TextPart::Start => 1,
                    TextPart::End => 2,
                    TextPart::Any => 3,
                });
                relation.is_cased.encode(out);
                a.encode(out);
                b.encode(out);
            }
        }
    }
}

impl Encode for Kinds {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::All => out.push(0),
            Self::Foreign => out.push(2),
            Self::Some { exact, globs } => {
                out.push(1);
                encode_unordered(exact, Name::encode, out);
                encode_unordered(globs, |pattern, out| pattern.encode(out), out);
            }
        }
    }
}

impl Encode for Predicate {
    fn encode(&self, out: &mut Vec<u8>) {
        self.kinds.encode(out);
        self.clause.encode(out);
    }
}
