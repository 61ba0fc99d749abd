//! Cost of names, of redaction and of JSON: `cargo bench --bench event`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapio_core::event::{JsonEvent, Name, event_json, stable_hash};
use tapio_core::redact::Redactor;

const LINE: &str = r#"{"id":"a-1","time":"2026-01-02T03:04:05.000001Z","kind":"k8s.pod.running","source":"k8s","severity":"error","entity":{"node":"node-17","k8s.pod.uid":"6f1c2a52-7f0b-4c57-9d0e-2b1f3a4c5d6e"},"message":"Started container checkout","attributes":{"n":3,"f":1.5,"b":true,"http.method":"GET","reason":"Started","restarts":2}}"#;

const ORDINARY: &str = "I0115 10:00:00.000001 kubelet.go:2421 SyncLoop (PLEG) event for pod shop/cart-7d9c5b6f4-x2x9k, container started in 1.2 s";

fn benches(c: &mut Criterion) {
    c.bench_function("Name::intern of a known name", |b| {
        b.iter(|| Name::intern(black_box("k8s.pod.uid")).unwrap());
    });
    c.bench_function("stable_hash of an id", |b| {
        b.iter(|| {
            stable_hash(black_box(&[b"event", b"k8s", b"6f1c2a52-7f0b-4c57-9d0e-2b1f3a4c5d6e"]))
        });
    });
    let redactor = Redactor::builtin();
    let mut group = c.benchmark_group("redact");
    for (name, text) in [
        ("an ordinary line of 120 bytes", ORDINARY),
        (
            "a line with a trigger",
            "Failed password for invalid user admin from 10.0.0.1 port 22 ssh2",
        ),
        ("a line with a secret", "GET /cart?access_token=0123456789abcdef HTTP/1.1 from 10.0.0.1"),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| redactor.text(black_box(text)).len()));
    }
    group.finish();
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
