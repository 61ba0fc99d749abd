//! A page of metrics: made at each scrape, or each export, from the counters that the threads keep
//! anyway.

use std::fmt;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only increases while the process runs; the name ends in `_total`.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Cumulative counts of observations by upper bound.
    Histogram,
}

/// The definition of a metric, a constant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// The full name.
    pub(crate) name: &'static str,
    /// The type.
    pub(crate) kind: Kind,
    /// The label names, in the order in which samples give their values.
    pub(crate) labels: &'static [&'static str],
    /// One sentence for a reader of the page.
    pub(crate) help: &'static str,
}

impl Metric {
    /// A counter.
    #[must_use]
    pub(crate) const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    #[must_use]
    pub(crate) const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }
}

/// The value of a counter or a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// A count.
    Integer(i128),
    /// A duration or a point in time, in seconds.
    Float(f64),
}

impl Number {
    /// The number; counts above 2^53 are rounded.
    #[must_use]
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Integer(number.into())
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self::Integer(number.into())
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Integer(number as i128)
    }
}

impl From<u8> for Number {
    fn from(number: u8) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}

/// A histogram's value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Distribution {
    /// Upper bounds, ascending, each with the observations that are at most as large.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// All observations.
    pub(crate) count: u64,
    /// Their sum.
    pub(crate) sum: f64,
}

/// A metric with its values.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    /// Its definition.
    pub(crate) metric: Metric,
    /// The values of a counter or a gauge, each with those of its labels.
    pub(crate) samples: Vec<(Vec<String>, Number)>,
    /// The value of a histogram.
    pub(crate) distribution: Option<Distribution>,
}

impl Family {
    /// Adds a sample with these label values.
    pub(crate) fn add(&mut self, labels: &[&str], value: impl Into<Number>) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        self.samples.push((labels, value.into()));
    }
}

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    families: Vec<Family>,
}

impl Page {
    /// Begins a metric, whose samples are added to the result. Each is begun once.
    pub(crate) fn metric(&mut self, metric: &Metric) -> &mut Family {
        self.families.push(Family { metric: *metric, samples: Vec::new(), distribution: None });
        let last = self.families.len() - 1;
        &mut self.families[last]
    }

    /// Adds a metric without labels.
    pub(crate) fn value(&mut self, metric: &Metric, value: impl Into<Number>) {
        self.metric(metric).add(&[], value);
    }

    /// Adds a histogram.
    pub(crate) fn distribution(&mut self, metric: &Metric, distribution: Distribution) {
        self.metric(metric).distribution = Some(distribution);
    }

    /// The metrics.
    #[must_use]
    pub(crate) fn families(&self) -> &[Family] {
        &self.families
    }

    /// Adds those metrics of another page that this one doesn't have.
    #[must_use]
    pub(crate) fn with(mut self, other: Self) -> Self {
        let known: Vec<&str> = self.families.iter().map(|family| family.metric.name).collect();
        let mut others = other.families;
        others.retain(|family| !known.contains(&family.metric.name));
        self.families.append(&mut others);
        self
    }
}
