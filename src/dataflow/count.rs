//! What a lane does for a count: a trailing window for each key, which fires on every event for which
//! its condition holds.

use super::groups::Match;
use super::lane::{
    Body, Lane, MatchLine, RANK_COUNT, Showing, add_membership, key_texts, label_json, match_key,
    trace_of,
};
use super::rules::field::build_key;
use super::rules::{Count, RuleUse};
use super::run::Window;
use crate::ring::Membership;

impl Lane {
    pub(super) fn count(
        &mut self,
        showing: &mut Showing<'_, '_>,
        used: &RuleUse,
        count: &Count,
        found: &mut Vec<Membership>,
    ) {
        let number = used.rule;
        let rule = &showing.rules.rules[usize::from(number)];
        let hit = used
            .steps
            .iter()
            .find(|(_, e)| rule.events[usize::from(*e)].predicate.holds(showing.event));
        let Some(&(_, event)) = hit else { return };
        if !build_key(showing.event, &count.by, &mut self.key) {
            return;
        }
        let time_ns = showing.hand.time_ns;
        let deadline_ns = time_ns.saturating_add(count.within_ns);
        let body = Body::Count(Window::default());
        let Some(slot) = self.pending(number, deadline_ns, Some(body)) else {
            return;
        };
        let Some(entry) = self.keys.get(slot) else {
            return;
        };
        let told = entry.body.group.filter(|g| self.groups.takes(*g, time_ns));
        let Body::Count(window) = &mut entry.body.body else {
            return;
        };
        let (key, id) = (&entry.key, showing.hand.id);
        let (value, before) = window.add(count, &mut showing.hand, event, told.is_some(), || {
            trace_of(showing.rules, number, key, id)
        });
        let fires = count.bounds.hold(value);
        let trace = match told {
            Some(group) => {
                self.groups.join(group, &mut showing.hand, 0, event, showing.now_ns);
                group
            }
            None if fires => {
                let key = key_texts(rule, showing.event);
                let found = Match {
                    rule_number: number,
                    rule,
                    key,
                    trace: window.trace,
                    members: &window.members,
                };
                let id = self.groups.matched(found, &showing.rules.rules, showing.now_ns);
                entry.body.group = Some(id);
                id
            }
            None => window.trace,
        };
        if fires {
            self.fired(showing, number, value);
        }
        add_membership(
            found,
            showing.rules,
            number,
            0,
            trace,
            before,
            self.rank(trace, time_ns, RANK_COUNT),
        );
    }

    fn fired(&mut self, showing: &Showing<'_, '_>, number: u16, value: u64) {
        self.matched += 1;
        if self.record_matches {
            let rule = &showing.rules.rules[usize::from(number)];
            let json = serde_json::json!({
                "rule": rule.name.text(), "key": match_key(rule, showing.event),
                "event": label_json(showing.event), "value": value,
            });
            self.matches.push(MatchLine { order: showing.order, rule_number: number, json });
        }
    }
}
