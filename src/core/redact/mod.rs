//! Removes secrets from texts: command lines, URLs, headers, values by the names they have, and
//! values that are secrets by their shape. docs/redaction.md lists the forms.
//!
//! | file | purpose |
//! | --- | --- |
//! | `triggers.rs`, `grams.rs` | one search that ordinary text passes, and a first look before it |
//! | `names.rs` | names whose values are secrets |
//! | `pairs.rs`, `value.rs` | names with their values in text, and where a value ends |
//! | `shapes.rs` | keys and tokens of known shape, JSON web tokens, PEM |
//! | `urls.rs` | passwords in URLs and data source names |
//! | `command.rs` | options of well-known programs |
//! | `json.rs` | JSON values |
//! | `event.rs` | events |
//! | `log.rs` | a writer for logs |
//! | `config.rs` | the configuration section `redact` |
//!
//! A redacted text is redacted again until nothing is found, so redacting twice changes nothing.

mod command;
mod config;
mod event;
mod grams;
mod json;
mod log;
mod names;
mod pairs;
mod shapes;
mod triggers;
mod urls;
mod value;

use std::borrow::Cow;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, LazyLock};

use regex::{Regex, RegexBuilder};

use self::names::{NameClass, Normalized};
use self::triggers::{Trigger, Triggers};
use crate::event::Name;

pub use config::RedactConfig;
pub use log::RedactingWriter;
pub use value::REDACTED;

/// Most rounds in which a text is redacted; a second one rarely finds anything.
const MAX_ROUNDS: usize = 8;
/// Size of a compiled regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// An error of the configuration or of the built-in tables.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RedactError(String);

/// Finds and replaces secrets. Shared by all threads.
pub struct Redactor {
    triggers: Option<Triggers>,
    names: Vec<String>,
    allow: Vec<String>,
    patterns: Vec<Regex>,
    /// The [`event::FieldClass`] of each name by number.
    classes: Box<[AtomicU8]>,
}

/// A range that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
    /// Whether the replacement gets quotes.
    quote: bool,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start, end, quote: false }
    }
}

/// Classifies names, with those of the configuration.
struct NameTest<'a> {
    names: &'a [String],
    allow: &'a [String],
}

impl NameTest<'_> {
    /// The class of a name, and whether it has several parts.
    fn class(&self, name: &str, is_query: bool) -> (NameClass, bool) {
        let Some(normalized) = Normalized::new(name) else { return (NameClass::Ordinary, false) };
        let is_compound = normalized.is_compound();
        let joined = normalized.joined();
        if self.allow.iter().any(|allowed| allowed == joined) {
            return (NameClass::Ordinary, is_compound);
        }
        if self.names.iter().any(|extra| joined.ends_with(extra.as_str())) {
            return (NameClass::Strong, is_compound);
        }
        match normalized.class() {
            NameClass::Ordinary if is_query && normalized.is_query_secret() => {
                (NameClass::Weak, is_compound)
            }
            class => (class, is_compound),
        }
    }
}

/// Compiles a pattern of the configuration.
fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build().map_err(|error| {
        // The last line has the cause, the lines before show the pattern.
        let text = error.to_string();
        let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{pattern:?}: {cause}")
    })
}

static BUILTIN: LazyLock<Arc<Redactor>> = LazyLock::new(|| {
    let redactor = Redactor::new(&RedactConfig::default());
    Arc::new(redactor.unwrap_or_else(|_| Redactor::without_triggers()))
});

impl Redactor {
    /// A redactor with a configuration.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn new(config: &RedactConfig) -> Result<Self, RedactError> {
        let triggers = Triggers::new(&config.names).map_err(|e| RedactError(e.to_string()))?;
        let joined = |name: &String| Some(Normalized::new(name)?.joined().to_owned());
        let patterns = config.patterns.iter().map(|p| compile(p)).collect::<Result<_, _>>();
        Ok(Self {
            triggers: Some(triggers),
            names: config.names.iter().filter_map(joined).collect(),
            allow: config.allow.iter().filter_map(joined).collect(),
            patterns: patterns.map_err(RedactError)?,
            ..Self::without_triggers()
        })
    }

    fn without_triggers() -> Self {
        Self {
            triggers: None,
            names: Vec::new(),
            allow: Vec::new(),
            patterns: Vec::new(),
            classes: (0..Name::CAPACITY).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// The redactor without configuration.
    #[must_use]
    pub fn builtin() -> Arc<Self> {
        Arc::clone(&BUILTIN)
    }

    /// The text without secrets; borrowed where it has none.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.has_trigger(text) {
            return Cow::Borrowed(text);
        }
        let mut spans = Vec::new();
        self.find(text, &mut spans);
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut redacted = replace(text, &mut spans);
        for _ in 1..MAX_ROUNDS {
            spans.clear();
            self.find(&redacted, &mut spans);
            if spans.is_empty() {
                break;
            }
            redacted = replace(&redacted, &mut spans);
        }
        if redacted == text { Cow::Borrowed(text) } else { Cow::Owned(redacted) }
    }

    /// Redacts a text in place.
    pub fn redact(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.text(text) {
            *text = redacted;
        }
    }

    fn names(&self) -> NameTest<'_> {
        NameTest { names: &self.names, allow: &self.allow }
    }

    /// Finds the secrets of a text, in no particular order.
    fn find(&self, text: &str, spans: &mut Vec<Span>) {
        let names = self.names();
        // The end of the last name, command line and key examined: their parts are found again.
        let (mut name_end, mut command_end) = (0, 0);
        for (trigger, start, end) in self.triggers.iter().flat_map(|t| t.find(text)) {
            let found = match trigger {
                Trigger::Name if start >= name_end => {
                    let range = pairs::name_around(text, start, end);
                    name_end = range.1.max(end);
                    let is_query = text[..range.0].ends_with(['?', '&']);
                    pairs::secret_of(text, range, is_query, &names, spans);
                    None
                }
                Trigger::Name => None,
                Trigger::Query => {
                    pairs::secret_of(text, (start + 1, end - 1), true, &names, spans);
                    None
                }
                Trigger::Shape(number) => shapes::SHAPES[usize::from(number)].find(text, start),
                Trigger::Jwt => shapes::jwt(text, start),
                Trigger::Pem => shapes::pem(text, start),
                Trigger::Scheme => shapes::scheme(text, start, end),
                Trigger::Url => urls::user_info(text, end),
                Trigger::Dsn => urls::dsn(text, start),
                Trigger::Sql => sql(text, end),
                Trigger::Program => {
                    if start >= command_end {
                        let from = command_start(text, start);
                        command::in_text(text, from, |(s, e)| spans.push(Span::new(s, e)));
                        let line = text[start..].find('\n').map_or(text.len(), |n| start + n);
                        command_end = line.min(end + 1).max(command_end);
                    }
                    None
                }
            };
            if let Some((start, end)) = found.filter(|(start, end)| start < end) {
                spans.push(Span::new(start, end));
            }
        }
        for pattern in &self.patterns {
            for captures in pattern.captures_iter(text) {
                if let Some(found) = captures.get(1).or_else(|| captures.get(0))
                    && !found.is_empty()
                    && !REDACTED.contains(found.as_str())
                {
                    spans.push(Span::new(found.start(), found.end()));
                }
            }
        }
        spans.retain(|span| &text[span.start..span.end] != REDACTED);
    }

    /// Whether a text can have a secret at all.
    fn has_trigger(&self, text: &str) -> bool {
        !self.patterns.is_empty() || self.triggers.as_ref().is_some_and(|t| t.is_in(text))
    }
}

/// The beginning of the command line with the program that begins here or in the word before.
fn command_start(text: &str, start: usize) -> usize {
    let before = &text[..start];
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | '`' | '=' | ';' | '|');
    before.rfind(ends).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
}

/// The password of `IDENTIFIED BY 'password'`.
fn sql(text: &str, at: usize) -> Option<(usize, usize)> {
    let quote = value::quote_at(text, at)?;
    let start = at + quote.len();
    Some((start, value::quoted_end(text, start, quote)))
}

/// Replaces ranges; those that overlap become one.
fn replace(text: &str, spans: &mut [Span]) -> String {
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for span in spans.iter() {
        if span.start < at {
            // Overlaps with the one before, of which the rest is a secret, too.
            at = at.max(span.end);
            continue;
        }
        out.push_str(&text[at..span.start]);
        if span.quote {
            out.push('"');
            out.push_str(REDACTED);
            out.push('"');
        } else {
            out.push_str(REDACTED);
        }
        at = span.end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests;
