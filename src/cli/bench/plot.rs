//! Plots of reports, as SVG.

use std::fmt::Display;
use std::path::Path;

use anyhow::Context;
use plotters::coord::ranged1d::{SegmentValue, ValueFormatter};
use plotters::prelude::*;

use super::climb::Ramp;
use super::stats::Summary;

/// Size of a plot, in pixels.
const SIZE: (u32, u32) = (960, 540);
const FONT: (&str, i32) = ("sans-serif", 15);
const TITLE: (&str, i32) = ("sans-serif", 20);
const MARGIN: u32 = 20;
const X_LABELS: u32 = 40;
const Y_LABELS: u32 = 70;
/// Colours that differ for people with colour blindness, too (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(240, 228, 66),
    RGBColor(90, 90, 90),
];
/// Threads that get a colour of their own; the others are one part of the bar.
const MAX_THREADS: usize = COLOURS.len() - 1;
const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// A named line.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// A bar of named parts, from the bottom up.
struct Bar {
    name: String,
    parts: Vec<(String, f64)>,
}

/// Writes `ramp.svg`: latency against rate.
///
/// # Errors
/// When the folder or the file can't be written.
pub(super) fn ramp(folder: &Path, ramp: &Ramp) -> anyhow::Result<()> {
    let line = |name: &str, value: &dyn Fn(&crate::load::otlp::Latency) -> u64| Line {
        name: name.into(),
        points: ramp
            .steps
            .iter()
            .map(|step| (step.rate as f64, milliseconds(value(&step.run.latency_ns))))
            .collect(),
    };
    let lines = [
        line("p50", &|latency| latency.p50),
        line("p99", &|latency| latency.p99),
        line("p99.9", &|latency| latency.p999),
    ];
    let title = match ramp.knee {
        Some(knee) => format!("{}: latency against rate, knee at {knee} records/s", ramp.pipeline),
        None => format!("{}: latency against rate", ramp.pipeline),
    };
    write(folder, "ramp.svg", &latency_against_rate(&title, &lines, ramp.knee)?)
}

/// Writes `percentiles.svg` and `cpu.svg` of pipelines.
///
/// # Errors
/// When the folder or a file can't be written.
pub(super) fn summaries(folder: &Path, summaries: &[Summary]) -> anyhow::Result<()> {
    let lines: Vec<Line> = summaries
        .iter()
        .map(|summary| {
            let latency = &summary.latency_ns;
            let values = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max]
                .map(milliseconds);
            let points = values.into_iter().enumerate().map(|(at, ms)| (at as f64, ms)).collect();
            Line { name: summary.name.clone(), points }
        })
        .collect();
    write(folder, "percentiles.svg", &percentiles(&lines)?)?;
    let bars: Vec<Bar> = summaries.iter().map(bar).collect();
    write(folder, "cpu.svg", &stacked(&bars)?)
}

fn write(folder: &Path, name: &str, svg: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(&path, svg).with_context(|| path.display().to_string())
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The CPU time of generator, sink and the pipeline's threads.
fn bar(summary: &Summary) -> Bar {
    let cpu = &summary.cpu_seconds_per_million;
    let mut parts = vec![("generator".to_owned(), cpu.generator), ("sink".to_owned(), cpu.sink)];
    let mut threads: Vec<(String, f64)> = cpu.threads.clone().into_iter().collect();
    threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts.extend(threads.drain(..threads.len().min(MAX_THREADS - 2)));
    let shown: f64 = parts[2..].iter().map(|(_, seconds)| seconds).sum();
    let rest = cpu.pipeline - shown;
    if rest > 0.0 {
        parts.push(("other threads".to_owned(), rest));
    }
    Bar { name: summary.name.clone(), parts }
}

/// A plotting error as an error of the command.
fn plotting<E: Display>(error: E) -> anyhow::Error {
    anyhow::anyhow!("plot: {error}")
}

/// The decades that values above zero are in: a logarithmic axis has its labels at their ends.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = bounds(values);
    (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().ceil()))
}

/// The bounds of values above zero, a little wider.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let positive = values.filter(|value| *value > 0.0);
    let (least, most) =
        positive.fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(value), b.max(value)));
    if least > most { (0.1, 1.0) } else { (least * 0.8, most * 1.25) }
}

type SvgArea<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws on a white plot. Returns its SVG.
fn draw(on: impl FnOnce(&SvgArea<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(plotting)?;
        on(&area)?;
        area.present().map_err(plotting)?;
    }
    Ok(svg)
}

/// Draws lines with their points and the legend.
fn draw_lines<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    lines: &[Line],
    legend_at: SeriesLabelPosition,
) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        // A logarithmic axis has no zero.
        let points = line.points.iter().copied().filter(|(_, y)| *y > 0.0);
        let series = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        let drawn = chart.draw_series(series).map_err(plotting)?;
        let sample = |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2));
        drawn.label(line.name.clone()).legend(sample);
    }
    let mut legend = chart.configure_series_labels();
    legend.position(legend_at).label_font(FONT).border_style(BLACK);
    legend.background_style(WHITE).draw().map_err(plotting)
}

fn latency_against_rate(title: &str, lines: &[Line], knee: Option<u64>) -> anyhow::Result<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let (left, right) = bounds(all().map(|(x, _)| *x));
    let (low, high) = decades(all().map(|(_, y)| *y));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, TITLE)
            .margin(MARGIN)
            .x_label_area_size(X_LABELS)
            .y_label_area_size(Y_LABELS)
            .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())
            .map_err(plotting)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("records/s").y_desc("latency, ms").label_style(FONT).axis_desc_style(FONT);
        mesh.draw().map_err(plotting)?;
        if let Some(knee) = knee {
            let path = [(knee as f64, low), (knee as f64, high)];
            let mark = PathElement::new(path, BLACK.mix(0.5).stroke_width(1));
            chart.draw_series([mark]).map_err(plotting)?;
        }
        draw_lines(&mut chart, lines, SeriesLabelPosition::LowerRight)
    })
}

fn percentiles(lines: &[Line]) -> anyhow::Result<String> {
    let (low, high) = decades(lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)));
    draw(|area| {
        let last = (PERCENTILES.len() - 1) as f64;
        let mut chart = ChartBuilder::on(area)
            .caption("latency by percentile", TITLE)
            .margin(MARGIN)
            .x_label_area_size(X_LABELS)
            .y_label_area_size(Y_LABELS)
            .build_cartesian_2d(-0.2..last + 0.2, (low..high).log_scale())
            .map_err(plotting)?;
        let name = |x: &f64| {
            let is_whole = (x - x.round()).abs() < 1e-6;
            let name = is_whole.then(|| PERCENTILES.get(x.round() as usize)).flatten();
            name.copied().unwrap_or_default().to_owned()
        };
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().x_labels(PERCENTILES.len()).x_label_formatter(&name);
        mesh.y_desc("latency, ms").label_style(FONT).axis_desc_style(FONT);
        mesh.draw().map_err(plotting)?;
        draw_lines(&mut chart, lines, SeriesLabelPosition::UpperLeft)
    })
}

fn stacked(bars: &[Bar]) -> anyhow::Result<String> {
    let sum = |bar: &Bar| bar.parts.iter().map(|(_, value)| value).sum::<f64>();
    let high = bars.iter().map(sum).fold(1e-9, f64::max) * 1.1;
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in bars.iter().flat_map(|bar| &bar.parts) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    draw(|area| {
        // The range includes its end: one segment more than bars, which is the legend's.
        let segments = (0..bars.len()).into_segmented();
        let mut chart = ChartBuilder::on(area)
            .caption("CPU seconds per million records", TITLE)
            .margin(MARGIN)
            .x_label_area_size(X_LABELS)
            .y_label_area_size(Y_LABELS)
            .build_cartesian_2d(segments, 0.0..high)
            .map_err(plotting)?;
        let name = |at: &SegmentValue<usize>| {
            match at {
                SegmentValue::CenterOf(bar) => bars.get(*bar).map(|bar| bar.name.clone()),
                _ => None,
            }
            .unwrap_or_default()
        };
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().x_labels(bars.len() + 1).x_label_formatter(&name);
        mesh.y_desc("CPU s per million").label_style(FONT).axis_desc_style(FONT);
        mesh.draw().map_err(plotting)?;
        for (part, colour) in names.iter().zip(COLOURS.iter().cycle()) {
            let boxes = bars.iter().enumerate().filter_map(|(at, bar)| {
                let position = bar.parts.iter().position(|(name, _)| name == part)?;
                let low: f64 = bar.parts[..position].iter().map(|(_, value)| value).sum();
                let corners = [
                    (SegmentValue::Exact(at), low),
                    (SegmentValue::Exact(at + 1), low + bar.parts[position].1),
                ];
                let mut rectangle = Rectangle::new(corners, colour.filled());
                rectangle.set_margin(0, 0, MARGIN, MARGIN);
                Some(rectangle)
            });
            let drawn = chart.draw_series(boxes).map_err(plotting)?;
            let sample = |(x, y)| Rectangle::new([(x, y - 5), (x + 20, y + 5)], colour.filled());
            drawn.label(*part).legend(sample);
        }
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperRight).label_font(FONT).border_style(BLACK);
        legend.background_style(WHITE).draw().map_err(plotting)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::climb::{Step, tests::run_at};
    use super::super::session::CpuPerMillion;
    use super::*;
    use crate::load::otlp::Latency;

    fn summary(name: &str, threads: usize) -> Summary {
        let threads: BTreeMap<String, f64> =
            (0..threads).map(|i| (format!("thread-{i}"), 0.1 * (i + 1) as f64)).collect();
        let pipeline = threads.values().sum();
        Summary {
            name: name.into(),
            cpu_seconds_per_million: CpuPerMillion { generator: 0.1, sink: 0.2, pipeline, threads },
            latency_ns: Latency {
                p50: 1_000_000,
                p90: 2_000_000,
                p99: 9_000_000,
                p999: 12_000_000,
                max: 30_000_000,
            },
            ..Summary::default()
        }
    }

    #[test]
    fn plots_are_svg_with_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("plots");
        let steps = [(1_000, 1), (10_000, 2), (20_000, 80)].map(|(rate, p99_ms)| Step {
            rate,
            keeps_up: p99_ms < 10,
            run: run_at(rate as f64, p99_ms),
        });
        let climbed = Ramp {
            pipeline: "tapio".into(),
            knee: Some(10_000),
            idle_p99_ns: 1_000_000,
            steps: steps.to_vec(),
        };
        ramp(&folder, &climbed).unwrap();
        summaries(&folder, &[summary("direct", 0), summary("tapio", 12)]).unwrap();
        let svg = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        for (name, texts) in [
            ("ramp.svg", ["p99.9", "knee at 10000 records/s", "records/s"]),
            ("percentiles.svg", ["direct", "tapio", "p99.9"]),
            ("cpu.svg", ["generator", "thread-11", "other threads"]),
        ] {
            let svg = svg(name);
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
            for text in texts {
                assert!(svg.contains(text), "{name} has no {text}:\n{svg}");
            }
        }
    }

    #[test]
    fn parts_of_a_bar_add_up() {
        let summary = summary("tapio", 12);
        let bar = bar(&summary);
        let sum: f64 = bar.parts.iter().map(|(_, seconds)| seconds).sum();
        assert!((sum - 0.3 - summary.cpu_seconds_per_million.pipeline).abs() < 1e-9);
        assert_eq!(bar.parts.len(), MAX_THREADS + 1);
        assert_eq!(bounds([0.0, 2.0, 10.0].into_iter()), (1.6, 12.5));
        assert_eq!(bounds([0.0].into_iter()), (0.1, 1.0));
        assert_eq!(decades([0.0, 2.0, 30.0].into_iter()), (1.0, 100.0));
    }

    #[test]
    fn folder_that_is_a_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = summaries(file.path(), &[summary("direct", 0)]).unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error:#}");
    }
}
