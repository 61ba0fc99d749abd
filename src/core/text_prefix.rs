//! The beginning of a text, by bytes.

/// The longest beginning of a text of at most this many bytes that doesn't split a character.
#[must_use]
pub fn text_prefix(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole() {
        for (max_bytes, prefix) in [(0, ""), (1, "a"), (2, "a"), (3, "aä"), (9, "aäb")] {
            assert_eq!(text_prefix("aäb", max_bytes), prefix, "{max_bytes}");
        }
    }
}
