//! Where a value ends, and whether it is a secret.

/// The text in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A value in a text: the range without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValueRange {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_quoted: bool,
}

/// The quote at a position, with the backslashes before it: `"`, `'`, `\"`, `\\\"` …
pub(super) fn quote_at(text: &str, at: usize) -> Option<&str> {
    let rest = text.get(at..)?;
    let slashes = rest.bytes().take_while(|b| *b == b'\\').count();
    let is_quote = matches!(rest.as_bytes().get(slashes), Some(b'"' | b'\'' | b'`'));
    is_quote.then(|| &rest[..=slashes])
}

/// Where a quoted text ends that begins at `start` and ends with `quote`; the text's end where the
/// quote isn't closed.
pub(super) fn quoted_end(text: &str, start: usize, quote: &str) -> usize {
    let mut at = start;
    while let Some(found) = text[at..].find(quote) {
        let end = at + found;
        let slashes = text[..end].bytes().rev().take_while(|b| *b == b'\\').count();
        // A quote behind a backslash of its own is part of the value. A shell's single quotes have
        // no escapes.
        if slashes % 2 == 0 || quote == "'" || slashes > end - start {
            return end;
        }
        at = end + quote.len();
    }
    text.len()
}

/// The end of a value without quotes: at whitespace or a quote, or at a separator behind which
/// another name, an end or whitespace follows. Passwords contain separators, too.
pub(super) fn bare_end(text: &str, start: usize) -> usize {
    if text[start..].starts_with(REDACTED) {
        return start + REDACTED.len();
    }
    for (open, close) in [("${", "}"), ("$(", ")"), ("{{", "}}")] {
        if text[start..].starts_with(open)
            && let Some(end) = text[start..].find(close)
        {
            return start + end + close.len();
        }
    }
    for (offset, c) in text[start..].char_indices() {
        let at = start + offset;
        if c.is_whitespace() || c.is_control() || matches!(c, '"' | '`') {
            return trim_slashes(text, start, at);
        }
        if c == '\'' && offset > 0 {
            return trim_slashes(text, start, at);
        }
        let next = &text[at + c.len_utf8()..];
        let is_end = match c {
            '&' | ';' | ',' => next.starts_with(is_end) || begins_with_name(next),
            ')' | ']' | '}' | '>' | '|' => next.starts_with(is_end) || next.starts_with(is_closing),
            _ => false,
        };
        if (is_end || (next.is_empty() && is_closing(c))) && offset > 0 {
            return at;
        }
    }
    text.len()
}

fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'')
}

fn is_closing(c: char) -> bool {
    matches!(c, ')' | ']' | '}' | '>' | ',' | ';' | '.')
}

/// Backslashes before a quote belong to the quote.
fn trim_slashes(text: &str, start: usize, end: usize) -> usize {
    if text[end..].starts_with(['"', '\'', '`']) {
        return start + text[start..end].trim_end_matches('\\').len();
    }
    end
}

/// Whether a text begins with `name=` or `name:`.
fn begins_with_name(text: &str) -> bool {
    let len = text.bytes().take_while(|b| is_name_byte(*b)).count();
    len > 0 && matches!(text.as_bytes().get(len), Some(b'=' | b':'))
}

/// Whether a byte can be part of a name.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// The value of a URL's parameter.
pub(super) fn query_end(text: &str, start: usize) -> usize {
    if text[start..].starts_with(REDACTED) {
        return start + REDACTED.len();
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '&' | '#' | '"' | '\'' | '<' | '>' | ')');
    text[start..].find(ends).map_or(text.len(), |end| start + end)
}

/// The end of the line, or of the quoted text around.
pub(super) fn line_end(text: &str, start: usize) -> usize {
    let ends = |c: char| matches!(c, '\n' | '\r' | '"' | '\'' | '`');
    let mut end = text[start..].find(ends).map_or(text.len(), |end| start + end);
    // A line feed as an escape of JSON.
    if let Some(escape) = text[start..end].find("\\n").or_else(|| text[start..end].find("\\r")) {
        end = start + escape;
    }
    end = start + text[start..end].trim_end().len();
    trim_slashes(text, start, end)
}

/// Whether a value refers to a secret or is none: a variable, a mark of another scrubber, a flag.
pub(super) fn is_reference_or_mark(value: &str) -> bool {
    let is_filler = |c: char| matches!(c, '*' | '•' | '.' | '-' | '_' | '?');
    value.chars().all(is_filler)
        || value.starts_with(REDACTED)
        || is_variable(value)
        || ["true", "false", "null", "none", "nil", "<nil>", "yes", "no", "(null)"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word))
        || ["<redacted>", "[filtered]", "<hidden>", "redacted", "<masked>", "<set>", "<unset>"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word))
}

/// `$NAME`, `${NAME}`, `$(command)`, `{{ template }}`, `%(name)s`.
fn is_variable(value: &str) -> bool {
    let inner = |open: &str, close: &str| {
        value
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .is_some_and(|name| !name.is_empty() && !name.contains(['}', ')']))
    };
    let is_shell = value.strip_prefix('$').is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    });
    is_shell || inner("${", "}") || inner("$(", ")") || inner("{{", "}}") || inner("%(", ")s")
}

/// A number that counts something, of fewer than six digits.
pub(super) fn is_count(value: &str) -> bool {
    value.len() < 6 && value.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a value has the shape of a secret rather than that of a word.
pub(super) fn looks_random(value: &str) -> bool {
    let value = value.trim_end_matches(['.', ',', ';', ':', ')']);
    let has = |is: fn(&u8) -> bool| value.as_bytes().iter().any(&is);
    let mixed = value
        .as_bytes()
        .windows(2)
        .any(|two| two[0].is_ascii_lowercase() && two[1].is_ascii_uppercase());
    !is_count(value)
        && value.len() >= 4
        && (has(u8::is_ascii_digit)
            || value.len() >= 24
            || mixed
            || has(|b| matches!(b, b'=' | b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'*' | b'+')))
}

/// A word of letters and digits of at least 16 characters, as issued tokens are.
pub(super) fn looks_issued(value: &str) -> bool {
    let value = value.trim_end_matches(['.', ',', ';', ':', ')']);
    let has = |is: fn(&u8) -> bool| value.as_bytes().iter().any(&is);
    value.len() >= 16
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && value.bytes().all(|b| is_name_byte(b) || matches!(b, b'~' | b'+' | b'/' | b'='))
        && !value.starts_with('/')
}

/// Whether a text continues as prose: a word of letters, then another.
pub(super) fn is_prose(text: &str, start: usize) -> bool {
    let rest = &text[start..];
    let word = rest.bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'\'').count();
    let after = &rest[word..];
    let spaces = after.len() - after.trim_start_matches([' ', ',']).len();
    word > 0 && spaces > 0 && after[spaces..].starts_with(|c: char| c.is_ascii_lowercase())
}
