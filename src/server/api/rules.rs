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

fn json_of(name: &str, rule: Option<&RuleText>, used: Option<&RuleUse>) -> Value {
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
    let known = shared.rules.get();
    let names: BTreeSet<&String> = known.keys().chain(used.keys()).collect();
    let items: Vec<Value> =
        names.into_iter().map(|name| json_of(name, known.get(name), used.get(name))).collect();
    Json(json!({"items": items, "next_page_token": null, "complete_since": null}))
}
