//! Glob patterns, as rules, filters and the command line write them: `*` matches any text, also
//! none, `?` matches one character, everything else matches itself. There is no escape.

/// Whether a pattern has wildcards. One without matches only the equal text.
#[must_use]
pub fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// Whether a pattern matches a whole text.
///
/// Needs no memory, and at most the product of both lengths in time: on a mismatch only the last
/// `*` takes in more text, since an earlier one could gain nothing.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, bytes) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // The position behind the last star, and the end of the text that the star takes in.
    let mut star: Option<(usize, usize)> = None;
    while t < bytes.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(b'?') => (p, t) = (p + 1, next_character(text, t)),
            Some(byte) if *byte == bytes[t] => (p, t) = (p + 1, t + 1),
            _ => match &mut star {
                Some((behind, end)) => {
                    *end = next_character(text, *end);
                    (p, t) = (*behind, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The start of the character behind the one at `at`.
fn next_character(text: &str, at: usize) -> usize {
    let mut next = at + 1;
    while !text.is_char_boundary(next) {
        next += 1;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, by trying every split; exponential.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), _) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            (Some(('?', rest)), Some((_, behind))) => naive(rest, behind),
            (Some((one, rest)), Some((other, behind))) => one == other && naive(rest, behind),
            (Some(_), None) => false,
        }
    }

    #[test]
    fn pattern_matches_whole_text() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*.service", "nginx.service", true),
            ("*.service", "nginx.socket", false),
            ("getty@*.service", "getty@tty1.service", true),
            ("a?c", "abc", true),
            ("a?c", "aäc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*b*", "ab", true),
            ("*ä?", "xäöäö", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_pattern_takes_bounded_time() {
        assert!(!matches(&"*a".repeat(1000), &"a".repeat(999)));
    }

    proptest! {
        #[test]
        fn agrees_with_naive_matcher(pattern in "[abä*?]{0,8}", text in "[abäö]{0,10}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }
    }
}
