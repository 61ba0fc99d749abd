//! A test of one field.

use std::net::IpAddr;

use regex::Regex;

use tapio_core::event::Value;

/// A literal a field is compared with.
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

/// A test of one field.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Exists(bool),
    Equals(Vec<Literal>),
    Differs(Literal),
    Same(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Matches(Regex),
    Network(IpAddr, u8),
    Compare(Order, f64),
}

fn in_network(text: &str, network: IpAddr, bits: u8) -> bool {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let Ok(ip) = text.parse::<IpAddr>() else {
        return false;
    };
    let ((a, size_a), (b, size_b)) = (wide(ip), wide(network));
    size_a == size_b && (bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0)
}

/// Whether a text is the same as one in lower case, whatever its own case.
fn same_folded(text: &str, folded: &str) -> bool {
    if text.is_ascii() {
        return text.eq_ignore_ascii_case(folded);
    }
    text.to_lowercase() == folded
}

impl Test {
    pub(super) fn holds(&self, value: Option<Value<'_>>) -> bool {
        let Some(value) = value.filter(|v| *v != Value::Null) else {
            return matches!(self, Self::Exists(false));
        };
        let text = match value {
            Value::Str(s) | Value::Json(s) => Some(s),
            _ => None,
        };
        match self {
            Self::Exists(wanted) => *wanted,
            Self::Equals(literals) => literals.iter().any(|l| l.equals(value)),
            Self::Differs(literal) => !literal.equals(value),
            Self::Same(folded) => text.is_some_and(|t| same_folded(t, folded)),
            Self::Prefix(p) => text.is_some_and(|t| t.starts_with(p)),
            Self::Suffix(s) => text.is_some_and(|t| t.ends_with(s)),
            Self::Contains(c) => text.is_some_and(|t| t.contains(c)),
            Self::Matches(regex) => text.is_some_and(|t| regex.is_match(t)),
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

/// A value that a field must have.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    Bool(bool),
    Int(i64),
    Text(String),
    /// Text in any case, folded to lower case.
    Folded(String),
}

/// What kind of value a test can hold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Text,
    Number,
}

impl Test {
    /// What kind of value it takes to hold; `None` where several kinds do.
    pub(super) fn takes(&self) -> Option<Takes> {
        let of = |literal: &Literal| match literal {
            Literal::Text(_) => Some(Takes::Text),
            Literal::Int(_) | Literal::Number(_) => Some(Takes::Number),
            Literal::Bool(_) => None,
        };
        match self {
            Self::Equals(literals) => {
                let first = literals.first().and_then(of);
                first.filter(|takes| literals.iter().all(|l| of(l) == Some(*takes)))
            }
            Self::Same(_)
            | Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Contains(_)
            | Self::Matches(_)
            | Self::Network(..) => Some(Takes::Text),
            Self::Compare(..) => Some(Takes::Number),
            Self::Exists(_) | Self::Differs(_) => None,
        }
    }

    /// The values this test asks for, where they can be looked up.
    pub(super) fn wanted(&self) -> Option<Vec<Wanted>> {
        let wanted = |literal: &Literal| {
            Some(match literal {
                Literal::Bool(b) => Wanted::Bool(*b),
                Literal::Int(n) => Wanted::Int(*n),
                Literal::Number(_) => return None,
                Literal::Text(s) => Wanted::Text(s.clone()),
            })
        };
        match self {
            Self::Equals(literals) => literals.iter().map(wanted).collect(),
            Self::Same(folded) => Some(vec![Wanted::Folded(folded.clone())]),
            _ => None,
        }
    }
}
