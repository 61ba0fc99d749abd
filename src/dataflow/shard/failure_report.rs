//! Reports what failed in a shard.

use crate::matcher::order::Order;
use crate::rules::{LiveRules, Reported, RuleFailures};
use crate::shard::shard::Shard;
use tapio_core::event::Name;

/// Reports what failed: each rule once in the log, and again when it is disabled. Replay disables
/// none, so that its result doesn't depend on the number of shards.
pub(super) fn report_failures(shard: &mut Shard, rules: &LiveRules, order: Order, now_ns: u64) {
    for failure in shard.take_failures() {
        let disables = order == Order::Arrival;
        match rules.report(shard.rules(), &failure, now_ns, disables) {
            Reported::First(RuleFailures { rule, origin, cause, .. }) => tracing::error!(
                rule = rule.map(Name::text),
                origin,
                cause,
                "correlation failed; the event is forwarded without it, further failures are \
                 counted"
            ),
            Reported::Disabled(RuleFailures { rule, origin, cause, failures, .. }) => {
                tracing::error!(
                    rule = rule.map(Name::text),
                    origin,
                    cause,
                    failures,
                    "rule failed repeatedly; disabled until the rules are reloaded"
                );
            }
            Reported::Again => {}
        }
    }
}
