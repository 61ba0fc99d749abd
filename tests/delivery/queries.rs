//! Queries find what a scan of everything finds, whatever segments the events are in.

use std::path::PathBuf;

use prost::Message as _;
use tapio_wire::proto;

use super::support::sim_disk::{Rng, SimDisk};
use super::*;

const KINDS: [&str; 4] = ["t.one", "t.two", "u.three", "u.four"];

/// An event as it was stored: node, kind, trace, pod.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    id: Vec<u8>,
    node: String,
    kind: usize,
    trace: Vec<u8>,
    pod: String,
}

impl Stored {
    fn random(id: u64, node: &str, rng: &mut Rng) -> Self {
        let trace = match rng.below(5) {
            0 => Vec::new(),
            n => vec![n as u8; 16],
        };
        Self {
            id: u128::from(id).to_be_bytes().to_vec(),
            node: node.to_owned(),
            kind: rng.below(KINDS.len() as u64) as usize,
            trace,
            pod: format!("pod-{}", rng.below(12)),
        }
    }

    fn to_proto(&self) -> proto::Event {
        let value = proto::field::Value::StringValue(self.pod.clone());
        proto::Event {
            time_unix_nano: 1_000,
            id: self.id.clone(),
            kind: self.kind as u32,
            trace_id: self.trace.clone(),
            entity: vec![proto::Field { key: KINDS.len() as u32, value: Some(value) }],
            ..Default::default()
        }
    }

    fn matches(&self, filter: &EventFilter) -> bool {
        (filter.node.is_empty() || filter.node == self.node)
            && (filter.trace_id.is_empty() || filter.trace_id == self.trace)
            && (filter.kind.is_empty() || tapio_core::glob::matches(&filter.kind, KINDS[self.kind]))
            && (filter.entity.is_empty() || filter.entity == format!("k8s.pod.name={}", self.pod))
    }
}

fn random_filter(rng: &mut Rng) -> EventFilter {
    let mut one_of = |texts: &[&str]| texts[rng.below(texts.len() as u64) as usize].to_owned();
    let kind = one_of(&["", "", "t.one", "u.*", "absent"]);
    let node = one_of(&["", "", "node-0", "node-2", "absent"]);
    let entity = one_of(&["", "", "k8s.pod.name=pod-3", "k8s.pod.name=absent", "process.pid=1"]);
    let trace_id = match rng.below(8) {
        n @ 1..=5 => vec![n as u8; 16],
        _ => Vec::new(),
    };
    EventFilter { kind, trace_id, node, entity }
}

/// Stores a batch of one node; some of them in the name of an earlier process.
fn append(storage: &mut Storage, events: &[Stored], first_sequence: u64) {
    let names = KINDS.iter().chain(&["k8s.pod.name"]).map(|n| (*n).to_owned());
    let bytes = proto::EventBatch {
        first_sequence,
        count: events.len() as u32,
        node: events[0].node.clone(),
        epoch: 7,
        names: names.collect(),
        events: events.iter().map(Stored::to_proto).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    storage.append(&bytes, first_sequence).unwrap();
}

/// The ids of the events that a query finds, newest first.
fn found(storage: &Storage, filter: &EventFilter, limit: usize) -> Vec<Vec<u8>> {
    let mut ids = Vec::new();
    for found in storage.select_events(filter.clone()).read(limit).unwrap() {
        let batch = proto::EventBatch::decode(&found.batch[..]).unwrap();
        ids.extend(found.positions.iter().rev().map(|p| batch.events[*p].id.clone()));
    }
    ids
}

fn run(seed: u64) {
    let (mut rng, disk) = (Rng(seed), SimDisk::default());
    let config = ServerConfig {
        segment_bytes: 2_000,
        ..server_config(&PathBuf::from("/store"), any_port())
    };
    let open = || Storage::open(&config, Arc::new(disk.clone())).unwrap();
    let mut storage = open();
    let mut all: Vec<Stored> = Vec::new();
    for _ in 0..60 {
        let node = format!("node-{}", rng.below(4));
        let events: Vec<_> = (0..1 + rng.below(6))
            .map(|n| Stored::random(all.len() as u64 + n, &node, &mut rng))
            .collect();
        append(&mut storage, &events, all.len() as u64);
        all.extend(events);
        if rng.one_in(20) {
            drop(storage);
            disk.kill();
            storage = open();
        }
    }
    for _ in 0..20 {
        let filter = random_filter(&mut rng);
        let limit = if rng.one_in(2) { usize::MAX } else { 1 + rng.below(20) as usize };
        let newest_first = all.iter().rev().filter(|event| event.matches(&filter));
        let expected: Vec<_> = newest_first.take(limit).map(|event| event.id.clone()).collect();
        assert_eq!(found(&storage, &filter, limit), expected, "seed {seed}: {filter:?}");
    }
}

#[test]
fn queries_find_what_a_scan_finds() {
    (0..100).for_each(run);
}
