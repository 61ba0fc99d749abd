//! The Prometheus text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{Display, Write as _};

use super::page::{Family, Kind, Page};

/// The media type of a page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Page {
    /// The page in Prometheus' format.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.families().iter().for_each(|family| write_family(&mut text, family));
        text
    }
}

fn write_family(text: &mut String, family: &Family) {
    let metric = &family.metric;
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a string can't fail, here and below.
    let _ = write!(text, "# HELP {0} {1}\n# TYPE {0} {kind}\n", metric.name, metric.help);
    for (labels, value) in &family.samples {
        let pairs = metric.labels.iter().copied().zip(labels.iter().map(String::as_str));
        line(text, metric.name, "", pairs, value);
    }
    let Some(distribution) = &family.distribution else { return };
    let bounds = distribution.buckets.iter().map(|(bound, count)| (bound.to_string(), *count));
    for (bound, count) in bounds.chain([("+Inf".to_owned(), distribution.count)]) {
        line(text, metric.name, "_bucket", [("le", bound.as_str())].into_iter(), count);
    }
    line(text, metric.name, "_sum", [].into_iter(), distribution.sum);
    line(text, metric.name, "_count", [].into_iter(), distribution.count);
}

fn line<'a>(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    value: impl Display,
) {
    let _ = write!(text, "{name}{suffix}");
    let mut opened = false;
    for (name, value) in labels {
        text.push(if opened { ',' } else { '{' });
        opened = true;
        let _ = write!(text, "{name}=\"");
        escape(value, text);
        text.push('"');
    }
    if opened {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
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
    use crate::metrics::{Distribution, Metric};

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
        page.metric(&lost).add(&["ring", "a\"b\\c\nd"], 3u64);
        let distribution = Distribution { buckets: vec![(0.5, 1), (2.0, 4)], count: 5, sum: 12.25 };
        page.distribution(&delay, distribution);
        assert_eq!(
            page.text(),
            "# HELP tapio_lost_total Events lost.\n# TYPE tapio_lost_total counter\n\
             tapio_lost_total{stage=\"ring\",reason=\"a\\\"b\\\\c\\nd\"} 3\n\
             # HELP tapio_delay_seconds Delay.\n# TYPE tapio_delay_seconds histogram\n\
             tapio_delay_seconds_bucket{le=\"0.5\"} 1\ntapio_delay_seconds_bucket{le=\"2\"} 4\n\
             tapio_delay_seconds_bucket{le=\"+Inf\"} 5\n\
             tapio_delay_seconds_sum 12.25\ntapio_delay_seconds_count 5\n"
        );
    }
}
