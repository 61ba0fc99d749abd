//! Runs the tests that rules carry: replays their events and compares the stories with those that
//! the rule's author expects.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::driver::replay::{Emit, Inputs, ReplayError, run};
use crate::rules::{Position, Rule, RuleTest, TestEvents};
use tapio_core::event::Story;
use tapio_core::glob;

/// The outcome of one test.
#[derive(Debug)]
pub struct TestOutcome {
    /// The rule.
    pub rule: String,
    /// The rule's file.
    pub file: String,
    /// Position of the test in the file.
    pub position: Position,
    /// Differences from the expected stories; empty if the test passed.
    pub differences: Vec<String>,
    /// The file of events that isn't there.
    pub missing: Option<String>,
}

/// Runs a rule's tests.
///
/// # Errors
/// If no thread can be started. A file that can't be read is a difference.
pub fn run_rule_tests(rule: &Rule) -> Result<Vec<TestOutcome>, ReplayError> {
    let file = rule.origin.rsplit_once(':').map_or(rule.origin.as_str(), |(file, _)| file);
    rule.tests
        .iter()
        .map(|test| {
            let mut missing = None;
            let differences = match inputs(test, file, rule) {
                Ok(inputs) => differences(rule, test, inputs)?,
                Err(NoInputs::Missing(path)) => {
                    let difference = format!("{path}: file not found");
                    missing = Some(path);
                    vec![difference]
                }
                Err(NoInputs::Invalid(cause)) => vec![cause],
            };
            let (rule, file) = (rule.name.text().to_owned(), file.to_owned());
            Ok(TestOutcome { rule, file, position: test.position, differences, missing })
        })
        .collect()
}

/// Finds a test's file: relative to the current folder, else to the rule's folder, else to one of
/// the folders above it.
fn find(path: &str, rule_file: &str) -> Option<PathBuf> {
    let here = PathBuf::from(path);
    if here.exists() {
        return Some(here);
    }
    let folders = Path::new(rule_file).ancestors().skip(1);
    folders.map(|folder| folder.join(path)).find(|candidate| candidate.exists())
}

/// Why a test has no events.
enum NoInputs {
    /// There is no such file.
    Missing(String),
    /// It can't be read.
    Invalid(String),
}

fn inputs(test: &RuleTest, file: &str, rule: &Rule) -> Result<Inputs, NoInputs> {
    match &test.events {
        TestEvents::Lines(lines) => Ok(Inputs::text(&format!("{} test", rule.name), lines)),
        TestEvents::File(path) => {
            let found = find(path, file).ok_or_else(|| NoInputs::Missing(path.clone()))?;
            Inputs::files(&[found]).map_err(|e| NoInputs::Invalid(e.to_string()))
        }
    }
}

fn differences(rule: &Rule, test: &RuleTest, inputs: Inputs) -> Result<Vec<String>, ReplayError> {
    let replayed = run(inputs, vec![rule.clone()], "", 1, Emit::Stories)?;
    let mut differences: Vec<String> =
        replayed.refused.iter().map(|bad| format!("invalid event: {bad}")).collect();
    let name = rule.name.text();
    let stories: Vec<&Story> = replayed.stories.iter().filter(|s| s.rule == name).collect();
    if stories.len() != test.expect.len() {
        let found: Vec<String> = stories
            .iter()
            .map(|s| format!("{} with {} members", s.name, s.members_total))
            .collect();
        differences.push(format!(
            "expected {}, found {}{}{}",
            count(test.expect.len()),
            stories.len(),
            if found.is_empty() { "" } else { ": " },
            found.join("; ")
        ));
        return Ok(differences);
    }
    for (number, (story, expected)) in stories.iter().zip(&test.expect).enumerate() {
        let actual = comparable(story);
        for (key, expected) in expected {
            let got = actual.get(key).unwrap_or(&Json::Null);
            if !agrees(expected, got) {
                differences
                    .push(format!("story {}: {key}: expected {expected}, found {got}", number + 1));
            }
        }
    }
    Ok(differences)
}

/// "1 story", "2 stories".
fn count(stories: usize) -> String {
    format!("{stories} {}", if stories == 1 { "story" } else { "stories" })
}

/// The keys of a story that a test can compare.
fn comparable(story: &Story) -> Map<String, Json> {
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

/// Whether a value is as expected. Text is a glob; of a list, each expected item must be found.
fn agrees(expected: &Json, got: &Json) -> bool {
    match (expected, got) {
        (Json::String(pattern), Json::String(text)) => glob::matches(pattern, text),
        (Json::Array(expected), Json::Array(found)) => {
            expected.iter().all(|e| found.iter().any(|f| agrees(e, f)))
        }
        (one @ Json::String(_), Json::Array(found)) => found.iter().any(|f| agrees(one, f)),
        (Json::Number(a), Json::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-6,
            _ => a == b,
        },
        _ => expected == got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_test_reports_differences() {
        let rule = "rule: r
events: { a: { kind: t.a } }
count: { event: a, within: 10s, at_least: 2 }
story: { pattern: many, root_cause: 'many of {a.attributes.k}' }
tests:
  - events: [{ time: 1767225601, kind: t.a, attributes: { k: x } }, { time: 1767225602, kind: t.a, attributes: { k: x } }]
    expect: [{ pattern: many, members: 2, root_cause: 'many of *' }]
  - events: [{ time: 1767225601, kind: t.a }]
    expect: [{ pattern: many }]
  - events: [{ time: 1, kind: t.a }, { time: 2, kind: t.a }]
    expect: [{ members: 3 }]
  - events: nowhere.jsonl
    expect: []
";
        let mut loaded = crate::rules::Loaded::default();
        loaded.text("r.yaml", rule);
        assert_eq!(loaded.errors, []);
        let outcomes = run_rule_tests(&loaded.rules[0]).unwrap();
        let differences: Vec<_> = outcomes.iter().map(|o| o.differences.join(" ")).collect();
        assert_eq!(differences[0], "");
        assert!(differences[1].contains("expected 1 story, found 0"), "{differences:?}");
        assert!(differences[2].contains("members: expected 3, found 2"), "{differences:?}");
        assert!(differences[3].contains("nowhere.jsonl"), "{differences:?}");
        assert_eq!(outcomes[3].position.line, 12);
    }
}
