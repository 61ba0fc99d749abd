//! Templates of log records, by one pass over a text: numbers and ids are left out of what is
//! hashed, so texts that differ only in them are equal. Unlike Drain (`evidence/log_template.rs`)
//! it keeps nothing, which the rate of all log records of a node calls for.

use std::hash::{BuildHasher as _, Hasher as _};

use super::fact::Key;
use tapio_core::text_prefix::text_prefix;

/// The part of a text that counts: what follows is mostly data.
const MAX_BYTES: usize = 240;

/// Calls `take` with the fixed parts of a text, and with `#` for each number and id.
fn fixed_parts(text: &str, mut take: impl FnMut(&str)) {
    let mut rest = text_prefix(text, MAX_BYTES);
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric()) {
        rest = &rest[start..];
        let len = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        rest = after;
        match word.find(|c: char| c.is_ascii_digit()) {
            None => take(word),
            // A word with a number, such as `Z1234` or `v2`.
            Some(at) if at > 0 && word[at..].bytes().all(|b| b.is_ascii_digit()) => {
                take(&word[..at]);
                take("#");
            }
            // A number, or an id such as a part of a UUID.
            Some(_) => take("#"),
        }
    }
}

/// The template of a text as a key.
pub(super) fn template_key(text: &str, hasher: &ahash::RandomState) -> Key {
    let (mut state, mut after_number) = (hasher.build_hasher(), false);
    fixed_parts(text, |part| {
        // As in the text for a reader: a list of numbers counts once.
        if part != "#" || !after_number {
            state.write(part.as_bytes());
            state.write_u8(b' ');
        }
        after_number = part == "#";
    });
    state.finish()
}

/// The template of a text for a reader.
pub(super) fn template_text(text: &str) -> String {
    let mut out = String::new();
    fixed_parts(text, |part| {
        if part == "#" && out.ends_with('#') {
            return;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(part);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_are_left_out() {
        for (text, template) in [
            ("user 17 has paid 12.50 EUR", "user # has paid # EUR"),
            ("order 93bead877ae15b6d done", "order # done"),
            ("id=e24bb484-516a-4aad-b37f-517e7139e913 name=ZhiDa", "id # name ZhiDa"),
            ("train Z1234 at station1", "train Z # at station #"),
            ("", ""),
            ("…", ""),
        ] {
            assert_eq!(template_text(text), template, "{text}");
        }
    }

    #[test]
    fn equal_templates_have_equal_keys() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let key = |text: &str| template_key(text, &hasher);
        assert_eq!(key("got 5 rows in 17 ms"), key("got 5120 rows in 3 ms"));
        assert_ne!(key("got 5 rows"), key("lost 5 rows"));
        let long = "x ".repeat(200);
        assert_eq!(key(&format!("{long}a")), key(&format!("{long}b")), "the end is data");
        assert_eq!(key(&"ä".repeat(150)), key(&"ä".repeat(200)));
    }
}
