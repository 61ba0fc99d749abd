//! Credentials in URLs and data source names.

use super::value::REDACTED;

fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '<' | '>' | '`')
}

/// The password in `scheme://user:password@host`, with `authority` the position behind `://`. A
/// user without password is a secret where it is as long as a token.
pub(super) fn user_info(text: &str, authority: usize) -> Option<(usize, usize)> {
    let rest = &text[authority..];
    let rest = &rest[..rest.find(ends_word).unwrap_or(rest.len())];
    let host = rest.find(['/', '?', '#', ',']).unwrap_or(rest.len());
    let at = rest[..host].rfind('@').or_else(|| {
        // A password with a slash, a question mark or a number sign that isn't escaped.
        let (_, after) = rest[..host].split_once(':')?;
        let is_port = after.bytes().all(|b| b.is_ascii_digit());
        let at = (!rest.starts_with('[') && !is_port).then(|| rest.find('@')).flatten()?;
        Some(at)
    })?;
    let info = &rest[..at];
    let (start, secret) = match info.split_once(':') {
        Some((user, password)) => (user.len() + 1, password),
        None if info.len() >= 20 => (0, info),
        None => return None,
    };
    let is_empty = secret.is_empty() || secret == REDACTED;
    (!is_empty).then_some((authority + start, authority + at))
}

/// The password in `user:password@tcp(host)`, with `at` the position of the `@`.
pub(super) fn dsn(text: &str, at: usize) -> Option<(usize, usize)> {
    let word = text[..at]
        .rfind(ends_word)
        .map_or(0, |before| before + text[before..].chars().next().map_or(1, char::len_utf8));
    let colon = text[word..at].find(':')?;
    let start = word + colon + 1;
    (start < at && &text[start..at] != REDACTED).then_some((start, at))
}
