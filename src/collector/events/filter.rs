//! Filters names by glob patterns with `*` and `?`.

use serde::Deserialize;

/// Selects the names that match a pattern of `include` and none of `exclude`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Patterns of the selected names; an empty list selects all.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of the names that aren't selected.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether the filter selects a name.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        let any =
            |patterns: &[String]| patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes()));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Whether a pattern matches a whole name. Backtracks to the last `*` only, so the time is at most
/// the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The position of the last star, and the end of its match.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, n) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_like_shell_globs() {
        for (pattern, name, expected) in [
            ("*.service", "nginx.service", true),
            ("*.service", "nginx.socket", false),
            ("getty@*.service", "getty@tty1.service", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("run-*.mount", "run-user-0.mount", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn exclude_overrides_include() {
        let filter = Filter { include: vec!["*.service".into()], exclude: vec!["user@*".into()] };
        assert!(filter.selects("a.service"));
        assert!(!filter.selects("user@0.service") && !filter.selects("a.mount"));
        assert!(Filter { include: vec![], exclude: vec![] }.selects("anything"));
    }

    proptest! {
        #[test]
        fn patterns_match_like_equivalent_regex(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            let expected = regex::Regex::new(&regex).unwrap().is_match(&name);
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected);
        }
    }
}
