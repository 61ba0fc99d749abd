//! A regular expression that is compiled when it is first used.
//!
//! Compiled, an expression takes up 60 KiB on average. Most of those in a rule set are never used:
//! a line is compared with the few whose texts it has (`message_index.rs`).

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex::{Captures, Regex, RegexBuilder};

/// Largest compiled regular expression, in bytes; protects a shard's memory.
const MAX_BYTES: usize = 1 << 20;

/// A regular expression. Its copies share what is compiled.
#[derive(Clone)]
pub(super) struct LazyRegex(Arc<Parts>);

struct Parts {
    text: Box<str>,
    groups: Box<[Box<str>]>,
    compiled: OnceLock<Option<Regex>>,
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_BYTES).build()
}

impl LazyRegex {
    /// Checks an expression by compiling it once.
    ///
    /// # Errors
    /// If it isn't a regular expression, or too large.
    pub(super) fn new(text: &str) -> Result<Self, regex::Error> {
        let groups = compile(text)?.capture_names().flatten().map(Box::from).collect();
        Ok(Self(Arc::new(Parts { text: text.into(), groups, compiled: OnceLock::new() })))
    }

    /// The compiled expression. It was compiled before, so there is one.
    fn compiled(&self) -> Option<&Regex> {
        self.0.compiled.get_or_init(|| compile(&self.0.text).ok()).as_ref()
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The names of its groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.groups.iter().map(|name| &**name)
    }

    /// Whether it matches a part of a text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.compiled().is_some_and(|regex| regex.is_match(text))
    }

    /// The parts of a text that its groups match.
    pub(super) fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        self.compiled()?.captures(text)
    }
}

impl fmt::Debug for LazyRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_the_expression_that_the_first_use_compiles() {
        let regex = LazyRegex::new("Hello (?<who>[a-z]+)( again)?").unwrap();
        let copy = regex.clone();
        assert!(regex.0.compiled.get().is_none());
        assert_eq!(regex.groups().collect::<Vec<_>>(), ["who"]);
        assert!(copy.is_match("Hello nginx"));
        assert!(regex.0.compiled.get().is_some());
        let captured = regex.captures("Hello envoy").unwrap();
        assert_eq!(captured.name("who").unwrap().as_str(), "envoy");
        assert!(!regex.is_match("hello nginx"));
    }

    #[test]
    fn invalid_and_too_large_expressions_are_errors() {
        assert!(LazyRegex::new("(").is_err());
        assert!(LazyRegex::new("(a{1000}){1000}").is_err());
    }
}
