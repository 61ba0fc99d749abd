//! Values that are secrets by their shape, wherever they stand.

use super::value::{is_prose, looks_random};

/// A value that begins with a known text.
pub(super) struct Shape {
    /// The text, as it is written.
    pub(super) start: &'static str,
    /// Least number of bytes behind `start`.
    min: usize,
    /// Bytes that may follow.
    class: fn(u8) -> bool,
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn dashed(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    dashed(byte) || byte == b'.'
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

const fn shape(start: &'static str, min: usize, class: fn(u8) -> bool) -> Shape {
    Shape { start, min, class }
}

/// Issued keys and tokens: AWS, GitHub, GitLab, Slack, Google, Stripe, OpenAI and Anthropic, npm,
/// PyPI, HashiCorp Vault, DigitalOcean, Hugging Face, Docker Hub, SendGrid, Shopify, age.
pub(super) const SHAPES: &[Shape] = &[
    shape("AKIA", 12, upper),
    shape("ASIA", 12, upper),
    shape("ghp_", 16, word),
    shape("gho_", 16, word),
    shape("ghu_", 16, word),
    shape("ghs_", 16, word),
    shape("ghr_", 16, word),
    shape("github_pat_", 16, word),
    shape("glpat-", 12, dashed),
    shape("glrt-", 12, dashed),
    shape("xoxa-", 8, dashed),
    shape("xoxb-", 8, dashed),
    shape("xoxp-", 8, dashed),
    shape("xoxr-", 8, dashed),
    shape("xoxs-", 8, dashed),
    shape("xapp-", 8, dashed),
    shape("AIza", 24, dashed),
    shape("ya29.", 16, dotted),
    shape("sk_live_", 8, word),
    shape("sk_test_", 8, word),
    shape("rk_live_", 8, word),
    shape("whsec_", 16, word),
    shape("sk-", 16, dashed),
    shape("npm_", 20, word),
    shape("pypi-", 20, dashed),
    shape("hvs.", 12, dashed),
    shape("hvb.", 12, dashed),
    shape("dop_v1_", 16, word),
    shape("hf_", 20, word),
    shape("dckr_pat_", 12, dashed),
    shape("SG.", 24, dotted),
    shape("shpat_", 16, word),
    shape("AGE-SECRET-KEY-", 16, dashed),
];

/// Whether a byte before a value belongs to it, so that it doesn't begin here.
fn continues(text: &str, start: usize) -> bool {
    text[..start].bytes().next_back().is_some_and(|b| word(b) || b == b'-' || b == b'.')
}

impl Shape {
    /// The range of a value that begins here.
    pub(super) fn find(&self, text: &str, start: usize) -> Option<(usize, usize)> {
        // A longer start is distinctive: it stays one in a name such as `clone-ghp_0123`.
        let before = text[..start].bytes().next_back();
        let is_part = match self.start.len() {
            0..4 => continues(text, start),
            _ => before.is_some_and(word),
        };
        if is_part || !text[start..].starts_with(self.start) {
            return None;
        }
        let body = start + self.start.len();
        let len = text[body..].bytes().take_while(|b| (self.class)(*b)).count();
        let value = &text[body..body + len];
        // A word such as `sk-learn-contrib-packages` has no digit.
        let is_issued = len >= self.min && (len >= 32 || value.bytes().any(|b| b.is_ascii_digit()));
        is_issued.then_some((start, body + len))
    }
}

/// A JSON web token, or its first two parts.
pub(super) fn jwt(text: &str, start: usize) -> Option<(usize, usize)> {
    if continues(text, start) || !text[start..].starts_with("eyJ") {
        return None;
    }
    let part = |at: usize| text[at..].bytes().take_while(|b| dashed(*b)).count();
    let mut end = start + part(start);
    if end - start < 12 || text.as_bytes().get(end) != Some(&b'.') {
        return None;
    }
    // Encrypted ones have five parts.
    for _ in 0..4 {
        if text.as_bytes().get(end) != Some(&b'.') {
            break;
        }
        end += 1 + part(end + 1);
    }
    Some((start, end))
}

/// A private key in PEM, from its first line to its last, or to the text's end.
pub(super) fn pem(text: &str, start: usize) -> Option<(usize, usize)> {
    let rest = &text[start..];
    let head = rest.strip_prefix("-----BEGIN ")?;
    let (label, _) = head.split_once("-----")?;
    if label.len() > 40 || !label.contains("PRIVATE KEY") {
        return None;
    }
    let end = rest.find("-----END ").map_or(text.len(), |end| {
        let label = start + end + "-----END ".len();
        text[label..].find("-----").map_or(text.len(), |close| label + close + 5)
    });
    Some((start, end))
}

/// Whether a text is a line of base64 as keys have them: 64 characters in PEM (RFC 7468), 70 in
/// OpenSSH's files, 76 in MIME. A source that reads line by line has a key in as many events.
/// Hashes in hexadecimal digits have no capital letters, or no small ones.
pub(super) fn is_base64_line(text: &str) -> bool {
    let has = |of: fn(&u8) -> bool| text.as_bytes().iter().any(of);
    matches!(text.len(), 64 | 70 | 76)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
        && !text.starts_with('/')
}

/// The credentials behind `Bearer `, `Basic ` or `Token `.
pub(super) fn scheme(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    if continues(text, start) {
        return None;
    }
    let value = end + text[end..].bytes().take_while(|b| *b == b' ').count();
    let is_token = |b: u8| dotted(b) || matches!(b, b'~' | b'+' | b'/' | b'=');
    let len = text[value..].bytes().take_while(|b| is_token(*b)).count();
    let credentials = &text[value..value + len];
    let is_basic =
        text[start..].starts_with(['B', 'b']) && text[start + 1..].starts_with(['a', 'A']);
    // base64 without padding or digits still mixes cases or has a length of its own.
    let min = if is_basic { 8 } else { 6 };
    let is_secret = len >= min && looks_random(credentials) && !is_prose(text, value);
    let is_path = credentials.starts_with('/') || credentials.contains("=/");
    (is_secret && !is_path).then_some((value, value + len))
}
