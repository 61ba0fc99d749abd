//! Rules that learned pairs suggest: one document each, which `tapio rules check` accepts.

use std::fmt::Write as _;

use super::pairs::{LOOK_BACK_NS, Learned};
use crate::rules::duration_text;

/// A pair that came more rarely isn't a pattern yet.
const LEAST_SUPPORT: f64 = 5.0;
/// Rarer than this by chance: three times as often as As strewn at random would give.
const LEAST_LOG_LIFT: f64 = 1.098_612_288_668_11;
/// Suggestions that are kept.
const MAX_SUGGESTIONS: usize = 32;

/// The pairs worth a rule, the strongest first.
pub(super) fn worth_a_rule(mut all: Vec<Learned>) -> Vec<Learned> {
    all.retain(|l| l.support >= LEAST_SUPPORT && l.log_lift() >= LEAST_LOG_LIFT);
    all.truncate(MAX_SUGGESTIONS);
    all
}

/// A kind as a part of a rule's name.
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

/// A text as a YAML scalar, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A window that holds nineteen in twenty of the delays, as a rule writes it.
fn window(learned: &Learned) -> String {
    match learned.p95_delay_ns.min(LOOK_BACK_NS) {
        ns if ns < 1_000_000_000 => format!("{}ms", ns / 1_000_000),
        ns => format!("{}s", ns.div_ceil(1_000_000_000)),
    }
}

/// The documents, separated by `---`. Empty for none.
#[must_use]
pub fn rule_documents(suggestions: &[Learned]) -> String {
    let mut out = String::new();
    for (number, learned) in suggestions.iter().enumerate() {
        let key = learned.key;
        let (before, after) = (key.before.text(), key.after.text());
        let by: Vec<&str> = key.home.fields().iter().map(|f| f.text()).collect();
        let separator = if number > 0 { "---\n" } else { "" };
        // Two kinds of other characters may have the same slug: the number tells them apart.
        let name = format!("suggested-{}-{}-then-{}", number + 1, slug(before), slug(after));
        // Writing to a string can't fail.
        let _ = writeln!(
            out,
            "{separator}# {before} came before {after} {:.0} times, by chance it would have {:.1} times: lift {:.1}.\n\
             # {:.0} % of {before} were followed so; typically after {} at most.\n\
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
            quoted(&format!("{before} is followed by {after}, as it was learned here.")),
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

    fn learned(before: Name, after: Name, support: f64, home: HomeKind) -> Learned {
        Learned {
            key: PairKey { home, before, after },
            support,
            chance: 1.0,
            median_delay_ns: 4_096_000_000,
            p95_delay_ns: 16_384_000_000,
            share: 0.8,
        }
    }

    #[test]
    fn suggestions_are_rules() {
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
        assert!(text.contains("20 times, by chance it would have 1.0 times: lift 13.7"), "{text}");
        assert!(text.contains("within: 17s") && text.contains("after 4.1 s at most"), "{text}");
    }

    #[test]
    fn rare_and_accidental_pairs_are_left_out() {
        let [a, b] = [names::SYSTEMD_UNIT_RESTARTING, names::SYSTEMD_UNIT_FAILED];
        let mut accidental = learned(a, b, 20.0, HomeKind::Unit);
        accidental.chance = 15.0;
        let rare = learned(a, b, 4.0, HomeKind::Unit);
        let good = learned(a, b, 6.0, HomeKind::Unit);
        assert_eq!(worth_a_rule(vec![accidental, rare, good]), [good]);
    }
}
