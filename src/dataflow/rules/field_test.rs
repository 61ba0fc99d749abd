//! Tests of one field's value.

use std::net::IpAddr;

use super::field::value_text;
use super::lazy_regex::LazyRegex;
use tapio_core::event::Value;
use tapio_core::glob;

/// A value to compare a field with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Number(f64),
    Int(i64),
    Text(String),
}

impl Literal {
    fn equals(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Bool(a), Value::Bool(b)) => *a == b,
            (Self::Int(a), Value::Int(b)) => *a == b,
            (Self::Int(a), Value::Float(b)) => *a as f64 == b,
            (Self::Number(a), Value::Int(b)) => *a == b as f64,
            (Self::Number(a), Value::Float(b)) => *a == b,
            (Self::Text(a), Value::Str(b)) => a == b,
            _ => false,
        }
    }
}

fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(n) => Some(n as f64),
        Value::Float(n) => Some(n),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Gt,
    Gte,
    Lt,
    Lte,
}

/// A test of one field's value. A field that is missing or null passes `Exists(false)` only.
#[derive(Clone, Debug)]
pub(super) enum FieldTest {
    Exists(bool),
    /// Equals one of these.
    Equals(Vec<Literal>),
    Differs(Literal),
    /// Equals this text, which is in lower case, in any case.
    EqualsFolded(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Glob(String),
    Regex(LazyRegex),
    /// Matches as text, also a number or a boolean: Sigma compares values by their text.
    Pattern(LazyRegex),
    /// Is an address in this network: the address and the length of the prefix.
    Network(IpAddr, u8),
    Compare(Order, f64),
}

fn in_network(text: &str, network: IpAddr, prefix_bits: u8) -> bool {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let Ok(ip) = text.parse::<IpAddr>() else {
        return false;
    };
    let ((a, size_a), (b, size_b)) = (wide(ip), wide(network));
    size_a == size_b && (prefix_bits == 0 || (a ^ b) >> (128 - u32::from(prefix_bits)) == 0)
}

/// Whether a text equals another one, given in lower case, in any case.
fn equals_folded(text: &str, folded: &str) -> bool {
    if text.is_ascii() {
        return text.eq_ignore_ascii_case(folded);
    }
    text.to_lowercase() == folded
}

impl FieldTest {
    pub(super) fn holds(&self, value: Option<Value<'_>>) -> bool {
        let Some(value) = value.filter(|v| *v != Value::Null) else {
            return matches!(self, Self::Exists(false));
        };
        let text = match value {
            Value::Str(s) | Value::Json(s) => Some(s),
            _ => None,
        };
        match self {
            Self::Exists(expected) => *expected,
            Self::Equals(literals) => literals.iter().any(|l| l.equals(value)),
            Self::Differs(literal) => !literal.equals(value),
            Self::EqualsFolded(folded) => text.is_some_and(|t| equals_folded(t, folded)),
            Self::Prefix(p) => text.is_some_and(|t| t.starts_with(p)),
            Self::Suffix(s) => text.is_some_and(|t| t.ends_with(s)),
            Self::Contains(c) => text.is_some_and(|t| t.contains(c)),
            Self::Glob(pattern) => text.is_some_and(|t| glob::matches(pattern, t)),
            Self::Regex(regex) => text.is_some_and(|t| regex.is_match(t)),
            Self::Pattern(regex) => match text {
                Some(text) => regex.is_match(text),
                None => regex.is_match(&value_text(value)),
            },
            Self::Network(network, bits) => text.is_some_and(|t| in_network(t, *network, *bits)),
            Self::Compare(order, bound) => number(value).is_some_and(|n| match order {
                Order::Gt => n > *bound,
                Order::Gte => n >= *bound,
                Order::Lt => n < *bound,
                Order::Lte => n <= *bound,
            }),
        }
    }
}

/// A value that a field must have, as a key of an index.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum IndexValue {
    Bool(bool),
    Int(i64),
    Text(String),
    /// Text in any case, folded to lower case.
    Folded(String),
}

/// The type of value that a test can hold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    Text,
    Number,
}

impl FieldTest {
    /// The only type of value that the test can hold for; `None` if there are several.
    pub(super) fn value_type(&self) -> Option<ValueType> {
        let of = |literal: &Literal| match literal {
            Literal::Text(_) => Some(ValueType::Text),
            Literal::Int(_) | Literal::Number(_) => Some(ValueType::Number),
            Literal::Bool(_) => None,
        };
        match self {
            Self::Equals(literals) => {
                let first = literals.first().and_then(of);
                first.filter(|first| literals.iter().all(|l| of(l) == Some(*first)))
            }
            Self::EqualsFolded(_)
            | Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Contains(_)
            | Self::Glob(_)
            | Self::Regex(_)
            | Self::Network(..) => Some(ValueType::Text),
            Self::Compare(..) => Some(ValueType::Number),
            Self::Exists(_) | Self::Differs(_) | Self::Pattern(_) => None,
        }
    }

    /// The values one of which the field must have; `None` if an index can't find the test by them.
    pub(super) fn index_values(&self) -> Option<Vec<IndexValue>> {
        let value = |literal: &Literal| {
            Some(match literal {
                Literal::Bool(b) => IndexValue::Bool(*b),
                Literal::Int(n) => IndexValue::Int(*n),
                Literal::Number(_) => return None,
                Literal::Text(s) => IndexValue::Text(s.clone()),
            })
        };
        match self {
            Self::Equals(literals) => literals.iter().map(value).collect(),
            Self::EqualsFolded(folded) => Some(vec![IndexValue::Folded(folded.clone())]),
            _ => None,
        }
    }
}
