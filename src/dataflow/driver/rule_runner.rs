//! Rules' own tests: their events through the production correlator, what comes out against what
//! the author expects.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::driver::replay::{Emit, Inputs, ReplayError, run};
use crate::rules::{Place, Rule, RuleTest, TestEvents};
use tapio_core::event::Story;

/// One test's outcome.
#[derive(Debug)]
pub struct Tried {
    /// The rule.
    pub rule: String,
    /// Its file.
    pub file: String,
    /// Where the test stands in it.
    pub place: Place,
    /// What differs from what is expected; empty where the rule does what its author says.
    pub differences: Vec<String>,
}

/// Tries a rule's tests.
///
/// # Errors
/// When the system gives no threads. A file that can't be read is a difference.
pub fn try_rule(rule: &Rule) -> Result<Vec<Tried>, ReplayError> {
    let file = rule.origin.rsplit_once(':').map_or(rule.origin.as_str(), |(file, _)| file);
    rule.tests
        .iter()
        .map(|test| {
            let differences = match inputs(test, file, rule) {
                Ok(inputs) => differences(rule, test, inputs)?,
                Err(cause) => vec![cause],
            };
            let (rule, file) = (rule.name.text().to_owned(), file.to_owned());
            Ok(Tried { rule, file, place: test.place, differences })
        })
        .collect()
}

/// A test's file stands where the rule's author sees it: from the folder one is in, else beside
/// the rule, else from one of the folders above it.
fn find(path: &str, rule_file: &str) -> Option<PathBuf> {
    let here = PathBuf::from(path);
    if here.exists() {
        return Some(here);
    }
    let folders = Path::new(rule_file).ancestors().skip(1);
    folders.map(|folder| folder.join(path)).find(|candidate| candidate.exists())
}

fn inputs(test: &RuleTest, file: &str, rule: &Rule) -> Result<Inputs, String> {
    match &test.events {
        TestEvents::Lines(lines) => Ok(Inputs::text(&format!("{} test", rule.name), lines)),
        TestEvents::File(path) => {
            let found = find(path, file).ok_or_else(|| format!("{path}: no such file"))?;
            Inputs::files(&[found]).map_err(|e| e.to_string())
        }
    }
}

fn differences(rule: &Rule, test: &RuleTest, inputs: Inputs) -> Result<Vec<String>, ReplayError> {
    let replayed = run(inputs, vec![rule.clone()], "", 1, Emit::Stories)?;
    let mut differences: Vec<String> =
        replayed.refused.iter().map(|bad| format!("not an event: {bad}")).collect();
    let name = rule.name.text();
    let stories: Vec<&Story> = replayed.stories.iter().filter(|g| g.rule == name).collect();
    if stories.len() != test.expect.len() {
        let found: Vec<String> = stories
            .iter()
            .map(|g| format!("{} with {} members", g.name, g.members_total))
            .collect();
        differences.push(format!(
            "expected {} stories, found {}{}{}",
            test.expect.len(),
            stories.len(),
            if found.is_empty() { "" } else { ": " },
            found.join("; ")
        ));
        return Ok(differences);
    }
    for (number, (story, expected)) in stories.iter().zip(&test.expect).enumerate() {
        let seen = seen(story);
        for (key, expected) in expected {
            let got = seen.get(key).unwrap_or(&Json::Null);
            if !agrees(expected, got) {
                differences
                    .push(format!("story {}: {key}: expected {expected}, found {got}", number + 1));
            }
        }
    }
    Ok(differences)
}

/// What a test can look at in a story.
fn seen(story: &Story) -> Map<String, Json> {
    let cause = story.root_cause.first().map(|c| c.cause.as_str());
    let pairs: [(&str, Json); 11] = [
        ("pattern", story.pattern.as_str().into()),
        ("members", story.members_total.into()),
        ("name", story.name.as_str().into()),
        ("root_cause", cause.into()),
        ("severity", story.severity.as_str().into()),
        ("state", story.state.as_str().into()),
        ("actions", story.actions.clone().into()),
        ("business", story.impact.business.into()),
        ("customer_facing", story.impact.customer_facing.into()),
        ("slo_impact", story.impact.slo_impact.into()),
        ("affected", story.impact.affected.clone().into()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Text may have `*` for any text; of a list, each expected item must be among those found.
fn agrees(expected: &Json, got: &Json) -> bool {
    match (expected, got) {
        (Json::String(pattern), Json::String(text)) => matches(pattern, text),
        (Json::Array(wanted), Json::Array(found)) => {
            wanted.iter().all(|w| found.iter().any(|f| agrees(w, f)))
        }
        (one @ Json::String(_), Json::Array(found)) => found.iter().any(|f| agrees(one, f)),
        (Json::Number(a), Json::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-6,
            _ => a == b,
        },
        _ => expected == got,
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let Some(tail) = pattern.contains('*').then(|| pattern.rsplit('*').next()).flatten() else {
        return rest.is_empty();
    };
    let inner: Vec<&str> = parts.collect();
    for part in &inner[..inner.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_agrees_with_wildcards() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxyyc", false),
            ("*", "", true),
            ("*b*", "ab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_test_tells_what_differs() {
        let rule = "rule: r
events: { a: { kind: t.a } }
count: { event: a, within: 10s, at_least: 2 }
story: { pattern: many, root_cause: 'many of {a.attributes.k}' }
tests:
  - events: [{ time: 1000000000, kind: t.a, attributes: { k: x } }, { time: 2000000000, kind: t.a, attributes: { k: x } }]
    expect: [{ pattern: many, members: 2, root_cause: 'many of *' }]
  - events: [{ time: 1000000000, kind: t.a }]
    expect: [{ pattern: many }]
  - events: [{ time: 1, kind: t.a }, { time: 2, kind: t.a }]
    expect: [{ members: 3 }]
  - events: nowhere.jsonl
    expect: []
";
        let mut loaded = crate::rules::Loaded::default();
        loaded.text("r.yaml", rule);
        assert_eq!(loaded.errors, []);
        let tried = try_rule(&loaded.rules[0]).unwrap();
        let differences: Vec<_> = tried.iter().map(|t| t.differences.join(" ")).collect();
        assert_eq!(differences[0], "");
        assert!(differences[1].contains("expected 1 stories, found 0"), "{differences:?}");
        assert!(differences[2].contains("members: expected 3, found 2"), "{differences:?}");
        assert!(differences[3].contains("nowhere.jsonl"), "{differences:?}");
        assert_eq!(tried[3].place.line, 12);
    }
}
