//! Data points (metrics/v1), each in a `Metric` of its own. Numbers are doubles.

use serde_json::Value as Json;

use super::event::EventView;
use super::keys::Special;
use super::resource::{Names, sent_attributes};
use crate::proto_vec::ProtoVec;
use tapio_core::event::Value;

const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// Writes a `Metric` with the point that an application sent.
pub(super) fn sent(out: &mut ProtoVec, event: &EventView<'_>, names: &Names<'_>) {
    out.bytes(1, names.special_text(event, Special::MetricName).as_bytes());
    out.bytes(3, names.special_text(event, Special::MetricUnit).as_bytes());
    let point = names.special_text(event, Special::MetricPoint);
    let point: Json = serde_json::from_str(point).unwrap_or_default();
    let temporality = if point["cumulative"] == true { CUMULATIVE } else { DELTA };
    let times = |out: &mut ProtoVec| {
        out.fixed64(2, point["start_ns"].as_u64().unwrap_or(0));
        out.fixed64(3, event.time_ns);
    };
    let value = |special| number(names.special(event, special));
    match names.special_text(event, Special::MetricType) {
        "histogram" => out.message(9, |out| {
            out.message(1, |out| {
                times(out);
                distribution(out, &point);
                buckets(out, &point);
                sent_attributes(out, 9, event, names, |_, _| false);
                let ends = [(11, Special::MetricMin), (12, Special::MetricMax)];
                for (field, number) in ends.map(|(field, special)| (field, value(special))) {
                    number.into_iter().for_each(|n| out.double(field, n));
                }
            });
            out.number(2, temporality);
        }),
        "summary" => out.message(11, |out| {
            out.message(1, |out| {
                times(out);
                distribution(out, &point);
                for pair in point["quantiles"].as_array().into_iter().flatten() {
                    out.message(6, |out| {
                        out.double(1, pair[0].as_f64().unwrap_or(0.0));
                        out.double(2, pair[1].as_f64().unwrap_or(0.0));
                    });
                }
                sent_attributes(out, 7, event, names, |_, _| false);
            });
        }),
        metric_type => {
            let is_sum = metric_type == "sum";
            out.message(if is_sum { 7 } else { 5 }, |out| {
                out.message(1, |out| {
                    times(out);
                    out.double(4, value(Special::MetricValue).unwrap_or(0.0));
                    sent_attributes(out, 7, event, names, |_, _| false);
                });
                if is_sum {
                    out.number(2, temporality);
                    out.number(3, u64::from(point["monotonic"] == true));
                }
            });
        }
    }
}

fn number(value: Option<Value<'_>>) -> Option<f64> {
    match value? {
        Value::Int(n) => Some(n as f64),
        Value::Float(n) => Some(n),
        _ => None,
    }
}

/// Writes count and sum.
fn distribution(out: &mut ProtoVec, point: &Json) {
    out.fixed64(4, point["count"].as_u64().unwrap_or(0));
    point["sum"].as_f64().into_iter().for_each(|sum| out.double(5, sum));
}

/// Writes the buckets of a histogram; the last one has no bound.
fn buckets(out: &mut ProtoVec, point: &Json) {
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    let mut has_last = false;
    for bucket in point["buckets"].as_array().into_iter().flatten() {
        counts.extend_from_slice(&bucket[1].as_u64().unwrap_or(0).to_le_bytes());
        match bucket[0].as_f64() {
            Some(bound) => bounds.extend_from_slice(&bound.to_le_bytes()),
            None => has_last = true,
        }
    }
    if !counts.is_empty() && !has_last {
        counts.extend_from_slice(&0u64.to_le_bytes());
    }
    out.bytes(6, &counts);
    out.bytes(7, &bounds);
}
