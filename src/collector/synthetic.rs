//! Collector `synthetic`: generates the events of a busy node, at a fixed rate or as fast as the
//! rings accept them. The load is open-loop: an event's time is the time at which it was due, so a
//! stalled pipeline shows in the latencies instead of reducing the load.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::event::{Event, EventId, Field, Name, Reason, Severity, Value, names};
use tapio_core::ring::OnFull;

/// Events between two checks of the clock and the shutdown flag.
const BATCH: u64 = 256;

/// How long the collector sleeps when it is ahead of its rate.
const PAUSE: Duration = Duration::from_millis(1);

/// The rate of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Events per second.
    PerSecond(u64),
    /// As many as the rings accept.
    Max,
}

impl serde::Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::PerSecond(n) => to.serialize_u64(*n),
            Self::Max => to.serialize_str("max"),
        }
    }
}

impl schemars::JsonSchema for Rate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "max"}]})
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl Visitor<'_> for RateVisitor {
            type Value = Rate;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("events per second, from 1, or `max`")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Rate, E> {
                if n == 0 {
                    return Err(E::invalid_value(de::Unexpected::Unsigned(n), &self));
                }
                Ok(Rate::PerSecond(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Rate, E> {
                match u64::try_from(n) {
                    Ok(n) => self.visit_u64(n),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(n), &self)),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
                match text {
                    "max" => Ok(Rate::Max),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(RateVisitor)
    }
}

/// The policy for a full ring.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Drop and count, like a source without flow control.
    Drop,
    /// Wait, like a source with flow control.
    #[default]
    Wait,
}

/// The section `collectors.synthetic`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Events per second, or `max`.
    pub rate: Rate,
    /// Seconds after which it ends; 0: no limit.
    pub duration_seconds: u64,
    /// Events after which it ends; 0: no limit.
    pub events: u64,
    /// Kinds to generate; empty: the mix of a busy node.
    pub kinds: Vec<String>,
    /// Number of distinct pods in the events.
    pub keys: u64,
    /// The policy for a full ring.
    pub on_full: Policy,
    /// Seed of the pseudo-random choices: the same seed generates the same events.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            rate: Rate::PerSecond(1_000),
            duration_seconds: 0,
            events: 0,
            kinds: Vec::new(),
            keys: 1_000,
            on_full: Policy::Wait,
            seed: 1,
        }
    }
}

impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn on_full(&self) -> OnFull {
        match self.on_full {
            Policy::Drop => OnFull::Drop,
            Policy::Wait => OnFull::Wait,
        }
    }

    fn busy_threads(&self) -> &'static [&'static str] {
        &["c:synthetic"]
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Synthetic)
    }
}

/// Kinds of a busy node with their weights: many process and connection events, few failures.
const MIX: &[(Name, u32)] = &[
    (names::KERNEL_PROCESS_EXEC, 16),
    (names::KERNEL_PROCESS_EXIT, 16),
    (names::KERNEL_TCP_CONNECT, 24),
    (names::KERNEL_TCP_CLOSE, 24),
    (names::JOURNAL_MESSAGE, 12),
    (names::KERNEL_TCP_RETRANSMIT, 4),
    (names::KERNEL_TCP_REFUSED, 1),
    (names::K8S_POD_RUNNING, 1),
    (names::K8S_POD_READY, 1),
    (names::KERNEL_PROCESS_OOM_KILL, 1),
];

const PROGRAMS: [&str; 4] = ["checkout", "nginx", "postgres", "sidecar-proxy"];

struct Synthetic(Config);

impl Collector for Synthetic {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let config = &self.0;
        let mut generator = Generator::new(config, context.site.origin)?;
        let limit = if config.events == 0 { u64::MAX } else { config.events };
        let length = match config.duration_seconds {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        };
        let (started, started_ns) = (clock::instant(), generator.started_ns);
        let mut sent = 0;
        while !context.shutdown.is_requested() {
            let elapsed = started.elapsed();
            if sent >= limit || elapsed >= length {
                return Ok(Ended::Finished);
            }
            let due = match config.rate {
                Rate::Max => sent + BATCH,
                Rate::PerSecond(rate) => due(elapsed, rate),
            };
            let batch = due.min(limit).saturating_sub(sent).min(BATCH);
            for _ in 0..batch {
                let due_ns = match config.rate {
                    Rate::Max => elapsed.as_nanos() as u64,
                    Rate::PerSecond(rate) => {
                        (u128::from(sent) * 1_000_000_000 / u128::from(rate)) as u64
                    }
                };
                if generator.send(context, started_ns + due_ns) == Err(Reason::Shutdown) {
                    return Ok(Ended::Stopped);
                }
                sent += 1;
            }
            if batch < BATCH {
                context.sink.flush();
                std::thread::sleep(PAUSE);
            }
        }
        Ok(Ended::Stopped)
    }
}

/// The number of events due after this time at this rate.
fn due(elapsed: Duration, rate: u64) -> u64 {
    let due = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// Generates the events; texts are written into reused buffers.
struct Generator {
    kinds: Vec<Name>,
    keys: u64,
    origin: u64,
    started_ns: u64,
    sequence: u64,
    random: u64,
    uid: String,
    pod: String,
}

impl Generator {
    fn new(config: &Config, origin: u64) -> Result<Self, CollectorError> {
        let kinds = if config.kinds.is_empty() {
            let repeat = |&(kind, weight): &(Name, u32)| std::iter::repeat_n(kind, weight as usize);
            MIX.iter().flat_map(repeat).collect()
        } else {
            let intern = |kind: &String| {
                Name::intern(kind).map_err(|e| CollectorError::new("collectors.synthetic.kinds", e))
            };
            config.kinds.iter().map(intern).collect::<Result<_, _>>()?
        };
        let started_ns = clock::wall_ns();
        Ok(Self {
            kinds,
            keys: config.keys.max(1),
            // Each run has its own ids, also after a restart of the collector.
            origin: origin ^ started_ns,
            started_ns,
            sequence: 0,
            random: config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            uid: String::with_capacity(40),
            pod: String::with_capacity(40),
        })
    }

    /// xorshift64*: the choices must be reproducible from a seed, not secret.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn send(&mut self, context: &mut Context, time_ns: u64) -> Result<(), Reason> {
        let random = self.random();
        let key = (random >> 32) % self.keys;
        let kind = self.kinds[(random & 0xffff_ffff) as usize % self.kinds.len()];
        name_pod(&mut self.uid, &mut self.pod, key);
        let program = PROGRAMS[key as usize % PROGRAMS.len()];
        let field = |key, value| Field { key, value };
        let details = details(kind, random);
        let fields = [
            field(names::HOST_NAME, Value::Str(&context.site.node)),
            field(names::K8S_POD_UID, Value::Str(&self.uid)),
            field(names::K8S_POD_NAME, Value::Str(&self.pod)),
            field(names::PROCESS_PID, Value::Int(1_000 + (key % 4_000_000) as i64)),
            field(names::PROCESS_EXECUTABLE_NAME, Value::Str(program)),
            details.fields[0],
            details.fields[1],
            details.fields[2],
        ];
        self.sequence += 1;
        let event = Event {
            fields: &fields,
            entities: 4,
            severity: details.severity,
            message: details.message,
            ..Event::new(
                EventId::from_sequence(self.origin, names::SYNTHETIC.0, self.sequence),
                time_ns,
                kind,
                names::SYNTHETIC,
            )
        };
        context.sink.offer(&event)
    }
}

/// Writes the uid and the name of a pod, from its number.
fn name_pod(uid: &mut String, pod: &mut String, key: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Spread, so that the uids of consecutive pods differ visibly.
    let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let digit = |i: u64| char::from(DIGITS[(spread.rotate_left(i as u32 * 4) & 15) as usize]);
    uid.clear();
    for (group, len) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if group > 0 {
            uid.push('-');
        }
        // The last group is the number itself, so that no two pods share a uid.
        (0..len).for_each(|i| {
            uid.push(if group == 4 {
                char::from(DIGITS[(key >> ((11 - i) * 4) & 15) as usize])
            } else {
                digit(i + group as u64)
            });
        });
    }
    pod.clear();
    pod.push_str("checkout-7d9f8b6c5-");
    (0..8).for_each(|i| pod.push(char::from(DIGITS[(key >> ((7 - i) * 4) & 15) as usize])));
}

/// The fields of one kind.
struct Details {
    fields: [Field<'static>; 3],
    severity: Severity,
    message: &'static str,
}

fn details(kind: Name, random: u64) -> Details {
    use names as n;
    let int = |key, value| Field { key, value: Value::Int(value) };
    let text = |key, value| Field { key, value: Value::Str(value) };
    let (severity, message, fields) = match kind {
        n::KERNEL_PROCESS_EXEC => (
            Severity::INFO,
            "started checkout",
            [
                text(n::PROCESS_EXECUTABLE_PATH, "/usr/local/bin/checkout"),
                int(n::PROCESS_PARENT_PID, 1 + (random >> 50) as i64),
                int(n::PROCESS_OWNER_UID, 1_000),
            ],
        ),
        n::KERNEL_PROCESS_EXIT => (
            Severity::INFO,
            "checkout ended",
            [
                int(n::PROCESS_EXIT_CODE, i64::from(random >> 60 == 0)),
                int(n::TAPIO_PROCESS_DURATION_NS, (random >> 24) as i64),
                int(n::TAPIO_SIGNAL_NUMBER, 0),
            ],
        ),
        n::KERNEL_PROCESS_OOM_KILL => (
            Severity::ERROR,
            "checkout was OOM-killed: cgroup memory limit reached",
            [
                int(n::TAPIO_OOM_RSS_BYTES, 256 << 20),
                int(n::TAPIO_OOM_LIMIT_BYTES, 256 << 20),
                int(n::TAPIO_SIGNAL_NUMBER, 9),
            ],
        ),
        n::KERNEL_TCP_CONNECT | n::KERNEL_TCP_CLOSE => {
            (Severity::INFO, "tcp to 10.1.2.3:5432", peer(random))
        }
        n::KERNEL_TCP_REFUSED | n::KERNEL_TCP_RETRANSMIT => {
            (Severity::WARN, "tcp to 10.1.2.3:5432 failing", peer(random))
        }
        _ => (
            Severity::INFO,
            "checkout logs this line once a second",
            [
                text(n::K8S_NAMESPACE_NAME, "shop"),
                text(n::TAPIO_CGROUP_PATH, "/kubepods/burstable"),
                int(n::PROCESS_OWNER_UID, 1_000),
            ],
        ),
    };
    Details { fields, severity, message }
}

fn peer(random: u64) -> [Field<'static>; 3] {
    let field = |key, value| Field { key, value };
    [
        field(names::NETWORK_PEER_ADDRESS, Value::Str("10.1.2.3")),
        field(names::NETWORK_PEER_PORT, Value::Int(5_432)),
        field(names::NETWORK_LOCAL_PORT, Value::Int((random >> 48) as i64)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_number_or_max() {
        let rate = |text: &str| serde_json::from_str::<Rate>(text).map_err(|e| e.to_string());
        assert_eq!(rate("5"), Ok(Rate::PerSecond(5)));
        assert_eq!(rate("\"max\""), Ok(Rate::Max));
        for bad in ["0", "-1", "\"fast\"", "[]"] {
            assert!(rate(bad).unwrap_err().contains("events per second"), "{bad}");
        }
    }

    #[test]
    fn pod_names_and_uids_are_unique() {
        let mut seen = std::collections::HashSet::new();
        let (mut uid, mut pod) = (String::new(), String::new());
        for key in 0..10_000 {
            name_pod(&mut uid, &mut pod, key);
            assert_eq!(uid.len(), 36);
            assert!(seen.insert(uid.clone()) && seen.insert(pod.clone()));
        }
    }
}
