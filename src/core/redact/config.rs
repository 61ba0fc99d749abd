//! The configuration section `redact`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::Normalized;
use super::patterns::compile;

/// Most entries of a list.
const MAX_ENTRIES: usize = 256;

/// Which secrets are removed from events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedactConfig {
    /// Whether events are redacted. `/status` and the log always are.
    pub enabled: bool,
    /// Further names of attributes, options, variables and keys whose values are secrets.
    pub names: Vec<String>,
    /// Regular expressions; group 1 of a match is a secret, or the whole match without a group.
    pub patterns: Vec<String>,
    /// Names whose values are never redacted because of the name.
    pub allow: Vec<String>,
}

impl Default for RedactConfig {
    fn default() -> Self {
        Self { enabled: true, names: Vec::new(), patterns: Vec::new(), allow: Vec::new() }
    }
}

impl RedactConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// The key and the cause, joined by `: `.
    pub fn check(&self) -> Result<(), String> {
        let lists = [("names", &self.names), ("patterns", &self.patterns), ("allow", &self.allow)];
        for (key, list) in lists {
            if list.len() > MAX_ENTRIES {
                return Err(format!("{key}: must have at most {MAX_ENTRIES} entries"));
            }
        }
        for (key, list) in [("names", &self.names), ("allow", &self.allow)] {
            if let Some(name) = list.iter().find(|name| Normalized::new(name).is_none()) {
                return Err(format!(
                    "{key}: {name:?} isn't a name: letters, digits, `.`, `-` and `_`, at most 128"
                ));
            }
        }
        if let Some(name) = self.names.iter().find(|name| self.allow.contains(name)) {
            return Err(format!("allow: {name:?} is in redact.names, too"));
        }
        for pattern in &self.patterns {
            let expression = compile(pattern).map_err(|cause| format!("patterns: {cause}"))?;
            if expression.is_match("") {
                return Err(format!("patterns: {pattern:?} matches the empty text"));
            }
        }
        Ok(())
    }
}
