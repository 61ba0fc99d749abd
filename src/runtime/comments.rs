//! Long comments between a key and its value. The parser of YAML keeps comments while it looks
//! ahead for the value of a key, at most 32 of them: a section of which everything is commented out
//! would be refused.

use std::borrow::Cow;

/// Lines of comments that the parser keeps in any case.
const KEPT_LINES: usize = 16;

/// The text with blank lines in place of long comments that follow a line with a key only. All
/// other lines stay where they are.
pub(super) fn without_long(text: &str) -> Cow<'_, str> {
    let is_comment = |line: &str| line.trim_start().starts_with('#') || line.trim().is_empty();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out: Option<String> = None;
    let mut at = 0;
    while at < lines.len() {
        let run = lines[at..].iter().take_while(|line| is_comment(line)).count();
        let has_key = at > 0 && ends_with_key(lines[at - 1]);
        if run > KEPT_LINES && has_key {
            let start: usize = lines[..at].iter().map(|line| line.len()).sum();
            let out = out.get_or_insert_with(|| text[..start].to_owned());
            out.extend(lines[at..at + run].iter().filter(|l| l.ends_with('\n')).map(|_| '\n'));
        } else if let Some(out) = &mut out {
            out.extend(lines[at..at + run].iter().copied());
        }
        at += run;
        if let (Some(line), Some(out)) = (lines.get(at), &mut out) {
            out.push_str(line);
        }
        at += 1;
    }
    out.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Whether a line has a key whose value is on a later line.
fn ends_with_key(line: &str) -> bool {
    let content = line.split(" #").next().unwrap_or_default();
    content.trim_end().ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_comments_after_a_key_become_blank_lines() {
        let comment = "  # x\n".repeat(60);
        let text = format!("{comment}a: 1\n{comment}b: # here\n{comment}\n  c: 2\n{comment}d: 3");
        let blank = "\n".repeat(60);
        let expected = format!("{comment}a: 1\n{comment}b: # here\n{blank}\n  c: 2\n{comment}d: 3");
        assert_eq!(without_long(&text), expected);
        for text in ["", "a: 1", "a:\n  # x\n  b: 1\n", "a:\n# x"] {
            assert!(matches!(without_long(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        let open = format!("a:\n{comment}");
        assert_eq!(without_long(&open), format!("a:\n{blank}"));
    }
}
