//! The values in force, without secrets.

use serde_json::Value as Json;

use super::super::config::Config;
use tapio_core::redact::REDACTED;

/// Keys with any names below them, of which all values are secrets.
const SECRET_MAPS: [&str; 1] = ["headers"];

/// A shorter secret is replaced only where it is the whole value: others would have it by chance.
const MIN_PART_BYTES: usize = 4;

impl Config {
    /// The values in force: those of the file, of variables, of the environment, and defaults,
    /// also where they depend on this machine. Secrets are replaced unless `reveal_secrets`.
    #[must_use]
    pub fn shown(&self, reveal_secrets: bool) -> Json {
        let mut effective = self.clone();
        effective.node = Some(self.node_name());
        effective.state_dir = Some(self.state_dir());
        effective.server = self.server();
        effective.bridge.endpoint = self.bridge().endpoint;
        effective.values(reveal_secrets)
    }

    /// The values of the file and defaults. Secrets are replaced unless `reveal_secrets`.
    pub(super) fn values(&self, reveal_secrets: bool) -> Json {
        let mut values = serde_json::to_value(self).unwrap_or_default();
        if !reveal_secrets {
            self.hide(&mut values);
            // Names and patterns of secrets, which the redactor would take for secrets.
            let rules = values.get("redact").cloned();
            self.redactor().redact_json(&mut values);
            rules.and_then(|rules| values.as_object_mut()?.insert("redact".into(), rules));
        }
        values
    }

    /// Replaces the values of headers, of files and of secret variables.
    fn hide(&self, value: &mut Json) {
        match value {
            Json::String(text) => {
                let is_in = |secret: &&String| secret.len() >= MIN_PART_BYTES || *secret == text;
                let secrets: Vec<&String> = self.secrets.iter().filter(is_in).collect();
                for secret in secrets {
                    *text = text.replace(secret.as_str(), REDACTED);
                }
            }
            Json::Array(list) => list.iter_mut().for_each(|value| self.hide(value)),
            Json::Object(map) => {
                for (key, value) in map {
                    match value {
                        Json::Object(map) if SECRET_MAPS.contains(&key.as_str()) => {
                            map.values_mut().for_each(|value| *value = REDACTED.into());
                        }
                        other => self.hide(other),
                    }
                }
            }
            _ => {}
        }
    }
}
