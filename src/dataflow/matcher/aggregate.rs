//! What a lane does for a measure over a trailing window: it fires on every event for which its
//! condition holds.

use crate::matcher::lane::{
    Body, Lane, MatchLine, RANKS_COUNTED, Showing, add_membership, key_json, label_json, trace_of,
};
use crate::matcher::window::Window;
use crate::rules::field::build_key;
use crate::rules::{Aggregate, Outcomes, RulePart, RuleUse};
use crate::story::open::Match;
use tapio_core::ring::Membership;

impl Lane {
    pub(crate) fn aggregate(
        &mut self,
        showing: &mut Showing<'_, '_>,
        used: &RuleUse,
        outcomes: &Outcomes,
        aggregate: &Aggregate,
        found: &mut Vec<Membership>,
    ) {
        let mut counted: Vec<u8> = Vec::with_capacity(used.ops.len());
        counted.extend(used.ops.iter().filter(|op| outcomes.holds(**op)).filter_map(|op| {
            match op.part {
                RulePart::Counted(i) => Some(i),
                _ => None,
            }
        }));
        // An event may be several of the counted ones, each with a key of its own.
        while let Some(first) = counted.first().copied() {
            let by = &aggregate.events[usize::from(first)].by;
            let same: Vec<u8> =
                counted.extract_if(.., |i| aggregate.events[usize::from(*i)].by == *by).collect();
            if build_key(showing.event, by, &mut self.key) {
                self.measure(showing, used.rule, aggregate, &same, found);
            }
        }
    }

    fn measure(
        &mut self,
        showing: &mut Showing<'_, '_>,
        number: u16,
        aggregate: &Aggregate,
        counted: &[u8],
        found: &mut Vec<Membership>,
    ) {
        let rule = &showing.rules.rules[usize::from(number)];
        let time_ns = showing.hand.time_ns;
        let deadline_ns = time_ns.saturating_add(aggregate.within_ns);
        let make = || Body::Window(Box::new(Window::new(aggregate)));
        let Some(slot) = self.pending(number, deadline_ns, Some(make)) else {
            return;
        };
        let Some(entry) = self.keys.get(slot) else {
            return;
        };
        let told = entry.body.story.filter(|g| self.stories.takes(*g, time_ns));
        let Body::Window(window) = &mut entry.body.body else {
            return;
        };
        let (key, id) = (&entry.key, showing.hand.id);
        let added =
            window.add(aggregate, counted, showing.event, showing.hand, told.is_some(), || {
                trace_of(showing.rules, number, key, id)
            });
        let Some((fired, before)) = added else { return };
        let by = &aggregate.events[usize::from(counted[0])].by;
        let event = aggregate.events[usize::from(counted[0])].event as u16;
        let trace = match told {
            Some(story) => {
                self.stories.join(story, showing.hand, counted[0], event, showing.now_ns);
                story
            }
            None if fired.is_some() => {
                let found = Match {
                    rule_number: number,
                    rule,
                    trace: window.trace,
                    at_ns: time_ns,
                    told_before: entry.body.told.contains(&window.trace),
                    members: &window.members,
                };
                let id = self.stories.matched(found, &showing.rules.rules, showing.now_ns);
                entry.body.tell(id);
                id
            }
            None => window.trace,
        };
        if let Some(value) = fired {
            self.fired(showing, number, by, value);
        }
        let before = self.related(trace, id, before);
        let rank = self.rank(trace, time_ns, RANKS_COUNTED);
        add_membership(found, showing.rules, number, counted[0], trace, before, rank);
    }

    fn fired(
        &mut self,
        showing: &Showing<'_, '_>,
        number: u16,
        by: &[crate::rules::FieldRef],
        value: f64,
    ) {
        self.matched += 1;
        if self.record_matches {
            let rule = &showing.rules.rules[usize::from(number)];
            let json = serde_json::json!({
                "rule": rule.name.text(), "key": key_json(rule, by, showing.event),
                "event": label_json(showing.event), "value": number_json(value),
            });
            self.matches.push(MatchLine {
                time_ns: showing.hand.time_ns,
                order: showing.hand.order,
                rule_number: number,
                first: 0,
                json,
            });
        }
    }
}

/// Whole numbers as such.
fn number_json(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    value.into()
}
