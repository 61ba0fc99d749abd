//! Errors of the YAML reader in the words of a configuration file: its keys, and what may stand
//! there.

/// Messages of the reader, and their meaning. The reader names types of this program and its own
/// options, which nobody can set in a file.
const MEANINGS: &[(&str, &str)] = &[
    ("expected mapping start", "expected keys with values, such as `key: value`"),
    ("expected sequence start", "expected a list, such as `[a, b]`"),
    ("expected string scalar", "expected a text, not a list or keys with values"),
    ("invalid boolean", "expected `true` or `false`"),
    ("invalid u", "expected a whole number that isn't negative"),
    ("invalid i", "expected a whole number"),
    ("invalid f", "expected a number"),
    ("cannot deserialize tagged scalar", "a tag (`!…`) isn't allowed here"),
    ("multiple YAML documents", "another document begins here; a file has one"),
    ("alias references unknown anchor", "the alias (`*…`) has no anchor (`&…`) before it"),
];

/// The cause of an error at a line and a column (from 1), with the key at which it is.
pub(super) fn describe(cause: &str, text: &str, line: u64, column: u64) -> String {
    if let Some(rest) = cause.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(',').next().unwrap_or(rest);
        return format!("`{key}` occurs twice");
    }
    let cause = match cause.strip_prefix("unknown variant ") {
        Some(rest) => format!("unknown value {rest}"),
        None => match MEANINGS.iter().find(|(said, _)| cause.starts_with(said)) {
            Some((_, meant)) => (*meant).to_owned(),
            None => return cause.to_owned(),
        },
    };
    let key = key_at(text, line, column);
    if key.is_empty() { cause } else { format!("{key}: {cause}") }
}

/// The dotted key whose value is at a line and a column; empty at the top of the document.
fn key_at(text: &str, line: u64, column: u64) -> String {
    // Keys with the column in which they begin, from outside to inside.
    let mut open: Vec<(usize, String)> = Vec::new();
    for (number, text) in (1u64..).zip(text.lines()) {
        if number > line {
            break;
        }
        let until = match number == line {
            true => text.chars().take(column.saturating_sub(1) as usize).collect(),
            false => text.to_owned(),
        };
        add_keys(&until, &mut open);
    }
    open.into_iter().map(|(_, key)| key).collect::<Vec<_>>().join(".")
}

/// Adds the keys of a line: one by its indentation, and those in braces behind it.
fn add_keys(line: &str, open: &mut Vec<(usize, String)>) {
    let trimmed = line.trim_start();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return;
    }
    let indent = line.len() - trimmed.len();
    open.retain(|(at, _)| *at < indent);
    let mut depth = Vec::new();
    let mut word = String::new();
    for (at, c) in line.char_indices() {
        match c {
            '{' => depth.push(open.len()),
            '}' => open.truncate(depth.pop().unwrap_or(open.len())),
            ',' => open.truncate(depth.last().copied().unwrap_or(open.len())),
            ':' if !word.is_empty() => open.push((indent + at, std::mem::take(&mut word))),
            c if c.is_alphanumeric() || c == '_' => {
                word.push(c);
                continue;
            }
            _ => {}
        }
        word.clear();
        if c == ':' && depth.is_empty() {
            // The rest is this key's value; only braces have keys in it.
            if let Some(last) = open.last_mut() {
                last.0 = indent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_place_is_found() {
        let text = "node: a\n# bridge: x\nbridge:\n  endpoint: b\n\ncollectors:\n  jsonl: { paths: \
                    a, follow: b }\n  ebpf:\n    kinds: [x]\n  only: c\n";
        for (line, column, key) in [
            (1, 7, "node"),
            (4, 13, "bridge.endpoint"),
            (7, 19, "collectors.jsonl.paths"),
            (7, 30, "collectors.jsonl.follow"),
            (9, 13, "collectors.ebpf.kinds"),
            (10, 9, "collectors.only"),
            (1, 1, ""),
        ] {
            assert_eq!(key_at(text, line, column), key, "{line}:{column}");
        }
    }

    #[test]
    fn any_place_in_any_text_has_a_key_or_none() {
        for text in ["", ":::", "{{{", "}}}", "a: {b: {c: }}, d", "ä: {ö: 1}", "\t: x", ",,,:,:"]
        {
            for (line, column) in [(0, 0), (1, 1), (1, 9), (9, 1), (u64::MAX, u64::MAX)] {
                let _ = key_at(text, line, column);
            }
        }
    }
}
