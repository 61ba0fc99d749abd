//! Many tests of one attribute's values, one of which has to hold: exact values are looked up at
//! once, not one by one.

use std::collections::HashSet;

use super::field_test::{FieldTest, IndexValue};
use tapio_core::event::Value;

/// Tests that are tried one by one. With more, every value may pass one.
const MAX_SINGLE: usize = 32;

/// Tests of an attribute's values.
#[derive(Debug, Default)]
pub(super) struct ValueTests {
    texts: HashSet<Box<str>, ahash::RandomState>,
    integers: HashSet<i64, ahash::RandomState>,
    single: Vec<FieldTest>,
}

impl ValueTests {
    /// Adds a test.
    pub(super) fn add(&mut self, test: &FieldTest) {
        let exact = test.index_values().filter(|values| values.iter().all(is_text_or_integer));
        let Some(values) = exact else {
            return self.single.push(test.clone());
        };
        for value in values {
            match value {
                IndexValue::Text(text) => drop(self.texts.insert(text.into())),
                IndexValue::Int(n) => drop(self.integers.insert(n)),
                IndexValue::Bool(_) | IndexValue::Folded(_) => {}
            }
        }
    }

    /// Whether a test may hold for a value. `false` is certain, `true` isn't for some numbers, and
    /// where there are too many tests.
    #[inline]
    pub(super) fn may_hold(&self, value: Value<'_>) -> bool {
        let is_exact = match value {
            Value::Str(text) | Value::Json(text) => self.texts.contains(text),
            Value::Int(n) => self.integers.contains(&n),
            // Several integers equal a large one.
            Value::Float(_) => !self.integers.is_empty(),
            Value::Bool(_) | Value::Null => false,
        };
        is_exact
            || self.single.len() > MAX_SINGLE
            || self.single.iter().any(|test| test.holds(Some(value)))
    }
}

fn is_text_or_integer(value: &IndexValue) -> bool {
    matches!(value, IndexValue::Text(_) | IndexValue::Int(_))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::field_test::{Literal, Order};
    use super::*;

    fn any_literal() -> impl Strategy<Value = Literal> {
        prop_oneof![
            any::<bool>().prop_map(Literal::Bool),
            (-2..3i64).prop_map(Literal::Int),
            (-2..3i64).prop_map(|n| Literal::Number(n as f64 / 2.0)),
            "[ab]{0,2}".prop_map(Literal::Text),
        ]
    }

    fn any_test() -> impl Strategy<Value = FieldTest> {
        prop_oneof![
            3 => prop::collection::vec(any_literal(), 1..3).prop_map(FieldTest::Equals),
            1 => "[ab]{1,2}".prop_map(FieldTest::EqualsFolded),
            1 => "[ab]{1,2}".prop_map(FieldTest::Prefix),
            1 => any_literal().prop_map(FieldTest::Differs),
            1 => (-2..3i64).prop_map(|n| FieldTest::Compare(Order::Gt, n as f64)),
            1 => any::<bool>().prop_map(FieldTest::Exists),
        ]
    }

    proptest! {
        #[test]
        fn no_value_that_a_test_holds_for_is_left_out(
            tests in prop::collection::vec(any_test(), 0..4),
            text in "[abAB]{0,2}",
            n in -2..3i64,
            which in 0..6u8,
        ) {
            let mut all = ValueTests::default();
            tests.iter().for_each(|test| all.add(test));
            let value = match which {
                0 => Value::Null,
                1 => Value::Bool(n > 0),
                2 => Value::Int(n),
                3 => Value::Float(n as f64 / 2.0),
                4 => Value::Json(&text),
                _ => Value::Str(&text),
            };
            let holds = tests.iter().any(|test| test.holds(Some(value)));
            if holds {
                prop_assert!(all.may_hold(value));
            } else if matches!(value, Value::Str(_) | Value::Int(_)) {
                prop_assert!(!all.may_hold(value), "{tests:?} {value:?}");
            }
        }
    }

    #[test]
    fn every_value_may_pass_one_of_very_many_tests() {
        let mut all = ValueTests::default();
        (0..MAX_SINGLE).for_each(|n| all.add(&FieldTest::Suffix(format!("-{n}"))));
        assert!(!all.may_hold(Value::Str("web-99")));
        all.add(&FieldTest::Suffix("-x".into()));
        assert!(all.may_hold(Value::Str("web-99")));
    }
}
