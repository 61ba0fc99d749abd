//! What is said of a story: what it is about, the causes its rule names, actions, confidence. Everything
//! comes from its events; a rule only says where to look. Which cause is the likeliest and what it all
//! means is for the assessor, who has the facts of all shards (`evidence/`).

use std::collections::BTreeSet;

use crate::evidence::{self, Asked, Draft, MAX_AFFECTED, NamedCause, Seen, Source};
use crate::rules::field::value_text;
use crate::rules::{FieldRef, Hole, Rule, RulePart, Shape, Template, View};
use crate::story::members::Kept;
use crate::story::open::OpenStory;
use tapio_core::event::{
    ArchivedEvent, EventId, Impact, Member, Name, Story, StoryState, TraceId, Value, names,
};

/// Words for the part of a member that didn't cause the others.
const EFFECTS: [&str; 2] = ["effect", "symptom"];

/// The trace of a story that begins with this event. Stories that begin with the same event are one trace, whatever
/// their rules: a unit that fails, and what it takes with it.
pub(crate) fn story_trace(cluster: &str, first: EventId) -> TraceId {
    TraceId(tapio_core::event::stable_hash(&[b"story", cluster.as_bytes(), &first.0]))
}

/// Tells the story as it is now.
pub(crate) fn tell(rule: &Rule, story: &OpenStory, state: StoryState) -> Draft {
    let key = story.members.kept.first().map(|kept| key_texts(rule, kept)).unwrap_or_default();
    let teller = Teller { rule, story, key };
    let mut sources = Vec::new();
    let places = teller.sources(&mut sources);
    let named = teller.causes(&places);
    let told = Story {
        id: story.id,
        trace_id: story.trace,
        rule: rule.name.text().into(),
        pattern: rule.story.pattern.text().into(),
        name: teller.name(),
        intent: rule.story.intent.clone(),
        state,
        revision: story.revision,
        key: teller.key.clone(),
        members: story.members.kept.iter().filter_map(|kept| member(rule, kept)).collect(),
        members_total: story.members.total,
        first_ns: story.members.first_ns,
        last_ns: story.members.last_ns,
        severity: rule.severity.max(story.worst),
        root_cause: Vec::new(),
        actions: rule.story.actions.iter().filter_map(|t| teller.fill(t)).collect(),
        confidence: teller.confidence(),
        impact: Impact { affected: teller.affected(), ..Impact::default() },
        continues: story.continues,
        provisional: None,
    };
    Draft {
        story: told,
        sources,
        named,
        any_cause: true,
        within_ns: rule.within_ns(),
        asked: Asked {
            business: rule.story.business,
            customer_facing: rule.story.customer_facing,
            slo_impact: rule.story.slo_impact,
        },
        failed_connections: story.failed_connections,
        failed_for_others: story.failed_for_others,
    }
}

/// The id an event's source gave it, as text; empty for none.
pub(crate) fn label(event: &ArchivedEvent<'_>) -> String {
    event.attribute(names::TAPIO_EVENT_ID).map(value_text).unwrap_or_default()
}

fn member(rule: &Rule, kept: &Kept) -> Option<Member> {
    let event = kept.record.event()?;
    let (role, pattern) = part(rule, kept.step);
    let role = if kept.late { names::LATE } else { role };
    let pattern = if pattern == rule.story.pattern { "" } else { pattern.text() };
    Some(Member {
        id: event.event_id(),
        label: label(event),
        time_ns: event.time(),
        kind: event.kind_name().text().into(),
        source: event.source_name().text().into(),
        severity: event.severity(),
        role: role.text().into(),
        pattern: pattern.into(),
        summary: summary(event),
    })
}

/// The role and pattern of a member of this step.
pub(crate) fn part(rule: &Rule, step: u8) -> (Name, Name) {
    match &rule.shape {
        Shape::Sequence(s) => {
            let step = &s.steps[usize::from(step).min(s.steps.len() - 1)];
            (step.role, step.pattern)
        }
        Shape::Aggregate(a) => {
            (a.events[usize::from(step).min(a.events.len() - 1)].role, rule.story.pattern)
        }
    }
}

/// Characters of a message that stand in a story.
const MAX_SUMMARY: usize = 300;

/// A message as far as it stands in a story.
pub(crate) fn shortened(message: &str) -> &str {
    if message.len() <= MAX_SUMMARY {
        return message;
    }
    let end = message.char_indices().nth(MAX_SUMMARY).map_or(message.len(), |(at, _)| at);
    &message[..end]
}

/// A line for a person: what the event says, or its kind and whom it is about.
pub(crate) fn summary(event: &ArchivedEvent<'_>) -> String {
    if !event.message.is_empty() {
        return shortened(&event.message).to_owned();
    }
    let mut who = BTreeSet::new();
    affected(event, &mut who);
    format!("{} {}", event.kind_name(), who.into_iter().collect::<Vec<_>>().join(", "))
        .trim_end()
        .to_owned()
}

/// Adds the entities an event is about, in words.
pub(crate) fn affected(event: &ArchivedEvent<'_>, into: &mut BTreeSet<String>) {
    let text = |name| event.text(name).filter(|t| !t.is_empty());
    let mut add = |entity: String| {
        if into.len() < MAX_AFFECTED {
            into.insert(entity);
        }
    };
    if let Some(unit) = text(names::SYSTEMD_UNIT) {
        add(format!("unit {unit}"));
    }
    match (text(names::K8S_POD_NAME), text(names::K8S_POD_UID)) {
        (Some(pod), _) => {
            let namespace =
                text(names::K8S_NAMESPACE_NAME).map(|n| format!("{n}/")).unwrap_or_default();
            add(format!("pod {namespace}{pod}"));
        }
        (None, Some(uid)) => add(format!("pod {uid}")),
        (None, None) => {}
    }
    if let Some(service) = text(names::SERVICE_NAME) {
        add(format!("service {service}"));
    }
    if let (Some(peer), true) =
        (text(names::NETWORK_PEER_ADDRESS), failed_connection(event.kind_name()))
    {
        let port = event.attribute(names::NETWORK_PEER_PORT).map(value_text).unwrap_or_default();
        add(format!("endpoint {peer}:{port}"));
    }
    if let Some(name) = text(names::PROCESS_EXECUTABLE_NAME) {
        add(format!("process {name}"));
    }
}

/// Whether an event of this kind means that a connection didn't work.
pub(crate) fn failed_connection(kind: Name) -> bool {
    [names::KERNEL_TCP_REFUSED, names::KERNEL_TCP_TIMEOUT, names::KERNEL_TCP_RESET].contains(&kind)
}

/// How many connections an event says failed: one, or as many as the kernel counted in a rate of
/// failing `connect` calls.
pub(crate) fn failed_connections(event: &ArchivedEvent<'_>) -> u64 {
    let kind = event.kind_name();
    if kind == names::KERNEL_SYSCALL_ERROR_RATE {
        return match (event.text(names::TAPIO_SYSCALL_NAME), event.attribute(names::TAPIO_COUNT)) {
            (Some("connect"), Some(Value::Int(count))) => u64::try_from(count).unwrap_or(0),
            _ => 0,
        };
    }
    u64::from(failed_connection(kind))
}

/// Whether a connection's peer is known and isn't the machine itself: somebody outside waits for it.
pub(crate) fn is_for_others(event: &ArchivedEvent<'_>) -> bool {
    let peer =
        event.text(names::NETWORK_PEER_ADDRESS).and_then(|a| a.parse::<std::net::IpAddr>().ok());
    peer.is_some_and(|a| !a.is_loopback())
}

/// The join key, by the rule's names for it, as a member has it.
fn key_texts(rule: &Rule, member: &Kept) -> Vec<(String, String)> {
    let what = match rule.shape {
        Shape::Sequence(_) => RulePart::Step(member.step),
        Shape::Aggregate(_) => RulePart::Counted(member.step),
    };
    let (Some((_, _, by)), Some(event)) = (rule.shape.member_part(what), member.record.event())
    else {
        return Vec::new();
    };
    let names = rule.join_fields().iter().zip(by);
    names.map(|(n, f)| (n.text(), event.field(*f).map(value_text).unwrap_or_default())).collect()
}

struct Teller<'a> {
    rule: &'a Rule,
    story: &'a OpenStory,
    key: Vec<(String, String)>,
}

impl Teller<'_> {
    fn events_of(&self, event: usize) -> impl Iterator<Item = &ArchivedEvent<'_>> {
        let kept = self.story.members.kept.iter();
        kept.filter(move |k| usize::from(k.event) == event).filter_map(|k| k.record.event())
    }

    fn value(&self, hole: &Hole) -> Option<String> {
        match hole {
            Hole::Field(event, field) => self
                .events_of(*event)
                .find_map(|e| e.field(*field).filter(|v| *v != Value::Null).map(value_text)),
            Hole::Capture(event, name) => {
                let predicate = &self.rule.events[*event].predicate;
                self.events_of(*event).find_map(|e| predicate.capture(e, name))
            }
            Hole::Key(field) => {
                let text = field.text();
                self.key.iter().find(|(k, _)| *k == text).map(|(_, v)| v.clone())
            }
            Hole::Count(None) => Some(self.story.members.total.to_string()),
            Hole::Count(Some(event)) => self.story.counts.get(*event).map(ToString::to_string),
            Hole::Duration => Some(crate::rules::duration_text(
                self.story.members.last_ns - self.story.members.first_ns,
            )),
        }
    }

    /// Whom the members are about.
    fn affected(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        let kept = self.story.members.kept.iter().filter_map(|k| k.record.event());
        kept.for_each(|event| affected(event, &mut all));
        let room = MAX_AFFECTED.saturating_sub(all.len());
        let others: Vec<_> =
            self.story.affected.iter().filter(|a| !all.contains(*a)).take(room).cloned().collect();
        all.extend(others);
        all.into_iter().collect()
    }

    fn fill(&self, template: &Template) -> Option<String> {
        template.fill(|hole| self.value(hole))
    }

    fn name(&self) -> String {
        let named = self.rule.story.name.as_ref().and_then(|t| self.fill(t));
        named.unwrap_or_else(|| match self.rule.description.as_str() {
            "" => self.rule.story.pattern.text().to_owned(),
            text => text.trim_end_matches('.').to_owned(),
        })
    }

    /// What the members are about: entities and kinds. Returns the place of each member's.
    fn sources(&self, into: &mut Vec<Source>) -> Vec<Option<usize>> {
        let of_member = |kept: &Kept| {
            let event = kept.record.event()?;
            let (role, _) = part(self.rule, kept.step);
            let seen = Seen {
                entity: evidence::subject(event)?,
                kind: event.kind_name(),
                time_ns: event.time(),
                tick_ns: event.clock_quality().tick_ns(),
                severity: event.severity(),
                is_effect: EFFECTS.contains(&role.text()),
                summary: summary(event),
                id: event.event_id(),
                label: label(event),
            };
            Some(evidence::add_source(into, seen))
        };
        self.story.members.kept.iter().map(of_member).collect()
    }

    /// The causes the rule knows how to name. `places`: each member's source.
    fn causes(&self, places: &[Option<usize>]) -> Vec<NamedCause> {
        let templates = &self.rule.story.root_cause;
        let named = templates.iter().rev().enumerate().filter_map(|(behind, template)| {
            let text = self.fill(template)?;
            let evidence = self.evidence(template);
            let events = || evidence.iter().filter_map(|k| k.record.event());
            let first = evidence.first().and_then(|first| {
                self.story.members.kept.iter().position(|k| std::ptr::eq(k, *first))
            });
            Some(NamedCause {
                text,
                source: first.and_then(|at| places.get(at).copied().flatten()),
                evidence: events().map(|e| e.event_id()).collect(),
                labels: events().map(label).collect(),
                behind,
            })
        });
        let mut named: Vec<NamedCause> = named.collect();
        named.reverse();
        named
    }

    /// The members a template's holes were filled from.
    fn evidence(&self, template: &Template) -> Vec<&Kept> {
        let mut evidence: Vec<&Kept> = Vec::new();
        for hole in template.holes() {
            let found = self.story.members.kept.iter().find(|k| match hole {
                Hole::Field(event, field) => {
                    usize::from(k.event) == *event
                        && k.record.event().is_some_and(|e| e.field(*field).is_some())
                }
                Hole::Capture(event, name) => {
                    usize::from(k.event) == *event
                        && k.record.event().is_some_and(|e| {
                            self.rule.events[*event].predicate.capture(e, name).is_some()
                        })
                }
                Hole::Count(Some(event)) => usize::from(k.event) == *event,
                Hole::Key(_) | Hole::Count(None) | Hole::Duration => false,
            });
            evidence.extend(found.filter(|k| !evidence.iter().any(|e| std::ptr::eq(*e, *k))));
        }
        evidence
    }

    /// How unlikely it is that the members met by accident: each member beyond the first repeats
    /// the join, and a join on one process says more than a join on a whole node.
    fn confidence(&self) -> f64 {
        let specific = self.rule.join_fields().iter().map(|f| specificity(*f)).fold(0.1, f64::max);
        let joins = self.story.members.total.saturating_sub(1).min(8) as i32;
        1.0 - (1.0 - specific).powi(joins.max(1))
    }
}

fn specificity(field: FieldRef) -> f64 {
    match field {
        FieldRef::Entity(name) if name == names::HOST_NAME || name == names::K8S_NODE_NAME => 0.4,
        FieldRef::Entity(name)
            if name == names::K8S_NAMESPACE_NAME || name == names::K8S_CLUSTER_NAME =>
        {
            0.3
        }
        FieldRef::Entity(_) => 0.9,
        FieldRef::Attribute(_) => 0.7,
        _ => 0.2,
    }
}

/// A story's id where another of the same trace was closed before: it continues that one.
pub(crate) fn successor(of: TraceId, last: EventId) -> TraceId {
    TraceId(tapio_core::event::stable_hash(&[b"successor", &of.0, &last.0]))
}
