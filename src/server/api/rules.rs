//! The rules in words, with the number of stories that are listed of each. Of rules that don't come
//! with the server, the names are those of the stories it has stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::super::rule_text::RuleText;
use super::super::shared::Shared;
use super::super::storage::RuleUse;
use tapio_core::event::rfc3339;
use tapio_wire::proto;

fn rule_of(name: &str, rule: Option<&RuleText>, used: Option<&RuleUse>) -> proto::Rule {
    let pattern = rule.map(|rule| &rule.pattern).or(used.map(|used| &used.pattern));
    proto::Rule {
        name: name.to_owned(),
        pattern: pattern.cloned().unwrap_or_default(),
        description: rule.map(|rule| rule.description.clone()).unwrap_or_default(),
        text: rule.map(|rule| rule.text.clone()).unwrap_or_default(),
        tests: rule.map_or(0, |rule| rule.tests as u64),
        stories: used.map_or(0, |used| used.stories),
        last_story_unix_nano: used.map_or(0, |used| used.last_ns),
    }
}

fn json_of(rule: &proto::Rule) -> Value {
    // A rule that comes with the server has a text.
    let is_known = !rule.text.is_empty();
    let last_ns = rule.last_story_unix_nano;
    json!({
        "name": rule.name,
        "pattern": rule.pattern,
        "description": is_known.then_some(&rule.description),
        "text": is_known.then_some(&rule.text),
        "tests": is_known.then_some(rule.tests),
        "stories": rule.stories,
        "last_story": (last_ns > 0).then(|| rfc3339(last_ns)),
    })
}

/// The rules, in the order of their names.
pub(crate) fn listed_rules(shared: &Shared) -> Vec<proto::Rule> {
    let used = shared.storage().rules_of_stories();
    let known = shared.rules.get();
    let names: BTreeSet<&String> = known.keys().chain(used.keys()).collect();
    names.into_iter().map(|name| rule_of(name, known.get(name), used.get(name))).collect()
}

/// Lists rules in the order of their names.
pub(super) async fn rules(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let items: Vec<Value> = listed_rules(&shared).iter().map(json_of).collect();
    Json(json!({"items": items, "next_page_token": null, "complete_since": null}))
}
