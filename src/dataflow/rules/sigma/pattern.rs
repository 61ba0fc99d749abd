//! Values of selections: wildcards, escapes, and the dashes of `windash`.

use super::super::predicate::TextPart;

/// The signs that begin an option of a program for Windows, any of which `windash` matches.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];
/// Most texts that a value with dashes expands to before it is encoded.
const MAX_EXPANSIONS: usize = 625;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `*`
    AnyText,
    /// `?`
    AnyChar,
    /// One of [`DASHES`].
    Dash,
}

/// A value: `*` matches any text, `?` any character; a backslash escapes these and itself.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '\\' if matches!(chars.peek(), Some('*' | '?' | '\\')) => {
                    Token::Literal(chars.next().unwrap_or('\\'))
                }
                '*' => Token::AnyText,
                '?' => Token::AnyChar,
                other => Token::Literal(other),
            });
        }
        Self(tokens)
    }

    /// A value without wildcards.
    pub(super) fn verbatim(text: &str) -> Self {
        Self(text.chars().map(Token::Literal).collect())
    }

    /// The value in which each sign before a word, and not inside of one, is any dash: Sigma's
    /// `windash`.
    #[must_use]
    pub(super) fn with_any_dash(mut self) -> Self {
        let is_word = |token: Option<&Token>| matches!(token, Some(Token::Literal(c)) if c.is_alphanumeric() || *c == '_');
        for at in 0..self.0.len() {
            let is_sign = matches!(self.0[at], Token::Literal(c) if DASHES.contains(&c));
            let before = at.checked_sub(1).and_then(|before| self.0.get(before));
            if is_sign && !is_word(before) && is_word(self.0.get(at + 1)) {
                self.0[at] = Token::Dash;
            }
        }
        self
    }

    /// The only text that matches; `None` if there are several.
    pub(super) fn plain(&self) -> Option<String> {
        let literal = |token: &Token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        };
        self.0.iter().map(literal).collect()
    }

    /// All texts that match; `None` if it has wildcards or too many dashes.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let mut texts = vec![String::new()];
        for token in &self.0 {
            match token {
                Token::Literal(c) => texts.iter_mut().for_each(|text| text.push(*c)),
                Token::Dash => {
                    let each = |text: &String| DASHES.map(|dash| format!("{text}{dash}"));
                    texts = texts.iter().flat_map(each).collect();
                }
                Token::AnyText | Token::AnyChar => return None,
            }
            if texts.len() > MAX_EXPANSIONS {
                return None;
            }
        }
        Some(texts)
    }

    /// A regular expression for fields that have the value as this part.
    pub(super) fn regex(&self, part: TextPart, is_cased: bool) -> String {
        let mut pattern = String::from(if is_cased { "(?s)" } else { "(?si)" });
        if matches!(part, TextPart::Whole | TextPart::Start) {
            pattern.push('^');
        }
        for token in &self.0 {
            match token {
                Token::Literal(c) => {
                    pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                }
                Token::AnyText => pattern.push_str(".*"),
                Token::AnyChar => pattern.push('.'),
                Token::Dash => {
                    // The hyphen is literal in the first place.
                    pattern.push('[');
                    pattern.extend(DASHES);
                    pattern.push(']');
                }
            }
        }
        if matches!(part, TextPart::Whole | TextPart::End) {
            pattern.push('$');
        }
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(value: &str, part: TextPart, text: &str) -> bool {
        let pattern = Pattern::parse(value).with_any_dash();
        regex::Regex::new(&pattern.regex(part, false)).unwrap().is_match(text)
    }

    #[test]
    fn each_dash_before_a_word_matches_every_form() {
        for text in ["prog -x -y", "prog /x /y", "prog -x /y", "prog \u{2013}x \u{2015}y"] {
            assert!(matches("prog -x -y", TextPart::Whole, text), "{text}");
        }
        assert!(matches(" -enc ", TextPart::Any, "a /ENC b"));
        assert!(matches("--flag", TextPart::Start, "-/flag=1"));
        assert!(!matches("a-b -", TextPart::Whole, "a/b -"), "a dash inside of a word");
        assert!(!matches("a -", TextPart::Whole, "a /"), "no word follows");
        assert!(matches("*-x", TextPart::Whole, "prog /x"));
    }

    #[test]
    fn texts_are_counted_before_they_are_made() {
        let dashes = |n: usize| Pattern::parse(&" -x".repeat(n)).with_any_dash().texts();
        assert_eq!(dashes(2).map(|texts| texts.len()), Some(25));
        assert_eq!(dashes(5), None);
        assert_eq!(Pattern::parse("a*").texts(), None);
        assert_eq!(Pattern::parse(r"a\*").plain().as_deref(), Some("a*"));
    }
}
