//! Renders a story: its name, entities, actions, confidence, and the causes that its rule names.
//! All texts come from the story's events; a rule only selects fields. The assessor, which has the
//! facts of all shards (`evidence/`), ranks the causes and computes the impact.

use std::collections::BTreeSet;

use crate::evidence::{
    self, AffectedEntity, ImpactSpec, MAX_AFFECTED, MemberFacts, NamedCause, Observation,
    PendingStory,
};
use crate::rules::field::value_text;
use crate::rules::{FieldRef, Rule, RulePart, Shape, Template, Variable, View, duration_text};
use crate::story::event_text::{affected, label, summary};
use crate::story::members::Kept;
use crate::story::open_story::OpenStory;
use tapio_core::event::{ArchivedEvent, Impact, Member, Name, Story, StoryState, Value, names};

/// The roles of members that didn't cause others.
const EFFECTS: [&str; 2] = ["effect", "symptom"];

/// Renders the story as it is now.
pub(crate) fn render(rule: &Rule, story: &OpenStory, state: StoryState) -> PendingStory {
    StoryRenderer::new(rule, story).render(state)
}

/// The role and pattern of a member that filled this step.
pub(crate) fn role_and_pattern(rule: &Rule, step: u8) -> (Name, Name) {
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

fn member(rule: &Rule, kept: &Kept) -> Option<Member> {
    let event = kept.record.event()?;
    let (role, pattern) = role_and_pattern(rule, kept.step);
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

/// The join key by the rule's names, with the values of a member.
fn key_texts(rule: &Rule, member: &Kept) -> Vec<(String, String)> {
    let part = match rule.shape {
        Shape::Sequence(_) => RulePart::Step(member.step),
        Shape::Aggregate(_) => RulePart::Counted(member.step),
    };
    let (Some((_, _, by)), Some(event)) = (rule.shape.member_part(part), member.record.event())
    else {
        return Vec::new();
    };
    let names = rule.join_fields().iter().zip(by);
    names.map(|(n, f)| (n.text(), event.field(*f).map(value_text).unwrap_or_default())).collect()
}

/// Renders one story by its rule's templates.
pub(crate) struct StoryRenderer<'a> {
    rule: &'a Rule,
    story: &'a OpenStory,
    key: Vec<(String, String)>,
}

impl<'a> StoryRenderer<'a> {
    fn new(rule: &'a Rule, story: &'a OpenStory) -> Self {
        let key = story.members.kept.first().map(|kept| key_texts(rule, kept)).unwrap_or_default();
        Self { rule, story, key }
    }

    fn render(&self, state: StoryState) -> PendingStory {
        let Self { rule, story, key } = self;
        let (observations, observation_of) = self.observations();
        let spec = &rule.story;
        let rendered = Story {
            id: story.id,
            trace_id: story.trace,
            rule: rule.name.text().into(),
            pattern: spec.pattern.text().into(),
            name: self.name(),
            intent: spec.intent.clone(),
            state,
            revision: story.revision,
            key: key.clone(),
            members: story.members.kept.iter().filter_map(|kept| member(rule, kept)).collect(),
            members_total: story.members.total,
            first_ns: story.members.first_ns,
            last_ns: story.members.last_ns,
            severity: rule.severity.max(story.worst),
            root_cause: Vec::new(),
            actions: spec.actions.iter().filter_map(|t| self.fill_action(t)).collect(),
            confidence: self.confidence(),
            impact: Impact::default(),
            continues: story.continues,
            provisional: None,
            incident: None,
        };
        PendingStory {
            story: rendered,
            affected: self.affected(),
            observations,
            named: self.causes(&observation_of),
            any_cause: true,
            within_ns: rule.within_ns(),
            impact_spec: ImpactSpec {
                business: spec.business,
                customer_facing: spec.customer_facing,
                slo_impact: spec.slo_impact,
            },
            failed_connections: story.failed_connections,
            failed_for_others: story.failed_outside,
        }
    }

    fn events_of(&self, event: usize) -> impl Iterator<Item = &ArchivedEvent<'_>> {
        let kept = self.story.members.kept.iter();
        kept.filter(move |k| usize::from(k.event) == event).filter_map(|k| k.record.event())
    }

    fn value(&self, variable: &Variable) -> Option<String> {
        match variable {
            Variable::Field(event, field) => self
                .events_of(*event)
                .find_map(|e| e.field(*field).filter(|v| *v != Value::Null).map(value_text)),
            Variable::Capture(event, name) => {
                let predicate = &self.rule.events[*event].predicate;
                self.events_of(*event).find_map(|e| predicate.capture(e, name))
            }
            Variable::Key(field) => {
                let text = field.text();
                self.key.iter().find(|(k, _)| *k == text).map(|(_, v)| v.clone())
            }
            Variable::Count(None) => Some(self.story.members.total.to_string()),
            Variable::Count(Some(event)) => self.story.counts.get(*event).map(ToString::to_string),
            Variable::Duration => {
                Some(duration_text(self.story.members.last_ns - self.story.members.first_ns))
            }
            Variable::Measured(which) => self.story.deviation.map(|found| found.text(*which)),
        }
    }

    /// The entities that the members are about.
    fn affected(&self) -> Vec<AffectedEntity> {
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
        template.fill(|variable| self.value(variable))
    }

    fn fill_action(&self, template: &Template) -> Option<String> {
        template.fill_for_shell(|variable| self.value(variable))
    }

    fn name(&self) -> String {
        let named = self.rule.story.name.as_ref().and_then(|t| self.fill(t));
        named.unwrap_or_else(|| match self.rule.description.as_str() {
            "" => self.rule.story.pattern.text().to_owned(),
            text => text.trim_end_matches('.').to_owned(),
        })
    }

    /// The members by entity and kind, and for each member the index of its observation.
    fn observations(&self) -> (Vec<Observation>, Vec<Option<usize>>) {
        let mut observations = Vec::new();
        let mut observation_of = |kept: &Kept| {
            let event = kept.record.event()?;
            let (role, _) = role_and_pattern(self.rule, kept.step);
            let member = MemberFacts {
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
            Some(evidence::add_member(&mut observations, member))
        };
        let observation_of = self.story.members.kept.iter().map(&mut observation_of).collect();
        (observations, observation_of)
    }

    /// The causes that the rule names. `observation_of`: the index of each member's
    /// observation.
    fn causes(&self, observation_of: &[Option<usize>]) -> Vec<NamedCause> {
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
                observation: first.and_then(|at| observation_of.get(at).copied().flatten()),
                evidence: events().map(|e| e.event_id()).collect(),
                labels: events().map(label).collect(),
                behind,
            })
        });
        let mut named: Vec<NamedCause> = named.collect();
        named.reverse();
        named
    }

    /// The members that filled the variables of a template.
    fn evidence(&self, template: &Template) -> Vec<&Kept> {
        let mut evidence: Vec<&Kept> = Vec::new();
        for variable in template.variables() {
            let found = self.story.members.kept.iter().find(|k| match variable {
                Variable::Field(event, field) => {
                    usize::from(k.event) == *event
                        && k.record.event().is_some_and(|e| e.field(*field).is_some())
                }
                Variable::Capture(event, name) => {
                    usize::from(k.event) == *event
                        && k.record.event().is_some_and(|e| {
                            self.rule.events[*event].predicate.capture(e, name).is_some()
                        })
                }
                Variable::Count(Some(event)) => usize::from(k.event) == *event,
                Variable::Key(_)
                | Variable::Count(None)
                | Variable::Duration
                | Variable::Measured(_) => false,
            });
            evidence.extend(found.filter(|k| !evidence.iter().any(|e| std::ptr::eq(*e, *k))));
        }
        evidence
    }

    /// How unlikely it is that the members share their key by chance: each member beyond the first
    /// repeats the join, and a join on one process is more specific than one on a whole node.
    fn confidence(&self) -> f64 {
        let specific = self.rule.join_fields().iter().map(|f| specificity(*f)).fold(0.1, f64::max);
        let joins = self.story.members.total.saturating_sub(1).min(8) as i32;
        1.0 - (1.0 - specific).powi(joins.max(1))
    }
}

/// How specific a join on this field is, 0 to 1.
fn specificity(field: FieldRef) -> f64 {
    match field {
        FieldRef::Entity(name) if name == names::HOST_NAME || name == names::K8S_NODE_NAME => 0.4,
        FieldRef::Entity(name)
            if name == names::K8S_NAMESPACE_NAME || name == names::K8S_CLUSTER_NAME =>
        {
            0.3
        }
        FieldRef::Entity(_) => 0.9,
        FieldRef::Attribute(_) | FieldRef::Derived(_) => 0.7,
        _ => 0.2,
    }
}
