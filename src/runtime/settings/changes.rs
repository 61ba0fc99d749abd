//! How two configurations differ.

use serde_json::Value as Json;

use super::super::config::Config;
use super::reloaded;
use super::yaml::flow;

/// A key with two values.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its path, such as `bridge.tls.ca`; elements of a list by number from 0.
    pub path: String,
    /// The old value, without secrets; `null` for none.
    pub old: Json,
    /// The new value, without secrets; `null` for none.
    pub new: Json,
    /// Whether a reload takes it.
    pub is_reloaded: bool,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} → {}", self.path, flow(&self.old), flow(&self.new))
    }
}

impl Config {
    /// The keys of which `new` has another value, in the order of the sections.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let (shown, new_shown) = (self.values(false), new.values(false));
        // A changed secret differs here only.
        let (values, new_values) = (self.values(true), new.values(true));
        compare([&values, &new_values], [&shown, &new_shown], "", &mut changes);
        changes
    }

    /// The keys that a reload takes.
    pub fn reloaded_keys() -> impl Iterator<Item = &'static str> {
        reloaded::all()
    }
}

/// Compares `values`, and reports them as `shown`.
fn compare(values: [&Json; 2], shown: [&Json; 2], path: &str, changes: &mut Vec<Change>) {
    if values[0] == values[1] {
        return;
    }
    match values {
        [Json::Object(old), Json::Object(new)] => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(values.map(|v| &v[key]), shown.map(|v| &v[key]), &path, changes);
            }
        }
        [Json::Array(old), Json::Array(new)]
            if old.len() == new.len() && old.iter().chain(new).all(Json::is_object) =>
        {
            for at in 0..old.len() {
                let path = format!("{path}[{at}]");
                compare(values.map(|v| &v[at]), shown.map(|v| &v[at]), &path, changes);
            }
        }
        _ => changes.push(Change {
            path: path.to_owned(),
            old: shown[0].clone(),
            new: shown[1].clone(),
            is_reloaded: reloaded::is_reloaded(path),
        }),
    }
}
