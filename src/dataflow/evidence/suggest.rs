//! Rules that learned pairs suggest: one document for each pair, which `tapio rules check` accepts.

use std::fmt::Write as _;

use super::pairs::{LOOK_BACK_NS, LearnedPair};
use crate::rules::duration_text;

/// Minimum support of a suggested pair.
const MIN_SUPPORT: f64 = 5.0;
/// Minimum logarithmic lift of a suggested pair: three times as often as by chance.
const MIN_LOG_LIFT: f64 = 1.098_612_288_668_11;
/// Maximum number of suggestions.
const MAX_SUGGESTIONS: usize = 32;

/// The pairs worth a rule, in the given order (strongest first).
pub(super) fn worth_a_rule(mut all: Vec<LearnedPair>) -> Vec<LearnedPair> {
    all.retain(|l| l.support >= MIN_SUPPORT && l.log_lift() >= MIN_LOG_LIFT);
    all.truncate(MAX_SUGGESTIONS);
    all
}

/// Converts a kind to a part of a rule's name.
fn slug(kind: &str) -> String {
    let mut out = String::new();
    for c in kind.to_ascii_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            _ if !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// Quotes a text as a YAML scalar.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A window that covers 95 % of the delays, in the syntax of rules.
fn window(learned: &LearnedPair) -> String {
    match learned.p95_delay_ns.min(LOOK_BACK_NS) {
        ns if ns < 1_000_000_000 => format!("{}ms", ns / 1_000_000),
        ns => format!("{}s", ns.div_ceil(1_000_000_000)),
    }
}

/// Renders the rule documents, separated by `---`. Empty for no suggestions.
#[must_use]
pub fn rule_documents(suggestions: &[LearnedPair]) -> String {
    let mut out = String::new();
    for (number, learned) in suggestions.iter().enumerate() {
        let key = learned.key;
        let (before, after) = (key.before.text(), key.after.text());
        let by: Vec<&str> = key.home.fields().iter().map(|f| f.text()).collect();
        let separator = if number > 0 { "---\n" } else { "" };
        // Kinds that differ in other characters only have the same slug; the number makes names
        // unique.
        let name = format!("suggested-{}-{}-then-{}", number + 1, slug(before), slug(after));
        // Writing to a string can't fail.
        let _ = writeln!(
            out,
            "{separator}# {before} preceded {after} {:.0} times, {:.1} times expected by chance: lift {:.1}.\n\
             # {after} followed {:.0} % of {before}; median delay at most {}.\n\
             rule: {name}\n\
             description: {}\n\
             severity: warn\n\
             events:\n\
             \x20 before: {{ kind: {} }}\n\
             \x20 after: {{ kind: {} }}\n\
             sequence:\n\
             \x20 by: [{}]\n\
             \x20 within: {}\n\
             \x20 steps:\n\
             \x20   - {{ event: before, role: cause }}\n\
             \x20   - {{ event: after, role: effect }}\n\
             story:\n\
             \x20 pattern: {}",
            learned.support,
            learned.chance,
            learned.log_lift().exp(),
            learned.share * 100.0,
            duration_text(learned.median_delay_ns),
            quoted(&format!("{before} is followed by {after} (learned from events).")),
            quoted(before),
            quoted(after),
            by.join(", "),
            window(learned),
            quoted(&format!("{}-then-{}", slug(before), slug(after))),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{HomeKind, PairKey};
    use super::*;
    use crate::rules::Loaded;
    use tapio_core::event::{Name, names};

    fn learned(before: Name, after: Name, support: f64, home: HomeKind) -> LearnedPair {
        LearnedPair {
            key: PairKey { home, before, after },
            support,
            chance: 1.0,
            median_delay_ns: 4_096_000_000,
            p95_delay_ns: 16_384_000_000,
            share: 0.8,
        }
    }

    #[test]
    fn suggestions_are_valid_rules() {
        let odd = Name::intern("Strange \"kind\": {x} #1").unwrap();
        let all = vec![
            learned(
                names::SYSTEMD_UNIT_RESTARTING,
                names::SYSTEMD_UNIT_FAILED,
                20.0,
                HomeKind::Unit,
            ),
            learned(odd, names::JOURNAL_MESSAGE, 20.0, HomeKind::Node),
            learned(names::K8S_POD_READY, odd, 20.0, HomeKind::Pod),
        ];
        let text = rule_documents(&all);
        let mut loaded = Loaded::default();
        loaded.text("suggested.yaml", &text);
        assert_eq!(loaded.errors, [], "{text}");
        assert_eq!(loaded.rules.len(), 3);
        assert!(text.contains("20 times, 1.0 times expected by chance: lift 13.7"), "{text}");
        assert!(
            text.contains("within: 17s") && text.contains("median delay at most 4.1 s"),
            "{text}"
        );
    }

    #[test]
    fn rare_and_accidental_pairs_are_not_suggested() {
        let [a, b] = [names::SYSTEMD_UNIT_RESTARTING, names::SYSTEMD_UNIT_FAILED];
        let mut accidental = learned(a, b, 20.0, HomeKind::Unit);
        accidental.chance = 15.0;
        let rare = learned(a, b, 4.0, HomeKind::Unit);
        let good = learned(a, b, 6.0, HomeKind::Unit);
        assert_eq!(worth_a_rule(vec![accidental, rare, good]), [good]);
    }
}
