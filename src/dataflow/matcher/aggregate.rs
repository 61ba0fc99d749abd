//! Evaluates an aggregate: a measure over a trailing window, which fires on every event for which
//! its condition holds.

use crate::matcher::baseline::Baseline;
use crate::matcher::key_state::Body;
use crate::matcher::lane::{Lane, MatchContext};
use crate::matcher::match_line::{MatchLine, key_json, label_json};
use crate::matcher::membership::{RANKS_COUNTED, add_membership, match_trace, rank};
use crate::matcher::window::{Fired, Window};
use crate::rules::field::build_key;
use crate::rules::{Aggregate, FieldRef, Outcomes, RulePart, RuleUse};
use crate::story::open_story::Match;
use tapio_core::event::TraceId;
use tapio_core::ring::Membership;

impl Lane {
    pub(crate) fn aggregate(
        &mut self,
        context: &mut MatchContext<'_, '_>,
        used: &RuleUse,
        outcomes: &Outcomes,
        aggregate: &Aggregate,
        memberships: &mut Vec<Membership>,
    ) {
        let (mut counted, mut same) = std::mem::take(&mut self.counted);
        counted.clear();
        counted.extend(used.ops.iter().filter(|op| outcomes.holds(**op)).filter_map(|op| {
            match op.part {
                RulePart::Counted(i) => Some(i),
                _ => None,
            }
        }));
        // An event can be several of the counted ones, each with its own key.
        while let Some(first) = counted.first().copied() {
            let by = &aggregate.events[usize::from(first)].by;
            same.clear();
            same.extend(counted.extract_if(.., |i| aggregate.events[usize::from(*i)].by == *by));
            if build_key(context.event, by, &mut self.key) {
                self.measure(context, used.rule, aggregate, &same, memberships);
            }
        }
        self.counted = (counted, same);
    }

    fn measure(
        &mut self,
        context: &mut MatchContext<'_, '_>,
        number: u16,
        aggregate: &Aggregate,
        counted: &[u8],
        memberships: &mut Vec<Membership>,
    ) {
        let rule = &context.rules.rules[usize::from(number)];
        let time_ns = context.current.time_ns;
        let deadline_ns = time_ns.saturating_add(aggregate.within_ns);
        let make = || Body::Window(Box::new(Window::new(aggregate)));
        let Some(slot) = self.key_slot(number, deadline_ns, Some(make)) else {
            return;
        };
        let Some(entry) = self.keys.get(slot) else {
            return;
        };
        let open = entry.body.story.filter(|s| self.stories.accepts(*s, time_ns));
        let Body::Window(window) = &mut entry.body.body else {
            return;
        };
        let baseline = match &aggregate.deviation {
            None => None,
            Some(_) => self.baselines.advance(number, aggregate, &entry.key, (window, time_ns)),
        };
        let (key, id) = (&entry.key, context.current.id);
        // Which event deviates first depends on the order of arrival, its window hardly does.
        let first = baseline.map_or(id, Baseline::window_id);
        let current = &mut *context.current;
        let added = window.add(aggregate, counted, current, baseline, open.is_some(), || {
            match_trace(context.rules, number, key, first)
        });
        // The usual events of a busy key belong to no story.
        let belongs = |fired: &Option<Fired>| fired.is_some() || aggregate.deviation.is_none();
        let Some((fired, before)) = added.filter(|(fired, _)| belongs(fired)) else { return };
        let by = &aggregate.events[usize::from(counted[0])].by;
        let event = aggregate.events[usize::from(counted[0])].event as u16;
        let trace = match open {
            Some(story) => {
                self.stories.join(story, context.current, counted[0], event, context.now_ns);
                story
            }
            None if fired.is_some() => {
                let trace = window.trace;
                let had_story = entry.body.had_story(trace);
                let Body::Window(window) = &entry.body.body else { return };
                let found = Match {
                    rule_number: number,
                    rule,
                    trace,
                    at_ns: time_ns,
                    had_story,
                    members: &window.members,
                };
                let id = self.stories.add_match(&found, &context.rules.rules, context.now_ns);
                entry.body.set_story(id);
                id
            }
            None => window.trace,
        };
        if let Some(fired) = fired {
            self.fired(context, number, (by, trace), fired);
        }
        let before = self.related(trace, id, before);
        let rank = rank(RANKS_COUNTED, self.stories.accepts(trace, time_ns), 1);
        add_membership(memberships, context.rules, number, counted[0], trace, before, rank);
    }

    fn fired(
        &mut self,
        context: &MatchContext<'_, '_>,
        number: u16,
        (by, trace): (&[FieldRef], TraceId),
        fired: Fired,
    ) {
        self.matched += 1;
        if let Some(deviation) = fired.deviation {
            self.stories.deviates(trace, deviation);
        }
        if self.record_matches {
            let rule = &context.rules.rules[usize::from(number)];
            let mut json = serde_json::json!({
                "rule": rule.name.text(), "key": key_json(rule, by, context.event),
                "event": label_json(context.event), "value": number_json(fired.value),
            });
            if let Some(found) = fired.deviation {
                json["usual"] = number_json(found.usual);
                json["deviation"] = number_json(found.deviation);
            }
            self.matches.push(MatchLine {
                time_ns: context.current.time_ns,
                order: context.current.order,
                rule_number: number,
                first: 0,
                json,
            });
        }
    }
}

/// A number as JSON; a whole one as an integer.
fn number_json(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    value.into()
}
