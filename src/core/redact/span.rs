//! Ranges of a text that are replaced.

use super::value::REDACTED;

/// A range that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether the replacement gets quotes.
    pub(super) quote: bool,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start, end, quote: false }
    }
}

/// Replaces ranges; those that overlap become one.
pub(super) fn replace(text: &str, spans: &mut [Span]) -> String {
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
