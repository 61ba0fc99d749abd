//! Which names are wanted: lists of patterns as file names have them, `*` and `?`.

use serde::Deserialize;

/// Wanted is what an entry of `include` matches and none of `exclude`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Patterns of what is wanted; none means everything.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of what isn't.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether a name is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let any =
            |patterns: &[String]| patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes()));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Whether a pattern matches a whole name. Only the last `*` is ever gone back to, so that it takes at
/// most the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The last star, and how far it reaches.
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
    fn patterns_match_as_in_a_shell() {
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
    fn exclusion_wins() {
        let filter = Filter { include: vec!["*.service".into()], exclude: vec!["user@*".into()] };
        assert!(filter.wants("a.service"));
        assert!(!filter.wants("user@0.service") && !filter.wants("a.mount"));
        assert!(Filter { include: vec![], exclude: vec![] }.wants("anything"));
    }

    proptest! {
        #[test]
        fn as_a_regular_expression_would(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            let expected = regex::Regex::new(&regex).unwrap().is_match(&name);
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected);
        }
    }
}
