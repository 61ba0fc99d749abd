//! The style rules that a test can check: prose of at most 100 columns, and no phrases of the old
//! idiom.

use crate::text::Source;

const MAX_PROSE_COLUMNS: usize = 100;

/// Words of the old idiom, assembled from parts so that this file passes its own check.
fn idiom() -> Vec<String> {
    let words = ["to ld", "te lls", "te lling", "te ller", "unto ld", "recol lect"];
    let phrases = [
        "who+is+w ho",
        "a+use+fo r",
        "been+given+o ut",
        "sign+of+li fe",
        "signs+of+li fe",
        "for+want+o f",
        "becomes+o f",
    ];
    words.iter().chain(&phrases).map(|w| w.replace(' ', "").replace('+', " ")).collect()
}

/// Comments that are too wide, or that use the old idiom.
pub(crate) fn comments(source: &Source) -> Vec<String> {
    let idiom = idiom();
    let mut out = Vec::new();
    for (i, line) in source.lines.iter().enumerate() {
        let Some(comment) = comment_of(line) else { continue };
        let columns = line.chars().count();
        // A link or a path can't be wrapped.
        if columns > MAX_PROSE_COLUMNS && comment.trim().contains(' ') {
            out.push(source.place(i, format!("{columns} columns, at most {MAX_PROSE_COLUMNS}")));
        }
        out.extend(
            found(&idiom, comment).map(|word| source.place(i, format!("old idiom: {word:?}"))),
        );
        for opening in ["What ", "Who ", "Whose "] {
            let begins =
                line.trim_start().starts_with("///") || line.trim_start().starts_with("//!");
            let first = i == 0 || comment_of(&source.lines[i - 1]).is_none();
            if begins && first && comment.trim_start().starts_with(opening) {
                out.push(source.place(
                    i,
                    "a doc comment begins with what the item is or does, not with \"What …\"",
                ));
            }
        }
    }
    out
}

/// Names and texts in code that use the old idiom.
pub(crate) fn names(source: &Source) -> Vec<String> {
    let idiom = idiom();
    let mut out = Vec::new();
    for (i, line) in source.lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // Underscores separate the words of a name.
        let spread = code.replace('_', " ");
        out.extend(
            found(&idiom, &spread).map(|word| source.place(i, format!("old idiom: {word:?}"))),
        );
    }
    out
}

fn comment_of(line: &str) -> Option<&str> {
    let text = line.trim_start();
    ["///", "//!", "//"].iter().find_map(|mark| text.strip_prefix(mark))
}

/// The words that occur in the text as whole words.
fn found<'a>(words: &'a [String], text: &str) -> impl Iterator<Item = &'a String> {
    let text = text.to_lowercase();
    words.iter().filter(move |word| {
        text.match_indices(word.as_str()).any(|(at, _)| {
            let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
            !letter(text[..at].chars().next_back())
                && !letter(text[at + word.len()..].chars().next())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_idiom_and_wide_comments_are_found() {
        let count = |check: fn(&Source) -> Vec<String>, text: &str| {
            check(&Source::new("src/a.rs", text)).len()
        };
        for bad in [["/// A story is to", "ld."], ["// who is", " who"], ["/// Wh", "at it is."]] {
            assert_eq!(count(comments, &bad.concat()), 1, "{bad:?}");
        }
        assert_eq!(count(comments, &format!("// {}", "wide ".repeat(20))), 1);
        assert_eq!(count(comments, &format!("// {}", "w".repeat(120))), 0);
        assert_eq!(count(comments, "/// Emits a story.\n/// What follows is fine."), 0);
        assert_eq!(count(names, &["let to", "ld = 1;"].concat()), 1);
        assert_eq!(count(names, &["fn what_is_to", "ld_twice() {}"].concat()), 1);
        assert_eq!(count(names, &["let threshold = unto", "ld_riches.tolds();"].concat()), 1);
        assert_eq!(count(names, "let threshold = 1; // a note"), 0);
    }
}
