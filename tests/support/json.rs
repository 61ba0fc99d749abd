//! Events in their JSON form.

use serde_json::Value as Json;

/// The value of an event's entity key, attribute or member, as text; empty if it has none.
pub(crate) fn text(event: &Json, key: &str) -> String {
    let value = event["entity"].get(key).or_else(|| event["attributes"].get(key));
    let value = value.or_else(|| event.get(key));
    value.map_or_else(String::new, |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
}
