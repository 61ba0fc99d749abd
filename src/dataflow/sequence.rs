//! What a lane does for a sequence: `until`, the steps from the last to the first, completed
//! matches, and events that join a group which is open.

use super::groups::Match;
use super::keys::Entry;
use super::lane::{
    Body, Lane, MatchLine, Pending, RANK_SEQUENCE, Showing, add_membership, key_texts, label_json,
    match_key, trace_of,
};
use super::rules::field::build_key;
use super::rules::{RuleUse, Sequence};
use super::run::{Outcome, Run, Runs};
use crate::event::{EventId, TraceId};
use crate::ring::Membership;

impl Lane {
    pub(super) fn sequence(
        &mut self,
        showing: &mut Showing<'_, '_>,
        used: &RuleUse,
        sequence: &Sequence,
        found: &mut Vec<Membership>,
    ) {
        let rule = &showing.rules.rules[usize::from(used.rule)];
        let holds = |event: u16| rule.events[usize::from(event)].predicate.holds(showing.event);
        let time_ns = showing.hand.time_ns;
        if used.until.is_some_and(holds)
            && build_key(showing.event, &sequence.until_by, &mut self.key)
            && let Some(slot) = self.pending(used.rule, 0, None)
            && let Some(Entry { body: Pending { body: Body::Sequence(runs), .. }, .. }) =
                self.keys.get(slot)
        {
            runs.clear();
        }
        let mut last: Option<(u16, bool)> = None;
        let mut joined: Option<TraceId> = None;
        for &(step, event) in used.steps.iter().rev() {
            let hit = match last {
                Some((same, hit)) if same == event => hit,
                _ => rule.events[usize::from(event)].predicate.holds(showing.event),
            };
            last = Some((event, hit));
            let by = &sequence.steps[usize::from(step)].by;
            if !hit
                || !build_key(showing.event, &by[..sequence.key_fields], &mut self.key)
                || !build_key(showing.event, &by[sequence.key_fields..], &mut self.tail)
            {
                continue;
            }
            let starts = sequence.steps[..usize::from(step)].iter().all(|s| s.optional);
            let body = starts.then(|| Body::Sequence(Runs::new(sequence)));
            let deadline_ns = time_ns.saturating_add(sequence.within_ns);
            let Some(slot) = self.pending(used.rule, deadline_ns, body) else {
                continue;
            };
            let outcome = self.try_step(showing, used.rule, slot, sequence, usize::from(step));
            let (trace, before, completed) = match outcome {
                Some(Outcome::Joined { trace, before }) => (trace, before, None),
                Some(Outcome::Completed { run, before }) => (run.trace, before, Some(run)),
                None => match self.attach(showing, slot, step, event, joined) {
                    Some((group, before)) => (group, before, None),
                    None => continue,
                },
            };
            let trace = match completed {
                Some(run) => self.completed(showing, used.rule, slot, &run),
                None => trace,
            };
            joined = Some(trace);
            add_membership(
                found,
                showing.rules,
                used.rule,
                step,
                trace,
                before,
                self.rank(trace, time_ns, RANK_SEQUENCE),
            );
        }
    }

    fn try_step(
        &mut self,
        showing: &mut Showing<'_, '_>,
        rule: u16,
        slot: u32,
        sequence: &Sequence,
        step: usize,
    ) -> Option<Outcome> {
        let time_ns = showing.hand.time_ns;
        let entry = self.keys.get(slot)?;
        let open = entry.body.group.filter(|g| self.groups.takes(*g, time_ns));
        let Body::Sequence(runs) = &mut entry.body.body else {
            return None;
        };
        runs.expire(sequence, time_ns);
        let (rules, key, id) = (showing.rules, &entry.key, showing.hand.id);
        runs.step(sequence, step, &self.tail, &mut showing.hand, || {
            open.unwrap_or_else(|| trace_of(rules, rule, key, id))
        })
    }

    /// An event no run waits for still belongs to the group that is open for its key, unless it
    /// could only begin another.
    fn attach(
        &mut self,
        showing: &mut Showing<'_, '_>,
        slot: u32,
        step: u8,
        event: u16,
        joined: Option<TraceId>,
    ) -> Option<(TraceId, [EventId; 2])> {
        let group = self.keys.get(slot)?.body.group?;
        if joined.is_some() || !self.groups.takes(group, showing.hand.time_ns) {
            return None;
        }
        let before = self.groups.ends(group)?;
        self.groups.join(group, &mut showing.hand, step, event, showing.now_ns);
        Some((group, before))
    }

    fn completed(
        &mut self,
        showing: &Showing<'_, '_>,
        number: u16,
        slot: u32,
        run: &Run,
    ) -> TraceId {
        self.matched += 1;
        let rule = &showing.rules.rules[usize::from(number)];
        if self.record_matches {
            let events: Vec<_> =
                run.filled.iter().filter_map(|r| r.event()).map(label_json).collect();
            let key = match_key(rule, showing.event);
            let json = serde_json::json!({"rule": rule.name.text(), "key": key, "events": events});
            self.matches.push(MatchLine { order: showing.order, rule_number: number, json });
        }
        // Steps may name the shared key differently: the first one's names stand for it.
        let key = match run.filled.first().and_then(|r| r.event()) {
            Some(first) => key_texts(rule, first),
            None => key_texts(rule, showing.event),
        };
        let found =
            Match { rule_number: number, rule, key, trace: run.trace, members: &run.members };
        let id = self.groups.matched(found, &showing.rules.rules, showing.now_ns);
        if let Some(entry) = self.keys.get(slot) {
            entry.body.group = Some(id);
        }
        id
    }
}
