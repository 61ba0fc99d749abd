//! Cost of names and of JSON: `cargo bench --bench event`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapio_core::event::{JsonEvent, Name, event_json, stable_hash};

const LINE: &str = r#"{"id":"a-1","time":"2026-01-02T03:04:05.000001Z","kind":"k8s.pod.running","source":"k8s","severity":"error","entity":{"node":"node-17","k8s.pod.uid":"6f1c2a52-7f0b-4c57-9d0e-2b1f3a4c5d6e"},"message":"Started container checkout","attributes":{"n":3,"f":1.5,"b":true,"http.method":"GET","reason":"Started","restarts":2}}"#;

fn benches(c: &mut Criterion) {
    c.bench_function("Name::intern of a known name", |b| {
        b.iter(|| Name::intern(black_box("k8s.pod.uid")).unwrap());
    });
    c.bench_function("stable_hash of an id", |b| {
        b.iter(|| {
            stable_hash(black_box(&[b"event", b"k8s", b"6f1c2a52-7f0b-4c57-9d0e-2b1f3a4c5d6e"]))
        });
    });
    let mut group = c.benchmark_group("json");
    group.throughput(Throughput::Bytes(LINE.len() as u64));
    group.bench_function("parse a line", |b| {
        b.iter(|| JsonEvent::parse(black_box(LINE), "bench:1").unwrap());
    });
    let parsed = JsonEvent::parse(LINE, "bench:1").unwrap();
    group.bench_function("write a line", |b| {
        b.iter(|| event_json(&parsed.event(1, &mut Vec::new())).to_string());
    });
    group.finish();
}

criterion_group!(event_benches, benches);
criterion_main!(event_benches);
