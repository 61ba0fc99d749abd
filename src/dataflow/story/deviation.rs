//! The distance of a story's measured value from what is usual.

use crate::rules::Measured;

/// A measured value beside the usual one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Deviation {
    pub(crate) value: f64,
    /// The median of what was learned.
    pub(crate) usual: f64,
    /// The distance between both, in standard deviations.
    pub(crate) deviation: f64,
}

impl Deviation {
    /// Whether the distance is larger than that of another one.
    pub(crate) fn is_stronger(&self, other: &Self) -> bool {
        self.deviation.abs() > other.deviation.abs()
    }

    /// One of its numbers as text.
    pub(crate) fn text(&self, which: Measured) -> String {
        match which {
            Measured::Value => number_text(self.value),
            Measured::Usual => number_text(self.usual),
            Measured::Deviation => number_text(self.deviation),
        }
    }
}

/// A number as text for people: whole, or with two or three digits that matter.
fn number_text(number: f64) -> String {
    let size = number.abs();
    if number.fract() == 0.0 || size >= 100.0 {
        return format!("{:.0}", if number == 0.0 { 0.0 } else { number });
    }
    let decimals = if size >= 1.0 { 1 } else { (1.0 - size.log10().floor()).min(12.0) as usize };
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (7.46, "7.5"),
            (-7.46, "-7.5"),
            (0.5, "0.5"),
            (7.01, "7"),
            (0.0314, "0.031"),
            (1e-300, "0"),
            (123_456.7, "123457"),
            (1e15, "1000000000000000"),
        ] {
            assert_eq!(number_text(number), text);
        }
    }
}
