//! Variables in the configuration: `${NAME}` and `${NAME:-default}` of the environment,
//! `${file:PATH}` for the contents of a file; `$$` is a dollar sign.
//!
//! A variable is substituted in a scalar once YAML is parsed: no value changes the structure, and a
//! secret such as `a #b: c` stays whole. The scalar is written into the text again, quoted, so that
//! deserialization reports the line and column of the file. A plain scalar that is one variable
//! stays plain where the value is a number or a flag.
//!
//! `${A}` isn't YAML everywhere: `[${A}]` has flow indicators. Before the text is parsed, each byte
//! of a variable is therefore replaced by a private-use character, which YAML takes for a letter.

use std::path::{Path, PathBuf};

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use tapio_core::redact::Redactor;

/// An error with its line and column, both from 1.
pub(super) type ErrorAt = (u64, u64, String);

/// The character that stands for the byte 0 of a variable.
const MASK: u32 = 0xe000;
/// Size of the largest file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Values shorter than this aren't removed from errors: they would match everywhere.
const MIN_HIDDEN_BYTES: usize = 4;

/// The sources of values.
pub(super) struct Variables<F> {
    /// The environment.
    pub(super) env: F,
    /// The folder of the configuration.
    pub(super) folder: PathBuf,
}

/// A configuration with the values of its variables.
#[derive(Default)]
pub(super) struct Expanded {
    /// The text.
    pub(super) text: String,
    edits: Vec<Edit>,
    /// The variables and their values.
    values: Vec<(String, String)>,
}

/// A scalar that was written again: its line, and its column and length before and after.
struct Edit {
    line: u64,
    column: u64,
    before: u64,
    after: u64,
}

impl Expanded {
    /// The column in the file of a position in the text.
    pub(super) fn column(&self, line: u64, column: u64) -> u64 {
        let mut moved = 0i64;
        for edit in self.edits.iter().filter(|edit| edit.line == line) {
            let start = edit.column.saturating_add_signed(moved);
            if column < start {
                break;
            }
            if column < start + edit.after {
                return edit.column;
            }
            moved += edit.after as i64 - edit.before as i64;
        }
        column.saturating_add_signed(-moved)
    }

    /// The values of files, and of variables whose names are those of secrets.
    pub(super) fn secrets(&self, redactor: &Redactor) -> Vec<String> {
        let is_secret = |name: &str| name.starts_with("file:") || !redactor.is_ordinary(name);
        let values =
            self.values.iter().filter(|(name, value)| !value.is_empty() && is_secret(name));
        let mut secrets: Vec<String> = values.map(|(_, value)| value.clone()).collect();
        // The longest first: another may be a part of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    /// A cause without the values of variables.
    pub(super) fn hide(&self, mut cause: String) -> String {
        for (name, value) in &self.values {
            if value.len() >= MIN_HIDDEN_BYTES {
                cause = cause.replace(value.as_str(), &format!("${{{name}}}"));
            }
        }
        cause
    }
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    /// Replaces the variables of a text.
    ///
    /// # Errors
    /// A variable without value, a file that can't be read, `${` without `}`.
    pub(super) fn expand(&self, text: &str) -> Result<Expanded, ErrorAt> {
        if !text.contains('$') {
            return Ok(Expanded { text: text.to_owned(), ..Expanded::default() });
        }
        if let Some(at) = text.find(|c| unmask(c).is_some()) {
            let (line, column) = position(text, at);
            return Err((line, column, "a private-use character isn't allowed here".into()));
        }
        let masked = mask(text);
        let mut out = Expanded::default();
        let mut written = 0;
        let mut parser = Parser::new_from_str(&masked);
        // An error of the syntax is reported by the deserialization, with its cause.
        while let Some(Ok((event, span))) = parser.next_event() {
            let Event::Scalar(value, style, ..) = event else { continue };
            let Some(mut range) = span.byte_range() else { continue };
            if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                range.start = block_header(&masked, range.start);
            }
            if range.start < written || !value.contains(|c| c == '$' || unmask(c).is_some()) {
                continue;
            }
            let source = &masked[range.clone()];
            let value = self.scalar(&value, &mut out.values).map_err(|(variable, cause)| {
                let starts = source.match_indices(|c| c == '$' || unmask(c) == Some('$'));
                let at = starts.map(|(at, _)| at).nth(variable).unwrap_or(0);
                let (line, column) = position(&masked, range.start + at);
                (line, column, cause)
            })?;
            let new = written_scalar(&value, style, source);
            push_unmasked(&masked[written..range.start], &mut out.text);
            let (line, column) = position(&masked, range.start);
            let length = |text: &str| text.chars().count() as u64;
            out.edits.push(Edit { line, column, before: length(source), after: length(&new) });
            out.text.push_str(&new);
            written = range.end;
        }
        push_unmasked(&masked[written..], &mut out.text);
        Ok(out)
    }

    /// The value of a scalar. The error has the number of dollar signs before it.
    fn scalar(
        &self,
        scalar: &str,
        values: &mut Vec<(String, String)>,
    ) -> Result<String, (usize, String)> {
        let mut out = String::with_capacity(scalar.len());
        let mut dollars = 0;
        let mut chars = scalar.chars().peekable();
        while let Some(c) = chars.next() {
            let plain = unmask(c);
            if plain != Some('$') {
                if c == '$' && chars.peek() == Some(&'{') {
                    return Err((dollars, "`${` without `}`".into()));
                }
                dollars += usize::from(c == '$');
                out.push(plain.unwrap_or(c));
                continue;
            }
            if chars.next_if(|next| unmask(*next) == Some('$')).is_some() {
                dollars += 2;
                out.push('$');
                continue;
            }
            // `{`, then the variable up to the first `}`.
            let mut variable = String::new();
            for c in chars.by_ref().skip(1) {
                match unmask(c) {
                    Some('}') => break,
                    plain => variable.push(plain.unwrap_or(c)),
                }
            }
            let (name, value) = self.value(&variable).map_err(|cause| (dollars, cause))?;
            // A default may have dollar signs of its own.
            dollars += 1 + variable.matches('$').count();
            out.push_str(&value);
            values.push((name, value));
        }
        Ok(out)
    }

    /// The name and the value of the variable in `${…}`.
    fn value(&self, variable: &str) -> Result<(String, String), String> {
        let (name, default) = match variable.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (variable, None),
        };
        let found = match name.strip_prefix("file:") {
            Some(path) => match (self.file(Path::new(path)), default) {
                (Err(_), Some(_)) => None,
                (read, _) => Some(read.map_err(|cause| format!("${{{name}}}: {cause}"))?),
            },
            None => (self.env)(name),
        };
        let value = found.or_else(|| default.map(str::to_owned));
        let value = value.ok_or_else(|| format!("${{{name}}} isn't set"))?;
        Ok((name.to_owned(), value))
    }

    /// The contents of a file without the final newline. A relative path is below
    /// `$CREDENTIALS_DIRECTORY` where systemd sets it, otherwise in the configuration's folder.
    fn file(&self, path: &Path) -> Result<String, String> {
        if path.as_os_str().is_empty() {
            return Err("the path is missing".into());
        }
        let credentials = (self.env)("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty());
        let folder = credentials.map_or_else(|| self.folder.clone(), PathBuf::from);
        let path = folder.join(path);
        let shown = path.display();
        let error = |e: std::io::Error| format!("{shown} can't be read: {e}");
        let metadata = std::fs::metadata(&path).map_err(error)?;
        if !metadata.is_file() {
            return Err(format!("{shown} isn't a regular file"));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(format!("{shown} is larger than {MAX_FILE_BYTES} bytes"));
        }
        let mut text = std::fs::read_to_string(&path).map_err(error)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        text.truncate(line.strip_suffix('\r').unwrap_or(line).len());
        Ok(text)
    }
}

/// The character that stands for a byte of a variable.
fn masked(c: char) -> char {
    if c.is_ascii() { char::from_u32(MASK + u32::from(c)).unwrap_or(c) } else { c }
}

/// The inverse of [`masked`]; `None` for any other character.
fn unmask(c: char) -> Option<char> {
    u32::from(c).checked_sub(MASK).filter(|byte| *byte < 0x80).and_then(char::from_u32)
}

/// Masks the variables and `$$` of a text. Variables end on their line.
fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        let len = match line.as_bytes() {
            [b'$', b'$', ..] => 2,
            [b'$', b'{', ..] => line.find('}').map_or(0, |end| end + 1),
            _ => 0,
        };
        out.extend(rest[..len].chars().map(masked));
        rest = &rest[len..];
        if len == 0 {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

fn push_unmasked(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| unmask(c).unwrap_or(c)));
}

/// Line and column, from 1, of a byte of a text.
fn position(text: &str, at: usize) -> (u64, u64) {
    let before = &text[..at];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    (line, column)
}

/// Where the header (`|`, `>-`) of a block begins whose contents begin at `contents`.
fn block_header(text: &str, contents: usize) -> usize {
    let before = text[..contents].trim_end();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let header = before[line..].match_indices(['|', '>']).find(|(at, _)| {
        let (head, tail) = (&before[line..line + at], &before[line + at + 1..]);
        let tail = tail.trim_start_matches(['-', '+']).trim_start_matches(|c: char| c.is_numeric());
        let tail = tail.trim_start_matches(['-', '+']);
        (head.is_empty() || head.ends_with([' ', '\t']))
            && (tail.is_empty() || tail.starts_with(' '))
    });
    header.map_or(contents, |(at, _)| line + at)
}

/// A scalar as YAML text of as many lines as `source` has.
fn written_scalar(value: &str, style: ScalarStyle, source: &str) -> String {
    let variables = source.chars().filter(|c| unmask(*c) == Some('$')).count();
    let is_one_variable = style == ScalarStyle::Plain
        && variables == 1
        && source.chars().all(|c| unmask(c).is_some());
    if is_one_variable && is_number_or_flag(value) {
        return value.to_owned();
    }
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() || unmask(c).is_some() || matches!(c, '\u{2028}' | '\u{2029}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    // A block is followed by the line breaks that it had.
    out.extend(source.matches('\n').map(|_| '\n'));
    out
}

/// Whether YAML takes a text for a number or a flag.
fn is_number_or_flag(value: &str) -> bool {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.matches('.').count() <= 1;
    is_number || matches!(value, "true" | "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document {
        text: Option<String>,
        number: Option<u64>,
        list: Option<Vec<String>>,
        last: Option<String>,
    }

    const SECRET: &str = "a #b: \"c\" 'd' \\e\n- [f]: {g}, ä";

    fn variables(folder: &Path) -> Variables<impl Fn(&str) -> Option<String>> {
        let env = |name: &str| {
            let value = match name {
                "SECRET" => SECRET,
                "N" => "12",
                "ZEROS" => "0012",
                "NULL" => "null",
                "TRUE" => "true",
                "EMPTY" => "",
                "DOLLARS" => "a$$b${N}",
                _ => return None,
            };
            Some(value.to_owned())
        };
        Variables { env, folder: folder.to_owned() }
    }

    fn parse(text: &str) -> Document {
        let expanded = variables(Path::new("/")).expand(text).unwrap();
        let lines = |text: &str| text.matches('\n').count();
        assert_eq!(lines(&expanded.text), lines(text), "{}", expanded.text);
        serde_saphyr::from_str(&expanded.text).unwrap_or_else(|e| panic!("{e}\n{}", expanded.text))
    }

    #[test]
    fn values_are_substituted_after_parsing() {
        for (scalar, expected) in [
            ("${SECRET}", SECRET),
            ("\"${SECRET}\"", SECRET),
            ("'${SECRET}'", SECRET),
            ("${SECRET} # comment ${NOPE}", SECRET),
            ("x${N}y$$z$", "x12y$z$"),
            ("\"it's ${N}\"", "it's 12"),
            ("'it''s ${N}'", "it's 12"),
            ("${ZEROS}", "0012"),
            ("${NULL}", "null"),
            ("${TRUE}", "true"),
            ("${EMPTY}", ""),
            ("${NOPE:-a #b: c}", "a #b: c"),
            ("${NOPE:-}", ""),
            ("${DOLLARS}", "a$$b${N}"),
            ("$${N}", "${N}"),
            ("|-\n  one ${N}\n  two", "one 12\ntwo"),
            ("| # a | b\n  one ${N}\n", "one 12\n"),
            (">-\n  one\n  two ${N}", "one two 12"),
            ("a b\n  c ${N}", "a b c 12"),
        ] {
            for text in [
                format!("text: {scalar}\nlast: ${{N}}x\n"),
                format!("# ${{NOPE}} ${{\nlast: ${{N}}x\ntext: {scalar}"),
            ] {
                let document = parse(&text);
                assert_eq!(document.text.as_deref(), Some(expected), "{text}");
                assert_eq!(document.last.as_deref(), Some("12x"), "{text}");
            }
        }
        assert_eq!(parse("number: ${N}").number, Some(12));
        let list = parse("list: [${N}, \"${SECRET}\", a${NOPE:-b}, ${SECRET}]\nlast: x").list;
        assert_eq!(list.unwrap(), ["12", SECRET, "ab", SECRET]);
    }

    #[test]
    fn quoted_variable_stays_text() {
        let expand = |text: &str| variables(Path::new("/")).expand(text).unwrap().text;
        assert_eq!(expand("a: \"${N}\""), "a: \"12\"");
        assert_eq!(expand("a: '${N}'"), "a: \"12\"");
        assert_eq!(expand("a: x${N}"), "a: \"x12\"");
        assert_eq!(expand("a: ${N}"), "a: 12");
        assert_eq!(expand("a: ${NULL}"), "a: \"null\"");
    }

    #[test]
    fn files_are_read_without_their_final_newline() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        std::fs::write(folder.path().join("pw"), "a #b: c\n\n").unwrap();
        std::fs::write(credentials.join("pw"), "of systemd\r\n").unwrap();
        let absolute = folder.path().join("pw").display().to_string();
        let expand = |text: &str| variables(folder.path()).expand(text);
        assert_eq!(expand("text: ${file:pw}").unwrap().text, "text: \"a #b: c\\n\"");
        assert_eq!(expand("t: ${file:none:-d}").unwrap().text, "t: \"d\"");
        let (line, column, cause) = expand("a: b\ntext: x${file:none}").err().unwrap();
        let path = folder.path().join("none");
        let expected = format!("${{file:none}}: {} can't be read: No such", path.display());
        assert!(cause.starts_with(&expected), "{cause}");
        assert_eq!((line, column), (2, 8));
        let folder_is_no_file = expand("text: ${file:credentials}").err().unwrap().2;
        assert!(folder_is_no_file.ends_with("isn't a regular file"), "{folder_is_no_file}");
        let dir = credentials.display().to_string();
        let env = move |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| dir.clone());
        let of_systemd = Variables { env, folder: folder.path().to_owned() };
        assert_eq!(of_systemd.expand("t: ${file:pw}").unwrap().text, "t: \"of systemd\"");
        let absolute = of_systemd.expand(&format!("t: ${{file:{absolute}}}")).unwrap();
        assert_eq!(absolute.text, "t: \"a #b: c\\n\"");
    }

    #[test]
    fn errors_have_their_place_in_the_file() {
        let error = |text: &str| variables(Path::new("/")).expand(text).err().unwrap();
        assert_eq!(error("a: ${N}\nb: x$$${NOPE}"), (2, 7, "${NOPE} isn't set".into()));
        assert_eq!(error("b: [${N}, ${NOPE}]"), (1, 11, "${NOPE} isn't set".into()));
        assert_eq!(error("b: x${N"), (1, 5, "`${` without `}`".into()));
        let text = "list: [${SECRET}, ${N}, ${N}]";
        let expanded = variables(Path::new("/")).expand(text).unwrap();
        let in_file = |needle: &str| {
            let at = expanded.text.rfind(needle).unwrap();
            expanded.column(1, position(&expanded.text, at).1)
        };
        assert_eq!(in_file("12"), text.rfind("${N}").unwrap() as u64 + 1);
        assert_eq!(in_file("]"), text.len() as u64);
        assert_eq!(expanded.column(1, 3), 3);
        assert_eq!(expanded.hide(format!("invalid {SECRET}!")), "invalid ${SECRET}!");
    }
}
