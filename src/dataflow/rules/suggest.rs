//! Suggestions for misspelt words.

/// "unknown … `x`: did you mean `y`?", or the list of known words where none is near.
#[must_use]
pub fn unknown(noun: &str, text: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (distance(text, k), *k)).min();
    match nearest {
        Some((d, near)) if d <= 2.max(text.len() / 3) => {
            format!("unknown {noun} `{text}`: did you mean `{near}`?")
        }
        _ => format!("unknown {noun} `{text}`: expected one of {}", known.join(", ")),
    }
}

/// The known word at most two edits away from a text; `None` where the text is a known word.
pub(super) fn near_miss<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = known.into_iter().map(|k| (distance(text, k), k)).min()?;
    (1..=2).contains(&near.0).then_some(near.1)
}

/// Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_word_is_suggested() {
        assert!(unknown("key", "withn", &["within", "by"]).contains("`within`"));
        assert!(unknown("key", "elephant", &["within", "by"]).ends_with("one of within, by"));
        assert_eq!(near_miss("withn", ["within"]), Some("within"));
        assert_eq!(near_miss("within", ["within"]), None);
    }
}
