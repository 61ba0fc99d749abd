//! How evenly the router spreads events over 1 to 64 shards: `cargo run --release --example balance`.
//!
//! Routes made-up events of usual kinds, which no rule matches, by the built-in rules. Prints the
//! fields by which each kind is routed, and for each distribution of the events over the pods of a
//! node: the visits of shards per event, the busiest shard's share of all visits, and how many times
//! the events of one shard all shards carry together, where each visit costs the same (events divided
//! by the visits of the busiest shard). The last column has the same for a router that would send
//! each event to its home shard only. Each figure is the mean over seeds of the router's hash.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "prints, and fails by panicking")]

use tapio_core::event::{Event, EventId, Field, Name, Severity, Value, names};
use tapio_core::ring::Router as _;
use tapio_dataflow::rules::{RuleSet, builtin};

const EVENTS: u64 = 100_000;
const SEEDS: u64 = 5;
const SHARDS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Replicas of a service on the node.
const REPLICAS: usize = 5;

/// How the events are spread over the pods.
struct Distribution {
    name: &'static str,
    pods: usize,
    /// The rate of the n-th pod is 1 / n to this power.
    exponent: f64,
    /// Share of the events that are the first pod's besides.
    hub: f64,
    /// Share of the events that are about the node itself.
    node: f64,
}

const DISTRIBUTIONS: [Distribution; 6] = [
    Distribution { name: "110 pods, even", pods: 110, exponent: 0.0, hub: 0.0, node: 0.03 },
    Distribution { name: "110 pods, Zipf 1", pods: 110, exponent: 1.0, hub: 0.0, node: 0.03 },
    Distribution { name: "1,000 pods, Zipf 1", pods: 1_000, exponent: 1.0, hub: 0.0, node: 0.03 },
    Distribution { name: "1,000 pods, Zipf 1.3", pods: 1_000, exponent: 1.3, hub: 0.0, node: 0.03 },
    Distribution {
        name: "110 pods, one hub of 50 %",
        pods: 110,
        exponent: 1.0,
        hub: 0.5,
        node: 0.03,
    },
    Distribution {
        name: "110 pods, 30 % of the node",
        pods: 110,
        exponent: 1.0,
        hub: 0.0,
        node: 0.3,
    },
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

struct Pod {
    uid: String,
    name: String,
    service: String,
    peer: String,
    number: i64,
}

fn pods(count: usize) -> Vec<Pod> {
    let pod = |n: usize| Pod {
        uid: format!("{n:08x}-7f0b-4c57-9d0e-2b1f3a4c5d6e"),
        name: format!("service-{}-7d9f8b6c5-{n:05}", n / REPLICAS),
        service: format!("service-{}", n / REPLICAS),
        peer: format!("10.0.{}.{}", n / REPLICAS / 8 % 250, n / REPLICAS % 250),
        number: n as i64 + 10_000,
    };
    (0..count).map(pod).collect()
}

/// A kind, its source and its share of the events of pods, in percent.
const KINDS: [(&str, &str, u64); 8] = [
    ("otlp.log", "otlp", 55),
    ("otlp.span", "otlp", 15),
    ("kernel.process.exec", "ebpf", 6),
    ("kernel.process.exit", "ebpf", 6),
    ("kernel.tcp.connect", "ebpf", 6),
    ("kernel.tcp.retransmit", "ebpf", 4),
    ("journal.message", "journal", 6),
    ("k8s.event", "k8s", 2),
];

fn kind(random: &mut Random) -> (Name, Name) {
    let mut at = random.next() % 100;
    let (kind, source, _) = KINDS
        .iter()
        .find(|(.., share)| at.checked_sub(*share).map(|left| at = left).is_none())
        .unwrap();
    (Name::intern(kind).unwrap(), Name::intern(source).unwrap())
}

/// Visits of shards.
#[derive(Default)]
struct Visits {
    busiest: u64,
    all: u64,
    /// The busiest shard's where events go to their home shards only.
    busiest_home: u64,
}

fn visits(rules: &RuleSet, shape: &Distribution, seed: u64) -> Visits {
    let pods = pods(shape.pods);
    let mut sums = Vec::with_capacity(shape.pods);
    let mut sum = 0.0;
    for n in 1..=shape.pods {
        sum += (n as f64).powf(-shape.exponent);
        sums.push(sum);
    }
    let mut random = Random(seed);
    let (mut counts, mut homes) = ([0u64; 64], [0u64; 64]);
    for n in 0..EVENTS {
        let of_node = random.share() < shape.node;
        let at = if random.share() < shape.hub { 0.0 } else { random.share() * sum };
        let pod = &pods[sums.partition_point(|s| *s < at).min(shape.pods - 1)];
        let (kind, source) = kind(&mut random);
        let field = |key, value| Field { key, value };
        let fields = [
            field(names::HOST_NAME, Value::Str("node-17")),
            field(names::K8S_POD_UID, Value::Str(&pod.uid)),
            field(names::K8S_POD_NAME, Value::Str(&pod.name)),
            field(names::K8S_NAMESPACE_NAME, Value::Str("shop")),
            field(names::SERVICE_NAME, Value::Str(&pod.service)),
            field(names::PROCESS_PID, Value::Int(pod.number)),
            field(names::CGROUP_ID, Value::Int(pod.number)),
            field(names::NETWORK_PEER_ADDRESS, Value::Str(&pod.peer)),
            field(names::NETWORK_PEER_PORT, Value::Int(5432)),
            field(names::PROCESS_EXECUTABLE_NAME, Value::Str("server")),
        ];
        let id = EventId::from_sequence(1, 1, n);
        let of_pod = Event {
            fields: &fields,
            entities: 7,
            severity: Severity::INFO,
            message: "request done",
            ..Event::new(id, n, kind, source)
        };
        let kernel_log = Name::intern("kernel.log").unwrap();
        let of_kernel = Event {
            fields: &fields[..1],
            entities: 1,
            ..Event::new(id, n, kernel_log, names::EBPF)
        };
        let event = if of_node { &of_kernel } else { &of_pod };
        homes[rules.home_shard(event)] += 1;
        let mut visits = rules.route(event).visits;
        while visits != 0 {
            counts[visits.trailing_zeros() as usize] += 1;
            visits &= visits - 1;
        }
    }
    let most = |counts: &[u64; 64]| counts.iter().copied().max().unwrap_or(0);
    Visits { busiest: most(&counts), all: counts.iter().sum(), busiest_home: most(&homes) }
}

fn print_keys() {
    let rules = RuleSet::new(builtin().rules, "", 1);
    for (kind, ..) in KINDS {
        let plan = rules.plan(Name::intern(kind).unwrap());
        let keys = plan.keys.iter().map(|key| {
            let fields: Vec<_> = key.iter().map(|field| format!("{field:?}")).collect();
            fields.join(" + ")
        });
        println!("{kind}: {}", keys.collect::<Vec<_>>().join(", "));
    }
    println!();
}

fn main() {
    print_keys();
    println!(
        "| distribution | shards | visits per event | busiest shard | times one shard | by home only |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for shape in &DISTRIBUTIONS {
        for shards in SHARDS {
            let mut sum = Visits::default();
            for seed in 0..SEEDS {
                // Each set has a hash of its own.
                let rules = RuleSet::new(builtin().rules, "", shards);
                let Visits { busiest, all, busiest_home } = visits(&rules, shape, seed);
                sum.busiest += busiest;
                sum.all += all;
                sum.busiest_home += busiest_home;
            }
            let events = (EVENTS * SEEDS) as f64;
            println!(
                "| {} | {shards} | {:.2} | {:.1} % | {:.1} | {:.1} |",
                shape.name,
                sum.all as f64 / events,
                sum.busiest as f64 * 100.0 / sum.all as f64,
                events / sum.busiest as f64,
                events / sum.busiest_home as f64,
            );
        }
    }
}
