//! Disturbances from the kernel's TCP events, as the collector emits them: which instances are at
//! both ends, with and without OTLP.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use serde_json::{Value as Json, json};
use tapio_core::event::{IncidentRole, Story};
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rules::builtin;

const START_MS: u64 = 1_700_000_000_000;

/// A process, and where it is.
#[derive(Clone, Copy)]
struct Process {
    entity: fn() -> Json,
    program: &'static str,
    address: &'static str,
}

const SHOP: Process = Process {
    entity: || json!({"node": "a", "systemd.unit": "shop.service", "process.pid": 100}),
    program: "/usr/bin/shop",
    address: "10.0.0.5",
};
const PAYMENTS: Process = Process {
    entity: || json!({"node": "a", "systemd.unit": "payments.service", "process.pid": 200}),
    program: "/usr/bin/payments",
    address: "10.0.0.6",
};
/// Another process of the same program, which sends nothing by itself.
const WORKER: Process = Process {
    entity: || json!({"node": "a", "systemd.unit": "payments.service", "process.pid": 201}),
    ..PAYMENTS
};
/// A script in a session: it has no unit for long, and its program is its interpreter's file.
const PROBE: Process = Process {
    entity: || json!({"node": "a", "systemd.unit": "session-7.scope", "process.pid": 300}),
    program: "/usr/bin/python3.13",
    address: "10.0.0.5",
};

fn pod(uid: &str, name: &str, container: &str) -> Json {
    json!({"node": "a", "k8s.pod.uid": uid, "k8s.pod.name": name, "k8s.namespace.name": "shop",
           "container.id": container, "process.pid": 400})
}

#[derive(Default)]
struct Log {
    lines: Vec<Json>,
    port: u64,
}

impl Log {
    fn push(&mut self, at_ms: u64, kind: &str, entity: &Json, attributes: Json) {
        let number = self.lines.len();
        self.lines.push(json!({
            "id": format!("e-{number}"), "time": (START_MS + at_ms) * 1_000_000, "kind": kind,
            "source": "ebpf", "severity": if kind.ends_with("refused") { "warn" } else { "info" },
            "entity": entity, "attributes": attributes, "message": kind,
        }));
    }

    /// An attempt to connect to a port of the callee: both ends' events.
    fn attempt(&mut self, at_ms: u64, (from, to): (Process, Process), port: u64, is_refused: bool) {
        self.port += 1;
        let near = 40_000 + self.port % 20_000;
        let comm = |process: &Process| match process.program {
            "/usr/bin/python3.13" => "probe.py".to_owned(),
            path => path.rsplit('/').next().unwrap().to_owned(),
        };
        let attributes = |own: &Process, ports: [u64; 2], peer: &str, more: Json| {
            let mut all = json!({
                "process.executable.name": comm(own), "process.executable.path": own.program,
                "network.transport": "tcp", "network.type": "ipv4",
                "network.local.address": own.address, "network.local.port": ports[0],
                "network.peer.address": peer, "network.peer.port": ports[1],
            });
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let (out, back) = ([near, port], [port, near]);
        let (caller, callee) = ((from.entity)(), (to.entity)());
        if is_refused {
            let more = json!({"tapio.tcp.state": "SYN_SENT", "error.type": "ECONNREFUSED",
                              "tapio.tcp.duration_ns": 40_000});
            let of_caller = attributes(&from, out, to.address, more);
            return self.push(at_ms, "kernel.tcp.refused", &caller, of_caller);
        }
        let more = json!({"tapio.tcp.state": "SYN_SENT", "tapio.tcp.duration_ns": 200_000});
        let of_caller = attributes(&from, out, to.address, more);
        self.push(at_ms, "kernel.tcp.connect", &caller, of_caller);
        let of_callee = attributes(&to, back, from.address, json!({"tapio.tcp.state": "SYN_RECV"}));
        self.push(at_ms, "kernel.tcp.accept", &callee, of_callee);
        for (own, entity, ports, peer, is_incoming) in
            [(&from, &caller, out, to.address, false), (&to, &callee, back, from.address, true)]
        {
            let more = json!({"tapio.tcp.state": "LAST_ACK", "tapio.tcp.incoming": is_incoming});
            let of_end = attributes(own, ports, peer, more);
            self.push(at_ms + 20, "kernel.tcp.close", entity, of_end);
        }
    }

    /// Two attempts a second for ten minutes, and two minutes of refusals.
    fn run(&mut self, ends: (Process, Process), port: u64) {
        for number in 0..1_440 {
            self.attempt(number * 500, ends, port, number >= 1_200);
        }
    }

    /// A server's span twice a second, of a process with this entity.
    fn spans(&mut self, service: &str, entity: Json) {
        for number in 0..1_440u64 {
            let mut entity = entity.clone();
            entity["service.name"] = service.into();
            let at_ns = (START_MS + number * 500) * 1_000_000;
            self.lines.push(json!({
                "id": format!("{service}-{number}"), "time": at_ns, "kind": "otlp.span",
                "source": "otlp", "severity": "info", "entity": entity, "message": "GET /",
                "trace_id": format!("{:032x}", number + 1),
                "span_id": format!("{:016x}", number + 1),
                "attributes": {"tapio.span.duration_ns": 5_000_000, "tapio.span.kind": "server"},
            }));
        }
    }

    /// The stories of disturbances, and of the other rules; the same with any number of shards.
    fn stories(self) -> (Vec<Story>, Vec<Story>) {
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let replayed = |shards| {
            let inputs = Inputs::text("connections.jsonl", &text);
            let replayed = run(inputs, builtin().rules, "", shards, Emit::Stories).unwrap();
            assert_eq!(replayed.refused, []);
            (replayed.lines, replayed.stories)
        };
        let (lines, stories) = replayed(1);
        assert!(lines == replayed(3).0, "the number of shards matters");
        stories.into_iter().partition(|story| story.rule == "service-disturbance")
    }
}

#[track_caller]
fn assert_cause(story: &Story, cause: &str, kind: &str) {
    let first = &story.root_cause[0];
    assert!(first.cause.starts_with(cause), "{first:#?}");
    assert_eq!(first.entity.as_ref().unwrap().kind, kind, "{first:#?}");
}

#[test]
fn units_are_instances_and_storm_and_disturbance_are_one_incident() {
    let mut log = Log::default();
    log.run((SHOP, PAYMENTS), 5432);
    // The client of a service that is down for good polls it.
    for number in 0..720 {
        log.attempt(number * 1_000, (PROBE, PAYMENTS), 9_999, true);
    }
    let (disturbances, others) = log.stories();
    assert_eq!(disturbances.len(), 1, "{disturbances:#?}");
    let disturbance = &disturbances[0];
    assert_cause(disturbance, "payments.service: shop.service: is refused by", "unit");
    assert!(disturbance.key.contains(&("systemd.unit".into(), "payments.service".into())));
    // The rule needs ten refusals in ten seconds; both are about one address.
    let storms: Vec<&Story> =
        others.iter().filter(|story| story.rule == "connection-refused-storm").collect();
    let of_port = |story: &&&Story| story.key.iter().any(|(_, value)| value == "5432");
    let storm = storms.iter().find(of_port).unwrap();
    let (parent, child) =
        if disturbance.incident.is_none() { (disturbance, *storm) } else { (*storm, disturbance) };
    let incident = child.incident.as_ref().unwrap();
    assert_eq!((incident.id, incident.role), (parent.id, IncidentRole::Same), "{incident:?}");
}

/// The SDK in a pod reports the pod's name, the one in a unit its process.
#[test]
fn connections_of_a_pod_or_process_are_those_of_its_service() {
    let of_pod = Process {
        entity: || pod("u-1", "orders-1", &"a".repeat(64)),
        program: "/app/java",
        address: "10.1.0.7",
    };
    let mut log = Log::default();
    log.run((of_pod, PAYMENTS), 5432);
    log.run((of_pod, WORKER), 5433);
    log.spans("orders", json!({"k8s.pod.name": "orders-1", "k8s.namespace.name": "shop"}));
    log.spans("payments-api", json!({"node": "a", "process.pid": 200}));
    let (disturbances, _) = log.stories();
    assert_eq!(disturbances.len(), 1, "{disturbances:#?}");
    assert_cause(&disturbances[0], "payments-api: orders: is refused by payments-api", "service");
    let caller = disturbances[0].root_cause[1].entity.as_ref().unwrap();
    assert_eq!((caller.kind.as_str(), caller.name.as_str()), ("pod", "shop/orders-1"));
    assert_eq!(disturbances[0].root_cause.len(), 2, "{disturbances:#?}");
}

/// Each pod has a loopback address of its own: what listens in one isn't what another connects to.
#[test]
fn loopback_of_a_pod_is_its_own() {
    let one = Process {
        entity: || pod("u-1", "orders-1", &"a".repeat(64)),
        program: "/app/java",
        address: "127.0.0.1",
    };
    let other = Process {
        entity: || pod("u-2", "mail-1", &"b".repeat(64)),
        program: "/app/mail",
        address: "127.0.0.1",
    };
    let mut log = Log::default();
    // Within a pod there is no pair. It has a listener at this address until the end.
    for number in 0..1_440 {
        log.attempt(number * 500 + 7, (one, one), 6_379, false);
    }
    log.run((other, PAYMENTS), 5_432);
    for number in 0..1_440 {
        let ends = (other, Process { address: "127.0.0.1", ..PAYMENTS });
        // Nobody else than the node's own processes has this listener: here it has no instance.
        log.attempt(number * 500 + 11, ends, 6_379, number >= 1_200);
    }
    let (disturbances, _) = log.stories();
    assert_eq!(disturbances.len(), 1, "{disturbances:#?}");
    let causes: Vec<&str> =
        disturbances[0].root_cause.iter().map(|candidate| candidate.cause.as_str()).collect();
    assert!(causes.iter().all(|cause| !cause.contains("orders")), "{causes:?}");
    let terms = disturbances[0].root_cause.iter().flat_map(|candidate| &candidate.terms);
    let because: Vec<&str> = terms.map(|term| term.because.as_str()).collect();
    assert!(because.iter().any(|term| term.contains("refused by 127.0.0.1:6379")), "{because:?}");
}

/// A script has its own name, and what it connects to by its address is named by that.
#[test]
fn program_outside_of_units_and_an_address_are_instances() {
    let remote = Process { address: "192.0.2.9", ..PAYMENTS };
    let mut log = Log::default();
    log.run((PROBE, remote), 443);
    // Only the program's own events: the other end is another node.
    log.lines.retain(|line| line["entity"]["process.pid"] == 300);
    let (disturbances, _) = log.stories();
    assert_eq!(disturbances.len(), 1, "{disturbances:#?}");
    assert_cause(&disturbances[0], "192.0.2.9:443: probe.py: is refused by", "endpoint");
    let caller = disturbances[0].root_cause[1].entity.as_ref().unwrap();
    assert_eq!((caller.kind.as_str(), caller.name.as_str()), ("process", "probe.py"));
}
