//! The memberships that an event gets, and their ranks. The membership with the lowest rank gives
//! the event its trace.
//!
//! A membership that links the event with others precedes one of the event alone: a failed unit is
//! a story at once, but with its journal's reason and its pods it is one trace. Of two sequences,
//! the one that needs more events precedes: a pod that crashes because a unit failed belongs to the
//! unit's trace, not to that of its own crash loop. A sequence precedes an aggregate over the same
//! events, so that its few members all carry its trace.

use crate::rules::RuleSet;
use crate::story::render::role_and_pattern;
use tapio_core::event::{EventId, TraceId, stable_hash};
use tapio_core::ring::Membership;

/// First parts of ranks, in an open story, and in one that isn't open yet.
pub(crate) type Ranks = [u8; 2];

/// Of a sequence that links the event with earlier ones.
pub(crate) const RANKS_LINKED: Ranks = [0, 1];
/// Of a sequence that has this event only.
pub(crate) const RANKS_ALONE: Ranks = [2, 4];
/// The same where the step is optional: the match is likelier to be another's.
pub(crate) const RANKS_OPTIONAL: Ranks = [2, 5];
/// Of an aggregate.
pub(crate) const RANKS_COUNTED: Ranks = [3, 6];
/// Of a late event.
pub(crate) const RANK_LATE: u8 = 7 << STEPS_BITS;

/// The bits of a rank that the number of steps takes.
const STEPS_BITS: u32 = 4;

/// The rank of a membership: by the state of its story, then by the steps that the rule requires.
/// The match that needs the fewest is the likeliest to become a story; of stories, the one that
/// needs the most explains the most.
pub(crate) fn rank([open, pending]: Ranks, is_open: bool, required_steps: usize) -> u8 {
    const MOST: u8 = (1 << STEPS_BITS) - 1;
    let steps = required_steps.min(usize::from(MOST)) as u8;
    if is_open { (open << STEPS_BITS) | (MOST - steps) } else { (pending << STEPS_BITS) | steps }
}

/// The trace of a partial match or window that this event starts: the same in every process that
/// sees the same events.
pub(crate) fn match_trace(rules: &RuleSet, rule: u16, key: &[u8], first: EventId) -> TraceId {
    let name = rules.rules[usize::from(rule)].name.text();
    TraceId(stable_hash(&[rules.cluster.as_bytes(), name.as_bytes(), key, &first.0]))
}

/// Adds a membership of a story, unless there is one already.
pub(crate) fn add_membership(
    memberships: &mut Vec<Membership>,
    rules: &RuleSet,
    rule: u16,
    step: u8,
    story: TraceId,
    related: [EventId; 2],
    rank: u8,
) {
    if memberships.iter().any(|m| m.story == story) {
        return;
    }
    let rule = &rules.rules[usize::from(rule)];
    let (role, pattern) = role_and_pattern(rule, step);
    memberships.push(Membership { story, rule: rule.name, pattern, role, rank, related });
}
