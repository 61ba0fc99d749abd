//! The rules in words, with the number of stories that are listed of each. A server evaluates no
//! rules: it has those that come with it, and the names of others from the stories it has stored.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::super::shared::Shared;
use super::super::storage::RuleUse;
use tapio_core::event::rfc3339;
use tapio_dataflow::rules::{builtin, explain};

/// A rule that comes with tapio.
struct Described {
    pattern: String,
    description: String,
    text: String,
    tests: usize,
}

/// The built-in rules by name, read at the first use.
fn described() -> &'static BTreeMap<String, Described> {
    static RULES: OnceLock<BTreeMap<String, Described>> = OnceLock::new();
    RULES.get_or_init(|| {
        let describe = |rule: &tapio_dataflow::rules::Rule| Described {
            pattern: rule.story.pattern.text().to_owned(),
            description: rule.description.clone(),
            text: explain(rule),
            tests: rule.tests.len(),
        };
        let rules = builtin().rules;
        rules.iter().map(|rule| (rule.name.text().to_owned(), describe(rule))).collect()
    })
}

fn json_of(name: &str, rule: Option<&Described>, used: Option<&RuleUse>) -> Value {
    let pattern = rule.map(|rule| &rule.pattern).or(used.map(|used| &used.pattern));
    json!({
        "name": name,
        "pattern": pattern,
        "description": rule.map(|rule| &rule.description),
        "text": rule.map(|rule| &rule.text),
        "tests": rule.map(|rule| rule.tests),
        "stories": used.map_or(0, |used| used.stories),
        "last_story": used.map(|used| rfc3339(used.last_ns)),
    })
}

/// Lists rules in the order of their names.
pub(super) async fn rules(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let used = shared.storage().rules_of_stories();
    let known = described();
    let names: std::collections::BTreeSet<&String> = known.keys().chain(used.keys()).collect();
    let items: Vec<Value> =
        names.into_iter().map(|name| json_of(name, known.get(name), used.get(name))).collect();
    Json(json!({"items": items, "next_page_token": null, "complete_since": null}))
}
