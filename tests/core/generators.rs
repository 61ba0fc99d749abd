//! Generators of random events, stories and steps for the oracle.

use proptest::prelude::*;
use tapio_core::event::{
    Event, EventId, Field, Impact, Incident, IncidentRole, Member, Name, Severity, Story,
    StoryState, TraceId, Value, names,
};
use tapio_core::ring::{Header, Membership, RecordType};

#[derive(Clone, Debug)]
pub(crate) enum OwnedValue {
    Plain(Value<'static>),
    Str(String),
    Json(String),
}

#[derive(Clone, Debug)]
pub(crate) struct OwnedEvent {
    pub(crate) head: Event<'static>,
    pub(crate) fields: Vec<(Name, OwnedValue)>,
    pub(crate) message: String,
}

impl OwnedEvent {
    pub(crate) fn fields(&self) -> Vec<Field<'_>> {
        self.fields
            .iter()
            .map(|(key, value)| Field {
                key: *key,
                value: match value {
                    OwnedValue::Plain(v) => *v,
                    OwnedValue::Str(s) => Value::Str(s),
                    OwnedValue::Json(s) => Value::Json(s),
                },
            })
            .collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Header, Box<OwnedEvent>),
    Story(bool, Box<Story>),
    Watermark(bool, u64),
    /// Forward from the first ring into the second (`true`: back), so that records get memberships
    /// on several hops. Limits: blocks, and records after which to stop.
    Forward(bool, (usize, usize), Header, Vec<Membership>),
    /// Drain the second ring, with the same limits.
    Drain(usize, usize),
}

/// A text of about `len` bytes with characters of one to four bytes, from a linear congruential
/// generator.
fn text(len: usize, mut seed: u64) -> String {
    const LETTERS: [char; 8] = ['a', 'Z', '0', ' ', '"', 'é', '€', '𝄞'];
    let mut out = String::with_capacity(len + 4);
    while out.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.push(LETTERS[(seed >> 61) as usize]);
    }
    out
}

fn a_text(most: usize) -> impl Strategy<Value = String> {
    (0..=most, any::<u64>()).prop_map(|(len, seed)| text(len, seed))
}

fn a_name() -> impl Strategy<Value = Name> {
    (0..names::WELL_KNOWN.len() as u16).prop_map(Name)
}

fn a_value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        1 => Just(OwnedValue::Plain(Value::Null)),
        1 => any::<bool>().prop_map(|b| OwnedValue::Plain(Value::Bool(b))),
        1 => any::<i64>().prop_map(|n| OwnedValue::Plain(Value::Int(n))),
        1 => any::<f64>().prop_map(|n| OwnedValue::Plain(Value::Float(n))),
        4 => a_text(3_000).prop_map(OwnedValue::Str),
        1 => a_text(200).prop_map(OwnedValue::Json),
    ]
}

fn some_fields() -> impl Strategy<Value = Vec<(Name, OwnedValue)>> {
    prop_oneof![
        20 => prop::collection::vec((a_name(), a_value()), 0..12),
        // More fields than a small scratch memory of fixed size could serve.
        1 => (600..7_000usize, a_name())
            .prop_map(|(n, key)| vec![(key, OwnedValue::Plain(Value::Int(-1))); n]),
        // One text of about the largest record's size.
        1 => (a_name(), a_text(80_000)).prop_map(|(key, s)| vec![(key, OwnedValue::Str(s))]),
    ]
}

prop_compose! {
    fn an_event()(
        id in any::<[u8; 16]>(),
        times in any::<(u64, u64)>(),
        kind in a_name(),
        source in a_name(),
        small in any::<(u8, u8, u8)>(),
        trace in any::<([u8; 16], [u8; 8])>(),
        fields in some_fields(),
        message in a_text(300),
    ) -> Box<OwnedEvent> {
        let head = Event {
            observed_ns: times.1,
            severity: Severity(small.0),
            clock: small.1,
            entities: small.2,
            trace_id: TraceId(trace.0),
            span_id: trace.1,
            ..Event::new(EventId(id), times.0, kind, source)
        };
        Box::new(OwnedEvent { head, fields, message })
    }
}

prop_compose! {
    fn a_header()(
        record in prop::sample::select(vec![
            RecordType::Event, RecordType::Story, RecordType::Watermark, RecordType::Skip,
        ]),
        collector in any::<u8>(),
        numbers in any::<(u64, u64, u64)>(),
        trace in any::<([u8; 16], [u8; 8])>(),
    ) -> Header {
        Header {
            record, collector, generation: collector & 1, visits: numbers.0, order: numbers.1, time_ns: numbers.2,
            trace_id: TraceId(trace.0), span_id: trace.1,
        }
    }
}

prop_compose! {
    fn a_membership()(
        story in any::<[u8; 16]>(),
        names in (a_name(), a_name(), a_name()),
        related in any::<([u8; 16], [u8; 16])>(),
        rank in any::<u8>(),
    ) -> Membership {
        Membership {
            story: TraceId(story), rule: names.0, pattern: names.1, role: names.2, rank,
            related: [EventId(related.0), EventId(related.1)],
        }
    }
}

prop_compose! {
    fn a_story()(
        id in any::<[u8; 16]>(),
        texts in (a_text(40), a_text(2_000), a_text(40)),
        members in prop::collection::vec((any::<[u8; 16]>(), a_text(500), any::<u64>()), 0..30),
        last_ns in any::<u64>(),
        score in -5.0..5.0f64,
        incident in prop::option::of(any::<[u8; 16]>()),
    ) -> Box<Story> {
        Box::new(Story {
            id: TraceId(id), trace_id: TraceId(id), rule: texts.0.clone(), pattern: texts.2,
            name: texts.1, intent: texts.0, state: StoryState::Updated, revision: 3,
            key: vec![("host.name".into(), "n1".into())],
            members: members.into_iter().map(|(id, summary, time_ns)| Member {
                id: EventId(id), label: String::new(), time_ns, kind: "k".into(),
                source: "s".into(), severity: Severity::WARN, role: "cause".into(),
                pattern: String::new(), summary,
            }).collect(),
            members_total: 99, first_ns: 1, last_ns, severity: Severity::ERROR, root_cause: vec![],
            impact: Impact { business: score, ..Impact::default() }, actions: vec!["inspect".into()],
            confidence: score, continues: None, provisional: None,
            incident: incident.map(|id| Incident {
                id: TraceId(id), role: IncidentRole::Cause, because: "because".into(),
            }),
        })
    }
}

pub(crate) fn a_step() -> impl Strategy<Value = Step> {
    let limit = || prop_oneof![1..4_000usize, Just(usize::MAX)];
    let stop = || prop_oneof![0..6usize, Just(usize::MAX)];
    prop_oneof![
        8 => (a_header(), an_event()).prop_map(|(h, e)| Step::Write(h, e)),
        1 => (any::<bool>(), a_story()).prop_map(|(second, g)| Step::Story(second, g)),
        1 => (any::<bool>(), any::<u64>())
            .prop_map(|(second, order)| Step::Watermark(second, order)),
        3 => (
            prop::bool::weighted(0.3),
            (limit(), stop()),
            a_header(),
            prop::collection::vec(a_membership(), 0..40),
        )
            .prop_map(|(back, limits, h, m)| Step::Forward(back, limits, h, m)),
        2 => (limit(), stop()).prop_map(|(l, s)| Step::Drain(l, s)),
    ]
}
