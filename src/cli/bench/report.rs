//! The readable parts of reports on OTLP.

use serde_json::Value as Json;

use super::stats::Summary;
use super::table::{Charset, Table, grouped, mib, ms, short};

/// Rates, delays, memory and losses of pipelines. `flat_out` is the direct one without a rate.
pub(super) fn summary_lines(
    summaries: &[&Summary],
    flat_out: Option<&Summary>,
    charset: Charset,
) -> Vec<String> {
    let mut rates = Table::new(["", "records/s", "", "R", "C"]);
    let largest = |value: &dyn Fn(&Summary) -> f64| {
        summaries.iter().copied().chain(flat_out).map(value).fold(0.0, f64::max)
    };
    let top = largest(&|summary| summary.records_per_second);
    for (summary, suffix) in
        flat_out.iter().map(|s| (*s, " flat out")).chain(summaries.iter().map(|s| (*s, "")))
    {
        let is_direct = summary.name == "direct";
        rates.row([
            summary.name.clone() + suffix,
            grouped(summary.records_per_second as u64),
            charset.bar(summary.records_per_second, top),
            short(summary.r),
            if is_direct { "-".into() } else { short(summary.c) },
        ]);
    }
    let top = largest(&|summary| summary.latency_ns.p99 as f64);
    let mut delays = Table::new(["delay, ms", "p50", "p90", "p99", "", "p99.9", "max"]);
    for summary in summaries {
        let latency = &summary.latency_ns;
        let [p50, p90, p99, p999, max] =
            [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(|ns| ns as f64);
        let bar = charset.bar(p99, top);
        delays.row([summary.name.clone(), ms(p50), ms(p90), ms(p99), bar, ms(p999), ms(max)]);
    }
    let mut rest =
        Table::new(["records", "lost", "duplicate", "refused", "late", "CONS-1", "RSS, MiB"]);
    for summary in summaries {
        let cons1 = match summary.cons1_holds {
            None => "-",
            Some(true) => "holds",
            Some(false) => "VIOLATED",
        };
        let [lost, duplicates, refused, late] =
            [summary.lost, summary.duplicates, summary.refused, summary.late].map(grouped);
        let rss = match summary.peak_rss_bytes {
            0 => "-".into(),
            bytes => mib(bytes as f64),
        };
        let name = summary.name.clone();
        rest.row([name, lost, duplicates, refused, late, cons1.into(), rss]);
    }
    [rates.lines(), vec![String::new()], delays.lines(), vec![String::new()], rest.lines()].concat()
}

/// CPU time by process, and by thread of the pipelines that have threads of distinct names.
pub(super) fn cost_lines(summaries: &[&Summary], charset: Charset) -> Vec<String> {
    let top = summaries.iter().map(|s| s.cpu_seconds_per_million.pipeline).fold(0.0, f64::max);
    let title = "CPU s per million";
    let mut costs = Table::new([title, "generator", "sink", "pipeline", ""]);
    for summary in summaries {
        let cpu = &summary.cpu_seconds_per_million;
        costs.row([
            summary.name.clone(),
            short(cpu.generator),
            short(cpu.sink),
            short(cpu.pipeline),
            charset.bar(cpu.pipeline, top),
        ]);
        let mut threads: Vec<_> = cpu.threads.iter().collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        // The others cost less than what two runs differ by.
        let least = (cpu.pipeline / 100.0).max(f64::MIN_POSITIVE);
        let shown = threads.iter().filter(|(_, seconds)| **seconds >= least);
        for (name, seconds) in shown {
            let bar = charset.bar(**seconds, top);
            costs.row([format!("  {name}"), String::new(), String::new(), short(**seconds), bar]);
        }
    }
    costs.lines()
}

/// The machine in a line.
pub(super) fn machine_line(machine: &Json) -> String {
    let text = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
    format!("{} cores, {}, Linux {}", machine["cores"], text("cpu"), text("kernel"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::session::CpuPerMillion;
    use super::*;
    use crate::load::otlp::Latency;

    fn summary(name: &str, rate: f64, pipeline: f64) -> Summary {
        Summary {
            name: name.into(),
            records_per_second: rate,
            r: rate / 4e6,
            c: pipeline / 0.2,
            cpu_seconds_per_million: CpuPerMillion {
                generator: 0.08,
                sink: 0.12,
                pipeline,
                threads: BTreeMap::from([("shard".into(), pipeline / 2.0), ("admin".into(), 0.0)]),
            },
            latency_ns: Latency {
                p50: 1_500_000,
                p90: 2_000_000,
                p99: 9_740_000,
                p999: 20_000_000,
                max: 31_000_000,
            },
            peak_rss_bytes: 80 << 20,
            cons1_holds: (name == "tapio").then_some(true),
            ..Summary::default()
        }
    }

    #[test]
    fn report_shows_rates_delays_losses_and_costs() {
        let (direct, tapio) = (summary("direct", 4e6, 0.0), summary("tapio", 1e6, 2.0));
        let lines = summary_lines(&[&direct, &tapio], None, Charset::Ascii);
        let expected = [
            "        records/s                               R     C",
            "direct  4,000,000  ########################  1.00     -",
            "tapio   1,000,000  ######                    0.25  10.0",
        ];
        assert_eq!(lines[..3], expected);
        assert_eq!(lines[6], "tapio      1.50  2.00  9.74  ########################   20.0  31.0");
        assert!(lines[10].contains("holds") && lines[10].ends_with("80"), "{lines:#?}");
        let costs = cost_lines(&[&direct, &tapio], Charset::Ascii);
        assert_eq!(costs.len(), 4, "threads that cost nothing aren't shown: {costs:#?}");
        assert!(costs[3].starts_with("  shard") && costs[3].ends_with(&"#".repeat(12)));
        let machine = json!({"cores": 2, "cpu": "EPYC", "kernel": "6.18"});
        assert_eq!(machine_line(&machine), "2 cores, EPYC, Linux 6.18");
    }
}
