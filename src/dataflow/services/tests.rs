//! The whole method on simulated applications.

use std::collections::BTreeMap;

use super::bounds::ServiceBounds;
use super::fact::{InstanceNames, Key, LogFact, ServiceFact, SpanFact};
use super::learner::Services;
use tapio_core::event::{EventId, Severity, Story};
use tapio_core::memory::MemoryLevel;

const SECOND_NS: u64 = 1_000_000_000;
pub(super) const BEGIN_NS: u64 = 1_700_000_000 * SECOND_NS;
/// A request enters at `web`, which calls `cart`, which calls `stock`.
const SERVICES: [&str; 3] = ["web", "cart", "stock"];

/// A fault of a service.
#[derive(Clone, Copy, Default)]
pub(super) struct Fault {
    /// The number of the service.
    pub(super) at: usize,
    pub(super) own_ms: u64,
    pub(super) network_ms: u64,
    pub(super) fails: bool,
    /// It answers at once, and wrongly: its callers fail.
    pub(super) answers_wrongly: bool,
    /// Additional calls of the next service in each run.
    pub(super) calls: u64,
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A simulated application: its facts.
pub(super) struct App {
    pub(super) facts: Vec<ServiceFact>,
    random: Random,
    number: u64,
}

impl App {
    pub(super) fn new() -> Self {
        let mut facts = Vec::new();
        for (key, name) in (1..).zip(SERVICES) {
            let names = Box::new(InstanceNames { service: name.into(), ..Default::default() });
            facts.push(ServiceFact::Instance { key, names });
            facts.push(ServiceFact::Text { key: 10 + key, text: format!("GET /{name}").into() });
            facts.push(ServiceFact::Text { key: 20 + key, text: format!("call {name}").into() });
        }
        for (key, text) in [(100, "request served"), (101, "can't read the database")] {
            facts.push(ServiceFact::Text { key, text: text.into() });
        }
        Self { facts, random: Random(0x2545_f491_4f6c_dd1d), number: 0 }
    }

    fn event(&mut self) -> EventId {
        self.number += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.number.to_be_bytes());
        EventId(id)
    }

    fn span(&mut self, span: SpanFact) {
        let event = self.event();
        self.facts.push(ServiceFact::Span(SpanFact { event, ..span }));
    }

    /// Adds one request; its services fail from the failing one upwards. Each service has a span
    /// for its work, and one for its call of the next.
    fn request(&mut self, at_ns: u64, fault: Option<Fault>) {
        let ids: Vec<u64> = (0..7).map(|_| self.random.below(u64::MAX) | 1).collect();
        let (mut below_ns, fails) = (0, fault.filter(|fault| fault.fails));
        let is_misled = |service| fault.is_some_and(|f| f.answers_wrongly && service < f.at);
        for service in (0..SERVICES.len()).rev() {
            let of_fault = fault.filter(|fault| fault.at == service).unwrap_or_default();
            let quicker = if of_fault.answers_wrongly { 20 } else { 1 };
            let usual_ns = (4_000 + self.random.below(4_000)) * 1_000 / quicker;
            let own_ns = usual_ns + of_fault.own_ms * 1_000_000;
            let duration_ns = own_ns + below_ns;
            let instance = service as Key + 1;
            let work = SpanFact {
                event: EventId::default(),
                start_ns: at_ns,
                duration_ns,
                instance,
                operation: 10 + instance,
                span: ids[2 * service + 1],
                parent: if service == 0 { 0 } else { ids[2 * service] },
                trace: ids[6],
                is_work: true,
                has_failed: fails.is_some_and(|fault| service <= fault.at) || is_misled(service),
            };
            self.span(work);
            // One after the other within its own time.
            for number in 0..of_fault.calls {
                self.span(SpanFact {
                    duration_ns: 100_000,
                    operation: 21 + instance,
                    span: work.span ^ (number + 1) << 32,
                    parent: work.span,
                    is_work: false,
                    ..work
                });
            }
            let is_broken = fails.is_some_and(|fault| service == fault.at);
            let event = self.event();
            self.facts.push(ServiceFact::Log(LogFact {
                event,
                time_ns: at_ns,
                instance,
                template: if is_broken { 101 } else { 100 },
                span: work.span,
                trace: work.trace,
                severity: if is_broken { Severity::ERROR } else { Severity::INFO },
            }));
            below_ns = duration_ns + 500_000 + of_fault.network_ms * 1_000_000;
            if service > 0 {
                self.span(SpanFact {
                    duration_ns: below_ns,
                    instance: instance - 1,
                    operation: 20 + instance,
                    span: ids[2 * service],
                    parent: ids[2 * service - 1],
                    is_work: false,
                    ..work
                });
            }
        }
    }

    /// Adds ten requests a second.
    pub(super) fn run(&mut self, from_second: u64, seconds: u64, fault: Option<Fault>) {
        for number in 0..seconds * 10 {
            let at_ns = BEGIN_NS + from_second * SECOND_NS + number * SECOND_NS / 10;
            let jitter_ns = self.random.below(50_000_000);
            self.request(at_ns + jitter_ns, fault);
        }
    }
}

fn replayed(facts: Vec<ServiceFact>, sensitivity: f64) -> Vec<Story> {
    Services::new(ServiceBounds::REPLAY, "", sensitivity).replay(facts)
}

/// Ten minutes without a fault, two with it, five without.
fn with_fault(fault: Fault) -> Vec<ServiceFact> {
    let mut app = App::new();
    app.run(0, 600, None);
    app.run(600, 120, Some(fault));
    app.run(720, 300, None);
    app.facts
}

#[track_caller]
fn assert_blamed(fault: Fault, expected: &str) {
    let stories = replayed(with_fault(fault), 1.0);
    assert_eq!(stories.len(), 1, "{stories:#?}");
    let cause = &stories[0].root_cause[0].cause;
    assert!(cause.starts_with(SERVICES[fault.at]), "{cause}");
    assert!(cause.contains(expected), "{cause}");
    let began_ns = stories[0].first_ns - BEGIN_NS;
    assert!((595..640).contains(&(began_ns / SECOND_NS)), "{began_ns}");
    assert!(stories[0].last_ns - BEGIN_NS < 760 * SECOND_NS);
    assert!(!stories[0].members.is_empty() && !stories[0].actions.is_empty());
}

#[test]
fn own_time_of_a_callee_is_the_cause() {
    assert_blamed(Fault { at: 2, own_ms: 80, ..Default::default() }, "own time");
    assert_blamed(Fault { at: 1, own_ms: 80, ..Default::default() }, "own time");
}

#[test]
fn delay_of_the_network_is_the_cause() {
    assert_blamed(Fault { at: 2, network_ms: 100, ..Default::default() }, "cart: call stock waits");
}

#[test]
fn errors_start_at_the_deepest_service() {
    let fault = Fault { at: 2, fails: true, ..Default::default() };
    assert_blamed(fault, "");
    let stories = replayed(with_fault(fault), 1.0);
    let causes: Vec<&str> = stories[0].root_cause.iter().map(|c| c.cause.as_str()).collect();
    assert_eq!(causes.len(), 3, "{causes:?}");
    assert!(stories[0].impact.customer_facing);
    assert_eq!(stories[0].impact.affected.len(), 3);
}

#[test]
fn callee_that_answers_at_once_explains_that_its_callers_fail() {
    assert_blamed(Fault { at: 2, answers_wrongly: true, ..Default::default() }, "its own time");
    // That something is quicker is no disturbance.
    let mut app = App::new();
    app.run(0, 600, None);
    let quicker = Fault { at: 0, answers_wrongly: true, ..Default::default() };
    app.run(600, 300, Some(quicker));
    assert_eq!(replayed(app.facts, 1.0), []);
}

#[test]
fn what_shows_no_more_counts_less_than_what_does() {
    let mut app = App::new();
    app.run(0, 600, None);
    app.run(600, 120, Some(Fault { at: 2, own_ms: 80, ..Default::default() }));
    app.run(720, 300, Some(Fault { at: 1, fails: true, ..Default::default() }));
    let stories = replayed(app.facts, 1.0);
    assert_eq!(stories.len(), 1, "the second begins at once: one disturbance");
    let causes: Vec<&str> = stories[0].root_cause.iter().map(|c| c.cause.as_str()).collect();
    assert!(causes[0].starts_with("cart"), "{causes:?}");
    assert!(causes.iter().any(|cause| cause.starts_with("stock")), "{causes:?}");
}

#[test]
fn more_calls_in_a_run_are_seen() {
    let fault = Fault { at: 1, calls: 12, ..Default::default() };
    let stories = replayed(with_fault(fault), 1.0);
    assert_eq!(stories.len(), 1, "{stories:#?}");
    let cause = &stories[0].root_cause[0].cause;
    assert!(cause.starts_with("cart: GET /cart calls call stock"), "{cause}");
    assert!(cause.ends_with("times a run, usually 1.0"), "{cause}");
}

/// A new release that takes more time for good: a story that ends within an hour, and no other.
#[test]
fn lasting_change_becomes_usual() {
    let mut app = App::new();
    app.run(0, 3_600, None);
    app.run(3_600, 3 * 3_600, Some(Fault { at: 1, own_ms: 80, ..Default::default() }));
    let stories = replayed(app.facts, 1.0);
    assert_eq!(stories.len(), 1, "{stories:#?}");
    let lasted_s = (stories[0].last_ns - BEGIN_NS) / SECOND_NS - 3_600;
    assert!((1_800..5_400).contains(&lasted_s), "{lasted_s}");
}

/// Facts second by second, as a live agent gets them, and what became of them.
pub(super) fn advanced(
    services: &mut Services,
    facts: Vec<ServiceFact>,
    until_second: u64,
) -> Vec<Story> {
    let mut stories = Vec::new();
    let mut now_ns = 0;
    for fact in facts {
        let time_ns = match &fact {
            ServiceFact::Span(span) => span.start_ns,
            ServiceFact::Log(log) => log.time_ns,
            _ => 0,
        };
        if time_ns >= now_ns + SECOND_NS {
            now_ns = time_ns;
            stories.extend(services.advance(now_ns));
        }
        services.add(fact);
    }
    stories.extend(services.advance(BEGIN_NS + until_second * SECOND_NS));
    stories
}

/// A fault that begins with the agent is found by what an earlier run learned, and only by that.
/// A minute of the past is enough where a fault is as clear as this.
#[test]
fn fault_is_found_in_the_first_minutes() {
    for fault in [
        Fault { at: 2, fails: true, ..Default::default() },
        Fault { at: 2, network_ms: 2_000, ..Default::default() },
    ] {
        let mut app = App::new();
        app.run(0, 60, None);
        app.run(60, 120, Some(fault));
        app.run(180, 200, None);
        let stories = replayed(app.facts, 1.0);
        assert_eq!(stories.len(), 1, "{stories:#?}");
        let cause = &stories[0].root_cause[0].cause;
        assert!(cause.starts_with("stock"), "{cause}");
    }
}

/// Loops of different length, as over the lines of an order, are ordinary.
#[test]
fn number_of_calls_that_varies_from_run_to_run_is_no_story() {
    let mut app = App::new();
    for minute in 0..60 {
        for second in 0..60 {
            let calls = app.random.below(9);
            let fault = Fault { at: 1, calls, ..Default::default() };
            app.run(minute * 60 + second, 1, Some(fault));
        }
    }
    let stories = replayed(app.facts, 1.0);
    assert!(stories.is_empty(), "{stories:#?}");
}

#[test]
fn ordinary_hour_has_no_story() {
    let mut app = App::new();
    app.run(0, 3_600, None);
    assert!(replayed(app.facts, 1.0).is_empty());
}

#[test]
fn sensitivity_0_opens_nothing() {
    let fault = Fault { at: 2, fails: true, ..Default::default() };
    assert!(replayed(with_fault(fault), 0.0).is_empty());
}

#[test]
fn order_of_facts_does_not_matter_in_replay() {
    let mut facts = with_fault(Fault { at: 1, own_ms: 80, ..Default::default() });
    let expected = replayed(facts.clone(), 1.0);
    facts.reverse();
    assert_eq!(replayed(facts, 1.0), expected);
}

/// Live, a story opens while the fault lasts, and its revisions follow each other.
#[test]
fn story_opens_within_half_a_minute() {
    let facts = with_fault(Fault { at: 2, own_ms: 80, ..Default::default() });
    let mut by_second: BTreeMap<u64, Vec<ServiceFact>> = BTreeMap::new();
    for fact in facts {
        // SDKs export what has ended, every five seconds.
        let second = match &fact {
            ServiceFact::Span(span) => (span.start_ns - BEGIN_NS) / SECOND_NS / 5 * 5 + 5,
            ServiceFact::Log(log) => (log.time_ns - BEGIN_NS) / SECOND_NS / 5 * 5 + 5,
            _ => 0,
        };
        by_second.entry(second).or_default().push(fact);
    }
    let mut services = Services::new(ServiceBounds::LIVE, "", 1.0);
    let mut stories = Vec::new();
    for second in 0..1_080 {
        for fact in by_second.remove(&second).unwrap_or_default() {
            services.add(fact);
        }
        let found = services.advance(BEGIN_NS + second * SECOND_NS);
        stories.extend(found.into_iter().map(|story| (second, story)));
    }
    let (opened, first) = &stories[0];
    assert!((600..=640).contains(opened), "opened at {opened}");
    assert!(first.root_cause[0].cause.starts_with("stock"), "{}", first.root_cause[0].cause);
    assert!(stories.iter().all(|(_, story)| story.id == first.id));
    let revisions: Vec<u32> = stories.iter().map(|(_, story)| story.revision).collect();
    assert_eq!(revisions, (0..stories.len() as u32).collect::<Vec<_>>());
    assert!(stories.last().unwrap().1.state.is_end());
}

/// A sender of made-up services takes neither the room of others for good nor memory.
#[test]
fn made_up_services_are_forgotten() {
    let bounds =
        ServiceBounds { operations: 50, features: 400, names: 60, spans: 100_000, pairs: 10 };
    let mut services = Services::new(bounds, "", 1.0);
    let advance = |services: &mut Services, second: u64| {
        services.advance(BEGIN_NS + second * SECOND_NS);
    };
    for number in 0..2_000u64 {
        let span = SpanFact {
            event: EventId([1; 16]),
            start_ns: BEGIN_NS + number * SECOND_NS / 100,
            duration_ns: if number % 2 == 0 { u64::MAX } else { 1_000 },
            instance: 1_000 + number,
            operation: 7,
            span: 1 + number,
            parent: number,
            trace: 0,
            is_work: true,
            has_failed: false,
        };
        services.add(ServiceFact::Span(span));
        if number % 100 == 0 {
            advance(&mut services, number / 100);
        }
    }
    (20..1_300).for_each(|second| advance(&mut services, second));
    let counts = services.counts();
    assert_eq!((counts.operations, counts.spans), (0, 0), "{counts:?}");
    assert!(counts.refused >= 1_000, "{counts:?}");
}

/// Where memory is short, the operations that run stay, and those that don't go.
#[test]
fn bounds_follow_memory() {
    let bounds =
        ServiceBounds { operations: 64, features: 400, names: 60, spans: 100_000, pairs: 10 };
    let mut services = Services::new(bounds, "", 1.0);
    let mut app = App::new();
    app.run(0, 120, None);
    let idle = (0..40).map(|number| {
        ServiceFact::Log(LogFact {
            event: EventId([1; 16]),
            time_ns: BEGIN_NS,
            instance: 1_000 + number,
            template: 7,
            span: 0,
            trace: 0,
            severity: Severity::INFO,
        })
    });
    idle.chain(app.facts).for_each(|fact| services.add(fact));
    (0..140).for_each(|second| drop(services.advance(BEGIN_NS + second * SECOND_NS)));
    assert_eq!(services.counts().operations, 45);
    services.limit(MemoryLevel::NORMAL.smaller().smaller().smaller());
    assert_eq!(services.counts().operations, 8);
    assert!(services.features() <= 50);
    let runs = |instance| services.operations.range((instance, 0)..=(instance, Key::MAX)).count();
    assert_eq!((1..=3).map(runs).sum::<usize>(), 5, "what runs stays");
    services.limit(MemoryLevel::EMPTY);
    assert_eq!(services.counts().operations, 0, "each has more than one feature");
    services.limit(MemoryLevel::NORMAL);
    assert_eq!(services.bounds.operations, 64);
}

#[test]
fn what_is_kept_is_bounded() {
    let bounds = ServiceBounds { operations: 2, features: 3, names: 4, spans: 10, pairs: 10 };
    let mut services = Services::new(bounds, "", 1.0);
    let mut app = App::new();
    app.run(0, 60, None);
    for fact in app.facts {
        services.add(fact);
    }
    services.advance(BEGIN_NS + 120 * SECOND_NS);
    let counts = services.counts();
    assert!(counts.operations <= 2 && counts.refused > 0, "{counts:?}");
    assert!(services.features() <= 3);
}
