//! Median and spread of a few samples, which outliers don't change.

/// The interquartile range of a normal distribution in standard deviations.
const IQR_IN_SIGMA: f64 = 1.349;
/// The range between the outer deciles of a normal distribution in standard deviations.
const DECILES_IN_SIGMA: f64 = 2.563;

/// Quantile of a sorted list, interpolated between neighbours; 0 for an empty one.
fn quantile<T: Copy + Into<f64>>(sorted: &[T], share: f64) -> f64 {
    let at = share * (sorted.len().saturating_sub(1)) as f64;
    let value = |at: f64| sorted.get(at as usize).map(|sample| (*sample).into());
    let low: f64 = value(at.floor()).unwrap_or(0.0);
    let high = value(at.ceil()).unwrap_or(low);
    low + (high - low) * at.fract()
}

/// Quantiles of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) median: f64,
    /// The interquartile range.
    pub(crate) iqr: f64,
    /// The range between the outer deciles.
    deciles: f64,
}

impl Quantiles {
    /// Of samples in ascending order.
    pub(crate) fn of_sorted<T: Copy + Into<f64>>(sorted: &[T]) -> Self {
        let range = |low, high| quantile(sorted, high) - quantile(sorted, low);
        Self { median: quantile(sorted, 0.5), iqr: range(0.25, 0.75), deciles: range(0.1, 0.9) }
    }

    /// The standard deviation of a normal distribution with this interquartile range.
    pub(crate) fn sigma(&self) -> f64 {
        self.iqr / IQR_IN_SIGMA
    }

    /// The wider of the standard deviations by the quartiles and by the outer deciles: what one
    /// sample in nine does is usual as well.
    pub(crate) fn wide_sigma(&self) -> f64 {
        self.sigma().max(self.deciles / DECILES_IN_SIGMA)
    }

    /// The least standard deviation of counts: those of independent events deviate by the square
    /// root of their mean, and the resolution of a count is one event.
    pub(crate) fn count_floor(&self) -> f64 {
        self.median.max(0.0).sqrt().max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Median of a sorted list by definition.
    fn median(sorted: &[u32]) -> f64 {
        let half = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            f64::from(sorted[half])
        } else {
            (f64::from(sorted[half - 1]) + f64::from(sorted[half])) / 2.0
        }
    }

    proptest! {
        #[test]
        fn quantiles_equal_those_of_sorted_samples(
            mut samples in prop::collection::vec(0u32..1000, 1..80),
        ) {
            samples.sort_unstable();
            let found = Quantiles::of_sorted(&samples);
            prop_assert_eq!(found.median, median(&samples));
            // A quarter is at or below the lower quartile, a quarter at or above the upper one.
            let (low, high) = (quantile(&samples, 0.25), quantile(&samples, 0.75));
            prop_assert!((found.iqr - (high - low)).abs() < 1e-9);
            let quarter = samples.len().div_ceil(4);
            prop_assert!(samples.iter().filter(|c| f64::from(**c) <= low).count() >= quarter);
            prop_assert!(samples.iter().filter(|c| f64::from(**c) >= high).count() >= quarter);
        }
    }

    #[test]
    fn outliers_change_neither_median_nor_spread() {
        let mut samples: Vec<f64> = (0..100).map(f64::from).collect();
        let usual = Quantiles::of_sorted(&samples);
        samples[95..].iter_mut().for_each(|sample| *sample = 1e9);
        assert_eq!(Quantiles::of_sorted(&samples), usual);
        assert!((usual.wide_sigma() - 36.7).abs() < 0.5, "{usual:?}");
    }
}
