//! The whole method on simulated connections, without spans.

use super::bounds::ServiceBounds;
use super::fact::{
    ConnectionChange, ConnectionFact, InstanceKind, InstanceNames, Key, ListenerFact, Party,
    ServiceFact, SpanFact,
};
use super::learner::Services;
use tapio_core::event::{EventId, Severity, Story};

const SECOND_NS: u64 = 1_000_000_000;
const BEGIN_NS: u64 = 1_700_000_000 * SECOND_NS;
/// Units by key.
const UNITS: [&str; 6] = ["shop", "stock", "mail", "payments", "ledger", "cache"];
const SHOP: Key = 1;
const STOCK: Key = 2;
const MAIL: Key = 3;
const PAYMENTS: Key = 4;
const LEDGER: Key = 5;
const CACHE: Key = 6;

/// The result of an attempt to connect.
#[derive(Clone, Copy)]
enum Fate {
    /// Opened after so many microseconds, and closed after so many seconds; segments are sent again
    /// so often.
    Open {
        after_us: u64,
        for_s: u64,
        again: u64,
    },
    Reset,
    Refused,
    TimedOut,
}

const FINE: Fate = Fate::Open { after_us: 300, for_s: 1, again: 0 };

/// The endpoint of a unit.
fn endpoint(unit: Key) -> Key {
    100 + unit
}

struct Network {
    facts: Vec<ServiceFact>,
    number: u64,
}

impl Network {
    fn new() -> Self {
        let mut network = Self { facts: Vec::new(), number: 0 };
        for (key, name) in (1..).zip(UNITS) {
            let unit = InstanceNames {
                kind: InstanceKind::Unit,
                service: name.into(),
                node: "a".into(),
                ..InstanceNames::default()
            };
            let address = InstanceNames {
                kind: InstanceKind::Endpoint,
                service: format!("10.0.0.{key}:5432"),
                ..InstanceNames::default()
            };
            network.owner(key, unit, [key, 0]);
            network.owner(endpoint(key), address, [0; 2]);
            network.listens(key, 0);
        }
        network
    }

    fn owner(&mut self, key: Key, names: InstanceNames, identities: [Key; 2]) {
        self.facts.push(ServiceFact::Owner { key, names: Box::new(names), identities });
    }

    fn event(&mut self) -> EventId {
        self.number += 1;
        EventId(u128::from(self.number).to_be_bytes())
    }

    fn listens(&mut self, unit: Key, second: u64) {
        let event = self.event();
        let time_ns = BEGIN_NS + second * SECOND_NS;
        let party = Party { owner: unit, part: 1_000 + unit, program: 2_000 + unit };
        self.facts.push(ServiceFact::Listener(ListenerFact {
            event,
            time_ns,
            endpoint: endpoint(unit),
            party,
        }));
    }

    /// Adds an attempt of a unit to connect to an endpoint.
    fn attempt(&mut self, at_ns: u64, (caller, endpoint): (Key, Key), fate: Fate) {
        let socket = 1 << 32 | self.number;
        let mut add = |time_ns: u64, change, duration_ns| {
            let event = self.event();
            self.facts.push(ServiceFact::Connection(ConnectionFact {
                event,
                time_ns,
                change,
                caller: Party { owner: caller, part: 1_000 + caller, program: 2_000 + caller },
                socket,
                endpoint,
                callee: endpoint,
                duration_ns,
            }));
        };
        match fate {
            Fate::Open { after_us, for_s, again } => {
                let opened_ns = at_ns + after_us * 1_000;
                add(opened_ns, ConnectionChange::Opened, after_us * 1_000);
                for number in 0..again {
                    add(opened_ns + number * 1_000_000, ConnectionChange::Retransmitted, 0);
                }
                add(opened_ns + for_s * SECOND_NS, ConnectionChange::Closed, 0);
            }
            Fate::Reset => {
                add(at_ns, ConnectionChange::Opened, 300_000);
                add(at_ns + 1_000_000, ConnectionChange::Reset, 0);
                add(at_ns + 1_000_001, ConnectionChange::Closed, 0);
            }
            Fate::Refused => add(at_ns, ConnectionChange::Refused, 100_000),
            Fate::TimedOut => add(at_ns, ConnectionChange::TimedOut, 0),
        }
    }

    /// Two attempts a second of each caller at a unit.
    fn run(&mut self, seconds: std::ops::Range<u64>, pairs: &[(Key, Key)], fate: Fate) {
        for half in seconds.start * 2..seconds.end * 2 {
            for (number, (caller, callee)) in (0..).zip(pairs) {
                let jitter_ns = half * 7_919 % 97 * 1_000_000 + number;
                let at_ns = BEGIN_NS + half * SECOND_NS / 2 + jitter_ns;
                self.attempt(at_ns, (*caller, endpoint(*callee)), fate);
            }
        }
    }

    fn replayed(self) -> Vec<Story> {
        Services::new(ServiceBounds::REPLAY, "", 1.0).replay(self.facts)
    }

    /// Adds the facts second by second, as a live agent gets them.
    fn advanced(mut self, services: &mut Services, until_second: u64) -> Vec<Story> {
        self.facts.sort_by_key(ServiceFact::order);
        let (mut stories, mut now_ns) = (Vec::new(), 0);
        for fact in self.facts {
            if fact.order().0 >= now_ns + SECOND_NS {
                now_ns = fact.order().0;
                stories.extend(services.advance(now_ns));
            }
            services.add(fact);
        }
        stories.extend(services.advance(BEGIN_NS + until_second * SECOND_NS));
        stories
    }
}

fn causes(story: &Story) -> Vec<&str> {
    story.root_cause.iter().map(|candidate| candidate.cause.as_str()).collect()
}

/// Ten minutes without a fault, two with it, five without.
#[track_caller]
fn only_story(pairs: &[(Key, Key)], faulty: &[(Key, Key)], fate: Fate) -> Story {
    let mut network = Network::new();
    network.run(0..600, pairs, FINE);
    let others: Vec<_> = pairs.iter().copied().filter(|pair| !faulty.contains(pair)).collect();
    network.run(600..720, &others, FINE);
    network.run(600..720, faulty, fate);
    network.run(720..1_020, pairs, FINE);
    let stories = network.replayed();
    assert_eq!(stories.len(), 1, "{stories:#?}");
    let began_s = (stories[0].first_ns - BEGIN_NS) / SECOND_NS;
    assert!((595..640).contains(&began_s), "{began_s}");
    assert!(stories[0].last_ns - BEGIN_NS < 760 * SECOND_NS);
    stories.into_iter().next().unwrap()
}

#[test]
fn callee_that_answers_slowly_is_the_cause() {
    let slow = Fate::Open { after_us: 101_000, for_s: 1, again: 0 };
    let pairs = [(SHOP, PAYMENTS), (SHOP, LEDGER), (SHOP, CACHE)];
    let story = only_story(&pairs, &[(SHOP, PAYMENTS)], slow);
    let cause = causes(&story)[0];
    assert!(cause.starts_with("payments: shop: connect time to payments 10"), "{cause}");
    assert!(cause.contains(" ms, usually 0."), "{cause}");
    assert_eq!(story.name, "connections to payments are slow to open");
    let entity = story.root_cause[0].entity.as_ref().unwrap();
    assert_eq!((entity.kind.as_str(), entity.node.as_str()), ("unit", "a"));
    assert!(story.key.contains(&("systemd.unit".into(), "payments".into())), "{:?}", story.key);
    let address = ("attributes.network.peer.address".into(), "10.0.0.4".into());
    assert!(story.key.contains(&address), "{:?}", story.key);
}

#[test]
fn callee_that_refuses_all_its_callers_is_the_cause() {
    let pairs = [(SHOP, PAYMENTS), (STOCK, PAYMENTS), (MAIL, PAYMENTS), (SHOP, LEDGER)];
    let story = only_story(&pairs, &pairs[..3], Fate::Refused);
    let all = causes(&story);
    assert!(all[0].starts_with("payments: "), "{all:?}");
    assert!(all[0].contains("is refused by payments in"), "{all:?}");
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(story.severity, Severity::ERROR);
    assert_eq!(story.impact.affected.len(), 4);
    assert!(story.actions.iter().any(|action| action.contains("ss -ltnp 'sport = :5432'")));
    assert_eq!(story.members[0].kind, "kernel.tcp.refused");
}

#[test]
fn callee_that_resets_or_does_not_answer_is_the_cause() {
    for (fate, words) in [(Fate::Reset, "is reset by"), (Fate::TimedOut, "gets no answer from")] {
        let story = only_story(&[(SHOP, PAYMENTS), (SHOP, LEDGER)], &[(SHOP, LEDGER)], fate);
        let cause = causes(&story)[0];
        assert!(cause.starts_with(&format!("ledger: shop: {words} ledger in")), "{cause}");
    }
}

#[test]
fn caller_that_nobody_answers_is_the_cause() {
    let pairs = [(SHOP, PAYMENTS), (SHOP, LEDGER), (SHOP, CACHE), (STOCK, CACHE)];
    let story = only_story(&pairs, &pairs[..3], Fate::TimedOut);
    assert!(causes(&story)[0].starts_with("shop: gets no answer"), "{:?}", causes(&story));
}

/// A pool's connections stay open: what is lost on them is counted by connection and time.
#[test]
fn open_connections_that_lose_packets_are_seen() {
    let mut network = Network::new();
    let pool = Fate::Open { after_us: 300, for_s: 1_200, again: 0 };
    network.run(0..4, &[(SHOP, PAYMENTS), (SHOP, LEDGER)], pool);
    let opened: Vec<ConnectionFact> = network
        .facts
        .iter()
        .filter_map(|fact| match fact {
            ServiceFact::Connection(fact) if fact.change == ConnectionChange::Opened => Some(*fact),
            _ => None,
        })
        .filter(|fact| fact.endpoint == endpoint(PAYMENTS))
        .collect();
    for second in 0..1_000u64 {
        // Now and then one is lost, then one of each second and connection.
        let is_lossy = (700..800).contains(&second);
        for fact in opened.iter().filter(|fact| is_lossy || (fact.number() + second) % 97 == 0) {
            let event = network.event();
            network.facts.push(ServiceFact::Connection(ConnectionFact {
                event,
                time_ns: BEGIN_NS + second * SECOND_NS,
                change: ConnectionChange::Retransmitted,
                caller: Party::default(),
                callee: 0,
                ..*fact
            }));
        }
    }
    network.run(999..1_000, &[(STOCK, CACHE)], FINE);
    let stories = network.replayed();
    assert_eq!(stories.len(), 1, "{stories:#?}");
    let cause = causes(&stories[0])[0];
    assert!(cause.starts_with("payments: shop: retransmits to payments"), "{cause}");
    assert!(cause.contains("times a connection, usually 0."), "{cause}");
    let began_s = (stories[0].first_ns - BEGIN_NS) / SECOND_NS;
    assert!((690..760).contains(&began_s), "{began_s}");
}

impl ConnectionFact {
    fn number(&self) -> u64 {
        self.socket & 0xffff
    }
}

/// Clients poll ports that nobody listens at, programs try many ports, services restart.
#[test]
fn ordinary_failures_are_no_story() {
    let mut network = Network::new();
    network.run(0..3_600, &[(SHOP, PAYMENTS)], Fate::Refused);
    // For the first time, and from the first attempt on.
    network.run(1_800..3_600, &[(STOCK, LEDGER)], Fate::TimedOut);
    network.run(0..3_600, &[(MAIL, LEDGER)], FINE);
    // A scan, and restarts that take some seconds.
    for port in 0..20_000 {
        let at_ns = BEGIN_NS + 1_000 * SECOND_NS + port * 1_000_000;
        network.attempt(at_ns, (STOCK, 1 << 20 | port), Fate::Refused);
    }
    let mut up = 0;
    for restart in [2_001..2_006, 2_207..2_212, 2_402..2_417] {
        network.run(up..restart.start, &[(MAIL, CACHE)], FINE);
        up = restart.end;
        network.run(restart, &[(MAIL, CACHE)], Fate::Refused);
    }
    network.run(up..3_600, &[(MAIL, CACHE)], FINE);
    let stories = network.replayed();
    assert!(stories.is_empty(), "{stories:#?}");
}

#[test]
fn what_connections_usually_do_survives_a_restart() {
    let pair = [(SHOP, PAYMENTS)];
    let mut network = Network::new();
    network.run(0..600, &pair, FINE);
    let mut before = Services::new(ServiceBounds::LIVE, "", 1.0);
    assert!(network.advanced(&mut before, 640).is_empty());
    let saved = before.save().unwrap();
    assert!(before.save().unwrap() == saved, "saving changes nothing");
    // The callee is down from the start on: nobody listens.
    let mut refused = Network { facts: Vec::new(), number: 1 << 20 };
    refused.run(900..960, &pair, Fate::Refused);
    let refused = || Network { facts: refused.facts.clone(), number: 0 };
    let mut restored = Services::new(ServiceBounds::LIVE, "", 1.0);
    restored.restore(&saved).unwrap();
    assert_eq!(restored.counts().pairs, 1);
    let stories = refused().advanced(&mut restored, 990);
    assert!(causes(&stories[0])[0].starts_with("payments: shop: is refused by payments"));
    let mut fresh = Services::new(ServiceBounds::LIVE, "", 1.0);
    assert!(refused().advanced(&mut fresh, 990).is_empty());
}

/// Connections of a process are its service's, by what the SDK's resource has of it, and the
/// service's spans and connections are one graph.
#[test]
fn process_and_its_service_are_one_instance() {
    let (web, orders) = (70, 71);
    let mut network = Network::new();
    for (key, service) in [(web, "web"), (orders, "orders")] {
        let service = service.to_owned();
        let names = Box::new(InstanceNames { service, ..InstanceNames::default() });
        network.facts.push(ServiceFact::Instance { key, names });
        let text = "GET /".into();
        network.facts.push(ServiceFact::Text { key: key + 10, text });
    }
    for (instance, unit) in [(web, SHOP), (orders, STOCK)] {
        let identity = 1_000 + unit;
        network.facts.push(ServiceFact::Claim { identity, instance, is_process: true });
    }
    // `web` calls `orders`, which connects to `payments` and fails without it.
    let pair = [(STOCK, PAYMENTS)];
    network.run(0..600, &pair, FINE);
    network.run(600..720, &pair, Fate::Refused);
    network.run(720..1_020, &pair, FINE);
    for number in 0..2_040u64 {
        let start_ns = BEGIN_NS + number * SECOND_NS / 2;
        let work = SpanFact {
            event: network.event(),
            start_ns,
            duration_ns: 20_000_000,
            instance: web,
            operation: web + 10,
            span: 2 * number + 1,
            parent: 0,
            trace: number,
            is_work: true,
            has_failed: (1_200..1_440).contains(&number),
        };
        let callee = SpanFact {
            event: network.event(),
            duration_ns: 5_000_000,
            instance: orders,
            operation: orders + 10,
            span: 2 * number + 2,
            parent: work.span,
            ..work
        };
        network.facts.extend([work, callee].map(ServiceFact::Span));
    }
    let stories = network.replayed();
    assert_eq!(stories.len(), 1, "{stories:#?}");
    let address = ("attributes.network.peer.address".into(), "10.0.0.4".into());
    assert!(stories[0].key.contains(&address), "{:?}", stories[0].key);
    let all = causes(&stories[0]);
    assert!(all[0].starts_with("payments: orders: is refused by payments"), "{all:?}");
    assert_eq!(all.len(), 3, "{all:?}");
}

#[test]
fn pairs_and_names_are_bounded() {
    let bounds = ServiceBounds { operations: 40, features: 60, names: 50, spans: 2_000, pairs: 8 };
    let mut services = Services::new(bounds, "", 1.0);
    let mut network = Network::new();
    // Each for a minute, so that it isn't taken for a scan.
    for second in 0..60 {
        for number in 0..300u64 {
            let at_ns = BEGIN_NS + second * SECOND_NS + number * 1_000;
            let key = 10_000 + number;
            let pair = (SHOP + number % 5, key);
            let fate = Fate::Open { after_us: 10, for_s: 10_000, again: 1 };
            network.attempt(at_ns, pair, fate);
            let names = InstanceNames { service: number.to_string(), ..InstanceNames::default() };
            network.owner(key, names, [key, 0]);
            let claim = ServiceFact::Claim { identity: key, instance: 9, is_process: true };
            network.facts.push(claim);
        }
    }
    network.advanced(&mut services, 100);
    let counts = services.counts();
    assert!(counts.pairs <= 16 && counts.operations <= 16, "{counts:?}");
    assert!(counts.refused > 1_000 && counts.sampled_out > 1_000, "{counts:?}");
    assert!(services.features() <= 60 && services.names.owners.len() <= 50);
    // A day later nothing of it is left.
    for hour in 0..30 {
        services.advance(BEGIN_NS + (200 + hour * 3_600) * SECOND_NS);
    }
    assert_eq!(services.counts().operations, 0, "{:?}", services.counts());
}

/// Requests of the shop, each with a call of payments. Its span is missing where `is_answered` is
/// false, and the call fails.
fn requests(network: &mut Network, seconds: std::ops::Range<u64>, is_answered: bool) {
    for half in seconds.start * 2..seconds.end * 2 {
        let start_ns = BEGIN_NS + half * SECOND_NS / 2 + half * 7_919 % 97 * 1_000_000;
        let span = |instance, operation, span, parent, duration_ms: u64| SpanFact {
            event: EventId(u128::from(span).to_be_bytes()),
            start_ns,
            duration_ns: duration_ms * 1_000_000,
            instance,
            operation,
            span,
            parent,
            trace: 1 + half,
            is_work: true,
            has_failed: false,
        };
        let id = 3 * half + 1;
        let work = span(SHOP, 20, id, 0, 9);
        let call = SpanFact { is_work: false, ..span(SHOP, 21, id + 1, id, 6) };
        let mut spans = vec![work, call];
        if is_answered {
            spans.push(span(PAYMENTS, 22, id + 2, id + 1, 5));
        } else {
            spans.iter_mut().for_each(|span| span.has_failed = true);
        }
        network.facts.extend(spans.into_iter().map(ServiceFact::Span));
    }
}

/// A caller that no longer gets as far as a connection, as without a name server, is the cause; not
/// the callee that says nothing because nobody calls it.
#[test]
fn caller_that_no_longer_connects_is_the_cause() {
    for (connects, expected) in [(false, "shop"), (true, "payments")] {
        let mut network = Network::new();
        requests(&mut network, 0..600, true);
        requests(&mut network, 600..720, false);
        requests(&mut network, 720..1_020, true);
        let pair = [(SHOP, PAYMENTS)];
        network.run(0..600, &pair, FINE);
        if connects {
            network.run(600..720, &pair, FINE);
        }
        network.run(720..1_020, &pair, FINE);
        let stories = network.replayed();
        assert_eq!(stories.len(), 1, "{stories:#?}");
        let causes = causes(&stories[0]);
        assert!(causes[0].starts_with(expected), "{connects}: {causes:#?}");
    }
}
