//! Names and their values in text: `name=value`, `name: value`, `"name": "value"`, options,
//! headers, parameters of URLs.

use super::names::{MAX_NAME_BYTES, NameClass, NameTest};
use super::span::Span;
use super::value::{
    REDACTED, ValueRange, bare_end, is_count, is_name_byte, is_prose, is_reference_or_mark,
    line_end, looks_issued, looks_random, query_end, quote_at, quoted_end,
};

/// Words that follow an option's name in prose.
const AFTER_OPTION: &[&str] = &[
    "flag",
    "option",
    "argument",
    "parameter",
    "is",
    "to",
    "or",
    "and",
    "on",
    "for",
    "from",
    "was",
    "are",
    "must",
    "can",
    "in",
    "instead",
    "not",
    "with",
];

/// A name in a text.
#[derive(Clone, Copy)]
struct Name<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    class: NameClass,
    is_compound: bool,
}

/// The separator between a name and its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    Equals,
    Colon,
}

/// The range of the name around a part of it, without the dots and dashes at its end.
pub(super) fn name_around(text: &str, start: usize, end: usize) -> (usize, usize) {
    let bytes = text.as_bytes();
    let before = bytes[..start].iter().rev().take_while(|b| is_name_byte(**b)).count();
    let after = bytes[end..].iter().take_while(|b| is_name_byte(**b)).count();
    let to = end + after;
    let trimmed = text[start..to].trim_end_matches(['.', '-']).len();
    (start - before, start + trimmed)
}

/// Finds the value of the name in this range, if it is a secret.
pub(super) fn secret_of(
    text: &str,
    (start, end): (usize, usize),
    is_query: bool,
    names: &NameTest<'_>,
    out: &mut Vec<Span>,
) {
    // A part of a long word, such as base64, isn't a name.
    if end - start > MAX_NAME_BYTES {
        return;
    }
    let (class, is_compound) = names.class(&text[start..end], is_query);
    if class == NameClass::Ordinary {
        return;
    }
    let name = Name { text, start, end, class, is_compound };
    if is_query {
        return name.query_value(out);
    }
    let Some((separator, at)) = name.separator() else {
        return name.next_word(out);
    };
    // The verdict of a test, which begins a line: `PASS: gdb.base/break.exp`.
    let begins_line = start == 0 || text[..start].ends_with('\n');
    let is_verdict = begins_line && separator == Separator::Colon && text[..at].ends_with(' ');
    if name.as_str() == "PASS" && is_verdict {
        return;
    }
    name.value(separator, at, out);
}

impl Name<'_> {
    fn as_str(&self) -> &str {
        &self.text[self.start..self.end]
    }

    /// The quote around the name, if there is one.
    fn quote(&self) -> Option<&str> {
        let quote = quote_at(self.text, self.end)?;
        self.text[..self.start].ends_with(quote).then_some(quote)
    }

    /// The separator behind the name, and where the value begins.
    fn separator(&self) -> Option<(Separator, usize)> {
        let text = self.text;
        let mut at = self.end + self.quote().map_or(0, str::len);
        if text[at..].starts_with(']') {
            at += 1;
        }
        let skip =
            |at: usize| at + text[at..].bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let found = skip(at);
        let rest = &text[found..];
        let (separator, len) = match rest.as_bytes() {
            [b'=', b'=', ..] | [b':', b':', ..] => return None,
            [b'=', b'>', ..] | [b':', b'=', ..] => (Separator::Equals, 2),
            [b'=', ..] => (Separator::Equals, 1),
            [b':', b'/', b'/', ..] => return None,
            [b':', ..] if found == at || self.quote().is_some() => (Separator::Colon, 1),
            [b'-', b'>', ..] => return None,
            _ => return None,
        };
        Some((separator, skip(found + len)))
    }

    /// Whether the name stands where a key stands: at the beginning of a line, behind a quote, a
    /// bracket or a comma; or is no word of prose.
    fn is_key(&self) -> bool {
        let before = self.text[..self.start].trim_end_matches([' ', '\t']);
        self.is_compound
            || self.as_str().starts_with('-')
            || before.is_empty()
            || before.ends_with([
                '\n', '\r', '"', '\'', '{', '[', '(', ',', '&', '?', ';', '|', '>', '-',
            ])
    }

    /// The parameter of a URL.
    fn query_value(&self, out: &mut Vec<Span>) {
        let Some(b'=') = self.text.as_bytes().get(self.end) else { return };
        let (start, end) = (self.end + 1, query_end(self.text, self.end + 1));
        let value = &self.text[start..end];
        if !is_reference_or_mark(value) && !is_count(value) {
            out.push(Span::new(start, end));
        }
    }

    /// A value that follows without a separator: of an option, or a quoted or issued one.
    fn next_word(&self, out: &mut Vec<Span>) {
        let text = self.text;
        let rest = &text[self.end..];
        let spaces = rest.bytes().take_while(|b| matches!(b, b' ' | b'\t' | 0)).count();
        if spaces == 0 {
            return;
        }
        let at = self.end + spaces;
        let range = self.range(at);
        let value = &text[range.start..range.end];
        let word = value.trim_end_matches(['.', ',', ';', ':']);
        let before = text[..self.start].bytes().next_back();
        let is_option = self.as_str().starts_with('-')
            && before
                .is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'[' | b'('))
            && !word.starts_with('-')
            && !AFTER_OPTION.contains(&word);
        let is_strong = self.class == NameClass::Strong && !self.as_str().ends_with("ecret");
        let is_sql = is_strong && range.is_quoted && text[..range.start].ends_with('\'');
        let is_issued = self.class >= NameClass::Weak && looks_issued(word);
        if (is_option || is_sql || is_issued) && !is_reference_or_mark(word) {
            return out.push(Span::new(range.start, range.end));
        }
        // "password is x".
        if is_strong && word == "is" {
            let at = range.end + text[range.end..].bytes().take_while(|b| *b == b' ').count();
            let range = self.range(at);
            if looks_random(&text[range.start..range.end]) {
                out.push(Span::new(range.start, range.end));
            }
        }
    }

    /// The value that begins here.
    fn range(&self, at: usize) -> ValueRange {
        match quote_at(self.text, at) {
            Some(quote) => {
                let start = at + quote.len();
                let end = quoted_end(self.text, start, quote);
                ValueRange { start, end, is_quoted: true }
            }
            None => ValueRange { start: at, end: bare_end(self.text, at), is_quoted: false },
        }
    }

    fn value(&self, separator: Separator, at: usize, out: &mut Vec<Span>) {
        let text = self.text;
        if separator == Separator::Colon && text[at..].starts_with(['\n', '\r']) {
            return;
        }
        if text[at..].starts_with('[') && !text[at..].starts_with(REDACTED) {
            return self.list(at, out);
        }
        if separator == Separator::Colon && text[at..].starts_with(['|', '>']) {
            return self.block(at, out);
        }
        let mut range = self.range(at);
        if let Some(credentials) = after_scheme(text, range.start) {
            out.extend(credentials.map(|(start, end)| Span::new(start, end)));
            return;
        }
        if self.class == NameClass::Header && separator == Separator::Colon && !range.is_quoted {
            range.end = range.end.max(line_end(text, at));
        }
        if range.end <= range.start || !self.is_secret(separator, range) {
            return;
        }
        // A number in JSON becomes a text.
        let is_json_number = self.quote() == Some("\"") && !range.is_quoted;
        out.push(Span { start: range.start, end: range.end, quote: is_json_number });
    }

    /// Whether the value of this range is a secret.
    fn is_secret(&self, separator: Separator, range: ValueRange) -> bool {
        let value = &self.text[range.start..range.end];
        if is_reference_or_mark(value) || value.starts_with(['{', '(']) && !range.is_quoted {
            return false;
        }
        let name = self.as_str();
        if name.eq_ignore_ascii_case("pwd") || name.eq_ignore_ascii_case("oldpwd") {
            return !value.starts_with('/') && !value.starts_with('~');
        }
        // `pass=2` of a loop: a password isn't that short.
        let number = value.trim_end_matches([':', ',', '.', ';', '/']);
        if name.eq_ignore_ascii_case("pass") && number.len() <= 3 && is_count(number) {
            return false;
        }
        if self.class == NameClass::Doubtful {
            return looks_random(value);
        }
        if self.class != NameClass::Strong && is_count(value) {
            return false;
        }
        if separator == Separator::Equals || range.is_quoted {
            return true;
        }
        let is_prose = is_prose(self.text, range.start);
        if self.class == NameClass::Strong {
            return !is_prose;
        }
        if self.text[..range.start].ends_with(':') && !self.as_str().starts_with('-') {
            // `python3-jwt:amd64`, `token:none`.
            return value.len() >= 8 && looks_random(value);
        }
        if self.is_key() { !is_prose } else { looks_random(value) }
    }

    /// The texts of a list: `"cookies": ["a=b"]`.
    fn list(&self, at: usize, out: &mut Vec<Span>) {
        let text = self.text;
        let mut at = at + 1;
        while let Some(quote) = quote_at(text, at) {
            let start = at + quote.len();
            let end = quoted_end(text, start, quote);
            if !is_reference_or_mark(&text[start..end]) {
                out.push(Span::new(start, end));
            }
            at = (end + quote.len()).min(text.len());
            at += text[at..].bytes().take_while(|b| matches!(b, b' ' | b',')).count();
        }
    }

    /// A block of YAML: the lines behind `name: |` that are indented further.
    fn block(&self, at: usize, out: &mut Vec<Span>) {
        let text = self.text;
        let line = text[..self.start].rfind('\n').map_or(0, |end| end + 1);
        let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
        let own = indent(&text[line..]);
        let Some(first) = text[at..].find('\n').map(|end| at + end + 1) else { return };
        if text[at + 1..first].trim().len() > 2 {
            return;
        }
        let mut end = first;
        for line in text[first..].split_inclusive('\n') {
            if !line.trim().is_empty() && indent(line) <= own {
                break;
            }
            end += line.len();
        }
        let body = text[first..end].trim();
        let start = first + (text[first..end].len() - text[first..end].trim_start().len());
        if !body.is_empty() && body != REDACTED {
            out.push(Span::new(start, start + body.len()));
        }
    }
}

/// The credentials behind the scheme with which a value begins: `None` without a scheme, and none
/// where prose or nothing follows it.
fn after_scheme(text: &str, start: usize) -> Option<Option<(usize, usize)>> {
    const SCHEMES: &[&str] = &["Bearer ", "Basic ", "Token ", "Digest ", "Negotiate ", "ApiKey "];
    let rest = &text[start..];
    let begins = |s: &&&str| rest.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s));
    let scheme = SCHEMES.iter().find(begins)?;
    let from = start + scheme.len();
    // Digest credentials are a list of parameters that fills the line.
    let end = if scheme.starts_with("Digest") {
        text[from..].find(['\n', '\r', '\'']).map_or(text.len(), |end| from + end)
    } else {
        bare_end(text, from)
    };
    let value = &text[from..end];
    Some((!is_reference_or_mark(value) && !is_prose(text, from)).then_some((from, end)))
}
