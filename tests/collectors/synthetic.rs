//! The generated load.

use std::collections::HashSet;

use tapio_collectors::synthetic::{Config, Policy, Rate};
use tapio_collectors::{CollectorConfig, Health};
use tapio_core::event::{Reason, Stage};

use crate::pipeline::Pipeline;

fn start(config: &Config, keep: bool) -> Pipeline {
    assert!(config.enabled());
    Pipeline::start(vec![("synthetic", config.on_full(), config.factory())], keep)
}

#[test]
fn load_has_configured_number_of_events_and_pods() {
    let config =
        Config { enabled: true, rate: Rate::Max, events: 20_000, keys: 50, ..Config::default() };
    let pipeline = start(&config, true);
    pipeline
        .wait_until("the collector finishes", |p| p.manager.status()[0].health == Health::Finished);
    pipeline.wait_until("all events arrive", |p| p.got.lock().unwrap().len() == 20_000);
    let distinct = |pointer: &str| pipeline.texts(pointer).into_iter().collect::<HashSet<_>>();
    assert_eq!(distinct("/id").len(), 20_000);
    assert_eq!(distinct("/entity/k8s.pod.uid").len(), 50);
    assert!(distinct("/kind").len() >= 8);
    assert_eq!(pipeline.end().total.forwarded, 20_000);
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
    let pipeline = start(&config, true);
    pipeline.wait_until("all events arrive", |p| p.got.lock().unwrap().len() == 1_000);
    let times: Vec<u64> = {
        let got = pipeline.got.lock().unwrap();
        got.iter()
            .map(|(_, e)| {
                assert_eq!(e["kind"], "kernel.tcp.refused");
                let time: jiff::Timestamp = e["time"].as_str().unwrap().parse().unwrap();
                time.as_nanosecond() as u64
            })
            .collect()
    };
    // An event's time is its due time, every 250 µs, however late it was generated.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 250_000));
    pipeline.end();
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
    let snapshot = start(&config, true).end();
    assert_eq!(snapshot.total.received, 500_000);
    let dropped: u64 = snapshot.total.dropped.iter().map(|d| d.2).sum();
    assert!(dropped > 0);
    assert_eq!(snapshot.total.forwarded + dropped, 500_000);
    let reasons: Vec<_> = snapshot.total.dropped.iter().map(|d| (d.0, d.1)).collect();
    assert_eq!(reasons, [(Stage::Collect, Reason::RingFull)]);
}
