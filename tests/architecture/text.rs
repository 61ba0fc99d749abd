//! Source text for the checks.

/// A file, with its code separated from comments and string literals.
pub(crate) struct Source {
    /// The path from the repository's root.
    pub(crate) path: String,
    /// Its lines as they are.
    pub(crate) lines: Vec<String>,
    /// The same lines with comments and string literals blanked.
    pub(crate) code: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Self { path: path.to_owned(), lines: lines(text), code: lines(&code(text)) }
    }

    /// `path:line: what`, for the line at this index.
    pub(crate) fn place(&self, index: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.path, index + 1)
    }
}

/// The text with everything inside comments and string literals replaced by blanks.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let rest = &text[i..];
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |n| n + 2)
        } else if let Some(hashes) = raw_text(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            rest[begin..].find(&close).map_or(rest.len(), |n| begin + n + close.len())
        } else if rest.starts_with('"') {
            text_end(rest)
        } else if let Some(len) = character(rest) {
            len
        } else {
            out.push(bytes[i]);
            i += 1;
            // No check depends on a multi-byte character outside of a literal.
            while i < bytes.len() && !text.is_char_boundary(i) {
                out.push(b' ');
                i += 1;
            }
            continue;
        };
        out.extend(rest[..end].bytes().map(|b| if b == b'\n' { b } else { b' ' }));
        i += end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The number of hashes of a raw string literal that begins here.
fn raw_text(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('r')?;
    let hashes = inside.bytes().take_while(|b| *b == b'#').count();
    inside[hashes..].starts_with('"').then_some(hashes)
}

fn text_end(rest: &str) -> usize {
    let mut escaped = false;
    for (i, b) in rest.bytes().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal that begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if inside.starts_with('\\') {
        return inside[2..].find('\'').map(|n| n + 4);
    }
    let len = inside.chars().next()?.len_utf8();
    inside[len..].starts_with('\'').then_some(len + 2)
}

#[test]
fn comments_and_string_literals_are_blanked() {
    let text = "a(\"{ // \\\" no\"); // } {\nb::<'a>('\"', '{', '\\''); r#\"{\"{\"#; /* {\n */ c";
    let source = Source::new("t.rs", text);
    assert_eq!(source.code.len(), 3);
    let all = source.code.join(" ");
    assert!(!all.contains(['{', '"']), "{all}");
    assert!(all.contains("b::<'a>(") && all.ends_with('c'), "{all}");
}
