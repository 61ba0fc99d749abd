//! Regular expressions of the configuration.

use regex::{Regex, RegexBuilder};

/// Size of a compiled regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Compiles a pattern of the configuration.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build().map_err(|error| {
        // The last line has the cause, the lines before show the pattern.
        let text = error.to_string();
        let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{pattern:?}: {cause}")
    })
}
