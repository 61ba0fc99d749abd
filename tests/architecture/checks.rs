//! The checks of source text. Each takes a file and returns its violations.

use crate::text::Source;

/// Files that may hold unsafe code.
const UNSAFE: &[&str] = &[
    // A timer's file descriptor in tokio's reactor: there is no safe way to register one.
    "src/timer.rs",
    // ASCII that was validated as text: the hottest line of the decoder.
    "src/wire/reader.rs",
    "src/core/ring/elastic.rs",
    "src/core/ring/record.rs",
    // Blocks that only a writer has initialised, as rtrb has them.
    "src/core/ring/rtrb_model.rs",
    // Landlock's system calls, which neither the standard library nor rustix has.
    "src/core/sandbox/landlock.rs",
    // The allocators' own functions: memory is returned on request.
    "src/core/memory/allocator.rs",
    // Calls the copy in assembly, in its test.
    "src/core/memory/copy.rs",
    // The pages of the program's code.
    "src/runtime/memory/start.rs",
    "src/collector/ebpf/",
    "src/cli/demo/fault.rs",
];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

/// Files of at most [`MAX_FILE_LINES`] lines.
pub(crate) fn sizes(source: &Source) -> Vec<String> {
    let lines = source.lines.len();
    if lines <= MAX_FILE_LINES {
        return vec![];
    }
    vec![source.place(MAX_FILE_LINES, format!("{lines} lines, at most {MAX_FILE_LINES}"))]
}

/// Functions of at most [`MAX_FUNCTION_LINES`] lines: rustfmt closes a function at its own
/// indentation.
pub(crate) fn functions(source: &Source) -> Vec<String> {
    let mut out = Vec::new();
    for (begin, line) in source.code.iter().enumerate() {
        let text = line.trim_start();
        let is_function = text.starts_with("fn ")
            || ["pub fn ", " fn ", "pub(crate) fn ", "pub(super) fn "]
                .iter()
                .any(|f| text.contains(f) && !text.starts_with("let "));
        if !is_function || text.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - text.len()]);
        let Some(len) = source.code[begin..].iter().position(|l| *l == close) else {
            continue;
        };
        if len + 1 > MAX_FUNCTION_LINES {
            let what = format!("a function of {} lines, at most {MAX_FUNCTION_LINES}", len + 1);
            out.push(source.place(begin, what));
        }
    }
    out
}

/// Unsafe code outside the listed files, or without a SAFETY comment.
pub(crate) fn unsafe_code(source: &Source) -> Vec<String> {
    let mut out = Vec::new();
    for (i, line) in source.code.iter().enumerate() {
        let is_unsafe = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern", "unsafe trait"]
            .iter()
            .any(|u| line.contains(u));
        if !is_unsafe {
            continue;
        }
        if !UNSAFE.iter().any(|place| source.path.starts_with(place)) {
            out.push(source.place(i, "unsafe code outside of the files listed for it"));
        }
        // In the comment before the statement, which may begin a few lines earlier.
        let reason = source.lines[i.saturating_sub(8)..=i]
            .iter()
            .any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
        if !reason {
            out.push(source.place(i, "unsafe code without a SAFETY comment"));
        }
    }
    out
}

/// Clocks are read through `tapio_core::clock`, so that stages are replayable.
pub(crate) fn clocks(source: &Source) -> Vec<String> {
    if source.path == "src/core/clock.rs" {
        return vec![];
    }
    let clocks =
        ["Instant::now", "SystemTime::now", "clock_gettime", "Timestamp::now", "Zoned::now"];
    find(&source.code, |line| clocks.into_iter().find(|c| line.contains(c)))
        .into_iter()
        .map(|(i, clock)| source.place(i, format!("{clock} outside of src/core/clock.rs")))
        .collect()
}

/// Marks of unfinished work. They are put together here, so that this file has none.
pub(crate) fn unfinished(source: &Source) -> Vec<String> {
    let marks = ["TO DO", "FIX ME", "XX X", "HA CK"].map(|w| w.replace(' ', ""));
    let phrases =
        ["place holder", "for+ now", "simpli fied", "not+ imple mented", "un implemented!"]
            .map(|w| w.replace(' ', "").replace('+', " "));
    let word = |line: &str, mark: &str| {
        line.match_indices(mark).any(|(at, _)| {
            let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !letter(line[..at].chars().next_back())
                && !letter(line[at + mark.len()..].chars().next())
        })
    };
    find(&source.lines, |line| {
        let small = line.to_lowercase();
        marks
            .iter()
            .find(|m| word(line, m))
            .or_else(|| phrases.iter().find(|p| small.contains(p.as_str())))
            .cloned()
    })
    .into_iter()
    .map(|(i, mark)| source.place(i, format!("{mark:?}: finish it or leave it out")))
    .collect()
}

fn find<T>(lines: &[String], hit: impl Fn(&str) -> Option<T>) -> Vec<(usize, T)> {
    lines.iter().enumerate().filter_map(|(i, line)| Some((i, hit(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(check: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text))
    }

    #[test]
    fn long_files_and_functions_are_found() {
        assert_eq!(lines(sizes, "ebpf/a.c", &"x\n".repeat(501)).len(), 1);
        assert_eq!(lines(sizes, "ebpf/a.c", &"x\n".repeat(500)).len(), 0);
        let function = |n| format!("    pub fn f() {{\n{}    }}\n", "        x();\n".repeat(n));
        assert_eq!(lines(functions, "src/a.rs", &function(68)).len(), 0);
        let found = lines(functions, "src/a.rs", &function(69));
        assert_eq!(found, ["src/a.rs:1: a function of 71 lines, at most 70"]);
    }

    #[test]
    fn unlisted_and_unexplained_unsafe_code_is_found() {
        // In two pieces: another check reads this file, too.
        let bare = concat!("unsafe ", "{ f() }");
        let explained = format!("// SAFETY: sound\n{bare}");
        assert_eq!(lines(unsafe_code, "src/core/event/a.rs", &explained).len(), 1);
        assert_eq!(lines(unsafe_code, "src/core/ring/record.rs", bare).len(), 1);
        assert_eq!(lines(unsafe_code, "src/core/event/a.rs", bare).len(), 2);
        assert_eq!(lines(unsafe_code, "src/core/ring/record.rs", &explained).len(), 0);
        assert_eq!(lines(unsafe_code, "src/a.rs", &format!("\"{bare}\"")).len(), 0);
    }

    #[test]
    fn clock_reads_are_found() {
        assert_eq!(lines(clocks, "src/a.rs", "let t = Instant::now();").len(), 1);
        assert_eq!(lines(clocks, "src/core/clock.rs", "let t = Instant::now();").len(), 0);
    }

    #[test]
    fn unfinished_work_is_found() {
        for bad in [["TO", "DO: later"], ["FIX", "ME"], ["a Place", "holder"], ["for", " now it"]] {
            assert_eq!(lines(unfinished, "src/a.rs", &format!("// {}", bad.concat())).len(), 1);
        }
        for fine in ["// a therefore nowhere", "FOOBAR", "// a mastodon"] {
            assert_eq!(lines(unfinished, "src/a.rs", fine).len(), 0, "{fine}");
        }
    }
}
