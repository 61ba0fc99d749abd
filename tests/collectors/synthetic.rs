//! The generated load.

use std::collections::HashSet;

use tapio_collectors::synthetic::{Config, Policy, Rate};
use tapio_collectors::{CollectorConfig, Health};
use tapio_core::event::{Reason, Stage};

use crate::support::pipeline::Pipeline;

fn start(config: &Config) -> Pipeline {
    assert!(config.enabled());
    Pipeline::start("synthetic", config)
}

#[test]
fn load_has_configured_number_of_events_and_pods() {
    let config =
        Config { enabled: true, rate: Rate::Max, events: 20_000, keys: 50, ..Config::default() };
    let pipeline = start(&config);
    pipeline.wait_until("the collector finishes", |p| p.status().health == Health::Finished);
    pipeline.wait_until("all events arrive", |p| p.count() == 20_000);
    let distinct = |pointer: &str| pipeline.texts(pointer).into_iter().collect::<HashSet<_>>();
    assert_eq!(distinct("id").len(), 20_000);
    assert_eq!(distinct("k8s.pod.uid").len(), 50);
    assert!(distinct("kind").len() >= 8);
    assert_eq!(pipeline.finish().snapshot.total.forwarded, 20_000);
}

#[test]
fn events_at_a_rate_have_their_due_times() {
    let config = Config {
        enabled: true,
        rate: Rate::PerSecond(4_000),
        events: 1_000,
        kinds: vec!["kernel.tcp.refused".into()],
        ..Config::default()
    };
    let pipeline = start(&config);
    pipeline.wait_until("all events arrive", |p| p.count() == 1_000);
    let time_ns = |e: &serde_json::Value| {
        assert_eq!(e["kind"], "kernel.tcp.refused");
        let time: jiff::Timestamp = e["time"].as_str().unwrap().parse().unwrap();
        time.as_nanosecond() as u64
    };
    let times: Vec<u64> = pipeline.finish().events.iter().map(time_ns).collect();
    // An event's time is its due time, every 250 µs, however late it was generated.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 250_000));
}

#[test]
fn events_dropped_by_full_ring_are_counted() {
    let config = Config {
        enabled: true,
        rate: Rate::Max,
        events: 500_000,
        on_full: Policy::Drop,
        ..Config::default()
    };
    // Keeping the JSON form makes the consumer far slower than the collector.
    let snapshot = start(&config).finish().snapshot;
    assert_eq!(snapshot.total.received, 500_000);
    let dropped: u64 = snapshot.total.dropped.iter().map(|d| d.2).sum();
    assert!(dropped > 0);
    assert_eq!(snapshot.total.forwarded + dropped, 500_000);
    let reasons: Vec<_> = snapshot.total.dropped.iter().map(|d| (d.0, d.1)).collect();
    assert_eq!(reasons, [(Stage::Collect, Reason::RingFull)]);
}
