//! The Prometheus text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! A metric is defined once, as a constant: name, type, label names and help text. A page is made
//! at each scrape from the counters that the threads keep anyway.

use std::fmt::{Display, Write as _};

/// The media type of a page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

impl Kind {
    /// The word of the `# TYPE` line.
    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The definition of a metric.
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

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

/// Writes the samples of one metric.
pub(crate) struct Samples<'a> {
    page: &'a mut String,
    metric: &'a Metric,
}

impl Page {
    /// Begins a metric. Its samples follow each other, as the format requires.
    pub(crate) fn metric<'a>(&'a mut self, metric: &'a Metric) -> Samples<'a> {
        let Metric { name, kind, help, .. } = metric;
        // Writing to a string can't fail, here and below.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.word());
        Samples { page: &mut self.0, metric }
    }

    /// Writes a metric without labels.
    pub(crate) fn value(&mut self, metric: &Metric, value: impl Display) {
        self.metric(metric).add(&[], value);
    }

    /// The text.
    #[must_use]
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// Writes a sample with these label values.
    pub(crate) fn add(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes a histogram: the observations at most as large as each bound, in ascending order of
    /// the bounds, then all observations and their sum.
    pub(crate) fn add_histogram(&mut self, buckets: &[(f64, u64)], count: u64, sum: f64) {
        for (bound, observations) in buckets {
            self.line("_bucket", &[], Some(&bound.to_string()), observations);
        }
        self.line("_bucket", &[], Some("+Inf"), count);
        self.line("_sum", &[], None, sum);
        self.line("_count", &[], None, count);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: impl Display) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let _ = write!(self.page, "{}{suffix}", self.metric.name);
        let pairs = self.metric.labels.iter().copied().zip(labels.iter().copied());
        let mut opened = false;
        for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            self.page.push(if opened { ',' } else { '{' });
            opened = true;
            let _ = write!(self.page, "{name}=\"");
            escape(value, self.page);
            self.page.push('"');
        }
        if opened {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
    }
}

/// Appends a label value with backslashes, quotes and line feeds escaped.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_help_type_and_escaped_labels() {
        let lost = Metric::counter("tapio_lost_total", &["stage", "reason"], "Events lost.");
        let delay = Metric {
            name: "tapio_delay_seconds",
            kind: Kind::Histogram,
            labels: &[],
            help: "Delay.",
        };
        let mut page = Page::default();
        page.metric(&lost).add(&["ring", "a\"b\\c\nd"], 3);
        page.metric(&delay).add_histogram(&[(0.5, 1), (2.0, 4)], 5, 12.25);
        assert_eq!(
            page.into_text(),
            "# HELP tapio_lost_total Events lost.\n# TYPE tapio_lost_total counter\n\
             tapio_lost_total{stage=\"ring\",reason=\"a\\\"b\\\\c\\nd\"} 3\n\
             # HELP tapio_delay_seconds Delay.\n# TYPE tapio_delay_seconds histogram\n\
             tapio_delay_seconds_bucket{le=\"0.5\"} 1\ntapio_delay_seconds_bucket{le=\"2\"} 4\n\
             tapio_delay_seconds_bucket{le=\"+Inf\"} 5\n\
             tapio_delay_seconds_sum 12.25\ntapio_delay_seconds_count 5\n"
        );
    }
}
