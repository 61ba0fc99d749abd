//! The redactor: what it is configured with, and the search of a text.

use std::borrow::Cow;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::config::RedactConfig;
use super::names::{NameTest, Normalized};
use super::patterns::compile;
use super::span::{Span, replace};
use super::triggers::{Trigger, Triggers};
use super::value::REDACTED;
use super::{command, pairs, shapes, urls, value};
use crate::event::Name;

/// Most rounds in which a text is redacted; a second one rarely finds anything.
const MAX_ROUNDS: usize = 8;

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
    /// The class of each name by number.
    pub(super) classes: Box<[AtomicU8]>,
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
        if self.is_secret(text) {
            return Cow::Owned(REDACTED.to_owned());
        }
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

    pub(super) fn names(&self) -> NameTest<'_> {
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

    /// Whether a text has a secret.
    #[must_use]
    pub fn changes(&self, text: &str) -> bool {
        self.has_trigger(text) && matches!(self.text(text), Cow::Owned(_))
    }

    /// Whether a text can have a secret at all.
    pub(super) fn has_trigger(&self, text: &str) -> bool {
        !self.patterns.is_empty()
            || self.is_secret(text)
            || self.triggers.as_ref().is_some_and(|t| t.is_in(text.as_bytes()))
    }

    /// Whether a whole text is a secret by its form: a line of base64.
    fn is_secret(&self, text: &str) -> bool {
        self.triggers.is_some() && shapes::is_base64_line(text)
    }
}

/// The beginning of the command line with the program that begins here or in the word before.
fn command_start(text: &str, start: usize) -> usize {
    let mut before = &text[..start];
    if text[start..].starts_with(['"', '\'']) {
        // A subcommand in a list of words, such as `["docker", "login", …]`.
        before = before.trim_end_matches([',', ' ', '"', '\'', '\\']);
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '=' | ';' | '|') || command::opens(c);
    before.rfind(ends).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
}

/// The password of `IDENTIFIED BY 'password'`.
fn sql(text: &str, at: usize) -> Option<(usize, usize)> {
    let quote = value::quote_at(text, at)?;
    let start = at + quote.len();
    Some((start, value::quoted_end(text, start, quote)))
}
